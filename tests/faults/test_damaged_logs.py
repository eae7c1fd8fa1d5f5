"""Logs can't be made again: what can be read of a damaged database is carried over and counted."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rollbook import LogEntry, LogQuery, StateRuntime
from rollbook.store.sqlite_file import kept_files, pending_files
from tests.conftest import is_sound

ROWS = 3000
REPORT = re.compile(r"(\d+) rows were carried over, at most (\d+) others")


def entry(number: int) -> LogEntry:
    return LogEntry(
        ts=1_790_000_000 + number,
        ts_nanos=number,
        level=("INFO", "WARN", "ERROR")[number % 3],
        target="agent.loop",
        message=f"row {number}: " + "what happened " * (number % 30),
        thread_id=f"{number % 7:08x}-0000-4000-8000-000000000000",
    )


@pytest.fixture
def logged(home) -> Path:
    """A home with many log rows; gives the database."""
    with StateRuntime.open(home, backfill=False) as state:
        for start in range(0, ROWS, 500):
            state.insert_logs([entry(number) for number in range(start, start + 500)])
    return home / "rollbook" / "logs.sqlite"


def numbers(state: StateRuntime) -> list[int]:
    rows = state.query_logs(LogQuery())
    assert [row.id for row in rows] == sorted({row.id for row in rows})
    own = [row for row in rows if row.target == "agent.loop"]
    for row in own:
        number = int(row.message.split()[1].rstrip(":"))
        assert row.ts == entry(number).ts
        assert row.message == entry(number).message
    return [int(row.message.split()[1].rstrip(":")) for row in own]


def overwrite(path: Path, offset: int, content: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(content)


def test_the_readable_rows_of_a_damaged_database_are_carried_over(logged, home, rng, times):
    good = logged.read_bytes()
    for _ in range(times(6, 60)):
        for file in logged.parent.glob("logs.sqlite*"):
            file.unlink()
        logged.write_bytes(good)
        pages = rng.sample(range(len(good) // 4096), rng.choice([1, 2, 5]))
        for page in [0, *pages] if rng.random() < 0.5 else pages:
            overwrite(logged, page * 4096, rng.randbytes(4096))
        with StateRuntime.open(home, backfill=False) as state:
            for number in range(ROWS, ROWS + 3):
                state.insert_log(entry(number))
            found = numbers(state)
            assert found[-3:] == list(range(ROWS, ROWS + 3))
            assert found == sorted(set(found))
            reports = [row for row in state.query_logs() if REPORT.search(row.message)]
            if not kept_files(logged):  # the damage lies where nothing of what was asked is
                assert found == list(range(ROWS + 3))
                continue
            (report,) = reports
            carried, lost = map(int, REPORT.search(report.message).groups())
            # A leaf holds about twenty rows, and a page may hold none at all.
            assert carried >= ROWS - 5 * 60
            before = [number for number in found if number < ROWS]
            assert 0 <= carried - len(before) <= 3  # noticed before the new rows or after
            assert lost <= ROWS + 3 - carried
            assert not pending_files(logged)
            state.sync()
        assert is_sound(logged)


def test_a_log_handler_goes_on_and_ids_never_come_twice(logged, home):
    with StateRuntime.open(home, backfill=False) as state:
        last = state.max_log_id()
        overwrite(logged, 0, bytes(4096))
        state.close()
    with StateRuntime.open(home, backfill=False) as state:
        state.insert_log(entry(ROWS))
        assert state.max_log_id() > last
        assert numbers(state) == list(range(ROWS + 1))


KILLED = """
import os, signal, sys
from rollbook import StateRuntime
from rollbook.store import logs
left = int(sys.argv[2])
original = logs.restore
def restore(*arguments):
    global left
    left -= 1
    if not left:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(*arguments)
logs.restore = restore
with StateRuntime.open(sys.argv[1], backfill=False) as state:
    state.query_logs()
"""


@pytest.mark.parametrize("after", [1, 2, 7])
def test_a_carrying_over_that_was_killed_is_completed_by_the_next(logged, home, after):
    overwrite(logged, 0, bytes(4096))
    killed = subprocess.run([sys.executable, "-c", KILLED, home, str(after)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert pending_files(logged)
    with StateRuntime.open(home, backfill=False) as state:
        assert numbers(state) == list(range(ROWS))
    assert not pending_files(logged)
    assert len(kept_files(logged)) == 1


FOLLOWER = """
import json, sys
from rollbook import LogEntry, StateRuntime
with StateRuntime.open(sys.argv[1], backfill=False) as state:
    state.max_log_id()
    print("ready", flush=True)
    for line in sys.stdin:
        state.insert_log(LogEntry(*json.loads(line)))
        print(len(state.query_logs()), flush=True)
"""


def test_another_process_goes_over_to_the_new_database(logged, home):
    other = subprocess.Popen(
        [sys.executable, "-c", FOLLOWER, home],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert other.stdout.readline() == "ready\n"
    overwrite(logged, 0, os.urandom(4096))
    with StateRuntime.open(home, backfill=False) as state:
        state.insert_log(entry(ROWS))
        assert numbers(state) == list(range(ROWS + 1))
        other.stdin.write(json.dumps([1, 2, "INFO", "other", "from the other"]) + "\n")
        other.stdin.flush()
        assert other.stdout.readline() == f"{ROWS + 3}\n"  # and the report
        assert len(state.query_logs()) == ROWS + 3
    other.communicate(timeout=20)
    assert other.returncode == 0
