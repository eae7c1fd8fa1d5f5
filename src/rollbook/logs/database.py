"""Where the programs of a home log to."""

import logging
import threading
from collections.abc import Sequence
from pathlib import Path

import msgspec

from rollbook.errors import DatabaseError, RollbookError, UsageError
from rollbook.forks import renew_after_fork
from rollbook.logs.bounds import Bounds
from rollbook.logs.reader import checked
from rollbook.model.log import LogEntry, LogLimits, LogQuery, LogRow
from rollbook.store import logs
from rollbook.store.engine import LOGS
from rollbook.store.sqlite import SqliteEngine
from rollbook.telemetry import ERRORS, count

_CHECK_AFTER_PART = 64  # of the bound: when so much was written, look again
_CHECK_AFTER_S = 3600.0
_log = logging.getLogger(__name__)


def _refuse_invalid(entries: Sequence[LogEntry]) -> None:
    """Find the entry that no database takes; looked for only when one has refused."""
    for entry in entries:
        try:
            msgspec.convert(msgspec.structs.asdict(entry), LogEntry)
        except (msgspec.ValidationError, TypeError) as error:
            raise UsageError(f"that is no log entry: {error}") from error


class LogDatabase:
    """The log database of a home, opened when it is first used, and kept within its bounds."""

    def __init__(self, path: Path, limits: LogLimits) -> None:
        self._path = path
        self._limits = limits
        smaller = min(limits.max_bytes, limits.max_thread_bytes)
        self._check_after_bytes = smaller // _CHECK_AFTER_PART
        self._opened: tuple[SqliteEngine, Bounds] | None = None
        self._stop = threading.Event()
        self._renew()
        renew_after_fork(self._renew)

    def _renew(self) -> None:
        self._lock = threading.Lock()
        self._keeper: threading.Thread | None = None
        self._keeper_wakes = threading.Event()
        self._unchecked_bytes = 0

    def insert(self, entries: Sequence[LogEntry]) -> None:
        """Append entries in one transaction; nothing happens for none."""
        if not entries:
            return
        engine, bounds = self._open()
        try:
            with engine.write() as tx:
                self._unchecked_bytes += logs.insert(tx, entries)
                bounds.make_room(tx, len(entries))
        except (DatabaseError, AttributeError, TypeError, ValueError, OverflowError):
            _refuse_invalid(entries)
            raise
        if self._keeper is None:
            self._start_keeper(bounds)
        elif self._unchecked_bytes > self._check_after_bytes:
            self._keeper_wakes.set()

    def select(self, query: LogQuery) -> list[LogRow]:
        """Read the rows that a query asks for."""
        engine, _ = self._open()
        with engine.read() as tx:
            return logs.select(tx, checked(query))

    def max_id(self, query: LogQuery) -> int:
        """Read the largest id that a query finds; 0 where it finds none."""
        engine, _ = self._open()
        with engine.read() as tx:
            return logs.max_id(tx, checked(query))

    def delete_before(self, ts: int) -> int:
        """Delete the rows before a time (epoch seconds), in small steps; says how many."""
        _, bounds = self._open()
        deleted = bounds.delete_before(ts)
        self._start_keeper(bounds)
        self._keeper_wakes.set()  # to give back what is free now
        return deleted

    def close(self) -> None:
        """Stop keeping the bounds and close the database."""
        self._stop.set()
        self._keeper_wakes.set()
        if self._keeper is not None:
            self._keeper.join()
        if self._opened is not None:
            self._opened[0].close()

    def _open(self) -> tuple[SqliteEngine, Bounds]:
        with self._lock:
            if self._stop.is_set():
                raise DatabaseError(f"the logs {self._path} were closed before")
            if self._opened is None:
                engine = SqliteEngine.open(self._path, LOGS)
                self._opened = engine, Bounds(engine, self._limits, self._stop)
            return self._opened

    def _start_keeper(self, bounds: Bounds) -> None:
        with self._lock:
            if self._keeper is None and not self._stop.is_set():
                self._keeper = threading.Thread(
                    target=self._keep, args=(bounds,), name="rollbook-logs", daemon=True
                )
                self._keeper.start()

    def _keep(self, bounds: Bounds) -> None:
        while not self._stop.is_set():
            self._unchecked_bytes = 0
            try:
                bounds.keep()
            except RollbookError as error:
                count(ERRORS, rollbook_stage="log_bounds", error_type=type(error).__name__)
                _log.warning("the logs %s could not be trimmed: %s", self._path, error)
            self._keeper_wakes.wait(_CHECK_AFTER_S)
            self._keeper_wakes.clear()
