"""Time what runs while an agent does, each beside its floor: logs, the log handler, the recorder.

    python benchmarks/bench_live.py [--rounds 15] [--directory DIR]

One round measures everything once, floor and ours in turns, so that a machine whose speed drifts
doesn't spoil a ratio. Prints the median over the rounds of the time for one call, and the ratio.
"""

import argparse
import logging
import logging.handlers
import os
import queue
import statistics
import tempfile
import time
from collections.abc import Callable
from itertools import cycle
from pathlib import Path

import apsw
import msgspec

from rollbook import LogEntry, RollbookHandler, RolloutRecorder, StateRuntime

BATCH = 64
ROW = (
    "INSERT INTO logs (ts, ts_nanos, level, target, message, module_path, file, line, thread_id)"
    " VALUES (:ts, :ts_nanos, :level, :target, :message, :module_path, :file, :line, :thread_id)"
)
SIZE = (
    "INSERT INTO log_threads (thread_id, bytes) VALUES (?, ?)"
    " ON CONFLICT (thread_id) DO UPDATE SET bytes = log_threads.bytes + excluded.bytes"
)
ITEM = {
    "type": "response_item",
    "payload": {
        "type": "function_call_output",
        "call_id": "call_1",
        "output": "a line of what a command has printed\n" * 30,
    },
}


def timed(action: Callable[[], object], calls: int) -> float:
    """Microseconds for one call."""
    started = time.perf_counter()
    for _ in range(calls):
        action()
    return (time.perf_counter() - started) / calls * 1e6


def entries(ts: int) -> list[LogEntry]:
    """A batch as a harness logs it."""
    return [
        LogEntry(
            ts,
            number,
            "INFO",
            "agent.loop",
            f"step {number} of the turn took 12 ms",
            thread_id="01a207c8-8e7e-7062-a3db-f0444cf6b4cf",
            module_path="agent.loop",
            file="/home/dev/agent/loop.py",
            line=number,
        )
        for number in range(BATCH)
    ]


class Bench:
    """The pairs to measure, and their times."""

    def __init__(self, directory: Path) -> None:
        self._times: dict[str, list[tuple[float, float]]] = {}
        self._pairs: list[tuple[str, Callable[[], object], Callable[[], object], int]] = []
        (directory / "sessions").mkdir(parents=True)
        self.state = StateRuntime.open(directory, backfill=False)
        self._add_logs(directory)
        self._add_handler()
        self._add_recorder(directory)

    def _add_logs(self, directory: Path) -> None:
        self.state.insert_logs(entries(1))
        path = directory / "raw" / "logs.sqlite"
        with StateRuntime.open(directory, database=path.with_name("state.sqlite")) as other:
            other.insert_logs(entries(1))  # makes the same tables and indexes
        raw = apsw.Connection(str(path))
        raw.execute("PRAGMA synchronous = NORMAL")
        batches = [entries(1_800_000_000 + number) for number in range(200)]
        floors, ours = cycle(batches), cycle(batches)

        def floor() -> None:
            batch = next(floors)
            rows = [msgspec.structs.asdict(entry) for entry in batch]
            raw.execute("BEGIN IMMEDIATE")
            raw.executemany(ROW, rows)
            raw.execute(SIZE, (batch[0].thread_id, 12_000))
            raw.execute("COMMIT")

        self._pairs.append(
            (
                "insert_logs of 64 / raw apsw",
                floor,
                lambda: self.state.insert_logs(next(ours)),
                len(batches),
            )
        )

    def _add_handler(self) -> None:
        loggers = []
        for handler in (
            logging.handlers.QueueHandler(queue.SimpleQueue()),  # type: ignore[arg-type]
            RollbookHandler(self.state, queue_size=1 << 20),
        ):
            logger = logging.Logger("agent.loop", logging.DEBUG)  # noqa: LOG001 - apart from the others
            logger.addHandler(handler)
            loggers.append(logger)
        floor, ours = (
            lambda logger=logger: logger.info("step %d of the turn took %s ms", 7, 12)
            for logger in loggers
        )
        self._pairs.append(("log call / QueueHandler", floor, ours, 500))

    def _add_recorder(self, directory: Path) -> None:
        recorder = RolloutRecorder.create(self.state, git=False)
        bare = os.open(directory / "bare.jsonl", os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
        line = msgspec.json.encode({"timestamp": "2026-01-27T12:34:57.000Z", **ITEM}) + b"\n"
        record = [ITEM]

        def write_and_sync() -> None:
            os.write(bare, line)
            os.fsync(bare)

        def record_and_flush() -> None:
            recorder.record_items(record)
            recorder.flush()

        self._pairs += [
            (
                "record_items / write",
                lambda: os.write(bare, line),
                lambda: recorder.record_items(record),
                500,
            ),
            ("record_items, flush / write, fsync", write_and_sync, record_and_flush, 50),
        ]

    def round(self) -> None:
        """Measure every pair once; what runs in the background of one ends before the next."""
        for name, floor, ours, calls in self._pairs:
            pair = timed(floor, calls), timed(ours, calls)
            self._times.setdefault(name, []).append(pair)
            time.sleep(0.3)

    def show(self) -> None:
        """Print the table."""
        print(f"{'median microseconds a call':<38} {'floor':>9} {'ours':>9} {'ratio':>6}")
        for name, pairs in self._times.items():
            floor, ours = (statistics.median(column) for column in zip(*pairs, strict=True))
            print(f"{name:<38} {floor:9.1f} {ours:9.1f} {ours / floor:6.2f}")


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--directory", type=Path, help="where to write (default: a temporary one)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.directory) as directory:
        bench = Bench(Path(directory))
        with bench.state:
            for _ in range(options.rounds):
                bench.round()
        bench.show()


if __name__ == "__main__":
    main()
