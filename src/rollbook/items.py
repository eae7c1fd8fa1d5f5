"""Records in the form in which every release of Codex reads them, for harnesses that record threads.

>>> recorder.record_items([*user_message("Fix the parser")])  # doctest: +SKIP

What is said is recorded twice, as Codex does: as a response item, which is what the model is given
again, and as an event, which is what people are shown.  Functions that make both return them in the
order in which all releases find them.
"""

import os
import time
from collections.abc import Mapping
from typing import Any

import msgspec

from rollbook.rollout.lines import RolloutItem

READ_ONLY: Mapping[str, Any] = {"type": "read-only"}


def task_started(turn_id: str) -> RolloutItem:
    """Begin a turn.  ``turn_id`` is any text that is new in the thread, such as a UUID."""
    return _event("task_started", turn_id=turn_id, started_at=int(time.time()))


def task_complete(turn_id: str, last_agent_message: str | None = None) -> RolloutItem:
    """End a turn: without this, Codex takes it for interrupted when the thread is forked."""
    return _event("task_complete", turn_id=turn_id, last_agent_message=last_agent_message)


def turn_context(
    model: str,
    cwd: str | os.PathLike[str],
    *,
    turn_id: str | None = None,
    approval_policy: str = "never",
    sandbox_policy: Mapping[str, Any] = READ_ONLY,
    effort: str | None = None,
) -> RolloutItem:
    """Say under which settings a turn runs.

    ``approval_policy`` and ``sandbox_policy`` are in Codex's terms (behaviour.md 64, 65).
    """
    payload: dict[str, Any] = {
        "turn_id": turn_id,
        "cwd": os.fspath(cwd),
        "approval_policy": approval_policy,
        "sandbox_policy": dict(sandbox_policy),
        "model": model,
        "effort": effort,
        "summary": "auto",
    }
    return RolloutItem("turn_context", {k: v for k, v in payload.items() if v is not None})


def user_message(text: str) -> tuple[RolloutItem, RolloutItem]:
    """Say what the person wrote."""
    return (
        message("user", text),
        _event("user_message", message=text, images=[], local_images=[], text_elements=[]),
    )


def agent_message(text: str) -> tuple[RolloutItem, RolloutItem]:
    """Say what the agent answered."""
    return _event("agent_message", message=text), message("assistant", text)


def message(role: str, text: str) -> RolloutItem:
    """Make a message of the model's history; roles are user, assistant, developer and system."""
    kind = "output_text" if role == "assistant" else "input_text"
    return _response("message", role=role, content=[{"type": kind, "text": text}])


def function_call(name: str, arguments: Mapping[str, Any] | str, call_id: str) -> RolloutItem:
    """Say that the model called a tool; ``arguments`` are a JSON object, or its text."""
    text = arguments if isinstance(arguments, str) else msgspec.json.encode(arguments).decode()
    return _response("function_call", name=name, arguments=text, call_id=call_id)


def function_call_output(call_id: str, output: str) -> RolloutItem:
    """Say what a tool answered."""
    return _response("function_call_output", call_id=call_id, output=output)


def token_count(
    total: int,
    *,
    input_tokens: int = 0,
    cached_input_tokens: int = 0,
    output_tokens: int = 0,
    reasoning_output_tokens: int = 0,
) -> RolloutItem:
    """Say how many tokens the thread has used so far, not only in this turn."""
    usage = {
        "input_tokens": input_tokens,
        "cached_input_tokens": cached_input_tokens,
        "output_tokens": output_tokens,
        "reasoning_output_tokens": reasoning_output_tokens,
        "total_tokens": total,
    }
    info = {"total_token_usage": usage, "last_token_usage": usage, "model_context_window": None}
    return _event("token_count", info=info, rate_limits=None)


def thread_name(thread_id: str, name: str) -> RolloutItem:
    """Give the thread a name."""
    return _event("thread_name_updated", thread_id=thread_id, thread_name=name)


def compacted(history: list[dict[str, Any]], text: str = "") -> RolloutItem:
    """Replace the model's history by these response items; ``text`` tells people why."""
    return RolloutItem("compacted", {"message": text, "replacement_history": history})


def _event(kind: str, **fields: Any) -> RolloutItem:
    return RolloutItem("event_msg", {"type": kind, **fields})


def _response(kind: str, **fields: Any) -> RolloutItem:
    return RolloutItem("response_item", {"type": kind, **fields})
