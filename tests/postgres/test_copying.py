"""Logs from one database to another: all of them, once, whatever breaks off."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rollbook import LogEntry, StateRuntime
from rollbook.errors import UsageError
from rollbook.fleet import copying
from rollbook.fleet.copying import copy_logs

PROGRAM = Path(sys.executable).with_name("rollbook")


def entries(count, text="row"):
    now = int(time.time())
    return [
        LogEntry(now, n, "INFO", "test", f"{text} {n}", None, "m", "f", n) for n in range(count)
    ]


@pytest.fixture
def local(home_of):
    """The logs of a home that shares nothing."""
    home = home_of("alpha")
    with StateRuntime.open(home, backfill=False) as state:
        state.insert_logs(entries(300))
    return str(home / "rollbook" / "state.sqlite")


def test_logs_of_a_home_go_to_a_server_and_back_once(local, shared_database, postgres, tmp_path):
    assert copy_logs(local, shared_database, host="alpha").copied == 300
    assert copy_logs(local, shared_database, host="alpha").copied == 0
    rows = postgres.execute("SELECT host, message, line FROM logs ORDER BY id", "template")
    assert rows == [("alpha", f"row {n}", n) for n in range(300)]
    back = str(tmp_path / "back" / "state.sqlite")
    assert copy_logs(shared_database, back).copied == 300
    assert copy_logs(shared_database, back).copied == 0
    with StateRuntime.open(tmp_path, database=back, backfill=False) as state:
        assert [row.message for row in state.query_logs()] == [f"row {n}" for n in range(300)]


def test_a_copy_that_breaks_off_goes_on_where_it_was(local, shared_database, postgres, monkeypatch):
    monkeypatch.setattr(copying, "_AT_ONCE", 70)

    def stop(copied):
        if copied == 140:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        copy_logs(local, shared_database, host="alpha", progress=stop)
    assert copy_logs(local, shared_database, host="alpha").copied == 160
    rows = postgres.execute("SELECT message FROM logs ORDER BY id", "template")
    assert rows == [(f"row {n}",) for n in range(300)]


def test_what_a_home_sends_by_itself_is_not_copied_again(on, shared_database, home_of):
    with on("alpha") as state:
        state.insert_logs(entries(20))
        assert len(state.query_logs()) == 20
    source = str(home_of("alpha") / "rollbook" / "logs.sqlite")
    assert copy_logs(source, shared_database, host="alpha").copied == 0


def test_logs_of_all_hosts_go_from_one_server_to_another(on, shared_database, own_server):
    other = own_server()
    address = other.create_database("shared")
    for host in ("alpha", "beta"):
        with on(host) as state:
            state.insert_logs(entries(5, host))
    assert copy_logs(shared_database, address).copied == 10
    rows = other.execute("SELECT host, count(*) FROM logs GROUP BY host ORDER BY host", "shared")
    assert rows == [("alpha", 5), ("beta", 5)]


def test_the_command_counts(local, shared_database):
    command = [PROGRAM, "copy", "--from", local, "--to", shared_database, "--json"]
    for copied in (300, 0):
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert json.loads(done.stdout) == {"copied": copied, "hosts": 1}
    done = subprocess.run(
        [*command[:4], "--to", local], capture_output=True, text=True, check=False
    )
    assert (done.returncode, "itself" in done.stderr) == (2, True)


def test_logs_that_are_not_there_are_an_error(tmp_path, shared_database):
    with pytest.raises(UsageError, match="no logs at"):
        copy_logs(str(tmp_path / "state.sqlite"), shared_database)
