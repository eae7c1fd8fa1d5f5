"""One line of a rollout: from bytes to a record.

A line is ``{"timestamp", "type", "payload"}``, from release 0.155 on with ``ordinal``.  Payloads
stay plain JSON objects: what a field must be is decided where it is used, so that a field of an
unforeseen shape costs that field and not the line.
"""

from collections.abc import Mapping
from typing import Any

import msgspec
import stringzilla

from rollbook.model.thread import clean_text

# Kinds that some release writes.  Others are normal too, and counted.
KNOWN_TYPES = frozenset(
    {
        "session_meta",
        "response_item",
        "compacted",
        "turn_context",
        "event_msg",
        "world_state",
        "token_usage_record",
        "inter_agent_communication_metadata",
    }
)


class RolloutItem(msgspec.Struct, frozen=True):
    """One record of a rollout: its kind, its payload, and when and where it was written."""

    type: str
    payload: dict[str, Any]
    timestamp: str = ""
    ordinal: int | None = None

    @property
    def kind(self) -> str:
        """The payload's own ``type``, such as ``user_message``; empty if it has none."""
        return text_of(self.payload, "type")


_BARE = {"type", "payload"}
_CODEX_DEPTH = 128  # where its parser stops
_MAX_DEPTH = 100  # of what is written
_LARGE = 2 * _CODEX_DEPTH  # a smaller line has no room for as many pairs of brackets


class MalformedLineError(ValueError):
    """A line that is no record; it never leaves this package."""


class _Line(msgspec.Struct):
    type: str
    payload: dict[str, Any]
    timestamp: str = ""
    ordinal: Any = None


class _Written(msgspec.Struct):
    timestamp: str
    type: str
    payload: Any


_decoder = msgspec.json.Decoder(_Line)
_encoder = msgspec.json.Encoder()


def decode_line(line: bytes | bytearray) -> RolloutItem:
    """Decode one line, without its line break.

    Errors: MalformedLineError where it isn't JSON in UTF-8, not of a record's shape, or nested
    deeper than Codex reads: what was read can also be stored and written, from any program's stack.
    """
    try:
        record = _decoder.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedLineError(str(error)) from error
    if len(line) > _LARGE and _brackets(line) > _CODEX_DEPTH:
        _check_depth(record.payload, _CODEX_DEPTH)
    return RolloutItem(record.type, record.payload, record.timestamp, _integer(record.ordinal))


def encode_line(timestamp: str, kind: str, payload: Any) -> bytes:
    """Write a record as one line of a rollout, its line break included.

    Errors: MalformedLineError where the payload is no JSON, or nested deeper than Codex reads.
    """
    try:
        line = _encoder.encode(_Written(timestamp, kind, payload))
    except UnicodeEncodeError:
        return encode_line(_text(timestamp), _text(kind), _unicode(payload))
    except (TypeError, OverflowError, RecursionError) as error:
        raise MalformedLineError(str(error)) from error
    if _brackets(line) > _MAX_DEPTH:
        _check_depth(payload, _MAX_DEPTH)
    return line + b"\n"


def _brackets(line: bytes | bytearray) -> int:
    """Count the pairs of brackets, at least."""
    return int(stringzilla.count(line, b"}") + stringzilla.count(line, b"]"))


def _text(text: str) -> str:
    if clean_text(text) != text:
        raise MalformedLineError(f"{text!r:.100} is no Unicode")
    return text


def _check_depth(payload: Any, limit: int) -> None:
    if _depth(payload) > limit:
        raise MalformedLineError(f"it is nested more than {limit} deep")


def _depth(value: Any) -> int:
    depth, level = 0, [value]
    while level := [each for each in level if isinstance(each, Mapping | list | tuple)]:
        depth += 1
        level = [
            inner
            for each in level
            for inner in (each.values() if isinstance(each, Mapping) else each)
        ]
    return depth


def to_item(value: RolloutItem | Mapping[str, Any]) -> RolloutItem:
    """Accept a record, or the JSON object of its line.

    Errors: MalformedLineError for what is no record.
    """
    if isinstance(value, RolloutItem):
        if type(value.type) is str and type(value.payload) is dict:
            return value
        raise MalformedLineError("a record has a text as its type and an object as its payload")
    if not isinstance(value, Mapping):
        raise MalformedLineError(f"{value!r:.100} is no JSON object")
    if value.keys() == _BARE:  # the form in which a harness gives them, without the detour
        kind, payload = value["type"], value["payload"]
        if type(kind) is str and type(payload) is dict:
            return RolloutItem(kind, payload)
    try:
        return msgspec.convert(value, RolloutItem)
    except msgspec.ValidationError as error:
        raise MalformedLineError(str(error)) from error


def as_read(item: RolloutItem) -> RolloutItem:
    """Give a record as it is read from its line: of JSON values only."""
    return decode_line(encode_line(item.timestamp, item.type, item.payload))


def as_written(item: RolloutItem) -> RolloutItem:
    """Give a record as it can be written.

    Halves of characters become the replacement character, as no UTF-8 has them.
    Errors: MalformedLineError for what is no JSON.
    """
    try:
        _encoder.encode(item.payload)
    except UnicodeEncodeError:
        return msgspec.structs.replace(item, payload=_unicode(item.payload))
    except (TypeError, OverflowError, RecursionError) as error:
        raise MalformedLineError(str(error)) from error
    return item


def _unicode(value: Any) -> Any:
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, Mapping):
        return {_unicode(key): _unicode(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_unicode(inner) for inner in value]
    return value


def text_of(payload: Mapping[str, Any], key: str) -> str:
    """The text under a key; empty where there is none or it is something else."""
    value = payload.get(key)
    return value if isinstance(value, str) else ""


def object_of(payload: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """The object under a key; empty where there is none or it is something else."""
    value = payload.get(key)
    return value if isinstance(value, dict) else {}


def list_of(payload: Mapping[str, Any], key: str) -> list[Any]:
    """The list under a key; empty where there is none or it is something else."""
    value = payload.get(key)
    return value if isinstance(value, list) else []


def integer_of(payload: Mapping[str, Any], key: str) -> int:
    """The integer under a key; 0 where there is none or it is something else."""
    return _integer(payload.get(key)) or 0


def _integer(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def enumeration_text(value: Any) -> str:
    """Store an enumeration as its bare text, any other shape as compact JSON (behaviour.md 61)."""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def is_turn_record(item: RolloutItem) -> bool:
    """Say whether a record belongs to a turn, rather than to the thread around its turns."""
    if item.type == "session_meta":
        return False
    return not (item.type == "event_msg" and item.kind.startswith("thread_"))


def total_usage(payload: Mapping[str, Any]) -> Mapping[str, Any]:
    """Get what a record of usage says was used up to then; empty where it doesn't say."""
    info = object_of(payload, "info")
    return object_of(info, "total_token_usage") or object_of(payload, "thread_token_usage")
