"""Time how soon an appended line is in the database, what an idle watch costs, how a burst fares.

    python benchmarks/bench_watch.py [--threads 1000] [--appends 100] [--idle 20] [--burst 2000]

The floor is the file system's own notification, as watchfiles tells of it with the same settings:
append and floor are timed in turns in one run.  Prints medians, the 95th percentile, and ratios.
"""

import argparse
import queue
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import apsw
from watchfiles import watch

from rollbook import StateRuntime
from rollbook.index.watch import _GATHER_MS, _STEP_MS
from rollbook.testing import session_meta, token_count, user_message, write_rollout

DEADLINE_S = 10.0


def thread_id(number: int) -> str:
    """Make an id."""
    return f"{number:08x}-0000-4000-8000-000000000000"


def write_threads(home: Path, numbers: range) -> list[Path]:
    """Write small rollouts, over the days of a year."""
    paths = []
    for number in numbers:
        day = f"2026-{number % 12 + 1:02}-{number % 28 + 1:02}T00-00-00"
        lines = [session_meta(thread_id(number)), user_message(f"Thread {number}")]
        paths.append(write_rollout(home, thread_id(number), lines, time=day))
    return paths


def append(path: Path, number: int) -> float:
    """Append a token count; gives the time when it was written."""
    with path.open("ab") as file:
        file.write(token_count(number) + b"\n")
    return time.perf_counter()


def until(is_so: Callable[[], bool]) -> float:
    """Look again and again; gives the time when it was so."""
    deadline = time.perf_counter() + DEADLINE_S
    while not is_so():
        if time.perf_counter() > deadline:
            raise TimeoutError
        time.sleep(0.0005)
    return time.perf_counter()


def latencies(database: apsw.Connection, paths: list[Path], appends: int) -> list[float]:
    """Milliseconds from an append until a reader of the database sees it."""
    query = "SELECT tokens_used FROM threads WHERE id = ?"
    taken = []
    for number in range(1, appends + 1):
        path = paths[number % len(paths)]
        started = append(path, number)
        ended = until(
            lambda path=path, number=number: (
                database.execute(query, (path.stem[-36:],)).fetchall() == [(number,)]
            )
        )
        taken.append((ended - started) * 1000)
        time.sleep(0.03)
    return taken


def floor_latencies(directory: Path, appends: int) -> list[float]:
    """Milliseconds from an append until a bare loop is told of it."""
    (directory / "sessions").mkdir()
    file = directory / "sessions" / "file"
    file.touch()
    told: queue.SimpleQueue[float] = queue.SimpleQueue()
    stop = threading.Event()

    def listen() -> None:
        options = {"debounce": _GATHER_MS, "step": _STEP_MS, "rust_timeout": 100}
        for changes in watch(directory, stop_event=stop, yield_on_timeout=True, **options):
            if changes:
                told.put(time.perf_counter())

    listener = threading.Thread(target=listen)
    listener.start()
    time.sleep(0.5)
    taken = []
    for number in range(appends):
        started = append(file, number)
        taken.append((told.get(timeout=DEADLINE_S) - started) * 1000)
        time.sleep(0.03)
    stop.set()
    listener.join()
    return taken


def shown(name: str, taken: list[float]) -> str:
    """Write a line of the result."""
    high = statistics.quantiles(taken, n=20)[-1]
    return f"{name:<34} median {statistics.median(taken):6.1f} ms   p95 {high:6.1f} ms"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=1000)
    parser.add_argument("--appends", type=int, default=100)
    parser.add_argument("--idle", type=float, default=20.0, help="seconds")
    parser.add_argument("--burst", type=int, default=2000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        home = Path(directory) / "home"
        paths = write_threads(home, range(options.threads))
        with StateRuntime.open(home, backfill=False) as state:
            updates = queue.SimpleQueue()
            follower = threading.Thread(target=lambda: [updates.put(u) for u in state.watch()])
            follower.start()
            for _ in range(2):
                updates.get()
            database = apsw.Connection(state.database)
            floor, ours = [], []
            for part in range(4):
                place = Path(directory) / f"floor{part}"
                place.mkdir()
                floor += floor_latencies(place, options.appends // 4)
                ours += latencies(database, paths[part::4], options.appends // 4)
            print(shown("appended line told of (floor)", floor))
            print(shown("appended line in the database", ours))
            print(f"ratio {statistics.median(ours) / statistics.median(floor):.2f}")

            before = time.process_time()
            time.sleep(options.idle)
            idle = (time.process_time() - before) / options.idle
            print(f"idle: {idle * 100:.2f} % of a core, {options.threads} threads watched")

            started = time.perf_counter()
            write_threads(home, range(options.threads, options.threads + options.burst))
            written = time.perf_counter() - started
            total = options.threads + options.burst
            count = "SELECT count(*) FROM threads"
            until(lambda: database.execute(count).fetchall() == [(total,)])
            digested = time.perf_counter() - started
            print(f"burst of {options.burst} rollouts: written in {written:.2f} s,", end=" ")
            print(f"all in the database after {digested:.2f} s (ratio {digested / written:.2f})")
            database.close()
        follower.join()


if __name__ == "__main__":
    main()
