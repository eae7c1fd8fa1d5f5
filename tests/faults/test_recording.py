"""Recorders that die, disks that are full, two processes on one thread."""

import json
import random
import signal
import subprocess
import sys

import pytest

from rollbook import RolloutRecorder, StateRuntime
from rollbook.errors import ThreadInUseError

NUMBERING = """
import sys
from rollbook import RolloutRecorder, StateRuntime, items
state = StateRuntime.open(sys.argv[1], backfill=False)
recorder = RolloutRecorder.create(state, git=False)
print(recorder.thread_id, flush=True)
for number in range(100_000):
    recorder.record_items([items.function_call_output(str(number), "x" * (number * 37 % 3000)),
                           *items.user_message(f"{number}")])
    if number % 3 == 0:
        recorder.flush()
        print(number, flush=True)
"""


def python(code: str, *arguments, **options) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        **options,
    )


@pytest.mark.parametrize("seed", range(12))
def test_a_killed_recorder_has_lost_nothing_that_was_flushed_and_doubled_nothing(home, seed):
    chance = random.Random(seed)
    with python(NUMBERING, home) as process:
        thread_id = process.stdout.readline().strip()
        flushed = -1
        for _ in range(chance.randrange(1, 25)):
            flushed = int(process.stdout.readline())
        for _ in range(chance.randrange(20_000)):
            pass
        process.kill()
        rest = process.stdout.read().split("\n")
        flushed = int(rest[-2]) if len(rest) > 1 else flushed
    with StateRuntime.open(home, backfill=False) as state:
        with RolloutRecorder.resume(state, thread_id) as recorder:
            numbers = [
                int(item.payload["call_id"])
                for item in recorder.history
                if item.kind == "function_call_output"
            ]
        assert numbers == list(range(len(numbers)))
        assert len(numbers) > flushed
        for line in recorder.rollout_path.read_bytes().splitlines():
            json.loads(line)
        live = state.get_thread(thread_id)
        state.sync(jobs=1, rebuild=True)
        assert live.differing_fields(state.get_thread(thread_id)) == []
        assert live.title == "0"


FULL_DISK = """
import resource, signal, sys
from rollbook import RolloutRecorder, StateRuntime, items
from rollbook.errors import RolloutError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
state = StateRuntime.open(sys.argv[1], backfill=False)
recorder = RolloutRecorder.create(state, git=False)
recorder.record_items(items.user_message("before"))
recorder.flush()
size = recorder.rollout_path.stat().st_size
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (size + int(sys.argv[2]), hard))
try:
    recorder.record_items(items.user_message("x" * 5000))
except RolloutError as error:
    print("refused", error)
resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
assert recorder.rollout_path.stat().st_size == size
recorder.record_items(items.user_message("after"))
state.close()
print(recorder.rollout_path)
"""


@pytest.mark.parametrize("room", [0, 1, 100, 5500])
def test_on_a_full_disk_nothing_of_a_call_is_left_and_recording_goes_on(home, room):
    with python(FULL_DISK, home, room) as process:
        refused, path = process.stdout.read().splitlines()
    assert process.returncode == 0
    assert refused.startswith("refused")
    assert "record it again" in refused
    with open(path, "rb") as file:
        lines = [json.loads(line) for line in file.read().splitlines()]
    assert [line["payload"].get("message") for line in lines if line["type"] == "event_msg"] == [
        "before",
        "after",
    ]


HOLDING = """
import sys
from rollbook import RolloutRecorder, StateRuntime, items
state = StateRuntime.open(sys.argv[1], backfill=False)
recorder = RolloutRecorder.create(state, git=False)
recorder.record_items(items.user_message("mine"))
print(recorder.thread_id, flush=True)
sys.stdin.readline()
"""


def test_a_thread_that_another_process_records_is_refused_until_that_has_died(home):
    with python(HOLDING, home) as process:
        thread_id = process.stdout.readline().strip()
        with StateRuntime.open(home, backfill=False) as state:
            with pytest.raises(ThreadInUseError, match="another recorder"):
                RolloutRecorder.resume(state, thread_id)
            process.send_signal(signal.SIGKILL)
            process.wait()
            with RolloutRecorder.resume(state, thread_id) as recorder:
                assert len(recorder.history) == 3
