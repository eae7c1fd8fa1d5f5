"""A list is what one gets by looking at every thread, whatever the filters; and it looks at few."""

from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import product

import apsw
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rollbook import Anchor, SortKey, StateRuntime, ThreadMetadata
from rollbook.store import threads as store
from rollbook.testing import make_thread
from tests.conftest import index_of
from tests.postgres.fixtures import TEMPLATE, empty

SHOWN = store.SHOWN_CHARACTERS
START = datetime(2026, 1, 1, tzinfo=UTC)
TEXTS = ["cli", "exec", "a%b", "a_b", "A_B", "ż", ""]
TIMES = {
    SortKey.CREATED_AT: "created_at",
    SortKey.UPDATED_AT: "updated_at",
    SortKey.RECENCY_AT: "recency_at",
}
times = st.integers(0, 5).map(lambda minutes: START + timedelta(minutes=minutes))
threads = st.fixed_dictionaries(
    {
        "number": st.integers(0, 25),
        "created_at": times,
        "updated_at": times,
        "recency_at": times,
        "source": st.sampled_from(TEXTS),
        "model_provider": st.sampled_from(TEXTS),
        "cwd": st.sampled_from(TEXTS),
        "title": st.sampled_from(
            ["Find the bug", "find THE way", "ŻÓŁW", "x" * 5_000, "y" * 400 + "the", ""]
        ),
        "has_user_event": st.booleans(),
        "archived_at": st.one_of(st.none(), times),
    }
)
several = st.lists(st.sampled_from([*TEXTS, "no such"]), max_size=3).map(tuple)
filters = st.fixed_dictionaries(
    {
        "allowed_sources": several,
        "model_providers": st.one_of(st.none(), several),
        "archived_only": st.booleans(),
        "cwd": st.one_of(st.none(), st.sampled_from(TEXTS)),
        "title_contains": st.sampled_from([None, "the", "THE", "ó", "xx", "no such"]),
        "include_silent": st.booleans(),
    }
)


def thread_id(number: int) -> str:
    return f"{number:08x}-0000-4000-8000-000000000000"


def is_shown(thread: ThreadMetadata, chosen: dict) -> bool:
    lower = str.maketrans("ABCDEFGHIJKLMNOPQRSTUVWXYZ", "abcdefghijklmnopqrstuvwxyz")
    title, wanted = thread.title.translate(lower), chosen["title_contains"]
    return (
        (thread.archived_at is not None) is chosen["archived_only"]
        and (chosen["include_silent"] or thread.has_user_event)
        and (not chosen["allowed_sources"] or thread.source in chosen["allowed_sources"])
        and (not chosen["model_providers"] or thread.model_provider in chosen["model_providers"])
        and chosen["cwd"] in (None, thread.cwd)
        and (not wanted or wanted.translate(lower) in title)
    )


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def state(request, tmp_path_factory):
    """The state of an empty home, kept by either engine."""
    home = tmp_path_factory.mktemp("home")
    (home / "sessions").mkdir()
    options = {}
    if request.param == "postgresql":
        server = request.getfixturevalue("postgres")
        empty(server)
        options = {"database": server.url_of(TEMPLATE), "host": ""}
    with StateRuntime.open(home, backfill=False, **options) as state:
        state.sync()
        yield state


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    (home / "sessions").mkdir()
    with StateRuntime.open(home, backfill=False) as state:
        state.sync()
        yield state


@settings(deadline=None, max_examples=40, suppress_health_check=list(HealthCheck))
@given(
    st.lists(threads, max_size=40),
    st.lists(filters, min_size=1, max_size=6),
    st.sampled_from(SortKey),
    st.integers(1, 9),
    st.sampled_from([(0, 4_000), (2, 3), (32, 4_000)]),
)
def test_pages_give_what_looking_at_every_thread_gives(state, made, chosen, sort_key, size, bounds):
    with state._engine.write() as tx:
        tx.execute("DELETE FROM threads")
    if state._shared is not None:
        state._shared.deliver_all(items=False)
    by_id = {}
    for fields in made:  # the same number again overwrites, and may change the group
        number = fields["number"]
        values = {key: value for key, value in fields.items() if key != "number"}
        thread = make_thread(state.codex_home, id=thread_id(number), **values)
        state.upsert_thread(thread)
        by_id[thread.id] = thread
        assert state.get_thread(thread.id).title == thread.title
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "_FEW_GROUPS", bounds[0])
        patch.setattr(store, "_PROBED", bounds[1])
        for each in chosen:
            expected = [thread for thread in by_id.values() if is_shown(thread, each)]
            key = TIMES[sort_key]
            expected.sort(key=lambda thread: (getattr(thread, key), thread.id), reverse=True)
            found, anchor = [], None
            while True:
                page = state.list_threads(size, anchor, sort_key, **each)
                found += page.items
                anchor = page.next_anchor
                if anchor is None:
                    break
            assert [thread.id for thread in found] == [thread.id for thread in expected]
            assert [t.title for t in found] == [t.title[:SHOWN] for t in expected]
            ids = state.list_thread_ids(100, None, sort_key, **each)
            assert ids == [thread.id for thread in expected]


def test_no_list_looks_at_all_threads_or_sorts_them(shared):
    statements = {}

    def note(_cursor, sql, values):
        statements[sql] = values
        return True

    for number in range(40):  # so many groups that both ways are gone
        shared.upsert_thread(
            make_thread(shared.codex_home, id=thread_id(number), cwd=f"/project/{number}")
        )
    choices = {
        "allowed_sources": ((), ("cli",), ("cli", "exec")),
        "model_providers": (None, ("openai",), ("openai", "local")),
        "archived_only": (False, True),
        "cwd": (None, "/project/7"),
        "include_silent": (False, True),
        "pinned": (None, False),
    }
    anchors = (None, Anchor(START, thread_id(7)))
    for sort_key, anchor, *values in product(SortKey, anchors, *choices.values()):
        listing = partial(shared.list_threads, 50, anchor, sort_key)
        listing()
        connections = shared._engine._connections._open
        for connection in connections:
            connection.exec_trace = note
        listing(**dict(zip(choices, values, strict=True)))
        for connection in connections:
            connection.exec_trace = None
    about_threads = {sql: values for sql, values in statements.items() if "threads" in sql}
    assert len(about_threads) > 100
    with apsw.Connection(str(index_of(shared))) as connection:
        for sql, values in about_threads.items():
            plan = [step[3] for step in connection.execute(f"EXPLAIN QUERY PLAN {sql}", values)]
            assert not any("TEMP B-TREE" in step for step in plan), (sql, plan)
            assert not any(step.startswith("SCAN thread") for step in plan), (sql, plan)
