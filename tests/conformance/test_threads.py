"""Rows: reading, overwriting, finding, marking (behaviour.md 10, 11, 14 to 18, 23, 95)."""

import os
import uuid
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rollbook import StateRuntime, ThreadMetadata
from rollbook.errors import DatabaseDamagedError, InvalidThreadIdError
from rollbook.model.times import from_epoch
from rollbook.testing import (
    DEFAULT_TIME,
    make_thread,
    session_meta,
    token_count,
    user_message,
    write_rollout,
)
from tests.conftest import index_of, run_sql

ID = "66666666-6666-4666-8666-666666666666"
FORMS = [ID.upper(), ID.replace("-", ""), "{" + ID + "}", "urn:uuid:" + ID]
OTHER_TIMES = {
    "created_at": DEFAULT_TIME - timedelta(days=1),
    "updated_at": DEFAULT_TIME + timedelta(days=1),
    "recency_at": DEFAULT_TIME + timedelta(days=2),
}
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
    if name not in ("id", "rollout_path", "tags", "pinned", "recorded_cwd")
}


@settings(deadline=None, max_examples=40)
@given(st.uuids().map(str), st.fixed_dictionaries(fields), st.fixed_dictionaries(fields))
def test_every_field_comes_back_as_it_was_stored_and_stored_again(
    shared_runtime, thread_id, first, second
):
    for values in (first, second):
        path = f"/elsewhere/{values['title'].replace('/', '')}.jsonl"
        thread = ThreadMetadata(id=thread_id, rollout_path=path, **values)
        if shared_runtime.database_system == "postgresql":
            thread = msgspec.structs.replace(thread, host="")  # others' threads are not written
        shared_runtime.upsert_thread(thread)
        assert shared_runtime.get_thread(thread_id) == thread


def test_an_unknown_thread_is_none(runtime):
    assert runtime.get_thread(ID) is None
    assert runtime.get_dynamic_tools(ID) is None
    assert runtime.find_rollout_path_by_id(ID) is None


def test_an_upsert_overwrites_every_field_and_no_other_thread(runtime):
    other = make_thread()
    runtime.upsert_thread(other)
    runtime.upsert_thread(make_thread(id=ID, git_sha="abc", archived_at=DEFAULT_TIME))
    second = make_thread(id=ID, title="Other", **OTHER_TIMES)
    runtime.upsert_thread(second)
    assert runtime.get_thread(ID) == second
    assert runtime.get_thread(other.id) == other


def test_a_thread_is_archived_exactly_when_it_has_a_time_of_that(runtime):
    archived = make_thread(id=ID, archived_at=DEFAULT_TIME)
    runtime.upsert_thread(archived)
    assert runtime.list_thread_ids(5, archived_only=True) == [ID]
    assert runtime.list_thread_ids(5) == []
    runtime.upsert_thread(msgspec.structs.replace(archived, archived_at=None))
    assert runtime.list_thread_ids(5, archived_only=True) == []
    assert runtime.list_thread_ids(5) == [ID]


@pytest.mark.parametrize("form", FORMS)
def test_any_form_of_an_id_is_accepted_and_stored_canonically(runtime, form):
    runtime.upsert_thread(make_thread(id=form, rollout_path="/r.jsonl"))
    assert runtime.get_thread(form).id == ID
    assert runtime.find_rollout_path_by_id(form) == Path("/r.jsonl")
    runtime.mark_archived(form, "/a.jsonl", DEFAULT_TIME)
    assert runtime.list_thread_ids(5, archived_only=True) == [ID]
    runtime.mark_unarchived(form, "/u.jsonl")
    assert runtime.list_thread_ids(5) == [ID]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        ID[:-1],
        ID + "0",
        " " + ID,
        ID + "\n",
        "../../etc/passwd",
        "\ud800",
        "0x" + "6" * 30,
        "+" + "6" * 31,
        " " + "6" * 31,
        "6" * 15 + "_" + "6" * 16,
        "６" * 32,
    ],
)
def test_what_is_no_uuid_is_refused(runtime, text):
    with pytest.raises(InvalidThreadIdError, match="not a thread id"):
        runtime.get_thread(text)
    with pytest.raises(InvalidThreadIdError):
        runtime.upsert_thread(make_thread(id=text))
    with pytest.raises(InvalidThreadIdError):
        runtime.mark_archived(text, "/x", DEFAULT_TIME)
    assert runtime.find_rollout_path_by_id(text) is None
    assert runtime.list_thread_ids(5) == []


@pytest.mark.parametrize("year", [1960, 2026])
def test_times_are_reduced_to_whole_seconds_in_utc(runtime, year):
    east = timezone(timedelta(hours=2))
    moment = datetime(year, 1, 27, 14, 34, 56, 999_999, tzinfo=east)
    columns = ("created_at", "updated_at", "recency_at", "archived_at")
    runtime.upsert_thread(make_thread(id=ID, **dict.fromkeys(columns, moment)))
    want = datetime(year, 1, 27, 12, 34, 56, tzinfo=UTC)
    thread = runtime.get_thread(ID)
    assert {getattr(thread, column) for column in columns} == {want}
    assert thread.created_at.tzinfo is UTC


def test_two_rows_are_compared_by_field_in_the_order_of_declaration():
    one = make_thread(id=ID)
    other = msgspec.structs.replace(one, git_sha="x", tokens_used=1, title="x", created_at=None)
    assert one.differing_fields(other) == ["created_at", "title", "tokens_used", "git_sha"]
    assert one.differing_fields(one) == []


def test_a_row_with_impossible_values_is_an_error_and_no_absence(runtime):
    runtime.upsert_thread(make_thread(id=ID))
    run_sql(index_of(runtime), f"UPDATE threads SET updated_at = {10**17}")
    with pytest.raises(DatabaseDamagedError, match=ID):
        runtime.get_thread(ID)


def test_a_row_with_impossible_values_is_mended_from_its_rollout(runtime, home):
    path = write_rollout(home, ID, [session_meta(ID), user_message("Hi")], mtime=DEFAULT_TIME)
    want = runtime.get_thread(ID)
    run_sql(index_of(runtime), f"UPDATE threads SET updated_at = {10**17}")
    assert runtime.get_thread(ID) == want
    assert (want.rollout_path, want.updated_at) == (str(path), DEFAULT_TIME)


def test_a_path_is_found_by_archived_state_also_where_no_file_is(runtime):
    active, archived = make_thread(), make_thread(archived_at=DEFAULT_TIME)
    for thread in (active, archived):
        runtime.upsert_thread(thread)
    found = {
        wanted: [runtime.find_rollout_path_by_id(t.id, wanted) for t in (active, archived)]
        for wanted in (None, True, False)
    }
    paths = [Path(active.rollout_path), Path(archived.rollout_path)]
    assert found == {None: paths, True: [None, paths[1]], False: [paths[0], None]}


@pytest.mark.parametrize("separator", ["/", "//"])
def test_a_path_below_the_home_still_names_the_same_file(runtime, home, separator):
    path = f"{home}{separator}sessions/2026/01/27/rollout-2026-01-27T12-34-56-{ID}.jsonl"
    runtime.upsert_thread(make_thread(id=ID, rollout_path=path))
    assert os.path.normpath(runtime.get_thread(ID).rollout_path) == os.path.normpath(path)


def test_what_is_not_unicode_in_a_path_is_replaced(runtime):
    strange = os.fsdecode(b"/x/\xff.jsonl")
    runtime.upsert_thread(make_thread(id=ID, rollout_path=strange, cwd=strange))
    thread = runtime.get_thread(ID)
    assert (thread.rollout_path, thread.cwd) == ("/x/\ufffd.jsonl", "/x/\ufffd.jsonl")
    runtime.mark_archived(ID, Path(strange), DEFAULT_TIME)
    assert runtime.get_thread(ID).rollout_path == "/x/\ufffd.jsonl"


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


def test_marking_sets_state_path_and_mtime_and_nothing_else(runtime, home):
    before = make_thread(id=ID, **OTHER_TIMES)
    runtime.upsert_thread(before)
    mtime = datetime(2027, 1, 15, 8, 0, tzinfo=UTC)
    path = write_rollout(home, ID, [], archived=True, mtime=mtime + timedelta(microseconds=900_000))
    runtime.mark_archived(ID, path, DEFAULT_TIME + timedelta(microseconds=5))
    [thread] = runtime.list_threads(5, archived_only=True).items
    assert (thread.archived_at, thread.rollout_path) == (DEFAULT_TIME, str(path))
    assert thread.updated_at == mtime
    assert before.differing_fields(thread) == ["rollout_path", "updated_at", "archived_at"]


def test_unmarking_is_the_way_back_and_keeps_the_time_where_no_file_is(runtime):
    before = make_thread(id=ID, archived_at=DEFAULT_TIME, **OTHER_TIMES)
    runtime.upsert_thread(before)
    runtime.mark_unarchived(ID, Path("/gone/rollout.jsonl"))
    [thread] = runtime.list_threads(5).items
    assert before.differing_fields(thread) == ["rollout_path", "archived_at"]
    assert (thread.archived_at, thread.rollout_path) == (None, "/gone/rollout.jsonl")


def test_an_mtime_just_before_a_second_belongs_to_the_second_before(runtime, home):
    path = write_rollout(home, ID, [])
    os.utime(path, ns=(0, 1_800_000_000_999_999_999))
    runtime.upsert_thread(make_thread(id=ID))
    runtime.mark_unarchived(ID, path)
    assert runtime.list_threads(5).items[0].updated_at.timestamp() == 1_800_000_000


def test_marking_leaves_unknown_ids_alone(runtime):
    runtime.mark_archived(ID, "/x", DEFAULT_TIME)
    runtime.mark_unarchived(ID, "/x")
    for archived in (True, False):
        assert runtime.list_thread_ids(5, archived_only=archived, include_silent=True) == []


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


def test_one_face_reads_what_the_other_wrote(open_runtime, engine_options, home):
    theirs, ours = make_thread(home), make_thread(home)
    with (
        StateRuntime.open(home, backfill=False, **engine_options) as state,
        open_runtime(home) as runtime,
    ):
        state.upsert_thread(theirs)
        runtime.upsert_thread(ours)
        assert (runtime.get_thread(theirs.id), state.get_thread(ours.id)) == (theirs, ours)
        assert (runtime.codex_home, runtime.database) == (state.codex_home, state.database)


def test_what_was_stored_is_there_when_the_home_is_opened_again(open_runtime, home):
    thread = make_thread(home)
    with open_runtime(home) as first:
        first.upsert_thread(thread)
    with open_runtime(home) as second:
        assert second.get_thread(thread.id) == thread


def test_a_home_is_synced_once_its_rollouts_were_compared_with_the_index(open_runtime, home):
    write_rollout(home, ID, [session_meta(ID), user_message("Hi")])
    with open_runtime(home, backfill=True) as runtime:
        assert runtime.get_thread(ID).title == "Hi"
        runtime.sync(jobs=1)
        assert runtime.is_synced()
        assert runtime.list_thread_ids(5) == [ID]


def test_without_a_backfill_only_what_is_asked_for_is_indexed(open_runtime, way, home):
    if way[1] == "postgresql":
        pytest.skip("a list of what is shared has what was sent")
    ids = [f"{number:08x}-0000-4000-8000-000000000000" for number in range(140)]
    for number, thread_id in enumerate(ids):
        day = f"2026-01-{number % 28 + 1:02}T00"
        lines = [session_meta(thread_id, timestamp=f"{day}:00:00Z"), user_message("Hi")]
        write_rollout(home, thread_id, lines, time=f"{day}-00-00")
    with open_runtime(home) as runtime:
        newest = runtime.list_thread_ids(5)
        [(indexed,)] = run_sql(index_of(runtime), "SELECT count(*) FROM threads")
        assert not runtime.is_synced()
        assert 5 <= indexed < len(ids)
        assert len(runtime.list_thread_ids(500)) == len(ids)
        runtime.sync()
        assert runtime.list_thread_ids(5) == newest


def test_the_state_may_be_kept_elsewhere(open_runtime, home, tmp_path):
    database = tmp_path / "elsewhere" / "mine.sqlite"
    with open_runtime(home, database=database) as runtime:
        runtime.upsert_thread(make_thread(id=ID))
        assert runtime.database == str(database)
    assert [path.name for path in home.iterdir()] == ["sessions"]
    with StateRuntime.open(home, database=database, backfill=False) as again:
        assert again.list_thread_ids(5) == [ID]
