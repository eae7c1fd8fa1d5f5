"""Fold the records of a rollout, one after the other, into what is known of its thread.

Pure: no I/O, no clock.  Folding the end of a rollout a second time changes nothing, so a reader
that isn't sure where it stopped may start earlier.
"""

from collections.abc import Callable, Mapping
from typing import Any

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
)


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


_Folded = tuple[ThreadMetadata, FoldState]
_Handler = Callable[[ThreadMetadata, FoldState, Mapping[str, Any]], _Folded]


def fold(
    metadata: ThreadMetadata, item: RolloutItem, state: FoldState, default_provider: str
) -> _Folded:
    """Fold one record in; returns the metadata and the state after it.

    Source: behaviour.md 38 to 58; line types of later releases as the corpus shows them.
    """
    if item.ordinal is not None and 0 <= item.ordinal < state.own_from:
        return metadata, state
    handler = _HANDLERS.get((item.type, _kind(item)))
    if handler is not None:
        metadata, state = handler(metadata, state, item.payload)
    if is_turn_record(item):
        metadata = with_recency(metadata, item.timestamp)
    if not metadata.model_provider:
        metadata = _replace(metadata, model_provider=default_provider)
    return metadata, state


def with_recency(metadata: ThreadMetadata, timestamp: str) -> ThreadMetadata:
    """Set the time of the last turn record; a text that is no time changes nothing."""
    time = parse_time(timestamp)
    if time is None or time == metadata.recency_at:
        return metadata
    return _replace(metadata, recency_at=time.replace(microsecond=0))


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


def _kind(item: RolloutItem) -> str:
    return item.kind if item.type in ("event_msg", "response_item") else ""


def _replace(metadata: ThreadMetadata, **changes: Any) -> ThreadMetadata:
    return msgspec.structs.replace(metadata, **changes)


def _texts(payload: Mapping[str, Any], **fields: str) -> dict[str, str]:
    """Pick the texts that are there: metadata field = key in the payload."""
    found = {field: text_of(payload, key) for field, key in fields.items()}
    return {field: clean_text(text) for field, text in found.items() if text}


def _session_meta(
    metadata: ThreadMetadata, state: FoldState, payload: Mapping[str, Any]
) -> _Folded:
    if not is_meta_of(payload, metadata.id):
        return metadata, state
    source = payload.get("source", "vscode")
    spawn = _thread_spawn(source)
    changes: dict[str, Any] = {"source": enumeration_text(source)}
    changes |= _texts(spawn, parent_thread_id="parent_thread_id")
    for origin in (spawn, payload):
        changes |= _texts(origin, agent_nickname="agent_nickname", agent_role="agent_role")
    changes |= _texts(
        payload,
        model_provider="model_provider",
        cwd="cwd",
        cli_version="cli_version",
        originator="originator",
        forked_from_id="forked_from_id",
        parent_thread_id="parent_thread_id",
    )
    if isinstance(payload.get("git"), dict):
        git = object_of(payload, "git")
        changes["git_sha"] = text_of(git, "commit_hash") or None
        changes["git_branch"] = text_of(git, "branch") or None
        changes["git_origin_url"] = text_of(git, "repository_url") or None
    own_from = max(integer_of(payload, "subagent_history_start_ordinal"), state.own_from)
    state = msgspec.structs.replace(state, own_from=own_from, has_meta=True)
    return _replace(metadata, **changes), state


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


def _turn_context(
    metadata: ThreadMetadata, state: FoldState, payload: Mapping[str, Any]
) -> _Folded:
    changes: dict[str, Any] = _texts(payload, cwd="cwd", model="model")
    changes |= _policies(payload)
    # Turn contexts that carry a truncation policy are of releases up to 0.125, which stored the
    # sandbox policy although a permission profile stood beside it.
    profile, policy = payload.get("permission_profile"), payload.get("sandbox_policy")
    if profile is not None and (policy is None or "truncation_policy" not in payload):
        changes["sandbox_policy"] = enumeration_text(profile)
    elif policy is not None:
        changes["sandbox_policy"] = enumeration_text(policy)
    changes["reasoning_effort"] = text_of(payload, "effort") or None
    return _replace(metadata, **changes), state


def _thread_settings(
    metadata: ThreadMetadata, state: FoldState, payload: Mapping[str, Any]
) -> _Folded:
    settings = object_of(payload, "thread_settings")
    changes: dict[str, Any] = _texts(
        settings, cwd="cwd", model="model", model_provider="model_provider_id"
    )
    changes |= _policies(settings)
    if settings.get("permission_profile") is not None:
        changes["sandbox_policy"] = enumeration_text(settings["permission_profile"])
    mode = object_of(object_of(settings, "collaboration_mode"), "settings")
    if "reasoning_effort" in mode:
        changes["reasoning_effort"] = text_of(mode, "reasoning_effort") or None
    return _replace(metadata, **changes), state


def _policies(payload: Mapping[str, Any]) -> dict[str, str]:
    policy = payload.get("approval_policy")
    return {} if policy is None else {"approval_mode": enumeration_text(policy)}


def _user_event(metadata: ThreadMetadata, state: FoldState, payload: Mapping[str, Any]) -> _Folded:
    words = own_words(text_of(payload, "message"))
    has_image = bool(list_of(payload, "images") or list_of(payload, "local_images"))
    return _said(metadata, state, words, has_image, confirmed=True)


def _item_completed(
    metadata: ThreadMetadata, state: FoldState, payload: Mapping[str, Any]
) -> _Folded:
    item = object_of(payload, "item")
    if item.get("type") != "UserMessage":
        return metadata, state
    parts = [part for part in list_of(item, "content") if isinstance(part, dict)]
    words = own_words("".join(text_of(part, "text") for part in parts))
    has_image = any(part.get("type") in ("image", "local_image") for part in parts)
    return _said(metadata, state, words, has_image, confirmed=True)


def _message(metadata: ThreadMetadata, state: FoldState, payload: Mapping[str, Any]) -> _Folded:
    if payload.get("role") != "user":
        return metadata, state
    words, has_image = message_words(payload)
    return _said(metadata, state, words, has_image, confirmed=False)


def _said(
    metadata: ThreadMetadata,
    state: FoldState,
    words: str | None,
    has_image: bool,
    *,
    confirmed: bool,
) -> _Folded:
    """The person said something: the first of it is the title (behaviour.md 43 to 46)."""
    if words is None and not has_image:
        return metadata, state
    title = clean_text(cut_title(words or "")) or (IMAGE_TITLE if has_image else "")
    if title and (not metadata.title or (confirmed and state.title_is_tentative)):
        metadata = _replace(metadata, title=title, preview=title, has_user_event=True)
        state = msgspec.structs.replace(state, has_title=True, title_is_tentative=not confirmed)
    elif not metadata.has_user_event:
        metadata = _replace(metadata, has_user_event=True)
    return metadata, state


def _token_count(metadata: ThreadMetadata, state: FoldState, payload: Mapping[str, Any]) -> _Folded:
    info = payload.get("info")
    if not isinstance(info, dict):
        return metadata, state
    return _used(metadata, state, object_of(info, "total_token_usage"))


def _token_usage_record(
    metadata: ThreadMetadata, state: FoldState, payload: Mapping[str, Any]
) -> _Folded:
    return _used(metadata, state, object_of(payload, "thread_token_usage"))


def _used(metadata: ThreadMetadata, state: FoldState, usage: Mapping[str, Any]) -> _Folded:
    """The model answered: that ends the turn's doubt about the title, and is counted."""
    state = msgspec.structs.replace(state, title_is_tentative=False)
    if "total_tokens" not in usage:
        return metadata, state
    metadata = _replace(
        metadata,
        tokens_used=_count(usage, "total_tokens"),
        input_tokens=_count(usage, "input_tokens"),
        cached_input_tokens=_count(usage, "cached_input_tokens"),
        output_tokens=_count(usage, "output_tokens"),
        reasoning_output_tokens=_count(usage, "reasoning_output_tokens"),
    )
    return metadata, state


def _count(usage: Mapping[str, Any], key: str) -> int:
    """A count as databases keep it: not negative (behaviour.md 42), below 2 to the 63."""
    return min(max(integer_of(usage, key), 0), (1 << 63) - 1)


def _thread_name(metadata: ThreadMetadata, state: FoldState, payload: Mapping[str, Any]) -> _Folded:
    name = clean_text(text_of(payload, "thread_name") or text_of(payload, "name")).strip()
    return _replace(metadata, name=name or None), state


_HANDLERS: Mapping[tuple[str, str], _Handler] = {
    ("session_meta", ""): _session_meta,
    ("turn_context", ""): _turn_context,
    ("token_usage_record", ""): _token_usage_record,
    ("response_item", "message"): _message,
    ("event_msg", "user_message"): _user_event,
    ("event_msg", "item_completed"): _item_completed,
    ("event_msg", "token_count"): _token_count,
    ("event_msg", "thread_settings_applied"): _thread_settings,
    ("event_msg", "thread_name_updated"): _thread_name,
}
