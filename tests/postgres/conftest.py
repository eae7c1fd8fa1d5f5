"""Several hosts that share one state."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from rollbook import StateRuntime
from tests.conftest import CORPUS
from tests.postgres.server import Server

RELEASE = "0.169.0"


@pytest.fixture
def home_of(tmp_path) -> Callable[[str], Path]:
    """The home of a host: a copy of the same home for each."""

    def made(host: str) -> Path:
        home = tmp_path / host
        if not home.exists():
            shutil.copytree(CORPUS / RELEASE / "home", home)
        return home

    return made


@pytest.fixture
def on(home_of, shared_database) -> Callable[..., StateRuntime]:
    """Open the state of a host."""

    def opened(host: str, **options) -> StateRuntime:
        options = {"database": shared_database, "host": host, "backfill": False} | options
        return StateRuntime.open(home_of(host), **options)

    return opened


@pytest.fixture
def elsewhere(monkeypatch, shared_database) -> Callable[..., StateRuntime]:
    """Open what is shared where there is no home at all."""

    def opened(**options) -> StateRuntime:
        monkeypatch.setenv("HOME", "/nowhere")
        return StateRuntime.open(**{"database": shared_database} | options)

    return opened


@pytest.fixture
def own_server():
    """Start servers that may be killed."""
    servers = []

    def started(**options) -> Server:
        servers.append(Server.start(**options))
        return servers[-1]

    yield started
    for server in servers:
        server.remove()
