"""Dynamic tools: first write wins, order and JSON as given (behaviour.md 24 to 32)."""

import json
import uuid
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest

from rollbook import DynamicToolSpec, ThreadMetadataBuilder
from rollbook.errors import (
    DatabaseDamagedError,
    InvalidThreadIdError,
    RolloutError,
    ThreadNotFoundError,
    UsageError,
)
from rollbook.testing import DEFAULT_TIME, make_thread, session_meta, user_message, write_rollout
from tests.conftest import index_of, run_sql

ID = "88888888-8888-4888-8888-888888888888"
OTHER_ID = "99999999-9999-4999-8999-999999999999"
SCHEMA = {"type": "object", "zeta": {"ó": ["青", 1.0, 1e3, None, True]}, "alpha": 2}
SCHEMA_TEXT = '{"type":"object","zeta":{"ó":["青",1.0,1000.0,null,true]},"alpha":2}'
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


def stored(runtime: Any) -> list[tuple[Any, ...]]:
    return run_sql(
        index_of(runtime),
        "SELECT thread_id, position, name, input_schema FROM thread_dynamic_tools"
        " ORDER BY thread_id, position",
    )


def apply(runtime: Any, *lines: bytes, thread_id: str = ID) -> None:
    builder = ThreadMetadataBuilder(id=thread_id, rollout_path="/x", created_at=DEFAULT_TIME)
    runtime.apply_rollout_items(builder, [json.loads(line) for line in lines])


def test_tools_come_back_in_order_with_the_order_of_their_keys(runtime):
    runtime.upsert_thread(make_thread(id=ID))
    runtime.persist_dynamic_tools(ID, TOOLS)
    found = runtime.get_dynamic_tools(ID)
    assert found == TOOLS
    assert json.dumps(found[0].input_schema) == json.dumps(SCHEMA)
    assert stored(runtime) == [
        (ID, 0, "second_by_name", SCHEMA_TEXT),
        (ID, 1, "first_by_name", "true"),
        (ID, 2, "third", "[]"),
    ]


def test_many_tools_keep_their_order(runtime):
    tools = [DynamicToolSpec(f"{n * 37 % 100}", str(n), {"n": n}) for n in range(100)]
    runtime.upsert_thread(make_thread(id=ID))
    runtime.persist_dynamic_tools(ID, tools)
    assert runtime.get_dynamic_tools(ID) == tools


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        (1e3, "1000.0"),
        (-0.0, "-0.0"),
        (0.1, "0.1"),
        (2**64, str(2**64)),
        (-(2**63) - 1, str(-(2**63) - 1)),
        (None, "null"),
        ('</script>\n"\\\0', r'"</script>\n\"\\\u0000"'),
        ({"": {"b": 1, "a": 2}, "a": [[], {}]}, '{"":{"b":1,"a":2},"a":[[],{}]}'),
    ],
)
def test_a_schema_is_any_json_and_stored_compactly(runtime, schema, text):
    runtime.upsert_thread(make_thread(id=ID))
    runtime.persist_dynamic_tools(ID, [DynamicToolSpec("x", "", schema)])
    assert stored(runtime) == [(ID, 0, "x", text)]
    [tool] = runtime.get_dynamic_tools(ID)
    assert json.dumps(tool.input_schema) == json.dumps(schema)


def test_the_first_write_wins(runtime):
    runtime.upsert_thread(make_thread(id=ID))
    runtime.persist_dynamic_tools(ID, TOOLS[:1])
    runtime.persist_dynamic_tools(ID, TOOLS)
    apply(runtime, session_meta(ID, dynamic_tools=RECORDED))
    assert runtime.get_dynamic_tools(ID) == TOOLS[:1]


def test_of_two_writers_at_the_same_time_one_wins_whole(open_runtime, home):
    ids = [str(uuid.uuid4()) for _ in range(20)]
    start = Barrier(2, timeout=60)

    def write(tools: list[DynamicToolSpec]) -> None:
        with open_runtime(home) as mine:
            start.wait()
            for thread_id in ids:
                mine.persist_dynamic_tools(thread_id, tools)

    with open_runtime(home) as runtime, ThreadPoolExecutor() as pool:
        for thread_id in ids:
            runtime.upsert_thread(make_thread(id=thread_id))
        for writer in [pool.submit(write, tools) for tools in (TOOLS, TOOLS[::-1])]:
            writer.result()
        for thread_id in ids:
            assert runtime.get_dynamic_tools(thread_id) in (TOOLS, TOOLS[::-1])


@pytest.mark.parametrize("nothing", [None, [], ()])
def test_nothing_is_stored_for_no_tools(runtime, nothing):
    runtime.persist_dynamic_tools(ID, nothing)
    runtime.upsert_thread(make_thread(id=ID))
    runtime.persist_dynamic_tools(ID, nothing)
    assert runtime.get_dynamic_tools(ID) is None
    assert stored(runtime) == []
    runtime.persist_dynamic_tools(ID, TOOLS)
    assert runtime.get_dynamic_tools(ID) == TOOLS


def test_tools_of_an_unknown_thread_are_refused(runtime):
    with pytest.raises(ThreadNotFoundError, match=ID):
        runtime.persist_dynamic_tools(ID, TOOLS)
    assert stored(runtime) == []
    assert runtime.get_dynamic_tools(ID) is None


def test_the_id_may_be_in_any_form_but_must_be_one(runtime):
    runtime.upsert_thread(make_thread(id=ID))
    runtime.persist_dynamic_tools("urn:uuid:" + ID, TOOLS)
    assert runtime.get_dynamic_tools(ID.replace("-", "")) == TOOLS
    for refused in (runtime.get_dynamic_tools, lambda x: runtime.persist_dynamic_tools(x, TOOLS)):
        with pytest.raises(InvalidThreadIdError):
            refused("x")


def test_a_tool_without_a_name_keeps_the_others_out_too(runtime):
    runtime.upsert_thread(make_thread(id=ID))
    nameless: Any = DynamicToolSpec(name=None, description="x", input_schema={})  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="name"):
        runtime.persist_dynamic_tools(ID, [*TOOLS, nameless])
    assert stored(runtime) == []
    runtime.persist_dynamic_tools(ID, TOOLS)
    assert runtime.get_dynamic_tools(ID) == TOOLS


def test_a_schema_that_is_no_json_keeps_the_others_out_too(runtime):
    runtime.upsert_thread(make_thread(id=ID))
    unstorable = DynamicToolSpec(name="x", description="x", input_schema=object())
    with pytest.raises(UsageError, match="no JSON"):
        runtime.persist_dynamic_tools(ID, [TOOLS[0], unstorable])
    assert stored(runtime) == []


def test_a_stored_schema_that_is_no_json_fails_the_whole_call(runtime):
    runtime.upsert_thread(make_thread(id=ID))
    runtime.persist_dynamic_tools(ID, TOOLS)
    sql = "UPDATE thread_dynamic_tools SET input_schema = '{' WHERE position = 1"
    run_sql(index_of(runtime), sql)
    with pytest.raises(DatabaseDamagedError, match=ID):
        runtime.get_dynamic_tools(ID)


def test_an_update_of_the_thread_keeps_its_tools(runtime):
    runtime.upsert_thread(make_thread(id=ID))
    runtime.persist_dynamic_tools(ID, TOOLS)
    runtime.upsert_thread(make_thread(id=ID, title="Later"))
    runtime.mark_archived(ID, "/x", DEFAULT_TIME)
    apply(runtime, user_message("Hi"))
    assert runtime.get_dynamic_tools(ID) == TOOLS


def test_tools_of_the_own_session_meta_are_stored_with_the_items(runtime):
    theirs = session_meta(OTHER_ID, dynamic_tools=RECORDED[1:])
    apply(runtime, theirs, session_meta(ID, dynamic_tools=RECORDED[:1]))
    assert runtime.get_dynamic_tools(ID) == TOOLS[:1]
    assert {row[0] for row in stored(runtime)} == {ID}


def test_a_session_meta_without_tools_is_not_made_up_for_by_a_later_one(runtime):
    lines = [session_meta(ID), session_meta(ID, dynamic_tools=RECORDED)]
    apply(runtime, *lines)
    assert stored(runtime) == []


@pytest.mark.parametrize("none", [None, [], {}])
def test_a_session_meta_with_no_tools_stores_none(runtime, none):
    apply(runtime, session_meta(ID, dynamic_tools=none))
    assert stored(runtime) == []
    assert runtime.get_dynamic_tools(ID) is None


def test_tools_of_an_unknown_thread_are_found_on_disk_and_stored(runtime, home):
    path = write_rollout(home, ID, [session_meta(ID, dynamic_tools=RECORDED), user_message("Hi")])
    assert runtime.get_dynamic_tools(ID) == TOOLS[:2]
    assert stored(runtime) == [
        (ID, 0, "second_by_name", SCHEMA_TEXT),
        (ID, 1, "first_by_name", "true"),
    ]
    path.unlink()
    assert runtime.get_dynamic_tools(ID) == TOOLS[:2]
    if runtime.database_system == "sqlite":  # to read is not to share
        assert runtime.list_thread_ids(5) == [ID]


@pytest.mark.parametrize("archived", [False, True])
def test_tools_that_the_database_lacks_are_found_on_disk_and_stored(runtime, home, archived):
    meta = session_meta(ID, dynamic_tools=RECORDED)
    path = write_rollout(home, ID, [meta, user_message("Hi")], archived=archived)
    runtime.upsert_thread(make_thread(id=ID, rollout_path=str(path)))
    assert stored(runtime) == []
    assert runtime.get_dynamic_tools(ID) == TOOLS[:2]
    assert [row[2] for row in stored(runtime)] == ["second_by_name", "first_by_name"]


def test_tools_in_the_database_go_before_those_on_disk(runtime, home):
    path = write_rollout(home, ID, [session_meta(ID, dynamic_tools=RECORDED), user_message("Hi")])
    runtime.upsert_thread(make_thread(id=ID, rollout_path=str(path)))
    runtime.persist_dynamic_tools(ID, TOOLS[2:])
    assert runtime.get_dynamic_tools(ID) == TOOLS[2:]


def test_a_sync_stores_the_tools_that_a_rollout_carries_and_takes_them_away_with_it(runtime, home):
    path = write_rollout(home, ID, [session_meta(ID, dynamic_tools=RECORDED), user_message("Hi")])
    runtime.sync(jobs=1)
    assert [row[:3] for row in stored(runtime)] == [
        (ID, 0, "second_by_name"),
        (ID, 1, "first_by_name"),
    ]
    path.unlink()
    runtime.sync(jobs=1)
    assert stored(runtime) == []


def test_a_fork_does_not_get_the_tools_of_its_source_from_copied_history(runtime, home):
    theirs = session_meta(OTHER_ID, dynamic_tools=RECORDED)
    write_rollout(home, ID, [session_meta(ID), theirs, user_message("Hi")])
    assert runtime.get_dynamic_tools(ID) is None
    assert stored(runtime) == []


def test_a_rollout_that_can_not_be_read_is_named(runtime, home):
    path = write_rollout(home, ID, [session_meta(ID), user_message("Hi")])
    runtime.get_thread(ID)
    path.rename(path.with_name(path.name + ".zst"))
    with pytest.raises(RolloutError, match=rf"{ID}\.jsonl can't be read"):
        runtime.get_dynamic_tools(ID)
