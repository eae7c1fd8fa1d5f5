"""The SQLite engine: one file, one writer connection, up to four readers.

apsw rather than the standard library's module: it brings a current SQLite along and leaves
transactions to us.
"""

import os
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rollbook.errors import DatabaseDamagedError, RollbookError
from rollbook.forks import Gate, Slots, abandon, hold_during_fork, renew_after_fork
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

    def read(self) -> AbstractContextManager[SqliteTransaction]:
        """Lend a connection for reading."""
        return _Lending(self._begin_reading, self._end_reading)

    def write(self, *, wait_s: float | None = None) -> AbstractContextManager[SqliteTransaction]:
        """Run the block in a transaction that holds the write lock from its beginning."""
        wait_s = GIVE_UP_AFTER_S if wait_s is None else wait_s
        return _Lending(partial(self._begin_writing, wait_s), self._end_writing)

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
        with self._writer_without_transaction() as tx:
            (page_size,) = tx.query("PRAGMA page_size")[0]
            pages = max(1, max_bytes // int(page_size))
            self._connections.retry(lambda: tx.execute(f"PRAGMA incremental_vacuum({pages})"))

    def settle(self) -> bool:
        """Bring the file up to its log, and to its size; says whether nobody was in the way.

        What was committed before is on the device then, if nobody was.  No writer waits for it.
        """
        with self.read() as tx:
            if tx.is_read_only:
                return True
            _, in_log, in_file = tx.query("PRAGMA wal_checkpoint(PASSIVE)")[0]
            return bool(in_log == in_file)

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
        abandon((self._readers, self._writer))
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

    def _begin_reading(self) -> Lent:
        with self._entrance:
            self._reader_slots.acquire()
        try:
            self._file.begin()
            try:
                return self._reader()
            except BaseException as error:
                self._file.end(error)
                raise
        except BaseException as error:
            self._reader_slots.release()
            self._connections.translate(error)
            raise

    def _end_reading(self, lent: Lent, error: BaseException | None) -> None:
        try:
            try:
                self._put_back(lent)
            finally:
                self._file.end(error)
        finally:
            self._reader_slots.release()
        if error is not None:
            self._connections.tell(error, lent.identity)

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
        if self._file.keeps_connections and not lent.tx.is_read_only:
            self._readers.append(lent)
        else:
            self._connections.drop(lent)

    def _begin_writing(self, wait_s: float, *, begin: bool = True) -> Lent:
        """Lend the writer, with a transaction begun or not, while the file can't be replaced."""
        deadline = time.monotonic() + wait_s
        if not self._write_lock.acquire(timeout=wait_s):
            raise busy(self._path, wait_s, who="this process")
        try:
            self._file.begin(writing=True)
            try:
                return self._current_writer(deadline, begin=begin)
            except BaseException as error:
                self._file.end(error)
                raise
        except BaseException as error:
            self._write_lock.release()
            self._connections.translate(error)
            raise

    def _end_writing(self, lent: Lent, error: BaseException | None) -> None:
        try:
            if error is None:
                self._connections.commit(lent.tx)
            else:
                lent.tx.roll_back()
        except BaseException as failure:
            self._leave_writer(lent, failure)
            raise
        self._leave_writer(lent, error)

    def _leave_writer(self, lent: Lent, error: BaseException | None) -> None:
        try:
            try:
                self._file.release()
                if not self._file.keeps_connections:
                    self._drop_writer()
            finally:
                self._file.end(error)
        finally:
            self._write_lock.release()
        if error is not None:
            self._connections.tell(error, lent.identity and lent.identity[:2])

    def _writer_without_transaction(self) -> AbstractContextManager[SqliteTransaction]:
        begin = partial(self._begin_writing, GIVE_UP_AFTER_S, begin=False)
        return _Lending(begin, self._leave_writer)

    def _current_writer(self, deadline: float, *, begin: bool) -> Lent:
        """Get the writer of the file that is there, and keep that from being replaced."""
        while True:
            lent = self._writer or self._new_writer()
            if begin and not self._has_begun(lent, deadline):
                continue
            is_pinned, now = self._file.pin(), self._file.parts()
            if is_pinned and lent.identity == now:
                return lent
            self._file.release()
            lent.tx.roll_back()
            if lent.identity != now:
                self._drop_writer()
                if lent.identity and lent.identity[:2] == now[:2]:
                    raise self._connections.damaged("its log was removed while it was open")
            if not is_pinned:
                with self._file.connecting():  # whoever replaces it is done then
                    pass

    def _new_writer(self) -> Lent:
        lent = self._connections.connect()
        if lent.tx.is_read_only:
            self._connections.drop(lent)
            raise read_only(self._path, lent.why)
        lent.tx.connection.set_busy_timeout(0)
        self._writer = lent._replace(identity=self._file.parts())
        self._has_written = True
        return self._writer

    def _has_begun(self, lent: Lent, deadline: float) -> bool:
        """Begin a transaction; False where that failed on a file that is no longer there."""
        try:
            self._connections.begin(lent.tx, deadline)
        except Exception:
            if lent.identity == self._file.parts():
                raise
            self._drop_writer()
            return False
        return True

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


class _Lending:
    """A transaction as a context: one function begins it, another is told how it went.

    A class, as a generator takes about as long as what most transactions do.
    """

    __slots__ = ("_begin", "_end", "_lent")

    def __init__(
        self,
        begin: Callable[[], Lent],
        end: Callable[[Lent, BaseException | None], None],
    ) -> None:
        self._begin = begin
        self._end = end

    def __enter__(self) -> SqliteTransaction:
        self._lent = self._begin()
        return self._lent.tx

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._end(self._lent, error)
