"""Follow a home while agents write into it, by what the file system tells.

Notifications can be missed: a directory that is filled before it is watched, a queue that runs over,
another machine's writes.  So they only say what to look at first; what counts is the comparison of
the index with the disk, of a few rollouts at a time and, every now and then, of the whole home.
"""

import logging
import time
from collections.abc import Collection, Iterator
from typing import Protocol

from rollbook.errors import DatabaseBusyError, DatabaseDamagedError, RollbookError
from rollbook.filesystem import is_network
from rollbook.index.backfill import Backfill
from rollbook.index.home import HomeIndex
from rollbook.index.lock import sync_lock
from rollbook.model.outcome import WatchUpdate
from rollbook.rollout.layout import ROOTS, is_rollout_name, plain_name
from rollbook.rollout.session_index import stat_names
from rollbook.telemetry import ERRORS, count

_STEP_MS = 20  # how long it has to be quiet before changes are told
_GATHER_MS = 60  # but no longer than this
_LOOK_MS = 1000  # at what isn't watched: whether the roots are the same, and the list of names
_POLL_MS = 1000  # where the file system tells nothing
_UNWATCHED_S = 5.0  # between two comparisons where nothing can be watched
_FEW = 500  # changes at once; more may have overrun the queue
_log = logging.getLogger(__name__)


class Stop(Protocol):
    """Says when to end."""

    def is_set(self) -> bool:
        """Say whether it is time."""

    def wait(self, timeout_s: float, /) -> bool:
        """Wait until it is, but not for longer."""


class Watch:
    """One watch of a home; iterate over it for what it does."""

    def __init__(self, index: HomeIndex, check_interval_s: float, stop: Stop) -> None:
        self._index = index
        self._check_interval_s = check_interval_s
        self._stop = stop
        self._pending: set[str] = set()
        self._names: dict[str, str] | None = None
        self._check_at = 0.0

    def __iter__(self) -> Iterator[WatchUpdate]:
        """Compare the whole home, then follow it until it is time to stop."""
        while not self._stop.is_set():
            seen = self._look()
            for changes in self._notifications():
                update = self._digest(changes)
                if update is not None:
                    yield update
                if self._look() != seen:
                    break  # to watch other directories, and compare all
            self._check_at = 0.0

    def _digest(self, changes: set[str]) -> WatchUpdate | None:
        """Bring changes, and those that could not be stored before, into the index."""
        self._take(changes)
        try:
            if time.monotonic() >= self._check_at:
                return self._check()
            if self._pending:
                return self._compare()
        except DatabaseDamagedError as damage:
            self._index.recover(damage)
            self._check_at = 0.0
        except RollbookError as error:
            if not self._stop.is_set():
                count(ERRORS, rollbook_stage="watch", error_type=type(error).__name__)
                _log.warning("following %s goes on, although %s", self._index.home, error)
        return None

    def _take(self, changes: set[str]) -> None:
        home = f"{self._index.home}/"
        for change in changes:
            path = change.removeprefix(home)
            name = path.rpartition("/")[2]
            if is_rollout_name(name):
                self._pending.add(plain_name(path))
            elif not name.startswith(".rollout-"):
                self._check_at = 0.0  # a directory: what lies in it may have come before the watch
        if len(changes) > _FEW:
            self._check_at = 0.0

    def _check(self) -> WatchUpdate | None:
        """Compare the whole home, unless another process is at it."""
        self._check_at = time.monotonic() + self._check_interval_s
        try:
            with sync_lock(self._index.engine.location, timeout_s=0):
                self._pending.clear()
                return self._run(self._backfill(), is_full=True)
        except DatabaseBusyError as error:
            _log.info("%s", error.message)
            self._check_at = time.monotonic() + _LOOK_MS / 1000
            return self._compare() if self._pending else None

    def _compare(self) -> WatchUpdate | None:
        """Compare only those rollouts that something was told of."""
        paths, self._pending = self._pending, set()
        try:
            return self._run(self._backfill(paths))
        except RollbookError:
            self._pending |= paths
            raise

    def _run(self, backfill: Backfill, *, is_full: bool = False) -> WatchUpdate | None:
        self._index.annotations.refresh()
        stats = backfill.run()
        self._names = backfill.names
        if not is_full and not (backfill.changed or backfill.gone):
            return None
        return WatchUpdate(
            changed=tuple(sorted(backfill.changed)),
            removed=tuple(sorted(backfill.gone)),
            is_full=is_full,
            stats=stats,
        )

    def _backfill(self, paths: Collection[str] | None = None) -> Backfill:
        index = self._index
        names = None if paths is None else self._names
        return Backfill(index.engine, index.home, index.default_provider, paths=paths, names=names)

    def _notifications(self) -> Iterator[set[str]]:
        """Yield the paths that have changed; none at first, and when nothing has for a second."""
        from watchfiles import watch  # takes longer to load than most commands run

        yield set()
        self._check_at = 0.0  # once more, as soon as the watch has begun
        roots = [path for root in ROOTS if (path := self._index.home / root).is_dir()]
        try:
            polls = is_network(self._index.home)
            if not roots:
                self._stop.wait(_LOOK_MS / 1000)
                return
            for changes in watch(
                *roots,
                watch_filter=None,
                debounce=_GATHER_MS,
                step=_STEP_MS,
                stop_event=self._stop,
                rust_timeout=_LOOK_MS,
                yield_on_timeout=True,
                force_polling=polls or None,
                poll_delay_ms=_POLL_MS,
                ignore_permission_denied=True,
            ):
                yield {path for _, path in changes}
        except (OSError, RuntimeError) as error:
            _log.warning("%s can't be watched, only compared: %s", self._index.home, error)
            self._stop.wait(_UNWATCHED_S)

    def _look(self) -> tuple[object, ...]:
        """Look at what isn't watched: which directories the roots are, and the list of names."""
        roots: list[object] = []
        for root in ROOTS:
            try:
                status = (self._index.home / root).stat()
                roots.append((status.st_dev, status.st_ino))
            except OSError:
                roots.append(None)
        return *roots, stat_names(self._index.home)
