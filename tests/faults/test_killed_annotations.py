"""Killed at any write, what was said is said or not, and what was deleted is deleted or not."""

import signal
import subprocess
import sys
from contextlib import suppress

import pytest

from rollbook import LogEntry, LogQuery, StateRuntime
from rollbook.errors import ThreadNotFoundError
from rollbook.testing import message, session_meta, user_message, write_rollout
from tests.conftest import is_sound

IDS = [f"{number:08x}-0000-4000-8000-000000000000" for number in range(3)]
# Kills itself before the nth write, be it to a database, to the annotations, or of a file's name.
PROGRAM = """
import os, signal, sys
from rollbook import StateRuntime
from rollbook.store.sqlite import SqliteTransaction
home, left, action, *ids = sys.argv[1:]
left = int(left)
def counted(original):
    def call(*arguments, **options):
        global left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*arguments, **options)
    return call
state = StateRuntime.open(home, backfill=False)
state.query_logs()
SqliteTransaction.execute = counted(SqliteTransaction.execute)
SqliteTransaction.execute_many = counted(SqliteTransaction.execute_many)
for name in ("write", "replace", "unlink", "fsync"):
    setattr(os, name, counted(getattr(os, name)))
if action == "tag":
    state.tag_thread(ids[0], ["new"])
else:
    state.delete_threads(ids, rollouts=action == "rollouts")
"""


@pytest.fixture
def full(home):
    for thread_id in IDS:
        text = f"Remarkable {thread_id[:8]}"
        said = [user_message(text), message(text)]
        lines = [session_meta(thread_id), *said]
        write_rollout(home, thread_id, lines)
    with StateRuntime.open(home, backfill=False) as state:
        state.sync()
        for thread_id in IDS:
            state.rename_thread(thread_id, f"Called {thread_id[:8]}")
            state.tag_thread(thread_id, ["old"])
            state.insert_logs([LogEntry(1, n, "INFO", "t", "m", thread_id) for n in range(300)])
    return home


def killed(home, at, action, *ids):
    """Run it; says whether it was killed before it was done."""
    command = [sys.executable, "-c", PROGRAM, home, str(at), action, *ids]
    done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr.decode()
    return done.returncode != 0


def places():
    """Close ones first, then farther apart, as long as it takes."""
    at = 1
    while True:
        yield at
        at += 1 + at // 4


def test_a_tag_is_there_or_not_and_everything_else_is(full):
    for at in places():
        was_killed = killed(full, at, "tag", IDS[0])
        with StateRuntime.open(full, backfill=False) as state:
            thread = state.get_thread(IDS[0])
            assert thread.name == "Called 00000000"
            assert thread.tags in ((("old",), ("new", "old")) if was_killed else (("new", "old"),))
            state.untag_thread(IDS[0], ["new"])
            assert len(state.list_thread_ids(9, tags=["old"])) == 3
        if not was_killed:
            break
    assert at > 4


@pytest.mark.parametrize("action", ["rows", "rollouts"])
def test_a_thread_is_there_as_a_whole_or_deleted_and_to_delete_it_again_completes_it(full, action):
    copies = {path: path.read_bytes() for path in full.rglob("rollout-*")}
    for at in places():
        was_killed = killed(full, at, action, *IDS[:2])
        with StateRuntime.open(full, backfill=False) as state:
            assert state.get_thread(IDS[2]).name == "Called 00000002"
            for _ in range(2):
                found = {thread.id: thread for thread in state.list_threads(9).items}
                for thread_id in IDS[:2]:
                    if thread_id in found:
                        assert was_killed
                        assert found[thread_id].name == f"Called {thread_id[:8]}"
                        assert found[thread_id].tags == ("old",)
                        assert state.rollout_exists(found[thread_id])
                        assert len(state.query_logs(LogQuery(thread_ids=[thread_id]))) == 300
                state.sync()
            for thread_id in IDS[:2]:  # one after the other, as one may be gone
                with suppress(ThreadNotFoundError):
                    state.delete_threads([thread_id], rollouts=action == "rollouts")
            assert state.list_thread_ids(9) == [IDS[2]]
            assert [hit.thread.id for hit in state.search("remarkable").hits] == [IDS[2]]
            is_left = [path.exists() for path in copies]
            assert is_left.count(False) == (2 if action == "rollouts" else 0)
            # All begins anew: the rollouts are there, and that they were deleted is forgotten.
            annotations = full / "rollbook" / "annotations.jsonl"
            kept = [line for line in annotations.read_text().splitlines() if IDS[2] in line]
            annotations.write_text("".join(f"{line}\n" for line in kept))
            for path, content in copies.items():
                path.write_bytes(content)
            state.sync()
            for thread_id in IDS[:2]:
                state.rename_thread(thread_id, f"Called {thread_id[:8]}")
                state.tag_thread(thread_id, ["old"])
                have = len(state.query_logs(LogQuery(thread_ids=[thread_id])))
                new = [LogEntry(1, n, "INFO", "t", "m", thread_id) for n in range(300 - have)]
                state.insert_logs(new)
        for name in ("state", "content", "logs"):
            assert is_sound(full / "rollbook" / f"{name}.sqlite")
        if not was_killed:
            break
    assert at > 20
