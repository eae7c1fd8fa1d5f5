"""What a person reads of a thread: what was said, thought, and done, item by item."""

from datetime import datetime
from enum import StrEnum

import msgspec


class ItemKind(StrEnum):
    """What an item is.

    A ``notice`` is anything else that tells how it came: context that was put before the model,
    a turn that was aborted, a compaction, a review.
    """

    MESSAGE = "message"
    REASONING = "reasoning"
    TOOL_CALL = "tool_call"
    TOOL_OUTPUT = "tool_output"
    NOTICE = "notice"


class TranscriptItem(msgspec.Struct, frozen=True, kw_only=True):
    """One item of a thread.

    ``position`` names its record, whatever the rollout is called later.  ``role`` is ``user``,
    ``assistant``, ``tool``, or ``system`` for what none of them said.  ``text`` is the message, the
    reasoning, the arguments of a call, or its output; of a text that was too long to be given,
    ``omitted`` counts the characters that are missing, or the bytes of a record that was not even
    read, and ``host`` says which other host has them, if this one hasn't.  ``name`` is that of a tool, a notice, or another agent.  A call and its output have the
    same ``call_id``.  ``turn`` is the id of the turn, where the record has it; ``starts_turn`` is
    true for what the person said.
    """

    position: str
    kind: ItemKind
    role: str
    text: str
    time: datetime | None = None
    name: str = ""
    call_id: str = ""
    turn: str = ""
    starts_turn: bool = False
    omitted: int = 0
    host: str = ""


class TranscriptPage(msgspec.Struct, frozen=True):
    """Some items of a thread that follow each other, oldest first.

    ``before`` and ``after`` are what to pass for those that come before and behind; None where
    there are none, as yet.
    """

    items: list[TranscriptItem]
    before: str | None = None
    after: str | None = None
