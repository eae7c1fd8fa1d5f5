"""All records of a thread, in order, and what of them the model would be given again."""

from collections.abc import Iterable, Iterator, Mapping
from io import RawIOBase
from pathlib import Path
from typing import Any

from rollbook.errors import InvalidThreadIdError, RolloutError
from rollbook.model.thread import parse_thread_id
from rollbook.rollout.extract import reading
from rollbook.rollout.injected import message_words
from rollbook.rollout.layout import RolloutFile, choose_files, find_rollouts, stat_rollout
from rollbook.rollout.lines import (
    RolloutItem,
    integer_of,
    list_of,
    object_of,
    text_of,
)
from rollbook.rollout.scan import Scan

_MAX_LINEAGE = 100
_PAGINATION = ("history_mode", "history_base", "forked_from_ordinal_exclusive")


def read_items(home: Path, thread_id: str) -> Iterator[RolloutItem]:
    """Read every record of a thread from its rollouts, oldest first.

    A thread that begins in another one gives the records of that first.  Lines that can't be read
    are passed over (behaviour.md 34).  Nothing comes where the thread has no rollout.
    Errors: RolloutError where a rollout can't be read, or the one it begins in is gone.
    """
    yield from _items(home, files_of(home, thread_id), None, 0)


def files_of(home: Path, thread_id: str) -> list[RolloutFile]:
    """Find the files that make a thread, oldest first; empty where there is none."""
    found = [stat_rollout(home, path) for path in find_rollouts(home, thread_id)]
    return choose_files(thread_id, [file for file in found if file is not None])


def _items(
    home: Path, files: list[RolloutFile], end: int | None, depth: int
) -> Iterator[RolloutItem]:
    for number, file in enumerate(files):
        for line_number, item in enumerate(_file_items(home, file, end)):
            yield item
            if number == 0 and line_number == 0 and "history_base" in item.payload:
                yield from _base_items(home, file, object_of(item.payload, "history_base"), depth)


def _base_items(
    home: Path, file: RolloutFile, base: Mapping[str, Any], depth: int
) -> Iterator[RolloutItem]:
    """Read the records that a fork shares with the thread it begins in."""
    if not text_of(base, "thread_id"):
        return
    try:
        parent = parse_thread_id(text_of(base, "thread_id"))
    except InvalidThreadIdError as error:
        raise RolloutError("begins in a thread that has no valid id", path=file.path) from error
    files = files_of(home, parent)
    if not files or depth >= _MAX_LINEAGE:
        raise RolloutError(f"begins in thread {parent}, whose rollout is gone", path=file.path)
    end = max(integer_of(base, "end_byte_offset"), 0)
    yield from _items(home, files[:1], end, depth + 1)


def _file_items(home: Path, file: RolloutFile, end: int | None) -> Iterator[RolloutItem]:
    with reading(home, file) as stream:
        yield from Scan(stream if end is None else _Beginning(stream, end), everything=True)


class _Beginning:
    """The first bytes of a stream."""

    def __init__(self, stream: RawIOBase, size: int) -> None:
        self._stream = stream
        self._left = size

    def readinto(self, buffer: bytearray | memoryview) -> int:
        with memoryview(buffer) as view:
            read = self._stream.readinto(view[: self._left]) or 0
        self._left -= read
        return read

    def read(self, size: int) -> bytes:
        block = self._stream.read(min(size, self._left)) or b""
        self._left -= len(block)
        return block


def as_legacy(items: Iterable[RolloutItem]) -> Iterator[RolloutItem]:
    """Give the records of a thread in the form that releases without ordinals write, too.

    Where newer releases only complete items, what was said is shown by events behind those.
    """
    is_paginated = False
    for item in items:
        if item.type == "session_meta":
            is_paginated = item.payload.get("history_mode") == "paginated"
            payload = {k: v for k, v in item.payload.items() if k not in _PAGINATION}
            yield RolloutItem(item.type, payload, item.timestamp)
            continue
        yield item
        if is_paginated and item.type == "event_msg" and item.kind == "item_completed":
            yield from _shown(object_of(item.payload, "item"))


def _shown(item: Mapping[str, Any]) -> Iterator[RolloutItem]:
    event = {"UserMessage": "user_message", "AgentMessage": "agent_message"}.get(
        text_of(item, "type")
    )
    parts = [part for part in list_of(item, "content") if isinstance(part, dict)]
    text = "".join(text_of(part, "text") for part in parts)
    if event and text:
        yield RolloutItem("event_msg", {"type": event, "message": text})


def conversation(items: Iterable[RolloutItem]) -> list[dict[str, Any]]:
    """Collect the response items that the model would be given when the thread goes on.

    A compaction with a replacement replaces what came before; a rollback takes turns away.
    """
    history: list[dict[str, Any]] = []
    for item in items:
        if item.type == "response_item":
            history.append(item.payload)
        elif item.type == "compacted" and "replacement_history" in item.payload:
            history = [
                each
                for each in list_of(item.payload, "replacement_history")
                if isinstance(each, dict)
            ]
        elif item.type == "event_msg" and item.kind == "thread_rolled_back":
            _roll_back(history, integer_of(item.payload, "num_turns"))
    return history


def _roll_back(history: list[dict[str, Any]], turns: int) -> None:
    """Take away the last turns: each begins with something that the person has said."""
    starts = [place for place, item in enumerate(history) if _is_said(item)]
    if turns > 0 and starts:
        del history[starts[max(len(starts) - turns, 0)] :]


def _is_said(item: Mapping[str, Any]) -> bool:
    if item.get("type") != "message" or item.get("role") != "user":
        return False
    words, has_image = message_words(item)
    return words is not None or has_image
