"""A logging handler that writes to the log database, at next to no cost for whoever logs.

>>> logging.getLogger().addHandler(RollbookHandler(state))  # doctest: +SKIP
"""

import logging
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from typing import Any

from rollbook import telemetry
from rollbook.aio import AsyncStateRuntime
from rollbook.errors import RollbookError, UsageError
from rollbook.forks import finish_before_fork, renew_after_fork, started
from rollbook.model.log import LogEntry
from rollbook.runtime import StateRuntime

QUEUE_SIZE = 512
BATCH_SIZE = 64
FLUSH_INTERVAL_S = 0.25
_GIVE_WAY_S = 0.001

# What every record has of its own accord; the rest was given as ``extra``.
_OWN_FIELDS = frozenset(vars(logging.makeLogRecord({})))
_ADDED_BY_FORMATTERS = frozenset({"message", "asctime"})
_LEVEL_NAMES = {"WARNING": "WARN", "CRITICAL": "ERROR", "FATAL": "ERROR"}
_LEVEL_NUMBERS = ((logging.ERROR, "ERROR"), (logging.WARNING, "WARN"), (logging.INFO, "INFO"))
_formatter = logging.Formatter()
_thread_id: ContextVar[str | None] = ContextVar("rollbook_thread_id", default=None)


@contextmanager
def thread_context(thread_id: str | None) -> Iterator[None]:
    """Have what is logged inside the block belong to a thread of the agent.

    Holds for the asyncio task or the thread of the program that enters it, and for the tasks that
    are started inside; of nested blocks the inner one counts.  A record with a ``thread_id`` of its
    own keeps that.  Source: behaviour.md 123.
    """
    token = _thread_id.set(thread_id)
    try:
        yield
    finally:
        _thread_id.reset(token)


class RollbookHandler(logging.Handler):
    """Writes log records to the log database of a state, in batches and in the background.

    Logging neither waits nor fails: at most ``queue_size`` records wait to be written, more are
    dropped and counted, and a row says how many were lost.  A batch is written when ``batch_size``
    records wait, and ``flush_interval_s`` seconds after the first of them.  What waits is written
    when the handler or the state is closed, at the end of the program, and before a fork.

    A row has the record's level (WARNING is WARN, CRITICAL is ERROR, below DEBUG is TRACE, other
    names stay), its logger's name as target, its module, file, line and time.  The message is the
    record's, or what a formatter that was set makes of it, with the ``extra`` fields behind it and
    an exception below it.  The thread is the record's ``thread_id``, else that of
    :func:`thread_context`.  Source: behaviour.md 121 to 124.
    """

    def __init__(
        self,
        state: StateRuntime | AsyncStateRuntime,
        level: int | str = logging.NOTSET,
        *,
        queue_size: int = QUEUE_SIZE,
        batch_size: int = BATCH_SIZE,
        flush_interval_s: float = FLUSH_INTERVAL_S,
    ) -> None:
        super().__init__(level)
        self._state = state.blocking if isinstance(state, AsyncStateRuntime) else state
        self._queue_size = queue_size
        self._batch_size = batch_size
        self._flush_interval_s = flush_interval_s
        self._is_closed = self._is_finished = False
        self._renew()
        renew_after_fork(self._renew)
        finish_before_fork(self.flush)
        self._forget_closing = self._state.before_closing(self.close)

    def _renew(self) -> None:
        self._waiting: deque[LogEntry] = deque()
        self._some_wait = threading.Event()
        self._enough_wait = threading.Event()
        self._starting = threading.RLock()
        self._writing = threading.Lock()
        self._counting = threading.RLock()  # a signal handler may log, too
        self._is_writer = threading.local()
        self._writer: threading.Thread | None = None
        self._flushing = 0
        self._lost = 0
        self._lost_told = 0

    @property
    def lost(self) -> int:
        """How many records this process has dropped so far, or could not write."""
        return self._lost

    def handle(self, record: logging.LogRecord) -> bool:
        """Filter and take a record; without the usual lock, as what follows needs none."""
        if hasattr(self._is_writer, "now"):  # writing must not log to itself
            return False
        kept = self.filter(record)
        if kept:
            self.emit(kept if isinstance(kept, logging.LogRecord) else record)
        return bool(kept)

    def emit(self, record: logging.LogRecord) -> None:
        """Put a record into the queue; never waits, never raises."""
        try:
            entry = self._entry(record)
        except Exception:  # noqa: BLE001 - a message that can't be formatted, of whatever reason
            self.handleError(record)
            return
        if self._is_closed or len(self._waiting) >= self._queue_size:
            self._lose(1)
            return
        self._waiting.append(entry)
        if not self._some_wait.is_set():
            self._some_wait.set()
            if self._writer is None:
                self._start_writer()
        if len(self._waiting) >= self._batch_size and not self._enough_wait.is_set():
            self._enough_wait.set()

    def flush(self) -> None:
        """Write what waits now; returns when that is done."""
        if self._is_finished:
            return
        with self._counting:
            self._flushing += 1
        try:
            self._write_waiting()
        finally:
            with self._counting:
                self._flushing -= 1

    def close(self) -> None:
        """Write what waits and take no more: what comes later is only counted."""
        if not self._is_closed:
            self._is_closed = True
            self._forget_closing()
            self._some_wait.set()
            self._enough_wait.set()
            if self._writer is not None:
                self._writer.join()
            self.flush()
            self._is_finished = True
        super().close()

    def _start_writer(self) -> None:
        with self._starting:
            if self._writer is None and not self._is_closed:
                self._writer = started(self._run, name="rollbook-log-writer")
                if self._writer is None:
                    self._some_wait.clear()  # the next record tries again
                elif "multiprocessing.util" in sys.modules:
                    # The processes that it forks end without Python's exit hooks.
                    from multiprocessing.util import Finalize

                    Finalize(self, self.flush, exitpriority=0)

    def _run(self) -> None:
        while not self._is_closed:
            self._some_wait.wait()
            self._enough_wait.wait(self._flush_interval_s)
            if self._flushing:  # whoever waits for what was logged goes first
                time.sleep(_GIVE_WAY_S)
                continue
            self._some_wait.clear()
            self._enough_wait.clear()
            self._write_waiting()

    def _write_waiting(self) -> None:
        with self._writing:
            self._is_writer.now = True
            try:
                batch = [self._waiting.popleft() for _ in range(len(self._waiting))]
                if batch or self._lost > self._lost_told:
                    self._write(batch)
            finally:
                del self._is_writer.now

    def _write(self, batch: list[LogEntry]) -> None:
        lost = self._lost
        if lost > self._lost_told:
            batch.append(_loss(lost - self._lost_told))
        try:
            self._state.insert_logs(batch)
        except UsageError:  # a record with impossible fields: it alone is lost
            for entry in batch:
                self._write_one(entry)
            self._lost_told = lost
        except RollbookError as error:
            self._lose(len(batch) - (lost > self._lost_told))
            if self._is_closed and logging.raiseExceptions:
                sys.stderr.write(f"rollbook: {self._lost} log records were lost: {error}\n")
        else:
            self._lost_told = lost

    def _write_one(self, entry: LogEntry) -> None:
        try:
            self._state.insert_log(entry)
        except RollbookError:
            self._lose(1)

    def _lose(self, count: int) -> None:
        with self._counting:
            self._lost += count
        telemetry.count(telemetry.LOGS_DROPPED, count)

    def _entry(self, record: logging.LogRecord) -> LogEntry:
        fields = vars(record)
        extra: dict[str, Any] = {}
        if len(fields) != len(_OWN_FIELDS):
            extra = _extra(fields)
        thread_id = extra.pop("thread_id", None)
        if thread_id is None:
            thread_id = _thread_id.get()
        seconds = max(record.created, 0.0)
        name, module = record.name, record.module
        return LogEntry(
            ts=int(seconds),
            ts_nanos=int((seconds % 1) * 1_000_000_000),
            level=_level(record.levelno, record.levelname),
            target=name,
            message=self._message(record, extra),
            thread_id=None if thread_id is None else str(thread_id),
            module_path=name if name.endswith(module) else module,
            file=record.pathname,
            line=record.lineno,
        )

    def _message(self, record: logging.LogRecord, extra: dict[str, Any]) -> str:
        if self.formatter is not None:
            return " ".join([self.format(record), *_pairs(extra)])
        text = record.getMessage()
        if record.exc_info and record.exc_text == "\n":  # loguru's: the exception is in the text
            text, _, record.exc_text = text.rstrip().partition("\n")
        if extra:
            text = " ".join([text, *_pairs(extra)])
        if record.exc_info and not record.exc_text:
            record.exc_text = _formatter.formatException(record.exc_info)
        for below in (record.exc_text, record.stack_info):
            if below:
                text = f"{text}\n{below}"
        return text


@lru_cache
def _level(number: int, name: str) -> str:
    if number < logging.DEBUG:
        return "TRACE"
    name = name.upper()
    if name.startswith("LEVEL "):  # a number without a name counts as the named one below it
        return next((known for limit, known in _LEVEL_NUMBERS if number >= limit), "DEBUG")
    return _LEVEL_NAMES.get(name, name)


def _extra(fields: dict[str, Any]) -> dict[str, Any]:
    """Find what was given as ``extra``; loguru gives all of it as one."""
    extra = {
        name: value
        for name, value in fields.items()
        if name not in _OWN_FIELDS and name not in _ADDED_BY_FORMATTERS
    }
    if isinstance(extra.get("extra"), dict):
        extra |= extra.pop("extra")
    return extra


def _pairs(extra: dict[str, Any]) -> Iterator[str]:
    for name, value in extra.items():
        text = str(value)
        is_plain = text.isprintable() and text and not any(c in text for c in " \"'=")
        yield f"{name}={text if is_plain else repr(text)}"


def _loss(count: int) -> LogEntry:
    """Make the row that says how many are missing."""
    record = logging.makeLogRecord({})
    return LogEntry(
        ts=int(record.created),
        ts_nanos=int((record.created % 1) * 1_000_000_000),
        level="WARN",
        target=__name__,
        message=f"{count} log records were lost here: more came than could be written",
        module_path=__name__,
    )
