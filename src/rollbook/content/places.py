"""What a rollout says at the places that the index names."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from rollbook.content.words import fold, runs_of
from rollbook.errors import RolloutError
from rollbook.rollout.extract import reading
from rollbook.rollout.layout import RolloutFile, locate
from rollbook.rollout.lines import MalformedLineError, RolloutItem, decode_line
from rollbook.rollout.transcript import searchable
from rollbook.store.content_files import ContentFile
from rollbook.store.texts import Chunk

Place = tuple[int, int]  # offset and length of a line in bytes


def records_at(
    home: Path, file: ContentFile, places: Iterable[Place]
) -> Iterator[tuple[int, RolloutItem]]:
    """Read the records at some places of a rollout, in order, and where each is.

    Where the rollout is gone, or isn't the one that was read, what is there is passed over.
    """
    found = locate(home, file.path)
    if found is None:
        return
    is_compressed = found.name.endswith(".zst")
    rollout = RolloutFile(file.path, is_compressed, file.size, file.mtime_ns, file.inode)
    try:
        with reading(home, rollout) as stream:
            for offset, length in sorted(places):
                stream.seek(offset)
                try:
                    yield offset, decode_line(stream.read(length) or b"")
                except MalformedLineError:
                    continue
    except RolloutError:
        return  # it went between two looks


def runs_at(home: Path, file: ContentFile, chunk: Chunk) -> set[str]:
    """Read what runs of characters are in a chunk."""
    said = (searchable(record) for _, record in records_at(home, file, chunk.places))
    return {run for each in said if each is not None for run in runs_of(fold(each[1]))}
