"""Read an SQLite file that another program owns, without writing to it or being in its way."""

import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

import apsw
import msgspec

from rollbook.errors import DatabaseBusyError, DatabaseDamagedError, DatabaseError
from rollbook.store.engine import Row
from rollbook.store.sqlite import opening
from rollbook.store.sqlite_errors import BUSY, busy, translated
from rollbook.store.sqlite_file import ALONE, beside, copied, has_content, is_shared, size_of
from rollbook.store.sqlite_transaction import SqliteTransaction

_WAIT_S = 5.0
_ATTEMPTS = 10
_SETTLED_NS = 1_000_000_000
_COUNTS = {  # of the tables that agents and Rollbook have; of logs about, as there may be millions
    "threads": "SELECT count(*) FROM threads",
    "content_files": "SELECT count(*) FROM content_files",
    "logs": "SELECT coalesce(max(id) - min(id) + 1, 0) FROM logs",
}
_WRITE_VERSION = 18  # where a file's header says how it is written
_HINT = "the program that owns it has to repair it; Rollbook only reads it"
_Result = TypeVar("_Result")


class Snapshot:
    """The committed content of a database file, opened anew for each :meth:`read`.

    Where a WAL and its shared memory lie beside the file, a program may have it open: then a read
    is one more reader of the WAL, which holds up nobody.  Otherwise the file is read as it lies
    there, with its WAL, without any lock or file of SQLite's beside it, and read again if it has
    changed meanwhile.  A transaction that was not finished is undone in a copy.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._logs = [beside(path, end) for end in ("-wal", "-journal")]

    def read(self, action: Callable[[SqliteTransaction], _Result]) -> _Result:
        """Run an action on a connection that can't write; all of it sees one moment.

        Errors: DatabaseError where there is no such file or it can't be read, DatabaseBusyError
        where it changes all the time, DatabaseDamagedError.
        """
        for _ in range(_ATTEMPTS):
            before = self._look()
            try:
                result = self._read(action)
            except DatabaseDamagedError:
                if before is None or before == self._look():
                    raise
                continue  # it was being changed while it was read without a lock
            if before is None or before == self._look():
                return result
        raise DatabaseBusyError(f"the database {self.path} changes faster than it can be read")

    def state(self) -> tuple[int, ...] | None:
        """Say what is different after each change; None where there is no file, or that can't be told.

        It can't a moment after a change, as the next may happen at the same time by the file's clock.
        """
        try:
            found = self._states()
        except DatabaseError:
            return None
        is_settled = max(found[2::3]) + _SETTLED_NS < time.time_ns()
        return found if is_settled else None

    def _read(self, action: Callable[[SqliteTransaction], _Result]) -> _Result:
        if has_content(beside(self.path, "-journal")):
            from tempfile import TemporaryDirectory

            with TemporaryDirectory(prefix="rollbook-") as directory:
                return self._run(copied(self.path, Path(directory)), "mode=rw", action)
        if not has_content(beside(self.path, "-wal")):
            return self._run(self.path, "mode=ro&immutable=1", action)
        options = "mode=ro" if is_shared(self.path) else f"mode=ro&{ALONE}"
        return self._run(self.path, options, action)

    def _run(
        self, path: Path, options: str, action: Callable[[SqliteTransaction], _Result]
    ) -> _Result:
        flags = apsw.SQLITE_OPEN_URI
        flags |= apsw.SQLITE_OPEN_READWRITE if "rw" in options else apsw.SQLITE_OPEN_READONLY
        with opening, translated(self.path, _HINT):
            connection = apsw.Connection(f"file:{quote(os.fsencode(path))}?{options}", flags=flags)
            try:
                connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
                connection.set_busy_timeout(int(_WAIT_S * 1000))
                if ALONE in options:
                    connection.execute("PRAGMA locking_mode = EXCLUSIVE").fetchall()
                connection.execute("BEGIN")
                return action(SqliteTransaction(connection))
            except BUSY as error:
                raise busy(self.path, _WAIT_S) from error
            finally:
                connection.close()

    def _look(self) -> tuple[int, ...] | None:
        """Say what shows a change of the file; None where SQLite's own locks have to."""
        if is_shared(self.path) and has_content(beside(self.path, "-wal")):
            return None
        return self._states()

    def _states(self) -> tuple[int, ...]:
        try:
            found = _state_of(self.path)
        except OSError as error:
            raise DatabaseError(
                f"the database {self.path} can't be read: {error.strerror}"
            ) from error
        for log in self._logs:
            with suppress(FileNotFoundError):
                found += _state_of(log)
        return found


class Examination(msgspec.Struct, frozen=True):
    """What a look at a database file shows; ``integrity`` is "ok", or what is wrong, or empty.

    Empty where there was no time to look at all of it.  Sizes are in bytes.  ``journal_mode`` is
    "wal" or "rollback", as files tell no more.
    """

    application_id: int
    page_bytes: int
    file_bytes: int
    wal_bytes: int
    journal_mode: str
    versions: tuple[int, ...]
    rows: dict[str, int]
    integrity: str


def examine(path: Path, within_s: float | None) -> Examination:
    """Look at a database file without changing it: its form, how much is in it, its integrity.

    Errors: as :meth:`Snapshot.read`.
    """

    def look(tx: SqliteTransaction) -> Examination:
        versions: list[Row] = []
        if _has_column(tx, "schema_migrations", "version"):
            versions = tx.query("SELECT version FROM schema_migrations ORDER BY version")
        return Examination(
            application_id=tx.query("PRAGMA application_id")[0][0],
            page_bytes=tx.query("PRAGMA page_size")[0][0],
            file_bytes=path.stat().st_size,
            wal_bytes=size_of(path.with_name(path.name + "-wal")),
            journal_mode=_journal_mode(path),
            versions=tuple(version for (version,) in versions),
            rows={
                name: tx.query(count)[0][0]
                for name, count in _COUNTS.items()
                if _has_column(tx, name, "id")
            },
            integrity=tx.integrity(within_s),
        )

    return Snapshot(path).read(look)


def sqlite_version() -> str:
    """Say which SQLite reads and writes the databases."""
    return apsw.sqlite_lib_version()


def _has_column(tx: SqliteTransaction, table: str, column: str) -> bool:
    sql = "SELECT 1 FROM pragma_table_info(:table) WHERE name = :column"
    return bool(tx.query(sql, {"table": table, "column": column}))


def _journal_mode(path: Path) -> str:
    with path.open("rb") as file:
        return "wal" if file.read(_WRITE_VERSION + 1)[_WRITE_VERSION:] == b"\x02" else "rollback"


def _state_of(path: Path) -> tuple[int, ...]:
    status = path.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns
