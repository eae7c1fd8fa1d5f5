"""What came of reading one rollout, and of bringing a whole index up to date."""

from collections.abc import Callable
from enum import StrEnum

import msgspec

from rollbook.model.thread import DynamicToolSpec, ThreadMetadata


class ExtractionOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """What one rollout says about its thread.

    ``parse_errors`` counts malformed lines that were skipped, ``unknown_items`` well-formed records
    of a kind that this release doesn't know.
    """

    metadata: ThreadMetadata
    dynamic_tools: tuple[DynamicToolSpec, ...] = ()
    parse_errors: int = 0
    unknown_items: int = 0


class RolloutFailure(msgspec.Struct, frozen=True):
    """A rollout that could not be indexed: its path below the home, and why."""

    path: str
    message: str


class BackfillStats(msgspec.Struct, frozen=True, kw_only=True):
    """What a sync found and did.

    Each rollout that was ``scanned`` counts once, as ``indexed``, ``unchanged`` or ``failed``.
    ``removed`` counts rollouts that were indexed and are gone.  ``bytes_read`` are bytes of
    rollouts as they lie on disk.
    """

    scanned: int = 0
    indexed: int = 0
    unchanged: int = 0
    removed: int = 0
    failed: int = 0
    parse_errors: int = 0
    bytes_read: int = 0
    seconds: float = 0.0
    failures: tuple[RolloutFailure, ...] = ()


class WatchUpdate(msgspec.Struct, frozen=True, kw_only=True):
    """What a watch has brought into the index at once: ids of threads, in order, and the counts.

    ``changed`` threads were stored, ``removed`` ones are gone.  ``is_full`` says that the whole
    home was compared.  ``hosts`` are other hosts that have changed what they share: the threads are
    those of them, as far as they are known.
    """

    changed: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    is_full: bool = False
    hosts: tuple[str, ...] = ()
    stats: BackfillStats = BackfillStats()


class SyncStage(StrEnum):
    """What a sync does at a time: what lists need first, then what was said."""

    METADATA = "metadata"
    CONTENT = "content"


class SyncProgress(msgspec.Struct, frozen=True, kw_only=True):
    """How far a sync is: rollouts and their bytes, done and in all, as far as it has looked.

    The newest rollouts of a new index are read before it has looked for all.
    """

    files_done: int
    files_total: int
    bytes_done: int
    bytes_total: int
    stage: SyncStage = SyncStage.METADATA


ProgressCallback = Callable[[SyncProgress], None]
