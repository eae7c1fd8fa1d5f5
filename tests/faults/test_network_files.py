"""A home on a network file system: no shared memory, and no lock of the kernel's, is relied on.

``ROLLBOOK_NETWORK_FILES=1`` has Rollbook take any file system for one of a network.  What the tests
look for is looked for without it, too, so that they would see it.
"""

import ctypes
import errno
import os
import signal
import struct
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from rollbook import (
    LogEntry,
    LogQuery,
    RollbookHandler,
    RolloutRecorder,
    StateRuntime,
    ThreadMetadataBuilder,
    filesystem,
    items,
)
from rollbook.errors import DatabaseBusyError, ThreadInUseError
from rollbook.index import extraction
from rollbook.rollout.lines import decode_line
from rollbook.testing import DEFAULT_TIME, session_meta, token_count, user_message, write_rollout
from tests.conftest import is_sound, run_sql
from tests.faults import crash_program
from tests.faults.crash_program import (
    SHARED,
    SHARED_FIELDS,
    SHARED_TOOLS,
    append,
    numbers_of,
    thread_id_of,
    write_threads,
)
from tests.faults.test_bad_environment import (
    MOUNTED,
    command,
    faults_left,
    knows_calls,
    live_through,
    mount,
    mount_small_disk,
    only_read,
    own_mounts,  # noqa: F401 - a fixture, asked for by its name
    refuse,
    run_program,
    told,
    truth_of,
)
from tests.faults.test_damage import answers
from tests.faults.test_many_processes import hears, running, said_by, tell
from tests.index.test_sync import everything, rebuilt

THREADS = 20
linux = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc and inotify")


@pytest.fixture
def network(monkeypatch) -> None:
    """This process, and those that it starts, take every file system for one of a network."""
    monkeypatch.setenv(filesystem.FORCED, "1")


# --- No shared memory, no locks of the kernel's -----------------------------------------------


class Watch:
    """Sees every file that is made in a directory, however short its life is."""

    def __init__(self, directory: Path) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        made, moved_here = 0x100, 0x80
        assert self._libc.inotify_add_watch(
            self._descriptor, os.fsencode(directory), made | moved_here
        )

    def made(self) -> set[str]:
        names = set()
        while True:
            try:
                events = os.read(self._descriptor, 1 << 16)
            except BlockingIOError:
                return names
            while events:
                _, mask, _, length = struct.unpack("iIII", events[:16])
                assert not mask & 0x4000, "more was made than could be seen"
                names.add(os.fsdecode(events[16 : 16 + length].rstrip(b"\0")))
                events = events[16 + length :]


def locks_below(home: Path) -> list[str]:
    """The locks of the kernel's, of any process, on what is below a directory, and on itself.

    Only of what is there before and after: the number of a file that goes may be another's then.
    """
    before = inodes_below(home)
    lines = Path("/proc/locks").read_text("ascii").splitlines()
    stayed = {inode for inode, path in inodes_below(home).items() if before.get(inode) == path}
    return [line for line in lines if line.split()[-3].rpartition(":")[2] in stayed]


def inodes_below(home: Path) -> dict[str, Path]:
    found = {}
    for path in (home, *home.rglob("*")):
        with suppress(FileNotFoundError):  # lock files come and go
            found[str(path.stat().st_ino)] = path
    return found


def index_and_log(state: StateRuntime, ids: list[str], look: Callable[[str], None]) -> None:
    state.sync(jobs=2, progress=lambda _: look("syncing"))
    state.upsert_thread(state.get_thread(ids[0]))
    state.get_dynamic_tools(ids[1])
    path = Path(state.get_thread(ids[3]).rollout_path)
    append(path, token_count(77))
    builder = ThreadMetadataBuilder(ids[3], str(path), DEFAULT_TIME)
    state.apply_rollout_items(builder, [decode_line(token_count(77))])
    state.reconcile_rollout(path)
    with state._engine.read() as tx:
        tx.query("SELECT * FROM threads")
        look("reading")
    with state._engine.write() as tx:
        tx.execute("UPDATE threads SET title = title")
        look("writing")
    state.insert_log(LogEntry(0x7FFFFFFF, 0, "INFO", "x", "logged"))
    with state._logs._open()[0].write() as tx:
        tx.execute("UPDATE logs SET ts = ts")
        look("logging")
    state.delete_logs_before(1)
    state.query_logs()
    state.sync(rebuild=True, jobs=2, progress=lambda _: look("syncing again"))


def record_and_archive(state: StateRuntime, ids: list[str], look: Callable[[str], None]) -> None:
    with RolloutRecorder.create(state, cwd="/", git=False) as recorder:
        recorder.record_items(items.user_message("Hi"))
        look("recording")
        recorder.flush()
    given = thread_id_of(1000)
    with RolloutRecorder.create(state, cwd="/", git=False, thread_id=given):
        look("recording")
    with RolloutRecorder.resume(state, given) as recorder:
        recorder.record_items(items.user_message("again"))
        look("resumed")
    with RolloutRecorder.fork(state, ids[5], cwd="/"):
        look("forked")
    state.archive_thread(ids[4])
    state.unarchive_thread(ids[4])
    state.sync()


def a_whole_life(home: str, scratch: str) -> dict:
    """Use all of Rollbook, and see which locks and files it makes."""
    home, scratch = Path(home), Path(scratch)
    called: set[str] = set()
    locks: set[str] = set()
    extraction.WORTH_WORKERS_BYTES = 0

    def hear(event: str, arguments: tuple) -> None:
        if event in {"fcntl.flock", "fcntl.lockf", "fcntl.fcntl"}:
            descriptor = arguments[0] if isinstance(arguments[0], int) else arguments[0].fileno()
            place = os.readlink(f"/proc/self/fd/{descriptor}")
            if place.startswith(str(home)):
                called.add(f"{event} {os.path.relpath(place, home)}")

    sys.addaudithook(hear)

    def look(when: str) -> None:
        locks.update(f"{when}: {line}" for line in locks_below(home))

    (home / "rollbook").mkdir()
    watch = Watch(home / "rollbook")
    ids = write_threads(home, THREADS)
    with StateRuntime.open(home, backfill=False) as state:
        index_and_log(state, ids, look)
        record_and_archive(state, ids, look)
        titles = [state.get_thread(thread_id).title for thread_id in ids]
        found = {
            "right": titles == [f"Thread {number}" for number in range(THREADS)]
            and everything(state) == rebuilt(state, scratch),
            "logs": [row.message for row in state.query_logs()],
            "commands": {
                name: command(name, *arguments, "--home", home)["code"]
                for name, *arguments in (
                    ("sync",),
                    ("list",),
                    ("show", ids[0]),
                    ("tools", ids[1]),
                    ("path", ids[0]),
                    ("logs", "--no-follow"),
                    ("archive", ids[2]),
                    ("unarchive", ids[2]),
                )
            },
        }
    made = watch.made()
    return found | {
        "called": sorted(called),
        "locks": sorted(locks),
        "shared": sorted(name for name in made if name.endswith(("-shm", "-wal"))),
        "made": sorted(made),
        "left": sorted(str(p.relative_to(home)) for p in home.rglob("*") if ".lock" in p.name),
        "faults left": faults_left(home, scratch),
    }


@linux
def test_nothing_relies_on_shared_memory_or_on_locks(home, tmp_path, network):
    found = run_program(a_whole_life, home, tmp_path)
    assert found["right"]
    assert found["logs"] == ["logged"]
    assert set(found["commands"].values()) == {0}
    assert found["shared"] == []
    assert found["called"] == []
    assert found["locks"] == []
    assert found["left"] == []
    assert found["faults left"] == []


@linux
def test_on_a_disk_of_this_machine_both_would_be_seen(home, tmp_path):
    found = run_program(a_whole_life, home, tmp_path)
    assert found["right"]
    assert set(found["commands"].values()) == {0}
    assert "state.sqlite-shm" in found["shared"]
    assert "logs.sqlite-wal" in found["shared"]
    assert any("rollout-" in call for call in found["called"])
    moments = {text.split(":")[0] for text in found["locks"]}
    assert moments >= {"syncing", "writing", "logging", "recording", "resumed"}


# --- Many at once -----------------------------------------------------------------------------


def test_two_writers_and_two_readers_lose_nothing(home, network, times):
    own = [thread_id_of(number) for number in range(2)]
    upserted = [thread_id_of(100, number) for number in range(2)]
    for thread_id in (*own, *upserted, SHARED, SHARED_TOOLS):
        write_rollout(home, thread_id, [session_meta(thread_id), user_message("Hi")])
    with StateRuntime.open(home, backfill=False) as state:
        state.sync()
    with ExitStack() as stack:
        programs = [
            stack.enter_context(running(activity, home, number, times(2, 30)))
            for activity in (crash_program.write, crash_program.read)
            for number in range(2)
        ]
        said = said_by(programs)
    written = [int(text.split()[1]) for text in said[:2]]
    assert min(int(text.split()[1]) for text in said) > 0
    with StateRuntime.open(home, backfill=False) as state:
        assert [state.get_thread(thread_id).tokens_used for thread_id in own] == written
        assert [state.get_thread(thread_id).tokens_used for thread_id in upserted] == written
        shared = state.get_thread(SHARED)
        fields = [*SHARED_FIELDS][:2]
        assert [str(getattr(shared, field)) for field in fields] == [*map(str, written)]
        logged = [(row.target, row.message, row.ts_nanos) for row in state.query_logs()]
        for process, last in enumerate(written):
            of_process = [row[1:] for row in logged if row[0] == str(process)]
            assert of_process == [(str(n), part) for n in range(1, last + 1) for part in (0, 1)]
        assert is_sound(state.database)
        assert is_sound(Path(state.database).with_name("logs.sqlite"))


def test_threads_of_one_process_share_it(home, network):
    ids = write_threads(home, 4)
    errors: list[str] = []
    with StateRuntime.open(home, backfill=False) as state:
        state.sync()

        def use(thread_id: str) -> None:
            try:
                for number in range(1, 41):
                    line = decode_line(token_count(number))
                    path = state.get_thread(thread_id).rollout_path
                    builder = ThreadMetadataBuilder(thread_id, path, DEFAULT_TIME)
                    state.apply_rollout_items(builder, [line])
                    assert state.get_thread(thread_id).tokens_used == number
                    state.insert_log(LogEntry(0x7FFFFFFF, number, "INFO", thread_id, "x"))
                    state.list_threads(2)
            except BaseException:
                errors.append(traceback.format_exc())
                raise

        users = [threading.Thread(target=use, args=(thread_id,)) for thread_id in ids]
        for user in users:
            user.start()
        for user in users:
            user.join()
        assert errors == []
        rows = state.query_logs()
        for thread_id in ids:
            assert [row.ts_nanos for row in rows if row.target == thread_id] == [*range(1, 41)]


# --- Killed while holding a lock --------------------------------------------------------------


def die_in_a_transaction(home: str, name: str) -> None:
    """Leave a database half-written, with a journal that has to be rolled back."""
    state = StateRuntime.open(home, backfill=False)
    state.insert_log(LogEntry(0x7FFFFFFF, 0, "INFO", "x", "before"))
    state.query_logs()
    engine = state._engine if name == "state" else state._logs._open()[0]
    table, column = ("threads", "title") if name == "state" else ("logs", "message")
    some = f"hex(randomblob(6000000 / (SELECT count(*) FROM {table})))"
    with engine.write() as tx:  # more than fits into SQLite's cache, so it is in the file already
        tx.execute(f"UPDATE {table} SET {column} = {some}")
        os.kill(os.getpid(), signal.SIGKILL)


def die_recording(home: str, thread_id: str) -> None:
    state = StateRuntime.open(home, backfill=False)
    recorder = RolloutRecorder.create(state, cwd="/", git=False, thread_id=thread_id)
    recorder.record_items([items.function_call_output("0", "x")])
    os.kill(os.getpid(), signal.SIGKILL)


def die_syncing(home: str) -> None:
    with StateRuntime.open(home, backfill=False) as state:
        state.sync(jobs=1, progress=lambda _: os.kill(os.getpid(), signal.SIGKILL))


def killed(function, *arguments) -> None:
    """Run a function of this file in a process that it kills."""
    code = (
        f"import sys; from {function.__module__} import {function.__name__} as run;"
        " run(*sys.argv[1:])"
    )
    project = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], cwd=project, check=False
    )
    assert done.returncode == -signal.SIGKILL


@pytest.mark.parametrize("name", ["state", "logs"])
def test_a_transaction_that_was_killed_is_rolled_back_by_the_next(home, tmp_path, network, name):
    ids = write_threads(home, THREADS)
    with StateRuntime.open(home, backfill=False) as state:
        state.sync()
    truth = truth_of(home, tmp_path, ids)
    database = home / "rollbook" / f"{name}.sqlite"
    size = database.stat().st_size if database.exists() else 0
    killed(die_in_a_transaction, home, name)
    assert list(database.parent.glob(f"{name}.sqlite*.lock"))
    assert database.with_name(database.name + "-journal").stat().st_size
    assert database.stat().st_size > size  # so it was written to before it was committed
    if name == "logs":
        done = command("logs", "--no-follow", "--json", "--home", home)
        assert ('"before"' in done["out"], len(done["out"]) < 1000) == (True, True), done
    with StateRuntime.open(home, backfill=False) as state:
        assert answers(state, ids) == truth
        assert [row.message for row in state.query_logs()] == ["before"]
    assert is_sound(database)
    assert faults_left(home, tmp_path) == []


def read_only_with_a_journal(home: str, scratch: str, is_locked: str) -> dict:
    """Read a home in which a transaction was killed, and nothing can be rolled back."""
    home, scratch = Path(home), Path(scratch)
    sys.modules["rollbook.store.sqlite"].GIVE_UP_AFTER_S = 1.0
    mount_small_disk(home)
    ids = write_threads(home, THREADS)
    with StateRuntime.open(home, backfill=False) as state:
        state.sync()
    truth = truth_of(home, scratch, ids)
    killed(die_in_a_transaction, home, "state")
    if is_locked == "no":
        for lock in (home / "rollbook").glob("*.lock"):
            lock.unlink()
    found = {}

    def read() -> None:
        with StateRuntime.open(home, backfill=False) as state:
            found.update(right=answers(state, ids) == truth, degraded=bool(state.degraded))

    with only_read(home):
        said = told(read)
    return found | {"said": said, "faults left": faults_left(home, scratch)}


@pytest.mark.parametrize("is_locked", ["yes", "no"])
def test_half_of_a_transaction_is_never_read(request, home, tmp_path, network, is_locked):
    """Nor does the lock of a dead process, which can't be removed, keep anybody from reading."""
    own = request.getfixturevalue("own_mounts")
    found = run_program(read_only_with_a_journal, home, tmp_path, is_locked, within=own)
    assert found.pop("said") == "done"
    assert found == {"right": True, "degraded": True, "faults left": []}


@pytest.mark.parametrize("on_network", ["0", "1"])
@pytest.mark.parametrize("name", ["state.sqlite", "logs.sqlite"])
def test_a_database_whose_making_was_interrupted_is_completed(
    home, tmp_path, monkeypatch, on_network, name
):
    """It is as SQLite leaves it after the first statement: without a table, or a mark."""
    monkeypatch.setenv(filesystem.FORCED, on_network)
    write_threads(home, 2)
    (home / "rollbook").mkdir()
    run_sql(home / "rollbook" / name, "PRAGMA auto_vacuum = INCREMENTAL")
    assert (home / "rollbook" / name).stat().st_size
    assert faults_left(home, tmp_path) == []


def test_a_sync_that_was_killed_is_in_nobodys_way(home, tmp_path, network):
    write_threads(home, THREADS)
    killed(die_syncing, home)
    with StateRuntime.open(home, backfill=False) as state:
        assert state.sync(wait_s=0).scanned == THREADS
    assert faults_left(home, tmp_path) == []


def test_a_recorder_that_was_killed_is_in_nobodys_way(home, tmp_path, network):
    thread_id = thread_id_of(1)
    killed(die_recording, home, thread_id)
    with StateRuntime.open(home, backfill=False) as state:
        with RolloutRecorder.resume(state, thread_id) as recorder:
            assert numbers_of(recorder) == [0]
        killed(die_recording, home, other := thread_id_of(2))
        assert state.archive_thread(other).archived_at is not None
        state.unarchive_thread(other)  # an index made anew takes the time from the file
    assert not [path for path in home.rglob("*") if path.name.endswith(".lock")]
    assert faults_left(home, tmp_path) == []


def take_over_without_exchange(home: str, thread_id: str) -> dict:
    """Use what a dead process has locked, where two names can't be exchanged, as on NFS."""
    refuse(errno.EINVAL, "renameat2", argument=4, value=2)
    rollbook_store = sys.modules["rollbook.store.sqlite"]
    rollbook_store.GIVE_UP_AFTER_S = 3.0
    found = {}

    def open_and(action) -> str:
        def do() -> None:
            with StateRuntime.open(home, backfill=False) as state:
                action(state)

        return told(do)

    found["write"] = open_and(lambda state: state.upsert_thread(state.get_thread(thread_id)))
    found["sync"] = open_and(lambda state: state.sync(wait_s=3))
    found["resume"] = open_and(lambda state: RolloutRecorder.resume(state, thread_id).close())
    return found


@knows_calls
def test_where_names_can_not_be_exchanged_the_dead_are_in_nobodys_way_either(home, network):
    thread_id = thread_id_of(1000)
    write_threads(home, THREADS)
    killed(die_recording, home, thread_id)
    killed(die_syncing, home)
    killed(die_in_a_transaction, home, "state")
    found = run_program(take_over_without_exchange, home, thread_id)
    assert found == {"write": "done", "sync": "done", "resume": "done"}


# --- Harm of other kinds ----------------------------------------------------------------------


@pytest.mark.parametrize("harm", ["full_disk", "only_read", "no_descriptors", "small_files"])
def test_harm_on_a_network_disk(request, home, tmp_path, network, harm, times):
    within = request.getfixturevalue("own_mounts") if harm in MOUNTED else []
    seed = request.config.getoption("fault_seed")
    number = times(3, 100)
    found = run_program(live_through, harm, home, tmp_path, seed, number, within=within)
    assert found["wrong"] == []
    if harm in MOUNTED:  # otherwise there can't be a lock file
        assert not {"list", "get", "tools", "logs"} & found["refused"].keys()


# --- Held by one who lives --------------------------------------------------------------------


def test_a_thread_that_is_being_recorded_is_in_use(home, network):
    with StateRuntime.open(home, backfill=False) as state:
        with RolloutRecorder.create(state, cwd="/", git=False) as recorder:
            for action in (
                lambda: RolloutRecorder.resume(state, recorder.thread_id),
                lambda: state.archive_thread(recorder.thread_id),
            ):
                with pytest.raises(ThreadInUseError):
                    action()
            recorder.record_items(items.user_message("Hi"))
        RolloutRecorder.resume(state, recorder.thread_id).close()
        state.archive_thread(recorder.thread_id)
        assert not list(home.rglob("*.jsonl.lock"))


def test_one_process_syncs_at_a_time(home, network):
    write_threads(home, THREADS)
    with running(crash_program.sync_slowly, home) as program:
        hears(program, "inside")
        with StateRuntime.open(home, backfill=False) as state:
            with pytest.raises(DatabaseBusyError, match="syncing"):
                state.sync(wait_s=0)
            assert len(everything(state)) == THREADS  # which needs no sync
        tell(program)
        hears(program, "done")
    with StateRuntime.open(home, backfill=False) as state:
        assert state.sync(wait_s=0).scanned == THREADS


@pytest.mark.parametrize("name", ["state", "logs"])
def test_who_has_a_database_for_too_long_is_named(home, network, monkeypatch, name):
    monkeypatch.setattr("rollbook.store.sqlite.GIVE_UP_AFTER_S", 0.3)
    write_threads(home, 2)
    with StateRuntime.open(home, backfill=False) as state:
        state.sync()
        state.insert_log(LogEntry(0x7FFFFFFF, 0, "INFO", "x", "before"))
    database = home / "rollbook" / f"{name}.sqlite"
    with running(crash_program.hold, home, database, "rollbook") as program:
        hears(program, "inside")
        with pytest.raises(DatabaseBusyError, match=rf"process.*({program.pid}|\.lock)"):
            with StateRuntime.open(home, backfill=False) as state:
                if name == "state":
                    state.get_thread(thread_id_of(0))
                else:
                    state.insert_log(LogEntry(0x7FFFFFFF, 0, "INFO", "x", "after"))
        os.kill(program.pid, signal.SIGKILL)
        program.wait()
    with StateRuntime.open(home, backfill=False) as state:
        assert state.get_thread(thread_id_of(0)).title == "Thread 0"
        state.insert_log(LogEntry(0x7FFFFFFF, 0, "INFO", "x", "after"))
        assert [row.message for row in state.query_logs()] == ["before", "after"]


def test_what_another_process_writes_is_seen_at_once(home, network):
    """Readers keep nothing between two reads that could be of before."""
    ids = write_threads(home, 2)
    with StateRuntime.open(home, backfill=False) as state:
        state.sync()
        for number in range(5):
            with StateRuntime.open(home, backfill=False) as other:
                path = Path(other.get_thread(ids[0]).rollout_path)
                append(path, token_count(number + 100))
                other.sync()
                other.insert_log(LogEntry(0x7FFFFFFF, 0, "INFO", "x", str(number)))
            assert state.get_thread(ids[0]).tokens_used == number + 100
            assert len(state.query_logs()) == number + 1


def test_what_is_being_written_is_not_read_as_logs(home, network):
    """The reader of logs, that never writes, doesn't see what isn't committed."""
    with StateRuntime.open(home, backfill=False) as state:
        handler = RollbookHandler(state)
        state.insert_logs([LogEntry(0x7FFFFFFF, n, "INFO", "x", str(n)) for n in range(9)])
        handler.close()
    with running(crash_program.hold, home, home / "rollbook" / "logs.sqlite", "rollbook") as holder:
        hears(holder, "inside")  # having deleted all of them
        done = command("logs", "--no-follow", "--json", "--home", home)
        assert (done["out"].count("\n"), done["code"]) in {(9, 0), (0, 4)}, done


# --- To a network and back --------------------------------------------------------------------


def journal_mode(database: Path) -> str:
    [(mode,)] = run_sql(database, "PRAGMA journal_mode")
    return mode


def die_with_a_wal(home: str) -> None:
    """Leave rows in WALs alone."""
    state = StateRuntime.open(home, backfill=False)
    state.sync()
    state.insert_log(LogEntry(0x7FFFFFFF, 0, "INFO", "x", "in the WAL"))
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("companions", ["both", "wal", "none"])
def test_a_home_that_moves_to_a_network_and_back_keeps_its_rows(
    home, tmp_path, monkeypatch, companions
):
    ids = write_threads(home, THREADS)
    killed(die_with_a_wal, home)
    place = home / "rollbook"
    if companions == "wal":
        for path in place.glob("*-shm"):
            path.unlink()
    with StateRuntime.open(home, backfill=False) as state:
        truth = answers(state, ids) if companions == "none" else truth_of(home, tmp_path, ids)
        if companions == "none":
            state.query_logs()
    for on_network in (True, False, True):
        monkeypatch.setenv(filesystem.FORCED, "1" if on_network else "0")
        with StateRuntime.open(home, backfill=False) as state:
            assert answers(state, ids) == truth
            assert state.query_logs()[0].message == "in the WAL"
            state.insert_log(LogEntry(0x7FFFFFFF, 0, "INFO", "x", "later"))
            state.upsert_thread(state.get_thread(ids[0]))
        for name in ("state.sqlite", "logs.sqlite"):
            assert journal_mode(place / name) == ("truncate" if on_network else "wal") or (
                on_network and journal_mode(place / name) == "delete"  # as each connection chooses
            )
            if on_network:
                assert not (place / f"{name}-wal").exists()
    with StateRuntime.open(home, backfill=False) as state:
        rows = [row.message for row in state.query_logs(LogQuery())]
    assert rows == ["in the WAL", "later", "later", "later"]
    assert faults_left(home, tmp_path) == []


# --- What is taken for a network --------------------------------------------------------------


def kinds_of_mounts(scratch: str) -> list:
    scratch = Path(scratch)
    names = ("disk", "with a space", "disk/below", "upper", "merged", "elsewhere")
    for name in names[:2]:
        (scratch / name).mkdir()
        mount("-t", "tmpfs", "tmpfs", scratch / name)
    for name in names[2:]:
        (scratch / name).mkdir(exist_ok=True)
    mount("-t", "ramfs", "ramfs", scratch / "disk" / "below")
    for name in ("disk/lower", "disk/upper", "disk/work"):
        (scratch / name).mkdir()
    layers = ",".join(
        f"{key}={scratch}/disk/{value}"
        for key, value in (("lowerdir", "lower"), ("upperdir", "upper"), ("workdir", "work"))
    )
    mount("-t", "overlay", "-o", layers, "overlay", scratch / "merged")
    mount("--bind", scratch / "merged", scratch / "elsewhere")
    (scratch / "link").symlink_to(scratch / "disk" / "below")
    asked = (
        ("disk", "disk/missing/file", "with a space/x", "disk/below", "link/x", "disk/belowed"),
        ("merged", "elsewhere/x"),
    )
    return [[filesystem.kind_of(scratch / name) for name in part] for part in asked] + [
        filesystem.is_network(scratch / "merged")
    ]


@linux
def test_the_kind_of_real_mounts(request, tmp_path):
    own = request.getfixturevalue("own_mounts")
    found = run_program(kinds_of_mounts, tmp_path, within=own)
    assert found == [
        ["tmpfs", "tmpfs", "tmpfs", "ramfs", "ramfs", "tmpfs"],
        ["overlay", "overlay"],
        False,
    ]


MOUNTS = """\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
40 22 0:40 / /net rw,relatime shared:5 - autofs systemd-1 rw,fd=40
41 40 0:41 / /net rw,relatime shared:6 - nfs4 server:/export rw,vers=4.2,addr=192.0.2.1
42 22 0:42 / /mnt/c rw,noatime - 9p drvfs rw,dirsync,aname=drvfs;path=C:
43 22 0:43 / /with\\040space rw - cifs //server/share rw
44 22 0:44 / /ssh rw,nosuid,nodev - fuse.sshfs me@server: rw
45 22 0:45 / /local rw - fuse.ntfs-3g /dev/sdb rw
46 41 0:46 / /net/local rw - tmpfs tmpfs rw
47 22 0:47 / /shared rw master:7 propagate_from:2 - virtiofs host rw
"""


@pytest.mark.parametrize(
    ("place", "is_network"),
    [
        ("/home", False),
        ("/net/home", True),
        ("/network", False),
        ("/mnt/c/Users", True),
        ("/with space/home", True),
        ("/ssh", True),
        ("/local/x", False),
        ("/net/local/x", False),
        ("/shared/home", True),
    ],
)
def test_what_is_taken_for_a_network(monkeypatch, tmp_path, place, is_network):
    """None of these can be mounted in a test without a server."""
    mounts = tmp_path / "mountinfo"
    mounts.write_text(MOUNTS, "ascii")
    monkeypatch.setattr(filesystem, "_MOUNTS", mounts)
    assert filesystem.is_network(Path(place)) == is_network
