"""Walking pages yields every matching thread exactly once (behaviour.md 68 to 78, 91 to 94)."""

import itertools
import random
import sys
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rollbook import Anchor, SortKey, ThreadMetadata, ThreadsPage, format_cursor, parse_cursor
from rollbook.errors import InvalidCursorError, UsageError
from rollbook.testing import (
    DEFAULT_TIME,
    make_thread,
    session_meta,
    user_message,
    write_rollout,
)
from tests.conftest import index_of, run_sql

ID = "66666666-6666-4666-8666-666666666666"
COLUMN = {
    SortKey.CREATED_AT: "created_at",
    SortKey.UPDATED_AT: "updated_at",
    SortKey.RECENCY_AT: "recency_at",
}
SOURCES = ["cli", "exec", '{"subagent":"review"}']
PROVIDERS = ["openai", "mock"]
CWDS = ["/a", "/a/b", ""]
TITLES = ["Fix the parser", "100% done", "a_b", "back\\slash", "FIX it", "Zażółć", ""]
ASCII_LOWER = str.maketrans("ABCDEFGHIJKLMNOPQRSTUVWXYZ", "abcdefghijklmnopqrstuvwxyz")
EVERYTHING = {
    "allowed_sources": [],
    "model_providers": None,
    "archived_only": False,
    "cwd": None,
    "title_contains": None,
    "include_silent": True,
}

times = st.integers(0, 3).map(lambda seconds: DEFAULT_TIME + timedelta(seconds=seconds))
threads = st.builds(
    make_thread,
    id=st.uuids().map(str),
    created_at=times,
    updated_at=times,
    recency_at=times,
    source=st.sampled_from(SOURCES),
    model_provider=st.sampled_from(PROVIDERS),
    cwd=st.sampled_from(CWDS),
    title=st.sampled_from(TITLES),
    has_user_event=st.booleans(),
    archived_at=st.none() | times,
)
homes = st.lists(threads, max_size=25, unique_by=lambda thread: thread.id)
filters = st.fixed_dictionaries(
    {
        "allowed_sources": st.lists(st.sampled_from([*SOURCES, "x"]), max_size=3),
        "model_providers": st.none() | st.lists(st.sampled_from([*PROVIDERS, "y"]), max_size=2),
        "archived_only": st.booleans(),
        "cwd": st.none() | st.sampled_from([*CWDS, "/nowhere"]),
        "title_contains": st.none() | st.sampled_from(["fix", "%", "_", "\\", "0% D", "żÓŁ", ""]),
        "include_silent": st.booleans(),
    }
)


def contains(title: str, text: str) -> bool:
    return text.translate(ASCII_LOWER) in title.translate(ASCII_LOWER)


def matches(thread: ThreadMetadata, chosen: dict[str, Any]) -> bool:
    sources, providers = chosen["allowed_sources"], chosen["model_providers"]
    return (
        (not sources or thread.source in sources)
        and (not providers or thread.model_provider in providers)
        and (thread.archived_at is not None) == chosen["archived_only"]
        and (chosen["cwd"] is None or thread.cwd == chosen["cwd"])
        and contains(thread.title, chosen["title_contains"] or "")
        and (thread.has_user_event or chosen["include_silent"])
    )


def anchor_of(thread: ThreadMetadata, sort_key: SortKey) -> Anchor:
    return Anchor(getattr(thread, COLUMN[sort_key]), thread.id)


def model(
    found: list[ThreadMetadata], sort_key: SortKey, chosen: dict[str, Any]
) -> list[ThreadMetadata]:
    kept = [thread for thread in found if matches(thread, chosen)]
    return sorted(kept, key=lambda t: (getattr(t, COLUMN[sort_key]), t.id), reverse=True)


def fill(runtime: Any, found: list[ThreadMetadata]) -> None:
    run_sql(index_of(runtime), "PRAGMA foreign_keys = ON; DELETE FROM threads")
    if runtime.database_system == "postgresql":
        runtime.sync(metadata_only=True)
    for thread in found:
        runtime.upsert_thread(thread)


def walk(
    runtime: Any, size: int, sort_key: SortKey, chosen: dict[str, Any], limit: int = 200
) -> Iterator[ThreadsPage]:
    """Each page in turn, its anchor passed on as the text of a cursor."""
    anchor = None
    for _ in range(limit):
        page = runtime.list_threads(size, anchor, sort_key, **chosen)
        yield page
        if page.next_anchor is None:
            return
        anchor = parse_cursor(format_cursor(page.next_anchor))
    pytest.fail("the walk does not end")


def assert_walk_gives(
    runtime: Any,
    want: list[ThreadMetadata],
    size: int,
    sort_key: SortKey,
    chosen: dict[str, Any],
) -> None:
    done = 0
    for page in walk(runtime, size, sort_key, chosen):
        left = want[done:]
        has_more = len(left) > size
        assert page.items == left[:size]
        assert page.num_scanned_rows == min(len(left), size + 1)
        assert page.next_anchor == (anchor_of(left[size - 1], sort_key) if has_more else None)
        done += len(page.items)
    assert done == len(want)


@settings(deadline=None, max_examples=70)
@given(found=homes, sort_key=st.sampled_from(SortKey), size=st.integers(1, 27), chosen=filters)
def test_pages_of_any_size_give_every_matching_thread_once(
    shared_runtime, found, sort_key, size, chosen
):
    fill(shared_runtime, found)
    want = model(found, sort_key, chosen)
    assert_walk_gives(shared_runtime, want, size, sort_key, chosen)


@settings(deadline=None, max_examples=40)
@given(found=homes, sort_key=st.sampled_from(SortKey), size=st.integers(0, 9), chosen=filters)
def test_ids_come_in_the_order_of_the_threads(shared_runtime, found, sort_key, size, chosen):
    fill(shared_runtime, found)
    want = [thread.id for thread in model(found, sort_key, chosen)]
    assert shared_runtime.list_thread_ids(size, None, sort_key, **chosen) == want[:size]
    for page in walk(shared_runtime, max(size, 1), sort_key, chosen):
        if page.next_anchor is not None:
            rest = shared_runtime.list_thread_ids(99, page.next_anchor, sort_key, **chosen)
            assert rest == want[want.index(page.next_anchor.id) + 1 :]


@settings(deadline=None, max_examples=50)
@given(
    found=homes,
    sort_key=st.sampled_from(SortKey),
    place=st.builds(Anchor, times, st.uuids().map(str)),
)
def test_an_anchor_need_not_name_a_row(shared_runtime, found, sort_key, place):
    fill(shared_runtime, found)
    want = [
        thread
        for thread in model(found, sort_key, EVERYTHING)
        if (getattr(thread, COLUMN[sort_key]), thread.id) < (place.ts, place.id)
    ]
    page = shared_runtime.list_threads(99, place, sort_key, **EVERYTHING)
    assert page == ThreadsPage(want, None, len(want))


def varied_home() -> list[ThreadMetadata]:
    """Sixty threads of three moments, the same in every run."""
    dice = random.Random(20260127)
    moments = [DEFAULT_TIME + timedelta(seconds=second) for second in range(3)]
    return [
        make_thread(
            id=str(uuid.UUID(int=dice.getrandbits(128))),
            **{column: dice.choice(moments) for column in COLUMN.values()},
            source=dice.choice(SOURCES),
            model_provider=dice.choice(PROVIDERS),
            cwd=dice.choice(CWDS),
            title=dice.choice(TITLES),
            has_user_event=dice.random() < 0.8,
            archived_at=dice.choice([None, DEFAULT_TIME]),
        )
        for _ in range(60)
    ]


def every_filter() -> Iterator[dict[str, Any]]:
    sources, providers = [[], ["exec"], SOURCES[1:]], [None, [], ["mock"]]
    either = [False, True]
    for values in itertools.product(
        sources, providers, either, [None, "/a"], [None, "fix"], either
    ):
        yield dict(zip(EVERYTHING, values, strict=True))


def test_every_sort_key_filter_and_page_size_together(shared_runtime):
    found = varied_home()
    fill(shared_runtime, found)
    for sort_key, chosen in itertools.product(SortKey, every_filter()):
        want = model(found, sort_key, chosen)
        for size in (1, 7, max(len(want), 1), 61):
            assert_walk_gives(shared_runtime, want, size, sort_key, chosen)


@settings(deadline=None, max_examples=60)
@given(
    found=homes,
    sort_key=st.sampled_from(SortKey),
    size=st.integers(1, 4),
    chosen=filters,
    added=st.lists(threads, max_size=8),
    touched=st.lists(st.tuples(st.integers(0, 24), threads), max_size=8),
)
def test_threads_added_or_touched_between_pages_cost_and_double_no_other(
    shared_runtime, found, sort_key, size, chosen, added, touched
):
    fill(shared_runtime, found)
    changes = iter(
        added
        + [
            msgspec.structs.replace(changed, id=found[at].id)
            for at, changed in touched
            if at < len(found)
        ]
    )
    seen: list[ThreadMetadata] = []
    disturbed: set[str] = set()
    for page in walk(shared_runtime, size, sort_key, chosen):
        seen += page.items
        for change in itertools.islice(changes, 2):
            shared_runtime.upsert_thread(change)
            disturbed.add(change.id)
    left_alone = [t for t in model(found, sort_key, chosen) if t.id not in disturbed]
    assert [thread for thread in seen if thread.id not in disturbed] == left_alone


def test_equal_times_are_ordered_by_id_at_exact_page_boundaries(runtime):
    ids = sorted((str(uuid.uuid4()) for _ in range(6)), reverse=True)
    for thread_id in reversed(ids):
        runtime.upsert_thread(make_thread(id=thread_id))
    first = runtime.list_threads(3)
    second = runtime.list_threads(3, first.next_anchor)
    assert [t.id for t in first.items + second.items] == ids
    assert (first.num_scanned_rows, second.num_scanned_rows) == (4, 3)
    assert second.next_anchor is None


def test_the_thread_that_an_anchor_names_may_be_gone_by_the_next_page(runtime):
    ids = sorted((str(uuid.uuid4()) for _ in range(4)), reverse=True)
    for thread_id in ids:
        runtime.upsert_thread(make_thread(id=thread_id))
    anchor = runtime.list_threads(2).next_anchor
    run_sql(index_of(runtime), f"DELETE FROM threads WHERE id = '{anchor.id}'")
    assert runtime.list_thread_ids(9, anchor) == ids[2:]


def test_an_anchor_counts_in_whole_seconds(runtime):
    runtime.upsert_thread(make_thread(id=ID))
    late_in_the_second = DEFAULT_TIME + timedelta(microseconds=999_999)
    assert runtime.list_thread_ids(5, Anchor(late_in_the_second, ID)) == []


def test_the_id_of_an_anchor_may_be_in_any_form(runtime):
    ids = ["aaaaaaaa-aaaa-4aaa-8aaa-aaaaaaaaaaaa", "abbbbbbb-bbbb-4bbb-8bbb-bbbbbbbbbbbb"]
    for thread_id in ids:
        runtime.upsert_thread(make_thread(id=thread_id))
    for form in (ids[1], ids[1].upper(), ids[1].replace("-", ""), "{" + ids[1] + "}"):
        assert runtime.list_thread_ids(5, Anchor(DEFAULT_TIME, form)) == ids[:1]


def test_a_cursor_of_one_order_is_a_place_in_another(runtime):
    thread = make_thread(updated_at=DEFAULT_TIME + timedelta(days=1))
    runtime.upsert_thread(thread)
    cursor = parse_cursor(format_cursor(anchor_of(thread, SortKey.CREATED_AT)))
    assert runtime.list_thread_ids(5, cursor, SortKey.UPDATED_AT) == []
    cursor = parse_cursor(format_cursor(anchor_of(thread, SortKey.UPDATED_AT)))
    assert runtime.list_thread_ids(5, cursor, SortKey.CREATED_AT) == [thread.id]


@pytest.mark.parametrize("count", [0, 1, 2])
def test_a_page_of_no_threads_is_empty_and_has_no_anchor(runtime, count):
    for _ in range(count):
        runtime.upsert_thread(make_thread())
    assert runtime.list_threads(0) == ThreadsPage([], None, min(count, 1))
    assert runtime.list_thread_ids(0) == []


@pytest.mark.parametrize("size", [-1, -sys.maxsize])
def test_a_negative_page_is_refused(runtime, size):
    with pytest.raises(UsageError, match=str(size)):
        runtime.list_threads(size)
    with pytest.raises(UsageError, match=str(size)):
        runtime.list_thread_ids(size)


@pytest.mark.parametrize("size", [2**40, sys.maxsize])
def test_no_page_is_too_large(runtime, size):
    runtime.upsert_thread(make_thread(id=ID))
    assert runtime.list_thread_ids(size) == [ID]
    page = runtime.list_threads(size)
    assert ([thread.id for thread in page.items], page.next_anchor) == ([ID], None)


def test_threads_in_which_nobody_said_anything_are_left_out_unless_asked_for(runtime):
    runtime.upsert_thread(make_thread(id=ID, has_user_event=False, title="Named all the same"))
    assert runtime.list_threads(5) == ThreadsPage([], None, 0)
    assert runtime.list_thread_ids(5, title_contains="named") == []
    assert runtime.list_thread_ids(5, include_silent=True) == [ID]


def test_the_arguments_of_the_reference_may_be_given_by_position(runtime):
    wanted = make_thread(source="exec", model_provider="mock", archived_at=DEFAULT_TIME)
    for thread in (wanted, make_thread(), make_thread(source="exec", archived_at=DEFAULT_TIME)):
        runtime.upsert_thread(thread)
    arguments = (5, None, SortKey.RECENCY_AT, ["exec"], ["mock"], True)
    assert runtime.list_threads(*arguments).items == [wanted]
    assert runtime.list_thread_ids(*arguments) == [wanted.id]


@settings(deadline=None, max_examples=70)
@given(
    titles=st.lists(st.text("aA%_\\żŻ", max_size=4), max_size=5),
    text=st.text("aA%_\\żŻ", max_size=3),
)
def test_a_title_is_searched_for_literally_but_for_ascii_case(shared_runtime, titles, text):
    fill(shared_runtime, [make_thread(title=title) for title in titles])
    found = shared_runtime.list_threads(9, title_contains=text).items
    assert sorted(t.title for t in found) == sorted(t for t in titles if contains(t, text))


def test_a_title_is_found_by_what_stands_behind_a_nul(runtime):
    runtime.upsert_thread(make_thread(id=ID, title="before\0behind"))
    assert runtime.list_thread_ids(5, title_contains="behind") == [ID]
    assert runtime.list_thread_ids(5, title_contains="before\0other") == []


def test_a_long_title_is_found_by_all_of_it(runtime):
    title = "As long as a message may be. " * 2500
    runtime.upsert_thread(make_thread(id=ID, title=title))
    assert runtime.list_thread_ids(5, title_contains=title) == [ID]


@pytest.mark.parametrize("damage", [f"created_at = {10**17}", "id = 'zzz'"])
def test_a_row_with_impossible_values_hides_no_other_at_any_page_size(runtime, damage):
    moments = [DEFAULT_TIME + timedelta(seconds=number) for number in range(4)]
    rows = [make_thread(created_at=moment) for moment in moments]
    for thread in rows:
        runtime.upsert_thread(thread)
    run_sql(index_of(runtime), f"UPDATE threads SET {damage} WHERE id = '{rows[-1].id}'")
    for size in (3, 2, 1):
        pages = walk(runtime, size, SortKey.CREATED_AT, EVERYTHING)
        assert [thread for page in pages for thread in page.items] == rows[2::-1]


@settings(deadline=None)
@given(st.datetimes(timezones=st.just(UTC)), st.uuids())
def test_a_cursor_gives_back_its_anchor_in_whole_seconds(time, thread_id):
    anchor = parse_cursor(format_cursor(Anchor(time, str(thread_id))))
    assert anchor == Anchor(time.replace(microsecond=0), str(thread_id))


@settings(deadline=None)
@given(
    st.datetimes(datetime(1970, 1, 2), datetime(9999, 12, 30)),  # noqa: DTZ001
    st.integers(-1439, 1439).map(lambda minutes: timezone(timedelta(minutes=minutes))),
    st.uuids(),
)
def test_a_cursor_is_read_with_any_offset(time, offset, thread_id):
    local = time.replace(tzinfo=offset)
    want = Anchor(local.astimezone(UTC).replace(microsecond=0), str(thread_id))
    assert parse_cursor(f"{local.isoformat()}|{thread_id}") == want
    assert format_cursor(want).startswith(want.ts.strftime("%Y-%m-%dT%H:%M:%SZ|"))


def test_a_cursor_is_read_in_both_forms_of_time():
    want = Anchor(datetime(2026, 1, 27, 12, 34, 56, tzinfo=UTC), ID)
    assert format_cursor(want) == f"2026-01-27T12:34:56Z|{ID}"
    for time in ("2026-01-27T12:34:56Z", "2026-01-27T12-34-56", "2026-01-27T13:34:56.9+01:00"):
        assert parse_cursor(f"{time}|{ID}") == want


@pytest.mark.parametrize("form", [ID.upper(), ID.replace("-", ""), "{" + ID + "}"])
def test_the_id_of_a_cursor_is_read_in_any_form(form):
    assert parse_cursor(f"2026-01-27T12-34-56|{form}") == Anchor(DEFAULT_TIME, ID)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "|",
        "x|y",
        ID,
        f"|{ID}",
        "2026-01-27T12:34:56Z",
        "2026-01-27T12:34:56Z|",
        f"2026-01-27T12:34:56Z|{ID}|",
        f"2026-01-27T12:34:56Z|{ID}|{ID}",
        f"2026-01-27T12:34:56Z|{ID}0",
        f"2026-01-27T12:34:56Z|0x{'6' * 30}",
        f"2026-01-27T12:34:56|{ID}",
        f"2026-01-27T12-34-56Z|{ID}",
        f"2026-01-27T12:34-56|{ID}",
        f" 2026-01-27T12:34:56Z|{ID}",
        f"2026-01-27T12:34:56Z |{ID}",
        f"2026-02-31T12:34:56Z|{ID}",
        f"2026-01-27T25:34:56Z|{ID}",
        f"2026-01-27T12:34:56+24:00|{ID}",
        f"0001-01-01T00:00:00+01:00|{ID}",
        f"1769517296|{ID}",
        f"２026-01-27T12:34:56Z|{ID}",
    ],
)
def test_anything_else_is_no_cursor(text):
    with pytest.raises(InvalidCursorError, match="not a cursor"):
        parse_cursor(text)


@settings(deadline=None)
@given(st.text() | st.builds("{}|{}".format, st.text(), st.uuids()))
def test_any_text_is_a_cursor_that_can_be_written_again_or_an_invalid_one(text):
    try:
        anchor = parse_cursor(text)
    except InvalidCursorError:
        return
    assert parse_cursor(format_cursor(anchor)) == anchor


def test_of_a_home_that_was_never_indexed_a_list_may_have_what_is_known_so_far(
    open_runtime, way, home
):
    if way[1] == "postgresql":
        pytest.skip("a list of what is shared has what was sent")
    for number in range(200):  # of one time on disk, so that none can be left out
        thread_id = str(uuid.UUID(int=(4 << 76) + (2 << 62) + number))
        lines = [session_meta(thread_id), user_message("Hello")]
        write_rollout(home, thread_id, lines, mtime=DEFAULT_TIME)
    with open_runtime(home) as state:
        recent = SortKey.RECENCY_AT
        assert len(state.list_threads(10, sort_key=recent, patience_s=0).items) == 10
        part = len(state.list_threads(10, sort_key=recent, patience_s=0).items)
        assert part == 10
        counts = [
            len(state.list_threads(999, sort_key=recent, patience_s=0).items) for _ in range(3)
        ]
        assert 10 < counts[0] < counts[1] <= counts[2] <= 200
        assert len(state.list_threads(999, sort_key=recent).items) == 200
