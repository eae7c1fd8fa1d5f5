"""Killed at any moment, the next sync completes the work."""

import os
import signal
import subprocess
import sys
import uuid

import pytest

from rollbook import StateRuntime
from rollbook.testing import session_meta, token_count, user_message, write_rollout
from tests.conftest import is_sound

THREADS = 300
# Kills itself at the n-th statement of the sync: wherever that falls, with no clock involved.
SUICIDE = """
import os, signal, sys
from rollbook import StateRuntime
from rollbook.store.sqlite import SqliteTransaction
left = int(sys.argv[2])
original = SqliteTransaction.execute
def execute(self, *arguments):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(self, *arguments)
SqliteTransaction.execute = execute
with StateRuntime.open(sys.argv[1], backfill=False) as state:
    state.sync(jobs=1)
"""


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    home = tmp_path_factory.mktemp("killed")
    for number in range(THREADS):
        thread_id = str(uuid.UUID(int=number + (4 << 76) + (8 << 60)))
        lines = [session_meta(thread_id), user_message(f"Thread {number}"), token_count(number)]
        write_rollout(home, thread_id, lines)
    return home


@pytest.mark.parametrize("statement", [1, 2, 3, 7, 60, 150, 151, 152, 400, 599, 601, 900, 901])
def test_a_sync_killed_at_any_statement_is_completed_by_the_next(many, tmp_path, statement):
    database = tmp_path / "state.sqlite"
    environment = os.environ | {"ROLLBOOK_DB": str(database)}
    killed = subprocess.run(
        [sys.executable, "-c", SUICIDE, many, str(statement)], env=environment, check=False
    )
    assert killed.returncode in (-signal.SIGKILL, 0)
    with StateRuntime.open(many, database=database, backfill=False) as state:
        stats = state.sync()
        assert (stats.scanned, stats.failed) == (THREADS, 0)
        found = state.list_threads(THREADS * 2).items
    assert sorted(thread.tokens_used for thread in found) == list(range(THREADS))
    assert is_sound(database)


def test_a_worker_that_is_killed_costs_one_file_and_the_next_sync_reads_it(
    corpus_home, monkeypatch
):
    from rollbook.index import backfill, extraction

    monkeypatch.setattr(extraction, "WORTH_WORKERS_BYTES", 0)
    monkeypatch.setattr(backfill, "_FIRST", 0)
    started = []

    class FirstIsKilled(extraction._Worker):
        def __init__(self):
            super().__init__()
            started.append(self)
            if len(started) == 1:
                self._process.kill()
                self._process.wait()

    monkeypatch.setattr(extraction, "_Worker", FirstIsKilled)
    with StateRuntime.open(corpus_home("0.95.0"), backfill=False) as state:
        stats = state.sync(jobs=2)
        assert (stats.indexed, stats.failed) == (28, 1)
        assert "died" in stats.failures[0].message
        assert len(started) == 2
        assert (state.sync().indexed, state.sync().failed) == (1, 0)
