"""The servers that other tests rely on do what those believe: they follow, die and come back."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from tests.postgres.pgbouncer import PgBouncer, program
from tests.postgres.server import Server

WITHIN_S = 60.0
SYNCHRONOUS = {
    "synchronous_standby_names": "*",
    "synchronous_commit": "remote_apply",
    "fsync": "on",
}


def until(is_so: Callable[[], bool]) -> None:
    """Ask again and again: each question is a round trip to a server."""
    deadline = time.monotonic() + WITHIN_S
    while not is_so():
        assert time.monotonic() < deadline


def numbers(server: Server) -> list[int]:
    return [number for (number,) in server.execute("SELECT number FROM numbers ORDER BY number")]


def is_followed(primary: Server) -> bool:
    return primary.execute("SELECT state FROM pg_stat_replication") == [("streaming",)]


def is_in_recovery(server: Server) -> bool:
    return server.execute("SELECT pg_is_in_recovery()") == [(True,)]


@pytest.fixture
def bouncer(postgres) -> Iterator[PgBouncer]:
    if program() is None:
        pytest.skip("PgBouncer can't be had here")
    started = PgBouncer.start(postgres)
    yield started
    started.stop()


def test_a_server_answers_with_its_settings_until_it_is_removed(own_server):
    server = own_server(max_connections="7")
    assert server.execute("SHOW max_connections") == [("7",)]
    assert server.execute("SHOW fsync") == [("off",)]
    assert server.execute("SHOW listen_addresses") == [("127.0.0.1",)]
    assert server.execute("SHOW server_encoding") == [("UTF8",)]
    server.remove()
    assert not server.answers()
    assert not server.directory.exists()


def test_a_server_that_can_not_start_says_why(own_server):
    with pytest.raises(RuntimeError, match="no_such_setting"):
        own_server(no_such_setting="1")


def test_databases_are_cloned_from_a_template(postgres):
    names = ("original", "one", "two")
    try:
        postgres.create_database("original")
        postgres.execute("CREATE TABLE numbers AS SELECT 1 AS number", "original")
        for name in ("one", "two"):
            assert postgres.create_database(name, "original") == postgres.url_of(name)
        postgres.execute("UPDATE numbers SET number = 2", "one")
        found = {name: postgres.execute("SELECT number FROM numbers", name) for name in names}
        assert found == {"original": [(1,)], "one": [(2,)], "two": [(1,)]}
    finally:
        for name in names:
            postgres.drop_database(name)


def test_a_database_is_dropped_though_somebody_uses_it(postgres):
    with psycopg.connect(postgres.create_database("used"), autocommit=True) as connection:
        postgres.drop_database("used")
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
    assert postgres.execute("SELECT 1 FROM pg_database WHERE datname = 'used'") == []


@pytest.mark.parametrize("end", [Server.kill, Server.stop])
def test_what_was_committed_is_there_after_an_end_and_a_start(own_server, end):
    server = own_server()
    server.execute("CREATE TABLE numbers AS SELECT 1 AS number")
    address = server.url
    with psycopg.connect(address, autocommit=True) as connection:
        end(server)
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
    assert not server.answers()
    server.run()
    assert server.url == address
    assert numbers(server) == [1]


def test_a_standby_follows_and_takes_over_when_its_primary_is_killed(own_server):
    primary = own_server()
    primary.execute("CREATE TABLE numbers AS SELECT 1 AS number")
    standby = own_server(standby_of=primary)
    assert is_in_recovery(standby)
    primary.execute("INSERT INTO numbers VALUES (2)")
    until(lambda: numbers(standby) == [1, 2])
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        standby.execute("INSERT INTO numbers VALUES (3)")
    primary.kill()
    standby.promote()
    assert not is_in_recovery(standby)
    standby.execute("INSERT INTO numbers VALUES (3)")
    assert numbers(standby) == [1, 2, 3]


def test_what_a_synchronous_standby_confirmed_outlives_the_primary(own_server):
    primary = own_server(**SYNCHRONOUS)
    standby = own_server(standby_of=primary)
    until(lambda: is_followed(primary))
    assert primary.execute("SELECT application_name, sync_state FROM pg_stat_replication") == [
        ("standby", "sync")
    ]
    primary.execute("CREATE TABLE numbers (number int)")
    for number in range(20):
        primary.execute(f"INSERT INTO numbers VALUES ({number})")
        assert numbers(standby)[-1] == number
    primary.kill()
    standby.promote()
    assert numbers(standby) == list(range(20))


def test_a_commit_waits_for_a_synchronous_standby(own_server):
    primary = own_server(**SYNCHRONOUS)
    standby = own_server(standby_of=primary)
    until(lambda: is_followed(primary))
    primary.execute("CREATE TABLE numbers (number int)")
    standby.kill()
    waiting = "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
    with ThreadPoolExecutor(1) as pool:
        try:
            commit = pool.submit(primary.execute, "INSERT INTO numbers VALUES (1)")
            until(lambda: bool(primary.execute(waiting)))
            assert not commit.done()
            standby.run()
            commit.result(WITHIN_S)
        finally:
            primary.kill()  # else a commit that nobody confirms would be waited for
    assert numbers(standby) == [1]


def test_pgbouncer_lends_a_session_for_one_transaction(bouncer):
    pid = "SELECT pg_backend_pid()"

    def session_of(connection: psycopg.Connection) -> int:
        return connection.execute(pid).fetchone()[0]

    address = bouncer.url_of("postgres")
    with (
        psycopg.connect(address, autocommit=True, prepare_threshold=None) as one,
        psycopg.connect(address, autocommit=True, prepare_threshold=None) as other,
    ):
        assert session_of(one) == session_of(other)
        with one.transaction():
            held = session_of(one)
            assert session_of(other) != held
            assert session_of(one) == held
