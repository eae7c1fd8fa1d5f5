"""What of an item is shown, in any format: whose it is, in a line, and as blocks of text."""

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from rollbook.model.transcript import ItemKind, TranscriptItem

DIFF = "diff"
_COMMANDS = ("command", "cmd", "script", "code", "input", "patch")
_SHELL_WORDS = 3  # such as: bash -lc "what to do"
_DIFF = re.compile(
    r"^(?:diff --git |--- \S.*\n\+\+\+ \S|@@ -\d)|\*\*\* (?:Begin Patch|Update File:|Add File:)",
    re.MULTILINE,
)
_LONGEST_NAME = 100
_LOOKED_AT = 10_000  # characters, for what a text is
_SPACES = re.compile(r"\s+")


class Block(msgspec.Struct, frozen=True):
    """A text, and the language that it is in, by the name that highlighters know; empty for none."""

    text: str
    language: str = ""


def is_folded(item: TranscriptItem) -> bool:
    """Say whether an item is shown as a line, until somebody wants to see all of it."""
    return item.kind is not ItemKind.MESSAGE


def speaker_of(item: TranscriptItem) -> str:
    """Say whose an item is, or what it is, on one line."""
    name = _SPACES.sub(" ", item.name[:_LONGEST_NAME]).strip()
    if item.kind is ItemKind.MESSAGE:
        return {"user": "User", "assistant": "Agent"}.get(item.role, name or "System")
    return {
        ItemKind.REASONING: "Reasoning",
        ItemKind.TOOL_CALL: name or "Tool",
        ItemKind.TOOL_OUTPUT: "Output",
        ItemKind.NOTICE: name.capitalize(),
    }[item.kind]


def summary_of(item: TranscriptItem, longest: int = 200) -> str:
    """Give the beginning of what an item says, on one line of at most so many characters."""
    first = next((block.text for block in blocks_of(item) if block.text.strip()), "")
    line = _SPACES.sub(" ", first[: 4 * longest]).strip()
    return line if len(line) <= longest else line[: longest - 1] + "…"


def blocks_of(item: TranscriptItem) -> list[Block]:
    """Give the text of an item; of a call, what was to be run stands before its other arguments."""
    if item.kind is ItemKind.TOOL_CALL:
        return _call(item.text)
    if item.kind is ItemKind.TOOL_OUTPUT:
        return [_with_language(_output(item.text))]
    return [Block(item.text)]


def omission_of(item: TranscriptItem) -> str:
    """Say what is missing of an item; empty where nothing is."""
    if not item.omitted or not item.text:
        return ""
    where = f", on host {item.host}" if item.host else ""
    return f"… {item.omitted:,} more characters{where}"


def _call(text: str) -> list[Block]:
    arguments = _object(text)
    if arguments is None:
        return [_with_language(text, "bash")]
    for name in _COMMANDS:
        command = _command(arguments.get(name))
        if command:
            others = {key: value for key, value in arguments.items() if key != name}
            return [_with_language(command, "bash"), *([_json(others)] if others else [])]
    return [_json(arguments)]


def _command(value: Any) -> str:
    if isinstance(value, str):
        return value
    if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
        return ""
    is_shell = len(value) == _SHELL_WORDS and value[1] in ("-c", "-lc")
    return value[2] if is_shell else " ".join(value)


def _output(text: str) -> str:
    """Unwrap what earlier releases wrote as ``{"output", "metadata"}``."""
    wrapped = _object(text)
    if wrapped is None or not isinstance(wrapped.get("output"), str):
        return text
    details = wrapped.get("metadata")
    code = details.get("exit_code") if isinstance(details, dict) else None
    return wrapped["output"] if code is None else f"Exit code: {code}\n{wrapped['output']}"


def _with_language(text: str, otherwise: str = "") -> Block:
    return Block(text, DIFF if _DIFF.search(text, 0, _LOOKED_AT) else otherwise)


def _json(value: Any) -> Block:
    return Block(msgspec.json.format(msgspec.json.encode(value), indent=2).decode(), "json")


def _object(text: str) -> Mapping[str, Any] | None:
    if not text.startswith("{"):
        return None
    try:
        value = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
