"""The database behind a rollout that is being written."""

import logging
import threading

from rollbook.errors import RollbookError
from rollbook.model.thread import ThreadMetadataBuilder
from rollbook.rollout.lines import decode_line
from rollbook.runtime import StateRuntime
from rollbook.telemetry import ERRORS, count

_MOST_WAITING_BYTES = 1 << 17  # beyond that, reading the file costs less than the records
_GATHER_S = 0.02  # so that many records in a row cost few transactions; nobody waits for that long
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
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._changed = threading.Condition()
        self._has_work = False
        self._is_working = False
        self._is_behind = False
        self._is_awaited = False
        self._is_closing = False
        self._thread: threading.Thread | None = None

    def put(self, lines: bytes) -> None:
        """Take lines that were written; never waits for the database."""
        with self._changed:
            self._waiting.append(lines)
            self._waiting_bytes += len(lines)
            if self._waiting_bytes > _MOST_WAITING_BYTES:
                self._waiting.clear()
                self._waiting_bytes = 0
                self._is_behind = True
            if not self._has_work:
                self._wake()

    def catch_up(self) -> None:
        """Have the whole rollout compared with the index."""
        with self._changed:
            self._is_behind = True
            self._wake()

    def hasten(self) -> None:
        """Have the database follow at once."""
        with self._changed:
            self._is_awaited = True
            self._changed.notify_all()

    def wait(self, timeout_s: float) -> bool:
        """Wait for what was put before; False where the database has not followed in that time."""
        with self._changed:
            is_done = self._changed.wait_for(
                lambda: not (self._has_work or self._is_working), timeout_s
            )
            return is_done and not self._is_behind

    def close(self) -> None:
        """Compare the whole rollout with the index once more and end; gives up after 10 s."""
        with self._changed:
            self._is_behind = self._is_closing = True
            self._wake()
            thread = self._thread
        if thread is not None:
            thread.join(_CLOSE_S)

    def _wake(self) -> None:
        self._has_work = True
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="rollbook-recorder", daemon=True)
            self._thread.start()
        self._changed.notify_all()

    def _run(self) -> None:
        is_last = False
        while not is_last:
            with self._changed:
                self._changed.wait_for(
                    lambda: self._has_work, _RETRY_S if self._is_behind else None
                )
                self._changed.wait_for(lambda: self._is_awaited or self._is_closing, _GATHER_S)
                lines, self._waiting, self._waiting_bytes = self._waiting, [], 0
                was_behind, self._is_behind = self._is_behind, False
                self._has_work, self._is_working, self._is_awaited = False, True, False
                is_last = self._is_closing
            has_followed = self._follow(lines, was_behind=was_behind)
            with self._changed:
                self._is_working = False
                self._is_behind = self._is_behind or not has_followed
                self._changed.notify_all()

    def _follow(self, lines: list[bytes], *, was_behind: bool) -> bool:
        try:
            if was_behind:
                self._state.reconcile_rollout(self._builder.rollout_path)
            else:
                items = [decode_line(line) for line in b"".join(lines).splitlines()]
                self._state.apply_rollout_items(self._builder, items)
        except RollbookError as error:
            count(ERRORS, rollbook_stage="recorder", error_type=type(error).__name__)
            _log.warning(
                "the index is behind %s and will catch up later: %s",
                self._builder.rollout_path,
                error,
            )
            return False
        return True
