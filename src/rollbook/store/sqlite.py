"""The SQLite engine: one file, one writer connection, up to four readers.

apsw rather than the standard library's module: it brings a current SQLite along and leaves
transactions to us.
"""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Self

import apsw

from rollbook.errors import DatabaseDamagedError, RollbookError
from rollbook.forks import Gate, Slots, hold_during_fork, renew_after_fork
from rollbook.store.engine import STATE, Schema
from rollbook.store.sqlite_connections import ENGINE, Lent, SqliteConnections
from rollbook.store.sqlite_errors import busy, read_only
from rollbook.store.sqlite_file import database_file, is_known, set_aside
from rollbook.store.sqlite_transaction import SqliteTransaction
from rollbook.telemetry import DATABASE_OPENS, count

GIVE_UP_AFTER_S = 30.0
FORK_WAITS_S = 5.0
MAX_READERS = 4

opening = Gate(FORK_WAITS_S)  # connections that no engine has in its hands yet


class SqliteEngine:
    """An open SQLite database; see :class:`rollbook.store.engine.Engine` for the contract.

    The file may be replaced at any time, by this process or another: every transaction is one of
    the file that is there when it begins.  A forked child opens connections of its own: SQLite must
    not be used across a fork.
    """

    name = ENGINE

    def __init__(self, path: Path, schema: Schema) -> None:
        self._path = path
        self._schema = schema
        self._start()
        hold_during_fork(self._hold, self._release)
        renew_after_fork(self._after_fork)

    def _start(self) -> None:
        self._file = database_file(self._path, GIVE_UP_AFTER_S)
        self._write_lock = threading.Lock()
        self._entrance = threading.Lock()  # so that who waits for all readers gets to it
        self._readers: list[Lent] = []
        self._reader_slots = Slots(MAX_READERS)
        self._connections = SqliteConnections(self._path, self._schema, self._file, GIVE_UP_AFTER_S)
        self._held: list[threading.Lock | Slots] = []
        self._is_open = False
        self._has_written = False
        self._writer: Lent | None = None

    @classmethod
    def open(cls, path: Path, schema: Schema = STATE) -> Self:
        """Open the database at a path, with what is missing created: file, directory, schema.

        An up-to-date database is opened without a write lock.  New files are private to the user.
        One that may not be written is opened for reading.

        Errors: DatabaseDamagedError where the file is no database, DatabaseVersionError where a
        newer release wrote it, DatabaseUnwritableError where it would have to be written and can't
        be, DatabaseBusyError, DatabaseError where it is another program's.
        """
        attributes = {"db_system_name": cls.name, "rollbook_database": schema.name}
        try:
            with opening:
                is_new = not os.path.isfile(path)
                engine = cls(path, schema)
                engine._open()
        except RollbookError as error:
            name = type(error).__name__
            count(DATABASE_OPENS, 1, **attributes, rollbook_outcome="failed", error_type=name)
            raise
        count(DATABASE_OPENS, 1, **attributes, rollbook_outcome="created" if is_new else "opened")
        return engine

    @property
    def location(self) -> str:
        """The path of the file."""
        return str(self._path)

    @property
    def schema(self) -> Schema:
        """Which kind of database this is."""
        return self._schema

    @property
    def generation(self) -> int:
        """Which file this is: a larger number than before where the file has been replaced."""
        return self._connections.generation

    @contextmanager
    def read(self) -> Iterator[SqliteTransaction]:
        """Lend a connection for reading."""
        with self._entrance:
            self._reader_slots.acquire()
        try:
            with self._connections.translated(), self._file.reading():
                lent = self._reader()
                try:
                    with self._connections.told_of(lent.identity):
                        yield SqliteTransaction(lent.connection, is_read_only=lent.is_read_only)
                finally:
                    self._put_back(lent)
        finally:
            self._reader_slots.release()

    @contextmanager
    def write(self, *, wait_s: float | None = None) -> Iterator[SqliteTransaction]:
        """Run the block in a transaction that holds the write lock from its beginning."""
        wait_s = GIVE_UP_AFTER_S if wait_s is None else wait_s
        with (
            self._writing(wait_s, begin=True) as connection,
            self._connections.transaction(connection) as tx,
        ):
            yield tx

    def is_read_only(self) -> bool:
        """Say whether the file can be read and not be written."""
        with self.read() as tx:
            return tx.is_read_only

    def used_bytes(self) -> int:
        """Say how much of the file is in use."""
        return self._bytes("page_count") - self.unused_bytes()

    def unused_bytes(self) -> int:
        """Say how much of the file is free for new rows."""
        return self._bytes("freelist_count")

    def give_back(self, max_bytes: int) -> None:
        """Return at most so many unused bytes to the file system."""
        with self._writing() as connection:
            pages = max(1, max_bytes // int(connection.pragma("page_size")))
            self._connections.retry(
                lambda: connection.execute(f"PRAGMA incremental_vacuum({pages})").fetchall()
            )

    def settle(self) -> bool:
        """Bring the file up to its log, and to its size; says whether nobody was in the way.

        What was committed before is on the device then, if nobody was.
        """
        with self._writing() as connection:
            in_log, in_file = connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
            return in_log == in_file

    @classmethod
    def replace(
        cls,
        path: Path,
        schema: Schema,
        damage: DatabaseDamagedError,
        begin: Callable[[SqliteTransaction], None] | None = None,
    ) -> Path | None:
        """Set a damaged file aside, and put a new and empty one in its place.

        Engines that have the damaged one open go over to the new one with their next transaction.
        ``begin`` is the first to write into it.
        Returns where the damaged one is now; None where somebody else has replaced it before.
        Errors: DatabaseBusyError where somebody is writing to it for 30 s, DatabaseUnwritableError.
        """
        engine = cls(path, schema)
        try:
            with opening, engine._connections.translated(), engine._file.replacing():
                now = engine._file.identity()
                if now is not None and damage.file not in {None, now}:
                    return None
                kept = set_aside(path, damage.reason, is_needed=not schema.is_derived)
                engine._connections.prepare(begin)
        finally:
            engine.close()
        return kept

    def close(self) -> None:
        """Close all connections."""
        self._connections.is_closed = True  # so that nobody waits for a lock any more
        self._hold()
        try:
            self._connections.close()
            if self._is_open:
                self._file.leave(has_written=self._has_written)
            else:
                self._file.forget()
        finally:
            self._release()

    def _hold(self) -> None:
        """Keep all threads out of SQLite, whose own locks a child would inherit locked."""
        locks: list[threading.Lock | Slots] = [self._write_lock, self._entrance]
        locks += [self._reader_slots] * MAX_READERS
        self._held = [lock for lock in locks if lock.acquire(timeout=FORK_WAITS_S)]

    def _release(self) -> None:
        for lock in self._held:
            lock.release()
        self._held = []

    def _after_fork(self) -> None:
        """Leave the parent's connections alone, never closing them, and start with none."""
        before, was_open = self._connections, self._is_open
        before.leave_to_parent()
        self._file.forget()
        self._start()
        self._connections.is_closed = before.is_closed
        self._connections.generation = before.generation
        if was_open and not before.is_closed:
            self._file.enter()
            self._is_open = True

    def _open(self) -> None:
        """Make the first connection, and look closely at a file that was not left in order."""
        try:
            with self._connections.translated():
                if not is_known(self._path):
                    with self._connections.told_of(self._file.identity()):
                        self._connections.refuse_foreign()
                with self._file.reading():
                    needs_care = self._file.enter()
                    lent = self._connections.connect(self._schema.is_derived and needs_care)
                    if needs_care:
                        self._file.note()
                    self._is_open = True
                    self._put_back(lent)
        except BaseException:
            self.close()
            raise

    def _reader(self) -> Lent:
        while True:
            try:
                lent = self._readers.pop()
            except IndexError:
                return self._connections.connect()
            if lent.identity == self._file.identity():
                return lent
            self._connections.drop(lent)

    def _put_back(self, lent: Lent) -> None:
        if self._file.keeps_connections and not lent.is_read_only:
            self._readers.append(lent)
        else:
            self._connections.drop(lent)

    @contextmanager
    def _writing(
        self, wait_s: float = GIVE_UP_AFTER_S, *, begin: bool = False
    ) -> Iterator[apsw.Connection]:
        """Lend the writer, with a transaction begun or not, while the file can't be replaced."""
        deadline = time.monotonic() + wait_s
        if not self._write_lock.acquire(timeout=wait_s):
            raise busy(self._path, wait_s, who="this process")
        try:
            with self._connections.translated(), self._file.reading(writing=True):
                lent = self._current_writer(deadline, begin=begin)
                try:
                    with self._connections.told_of(lent.identity and lent.identity[:2]):
                        yield lent.connection
                finally:
                    self._file.release()
                    if not self._file.keeps_connections:
                        self._drop_writer()
        finally:
            self._write_lock.release()

    def _current_writer(self, deadline: float, *, begin: bool) -> Lent:
        """Get the writer of the file that is there, and keep that from being replaced."""
        while True:
            known, now = self._writer and self._writer.identity, self._file.parts()
            if known not in {None, now}:
                self._drop_writer()
                if known[:2] == now[:2]:
                    raise self._connections.damaged("its log was removed while it was open")
            if self._writer is None:
                lent = self._connections.connect()
                if lent.is_read_only:
                    self._connections.drop(lent)
                    raise read_only(self._path, lent.why)
                lent.connection.set_busy_timeout(0)
                self._writer = lent._replace(identity=self._file.parts())
                self._has_written = True
            connection = self._writer.connection
            if begin:
                self._connections.retry(partial(connection.execute, "BEGIN IMMEDIATE"), deadline)
            if self._file.pin():
                if self._writer.identity == self._file.parts():
                    return self._writer
                self._file.release()
            if begin:
                connection.execute("ROLLBACK")
            with self._file.connecting():  # whoever replaces it is done then
                pass

    def _drop_writer(self) -> None:
        if self._writer is not None:
            lent, self._writer = self._writer, None
            is_replaced = self._file.keeps_connections and lent.identity != self._file.parts()
            self._connections.drop(lent, is_replaced=is_replaced)

    def _bytes(self, pages: str) -> int:
        with self.read() as tx:
            (number,), (page_size,) = tx.query(f"PRAGMA {pages}") + tx.query("PRAGMA page_size")
        return int(number * page_size)

    def _pragma(self, name: str) -> Any:
        with self.read() as tx:
            return tx.query(f"PRAGMA {name}")[0][0]
