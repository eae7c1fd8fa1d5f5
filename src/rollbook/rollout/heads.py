"""What the head of a line says about whether the line can matter.

A line in the form in which Codex writes it begins with its time, its ordinal if it has one, and its
type.  All the types that are recognised here are of records of a turn.
"""

import re

from rollbook.rollout.lines import RolloutItem

LONGEST_HEAD = 512

TIME = re.compile(rb'\{"timestamp":"([^"\\]{19,40})"(?:,"ordinal":(\d{1,18}))?(?=,"type":")')
_PASSING = re.compile(  # never matters
    rb""","type":"(?:
        response_item","payload":\{"type":"(?:
            (?!message")\w
          | message",(?:"id":"[^"\\]*",)?"role":"(?!user")\w
        )
      | event_msg","payload":\{"type":"(?:
            (?!user_message"|token_count"|item_completed"|thread_)\w
          | item_completed",(?:"\w+":"[^"\\]*",){0,4}"item":\{"type":"(?!UserMessage")\w
        )
      | (?:compacted|world_state|inter_agent_communication_metadata)","payload":\{
    )""",
    re.VERBOSE,
)
_MESSAGE = re.compile(  # of the user role: matters unless an event tells the title
    rb',"type":"response_item","payload":\{"type":"message",(?:"id":"[^"\\]*",)?"role":"user"'
)
_EVENT = re.compile(  # tells what the person said: matters until the title is settled
    rb""","type":"event_msg","payload":\{"type":"(?:
        user_message"
      | item_completed",(?:"\w+":"[^"\\]*",){0,4}"item":\{"type":"UserMessage"
    )""",
    re.VERBOSE,
)
USAGE = (  # settles the title; then only the last that outdoes those before it matters
    b',"type":"event_msg","payload":{"type":"token_count"',
    b',"type":"token_usage_record","payload":{',
)
USAGE_MARK = b'"type":"token_'  # to find them by
CONTEXT = b',"type":"turn_context","payload":{'  # the last that outdoes those before it matters
# Those that most lines have: to compare them is several times faster than to match expressions.
_COMMON = (
    b',"type":"response_item","payload":{"type":"function_call',
    b',"type":"response_item","payload":{"type":"reasoning"',
    b',"type":"response_item","payload":{"type":"custom_tool_call',
    b',"type":"response_item","payload":{"type":"message","role":"assistant"',
    b',"type":"event_msg","payload":{"type":"agent_',
    b',"type":"event_msg","payload":{"type":"task_',
)
_COMMON_WHEN_SETTLED = (
    *_COMMON[:2],
    *USAGE,
    *_COMMON[2:],
    b',"type":"response_item","payload":{"type":"message","role":"user"',
    b',"type":"event_msg","payload":{"type":"user_message"',
)

_Line = bytes | bytearray


def common(*, is_settled: bool) -> tuple[bytes, ...]:
    """The usual heads of lines that can wait, or that never matter."""
    return _COMMON_WHEN_SETTLED if is_settled else _COMMON


def says_nothing(data: _Line, at: int, end: int, *, is_settled: bool) -> bool:
    """Say whether a line can't matter, by what begins at its type."""
    if _PASSING.match(data, at, end):
        return True
    return is_settled and bool(_MESSAGE.match(data, at, end) or _EVENT.match(data, at, end))


def is_message(data: _Line, at: int, end: int) -> bool:
    """Say whether a line is a message of the user role, by what begins at its type."""
    return bool(_MESSAGE.match(data, at, end))


def may_settle(data: _Line, at: int, end: int) -> bool:
    """Say whether a line may tell the title or settle it, by what begins at its type."""
    return data.startswith(USAGE, at) or bool(_EVENT.match(data, at, end))


def seems_whole_usage(line: _Line) -> bool:
    """Say whether a record of usage looks as if it left nothing of those before it."""
    return b'"total_tokens":' in line


def seems_whole_context(line: _Line) -> bool:
    """Say whether a turn context looks as if it left nothing of those before it."""
    return (
        b'"cwd":"' in line
        and b'"model":"' in line
        and b'"approval_policy":' in line
        and (b'"sandbox_policy":' in line or b'"permission_profile":' in line)
    )


def ordinal_of(line: _Line) -> int | None:
    """Read the ordinal out of a line's head; None where it has none, or no such head."""
    match = TIME.match(line)
    return int(match[2]) if match and match[2] else None


def record_at(head: bytes) -> RolloutItem:
    """Make what is known of a record of a turn from the beginning of its line."""
    match = TIME.match(head)
    timestamp = match[1].decode("utf-8", "replace") if match else ""
    return record_of_turn(timestamp, ordinal_of(head))


def record_of_turn(timestamp: str, ordinal: int | None) -> RolloutItem:
    """Make a record of a turn that says nothing but when it was."""
    return RolloutItem("response_item", {}, timestamp, ordinal)
