"""Move a thread's rollouts into the archive and back, as the agent does (behaviour.md 143, 144).

File and row move together: where either half fails, the other is undone.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from rollbook.errors import RolloutError, ThreadInUseError, ThreadNotFoundError
from rollbook.filesystem import make_private
from rollbook.index.apply import with_file_time
from rollbook.model.thread import ThreadMetadata
from rollbook.rollout.layout import (
    archived_path,
    file_below,
    find_rollouts,
    is_archived_path,
    locate,
    stat_rollout,
    unarchived_path,
)
from rollbook.rollout.writer import is_in_use
from rollbook.store import files, threads
from rollbook.store.engine import Engine, Transaction


def archive(engine: Engine, home: Path, metadata: ThreadMetadata, now: datetime) -> ThreadMetadata:
    """Move a thread's rollouts to ``archived_sessions/`` and mark its row.

    Errors: ThreadNotFoundError where no rollout of it is among the active ones, RolloutError where
    a file can't be moved or one of that name is in the archive already.
    """
    return _move(engine, home, metadata, archived_path, archived_at=now)


def unarchive(engine: Engine, home: Path, metadata: ThreadMetadata) -> ThreadMetadata:
    """Move a thread's rollouts back below ``sessions/`` by the date in their names.

    Their mtime becomes now.  Errors: as :func:`archive`, with the places exchanged.
    """
    return _move(engine, home, metadata, _required_unarchived_path, archived_at=None)


def _move(
    engine: Engine,
    home: Path,
    metadata: ThreadMetadata,
    target_of: Callable[[str], str],
    archived_at: datetime | None,
) -> ThreadMetadata:
    with ExitStack() as undone_on_error, engine.write() as tx:
        is_archiving = archived_at is not None
        paths = [p for p in find_rollouts(home, metadata.id) if is_archived_path(p) != is_archiving]
        if not paths:
            raise ThreadNotFoundError(
                f"the rollout of thread {metadata.id} is not where it should be",
                hint="run `rollbook sync`; the file may have been moved or deleted",
            )
        for path in paths:
            target = target_of(path)
            undone_on_error.enter_context(_renamed(home, path, target, touch=not is_archiving))
            _follow(tx, home, path, target)
        current = threads.get(tx, str(home), metadata.id) or metadata
        moved = with_file_time(
            msgspec.structs.replace(
                current,
                rollout_path=str(home / target_of(paths[-1])),
                archived_at=archived_at,
            )
        )
        threads.upsert(tx, str(home), moved)
    return moved


def _follow(tx: Transaction, home: Path, path: str, target: str) -> None:
    """Let the index know a moved rollout again, so that the next sync need not read it."""
    known, file = files.get(tx, path), stat_rollout(home, target)
    if known is not None and file is not None:
        files.delete(tx, path)
        files.upsert(tx, msgspec.structs.replace(known, path=target, mtime_ns=file.mtime_ns))


@contextmanager
def _renamed(home: Path, path: str, target: str, *, touch: bool) -> Iterator[None]:
    """Rename a rollout for good, or take it back when the block fails."""
    source_file = locate(home, path)
    if source_file is None:
        raise RolloutError("is gone", path=path, hint="run `rollbook sync`")
    suffix = source_file.name.removeprefix(Path(path).name)
    target_file = file_below(home, target + suffix)
    if locate(home, target) is not None:
        raise RolloutError(
            f"was not moved, as {target} exists already",
            path=path,
            hint="compare the two files and move one of them away",
        )
    try:
        if is_in_use(source_file):
            raise ThreadInUseError(f"a recorder is writing to {path}", hint="close it first")
        status = source_file.lstat()
        make_private(target_file.parent)
        os.rename(source_file, target_file)
    except OSError as error:
        raise RolloutError(f"can't be moved to {target}: {error.strerror}", path=path) from error
    try:
        if touch:
            os.utime(target_file, follow_symlinks=False)
        yield
    except BaseException:
        os.rename(target_file, source_file)
        times = (status.st_atime_ns, status.st_mtime_ns)
        os.utime(source_file, ns=times, follow_symlinks=False)
        raise


def _required_unarchived_path(path: str) -> str:
    target = unarchived_path(path)
    if target is None:
        raise RolloutError("has no date in its name, so it has no place below sessions/", path=path)
    return target


def utc_now() -> datetime:
    """The present time in whole seconds."""
    return datetime.now(UTC).replace(microsecond=0)
