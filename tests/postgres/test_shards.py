"""Spread over sixteen databases, the state reads as it does in one."""

from uuid import uuid4

import pytest

from rollbook import Anchor, SortKey
from rollbook.model.search import SearchSort
from tests.postgres.fixtures import TEMPLATE
from tests.postgres.shards import SHARDS, Router, indexes_that_lead

BY_THREAD = {
    "threads": "id",
    "thread_texts": "thread_id",
    "thread_dynamic_tools": "thread_id",
    "rollout_files": "thread_id",
    "transcript_items": "thread_id",
    "usage": "thread_id",
    "annotation_lines": "thread_id",
    "annotations": "thread_id",
    "thread_tags": "thread_id",
}
BY_HOST = {"logs": "host", "log_positions": "host"}


@pytest.fixture(scope="module")
def router(postgres):
    names = [f"shard_{uuid4().hex}" for _ in range(SHARDS)]
    made = Router([postgres.create_database(name, TEMPLATE) for name in names])
    yield made
    made.close()
    for name in names:
        postgres.drop_database(name)


@pytest.fixture
def spread(router, on):
    """Two hosts, in one database and over all shards; gives the state of the first."""
    with on("alpha") as alpha, on("beta") as beta:
        for state in (alpha, beta):
            state.sync()
            sent = router.deliver(state, state.host)
        assert sum(sent.values()) == 33
        assert sum(1 for count in sent.values() if count) > 8
        yield alpha


@pytest.mark.parametrize("sort_key", [SortKey.CREATED_AT, SortKey.RECENCY_AT])
@pytest.mark.parametrize("size", [1, 7, 100])
def test_pages_are_those_of_one_database(spread, router, sort_key, size):
    column = "created_at" if sort_key is SortKey.CREATED_AT else "recency_at"
    ours, theirs, anchor, place = [], [], None, None
    while page := router.page(size, place, sort_key):
        ours += page
        place = Anchor(getattr(page[-1], column), page[-1].id, page[-1].host)
    while True:
        page = spread.list_threads(size, anchor, sort_key, include_silent=True)
        theirs += page.items
        anchor = page.next_anchor
        if anchor is None:
            break
    assert ours == theirs
    assert len(ours) > 60


def test_a_lookup_and_a_transcript_ask_one_shard(spread, router):
    for thread in spread.list_threads(9).items:
        before = [shard.statements for shard in router.shards]
        assert {copy.host for copy in router.lookup(thread.id)} == {"alpha", "beta"}
        items = router.transcript(thread.host, thread.id)
        asked = [s for s, n in zip(router.shards, before, strict=True) if s.statements > n]
        assert asked == [router.shard_of(thread.id)]
        assert [item.text for item in items] == [
            item.text for item in spread.read_whole_thread(thread.id)
        ]


def test_a_search_finds_the_same_messages(spread, router):
    theirs = spread.search("the", limit=500, sort=SearchSort.NEWEST).hits
    ours = router.search("the", 500)
    assert {match.position for match in ours} == {hit.position for hit in theirs}
    assert len(ours) == len(theirs) > 5


def test_each_large_table_is_found_by_what_it_is_distributed_by(router):
    with router.shards[0].read() as tx:
        leads = indexes_that_lead(tx)
    for table, column in (BY_THREAD | BY_HOST).items():
        assert leads[table] == column
