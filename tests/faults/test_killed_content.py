"""Killed while it reads what was said and used, the next run completes it, and nothing counts twice."""

import signal
import subprocess
import sys

import pytest

from rollbook import StateRuntime, UsageKey
from rollbook.testing import message, session_meta, token_count, write_rollout
from tests.conftest import is_sound

THREADS, MESSAGES = 12, 30
# Stores each part of what it reads at once, and kills itself in the middle of, or after, the nth.
PROGRAM = """
import os, signal, sys
from rollbook import StateRuntime
from rollbook.content import building, reading
from rollbook.store import usage
home, kills_at, is_inside = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "inside"
building._BATCH_S = building._BATCH_CHARACTERS = reading._PART_CHARACTERS = 0
stored, add = 0, usage.add
def counted(*arguments):
    global stored
    stored += 1
    if stored == kills_at and is_inside:
        os.kill(os.getpid(), signal.SIGKILL)
    add(*arguments)
    if stored == kills_at + 1 and not is_inside:
        os.kill(os.getpid(), signal.SIGKILL)
usage.add = counted
with StateRuntime.open(home, backfill=False) as state:
    state.sync()
"""


@pytest.fixture
def talk(home):
    ids = [f"{number:08x}-0000-4000-8000-000000000000" for number in range(THREADS)]
    for thread_id in ids:
        lines = [session_meta(thread_id)]
        for number in range(MESSAGES):
            text = f"message{number} of{ids.index(thread_id)} " + "padding " * 100
            lines += [message(text), token_count(10 * (number + 1))]
        write_rollout(home, thread_id, lines)
    return ids


@pytest.mark.parametrize("where", ["inside", "between"])
def test_killed_while_it_reads_what_was_said_it_goes_on(home, talk, where):
    for kills_at in (1, 7, 40, 3):
        command = [sys.executable, "-c", PROGRAM, str(home), str(kills_at), where]
        done = subprocess.run(command, capture_output=True, check=False)
        assert done.returncode == -signal.SIGKILL, done.stderr
        assert is_sound(home / "rollbook" / "content.sqlite")
    with StateRuntime.open(home, backfill=False) as state:
        state.sync()
        used = {row.keys: row.tokens.total for row in state.usage([UsageKey.THREAD]).rows}
        assert used == {(thread_id,): 10 * MESSAGES for thread_id in talk}
        for number, thread_id in enumerate(talk):
            hits = state.search(f"of{number}", limit=100).hits
            assert len(hits) == MESSAGES
            assert {hit.thread.id for hit in hits} == {thread_id}
            assert len(state.search(f"`essage2 of{number} `").hits) == 1
        before = state.search("padding", limit=500).hits
        state.sync(rebuild=True)
        assert {hit.position for hit in state.search("padding", limit=500).hits} == {
            hit.position for hit in before
        }
