"""The content database of a home: opened when it is first used, and made anew when damaged."""

import threading
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TypeVar

from rollbook.errors import DatabaseDamagedError, DatabaseError
from rollbook.forks import renew_after_fork
from rollbook.index.lock import sync_lock
from rollbook.model.outcome import ProgressCallback
from rollbook.model.search import TextScope
from rollbook.rollout.layout import beside_state
from rollbook.store import content_files, texts
from rollbook.store.content_files import ContentState
from rollbook.store.engine import CONTENT, Engine, Transaction
from rollbook.store.sqlite import SqliteEngine

_Result = TypeVar("_Result")


class ContentDatabase:
    """What was said in the threads of a home, and what it took."""

    def __init__(self, path: Path, home: Path) -> None:
        self._path = path
        self._home = home
        self._engine: SqliteEngine | None = None
        self._is_closed = False
        self._renew()
        renew_after_fork(self._renew)

    def _renew(self) -> None:
        self._lock = threading.Lock()

    def state(self) -> ContentState:
        """Say what is wanted, and whether all of it was read."""
        return self.read(content_files.get_state)

    def read(self, action: Callable[[Transaction], _Result]) -> _Result:
        """Read something."""

        def run(engine: SqliteEngine) -> _Result:
            with engine.read() as tx:
                return action(tx)

        return self._whatever_is_damaged(run)

    def write(self, action: Callable[[Transaction], _Result]) -> _Result:
        """Read and write something in one transaction."""

        def run(engine: SqliteEngine) -> _Result:
            with engine.write() as tx:
                return action(tx)

        return self._whatever_is_damaged(run)

    def build(
        self,
        index: Engine,
        thread_ids: Collection[str] | None = None,
        *,
        changed: Collection[str] = (),
        rebuild: bool = False,
        progress: ProgressCallback | None = None,
        stop: threading.Event | None = None,
        wait_s: float = 30.0,
    ) -> bool:
        """Bring it in step with the rollouts that an index has; says whether it came to its end.

        That is of all threads, or of some; where those that have ``changed`` may be all that there is
        to do, they are looked at first.  ``rebuild`` reads everything again.

        Errors: DatabaseBusyError where another process is at it for more than ``wait_s`` seconds.
        """
        from rollbook.content.building import Building

        def run(engine: SqliteEngine) -> bool:
            with sync_lock(engine.location, wait_s):
                building = Building(
                    engine, index, self._home, rebuild=rebuild, progress=progress, stop=stop
                )
                is_done = building.run(thread_ids, changed)
                engine.settle()
            return is_done

        return self._whatever_is_damaged(run)

    def set_scope(self, scope: TextScope) -> None:
        """Have other texts indexed the next time, and from then on."""
        if self.state().scope != scope:
            self.write(lambda tx: content_files.set_scope(tx, scope))

    def forget_threads(self, thread_ids: Collection[str]) -> None:
        """Take all that was read of some threads out of the database, if there is one.

        The index of words is written anew then, as what is deleted would stay in it for a while.
        """
        if not self._path.exists():
            return
        from rollbook.content.building import forget

        def action(tx: Transaction) -> None:
            known = content_files.of_threads(tx, thread_ids)
            if known:
                forget(tx, known)
                texts.compact(tx)

        self.write(action)

    def close(self) -> None:
        """Close the database."""
        with self._lock:
            self._is_closed = True
            if self._engine is not None:
                self._engine.close()

    def _open(self) -> SqliteEngine:
        with self._lock:
            if self._is_closed:
                raise DatabaseError(f"the content {self._path} was closed before")
            if self._engine is None:
                self._engine = SqliteEngine.open(self._path, CONTENT)
            return self._engine

    def _whatever_is_damaged(self, run: Callable[[SqliteEngine], _Result]) -> _Result:
        """Do something; with a new database, if this one turns out to be damaged."""
        try:
            return run(self._open())
        except DatabaseDamagedError as damage:
            SqliteEngine.replace(self._path, CONTENT, damage)
        return run(self._open())


def content_beside(state: Path) -> Path:
    """Where the content of a state database is: ``content.sqlite`` beside ``state.sqlite``."""
    return beside_state(state, "content.sqlite")
