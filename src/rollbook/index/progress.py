"""How far a stage of a sync is."""

from rollbook.model.outcome import ProgressCallback, SyncProgress, SyncStage


class Meter:
    """Counts rollouts and their bytes, and tells whoever wants to know; nobody, for None."""

    def __init__(self, progress: ProgressCallback | None, stage: SyncStage) -> None:
        self._progress = progress
        self._stage = stage
        self._files_done = self._files_total = self._bytes_done = self._bytes_total = 0

    def expect(self, sizes: list[int]) -> None:
        """Count rollouts that are to be read, by their sizes in bytes."""
        self._files_total += len(sizes)
        self._bytes_total += sum(sizes)

    def advance(self, size: int) -> None:
        """Count a rollout that was read, and tell."""
        self._files_done += 1
        self._bytes_done += size
        if self._progress:
            self._progress(
                SyncProgress(
                    files_done=self._files_done,
                    files_total=self._files_total,
                    bytes_done=self._bytes_done,
                    bytes_total=self._bytes_total,
                    stage=self._stage,
                )
            )
