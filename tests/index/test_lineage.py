"""The tree of forks, sub-agents and reviews."""

from contextlib import closing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rollbook import LineageNode, Relation, StateRuntime
from rollbook.errors import ThreadNotFoundError
from rollbook.testing import make_thread, session_meta, user_message, write_rollout
from tests.conftest import RELEASES, as_another_program, index_of

IDS = [f"{number:08x}-0000-4000-8000-000000000000" for number in range(9)]
REVIEW = '{"subagent":"review"}'


def add(state: StateRuntime, thread_id: str, **fields: object) -> None:
    state.upsert_thread(make_thread(state.codex_home, id=thread_id, **fields))


def shape(node: LineageNode) -> object:
    return (IDS.index(node.id), node.relation.value, [shape(child) for child in node.children])


def test_a_thread_alone_is_a_tree_alone(state):
    add(state, IDS[0])
    tree = state.lineage(IDS[0])
    assert shape(tree) == (0, "root", [])
    assert tree.thread == state.get_thread(IDS[0])


def test_the_tree_is_the_same_from_each_of_its_threads(state):
    add(state, IDS[0])
    add(state, IDS[1], forked_from_id=IDS[0])
    add(state, IDS[2], parent_thread_id=IDS[1])
    add(state, IDS[3], forked_from_id=IDS[0], parent_thread_id=IDS[0], source=REVIEW)
    add(state, IDS[4])
    trees = [state.lineage(each) for each in IDS[:4]]
    assert trees == [trees[0]] * 4
    assert shape(trees[0]) == (
        0,
        "root",
        [(1, "fork", [(2, "subagent", [])]), (3, "review", [])],
    )
    assert [(depth, IDS.index(node.id)) for depth, node in trees[0].walk()] == [
        (0, 0),
        (1, 1),
        (2, 2),
        (1, 3),
    ]


def test_threads_whose_common_source_is_gone_stay_together(state):
    add(state, IDS[1], forked_from_id=IDS[0])
    add(state, IDS[2], forked_from_id=IDS[0])
    tree = state.lineage(IDS[2])
    assert shape(tree) == (0, "root", [(1, "fork", []), (2, "fork", [])])
    assert tree.thread is None


def test_an_unknown_thread_has_no_tree(state):
    with pytest.raises(ThreadNotFoundError):
        state.lineage(IDS[0])


def test_a_chain_of_any_length_is_read(state):
    length = 5_000
    ids = [f"{number:08x}-0000-4000-8000-000000000000" for number in range(length)]
    add(state, ids[0])
    rows = [(ids[at], ids[at - 1]) for at in range(1, length)]
    columns = "rollout_path, created_at, updated_at, recency_at, source, model_provider, cwd, title"
    with closing(as_another_program(index_of(state))) as connection, connection:
        connection.executemany(
            f"INSERT INTO threads (id, forked_from_id, {columns}, sandbox_policy, approval_mode)"
            f" SELECT ?, ?, {columns}, sandbox_policy, approval_mode FROM threads"
            f" WHERE id = '{ids[0]}'",
            rows,
        )
    if state.database_system == "postgresql":
        state._shared.deliver_all(items=False)
    assert [node.id for _, node in state.lineage(ids[-1]).walk()] == ids


links = st.lists(st.none() | st.integers(0, 8), min_size=9, max_size=9)


@settings(deadline=None, max_examples=40)
@given(parents=links, sources=links)
def test_no_links_hide_a_thread_or_lead_in_a_circle(tmp_path_factory, parents, sources):
    """Whatever threads name: themselves, each other, threads that are not there."""
    home = tmp_path_factory.mktemp("home")
    (home / "sessions").mkdir()
    with StateRuntime.open(home, backfill=False) as state:
        for at in range(8):  # the last one is gone
            parent, source = parents[at], sources[at]
            add(
                state,
                IDS[at],
                parent_thread_id=None if parent is None else IDS[parent],
                forked_from_id=None if source is None else IDS[source],
            )
        for at in range(8):
            nodes = [node for _, node in state.lineage(IDS[at]).walk()]
            ids = [node.id for node in nodes]
            assert IDS[at] in ids
            assert len(ids) == len(set(ids))
            assert [each for each in ids if state.get_thread(each)] == [
                node.id for node in nodes if node.thread
            ]
            for child in range(8):  # who names one of them is one of them
                if parents[child] is not None and IDS[parents[child]] in ids:
                    assert IDS[child] in ids


def test_segments_are_counted_and_copies_are_not(home, state):
    lines = [session_meta(IDS[0]), user_message("Begin")]
    write_rollout(home, IDS[0], lines)
    write_rollout(home, IDS[0], lines, archived=True)
    write_rollout(home, IDS[0], [user_message("Go on")], segment=IDS[1])
    write_rollout(home, IDS[2], [session_meta(IDS[2], forked_from_id=IDS[0]), user_message("Fork")])
    state.sync()
    tree = state.lineage(IDS[2])
    assert (tree.id, tree.segments) == (IDS[0], 2)
    assert [child.segments for child in tree.children] == [1]


@pytest.mark.parametrize("release", RELEASES)
def test_each_release_tells_what_descends_from_what(release, corpus_home):
    with StateRuntime.open(corpus_home(release), backfill=False) as state:
        state.sync()
        threads = state.list_threads(100, include_silent=True).items
        linked = [thread for thread in threads if thread.parent_thread_id or thread.forked_from_id]
        assert linked
        for thread in linked:
            tree = state.lineage(thread.id)
            above = thread.parent_thread_id or thread.forked_from_id
            [parent] = [node for _, node in tree.walk() if node.id == above]
            [node] = [child for child in parent.children if child.id == thread.id]
            assert node.relation is not Relation.ROOT


def test_descendants_are_found_by_an_index(state):
    """A look at every thread would take a second where there are a million."""
    with closing(as_another_program(index_of(state))) as connection:
        for column in ("parent_thread_id", "forked_from_id"):
            sql = f"SELECT id FROM threads WHERE {column} IN (SELECT value FROM json_each('[]'))"
            plan = [step[3] for step in connection.execute(f"EXPLAIN QUERY PLAN {sql}")]
            assert plan[0].startswith("SEARCH threads USING INDEX threads_by_")
