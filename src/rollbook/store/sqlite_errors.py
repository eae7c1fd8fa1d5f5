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
_DAMAGED_READ = (apsw.SQLITE_IOERR_SHORT_READ, apsw.SQLITE_IOERR_DATA, apsw.SQLITE_IOERR_CORRUPTFS)
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
        return damaged(path, str(error), damage_hint)
    if isinstance(error, UNWRITABLE):
        return DatabaseUnwritableError(f"the database {path} refused: {error}", hint=_hint(error))
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
        hint=_hint(why) if why else _CHECK,
    )


def unwritable(path: Path, error: OSError) -> DatabaseUnwritableError:
    """The error of a file that can't be made or changed."""
    hint = "name a file in a directory that you can write to with --db"
    if error.errno in {errno.EMFILE, errno.ENFILE}:
        hint = _hint(error)
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        hint = "free some disk space"
    return DatabaseUnwritableError(
        f"the database {path} can't be created or written: {error.strerror}", hint=hint
    )


def _hint(error: Exception) -> str:
    if isinstance(error, apsw.FullError):
        return "free some disk space"
    if _has_no_files_left():
        return "this process has too many files open: close some, or raise `ulimit -n`"
    return "check the disk" if isinstance(error, apsw.IOError) else _CHECK


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
