"""Take threads away: out of the index, out of the annotations, and from the disk if wanted.

The file of annotations is told first.  From then on the thread is deleted, whatever happens: what a
kill leaves in the databases goes with the next look at the file, and to delete it once more takes
away what is left of its rollouts.
"""

import os
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath

from rollbook.errors import RolloutError, ThreadInUseError, ThreadNotFoundError
from rollbook.filesystem import sync_directory
from rollbook.holders import writers_of
from rollbook.index.home import HomeIndex
from rollbook.model.annotation import Line
from rollbook.model.deletion import DeletedThread
from rollbook.model.thread import ThreadMetadata
from rollbook.model.times import from_epoch
from rollbook.rollout.layout import (
    choose_files,
    list_rollouts,
    parse_rollout_name,
    place_below,
    stat_rollout,
)
from rollbook.rollout.pages import base_of
from rollbook.rollout.writer import is_in_use
from rollbook.store import annotations, files, lineage, threads
from rollbook.store.engine import Transaction


class Deletion:
    """Some threads that are to go, and what they have on disk.

    Errors: ThreadNotFoundError for an unknown one; with rollouts also ThreadInUseError where one is
    being written, RolloutError where another thread begins in one.
    """

    def __init__(self, index: HomeIndex, thread_ids: Sequence[str], *, rollouts: bool) -> None:
        self._index = index
        self._home = index.home
        self._with_rollouts = rollouts
        self._ids = list(dict.fromkeys(thread_ids))
        with index.engine.read() as tx:
            self._paths = self._rollouts(tx)
            self._known = self._threads(tx)
            self._through = annotations.deleted(tx, self._ids)
        self._files = {
            thread_id: [file for path in paths for file in _files(self._home, path)]
            for thread_id, paths in self._paths.items()
        }
        self._refuse_unknown()
        if rollouts:
            self._refuse_needed()
            self._refuse_written()

    def threads(self) -> tuple[DeletedThread, ...]:
        """Tell what goes."""
        shown = self._index.annotations.shown(list(self._known.values()))
        names = {thread.id: thread.name or thread.title for thread in shown}
        return tuple(
            DeletedThread(
                id=thread_id,
                title=names.get(thread_id, ""),
                recency_at=self._known[thread_id].recency_at if thread_id in self._known else None,
                rollouts=len(self._paths[thread_id]),
                rollout_bytes=sum(size for _, size in self._files[thread_id]),
            )
            for thread_id in self._ids
        )

    def forget(self) -> None:
        """Take the threads out of the index, and all that was said of them.

        Errors: AnnotationsError, those of the database.
        """
        now = datetime.now(UTC)
        lines = [
            Line(now, "delete", thread_id, through=self._last_turn(thread_id) or now)
            for thread_id in self._ids
        ]
        self._index.annotations.forget(set(self._ids), lines)

    def remove_rollouts(self) -> None:
        """Delete the rollouts, if that is wanted; nothing is to be remembered of what has none.

        Errors: RolloutError where one can't be deleted.
        """
        if self._with_rollouts:
            for file, _ in (each for found in self._files.values() for each in found):
                _unlink(file)
            with self._index.engine.write() as tx:
                for path in (path for paths in self._paths.values() for path in paths):
                    files.delete(tx, path)
        left = {id_ for id_, each in self._files.items() if any(p.exists() for p, _ in each)}
        if left != set(self._ids):
            self._index.annotations.forget(set(self._ids) - left)

    def _last_turn(self, thread_id: str) -> datetime | None:
        if thread_id in self._known:
            return self._known[thread_id].recency_at
        through = self._through.get(thread_id)
        return None if through is None else from_epoch(through)

    def _rollouts(self, tx: Transaction) -> dict[str, list[str]]:
        """Find the rollouts of each thread, by what the index knows and by their names."""
        found: dict[str, set[str]] = defaultdict(set)
        for thread_id, rows in files.of_threads(tx, self._ids).items():
            found[thread_id].update(rows)
        for path in list_rollouts(self._home).files:
            name = parse_rollout_name(PurePosixPath(path).name)
            if name is not None:
                found[name.thread_id].add(path)
        return {thread_id: sorted(found[thread_id]) for thread_id in self._ids}

    def _threads(self, tx: Transaction) -> dict[str, ThreadMetadata]:
        found = threads.several(tx, str(self._home), self._ids, self._index.leave_out)
        return {thread.id: thread for thread in found}

    def _refuse_unknown(self) -> None:
        for thread_id in self._ids:
            is_known = thread_id in self._known or thread_id in self._through
            if not is_known and not self._files[thread_id]:
                raise ThreadNotFoundError(f"there is no thread {thread_id} in {self._home}")

    def _refuse_needed(self) -> None:
        """Refuse to take a rollout away that another thread begins in."""
        going = set(self._ids)
        seen, level = set(going), self._ids
        with self._index.engine.read() as tx:
            while level:
                level = [fork for fork, _ in lineage.forks(tx, level) if fork not in seen]
                seen.update(level)
            rows = files.of_threads(tx, seen - going)
        for fork, known in rows.items():
            there = [file for path in known if (file := stat_rollout(self._home, path))]
            for file in choose_files(fork, there)[:1]:
                base = base_of(self._home, file)
                if base is not None and base[0] in going:
                    raise RolloutError(
                        f"is needed: thread {fork}, a fork of {base[0]}, begins in it",
                        path=self._paths[base[0]][0] if self._paths[base[0]] else base[0],
                        hint="delete the fork, too, or leave the rollout",
                    )

    def _refuse_written(self) -> None:
        paths = [path for each in self._files.values() for path, _ in each]
        writers = writers_of(paths)
        for path in paths:
            try:
                is_written = path in writers or is_in_use(path)
            except OSError as error:
                raise RolloutError(f"can't be read: {error.strerror}", path=str(path)) from error
            if is_written:
                who = str(writers.get(path, "a recorder"))
                raise ThreadInUseError(f"{who} is writing to {path}", hint="close it first")


def _files(home: Path, path: str) -> list[tuple[Path, int]]:
    """Find what is there of a rollout, plain and compressed, with the sizes in bytes."""
    found = []
    try:
        place = place_below(home, path)
    except RolloutError:
        return []  # nothing that Rollbook would open, so nothing that it deletes
    for file in (place, f"{place}.zst"):
        try:
            found.append((Path(file), os.lstat(file).st_size))
        except OSError:
            continue
    return found


def _unlink(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
        sync_directory(path.parent)
    except OSError as error:
        raise RolloutError(
            f"can't be deleted: {error.strerror}",
            path=str(path),
            hint="the thread is no longer in the index; delete it again once that is mended",
        ) from error
