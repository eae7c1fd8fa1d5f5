"""Recording threads: what is on disk, what is in the database, what comes back."""

import asyncio
import inspect
import json
import os
import re
import shutil
import subprocess
import time
import typing
from pathlib import Path

import apsw
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rollbook import (
    AsyncRolloutRecorder,
    AsyncStateRuntime,
    DynamicToolSpec,
    RolloutItem,
    RolloutRecorder,
    StateRuntime,
    conversation,
    items,
)
from rollbook.errors import RolloutError, ThreadInUseError, ThreadNotFoundError, UsageError
from rollbook.rollout.history import read_items
from tests.conftest import RELEASES

TOOL = DynamicToolSpec("lookup", "Looks up", {"zebra": {"b": 1.5, "a": None}, "apple": []})
WITHOUT_LINEAGE = ("0.95.0", "0.101.0", "0.115.0", "0.125.0", "0.140.0")
TURN = [
    items.task_started("t1"),
    *items.user_message("Where is it?"),
    items.turn_context("gpt-5.2-codex", "/work", turn_id="t1"),
    items.function_call("lookup", {"what": "it"}, "call-1"),
    items.function_call_output("call-1", "found"),
    *items.agent_message("There."),
    items.token_count(100, input_tokens=90, output_tokens=10),
    items.task_complete("t1", "There."),
]


def lines(path: Path) -> list[dict]:
    content = path.read_bytes()
    assert content.endswith(b"\n")
    return [json.loads(line) for line in content.splitlines()]


def rebuilt(state: StateRuntime, thread_id: str):
    """The row that an index built from nothing has."""
    with StateRuntime.open(
        state.codex_home, database=state.codex_home / "other.sqlite", backfill=False
    ) as other:
        other.sync(jobs=1)
        return other.get_thread(thread_id)


def test_a_thread_begins_with_its_session_meta(state, tmp_path):
    with RolloutRecorder.create(
        state,
        cwd=tmp_path,
        source="cli",
        originator="tests",
        base_instructions="Be brief.",
        dynamic_tools=[TOOL],
        cli_version="1.2.3",
    ) as recorder:
        [line] = lines(recorder.rollout_path)
    meta = line["payload"]
    assert line["type"] == "session_meta"
    assert list(meta) == [
        "id",
        "timestamp",
        "cwd",
        "originator",
        "cli_version",
        "source",
        "model_provider",
        "base_instructions",
        "dynamic_tools",
        "recorder",
    ]
    assert meta["id"] == recorder.thread_id
    assert re.fullmatch(
        r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", meta["id"]
    )
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["timestamp"])
    assert meta["base_instructions"] == {"text": "Be brief."}
    [tool] = meta["dynamic_tools"]
    assert tool == {"name": "lookup", "description": "Looks up", "inputSchema": TOOL.input_schema}
    assert list(tool["inputSchema"]) == ["zebra", "apple"]


@pytest.mark.parametrize("zone", ["UTC", "Pacific/Kiritimati", "America/Los_Angeles"])
def test_name_and_directories_are_in_local_time(state, monkeypatch, zone):
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        with RolloutRecorder.create(state, git=False) as recorder:
            created = state.codex_home / "sessions"
            path = recorder.rollout_path.relative_to(created)
            meta = recorder.history[0].payload
        seconds = time.mktime(time.strptime(path.name[8:27], "%Y-%m-%dT%H-%M-%S"))
        utc = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    finally:
        monkeypatch.undo()
        time.tzset()
    assert path.parent.parts == tuple(path.name[8:18].split("-"))
    assert meta["timestamp"].startswith(utc)


def test_what_is_made_is_private(state):
    with RolloutRecorder.create(state, git=False) as recorder:
        path = recorder.rollout_path
    assert path.stat().st_mode & 0o777 == 0o600
    made = [p for p in path.parents if p.is_relative_to(state.codex_home / "sessions")][:-1]
    assert {directory.stat().st_mode & 0o777 for directory in made} == {0o700}
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_the_database_has_what_was_recorded_when_flush_returns(state):
    with RolloutRecorder.create(state, dynamic_tools=[TOOL], git=False) as recorder:
        recorder.record_items(TURN)
        recorder.flush()
        thread = state.get_thread(recorder.thread_id)
        assert (thread.title, thread.tokens_used, thread.model) == (
            "Where is it?",
            100,
            "gpt-5.2-codex",
        )
        assert state.get_dynamic_tools(recorder.thread_id) == [TOOL]
        assert thread.rollout_path == str(recorder.rollout_path)
    assert rebuilt(state, thread.id).differing_fields(state.get_thread(thread.id)) == []
    assert state.sync().indexed == 0


def test_resuming_gives_the_items_in_order_and_goes_on(state):
    with RolloutRecorder.create(state, dynamic_tools=[TOOL], git=False) as recorder:
        recorder.record_items(TURN)
    with RolloutRecorder.resume(state, recorder.thread_id.upper()) as again:
        assert [(i.type, i.payload) for i in again.history[1:]] == [
            (i.type, json.loads(json.dumps(i.payload))) for i in TURN
        ]
        assert again.record_items(items.user_message("More")) == 2
        assert again.get_dynamic_tools() == [TOOL]
    assert len(lines(again.rollout_path)) == 1 + len(TURN) + 2
    assert again.rollout_path == recorder.rollout_path


def test_tools_are_read_from_the_database_first_and_from_the_rollout_second(state):
    with RolloutRecorder.create(state, dynamic_tools=[TOOL], git=False) as recorder:
        recorder.flush()
        writer = apsw.Connection(state.database)
        writer.execute("UPDATE thread_dynamic_tools SET description = 'from the database'")
        assert recorder.get_dynamic_tools()[0].description == "from the database"
        writer.execute("DELETE FROM thread_dynamic_tools")
        writer.close()
        assert recorder.get_dynamic_tools() == [TOOL]


@pytest.mark.parametrize(
    "tool",
    [
        DynamicToolSpec("", "x", {}),
        DynamicToolSpec(" x", "x", {}),
        DynamicToolSpec("mcp", "x", {}),
        DynamicToolSpec("mcp__x", "x", {}),
        DynamicToolSpec("lookup", "twice", {}),
        DynamicToolSpec("x", "x", "no object"),
    ],
)
def test_a_tool_that_codex_would_refuse_is_refused_before_anything_is_written(state, tool):
    with pytest.raises(UsageError, match="tool"):
        RolloutRecorder.create(state, dynamic_tools=[TOOL, tool])
    assert not list((state.codex_home / "sessions").rglob("*"))


def test_events_that_only_tell_of_progress_are_left_out(state):
    with RolloutRecorder.create(state, git=False) as recorder:
        delta = {"type": "event_msg", "payload": {"type": "agent_message_delta", "delta": "x"}}
        unknown = {"type": "response_item", "payload": {"type": "of_tomorrow"}}
        assert recorder.record_items([delta]) == 0
        assert recorder.record_items([delta, unknown, delta]) == 1
        assert recorder.record_items([]) == 0
    assert [line["payload"].get("type") for line in lines(recorder.rollout_path)] == [
        None,
        "of_tomorrow",
    ]


@pytest.mark.parametrize("bad", [{"type": "x"}, {"type": "x", "payload": {"x": object()}}, {}])
def test_what_is_no_record_is_refused_and_the_others_of_its_call_too(state, bad):
    with RolloutRecorder.create(state, git=False) as recorder:
        with pytest.raises(UsageError, match="no record"):
            recorder.record_items([*TURN, bad])
        assert len(lines(recorder.rollout_path)) == 1


def test_recording_goes_on_while_the_database_is_locked_and_is_made_good(state):
    other = apsw.Connection(state.database)
    with RolloutRecorder.create(state, git=False) as recorder:
        recorder.flush()
        other.execute("BEGIN IMMEDIATE")
        recorder.record_items(TURN)
        recorder.flush()
        assert len(lines(recorder.rollout_path)) == 1 + len(TURN)
        assert state.get_thread(recorder.thread_id).title == ""
        other.execute("ROLLBACK")
    assert state.get_thread(recorder.thread_id).title == "Where is it?"


def test_what_the_database_missed_is_found_by_the_next_sync(home):
    with StateRuntime.open(home, backfill=False) as state:
        recorder = RolloutRecorder.create(state, git=False)
        recorder.flush()
        state._engine.close()
        recorder.record_items(TURN)
        recorder.close()
    with StateRuntime.open(home, backfill=False) as state:
        assert state.sync().indexed == 1
        assert state.get_thread(recorder.thread_id).tokens_used == 100


def test_a_second_recorder_of_a_thread_is_refused_and_archiving_too(state):
    with RolloutRecorder.create(state, git=False) as recorder:
        with pytest.raises(ThreadInUseError, match="fork"):
            RolloutRecorder.resume(state, recorder.thread_id)
        with pytest.raises(ThreadInUseError, match="close it"):
            state.archive_thread(recorder.thread_id)
        recorder.record_items(TURN)
    RolloutRecorder.resume(state, recorder.thread_id).close()
    state.archive_thread(recorder.thread_id)
    with pytest.raises(RolloutError, match="unarchive"):
        RolloutRecorder.resume(state, recorder.thread_id)


def test_unknown_and_foreign_threads_are_not_resumed(state, corpus_home):
    with pytest.raises(ThreadNotFoundError):
        RolloutRecorder.resume(state, "66666666-6666-4666-8666-666666666666")
    home = corpus_home("0.169.0")
    before = {path: path.read_bytes() for path in home.rglob("*.jsonl")}
    with StateRuntime.open(home, backfill=False) as theirs:
        theirs.sync(jobs=1)
        for thread in theirs.list_threads(100).items:
            with pytest.raises(RolloutError, match="fork"):
                RolloutRecorder.resume(theirs, thread.id)
    assert {path: path.read_bytes() for path in home.rglob("*.jsonl")} == before


@pytest.mark.parametrize("release", RELEASES)
def test_every_thread_can_be_forked_and_its_source_stays_as_it_is(corpus_home, release):
    home = corpus_home(release)
    before = {
        path: (path.read_bytes(), path.stat().st_mtime_ns)
        for root in ("sessions", "archived_sessions")
        for path in (home / root).rglob("rollout-*")
    }
    with StateRuntime.open(home, backfill=False) as state:
        state.sync(jobs=1)
        threads = state.list_threads(100, include_silent=True).items
        for parent in threads:
            with RolloutRecorder.fork(state, parent.id) as fork:
                fork.flush()
                row = state.get_thread(fork.thread_id)
                assert conversation(fork.history) == conversation(read_items(home, parent.id))
            assert row.forked_from_id == parent.id
            if release in WITHOUT_LINEAGE:  # else the fork has more records than the parent's file
                assert (row.title, row.cwd) == (parent.title, parent.cwd)
                assert row.tokens_used == parent.tokens_used
            assert state.get_dynamic_tools(row.id) == state.get_dynamic_tools(parent.id)
    assert len(threads) > 5
    now = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in before}
    assert now == before


def test_a_compressed_thread_of_ours_is_resumed(state):
    from backports import zstd

    with RolloutRecorder.create(state, git=False) as recorder:
        recorder.record_items(TURN)
    path = recorder.rollout_path
    path.with_name(path.name + ".zst").write_bytes(zstd.compress(path.read_bytes()))
    path.unlink()
    with RolloutRecorder.resume(state, recorder.thread_id) as again:
        assert len(again.history) == 1 + len(TURN)
        again.record_items(TURN)
    assert len(lines(path)) == 1 + 2 * len(TURN)


def test_git_facts_are_in_the_meta_without_the_password(state, tmp_path):
    def git(*arguments):
        subprocess.run(
            ["git", "-C", tmp_path / "work", *arguments], check=True, capture_output=True
        )

    (tmp_path / "work").mkdir()
    git("init", "-b", "trunk")
    git("-c", "user.name=x", "-c", "user.email=x", "commit", "--allow-empty", "-m", "x")
    git("remote", "add", "origin", "https://me:secret@example.org/x.git")
    with RolloutRecorder.create(state, cwd=tmp_path / "work") as recorder:
        recorder.flush()
        thread = state.get_thread(recorder.thread_id)
    assert (thread.git_branch, thread.git_origin_url) == ("trunk", "https://me@example.org/x.git")
    assert re.fullmatch("[0-9a-f]{40}", thread.git_sha)
    assert b"secret" not in recorder.rollout_path.read_bytes()


def test_closing_the_state_closes_its_recorders(home):
    with StateRuntime.open(home, backfill=False) as state:
        recorder = RolloutRecorder.create(state, git=False)
        recorder.record_items(TURN)
    with pytest.raises(UsageError, match="closed"):
        recorder.record_items(TURN)
    with pytest.raises(UsageError, match="closed"):
        recorder.flush()
    recorder.close()
    assert len(lines(recorder.rollout_path)) == 1 + len(TURN)


def test_a_forked_child_leaves_the_recorder_to_its_parent(state):
    with RolloutRecorder.create(state, git=False) as recorder:
        child = os.fork()
        if child == 0:
            try:
                recorder.record_items(TURN)
            except UsageError:
                os._exit(7)
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        recorder.record_items(TURN)
        with pytest.raises(ThreadInUseError):
            RolloutRecorder.resume(state, recorder.thread_id)
    assert len(lines(recorder.rollout_path)) == 1 + len(TURN)


def test_the_async_recorder_has_the_same_methods_and_keeps_the_order_of_the_calls(home):
    for name in ("create", "resume", "fork", "record_items", "flush", "close", "get_dynamic_tools"):
        ours, theirs = getattr(RolloutRecorder, name), getattr(AsyncRolloutRecorder, name)
        parameters = [list(inspect.signature(each).parameters.values()) for each in (ours, theirs)]
        if name in ("create", "resume", "fork"):
            parameters = [each[1:] for each in parameters]
        assert parameters[0] == parameters[1], name
        assert inspect.iscoroutinefunction(theirs)
        assert f"rollbook.RolloutRecorder.{name}`" in theirs.__doc__
        assert typing.get_type_hints(ours).keys() == typing.get_type_hints(theirs).keys()

    async def record() -> list[RolloutItem]:
        async with AsyncStateRuntime.open(home, backfill=False) as state:
            async with await AsyncRolloutRecorder.create(state, git=False) as recorder:
                await asyncio.gather(
                    *(recorder.record_items([items.thread_name("x", str(n))]) for n in range(50))
                )
                await recorder.flush()
            async with await AsyncRolloutRecorder.fork(state, recorder.thread_id) as fork:
                assert len(fork.history) == 52
            async with await AsyncRolloutRecorder.resume(state, recorder.thread_id) as again:
                return again.history

    history = asyncio.run(record())
    names = [item.payload["thread_name"] for item in history[1:]]
    assert names == [str(number) for number in range(50)]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
ANY_ITEM = st.one_of(
    st.sampled_from(TURN),
    st.builds(lambda text: items.user_message(text)[1], st.text()),
    st.builds(
        lambda payload: RolloutItem("response_item", {"type": "x"} | payload),
        st.dictionaries(st.text(), JSON, max_size=3),
    ),
)


@settings(deadline=None, max_examples=30)
@given(batches=st.lists(st.lists(ANY_ITEM, max_size=4), max_size=5), cut=st.integers(0, 400))
def test_whatever_is_recorded_comes_back_and_a_torn_end_costs_no_whole_line(
    tmp_path_factory, batches, cut
):
    home = tmp_path_factory.mktemp("home")
    (home / "sessions").mkdir()
    with StateRuntime.open(home, backfill=False) as state:
        with RolloutRecorder.create(state, git=False) as recorder:
            for batch in batches:
                recorder.record_items(batch)
        thread_id, path = recorder.thread_id, recorder.rollout_path
        assert rebuilt(state, thread_id).differing_fields(state.get_thread(thread_id)) == []
        first, *rest = lines(path)
        assert len(rest) == sum(map(len, batches))
        content = path.read_bytes()
        end = max(len(content) - cut, content.find(b"\n") + 1)
        os.truncate(path, end)
        with RolloutRecorder.resume(state, thread_id) as again:
            again.record_items([items.thread_name(thread_id, "after")])
        kept = lines(path)
        assert kept[-1]["payload"]["thread_name"] == "after"
        assert kept[:-1] == [first, *rest][: len(kept) - 1]
        whole = content[:end].count(b"\n")
        assert len(kept) - 1 in (whole, whole + 1)
        assert rebuilt(state, thread_id).differing_fields(state.get_thread(thread_id)) == []
    shutil.rmtree(home)
