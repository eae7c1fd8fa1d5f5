"""Whatever is recorded comes back, however it is cut and wherever the file is torn."""

import json
import os
import shutil
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from rollbook import RolloutItem, RolloutRecorder, StateRuntime, items

TURN = [
    items.task_started("t1"),
    *items.user_message("Where is it?"),
    items.turn_context("gpt-5.2-codex", "/work", turn_id="t1"),
    items.function_call("lookup", {"what": "it"}, "call-1"),
    items.function_call_output("call-1", "found"),
    *items.agent_message("There."),
    items.token_count(100, input_tokens=90, output_tokens=10),
    items.task_complete("t1", "There."),
]


def lines(path: Path) -> list[dict]:
    content = path.read_bytes()
    assert content.endswith(b"\n")
    return [json.loads(line) for line in content.splitlines()]


def rebuilt(state: StateRuntime, thread_id: str):
    """The row that an index built from nothing has."""
    with StateRuntime.open(
        state.codex_home, database=state.codex_home / "other.sqlite", backfill=False
    ) as other:
        other.sync(jobs=1)
        return other.get_thread(thread_id)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
ANY_ITEM = st.one_of(
    st.sampled_from(TURN),
    st.builds(lambda text: items.user_message(text)[1], st.text()),
    st.builds(
        lambda payload: RolloutItem("response_item", {"type": "x"} | payload),
        st.dictionaries(st.text(), JSON, max_size=3),
    ),
)


@settings(deadline=None, max_examples=30)
@given(batches=st.lists(st.lists(ANY_ITEM, max_size=4), max_size=5), cut=st.integers(0, 400))
def test_whatever_is_recorded_comes_back_and_a_torn_end_costs_no_whole_line(
    tmp_path_factory, batches, cut
):
    home = tmp_path_factory.mktemp("home")
    (home / "sessions").mkdir()
    with StateRuntime.open(home, backfill=False) as state:
        with RolloutRecorder.create(state, git=False) as recorder:
            for batch in batches:
                recorder.record_items(batch)
        thread_id, path = recorder.thread_id, recorder.rollout_path
        assert rebuilt(state, thread_id).differing_fields(state.get_thread(thread_id)) == []
        first, *rest = lines(path)
        assert len(rest) == sum(map(len, batches))
        content = path.read_bytes()
        end = max(len(content) - cut, content.find(b"\n") + 1)
        os.truncate(path, end)
        with RolloutRecorder.resume(state, thread_id) as again:
            again.record_items([items.thread_name(thread_id, "after")])
        kept = lines(path)
        assert kept[-1]["payload"]["thread_name"] == "after"
        assert kept[:-1] == [first, *rest][: len(kept) - 1]
        whole = content[:end].count(b"\n")
        assert len(kept) - 1 in (whole, whole + 1)
        assert rebuilt(state, thread_id).differing_fields(state.get_thread(thread_id)) == []
    shutil.rmtree(home)
