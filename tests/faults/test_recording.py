"""Recorders that die at any moment."""

import json
import random
import subprocess
import sys

import pytest

from rollbook import RolloutRecorder, StateRuntime

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
