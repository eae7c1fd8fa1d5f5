"""The SQLite engine: one file, one writer connection, up to four readers.

apsw rather than the standard library's module: it brings a current SQLite along and leaves
transactions to us.
"""

import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from itertools import count as count_from
from pathlib import Path
from queue import Empty, LifoQueue
from typing import Any, NamedTuple, Self, TypeVar
from urllib.parse import quote

import apsw

from rollbook.errors import (
    DatabaseDamagedError,
    DatabaseError,
    DatabaseUnwritableError,
    RollbookError,
)
from rollbook.forks import Gate, abandon, hold_during_fork, renew_after_fork
from rollbook.holders import holders_of
from rollbook.store.engine import STATE, Schema
from rollbook.store.migrate import load_migrations, migrate, missing, read_applied
from rollbook.store.sqlite_errors import BUSY, UNWRITABLE, as_ours, busy, damaged, read_only
from rollbook.store.sqlite_file import (
    ALONE,
    WRITE_LOCK_BYTE,
    Identity,
    beside,
    check_place,
    create,
    database_file,
    has_content,
    has_log,
    is_known,
    is_ours,
    is_shared,
    set_aside,
)
from rollbook.store.sqlite_transaction import SqliteTransaction
from rollbook.telemetry import DATABASE_OPENS, count

BUSY_TIMEOUT_S = 0.05  # in SQLite itself, for a reader: seldom ever needed
GIVE_UP_AFTER_S = 30.0
FORK_WAITS_S = 5.0
MAX_READERS = 4
CHECKPOINT_PAGES = 4000  # as many as the WAL has before it is brought into the file
WAL_LIMIT_BYTES = 16 << 20  # what the WAL is cut down to after a checkpoint
_AT_ONCE = 2
_SHORTEST_PAUSE_S, _LONGEST_PAUSE_S = 0.002, 0.008

_VERIFY_AT_MOST_S = 2.0
_HEADER_BYTES = 105
_MAGIC = b"SQLite format 3\0"
_MARK = slice(68, 72)
_FIRST_PAGE = slice(100, 105)
_EMPTY_PAGE = b"\x0d\0\0\0\0"  # the leaf of a table without rows: there are no tables
_CHANGES = 3  # of the file while a connection is being made, before that is an error

opening = Gate(FORK_WAITS_S)  # connections that no engine has in its hands yet
_JITTER = random.SystemRandom()
_Result = TypeVar("_Result")


class _Lent(NamedTuple):
    """A connection, which file it is to, and why that can only be read, if so."""

    connection: apsw.Connection
    identity: Identity | None
    is_read_only: bool = False
    why: Exception | None = None


class SqliteEngine:
    """An open SQLite database; see :class:`rollbook.store.engine.Engine` for the contract.

    The file may be replaced at any time, by this process or another: every transaction is one of
    the file that is there when it begins.  A forked child opens connections of its own: SQLite must
    not be used across a fork.
    """

    name = "sqlite"

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
        self._readers: LifoQueue[_Lent] = LifoQueue()
        self._reader_slots = threading.Semaphore(MAX_READERS)
        self._connections: list[apsw.Connection] = []
        self._held: list[threading.Lock | threading.Semaphore] = []
        self._is_closed = False
        self._is_open = False
        self._has_written = False
        self._writer: _Lent | None = None
        self._ready: Identity | None = None  # the file whose schema was looked at
        self._generation = 0

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
        return self._generation

    @contextmanager
    def read(self) -> Iterator[SqliteTransaction]:
        """Lend a connection for reading."""
        with self._reading() as lent:
            yield SqliteTransaction(lent.connection)

    @contextmanager
    def _reading(self) -> Iterator[_Lent]:
        with self._entrance:
            self._reader_slots.acquire()
        try:
            with self._translated(), self._file.reading():
                lent = self._reader()
                try:
                    with self._told_of(lent.identity):
                        yield lent
                finally:
                    self._put_back(lent)
        finally:
            self._reader_slots.release()

    @contextmanager
    def write(self, *, wait_s: float | None = None) -> Iterator[SqliteTransaction]:
        """Run the block in a transaction that holds the write lock from its beginning."""
        wait_s = GIVE_UP_AFTER_S if wait_s is None else wait_s
        with self._writing(wait_s, begin=True) as connection, self._transaction(connection) as tx:
            yield tx

    def is_read_only(self) -> bool:
        """Say whether the file can be read and not be written."""
        with self._reading() as lent:
            return lent.is_read_only

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
            self._retry(
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
            with opening, engine._translated(), engine._file.replacing():
                now = engine._file.identity()
                if now is not None and damage.file not in {None, now}:
                    return None
                kept = set_aside(path, damage.reason, is_needed=not schema.is_derived)
                engine._prepare(begin)
        finally:
            engine.close()
        return kept

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
            if self._is_open:
                self._file.leave(has_written=self._has_written)
            else:
                self._file.forget()
        finally:
            self._release()

    def _hold(self) -> None:
        """Keep all threads out of SQLite, whose own locks a child would inherit locked."""
        locks: list[threading.Lock | threading.Semaphore] = [self._write_lock, self._entrance]
        locks += [self._reader_slots] * MAX_READERS
        self._held = [lock for lock in locks if lock.acquire(timeout=FORK_WAITS_S)]

    def _release(self) -> None:
        for lock in self._held:
            lock.release()
        self._held = []

    def _after_fork(self) -> None:
        """Leave the parent's connections alone, never closing them, and start with none."""
        abandon(self._connections)
        was_open, was_closed, generation = self._is_open, self._is_closed, self._generation
        self._file.forget()
        self._start()
        self._is_closed, self._generation = was_closed, generation
        if was_open and not was_closed:
            self._file.enter()
            self._is_open = True

    # Making connections

    def _open(self) -> None:
        """Make the first connection, and look closely at a file that was not left in order."""
        try:
            with self._translated():
                if not is_known(self._path):
                    with self._told_of(self._file.identity()):
                        self._refuse_foreign()
                with self._file.reading():
                    needs_care = self._file.enter()
                    lent = self._connect(self._schema.is_derived and needs_care)
                    if needs_care:
                        self._file.note()
                    self._is_open = True
                    self._put_back(lent)
        except BaseException:
            self.close()
            raise

    def _connect(self, verify: bool = False) -> _Lent:
        """Connect to the file that is there now, made if it is missing, of our schema."""
        for _ in range(_CHANGES):
            with self._file.connecting():
                lent = self._connect_as_it_is()
                if lent is not None:
                    if verify:
                        self._verify(lent)
                    return lent
            with self._file.replacing():
                self._prepare()
        raise DatabaseError(f"the database {self._path} is being replaced all the time")

    def _connect_as_it_is(self) -> _Lent | None:
        """Connect, if the file is there and of our schema; for reading only, if no more is allowed.

        Errors: DatabaseUnwritableError where it would have to be changed and may not be.
        """
        identity = self._file.identity()
        if identity is None:
            return None
        with self._told_of(identity):
            lent = self._try_to_connect()
            try:
                is_new = identity != self._ready
                if not is_new or self._is_up_to_date(lent.connection):
                    self._ready = identity
                    self._generation += is_new
                    return lent
            except BaseException:
                self._drop(lent)
                raise
            self._drop(lent)
        if lent.is_read_only:
            raise read_only(self._path, lent.why)
        return None

    def _try_to_connect(self) -> _Lent:
        """Connect for writing, else for reading what was committed."""
        refused: Exception | None = None
        for options in self._ways_to_connect():
            try:
                connection = self._raw_connection(options)
            except UNWRITABLE as error:
                refused = refused or error
                continue
            identity = self._file.identity()
            is_read_only = connection.readonly("main")
            return _Lent(connection, identity, is_read_only, refused)
        raise refused or DatabaseUnwritableError(
            f"a transaction in {self._path} was not finished, and nothing can be written here",
            hint=f"open it where {self._path.parent} can be written to",
        )

    def _ways_to_connect(self) -> Iterator[str]:
        """List the ways to open the file, the best first: none but the first leaves a trace."""
        if self._file.may_be_written and os.access(self._path, os.W_OK):
            yield "mode=rw"
        if not has_log(self._path):
            yield "mode=ro&immutable=1"
        elif not has_content(beside(self._path, "-journal")):  # that has to be rolled back first
            yield "mode=ro" if is_shared(self._path) else f"mode=ro&{ALONE}"

    def _raw_connection(self, options: str) -> apsw.Connection:
        if self._is_closed:
            raise DatabaseError(f"the database {self._path} was closed before")
        flags = apsw.SQLITE_OPEN_URI
        flags |= apsw.SQLITE_OPEN_READWRITE if "rw" in options else apsw.SQLITE_OPEN_READONLY
        connection = apsw.Connection(
            f"file:{quote(str(self._path))}?{options}", flags=flags, vfs=self._file.vfs
        )
        try:
            connection.set_busy_timeout(int(BUSY_TIMEOUT_S * 1000))
            if "rw" not in options:
                connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
            if not self._file.keeps_connections or ALONE in options:
                # Alone with the file: so even one that was in WAL mode needs no shared memory.
                connection.execute("PRAGMA locking_mode = EXCLUSIVE").fetchall()
                if "rw" in options:
                    mode = f"PRAGMA journal_mode = {self._file.journal_mode}"
                    connection.execute(mode).fetchall()
            connection.execute(
                "PRAGMA synchronous = NORMAL; PRAGMA foreign_keys = ON;"
                f" PRAGMA journal_size_limit = {WAL_LIMIT_BYTES};"
                f" PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}"
            ).fetchall()
            # The first read opens what belongs to the file, while nobody can replace it.
            self._retry(
                lambda: connection.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchall()
            )
        except BaseException:
            connection.close()
            raise
        self._connections.append(connection)
        return connection

    def _is_up_to_date(self, connection: apsw.Connection) -> bool:
        """Say whether a file needs no change; DatabaseDamagedError where a table is missing."""
        if connection.pragma("journal_mode") != self._file.journal_mode and not (
            connection.readonly("main")
        ):
            return False
        names = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema")}
        if not names:
            return False
        if connection.pragma("application_id") != self._schema.application_id:
            raise self._damaged("it has lost the mark of Rollbook's databases")
        migrations = load_migrations(self.name, self._schema.name)
        applied = read_applied(SqliteTransaction(connection))
        if missing(self, applied, migrations):
            return False
        lost = _expected_names(self.name, self._schema.name) - names
        if lost:
            raise self._damaged(f"{', '.join(sorted(lost))} is missing")
        return True

    def _prepare(self, begin: Callable[[SqliteTransaction], None] | None = None) -> None:
        """Make the file one of ours: called while nobody else connects or writes to it."""
        is_new = create(self._path)
        try:
            self._fill(begin)
        except BaseException:
            if is_new:  # and nobody has seen it: an empty file would only be in the way
                self._path.unlink(missing_ok=True)
            raise

    def _fill(self, begin: Callable[[SqliteTransaction], None] | None) -> None:
        connection = self._raw_connection("mode=rw")
        try:
            if not connection.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchall():
                if self._schema.gives_back:  # can only be chosen while there is no table
                    connection.execute("PRAGMA auto_vacuum = INCREMENTAL").fetchall()
                mark = self._schema.application_id
                connection.execute(f"PRAGMA application_id = {mark}").fetchall()
            if connection.pragma("journal_mode") != self._file.journal_mode:
                mode = f"PRAGMA journal_mode = {self._file.journal_mode}"
                self._retry(lambda: connection.execute(mode).fetchall())
            self._retry(lambda: connection.execute("BEGIN IMMEDIATE"))
            with self._transaction(connection) as tx:
                migrate(self, tx, load_migrations(self.name, self._schema.name))
                if begin is not None:
                    begin(tx)
        finally:
            self._drop(_Lent(connection, None))

    def _verify(self, lent: _Lent) -> None:
        """Look a file through that a crash, or somebody else, has left; not for long."""
        with self._told_of(lent.identity):
            found = SqliteTransaction(lent.connection).integrity(_VERIFY_AT_MOST_S)
            if found not in {"ok", ""}:
                raise self._damaged(found)

    def _refuse_foreign(self) -> None:
        """Look at a file that Rollbook has never had open, and leave it alone if it isn't ours."""
        if not os.path.isfile(self._path):
            check_place(self._path)
            return
        try:
            with self._path.open("rb") as file:
                header = file.read(_HEADER_BYTES)
        except OSError as error:
            raise DatabaseUnwritableError(
                f"the database {self._path} can't be read: {error.strerror}",
                hint="check the permissions of the file, or name another with --db",
            ) from error
        if not header:
            return
        if not header.startswith(_MAGIC):
            raise self._damaged("file is not a database")
        mark = int.from_bytes(header[_MARK], "big")
        is_begun = not mark and header[_FIRST_PAGE] == _EMPTY_PAGE
        if is_begun and (is_ours(self._path) or not has_log(self._path)):
            return  # whoever made it was killed before it got its mark
        if mark != self._schema.application_id:
            raise DatabaseError(
                f"{self._path} is a database of another program,"
                f" not the {self._schema.name} of Rollbook",
                hint="Rollbook leaves it alone; name another file with --db",
            )

    def _damaged(self, what: str) -> DatabaseDamagedError:
        return damaged(self._path, what, self._schema.damage_hint)

    # Lending connections

    def _reader(self) -> _Lent:
        while True:
            try:
                lent = self._readers.get_nowait()
            except Empty:
                return self._connect()
            if lent.identity == self._file.identity():
                return lent
            self._drop(lent)

    def _put_back(self, lent: _Lent) -> None:
        if self._file.keeps_connections and not lent.is_read_only:
            self._readers.put(lent)
        else:
            self._drop(lent)

    def _drop(self, lent: _Lent) -> None:
        """Close a connection, without a word about its file if that was replaced."""
        if lent.identity is not None and lent.identity != self._file.identity():
            lent.connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        self._connections.remove(lent.connection)
        lent.connection.close()

    @contextmanager
    def _writing(
        self, wait_s: float = GIVE_UP_AFTER_S, *, begin: bool = False
    ) -> Iterator[apsw.Connection]:
        """Lend the writer, with a transaction begun or not, while the file can't be replaced."""
        deadline = time.monotonic() + wait_s
        if not self._write_lock.acquire(timeout=wait_s):
            raise busy(self._path, wait_s, who="this process")
        try:
            with self._translated(), self._file.reading(writing=True):
                connection = self._current_writer(deadline, begin=begin)
                try:
                    with self._told_of(self._file.identity()):
                        yield connection
                finally:
                    self._file.release()
                    if not self._file.keeps_connections:
                        self._drop_writer()
        finally:
            self._write_lock.release()

    def _current_writer(self, deadline: float, *, begin: bool) -> apsw.Connection:
        """Get the writer of the file that is there, and keep that from being replaced."""
        while True:
            known, now = self._writer and self._writer.identity, self._file.parts()
            if known not in {None, now}:
                self._drop_writer()
                if known[:2] == now[:2]:
                    raise self._damaged("its log was removed while it was open")
            if self._writer is None:
                lent = self._connect()
                if lent.is_read_only:
                    self._drop(lent)
                    raise read_only(self._path, lent.why)
                lent.connection.set_busy_timeout(0)
                self._writer = lent._replace(identity=self._file.parts())
                self._has_written = True
            connection = self._writer.connection
            if begin:
                self._retry(partial(connection.execute, "BEGIN IMMEDIATE"), deadline)
            if self._file.pin():
                if self._writer.identity == self._file.parts():
                    return connection
                self._file.release()
            if begin:
                connection.execute("ROLLBACK")
            with self._file.connecting():  # whoever replaces it is done then
                pass

    def _drop_writer(self) -> None:
        if self._writer is not None:
            lent, self._writer = self._writer, None
            if self._file.keeps_connections and lent.identity != self._file.parts():
                lent.connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
            self._connections.remove(lent.connection)
            lent.connection.close()

    @contextmanager
    def _transaction(self, connection: apsw.Connection) -> Iterator[SqliteTransaction]:
        """End a transaction that was begun: committed, or as if it had never been."""
        try:
            yield SqliteTransaction(connection)
            self._retry(lambda: connection.execute("COMMIT"))
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

    def _bytes(self, pages: str) -> int:
        with self.read() as tx:
            (number,), (page_size,) = tx.query(f"PRAGMA {pages}") + tx.query("PRAGMA page_size")
        return int(number * page_size)

    def _pragma(self, name: str) -> Any:
        with self.read() as tx:
            return tx.query(f"PRAGMA {name}")[0][0]

    def _retry(self, action: Callable[[], _Result], deadline: float | None = None) -> _Result:
        """Run an action again while the database is busy, up to the limit.

        A lock is held for some tenths of a millisecond as a rule.  Who has just missed it tries once
        more at once, and then sleeps for several times that: on a machine with few cores, waiters
        that look more often take from the one that has the lock what it needs to be done.
        """
        started = time.monotonic()
        deadline = started + GIVE_UP_AFTER_S if deadline is None else deadline
        pause_s = 0.0
        for attempt in count_from(1):
            try:
                return action()
            except BUSY as error:
                now = time.monotonic()
                if now > deadline or self._is_closed:
                    raise self._busy(now - started) from error
            if attempt > _AT_ONCE:
                pause_s = min(2 * pause_s or _SHORTEST_PAUSE_S, _LONGEST_PAUSE_S)
            time.sleep(pause_s and _JITTER.uniform(pause_s / 2, pause_s))
        raise AssertionError

    def _busy(self, waited_s: float = GIVE_UP_AFTER_S) -> DatabaseError:
        holders = holders_of(beside(self._path, "-shm"), WRITE_LOCK_BYTE, writing=True)
        return busy(self._path, waited_s, holders)

    @contextmanager
    def _told_of(self, identity: Identity | None) -> Iterator[None]:
        """Let an error that tells of damage say which file it was."""
        try:
            yield
        except DatabaseDamagedError as error:
            error.file = identity
            raise
        except (apsw.Error, UnicodeDecodeError) as error:
            ours = as_ours(self._path, error, self._schema.damage_hint)
            if not isinstance(ours, DatabaseDamagedError):
                raise
            ours.file = identity
            raise ours from error

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except BUSY as error:
            raise self._busy() from error
        except (apsw.Error, UnicodeDecodeError) as error:
            raise as_ours(self._path, error, self._schema.damage_hint) from error


@cache
def _expected_names(engine_name: str, schema_name: str) -> frozenset[str]:
    """Find the tables and indexes that a database of a schema has."""
    connection = apsw.Connection(":memory:")
    for migration in load_migrations(engine_name, schema_name):
        connection.execute(migration.sql).fetchall()
    names = frozenset(name for (name,) in connection.execute("SELECT name FROM sqlite_schema"))
    connection.close()
    return frozenset(name for name in names if not name.startswith("sqlite_"))
