"""Builders for tests, ours and those of programs that use Rollbook.

Nothing here starts anything or cleans up: each function makes one thing and returns it.
"""

import os
import uuid
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from rollbook.model.thread import ThreadMetadata

DEFAULT_TIME = datetime(2026, 1, 27, 12, 34, 56, tzinfo=UTC)


def make_thread(home: Path | str = "/home/dev/.codex", **fields: Any) -> ThreadMetadata:
    """Make a thread in which somebody has said something; ``fields`` override the defaults."""
    thread_id = fields.setdefault("id", str(uuid.uuid4()))
    name = f"rollout-2026-01-27T12-34-56-{thread_id}.jsonl"
    defaults: dict[str, Any] = {
        "rollout_path": f"{home}/sessions/2026/01/27/{name}",
        "created_at": DEFAULT_TIME,
        "updated_at": DEFAULT_TIME,
        "source": "cli",
        "model_provider": "openai",
        "cwd": "/home/dev/project",
        "title": "A thread",
        "has_user_event": True,
    }
    return ThreadMetadata(**(defaults | fields))


def make_line(kind: str, payload: Mapping[str, Any], **envelope: Any) -> bytes:
    """Make one line of a rollout, as Codex writes it, without its line break."""
    timestamp = envelope.pop("timestamp", "2026-01-27T12:34:57.000Z")
    return msgspec.json.encode(
        {"timestamp": timestamp, **envelope, "type": kind, "payload": payload}
    )


def session_meta(thread_id: str, **payload: Any) -> bytes:
    """Make the session meta of a thread."""
    defaults = {
        "id": thread_id,
        "timestamp": "2026-01-27T12:34:56.000Z",
        "cwd": "/home/dev/project",
        "originator": "codex_cli_rs",
        "cli_version": "0.95.0",
        "source": "cli",
        "model_provider": "openai",
    }
    return make_line("session_meta", defaults | payload)


def user_message(text: str, **envelope: Any) -> bytes:
    """Make the event that a person wrote something."""
    return make_line("event_msg", {"type": "user_message", "message": text}, **envelope)


def message(text: str, role: str = "user", **envelope: Any) -> bytes:
    """Make the record of what the person, the agent or somebody else said, as a model is given it."""
    kind = "output_text" if role == "assistant" else "input_text"
    payload = {"type": "message", "role": role, "content": [{"type": kind, "text": text}]}
    return make_line("response_item", payload, **envelope)


def token_count(total: int, **envelope: Any) -> bytes:
    """Make the event that says how many tokens a thread has used."""
    usage = {"total_tokens": total}
    return make_line(
        "event_msg", {"type": "token_count", "info": {"total_token_usage": usage}}, **envelope
    )


def write_rollout(
    home: Path,
    thread_id: str,
    lines: Iterable[bytes],
    *,
    time: str = "2026-01-27T12-34-56",
    archived: bool = False,
    segment: str = "",
    mtime: datetime | None = None,
) -> Path:
    """Write a rollout where Codex would; returns its path."""
    name = f"rollout-{time}-{thread_id}{'_' + segment if segment else ''}.jsonl"
    directory = "archived_sessions" if archived else f"sessions/{time[:10].replace('-', '/')}"
    path = home / directory / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    if mtime is not None:
        os.utime(path, (mtime.timestamp(), mtime.timestamp()))
    return path
