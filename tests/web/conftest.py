"""A home of a few threads, served once for all tests of a file that only look."""

from contextlib import closing

import pytest

from rollbook import LogEntry, StateRuntime
from rollbook.testing import (
    message,
    session_meta,
    token_count,
    user_message,
    write_rollout,
)
from tests.conftest import as_another_program
from tests.web.serving import serving

ID, FORK, OLD = (
    "22222222-2222-4222-8222-222222222222",
    "33333333-3333-4333-8333-333333333333",
    "44444444-4444-4444-8444-444444444444",
)


def write_home(home):
    """Threads that are forked, archived and long, with tools, and logs of one of them."""
    tools = [{"name": "lookup", "description": "Looks it up", "inputSchema": {"type": "object"}}]
    meta = session_meta(ID, cwd="/work/alpha", dynamic_tools=tools)
    lines = [meta, user_message("The parser fails"), message("The parser fails")]
    lines += [message(f"Step {number} of the **parser**", "assistant") for number in range(120)]
    write_rollout(home, ID, [*lines, token_count(7), message("The end")])
    fork = session_meta(FORK, cwd="/work/beta", forked_from_id=ID)
    write_rollout(home, FORK, [fork, user_message("数据库"), message("数据库锁定")])
    old = [session_meta(OLD), user_message("Long ago"), message("Long ago")]
    write_rollout(home, OLD, old, archived=True)
    with StateRuntime.open(home, backfill=False) as state:
        state.sync()
        rows = [LogEntry(n, 0, "WARN", "loop", f"row {n}", ID) for n in range(1, 151)]
        state.insert_logs(rows)
    return home


def log_as_codex(home, *messages):
    """Write log rows as Codex does, into its own database."""
    with closing(as_another_program(home / "logs_2.sqlite")) as codex:
        codex.execute(
            "PRAGMA journal_mode = WAL; CREATE TABLE IF NOT EXISTS logs (id INTEGER PRIMARY KEY,"
            " ts INTEGER, ts_nanos INTEGER, level TEXT, target TEXT, feedback_log_body TEXT,"
            " module_path TEXT, file TEXT, line INTEGER, thread_id TEXT)"
        ).fetchall()
        for message in messages:
            codex.execute(
                "INSERT INTO logs (ts, ts_nanos, level, target, feedback_log_body)"
                " VALUES (1769515200, 0, 'INFO', 'codex_core', ?)",
                (message,),
            )


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    with serving(write_home(tmp_path_factory.mktemp("web") / "home")) as served:
        yield served


@pytest.fixture
def own(tmp_path):
    """A server for a test that changes something."""
    with serving(write_home(tmp_path / "home")) as served:
        yield served
