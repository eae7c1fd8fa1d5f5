"""The database behind a rollout that is being written."""

import logging
import threading
from collections import deque

from rollbook.errors import RollbookError
from rollbook.forks import started
from rollbook.model.thread import ThreadMetadataBuilder
from rollbook.rollout.lines import MalformedLineError, decode_line
from rollbook.runtime import StateRuntime
from rollbook.telemetry import ERRORS, count

_MOST_WAITING = 10_000
_WORTH_READING_BYTES = 1 << 17  # beyond that, reading the file costs less than folding each record
_GATHER_S = 0.02  # so that many records in a row cost few transactions; nobody waits for that long
_AWAKE_PASSES = 25  # without work before it sleeps: waking it costs more than a record
_RETRY_S = 5.0
_CLOSE_S = 10.0
_log = logging.getLogger(__name__)


class Follower:
    """Applies the records of one rollout to the database, in a thread of its own.

    They are in the rollout already.  So where the database can't be written, or is too slow, they
    are let go, and the whole rollout is compared with the index when it can be written again.
    """

    def __init__(self, state: StateRuntime, builder: ThreadMetadataBuilder) -> None:
        self._state = state
        self._builder = builder
        self._waiting: deque[bytes] = deque()
        self._changed = threading.Condition()
        self._is_asleep = True
        self._is_working = False
        self._is_behind = False
        self._is_awaited = False
        self._is_closing = False
        self._thread: threading.Thread | None = None

    def put(self, lines: bytes) -> None:
        """Take lines that were written; never waits for the database, nor for a lock as a rule."""
        self._waiting.append(lines)
        if len(self._waiting) > _MOST_WAITING:
            self._is_behind = True
            self._waiting.clear()
        if self._is_asleep:
            self._wake()

    def catch_up(self) -> None:
        """Have the whole rollout compared with the index."""
        self._is_behind = True
        self.hasten()

    def hasten(self) -> None:
        """Have the database follow at once."""
        self._is_awaited = True
        self._wake()

    def wait(self, timeout_s: float) -> bool:
        """Wait for what was put before; False where the database has not followed in that time."""
        with self._changed:
            is_done = self._changed.wait_for(
                lambda: not (self._waiting or self._is_awaited or self._is_working), timeout_s
            )
            return is_done and not self._is_behind

    def close(self) -> None:
        """Compare the whole rollout with the index once more and end; gives up after 10 s."""
        self._is_closing = True
        self.catch_up()
        if self._thread is not None:
            self._thread.join(_CLOSE_S)
        else:
            self._follow([], was_behind=True)

    def _wake(self) -> None:
        with self._changed:
            if self._thread is None:
                self._thread = started(self._run, name="rollbook-recorder")
            self._changed.notify_all()

    def _run(self) -> None:
        idle_passes, is_last = 0, False
        while not is_last:
            with self._changed:
                if idle_passes > _AWAKE_PASSES or self._is_behind:
                    self._sleep()
                self._changed.wait_for(lambda: self._is_awaited, _GATHER_S)
                was_behind, self._is_behind = self._is_behind, False
                is_last, self._is_working, self._is_awaited = self._is_closing, True, False
                lines = [self._waiting.popleft() for _ in range(len(self._waiting))]
            has_followed = self._follow(lines, was_behind=was_behind)
            idle_passes = 0 if lines else idle_passes + 1
            with self._changed:
                self._is_working = False
                self._is_behind = self._is_behind or not has_followed
                self._changed.notify_all()

    def _sleep(self) -> None:
        """Wait for work; where the database could not follow, only so long."""
        self._is_asleep = True
        self._changed.wait_for(
            lambda: self._is_awaited or (self._waiting and not self._is_behind),
            _RETRY_S if self._is_behind else None,
        )
        self._is_asleep = False

    def _follow(self, lines: list[bytes], *, was_behind: bool) -> bool:
        if not (lines or was_behind):
            return True
        try:
            if was_behind or sum(map(len, lines)) > _WORTH_READING_BYTES:
                self._state.reconcile_rollout(self._builder.rollout_path)
            else:
                items = [decode_line(line) for line in b"".join(lines).splitlines()]
                self._state.apply_rollout_items(self._builder, items)
        except (RollbookError, MalformedLineError) as error:
            count(ERRORS, rollbook_stage="recorder", error_type=type(error).__name__)
            _log.warning(
                "the index is behind %s and will catch up later: %s",
                self._builder.rollout_path,
                error,
            )
            return False
        return True
