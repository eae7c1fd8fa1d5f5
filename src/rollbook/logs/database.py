"""Where the programs of a home log to."""

import logging
import os
import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

import msgspec

from rollbook.errors import (
    DatabaseDamagedError,
    DatabaseError,
    DatabaseUnwritableError,
    RollbookError,
    UsageError,
)
from rollbook.forks import renew_after_fork, started
from rollbook.logs.bounds import Bounds
from rollbook.logs.carry_over import begin_anew, carry_over
from rollbook.logs.reader import checked
from rollbook.model.log import LogEntry, LogLimits, LogQuery, LogRow
from rollbook.store import logs
from rollbook.store.engine import LOGS, Row, Transaction
from rollbook.store.sqlite import SqliteEngine
from rollbook.store.sqlite_file import copied, pending_files
from rollbook.telemetry import ERRORS, count

_CHECK_AFTER_PART = 64  # of the bound: when so much was written, look again
_CHECK_AFTER_S = 3600.0
_DAY_S = 86_400
_SETTLE_AFTER_BYTES = 1 << 19  # of rows: then the file is brought up to its log
_log = logging.getLogger(__name__)
_Result = TypeVar("_Result")


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
        self._recovering = threading.Lock()
        self._keeper: threading.Thread | None = None
        self._keeper_wakes = threading.Event()
        self._is_pending = False
        self._is_complete = threading.Event()
        self._is_complete.set()
        self._is_due = True  # to look at the bounds
        self._unchecked_bytes = self._unsettled_bytes = 0

    @property
    def retention_s(self) -> int:
        """The age that rows may reach, in seconds."""
        return self._limits.retention_days * _DAY_S

    def insert(self, entries: Sequence[LogEntry]) -> None:
        """Append entries in one transaction; nothing happens for none."""
        if not entries:
            return
        self._whatever_is_damaged(partial(self._insert, entries))
        if self._keeper is None:
            self._start_keeper()
        elif self._unchecked_bytes > self._check_after_bytes:
            self._wake_keeper()
        elif self._unsettled_bytes > _SETTLE_AFTER_BYTES:
            self._keeper_wakes.set()

    def _insert(self, entries: Sequence[LogEntry]) -> None:
        engine, bounds = self._open()
        try:
            with engine.write() as tx:
                size = logs.insert(tx, entries)
                bounds.make_room(tx, len(entries))
            self._unchecked_bytes += size
            self._unsettled_bytes += size
        except DatabaseDamagedError:
            raise
        except (DatabaseError, AttributeError, TypeError, ValueError, OverflowError):
            _refuse_invalid(entries)
            raise

    def select(self, query: LogQuery) -> list[LogRow]:
        """Read the rows that a query asks for."""
        return self._read(lambda tx: logs.select(tx, checked(query)), [])

    def max_id(self, query: LogQuery) -> int:
        """Read the largest id that a query finds; 0 where it finds none."""
        return self._read(lambda tx: logs.max_id(tx, checked(query)), 0)

    def rows_after(self, row_id: int, limit: int) -> list[Row]:
        """Read the next rows behind an id, whole, each with its id first."""
        return self._read(lambda tx: logs.rows_after(tx, row_id, limit), [])

    def copied(self, source: str) -> tuple[int, str]:
        """Say up to which row of a source was copied here, and what that row was; 0 for none."""
        return self._read(lambda tx: logs.copied(tx, source), (0, ""))

    def put_copies(self, source: str, rows: Sequence[Row]) -> None:
        """Append rows of a source, each with its id there first, and remember the last."""

        def put() -> None:
            engine, _ = self._open()
            with engine.write() as tx:
                logs.put_copies(tx, source, rows)

        self._whatever_is_damaged(put)

    def last_id(self) -> int:
        """Read the largest id that was ever given to a row, be it there or not."""
        return self._read(logs.last_id, 0)

    def delete_before(self, ts: int) -> int:
        """Delete the rows before a time (epoch seconds), in small steps; says how many."""
        deleted = self._whatever_is_damaged(lambda: self._complete()[1].delete_before(ts))
        self._start_keeper()
        self._wake_keeper()  # to give back what is free now
        return deleted

    def delete_threads(self, thread_ids: Sequence[str]) -> int:
        """Delete all rows of some threads, in small steps; says how many."""
        if not self._path.exists():
            return 0
        deleted = self._whatever_is_damaged(lambda: self._complete()[1].delete_threads(thread_ids))
        if deleted:
            self._start_keeper()
            self._wake_keeper()  # for their marks, and what is free now
        return deleted

    def _read(self, action: Callable[[Transaction], _Result], nothing: _Result) -> _Result:
        """Read from the rows of before a damage, too; nothing where no logs can be kept."""

        def read() -> _Result:
            try:
                engine, _ = self._complete()
            except DatabaseUnwritableError as error:
                if not os.path.exists(self._path):
                    return nothing
                if not os.access(self._path, os.R_OK):
                    raise
                return self._read_copy(action, error)
            with engine.read() as tx:
                return action(tx)

        return self._whatever_is_damaged(read)

    def _read_copy(
        self, action: Callable[[Transaction], _Result], why: DatabaseUnwritableError
    ) -> _Result:
        """Read where a transaction has to be undone, or the schema changed, and that is not possible."""
        from tempfile import TemporaryDirectory

        _log.warning("the logs are read from a copy: %s", why.message)
        try:
            with TemporaryDirectory(prefix="rollbook-") as directory:
                engine = SqliteEngine.open(copied(self._path, Path(directory)), LOGS)
                try:
                    with engine.read() as tx:
                        return action(tx)
                finally:
                    engine.close()
        except OSError as error:
            raise why from error

    def _whatever_is_damaged(self, action: Callable[[], _Result]) -> _Result:
        """Do something; with a new database, if this one turns out to be damaged."""
        try:
            return action()
        except DatabaseDamagedError as damage:
            with self._recovering:
                if not begin_anew(self._path, damage):
                    raise
                self._expect_rows()
        self._start_keeper()
        self._wake_keeper()
        return action()

    def close(self) -> None:
        """Stop keeping the bounds and close the database."""
        self._stop.set()
        self._is_complete.set()
        self._keeper_wakes.set()
        if self._keeper is not None:
            self._keeper.join()
        if self._opened is not None:
            self._opened[0].close()

    def _open(self) -> tuple[SqliteEngine, Bounds]:
        with self._lock:
            if self._stop.is_set():
                raise DatabaseError(f"the logs {self._path} were closed before")
            if self._opened is not None:
                return self._opened
            engine = SqliteEngine.open(self._path, LOGS)
            try:
                self._opened = engine, Bounds(engine, self._limits, self._stop)
            except BaseException:
                engine.close()
                raise
        if pending_files(self._path):
            self._expect_rows()
        return self._opened

    def _expect_rows(self) -> None:
        """Have whoever reads wait for the rows of a damaged file."""
        with self._lock:
            self._is_pending = True
            self._is_complete.clear()

    def _fetch_rows(self, engine: SqliteEngine) -> None:
        with self._lock:
            is_pending, self._is_pending = self._is_pending, False
        try:
            if is_pending:
                carry_over(engine, self._stop)
        finally:
            with self._lock:
                if not self._is_pending:
                    self._is_complete.set()

    def _complete(self) -> tuple[SqliteEngine, Bounds]:
        """Open the database, and wait for the rows that are carried over from a damaged one."""
        opened = self._open()
        if not self._is_complete.is_set():
            self._start_keeper()
            self._wake_keeper()
            if self._keeper is not None:
                self._is_complete.wait()
        return opened

    def _start_keeper(self) -> None:
        with self._lock:
            if self._keeper is None and self._opened is not None and not self._stop.is_set():
                self._keeper = started(self._keep, *self._opened, name="rollbook-logs")

    def _wake_keeper(self) -> None:
        """Have the bounds looked at."""
        self._is_due = True
        self._keeper_wakes.set()

    def _keep(self, engine: SqliteEngine, bounds: Bounds) -> None:
        while not self._stop.is_set():
            self._unsettled_bytes = 0
            try:
                if self._is_due:
                    self._is_due, self._unchecked_bytes = False, 0
                    self._fetch_rows(engine)
                    bounds.keep()
                engine.settle()
            except RollbookError as error:
                count(ERRORS, rollbook_stage="log_bounds", error_type=type(error).__name__)
                _log.warning("the logs %s could not be trimmed: %s", self._path, error)
            if not self._keeper_wakes.wait(_CHECK_AFTER_S):
                self._is_due = True
            self._keeper_wakes.clear()
        self._is_complete.set()
