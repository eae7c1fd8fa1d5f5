"""Time the first sync of a home, as a whole process, beside ``wc -l`` over the same files.

    python benchmarks/bench_backfill.py [--directory build/bench] [--factor 1] [--rounds 7]

The index is on disk and durable when the process ends.  Floor and syncs take turns, and before each
all files are read once, as systems drop from memory what wasn't used for some seconds.  Memory is
the sum of what each process had at its peak, what they share counted for each of them.
"""

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import apsw
from figures import Figure, Goal, Scale, run_alone
from homes import generated_home, huge_home

COMMAND = str(Path(sys.executable).with_name("rollbook"))
_FIRST = 50
_LOOK_EVERY_S = 0.001


def measure(scale: Scale) -> Iterator[Figure]:
    """Time, memory and the size of the index for the generated home; memory for huge files."""
    home = generated_home(scale)
    with tempfile.TemporaryDirectory(dir=scale.directory) as directory:
        bench = Bench(scale, home, Path(directory))
        floor, two, one = bench.medians()
        yield _figure("first sync, 2 processes", two, "s", floor, Goal.TIMES, 2.0)
        yield _figure("first sync, 1 process", one, "s", floor, Goal.TIMES, 3.5)
        yield _figure("index on disk", bench.index_bytes() / 1e6, "MB", None, Goal.MOST, 10.0)
        first = statistics.median(bench.until_listed() for _ in range(scale.rounds))
        yield _figure(f"newest {_FIRST} listed", 1000 * first, "ms", None, Goal.MOST, 100.0)
        for name, place in (("", home), (", 1 GB rollout, 200 MB line", huge_home(scale))):
            peak = bench.peak_bytes(place) / 1e6
            yield _figure(f"peak memory{name}", peak, "MB", None, Goal.MOST, 250.0)


def _figure(
    name: str, value: float, unit: str, floor: float | None, goal: Goal, limit: float
) -> Figure:
    return Figure(
        area="backfill",
        name=name,
        value=value,
        unit=unit,
        floor="wc -l" if floor else "",
        floor_value=floor,
        goal=goal,
        limit=limit,
    )


class Bench:
    """Syncs of one home, each into an index of its own."""

    def __init__(self, scale: Scale, home: Path, directory: Path) -> None:
        self._rounds = scale.rounds
        self._home = home
        self._index = directory / "index"
        self._names = directory / "names"
        self._names.write_bytes(b"\0".join(map(os.fsencode, home.rglob("rollout-*.jsonl"))))
        self._environment = {
            name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"
        } | {"PYTHONPYCACHEPREFIX": str(scale.directory.absolute() / "bytecode")}

    def medians(self) -> list[float]:
        """Seconds of the floor, of a sync with two processes, and with one."""
        commands = [["wc", "-l", f"--files0-from={self._names}"]]
        commands += [self._sync(self._home, jobs) for jobs in ("2", "1")]
        self._seconds(commands[1])  # compiles
        taken: list[list[float]] = [[] for _ in commands]
        for _ in range(self._rounds):
            for times, command in zip(taken, commands, strict=True):
                self._seconds(commands[0])
                times.append(self._seconds(command))
        return [statistics.median(times) for times in taken]

    def index_bytes(self) -> int:
        """How large the index is that the last sync has left."""
        return sum(file.stat().st_size for file in self._index.iterdir())

    def until_listed(self) -> float:
        """Seconds from the start of the process until another one can read the newest threads."""
        shutil.rmtree(self._index, ignore_errors=True)
        newest = sorted(path.name for path in self._home.glob("sessions/**/rollout-*"))[-_FIRST:]
        ids = {name[-42:-6] for name in newest}
        started = time.perf_counter()
        with subprocess.Popen(
            self._sync(self._home, "2"), env=self._environment, stdout=subprocess.DEVNULL
        ):
            while not ids <= self._listed():
                time.sleep(_LOOK_EVERY_S)
            return time.perf_counter() - started

    def _listed(self) -> set[str]:
        """Read which threads the index has, with a connection of its own."""
        try:
            flags = apsw.SQLITE_OPEN_READONLY
            reader = apsw.Connection(str(self._index / "state.sqlite"), flags=flags)
            return {row[0] for row in reader.execute("SELECT id FROM threads")}
        except (apsw.CantOpenError, apsw.BusyError, apsw.SQLError):
            return set()  # it is being made

    def peak_bytes(self, home: Path) -> int:
        """The peak memory of a sync of any home and of its workers, added up."""
        shutil.rmtree(self._index, ignore_errors=True)
        peaks: dict[str, int] = {}
        with subprocess.Popen(
            self._sync(home, "2"), env=self._environment, stdout=subprocess.DEVNULL
        ) as process:
            while process.poll() is None:
                for each in [str(process.pid), *_children(process.pid)]:
                    peaks[each] = max(peaks.get(each, 0), _peak_of(each))
                time.sleep(_LOOK_EVERY_S)
        return sum(peaks.values())

    def _sync(self, home: Path, jobs: str) -> list[str]:
        database = str(self._index / "state.sqlite")
        return [
            COMMAND,
            "sync",
            "--home",
            str(home),
            "--db",
            database,
            "--jobs",
            jobs,
            "--metadata-only",
        ]

    def _seconds(self, command: list[str]) -> float:
        shutil.rmtree(self._index, ignore_errors=True)
        started = time.perf_counter()
        subprocess.run(command, env=self._environment, stdout=subprocess.DEVNULL, check=True)
        return time.perf_counter() - started


def _children(process: int) -> list[str]:
    try:
        return Path(f"/proc/{process}/task/{process}/children").read_text("ascii").split()
    except OSError:
        return []


def _peak_of(process: str) -> int:
    try:
        status = Path(f"/proc/{process}/status").read_text("ascii")
    except OSError:
        return 0
    sizes = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")]
    return 1024 * int(sizes[0]) if sizes else 0


if __name__ == "__main__":
    run_alone(measure, __doc__)
