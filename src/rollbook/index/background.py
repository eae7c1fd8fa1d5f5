"""Index a home that was never synced, in a thread of its own, while the caller goes on."""

import logging
import threading
from collections.abc import Callable
from pathlib import Path

from rollbook.errors import DatabaseBusyError, DatabaseDamagedError, RollbookError
from rollbook.forks import started
from rollbook.index.lock import sync_lock
from rollbook.store import files
from rollbook.store.engine import Engine

_log = logging.getLogger(__name__)


class BackgroundBackfill:
    """A backfill that gives way: to another process, to a sync, to the end of the program.

    ``recover`` makes a damaged database anew and says whether to begin again.  It takes no row away, as the program may be about to write the rollouts of new ones.
    """

    def __init__(
        self,
        engine: Engine,
        home: Path,
        default_provider: str,
        recover: Callable[[DatabaseDamagedError], bool],
    ) -> None:
        self._engine = engine
        self._home = home
        self._default_provider = default_provider
        self._recover = recover
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin, unless the whole home was compared with the index before."""
        if not is_synced(self._engine):
            self._thread = started(self._run, name="rollbook-backfill")

    def restart(self) -> None:
        """Begin again, as the database is a new one; what runs goes on."""
        if self._thread is None or not self._thread.is_alive():
            self.start()

    def join(self) -> None:
        """Wait until it has ended by itself."""
        if self._thread is not None:
            self._thread.join()

    def end(self) -> None:
        """Stop it at the next rollout, and wait for that."""
        self._stop.set()
        self.join()
        self._thread = None
        self._stop.clear()

    def _run(self) -> None:
        try:
            self._backfill()
        except DatabaseBusyError:
            _log.info("another process is indexing %s", self._home)
        except DatabaseDamagedError as damage:
            if self._recover(damage) and not self._stop.is_set():
                self._run()
        except RollbookError as error:
            _log.warning("indexing %s in the background failed: %s", self._home, error)

    def _backfill(self) -> None:
        from rollbook.index.backfill import Backfill

        with sync_lock(self._engine.location, timeout_s=0):
            Backfill(
                self._engine,
                self._home,
                self._default_provider,
                remove_missing=False,
                stop=self._stop,
            ).run()


def is_synced(engine: Engine) -> bool:
    """Say whether the whole home has been compared with the index at least once."""
    with engine.read() as tx:
        return files.get_backfill_state(tx) is not None
