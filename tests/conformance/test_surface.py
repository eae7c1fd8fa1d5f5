"""The public surface: what can be imported, that both faces are the same, that all is described."""

import asyncio
import inspect
import subprocess
import sys
import typing

import pytest

import rollbook
from rollbook import AsyncStateRuntime, StateRuntime, errors

METHODS = sorted(
    name for name, _ in inspect.getmembers(StateRuntime, callable) if not name.startswith("_")
)


def test_both_faces_have_the_same_methods():
    theirs = [n for n, _ in inspect.getmembers(AsyncStateRuntime, callable) if n[0] != "_"]
    assert sorted(theirs) == METHODS
    properties = [
        sorted(n for n, m in vars(face).items() if isinstance(m, property))
        for face in (StateRuntime, AsyncStateRuntime)
    ]
    assert properties[0] == properties[1] == ["codex_home", "database"]


@pytest.mark.parametrize("name", [name for name in METHODS if name != "open"])
def test_a_method_has_the_same_signature_as_a_coroutine(name):
    ours, theirs = getattr(StateRuntime, name), getattr(AsyncStateRuntime, name)
    assert inspect.signature(ours) == inspect.signature(theirs)
    assert typing.get_type_hints(ours) == typing.get_type_hints(theirs)
    assert inspect.iscoroutinefunction(theirs)
    assert f"rollbook.StateRuntime.{name}`" in theirs.__doc__


def test_opening_takes_the_same_arguments_and_can_be_awaited_or_entered(home):
    ours, theirs = (inspect.signature(face.open) for face in (StateRuntime, AsyncStateRuntime))
    assert list(ours.parameters.values()) == list(theirs.parameters.values())

    async def both_ways() -> list:
        async with AsyncStateRuntime.open(home) as entered:
            seen = [await entered.list_thread_ids(1)]
        awaited = await AsyncStateRuntime.open(home, backfill=False)
        async with awaited:
            return [*seen, await awaited.list_thread_ids(1)]

    assert asyncio.run(both_ways()) == [[], []]


def test_all_that_is_announced_is_there():
    assert sorted(rollbook.__all__) == rollbook.__all__
    for name in rollbook.__all__:
        assert getattr(rollbook, name)


@pytest.mark.parametrize(
    "value",
    [getattr(rollbook, name) for name in rollbook.__all__ if name != "__version__"]
    + [getattr(StateRuntime, name) for name in METHODS],
    ids=lambda value: value.__name__,
)
def test_all_that_is_public_is_described(value):
    assert inspect.getdoc(value)


def test_importing_the_package_loads_no_terminal_library():
    code = "import sys, rollbook; print([m for m in ('click', 'rich', 'filelock') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


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
