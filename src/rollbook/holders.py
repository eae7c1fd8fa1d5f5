"""Which processes hold a lock on a file, as far as the operating system tells: Linux does."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

_LOCKS = Path("/proc/locks")
_PROCESSES = Path("/proc")
_STOPPED = "Tt"
_FIELDS = 8


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
        lines = _LOCKS.read_text("ascii").splitlines()
    except (OSError, ValueError):
        return []
    device = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}"
    wanted = f"{device}:{status.st_ino}"
    found: dict[int, Holder] = {}
    for line in lines:
        # "1: POSIX  ADVISORY  WRITE 4711 fe:00:2197345 120 120"; who waits has an arrow
        fields = line.split()
        if len(fields) != _FIELDS or fields[5] != wanted or (writing and fields[3] != "WRITE"):
            continue
        start, end = int(fields[6]), None if fields[7] == "EOF" else int(fields[7])
        if byte is None or (start <= byte and (end is None or byte <= end)):
            pid = int(fields[4])
            found[pid] = _holder(pid)
    return list(found.values())


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
        program, _, rest = (_PROCESSES / str(pid) / "stat").read_text("utf-8").rpartition(")")
    except (OSError, UnicodeDecodeError):
        return Holder(pid, "unknown", is_stopped=False)
    return Holder(pid, program.partition("(")[2], rest.split()[0] in _STOPPED)
