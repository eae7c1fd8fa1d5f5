"""A list before the whole home was indexed: the rollouts that it needs are indexed first."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path, PurePosixPath

from rollbook.index.indexer import Indexer
from rollbook.model.paging import SortKey
from rollbook.model.times import from_epoch
from rollbook.rollout.layout import (
    RolloutFile,
    is_archived_path,
    list_rollouts,
    parse_rollout_name,
)
from rollbook.store import files
from rollbook.store.engine import Engine

_AT_ONCE = 64
_NS = 1_000_000_000
_ANY_ZONE = timedelta(hours=26)  # a name has the local time of whoever made the file
_LATEST = datetime.max.replace(tzinfo=UTC) - _ANY_ZONE


def index_until(
    engine: Engine,
    home: Path,
    indexer: Indexer,
    sort_key: SortKey,
    has_enough: Callable[[datetime], bool],
    *,
    archived: bool,
    within_s: float | None = None,
) -> None:
    """Index rollouts that are not in the database yet, those that a list would begin with first.

    ``has_enough`` is asked before each part whether the list is full of threads that are as new as
    a time: no rollout that is left can have a thread of a later one.  After ``within_s`` seconds,
    and one part, what is left is left to others.
    """
    with engine.read() as tx:
        known = files.get_all(tx)
    left = [
        (_latest(file, sort_key), file.path)
        for path, file in list_rollouts(home).files.items()
        if path not in known and is_archived_path(path) == archived
    ]
    left.sort(reverse=True)
    begun = time.monotonic()
    for start in range(0, len(left), _AT_ONCE):
        part = left[start : start + _AT_ONCE]
        if has_enough(part[0][0]):
            return
        indexer.index(path for _, path in part)
        if within_s is not None and time.monotonic() - begun >= within_s:
            return


def _latest(file: RolloutFile, sort_key: SortKey) -> datetime:
    """Say how new the thread of a rollout can be, from what its directory tells."""
    name = parse_rollout_name(PurePosixPath(file.path).name)
    if sort_key is SortKey.CREATED_AT:
        return min(name.created_at, _LATEST) + _ANY_ZONE if name else _LATEST
    return from_epoch(file.mtime_ns // _NS) + timedelta(seconds=1)
