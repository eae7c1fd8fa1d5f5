"""What a deletion takes away."""

from datetime import datetime

import msgspec


class DeletedThread(msgspec.Struct, frozen=True):
    """One thread that goes: ``title`` is what it was called, ``rollout_bytes`` what it has on disk."""

    id: str
    title: str = ""
    recency_at: datetime | None = None
    rollouts: int = 0
    rollout_bytes: int = 0


class DeletionReport(msgspec.Struct, frozen=True, kw_only=True):
    """What was deleted, or would be, where ``is_dry_run``; rollouts only ``with_rollouts``."""

    threads: tuple[DeletedThread, ...]
    with_rollouts: bool
    is_dry_run: bool
    log_rows: int = 0

    @property
    def rollout_bytes(self) -> int:
        """How much the rollouts of all these threads take on disk."""
        return sum(thread.rollout_bytes for thread in self.threads)
