"""Opening a home that was never synced indexes it, while reads are answered from the rollouts."""

import json
import threading

import pytest

from rollbook import StateRuntime
from rollbook.errors import DatabaseBusyError
from rollbook.index.lock import sync_lock
from rollbook.testing import make_thread
from tests.conftest import CORPUS, index_of


def finish(state):
    """Wait for what goes on in the background: to index the home, and to share it."""
    state._index._background.join()
    if state._shared is not None:
        state._shared.deliver_all(items=False)


def test_an_empty_database_is_filled_in_the_background(corpus_home):
    with StateRuntime.open(corpus_home("0.169.0"), default_provider="mock") as state:
        finish(state)
        assert state.is_synced()
        assert len(state.list_threads(100, include_silent=True).items) == 32
        assert len(state.list_threads(100, archived_only=True).items) == 1


def test_a_home_that_was_synced_is_not_filled_again(corpus_home):
    home = corpus_home("0.95.0")
    with StateRuntime.open(home, backfill=False) as state:
        state.sync()
    with StateRuntime.open(home) as state:
        assert state._index._background._thread is None


def test_a_backfill_that_was_stopped_goes_on_at_the_next_open(corpus_home):
    home = corpus_home("0.95.0")
    with StateRuntime.open(home, backfill=False) as state:
        state._index._background._stop.set()
        state._index._background.start()
        state._index._background.join()
        assert not state.is_synced()
    with StateRuntime.open(home) as state:
        finish(state)
        assert state.is_synced()


def test_reads_by_id_are_answered_from_the_rollouts_meanwhile(corpus_home):
    home = corpus_home("0.95.0")
    row = next(
        row
        for row in json.loads((CORPUS / "0.95.0" / "expected.json").read_text())["dynamic_tools"]
    )
    with StateRuntime.open(home, default_provider="mock", backfill=False) as state:
        tools = state.get_dynamic_tools(row["thread_id"])
        assert tools[0].name == row["name"]
        assert state.find_rollout_path_by_id(row["thread_id"]).is_file()
        with state._engine.read() as tx:
            assert tx.query("SELECT id FROM threads") == [(row["thread_id"],)]


def test_the_background_takes_no_row_away(home):
    with StateRuntime.open(home, backfill=False) as state:
        state.upsert_thread(make_thread(home, id="33333333-3333-4333-8333-333333333333"))
    with StateRuntime.open(home) as state:
        finish(state)
        assert len(state.list_threads(9).items) == 1


def test_one_process_syncs_at_a_time(home, state):
    with sync_lock(index_of(state), 0), pytest.raises(DatabaseBusyError, match="is syncing"):
        state.sync(wait_s=0)


def test_a_sync_takes_over_from_the_background(corpus_home):
    with StateRuntime.open(corpus_home("0.155.0")) as state:
        assert state.sync(wait_s=0).scanned == 33
        assert state.is_synced()


def test_several_threads_may_use_one_state(corpus_home):
    seen = []
    with StateRuntime.open(corpus_home("0.155.0"), backfill=False) as state:
        state.sync()
        readers = [
            threading.Thread(target=lambda: seen.append(len(state.list_threads(50).items)))
            for _ in range(12)
        ]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join()
    assert seen == [30] * 12
