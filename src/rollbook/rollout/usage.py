"""Which tokens a rollout says were used, when and by which model: each of them once.

Releases write how much a thread has used in all, again and again, often without anything new.  So
what counts is by how much that has grown.  What a thread had used before its rollout begins is its
source's, and so is what a fork has copied of its source's rollout.
"""

from collections.abc import Iterator, Mapping
from io import RawIOBase
from typing import Any

import msgspec

from rollbook.model.times import parse_time, to_epoch
from rollbook.model.usage import Tokens
from rollbook.rollout import heads
from rollbook.rollout.fold import is_copied
from rollbook.rollout.lines import (
    MalformedLineError,
    RolloutItem,
    decode_line,
    integer_of,
    object_of,
    text_of,
    total_usage,
)
from rollbook.rollout.selection import Selection

_MOST_TOKENS = 1 << 40
BUCKET_S = 900  # a quarter of an hour: the days of every time zone begin with one
_WANTED = (
    *heads.USAGE,
    heads.CONTEXT,
    b',"type":"event_msg","payload":{"type":"thread_settings_applied"',
    b',"type":"session_meta","payload":{',
)


class UsageEvent(msgspec.Struct, frozen=True):
    """Tokens that one request has used: in which quarter of an hour (epoch seconds), by which model."""

    bucket: int
    model: str
    tokens: Tokens


class UsageState(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one has to remember of the records so far to go on.

    ``before`` is what had been used up to then, None where that isn't known; ``copied`` are totals
    that are still expected to come, as the rollout has copied them.
    """

    model: str = ""
    before: Tokens | None = None
    copied: tuple[Tokens, ...] = ()
    own_from: int = 0


def may_matter(data: bytes, at: int, end: int) -> bool:
    """Say whether a line may matter for what was used, by what begins at its type."""
    del end
    return data.startswith(_WANTED, at)


class UsageReader:
    """Takes the records of a rollout in order, and gives what each has used."""

    def __init__(self, thread_id: str, state: UsageState = UsageState()) -> None:
        self._thread_id = thread_id
        self._model = state.model
        self._before = state.before
        self._copied = list(state.copied)
        self._own_from = state.own_from

    @property
    def state(self) -> UsageState:
        """What to go on with."""
        return UsageState(self._model, self._before, tuple(self._copied), self._own_from)

    def take(self, record: RolloutItem) -> UsageEvent | None:
        """Take a record; gives what it says was used since the one before, None for nothing."""
        payload = record.payload
        if record.type == "session_meta":
            start = integer_of(payload, "subagent_history_start_ordinal")
            self._own_from = max(start, self._own_from)
            return None
        if record.type == "turn_context":
            self._model = text_of(payload, "model") or self._model
            return None
        if record.type == "event_msg" and record.kind == "thread_settings_applied":
            settings = object_of(payload, "thread_settings")
            self._model = text_of(settings, "model") or self._model
            return None
        total = total_of(record, self._thread_id)
        if total is None:
            return None
        used = self._used(total, record)
        time = parse_time(record.timestamp)
        if used is None or not used.total or time is None:
            return None
        seconds = to_epoch(time)
        return UsageEvent(seconds - seconds % BUCKET_S, self._model, used)

    def _used(self, total: Tokens, record: RolloutItem) -> Tokens | None:
        """Say what was used for a total to come to this; None for what isn't this thread's."""
        if self._copied:
            if self._copied[0] == total:
                self._before = self._copied.pop(0)
                return None
            self._copied.clear()
        before, self._before = self._before, total
        if is_copied(record.ordinal, self._own_from) or before == total:
            return None
        if before is not None and before.is_within(total):
            return total.beyond(before)
        return _last_of(record.payload) or total


def total_of(record: RolloutItem, thread_id: str) -> Tokens | None:
    """Read what a record says a thread has used in all; None where it says nothing of it."""
    usage = total_usage(record.payload)
    if not usage or text_of(record.payload, "thread_id") not in {"", thread_id}:
        return None
    return _tokens(usage)


def totals_in(stream: RawIOBase, thread_id: str, end: int | None = None) -> Iterator[Tokens]:
    """Read all totals of a rollout, or those of its beginning, in order."""
    for offset, line in Selection(stream, may_matter):
        if end is not None and offset >= end:
            return
        try:
            total = total_of(decode_line(line), thread_id)
        except MalformedLineError:
            continue
        if total is not None:
            yield total


def _last_of(payload: Mapping[str, Any]) -> Tokens | None:
    usage = object_of(object_of(payload, "info"), "last_token_usage") or object_of(payload, "usage")
    return _tokens(usage) if usage else None


def _tokens(usage: Mapping[str, Any]) -> Tokens | None:
    """Read counts; None where one is impossible, so that no sum can grow beyond what databases take."""
    values = [max(0, integer_of(usage, key)) for key in _KEYS]
    return Tokens(*values) if max(values) <= _MOST_TOKENS else None


_KEYS = (
    "input_tokens",
    "cached_input_tokens",
    "output_tokens",
    "reasoning_output_tokens",
    "total_tokens",
)
