"""Deleted is deleted: every trace of it, and nothing else."""

import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest

from rollbook import LogEntry, LogQuery, RolloutRecorder, StateRuntime, UsageKey, items
from rollbook.errors import RolloutError, ThreadInUseError, ThreadNotFoundError, UsageError
from rollbook.model.times import format_time
from rollbook.testing import (
    make_thread,
    message,
    session_meta,
    token_count,
    user_message,
    write_rollout,
)
from tests.conftest import index_of, run_sql

ID = "66666666-6666-4666-8666-666666666666"
OTHER = "77777777-7777-4777-8777-777777777777"
FORK = "88888888-8888-4888-8888-888888888888"
NOW = datetime.now(UTC).replace(microsecond=0)


def said(text, when=NOW):
    stamp = {"timestamp": format_time(when)}
    return [message(text, **stamp), user_message(text, **stamp)]


@pytest.fixture
def full(home, state):
    """Two threads, of which everything is known that can be."""
    paths = {}
    for thread_id in (ID, OTHER):
        used = token_count(10, timestamp=format_time(NOW))
        lines = [session_meta(thread_id), *said(f"Remarkable zebra number{thread_id[0]}"), used]
        paths[thread_id] = write_rollout(home, thread_id, lines)
    state.sync()
    for thread_id in (ID, OTHER):
        state.rename_thread(thread_id, f"Zebra {thread_id[0]}")
        state.tag_thread(thread_id, ["striped"])
        entries = [
            LogEntry(1, n, "INFO", "zoo", f"logged{thread_id[0]}", thread_id) for n in range(600)
        ]
        state.insert_logs(entries)
    return paths


def test_no_byte_of_what_it_said_is_left_in_any_file(home, full, state):
    state.search("zebra")
    state.delete_threads([ID])
    state.close()
    for file in (home / "rollbook").iterdir():
        content = file.read_bytes().lower()
        assert [word for word in (b"number6", b"zebra 6", b"logged6") if word in content] == []
    for name, word in (("state", b"number7"), ("content", b"7"), ("logs", b"logged7")):
        assert word in (home / "rollbook" / f"{name}.sqlite").read_bytes()


def traces(home, state, thread_id):
    """Where anything of a thread is left, beside its rollout and that it was deleted."""
    found = []
    if thread_id in state.list_thread_ids(9, include_silent=True):
        found.append("list")
    if any(hit.thread.id == thread_id for hit in state.search("zebra").hits):
        found.append("search")
    if any(row.keys == (thread_id,) for row in state.usage([UsageKey.THREAD]).rows):
        found.append("usage")
    if state.query_logs(LogQuery(thread_ids=[thread_id])):
        found.append("logs")
    for name in ("state", "content", "logs"):
        database = home / "rollbook" / f"{name}.sqlite"
        tables = run_sql(database, "SELECT name FROM sqlite_master WHERE type = 'table'")
        for (table,) in tables:
            columns = [row[1] for row in run_sql(database, f"PRAGMA table_info({table})")]
            found += [
                f"{name}.{table}"
                for column in ("id", "thread_id")
                if column in columns
                and run_sql(database, f"SELECT 1 FROM {table} WHERE {column} = ?", (thread_id,))
            ]
    return found


def test_every_trace_of_a_thread_goes_and_its_rollout_stays(home, full, state):
    before = full[ID].read_bytes()
    assert traces(home, state, ID)
    report = state.delete_threads([ID])
    assert (report.log_rows, report.with_rollouts, report.is_dry_run) == (600, False, False)
    [gone] = report.threads
    assert (gone.id, gone.title, gone.rollouts) == (ID, "Zebra 6", 1)
    assert gone.rollout_bytes == report.rollout_bytes == len(before)
    assert traces(home, state, ID) == ["state.annotations"]  # that it was deleted
    assert b"Zebra 6" not in (home / "rollbook" / "annotations.jsonl").read_bytes()
    assert full[ID].read_bytes() == before
    for rebuild in (False, True):
        state.sync(rebuild=rebuild)
        assert traces(home, state, ID) == ["state.annotations"]
        assert (state.get_thread(ID), state.get_thread(OTHER).name) == (None, "Zebra 7")
    assert len(state.query_logs(LogQuery(thread_ids=[OTHER]))) == 600


def test_with_its_rollout_nothing_at_all_is_left(home, full, state):
    state.delete_threads([ID, ID], rollouts=True)
    assert not full[ID].exists()
    assert full[OTHER].exists()
    assert traces(home, state, ID) == []
    assert ID not in (home / "rollbook" / "annotations.jsonl").read_text()
    assert state.sync().removed == 0
    assert run_sql(index_of(state), "SELECT thread_id FROM rollout_files") == [(OTHER,)]


def test_all_files_of_a_thread_go(home, state):
    lines = [session_meta(ID), *said("Begin")]
    paths = [
        write_rollout(home, ID, lines),
        write_rollout(home, ID, lines, archived=True),
        write_rollout(home, ID, lines, time="2026-01-28T00-00-00", segment="2"),
    ]
    packed = paths[0].with_name(paths[0].name + ".zst")
    packed.write_bytes(b"whatever")
    report = state.delete_threads([ID], rollouts=True)
    assert not any(path.exists() for path in [*paths, packed])
    assert report.threads[0].rollouts == 3


def test_a_dry_run_changes_nothing(home, full, state):
    report = state.delete_threads([ID, OTHER], rollouts=True, dry_run=True)
    assert report.is_dry_run
    assert [thread.id for thread in report.threads] == [ID, OTHER]
    assert state.get_thread(ID).name == "Zebra 6"
    assert all(path.exists() for path in full.values())


def test_one_unknown_thread_and_none_is_deleted(home, full, state):
    with pytest.raises(ThreadNotFoundError):
        state.delete_threads([ID, FORK])
    assert state.get_thread(ID).name == "Zebra 6"


def test_a_thread_that_goes_on_is_there_again_with_all_its_rollouts(home, full, state):
    state.delete_threads([ID])
    segment = [session_meta(ID), *said("Going on", NOW + timedelta(seconds=5))]
    write_rollout(home, ID, segment, time="2026-01-28T00-00-00", segment="2")
    state.sync()
    thread = state.get_thread(ID)
    assert (thread.title, thread.name, thread.tags) == ("Remarkable zebra number6", None, ())
    assert [hit.thread.id for hit in state.search("number6").hits] == [ID]


def test_a_rollout_that_a_fork_begins_in_is_not_deleted_without_it(home, state):
    parent = write_rollout(home, ID, [session_meta(ID), *said("Shared")])
    base = {"thread_id": ID, "end_byte_offset": parent.stat().st_size}
    meta = session_meta(FORK, forked_from_id=ID, history_base=base)
    write_rollout(home, FORK, [meta, *said("Own")])
    copy = session_meta(OTHER, forked_from_id=ID)
    write_rollout(home, OTHER, [copy, *said("A copy of all that it needs")])
    with pytest.raises(RolloutError, match=f"thread {FORK}, a fork of {ID}, begins in it"):
        state.delete_threads([ID], rollouts=True)
    assert parent.exists()
    assert state.get_thread(ID).id == ID
    state.delete_threads([ID])
    state.delete_threads([FORK, ID], rollouts=True)
    assert not parent.exists()
    assert state.list_thread_ids(9) == [OTHER]


def test_a_rollout_that_a_recorder_writes_is_not_deleted(home, state):
    with RolloutRecorder.create(state, cwd="/", git=False) as recorder:
        recorder.record_items(items.user_message("Working"))
        with pytest.raises(ThreadInUseError):
            state.delete_threads([recorder.thread_id], rollouts=True)
    state.delete_threads([recorder.thread_id], rollouts=True)
    assert state.get_thread(recorder.thread_id) is None


def test_nor_one_that_an_agent_has_open(home, full, state):
    program = "import sys; file = open(sys.argv[1], 'a'); print(flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", program, full[ID]]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as agent:
        agent.stdout.readline()
        with pytest.raises(ThreadInUseError, match=f"process {agent.pid} "):
            state.delete_threads([ID], rollouts=True)
        agent.communicate()
    with full[ID].open():  # to read it is no reason
        state.delete_threads([ID], rollouts=True)


def test_nothing_behind_a_link_is_deleted(home, state, tmp_path):
    outside = write_rollout(tmp_path / "outside", ID, [session_meta(ID), *said("Outside")])
    linked = home / "sessions" / "2027"
    linked.symlink_to(outside.parent)
    state.upsert_thread(make_thread(home, id=ID, rollout_path=str(linked / outside.name)))
    with pytest.raises(ThreadNotFoundError):  # such a row doesn't outlast a look at the disk
        state.delete_threads([ID], rollouts=True)
    assert outside.exists()


@pytest.mark.parametrize("is_pinned", [True, False])
def test_what_is_old_is_pruned_and_what_is_to_be_kept_stays(home, state, is_pinned):
    ages = {ID: 10, OTHER: 200, FORK: 300}
    for thread_id, days in ages.items():
        when = NOW - timedelta(days=days)
        lines = [session_meta(thread_id, cwd=f"/p/{days}"), *said("Something", when)]
        write_rollout(home, thread_id, lines)
    state.sync()
    if is_pinned:
        state.pin_thread(FORK)
    state.tag_thread(OTHER, ["reference"])

    def pruned(days, **options):
        report = state.prune(timedelta(days=days), dry_run=True, **options)
        return {thread.id for thread in report.threads}

    assert pruned(400) == set()
    assert pruned(180) == ({OTHER} if is_pinned else {OTHER, FORK})
    assert pruned(180, keep_pinned=False) == {OTHER, FORK}
    assert pruned(180, keep_tags=["reference"], keep_pinned=False) == {FORK}
    assert pruned(5, tags=["reference"]) == {OTHER}
    assert pruned(5, cwd="/p/10") == {ID}
    assert pruned(5, project="/p/300", keep_pinned=False) == {FORK}
    assert pruned(5, archived_only=True) == set()
    assert len(state.list_thread_ids(9)) == 3
    state.prune(timedelta(days=180), keep_pinned=False, rollouts=True)
    assert state.list_thread_ids(9) == [ID]
    assert len(list(home.rglob("rollout-*"))) == 1


def test_an_age_of_nothing_is_refused(state):
    with pytest.raises(UsageError):
        state.prune(timedelta(0))


def test_many_threads_are_pruned_a_page_at_a_time(home, monkeypatch):
    from rollbook import runtime

    monkeypatch.setattr(runtime, "_PRUNED_AT_ONCE", 3)
    with StateRuntime.open(home, backfill=False) as state:
        for number in range(10):
            thread_id = f"{number:08x}-0000-4000-8000-000000000000"
            write_rollout(home, thread_id, [session_meta(thread_id), user_message("Old")])
        assert len(state.prune(timedelta(days=1), keep_tags=["x"]).threads) == 10
        assert state.list_thread_ids(99) == []
