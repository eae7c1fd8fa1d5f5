"""The same tests for both faces of the runtime."""

import asyncio
import inspect
from collections.abc import Callable

import pytest

from rollbook import AsyncStateRuntime, StateRuntime


class Blocking:
    """An AsyncStateRuntime whose coroutines are run to their end, so that tests read the same."""

    def __init__(self, home) -> None:
        self._runner = asyncio.Runner()
        self._state = self._runner.run(self._open(home))

    @staticmethod
    async def _open(home) -> AsyncStateRuntime:
        return await AsyncStateRuntime.open(home, backfill=False)

    def __getattr__(self, name: str):
        value = getattr(self._state, name)
        if not callable(value):
            return value

        def call(*arguments, **options):
            result = value(*arguments, **options)
            return self._runner.run(result) if inspect.iscoroutine(result) else result

        return call

    def __enter__(self):
        return self

    def __exit__(self, *error) -> None:
        self._runner.run(self._state.close())
        self._runner.close()


@pytest.fixture(params=["sync", "async"])
def open_runtime(request) -> Callable:
    """Open a home through one of the two faces."""
    if request.param == "async":
        return Blocking
    return lambda home: StateRuntime.open(home, backfill=False)


@pytest.fixture
def runtime(open_runtime, home):
    """The state of an empty home, through one of the two faces."""
    with open_runtime(home) as opened:
        yield opened
