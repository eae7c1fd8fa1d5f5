"""A thread as one JSON document, a piece at a time."""

import re
from collections.abc import Iterable, Iterator

import msgspec

from rollbook.model.documents import as_object
from rollbook.model.thread import ThreadMetadata
from rollbook.model.transcript import TranscriptItem

_CONTROLS = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]")


def document(thread: ThreadMetadata, items: Iterable[TranscriptItem]) -> Iterator[str]:
    """Write ``{"thread", "items"}``, with the fields of both, and times as epoch seconds."""
    yield f'{{"thread":{_json(thread)},"items":['
    separator = "\n"
    for item in items:
        yield separator + _json(item)
        separator = ",\n"
    yield "\n]}\n"


def _json(value: msgspec.Struct) -> str:
    text = msgspec.json.encode(as_object(value)).decode()
    return _CONTROLS.sub(lambda match: f"\\u{ord(match[0]):04x}", text)
