"""Values as JSON documents that are safe to look at."""

import re
from datetime import datetime
from typing import Any

import msgspec

from rollbook.model.times import to_epoch

# Control characters that JSON leaves as they are, and those that change the direction of text.
_UNSAFE = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]")


def to_json(value: Any) -> str:
    """Write one JSON document, without a character that would do something to a terminal."""
    text = msgspec.json.encode(value).decode()
    return _UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def as_object(value: msgspec.Struct) -> dict[str, Any]:
    """Make the JSON object of a value: its fields, with times as epoch seconds."""
    return {
        field: to_epoch(each) if isinstance(each, datetime) else each
        for field, each in msgspec.structs.asdict(value).items()
    }
