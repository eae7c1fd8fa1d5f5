"""Time the writes of several processes together, and of one alone; reads with and without writers.

    python benchmarks/bench_contention.py [--seconds 2] [--rounds 5] [--processes 8] [--pause-ms 20]

Writers fold records into threads, store threads and log, as fast as they can; as many readers list,
look up and query the same home, resting between two reads.  In each round everything is measured
once, in turns, so that a machine whose speed drifts doesn't spoil a ratio.  Prints medians.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from itertools import count
from pathlib import Path
from typing import Any, TextIO, cast

from rollbook import LogEntry, LogQuery, StateRuntime, ThreadMetadataBuilder, items
from rollbook.testing import (
    DEFAULT_TIME,
    make_thread,
    session_meta,
    user_message,
    write_rollout,
)

THREADS = 200
AIM = 0.70
LOG_BATCH = 16


def thread_id_of(number: int) -> str:
    """The id of one of the threads of the home."""
    return str(uuid.UUID(int=number + (4 << 76) + (8 << 60)))


# --- The processes ----------------------------------------------------------------------------


def write(state: StateRuntime, process: int, turn: int) -> None:
    """One transaction."""
    thread = make_thread(state.codex_home, id=thread_id_of(process), tokens_used=turn)
    if turn % 3 == 0:
        builder = ThreadMetadataBuilder(thread.id, thread.rollout_path, DEFAULT_TIME)
        state.apply_rollout_items(builder, [items.token_count(turn)])
    elif turn % 3 == 1:
        state.upsert_thread(thread)
    else:
        state.insert_logs(
            [
                LogEntry(0x7FFFFFFF, line, "INFO", "agent.loop", "a step took 12 ms", thread.id)
                for line in range(LOG_BATCH)
            ]
        )


def read(state: StateRuntime, process: int, turn: int) -> None:
    """One query."""
    if turn % 3 == 0:
        state.list_threads(20)
    elif turn % 3 == 1:
        state.get_thread(thread_id_of((process + turn) % THREADS))
    else:
        state.query_logs(LogQuery(limit=20, descending=True))


def work(home: str, kind: str, process: int, pause_s: float) -> None:
    """Write or read for so many seconds, whenever told to; say how long each took."""
    action = write if kind == "write" else read
    turns = count()
    with StateRuntime.open(home, backfill=False) as state:
        action(state, process, next(turns))
        print("ready", flush=True)
        for line in sys.stdin:
            took: list[float] = []
            deadline = time.perf_counter() + float(line)
            while (started := time.perf_counter()) < deadline:
                action(state, process, next(turns))
                took.append(time.perf_counter() - started)
                if kind == "read":
                    time.sleep(pause_s)
            print(json.dumps(took), flush=True)


# --- The measurement --------------------------------------------------------------------------


class Crew:
    """Processes of one kind, that work at the same time."""

    def __init__(self, home: Path, kind: str, processes: int, pause_s: float) -> None:
        self._programs = [
            subprocess.Popen(
                [sys.executable, __file__, "--as", kind, str(home), str(number), str(pause_s)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for number in range(processes)
        ]
        for program in self._programs:
            cast(TextIO, program.stdout).readline()

    def begin(self, seconds: float, processes: int | None = None) -> list[TextIO]:
        """Have the first of them work; returns where to wait for what they say."""
        chosen = self._programs[:processes]
        for program in chosen:
            print(seconds, file=program.stdin, flush=True)
        return [cast(TextIO, program.stdout) for program in chosen]

    def end(self) -> None:
        """Let all of them go."""
        for program in self._programs:
            program.communicate()


def results(streams: list[TextIO]) -> list[list[float]]:
    """Wait for what processes have measured."""
    return [json.loads(stream.readline()) for stream in streams]


def quantile(figures: list[list[float]], part: float) -> float:
    """A quantile of the times of all processes, in milliseconds."""
    times = sorted(figure for process in figures for figure in process)
    return times[min(int(len(times) * part), len(times) - 1)] * 1e3


def measure(options: argparse.Namespace, home: Path) -> dict[str, list[list[list[float]]]]:
    """Measure everything once a round."""
    writers = Crew(home, "write", options.processes, 0)
    readers = Crew(home, "read", options.processes, options.pause_ms / 1e3)
    found: dict[str, list[list[list[float]]]] = {}
    seconds = options.seconds

    def note(name: str, figures: list[list[float]]) -> None:
        found.setdefault(name, []).append(figures)

    for _ in range(options.rounds):
        note("one writer", results(writers.begin(seconds, 1)))
        note("writers", results(writers.begin(seconds)))
        reading, writing = readers.begin(seconds), writers.begin(seconds)
        note("writers beside readers", results(writing))
        note("readers beside writers", results(reading))
        note("readers", results(readers.begin(seconds)))
    writers.end()
    readers.end()
    return found


def show(found: dict[str, list[list[list[float]]]], seconds: float) -> None:
    """Print the table, and the ratio of the sums in each round."""
    print(f"{'median of the rounds':<24} {'per s':>8} {'p50 ms':>8} {'p99 ms':>8} {'max ms':>8}")
    sums = {
        name: [sum(map(len, figures)) / seconds for figures in rounds]
        for name, rounds in found.items()
    }
    for name, rounds in found.items():
        columns: list[Any] = [statistics.median(sums[name])]
        columns += [statistics.median(quantile(f, part) for f in rounds) for part in (0.5, 0.99, 1)]
        print(f"{name:<24} {columns[0]:8.0f} {columns[1]:8.2f} {columns[2]:8.2f} {columns[3]:8.1f}")
    for name in ("writers", "writers beside readers"):
        ratios = [many / one for many, one in zip(sums[name], sums["one writer"], strict=True)]
        least = min(min(map(len, figures)) / max(map(len, figures)) for figures in found[name])
        print(
            f"{name} / one writer: {statistics.median(ratios):.2f} (aim: {AIM:.2f});"
            f" the slowest did {least:.0%} of the fastest at worst"
        )


def main() -> None:
    """Parse the command line, measure, print."""
    if sys.argv[1:2] == ["--as"]:
        kind, home, process, pause_s = sys.argv[2:]
        work(home, kind, int(process), float(pause_s))
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0, help="for each measurement")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--processes", type=int, default=8, help="writers, and as many readers")
    parser.add_argument("--pause-ms", type=float, default=20.0, help="of a reader, after each read")
    parser.add_argument("--directory", type=Path, help="where to write (default: a temporary one)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.directory) as directory:
        home = Path(directory)
        for number in range(THREADS):
            lines = [session_meta(thread_id_of(number)), user_message(f"Thread {number}")]
            write_rollout(home, thread_id_of(number), lines)
        with StateRuntime.open(home, backfill=False) as state:
            state.sync()
        show(measure(options, home), options.seconds)


if __name__ == "__main__":
    main()
