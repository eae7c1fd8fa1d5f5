"""A server that goes away: hosts go on, nothing is lost, and nothing is there twice."""

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rollbook import LogEntry, StateRuntime
from rollbook.errors import DatabaseError, DatabaseUnavailableError
from rollbook.testing import make_thread, message, session_meta, write_rollout
from tests.postgres.failover import fail_over, until


def log(text: str) -> LogEntry:
    return LogEntry(ts=int(time.time()), ts_nanos=0, level="INFO", target="test", message=text)


def test_a_host_that_loses_the_server_goes_on_and_sends_what_was_missed_once(
    home_of, own_server, tmp_path
):
    server = own_server()
    address = server.create_database("shared")
    options = {"database": address, "host": "alpha", "backfill": False}
    with StateRuntime.open(home_of("alpha"), **options) as state:
        state.sync()
        state.insert_logs([log("before")])
        assert len(state.query_logs()) == 1
        server.kill()
        assert len(state.list_threads(99).items) > 10
        assert "can't be reached" in state.degraded
        thread = make_thread(state.codex_home, title="While it was away")
        state.upsert_thread(thread)
        state.tag_thread(thread.id, ["later"])
        for number in range(50):
            state.insert_logs([log(f"meanwhile {number}")])
        assert [t.id for t in state.list_threads(1, title_contains="away").items] == [thread.id]
        assert len(state.query_logs()) == 51
        assert state.search("the").hits
        server.run()
        until(lambda: not state.degraded)
        assert [t.id for t in state.list_threads(1, tags=["later"]).items] == [thread.id]
    rows = server.execute("SELECT message FROM logs ORDER BY id", "shared")
    assert [row[0] for row in rows] == ["before", *(f"meanwhile {n}" for n in range(50))]
    found = server.execute(f"SELECT title, host FROM threads WHERE id = '{thread.id}'", "shared")
    assert found == [("While it was away", "alpha")]


def test_what_a_process_could_not_send_the_next_one_does(home_of, own_server):
    server = own_server()
    options = {"database": server.create_database("shared"), "host": "alpha", "backfill": False}
    with StateRuntime.open(home_of("alpha"), **options) as state:
        state.sync()
    server.stop()
    with StateRuntime.open(home_of("alpha"), **options) as state:
        thread = make_thread(state.codex_home)
        write_rollout(state.codex_home, thread.id, [session_meta(thread.id), message("Hello")])
        state.insert_logs([log("unsent")])
        assert state.get_thread(thread.id).id == thread.id
    server.run()
    with StateRuntime.open(home_of("alpha"), **options) as state:
        state.sync(metadata_only=True)
    assert server.execute("SELECT message FROM logs", "shared") == [("unsent",)]
    assert server.execute(f"SELECT 1 FROM threads WHERE id = '{thread.id}'", "shared") == [(1,)]


def test_an_index_that_is_being_made_anew_takes_nothing_away(home_of, shared_database):
    options = {"database": shared_database, "host": "alpha", "backfill": False}
    with StateRuntime.open(home_of("alpha"), **options) as state:
        state.sync()
        there = set(state.list_thread_ids(99))
    (home_of("alpha") / "rollbook" / "state.sqlite").unlink()
    with StateRuntime.open(home_of("alpha"), **options) as state:
        state._shared.deliver_all(items=False)
        assert set(state.list_thread_ids(99)) == there


def test_a_process_that_is_killed_while_it_sends_doubles_nothing(home_of, own_server):
    server = own_server()
    options = {"database": server.create_database("shared"), "host": "alpha", "backfill": False}
    program = (
        "import sys, time\nfrom rollbook import LogEntry, StateRuntime\n"
        "with StateRuntime.open(sys.argv[1], database=sys.argv[2], host='alpha') as state:\n"
        "    for number in range(10**6):\n"
        "        state.insert_logs([LogEntry(int(time.time()), 0, 'INFO', 'x', str(number))])\n"
        "        if not number % 100: state.max_log_id(); print(number, flush=True)\n"
    )
    written = -1
    for _ in range(4):
        command = [sys.executable, "-c", program, home_of("alpha"), options["database"]]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            for _ in range(3):
                process.stdout.readline()
            process.kill()
    with StateRuntime.open(home_of("alpha"), **options) as state:
        local = state._logs.rows_after(0, 10**6)
        written = len(local)
        assert state.max_log_id() > 0
    sent = server.execute("SELECT message FROM logs ORDER BY id", "shared")
    assert [row[0] for row in sent] == [row[7] for row in local]
    assert written > 800


def test_without_a_home_a_lost_server_is_an_error_that_says_so(own_server, monkeypatch):
    server = own_server()
    address = server.create_database("shared").replace("postgres@", "postgres:secret@")
    monkeypatch.setenv("HOME", "/nowhere")
    monkeypatch.setattr("rollbook.fleet.state._READER_PATIENCE_S", 0.3)
    with StateRuntime.open(database=address) as state:
        assert state.list_threads(1).items == []
        server.stop()
        with pytest.raises(DatabaseUnavailableError, match="can't be reached") as caught:
            state.list_threads(1)
        assert "secret" not in str(caught.value)
        assert "secret" not in repr(caught.value.__cause__)
        server.run()
        assert state.list_threads(1).items == []


def test_who_can_not_know_what_others_have_pinned_prunes_nothing(home_of, own_server):
    from datetime import timedelta

    server = own_server()
    options = {"database": server.create_database("shared"), "host": "alpha", "backfill": False}
    with StateRuntime.open(home_of("alpha"), **options) as state:
        state.sync()
        server.stop()
        with pytest.raises(DatabaseError, match="pinned or tagged isn't known"):
            state.prune(timedelta(seconds=1))
        assert len(state.list_threads(99).items) > 10


def test_writers_go_on_when_the_primary_is_killed_and_the_standby_promoted(own_server, tmp_path):
    outcome = fail_over(own_server, tmp_path)
    assert (outcome.lost, outcome.doubled, outcome.errors) == (0, 0, 0)
    assert outcome.acknowledged > 1000


def test_a_reader_of_a_replica_never_goes_back(home_of, own_server):
    primary = own_server()
    replica = own_server(standby_of=primary)
    options = {"database": primary.create_database("shared"), "backfill": False, "host": "alpha"}
    read = replica.url_of("shared")
    until(lambda: replica.execute("SELECT 1 FROM pg_database WHERE datname = 'shared'"))
    with StateRuntime.open(home_of("alpha"), **options, read_database=read) as state:
        for paused in (False, True):
            if paused:
                replica.execute("SELECT pg_wal_replay_pause()")
            for _ in range(20):
                thread = make_thread(state.codex_home)
                state.upsert_thread(thread)
                assert thread.id in state.list_thread_ids(99)
        replica.execute("SELECT pg_wal_replay_resume()")
        state.list_thread_ids(1)
        replica.kill()
        assert len(state.list_thread_ids(99)) == 40
        assert not state.degraded


def test_no_password_is_in_what_others_can_see(home_of, shared_database):
    address = re.sub("postgres@", "postgres:tr0ub4dor@", shared_database)
    program = Path(sys.executable).with_name("rollbook")
    command = [program, "sync", "--watch", "--home", home_of("a"), "--db"]
    with subprocess.Popen(
        [*command, address], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        process.stdout.readline()
        shown = Path(f"/proc/{process.pid}/cmdline").read_bytes()
        process.terminate()
        rest = process.stdout.read()
    assert b"sync" in shown
    assert b"tr0ub4dor" not in shown + rest
