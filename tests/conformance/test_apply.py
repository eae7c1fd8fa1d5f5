"""Folding the records of a running agent into rows (behaviour.md 19 to 22, 38 to 50, 57 to 60)."""

import json
import os
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Barrier
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rollbook import RolloutItem, ThreadMetadata, ThreadMetadataBuilder
from rollbook.errors import InvalidThreadIdError, UsageError
from rollbook.testing import (
    DEFAULT_TIME,
    make_line,
    make_thread,
    session_meta,
    token_count,
    user_message,
    write_rollout,
)

ID = "66666666-6666-4666-8666-666666666666"
OTHER_ID = "99999999-9999-4999-8999-999999999999"
GIT = {"commit_hash": "abc", "branch": "main", "repository_url": "u"}
NOTHING = make_line("compacted", {"message": ""})


def builder(path: Path | str = "/nowhere/rollout.jsonl", **values: Any) -> ThreadMetadataBuilder:
    values = {"id": ID, "created_at": DEFAULT_TIME} | values
    return ThreadMetadataBuilder(rollout_path=str(path), **values)


def items(*lines: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines]


def applied(runtime: Any, *lines: bytes) -> ThreadMetadata:
    """The row of the thread after some more of its lines."""
    runtime.apply_rollout_items(builder(), items(*lines))
    return runtime.get_thread(ID)


def message(*parts: dict[str, Any] | str, role: str = "user") -> bytes:
    """A message of the model's history; texts stand for parts of input text."""
    content = [{"type": "input_text", "text": p} if isinstance(p, str) else p for p in parts]
    return make_line("response_item", {"type": "message", "role": role, "content": content})


def context(cwd: str, **payload: Any) -> bytes:
    defaults = {"approval_policy": "never", "sandbox_policy": {"type": "danger-full-access"}}
    return make_line("turn_context", {"cwd": cwd} | defaults | payload)


IMAGE = {"type": "input_image", "image_url": "data:image/png;base64,AA=="}
AGENTS = "# AGENTS.md instructions for /x\n\n<INSTRUCTIONS>\nBe brief.\n</INSTRUCTIONS>"
ENVIRONMENT = "<environment_context>\n  <cwd>/x</cwd>\n</environment_context>"
REQUEST = "# Context from my IDE setup:\n\n## My request for Codex:\n  Fix it \n"


def test_a_fresh_row_has_what_the_builder_says(runtime):
    made = builder(source="exec", cwd="/w", git_branch="main", archived_at=DEFAULT_TIME)
    runtime.apply_rollout_items(made, items(NOTHING))
    thread = runtime.get_thread(ID)
    assert (thread.title, thread.tokens_used, thread.has_user_event) == ("", 0, False)
    assert (thread.sandbox_policy, thread.approval_mode) == ('{"type":"read-only"}', "on-request")
    assert (thread.model_provider, thread.updated_at) == ("openai", DEFAULT_TIME)
    assert (thread.source, thread.cwd, thread.git_branch) == ("exec", "/w", "main")
    assert thread.archived_at == DEFAULT_TIME


def test_a_fresh_row_has_every_field_of_its_builder(runtime):
    later = DEFAULT_TIME + timedelta(days=1)
    values = dict.fromkeys(ThreadMetadataBuilder.__struct_fields__, "x")
    values |= {"id": ID, "created_at": DEFAULT_TIME, "updated_at": later, "archived_at": later}
    runtime.apply_rollout_items(ThreadMetadataBuilder(**values), items(NOTHING))
    thread = msgspec.structs.asdict(
        runtime.list_threads(1, None, archived_only=True, include_silent=True).items[0]
    )
    assert {name: thread[name] for name in values} == values | {
        "rollout_path": f"{runtime.codex_home}/x"
    }


def test_the_times_of_a_builder_are_reduced_to_whole_seconds(runtime):
    moment = DEFAULT_TIME + timedelta(microseconds=999_999)
    made = builder(created_at=moment, updated_at=moment, archived_at=moment)
    runtime.apply_rollout_items(made, items(NOTHING))
    thread = runtime.get_thread(ID)
    times = {thread.created_at, thread.updated_at, thread.recency_at, thread.archived_at}
    assert times <= {DEFAULT_TIME, DEFAULT_TIME + timedelta(seconds=1)}
    assert (thread.created_at, thread.updated_at) == (DEFAULT_TIME, DEFAULT_TIME)


def test_no_items_do_nothing(runtime):
    runtime.apply_rollout_items(builder(), [])
    assert runtime.get_thread(ID) is None
    runtime.upsert_thread(make_thread(id=ID))
    before = runtime.get_thread(ID)
    runtime.apply_rollout_items(builder("/new.jsonl"), iter(()))
    assert runtime.get_thread(ID) == before


def test_an_existing_row_takes_only_the_path_from_the_builder(runtime):
    before = make_thread(id=ID, archived_at=DEFAULT_TIME)
    runtime.upsert_thread(before)
    later = DEFAULT_TIME + timedelta(days=1)
    values = dict.fromkeys(ThreadMetadataBuilder.__struct_fields__, "other")
    values |= {"id": ID, "created_at": later, "updated_at": later, "archived_at": None}
    values["rollout_path"] = "/new/path.jsonl"
    runtime.apply_rollout_items(ThreadMetadataBuilder(**values), items(token_count(3)))
    thread = runtime.get_thread(ID)
    assert (thread.rollout_path, thread.tokens_used) == ("/new/path.jsonl", 3)
    assert set(before.differing_fields(thread)) <= {"rollout_path", "tokens_used", "recency_at"}


@pytest.mark.parametrize("form", [ID.upper(), ID.replace("-", ""), "urn:uuid:" + ID])
def test_the_id_of_a_builder_and_of_a_session_meta_may_be_in_any_form(runtime, form):
    runtime.apply_rollout_items(builder(id=form), items(session_meta(form, cwd="/mine")))
    assert runtime.list_thread_ids(5, include_silent=True) == [ID]
    assert runtime.get_thread(ID).cwd == "/mine"


def test_a_builder_whose_id_is_no_uuid_is_refused(runtime):
    with pytest.raises(InvalidThreadIdError, match="'x' is not a thread id"):
        runtime.apply_rollout_items(builder(id="x"), items(NOTHING))


def test_the_mtime_of_the_rollout_becomes_the_update_time_in_whole_seconds(runtime, home):
    path = write_rollout(home, ID, [])
    os.utime(path, ns=(0, 1_800_000_000_999_999_999))
    runtime.apply_rollout_items(builder(path), items(token_count(3)))
    assert runtime.get_thread(ID).updated_at.timestamp() == 1_800_000_000


def test_the_update_time_stays_where_the_rollout_can_not_be_read(runtime, home):
    path = write_rollout(home, ID, [], mtime=datetime(2026, 5, 5, tzinfo=UTC))
    runtime.apply_rollout_items(builder(path), items(token_count(3)))
    path.unlink()
    runtime.apply_rollout_items(builder(path), items(token_count(4)))
    assert runtime.get_thread(ID).updated_at == datetime(2026, 5, 5, tzinfo=UTC)


def test_items_may_be_records_or_the_json_objects_of_their_lines_in_any_iterable(runtime):
    line = {"timestamp": "2026-01-27T12:00:00Z", "type": "event_msg", "later": True}
    said = line | {"payload": {"type": "user_message", "message": "Hi"}}
    usage = msgspec.json.decode(token_count(7), type=RolloutItem)
    runtime.apply_rollout_items(builder(), (item for item in (said, usage)))
    thread = runtime.get_thread(ID)
    assert (thread.title, thread.tokens_used) == ("Hi", 7)


@pytest.mark.parametrize("item", [{}, {"type": "x"}, {"type": 1, "payload": {}}, {"payload": {}}])
def test_what_is_no_record_is_refused_and_changes_nothing(runtime, item):
    with pytest.raises(UsageError, match="no record"):
        runtime.apply_rollout_items(builder(), [*items(user_message("Hi")), item])
    assert runtime.get_thread(ID) is None


def test_a_session_meta_of_another_thread_is_ignored_entirely(runtime):
    before = applied(runtime, session_meta(ID, cwd="/mine", git=GIT))
    theirs = session_meta(
        OTHER_ID, cwd="/theirs", source="exec", model_provider="x", git={}, cli_version="0"
    )
    assert applied(runtime, theirs) == before


def test_a_session_meta_alone_says_what_it_says(runtime):
    source = {"subagent": {"thread_spawn": {"parent_thread_id": OTHER_ID, "depth": 1}}}
    meta = session_meta(
        ID, source=source, model_provider="mock", cwd="/mine", timestamp="2020-01-01T00:00:00Z"
    )
    thread = applied(runtime, meta)
    assert thread.source == (
        f'{{"subagent":{{"thread_spawn":{{"parent_thread_id":"{OTHER_ID}","depth":1}}}}}}'
    )
    assert (thread.model_provider, thread.cwd) == ("mock", "/mine")
    assert (thread.created_at, thread.updated_at) == (DEFAULT_TIME, DEFAULT_TIME)


def test_a_session_meta_that_leaves_things_out_keeps_them_but_for_the_source(runtime):
    applied(runtime, session_meta(ID, source="exec", model_provider="mock", cwd="/mine"))
    bare = make_line("session_meta", {"id": ID, "cwd": "", "timestamp": "2026-01-27T12:34:56Z"})
    thread = applied(runtime, bare)
    assert (thread.source, thread.model_provider, thread.cwd) == ("vscode", "mock", "/mine")


@pytest.mark.parametrize(
    ("git", "want"),
    [
        ({}, ("abc", "main", "u")),
        ({"git": None}, ("abc", "main", "u")),
        ({"git": {"commit_hash": "def"}}, ("def", None, None)),
        ({"git": {"branch": "b", "repository_url": None}}, (None, "b", None)),
        ({"git": {}}, (None, None, None)),
    ],
)
def test_git_facts_are_set_together_and_kept_where_none_are_given(runtime, git, want):
    applied(runtime, session_meta(ID, git=GIT))
    thread = applied(runtime, session_meta(ID, **git))
    assert (thread.git_sha, thread.git_branch, thread.git_origin_url) == want


def test_the_last_turn_context_wins_also_over_the_session_meta(runtime):
    sandbox = {"type": "workspace-write", "network_access": False, "exclude_slash_tmp": True}
    contexts = context("/1"), context("/2", approval_policy="untrusted", sandbox_policy=sandbox)
    thread = applied(runtime, session_meta(ID, cwd="/0"), *contexts)
    assert (thread.cwd, thread.approval_mode) == ("/2", "untrusted")
    assert thread.sandbox_policy == (
        '{"type":"workspace-write","network_access":false,"exclude_slash_tmp":true}'
    )
    assert applied(runtime, context("/3")).sandbox_policy == '{"type":"danger-full-access"}'


@pytest.mark.parametrize(
    ("counts", "want"),
    [([9, 4], 4), ([4, 9], 9), ([7, None], 7), ([7, -5], 0), ([None], 0), ([0, 2**62], 2**62)],
)
def test_the_last_token_count_that_has_one_wins(runtime, counts, want):
    null = make_line("event_msg", {"type": "token_count", "info": None})
    for count in counts:
        thread = applied(runtime, null if count is None else token_count(count))
    assert thread.tokens_used == want


@pytest.mark.parametrize(
    ("lines", "title"),
    [
        ([user_message("  First\nline "), user_message("Second")], "First\nline"),
        ([message("One", "two"), message("Later")], "One\ntwo"),
        ([message('<image name="a.png">', IMAGE, "</image>", "See that")], "See that"),
        ([message({"type": "output_text", "text": "Not this"}, "This")], "This"),
        ([user_message(REQUEST)], "Fix it"),
        ([message(REQUEST + "## My request for Codex: twice")], None),
        ([user_message("## My request for Codex: \n "), user_message("Now")], "Now"),
        ([user_message(" \n "), user_message("Now")], "Now"),
        ([message(" "), message("Now")], "Now"),
        ([user_message("x" * 100_000)], "x" * 100_000),
        ([message(AGENTS), message(ENVIRONMENT), message("Mine")], "Mine"),
        ([message(AGENTS, ENVIRONMENT, "Mine")], "Mine"),
        ([message(ENVIRONMENT + "\nMine")], "Mine"),
        ([message(IMAGE)], "[Image]"),
        ([message("<image>", IMAGE, "</image>")], "[Image]"),
        (
            [make_line("event_msg", {"type": "user_message", "images": ["x"], "message": ""})],
            "[Image]",
        ),
        ([user_message(""), user_message(" ")], ""),
    ],
)
def test_the_first_words_of_the_person_are_the_title(runtime, lines, title):
    thread = applied(runtime, *lines)
    if title is None:
        title = "Fix it \n## My request for Codex: twice"
    assert (thread.title, thread.has_user_event) == (title, True)
    assert applied(runtime, message("Too late")).title == (title or "Too late")


@pytest.mark.parametrize(
    "line",
    [
        message(AGENTS),
        message(ENVIRONMENT),
        message(AGENTS, ENVIRONMENT),
        message("<user_instructions>\nBe brief.\n</user_instructions>"),
        message("  <ENVIRONMENT_CONTEXT>x</ENVIRONMENT_CONTEXT>"),
        message("<turn_aborted>\nx\n</turn_aborted>"),
        message({"type": "output_text", "text": "Not this"}),
        message(),
        message("Said", role="assistant"),
        message("Said", role="developer"),
        message("Said", role="system"),
        user_message(ENVIRONMENT),
        make_line("event_msg", {"type": "agent_message", "message": "Said"}),
        make_line("response_item", {"type": "reasoning", "summary": [], "content": None}),
        make_line("response_item", {"type": "function_call", "name": "x", "arguments": "{}"}),
        make_line("response_item", {"type": "of a later release"}),
        make_line("of a later release", {"message": "Said"}),
        make_line("compacted", {"message": "Said"}),
    ],
)
def test_what_the_person_did_not_say_is_neither_a_title_nor_a_user_event(runtime, line):
    thread = applied(runtime, line)
    assert (thread.title, thread.has_user_event) == ("", False)
    assert runtime.list_threads(5).items == []
    assert runtime.list_thread_ids(5, include_silent=True) == [ID]


@pytest.mark.parametrize(
    "line",
    [
        make_line("event_msg", {"type": "thread_rolled_back", "num_turns": 1}),
        make_line("event_msg", {"type": "context_compacted"}),
        make_line("event_msg", {"type": "turn_aborted", "reason": "interrupted"}),
        make_line("event_msg", {"type": "of a later release"}),
        make_line("compacted", {"message": "x", "replacement_history": []}),
        message("Done", role="assistant"),
    ],
)
def test_a_rollback_and_all_else_change_nothing_but_the_recency(runtime, line):
    before = applied(runtime, session_meta(ID), user_message("Hi"), context("/1"), token_count(5))
    assert set(before.differing_fields(applied(runtime, line))) <= {"recency_at"}


def test_what_a_fork_copied_counts_for_it_but_for_the_session_meta(runtime):
    copied = (session_meta(OTHER_ID, cwd="/theirs"), context("/copied"), token_count(500))
    thread = applied(runtime, session_meta(ID, cwd="/mine"), *copied)
    assert (thread.cwd, thread.tokens_used, thread.source) == ("/copied", 500, "cli")


@pytest.mark.parametrize("provider", [None, ""])
def test_the_default_provider_stands_in_where_none_is_named(open_runtime, home, provider):
    with open_runtime(home, default_provider="mine") as runtime:
        made = builder(model_provider=provider)
        runtime.apply_rollout_items(made, items(session_meta(ID, model_provider=provider)))
        assert runtime.get_thread(ID).model_provider == "mine"
        runtime.apply_rollout_items(made, items(session_meta(ID, model_provider="named")))
        assert runtime.get_thread(ID).model_provider == "named"


def test_a_row_without_a_provider_gets_the_default_one_with_its_next_item(runtime):
    runtime.upsert_thread(make_thread(id=ID, model_provider=""))
    assert runtime.list_threads(5).items[0].model_provider == ""
    assert applied(runtime, NOTHING).model_provider == "openai"


def test_half_of_a_character_in_a_json_text_is_replaced(runtime):
    [item] = items(rb'{"type":"event_msg","payload":{"type":"user_message","message":"Hi \ud83d"}}')
    runtime.apply_rollout_items(builder(), [item])
    assert runtime.get_thread(ID).title == "Hi \ufffd"


LINES: list[Callable[[str], bytes]] = [
    lambda own: session_meta(own, git=GIT, cwd="/a", timestamp="2026-01-27T13:00:00Z"),
    lambda own: session_meta(own, source="exec", model_provider="mock"),
    lambda _: session_meta(OTHER_ID, cwd="/theirs", git={}),
    lambda _: context("/b", timestamp="2026-01-27T13:00:01Z"),
    lambda _: context("/c", approval_policy="on-failure"),
    lambda _: token_count(9, timestamp="2026-01-27T13:00:02Z"),
    lambda _: token_count(4),
    lambda _: user_message("One"),
    lambda _: user_message("Two", timestamp="2026-01-27T13:00:03Z"),
    lambda _: user_message(" "),
    lambda _: message(AGENTS),
    lambda _: NOTHING,
]


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.tuples(st.sampled_from(LINES), st.booleans()), min_size=1, max_size=12),
    st.uuids(),
    st.uuids(),
)
def test_items_applied_in_pieces_give_what_they_give_at_once(shared_runtime, pieces, one, other):
    at_once, in_pieces = str(one), str(other)
    shared_runtime.apply_rollout_items(
        builder(id=at_once), items(*(line(at_once) for line, _ in pieces))
    )
    batch: list[bytes] = []
    for line, is_last_of_batch in pieces:
        batch.append(line(in_pieces))
        if is_last_of_batch:
            shared_runtime.apply_rollout_items(builder(id=in_pieces), items(*batch))
            batch = []
    shared_runtime.apply_rollout_items(builder(id=in_pieces), items(*batch))
    want = msgspec.structs.replace(shared_runtime.get_thread(at_once), id=in_pieces)
    assert shared_runtime.get_thread(in_pieces) == want


@pytest.mark.parametrize("batches", [1, 2])
def test_the_event_of_a_message_says_what_the_person_wrote_in_any_batch(runtime, batches):
    lines = [message("As the model reads it"), user_message("As it was written")]
    for each in [lines] if batches == 1 else [[line] for line in lines]:
        thread = applied(runtime, *each)
    assert thread.title == "As it was written"


@pytest.mark.parametrize("batches", [1, 2])
def test_records_copied_from_the_parent_of_a_sub_agent_do_not_count_in_any_batch(runtime, batches):
    meta = make_line("session_meta", {"id": ID, "subagent_history_start_ordinal": 2}, ordinal=0)
    lines = [meta, user_message("To the parent", ordinal=1), token_count(5, ordinal=2)]
    for each in [lines] if batches == 1 else [lines[:1], lines[1:]]:
        thread = applied(runtime, *each)
    assert (thread.title, thread.tokens_used) == ("", 5)


WRITERS: list[tuple[Callable[[int], bytes], Callable[[ThreadMetadata], Any]]] = [
    (token_count, lambda thread: thread.tokens_used),
    (
        lambda n: session_meta(ID, git={"commit_hash": str(n)}),
        lambda thread: int(thread.git_sha or 0),
    ),
    (
        lambda n: context("/", approval_policy=str(n)),
        lambda thread: int(thread.approval_mode.replace("on-request", "0")),
    ),
]


def test_writers_on_one_thread_lose_nothing_of_each_other(open_runtime, home):
    """What a writer wrote must still be there when it writes again: nobody else writes that."""
    rounds, start = 40, Barrier(len(WRITERS), timeout=60)

    def write(line_of: Callable[[int], bytes], written: Callable[[ThreadMetadata], Any]) -> None:
        with open_runtime(home) as mine:
            mine.apply_rollout_items(builder(), items(NOTHING))
            start.wait()
            for number in range(1, rounds + 1):
                [thread] = mine.list_threads(1, include_silent=True).items
                assert written(thread) == number - 1
                mine.apply_rollout_items(builder(), items(line_of(number)))

    with ThreadPoolExecutor() as pool:
        for writer in [pool.submit(write, *each) for each in WRITERS]:
            writer.result()
    with open_runtime(home) as runtime:
        thread = runtime.get_thread(ID)
    assert [written(thread) for _, written in WRITERS] == [rounds] * len(WRITERS)


def test_writers_on_one_state_lose_nothing_of_each_other(state):
    rounds = 60

    def write(line_of: Callable[[int], bytes]) -> None:
        for number in range(1, rounds + 1):
            state.apply_rollout_items(builder(), items(line_of(number)))

    with ThreadPoolExecutor() as pool:
        for writer in [pool.submit(write, line_of) for line_of, _ in WRITERS]:
            writer.result()
    thread = state.get_thread(ID)
    assert [written(thread) for _, written in WRITERS] == [rounds] * len(WRITERS)


def test_marking_and_applying_at_the_same_time_lose_nothing_of_each_other(open_runtime, home):
    rounds = 40

    def mark(mine: Any, number: int) -> None:
        mine.mark_archived(ID, f"/{number}.jsonl", DEFAULT_TIME + timedelta(seconds=number))

    def count(mine: Any, number: int) -> None:
        mine.apply_rollout_items(builder(), items(token_count(number)))

    def write(step: Callable[[Any, int], None]) -> None:
        with open_runtime(home) as mine:
            for number in range(1, rounds + 1):
                step(mine, number)

    with open_runtime(home) as runtime:
        runtime.upsert_thread(make_thread(id=ID))
        with ThreadPoolExecutor() as pool:
            for writer in [pool.submit(write, step) for step in (mark, count)]:
                writer.result()
        thread = runtime.get_thread(ID)
    assert thread.tokens_used == rounds
    assert thread.archived_at == DEFAULT_TIME + timedelta(seconds=rounds)


def test_threads_of_many_writers_are_all_there(open_runtime, home):
    ids = [[str(uuid.uuid4()) for _ in range(15)] for _ in range(3)]

    def write(own: list[str]) -> None:
        with open_runtime(home) as mine:
            for thread_id in own:
                mine.apply_rollout_items(builder(id=thread_id), items(user_message("Hi")))

    with ThreadPoolExecutor() as pool:
        for writer in [pool.submit(write, own) for own in ids]:
            writer.result()
    with open_runtime(home) as runtime:
        assert sorted(runtime.list_thread_ids(100)) == sorted(
            thread_id for own in ids for thread_id in own
        )
