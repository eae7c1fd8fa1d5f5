"""Threads that say what a test wants said."""

from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from rollbook import ItemKind, StateRuntime, TranscriptItem, testing
from rollbook.testing import make_line, session_meta, user_message, write_rollout

ID = "77777777-7777-4777-8777-777777777777"
TIME = datetime(2026, 1, 27, 12, 34, 56, tzinfo=UTC)


def an_item(text: str, role: str = "assistant", **fields: object) -> TranscriptItem:
    fields.setdefault("kind", ItemKind.MESSAGE)
    return TranscriptItem(position="x:0", role=role, text=text, time=TIME, **fields)


def message(text: str, role: str = "assistant") -> bytes:
    return testing.message(text, role)


def tool_call(arguments: str, name: str = "shell") -> bytes:
    payload = {"type": "function_call", "name": name, "arguments": arguments, "call_id": "c1"}
    return make_line("response_item", payload)


def tool_output(text: str) -> bytes:
    payload = {"type": "function_call_output", "call_id": "c1", "output": text}
    return make_line("response_item", payload)


@pytest.fixture
def tell(home, state) -> Callable[..., StateRuntime]:
    """Have a thread that consists of some lines; gives the state."""

    def write(*lines: bytes, title: str = "A title", **meta: object) -> StateRuntime:
        first = [session_meta(ID, **meta), user_message(title), message(title, "user")]
        write_rollout(home, ID, [*first, *lines])
        state.sync()
        return state

    return write
