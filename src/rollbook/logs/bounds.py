"""Keep the logs within their bounds, by small transactions that hold nobody up."""

import threading
import time
from collections.abc import Callable, Sequence

from rollbook.model.log import LogLimits, LogQuery
from rollbook.store import log_marks, logs
from rollbook.store.engine import Transaction
from rollbook.store.log_conditions import LARGEST_ID
from rollbook.store.logs import Amount
from rollbook.store.sqlite import SqliteEngine

_STEP = Amount(rows=250, bytes=1 << 20)  # deleted, or given back, at once: a few milliseconds
_SETTLE_EVERY = 16  # steps, which write a few megabytes
_PAUSE_S = 0.002  # between two, so that writers get their turn
_SETTLE_ATTEMPTS = 100  # as long as somebody reads an older state, the file can't shrink
_SETTLE_PAUSE_S = 0.1
_TRIM_FROM = 0.95  # before the bound is reached, as more is written while it is being noticed
_TRIM_TO = 0.85  # so that there is nothing to do for a while then
_MAX_UNUSED = 8  # the file may be larger by this part of what is in use,
_MIN_UNUSED = 1 << 18  # or by this
_DAY_S = 86400

Deletion = Callable[[Transaction, int], int]


class Bounds:
    """The bounds of one database.  What is over them goes, the oldest first."""

    def __init__(self, engine: SqliteEngine, limits: LogLimits, stop: threading.Event) -> None:
        self._engine = engine
        self._limits = limits
        self._stop = stop
        self._excess: Deletion | None = None
        self._has_deleted = True  # or another process, that was killed
        self._steps = 0
        self._expires_next = time.monotonic()
        with engine.read() as tx:  # who writes old rows on purpose keeps them for a while
            self._up_to_id = logs.max_id(tx, LogQuery())

    def make_room(self, tx: Transaction, rows: int) -> None:
        """While there is too much, delete twice as many rows as are being added.

        So writers can't outrun :meth:`keep`, however fast they are.
        """
        excess = self._excess
        if excess is not None:
            excess(tx, min(2 * rows, _STEP.rows))

    def keep(self) -> None:
        """Delete what is too old, what is too much of a thread and of all; then shrink the file.

        Before, mark what has no marks yet, and afterwards take away those of what is gone.
        """
        self._in_steps(_mark)
        self._expire()
        while (thread_id := self._largest_thread()) is not None:
            if not self._delete(self._excess_of(thread_id)):
                break  # the count was wrong, then
        if self._engine.used_bytes() > self._limits.max_bytes * _TRIM_FROM:
            self._delete(self._excess_of_all)
        self._forget_marks()
        self._shrink()

    def _expire(self) -> None:
        """Once a day, delete what is too old; at first only what was there before."""
        if time.monotonic() < self._expires_next:
            return
        oldest = int(time.time()) - self._limits.retention_days * _DAY_S
        self.delete_before(oldest, self._up_to_id)
        self._up_to_id = LARGEST_ID
        self._expires_next = time.monotonic() + _DAY_S

    def _shrink(self) -> None:
        is_settled = True
        while self._engine.unused_bytes() > max(
            self._engine.used_bytes() // _MAX_UNUSED, _MIN_UNUSED
        ):
            self._engine.give_back(_STEP.bytes)
            is_settled = self._engine.settle()
            if self._stop.wait(_PAUSE_S):
                return
        for _ in range(_SETTLE_ATTEMPTS):
            if is_settled or self._stop.wait(_SETTLE_PAUSE_S):
                return
            is_settled = self._engine.settle()

    def delete_before(self, ts: int, up_to_id: int = LARGEST_ID) -> int:
        """Delete all rows before a time; says how many."""
        total = last = 0
        while ts > -LARGEST_ID - 1 and not self._stop.is_set():
            query = LogQuery(to_ts=ts - 1, after_id=last, up_to_id=up_to_id, limit=_STEP.rows)
            # To find them may take longer than a writer should wait.
            with self._engine.read() as tx:
                found = logs.ids(tx, query)
            if not found:
                break
            with self._engine.write() as tx:
                deleted = logs.delete(tx, found, _STEP.bytes)
            self._has_deleted = True
            total += len(deleted)
            last = deleted[-1] if deleted else found[-1]
            self._rest()
        return total

    def delete_threads(self, thread_ids: Sequence[str]) -> int:
        """Delete all rows of some threads; says how many."""
        total = 0
        for thread_id in thread_ids:
            with self._engine.read() as tx:
                has_any = logs.max_id(tx, LogQuery(thread_ids=[thread_id])) > 0
            while has_any and not self._stop.is_set():
                with self._engine.write() as tx:
                    deleted = logs.delete_oldest_of(tx, thread_id, _STEP)
                if not deleted:
                    break
                self._has_deleted = True
                total += deleted
                self._rest()
        return total

    def _forget_marks(self) -> None:
        """Take the marks of rows away that were deleted."""
        while self._has_deleted and not self._stop.is_set():
            self._has_deleted = False
            with self._engine.read() as tx:
                spans = log_marks.empty_spans(tx, _STEP.rows)
            if len(spans) == _STEP.rows:
                self._has_deleted = True  # there are more
            for span in spans:
                with self._engine.write() as tx:
                    log_marks.forget_empty(tx, span)
                if self._rest():
                    return

    def _largest_thread(self) -> str | None:
        if self._stop.is_set():
            return None
        with self._engine.read() as tx:
            return logs.largest_thread(tx, int(self._limits.max_thread_bytes * _TRIM_FROM))

    def _excess_of(self, thread_id: str) -> Deletion:
        enough = int(self._limits.max_thread_bytes * _TRIM_TO)

        def delete(tx: Transaction, rows: int) -> int:
            excess = logs.thread_bytes(tx, thread_id) - enough
            if excess <= 0:
                return 0
            return logs.delete_oldest_of(tx, thread_id, Amount(rows, min(excess, _STEP.bytes)))

        return delete

    def _excess_of_all(self, tx: Transaction, rows: int) -> int:
        excess = self._engine.used_bytes() - int(self._limits.max_bytes * _TRIM_TO)
        if excess <= 0:
            return 0
        return logs.delete_oldest(tx, Amount(rows, min(excess, _STEP.bytes)))

    def _delete(self, excess: Deletion) -> int:
        self._excess, self._has_deleted = excess, True
        try:
            return self._in_steps(excess)
        finally:
            self._excess = None

    def _in_steps(self, deletion: Deletion) -> int:
        """Repeat a deletion, each time in a transaction of its own, until there is none left."""
        total = 0
        while True:
            with self._engine.write() as tx:
                deleted = deletion(tx, _STEP.rows)
            total += deleted
            if not deleted or self._rest():
                return total

    def _rest(self) -> bool:
        """Give writers their turn between two steps; says whether to stop.

        After some steps, the file is brought up to its log: or a writer would have to do that.
        """
        self._steps += 1
        if self._steps % _SETTLE_EVERY == 0:
            self._engine.settle()
        return self._stop.wait(_PAUSE_S)


def _mark(tx: Transaction, rows: int) -> int:
    """Mark what comes next, however few rows may be deleted at once."""
    del rows
    log_marks.merge_texts(tx, log_marks.SPAN_SIZE)
    return log_marks.mark_next(tx, 1)
