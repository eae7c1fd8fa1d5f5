"""The public surface: what can be imported, that both faces are the same, that all is described."""

import asyncio
import inspect
import sys
import typing
from types import ModuleType
from typing import Any

import pytest

import rollbook
import rollbook.testing
from rollbook import AsyncStateRuntime, StateRuntime, errors

FACES = (StateRuntime, AsyncStateRuntime)
METHODS = sorted(
    name for name, _ in inspect.getmembers(StateRuntime, callable) if not name.startswith("_")
)
NOT_AWAITED = ("open", "before_closing", "read_whole_thread", "watch")
REFERENCE_METHODS = {
    "insert_log": ["entry"],
    "insert_logs": ["entries"],
    "query_logs": ["query"],
    "max_log_id": ["query"],
    "delete_logs_before": ["ts"],
    "get_thread": ["thread_id"],
    "get_dynamic_tools": ["thread_id"],
    "find_rollout_path_by_id": ["thread_id", "archived_only"],
    "list_threads": [
        "page_size",
        "anchor",
        "sort_key",
        "allowed_sources",
        "model_providers",
        "archived_only",
    ],
    "list_thread_ids": [
        "limit",
        "anchor",
        "sort_key",
        "allowed_sources",
        "model_providers",
        "archived_only",
    ],
    "upsert_thread": ["metadata"],
    "persist_dynamic_tools": ["thread_id", "dynamic_tools"],
    "apply_rollout_items": ["builder", "items"],
    "mark_archived": ["thread_id", "rollout_path", "archived_at"],
    "mark_unarchived": ["thread_id", "rollout_path"],
}


def public(module: ModuleType) -> list[tuple[str, Any]]:
    """What a module defines itself, and the methods and properties of that."""
    found = [
        (name, value)
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
    ]
    members = [
        (f"{name}.{each}", member)
        for name, value in found
        if inspect.isclass(value)
        for each, member in vars(value).items()
        if not each.startswith("_") and (inspect.isroutine(member) or isinstance(member, property))
    ]
    return found + members


def test_both_faces_have_the_same_methods_and_properties():
    theirs = [n for n, _ in inspect.getmembers(AsyncStateRuntime, callable) if n[0] != "_"]
    assert sorted(theirs) == METHODS
    properties = [
        sorted(n for n, m in vars(face).items() if isinstance(m, property)) for face in FACES
    ]
    assert properties[0] == [
        "codex_home",
        "database",
        "database_system",
        "default_provider",
        "degraded",
        "host",
        "is_closed",
        "own_database",
    ]
    assert properties[1] == ["blocking", *properties[0]]


def test_a_watch_has_the_same_arguments_and_is_iterated_over_either_way():
    ours, theirs = (inspect.signature(face.watch) for face in FACES)
    assert ours.parameters == theirs.parameters
    assert inspect.isasyncgenfunction(AsyncStateRuntime.watch)
    assert str(theirs.return_annotation) == str(ours.return_annotation).replace(
        "abc.Iterator", "abc.AsyncIterator"
    )


@pytest.mark.parametrize("name", [name for name in METHODS if name not in NOT_AWAITED])
def test_a_method_has_the_same_signature_as_a_coroutine(name):
    ours, theirs = (getattr(face, name) for face in FACES)
    assert inspect.signature(ours) == inspect.signature(theirs)
    assert typing.get_type_hints(ours) == typing.get_type_hints(theirs)
    assert inspect.iscoroutinefunction(theirs)
    assert not inspect.iscoroutinefunction(ours)
    assert f"rollbook.StateRuntime.{name}`" in theirs.__doc__


@pytest.mark.parametrize(
    "name",
    [
        "codex_home",
        "database",
        "database_system",
        "default_provider",
        "degraded",
        "host",
        "is_closed",
        "own_database",
    ],
)
def test_a_property_has_the_same_type_in_both_faces(name):
    ours, theirs = (getattr(face, name).fget for face in FACES)
    assert typing.get_type_hints(ours) == typing.get_type_hints(theirs)


@pytest.mark.parametrize("name", sorted(REFERENCE_METHODS))
def test_a_method_of_the_reference_takes_its_arguments_by_position(name):
    parameters = inspect.signature(getattr(StateRuntime, name)).parameters.values()
    positional = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    assert positional == ["self", *REFERENCE_METHODS[name]]


def test_opening_takes_the_same_arguments_and_can_be_awaited_or_entered(home):
    ours, theirs = (inspect.signature(face.open) for face in FACES)
    assert list(ours.parameters.values()) == list(theirs.parameters.values())
    hints = [typing.get_type_hints(face.open) for face in FACES]
    assert hints[0] | {"return": None} == hints[1] | {"return": None}

    async def both_ways() -> list[list[str]]:
        async with AsyncStateRuntime.open(home) as entered:
            seen = [await entered.list_thread_ids(1)]
        awaited = await AsyncStateRuntime.open(home, backfill=False)
        async with awaited:
            return [*seen, await awaited.list_thread_ids(1)]

    assert asyncio.run(both_ways()) == [[], []]


def test_coroutines_of_one_state_may_run_side_by_side(home):
    thread = rollbook.testing.make_thread(home)

    async def many() -> list[Any]:
        async with AsyncStateRuntime.open(home, backfill=False) as state:
            await asyncio.gather(*(state.upsert_thread(thread) for _ in range(20)))
            return await asyncio.gather(*(state.get_thread(thread.id) for _ in range(20)))

    assert asyncio.run(many()) == [thread] * 20


def test_an_error_is_the_same_in_both_faces(runtime):
    with pytest.raises(errors.UsageError) as caught:
        runtime.get_thread("x")
    assert type(caught.value) is errors.InvalidThreadIdError
    assert caught.value.hint == "a thread id is a UUID"


def test_what_is_announced_is_what_can_be_imported():
    assert sorted(rollbook.__all__) == rollbook.__all__
    assert set(rollbook.__all__) <= set(dir(rollbook))
    assert all(getattr(rollbook, name) for name in rollbook.__all__)


def test_a_star_import_gives_what_is_announced():
    names: dict[str, Any] = {}
    exec("from rollbook import *", names)
    assert set(rollbook.__all__) <= set(names)


@pytest.mark.parametrize(
    "name", [name for name in rollbook.__all__ if name not in ("__version__", "items")]
)
def test_all_that_is_announced_and_its_members_are_described(name):
    value = getattr(rollbook, name)
    assert value.__doc__
    assert not value.__doc__.startswith(f"{name}(")
    own = sys.modules[value.__module__]
    members = [m for n, m in public(own) if n.startswith(f"{name}.")]
    assert all(inspect.getdoc(member) for member in members)


@pytest.mark.parametrize("module", [rollbook, errors, rollbook.testing], ids=lambda m: m.__name__)
def test_all_that_a_public_module_defines_is_described(module):
    assert module.__doc__
    assert [name for name, value in public(module) if not inspect.getdoc(value)] == []


def all_errors(base: type = errors.RollbookError) -> list[type]:
    return [base, *(each for child in base.__subclasses__() for each in all_errors(child))]


@pytest.mark.parametrize("error", all_errors(), ids=lambda error: error.__name__)
def test_an_error_has_code_exit_code_message_and_hint(error):
    made = error("what happened", hint="what to do")
    assert str(made) == "what happened (what to do)"
    assert str(error("what happened")) == "what happened"
    assert made.exit_code in range(1, 6)
    assert error.__name__ in errors.__doc__
    assert error.code in errors.__doc__
