"""Compare a whole home with the index and bring the index up to date.

There is no state "done": every run compares what is on disk with what was read, so files that were
restored, copied or written later are found, and a run that was killed is simply continued by the
next.  Nothing that has not changed is opened.
"""

import os
import threading
import time
from collections.abc import Collection
from contextlib import closing
from pathlib import Path, PurePosixPath

from rollbook.errors import RollbookError, RolloutError
from rollbook.index.extraction import Failure, Gone, Job, Result, run_all
from rollbook.index.indexer import Indexer, is_ahead
from rollbook.index.progress import Meter
from rollbook.model.outcome import BackfillStats, ProgressCallback, RolloutFailure, SyncStage
from rollbook.rollout.layout import (
    ROOTS,
    HomeListing,
    RolloutFile,
    list_rollouts,
    locate,
    newest_rollouts,
    parse_rollout_name,
    plain_name,
    stat_rollout,
)
from rollbook.rollout.session_index import read_names, stat_names
from rollbook.store import files, threads
from rollbook.store.engine import Engine, Transaction
from rollbook.store.files import BackfillState, FileRow
from rollbook.telemetry import BACKFILL_DURATION, BACKFILL_ROLLOUTS, ERRORS, count, measure

_FIRST = 50  # rollouts of a new index: so many of the newest threads can be listed at once
_BATCH = 256
_MAX_BATCH_S = 0.5
_UNREAD = (-2, -2)  # the state of a list of names that is there and can't be read


class Backfill:
    """One comparison of a home with its index.

    ``remove_missing`` takes threads out of the index whose rollout is gone from a root that is
    there.  ``stop`` ends the run early, at a point where everything stored is consistent.
    ``paths`` limits it to some rollout paths, with ``names`` as they were read before; that is no
    comparison of the whole home then.  ``changed`` and ``gone`` are the threads that were stored
    and removed.
    """

    def __init__(
        self,
        engine: Engine,
        home: Path,
        default_provider: str,
        *,
        workers: int | None = None,
        rebuild: bool = False,
        remove_missing: bool = True,
        progress: ProgressCallback | None = None,
        stop: threading.Event | None = None,
        paths: Collection[str] | None = None,
        names: dict[str, str] | None = None,
    ) -> None:
        self._engine = engine
        self._home = home
        self._default_provider = default_provider
        self._workers = workers or min(4, os.cpu_count() or 1)
        self._rebuild = rebuild
        self._remove_missing = remove_missing
        self._meter = Meter(progress, SyncStage.METADATA)
        self._stop = stop or threading.Event()
        self._failures: list[RolloutFailure] = []
        self._names_state = stat_names(home)
        self._paths = paths
        self.names = self._read_names() if names is None else names
        self._indexer = Indexer(engine, home, default_provider, self.names, rebuild=rebuild)
        self._counts = {"indexed": 0, "unchanged": 0, "parse_errors": 0, "bytes_read": 0}
        self._moved: set[str] = set()  # rollout paths that were followed to another place
        self._lost: list[str] = []  # those that were no longer there when they were to be read
        self.changed: set[str] = set()
        self.gone: set[str] = set()

    def run(self) -> BackfillStats:
        """Do it; returns the counts.  The caller holds the lock that lets one process do this.

        Errors: DatabaseError and its kinds.  Source: behaviour.md 116, 117.
        """
        started = time.monotonic()
        try:
            stats = self._run(started)
        except RollbookError as error:
            name = type(error).__name__
            count(ERRORS, rollbook_stage="backfill", error_type=name)
            measure(BACKFILL_DURATION, time.monotonic() - started, error_type=name)
            raise
        for outcome in ("indexed", "unchanged", "removed", "failed"):
            count(BACKFILL_ROLLOUTS, getattr(stats, outcome), rollbook_outcome=outcome)
        measure(BACKFILL_DURATION, stats.seconds)
        return stats

    def _run(self, started: float) -> BackfillStats:
        with self._engine.read() as tx:
            state = files.get_backfill_state(tx)
        done = self._read_newest() if state is None and self._paths is None else {}
        listing = self._listing()
        self._failures[:0] = listing.failures
        with self._engine.read() as tx:
            forgotten = files.forgotten(tx) if self._paths is None else set()
            left, known = self._compare(tx, listing, forgotten)
        still = {path for path, file in done.items() if listing.files.get(path) == file}
        self._counts["indexed"] -= len(done.keys() & listing.files.keys() - still)  # once more
        left = {path: file for path, file in left.items() if path not in still}
        self._counts["unchanged"] = len(listing.files) - len(left) - len(still)
        changed = self._changed(left, known, forgotten)
        changed = self._follow_moves(changed, listing, known)
        self._read(self._jobs(changed, known), self._workers)
        if self._lost:
            listing, known = self._look_again(listing)
        removed = 0
        if not self._stop.is_set():
            removed = self._remove(listing, known) if self._remove_missing else 0
            if self._paths is None:
                self._finish(state)
        return BackfillStats(
            scanned=self._counts["indexed"] + self._counts["unchanged"] + len(self._failures),
            removed=removed,
            failed=len(self._failures),
            seconds=round(time.monotonic() - started, 3),
            failures=tuple(self._failures),
            **self._counts,
        )

    def _read_newest(self) -> dict[str, RolloutFile]:
        """Index the newest rollouts of a home that was never indexed, before all of it is walked.

        Says which these were; those that the index has are none of them.
        """
        with self._engine.read() as tx:
            newest = [
                file
                for file in newest_rollouts(self._home, _FIRST)
                if self._rebuild or files.get(tx, file.path) is None
            ]
        self._read(self._jobs(newest, {}), workers=1)
        return {file.path: file for file in newest}

    def _listing(self) -> HomeListing:
        if self._paths is None:
            return list_rollouts(self._home)
        found = {path: stat_rollout(self._home, path) for path in self._paths}
        roots = tuple(root for root in ROOTS if os.path.isdir(self._home / root))
        return HomeListing({path: file for path, file in found.items() if file}, [], roots)

    def _compare(
        self, tx: Transaction, listing: HomeListing, forgotten: Collection[str] = ()
    ) -> tuple[dict[str, RolloutFile], dict[str, FileRow]]:
        """Leave out all that is as it was read, which is nearly all, and costs most of the time.

        Gives the other files, and the rows that are other than the disk, or without a file there.
        """
        left, unlike = dict(listing.files), self._paths
        if unlike is None:
            unlike = []
            for path, *state in files.states(tx):
                file = left.get(path)
                if (
                    file is None
                    or state != [file.size, file.mtime_ns, file.inode, file.compressed, True]
                    or path in forgotten
                    or self._rebuild
                ):
                    unlike.append(path)
                else:
                    del left[path]
        rows = {path: files.get(tx, path) for path in unlike}
        return left, {path: row for path, row in rows.items() if row}

    def _look_again(self, before: HomeListing) -> tuple[HomeListing, dict[str, FileRow]]:
        """Find what was moved while we read: it is where nothing was before, or gone."""
        now = self._listing()
        with self._engine.read() as tx:
            _, known = self._compare(tx, now)
        moved = [file for path, file in now.files.items() if path not in before.files]
        self._read(self._jobs(moved, known), self._workers)
        return now, known

    def _changed(
        self, left: dict[str, RolloutFile], known: dict[str, FileRow], forgotten: set[str]
    ) -> list[RolloutFile]:
        changed = []
        for path, file in left.items():
            row = known.get(path)
            if self._rebuild or row is None or not is_same(row, file) or is_ahead(row, file):
                changed.append(file)
            elif row.error is not None:
                self._failures.append(RolloutFailure(path, row.error))
            elif path in forgotten:
                changed.append(file)
            else:
                self._counts["unchanged"] += 1
        return changed

    def _follow_moves(
        self, changed: list[RolloutFile], listing: HomeListing, known: dict[str, FileRow]
    ) -> list[RolloutFile]:
        """Follow rollouts that were renamed to another directory; returns what is left to read."""
        if self._rebuild:
            return changed
        vanished = {
            (PurePosixPath(row.path).name, row.inode, row.size, row.mtime_ns): row
            for row in known.values()
            if row.path not in listing.files and row.error is None
        }
        if not vanished:
            return changed
        left = []
        with self._engine.write() as tx:
            for file in changed:
                name = PurePosixPath(file.path).name
                old = vanished.get((name, file.inode, file.size, file.mtime_ns))
                if (
                    old is None
                    or file.path in known
                    or old.compressed != file.compressed
                    or not self._has_moved(tx, old, file)
                ):
                    left.append(file)
                else:
                    self._indexer.move(tx, old, file)
                    self._moved.add(old.path)
                    self._counts["indexed"] += 1
                    if old.thread_id is not None:
                        self.changed.add(old.thread_id)
        return left

    def _has_moved(self, tx: Transaction, old: FileRow, file: RolloutFile) -> bool:
        """Look again inside the transaction: archiving moves files inside its own.

        Of a thread that has several rollouts none is followed: it is composed anew.
        """
        return (
            files.get(tx, old.path) == old
            and (old.thread_id is None or files.of_thread(tx, old.thread_id) == [old])
            and stat_rollout(self._home, file.path) == file
        )

    def _jobs(self, changed: list[RolloutFile], known: dict[str, FileRow]) -> list[Job]:
        """Newest first by name, so that what people look for is there first (behaviour.md 116)."""
        changed.sort(key=lambda file: file.path.rpartition("/")[2], reverse=True)
        with self._engine.read() as tx:
            return [self._indexer.plan(tx, file, known.get(file.path)) for file in changed]

    def _read(self, jobs: list[Job], workers: int) -> None:
        self._meter.expect([job.file.size for job in jobs])
        batch: list[tuple[Job, Result]] = []
        batch_started = time.monotonic()
        with closing(run_all(self._home, self._default_provider, jobs, workers)) as results:
            for job, result in results:
                batch.append((job, result))
                self._count(job, result)
                if len(batch) >= _BATCH or time.monotonic() - batch_started > _MAX_BATCH_S:
                    self._indexer.store(batch)
                    batch, batch_started = [], time.monotonic()
                self._meter.advance(job.file.size)
                if self._stop.is_set():
                    break
        if batch:
            self._indexer.store(batch)

    def _read_names(self) -> dict[str, str]:
        try:
            return read_names(self._home)
        except RolloutError as error:
            self._failures.append(RolloutFailure(error.path, error.reason))
            self._names_state = _UNREAD
            return {}

    def _count(self, job: Job, result: Result) -> None:
        if isinstance(result, Gone):
            self._lost.append(job.file.path)
            return
        if isinstance(result, Failure):
            self._failures.append(RolloutFailure(job.file.path, result.message))
            return
        self._counts["indexed"] += 1
        self.changed.add(result.extraction.outcome.metadata.id)
        self._counts["parse_errors"] += result.extraction.outcome.parse_errors
        self._counts["bytes_read"] += result.extraction.bytes_read

    def _remove(self, listing: HomeListing, known: dict[str, FileRow]) -> int:
        """Take out of the index what is gone from a root that was read through."""
        unread = {plain_name(failure.path) for failure in listing.failures}
        homeless: list[tuple[str, str]] = []
        if self._paths is None:
            with self._engine.read() as tx:
                homeless = threads.without_rollout_file(tx, str(self._home))
        gone_files = [
            row
            for path, row in known.items()
            if path not in listing.files
            and path not in self._moved
            and self._is_gone(path, listing, unread)
        ]
        gone_threads = {
            thread_id
            for thread_id, path in homeless
            if self._is_gone(path.removeprefix(f"{self._home}/"), listing, unread)
        }
        if not gone_files and not gone_threads:
            return 0
        # A rollout that was being moved while we walked is in neither root: look once more.
        names = (parse_rollout_name(PurePosixPath(p).name) for p in list_rollouts(self._home).files)
        present = {name.thread_id for name in names if name}
        composed = set()
        with self._engine.write() as tx:
            for row in gone_files:
                files.delete(tx, row.path)
                if row.thread_id is None or row.thread_id in gone_threads:
                    continue
                if files.of_thread(tx, row.thread_id):
                    composed.add(row.thread_id)
                elif row.thread_id not in present:
                    threads.delete(tx, row.thread_id)
                    self.gone.add(row.thread_id)
            for thread_id in gone_threads - present:
                threads.delete(tx, thread_id)
                self.gone.add(thread_id)
        for thread_id in composed:
            self._indexer.compose(thread_id)
            self.changed.add(thread_id)
        return len(gone_files) + len(gone_threads - present)

    def _is_gone(self, path: str, listing: HomeListing, unread: set[str]) -> bool:
        """Say whether a rollout is missing where all was read; not for one that can't be looked at."""
        root = path.partition("/")[0]
        return (
            root in ROOTS
            and root in listing.complete_roots
            and path not in unread
            and not locate(self._home, path)
        )

    def _finish(self, before: BackfillState | None) -> None:
        size, mtime_ns = self._names_state
        with self._engine.write() as tx:
            if self._names_state == _UNREAD and before is not None:
                size, mtime_ns = before.session_index_size, -1  # names stay until they can be read
            elif before is None or self._names_state != (
                before.session_index_size,
                before.session_index_mtime_ns,
            ):
                self.changed.update(threads.set_names(tx, self.names))
            files.set_backfill_state(
                tx,
                BackfillState(
                    completed_at=int(time.time()),
                    session_index_size=size,
                    session_index_mtime_ns=mtime_ns,
                ),
            )


def is_same(row: FileRow, file: RolloutFile) -> bool:
    """Say whether a rollout looks as it did when it was last read."""
    return (row.size, row.mtime_ns, row.inode, row.compressed) == (
        file.size,
        file.mtime_ns,
        file.inode,
        file.compressed,
    )
