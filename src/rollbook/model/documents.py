"""Values as objects of JSON documents."""

from datetime import datetime
from typing import Any

import msgspec

from rollbook.model.times import to_epoch


def as_object(value: msgspec.Struct) -> dict[str, Any]:
    """Make the JSON object of a value: its fields, with times as epoch seconds."""
    return {
        field: to_epoch(each) if isinstance(each, datetime) else each
        for field, each in msgspec.structs.asdict(value).items()
    }
