"""Fold the records of a rollout, one after the other, into what is known of its thread.

No I/O, no clock.  Folding the end of a rollout a second time changes nothing, so a reader
that isn't sure where it stopped may start earlier.
"""

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any, ClassVar

import msgspec

from rollbook.errors import InvalidThreadIdError
from rollbook.model.thread import DynamicToolSpec, ThreadMetadata, clean_text, parse_thread_id
from rollbook.model.times import parse_time
from rollbook.rollout.injected import IMAGE_TITLE, cut_title, message_words, own_words
from rollbook.rollout.lines import (
    RolloutItem,
    enumeration_text,
    integer_of,
    is_turn_record,
    list_of,
    object_of,
    text_of,
    total_usage,
)

_OF_SPAWN = tuple((key, key) for key in ("parent_thread_id", "agent_nickname", "agent_role"))
_OF_META = (
    *_OF_SPAWN,
    *((key, key) for key in ("model_provider", "cwd", "cli_version", "originator")),
    ("forked_from_id", "forked_from_id"),
)
_OF_CONTEXT = (("cwd", "cwd"), ("model", "model"))
_OF_SETTINGS = (*_OF_CONTEXT, ("model_provider_id", "model_provider"))
_OF_USAGE = (
    ("total_tokens", "tokens_used"),
    *(
        (key, key)
        for key in (
            "input_tokens",
            "cached_input_tokens",
            "output_tokens",
            "reasoning_output_tokens",
        )
    ),
)
_KINDS_INSIDE = ("event_msg", "response_item")
_MAX_TIMES = 256


class FoldState(msgspec.Struct, frozen=True, omit_defaults=True):
    """What the fold remembers of the records so far, beside the metadata.

    ``has_title``: the title comes from one of them.  ``title_is_tentative``: it comes from a message
    that no event has confirmed yet; an event in the same turn says what the person really wrote.
     ``own_from``: records with a smaller
    ordinal were copied from the parent of a sub-agent and say nothing of this thread.
    ``has_meta``: the thread's own session meta was among the records.
    """

    has_title: bool = False
    title_is_tentative: bool = False
    own_from: int = 0
    has_meta: bool = False


def encode_state(state: FoldState) -> str:
    """Write a state as the JSON text that is stored."""
    return msgspec.json.encode(state).decode()


def decode_state(text: str) -> FoldState | None:
    """Read a stored state; None for that of another release, or a damaged one."""
    try:
        return msgspec.json.decode(text, type=FoldState)
    except msgspec.MsgspecError:
        return None


_Handler = Callable[["ThreadFold", Mapping[str, Any]], None]


class ThreadFold:
    """What is known of a thread, as one record after the other is taken in.

    Begins with what was known before; ``metadata``, ``state`` and ``tools`` say what it has come to.
    """

    def __init__(
        self, metadata: ThreadMetadata, state: FoldState, default_provider: str = ""
    ) -> None:
        self._before = metadata
        self._default_provider = default_provider
        self._changes: dict[str, Any] = {}
        self._usage: Mapping[str, Any] = {}
        self._times: list[str] = []  # of records of turns; the last that is a time counts
        self._title = metadata.title
        self._has_user_event = metadata.has_user_event
        self._has_title = state.has_title
        self._title_is_tentative = state.title_is_tentative
        self._own_from = state.own_from
        self._has_meta = state.has_meta
        self._tools: tuple[DynamicToolSpec, ...] | None = None

    @property
    def changes(self) -> dict[str, Any]:
        """What is known now of the thread's fields that were told of, by name."""
        changes = dict(self._changes)
        if self._usage:
            changes |= {field: _count(self._usage, key) for key, field in _OF_USAGE}
        last_time = self._last_time()
        if last_time is not None:
            changes["recency_at"] = last_time
        if not (self._before.model_provider or changes.get("model_provider")):
            changes["model_provider"] = self._default_provider
        return changes

    @property
    def metadata(self) -> ThreadMetadata:
        """The thread as it is known now."""
        return msgspec.structs.replace(self._before, **self.changes)

    @property
    def state(self) -> FoldState:
        """What the fold has to remember beside the metadata."""
        return FoldState(
            has_title=self._has_title,
            title_is_tentative=self._title_is_tentative,
            own_from=self._own_from,
            has_meta=self._has_meta,
        )

    @property
    def tools(self) -> tuple[DynamicToolSpec, ...]:
        """The dynamic tools of the first session meta that was taken in and is the thread's own.

        The reference takes those of the first of any thread, which can give a fork the tools of its
        source (behaviour.md 28).
        """
        return self._tools or ()

    @property
    def is_settled(self) -> bool:
        """Whether nothing that anybody says from now on can change anything but the recency."""
        return self._has_title and not self._title_is_tentative and self._has_user_event

    @property
    def own_from(self) -> int:
        """From which ordinal on the records are the thread's own."""
        return self._own_from

    def take(self, item: RolloutItem) -> None:
        """Take one record in.

        Source: behaviour.md 38 to 58; line types of later releases as the corpus shows them.
        """
        if is_copied(item.ordinal, self._own_from):
            return
        kind = item.kind if item.type in _KINDS_INSIDE else ""
        handler = self._handlers.get((item.type, kind))
        if handler is not None:
            handler(self, item.payload)
        if is_turn_record(item):
            self._times.append(item.timestamp)
            if len(self._times) >= _MAX_TIMES:
                self._last_time()

    def _last_time(self) -> datetime | None:
        """Find the last text that is a time, and forget those before it."""
        while self._times:
            last_time = parse_time(self._times[-1])
            if last_time is not None:
                del self._times[:-1]
                return last_time
            self._times.pop()
        return None

    def _session_meta(self, payload: Mapping[str, Any]) -> None:
        if not is_meta_of(payload, self._before.id):
            return
        source = payload.get("source", "vscode")
        spawn = _thread_spawn(source)
        changes = self._changes
        changes["source"] = enumeration_text(source)
        if spawn:
            _take_texts(spawn, _OF_SPAWN, changes)
        _take_texts(payload, _OF_META, changes)
        if isinstance(payload.get("git"), dict):
            git = object_of(payload, "git")
            changes["git_sha"] = text_of(git, "commit_hash") or None
            changes["git_branch"] = text_of(git, "branch") or None
            changes["git_origin_url"] = text_of(git, "repository_url") or None
        self._own_from = max(integer_of(payload, "subagent_history_start_ordinal"), self._own_from)
        self._has_meta = True
        if self._tools is None:
            self._tools = dynamic_tools_of(payload)

    def _turn_context(self, payload: Mapping[str, Any]) -> None:
        changes = self._changes
        _take_texts(payload, _OF_CONTEXT, changes)
        changes |= _policies(payload)
        # Turn contexts that carry a truncation policy are of releases up to 0.125, which stored the
        # sandbox policy although a permission profile stood beside it.
        profile, policy = payload.get("permission_profile"), payload.get("sandbox_policy")
        if profile is not None and (policy is None or "truncation_policy" not in payload):
            changes["sandbox_policy"] = enumeration_text(profile)
        elif policy is not None:
            changes["sandbox_policy"] = enumeration_text(policy)
        changes["reasoning_effort"] = text_of(payload, "effort") or None

    def _thread_settings(self, payload: Mapping[str, Any]) -> None:
        settings = object_of(payload, "thread_settings")
        changes = self._changes
        _take_texts(settings, _OF_SETTINGS, changes)
        changes |= _policies(settings)
        if settings.get("permission_profile") is not None:
            changes["sandbox_policy"] = enumeration_text(settings["permission_profile"])
        mode = object_of(object_of(settings, "collaboration_mode"), "settings")
        if "reasoning_effort" in mode:
            changes["reasoning_effort"] = text_of(mode, "reasoning_effort") or None

    def _thread_name(self, payload: Mapping[str, Any]) -> None:
        name = clean_text(text_of(payload, "thread_name") or text_of(payload, "name")).strip()
        self._changes["name"] = name or None

    def _event(self, payload: Mapping[str, Any]) -> None:
        self._said(*_words_of_event(payload), confirmed=True)

    def _message(self, payload: Mapping[str, Any]) -> None:
        if payload.get("role") == "user":
            words, has_image = message_words(payload)
            self._said(words, has_image, confirmed=False)

    def _said(self, words: str | None, has_image: bool, *, confirmed: bool) -> None:
        """The person said something: the first of it is the title (behaviour.md 43 to 46)."""
        if words is None and not has_image:
            return
        self._has_user_event = self._changes["has_user_event"] = True
        if self._title and not (confirmed and self._title_is_tentative):
            return
        title = _title(words, has_image)
        if title:
            self._title = self._changes["title"] = self._changes["preview"] = title
            self._has_title, self._title_is_tentative = True, not confirmed

    def _token_count(self, payload: Mapping[str, Any]) -> None:
        if isinstance(payload.get("info"), dict):
            self._used(payload)

    def _used(self, payload: Mapping[str, Any]) -> None:
        """The model answered: that ends the turn's doubt about the title, and is counted."""
        self._title_is_tentative = False
        usage = total_usage(payload)
        if "total_tokens" in usage:
            self._usage = usage

    _handlers: ClassVar[Mapping[tuple[str, str], _Handler]] = {
        ("session_meta", ""): _session_meta,
        ("turn_context", ""): _turn_context,
        ("token_usage_record", ""): _used,
        ("response_item", "message"): _message,
        ("event_msg", "user_message"): _event,
        ("event_msg", "item_completed"): _event,
        ("event_msg", "token_count"): _token_count,
        ("event_msg", "thread_settings_applied"): _thread_settings,
        ("event_msg", "thread_name_updated"): _thread_name,
    }


def is_copied(ordinal: int | None, own_from: int) -> bool:
    """Say whether a record was copied from the parent of a sub-agent and says nothing of this thread."""
    return ordinal is not None and 0 <= ordinal < own_from


def outdoes_earlier(item: RolloutItem) -> bool:
    """Say whether a turn context, or a record of usage, leaves nothing of an earlier one."""
    payload = item.payload
    if item.type != "turn_context":
        return "total_tokens" in total_usage(payload)
    has_policy = payload.get("permission_profile") or payload.get("sandbox_policy")
    has_texts = text_of(payload, "cwd") and text_of(payload, "model")
    return bool(has_texts and has_policy and payload.get("approval_policy"))


def tells_title(item: RolloutItem) -> bool:
    """Say whether an event tells the title: it outdoes the messages before it in its turn."""
    return item.type == "event_msg" and bool(_title(*_words_of_event(item.payload)))


def _words_of_event(payload: Mapping[str, Any]) -> tuple[str | None, bool]:
    """What the person says in an event, and whether there is an image; (None, False) for nothing."""
    if payload.get("type") == "user_message":
        words = own_words(text_of(payload, "message"))
        return words, bool(list_of(payload, "images") or list_of(payload, "local_images"))
    item = object_of(payload, "item")
    if payload.get("type") != "item_completed" or item.get("type") != "UserMessage":
        return None, False
    parts = [part for part in list_of(item, "content") if isinstance(part, dict)]
    words = own_words("".join(text_of(part, "text") for part in parts))
    return words, any(part.get("type") in ("image", "local_image") for part in parts)


def _title(words: str | None, has_image: bool) -> str:
    return clean_text(cut_title(words or "")) or (IMAGE_TITLE if has_image else "")


def dynamic_tools_of(payload: Mapping[str, Any]) -> tuple[DynamicToolSpec, ...]:
    """Read the dynamic tools of a session meta, those inside a namespace flattened."""
    tools: list[DynamicToolSpec] = []
    for entry in list_of(payload, "dynamic_tools"):
        if not isinstance(entry, dict):
            continue
        if entry.get("type") == "namespace":
            namespace = text_of(entry, "name")
            inner = [tool for tool in list_of(entry, "tools") if isinstance(tool, dict)]
            tools.extend(_tool(tool, namespace) for tool in inner)
        else:
            tools.append(_tool(entry, text_of(entry, "namespace") or None))
    return tuple(tools)


def _tool(entry: Mapping[str, Any], namespace: str | None) -> DynamicToolSpec:
    return DynamicToolSpec(
        name=clean_text(text_of(entry, "name")),
        description=clean_text(text_of(entry, "description")),
        input_schema=entry.get("inputSchema", entry.get("input_schema")),
        defer_loading=entry.get("deferLoading", entry.get("defer_loading")) is True,
        namespace=namespace,
    )


def _take_texts(
    payload: Mapping[str, Any], keys: Iterable[tuple[str, str]], changes: dict[str, Any]
) -> None:
    """Take the texts that are there: of each key in the payload, the metadata field it is for."""
    for key, field in keys:
        text = payload.get(key)
        if text and isinstance(text, str):
            changes[field] = clean_text(text)


def is_meta_of(payload: Mapping[str, Any], thread_id: str) -> bool:
    """Say whether a session meta is that of a thread, and not of another it was forked from."""
    try:
        return parse_thread_id(text_of(payload, "id")) == thread_id
    except InvalidThreadIdError:
        return False


def _thread_spawn(source: Any) -> Mapping[str, Any]:
    if not isinstance(source, dict) or not isinstance(source.get("subagent"), dict):
        return {}
    return object_of(source["subagent"], "thread_spawn")


def _policies(payload: Mapping[str, Any]) -> dict[str, str]:
    policy = payload.get("approval_policy")
    return {} if policy is None else {"approval_mode": enumeration_text(policy)}


def _count(usage: Mapping[str, Any], key: str) -> int:
    """A count as databases keep it: not negative (behaviour.md 42), below 2 to the 63."""
    return min(max(integer_of(usage, key), 0), (1 << 63) - 1)
