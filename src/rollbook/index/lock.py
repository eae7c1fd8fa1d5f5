"""What one process at a time may do: compare the whole home with the index, change the annotations.

An operating-system lock on a file beside the database, so that the death of the holder frees it;
on a network file system a lock file, which is taken over when its holder has died.
"""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rollbook.errors import DatabaseBusyError, DatabaseUnwritableError
from rollbook.filesystem import is_network, try_lock
from rollbook.holders import described, holders_of
from rollbook.lock_file import LockFile

_POLL_S = 0.05


@contextmanager
def sync_lock(location: str, timeout_s: float) -> Iterator[None]:
    """Hold the lock of a database for the block, waiting for at most ``timeout_s`` seconds.

    Errors: DatabaseBusyError where another process still holds it then, DatabaseUnwritableError.
    """
    doing = f"is syncing {location}"
    hint = "wait until it has finished; what it has indexed can be read meanwhile"
    with held(sync_lock_path(location), timeout_s, doing, hint):
        yield


@contextmanager
def held(path: Path, timeout_s: float, doing: str, hint: str) -> Iterator[None]:
    """Hold a lock for the block; ``doing`` and ``hint`` are for whoever waits for its holder.

    Errors: as of :func:`sync_lock`.
    """
    try:
        lock = LockFile(path) if is_network(path) else _LocalLock(path)
        lock.acquire(timeout_s)
    except TimeoutError as error:
        raise DatabaseBusyError(f"{described(holders_of(path))} {doing}", hint=hint) from error
    except OSError as error:
        raise DatabaseUnwritableError(
            f"{path} can't be locked: {error.strerror}",
            hint="check the permissions of the directory, or name another database with --db",
        ) from error
    try:
        yield
    finally:
        lock.release()


class _LocalLock:
    """A lock of the operating system on a file, which stays there for the next one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = -1

    def acquire(self, timeout_s: float) -> None:
        """Wait for the lock, for at most so many seconds.  Errors: TimeoutError, OSError."""
        deadline = time.monotonic() + timeout_s
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            self._wait(deadline)
        except BaseException:
            os.close(self._descriptor)
            raise

    def release(self) -> None:
        """Free it, also where a forked child has not let the file go yet."""
        fcntl.flock(self._descriptor, fcntl.LOCK_UN)
        os.close(self._descriptor)

    def _wait(self, deadline: float) -> None:
        while not try_lock(self._descriptor, fcntl.LOCK_EX):
            if time.monotonic() >= deadline:
                raise TimeoutError(str(self._path))
            time.sleep(_POLL_S)


def sync_lock_path(location: str) -> Path:
    """Where the lock of a database is."""
    return lock_path(Path(f"{location}.sync.lock"))


def lock_path(path: Path) -> Path:
    """Where a lock is that is at a path on a local file system."""
    return path.with_suffix(".network.lock") if is_network(path) else path
