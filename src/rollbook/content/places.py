"""What a rollout says at the places that the index names."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from rollbook.content.words import fold
from rollbook.errors import RolloutError
from rollbook.rollout.extract import reading
from rollbook.rollout.layout import RolloutFile, is_archived_path, position_key
from rollbook.rollout.lines import MalformedLineError, RolloutItem, decode_line
from rollbook.rollout.transcript import searchable
from rollbook.store.content_files import ContentFile
from rollbook.store.files import Located
from rollbook.store.texts import Chunk

Place = tuple[int, int]  # offset and length of a line in bytes


def by_key(found: Iterable[Located]) -> dict[str, Located]:
    """Give rollouts by what names them wherever they are; of copies the archived one counts."""
    ordered = sorted(found, key=lambda rollout: is_archived_path(rollout.path))
    return {position_key(rollout.path): rollout for rollout in ordered}


def records_at(
    home: Path, path: str, places: Iterable[Place], *, compressed: bool
) -> Iterator[tuple[int, RolloutItem]]:
    """Read the records at some places of a rollout, in order, and where each is.

    Where the rollout is gone, or isn't the one that was read, what is there is passed over.
    """
    try:
        with reading(home, RolloutFile(path, compressed, 0, 0, 0)) as stream:
            for offset, length in sorted(places):
                stream.seek(offset)
                try:
                    yield offset, decode_line(stream.read(length) or b"")
                except MalformedLineError:
                    continue
    except RolloutError:
        return  # it went between two looks


def folded_text(home: Path, file: ContentFile, chunk: Chunk) -> str:
    """Read all that is said in a chunk, folded."""
    said = (
        searchable(record)
        for _, record in records_at(home, file.path, chunk.places, compressed=file.compressed)
    )
    return "\n".join(fold(each[1]) for each in said if each is not None)
