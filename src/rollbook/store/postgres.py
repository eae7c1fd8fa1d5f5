"""The PostgreSQL engine: connections to one database, which may move to another server.

Whoever opens it needs no server: connections are made when they are first used, and anew after they
were lost.  psycopg's own pool is not used: it says that a connection can't be had, and not why, and
its threads don't live on in a forked process.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self
from uuid import uuid4

import psycopg
from psycopg import Connection
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import TupleRow

from rollbook.errors import (
    DatabaseBusyError,
    DatabaseDamagedError,
    DatabaseError,
    DatabaseUnavailableError,
    DatabaseUnwritableError,
    UsageError,
)
from rollbook.forks import Slots, abandon, renew_after_fork
from rollbook.store.engine import Schema
from rollbook.store.migrate import load_migrations, migrate, missing, read_applied
from rollbook.store.postgres_transaction import PostgresTransaction
from rollbook.telemetry import DATABASE_OPENS, count

ENGINE = "postgresql"
MAX_CONNECTIONS = 4
_PREPARE_AFTER = 2  # times that a statement was run
# What libpq is told, unless the address says otherwise: who is gone must be seen to be gone.
_DEFAULTS = {
    "connect_timeout": "5",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "15000",
    "application_name": "rollbook",
}
_MIGRATING = 0x526F6C6C  # the advisory lock of whoever migrates
_CHECK_ADDRESS = "check the address, or that the server is running"
_Connection = Connection[TupleRow]


class PostgresEngine:
    """A PostgreSQL database; see :class:`rollbook.store.engine.Engine` for the contract.

    ``is_pooled`` is true where something such as PgBouncer stands between: a session is nobody's
    own then, so nothing is prepared, and notifications don't arrive.
    """

    name = ENGINE

    def __init__(self, address: str, schema: Schema, *, migrates: bool = True) -> None:
        self._parameters = _parse(address)
        self._schema = schema
        self._migrates = migrates
        self.location = location_of(self._parameters)
        self.is_pooled = False
        self.generation = 0
        self._is_closed = False
        self._start()
        renew_after_fork(self._after_fork)

    def _start(self) -> None:
        self._lock = threading.Lock()
        self._slots = Slots(MAX_CONNECTIONS)
        self._lending = threading.local()
        self._idle: list[_Connection] = []
        self._is_checked = False
        self._is_secured = False

    def _after_fork(self) -> None:
        abandon(self._idle)
        self._start()

    @classmethod
    def open(cls, address: str, schema: Schema, *, migrates: bool = True) -> Self:
        """Prepare to use the database at an address; its server need not be there yet.

        Its tables are made, or brought up to this release, when it is first used, unless it is only
        to be looked at and not one that ``migrates``.

        Errors: UsageError for what is no address.
        """
        return cls(address, schema, migrates=migrates)

    @property
    def was_reached(self) -> bool:
        """Whether it could be used once."""
        return self._is_checked

    @property
    def schema(self) -> Schema:
        """Which kind of database this is."""
        return self._schema

    @contextmanager
    def read(self) -> Iterator[PostgresTransaction]:
        """Read; each statement sees one moment.

        Errors: DatabaseUnavailableError, DatabaseError.
        """
        with self._translated(), self._lent() as connection:
            yield self._transaction(connection)

    @contextmanager
    def write(self, *, wait_s: float | None = None) -> Iterator[PostgresTransaction]:
        """Read and write in one transaction; several may write at once, each its own rows.

        Errors: DatabaseUnavailableError, also where it is not known whether a commit has come
        through; DatabaseBusyError, DatabaseUnwritableError, DatabaseError.
        """
        del wait_s
        with self._translated(), self._lent() as connection, connection.transaction():
            yield self._transaction(connection)

    def _transaction(self, connection: _Connection) -> PostgresTransaction:
        return PostgresTransaction(connection, is_secured=self._is_secured)

    @contextmanager
    def listening(self, channel: str) -> Iterator["Listener"]:
        """Lend a connection of its own that is told of what others notify."""
        with self._translated(), self._connect() as connection:
            connection.execute(f"LISTEN {channel}".encode())
            yield Listener(connection, channel)

    def close(self) -> None:
        """Close all connections."""
        with self._lock:
            self._is_closed = True
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    @contextmanager
    def _lent(self) -> Iterator[_Connection]:
        # Who has one gets another, or all might wait for each other.
        is_first = not getattr(self._lending, "has_one", False)
        if is_first:
            self._slots.acquire()
        self._lending.has_one = True
        try:
            connection = self._take()
            try:
                yield connection
            finally:
                self._put_back(connection)
        finally:
            if is_first:
                self._lending.has_one = False
                self._slots.release()

    def _take(self) -> _Connection:
        with self._lock:
            if self._is_closed:
                raise DatabaseError(f"the database {self.location} was closed before")
            if self._idle:
                return self._idle.pop()
        connection = self._connect()
        if not self._is_checked:
            try:
                self._prepare(connection)
                self._is_secured = bool(connection.execute(_SECURED).fetchall())
            except BaseException:
                connection.close()
                raise
            self._is_checked = True
        return connection

    def _put_back(self, connection: _Connection) -> None:
        with self._lock:
            is_sound = not connection.closed and not connection.broken
            if is_sound and not self._is_closed:
                self._idle.append(connection)
                return
            lost = [] if is_sound else self._idle  # their server is most likely gone, too
            self._idle = self._idle if is_sound else []
        for each in (connection, *lost):
            each.close()

    def _connect(self) -> _Connection:
        connection = psycopg.connect(
            make_conninfo(**self._parameters),
            autocommit=True,
            prepare_threshold=_PREPARE_AFTER,
        )
        connection.add_notice_handler(lambda _: None)
        rows = connection.execute("SELECT pg_backend_pid()").fetchall()
        self.is_pooled = rows[0][0] != connection.info.backend_pid
        if self.is_pooled:
            connection.prepare_threshold = None
        return connection

    def _prepare(self, connection: _Connection) -> None:
        """Bring the schema up to this release, once for each engine."""
        migrations = load_migrations(self.name, self._schema.name)
        tx = PostgresTransaction(connection)
        is_there = tx.query("SELECT 1 FROM pg_class WHERE oid = to_regclass('schema_migrations')")
        applied = read_applied(tx) if is_there else []
        if is_there and not missing(applied, migrations, self.location, self._schema):
            count(DATABASE_OPENS, 1, db_system_name=self.name, rollbook_outcome="opened")
            return
        if not self._migrates:
            raise DatabaseError(f"the database {self.location} has no tables of this release yet")
        with connection.transaction():
            tx.execute("SELECT pg_advisory_xact_lock(:lock)", {"lock": _MIGRATING})
            migrate(tx, migrations, self.location, self._schema)
        count(DATABASE_OPENS, 1, db_system_name=self.name, rollbook_outcome="created")

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except psycopg.Error as error:
            raise self._as_ours(error) from error
        except DatabaseDamagedError as error:  # which is for a file that can be made anew
            raise DatabaseError(error.message, hint=self._schema.damage_hint) from error

    def _as_ours(self, error: psycopg.Error) -> DatabaseError:
        said = str(error).strip().partition("\n")[0]
        message = f"the database {self.location} {{}}: {said}".format
        if isinstance(error, _UNAVAILABLE) or (error.sqlstate is None and _is_lost(error)):
            return DatabaseUnavailableError(message("can't be reached"), hint=_CHECK_ADDRESS)
        if isinstance(error, _BUSY):
            return DatabaseBusyError(message("is busy"), hint="try again")
        if isinstance(error, _UNWRITABLE):
            return DatabaseUnwritableError(
                message("refused"), hint="ask for the role that this needs: see docs/fleet.md"
            )
        if isinstance(error, _MISFITS):
            return DatabaseError(message("has another schema"), hint=self._schema.damage_hint)
        return DatabaseError(message("refused"))


class Listener:
    """A connection that listens on a channel."""

    def __init__(self, connection: _Connection, channel: str) -> None:
        self._connection = connection
        self._channel = channel

    def messages(self, within_s: float) -> list[str]:
        """Wait for messages, for so many seconds at most."""
        told = self._connection.notifies(timeout=within_s, stop_after=1)
        return [each.payload for each in told]

    def hears(self, within_s: float) -> bool:
        """Say whether a message of one's own arrives."""
        own = uuid4().hex
        self._connection.execute("SELECT pg_notify(%s, %s)", (self._channel, own))
        deadline = time.monotonic() + within_s
        while (left := deadline - time.monotonic()) > 0:
            if own in self.messages(left):
                return True
        return False


_SECURED = """SELECT 1 FROM pg_class WHERE relnamespace = to_regnamespace(current_schema())
    AND relrowsecurity AND row_security_active(oid) LIMIT 1"""
_errors = psycopg.errors
_UNAVAILABLE = (
    _errors.AdminShutdown,
    _errors.CrashShutdown,
    _errors.CannotConnectNow,
    _errors.ConnectionException,
    _errors.ConnectionFailure,
    _errors.ConnectionDoesNotExist,
    _errors.SqlclientUnableToEstablishSqlconnection,
    _errors.TooManyConnections,
    _errors.IdleInTransactionSessionTimeout,
    _errors.ReadOnlySqlTransaction,  # a primary that is one no more
)
_BUSY = (_errors.DeadlockDetected, _errors.SerializationFailure, _errors.LockNotAvailable)
_UNWRITABLE = (_errors.InsufficientPrivilege, _errors.DiskFull)
_MISFITS = (_errors.UndefinedTable, _errors.UndefinedColumn)


def _is_lost(error: psycopg.Error) -> bool:
    return isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError))


def _parse(address: str) -> dict[str, Any]:
    try:
        parameters = conninfo_to_dict(address)
    except psycopg.ProgrammingError:
        # What the driver says repeats the address, and there may be a password in it.
        raise UsageError(
            "the address of the database can't be read",
            hint="give postgresql://USER@HOST:PORT/DATABASE; % in it is written %25",
        ) from None
    defaults = dict(_DEFAULTS)
    if "," in str(parameters.get("host", "")):
        defaults["target_session_attrs"] = "read-write"
    return defaults | parameters


def location_of(parameters: dict[str, Any]) -> str:
    """Name a database without anything that is secret: by its hosts and its name."""
    hosts = str(parameters.get("host", "")).split(",")
    ports = str(parameters.get("port", "")).split(",")
    ports += ports[:1] * (len(hosts) - len(ports))
    pairs = zip(hosts, ports, strict=False)
    places = ",".join(f"{host}:{port}" if port else host for host, port in pairs)
    return f"postgresql://{places}/{parameters.get('dbname') or ''}"
