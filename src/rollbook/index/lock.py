"""Who may compare the whole home with the index: one process at a time.

An operating-system lock on a file beside the database, so that the death of the holder frees it.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from rollbook.errors import DatabaseBusyError


@contextmanager
def sync_lock(location: str, timeout_s: float) -> Iterator[None]:
    """Hold the lock of a database for the block, waiting for at most ``timeout_s`` seconds.

    Errors: DatabaseBusyError where another process still holds it then.
    """
    import filelock  # takes longer to load than most commands run, and few need it

    lock = filelock.FileLock(f"{location}.sync.lock", timeout=timeout_s, mode=0o600)
    try:
        lock.acquire()
    except filelock.Timeout as error:
        raise DatabaseBusyError(
            f"another process is syncing {location}",
            hint="wait until it has finished; what it has indexed can be read meanwhile",
        ) from error
    try:
        yield
    finally:
        lock.release()
