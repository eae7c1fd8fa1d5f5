"""Move what can't be rebuilt from one database to another: the logs.

A copy goes on where one that broke off was, as what was copied is remembered where it was copied
to, in one transaction.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Protocol

import msgspec

from rollbook.errors import UsageError
from rollbook.fleet.host import machine, wanted_name
from rollbook.logs.database import LogDatabase
from rollbook.logs.reader import LogReader, logs_beside
from rollbook.model.log import LogLimits
from rollbook.rollout.layout import shared_address
from rollbook.store import logs, shared_logs
from rollbook.store.engine import SHARED, Row
from rollbook.store.postgres import PostgresEngine

_AT_ONCE = 10_000
_KEEP_ALL = LogLimits(retention_days=1_000_000, max_bytes=1 << 60, max_thread_bytes=1 << 60)


class CopyReport(msgspec.Struct, frozen=True):
    """What a copy did: how many log rows it copied, and of how many hosts."""

    copied: int
    hosts: int


class _Log(msgspec.Struct, frozen=True):
    """The rows of one host in a source: what the position is kept for, and how to read on."""

    host: str
    key: str | None
    rows_after: Callable[[int, int], list[Row]]


class _Target(Protocol):
    def position(self, log: _Log) -> tuple[int, str]:
        """Say up to which row a log was copied, and what that row was."""

    def put(self, log: _Log, rows: list[Row]) -> None:
        """Append rows, and remember the last."""


def copy_logs(
    source: str,
    target: str,
    *,
    host: str | None = None,
    progress: Callable[[int], None] | None = None,
) -> CopyReport:
    """Copy all log rows that were not copied yet, in order.

    Both are addresses of PostgreSQL, or paths of state databases or of their logs.  ``host`` is
    whose rows those of a file are; it defaults to ``ROLLBOOK_HOST``, then to the machine's name.  A
    file has no hosts, so it doesn't keep whose rows it gets.  ``progress`` is told how many rows
    were copied.

    Errors: UsageError for the same database twice; those of databases.
    """
    if source == target:
        raise UsageError(f"{source} can't be copied to itself")
    name = wanted_name(host)
    name = machine() if name is None else name
    copied = hosts = 0
    with ExitStack() as opened:
        into = opened.enter_context(_target(target))
        for log in opened.enter_context(_source(source, name)):
            last_id, last_row = into.position(log)
            there = log.rows_after(last_id - 1, 1) if last_id else []
            if there and there[0][0] == last_id and logs.digest_of(there[0]) != last_row:
                last_id = 0  # a log that was begun anew
            hosts += 1
            while rows := log.rows_after(last_id, _AT_ONCE):
                into.put(log, rows)
                last_id = rows[-1][0]
                copied += len(rows)
                if progress is not None:
                    progress(copied)
    return CopyReport(copied, hosts)


@contextmanager
def _source(place: str, host: str) -> Iterator[list[_Log]]:
    if shared_address(place) is None:
        reader = LogReader.open(None, place)
        if not reader.exists():
            raise UsageError(f"there are no logs at {reader.path}")
        yield [_Log(host, None, reader.rows_after)]
        return
    engine = PostgresEngine.open(place, SHARED)

    def log_of(host: str) -> _Log:
        def rows_after(row_id: int, limit: int) -> list[Row]:
            with engine.read() as tx:
                return shared_logs.rows_after(tx, host, row_id, limit)

        return _Log(host, f"{engine.location} {host}", rows_after)

    try:
        with engine.read() as tx:
            hosts = shared_logs.hosts(tx)
        yield list(map(log_of, hosts))
    finally:
        engine.close()


@contextmanager
def _target(place: str) -> Iterator[_Target]:
    if shared_address(place) is not None:
        engine = PostgresEngine.open(place, SHARED)
        try:
            yield _SharedTarget(engine)
        finally:
            engine.close()
        return
    path = Path(place)
    database = LogDatabase(
        path if path.name.endswith("logs.sqlite") else logs_beside(path), _KEEP_ALL
    )
    try:
        yield _FileTarget(database, place)
    finally:
        database.close()


class _SharedTarget:
    def __init__(self, engine: PostgresEngine) -> None:
        self._engine = engine
        self._days: set[int] = set()

    def position(self, log: _Log) -> tuple[int, str]:
        with self._engine.read() as tx:
            return shared_logs.position(tx, log.host if log.key is None else log.key)

    def put(self, log: _Log, rows: list[Row]) -> None:
        for day in sorted(shared_logs.days_of(rows) - self._days):
            with self._engine.write() as tx:
                shared_logs.make_partition(tx, day)
            self._days.add(day)
        with self._engine.write() as tx:
            shared_logs.locked_position(tx, log.host if log.key is None else log.key)
            shared_logs.put(tx, log.host, rows, log.key)


class _FileTarget:
    def __init__(self, database: LogDatabase, place: str) -> None:
        self._database = database
        self._place = place

    def position(self, log: _Log) -> tuple[int, str]:
        return self._database.copied(log.key or log.host)

    def put(self, log: _Log, rows: list[Row]) -> None:
        self._database.put_copies(log.key or log.host, rows)
