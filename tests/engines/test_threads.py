"""How threads are written: what differs, and all that it has to change."""

from datetime import timedelta

import msgspec
import pytest

from rollbook import StateRuntime, ThreadMetadataBuilder, items
from rollbook.model.times import parse_time
from rollbook.store import threads
from rollbook.store.sqlite import SqliteEngine
from rollbook.testing import make_thread, session_meta, user_message, write_rollout
from tests.conftest import as_another_program

HOME = "/home/dev/.codex"
PAGE_IN_LOG = 4096 + 24
LATER = parse_time("2026-03-01T00:00:00Z")
CHANGES = [
    {},
    {"tokens_used": 7, "input_tokens": 5},
    {"updated_at": LATER},
    {"recency_at": LATER, "name": "a name"},
    {"cwd": "/somewhere/else"},
    {"source": "exec", "model_provider": "azure"},
    {"archived_at": LATER, "rollout_path": f"{HOME}/archived_sessions/rollout-1.jsonl"},
    {"has_user_event": False},
    {"title": "long " * 200, "preview": "short"},
    {"git_branch": None, "model": "half of a \ud800 character", "agent_role": "a\0b"},
]


@pytest.fixture
def engine(tmp_path):
    opened = SqliteEngine.open(tmp_path / "state.sqlite")
    yield opened
    opened.close()


@pytest.mark.parametrize("changes", CHANGES, ids=lambda changes: "_".join(changes) or "nothing")
@pytest.mark.parametrize("title", ["short", "so long " * 100])
@pytest.mark.parametrize("state", [None, '{"has_title":true}'])
def test_a_changed_row_is_what_an_overwritten_one_is(engine, changes, title, state):
    before = make_thread(HOME, title=title, preview=title, git_branch="main")
    rows = []
    for is_changed in (True, False):
        with engine.write() as tx:
            threads.delete(tx, before.id)
            threads.upsert(tx, HOME, before, "{}")
            if is_changed:
                threads.change(tx, HOME, before, changes, state)
            else:
                threads.upsert(tx, HOME, msgspec.structs.replace(before, **changes), state)
            rows.append(
                [
                    threads.get_folded(tx, HOME, before.id),
                    tx.query("SELECT * FROM threads"),
                    tx.query("SELECT * FROM thread_texts"),
                ]
            )
    assert rows[0] == rows[1]


def test_an_event_in_the_second_of_the_last_one_is_written_to_no_index(home):
    thread_id = make_thread(home).id
    path = write_rollout(home, thread_id, [session_meta(thread_id), user_message("Fix it")])
    with StateRuntime.open(home, backfill=False) as state:
        state.sync()
        thread = state.get_thread(thread_id)
        builder = ThreadMetadataBuilder(thread_id, path, thread.created_at)
        log = home / "rollbook" / "state.sqlite-wal"
        other = as_another_program(state.database)
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        other.close()
        pages = []
        for tokens, later_s in enumerate([0, 0, 60]):
            time = f"{thread.recency_at + timedelta(seconds=later_s):%Y-%m-%dT%H:%M:%SZ}"
            event = msgspec.structs.replace(items.token_count(tokens + 1), timestamp=time)
            before = log.stat().st_size
            state.apply_rollout_items(builder, [event])
            pages.append((log.stat().st_size - before) / PAGE_IN_LOG)
        assert state.get_thread(thread_id).tokens_used == 3
    assert pages[1] == 1  # the row's; how large the rollout is, is known from the first
    assert pages[2] > 1
