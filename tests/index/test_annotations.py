"""What a person says of threads: the file first, the index after it, in any number of processes."""

import json
import os
import subprocess
import sys
import uuid
from datetime import timedelta

import pytest

from rollbook import StateRuntime
from rollbook.errors import (
    AnnotationsError,
    InvalidThreadIdError,
    ThreadNotFoundError,
    UsageError,
)
from rollbook.filesystem import FORCED
from rollbook.index.annotation_file import annotations_beside
from rollbook.testing import DEFAULT_TIME, make_thread, session_meta, user_message, write_rollout

ID = "66666666-6666-4666-8666-666666666666"
OTHER = "77777777-7777-4777-8777-777777777777"


@pytest.fixture
def said(home, state):
    """A home with two threads, and its file of annotations."""
    for thread_id in (ID, OTHER):
        write_rollout(home, thread_id, [session_meta(thread_id), user_message("Here")])
    state.sync()
    return annotations_beside(home / "rollbook" / "state.sqlite")


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_file_has_a_private_line_for_everything_that_was_said(said, state):
    state.rename_thread(ID, "  A name\nof   two lines ")
    state.tag_thread(ID, ["b", "a", "b"])
    state.untag_thread(ID, ["b", "no such"])
    thread = state.pin_thread(ID)
    assert (thread.name, thread.tags, thread.pinned) == ("A name of two lines", ("a",), True)
    found = [
        {k: v for k, v in line.items() if k not in ("time", "thread_id")} for line in lines(said)
    ]
    assert found == [
        {"type": "name", "name": "A name of two lines"},
        {"type": "tag", "tags": ["a", "b"]},
        {"type": "untag", "tags": ["b", "no such"]},
        {"type": "pin"},
    ]
    assert said.stat().st_mode & 0o777 == 0o600
    assert state.get_thread(OTHER).tags == ()


@pytest.mark.parametrize(
    ("say", "error"),
    [
        (lambda state: state.rename_thread(ID, " \n"), UsageError),
        (lambda state: state.tag_thread(ID, []), UsageError),
        (lambda state: state.tag_thread(ID, "abc"), UsageError),
        (lambda state: state.tag_thread(ID, ["x" * 101]), UsageError),
        (lambda state: state.pin_thread(str(uuid.UUID(int=4))), ThreadNotFoundError),
        (lambda state: state.pin_thread("7"), InvalidThreadIdError),
        (lambda state: state.relocate("/a", "/a/"), UsageError),
        (lambda state: state.relocate("a", "/b"), UsageError),
    ],
)
def test_what_makes_no_sense_is_refused_and_leaves_no_line(said, state, say, error):
    with pytest.raises(error):
        say(state)
    assert not said.exists()


def test_the_name_that_was_given_last_counts(home, said, state):
    def given_by_codex(name, time):
        entry = {"id": ID, "thread_name": name, "updated_at": time}
        (home / "session_index.jsonl").write_text(json.dumps(entry) + "\n")
        state.sync()

    given_by_codex("Codex's", "2020-01-01T00:00:00Z")
    assert state.get_thread(ID).name == "Codex's"
    assert state.rename_thread(ID, "Mine").name == "Mine"
    given_by_codex("Codex's next", "2100-01-01T00:00:00.123456789Z")
    assert state.get_thread(ID).name == "Codex's next"
    given_by_codex("Codex's first", "2020-01-01T00:00:00Z")
    assert state.get_thread(ID).name == "Mine"
    assert state.rename_thread(ID, None).name == "Codex's first"


def test_lines_of_other_releases_and_damage_are_passed_over_and_stay(said, state):
    foreign = [
        b'{"time":"2026-01-01T00:00:00Z","type":"colour","thread_id":"%s","colour":1}'
        % ID.encode(),
        b'{"time":"yesterday","type":"pin","thread_id":"%s"}' % ID.encode(),
        b'{"time":"2026-01-01T00:00:00","type":"pin","thread_id":"%s"}' % ID.encode(),
        b'{"time":"2026-01-01T00:00:00Z","type":"pin","thread_id":"no id"}',
        b"[" * 9000,
        b"\xff{}",
        b"7",
    ]
    said.write_bytes(b"\n".join(foreign) + b"\n")
    assert not state.get_thread(ID).pinned
    assert state.tag_thread(OTHER, ["x"]).tags == ("x",)
    assert said.read_bytes().splitlines()[: len(foreign)] == foreign
    state.delete_threads([OTHER])
    assert said.read_bytes().splitlines()[: len(foreign)] == foreign


@pytest.mark.parametrize("torn", [b'{"time":"2026-01-01T00', b'{"time":', b"\xc5"])
def test_what_a_crash_has_left_of_a_line_is_cut_off(said, state, torn):
    state.tag_thread(ID, ["kept"])
    with said.open("ab") as file:
        file.write(torn)
    assert state.get_thread(ID).tags == ("kept",)
    assert state.tag_thread(ID, ["next"]).tags == ("kept", "next")
    assert len(lines(said)) == 2


def test_a_last_line_that_lacks_only_its_break_counts(said, state):
    state.tag_thread(ID, ["kept"])
    said.write_bytes(said.read_bytes().rstrip(b"\n"))
    assert state.tag_thread(ID, ["next"]).tags == ("kept", "next")


def test_another_process_is_seen_at_once(home, said, state):
    state.tag_thread(ID, ["mine"])
    with StateRuntime.open(home, backfill=False) as other:
        assert other.tag_thread(ID, ["theirs"]).tags == ("mine", "theirs")
        assert state.list_threads(9, tags=["theirs"]).items[0].tags == ("mine", "theirs")
        state.delete_threads([ID])
        assert [thread.id for thread in other.list_threads(9).items] == [OTHER]


def test_a_file_that_was_edited_or_removed_is_what_counts(home, said, state):
    state.tag_thread(ID, ["a"])
    state.delete_threads([OTHER])
    assert state.get_thread(OTHER) is None
    said.unlink()
    assert state.get_thread(ID).tags == ()
    state.sync()
    assert state.get_thread(OTHER).id == OTHER


def test_a_row_of_the_callers_own_keeps_what_was_said(home, said, state):
    state.tag_thread(ID, ["a"])
    state.rename_thread(ID, "Mine")
    state.relocate("/home/dev", "/srv")
    thread = state.get_thread(ID)
    assert (thread.cwd, thread.recorded_cwd) == ("/srv/project", "/home/dev/project")
    state.upsert_thread(thread)
    assert state.get_thread(ID) == thread
    assert state.rename_thread(ID, None).name is None
    state.upsert_thread(make_thread(home, id=ID, tags=("b",), pinned=True))
    assert (state.get_thread(ID).tags, state.get_thread(ID).pinned) == (("a",), False)


def test_a_moved_directory_is_where_its_threads_are_listed(home, said, state):
    assert state.relocate("/home/dev", "/srv/dev") == 2
    assert state.list_thread_ids(9, cwd="/home/dev/project") == []
    assert set(state.list_thread_ids(9, cwd="/srv/dev/project")) == {ID, OTHER}
    new = str(uuid.UUID(int=7))
    write_rollout(home, new, [session_meta(new, cwd="/home/dev/project"), user_message("New")])
    state.sync()
    assert state.get_thread(new).cwd == "/srv/dev/project"
    assert state.relocate("/srv", "/mnt") == 3
    assert state.get_thread(new).cwd == "/mnt/dev/project"
    assert state.lineage(new).thread.cwd == "/mnt/dev/project"
    assert state.relocate("/mnt", "/srv") == 3
    assert state.relocate("/srv/dev", "/home/dev") == 3
    assert state.get_thread(new).recorded_cwd is None


def test_a_file_that_cannot_be_written_is_an_error_and_nothing_else(said, state):
    said.mkdir()
    with pytest.raises(AnnotationsError):
        state.pin_thread(ID)
    assert state.get_thread(ID).id == ID


PROGRAM = """
import sys
from rollbook import StateRuntime
with StateRuntime.open(sys.argv[1], backfill=False) as state:
    for number in range(20):
        state.tag_thread(sys.argv[2], [f"{sys.argv[3]}-{number}"])
"""


@pytest.mark.parametrize("network", ["", "1"])
def test_several_processes_lose_nothing_of_each_other(home, said, state, network):
    state.close()
    environment = os.environ | {FORCED: network}
    programs = [
        subprocess.Popen([sys.executable, "-c", PROGRAM, home, ID, each], env=environment)
        for each in "abc"
    ]
    assert [program.wait() for program in programs] == [0, 0, 0]
    with StateRuntime.open(home, backfill=False) as again:
        assert len(again.get_thread(ID).tags) == 60
    assert len(lines(said)) == 60


def test_pages_of_marked_threads_go_on_where_they_ended(home, state):
    state.sync()
    for number in range(10):
        thread_id = str(uuid.UUID(int=number + (4 << 76) + (8 << 60)))
        time = DEFAULT_TIME + timedelta(seconds=number // 2)
        state.upsert_thread(
            make_thread(home, id=thread_id, created_at=time, source=str(number % 2))
        )
        if number % 3:
            state.tag_thread(thread_id, ["some", "all"][: number % 3])
    found, anchor = [], None
    while True:
        page = state.list_threads(2, anchor, tags=["some"])
        found += [thread.id for thread in page.items]
        anchor = page.next_anchor
        if anchor is None:
            break
    everything = state.list_threads(99).items
    assert found == [thread.id for thread in everything if "some" in thread.tags]
    assert len(found) == 6
    both = state.list_thread_ids(99, tags=["some", "all"])
    assert both == [thread.id for thread in everything if len(thread.tags) == 2]
    assert len(state.list_thread_ids(99, None, allowed_sources=["1"], tags=["some"])) == 3
