"""A lock that is the existence of a file: for where those of the operating system may not hold."""

import errno
import fcntl
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import NamedTuple

_POLL_S = 0.02
_LOOK_EVERY_S = 1.0
_TAKEN_OVER_WITHIN_S = 0.2  # by the library, where the file system can exchange two names
_HALF_MADE_AFTER_S = 60.0  # a lock file says after some milliseconds who has made it


class _Marker(NamedTuple):
    """A lock file as it was at one moment."""

    inode: int
    changed_ns: int
    written_s: float
    content: bytes


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
        wait_s = 0.0
        before: _Marker | None = None
        while True:
            try:
                self._lock.acquire(timeout=wait_s)
            except TimeoutError:
                now = self._look()
                is_left = now is not None and _is_left(now)
                if is_left and now == before:
                    self._remove(now)
                left_s = deadline - time.monotonic()
                if left_s <= 0 and not is_left:
                    raise
                before = now
                wait_s = _TAKEN_OVER_WITHIN_S if is_left else min(left_s, _LOOK_EVERY_S)
            else:
                return

    def release(self) -> None:
        """Let the next one have it."""
        self._lock.release()

    def _look(self) -> _Marker | None:
        try:
            with self.path.open("rb") as file:
                status = os.fstat(file.fileno())
                return _Marker(status.st_ino, status.st_ctime_ns, status.st_mtime, file.read())
        except FileNotFoundError:
            return None

    def _remove(self, marker: _Marker | None) -> None:
        """Remove what the library can't take over, unless another process of this machine has."""
        with _alone_on_this_machine():
            if self._look() == marker:
                self.path.unlink(missing_ok=True)


def _is_left(marker: _Marker) -> bool:
    """Say whether its maker is dead: a process of this machine, or one that a power cut has ended.

    A process with the number of a dead one counts as that.
    """
    pid, _, host = marker.content.rstrip(b"\n").partition(b"\n")
    if not marker.content.endswith(b"\n") or not pid.isdigit():
        return time.time() - marker.written_s > _HALF_MADE_AFTER_S
    if host.split(b"\n")[0] != _this_machine():
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
    from filelock import SoftFileLock

    with tempfile.TemporaryDirectory(prefix="rollbook-") as directory:
        path = Path(directory) / "lock"
        with SoftFileLock(path):
            return path.read_bytes().split(b"\n")[1]


@contextmanager
def _alone_on_this_machine() -> Iterator[None]:
    """Let no other process of this user into such a block."""
    path = Path(tempfile.gettempdir()) / f"rollbook-{os.getuid()}.lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        if os.fstat(descriptor).st_uid != os.getuid():
            raise OSError(errno.EACCES, "it belongs to somebody else", str(path))
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
