"""The file of an SQLite database: who may do what to it when, and how a damaged one is set aside.

Two kinds of lock stand beside SQLite's own, which say nothing about a file's replacement.  Whoever
makes a connection or commits holds ``<file>.lock`` together with others; whoever creates, migrates
or replaces the file holds it alone.  And every process that has the database open holds
``<file>.open``, which also keeps what the file looked like when the last of them left it in order.
Both end with their holder.
"""

import errno
import fcntl
import os
import random
import re
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from rollbook.errors import DatabaseUnwritableError
from rollbook.filesystem import is_network, make_private, try_lock
from rollbook.holders import holders_of
from rollbook.lock_file import LockFile
from rollbook.store.sqlite_errors import busy, unwritable

KEPT_FILES = 5  # damaged ones, the newest
_OWN_NAMES = {"state.sqlite", "content.sqlite", "logs.sqlite"}
COMPANIONS = ("-wal", "-shm", "-journal")
PENDING = "-pending"  # as long as its rows have not all been carried over
MARK = slice(68, 72)  # in the header, whose program's file it is
WRITE_LOCK_BYTE = 120  # of the -shm, where SQLite's writers lock

ALONE = "vfs=unix-none"  # for who needs no locks, as nobody else has the file

_SHARED_BYTES = 32 << 10  # at least, or the file could not be made
_MAY_NOT = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT)
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)
_WAIT_S = (0.001, 0.02)
_UNNAMEABLE = re.compile(r"[^a-z0-9]+")
_REASON_LENGTH = 40
_JITTER = random.SystemRandom()

Identity = tuple[int, ...]


class DatabaseFile(Protocol):
    """What the engine asks of the file, wherever that lies."""

    path: Path
    vfs: str | None
    journal_mode: str
    keeps_connections: bool
    may_be_written: bool

    def identity(self) -> Identity | None:
        """Say which file it is now; None where there is none."""

    def parts(self) -> Identity:
        """Say which files belong to it now: a writer's are lost with any of them."""

    def begin(self, *, writing: bool = False) -> None:
        """Do what has to be done before a transaction."""

    def end(self, error: BaseException | None) -> None:
        """Do what has to be done after it: in the same thread, with the error that it ended with."""

    def reading(self, *, writing: bool = False) -> AbstractContextManager[None]:
        """Surround a transaction."""

    def connecting(self) -> AbstractContextManager[None]:
        """Surround the making of a connection: the file is not replaced meanwhile."""

    def replacing(self) -> AbstractContextManager[None]:
        """Surround a change of the file itself."""

    def pin(self) -> bool:
        """Keep the file from being replaced until it is released; False where that is going on."""

    def release(self) -> None:
        """Take back :meth:`pin`."""

    def enter(self) -> bool:
        """Count among those who have it open; says whether it was not left in order by the last."""

    def note(self) -> None:
        """Note what the file looks like, as it was found in order."""

    def leave(self, *, has_written: bool) -> None:
        """Be gone; the last one notes what the file looks like, if it is the one to know."""

    def forget(self) -> None:
        """Be gone in a forked child, whose parent goes on."""


class LocalFile:
    """A file that only this machine uses, through SQLite's own locks and shared memory."""

    vfs: str | None = None
    journal_mode = "wal"
    keeps_connections = True
    may_be_written = True

    def __init__(self, path: Path, give_up_after_s: float) -> None:
        self.path = path
        self._give_up_after_s = give_up_after_s
        self._lock_path = beside(path, ".lock")
        self._companions = [str(beside(path, end)) for end in COMPANIONS[:2]]
        self._parts = (str(path), *self._companions)
        self._pin: int | None = None
        self._presence: int | None = None

    def identity(self) -> Identity | None:
        """Say which file it is now."""
        return _identity(self._parts[0])

    def parts(self) -> Identity:
        """Say which files belong to it now."""
        found: list[int] = []
        for path in self._parts:
            found += _identity(path) or ()
        return tuple(found)

    def begin(self, *, writing: bool = False) -> None:
        """Do what has to be done before a transaction: nothing, as SQLite does it all."""

    def end(self, error: BaseException | None) -> None:
        """Do what has to be done after a transaction: nothing."""

    def reading(self, *, writing: bool = False) -> AbstractContextManager[None]:
        """Surround a transaction: with nothing."""
        del writing
        return nullcontext()

    def connecting(self) -> AbstractContextManager[None]:
        """Surround the making of a connection."""
        return self._locked(fcntl.LOCK_SH)

    def replacing(self) -> AbstractContextManager[None]:
        """Surround a change of the file itself."""
        return self._locked(fcntl.LOCK_EX)

    def pin(self) -> bool:
        """Keep the file from being replaced; by one thread at a time."""
        if self._pin is None:
            self._pin = _open_lock(self._lock_path)
        return _try_lock(self._pin, fcntl.LOCK_SH)

    def release(self) -> None:
        """Take back :meth:`pin`."""
        if self._pin is not None:
            fcntl.flock(self._pin, fcntl.LOCK_UN)

    def enter(self) -> bool:
        """Count among those who have it open; says whether it was not left in order by the last."""
        make_directory(self.path)
        self._presence = descriptor = _open_lock(beside(self.path, ".open"))
        if descriptor is None or not _try_lock(descriptor, fcntl.LOCK_EX):
            _try_lock(descriptor, fcntl.LOCK_SH)
            return False
        is_as_noted = os.pread(descriptor, 100, 0) == self._look()
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        return not is_as_noted or os.path.exists(self._companions[0])

    def note(self) -> None:
        """Note what the file looks like, as it was found in order."""
        descriptor, look = self._presence, self._look()
        try:
            if descriptor is not None and os.pread(descriptor, 100, 0) != look:
                os.pwrite(descriptor, look, 0)
                os.ftruncate(descriptor, len(look))
        except OSError:
            return  # a full disk, or one that is only read: then the next one looks again

    def leave(self, *, has_written: bool) -> None:
        """Be gone; the last one notes what the file looks like, if it is the one to know.

        Where somebody else has changed the file, whoever opens it next looks at it closely.
        """
        if has_written and _try_lock(self._presence, fcntl.LOCK_EX):
            self.note()
        self.forget()

    def forget(self) -> None:
        """Be gone in a forked child, whose parent goes on: without touching its locks."""
        for descriptor in (self._presence, self._pin):
            if descriptor is not None:
                os.close(descriptor)
        self._presence = self._pin = None

    def _look(self) -> bytes:
        try:
            status = self.path.stat()
        except OSError:
            return b""
        return f"{status.st_ino} {status.st_size} {status.st_mtime_ns}\n".encode()

    @contextmanager
    def _locked(self, kind: int) -> Iterator[None]:
        descriptor = _open_lock(self._lock_path)
        try:
            deadline = time.monotonic() + self._give_up_after_s
            while not _try_lock(descriptor, kind):
                if time.monotonic() > deadline:
                    raise busy(self.path, self._give_up_after_s, holders_of(self._lock_path))
                time.sleep(_JITTER.uniform(*_WAIT_S))
            yield
        finally:
            if descriptor is not None:
                os.close(descriptor)


class NetworkFile:
    """A file that other machines may use, where neither shared memory nor locks can be relied on.

    So whoever reads or writes has it alone: a lock file is made, which any file system does for one
    only, and the connection lasts no longer, as only a newly opened file surely shows what others
    have written.  A lock file that a dead process of this machine has left is removed.
    """

    vfs: str | None = "unix-none"
    journal_mode = "truncate"
    keeps_connections = False

    def __init__(self, path: Path, give_up_after_s: float) -> None:
        self.path = path
        self.may_be_written = True
        self._give_up_after_s = give_up_after_s
        self._is_mine = threading.RLock()
        self._lock: LockFile | None = None
        self._surroundings: list[ExitStack] = []  # of the transactions of whoever has it

    def identity(self) -> Identity | None:
        """Say which file it is now."""
        return _identity(self.path)

    def parts(self) -> Identity:
        """Say which files belong to it now: the journal comes and goes."""
        return self.identity() or ()

    def begin(self, *, writing: bool = False) -> None:
        """Do what has to be done before a transaction."""
        with ExitStack() as stack:
            stack.enter_context(self.reading(writing=writing))
            self._surroundings.append(stack.pop_all())

    def end(self, error: BaseException | None) -> None:
        """Do what has to be done after it."""
        stack = self._surroundings.pop()
        if error is None:
            stack.close()
        else:
            stack.__exit__(type(error), error, error.__traceback__)

    @contextmanager
    def reading(self, *, writing: bool = False) -> Iterator[None]:
        """Surround a transaction.  Where no lock file can be made, it can only be read."""
        with self._is_mine:
            if not self.may_be_written and not writing:
                yield
                return
            if self._lock is None:
                self._lock = LockFile(beside(self.path, ".network.lock"))
            try:
                self._lock.acquire(self._give_up_after_s)
            except TimeoutError as error:
                who = f"the process that {self._lock.path} names"
                raise busy(self.path, self._give_up_after_s, who=who) from error
            except OSError as error:
                if error.errno not in _NO_ROOM or writing:
                    raise unwritable(self.path, error) from error
                with self._looked_at():
                    yield
                return
            try:
                yield
            finally:
                self._lock.release()

    @contextmanager
    def _looked_at(self) -> Iterator[None]:
        """Surround a transaction without a lock, of a file that others seldom write to."""
        before, self.may_be_written = self._look(), False
        try:
            yield
        finally:
            self.may_be_written = True
        if before != self._look():
            raise busy(self.path, 0, who="another machine")

    def _look(self) -> tuple[int, int, int] | None:
        try:
            status = self.path.stat()
        except OSError:
            return None
        return status.st_ino, status.st_size, status.st_mtime_ns

    connecting = reading

    def replacing(self) -> AbstractContextManager[None]:
        """Surround a change of the file itself."""
        return self.reading(writing=True)

    def pin(self) -> bool:
        """Keep the file from being replaced: it is ours alone already."""
        return True

    def release(self) -> None:
        """Take back :meth:`pin`."""

    def enter(self) -> bool:
        """Count among those who have it open: nobody does for longer than a transaction."""
        return False

    def note(self) -> None:
        """Note what the file looks like: of no use where nobody keeps it open."""

    def leave(self, *, has_written: bool) -> None:
        """Be gone."""

    def forget(self) -> None:
        """Be gone in a forked child."""


def database_file(path: Path, give_up_after_s: float) -> DatabaseFile:
    """Choose how a file is used by where it lies."""
    kind = NetworkFile if is_network(path) else LocalFile
    return kind(path, give_up_after_s)


def create(path: Path) -> bool:
    """Create file and directory, private to the user; says whether the file was not there.

    Errors: DatabaseUnwritableError.
    """
    make_directory(path)
    check_place(path)
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except FileExistsError:
        return False
    except OSError as error:
        raise unwritable(path, error) from error
    return True


def check_place(path: Path) -> None:
    """Refuse what is no place for a file, such as a directory.  Errors: DatabaseUnwritableError."""
    if os.path.exists(path) and not os.path.isfile(path):
        raise DatabaseUnwritableError(
            f"the database {path} can't be created: there is something else in its place",
            hint="name another file with --db",
        )


def make_directory(path: Path) -> None:
    """Create the directory of a file, private to the user.  Errors: DatabaseUnwritableError."""
    try:
        make_private(path.parent)
    except OSError as error:
        raise unwritable(path, error) from error


def is_known(path: Path) -> bool:
    """Say whether Rollbook has had the database at this path open before."""
    return os.path.exists(beside(path, ".open"))


def has_log(path: Path) -> bool:
    """Say whether the file alone is not what was committed: there is a log, or a journal."""
    return any(has_content(beside(path, end)) for end in ("-wal", "-journal"))


def is_shared(path: Path) -> bool:
    """Say whether a database in WAL mode may be in use: there is the memory that its users share."""
    return has_content(beside(path, "-shm"), _SHARED_BYTES)


def has_content(path: Path, min_bytes: int = 1) -> bool:
    """Say whether there is a file, and so much in it."""
    return size_of(path) >= min_bytes


def size_of(path: Path) -> int:
    """Say how large a file is in bytes; 0 where it is not there."""
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def is_ours(path: Path) -> bool:
    """Say whether what can't be read may be taken for a database that Rollbook made.

    Rollbook has had it open, or it is where only Rollbook's are.
    """
    return (path.parent.name == "rollbook" and path.name in _OWN_NAMES) or is_known(path)


def set_aside(path: Path, why: str, *, is_needed: bool) -> Path | None:
    """Rename a file, and what belongs to it, so that the name says when and why.

    The newest few are kept, and those that are still needed, as this one may be; see
    :func:`pending_files`.  None where there is no file.  Errors: DatabaseUnwritableError.
    """
    reason = _UNNAMEABLE.sub("-", why.lower())[:_REASON_LENGTH].strip("-") or "damaged"
    when = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
    kept = beside(path, f".damaged-{when}-{reason}")
    try:
        if is_needed and path.exists():
            os.close(os.open(beside(kept, PENDING), os.O_CREAT | os.O_WRONLY, 0o600))
        for end in ("", *COMPANIONS):
            companion = beside(path, end)
            if companion.exists():
                companion.rename(beside(kept, end))
        for old in kept_files(path)[:-KEPT_FILES]:
            if not beside(old, PENDING).exists():
                for end in ("", *COMPANIONS):
                    beside(old, end).unlink(missing_ok=True)
    except OSError as error:
        raise unwritable(path, error) from error
    return kept if kept.exists() else None


def copied(path: Path, directory: Path) -> Path:
    """Copy a database, with its log or journal, to where it can be opened; gives the place of the copy.

    For one that nobody can write to.  There may be none to copy.  Errors: OSError.
    """
    import shutil

    place = directory / "rollbook" / path.name
    make_private(place.parent)
    for end in ("", "-wal", "-journal"):
        if os.access(beside(path, end), os.R_OK):
            shutil.copyfile(beside(path, end), beside(place, end))
    return place


def kept_files(path: Path) -> list[Path]:
    """Find the damaged files that were set aside for a database, the oldest first."""
    prefix = f"{path.name}.damaged-"
    return sorted(
        file
        for file in path.parent.iterdir()
        if file.name.startswith(prefix) and not file.name.endswith((*COMPANIONS, PENDING))
    )


def pending_files(path: Path) -> list[Path]:
    """Find those whose rows have not all been carried over."""
    return [kept for kept in kept_files(path) if beside(kept, PENDING).exists()]


@contextmanager
def needed(kept: Path) -> Iterator[bool]:
    """Surround the carrying over of a file's rows; False where another process is at it.

    When the block ends well, the file is needed no more.
    """
    marker = beside(kept, PENDING)
    descriptor = os.open(marker, os.O_RDWR)
    try:
        is_mine = _try_lock(descriptor, fcntl.LOCK_EX)
        yield is_mine
        if is_mine:
            marker.unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def beside(path: Path, end: str) -> Path:
    """Name a file that belongs to another one."""
    return path.with_name(path.name + end)


def _identity(path: Path | str) -> Identity | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _open_lock(path: Path) -> int | None:
    """Open a lock file; None where it can't be made, as then nobody can replace the database.

    Errors: DatabaseUnwritableError.
    """
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        if error.errno not in _MAY_NOT:
            raise unwritable(path, error) from error
    try:
        return os.open(path, os.O_RDONLY)
    except OSError as error:
        if error.errno not in _MAY_NOT:
            raise unwritable(path, error) from error
        return None


def _try_lock(descriptor: int | None, kind: int) -> bool:
    try:
        return descriptor is None or try_lock(descriptor, kind)
    except OSError as error:
        raise DatabaseUnwritableError(
            f"files can't be locked here: {error.strerror}",
            hint="set ROLLBOOK_NETWORK_FILES=1, or name a database on another disk with --db",
        ) from error
