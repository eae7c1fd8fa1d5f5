"""A home that changes while it is being synced: nothing is lost, doubled, or called a failure."""

import os
import random
import threading
import uuid
from pathlib import Path

import pytest
from msgspec.structs import replace

from rollbook import StateRuntime, ThreadMetadataBuilder
from rollbook.index import backfill
from rollbook.rollout.layout import list_rollouts
from rollbook.rollout.lines import decode_line
from rollbook.store import files
from rollbook.testing import (
    DEFAULT_TIME,
    make_line,
    session_meta,
    token_count,
    user_message,
    write_rollout,
)
from tests.index.test_sync import append, everything, rebuilt

NEWER, OLDER = "bbbbbbbb-0000-4000-8000-000000000000", "aaaaaaaa-0000-4000-8000-000000000000"
OPERATIONS = 150


@pytest.fixture
def two(home) -> list[Path]:
    """Two rollouts; the newer one is read first."""
    return [
        write_rollout(home, thread_id, [session_meta(thread_id), user_message("Hi")], time=time)
        for thread_id, time in ((NEWER, "2026-02-02T00-00-00"), (OLDER, "2026-01-01T00-00-00"))
    ]


def test_a_rollout_that_is_archived_before_it_is_read_is_found_where_it_went(home, two, state):
    def archive(_) -> None:
        if two[1].exists():
            (home / "archived_sessions").mkdir()
            two[1].rename(home / "archived_sessions" / two[1].name)

    stats = state.sync(jobs=1, progress=archive)
    assert (stats.scanned, stats.indexed, stats.failed, stats.removed) == (2, 2, 0, 0)
    assert state.get_thread(OLDER).archived_at is not None


def test_a_rollout_that_is_deleted_before_it_is_read_is_no_failure(two, state):
    stats = state.sync(jobs=1, progress=lambda _: two[1].unlink(missing_ok=True))
    assert (stats.scanned, stats.indexed, stats.failed) == (1, 1, 0)
    assert [thread.id for thread in everything(state)] == [NEWER]


def test_a_rollout_that_rollbook_archives_meanwhile_stays_archived(home, two, state):
    def archive(progress) -> None:
        if progress.files_done == 1:
            with StateRuntime.open(home, backfill=False) as other:
                other.archive_thread(NEWER)

    state.sync(jobs=1, progress=archive)
    state.sync()
    assert state.get_thread(NEWER).archived_at is not None
    assert not two[0].exists()


@pytest.mark.parametrize("way", ["archive", "unarchive"])
def test_a_rollout_that_rollbook_moves_after_the_home_was_listed_is_where_it_went(
    home, two, state, monkeypatch, way
):
    state.sync()
    if way == "unarchive":
        state.archive_thread(NEWER)

    def listed(place: Path) -> object:
        monkeypatch.undo()
        listing = list_rollouts(place)
        with StateRuntime.open(home, backfill=False) as other:
            if way == "archive":
                other.archive_thread(NEWER)
            else:
                other.unarchive_thread(NEWER)
                with other._engine.write() as tx:  # as where both are in one tick of the clock
                    mtime_ns = next(f for p, f in listing.files.items() if NEWER in p).mtime_ns
                    os.utime(two[0], ns=(mtime_ns, mtime_ns))
                    path = str(two[0].relative_to(home))
                    files.upsert(tx, replace(files.get(tx, path), mtime_ns=mtime_ns))
        return listing

    monkeypatch.setattr(backfill, "list_rollouts", listed)
    state.sync()
    [(path, archived)] = [
        (thread.rollout_path, thread.archived_at is not None)
        for thread in everything(state)
        if thread.id == NEWER
    ]
    assert Path(path).exists()
    assert archived == (way == "archive")


def test_a_title_that_a_live_writer_could_not_store_is_found_by_the_next_sync(home, state):
    path = write_rollout(home, OLDER, [session_meta(OLDER)])
    state.sync()
    append(path, user_message("First"), user_message("Second"))
    live = [decode_line(user_message("Second"))]
    state.apply_rollout_items(ThreadMetadataBuilder(OLDER, str(path), DEFAULT_TIME), live)
    assert state.get_thread(OLDER).title == "Second"
    state.sync()
    assert state.get_thread(OLDER).title == "First"


def write_a_while(home: Path, thread_ids: list[str], seed: int, errors: list) -> None:
    rng = random.Random(seed)
    try:
        with StateRuntime.open(home, backfill=False) as state:
            paths = {i: next(home.rglob(f"*{i}.jsonl")) for i in thread_ids}
            for number in range(OPERATIONS):
                thread_id = rng.choice(thread_ids)
                context = make_line("turn_context", {"cwd": f"/{number}"})
                line = rng.choice([token_count(number), user_message(f"m{number}"), context])
                append(paths[thread_id], line)
                if rng.random() < 0.5:
                    builder = ThreadMetadataBuilder(thread_id, str(paths[thread_id]), DEFAULT_TIME)
                    state.apply_rollout_items(builder, [decode_line(line)])
                if rng.random() < 0.1:
                    state.archive_thread(thread_id)
                    moved = state.unarchive_thread(thread_id)
                    paths[thread_id] = Path(moved.rollout_path)
    except BaseException as error:
        errors.append(error)
        raise


def test_writers_archivers_and_a_sync_at_once_end_with_what_the_rollouts_say(home, tmp_path):
    ids = [str(uuid.uuid4()) for _ in range(12)]
    for thread_id in ids:
        write_rollout(home, thread_id, [session_meta(thread_id)])
    errors: list = []
    writers = [
        threading.Thread(target=write_a_while, args=(home, ids[seed::3], seed, errors))
        for seed in range(3)
    ]
    with StateRuntime.open(home, backfill=False) as state:
        for writer in writers:
            writer.start()
        while any(writer.is_alive() for writer in writers):
            assert state.sync().failed == 0
        assert errors == []
        state.sync()
        found = everything(state)
        assert sorted(thread.id for thread in found) == sorted(ids)
        assert found == rebuilt(state, tmp_path)
