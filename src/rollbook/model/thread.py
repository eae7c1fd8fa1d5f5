"""A thread as Rollbook knows it, and its dynamic tools.

Field names are those of the reference's ``threads`` table (behaviour.md 4); the ones below
``git_origin_url`` are what later releases record.  msgspec checks types when it decodes, not in the
constructor, so values are validated where they come in: ids by :func:`parse_thread_id`, times by
:mod:`rollbook.model.times`, text by :func:`clean_text`.
"""

import re
from datetime import datetime
from typing import Any

import msgspec

from rollbook.errors import InvalidThreadIdError
from rollbook.model.times import whole_seconds

DEFAULT_SANDBOX_POLICY = '{"type":"read-only"}'
DEFAULT_APPROVAL_MODE = "on-request"
_CANONICAL_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)
_DIGITS = b"0123456789abcdef"
_ID_AND_SPACE = 37
_MARKS_AT = ((8, "-"), (13, "-"), (18, "-"), (23, "-"), (36, " "))  # all else are digits
# What a lenient parser takes. uuid.UUID alone takes more: whatever int() reads as a number.
_LENIENT_ID = re.compile(
    r"[0-9a-f]{32}|(urn:uuid:)?(\{)?[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}(?(2)\})",
    re.ASCII | re.IGNORECASE,
)
_NO_TEXT = re.compile("[\0\ud800-\udfff]")


class ThreadMetadata(msgspec.Struct, frozen=True):
    """What is known about one thread.

    ``rollout_path`` is absolute and, as in Codex, ends in ``.jsonl`` also where the file on disk is
    compressed.  Times are aware UTC datetimes of whole seconds.  ``title`` and ``preview`` are the
    first thing the person wrote, whole, ``[Image]`` for an image alone and empty for nothing;
    ``name`` is what the thread was called later.  ``recency_at`` is the time of the last record of
    a turn.  ``tags`` and ``pinned`` are the person's; ``cwd`` is where the directory is now, and
    ``recorded_cwd`` where it was, if that is another place.  ``source``, ``sandbox_policy`` and ``approval_mode`` are in the reference's text form
    (behaviour.md 61).
    """

    id: str
    rollout_path: str
    created_at: datetime
    updated_at: datetime
    source: str = "vscode"
    model_provider: str = ""
    cwd: str = ""
    title: str = ""
    sandbox_policy: str = DEFAULT_SANDBOX_POLICY
    approval_mode: str = DEFAULT_APPROVAL_MODE
    tokens_used: int = 0
    has_user_event: bool = False
    archived_at: datetime | None = None
    git_sha: str | None = None
    git_branch: str | None = None
    git_origin_url: str | None = None
    recency_at: datetime | None = None
    name: str | None = None
    preview: str = ""
    model: str | None = None
    reasoning_effort: str | None = None
    cli_version: str | None = None
    originator: str | None = None
    forked_from_id: str | None = None
    parent_thread_id: str | None = None
    agent_nickname: str | None = None
    agent_role: str | None = None
    input_tokens: int = 0
    cached_input_tokens: int = 0
    output_tokens: int = 0
    reasoning_output_tokens: int = 0
    host: str = ""
    tags: tuple[str, ...] = ()
    pinned: bool = False
    recorded_cwd: str | None = None

    def __post_init__(self) -> None:
        """A thread without a turn is as recent as its creation."""
        if self.recency_at is None:
            msgspec.structs.force_setattr(self, "recency_at", self.created_at)

    def differing_fields(self, other: "ThreadMetadata") -> list[str]:
        """Name the fields in which two rows differ, in declaration order (behaviour.md 23)."""
        ours, theirs = msgspec.structs.astuple(self), msgspec.structs.astuple(other)
        fields = zip(self.__struct_fields__, ours, theirs, strict=True)
        return [field for field, own, their in fields if own != their]


class ThreadMetadataBuilder(msgspec.Struct, frozen=True):
    """What is known of a thread before any of its items was folded (behaviour.md 19, 22)."""

    id: str
    rollout_path: str
    created_at: datetime
    source: str = "vscode"
    updated_at: datetime | None = None
    model_provider: str | None = None
    cwd: str = ""
    sandbox_policy: str = DEFAULT_SANDBOX_POLICY
    approval_mode: str = DEFAULT_APPROVAL_MODE
    archived_at: datetime | None = None
    git_sha: str | None = None
    git_branch: str | None = None
    git_origin_url: str | None = None

    def build(self, default_provider: str) -> ThreadMetadata:
        """Make a fresh row: title empty, no tokens, no user event; absent provider: the default."""
        values = msgspec.structs.asdict(self)
        values["model_provider"] = self.model_provider or default_provider
        values["created_at"] = whole_seconds(self.created_at)
        values["updated_at"] = whole_seconds(self.updated_at or self.created_at)
        values["archived_at"] = self.archived_at and whole_seconds(self.archived_at)
        return ThreadMetadata(**values)


class DynamicToolSpec(msgspec.Struct, frozen=True):
    """A tool that the client of a thread offers to the model.

    ``input_schema`` is the JSON value as it came, key order included.  ``defer_loading`` and
    ``namespace`` are what releases from 0.115 and 0.125 on add.
    """

    name: str
    description: str
    input_schema: Any
    defer_loading: bool = False
    namespace: str | None = None


def are_thread_ids(texts: list[str]) -> bool:
    """Say whether all of some texts are thread ids in their canonical form."""
    joined = " ".join([*texts, ""])
    return (
        len(joined) == _ID_AND_SPACE * len(texts)
        and all(joined[at::_ID_AND_SPACE] == mark * len(texts) for at, mark in _MARKS_AT)
        and len(joined.encode("utf-8", "replace").translate(None, _DIGITS))
        == len(_MARKS_AT) * len(texts)
    )


def parse_thread_id(text: str) -> str:
    """Bring a UUID in any usual form into the canonical lower-case hyphenated one.

    Errors: InvalidThreadIdError for anything else.  Source: behaviour.md 10.
    """
    if _CANONICAL_ID.fullmatch(text):
        return text
    if _LENIENT_ID.fullmatch(text):
        return hyphenated(text.lower().removeprefix("urn:uuid:").strip("{}").replace("-", ""))
    raise InvalidThreadIdError(f"{text[:100]!r} is not a thread id", hint="a thread id is a UUID")


def hyphenated(digits: str) -> str:
    """Write the digits of a thread id, or the first of them, with hyphens where they belong."""
    groups = (digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:])
    return "-".join(group for group in groups if group)


def clean_text(text: str) -> str:
    """Replace what no database keeps faithfully by the replacement character.

    That is NUL, and the halves of characters that stand for bytes which are no Unicode
    (behaviour.md 14).
    """
    if text.isascii() and "\0" not in text:
        return text
    return _NO_TEXT.sub("\ufffd", text)
