"""Dynamic tools: first write wins, order and JSON as given (behaviour.md 24 to 32)."""

import json

import apsw
import pytest

from rollbook import DynamicToolSpec, ThreadMetadataBuilder
from rollbook.errors import RolloutError, ThreadNotFoundError
from rollbook.rollout.lines import decode_line
from rollbook.testing import DEFAULT_TIME, make_thread, session_meta, user_message, write_rollout

ID = "88888888-8888-4888-8888-888888888888"
SCHEMA = {"type": "object", "zeta": {"ó": ["青", 1.0, 1e3, None, True]}, "alpha": 2}
TOOLS = [
    DynamicToolSpec(name="second_by_name", description="Zażółć", input_schema=SCHEMA),
    DynamicToolSpec(name="first_by_name", description="", input_schema=True),
    DynamicToolSpec(
        name="third", description="x", input_schema=[], defer_loading=True, namespace="n"
    ),
]
RECORDED = [
    {"name": tool.name, "description": tool.description, "inputSchema": tool.input_schema}
    for tool in TOOLS[:2]
]


def stored(runtime) -> list[tuple]:
    connection = apsw.Connection(runtime.database, flags=apsw.SQLITE_OPEN_READONLY)
    rows = connection.execute(
        "SELECT position, name, input_schema FROM thread_dynamic_tools ORDER BY position"
    ).fetchall()
    connection.close()
    return rows


def test_tools_come_back_in_order_with_the_order_of_their_keys(runtime):
    runtime.upsert_thread(make_thread(id=ID))
    runtime.persist_dynamic_tools(ID, TOOLS)
    found = runtime.get_dynamic_tools(ID)
    assert found == TOOLS
    assert json.dumps(found[0].input_schema) == json.dumps(SCHEMA)
    assert stored(runtime)[0] == (
        0,
        "second_by_name",
        '{"type":"object","zeta":{"ó":["青",1.0,1000.0,null,true]},"alpha":2}',
    )


def test_the_first_write_wins(runtime):
    runtime.upsert_thread(make_thread(id=ID))
    runtime.persist_dynamic_tools(ID, TOOLS[:1])
    runtime.persist_dynamic_tools(ID, TOOLS[1:])
    assert runtime.get_dynamic_tools(ID) == TOOLS[:1]


@pytest.mark.parametrize("nothing", [None, [], ()])
def test_nothing_is_stored_for_no_tools(runtime, nothing):
    runtime.persist_dynamic_tools(ID, nothing)
    runtime.upsert_thread(make_thread(id=ID))
    runtime.persist_dynamic_tools(ID, nothing)
    assert runtime.get_dynamic_tools(ID) is None
    assert stored(runtime) == []


def test_tools_of_an_unknown_thread_are_refused(runtime):
    with pytest.raises(ThreadNotFoundError, match=ID):
        runtime.persist_dynamic_tools(ID, TOOLS)
    assert stored(runtime) == []


def test_all_tools_are_stored_or_none(runtime):
    runtime.upsert_thread(make_thread(id=ID))
    unstorable = DynamicToolSpec(name="x", description="x", input_schema=object())
    with pytest.raises(TypeError):
        runtime.persist_dynamic_tools(ID, [TOOLS[0], unstorable])
    assert stored(runtime) == []


def test_an_update_of_the_thread_keeps_its_tools(runtime):
    runtime.upsert_thread(make_thread(id=ID))
    runtime.persist_dynamic_tools(ID, TOOLS)
    runtime.upsert_thread(make_thread(id=ID, title="Later"))
    assert runtime.get_dynamic_tools(ID) == TOOLS


def test_tools_of_the_own_session_meta_are_stored_with_the_items(runtime):
    theirs = session_meta("99999999-9999-4999-8999-999999999999", dynamic_tools=RECORDED[1:])
    lines = [theirs, session_meta(ID, dynamic_tools=RECORDED[:1])]
    builder = ThreadMetadataBuilder(id=ID, rollout_path="/x", created_at=DEFAULT_TIME)
    runtime.apply_rollout_items(builder, [decode_line(line) for line in lines])
    assert runtime.get_dynamic_tools(ID) == TOOLS[:1]


def test_tools_of_an_unknown_thread_are_found_on_disk_and_stored(runtime, home):
    path = write_rollout(home, ID, [session_meta(ID, dynamic_tools=RECORDED), user_message("Hi")])
    assert runtime.get_dynamic_tools(ID) == TOOLS[:2]
    assert [row[1] for row in stored(runtime)] == ["second_by_name", "first_by_name"]
    path.unlink()
    assert runtime.get_dynamic_tools(ID) == TOOLS[:2]


def test_tools_that_the_database_lacks_are_found_on_disk_and_stored(runtime, home):
    path = write_rollout(home, ID, [session_meta(ID, dynamic_tools=RECORDED), user_message("Hi")])
    runtime.upsert_thread(make_thread(id=ID, rollout_path=str(path)))
    assert runtime.get_dynamic_tools(ID) == TOOLS[:2]
    assert len(stored(runtime)) == 2


def test_a_fork_does_not_get_the_tools_of_its_source_from_copied_history(runtime, home):
    theirs = session_meta("99999999-9999-4999-8999-999999999999", dynamic_tools=RECORDED)
    write_rollout(home, ID, [session_meta(ID), theirs, user_message("Hi")])
    assert runtime.get_dynamic_tools(ID) is None


def test_a_rollout_that_can_not_be_read_is_named(runtime, home):
    path = write_rollout(home, ID, [session_meta(ID), user_message("Hi")])
    runtime.get_thread(ID)
    path.rename(path.with_name(path.name + ".zst"))
    with pytest.raises(RolloutError, match=rf"{ID}\.jsonl can't be read"):
        runtime.get_dynamic_tools(ID)
