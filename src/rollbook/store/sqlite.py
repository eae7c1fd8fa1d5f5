"""The SQLite engine: one file, one writer connection, up to four readers.

apsw rather than the standard library's module: it brings a current SQLite along and leaves
transactions to us.
"""

import os
import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from itertools import chain
from pathlib import Path
from queue import Empty, LifoQueue
from typing import Any, Self, TypeVar

import apsw
import msgspec

from rollbook.errors import DatabaseError, RollbookError
from rollbook.forks import Gate, abandon, hold_during_fork, renew_after_fork
from rollbook.store.engine import STATE, Parameters, Row, Schema
from rollbook.store.migrate import load_migrations, migrate
from rollbook.store.sqlite_errors import BUSY, busy, translated
from rollbook.telemetry import DATABASE_OPENS, count

BUSY_TIMEOUT_S = 5.0
GIVE_UP_AFTER_S = 30.0
MAX_READERS = 4
WAL_LIMIT_BYTES = 16 << 20  # what the WAL is cut down to after a checkpoint

_MOST_ROWS = 64  # in one statement

opening = Gate(BUSY_TIMEOUT_S)  # connections that no engine has in its hands yet
_JITTER = random.SystemRandom()
_Result = TypeVar("_Result")


@cache
def _insertion(table: str, columns: tuple[str, ...], rows: int) -> str:
    row = f"({', '.join('?' * len(columns))})"
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES {', '.join([row] * rows)}"


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

    def insert_many(self, table: str, columns: Sequence[str], rows: Sequence[Row]) -> None:
        """Insert rows in order, with as few statements as the engine can.

        Each statement gives the interpreter's lock away once, and where other threads are busy it
        takes 5 ms to get it back: so many rows a statement, in sizes that stay prepared.
        """
        start, size = 0, _MOST_ROWS
        while start < len(rows):
            while size > len(rows) - start:
                size //= 2
            values = list(chain.from_iterable(rows[start : start + size]))
            self._connection.execute(_insertion(table, tuple(columns), size), values)
            start += size

    def contains(self, column: str, parameter: str) -> str:
        """Give the condition that a column holds the text of a parameter, ASCII case ignored."""
        return f"instr(lower({column}), lower(:{parameter})) > 0"

    def contains_any(self, column: str, parameter: str) -> str:
        """Give the condition that a column holds one of a list of texts, ASCII case ignored."""
        texts = f"SELECT 1 FROM json_each(:{parameter})"
        return f"EXISTS ({texts} WHERE instr(lower({column}), lower(value)) > 0)"

    def in_list(self, column: str, parameter: str) -> str:
        """Give the condition that a column is one of a list of values."""
        return f"{column} IN (SELECT value FROM json_each(:{parameter}))"

    def list_value(self, values: Sequence[str] | Sequence[int]) -> str:
        """Give the form in which a list is bound to a parameter of the two above, of any length."""
        return msgspec.json.encode(values).decode()

    def script(self, sql: str) -> None:
        """Run several statements."""
        self._connection.execute(sql).fetchall()


class SqliteEngine:
    """An open SQLite database; see :class:`rollbook.store.engine.Engine` for the contract.

    A forked child opens connections of its own: SQLite must not be used across a fork.
    """

    name = "sqlite"

    def __init__(self, path: Path, schema: Schema) -> None:
        self._path = path
        self._schema = schema
        self._start()
        hold_during_fork(self._hold, self._release)
        renew_after_fork(self._after_fork)

    def _start(self) -> None:
        self._write_lock = threading.Lock()
        self._readers: LifoQueue[apsw.Connection] = LifoQueue()
        self._reader_slots = threading.Semaphore(MAX_READERS)
        self._connections: list[apsw.Connection] = []
        self._held: list[threading.Lock | threading.Semaphore] = []
        self._is_closed = False
        self._write_connection: apsw.Connection | None = None

    @classmethod
    def open(cls, path: Path, schema: Schema = STATE) -> Self:
        """Open the database at a path, with what is missing created: file, directory, schema.

        An up-to-date database is opened without a write lock.  New files are private to the user.
        Errors: DatabaseDamagedError where the file is no database, DatabaseVersionError where a
        newer release wrote it, DatabaseBusyError, DatabaseError where the file can't be used.
        """
        attributes = {"db_system_name": cls.name, "rollbook_database": schema.name}
        try:
            with opening:
                engine, is_new = cls._opened(path, schema)
        except RollbookError as error:
            name = type(error).__name__
            count(DATABASE_OPENS, 1, **attributes, rollbook_outcome="failed", error_type=name)
            raise
        count(DATABASE_OPENS, 1, **attributes, rollbook_outcome="created" if is_new else "opened")
        return engine

    @classmethod
    def _opened(cls, path: Path, schema: Schema) -> tuple[Self, bool]:
        is_new = _create_file(path)
        engine = cls(path, schema)
        try:
            with engine._translated():
                if not is_new:
                    engine._refuse_foreign()
                engine._prepare()
                applied = engine._applied_migrations()
            migrate(engine, applied, load_migrations(cls.name, schema.name))
        except BaseException:
            engine.close()
            raise
        return engine, is_new

    @property
    def location(self) -> str:
        """The path of the file."""
        return str(self._path)

    @property
    def schema(self) -> Schema:
        """Which kind of database this is."""
        return self._schema

    @contextmanager
    def read(self) -> Iterator[SqliteTransaction]:
        """Lend a connection for reading."""
        with self._reader_slots, self._translated():
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
        with self._writing() as connection:
            self._retry(lambda: connection.execute("BEGIN IMMEDIATE"))
            try:
                yield SqliteTransaction(connection)
                self._retry(lambda: connection.execute("COMMIT"))
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    def used_bytes(self) -> int:
        """Say how much of the file is in use."""
        return self._bytes("page_count") - self.unused_bytes()

    def unused_bytes(self) -> int:
        """Say how much of the file is free for new rows."""
        return self._bytes("freelist_count")

    def give_back(self, max_bytes: int) -> None:
        """Return at most so many unused bytes to the file system."""
        with self._writing() as connection:
            pages = max(1, max_bytes // self._pragma("page_size"))
            self._retry(
                lambda: connection.execute(f"PRAGMA incremental_vacuum({pages})").fetchall()
            )

    def settle(self) -> bool:
        """Bring the file up to its log, and to its size; says whether nobody was in the way."""
        with self._writing() as connection:
            in_log, in_file = connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
            return in_log == in_file

    def _bytes(self, count: str) -> int:
        with self.read() as tx:
            (pages,), (page_size,) = tx.query(f"PRAGMA {count}") + tx.query("PRAGMA page_size")
        return int(pages * page_size)

    def close(self) -> None:
        """Close all connections."""
        self._is_closed = True
        self._hold()
        try:
            for connection in self._connections:
                try:
                    connection.close()
                except apsw.ThreadingViolationError:  # somebody waits for a lock in it: let it be
                    abandon(connection)
        finally:
            self._release()

    def _hold(self) -> None:
        """Keep all threads out of SQLite, whose own locks a child would inherit locked."""
        locks: list[threading.Lock | threading.Semaphore] = [self._write_lock]
        locks += [self._reader_slots] * MAX_READERS
        self._held = [lock for lock in locks if lock.acquire(timeout=BUSY_TIMEOUT_S)]

    def _release(self) -> None:
        for lock in self._held:
            lock.release()
        self._held = []

    def _after_fork(self) -> None:
        """Leave the parent's connections alone, never closing them, and start with none."""
        abandon(self._connections)
        was_closed = self._is_closed
        self._start()
        self._is_closed = was_closed

    @property
    def _writer(self) -> apsw.Connection:
        if self._write_connection is None:
            self._write_connection = self._connect(BUSY_TIMEOUT_S)
        return self._write_connection

    @contextmanager
    def _writing(self) -> Iterator[apsw.Connection]:
        if not self._write_lock.acquire(timeout=GIVE_UP_AFTER_S):
            raise busy(self._path, GIVE_UP_AFTER_S)
        try:
            with self._translated():
                yield self._writer
        finally:
            self._write_lock.release()

    def _connect(self, busy_timeout_s: float) -> apsw.Connection:
        if self._is_closed:
            raise DatabaseError(f"the database {self._path} was closed before")
        connection = apsw.Connection(str(self._path))
        self._connections.append(connection)
        connection.set_busy_timeout(int(busy_timeout_s * 1000))
        connection.execute(
            "PRAGMA synchronous = NORMAL; PRAGMA foreign_keys = ON;"
            f" PRAGMA journal_size_limit = {WAL_LIMIT_BYTES}"
        ).fetchall()
        return connection

    def _prepare(self) -> None:
        """Make the database one of ours in WAL mode, if it isn't yet."""
        if self._pragma("application_id") != self._schema.application_id:
            if self._schema.gives_back:  # can only be chosen while there is no table
                self._retried("PRAGMA auto_vacuum = INCREMENTAL")
            self._retried(f"PRAGMA application_id = {self._schema.application_id}")
        if self._pragma("journal_mode") != "wal":
            self._retried("PRAGMA journal_mode = WAL")

    def _refuse_foreign(self) -> None:
        """Look at an existing file without changing it; refuse what isn't a database of ours."""
        if self._path.stat().st_size == 0:
            return
        connection = apsw.Connection(str(self._path), flags=apsw.SQLITE_OPEN_READONLY)
        try:
            connection.set_busy_timeout(int(GIVE_UP_AFTER_S * 1000))
            has_tables = connection.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchall()
            mark = connection.pragma("application_id")
        finally:
            connection.close()
        if has_tables and mark != self._schema.application_id:
            raise DatabaseError(
                f"{self._path} is a database of another program,"
                f" not the {self._schema.name} of Rollbook",
                hint="Rollbook leaves it alone; name another file with --db",
            )

    def _applied_migrations(self) -> list[tuple[int, str]]:
        if not self._writer.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchall():
            return []
        rows = self._writer.execute("SELECT version, checksum FROM schema_migrations")
        return [(int(str(version)), str(checksum)) for version, checksum in rows]

    def _pragma(self, name: str) -> Any:
        return self._retry(lambda: self._writer.pragma(name))

    def _retried(self, sql: str) -> None:
        self._retry(lambda: self._writer.execute(sql).fetchall())

    def _retry(self, action: Callable[[], _Result]) -> _Result:
        """Run an action again while the database is busy, with jitter, up to the limit."""
        deadline = time.monotonic() + GIVE_UP_AFTER_S
        while True:
            try:
                return action()
            except BUSY as error:
                if time.monotonic() > deadline or self._is_closed:
                    raise busy(self._path, GIVE_UP_AFTER_S) from error
                time.sleep(_JITTER.uniform(0.001, 0.02))

    def _translated(self) -> AbstractContextManager[None]:
        return translated(self._path, GIVE_UP_AFTER_S, self._schema.damage_hint)


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
