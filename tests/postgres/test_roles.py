"""Who may do what: agents write what is of their host, readers read, and nobody else does."""

import time

import psycopg
import pytest

from rollbook import LogEntry, LogLimits, StateRuntime
from rollbook.errors import DatabaseUnwritableError

NOW = 1_795_000_000


@pytest.fixture
def address_of(shared_database, postgres):
    for role, group in (("ann", "agent"), ("bob", "agent"), ("eve", "reader"), ("adm", "admin")):
        if not postgres.execute(f"SELECT 1 FROM pg_roles WHERE rolname = '{role}'"):
            postgres.execute(f"CREATE ROLE {role} LOGIN IN ROLE rollbook_{group}")
    return lambda role: shared_database.replace("postgres@", f"{role}@")


def opened(home_of, address_of, role, host, **options):
    options = {"database": address_of(role), "host": host, "backfill": False} | options
    return StateRuntime.open(home_of(host), **options)


def entries(count):
    return [LogEntry(NOW, number, "INFO", "test", f"row {number}") for number in range(count)]


def test_agents_write_their_own_host_and_all_read_both(home_of, address_of):
    for role, host in (("ann", "alpha"), ("bob", "beta")):
        with opened(home_of, address_of, role, host) as state:
            state.sync()
            state.insert_logs(entries(50))
            state.tag_thread(state.list_threads(1).items[0].id, [host])
            assert len(state.query_logs()) >= 50
    for role in ("ann", "eve", "adm"):
        with opened(home_of, address_of, role, "alpha") as state:
            hosts = {each.host for each in state.list_threads(99, include_silent=True).items}
            assert hosts == {"alpha", "beta"}
            assert len(state.query_logs()) == 100
            assert state.search("the").hits
            assert [len(state.list_threads(9, tags=[tag]).items) for tag in ("alpha", "beta")]


def test_an_agent_can_not_write_what_is_of_another_host(home_of, address_of):
    with opened(home_of, address_of, "ann", "alpha") as state:
        state.sync(metadata_only=True)
    options = {"database": address_of("bob"), "host": "alpha", "backfill": False}
    with StateRuntime.open(home_of("other"), **options) as state:
        with pytest.raises(DatabaseUnwritableError, match="policy"):
            state.sync(metadata_only=True)
    with psycopg.connect(address_of("bob"), autocommit=True) as connection:
        for sql in (
            "UPDATE threads SET title = 'mine'",
            "DELETE FROM threads",
            "DELETE FROM logs",
            "UPDATE hosts SET owner = 'bob'",
        ):
            assert connection.execute(sql).rowcount == 0
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(
                "INSERT INTO usage SELECT 'x', 'alpha', 0, 'm', 0, 0, 0, 0, 0, 0 FROM hosts"
            )
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("DROP TABLE threads")


def test_a_reader_writes_nothing_and_is_told_so(home_of, address_of, postgres):
    with opened(home_of, address_of, "eve", "alpha") as state:
        assert state.list_threads(9).items == []
        with pytest.raises(DatabaseUnwritableError, match="permission denied"):
            state.sync()
        state.insert_logs(entries(1))
        assert state.query_logs() == []
    assert postgres.execute("SELECT count(*) FROM hosts", "template") == [(0,)]


def test_days_that_are_too_old_go_by_themselves(home_of, address_of, postgres):
    old = int(time.time()) - 100 * 86_400
    with opened(home_of, address_of, "postgres", "alpha", log_limits=LogLimits()) as state:
        state.insert_logs([LogEntry(old, 0, "INFO", "t", "old")])
        state.query_logs()
    with opened(home_of, address_of, "postgres", "alpha", log_limits=LogLimits()) as state:
        state.insert_logs([LogEntry(old + 100 * 86_400, 0, "INFO", "t", "new")])
        assert [row.message for row in state.query_logs()] == ["new"]


def test_a_tls_setting_is_passed_on(home_of, address_of):
    address = address_of("ann") + "?sslmode=require"
    with StateRuntime.open(home_of("alpha"), database=address, backfill=False) as state:
        state.list_threads(1)
        assert "SSL" in state.degraded


def test_days_of_logs_are_dropped_as_a_whole_by_whoever_owns_them(home_of, address_of, postgres):
    def days():
        sql = "SELECT relname FROM pg_class WHERE relname ~ '^logs_[0-9]{8}$' AND relkind = 'r'"
        return {row[0] for row in postgres.execute(sql, "template")}

    day = 86_400
    times = [NOW - NOW % day + number * day for number in range(3)]
    with opened(home_of, address_of, "ann", "alpha") as state:
        state.insert_logs([LogEntry(ts, 0, "INFO", "t", str(ts)) for ts in times])
        assert len(state.query_logs()) == 3
        there = days()
        assert len(there) >= 3
        assert state.delete_logs_before(times[1]) == 1  # a row of its own; the day stays
        assert days() == there
    with opened(home_of, address_of, "postgres", "other") as state:
        assert state.delete_logs_before(times[2] + 5) == 2
        assert len(there - days()) >= 2
        state.insert_logs([LogEntry(times[0], 0, "INFO", "t", "again"), LogEntry(-5, 0, "I", "t")])
        assert len(state.query_logs()) == 2
