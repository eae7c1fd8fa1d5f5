"""Connections to the file of a database: made in the best way there is, of our schema."""

import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import cache
from itertools import count as count_from
from pathlib import Path
from typing import NamedTuple, TypeVar
from urllib.parse import quote

import apsw

from rollbook.errors import DatabaseDamagedError, DatabaseError, DatabaseUnwritableError
from rollbook.forks import abandon
from rollbook.holders import holders_of
from rollbook.store.engine import Schema
from rollbook.store.migrate import load_migrations, migrate, missing, read_applied
from rollbook.store.sqlite_errors import BUSY, UNWRITABLE, as_ours, busy, damaged, read_only
from rollbook.store.sqlite_file import (
    ALONE,
    MARK,
    WRITE_LOCK_BYTE,
    DatabaseFile,
    Identity,
    beside,
    check_place,
    create,
    has_content,
    has_log,
    is_ours,
    is_shared,
)
from rollbook.store.sqlite_transaction import SqliteTransaction

ENGINE = "sqlite"
BUSY_TIMEOUT_S = 0.05  # in SQLite itself, for a reader: seldom ever needed
CACHE_KIB = 8000  # of pages, at most; a list that has to look far finds most of its own there
CHECKPOINT_PAGES = 4000  # as many as the WAL has before a writer brings it into the file
WAL_LIMIT_BYTES = 16 << 20  # what the WAL is cut down to after a checkpoint
_AT_ONCE = 2
_SHORTEST_PAUSE_S, _LONGEST_PAUSE_S = 0.002, 0.008
_VERIFY_AT_MOST_S = 2.0
_HEADER_BYTES = 105
_MAGIC = b"SQLite format 3\0"
_FIRST_PAGE = slice(100, 105)
_EMPTY_PAGE = b"\x0d\0\0\0\0"  # the leaf of a table without rows: there are no tables
_CHANGES = 3  # of the file while a connection is being made, before that is an error

_JITTER = random.SystemRandom()
_Result = TypeVar("_Result")


class Lent(NamedTuple):
    """A connection, which file it is to, and why that can only be read, if so."""

    tx: SqliteTransaction
    identity: Identity | None
    why: Exception | None = None


class SqliteConnections:
    """The connections of an engine, and the errors that they raise as ours."""

    def __init__(
        self, path: Path, schema: Schema, file: DatabaseFile, give_up_after_s: float
    ) -> None:
        self._path = path
        self._schema = schema
        self._file = file
        self._give_up_after_s = give_up_after_s
        self._open: list[apsw.Connection] = []
        self._ready: Identity | None = None  # the file whose schema was looked at
        self.is_closed = False
        self.generation = 0

    def close(self) -> None:
        """Close them all; no other is made."""
        self.is_closed = True
        for connection in self._open:
            try:
                connection.close()
            except apsw.ThreadingViolationError:  # somebody waits for a lock in it: let it be
                abandon(connection)

    def leave_to_parent(self) -> None:
        """Never close them: in a forked child."""
        abandon(self._open)

    def connect(self, verify: bool = False) -> Lent:
        """Connect to the file that is there now, made if it is missing, of our schema."""
        for _ in range(_CHANGES):
            with self._file.connecting():
                lent = self._connect_as_it_is()
                if lent is not None:
                    if verify:
                        self._verify(lent)
                    return lent
            with self._file.replacing():
                self.prepare()
        raise DatabaseError(f"the database {self._path} is being replaced all the time")

    def _connect_as_it_is(self) -> Lent | None:
        """Connect, if the file is there and of our schema; for reading only, if no more is allowed.

        Errors: DatabaseUnwritableError where it would have to be changed and may not be.
        """
        identity = self._file.identity()
        if identity is None:
            return None
        with self.told_of(identity):
            lent = self._try_to_connect()
            try:
                is_new = identity != self._ready
                if not is_new or self._is_up_to_date(lent.tx):
                    self._ready = identity
                    self.generation += is_new
                    return lent
            except BaseException:
                self.drop(lent)
                raise
            self.drop(lent)
        if lent.tx.is_read_only:
            raise read_only(self._path, lent.why)
        return None

    def _try_to_connect(self) -> Lent:
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
            tx = SqliteTransaction(connection, is_read_only=is_read_only)
            return Lent(tx, identity, refused)
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
        if self.is_closed:
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
                " PRAGMA secure_delete = ON;"  # what was deleted is nowhere in the file then
                f" PRAGMA journal_size_limit = {WAL_LIMIT_BYTES};"
                f" PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES};"
                f" PRAGMA cache_size = -{CACHE_KIB}"
            ).fetchall()
            # The first read opens what belongs to the file, while nobody can replace it.
            self.retry(lambda: connection.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchall())
        except BaseException:
            connection.close()
            raise
        self._open.append(connection)
        return connection

    def _is_up_to_date(self, tx: SqliteTransaction) -> bool:
        """Say whether a file needs no change; DatabaseDamagedError where a table is missing."""
        connection = tx.connection
        if connection.pragma("journal_mode") != self._file.journal_mode and not tx.is_read_only:
            return False
        names = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema")}
        if not names:
            return False
        if connection.pragma("application_id") != self._schema.application_id:
            raise self.damaged("it has lost the mark of Rollbook's databases")
        migrations = load_migrations(ENGINE, self._schema.name)
        applied = read_applied(tx)
        if missing(applied, migrations, self._path, self._schema):
            return False
        lost = _expected_names(self._schema.name) - names
        if lost:
            raise self.damaged(f"{', '.join(sorted(lost))} is missing")
        return True

    def prepare(self, begin: Callable[[SqliteTransaction], None] | None = None) -> None:
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
        tx = SqliteTransaction(connection)
        try:
            if not connection.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchall():
                if self._schema.gives_back:  # can only be chosen while there is no table
                    connection.execute("PRAGMA auto_vacuum = INCREMENTAL").fetchall()
                mark = self._schema.application_id
                connection.execute(f"PRAGMA application_id = {mark}").fetchall()
            if connection.pragma("journal_mode") != self._file.journal_mode:
                mode = f"PRAGMA journal_mode = {self._file.journal_mode}"
                self.retry(lambda: connection.execute(mode).fetchall())
            self.begin(tx)
            migrate(tx, load_migrations(ENGINE, self._schema.name), self._path, self._schema)
            if begin is not None:
                begin(tx)
            self.commit(tx)
        finally:
            self.drop(Lent(tx, None))  # which undoes what was begun and not committed

    def _verify(self, lent: Lent) -> None:
        """Look a file through that a crash, or somebody else, has left; not for long."""
        with self.told_of(lent.identity):
            found = lent.tx.integrity(_VERIFY_AT_MOST_S)
            if found not in {"ok", ""}:
                raise self.damaged(found)

    def refuse_foreign(self) -> None:
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
            raise self.damaged("file is not a database")
        mark = int.from_bytes(header[MARK], "big")
        is_begun = not mark and header[_FIRST_PAGE] == _EMPTY_PAGE
        if is_begun and (is_ours(self._path) or not has_log(self._path)):
            return  # whoever made it was killed before it got its mark
        if mark != self._schema.application_id:
            raise DatabaseError(
                f"{self._path} is a database of another program,"
                f" not the {self._schema.name} of Rollbook",
                hint="Rollbook leaves it alone; name another file with --db",
            )

    def damaged(self, what: str) -> DatabaseDamagedError:
        """The error of a file that isn't what it should be."""
        return damaged(self._path, what, self._schema.damage_hint)

    def drop(self, lent: Lent, *, is_replaced: bool | None = None) -> None:
        """Close a connection, without a word about its file if that was replaced."""
        if is_replaced is None:
            is_replaced = lent.identity not in {None, self._file.identity()}
        if is_replaced:
            lent.tx.connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        self._open.remove(lent.tx.connection)
        lent.tx.connection.close()

    def begin(self, tx: SqliteTransaction, deadline: float | None = None) -> None:
        """Begin a transaction that holds the write lock, waiting for it up to the limit."""
        self.retry(tx.begin, deadline)

    def commit(self, tx: SqliteTransaction) -> None:
        """Commit a transaction, or have it be as if it had never been."""
        try:
            self.retry(tx.commit)
        except BaseException:
            tx.roll_back()
            raise

    def retry(self, action: Callable[[], _Result], deadline: float | None = None) -> _Result:
        """Run an action again while the database is busy, up to the limit.

        A lock is held for some tenths of a millisecond as a rule.  Who has just missed it tries once
        more at once, and then sleeps for several times that: on a machine with few cores, waiters
        that look more often take from the one that has the lock what it needs to be done.
        """
        started = time.monotonic()
        deadline = started + self._give_up_after_s if deadline is None else deadline
        pause_s = 0.0
        for attempt in count_from(1):
            try:
                return action()
            except BUSY as error:
                now = time.monotonic()
                if now > deadline or self.is_closed:
                    raise self._busy(now - started) from error
            if attempt > _AT_ONCE:
                pause_s = min(2 * pause_s or _SHORTEST_PAUSE_S, _LONGEST_PAUSE_S)
            time.sleep(pause_s and _JITTER.uniform(pause_s / 2, pause_s))
        raise AssertionError

    def _busy(self, waited_s: float) -> DatabaseError:
        holders = holders_of(beside(self._path, "-shm"), WRITE_LOCK_BYTE, writing=True)
        return busy(self._path, waited_s, holders)

    def told_of(self, identity: Identity | None) -> AbstractContextManager[None]:
        """Let an error that tells of damage say which file it was."""
        return _Told(self._of_damage, identity)

    def translated(self) -> AbstractContextManager[None]:
        """Let the driver's errors be ours."""
        return _Told(self.translate)

    def tell(self, error: BaseException, identity: Identity | None) -> None:
        """Let the error of a transaction be ours; one that tells of damage says which file it was."""
        self._of_damage(error, identity)
        self.translate(error)

    def _of_damage(self, error: BaseException, identity: Identity | None) -> None:
        if isinstance(error, DatabaseDamagedError):
            error.file = identity
        elif isinstance(error, apsw.Error | UnicodeDecodeError):
            ours = as_ours(self._path, error, self._schema.damage_hint)
            if isinstance(ours, DatabaseDamagedError):
                ours.file = identity
                raise ours from error

    def translate(self, error: BaseException) -> None:
        """Raise what a driver's error is among ours; nothing happens for any other."""
        if isinstance(error, BUSY):
            raise self._busy(BUSY_TIMEOUT_S) from error
        if isinstance(error, apsw.Error | UnicodeDecodeError):
            raise as_ours(self._path, error, self._schema.damage_hint) from error


class _Told:
    """A context whose errors are told to a function first."""

    __slots__ = ("_arguments", "_tell")

    def __init__(self, tell: Callable[..., None], *arguments: object) -> None:
        self._tell = tell
        self._arguments = arguments

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if error is not None:
            self._tell(error, *self._arguments)


@cache
def _expected_names(schema_name: str) -> frozenset[str]:
    """Find the tables and indexes that a database of a schema has."""
    connection = apsw.Connection(":memory:")
    for migration in load_migrations(ENGINE, schema_name):
        connection.execute(migration.sql).fetchall()
    names = frozenset(name for (name,) in connection.execute("SELECT name FROM sqlite_schema"))
    connection.close()
    return frozenset(name for name in names if not name.startswith("sqlite_"))
