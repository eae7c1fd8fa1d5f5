"""Marks of log rows in a file: made for old ones, lost, taken away, and used by every question."""

import time
from collections.abc import Callable
from contextlib import closing
from itertools import product
from pathlib import Path
from typing import Any

import apsw
import pytest

from rollbook import LogEntry, LogLimits, LogQuery, LogReader, StateRuntime
from rollbook.store import logs
from rollbook.store.engine import LOGS
from rollbook.store.log_marks import SPAN_SIZE
from rollbook.store.migrate import _HISTORY_TABLE, load_migrations
from rollbook.store.sqlite_file import kept_files
from tests.conftest import as_another_program, is_sound, run_sql

ROWS = 5 * SPAN_SIZE
KEEP_ALL = LogLimits(retention_days=10**9)
QUESTIONS = [
    {"level": "warn"},
    {"from_ts": 700, "to_ts": 720},
    {"module_like": ["LOOP", "net"]},
    {"file_like": ["Tool.py"]},
    {"thread_ids": ["a"]},
    {"thread_ids": ["a", "b"], "include_threadless": True},
    {"include_threadless": True, "level": "error"},
    {"search": "number 7"},
    {"search": "number 123 "},
    {"search": "12"},
    {"search": "nowhere", "thread_ids": ["a"]},
    {"search": "of row", "to_ts": 600, "level": "WARNING"},
    {"after_id": 2000, "up_to_id": 3001, "thread_ids": ["b"]},
    {},
]


def eventually(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.005)


def entry(number: int) -> LogEntry:
    module = ("agent.loop", "agent.net", "tool", None)[number // 300 % 4]
    return LogEntry(
        ts=number // 5,
        ts_nanos=0,
        level=("INFO", "WARN", "warning", "ERROR")[number % 97 % 4],
        target="t",
        message=f"number {number} of row",
        thread_id=("a", "b", None)[number // 700 % 3],
        module_path=module,
        file=module and f"src/{module}.py",
    )


def answers(ask: Callable[[LogQuery], list[Any]]) -> list[list[Any]]:
    return [
        ask(LogQuery(**each, limit=limit, descending=descending))
        for each, limit, descending in product(QUESTIONS, (None, 20), (False, True))
    ]


@pytest.fixture
def database(home) -> Path:
    return home / "rollbook" / "logs.sqlite"


@pytest.fixture
def old(database) -> Path:
    """A database of the first schema, with rows."""
    first = load_migrations("sqlite", "logs")[0]
    database.parent.mkdir(parents=True)
    with closing(apsw.Connection(str(database))) as connection:
        connection.pragma("auto_vacuum", "incremental")
        connection.pragma("application_id", LOGS.application_id)
        connection.pragma("journal_mode", "wal")
        connection.execute(_HISTORY_TABLE + ";" + first.sql).fetchall()
        connection.execute(
            "INSERT INTO schema_migrations VALUES (?, ?, ?)",
            (first.version, first.name, first.checksum),
        )
        columns = ", ".join(logs.COLUMNS)
        with connection:
            connection.executemany(
                f"INSERT INTO logs ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (logs._to_row(entry(number)) for number in range(ROWS)),
            )
            connection.execute(
                "INSERT INTO log_threads (thread_id, bytes)"
                f" SELECT coalesce(thread_id, ''), sum({logs._SIZE}) FROM logs GROUP BY 1"
            )
    return database


@pytest.fixture
def marked(home, database) -> Path:
    with StateRuntime.open(home, backfill=False, log_limits=KEEP_ALL) as state:
        state.insert_logs([entry(number) for number in range(ROWS)])
    return database


def spans(database: Path) -> int:
    [(found,)] = run_sql(database, "SELECT count(*) FROM log_spans")
    return found


def test_an_old_file_is_marked_and_gives_the_same_answers(old, home):
    before = answers(LogReader.open(home).query_logs)
    assert [len(each) for each in before[:2]] != [0, 0]
    with StateRuntime.open(home, backfill=False, log_limits=KEEP_ALL) as state:
        assert answers(state.query_logs) == before
        assert spans(old) == 0
        state.insert_log(entry(ROWS))
        eventually(lambda: spans(old) == ROWS // SPAN_SIZE)
        assert state.delete_logs_before(0) == 0
        asked = [[row for row in each if row.id <= ROWS] for each in answers(state.query_logs)]
        for now, earlier in zip(asked, before, strict=True):
            assert now == earlier[: len(now)]
            assert len(now) >= len(earlier) - 1  # where the new row is among the last 20
    assert is_sound(old)


def test_a_marked_file_is_read_by_a_reader_as_by_its_program(marked, home):
    with StateRuntime.open(home, backfill=False, log_limits=KEEP_ALL) as state:
        found = answers(state.query_logs)
        assert answers(LogReader.open(home).query_logs) == found
        connection = as_another_program(marked)
        connection.execute("DROP TABLE log_spans")  # so that every row is looked at
        connection.close()
        assert answers(LogReader.open(home).query_logs) == found


@pytest.mark.parametrize(
    "table", ["log_values", "log_marks", "log_spans", "log_texts", "log_texts_data", "log_threads"]
)
def test_a_file_that_has_lost_a_table_is_made_anew_with_its_rows(marked, home, table):
    with as_another_program(marked) as connection:
        connection.execute(f"DROP TABLE {table}")
    with StateRuntime.open(home, backfill=False, log_limits=KEEP_ALL) as state:
        found = state.query_logs(LogQuery(search="number 123 "))
        assert [row.message for row in found] == ["number 123 of row"]
        assert len(state.query_logs()) == ROWS + 1  # and the report
    assert len(kept_files(marked)) == 1
    assert is_sound(marked)


def test_marks_go_with_the_rows(marked, home):
    with StateRuntime.open(home, backfill=False, log_limits=KEEP_ALL) as state:
        state.insert_logs([entry(number) for number in range(ROWS, ROWS + 2 * SPAN_SIZE)])
        state.delete_logs_before(ROWS // 5)
        eventually(lambda: spans(marked) <= 2)
        tables = ("log_marks", "log_texts_docsize")
        for table, column in zip(tables, ("block", "id"), strict=True):
            eventually(
                lambda table=table, column=column: (
                    run_sql(marked, f"SELECT min({column}) FROM {table}")[0][0] >= ROWS // 64
                )
            )
    assert is_sound(marked)


def test_no_question_looks_at_every_row_or_sorts_more_than_it_has_found(marked, home):
    statements: dict[str, Any] = {}

    def note(_cursor, sql, values):
        statements[sql] = values
        return True

    with StateRuntime.open(home, backfill=False, log_limits=KEEP_ALL) as state:
        state.query_logs(LogQuery(limit=1))
        connections = state._logs._open()[0]._connections._open
        for connection in connections:
            connection.exec_trace = note
        answers(state.query_logs)
        state.insert_logs([entry(number) for number in range(2 * SPAN_SIZE)])
        for connection in connections:
            connection.exec_trace = None
    asking = {sql: values for sql, values in statements.items() if "log" in sql and " " in sql}
    assert len(asking) > 20
    with closing(as_another_program(marked)) as connection:
        for sql, values in asking.items():
            plan = [step[3] for step in connection.execute(f"EXPLAIN QUERY PLAN {sql}", values)]
            assert not any(step.startswith("SCAN logs") for step in plan), (sql, plan)
            assert not any(step.startswith("SCAN log_marks") for step in plan), (sql, plan)
            if "json_each(:ranges)" not in sql:  # whose rows are few, and mostly asked for
                assert not any("TEMP B-TREE" in step for step in plan), (sql, plan)
