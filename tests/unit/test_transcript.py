"""What of a record a person reads: in each release, and nothing twice."""

from pathlib import Path

import pytest

from rollbook.model.transcript import ItemKind, TranscriptItem
from rollbook.rollout.lines import RolloutItem, decode_line
from rollbook.rollout.transcript import searchable, to_transcript_item
from tests.conftest import CORPUS

ROLLOUTS = sorted(CORPUS.glob("*/home/**/rollout-*.jsonl"))


def records(path: Path) -> list[RolloutItem]:
    return [decode_line(line) for line in path.read_bytes().splitlines()]


def items_of(path: Path) -> list[TranscriptItem]:
    items = (to_transcript_item(record, "x:0") for record in records(path))
    return [item for item in items if item is not None]


def shown(path: Path, event: str, completed: str) -> list[str]:
    """What the release itself shows, by its events."""
    texts: list[str] = []
    for record in records(path):
        if record.type != "event_msg":
            continue
        if record.kind == event:
            texts.append(record.payload["message"])
        elif record.kind == "item_completed" and record.payload["item"]["type"] == completed:
            content = record.payload["item"]["content"]
            texts.append("".join(part.get("text", "") for part in content))
    return [text.strip() for text in texts if text.strip()]


@pytest.mark.parametrize("path", ROLLOUTS, ids=lambda path: path.name[28:46])
def test_each_message_is_there_once(path):
    """As the release showed it, whose events say so; a review is a notice, with what it is about."""
    items = items_of(path)
    messages = [item for item in items if item.kind is ItemKind.MESSAGE and item.text != "[Image]"]
    notices = {item.name: item.text for item in items if item.kind is ItemKind.NOTICE}
    said = [item.text.strip() for item in messages if item.role == "user"]
    answered = [item.text.strip() for item in messages if item.role == "assistant"]
    meta = records(path)[0].payload
    shown_said = shown(path, "user_message", "UserMessage")
    if "subagent" not in meta["source"]:  # else what was said to its parent was copied into it
        assert said == [text for text in shown_said if text != notices.get("review")]
    shown_answers = shown(path, "agent_message", "AgentMessage")
    if "compacted" in notices:  # a summary is an answer, too, and is not shown
        assert set(shown_answers) <= set(answered)
    else:
        assert answered == shown_answers


def test_an_image_alone_is_a_message():
    paths = [path for path in ROLLOUTS if b"input_image" in path.read_bytes()]
    texts = {item.text for path in paths for item in items_of(path) if item.starts_turn}
    assert "[Image]" in texts


@pytest.mark.parametrize("path", ROLLOUTS[::3], ids=lambda path: path.name[28:46])
def test_a_call_and_its_output_belong_together(path):
    items = items_of(path)
    calls = [item.call_id for item in items if item.kind is ItemKind.TOOL_CALL]
    outputs = [item.call_id for item in items if item.kind is ItemKind.TOOL_OUTPUT]
    assert set(outputs) <= set(calls)
    assert all(calls)


KINDS = [
    ("function_call", {"name": "f", "arguments": '{"a": 1}'}, "f", '{"a": 1}'),
    ("custom_tool_call", {"name": "apply_patch", "input": "*** Begin Patch"}, "apply_patch", None),
    ("local_shell_call", {"action": {"command": ["ls", "-l"]}}, "local_shell", "ls -l"),
    ("web_search_call", {"action": {"query": "x"}}, "web_search", '{"query":"x"}'),
    ("new_call", {}, "new", ""),
]


@pytest.mark.parametrize(("kind", "fields", "name", "text"), KINDS)
def test_calls_of_any_kind_are_calls(kind, fields, name, text):
    record = RolloutItem("response_item", {"type": kind, "call_id": "c", **fields})
    item = to_transcript_item(record, "x:0")
    assert (item.kind, item.role, item.name, item.call_id) == (
        ItemKind.TOOL_CALL,
        "tool",
        name,
        "c",
    )
    assert item.text == (fields["input"] if text is None else text)


@pytest.mark.parametrize(
    "payload",
    [
        {},
        {"type": 3},
        {"type": "message"},
        {"type": "message", "role": "user", "content": "x"},
        {"type": "message", "role": "assistant", "content": [None, 3, {"text": 4}]},
        {"type": "reasoning", "summary": {"text": "x"}},
        {"type": "function_call_output", "output": {"content": None, "success": False}},
        {"type": "function_call", "name": [], "arguments": {"a": None}},
        {"type": "exited_review_mode", "review_output": {"findings": [3, {"title": None}]}},
        {"type": "item_completed", "item": 3},
        {"type": "item_completed", "item": {"type": None}},
        {"type": "thread_rolled_back", "num_turns": "three"},
    ],
)
def test_fields_of_an_unforeseen_shape_cost_no_more_than_themselves(payload):
    for kind in ("response_item", "event_msg", "compacted", "unheard_of"):
        record = RolloutItem(kind, payload)
        to_transcript_item(record, "x:0")
        searchable(record)


def test_what_is_found_is_what_is_shown():
    for path in ROLLOUTS[::5]:
        for record in records(path):
            found, item = searchable(record), to_transcript_item(record, "x:0")
            if found is not None:
                assert (item.role, True) == (found[0], item.text in found[1])
