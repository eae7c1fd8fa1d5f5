"""Keep the content database in step in a thread of its own, behind the index."""

import logging
import threading
from collections.abc import Callable, Collection

from rollbook.content.database import ContentDatabase
from rollbook.errors import DatabaseBusyError, RollbookError
from rollbook.forks import renew_after_fork, started
from rollbook.index.home import HomeIndex
from rollbook.telemetry import ERRORS, count

_TRY_AGAIN_AFTER_S = 2.0  # where another process is at it
_log = logging.getLogger(__name__)


class ContentKeeper:
    """Reads what it is told of, when the index is through with it; nobody waits for it.

    ``tell`` is told which threads were read, None for all.
    """

    def __init__(
        self,
        content: ContentDatabase,
        index: HomeIndex,
        tell: Callable[[Collection[str] | None], None],
    ) -> None:
        self._content = content
        self._index = index
        self._tell = tell
        self._renew()
        renew_after_fork(self._renew)

    def _renew(self) -> None:
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._wakes = threading.Event()
        self._stop = threading.Event()
        self._wanted: set[str] = set()
        self._wants_all = False

    def want(self, thread_ids: Collection[str] | None = None) -> None:
        """Have the rollouts of some threads read, or of all."""
        with self._lock:
            if thread_ids is None:
                self._wants_all = True
            else:
                self._wanted.update(thread_ids)
            if self._thread is None and not self._stop.is_set():
                self._thread = started(self._run, name="rollbook-content")
        self._wakes.set()

    def close(self) -> None:
        """Stop at the next rollout, and wait for that."""
        self._stop.set()
        self._wakes.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        self._index.wait_for_backfill()
        while not self._stop.is_set():
            self._wakes.wait()
            self._wakes.clear()
            with self._lock:
                wanted, self._wanted = self._wanted, set()
                wants_all, self._wants_all = self._wants_all, False
            if not (wanted or wants_all) or self._stop.is_set():
                continue
            if not self._build(None if wants_all else wanted):
                self._stop.wait(_TRY_AGAIN_AFTER_S)
                self.want(None if wants_all else wanted)

    def _build(self, thread_ids: Collection[str] | None) -> bool:
        """Read; says whether there is no need to try again."""
        try:
            self._content.build(self._index.engine, thread_ids, stop=self._stop, wait_s=0)
            self._tell(thread_ids)
        except DatabaseBusyError as error:
            _log.info("%s", error.message)
            return False
        except RollbookError as error:
            if not self._stop.is_set():
                tell_of(error)
        return True


def tell_of(error: RollbookError) -> None:
    """Log and count that what was said could not be read: threads can be listed all the same."""
    count(ERRORS, rollbook_stage="content", error_type=type(error).__name__)
    _log.warning("what was said could not be made searchable: %s", error.message)
