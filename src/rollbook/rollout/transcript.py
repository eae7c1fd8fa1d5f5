"""One record of a rollout → the item that a person reads, or none.

Decided from the record alone, so that a rollout can be read from anywhere.  Releases write what was
said as a response item, which the model was given, and again as an event: the response item counts,
and of events only those that stand for nothing else.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from rollbook.model.times import parse_time
from rollbook.model.transcript import ItemKind, TranscriptItem
from rollbook.rollout.injected import IMAGE_TITLE, message_words
from rollbook.rollout.lines import (
    RolloutItem,
    enumeration_text,
    integer_of,
    list_of,
    object_of,
    text_of,
)

LONGEST_TEXT = 256 << 10  # characters of an item
_CONVERSATION = re.compile(rb',"type":"response_item","payload":\{"type":"message"')
_TOOLS = re.compile(
    rb',"type":"response_item","payload":\{"type":"(?:message|\w*_call|\w*_call_output)"'
)
_ITEMS = re.compile(
    rb""","type":"(?:
        response_item"
      | compacted"
      | event_msg","payload":\{"type":"(?:
            turn_aborted|error|warning|stream_error|thread_rolled_back
          | entered_review_mode|exited_review_mode|thread_name_updated
          | item_completed",(?:"\w+":"[^"\\]*",){0,4}"item":\{"type":"(?:Entered|Exited)ReviewMode
        )"
    )""",
    re.VERBOSE,
)
_Found = TranscriptItem | None


def may_be_item(data: bytes, at: int, end: int) -> bool:
    """Say whether a line may be an item, by what begins at its type."""
    return _ITEMS.match(data, at, end) is not None


def may_be_said(data: bytes, at: int, end: int, *, tools: bool) -> bool:
    """Say whether a line may have what :func:`searchable` finds; ``tools``: by tools, too."""
    return (_TOOLS if tools else _CONVERSATION).match(data, at, end) is not None


def to_transcript_item(
    record: RolloutItem, position: str, longest: int | None = LONGEST_TEXT
) -> TranscriptItem | None:
    """Make the item of a record; None where a person has nothing to read in it.

    Of a text, at most ``longest`` characters are given, all for None.
    """
    item = _item(record)
    if item is None:
        return None
    omitted = 0 if longest is None else max(0, len(item.text) - longest)
    return msgspec.structs.replace(
        item,
        position=position,
        text=item.text[:longest] if omitted else item.text,
        time=parse_time(record.timestamp),
        turn=item.turn or _turn_of(record.payload),
        omitted=omitted,
    )


def searchable(record: RolloutItem) -> tuple[str, str] | None:
    """Say what a record has that can be looked for: who said it, and the text; None for nothing."""
    if record.type != "response_item":
        return None
    item = _item(record)
    if item is None or not item.text or item.role == "system" or item.kind is ItemKind.REASONING:
        return None
    return item.role, f"{item.name} {item.text}" if item.kind is ItemKind.TOOL_CALL else item.text


def _item(record: RolloutItem) -> _Found:
    payload = record.payload
    if record.type == "response_item":
        kind = text_of(payload, "type")
        if kind in _RESPONSES:
            return _RESPONSES[kind](payload)
        if kind.endswith("_call_output"):
            return _output(payload)
        return _call(payload, kind) if kind.endswith("_call") else None
    if record.type == "compacted":
        return _notice("compacted", text_of(payload, "message"))
    if record.type == "event_msg":
        told_of: Mapping[str, Any] = payload
        if record.kind == "item_completed":
            told_of = object_of(payload, "item")
        handler = _EVENTS.get(text_of(told_of, "type"))
        return handler(told_of) if handler else None
    return None


def _message(payload: Mapping[str, Any]) -> _Found:
    role = text_of(payload, "role")
    if role == "user":
        words, has_image = message_words(payload)
        if words is None and not has_image:
            return _notice("context", _parts(payload))
        text = words if words and words.strip() else IMAGE_TITLE if has_image else ""
        return _new(ItemKind.MESSAGE, "user", text, starts_turn=True) if text else None
    text = _parts(payload)
    if role == "assistant":
        return _new(ItemKind.MESSAGE, "assistant", text) if text else None
    return _notice("instructions", text)


def _agent_message(payload: Mapping[str, Any]) -> _Found:
    text = _parts(payload)
    name = f"{text_of(payload, 'author')} → {text_of(payload, 'recipient')}"
    return _new(ItemKind.MESSAGE, "system", text, name=name) if text else None


def _reasoning(payload: Mapping[str, Any]) -> _Found:
    parts = [*list_of(payload, "summary"), *list_of(payload, "content")]
    texts = [text_of(part, "text") for part in parts if isinstance(part, dict)]
    text = "\n\n".join(text for text in texts if text)
    return _new(ItemKind.REASONING, "assistant", text) if text else None


def _call(payload: Mapping[str, Any], kind: str) -> _Found:
    """Make a call of any kind: what it was given stands under one of a few names."""
    namespace = text_of(payload, "namespace")
    name = text_of(payload, "name") or kind.removesuffix("_call")
    given = next(
        (payload[key] for key in ("arguments", "input", "action", "query") if payload.get(key)), ""
    )
    command = list_of(given, "command") if isinstance(given, dict) else []
    if command and all(isinstance(word, str) for word in command):
        text = " ".join(command)
    else:
        text = enumeration_text(given)
    return _new(
        ItemKind.TOOL_CALL,
        "tool",
        text,
        name=f"{namespace}.{name}" if namespace else name,
        call_id=text_of(payload, "call_id") or text_of(payload, "id"),
    )


def _output(payload: Mapping[str, Any]) -> _Found:
    output = payload.get("output", payload.get("tools"))
    if isinstance(output, dict) and ("content" in output or "body" in output):
        output = output.get("content") or output.get("body")
    if isinstance(output, list):
        text = "\n".join(map(_part, output))
    else:
        text = "" if output is None else enumeration_text(output)
    return _new(ItemKind.TOOL_OUTPUT, "tool", text, call_id=text_of(payload, "call_id"))


def _parts(payload: Mapping[str, Any]) -> str:
    return "\n".join(text for text in map(_part, list_of(payload, "content")) if text)


def _part(part: Any) -> str:
    if not isinstance(part, dict):
        return part if isinstance(part, str) else ""
    return text_of(part, "text") or (IMAGE_TITLE if "image" in text_of(part, "type") else "")


def _aborted(event: Mapping[str, Any]) -> _Found:
    return _notice("aborted", text_of(event, "reason"))


def _problem(event: Mapping[str, Any]) -> _Found:
    return _notice("error", text_of(event, "message"))


def _rolled_back(event: Mapping[str, Any]) -> _Found:
    return _notice("rolled back", f"{integer_of(event, 'num_turns')} turns")


def _review_entered(event: Mapping[str, Any]) -> _Found:
    return _notice("review", text_of(event, "user_facing_hint"))


def _review_left(event: Mapping[str, Any]) -> _Found:
    output = object_of(event, "review_output")
    findings = [
        f"{text_of(each, 'title')}\n{text_of(each, 'body')}".strip()
        for each in list_of(output, "findings")
        if isinstance(each, dict)
    ]
    return _notice("review ended", "\n\n".join([text_of(output, "overall_explanation"), *findings]))


def _named(event: Mapping[str, Any]) -> _Found:
    return _notice("named", text_of(event, "thread_name"))


_RESPONSES: dict[str, Callable[[Mapping[str, Any]], _Found]] = {
    "message": _message,
    "agent_message": _agent_message,
    "reasoning": _reasoning,
}
_EVENTS: dict[str, Callable[[Mapping[str, Any]], _Found]] = {
    "turn_aborted": _aborted,
    "error": _problem,
    "warning": _problem,
    "stream_error": _problem,
    "thread_rolled_back": _rolled_back,
    "entered_review_mode": _review_entered,
    "exited_review_mode": _review_left,
    "EnteredReviewMode": _review_entered,
    "ExitedReviewMode": _review_left,
    "thread_name_updated": _named,
}


def _notice(name: str, text: str) -> _Found:
    return _new(ItemKind.NOTICE, "system", text.strip(), name=name)


def _new(
    kind: ItemKind,
    role: str,
    text: str,
    *,
    name: str = "",
    call_id: str = "",
    starts_turn: bool = False,
) -> TranscriptItem:
    return TranscriptItem(
        position="",
        kind=kind,
        role=role,
        text=text,
        name=name,
        call_id=call_id,
        starts_turn=starts_turn,
    )


def _turn_of(payload: Mapping[str, Any]) -> str:
    origin = object_of(payload, "internal_chat_message_metadata_passthrough")
    return text_of(payload, "turn_id") or text_of(origin, "turn_id")
