import os
import uuid
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollbook.errors import HomeError, HomeNotFoundError
from rollbook.rollout.layout import (
    archived_path,
    find_rollouts,
    list_rollouts,
    newest_rollouts,
    parse_rollout_name,
    resolve_home,
    unarchived_path,
)
from rollbook.testing import write_rollout

ID = "44444444-4444-4444-8444-444444444444"
NAME = f"rollout-2026-01-27T12-34-56-{ID}.jsonl"


@given(st.uuids(), st.datetimes(), st.sampled_from(["", "_0002", "_" + ID]), st.booleans())
def test_a_name_gives_back_what_it_was_made_from(thread_id, time, segment, compressed):
    stamp = time.strftime("%Y-%m-%dT%H-%M-%S").rjust(19, "0")
    name = f"rollout-{stamp}-{thread_id}{segment}.jsonl{'.zst' if compressed else ''}"
    parsed = parse_rollout_name(name)
    assert (parsed.thread_id, parsed.segment) == (str(thread_id), segment[1:])
    assert parsed.created_at.replace(tzinfo=None) == time.replace(microsecond=0)


@pytest.mark.parametrize(
    "name",
    [
        "session.jsonl",
        NAME.removesuffix("l"),
        NAME.removeprefix("rollout-"),
        NAME.replace("T12", " 12"),
        NAME.replace(ID, "no-uuid"),
        NAME.replace("-01-27", "-13-27"),
        f"rollout-{ID}.jsonl",
    ],
)
def test_other_names_are_no_rollouts(name):
    assert parse_rollout_name(name) is None


@given(st.text(max_size=80))
def test_no_name_is_an_error(text):
    parse_rollout_name(f"rollout-{text}.jsonl")


def test_archive_and_back_is_by_the_date_in_the_name():
    path = f"sessions/2026/01/27/{NAME}"
    assert archived_path(path) == f"archived_sessions/{NAME}"
    assert unarchived_path(archived_path(path)) == path
    assert unarchived_path("archived_sessions/rollout-x.jsonl") is None


def test_the_home_is_what_was_given_else_that_of_the_environment(home, monkeypatch, tmp_path):
    assert resolve_home(home) == home
    monkeypatch.setenv("CODEX_HOME", str(home))
    assert resolve_home() == home
    monkeypatch.chdir(tmp_path)
    assert resolve_home("home") == home
    monkeypatch.delenv("CODEX_HOME")
    (Path(os.environ["HOME"]) / ".codex").mkdir()
    assert resolve_home() == Path(os.environ["HOME"]) / ".codex"


def test_a_home_that_is_missing_or_a_file_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(HomeNotFoundError, match="no home at"):
        resolve_home(tmp_path / "missing")
    with pytest.raises(HomeError, match="not a directory"):
        resolve_home(tmp_path / "file")


def test_files_at_any_depth_are_found_and_others_left_out(home):
    path = write_rollout(home, ID, [])
    (path.parent / "notes.txt").touch()
    deep = home / "sessions" / "a" / "b" / "c" / "d" / "rollout-hand-made.jsonl"
    deep.parent.mkdir(parents=True)
    deep.touch()
    listing = list_rollouts(home)
    assert sorted(listing.files) == sorted(
        file.relative_to(home).as_posix() for file in (path, deep)
    )
    assert listing.complete_roots == ("sessions",)


def test_the_newest_are_found_by_the_names_of_their_directories(home):
    days = ["2025-12-31", "2026-01-09", "2026-01-10", "2026-02-01"]
    for day in days * 3:
        write_rollout(home, str(uuid.uuid4()), [], time=f"{day}T10-00-00")
    write_rollout(home, ID, [], archived=True)
    newest = [file.path for file in newest_rollouts(home, 4)]
    assert sorted(path[9:19] for path in newest) == ["2026/01/10"] * 3 + ["2026/02/01"] * 3
    assert len(newest_rollouts(home, 100)) == 12


def test_of_a_plain_and_a_compressed_file_the_plain_one_counts(home):
    path = write_rollout(home, ID, [b"x"])
    path.with_name(path.name + ".zst").write_bytes(b"yy")
    [file] = list_rollouts(home).files.values()
    assert (file.compressed, file.size) == (False, 2)
    path.unlink()
    [file] = list_rollouts(home).files.values()
    assert (file.compressed, file.path.endswith(".jsonl")) == (True, True)


def test_a_thread_is_found_by_name_in_both_roots(home):
    active = write_rollout(home, ID, [])
    archived = write_rollout(home, ID, [], archived=True)
    write_rollout(home, str(uuid.uuid4()), [])
    assert find_rollouts(home, ID) == [
        file.relative_to(home).as_posix() for file in (active, archived)
    ]
    assert find_rollouts(home, str(uuid.uuid4())) == []
