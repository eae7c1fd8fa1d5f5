"""Who may compare the whole home with the index: one process at a time.

An operating-system lock on a file beside the database, so that the death of the holder frees it;
on a network file system a lock file, which is taken over when its holder has died.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rollbook.errors import DatabaseBusyError, DatabaseUnwritableError
from rollbook.filesystem import is_network
from rollbook.holders import described, holders_of
from rollbook.lock_file import LockFile

if TYPE_CHECKING:
    from filelock import FileLock


@contextmanager
def sync_lock(location: str, timeout_s: float) -> Iterator[None]:
    """Hold the lock of a database for the block, waiting for at most ``timeout_s`` seconds.

    Errors: DatabaseBusyError where another process still holds it then, DatabaseUnwritableError.
    """
    path = sync_lock_path(location)
    try:
        lock = LockFile(path) if is_network(path) else _local_lock(path)
        lock.acquire(timeout_s)
    except TimeoutError as error:
        holders = holders_of(path)
        raise DatabaseBusyError(
            f"{described(holders)} is syncing {location}",
            hint="wait until it has finished; what it has indexed can be read meanwhile",
        ) from error
    except OSError as error:
        raise DatabaseUnwritableError(
            f"{path} can't be locked: {error.strerror}",
            hint="check the permissions of the directory, or name another database with --db",
        ) from error
    try:
        yield
    finally:
        lock.release()


def _local_lock(path: Path) -> "FileLock":
    from filelock import FileLock  # takes longer to load than most commands run

    return FileLock(path, mode=0o600)


def sync_lock_path(location: str) -> Path:
    """Where the lock of a database is."""
    path = Path(f"{location}.sync.lock")
    return path.with_suffix(".network.lock") if is_network(path) else path
