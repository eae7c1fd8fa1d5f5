import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollbook import ThreadMetadata
from rollbook.rollout.fold import FoldState, ThreadFold, dynamic_tools_of
from rollbook.rollout.lines import RolloutItem, decode_line
from rollbook.testing import (
    make_line,
    make_thread,
    message,
    session_meta,
    token_count,
    user_message,
)

ID = "55555555-5555-4555-8555-555555555555"
AGENTS = "# AGENTS.md instructions for /x\n\n<INSTRUCTIONS>\nUse tabs.\n</INSTRUCTIONS>"


def completed(*content: dict) -> bytes:
    item = {"type": "UserMessage", "content": list(content)}
    return make_line("event_msg", {"type": "item_completed", "item": item})


def folded(*lines: bytes):
    metadata = make_thread(id=ID, title="", has_user_event=False, cwd="", model_provider="")
    thread = ThreadFold(metadata, FoldState(), "default")
    for line in lines:
        thread.take(decode_line(line))
    return thread.metadata


@pytest.mark.parametrize(
    "lines",
    [
        [user_message("Hello")],
        [message("Hello")],
        [completed({"type": "text", "text": "Hello"})],
        [message(AGENTS), message("Hello"), user_message("Hello")],
        [message("Hello"), user_message("Hello"), user_message("Second")],
        [user_message("   "), user_message("Hello")],
        [
            message("a notice of a kind that nobody knows yet"),
            message("Hello"),
            user_message("Hello"),
        ],
    ],
)
def test_the_title_is_the_first_thing_the_person_wrote(lines):
    thread = folded(*lines)
    assert (thread.title, thread.has_user_event) == ("Hello", True)


def test_a_first_message_without_an_event_stays_the_title_once_it_was_answered():
    assert (
        folded(message("Hello"), token_count(3), message("Next"), user_message("Next")).title
        == "Hello"
    )


def test_injected_text_alone_is_no_user_event():
    thread = folded(message(AGENTS), message("<environment_context>x</environment_context>"))
    assert (thread.title, thread.has_user_event) == ("", False)


@pytest.mark.parametrize(
    "line",
    [
        make_line("event_msg", {"type": "user_message", "message": "", "images": ["data:"]}),
        make_line("event_msg", {"type": "user_message", "message": " ", "local_images": ["a.png"]}),
        completed({"type": "image", "image_url": "data:"}),
        completed({"type": "local_image", "path": "a.png"}),
        make_line(
            "response_item",
            {"type": "message", "role": "user", "content": [{"type": "input_image"}]},
        ),
    ],
)
def test_an_image_alone_gives_a_title(line):
    thread = folded(line, token_count(1), user_message("Text comes second"))
    assert (thread.title, thread.preview, thread.has_user_event) == ("[Image]", "[Image]", True)


def test_lines_that_a_sub_agent_inherits_are_not_its_own():
    meta = session_meta(ID, subagent_history_start_ordinal=3)
    thread = folded(
        meta,
        message("The parent's prompt", ordinal=1),
        token_count(50, ordinal=2, timestamp="2027-01-01T00:00:00Z"),
        user_message("Its own task", ordinal=3),
    )
    assert (thread.title, thread.tokens_used) == ("Its own task", 0)
    assert thread.recency_at.year == 2026


def test_a_sub_agent_says_who_and_whose_it_is():
    spawn = {"parent_thread_id": "p", "depth": 1, "agent_nickname": "Fermat", "agent_role": "x"}
    thread = folded(session_meta(ID, source={"subagent": {"thread_spawn": spawn}}))
    assert (thread.parent_thread_id, thread.agent_nickname, thread.agent_role) == (
        "p",
        "Fermat",
        "x",
    )
    assert json.loads(thread.source) == {"subagent": {"thread_spawn": spawn}}
    assert thread.source.startswith('{"subagent":{"thread_spawn":{"parent_thread_id":"p",')


def test_settings_are_taken_from_turns_and_from_settings_events():
    context = {
        "cwd": "/turn",
        "approval_policy": "never",
        "sandbox_policy": {"type": "read-only"},
        "permission_profile": {"type": "disabled"},
        "model": "m1",
        "effort": "high",
    }
    thread = folded(session_meta(ID), make_line("turn_context", context))
    assert (thread.cwd, thread.model, thread.reasoning_effort) == ("/turn", "m1", "high")
    assert thread.sandbox_policy == '{"type":"disabled"}'
    settings = {
        "cwd": "/set",
        "approval_policy": {"granular": {"b": 1, "a": 2}},
        "permission_profile": {"type": "managed"},
        "model": "m2",
        "collaboration_mode": {"settings": {"reasoning_effort": None}},
    }
    applied = make_line(
        "event_msg", {"type": "thread_settings_applied", "thread_settings": settings}
    )
    thread = folded(session_meta(ID), make_line("turn_context", context), applied)
    assert (thread.cwd, thread.model, thread.reasoning_effort) == ("/set", "m2", None)
    assert thread.approval_mode == '{"granular":{"b":1,"a":2}}'
    assert thread.sandbox_policy == '{"type":"managed"}'


def test_recency_is_that_of_the_last_turn_record():
    thread = folded(
        session_meta(ID),
        user_message("Hi", timestamp="2026-03-01T10:00:00.5Z"),
        session_meta(ID, memory_mode="disabled"),
        make_line(
            "event_msg",
            {"type": "thread_name_updated", "thread_name": "Named"},
            timestamp="2026-04-01T00:00:00Z",
        ),
    )
    assert (str(thread.recency_at), thread.name) == ("2026-03-01 10:00:00+00:00", "Named")


def test_tools_keep_their_order_and_the_order_of_their_keys():
    schema = {"type": "object", "zeta": 1, "alpha": {"ó": [1.0, 1e3]}}
    payload = {
        "dynamic_tools": [
            {"name": "b", "description": "", "inputSchema": schema},
            {"type": "function", "name": "a", "inputSchema": {}, "deferLoading": True},
            {"type": "namespace", "name": "n", "tools": [{"name": "c", "inputSchema": {}}]},
            "no tool",
        ]
    }
    tools = dynamic_tools_of(payload)
    assert [(tool.name, tool.defer_loading, tool.namespace) for tool in tools] == [
        ("b", False, None),
        ("a", True, None),
        ("c", False, "n"),
    ]
    assert json.dumps(tools[0].input_schema) == json.dumps(schema)


Folded = tuple[ThreadMetadata, FoldState]
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=10,
)
KEYS = [
    "info",
    "item",
    "cwd",
    "source",
    "git",
    "model",
    "content",
    "message",
    "dynamic_tools",
    "thread_token_usage",
    "subagent_history_start_ordinal",
]


@given(
    st.sampled_from(
        ["session_meta", "turn_context", "event_msg", "response_item", "token_usage_record"]
    ),
    st.sampled_from(["user_message", "message", "token_count", "item_completed", "x"]),
    st.dictionaries(st.sampled_from(KEYS), json_values),
    st.text(max_size=30),
)
def test_no_payload_whatever_its_shape_is_an_error(kind, event, payload, timestamp):
    thread = ThreadFold(make_thread(id=ID), FoldState(), "default")
    item = RolloutItem(kind, {"id": ID, "role": "user", **payload, "type": event}, timestamp)
    thread.take(item)
    after = thread.metadata, thread.state
    assert after[0].id == ID
    assert msgspec.json.decode(msgspec.json.encode(after), type=Folded) == after
