"""All records of a thread, and what of them the model would be given again."""

import json
import uuid
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rollbook import RolloutItem, conversation, items
from rollbook.errors import RolloutError
from rollbook.rollout.history import as_legacy, files_of, read_items
from rollbook.rollout.layout import list_rollouts
from rollbook.testing import make_line, session_meta, user_message, write_rollout
from tests.conftest import CORPUS, RELEASES

ID = "66666666-6666-4666-8666-666666666666"
BASE_ID = "99999999-9999-4999-8999-999999999999"


def said(home: Path, thread_id: str = ID) -> list[Any]:
    return [i.payload.get("message", i.type) for i in read_items(home, thread_id)]


# Reading


def test_records_are_read_in_order_and_of_a_thread_without_a_rollout_there_are_none(home):
    write_rollout(home, ID, [session_meta(ID), user_message("a"), user_message("b")])
    assert said(home) == ["session_meta", "a", "b"]
    assert said(home, BASE_ID) == []


def test_lines_that_cant_be_read_are_passed_over(home):
    write_rollout(
        home,
        ID,
        [
            session_meta(ID),
            b"",
            b"   ",
            b"no json",
            b"[]",
            b'{"type":"event_msg"}',
            b'{"timestamp":"","type":"event_msg","payload":[]}',
            b"\xff\xfe",
            user_message("a") + b"\r",
            b"\0\0\0",
            user_message("b"),
            user_message("torn")[:-1],
        ],
    )
    assert said(home) == ["session_meta", "a", "b"]


def test_a_last_line_without_a_line_break_counts(home):
    path = write_rollout(home, ID, [session_meta(ID), user_message("a")])
    path.write_bytes(path.read_bytes()[:-1])
    assert said(home) == ["session_meta", "a"]


@settings(deadline=None, max_examples=30)
@given(cut=st.integers(1, len(user_message("torn")) - 1))
def test_of_two_records_fused_by_a_crash_the_second_is_read(tmp_path_factory, cut):
    """So it is by a sync: what a thread's row tells of is in its history, too."""
    home = tmp_path_factory.mktemp("home")
    fused = user_message("torn")[:cut] + user_message("whole")
    write_rollout(home, ID, [session_meta(ID), fused, user_message("b")])
    assert said(home) == ["session_meta", "whole", "b"]


def test_later_segments_follow_the_first_file(home):
    for segment in ("b", "a", ""):
        head = [] if segment else [session_meta(ID)]
        write_rollout(home, ID, [*head, user_message(segment or "first")], segment=segment)
    assert said(home) == ["session_meta", "first", "a", "b"]
    assert len(files_of(home, ID)) == 3


@pytest.mark.parametrize("release", RELEASES)
def test_every_line_of_every_file_is_read(release):
    home = CORPUS / release / "home"
    for path, file in list_rollouts(home).files.items():
        if file.compressed:
            continue
        content = (home / path).read_bytes()
        lines = [json.loads(line) for line in content.splitlines()]
        if "history_base" in lines[0]["payload"]:
            continue
        thread_id = Path(path).name[28:64]
        assert [
            (i.timestamp, i.type, i.payload, i.ordinal) for i in read_items(home, thread_id)
        ] == [
            (line["timestamp"], line["type"], line["payload"], line.get("ordinal"))
            for line in lines
        ]


# Threads that begin in another one


def base(thread_id: str = BASE_ID, **values: Any) -> dict[str, Any]:
    return {"history_base": {"thread_id": thread_id, **values}}


def write_base(home: Path, *texts: str) -> list[int]:
    """Write the other thread; returns the offsets at which its lines end."""
    lines = [session_meta(BASE_ID), *(user_message(text) for text in texts)]
    content = write_rollout(home, BASE_ID, lines).read_bytes()
    return [at + 1 for at, byte in enumerate(content) if byte == ord("\n")]


def test_a_thread_that_begins_in_another_has_the_records_of_that_up_to_there(home):
    ends = write_base(home, "a", "b", "c")
    own = [session_meta(ID, **base(end_byte_offset=ends[2])), user_message("own")]
    write_rollout(home, ID, own)
    assert said(home) == ["session_meta", "session_meta", "a", "b", "own"]


@pytest.mark.parametrize("line", range(4))
def test_the_end_in_the_other_thread_may_be_at_any_line(home, line):
    ends = write_base(home, "a", "b", "c")
    write_rollout(home, ID, [session_meta(ID, **base(end_byte_offset=ends[line]))])
    assert said(home) == ["session_meta", "session_meta", "a", "b", "c"][: line + 2]


def test_a_lineage_of_several_threads_is_followed_to_its_beginning(home):
    ends = write_base(home, "a", "b")
    parent, size = BASE_ID, ends[1]
    for name in "xyz":
        thread_id = str(uuid.uuid4())
        lines = [session_meta(thread_id, **base(parent, end_byte_offset=size)), user_message(name)]
        path = write_rollout(home, thread_id, lines)
        parent, size = thread_id, path.stat().st_size
    assert [text for text in said(home, parent) if text != "session_meta"] == ["a", "x", "y", "z"]


@pytest.mark.parametrize("parent", [ID, BASE_ID])
def test_a_lineage_that_is_broken_or_leads_in_a_circle_is_a_rollout_error(home, parent):
    write_rollout(home, ID, [session_meta(ID, **base(parent, end_byte_offset=10_000))])
    with pytest.raises(RolloutError, match="whose rollout is gone"):
        list(read_items(home, ID))


@pytest.mark.parametrize("value", [None, 3, [], {}, {"thread_id": 3}, {"thread_id": ""}])
def test_a_base_that_names_no_thread_is_none(home, value):
    write_rollout(home, ID, [session_meta(ID, history_base=value), user_message("own")])
    assert said(home) == ["session_meta", "own"]


# As older releases write them


@pytest.mark.parametrize("release", [r for r in RELEASES if r < "0.155"])
def test_threads_of_releases_without_ordinals_are_legacy_as_they_are(release):
    home = CORPUS / release / "home"
    for path in list_rollouts(home).files:
        records = list(read_items(home, Path(path).name[28:64]))
        assert list(as_legacy(records)) == records


def completed(kind: str, *texts: str) -> RolloutItem:
    content = [{"type": "text", "text": text} for text in texts]
    return RolloutItem(
        "event_msg", {"type": "item_completed", "item": {"type": kind, "content": content}}
    )


def test_what_was_said_in_a_paginated_thread_is_shown_by_events(home):
    meta = RolloutItem("session_meta", {"id": ID, "history_mode": "paginated", "history_base": {}})
    records = [meta, completed("UserMessage", "a", "b"), completed("AgentMessage", "c")]
    silent = [completed("UserMessage"), completed("Plan", "x"), RolloutItem("event_msg", {})]
    legacy = list(as_legacy(records + silent))
    assert legacy[0].payload == {"id": ID}
    shown = [r.payload for r in legacy if r.kind in ("user_message", "agent_message")]
    assert [(p["type"], p["message"]) for p in shown] == [
        ("user_message", "ab"),
        ("agent_message", "c"),
    ]
    assert [r for r in legacy[1:] if r.kind == "item_completed"] == [*records[1:], *silent[:2]]


def test_completed_items_of_other_threads_are_left_alone():
    meta = RolloutItem("session_meta", {"id": ID})
    records = [meta, completed("UserMessage", "a")]
    assert list(as_legacy(records)) == records


# The conversation


def user(text: str) -> RolloutItem:
    return items.message("user", text)


def agent(text: str) -> RolloutItem:
    return items.message("assistant", text)


def rolled_back(turns: Any) -> RolloutItem:
    return RolloutItem("event_msg", {"type": "thread_rolled_back", "num_turns": turns})


def texts(records: list[RolloutItem]) -> list[str]:
    return [item["content"][0]["text"] for item in conversation(records)]


def test_the_conversation_has_the_response_items_only():
    call = items.function_call("f", {}, "1")
    records = [
        RolloutItem("session_meta", {"id": ID}),
        *items.user_message("a"),
        items.turn_context("m", "/"),
        call,
        *items.agent_message("b"),
        items.token_count(1),
    ]
    assert conversation(records) == [user("a").payload, call.payload, agent("b").payload]
    assert conversation([]) == []


def test_a_compaction_replaces_what_came_before():
    records = [user("a"), agent("b"), items.compacted([user("s").payload]), agent("c")]
    assert texts(records) == ["s", "c"]
    assert texts([user("a"), items.compacted([])]) == []
    assert texts([user("a"), RolloutItem("compacted", {"message": "no replacement"})]) == ["a"]
    odd = RolloutItem("compacted", {"replacement_history": [3, user("s").payload]})
    assert texts([user("a"), odd]) == ["s"]


@pytest.mark.parametrize(
    ("turns", "left"),
    [
        (0, ["a", "b", "c", "d"]),
        (1, ["a", "b"]),
        (2, []),
        (3, []),
        (-1, ["a", "b", "c", "d"]),
        ("1", ["a", "b", "c", "d"]),
        (None, ["a", "b", "c", "d"]),
    ],
)
def test_a_rollback_takes_turns_away(turns, left):
    records = [user("a"), agent("b"), user("c"), agent("d")]
    assert texts([*records, rolled_back(turns)]) == left
    assert texts([*records, rolled_back(turns), user("e")]) == [*left, "e"]


def test_what_was_injected_in_the_persons_name_begins_no_turn():
    environment = user("<environment_context>\n  <cwd>/x</cwd>\n</environment_context>")
    records = [environment, user("a"), agent("b"), environment, user("c")]
    assert texts([*records, rolled_back(1)]) == texts(records[:4])
    assert texts([*records, rolled_back(2)]) == texts(records[:1])
    assert texts([environment, agent("a"), rolled_back(1)]) == texts([environment, agent("a")])


TURN = st.lists(st.sampled_from("xyz"), max_size=3)


@settings(deadline=None)
@given(kept=st.lists(TURN, max_size=4), dropped=st.lists(TURN, min_size=1, max_size=4))
def test_rolling_turns_back_leaves_the_history_of_before_them(kept, dropped):
    def recorded(turns: list[list[str]]) -> list[RolloutItem]:
        return [r for turn in turns for r in (user("q"), *(agent(text) for text in turn))]

    before = recorded(kept)
    all_at_once = [*before, *recorded(dropped), rolled_back(len(dropped))]
    one_by_one = [*before, *recorded(dropped), *[rolled_back(1)] * len(dropped)]
    assert conversation(all_at_once) == conversation(one_by_one) == conversation(before)


def test_records_of_an_unforeseen_shape_cost_only_themselves(home):
    lines = [session_meta(ID), make_line("response_item", {}), make_line("of_tomorrow", {"a": 1})]
    write_rollout(home, ID, lines)
    assert conversation(read_items(home, ID)) == [{}]
