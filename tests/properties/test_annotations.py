"""Whatever is said of threads, and whatever happens to the index, lists are as a simple model says."""

import shutil
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from rollbook import SortKey, StateRuntime
from rollbook.errors import ThreadNotFoundError
from rollbook.model.annotation import Relocations
from rollbook.model.times import format_time
from rollbook.testing import session_meta, user_message, write_rollout

THREADS = 4
START = datetime(2026, 1, 27, 12, 34, 57, tzinfo=UTC)
TAGS = ["a", "b", "two words"]
numbers = st.integers(0, THREADS - 1)
tags = st.lists(st.sampled_from(TAGS), min_size=1, max_size=2)
directories = st.sampled_from(["/p", "/p/0", "/p/1", "/q", "/q/x", "/p/0/y"])
actions = st.one_of(
    st.tuples(st.just("rename"), numbers, st.sampled_from([None, "First", "Second"])),
    st.tuples(st.just("tag"), numbers, tags),
    st.tuples(st.just("untag"), numbers, tags),
    st.tuples(st.sampled_from(["pin", "unpin", "go_on"]), numbers),
    st.tuples(st.just("delete"), numbers, st.booleans()),
    st.tuples(st.sampled_from(["sync", "rebuild", "lose", "damage", "reopen", "from_elsewhere"])),
)


def id_of(number: int) -> str:
    return f"{number:08x}-0000-4000-8000-000000000000"


class Home:
    """A home that things happen to, and the model of what its list is to show."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.now = START
        self.rollouts = {}
        self.shown = {}
        for number in range(THREADS):
            lines = [session_meta(id_of(number), cwd=f"/p/{number}"), user_message("Begin")]
            self.rollouts[number] = write_rollout(path, id_of(number), lines)
            self.shown[number] = self.fresh()
        self.state = self.open()
        self.state.sync()

    def fresh(self):
        return {"name": None, "tags": set(), "pinned": False}

    def open(self):
        return StateRuntime.open(self.path, backfill=False)

    def say(self, number, method, *arguments):
        """Do something with a thread, which is refused where it was deleted."""
        try:
            method(id_of(number), *arguments)
        except ThreadNotFoundError:
            assert number not in self.shown
            return self.fresh()
        return self.shown[number]

    def rename(self, number, name):
        self.say(number, self.state.rename_thread, name)["name"] = name

    def tag(self, number, tags):
        self.say(number, self.state.tag_thread, tags)["tags"].update(tags)

    def untag(self, number, tags):
        self.say(number, self.state.untag_thread, tags)["tags"].difference_update(tags)

    def pin(self, number):
        self.say(number, self.state.pin_thread)["pinned"] = True

    def unpin(self, number):
        self.say(number, self.state.unpin_thread)["pinned"] = False

    def delete(self, number, with_rollouts):
        if number not in self.rollouts:
            return
        self.state.delete_threads([id_of(number)], rollouts=with_rollouts)
        assert self.rollouts[number].exists() is not with_rollouts
        self.shown.pop(number, None)
        if with_rollouts:
            del self.rollouts[number]

    def go_on(self, number):
        """Another turn brings a deleted thread back, without anything that was said of it."""
        if number not in self.rollouts:
            return
        self.now += timedelta(seconds=1)
        with self.rollouts[number].open("ab") as file:
            file.write(user_message("Go on", timestamp=format_time(self.now)) + b"\n")
        self.state.sync()
        self.shown.setdefault(number, self.fresh())

    def sync(self):
        self.state.sync()

    def rebuild(self):
        self.state.sync(rebuild=True)

    def reopen(self):
        self.state.close()
        self.state = self.open()

    def lose(self):
        self.state.close()
        for path in (self.path / "rollbook").glob("state.sqlite*"):
            path.unlink()
        self.state = self.open()
        self.state.sync()

    def damage(self):
        self.state.close()
        database = self.path / "rollbook" / "state.sqlite"
        content = database.read_bytes()
        database.write_bytes(content[:4096] + b"\xff" * (len(content) - 4096))
        self.state = self.open()
        self.state.sync()

    def from_elsewhere(self):
        """Another index of the same home takes all over from the file."""
        other = self.path / "other"
        other.mkdir(exist_ok=True)
        annotations = self.path / "rollbook" / "annotations.jsonl"
        if annotations.exists():
            shutil.copy(annotations, other)
        with StateRuntime.open(self.path, database=other / "state.sqlite") as state:
            state.sync()
            self.compare(state)

    def compare(self, state):
        found = state.list_threads(99, None, SortKey.RECENCY_AT).items
        assert {thread.id: (thread.name, set(thread.tags), thread.pinned) for thread in found} == {
            id_of(n): (s["name"], s["tags"], s["pinned"]) for n, s in self.shown.items()
        }
        for tag in TAGS:
            ids = state.list_thread_ids(99, tags=[tag])
            assert set(ids) == {id_of(n) for n, s in self.shown.items() if tag in s["tags"]}
        for pinned in (True, False):
            ids = state.list_thread_ids(99, pinned=pinned)
            assert set(ids) == {id_of(n) for n, s in self.shown.items() if s["pinned"] is pinned}


@settings(deadline=None, max_examples=25)
@given(st.lists(actions, max_size=14))
def test_what_was_said_survives_whatever_happens_to_the_index(steps):
    with tempfile.TemporaryDirectory() as directory:
        home = Home(Path(directory))
        try:
            for name, *arguments in steps:
                getattr(home, name)(*arguments)
                home.compare(home.state)
        finally:
            home.state.close()


@given(st.lists(st.tuples(directories, directories).filter(lambda move: move[0] != move[1])))
def test_what_is_at_a_place_is_what_was_moved_there(moves):
    relocations = Relocations()
    for move in moves:
        relocations = relocations.then(*move)
    known = {"/p", "/p/0", "/p/1", "/q", "/q/x", "/p/0/y", "/p2", "/"}
    places = {directory: relocations.place_of(directory) for directory in known}
    for place in {*places.values(), *known}:
        recorded = relocations.recorded_as(place)
        assert all(relocations.place_of(each) == place for each in recorded)
        assert {each for each, there in places.items() if there == place} <= set(recorded)


@given(
    st.lists(st.tuples(directories, directories).filter(lambda move: move[0] != move[1])),
    directories,
    directories,
)
def test_to_move_a_directory_back_takes_the_move_back(moves, old, new):
    relocations = Relocations()
    for move in moves:
        relocations = relocations.then(*move)
    if old != new and (new, old) not in relocations.moves:
        assert relocations.then(old, new).then(new, old) == relocations


def test_a_move_elsewhere_since_does_not_keep_a_move_from_being_taken_back():
    moved = Relocations().then("/p", "/q").then("/x", "/y").then("/q", "/p")
    assert moved == Relocations((("/x", "/y"),))
    near = Relocations().then("/p", "/q").then("/q/0", "/z").then("/q", "/p")
    assert near.place_of("/p/0") == "/z"
    assert near.place_of("/p/1") == "/p/1"
