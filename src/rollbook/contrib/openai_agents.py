"""A session of the OpenAI Agents SDK on top of a thread (the extra ``openai-agents``).

>>> session = RollbookSession("support-42", state)  # doctest: +SKIP
>>> await Runner.run(agent, "Hello", session=session)  # doctest: +SKIP
"""

import asyncio
import uuid
from typing import Any, Self, cast

from agents.items import TResponseInputItem
from agents.memory import SessionSettings

from rollbook import items
from rollbook.aio import AsyncStateRuntime
from rollbook.errors import InvalidThreadIdError, ThreadNotFoundError
from rollbook.model.thread import parse_thread_id
from rollbook.recorder.aio import AsyncRolloutRecorder
from rollbook.rollout.history import conversation
from rollbook.rollout.lines import RolloutItem

_NAMESPACE = uuid.UUID("6a5f1c0e-9a43-5a5e-8f0b-6f1f5a3c2d10")
_FORM = "rollbook_form"  # how the SDK gave a message that Codex wants in another form


class RollbookSession:
    """The memory of an agent, kept in a thread that Codex and Rollbook can list, read and resume.

    ``session_id`` is a thread's id, or any text, which then always means the same thread and
    becomes its name.  The thread is created when something is first added.  While a session is
    open, no other process can add to it (ThreadInUseError): close it with :meth:`close`, or use it
    as an async context manager.  What is taken back or cleared stays in the rollout, and is
    no longer part of the history.
    """

    def __init__(
        self,
        session_id: str,
        state: AsyncStateRuntime,
        *,
        session_settings: SessionSettings | None = None,
    ) -> None:
        self.session_id = session_id
        self.session_settings = session_settings
        self._state = state
        self._recorder: AsyncRolloutRecorder | None = None
        self._history: list[dict[str, Any]] = []
        self._lock = asyncio.Lock()

    @property
    def thread_id(self) -> str:
        """The thread that keeps this session."""
        try:
            return parse_thread_id(self.session_id)
        except InvalidThreadIdError:
            return str(uuid.uuid5(_NAMESPACE, self.session_id))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()

    async def get_items(self, limit: int | None = None) -> list[TResponseInputItem]:
        """Give the history, or the last ``limit`` items of it, oldest first; empty for none."""
        if limit is None and self.session_settings is not None:
            limit = self.session_settings.limit
        async with self._lock:
            await self._open(create=False)
            first = 0 if limit is None else max(len(self._history) - limit, 0)
            return [_to_sdk(item) for item in self._history[first:]]

    async def add_items(self, items: list[TResponseInputItem]) -> None:
        """Append to the history; when this returns, it is on disk."""
        async with self._lock:
            recorder = await self._open(create=True)
            added = [_from_sdk(cast(dict[str, Any], item)) for item in items]
            await recorder.record_items([record for item in added for record in _records(item)])
            self._history += added
            await recorder.flush()

    async def pop_item(self) -> TResponseInputItem | None:
        """Take the last item back; None where there is none."""
        async with self._lock:
            await self._open(create=False)
            if not self._history:
                return None
            last = self._history[-1]
            await self._replace(self._history[:-1])
            return _to_sdk(last)

    async def clear_session(self) -> None:
        """Begin with an empty history."""
        async with self._lock:
            await self._open(create=False)
            if self._history:
                await self._replace([])

    async def close(self) -> None:
        """Let the thread go, for other processes."""
        async with self._lock:
            recorder, self._recorder = self._recorder, None
            if recorder is not None:
                await recorder.close()

    async def _replace(self, history: list[dict[str, Any]]) -> None:
        recorder = await self._open(create=True)
        await recorder.record_items([items.compacted(history)])
        await recorder.flush()
        self._history = history

    async def _open(self, *, create: bool) -> Any:
        """Resume the thread, or create it; None where it is not there and is not to be created."""
        if self._recorder is not None:
            return self._recorder
        try:
            self._recorder = await AsyncRolloutRecorder.resume(self._state, self.thread_id)
            self._history = conversation(self._recorder.history)
        except ThreadNotFoundError:
            if create:
                self._recorder = await AsyncRolloutRecorder.create(
                    self._state, originator="openai-agents", thread_id=self.thread_id
                )
                if self.session_id != self.thread_id:
                    name = items.thread_name(self.thread_id, self.session_id)
                    await self._recorder.record_items([name])
        return self._recorder


def _records(item: dict[str, Any]) -> list[RolloutItem]:
    """Make the records of a response item, with the event that shows a message to people."""
    record = RolloutItem("response_item", item)
    text = "".join(
        part["text"]
        for part in item.get("content") or ()
        if isinstance(part, dict) and isinstance(part.get("text"), str)
    )
    if item["type"] != "message" or not text:
        return [record]
    if item.get("role") == "user":
        return [record, items.user_message(text)[1]]
    if item.get("role") == "assistant":
        return [items.agent_message(text)[0], record]
    return [record]


def _from_sdk(item: dict[str, Any]) -> dict[str, Any]:
    """Bring the SDK's short forms of a message into the one that Codex reads."""
    form = [] if "type" in item else ["untyped"]
    content = item.get("content")
    if isinstance(content, str):
        form.append("text")
        kind = "output_text" if item.get("role") == "assistant" else "input_text"
        content = [{"type": kind, "text": content}]
    if not form:
        return dict(item)
    return {"type": "message", **item, "content": content, _FORM: form}


def _to_sdk(item: dict[str, Any]) -> TResponseInputItem:
    item = dict(item)
    form = item.pop(_FORM, [])
    if "text" in form:
        item["content"] = item["content"][0]["text"]
    if "untyped" in form:
        del item["type"]
    return cast(TResponseInputItem, item)
