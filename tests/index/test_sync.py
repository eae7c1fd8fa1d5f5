"""The index follows the rollouts, and reads only what has changed."""

import os
import shutil
import uuid
from pathlib import Path

import pytest

from rollbook import SortKey, StateRuntime, SyncProgress, SyncStage
from rollbook.rollout import extract as extract_module
from rollbook.store import files
from rollbook.testing import (
    make_thread,
    session_meta,
    token_count,
    user_message,
    write_rollout,
)
from tests.conftest import RELEASES, index_of, run_sql
from tests.faults.test_bad_files import compress

ID = "22222222-2222-4222-8222-222222222222"
LATER = 1_900_000_000


@pytest.fixture
def opened(monkeypatch) -> list[str]:
    """The rollouts that were opened, by name."""
    names: list[str] = []
    original = extract_module.reading

    def reading(home, file):
        names.append(Path(file.path).name)
        return original(home, file)

    monkeypatch.setattr(extract_module, "reading", reading)
    return names


def append(path: Path, *lines: bytes) -> None:
    with path.open("ab") as file:
        file.write(b"".join(line + b"\n" for line in lines))


def everything(state: StateRuntime) -> list:
    return [
        thread
        for archived in (False, True)
        for thread in state.list_threads(
            10_000, None, SortKey.CREATED_AT, (), None, archived, include_silent=True
        ).items
    ]


def rebuilt(state: StateRuntime, tmp_path: Path) -> list:
    """What an index built from nothing would hold."""
    database = tmp_path / f"{uuid.uuid4()}.sqlite"
    with StateRuntime.open(state.codex_home, database=database, backfill=False) as fresh:
        fresh.sync()
        return everything(fresh)


@pytest.mark.parametrize("release", RELEASES)
def test_a_second_sync_opens_nothing(corpus_home, release, opened):
    with StateRuntime.open(corpus_home(release), backfill=False) as state:
        first = state.sync()
        assert len(opened) == first.indexed > 0
        opened.clear()
        second = state.sync()
    assert opened == []
    assert (second.unchanged, second.indexed, second.bytes_read) == (first.indexed, 0, 0)


def test_growth_is_folded_from_where_the_last_sync_stopped(home, state, tmp_path):
    path = write_rollout(home, ID, [session_meta(ID), user_message("First"), token_count(1)])
    state.sync()
    line = token_count(9, timestamp="2026-01-28T00:00:00.000Z")
    append(path, line)
    stats = state.sync()
    assert (stats.indexed, stats.bytes_read) == (1, len(line) + 1)
    thread = state.get_thread(ID)
    assert (thread.title, thread.tokens_used) == ("First", 9)
    assert str(thread.recency_at) == "2026-01-28 00:00:00+00:00"
    assert everything(state) == rebuilt(state, tmp_path)


def test_a_replaced_rollout_is_folded_from_its_start(home, state):
    path = write_rollout(home, ID, [session_meta(ID), user_message("Old"), token_count(5)])
    state.sync()
    other = path.with_name("other")
    other.write_bytes(b"\n".join([session_meta(ID), user_message("New and longer"), b""]) * 2)
    other.replace(path)
    state.sync()
    assert (state.get_thread(ID).title, state.get_thread(ID).tokens_used) == ("New and longer", 0)


def test_a_shortened_rollout_is_folded_from_its_start(home, state):
    lines = [session_meta(ID), user_message("Kept"), token_count(5)]
    path = write_rollout(home, ID, lines)
    state.sync()
    write_rollout(home, ID, lines[:2])
    assert state.sync().indexed == 1
    assert (state.get_thread(ID).title, state.get_thread(ID).tokens_used) == ("Kept", 0)
    assert path.exists()


def test_a_rollout_edited_in_place_is_folded_from_its_start(home, state):
    path = write_rollout(home, ID, [session_meta(ID), user_message("Before"), token_count(5)])
    state.sync()
    with path.open("r+b") as file:
        content = file.read().replace(b"Before", b"After!")
        file.seek(0)
        file.write(content)
        file.write(token_count(6) + b"\n")
    state.sync()
    assert (state.get_thread(ID).title, state.get_thread(ID).tokens_used) == ("After!", 6)


def test_an_edit_of_the_same_length_is_seen(home, state):
    path = write_rollout(home, ID, [session_meta(ID), user_message("Before")])
    state.sync()
    path.write_bytes(path.read_bytes().replace(b"Before", b"After!"))
    os.utime(path, (LATER, LATER))
    state.sync()
    assert state.get_thread(ID).title == "After!"


def test_a_rollout_moved_by_the_agent_is_followed_without_reading_it(home, state, opened):
    path = write_rollout(home, ID, [session_meta(ID), user_message("Moved")])
    state.sync()
    opened.clear()
    target = home / "archived_sessions" / path.name
    target.parent.mkdir()
    path.rename(target)
    stats = state.sync()
    assert opened == []
    assert (stats.indexed, stats.removed, stats.bytes_read) == (1, 0, 0)
    thread = state.get_thread(ID)
    assert thread.rollout_path == str(target)
    assert thread.archived_at == thread.updated_at
    target.rename(path)
    state.sync()
    assert state.get_thread(ID).archived_at is None


def test_a_thread_whose_rollout_is_gone_is_left_out_after_the_next_sync(home, state):
    path = write_rollout(home, ID, [session_meta(ID), user_message("Gone")])
    state.sync()
    path.unlink()
    thread = state.get_thread(ID)
    assert thread.title == "Gone"
    assert not state.rollout_exists(thread)
    assert state.sync().removed == 1
    assert state.list_threads(9).items == []
    assert state.get_thread(ID) is None


def test_a_row_that_no_rollout_ever_stood_for_goes_with_the_next_sync(home, state):
    state.upsert_thread(make_thread(home, id=ID))
    elsewhere = make_thread("/somewhere/else", id=str(uuid.uuid4()))
    state.upsert_thread(elsewhere)
    assert state.sync().removed == 1
    assert [thread.id for thread in state.list_threads(9).items] == [elsewhere.id]


def test_a_missing_root_is_no_deletion(home, state):
    write_rollout(home, ID, [session_meta(ID), user_message("On another disk")])
    state.sync()
    (home / "sessions").rename(home / "unmounted")
    assert state.sync().removed == 0
    assert [thread.id for thread in state.list_threads(9).items] == [ID]


def test_a_restored_rollout_is_found(home, state, tmp_path):
    state.sync()
    path = write_rollout(home, ID, [session_meta(ID), user_message("Back")])
    os.utime(path, (1, 1))
    assert state.sync().indexed == 1
    assert state.get_thread(ID).title == "Back"


def test_what_changes_in_any_part_of_a_comparison_is_found(home, state, tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_AT_ONCE", 3)
    paths = []
    for _ in range(10):
        thread_id = str(uuid.uuid4())
        paths.append(write_rollout(home, thread_id, [session_meta(thread_id), user_message("Hi")]))
    paths.sort()
    assert state.sync().indexed == 10
    assert state.sync().unchanged == 10
    for path in paths[:9:4]:
        append(path, token_count(7))
    paths[3].unlink()
    new = str(uuid.uuid4())
    write_rollout(home, new, [session_meta(new), user_message("New")])
    run_sql(index_of(state), "DELETE FROM threads WHERE id = ?", (paths[6].stem[-36:],))
    stats = state.sync()
    assert (stats.indexed, stats.unchanged, stats.removed) == (5, 5, 1)
    assert sorted(map(str, everything(state))) == sorted(map(str, rebuilt(state, tmp_path)))


def test_an_index_out_of_order_does_not_keep_a_sync_for_ever(home, state, monkeypatch):
    monkeypatch.setattr(files, "_AT_ONCE", 3)
    for name in "CDEFa":
        thread_id = str(uuid.uuid4())
        path = write_rollout(home, thread_id, [session_meta(thread_id), user_message(name)])
        place = home / "sessions" / name / path.name
        place.parent.mkdir()
        path.rename(place)
    state.sync()
    run_sql(
        index_of(state),
        "PRAGMA writable_schema = ON;"
        " UPDATE sqlite_schema SET sql = replace(sql, 'path TEXT', 'path TEXT COLLATE NOCASE')"
        " WHERE name = 'rollout_files';"
        " PRAGMA schema_version = 4711",
    )
    assert state.sync().failed == 0
    assert {thread.title for thread in everything(state)} == set("CDEFa")


def test_a_home_can_be_moved(corpus_home, tmp_path):
    old = corpus_home("0.169.0")
    with StateRuntime.open(old, backfill=False) as state:
        state.sync()
        before = everything(state)
    new = tmp_path / "moved"
    shutil.move(old, new)
    with StateRuntime.open(new, backfill=False) as state:
        if state.database_system == "postgresql":  # where paths are as they are on each host
            state.sync()
        after = everything(state)
        assert [thread.rollout_path for thread in after] == [
            thread.rollout_path.replace(str(old), str(new)) for thread in before
        ]
        assert all(state.rollout_exists(thread) for thread in after)
        assert state.sync().indexed == 0


def test_a_rollout_that_becomes_compressed_and_plain_again_is_followed(home, state, tmp_path):
    path = write_rollout(home, ID, [session_meta(ID), user_message("Cold")])
    os.utime(path, (LATER, LATER))
    state.sync()
    before = everything(state)
    compressed = path.with_name(path.name + ".zst")
    compressed.write_bytes(compress(path.read_bytes()))
    os.utime(compressed, (LATER, LATER))
    state.sync()  # both are there: the plain one counts
    path.unlink()
    assert state.sync().removed == 0
    assert everything(state) == before
    assert state.rollout_exists(before[0])
    path.write_bytes(b"\n".join([session_meta(ID), user_message("Cold"), token_count(3), b""]))
    compressed.unlink()
    state.sync()
    assert [thread.tokens_used for thread in everything(state)] == [3]
    assert everything(state) == rebuilt(state, tmp_path)


def test_names_come_from_the_session_index_and_survive_a_rebuild(home, state):
    write_rollout(home, ID, [session_meta(ID), user_message("Something")])
    state.sync()
    index = home / "session_index.jsonl"
    index.write_text(
        f'{{"id":"{ID}","thread_name":"Old","updated_at":"x"}}\n'
        "not json\n"
        f'{{"id":"{ID.upper()}","thread_name":" New \U0001f4d3 ","updated_at":"y"}}\n'
    )
    state.sync()
    assert (state.get_thread(ID).name, state.get_thread(ID).title) == (
        "New \U0001f4d3",
        "Something",
    )
    state.sync(rebuild=True)
    assert state.get_thread(ID).name == "New \U0001f4d3"


def test_segments_are_one_thread(home, state, tmp_path):
    first = [session_meta(ID), user_message("Begun"), token_count(1)]
    write_rollout(home, ID, first)
    later = [session_meta(ID, cwd="/elsewhere"), user_message("Went on"), token_count(2)]
    path = write_rollout(home, ID, later, time="2026-01-28T00-00-00", segment="0002")
    state.sync()
    [thread] = everything(state)
    assert (thread.title, thread.tokens_used, thread.cwd) == ("Begun", 2, "/elsewhere")
    assert str(thread.created_at) == "2026-01-27 12:34:56+00:00"
    append(path, token_count(3))
    state.sync()
    assert [t.tokens_used for t in everything(state)] == [3]
    third = [session_meta(ID), token_count(4)]
    write_rollout(home, ID, third, time="2026-01-29T00-00-00", segment="0003")
    state.sync()
    assert [t.tokens_used for t in everything(state)] == [4]
    assert everything(state) == rebuilt(state, tmp_path)
    path.unlink()
    state.sync()
    assert everything(state) == rebuilt(state, tmp_path)


def test_of_copies_in_both_roots_the_archived_one_counts(home, state, tmp_path):
    write_rollout(home, ID, [session_meta(ID), user_message("Active")])
    archived = write_rollout(home, ID, [session_meta(ID), user_message("Archived")], archived=True)
    state.sync()
    [thread] = everything(state)
    assert (thread.title, thread.archived_at is None) == ("Archived", False)
    archived.unlink()
    state.sync()
    [thread] = everything(state)
    assert (thread.title, thread.archived_at) == ("Active", None)
    assert everything(state) == rebuilt(state, tmp_path)


def test_a_fork_whose_own_first_line_is_lost_does_not_become_its_source(home, state):
    parent = str(uuid.uuid4())
    write_rollout(home, parent, [session_meta(parent), user_message("Parent")])
    torn = session_meta(ID, forked_from_id=parent)[:60]
    copied = [session_meta(parent, cwd="/parent"), user_message("Parent"), token_count(4)]
    write_rollout(home, ID, [torn, *copied], time="2026-01-28T00-00-00")
    state.sync()
    assert {thread.id for thread in everything(state)} == {parent, ID}
    assert state.get_thread(parent).tokens_used == 0
    assert state.get_thread(ID).tokens_used == 4


def test_a_rollout_without_a_session_meta_is_indexed_from_its_name(home, state):
    write_rollout(home, ID, [user_message("No meta")], time="2026-02-03T04-05-06")
    state.sync()
    thread = state.get_thread(ID)
    assert (thread.title, thread.source, thread.cwd) == ("No meta", "vscode", "")
    assert str(thread.created_at) == "2026-02-03 04:05:06+00:00"
    assert thread.model_provider == "openai"


def test_a_rollout_that_gets_its_session_meta_late_equals_one_built_from_nothing(
    home, state, tmp_path
):
    path = write_rollout(home, ID, [user_message("Early")], time="2026-02-03T04-05-06")
    state.sync()
    append(path, session_meta(ID, source="exec"))
    state.sync()
    assert everything(state) == rebuilt(state, tmp_path)
    assert str(state.get_thread(ID).created_at) == "2026-01-27 12:34:56+00:00"


def test_rows_written_live_meanwhile_are_not_lost(home, state):
    """What a recorder has folded stays when a sync folds the same growth again."""
    path = write_rollout(home, ID, [session_meta(ID), user_message("Live")])
    state.sync()
    append(path, token_count(11))
    builder = {"id": ID, "rollout_path": str(path)}
    from rollbook import ThreadMetadataBuilder
    from rollbook.testing import DEFAULT_TIME

    state.apply_rollout_items(
        ThreadMetadataBuilder(**builder, created_at=DEFAULT_TIME),
        [
            {
                "type": "event_msg",
                "payload": {
                    "type": "token_count",
                    "info": {"total_token_usage": {"total_tokens": 11}},
                },
            }
        ],
    )
    before = state.get_thread(ID)
    assert before.tokens_used == 11
    state.sync()
    assert state.get_thread(ID).tokens_used == 11


def test_workers_and_one_process_give_the_same(corpus_home, monkeypatch, tmp_path):
    from rollbook.index import extraction

    monkeypatch.setattr(extraction, "WORTH_WORKERS_BYTES", 0)
    home = corpus_home("0.155.0")
    (home / "sessions" / "rollout-empty.jsonl").touch()
    found = []
    for jobs in (1, 3):
        with StateRuntime.open(home, database=tmp_path / f"{jobs}.db", backfill=False) as state:
            stats = state.sync(jobs=jobs)
            assert (stats.indexed, stats.failed) == (33, 1)
            found.append(everything(state))
    assert found[0] == found[1]


def test_progress_reaches_the_end(corpus_home):
    seen = []
    with StateRuntime.open(corpus_home("0.95.0"), backfill=False) as state:
        state.sync(progress=seen.append)
    assert [step.stage for step in seen] == [SyncStage.METADATA] * 29 + [SyncStage.CONTENT] * 29
    for last in (28, 57):
        assert [step.files_done for step in seen[last - 28 : last + 1]] == list(range(1, 30))
        assert seen[last].files_total == 29
        assert seen[last].bytes_done == seen[last].bytes_total


def test_the_newest_threads_are_there_before_the_others_are_read(home, state, either_engine):
    if either_engine == "postgresql":
        pytest.skip("its index is not new: it was synced, to be shared")
    ids = [f"{number:08x}-0000-4000-8000-000000000000" for number in range(90)]
    for number, thread_id in enumerate(ids):
        time = f"2026-01-{1 + number // 10:02}T10-00-{number % 10:02}"
        write_rollout(home, thread_id, [session_meta(thread_id), user_message("x")], time=time)
    unreadable = write_rollout(home, ID, [b"x"], time="2026-01-09T10-00-11")
    listed = []

    def look(progress: SyncProgress) -> None:
        if progress.files_total > 60 and not listed:
            with state._engine.read() as tx:
                listed.extend(row[0] for row in tx.query("SELECT id FROM threads"))

    stats = state.sync(progress=look)
    assert set(ids[-50:]) <= set(listed) < set(ids)
    assert (stats.scanned, stats.indexed, stats.unchanged, stats.failed) == (91, 90, 0, 1)
    assert [failure.path for failure in stats.failures] == [unreadable.relative_to(home).as_posix()]


def test_a_damaged_row_is_written_anew_by_a_read_and_by_a_rebuild(home, state, caplog):
    write_rollout(home, ID, [session_meta(ID), user_message("Mended")])
    state.sync()
    for mend in (lambda: state.get_thread(ID), lambda: state.sync(rebuild=True)):
        with state._engine.write() as tx:
            tx.execute("UPDATE threads SET created_at = :x, title = 'x'", {"x": 2**60})
        mend()
        assert [thread.title for thread in state.list_threads(5).items] == ["Mended"]
    assert ID in caplog.text


def test_a_file_named_for_another_thread_counts_only_where_there_is_no_other(home, state):
    stranger = str(uuid.uuid4())
    lines = [session_meta(ID), user_message("A copy")]
    copy = write_rollout(home, stranger, lines, time="2026-02-02T00-00-00")
    state.sync()
    assert [(t.id, t.title) for t in everything(state)] == [(ID, "A copy")]
    write_rollout(home, ID, [session_meta(ID), user_message("The original")])
    state.sync()
    assert [(t.id, t.title) for t in everything(state)] == [(ID, "The original")]
    copy.unlink()
    state.sync()
    assert [(t.id, t.title) for t in everything(state)] == [(ID, "The original")]


def test_a_name_list_that_can_not_be_read_is_a_counted_failure(home, state):
    write_rollout(home, ID, [session_meta(ID), user_message("Nameless")])
    (home / "session_index.jsonl").mkdir()
    stats = state.sync()
    assert [failure.path for failure in stats.failures] == ["session_index.jsonl"]
    assert state.get_thread(ID).title == "Nameless"
