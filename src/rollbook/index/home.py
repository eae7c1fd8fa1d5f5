"""The index of one home: opened whatever state it is in, kept whole, and made again when damaged."""

import logging
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Self

from rollbook.errors import (
    DamagedRowError,
    DatabaseDamagedError,
    DatabaseError,
    DatabaseUnwritableError,
    InvalidThreadIdError,
)
from rollbook.index.annotation_file import annotations_beside
from rollbook.index.annotations import ThreadAnnotations
from rollbook.index.background import BackgroundBackfill, is_synced
from rollbook.index.lock import sync_lock
from rollbook.index.repair import home_indexer
from rollbook.model.outcome import BackfillStats, ProgressCallback
from rollbook.model.paging import SortKey
from rollbook.model.thread import parse_thread_id
from rollbook.rollout.layout import find_rollouts, list_rollouts, locate, parse_rollout_name
from rollbook.store import threads
from rollbook.store.engine import STATE
from rollbook.store.sqlite import SqliteEngine
from rollbook.store.sqlite_file import copied, is_ours
from rollbook.telemetry import ERRORS, count

if TYPE_CHECKING:
    from tempfile import TemporaryDirectory

    from rollbook.index.projects import ProjectNames

_EARLIEST = datetime.min.replace(tzinfo=UTC)
_log = logging.getLogger(__name__)


class HomeIndex:
    """The database that says what the rollouts of a home say, and whatever it takes to have one."""

    def __init__(
        self,
        home: Path,
        engine: SqliteEngine,
        path: Path,
        default_provider: str,
        temporary: "TemporaryDirectory[str] | None" = None,
        why_temporary: str = "",
    ) -> None:
        self.home = home
        self.engine = engine
        self.annotations = ThreadAnnotations(engine, home, annotations_beside(path))
        self.default_provider = default_provider
        self._temporary = temporary
        self._why_temporary = why_temporary
        self._why_incomplete = ""
        self._background = BackgroundBackfill(engine, home, default_provider, self.recover)
        self._recovering = threading.Lock()
        self._synced: int | None = None  # the generation of the database that was complete

    @classmethod
    def open(cls, home: Path, path: Path, default_provider: str, *, temporary: bool) -> Self:
        """Open the index at a path; a damaged one is set aside, and a new one begun.

        Where it can be neither read nor made, an index that lasts as long as this takes its place,
        if it may be ``temporary``.
        Errors: DatabaseVersionError, DatabaseBusyError, DatabaseError for another program's file;
        DatabaseDamagedError for one that can't be taken for Rollbook's.
        """
        try:
            return cls._open_kept(home, path, default_provider)
        except DatabaseUnwritableError as error:
            if not temporary:
                raise
            return cls._open_temporary(home, path, default_provider, error)

    @classmethod
    def _open_kept(cls, home: Path, path: Path, default_provider: str) -> Self:
        engine, kept = _open_or_begin_anew(path)
        index = cls(home, engine, path, default_provider)
        try:
            degraded = index.degraded
            if degraded:
                _refuse_incomplete(engine, degraded)
                _log.warning("%s", degraded)
            index._carry_over(kept)
        except BaseException:
            index.close()
            raise
        return index

    @classmethod
    def _open_temporary(
        cls, home: Path, path: Path, default_provider: str, why: DatabaseError
    ) -> Self:
        """Open a copy of what is there, as it may only lack a place for its log; else a new one."""
        from tempfile import TemporaryDirectory

        try:
            directory = TemporaryDirectory(prefix="rollbook-", ignore_cleanup_errors=True)
            engine, _ = _open_or_begin_anew(copied(path, Path(directory.name)))
        except (OSError, DatabaseError) as error:
            raise why from error
        degraded = f"{why.message}: a temporary index takes its place"
        _log.warning("%s (%s)", degraded, why.hint)
        return cls(home, engine, path, default_provider, directory, degraded)

    def close(self) -> None:
        """Stop what runs in the background and close the database."""
        self._background.end()
        self.engine.close()
        if self._temporary is not None:
            self._temporary.cleanup()

    @property
    def degraded(self) -> str:
        """What is not as it should be, in a sentence; empty where all is well."""
        if not self._why_temporary and self.engine.is_read_only():
            return f"the database {self.engine.location} can't be written: it stays as it is"
        return self._why_temporary or self._why_incomplete

    def project_names(self) -> "ProjectNames":
        """Name projects as they are to be named now."""
        from rollbook.index.projects import ProjectNames

        return ProjectNames(self.annotations.relocations)

    def is_synced(self) -> bool:
        """Say whether the whole home has been compared with the index at least once."""
        if self._synced != self.engine.generation and is_synced(self.engine):
            self._synced = self.engine.generation
        return self._synced == self.engine.generation

    def start_backfill(self) -> None:
        """Index the home in the background, if it never was."""
        self.annotations.refresh()
        self._background.start()

    def wait_for_backfill(self) -> None:
        """Wait until what indexes the home in the background has ended."""
        self._background.join()

    def sync(
        self,
        *,
        jobs: int | None,
        rebuild: bool,
        progress: ProgressCallback | None,
        wait_s: float,
    ) -> tuple[BackfillStats, set[str]]:
        """Compare the whole home with the index; see :meth:`rollbook.StateRuntime.sync`.

        Also says which threads were stored or removed.
        """
        from rollbook.index.backfill import Backfill

        self._background.end()
        self.annotations.refresh()
        with sync_lock(self.engine.location, wait_s):
            backfill = Backfill(
                self.engine,
                self.home,
                self.default_provider,
                workers=jobs,
                rebuild=rebuild,
                progress=progress,
            )
            stats = backfill.run()
            self.engine.settle()  # so that it outlasts a power cut
        return stats, backfill.changed | backfill.gone

    def prepare_list(
        self,
        sort_key: SortKey,
        has_enough: Callable[[datetime], bool],
        *,
        archived: bool,
        within_s: float | None,
    ) -> None:
        """See to it that a list is complete though the home may not have been indexed yet.

        That may take as long as to index the home, unless ``within_s`` seconds have to do; then a
        list that is full will do, too.
        """
        self.annotations.refresh()
        if self.is_synced():
            self._why_incomplete = ""
            return
        if within_s is not None and has_enough(_EARLIEST):
            return
        from rollbook.index.ahead import index_until

        try:
            index_until(
                self.engine,
                self.home,
                home_indexer(self.engine, self.home, self.default_provider),
                sort_key,
                lambda latest: self.is_synced() or has_enough(latest),
                archived=archived,
                within_s=within_s,
            )
        except DatabaseDamagedError:
            raise
        except DatabaseError as error:
            self._why_incomplete = f"a list may be incomplete: {error.message}"
            _log.warning("%s", self._why_incomplete)
        else:
            self._why_incomplete = ""

    def recover(self, damage: DatabaseDamagedError) -> bool:
        """Set the damaged database aside and begin anew; says whether to try again.

        Not for a row that nothing else than the database says anything about.
        """
        if isinstance(damage, DamagedRowError) and not self._has_rollout(damage.thread_id):
            return False
        with self._recovering:
            try:
                kept = SqliteEngine.replace(Path(self.engine.location), STATE, damage)
                self._carry_over(kept)
            except DatabaseError as error:
                _log.warning("%s; it could not be set aside: %s", damage.message, error)
                return False
            if kept is not None:
                _tell(damage, kept)
            self._background.restart()
        return True

    def leave_out(self, damage: DamagedRowError) -> None:
        """Take a row out of a listing; or have the database made anew, where that can mend it."""
        if self._has_rollout(damage.thread_id):
            raise damage
        _log.warning("left out of a listing: %s", damage.message)

    def _has_rollout(self, thread_id: str) -> bool:
        """Say whether a damaged row can be had from a rollout: so can one whose id is damaged."""
        try:
            return bool(find_rollouts(self.home, parse_thread_id(thread_id)))
        except InvalidThreadIdError:
            return True

    def _carry_over(self, kept: Path | None) -> None:
        """Take from a damaged database the threads that no rollout stands for."""
        if kept is None:
            return
        names = (parse_rollout_name(Path(path).name) for path in list_rollouts(self.home).files)
        on_disk = {name.thread_id for name in names if name}
        with self.engine.read() as tx:
            found = list(threads.readable(tx, str(self.home), kept))
        for thread in found:
            path = Path(thread.rollout_path)
            if thread.id not in on_disk and locate(path.parent, path.name) is None:
                with self.engine.write() as tx:
                    if not threads.exists(tx, thread.id):
                        threads.upsert(tx, str(self.home), thread)


def _open_or_begin_anew(path: Path) -> tuple[SqliteEngine, Path | None]:
    try:
        return SqliteEngine.open(path), None
    except DatabaseDamagedError as damage:
        if not is_ours(path):
            raise
        kept = SqliteEngine.replace(path, STATE, damage)
        if kept is not None:
            _tell(damage, kept)
        return SqliteEngine.open(path), kept


def _refuse_incomplete(engine: SqliteEngine, message: str) -> None:
    if not is_synced(engine):
        raise DatabaseUnwritableError(f"{message}, and not complete")


def _tell(damage: DatabaseDamagedError, kept: Path) -> None:
    count(ERRORS, rollbook_stage="damage", error_type=type(damage).__name__)
    _log.warning(
        "%s: it is kept as %s, and the index is made again from the rollouts",
        damage.message,
        kept.name,
    )
