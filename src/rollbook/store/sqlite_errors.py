"""The errors of apsw as ours, with the original as the cause."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import apsw

from rollbook.errors import DatabaseBusyError, DatabaseDamagedError, DatabaseError

BUSY = (apsw.BusyError, apsw.LockedError)
_DAMAGED = (apsw.CorruptError, apsw.NotADBError)
_UNUSABLE = (apsw.ReadOnlyError, apsw.CantOpenError, apsw.PermissionsError)


@contextmanager
def translated(path: Path, waited_s: float, damage_hint: str) -> Iterator[None]:
    """Translate what the block raises about the database at a path."""
    try:
        yield
    except BUSY as error:
        raise busy(path, waited_s) from error
    except _DAMAGED as error:
        raise DatabaseDamagedError(
            f"the database {path} is damaged or no database: {error}", hint=damage_hint
        ) from error
    except apsw.Error as error:
        raise DatabaseError(f"the database {path} refused: {error}", hint=_hint(error)) from error


def busy(path: Path, waited_s: float) -> DatabaseBusyError:
    """The error of somebody who has waited long enough."""
    return DatabaseBusyError(
        f"the database {path} has been locked by another process for {waited_s:.0f} s",
        hint="wait for that process or end it, then try again",
    )


def _hint(error: apsw.Error) -> str:
    if isinstance(error, apsw.FullError):
        return "free some disk space"
    if isinstance(error, _UNUSABLE):
        return "check the permissions of the file and its directory, or name another with --db"
    return ""
