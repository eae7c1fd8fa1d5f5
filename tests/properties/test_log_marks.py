"""Whatever the marks of log rows say, a question is answered as a look at every row answers it."""

from collections.abc import Iterator
from itertools import repeat
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rollbook import LogEntry, LogQuery
from rollbook.store import log_marks, logs
from rollbook.store.engine import LOGS
from rollbook.store.log_marks import SPAN_SIZE
from rollbook.store.logs import Amount
from rollbook.store.sqlite import SqliteEngine
from rollbook.store.sqlite_transaction import SqliteTransaction
from tests.conformance.test_logs import as_row, is_asked_for

ALL = Amount(1 << 40, 1 << 40)
LEVELS = ["INFO", "info", "WARNING", "warn", "straße", "\0"]
THREADS = ["a", "b", "c\ud800", None, ""]
PLACES = ["agent.loop", "Agent.Tool", "é", "", None]
WORDS = [
    "the tool",
    "TOOL",
    "É",
    "e\u0301",
    "\n",
    '"',
    "'",
    "\0",
    "\ud800",
    "\U0001f600",
    "ß",
    "x AND y",
]
WORDS += [
    "Kelvin \u212a",
    "\u0130",
    "ool\nthe",
    "a",
    "*",
    "\u0301\u0302\u0303",
    "\ufffe",
    "\x1c\x1d",
]

texts = st.lists(st.sampled_from(WORDS), max_size=4).map("".join) | st.text(max_size=6)
rows = st.builds(
    LogEntry,
    ts=st.integers(0, 20),
    ts_nanos=st.just(0),
    level=st.sampled_from(LEVELS),
    target=st.just("t"),
    message=st.none() | texts,
    thread_id=st.sampled_from(THREADS),
    module_path=st.sampled_from(PLACES),
    file=st.sampled_from(PLACES),
)
places = st.lists(st.sampled_from(["LOOP", "agent", "é", "É", "", "o"]), max_size=2)
ids = st.integers(0, 7 * SPAN_SIZE) | st.integers(-(2**64), 2**64)
filters = st.one_of(
    st.builds(lambda level: {"level": level}, st.sampled_from(LEVELS)),
    st.builds(lambda ts: {"from_ts": ts}, st.integers(0, 20)),
    st.builds(lambda ts: {"to_ts": ts}, st.integers(0, 20)),
    st.builds(lambda texts: {"module_like": texts}, places),
    st.builds(lambda texts: {"file_like": texts}, places),
    st.builds(
        lambda wanted: {"thread_ids": wanted},
        st.lists(st.sampled_from(["a", "b", "c\ud800", "none", ""]), max_size=3),
    ),
    st.just({"include_threadless": True}),
    st.builds(lambda text: {"search": text}, texts),
    st.builds(lambda row_id: {"after_id": row_id}, ids),
    st.builds(lambda row_id: {"up_to_id": row_id}, ids),
)
queries = st.builds(
    lambda chosen, limit, descending: LogQuery(
        **{name: value for each in chosen for name, value in each.items()},
        limit=limit,
        descending=descending,
    ),
    st.lists(filters, max_size=3),
    st.none() | st.integers(0, 300),
    st.booleans(),
)
batches = st.lists(rows, min_size=1, max_size=9)
insertions = st.tuples(
    st.sampled_from(["insert", "insert", "leave unmarked"]), batches, st.integers(100, 500)
)
changes = st.one_of(
    insertions,
    st.tuples(st.just("delete before"), st.integers(0, 21)),
    st.tuples(st.just("delete oldest"), st.integers(1, 3000)),
    st.tuples(st.just("delete thread"), st.sampled_from(["a", "b", ""]), st.integers(1, 900)),
    st.tuples(st.just("forget"), st.integers(1, 40)),
    st.tuples(st.just("restore"), st.integers(1, 40), st.integers(0, 40)),
    st.tuples(st.just("mark"), st.integers(1, 5)),
)


def in_runs(entries: list[LogEntry], times: int) -> Iterator[LogEntry]:
    """Repeat each so often that blocks differ, and the last once more, so that some are alone."""
    for entry in entries[:-1]:
        yield from repeat(entry, times)
    yield entries[-1]


class Model:
    """A database of logs, and beside it what is in it, as plain rows."""

    def __init__(self, engine: SqliteEngine) -> None:
        self._engine = engine
        self.rows: dict[int, LogEntry] = {}
        self._deleted: dict[int, LogEntry] = {}
        with engine.write() as tx:
            for table in ("logs", "log_threads", "log_values", "log_spans"):
                tx.execute(f"DELETE FROM {table}")
            for table in ("log_marks", "sqlite_sequence"):
                tx.execute(f"DELETE FROM {table}")
            tx.execute("INSERT INTO log_texts (log_texts) VALUES ('delete-all')")

    def do(self, name: str, *how: Any) -> None:
        with self._engine.write() as tx:
            getattr(self, f"_{name.replace(' ', '_')}")(tx, *how)

    def _insert(self, tx: SqliteTransaction, entries: list[LogEntry], times: int) -> None:
        last = max([0, *self.rows, *self._deleted])
        new = dict(enumerate(in_runs(entries, times), last + 1))
        logs.insert(tx, new.values())
        self.rows.update(new)

    def _leave_unmarked(self, tx: SqliteTransaction, entries: list[LogEntry], times: int) -> None:
        """Insert as a release without marks did, as far as they are concerned."""
        last = max([0, *self.rows, *self._deleted])
        new = dict(enumerate(in_runs(entries, times), last + 1))
        for entry in entries:
            tx.execute(
                logs._STATEMENTS["count"],
                {"thread_id": as_row(1, entry).thread_id or "", "bytes": 0},
            )
        tx.insert_many("logs", logs.COLUMNS, [logs._to_row(entry) for entry in new.values()])
        self._count_anew(tx)
        self.rows.update(new)

    def _count_anew(self, tx: SqliteTransaction) -> None:
        tx.execute(
            "UPDATE log_threads SET bytes = (SELECT coalesce(sum("
            f"{logs._SIZE}), 0) FROM logs WHERE coalesce(thread_id, '') = log_threads.thread_id)"
        )

    def _take(self, deleted: list[int]) -> None:
        self._deleted.update({row_id: self.rows.pop(row_id) for row_id in deleted})

    def _delete_before(self, tx: SqliteTransaction, ts: int) -> None:
        expected = [row_id for row_id, row in sorted(self.rows.items()) if row.ts < ts]
        found = logs.ids(tx, LogQuery(to_ts=ts - 1))
        assert logs.delete(tx, found, ALL.bytes) == expected
        self._take(expected)

    def _delete_oldest(self, tx: SqliteTransaction, count: int) -> None:
        expected = sorted(self.rows)[:count]
        assert logs.delete_oldest(tx, Amount(count, ALL.bytes)) == len(expected)
        self._take(expected)

    def _delete_thread(self, tx: SqliteTransaction, thread_id: str, count: int) -> None:
        own = [i for i, row in sorted(self.rows.items()) if (row.thread_id or "") == thread_id]
        assert logs.delete_oldest_of(tx, thread_id, Amount(count, ALL.bytes)) == len(own[:count])
        self._take(own[:count])

    def _restore(self, tx: SqliteTransaction, every: int, first: int) -> None:
        chosen = sorted(self._deleted)[first::every]
        back = {row_id: self._deleted.pop(row_id) for row_id in chosen}
        values = [
            {"id": row_id} | dict(zip(logs.COLUMNS, logs._to_row(entry), strict=True))
            for row_id, entry in back.items()
        ]
        assert logs.restore(tx, values) == len(values)
        self.rows.update(back)

    def _mark(self, tx: SqliteTransaction, most: int) -> None:
        log_marks.mark_next(tx, most)

    def _forget(self, tx: SqliteTransaction, most: int = 100) -> None:
        for span in log_marks.empty_spans(tx, most):
            log_marks.forget_empty(tx, span)

    def assert_answers(self, query: LogQuery) -> None:
        expected = [
            as_row(*each) for each in sorted(self.rows.items()) if is_asked_for(query, *each)
        ]
        with self._engine.read() as tx:
            assert logs.max_id(tx, query) == max((row.id for row in expected), default=0)
            if query.descending:
                expected.reverse()
            assert logs.select(tx, query) == expected[: query.limit]

    def assert_all_marks_go(self) -> None:
        with self._engine.write() as tx:
            logs.delete_oldest(tx, ALL)
            self._forget(tx)
            for table in ("log_spans", "log_values", "log_marks"):
                assert tx.query(f"SELECT * FROM {table}") == []
            assert tx.query("SELECT count(*) FROM log_texts_docsize") == [(0,)]
            assert tx.query("SELECT * FROM log_threads") == []


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SqliteEngine]:
    opened = SqliteEngine.open(tmp_path_factory.mktemp("logs") / "logs.sqlite", LOGS)
    yield opened
    opened.close()


@settings(deadline=None, max_examples=30, suppress_health_check=list(HealthCheck))
@given(
    st.lists(insertions, min_size=1, max_size=3),
    st.lists(changes, max_size=6),
    st.lists(queries, min_size=8, max_size=16),
)
def test_questions_are_answered_as_by_a_look_at_every_row(engine, begin, then, asked):
    model = Model(engine)
    for step in (*begin, *then):
        model.do(*step)
    for query in asked:
        model.assert_answers(query)
    model.assert_all_marks_go()


@settings(deadline=None, max_examples=40)
@given(st.lists(texts, min_size=1, max_size=3), texts)
def test_a_text_is_found_wherever_it_stands_among_the_messages_of_a_block(engine, around, wanted):
    model = Model(engine)
    messages = [*around, f"before{wanted}after"]
    entries = [LogEntry(1, 0, "INFO", "t", message) for message in messages]
    model.do("insert", entries, 2 * SPAN_SIZE // len(entries))
    model.assert_answers(LogQuery(search=wanted, limit=3))
    model.assert_answers(LogQuery(search=wanted.upper(), descending=True))
    model.assert_all_marks_go()


FILTERS = [
    {"search": "one more"},
    {"level": "odd"},
    {"module_like": ["odd"]},
    {"file_like": ["odd"]},
    {"thread_ids": ["odd"]},
    {"to_ts": 3},
]


@pytest.mark.parametrize("number", [1, 63, 64, SPAN_SIZE - 1, SPAN_SIZE, 2 * SPAN_SIZE])
def test_rows_that_come_back_are_found_again(engine, number):
    usual = LogEntry(9, 0, "INFO", "t", "as ever", "a", "m", "f")
    odd = LogEntry(3, 0, "odd", "t", "one more", "odd", "odd", "odd")
    model = Model(engine)
    model.do("insert", [usual, odd], number - 1)
    model.do("insert", [usual, usual], 3 * SPAN_SIZE)
    for delete in (("delete thread", "odd", 1), ("delete oldest", 9999), ("delete before", 4)):
        model.do(*delete)
        model.do("forget")
        model.do("restore", 1, 0)
        for each in FILTERS:
            model.assert_answers(LogQuery(**each))
            model.assert_answers(LogQuery(**each, limit=5, descending=True))
    model.assert_all_marks_go()
