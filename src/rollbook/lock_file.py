"""A lock that is the existence of a file: for where those of the operating system may not hold."""

import errno
import fcntl
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import NamedTuple

_POLL_S = 0.02
_LOOK_EVERY_S = 1.0
_SOON_S = 0.1
_TAKEN_OVER_WITHIN_S = 0.2  # by the library, where the file system can exchange two names
_MOST_BYTES = 1024
_NAMELESS_S = 3.0  # whoever makes a lock file says within milliseconds who it is


class _Marker(NamedTuple):
    """A lock file as it was at one moment."""

    inode: int
    changed_ns: int
    content: bytes

    def is_unfinished(self) -> bool:
        """Say whether its maker has not said yet who it is, or was killed before."""
        return not re.match(rb"\d+\n.+\n", self.content)


class LockFile:
    """Made by one only, as any file system sees to; it says who that is, and goes with the lock.

    One that a dead process of this machine has left is in nobody's way.  A thread that has the lock
    may take it again.
    """

    def __init__(self, path: Path) -> None:
        from filelock import SoftFileLock  # takes longer to load than most commands run

        self.path = path
        self._lock = SoftFileLock(path, mode=0o600, poll_interval=_POLL_S, thread_local=False)

    def acquire(self, timeout_s: float) -> None:
        """Wait for the lock, for at most so many seconds.

        Errors: TimeoutError where somebody still has it then, OSError where it can't be made.
        """
        deadline = time.monotonic() + timeout_s
        wait_s = since = 0.0
        seen: _Marker | None = None
        while True:
            try:
                self._lock.acquire(timeout=wait_s)
            except TimeoutError:
                now = time.monotonic()
                marker = _look(self.path)
                if marker != seen:
                    seen, since = marker, now
                patience_s = _patience_s(marker)
                if patience_s is None and now >= deadline:
                    raise
                if patience_s is not None and now - since >= patience_s:
                    self._remove(marker)
                wait_s = (
                    min(max(deadline - now, 0), _LOOK_EVERY_S) if patience_s is None else _SOON_S
                )
            else:
                return

    def release(self) -> None:
        """Let the next one have it."""
        self._lock.release()

    def _remove(self, marker: _Marker | None) -> None:
        """Remove what the library can't take over, unless another process of this machine has."""
        with _alone_on_this_machine():
            if _look(self.path) == marker:
                self.path.unlink(missing_ok=True)


def maker_of(path: Path) -> tuple[str, bool] | None:
    """Say who has made a lock file, and whether that process is dead; None where there is none.

    Errors: OSError.
    """
    marker = _look(path)
    if marker is None:
        return None
    pid, machine, *_ = [*marker.content.decode("utf-8", "replace").splitlines(), "?", "?"]
    return f"process {pid} of {machine}", _is_left(marker)


def _look(path: Path) -> _Marker | None:
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            return _Marker(status.st_ino, status.st_ctime_ns, file.read(_MOST_BYTES))
    except FileNotFoundError:
        return None


def _patience_s(marker: _Marker | None) -> float | None:
    """Say how long a lock file may stay that nobody may be left for; None where somebody is."""
    if marker is None:
        return None
    if marker.is_unfinished():
        return _NAMELESS_S
    return _TAKEN_OVER_WITHIN_S if _is_left(marker) else None


def _is_left(marker: _Marker) -> bool:
    """Say whether a process of this machine has made it that is dead.

    One with the number of a dead one counts as that.
    """
    pid, _, rest = marker.content.partition(b"\n")
    if marker.is_unfinished() or rest.split(b"\n")[0] != _this_machine():
        return False
    try:
        os.kill(int(pid), 0)
    except (ProcessLookupError, OverflowError):
        return True
    except PermissionError:
        return False
    return False


@cache
def _this_machine() -> bytes:
    """Find out what lock files call this machine: as the library does, in one that it makes."""
    from tempfile import TemporaryDirectory

    from filelock import SoftFileLock

    with TemporaryDirectory(prefix="rollbook-") as directory:
        path = Path(directory) / "lock"
        with SoftFileLock(path):
            return path.read_bytes().split(b"\n")[1]


@contextmanager
def _alone_on_this_machine() -> Iterator[None]:
    """Let no other process of this user into such a block."""
    from tempfile import gettempdir

    path = Path(gettempdir()) / f"rollbook-{os.getuid()}.lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        if os.fstat(descriptor).st_uid != os.getuid():
            raise OSError(errno.EACCES, "it belongs to somebody else", str(path))
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
