"""Many processes and one home: all are served, nothing is lost, and nobody stays in the way."""

import fcntl
import os
import signal
import subprocess
import threading
from collections import Counter
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from rollbook import LogEntry, LogQuery, StateRuntime
from rollbook.errors import DatabaseBusyError
from rollbook.testing import make_thread, session_meta, user_message, write_rollout
from tests.conftest import is_sound
from tests.faults import crash_program
from tests.faults.crash_program import (
    SHARED,
    SHARED_FIELDS,
    SHARED_TOOLS,
    join_backfill,
    start,
    thread_id_of,
    write_threads,
)
from tests.index.test_sync import everything, rebuilt

WRITERS = READERS = 8
OPENERS = 16


@contextmanager
def running(activity, *arguments):
    """A program that is ended with the block, if it hasn't ended by itself."""
    with start(activity, *arguments) as program:
        try:
            assert program.stdout.readline() == "started\n"
            yield program
        finally:
            with suppress(ProcessLookupError):
                program.kill()


def hears(program, word: str) -> None:
    """Wait for the next thing that a program says."""
    line = program.stdout.readline()
    if line.split()[:1] != [word]:
        program.kill()
        pytest.fail(f"instead of {word!r}: {line}{program.stdout.read()}")


def tell(program, text: str = "go on") -> None:
    print(text, file=program.stdin, flush=True)


def said_by(programs: list[subprocess.Popen]) -> list[str]:
    """Let programs that are ready go on at the same time; gives what each says to its end."""
    for program in programs:
        hears(program, "ready")
    for program in programs:
        tell(program)
    said = [program.stdout.read() for program in programs]
    assert all(text.startswith("done ") for text in said), "".join(said)
    return said


@pytest.fixture
def ids(home) -> list[str]:
    return write_threads(home, 20)


@pytest.fixture
def synced(home, ids) -> str:
    """A home that is indexed, with logs; the path of its database."""
    with StateRuntime.open(home, backfill=False) as state:
        state.sync()
        state.insert_log(LogEntry(0x7FFFFFFF, 0, "INFO", "before"))
        return state.database


@pytest.fixture(params=["state", "logs"])
def database(synced, request) -> str:
    """Each of the two databases."""
    return str(Path(synced).with_name(f"{request.param}.sqlite"))


@pytest.fixture
def impatient(monkeypatch) -> None:
    """Who waits for a lock gives up soon."""
    monkeypatch.setattr("rollbook.store.sqlite.GIVE_UP_AFTER_S", 0.3)
    monkeypatch.setattr("rollbook.store.sqlite_connections.BUSY_TIMEOUT_S", 0.3)


def write_to(state: StateRuntime, database: str) -> None:
    if database == state.database:
        state.upsert_thread(make_thread(state.codex_home))
    else:
        state.insert_log(LogEntry(0x7FFFFFFF, 0, "INFO", "after"))


# --- Writers and readers ----------------------------------------------------------------------


def test_of_eight_writers_and_eight_readers_nobody_fails_and_no_update_is_lost(home, times):
    own = [thread_id_of(number) for number in range(WRITERS)]
    upserted = [thread_id_of(100, number) for number in range(WRITERS)]
    for thread_id in (*own, *upserted, SHARED, SHARED_TOOLS):
        write_rollout(home, thread_id, [session_meta(thread_id), user_message("Hi")])
    with StateRuntime.open(home, backfill=False) as state:
        state.sync()
    seconds = times(2, 60)
    with ExitStack() as stack:
        programs = [
            stack.enter_context(running(activity, home, number, seconds))
            for activity, many in ((crash_program.write, WRITERS), (crash_program.read, READERS))
            for number in range(many)
        ]
        said = said_by(programs)
    written, looked = ([int(text.split()[1]) for text in part] for part in (said[:8], said[8:]))
    assert min(*written, *looked) > 0

    with StateRuntime.open(home, backfill=False) as state:
        assert [state.get_thread(thread_id).tokens_used for thread_id in own] == written
        assert [state.get_thread(thread_id).tokens_used for thread_id in upserted] == written
        shared = state.get_thread(SHARED)
        assert [str(getattr(shared, field)) for field in SHARED_FIELDS] == [*map(str, written)]
        assert len(state.get_dynamic_tools(SHARED_TOOLS)) == 3
        for process, last in enumerate(written):
            with_tools = [thread_id_of(200, process, number) for number in range(1, last + 1)]
            schemas = [state.get_dynamic_tools(thread_id) for thread_id in with_tools]
            assert [{tool.input_schema for tool in tools} for tools in schemas] == [
                {number} for number in range(1, last + 1)
            ]
        logged = [(row.target, row.message, row.ts_nanos) for row in state.query_logs()]
        for process, last in enumerate(written):
            of_process = [row[1:] for row in logged if row[0] == str(process)]
            assert of_process == [(str(n), part) for n in range(1, last + 1) for part in (0, 1)]
        assert is_sound(state.database)
        assert is_sound(Path(state.database).with_name("logs.sqlite"))


@pytest.mark.parametrize("driver", ["rollbook", "sqlite"])
def test_readers_do_not_wait_for_a_writer(home, ids, database, driver):
    """They answer while it holds the lock; if they waited for it, this would never end well."""
    with running(crash_program.hold, home, database, driver) as holder:
        hears(holder, "inside")
        with StateRuntime.open(home) as state:
            assert sorted(thread.id for thread in everything(state)) == sorted(ids)
            assert {thread.title for thread in everything(state)} == {
                f"Thread {number}" for number in range(len(ids))
            }
            assert sorted(state.list_thread_ids(100)) == sorted(ids)
            assert state.get_thread(ids[3]).title == "Thread 3"
            assert state.get_dynamic_tools(ids[3])[0].name == "tool 3"
            assert state.find_rollout_path_by_id(ids[3]).exists()
            assert state.resolve_thread_id(ids[3][:13]) == ids[3]
            assert [row.target for row in state.query_logs()] == ["before"]
            assert state.max_log_id() == 1
            state.before_closing(lambda: None)
        tell(holder)
        hears(holder, "done")


def test_opening_what_is_up_to_date_takes_no_write_lock(home, database):
    with running(crash_program.hold, home, database, "sqlite") as holder:
        hears(holder, "inside")
        for backfill in (False, True):
            with StateRuntime.open(home, backfill=backfill) as state:
                state.query_logs(LogQuery(limit=1))
        tell(holder)
        hears(holder, "done")


# --- A writer that dies or stands still -------------------------------------------------------


@pytest.mark.parametrize("driver", ["rollbook", "sqlite"])
def test_a_writer_that_is_killed_holds_nobody_up(home, ids, database, driver):
    with running(crash_program.hold, home, database, driver) as holder:
        hears(holder, "inside")
        holder.kill()
        holder.wait()
        with StateRuntime.open(home, backfill=False) as state:
            write_to(state, database)
            assert [row.target for row in state.query_logs()][:1] == ["before"]
            assert state.get_thread(ids[3]).title == "Thread 3"
    assert is_sound(database)


def test_a_write_that_waits_for_one_that_is_killed_goes_through(home, database):
    """It waits before the other dies: no limit is lowered, and it sees no error."""
    with running(crash_program.hold, home, database, "rollbook") as holder:
        hears(holder, "inside")
        with StateRuntime.open(home, backfill=False) as state:
            errors = []

            def write() -> None:
                try:
                    write_to(state, database)
                except DatabaseBusyError as error:
                    errors.append(error)

            waiting = threading.Thread(target=write)
            waiting.start()
            holder.kill()
            waiting.join()
    assert errors == []


@pytest.mark.parametrize("driver", ["rollbook", "sqlite"])
def test_a_writer_that_is_stopped_is_named_to_those_who_give_up(
    home, ids, database, driver, impatient
):
    with running(crash_program.hold, home, database, driver) as holder:
        hears(holder, "inside")
        os.kill(holder.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, holder.pid, os.WSTOPPED)
        with StateRuntime.open(home, backfill=False) as state:
            with pytest.raises(DatabaseBusyError) as caught:
                write_to(state, database)
            assert state.get_thread(ids[3]).title == "Thread 3"
            holder.send_signal(signal.SIGCONT)
            tell(holder)
            hears(holder, "done")
            write_to(state, database)
    message = f"{caught.value.message} {caught.value.hint}"
    assert str(holder.pid) in message
    assert "stopped" in message


def test_sixteen_processes_open_an_empty_home_at_the_same_instant(tmp_path, times):
    with ExitStack() as stack:
        openers = [
            stack.enter_context(running(crash_program.open_together, name))
            for name in range(OPENERS)
        ]
        for number in range(times(3, 200)):
            home = tmp_path / str(number)
            home.mkdir()
            with home.with_suffix(".gate").open("w") as gate:
                fcntl.flock(gate, fcntl.LOCK_EX)
                for opener in openers:
                    tell(opener, str(home))
                for opener in openers:
                    hears(opener, "waiting")
            for opener in openers:
                hears(opener, "done")
            with StateRuntime.open(home, backfill=False) as state:
                logged = Counter(row.target for row in state.query_logs())
                assert logged == Counter(map(str, range(OPENERS)))
                assert state.is_synced()
                assert is_sound(state.database)


# --- One backfill -----------------------------------------------------------------------------


def test_who_opens_a_home_that_another_indexes_is_served_from_the_files(home, ids, caplog):
    with running(crash_program.sync_slowly, home) as owner:
        hears(owner, "inside")
        with StateRuntime.open(home) as state:
            caplog.set_level("INFO")
            join_backfill()
            assert not state.is_synced()
            assert state.get_thread(ids[3]).tokens_used == 2
            assert state.get_dynamic_tools(ids[4])[0].name == "tool 4"
            assert state.resolve_thread_id(ids[5][:13]) == ids[5]
            with pytest.raises(DatabaseBusyError):
                state.sync(wait_s=0)
            tell(owner)
            hears(owner, "done")
            assert state.is_synced()
            assert sorted(thread.id for thread in everything(state)) == sorted(ids)


def test_a_list_of_a_home_that_another_indexes_is_read_from_the_files(home, ids, tmp_path):
    with running(crash_program.sync_slowly, home) as owner:
        hears(owner, "inside")
        with StateRuntime.open(home) as state:
            join_backfill()
            listed, page = everything(state), state.list_threads(7)
            tell(owner)
            hears(owner, "done")
            assert listed == everything(state) == rebuilt(state, tmp_path)
            assert page.items == listed[:7]
            assert state.list_threads(100, page.next_anchor).items == listed[7:]


def test_the_death_of_who_indexes_frees_the_home(home, ids):
    with running(crash_program.sync_slowly, home) as owner:
        hears(owner, "inside")
        with StateRuntime.open(home) as state:
            join_backfill()
            assert not state.is_synced()
            owner.kill()
            owner.wait()
            assert state.sync(wait_s=0).indexed == len(ids)
    with StateRuntime.open(home) as state:
        assert state.is_synced()
        assert sorted(thread.id for thread in everything(state)) == sorted(ids)
