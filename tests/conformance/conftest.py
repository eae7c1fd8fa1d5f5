"""The same tests for both faces of the runtime."""

import asyncio
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import pytest

from rollbook import AsyncStateRuntime, StateRuntime
from tests.postgres.fixtures import TEMPLATE, empty
from tests.postgres.server import Server


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


@pytest.fixture(params=["sync-sqlite", "async-sqlite", "sync-postgresql"], scope="module")
def way(request: pytest.FixtureRequest) -> list[str]:
    """Through which of the two faces, and with which engine."""
    return str(request.param).split("-")


@pytest.fixture(scope="module")
def engine_options(way: list[str], request: pytest.FixtureRequest) -> dict[str, Any]:
    """What is opened with, to be kept in that engine."""
    if way[1] == "sqlite":
        return {}
    server: Server = request.getfixturevalue("postgres")
    empty(server)
    return {"database": server.url_of(TEMPLATE), "host": ""}


@pytest.fixture(scope="module")
def open_runtime(way: list[str], engine_options: dict[str, Any]) -> Callable[..., Any]:
    """Open a home through one of the two faces; without a backfill unless that is asked for."""
    face = Blocking if way[0] == "async" else StateRuntime.open

    def opened(home: Path, **options: Any) -> Any:
        return face(home, **{"backfill": False} | engine_options | options)

    return opened


@pytest.fixture(autouse=True)
def nothing_shared(request: pytest.FixtureRequest) -> None:
    """Begin each test with a database that has nothing in it."""
    if "way" in request.fixturenames and request.getfixturevalue("way")[1] == "postgresql":
        empty(request.getfixturevalue("postgres"))


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
