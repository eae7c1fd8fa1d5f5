"""Pages of a transcript, against reading all of it."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rollbook import StateRuntime, TranscriptItem
from rollbook.errors import InvalidCursorError, UsageError
from rollbook.testing import make_line, message, session_meta, write_rollout
from tests.conftest import CORPUS, RELEASES

NO_RECORDS = [b"", b"{", b'{"timestamp":"', b"\0\0\0", b"nonsense", b"\xff\xfe", b"[]", b"\r"]


def forward(state: StateRuntime, thread_id: str, limit: int) -> list[TranscriptItem]:
    page = state.read_thread(thread_id, limit=limit, at="start")
    items = list(page.items)
    assert page.before is None
    while page.after is not None:
        page = state.read_thread(thread_id, limit=limit, after=page.after)
        items += page.items
    return items


def backward(state: StateRuntime, thread_id: str, limit: int) -> list[TranscriptItem]:
    page = state.read_thread(thread_id, limit=limit)
    items = list(page.items)
    assert page.after is None
    while page.before is not None:
        page = state.read_thread(thread_id, limit=limit, before=page.before)
        items = page.items + items
    return items


def check(state: StateRuntime, thread_id: str, limit: int) -> list[TranscriptItem]:
    """See that pages of a size give what there is, from either end."""
    everything = list(state.read_whole_thread(thread_id))
    assert forward(state, thread_id, limit) == everything
    assert backward(state, thread_id, limit) == everything
    assert len({item.position for item in everything}) == len(everything)
    return everything


@pytest.fixture(scope="module")
def states(tmp_path_factory) -> Iterator[dict[str, StateRuntime]]:
    """The state of each release's home, synced."""
    opened = {}
    for release in RELEASES:
        home = tmp_path_factory.mktemp("corpus") / release
        shutil.copytree(CORPUS / release / "home", home)
        opened[release] = StateRuntime.open(home, backfill=False)
        opened[release].sync()
    yield opened
    for state in opened.values():
        state.close()


@pytest.mark.parametrize("release", RELEASES)
def test_pages_from_either_end_are_all_there_is(states, release):
    state = states[release]
    threads = state.list_threads(100, include_silent=True).items
    for number, thread in enumerate(threads):
        items = check(state, thread.id, number % 7 + 1)
        assert bool(items) or not thread.title


@pytest.mark.parametrize("release", RELEASES)
def test_a_page_begins_at_any_item(states, release):
    state = states[release]
    for thread in state.list_threads(5).items:
        everything = list(state.read_whole_thread(thread.id))
        for number, item in enumerate(everything):
            page = state.read_thread(thread.id, at=item.position, limit=3)
            assert page.items == everything[number : number + 3]
            assert (page.before is None) == (number == 0)
            assert (page.after is None) == (number + 3 >= len(everything))


lines = st.integers(0, 60)
damages = st.lists(
    st.one_of(
        st.tuples(st.just("insert"), lines, st.sampled_from(NO_RECORDS)),
        st.tuples(st.just("tear"), lines, st.integers(0, 400)),
        st.tuples(st.just("fuse"), lines, st.none()),
        st.tuples(st.just("drop"), lines, st.none()),
        st.tuples(st.just("end"), lines, st.none()),
    ),
    max_size=5,
)


def damage(path: Path, what: list[tuple]) -> None:
    found = path.read_bytes().split(b"\n")
    for kind, number, value in what:
        at = number % len(found)
        if kind == "insert":
            found.insert(at, value)
        elif kind == "tear":
            found[at] = found[at][:value]
        elif kind == "fuse" and at + 1 < len(found):
            found[at : at + 2] = [found[at] + found[at + 1]]
        elif kind == "drop" and len(found) > 1:
            del found[at]
        elif kind == "end":
            found = found[: at + 1]
    path.write_bytes(b"\n".join(found))


@settings(deadline=None, max_examples=70)
@given(
    release=st.sampled_from([each for each in RELEASES if "compressed" not in each]),
    number=st.integers(0, 40),
    what=damages,
    limit=st.integers(1, 9),
)
def test_damage_hides_no_other_item_from_either_end(states, release, number, what, limit):
    state = states[release]
    threads = state.list_threads(100, include_silent=True).items
    thread = threads[number % len(threads)]
    paths = [Path(thread.rollout_path)]
    if thread.forked_from_id and (source := state.get_thread(thread.forked_from_id)):
        paths.append(Path(source.rollout_path))
    whole = [path.read_bytes() for path in paths]
    try:
        for path in paths:
            damage(path, what)
        check(state, thread.id, limit)
    finally:
        for path, content in zip(paths, whole, strict=True):
            path.write_bytes(content)


PARENT, FORK = (f"{digit * 8}-1111-4111-8111-111111111111" for digit in "12")


def said(text: str) -> bytes:
    return message(text, "assistant")


@settings(deadline=None, max_examples=50)
@given(end=st.integers(-5, 1_600), limit=st.integers(1, 5), segments=st.integers(0, 2))
def test_a_fork_goes_on_from_any_byte_of_its_source(tmp_path_factory, end, limit, segments):
    home = tmp_path_factory.mktemp("fork")
    first = [session_meta(PARENT), *(said(f"first {number}") for number in range(5))]
    write_rollout(home, PARENT, first)
    base = {"thread_id": PARENT, "end_ordinal_exclusive": 0, "end_byte_offset": end}
    meta = session_meta(FORK, history_base=base, forked_from_id=PARENT)
    write_rollout(home, FORK, [meta, said("second")])
    for number in range(segments):
        name = f"{number}{number}333333-3333-4333-8333-333333333333"
        write_rollout(home, FORK, [said(f"segment {number}")], segment=name)
    with StateRuntime.open(home, backfill=False) as state:
        items = check(state, FORK, limit)
    own = ["second", *(f"segment {number}" for number in range(segments))]
    assert [item.text for item in items][-len(own) :] == own


def test_a_page_reads_only_so_much_between_two_items(home, state, monkeypatch):
    """Half a gigabyte that nobody reads may lie between them."""
    from rollbook.rollout import pages

    monkeypatch.setattr(pages, "_MOST_BYTES", 20_000)
    noise = make_line("event_msg", {"type": "token_count", "info": "x" * 900})
    write_rollout(home, PARENT, [session_meta(PARENT), said("a"), *[noise] * 200, said("b")])
    assert [item.text for item in check(state, PARENT, 5)] == ["a", "b"]
    last = state.read_thread(PARENT, limit=5)
    assert [item.text for item in last.items] == ["b"]
    assert last.before is not None


def test_of_a_long_text_the_rest_is_counted_and_to_be_had(home, state):
    text = "long " * 100_000
    write_rollout(home, PARENT, [session_meta(PARENT), said("a"), said(text), said("b")])
    [_, item, _] = state.read_thread(PARENT).items
    assert item.text == text[: 256 << 10]
    assert item.omitted == len(text) - (256 << 10)
    assert state.read_thread(PARENT, at="start").items[1] == item
    assert [each.text for each in state.read_whole_thread(PARENT)] == ["a", text, "b"]


def test_a_record_that_is_too_long_to_be_held_says_so(home, state, monkeypatch):
    from rollbook.rollout import pages, selection

    for module in (pages, selection):
        monkeypatch.setattr(module, "LONGEST_LINE", 1 << 20)
    line = said("long " * 500_000)
    write_rollout(home, PARENT, [session_meta(PARENT), said("a"), line, said("b")])
    [_, item, _] = check(state, PARENT, 2)
    assert (item.name, item.omitted) == ("too long", len(line))


def test_a_position_is_one_of_the_thread(home, state):
    write_rollout(home, PARENT, [session_meta(PARENT), said("a")])
    write_rollout(home, FORK, [session_meta(FORK), said("b")])
    other = state.read_thread(FORK).items[0].position
    own = state.read_thread(PARENT).items[0].position
    for position in (other, own + "1", f"{PARENT}:3", f"{PARENT}:-1", "x", "", f"{own}\0"):
        with pytest.raises(InvalidCursorError):
            state.read_thread(PARENT, at=position)
    with pytest.raises(UsageError, match="contradict"):
        state.read_thread(PARENT, at=own, before=own)
    with pytest.raises(UsageError, match="can't have 0"):
        state.read_thread(PARENT, limit=0)


def test_a_position_survives_archiving_and_what_is_appended(home, state):
    path = write_rollout(home, PARENT, [session_meta(PARENT), said("a"), said("b")])
    position = state.read_thread(PARENT).items[1].position
    state.archive_thread(PARENT)
    path = Path(state.get_thread(PARENT).rollout_path)
    with path.open("ab") as stream:
        stream.write(said("c") + b"\n")
    assert [item.text for item in state.read_thread(PARENT, at=position).items] == ["b", "c"]
    assert [item.text for item in state.read_thread(PARENT, after=position).items] == ["c"]
