"""Rows: reading, writing, marking, and folding the records of a running agent."""

import os
import threading
import uuid
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rollbook import StateRuntime, ThreadMetadata, ThreadMetadataBuilder
from rollbook.errors import InvalidThreadIdError, UsageError
from rollbook.model.times import from_epoch
from rollbook.rollout.lines import decode_line
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
whole_times = st.integers(-62_000_000_000, 253_000_000_000).map(from_epoch)
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
fields = {
    name: {
        str: texts,
        int: st.integers(0, 2**63 - 1),
        bool: st.booleans(),
        datetime: whole_times,
        str | None: st.none() | texts,
        datetime | None: st.none() | whole_times,
    }[kind]
    for name, kind in ThreadMetadata.__annotations__.items()
    if name not in ("id", "rollout_path")
}


def builder(path: Path | str = "/nowhere/rollout.jsonl", **values) -> ThreadMetadataBuilder:
    values = {"id": ID, "created_at": DEFAULT_TIME} | values
    return ThreadMetadataBuilder(rollout_path=str(path), **values)


def items(*lines: bytes) -> list:
    return [decode_line(line) for line in lines]


@pytest.fixture(scope="module")
def one_state(tmp_path_factory):
    with StateRuntime.open(tmp_path_factory.mktemp("home"), backfill=False) as opened:
        yield opened


@settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
@given(st.uuids().map(str), st.fixed_dictionaries(fields))
def test_every_field_comes_back_as_it_was_stored(one_state, thread_id, values):
    thread = ThreadMetadata(id=thread_id, rollout_path=f"/elsewhere/{thread_id}", **values)
    one_state.upsert_thread(thread)
    assert one_state.get_thread(thread_id) == thread


def test_an_unknown_thread_is_none(runtime):
    assert runtime.get_thread(ID) is None
    assert runtime.get_dynamic_tools(ID) is None
    assert runtime.find_rollout_path_by_id(ID) is None


def test_an_upsert_overwrites_every_field(runtime):
    runtime.upsert_thread(make_thread(id=ID, git_sha="abc", archived_at=DEFAULT_TIME))
    second = make_thread(id=ID, title="Other", created_at=DEFAULT_TIME - timedelta(days=1))
    runtime.upsert_thread(second)
    assert runtime.get_thread(ID) == second


@pytest.mark.parametrize(
    "form", [ID.upper(), ID.replace("-", ""), "{" + ID + "}", "urn:uuid:" + ID]
)
def test_any_form_of_an_id_is_accepted_and_stored_canonically(runtime, form):
    runtime.upsert_thread(make_thread(id=form))
    assert runtime.get_thread(form).id == ID
    assert runtime.list_thread_ids(5) == [ID]


@pytest.mark.parametrize("text", ["", "x", ID[:-1], ID + "0", "../../etc/passwd"])
def test_what_is_no_uuid_is_refused(runtime, text):
    with pytest.raises(InvalidThreadIdError, match="not a thread id"):
        runtime.get_thread(text)
    with pytest.raises(InvalidThreadIdError):
        runtime.upsert_thread(make_thread(id=text))
    assert runtime.find_rollout_path_by_id(text) is None


def test_times_are_reduced_to_whole_seconds_in_utc(runtime):
    east = timezone(timedelta(hours=2))
    moment = datetime(2026, 1, 27, 14, 34, 56, 999_999, tzinfo=east)
    runtime.upsert_thread(make_thread(id=ID, created_at=moment, updated_at=moment))
    thread = runtime.get_thread(ID)
    assert (thread.created_at, thread.updated_at) == (DEFAULT_TIME, DEFAULT_TIME)


def test_two_rows_are_compared_by_field():
    one = make_thread(id=ID)
    other = msgspec.structs.replace(one, tokens_used=1, title="x")
    assert one.differing_fields(other) == ["title", "tokens_used"]
    assert one.differing_fields(one) == []


def test_a_path_is_found_by_archived_state(runtime):
    active, archived = make_thread(), make_thread(archived_at=DEFAULT_TIME)
    for thread in (active, archived):
        runtime.upsert_thread(thread)
    assert runtime.find_rollout_path_by_id(active.id) == Path(active.rollout_path)
    assert runtime.find_rollout_path_by_id(active.id, True) is None
    assert runtime.find_rollout_path_by_id(archived.id, archived_only=False) is None
    found = runtime.find_rollout_path_by_id(archived.id, archived_only=True)
    assert found == Path(archived.rollout_path)


def test_a_row_that_names_another_threads_rollout_is_repaired(runtime, home):
    other = str(uuid.uuid4())
    theirs = write_rollout(home, other, [session_meta(other), user_message("Theirs")])
    mine = write_rollout(home, ID, [session_meta(ID), user_message("Mine")])
    runtime.upsert_thread(make_thread(id=ID, rollout_path=str(theirs), title="Wrong"))
    thread = runtime.get_thread(ID)
    assert (thread.rollout_path, thread.title) == (str(mine), "Mine")


def test_a_thread_that_the_database_does_not_know_is_found_on_disk_and_stored(runtime, home):
    path = write_rollout(home, ID, [session_meta(ID), user_message("On disk"), token_count(5)])
    thread = runtime.get_thread(ID.upper())
    assert (thread.title, thread.tokens_used, thread.rollout_path) == ("On disk", 5, str(path))
    path.unlink()
    assert runtime.get_thread(ID) == thread


def test_marking_sets_state_path_and_mtime(runtime, tmp_path):
    runtime.upsert_thread(make_thread(id=ID))
    path = tmp_path / "rollout.jsonl"
    path.touch()
    os.utime(path, (1_800_000_000.9, 1_800_000_000.9))
    runtime.mark_archived(ID, path, DEFAULT_TIME + timedelta(microseconds=5))
    thread = runtime.get_thread(ID)
    assert (thread.archived_at, thread.rollout_path) == (DEFAULT_TIME, str(path))
    assert thread.updated_at.timestamp() == 1_800_000_000
    runtime.mark_unarchived(ID, "/gone/rollout.jsonl")
    thread = runtime.get_thread(ID)
    assert (thread.archived_at, thread.rollout_path) == (None, "/gone/rollout.jsonl")
    assert thread.updated_at.timestamp() == 1_800_000_000


def test_marking_leaves_unknown_ids_alone(runtime):
    runtime.mark_archived(ID, "/x", DEFAULT_TIME)
    runtime.mark_unarchived(ID, "/x")
    assert runtime.list_thread_ids(5, include_silent=True) == []


def test_a_fresh_row_has_what_the_builder_says(runtime):
    made = builder(source="exec", cwd="/w", git_branch="main", archived_at=DEFAULT_TIME)
    runtime.apply_rollout_items(made, items(make_line("compacted", {})))
    thread = runtime.get_thread(ID)
    assert (thread.title, thread.tokens_used, thread.has_user_event) == ("", 0, False)
    assert (thread.sandbox_policy, thread.approval_mode) == ('{"type":"read-only"}', "on-request")
    assert (thread.model_provider, thread.updated_at) == ("openai", DEFAULT_TIME)
    assert (thread.source, thread.cwd, thread.git_branch) == ("exec", "/w", "main")
    assert thread.archived_at == DEFAULT_TIME


def test_no_items_do_nothing(runtime):
    runtime.apply_rollout_items(builder(), [])
    assert runtime.get_thread(ID) is None


def test_an_existing_row_takes_only_the_path_from_the_builder(runtime):
    runtime.upsert_thread(make_thread(id=ID, source="cli", archived_at=DEFAULT_TIME))
    other = builder("/new/path.jsonl", source="exec", cwd="/other", git_sha="x")
    runtime.apply_rollout_items(other, items(token_count(3)))
    thread = runtime.get_thread(ID)
    assert (thread.source, thread.cwd, thread.git_sha) == ("cli", "/home/dev/project", None)
    assert (thread.rollout_path, thread.tokens_used) == ("/new/path.jsonl", 3)
    assert thread.archived_at == DEFAULT_TIME


def test_the_mtime_of_the_rollout_becomes_the_update_time(runtime, home):
    path = write_rollout(home, ID, [], mtime=datetime(2026, 5, 5, tzinfo=UTC))
    runtime.apply_rollout_items(builder(path), items(token_count(3)))
    assert runtime.get_thread(ID).updated_at == datetime(2026, 5, 5, tzinfo=UTC)


def test_items_may_be_the_json_objects_of_their_lines(runtime):
    line = {"timestamp": "2026-01-27T12:00:00Z", "type": "event_msg", "later": True}
    said = line | {"payload": {"type": "user_message", "message": "Hi"}}
    runtime.apply_rollout_items(builder(), [said])
    assert runtime.get_thread(ID).title == "Hi"


@pytest.mark.parametrize("item", [{}, {"type": "x"}, {"type": 1, "payload": {}}, {"payload": {}}])
def test_what_is_no_record_is_refused_and_changes_nothing(runtime, item):
    with pytest.raises(UsageError, match="no record"):
        runtime.apply_rollout_items(builder(), [*items(user_message("Hi")), item])
    assert runtime.get_thread(ID) is None


def test_a_session_meta_of_another_thread_is_ignored(runtime):
    other = session_meta(str(uuid.uuid4()), cwd="/theirs", source="exec")
    runtime.apply_rollout_items(builder(), items(session_meta(ID, cwd="/mine"), other))
    thread = runtime.get_thread(ID)
    assert (thread.cwd, thread.source, thread.created_at) == ("/mine", "cli", DEFAULT_TIME)


def test_git_facts_are_set_together_and_kept_where_none_are_given(runtime):
    git = {"commit_hash": "abc", "branch": "main", "repository_url": "u"}
    runtime.apply_rollout_items(builder(), items(session_meta(ID, git=git)))
    runtime.apply_rollout_items(builder(), items(session_meta(ID)))
    assert runtime.get_thread(ID).git_origin_url == "u"
    runtime.apply_rollout_items(builder(), items(session_meta(ID, git={"commit_hash": "def"})))
    thread = runtime.get_thread(ID)
    assert (thread.git_sha, thread.git_branch, thread.git_origin_url) == ("def", None, None)


def test_the_last_turn_context_and_token_count_win(runtime):
    def context(cwd: str, policy: str) -> bytes:
        sandbox = {"type": "workspace-write", "network_access": False}
        payload = {"cwd": cwd, "approval_policy": policy, "sandbox_policy": sandbox}
        return make_line("turn_context", payload)

    lines = (context("/1", "never"), token_count(9), context("/2", "untrusted"), token_count(4))
    runtime.apply_rollout_items(builder(), items(session_meta(ID), *lines))
    thread = runtime.get_thread(ID)
    assert (thread.cwd, thread.approval_mode, thread.tokens_used) == ("/2", "untrusted", 4)
    assert thread.sandbox_policy == '{"type":"workspace-write","network_access":false}'
    null = make_line("event_msg", {"type": "token_count", "info": None})
    runtime.apply_rollout_items(builder(), items(null))
    assert runtime.get_thread(ID).tokens_used == 4
    runtime.apply_rollout_items(builder(), items(token_count(-5)))
    assert runtime.get_thread(ID).tokens_used == 0


def test_the_title_is_set_once_and_rollbacks_change_nothing(runtime):
    rollback = make_line("event_msg", {"type": "thread_rolled_back", "num_turns": 1})
    lines = (user_message("  First\nline "), user_message("Second"), rollback)
    runtime.apply_rollout_items(builder(), items(*lines))
    runtime.apply_rollout_items(builder(), items(user_message("Third")))
    assert runtime.get_thread(ID).title == "First\nline"


def test_injected_text_is_neither_a_title_nor_a_user_event(runtime):
    injected = make_line(
        "response_item",
        {
            "type": "message",
            "role": "user",
            "content": [{"type": "input_text", "text": "# AGENTS.md instructions for /x\n…"}],
        },
    )
    runtime.apply_rollout_items(builder(), items(injected))
    assert not runtime.get_thread(ID).has_user_event
    assert runtime.list_threads(5).items == []
    assert [t.id for t in runtime.list_threads(5, include_silent=True).items] == [ID]


def test_two_writers_on_one_thread_lose_nothing(home):
    rounds = 60

    def write(line_of) -> None:
        with StateRuntime.open(home, backfill=False) as mine:
            for number in range(1, rounds + 1):
                mine.apply_rollout_items(builder(), items(line_of(number)))

    writers = [
        threading.Thread(target=write, args=(line_of,))
        for line_of in (
            token_count,
            lambda number: session_meta(ID, git={"commit_hash": str(number)}),
            lambda number: make_line("turn_context", {"cwd": f"/{number}", "model": str(number)}),
        )
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    with StateRuntime.open(home, backfill=False) as state:
        thread = state.get_thread(ID)
    assert (thread.tokens_used, thread.git_sha, thread.model) == (rounds, str(rounds), str(rounds))


def test_archiving_moves_the_rollout_and_the_row_and_back(runtime, home):
    path = write_rollout(home, ID, [session_meta(ID), user_message("Put away")])
    before = path.read_bytes()
    archived = runtime.archive_thread(ID)
    target = home / "archived_sessions" / path.name
    assert (target.read_bytes(), path.exists()) == (before, False)
    assert archived == runtime.get_thread(ID)
    assert archived.archived_at is not None
    assert runtime.archive_thread(ID) == archived
    back = runtime.unarchive_thread(ID)
    assert (path.read_bytes(), target.exists(), back.archived_at) == (before, False, None)
    assert back == runtime.get_thread(ID)
    assert int(path.stat().st_mtime) == back.updated_at.timestamp()


def test_an_id_is_completed_from_the_database_and_from_disk(runtime, home):
    runtime.upsert_thread(make_thread(id=ID))
    other = "77777777-6666-4666-8666-666666666666"
    write_rollout(home, other, [session_meta(other)])
    assert runtime.resolve_thread_id("6") == ID
    assert runtime.resolve_thread_id("66666666666646") == ID
    assert runtime.resolve_thread_id("7777") == other
