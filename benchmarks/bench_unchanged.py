"""Time a sync that finds nothing new beside ``find``, at three sizes, and one that finds a new line.

    python benchmarks/bench_unchanged.py [--directory build/bench] [--factor 1] [--rounds 7]

A sync is a call of ``StateRuntime.sync`` in this process, ``find`` a whole process that prints size and
time of each file in the same directories.
"""

import subprocess
from collections.abc import Iterator
from pathlib import Path

from figures import Figure, Goal, Scale, in_turns, run_alone
from homes import database_of, generated_home, small_home, small_id

from rollbook import StateRuntime
from rollbook.testing import session_meta, token_count, user_message, write_rollout

_AREA = "unchanged"
_MANY = (100_000, 200_000)
_GROWING = small_id(0xFFFFFFFF)
_GROWING_LINES = 100_000  # about 20 MB


def measure(scale: Scale) -> Iterator[Figure]:
    """A home like Codex's, then many small files, then one file that grows by a line."""
    ours, floor, files = _beside_find(generated_home(scale), scale.rounds)
    yield Figure(
        area=_AREA,
        name=f"sync of {files} files, nothing new",
        value=1000 * ours,
        unit="ms",
        floor="find -printf",
        floor_value=1000 * floor,
        goal=Goal.TIMES,
        limit=5,
    )
    few_us = 1e6 * ours / files
    for count in _MANY:
        ours, floor, files = _beside_find(small_home(scale, scale.of(count)), scale.rounds)
        yield Figure(
            area=_AREA,
            name=f"sync of {files} files, each",
            value=1e6 * ours / files,
            unit="us",
            floor="with few files",
            floor_value=few_us,
            goal=Goal.TIMES,
            limit=1.2,
        )
        yield Figure(
            area=_AREA,
            name=f"sync of {files} files",
            value=1000 * ours,
            unit="ms",
            floor="find -printf",
            floor_value=1000 * floor,
        )
    yield from _grown(scale)


def _beside_find(home: Path, rounds: int) -> tuple[float, float, int]:
    """Seconds of a sync that finds nothing, those of find, and how many files there are."""
    roots = [str(root) for root in (home / "sessions", home / "archived_sessions") if root.is_dir()]
    find = ["find", *roots, "-printf", "%s %T@ %p\n"]
    with StateRuntime.open(home, database=database_of(home), backfill=False) as state:
        state.sync()
        files = state.sync().unchanged
        ours, floor = in_turns(
            rounds,
            state.sync,
            lambda: subprocess.run(find, stdout=subprocess.DEVNULL, check=True),
        )
    return ours, floor, files


def _grown(scale: Scale) -> Iterator[Figure]:
    """One large file of a home gets a line before each sync."""
    home = small_home(scale, scale.of(5_000))
    lines = [token_count(number) for number in range(scale.of(_GROWING_LINES))]
    path = write_rollout(home, _GROWING, [session_meta(_GROWING), user_message("Long"), *lines])
    line = token_count(0) + b"\n"
    read = []
    try:
        with StateRuntime.open(home, database=database_of(home), backfill=False) as state:
            state.sync()

            def grow_and_sync() -> None:
                with path.open("ab") as file:
                    file.write(line)
                read.append(state.sync().bytes_read)

            unchanged, grown = in_turns(scale.rounds, state.sync, grow_and_sync)
    finally:
        path.unlink()
    yield Figure(
        area=_AREA,
        name=f"one file of {sum(map(len, lines)) // 1_000_000} MB grown by a line, read",
        value=max(read),
        unit="B",
        floor="the line",
        floor_value=len(line),
        goal=Goal.TIMES,
        limit=1,
    )
    yield Figure(
        area=_AREA,
        name="one file grown by a line",
        value=1000 * grown,
        unit="ms",
        floor="nothing new",
        floor_value=1000 * unchanged,
        goal=Goal.MORE,
        limit=5,
    )


if __name__ == "__main__":
    run_alone(measure, __doc__)
