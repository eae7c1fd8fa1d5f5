"""The session meta that a new thread begins with (behaviour.md 29, 30, 103, 104)."""

import secrets
import time
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec

from rollbook.errors import InvalidThreadIdError, UsageError
from rollbook.git import GitFacts
from rollbook.model.thread import DynamicToolSpec, parse_thread_id
from rollbook.rollout.lines import (
    MalformedLineError,
    RolloutItem,
    encode_line,
    object_of,
    text_of,
)
from rollbook.version import __version__

_RECORDER = "rollbook/"  # Codex passes over fields that it doesn't know
_RESERVED = "mcp"


class NewThread(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a thread when it begins; see :meth:`rollbook.RolloutRecorder.create`."""

    cwd: Path
    source: str
    originator: str
    model_provider: str
    base_instructions: str | None
    dynamic_tools: Sequence[DynamicToolSpec]
    git: GitFacts | None
    cli_version: str
    forked_from_id: str | None = None

    def session_meta(self, thread_id: str, created_at: datetime) -> dict[str, Any]:
        """Make the payload, its keys in the order in which Codex writes them."""
        given = {
            "id": thread_id,
            "forked_from_id": self.forked_from_id,
            "timestamp": time_text(created_at),
            "cwd": str(self.cwd),
            "originator": self.originator,
            "cli_version": self.cli_version,
            "source": _source(self.source),
            "model_provider": self.model_provider,
            "base_instructions": None
            if self.base_instructions is None
            else {"text": self.base_instructions},
            "dynamic_tools": [_tool_object(tool) for tool in self.dynamic_tools] or None,
            "git": self.git,
            "recorder": f"{_RECORDER}{__version__}",
        }
        return {key: value for key, value in given.items() if value is not None}


def new_thread_id() -> str:
    """Make a UUID of version 7: it begins with the time (behaviour.md 10)."""
    bits = (time.time_ns() // 1_000_000) << 80 | secrets.randbits(80)
    bits = bits & ~(0xF << 76 | 0x3 << 62) | 0x7 << 76 | 0x2 << 62
    return str(uuid.UUID(int=bits))


def time_text(moment: datetime) -> str:
    """Write a time as lines have it: RFC 3339 in UTC with milliseconds and ``Z``."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


def present_time_text() -> str:
    """Write the present time as lines have it; cheap, as each record asks for it."""
    return _milliseconds_text(time.time_ns() // 1_000_000)


@lru_cache(maxsize=2)
def _milliseconds_text(milliseconds: int) -> str:
    return time_text(datetime.fromtimestamp(milliseconds / 1000, UTC))


def is_ours(first: RolloutItem | None, thread_id: str) -> bool:
    """Say whether a thread's first record is a session meta that Rollbook has written."""
    if first is None or first.type != "session_meta":
        return False
    meta = first.payload
    try:
        is_own = parse_thread_id(text_of(meta, "id")) == thread_id
    except InvalidThreadIdError:
        return False
    return is_own and text_of(meta, "recorder").startswith(_RECORDER)


def base_instructions_of(items: Sequence[RolloutItem]) -> str | None:
    """Find the base instructions that a thread began with; None where it has none."""
    if not items or items[0].type != "session_meta":
        return None
    return text_of(object_of(items[0].payload, "base_instructions"), "text") or None


def check_tools(tools: Sequence[DynamicToolSpec]) -> None:
    """Refuse tools that Codex would refuse, before anything is written (behaviour.md 29).

    Errors: UsageError that names the tool.
    """
    names: set[tuple[str | None, str]] = set()
    for tool in tools:
        name = tool.name
        if not isinstance(name, str) or not isinstance(tool.description, str):
            raise UsageError(f"name and description of a tool are texts, not {name!r:.100}")
        if not name or name != name.strip():
            raise UsageError(f"{name!r:.100} can't be the name of a tool: it is empty or padded")
        if name == _RESERVED or name.startswith(f"{_RESERVED}__"):
            raise UsageError(f"{name!r:.100} can't be the name of a tool: mcp is taken by MCP")
        if (tool.namespace, name) in names:
            raise UsageError(f"there are two tools with the name {name!r:.100}")
        if not isinstance(tool.input_schema, Mapping):
            raise UsageError(f"the schema of the tool {name!r:.100} is no JSON object")
        try:
            encode_line("", "", tool.input_schema)
        except MalformedLineError as error:
            raise UsageError(f"the schema of the tool {name!r:.100} is no JSON: {error}") from error
        names.add((tool.namespace, name))


def _tool_object(tool: DynamicToolSpec) -> dict[str, Any]:
    value: dict[str, Any] = {
        "name": tool.name,
        "description": tool.description,
        "inputSchema": tool.input_schema,
    }
    if tool.defer_loading:
        value["deferLoading"] = True
    if tool.namespace is not None:
        value["namespace"] = tool.namespace
    return value


def _source(text: str) -> Any:
    """Write a source as it stands on a line: sub-agents are objects (behaviour.md 62)."""
    if not text.startswith("{"):
        return text
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError) as error:
        raise UsageError(f"{text!r:.100} is no source of a thread: {error}") from error
