"""The SQLite engine: one file, one writer connection, up to four readers.

apsw rather than the standard library's module: it brings a current SQLite along and leaves
transactions to us.
"""

import os
import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Empty, LifoQueue
from typing import Any, Self, TypeVar

import apsw

from rollbook.errors import (
    DatabaseBusyError,
    DatabaseDamagedError,
    DatabaseError,
)
from rollbook.store.engine import Parameters, Row
from rollbook.store.migrate import load_migrations, migrate

BUSY_TIMEOUT_S = 5.0
GIVE_UP_AFTER_S = 30.0
MAX_READERS = 4
APPLICATION_ID = 0x526F6C6C  # "Roll": so that no other program's database is taken for ours

_JITTER = random.SystemRandom()
_Result = TypeVar("_Result")
_DAMAGED = (apsw.CorruptError, apsw.NotADBError)
_BUSY = (apsw.BusyError, apsw.LockedError)


class SqliteTransaction:
    """Statements on one connection."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection

    def query(self, sql: str, parameters: Parameters = {}) -> list[Row]:
        """Run one statement and return all its rows."""
        return list(self._connection.execute(sql, dict(parameters)))

    def execute(self, sql: str, parameters: Parameters = {}) -> None:
        """Run one statement for its effect."""
        self._connection.execute(sql, dict(parameters)).fetchall()

    def execute_many(self, sql: str, parameters: Iterable[Parameters]) -> None:
        """Run one statement once for each set of parameters."""
        self._connection.executemany(sql, (dict(each) for each in parameters)).fetchall()

    def contains(self, column: str, parameter: str) -> str:
        """Give the condition that a column holds the text of a parameter, ASCII case ignored."""
        return f"instr(lower({column}), lower(:{parameter})) > 0"

    def script(self, sql: str) -> None:
        """Run several statements."""
        self._connection.execute(sql).fetchall()


class SqliteEngine:
    """An open SQLite database; see :class:`rollbook.store.engine.Engine` for the contract."""

    name = "sqlite"

    def __init__(self, path: Path) -> None:
        self._path = path
        self._write_lock = threading.Lock()
        self._readers: LifoQueue[apsw.Connection] = LifoQueue()
        self._reader_slots = threading.Semaphore(MAX_READERS)
        self._connections: list[apsw.Connection] = []
        self._writer = self._connect(BUSY_TIMEOUT_S)

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open the database at a path, with what is missing created: file, directory, schema.

        An up-to-date database is opened without a write lock.  New files are private to the user.
        Errors: DatabaseDamagedError where the file is no database, DatabaseVersionError where a
        newer release wrote it, DatabaseBusyError, DatabaseError where the file can't be used.
        """
        is_new = _create_file(path)
        with _translated(path):
            if not is_new:
                _refuse_foreign(path)
            engine = cls(path)
        try:
            engine._prepare()
        except BaseException:
            engine.close()
            raise
        return engine

    @property
    def location(self) -> str:
        """The path of the file."""
        return str(self._path)

    @contextmanager
    def read(self) -> Iterator[SqliteTransaction]:
        """Lend a connection for reading."""
        with self._reader_slots, _translated(self._path):
            try:
                connection = self._readers.get_nowait()
            except Empty:
                connection = self._connect(GIVE_UP_AFTER_S)
            try:
                yield SqliteTransaction(connection)
            finally:
                self._readers.put(connection)

    @contextmanager
    def write(self) -> Iterator[SqliteTransaction]:
        """Run the block in a transaction that holds the write lock from its beginning."""
        if not self._write_lock.acquire(timeout=GIVE_UP_AFTER_S):
            raise _busy(self._path)
        try:
            with _translated(self._path):
                _retry(self._path, lambda: self._writer.execute("BEGIN IMMEDIATE"))
                try:
                    yield SqliteTransaction(self._writer)
                    _retry(self._path, lambda: self._writer.execute("COMMIT"))
                except BaseException:
                    if self._writer.in_transaction:
                        self._writer.execute("ROLLBACK")
                    raise
        finally:
            self._write_lock.release()

    def close(self) -> None:
        """Close all connections."""
        for connection in self._connections:
            connection.close()

    def _connect(self, busy_timeout_s: float) -> apsw.Connection:
        connection = apsw.Connection(str(self._path))
        self._connections.append(connection)
        connection.set_busy_timeout(int(busy_timeout_s * 1000))
        connection.execute("PRAGMA synchronous = NORMAL; PRAGMA foreign_keys = ON")
        return connection

    def _prepare(self) -> None:
        """Make the database one of ours in WAL mode with the current schema, if it isn't yet."""
        with _translated(self._path):
            if self._pragma("application_id") != APPLICATION_ID:
                self._retried(f"PRAGMA application_id = {APPLICATION_ID}")
            if self._pragma("journal_mode") != "wal":
                self._retried("PRAGMA journal_mode = WAL")
            applied = self._applied_migrations()
        migrate(self, applied, load_migrations(self.name))

    def _applied_migrations(self) -> list[tuple[int, str]]:
        if not self._has_tables():
            return []
        rows = self._writer.execute("SELECT version, checksum FROM schema_migrations")
        return [(int(str(version)), str(checksum)) for version, checksum in rows]

    def _has_tables(self) -> bool:
        return bool(self._writer.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchall())

    def _pragma(self, name: str) -> Any:
        return _retry(self._path, lambda: self._writer.pragma(name))

    def _retried(self, sql: str) -> None:
        _retry(self._path, lambda: self._writer.execute(sql).fetchall())


def _create_file(path: Path) -> bool:
    """Create file and directory, private to the user; says whether the file was not there."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except FileExistsError:
        if path.is_file():
            return False
        raise DatabaseError(
            f"the database {path} can't be created: there is something else in its place",
            hint="name another file with --db",
        ) from None
    except OSError as error:
        raise DatabaseError(
            f"the database {path} can't be created: {error.strerror}",
            hint="name a file in a directory that you can write to with --db",
        ) from error
    return True


def _refuse_foreign(path: Path) -> None:
    """Look at an existing file without changing it; refuse what isn't a database of Rollbook."""
    if path.stat().st_size == 0:
        return
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        connection.set_busy_timeout(int(GIVE_UP_AFTER_S * 1000))
        has_tables = connection.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchall()
        if has_tables and connection.pragma("application_id") != APPLICATION_ID:
            raise DatabaseError(
                f"{path} is a database of another program",
                hint="Rollbook leaves it alone; name another file with --db",
            )
    finally:
        connection.close()


def _retry(path: Path, action: Callable[[], _Result]) -> _Result:
    """Run an action again while the database is busy, with jitter, up to the limit."""
    deadline = time.monotonic() + GIVE_UP_AFTER_S
    while True:
        try:
            return action()
        except _BUSY as error:
            if time.monotonic() > deadline:
                raise _busy(path) from error
            time.sleep(_JITTER.uniform(0.001, 0.02))


def _busy(path: Path) -> DatabaseBusyError:
    return DatabaseBusyError(
        f"the database {path} has been locked by another process for {GIVE_UP_AFTER_S:.0f} s",
        hint="wait for that process or end it, then try again",
    )


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    """Turn apsw's errors into ours, with the original as the cause."""
    try:
        yield
    except _BUSY as error:
        raise _busy(path) from error
    except _DAMAGED as error:
        raise DatabaseDamagedError(
            f"the database {path} is damaged or no database: {error}",
            hint="move the file away and run `rollbook sync` to rebuild it from the rollouts",
        ) from error
    except apsw.Error as error:
        raise DatabaseError(f"the database {path} refused: {error}", hint=_hint(error)) from error


def _hint(error: apsw.Error) -> str:
    if isinstance(error, apsw.FullError):
        return "free some disk space"
    if isinstance(error, apsw.ReadOnlyError | apsw.CantOpenError | apsw.PermissionsError):
        return "check the permissions of the file and its directory, or name another with --db"
    return ""
