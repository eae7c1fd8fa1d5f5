"""A thread as one JSON document, a piece at a time."""

from collections.abc import Iterable, Iterator

import msgspec

from rollbook.model.documents import as_object, to_json
from rollbook.model.thread import ThreadMetadata
from rollbook.model.transcript import TranscriptItem


def document(thread: ThreadMetadata, items: Iterable[TranscriptItem]) -> Iterator[str]:
    """Write ``{"thread", "items"}``, with the fields of both, and times as epoch seconds."""
    yield f'{{"thread":{_json(thread)},"items":['
    separator = "\n"
    for item in items:
        yield separator + _json(item)
        separator = ",\n"
    yield "\n]}\n"


def _json(value: msgspec.Struct) -> str:
    return to_json(as_object(value))
