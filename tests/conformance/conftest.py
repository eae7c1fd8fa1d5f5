"""The same tests for both faces of the runtime."""

import asyncio
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import pytest

from rollbook import AsyncStateRuntime, StateRuntime


class Blocking:
    """An AsyncStateRuntime whose coroutines are run to their end, so that tests read the same."""

    def __init__(self, home: Path, **options: Any) -> None:
        self._runner = asyncio.Runner()
        self._state = self._runner.run(self._open(home, options))

    @staticmethod
    async def _open(home: Path, options: dict[str, Any]) -> AsyncStateRuntime:
        return await AsyncStateRuntime.open(home, **options)

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._state, name)
        if not callable(value):
            return value

        def call(*arguments: Any, **options: Any) -> Any:
            result = value(*arguments, **options)
            return self._runner.run(result) if inspect.iscoroutine(result) else result

        return call

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._runner.run(self._state.close())
        self._runner.close()


@pytest.fixture(params=["sync", "async"], scope="module")
def open_runtime(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Open a home through one of the two faces; without a backfill unless that is asked for."""
    face = Blocking if request.param == "async" else StateRuntime.open

    def opened(home: Path, **options: Any) -> Any:
        return face(home, **{"backfill": False} | options)

    return opened


@pytest.fixture
def runtime(open_runtime: Callable[..., Any], home: Path) -> Iterator[Any]:
    """The state of an empty home, through one of the two faces."""
    with open_runtime(home) as opened:
        yield opened


@pytest.fixture(scope="module")
def shared_runtime(
    open_runtime: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Any]:
    """One state for all examples of a property: opening one for each would be most of the time."""
    with open_runtime(tmp_path_factory.mktemp("home")) as opened:
        yield opened
