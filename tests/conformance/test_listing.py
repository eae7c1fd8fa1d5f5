"""Walking pages yields every matching thread exactly once (behaviour.md 68 to 78, 91 to 94)."""

import tempfile
import uuid
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rollbook import Anchor, SortKey, StateRuntime, ThreadMetadata, format_cursor, parse_cursor
from rollbook.errors import InvalidCursorError, UsageError
from rollbook.testing import DEFAULT_TIME, make_thread

COLUMN = {
    SortKey.CREATED_AT: "created_at",
    SortKey.UPDATED_AT: "updated_at",
    SortKey.RECENCY_AT: "recency_at",
}
TITLES = ["Fix the parser", "100% done", "a_b", "back\\slash", "FIX it", "Zażółć"]
times = st.integers(0, 3).map(lambda seconds: DEFAULT_TIME + timedelta(seconds=seconds))
threads = st.builds(
    make_thread,
    id=st.uuids().map(str),
    created_at=times,
    updated_at=times,
    recency_at=times,
    source=st.sampled_from(["cli", "exec", '{"subagent":"review"}']),
    model_provider=st.sampled_from(["openai", "mock"]),
    cwd=st.sampled_from(["/a", "/a/b", ""]),
    title=st.sampled_from(TITLES),
    has_user_event=st.booleans(),
    archived_at=st.none() | times,
)
filters = st.fixed_dictionaries(
    {
        "allowed_sources": st.lists(st.sampled_from(["cli", '{"subagent":"review"}', "x"])),
        "model_providers": st.none() | st.lists(st.sampled_from(["openai", "y"])),
        "archived_only": st.booleans(),
        "cwd": st.none() | st.sampled_from(["/a", "/nowhere"]),
        "title_contains": st.none() | st.sampled_from(["fix", "%", "_", "\\", "0% D", ""]),
        "include_silent": st.booleans(),
    }
)


def matches(thread: ThreadMetadata, chosen: dict) -> bool:
    sources, providers = chosen["allowed_sources"], chosen["model_providers"]
    return (
        (not sources or thread.source in sources)
        and (not providers or thread.model_provider in providers)
        and (thread.archived_at is not None) == chosen["archived_only"]
        and (chosen["cwd"] is None or thread.cwd == chosen["cwd"])
        and (chosen["title_contains"] or "").lower() in thread.title.lower()
        and (thread.has_user_event or chosen["include_silent"])
    )


def model(found: list[ThreadMetadata], sort_key: SortKey, chosen: dict) -> list[ThreadMetadata]:
    kept = [thread for thread in found if matches(thread, chosen)]
    return sorted(kept, key=lambda t: (getattr(t, COLUMN[sort_key]), t.id), reverse=True)


@pytest.fixture(scope="module")
def one_state():
    """One database for all examples: opening one for each would be most of the time."""
    with (
        tempfile.TemporaryDirectory() as home,
        StateRuntime.open(home, backfill=False) as opened,
    ):
        yield opened


def fill(state: StateRuntime, found: list[ThreadMetadata]) -> None:
    with state._engine.write() as tx:
        tx.execute("DELETE FROM threads")
    for thread in found:
        state.upsert_thread(thread)


@settings(deadline=None, max_examples=120, suppress_health_check=list(HealthCheck))
@given(
    found=st.lists(threads, max_size=25, unique_by=lambda thread: thread.id),
    sort_key=st.sampled_from(SortKey),
    size=st.integers(1, 9),
    chosen=filters,
)
def test_pages_of_any_size_give_every_matching_thread_once(
    one_state, found, sort_key, size, chosen
):
    fill(one_state, found)
    want = model(found, sort_key, chosen)
    got: list[ThreadMetadata] = []
    anchor = None
    while True:
        page = one_state.list_threads(size, anchor, sort_key, **chosen)
        left = want[len(got) :]
        assert page.items == left[:size]
        assert page.num_scanned_rows == min(len(left), size + 1)
        got += page.items
        anchor = page.next_anchor
        if anchor is None:
            break
        assert anchor == Anchor(getattr(got[-1], COLUMN[sort_key]), got[-1].id)
        anchor = parse_cursor(format_cursor(anchor))
    assert got == want
    ids = one_state.list_thread_ids(size, None, sort_key, **chosen)
    assert ids == [thread.id for thread in want[:size]]


@settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
@given(
    found=st.lists(threads, min_size=4, max_size=20, unique_by=lambda thread: thread.id),
    sort_key=st.sampled_from(SortKey),
    size=st.integers(1, 4),
    data=st.data(),
)
def test_threads_added_or_touched_between_pages_cost_and_double_no_other(
    one_state, found, sort_key, size, data
):
    fill(one_state, found)
    everything = {"include_silent": True}
    touched: set[str] = set()
    seen: list[str] = []
    anchor = None
    for _ in range(100):
        page = one_state.list_threads(size, anchor, sort_key, **everything)
        seen += [thread.id for thread in page.items]
        anchor = page.next_anchor
        if anchor is None:
            break
        late = data.draw(threads)
        one_state.upsert_thread(late)
        other = data.draw(st.sampled_from(found))
        moment = data.draw(times) + timedelta(days=1)
        one_state.upsert_thread(msgspec.structs.replace(other, updated_at=moment, title="Touched"))
        touched |= {late.id, other.id}
    left_alone = [
        thread.id for thread in found if thread.id not in touched and not thread.archived_at
    ]
    assert sorted(thread_id for thread_id in seen if thread_id in set(left_alone)) == sorted(
        left_alone
    )


def test_equal_times_are_ordered_by_id_at_exact_page_boundaries(runtime):
    ids = sorted((str(uuid.uuid4()) for _ in range(6)), reverse=True)
    for thread_id in reversed(ids):
        runtime.upsert_thread(make_thread(id=thread_id))
    first = runtime.list_threads(3)
    second = runtime.list_threads(3, first.next_anchor)
    assert [t.id for t in first.items + second.items] == ids
    assert (first.num_scanned_rows, second.num_scanned_rows) == (4, 3)
    assert second.next_anchor is None


def test_an_anchor_need_not_name_a_row(runtime):
    thread = make_thread()
    runtime.upsert_thread(thread)
    later = Anchor(DEFAULT_TIME + timedelta(seconds=1), str(uuid.UUID(int=0)))
    same = Anchor(DEFAULT_TIME, str(uuid.UUID(int=2**128 - 1)))
    before = Anchor(DEFAULT_TIME, str(uuid.UUID(int=0)))
    assert [t.id for t in runtime.list_threads(5, later).items] == [thread.id]
    assert [t.id for t in runtime.list_threads(5, same).items] == [thread.id]
    assert runtime.list_threads(5, before).items == []


def test_a_page_of_no_threads_is_empty_and_has_no_anchor(runtime):
    runtime.upsert_thread(make_thread())
    page = runtime.list_threads(0)
    assert (page.items, page.next_anchor) == ([], None)
    assert runtime.list_thread_ids(0) == []


def test_a_negative_page_is_refused(runtime):
    with pytest.raises(UsageError, match="-1"):
        runtime.list_threads(-1)
    with pytest.raises(UsageError, match="-1"):
        runtime.list_thread_ids(-1)


def test_a_million_is_not_too_large_a_page(runtime):
    assert runtime.list_threads(2**40).items == []


@given(st.datetimes(timezones=st.just(UTC)), st.uuids())
def test_a_cursor_gives_back_its_anchor_in_whole_seconds(time, thread_id):
    anchor = parse_cursor(format_cursor(Anchor(time, str(thread_id))))
    assert anchor == Anchor(time.replace(microsecond=0), str(thread_id))


def test_a_cursor_is_read_in_both_forms_of_time():
    thread_id = "01a207c8-3ebb-7143-a4a0-e2c688606806"
    want = Anchor(datetime(2026, 1, 27, 12, 34, 56, tzinfo=UTC), thread_id)
    assert format_cursor(want) == f"2026-01-27T12:34:56Z|{thread_id}"
    for time in ("2026-01-27T12:34:56Z", "2026-01-27T12-34-56", "2026-01-27T13:34:56.9+01:00"):
        assert parse_cursor(f"{time}|{thread_id.upper()}") == want


@pytest.mark.parametrize(
    "text",
    ["", "|", "2026-01-27T12:34:56Z", "2026-01-27T12:34:56Z|", "x|y", "2026-01-27T12:34:56Z|a|b"],
)
def test_anything_else_is_no_cursor(text):
    with pytest.raises(InvalidCursorError, match="not a cursor"):
        parse_cursor(text)


@given(st.text())
def test_no_text_is_an_unforeseen_error(text):
    with pytest.raises(InvalidCursorError):
        parse_cursor(text)
