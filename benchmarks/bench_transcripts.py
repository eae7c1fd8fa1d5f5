"""Time pages of the transcript of a thread of 300 MB, wherever they are in it.

    python benchmarks/bench_transcripts.py [--directory build/bench] [--factor 1] [--rounds 7]

The floor opens the rollout, goes to where the page is, and reads a megabyte. An export is all of it.
"""

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from figures import Figure, Goal, Scale, in_turns, run_alone, seconds
from homes import database_of, long_home, small_id, warm

from rollbook import StateRuntime

_MEGABYTE = 1 << 20
_EXPORT = r"""
import re, sys
from pathlib import Path
from rollbook.cli import main
try:
    main()
finally:
    status = Path("/proc/self/status").read_text()
    print("peak", re.search(r"VmHWM:\s*([0-9]+)", status)[1], file=sys.stderr)
"""


def measure(scale: Scale) -> Iterator[Figure]:
    """Pages at the end, at the beginning and in the middle; what an export takes."""
    home = long_home(scale)
    thread_id = small_id(0)
    with StateRuntime.open(home, database=database_of(home), backfill=False) as state:
        state.sync(metadata_only=True)
        thread = state.get_thread(thread_id)
        assert thread is not None
        path = Path(thread.rollout_path)
        warm(path)
        size = path.stat().st_size
        middle = _position_near(path, size // 2)
        read = partial(state.read_thread, thread_id)
        pages: dict[str, tuple[Callable[[], object], int]] = {
            "the last page": (read, size - _MEGABYTE),
            "the first page": (partial(read, at="start"), 0),
            "a page in the middle": (partial(read, at=f"{thread_id}:{middle}"), middle),
            "the page before that": (
                partial(read, before=f"{thread_id}:{middle}"),
                middle - _MEGABYTE,
            ),
        }
        for name, (action, offset) in pages.items():
            floor, ours = in_turns(3 * scale.rounds, partial(_read, path, offset), action, calls=5)
            yield Figure(
                area="transcripts",
                name=f"{name} of {size / 1e6:.0f} MB",
                value=1e3 * ours,
                unit="ms",
                floor="open, seek, read 1 MB",
                floor_value=1e3 * floor,
                goal=Goal.MOST,
                limit=10.0,
            )
    yield from _exports(scale, home, path, thread_id)


def _exports(scale: Scale, home: Path, path: Path, thread_id: str) -> Iterator[Figure]:
    reading = min(seconds(lambda: warm(path)) for _ in range(3))
    for form in ("json", "markdown", "html"):
        arguments = [thread_id, "--format", form, "--home", home, "--db", database_of(home)]
        output = scale.directory / f"export.{form}"
        peaks: list[float] = []
        taken = seconds(partial(_export, arguments, output, peaks))
        output.unlink()
        yield Figure(
            area="transcripts",
            name=f"export as {form}",
            value=taken,
            unit="s",
            floor="reading it",
            floor_value=reading,
        )
        yield Figure(
            area="transcripts",
            name=f"export as {form}, peak memory",
            value=peaks[0],
            unit="MB",
            goal=Goal.MOST,
            limit=150.0,
        )


def _export(arguments: list[object], output: Path, peaks: list[float]) -> None:
    with output.open("wb") as stream:
        done = subprocess.run(
            [sys.executable, "-c", _EXPORT, "export", *map(str, arguments)],
            stdout=stream,
            stderr=subprocess.PIPE,
            text=True,
            check=True,
        )
    peaks.append(int(re.findall("peak ([0-9]+)", done.stderr)[0]) / 1024)


def _position_near(path: Path, offset: int) -> int:
    """Find where a line begins."""
    with path.open("rb") as stream:
        stream.seek(offset)
        return offset + len(stream.readline())


def _read(path: Path, offset: int) -> bytes:
    with path.open("rb", buffering=0) as stream:
        stream.seek(max(offset, 0))
        return stream.read(_MEGABYTE)


if __name__ == "__main__":
    run_alone(measure, __doc__)
