"""Time and memory at 1, 10 and 100 times the size: first sync, list, search by id, logs.

    python benchmarks/bench_growth.py [--directory build/bench] [--factor 1] [--rounds 7]

Each size of each operation is measured in a process of its own, whose peak memory it is.
"""

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
from figures import Figure, Goal, Scale, in_turns, run_alone
from homes import database_of, small_home, small_id, warm

from rollbook import LogEntry, LogLimits, LogQuery, SortKey, StateRuntime

_THREADS = 1_000
_ROWS = 20_000
_FEWEST_THREADS = 200
_FEWEST_ROWS = 20_000  # of which every 97th is an error, and 200 of those are asked for
_SPAN_ROWS = 1_024  # that are marked at once
_TIMES = (1, 10, 100)
_SPAN_S = 1_700_000_000
_MAX_GROWTH = 1.3  # of what one thread or row costs, from the smallest size to the largest


class Point(msgspec.Struct, frozen=True):
    """One operation at one size: median seconds, and the peak memory of its process."""

    operation: str
    size: int
    seconds: float
    megabytes: float


def points(scale: Scale) -> Iterator[Point]:
    """Measure everything, the smallest size first."""
    for operation in OPERATIONS:
        for times in _TIMES:
            size = _smallest(scale, operation) * times
            command = [sys.executable, __file__, "--measure", operation, str(size)]
            command += ["--directory", str(scale.directory), "--rounds", str(scale.rounds)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            yield Point(operation, size, *json.loads(done.stdout))


def _smallest(scale: Scale, operation: str) -> int:
    """Choose the base of the comparison, at any scale one that fills what is asked of it.

    A page that isn't full, or a tree of one level, costs less for that and says nothing of growth.
    """
    if "log" in operation:
        return max(scale.of(_ROWS), _FEWEST_ROWS)
    return max(scale.of(_THREADS), _FEWEST_THREADS)


def measure(scale: Scale) -> Iterator[Figure]:
    """Say of each operation how its time grows."""
    return figures_of(list(points(scale)))


def figures_of(found: list[Point]) -> Iterator[Figure]:
    """Say of each operation how its time grows: not at all, or with the size."""
    for operation, grows in ((name, name in LINEAR) for name in OPERATIONS):
        first, *_, last = (point for point in found if point.operation == operation)
        by = last.size / first.size if grows else 1
        yield Figure(
            area="growth",
            name=f"{operation}: {last.size:,}" + (", each" if grows else ""),
            value=1e6 * last.seconds / (last.size if grows else 1),
            unit="µs",
            floor=f"with {first.size:,}",
            floor_value=1e6 * first.seconds * by / (last.size if grows else 1),
            goal=Goal.TIMES,
            limit=_MAX_GROWTH,
        )


def _first_sync(scale: Scale, size: int) -> float:
    home = small_home(scale, size)

    def sync() -> None:
        directory = scale.directory / "growth"
        shutil.rmtree(directory, ignore_errors=True)
        database = directory / "state.sqlite"
        with StateRuntime.open(home, database=database, backfill=False) as state:
            state.sync(jobs=1, metadata_only=True)

    warm(home)

    return in_turns(1 if size > 10 * _THREADS else scale.rounds, sync)[0]


def _on_home(scale: Scale, size: int, operation: Callable[[StateRuntime, int], object]) -> float:
    home = small_home(scale, size)
    # In a process of its own, as its memory is none of the operation's.
    command = [str(Path(sys.executable).with_name("rollbook")), "sync", "--home", str(home)]
    command += ["--db", str(database_of(home))]
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    with StateRuntime.open(home, database=database_of(home), backfill=False) as state:
        return in_turns(5 * scale.rounds, lambda: operation(state, size), calls=20)[0]


def _list(scale: Scale, size: int) -> float:
    return _on_home(scale, size, lambda state, _: state.list_threads(50, None, SortKey.UPDATED_AT))


def _search_by_id(scale: Scale, size: int) -> float:
    return _on_home(
        scale, size, lambda state, size: state.resolve_thread_id(small_id(size // 2)[:8])
    )


def _insert_logs(scale: Scale, size: int) -> float:
    with _logs(scale, size) as state:
        batch = _entries(size, _SPAN_ROWS)
        return in_turns(5 * scale.rounds, lambda: state.insert_logs(batch))[0] / len(batch)


def _query_logs(scale: Scale, size: int) -> float:
    query = LogQuery(level="ERROR", descending=True, limit=200)
    with _logs(scale, size) as state:
        return in_turns(5 * scale.rounds, lambda: state.query_logs(query), calls=5)[0]


def _logs(scale: Scale, size: int) -> StateRuntime:
    home = scale.directory / f"logs-{size}"
    (home / "sessions").mkdir(parents=True, exist_ok=True)
    limits = LogLimits(max_bytes=1 << 40, max_thread_bytes=1 << 40, retention_days=100_000)
    state = StateRuntime.open(home, backfill=False, log_limits=limits)
    for start in range(state.max_log_id(), size, 1_000):
        state.insert_logs(_entries(start, 1_000))
    return state


def _entries(start: int, count: int) -> list[LogEntry]:
    return [
        LogEntry(
            _SPAN_S + number // 10,
            number,
            "ERROR" if number % 97 == 0 else "INFO",
            "agent.loop",
            f"step {number} of the turn took {number % 89} ms",
            thread_id=small_id(number % 200),
            file="/home/dev/agent/loop.py",
            line=number % 500,
        )
        for number in range(start, start + count)
    ]


OPERATIONS: dict[str, Callable[[Scale, int], float]] = {
    "first sync of threads": _first_sync,
    "list 50 of threads": _list,
    "search by id in threads": _search_by_id,
    "insert a log row into rows": _insert_logs,
    "query the last 200 of log rows": _query_logs,
}
LINEAR = {"first sync of threads"}


def main() -> None:
    """Measure one operation for :func:`points`, or all of them for whoever asks."""
    if "--measure" not in sys.argv:
        run_alone(measure, __doc__)
        return
    parser = argparse.ArgumentParser()
    parser.add_argument("--measure", nargs=2)
    parser.add_argument("--directory", type=Path)
    parser.add_argument("--rounds", type=int)
    options = parser.parse_args()
    operation, size = options.measure
    seconds = OPERATIONS[operation](Scale(options.directory, rounds=options.rounds), int(size))
    print(json.dumps([seconds, _peak_megabytes()]))


def _peak_megabytes() -> float:
    """The peak memory of this process; what ``getrusage`` tells includes that of its parent."""
    status = Path("/proc/self/status").read_text("ascii").splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024


if __name__ == "__main__":
    main()
