"""The errors of apsw, and of the operating system, as ours, with the original as the cause."""

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import apsw

from rollbook.errors import (
    DatabaseBusyError,
    DatabaseDamagedError,
    DatabaseError,
    DatabaseUnwritableError,
)
from rollbook.holders import Holder, described, way_out

BUSY = (apsw.BusyError, apsw.LockedError)
UNWRITABLE = (
    apsw.ReadOnlyError,
    apsw.CantOpenError,
    apsw.PermissionsError,
    apsw.FullError,
    apsw.IOError,
)
_DAMAGED = (apsw.CorruptError, apsw.NotADBError)
_DAMAGED_READ = (apsw.SQLITE_IOERR_SHORT_READ, apsw.SQLITE_IOERR_DATA)
# The statements are ours and the schema is, too: so where they don't fit, the file is damaged.
_MISFITS = (
    "no such table",
    "no such column",
    "has no column named",
    "unsupported file format",
    "malformed database schema",
    "file is encrypted",
)
_FILES_OF_A_CONNECTION = 4
_LITTLE_BYTES = 4 << 20
_PAGE_BYTES = 4096
_CHECK = "check the permissions of the file and its directory, or name another with --db"


@contextmanager
def translated(path: Path, damage_hint: str) -> Iterator[None]:
    """Translate what the block raises about the database at a path."""
    try:
        yield
    except (apsw.Error, UnicodeDecodeError) as error:
        raise as_ours(path, error, damage_hint) from error


def as_ours(path: Path, error: Exception, damage_hint: str) -> DatabaseError:
    """Find the error of ours that says what a driver's error means for the database at a path.

    Text that is no UTF-8 is damage, which the driver tells as UnicodeDecodeError.
    """
    is_damage = isinstance(error, (*_DAMAGED, UnicodeDecodeError))
    if isinstance(error, apsw.IOError):
        is_damage = getattr(error, "extendedresult", 0) in _DAMAGED_READ
    if isinstance(error, apsw.SQLError):
        is_damage = any(text in str(error) for text in _MISFITS)
    if is_damage:
        failure = _failure(path)  # which SQLite takes for damage, too
        if failure is None:
            return damaged(path, str(error), damage_hint)
        message = f"the database {path} can't be read: disk I/O error ({failure.strerror})"
        return DatabaseUnwritableError(message, hint=_hint(path, failure))
    if isinstance(error, UNWRITABLE):
        message = f"the database {path} refused: {error}"
        return DatabaseUnwritableError(message, hint=_hint(path, error))
    return DatabaseError(f"the database {path} refused: {error}")


def damaged(path: Path, what: str, hint: str) -> DatabaseDamagedError:
    """The error of a file that isn't what it should be."""
    return DatabaseDamagedError(
        f"the database {path} is damaged or no database: {what}", hint=hint, reason=what
    )


def busy(
    path: Path, waited_s: float, holders: Sequence[Holder] = (), who: str = ""
) -> DatabaseBusyError:
    """The error of somebody who has waited long enough."""
    who = who or described(holders)
    return DatabaseBusyError(
        f"the database {path} has been locked by {who} for {waited_s:.0f} s", hint=way_out(holders)
    )


def read_only(path: Path, why: Exception | None) -> DatabaseUnwritableError:
    """The error of a file that could be opened for reading alone."""
    cause = f": {why}" if why else ""
    return DatabaseUnwritableError(
        f"the database {path} can't be written, only read{cause}",
        hint=_hint(path, why) if why else _CHECK,
    )


def unwritable(path: Path, error: OSError) -> DatabaseUnwritableError:
    """The error of a file that can't be made or changed."""
    hint = "name a file in a directory that you can write to with --db"
    if error.errno in {errno.EMFILE, errno.ENFILE, errno.ENOSPC, errno.EDQUOT, errno.EIO}:
        hint = _hint(path, error)
    return DatabaseUnwritableError(
        f"the database {path} can't be created or written: {error.strerror}", hint=hint
    )


def _hint(path: Path, error: Exception) -> str:
    is_full = isinstance(error, apsw.FullError)
    if isinstance(error, OSError):
        is_full = error.errno in {errno.ENOSPC, errno.EDQUOT}
    if is_full or _is_full(path):
        return "free some disk space"
    if _has_no_files_left():
        return "this process has too many files open: close some, or raise `ulimit -n`"
    is_disk = isinstance(error, (apsw.IOError, OSError))
    return "check the disk" if is_disk else _CHECK


def _is_full(path: Path) -> bool:
    """Say whether there is no room on a disk for what SQLite has to make, and doesn't tell so."""
    try:
        disk = os.statvfs(path.parent)
    except OSError:
        return False
    return disk.f_bavail * disk.f_frsize < _LITTLE_BYTES


def _failure(path: Path) -> OSError | None:
    """Find the error with which a disk, or the file system, keeps a file from being read."""
    for end in ("", "-wal"):
        try:
            with open(f"{path}{end}", "rb", buffering=0) as file:
                while file.read(_PAGE_BYTES):
                    pass
        except FileNotFoundError:
            continue
        except OSError as error:
            return error
    return None


def _has_no_files_left() -> bool:
    """Say whether a connection could not even open its files."""
    opened: list[int] = []
    try:
        while len(opened) < _FILES_OF_A_CONNECTION:
            opened.append(os.open(os.devnull, os.O_RDONLY))
    except OSError:
        return True
    finally:
        for descriptor in opened:
            os.close(descriptor)
    return False
