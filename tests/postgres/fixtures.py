"""A server that all tests of a worker share, and a database on it that is empty for each."""

from collections.abc import Iterator

import pytest

from rollbook.store.engine import SHARED
from rollbook.store.postgres import PostgresEngine
from tests.postgres.server import Server

TEMPLATE = "template"
SHARED_TABLES = (
    "annotation_lines",
    "annotations",
    "hosts",
    "log_positions",
    "logs",
    "rollout_files",
    "thread_dynamic_tools",
    "thread_groups",
    "thread_tags",
    "thread_texts",
    "threads",
    "transcript_items",
    "usage",
)


def empty(server: Server) -> None:
    """Take all away that is shared."""
    tables = ", ".join(SHARED_TABLES)
    server.execute(f"TRUNCATE {tables}; ALTER SEQUENCE log_ids RESTART", TEMPLATE)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """A server of PostgreSQL, with a database that has the schema."""
    server = Server.start()
    engine = PostgresEngine.open(server.create_database(TEMPLATE), SHARED)
    with engine.read():
        pass
    engine.close()
    yield server
    server.remove()


@pytest.fixture
def shared_database(postgres) -> str:
    """The address of a database that has nothing in it."""
    empty(postgres)
    return postgres.url_of(TEMPLATE)
