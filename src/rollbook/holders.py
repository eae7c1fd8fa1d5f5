"""Which processes hold a lock on a file, as far as the operating system tells: Linux does."""

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

_LOCKS = Path("/proc/locks")
_PROCESSES = Path("/proc")
_STOPPED = "Tt"
# Such as: 1: POSIX  ADVISORY  WRITE 4711 fe:00:2197345 120 120
_FORM = re.compile(
    r"\d+: +\w+ +\w+ +(\w+) +(-?\d+) +([0-9a-f]+):([0-9a-f]+):(\d+) +(\d+) +(\d+|EOF)$"
)
_LARGEST = (1 << 63) - 1


class Holder(NamedTuple):
    """A process that holds a lock: its id, its program's name, whether it was stopped."""

    pid: int
    program: str
    is_stopped: bool

    def __str__(self) -> str:
        return f"process {self.pid} ({self.program}{', stopped' if self.is_stopped else ''})"


def holders_of(path: Path, byte: int | None = None, *, writing: bool = False) -> list[Holder]:
    """Find who holds a lock on a file, or on one byte of it; ``writing`` asks for exclusive locks.

    Empty where nobody does, where the file is not there, and where the system doesn't tell.
    """
    try:
        status = path.stat()
    except OSError:
        return []
    pids = {
        lock.pid: None
        for lock in _locks()
        if lock.file == (status.st_dev, status.st_ino)
        and (lock.is_exclusive or not writing)
        and (byte is None or lock.start <= byte <= lock.end)
    }
    return list(map(_holder, pids))


def writers_of(paths: Iterable[Path]) -> dict[Path, Holder]:
    """Find which of some files processes have open for writing, locked or not.

    Only those of processes that the user may look into, and where the system tells.
    """
    by_file: dict[tuple[int, int], Path] = {}
    for path in paths:
        try:
            status = path.stat()
        except OSError:
            continue
        by_file[status.st_dev, status.st_ino] = path
    found: dict[Path, Holder] = {}
    for process in _children(_PROCESSES) if by_file else ():
        for entry in _children(process / "fd") if process.name.isdigit() else ():
            try:
                status = entry.stat()
                written = by_file.get((status.st_dev, status.st_ino))
                if written is not None and _is_for_writing(process, entry.name):
                    found[written] = _holder(int(process.name))
            except OSError:  # closed meanwhile
                continue
    return found


def _is_for_writing(process: Path, descriptor: str) -> bool:
    information = (process / "fdinfo" / descriptor).read_text("ascii")
    flags = re.search(r"^flags:\s*([0-7]+)", information, re.MULTILINE)
    return flags is not None and int(flags[1], 8) & os.O_ACCMODE != os.O_RDONLY


def _children(directory: Path) -> list[Path]:
    try:
        return list(directory.iterdir())
    except OSError:
        return []


def writers_below(directory: Path) -> dict[int, Holder]:
    """Find, by inode, who holds files of a directory's file system for themselves alone."""
    try:
        device = directory.stat().st_dev
    except OSError:
        return {}
    return {
        lock.file[1]: _holder(lock.pid)
        for lock in _locks()
        if lock.is_exclusive and lock.file[0] == device
    }


class _Lock(NamedTuple):
    file: tuple[int, int]
    pid: int
    is_exclusive: bool
    start: int
    end: int


def _locks() -> Iterator[_Lock]:
    try:
        lines = _LOCKS.read_text("ascii").splitlines()
    except (OSError, ValueError):
        return
    for line in lines:
        lock = _FORM.match(line)
        if lock:  # who waits has an arrow in front
            kind, pid, major, minor, inode, start, end = lock.groups()
            yield _Lock(
                (os.makedev(int(major, 16), int(minor, 16)), int(inode)),
                int(pid),
                kind == "WRITE",
                int(start),
                _LARGEST if end == "EOF" else int(end),
            )


def described(holders: Iterable[Holder]) -> str:
    """Name processes in a message; "another process" for none."""
    return " and ".join(map(str, holders)) or "another process"


def way_out(holders: Iterable[Holder]) -> str:
    """Say what to do about processes that are in the way."""
    stopped = [str(holder.pid) for holder in holders if holder.is_stopped]
    if stopped:
        return f"`kill -CONT {' '.join(stopped)}` lets it go on; then try again"
    return "wait for that process or end it, then try again"


def _holder(pid: int) -> Holder:
    """Look a process up; one of another namespace, or that has just ended, has no name."""
    try:
        text = (_PROCESSES / str(pid) / "stat").read_text("utf-8", "replace")
    except OSError:
        return Holder(pid, "unknown", is_stopped=False)
    program, _, rest = text.rpartition(")")
    return Holder(pid, program.partition("(")[2], rest.split()[0] in _STOPPED)
