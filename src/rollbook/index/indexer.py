"""One rollout into the database, whether a whole sync, a read that missed, or a watcher asks."""

import logging
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

import msgspec

from rollbook.errors import DamagedRowError, RolloutError
from rollbook.index.apply import boot_id
from rollbook.index.extraction import Failure, Job, Result, Success, run
from rollbook.model.thread import ThreadMetadata
from rollbook.model.times import to_epoch
from rollbook.rollout.extract import Extraction, FoldPoint, extract_segments
from rollbook.rollout.fold import FoldState, decode_state, encode_state
from rollbook.rollout.layout import (
    RolloutFile,
    choose_files,
    find_rollouts,
    is_archived_path,
    look,
    parse_rollout_name,
    stat_rollout,
)
from rollbook.store import annotations, files, threads, tools
from rollbook.store.engine import Engine, Transaction
from rollbook.store.files import FileRow

_MAX_ATTEMPTS = 3
_log = logging.getLogger(__name__)


class Indexer:
    """Puts what rollouts say into the database of one home.

    ``names`` are the thread names that the home keeps beside its rollouts.  With ``rebuild``,
    nothing that the database holds of a thread is kept.  ``wait_s`` limits how long each
    transaction waits for the database.
    """

    def __init__(
        self,
        engine: Engine,
        home: Path,
        default_provider: str,
        names: dict[str, str],
        *,
        rebuild: bool = False,
        wait_s: float | None = None,
    ) -> None:
        self._engine = engine
        self._home = home
        self._default_provider = default_provider
        self._names = names
        self._rebuild = rebuild
        self._wait_s = wait_s

    def plan(self, tx: Transaction, file: RolloutFile, known: FileRow | None) -> Job:
        """Decide where to read a rollout from: on from where it was folded to, if it has grown."""
        if (
            self._rebuild
            or known is None
            or known.thread_id is None
            or known.inode != file.inode
            or known.size >= file.size
            or is_ahead(known, file)
            or file.compressed
            or known.compressed
        ):
            return Job(file)
        metadata = self._current(tx, known.thread_id)
        if metadata is None:
            return Job(file)
        state = decode_state(known.fold_state)
        if state is None:  # the rollout has it all
            return Job(file)
        return Job(file, (metadata, FoldPoint(known.bytes_folded, known.digest, state)))

    def index(self, paths: Iterable[str]) -> None:
        """Read these rollouts in this process and store them; what can't be read is recorded."""
        self.store(self._read(paths))

    def store(self, results: list[tuple[Job, Result]]) -> None:
        """Write what was read in one transaction; read again what changed in the meantime."""
        for attempt in range(_MAX_ATTEMPTS):
            outdated: list[str] = []
            composed: set[str] = set()
            with self._engine.write(wait_s=self._wait_s) as tx:
                # Looked at again inside the transaction: archiving moves files inside its own.
                there = [each for each in results if look(f"{self._home}/{each[0].file.path}")]
                ids = {r.extraction.outcome.metadata.id for _, r in there if isinstance(r, Success)}
                known, rows = threads.known(tx, ids), files.of_threads(tx, ids)
                deleted = annotations.deleted(tx, ids - known)
                for job, result in there:
                    if isinstance(result, Failure) and not result.passing:
                        files.upsert(tx, _failed_row(job.file, result.message))
                    if not isinstance(result, Success):
                        continue
                    thread_id = result.extraction.outcome.metadata.id
                    through = None if thread_id in known else deleted.get(thread_id)
                    if _is_left_out(tx, job.file, result.extraction, through):
                        continue
                    current = self._current(tx, thread_id) if thread_id in known else None
                    if _is_outdated(job, result.extraction, current, attempt):
                        outdated.append(job.file.path)
                        continue
                    if self._store_success(tx, job, result.extraction, current, rows[thread_id]):
                        composed.add(thread_id)
                    known.add(thread_id)
            self._complete(composed, returned=deleted.keys() & known)
            if not outdated:
                return
            results = self._read(outdated)

    def _complete(self, composed: Iterable[str], returned: Iterable[str]) -> None:
        """Put threads together of all their rollouts; of those that were deleted, read them first."""
        for thread_id in sorted(composed):
            self.compose(thread_id)
        for thread_id in sorted(returned):
            with self._engine.read() as tx:
                ignored = set(files.ignored(tx))
            self.index(path for path in find_rollouts(self._home, thread_id) if path in ignored)

    def move(self, tx: Transaction, old: FileRow, file: RolloutFile) -> None:
        """Follow a thread's only rollout to where it was moved below the home, without reading it."""
        files.delete(tx, old.path)
        files.upsert(tx, msgspec.structs.replace(old, path=file.path))
        if old.thread_id is None:
            return
        metadata = self._current(tx, old.thread_id)
        if metadata is not None:
            self._put(tx, metadata, file.path, metadata)

    def look(self, thread_id: str, paths: Iterable[str]) -> ThreadMetadata | None:
        """Read what these rollouts say of a thread and store nothing; None where that is nothing."""
        found = self._composed(thread_id, paths)
        return None if found is None else self._placed(found[0].outcome.metadata, found[1], None)

    def compose(self, thread_id: str) -> None:
        """Make the row of a thread that has several files, by folding them in order."""
        with self._engine.read() as tx:
            rows = files.of_thread(tx, thread_id)
        found = self._composed(thread_id, [row.path for row in rows if row.error is None])
        if found is None:
            return
        extraction, path = found
        with self._engine.write(wait_s=self._wait_s) as tx:
            if self._rebuild:
                threads.delete(tx, thread_id)
            current = self._current(tx, thread_id)
            self._put(tx, extraction.outcome.metadata, path, current, extraction.point.state)
            tools.put_first(tx, thread_id, extraction.outcome.dynamic_tools)

    def _composed(self, thread_id: str, paths: Iterable[str]) -> tuple[Extraction, str] | None:
        """Fold the files of a thread in order; gives the path that it has then, too."""
        on_disk = [stat_rollout(self._home, path) for path in paths]
        chosen = choose_files(thread_id, [file for file in on_disk if file is not None])
        if not chosen:
            return None
        try:
            extraction = extract_segments(self._home, chosen, self._default_provider)
        except RolloutError as error:
            _log.warning("thread %s was left as it is: %s", thread_id, error)
            return None
        return extraction, chosen[-1].path

    def _read(self, paths: Iterable[str]) -> list[tuple[Job, Result]]:
        jobs = []
        with self._engine.read() as tx:
            for path in paths:
                file = stat_rollout(self._home, path)
                if file is not None:
                    jobs.append(self.plan(tx, file, files.get(tx, path)))
        return [(job, run(self._home, self._default_provider, job)) for job in jobs]

    def _store_success(
        self,
        tx: Transaction,
        job: Job,
        extraction: Extraction,
        current: ThreadMetadata | None,
        rows: dict[str, FileRow],
    ) -> bool:
        """Store one rollout; says whether the thread has others and has to be composed.

        ``rows`` are those of the thread by path, and become what they are then.
        """
        metadata, path = extraction.outcome.metadata, job.file.path
        before = rows.get(path) if extraction.resumed else None
        rows[path] = _read_row(job.file, extraction, before)
        files.upsert(tx, rows[path])
        has_others = any(
            row.path != path and row.error is None and stat_rollout(self._home, row.path)
            for row in rows.values()
        )
        if self._rebuild and not has_others:
            threads.delete(tx, metadata.id)
            current = None
        if not has_others or current is None:
            self._put(tx, metadata, path, current, extraction.point.state)
            tools.put_first(tx, metadata.id, extraction.outcome.dynamic_tools)
        return has_others

    def _current(self, tx: Transaction, thread_id: str) -> ThreadMetadata | None:
        """Read a row; one with impossible values counts as none, as it is written anew."""
        try:
            return threads.get(tx, str(self._home), thread_id)
        except DamagedRowError as error:
            _log.warning("indexed again: %s", error.message)
            return None

    def _put(
        self,
        tx: Transaction,
        metadata: ThreadMetadata,
        path: str,
        current: ThreadMetadata | None,
        state: FoldState | None = None,
    ) -> None:
        """Write a row with what only the place of its file and the name list say."""
        placed = self._placed(metadata, path, current)
        threads.upsert(tx, str(self._home), placed, encode_state(state) if state else None)

    def _placed(
        self, metadata: ThreadMetadata, path: str, current: ThreadMetadata | None
    ) -> ThreadMetadata:
        """Add what only the place of a thread's file and the name list say."""
        archived_at = None
        if is_archived_path(path):
            archived_at = (current and current.archived_at) or metadata.updated_at
        return msgspec.structs.replace(
            metadata,
            rollout_path=f"{self._home}/{path}",
            archived_at=archived_at,
            name=self._names.get(metadata.id, metadata.name),
        )


def _is_left_out(
    tx: Transaction, file: RolloutFile, extraction: Extraction, through: int | None
) -> bool:
    """Leave the rollout of a deleted thread alone, unless it had a turn after its last one then.

    That is ``through``, in epoch seconds; None where the thread was not deleted.
    """
    recency_at = extraction.outcome.metadata.recency_at
    if through is None or (recency_at is not None and to_epoch(recency_at) > through):
        return False
    files.upsert(tx, files.without_thread(_read_row(file, extraction, None)))
    return True


def _is_outdated(
    job: Job, extraction: Extraction, current: ThreadMetadata | None, attempt: int
) -> bool:
    """Say whether somebody has written the thread since the rollout was looked at."""
    if extraction.resumed:
        return job.resume is None or current != job.resume[0]
    # Later than the file also is a row from before the file was given an older time: that
    # shows when a second look gives the same.
    updated_at = extraction.outcome.metadata.updated_at
    return attempt == 0 and current is not None and current.updated_at > updated_at


def is_ahead(known: FileRow, file: RolloutFile) -> bool:
    """Say whether a thread's row may hold what its rollout has lost, as after a power cut."""
    if known.applied_size <= known.bytes_folded:
        return False
    return known.applied_size > file.size or known.applied_boot != boot_id()


def _read_row(file: RolloutFile, extraction: Extraction, before: FileRow | None) -> FileRow:
    outcome, point = extraction.outcome, extraction.point
    return FileRow(
        path=file.path,
        thread_id=outcome.metadata.id,
        compressed=file.compressed,
        size=file.size,
        mtime_ns=file.mtime_ns,
        inode=file.inode,
        bytes_folded=point.bytes_folded,
        digest=point.digest,
        fold_state=encode_state(point.state),
        parse_errors=outcome.parse_errors + (before.parse_errors if before else 0),
    )


def _failed_row(file: RolloutFile, message: str) -> FileRow:
    name = parse_rollout_name(PurePosixPath(file.path).name)
    return FileRow(
        path=file.path,
        thread_id=name.thread_id if name else None,
        compressed=file.compressed,
        size=file.size,
        mtime_ns=file.mtime_ns,
        inode=file.inode,
        error=message,
    )
