"""What was logged is written, however a process ends, and whoever it forks."""

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from rollbook import StateRuntime
from tests.conftest import is_sound

# Only the end of the program or a fork can write what is logged here: not the clock, not a batch.
PRELUDE = """
import faulthandler
import asyncio, atexit, logging, os, signal, sys, threading
from rollbook import AsyncStateRuntime, LogEntry, LogQuery, RollbookHandler, StateRuntime

def attach(state, **options):
    handler = RollbookHandler(state, **({"flush_interval_s": 3600, "batch_size": 10**6} | options))
    log.addHandler(handler)
    return handler

def end_of(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background jobs ignore
faulthandler.register(signal.SIGALRM, all_threads=False, chain=True)  # what hangs says where, and ends
signal.alarm(15)
os.register_at_fork(after_in_child=lambda: signal.alarm(10))
log = logging.getLogger("agent")
log.setLevel(1)
"""
OPENED = """
state = StateRuntime.open(sys.argv[1], backfill=False)
handler = attach(state)
log.info("first")
"""


@pytest.fixture
def run(tmp_path: Path, home: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a program on the home, from a file, as multiprocessing wants it."""

    def to_the_end(code: str, prelude: str = PRELUDE) -> subprocess.CompletedProcess[str]:
        file = tmp_path / "program.py"
        file.write_text(prelude + code)
        output, errors = tmp_path / "stdout", tmp_path / "stderr"
        with output.open("w") as stdout, errors.open("w") as stderr:
            program = subprocess.Popen(
                [sys.executable, file, home], stdout=stdout, stderr=stderr, start_new_session=True
            )
            try:
                status = program.wait(25)
            finally:  # with the children that hang, if any
                with suppress(ProcessLookupError):
                    os.killpg(program.pid, signal.SIGKILL)
                program.wait(5)
        return subprocess.CompletedProcess(
            program.args, status, output.read_text(), errors.read_text()
        )

    return to_the_end


@pytest.fixture
def messages(home: Path) -> Callable[[], list[str | None]]:
    def read() -> list[str | None]:
        with StateRuntime.open(home, backfill=False) as state:
            return [row.message for row in state.query_logs()]

    return read


@pytest.mark.parametrize(
    ("ending", "status"),
    [
        ("", 0),
        ("sys.exit(3)", 3),
        ("raise SystemExit('goodbye')", 1),
        ("raise RuntimeError('unhandled')", 1),
        ("os.kill(os.getpid(), signal.SIGINT); threading.Event().wait()", -signal.SIGINT),
        ("state.close(); os._exit(0)", 0),
        ("handler.close(); os._exit(0)", 0),
        ("handler.flush(); os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL),
        ("logging.shutdown(); os._exit(0)", 0),
        ("import multiprocessing.util; sys.exit(3)", 3),
        ("log.removeHandler(handler); del handler, state", 0),
    ],
)
def test_what_was_logged_is_there_however_the_program_ends(run, home, messages, ending, status):
    ended = run(OPENED + "log.info('last')\n" + ending)
    assert ended.returncode == status, ended.stderr
    assert "rollbook" not in ended.stderr.replace(str(home), "")
    assert messages() == ["first", "last"]


def test_a_program_for_asyncio_needs_no_other_end(run, messages):
    ended = run(
        """
async def main():
    global state
    state = await AsyncStateRuntime.open(sys.argv[1], backfill=False)
    attach(state)
    log.info("first")
    await asyncio.to_thread(log.info, "last")
    raise RuntimeError

asyncio.run(main())
"""
    )
    assert ended.returncode == 1
    assert messages() == ["first", "last"]


def test_what_threads_and_exit_hooks_log_at_the_end_is_written(run, messages):
    ended = run(
        OPENED
        + """
def outlives_the_main_thread():
    threading.main_thread().join()
    log.info("thread")

atexit.register(log.info, "hook")
threading.Thread(target=outlives_the_main_thread).start()
"""
    )
    assert ended.returncode == 0, ended.stderr
    assert messages() == ["first", "thread", "hook"]


@pytest.mark.parametrize("rounds", [1, 5, 23])
def test_a_killed_program_leaves_whole_batches_and_a_sound_database(
    home, tmp_path, messages, rounds
):
    file = tmp_path / "program.py"
    file.write_text(
        PRELUDE
        + """
state = StateRuntime.open(sys.argv[1], backfill=False)
for batch in range(10**6):
    entry = LogEntry(ts=2**40, ts_nanos=0, level="INFO", target="t", message=f"{batch}" * 50)
    state.insert_logs([entry] * 60)
    print(batch, flush=True)
"""
    )
    with subprocess.Popen([sys.executable, file, home], stdout=subprocess.PIPE) as program:
        for _ in range(rounds):
            assert program.stdout.readline()
        program.kill()
    counts = Counter(messages())
    assert set(counts.values()) == {60}
    assert len(counts) >= rounds
    assert sorted(counts) == sorted(f"{batch}" * 50 for batch in range(len(counts)))
    assert is_sound(home / "rollbook" / "logs.sqlite")


def test_programs_that_log_at_once_lose_nothing(home, tmp_path, messages):
    file = tmp_path / "program.py"
    file.write_text(
        PRELUDE
        + """
state = StateRuntime.open(sys.argv[1], backfill=False)
attach(state, batch_size=20, flush_interval_s=0.001, queue_size=1000)
for number in range(300):
    log.info("%s %s", sys.argv[2], number)
"""
    )
    programs = [subprocess.Popen([sys.executable, file, home, name]) for name in "abc"]
    assert [program.wait(60) for program in programs] == [0, 0, 0]
    found = messages()
    for name in "abc":
        expected = [f"{name} {number}" for number in range(300)]
        assert [text for text in found if text.startswith(name)] == expected
    assert len(found) == 900
    assert is_sound(home / "rollbook" / "logs.sqlite")


@pytest.mark.parametrize(
    ("ending", "status"),
    [
        ("sys.exit(3)", 3),
        ("raise RuntimeError", 1),
        ("handler.flush(); os._exit(0)", 0),
        ("state.close(); os._exit(0)", 0),
    ],
)
def test_a_forked_child_writes_what_it_logs_and_nothing_twice(run, messages, ending, status):
    ended = run(
        OPENED
        + f"""
pid = os.fork()
if not pid:
    log.info("child")
    {ending}
status = end_of(pid)
log.info("parent")
sys.exit(status)
"""
    )
    assert ended.returncode == status, ended.stderr
    assert messages() == ["first", "child", "parent"]


def test_a_fork_writes_what_waits(run, messages):
    ended = run(
        OPENED
        + """
pid = os.fork()
if not pid:
    os._exit(0)
end_of(pid)
os.kill(os.getpid(), signal.SIGKILL)
"""
    )
    assert ended.returncode == -signal.SIGKILL
    assert messages() == ["first"]


def test_a_child_that_logs_nothing_changes_nothing(run, messages):
    ended = run(
        OPENED
        + """
for ending in (sys.exit, os._exit):
    pid = os.fork()
    if not pid:
        ending(0)
    assert end_of(pid) == 0
log.info("last")
"""
    )
    assert ended.returncode == 0, ended.stderr
    assert messages() == ["first", "last"]


def test_a_child_reads_and_writes_beside_its_parent(run, messages):
    ended = run(
        OPENED
        + """
handler.flush()
pid = os.fork()
if not pid:
    state.insert_log(LogEntry(ts=2**40, ts_nanos=0, level="INFO", target="t", message="child"))
    assert [row.message for row in state.query_logs()] == ["first", "child"]
    state.close()
    sys.exit(0)
assert end_of(pid) == 0
state.insert_log(LogEntry(ts=2**40, ts_nanos=0, level="INFO", target="t", message="parent"))
assert state.max_log_id() == 3
"""
    )
    assert ended.returncode == 0, ended.stderr
    assert messages() == ["first", "child", "parent"]


def test_a_handler_that_was_never_used_before_the_fork_works_after_it(run, messages):
    ended = run(
        """
state = StateRuntime.open(sys.argv[1], backfill=False)
attach(state)
pid = os.fork()
log.info("parent" if pid else "child")
if pid:
    sys.exit(end_of(pid))
"""
    )
    assert ended.returncode == 0, ended.stderr
    assert sorted(messages()) == ["child", "parent"]


def test_a_child_has_a_writer_of_its_own_in_the_background(run, messages):
    ended = run(
        """
state = StateRuntime.open(sys.argv[1], backfill=False)
attach(state, batch_size=1)
log.info("parent")
pid = os.fork()
if pid:
    sys.exit(end_of(pid))
log.info("child")
while state.max_log_id() < 2:
    threading.Event().wait(0.005)
os._exit(0)
"""
    )
    assert ended.returncode == 0, ended.stderr
    assert messages() == ["parent", "child"]


def test_a_child_of_a_child_writes_too(run, messages):
    ended = run(
        OPENED
        + """
for depth in range(3):
    pid = os.fork()
    if pid:
        status = end_of(pid)
        log.info("after %d", depth)
        sys.exit(status)
    log.info("in %d", depth)
"""
    )
    assert ended.returncode == 0, ended.stderr
    assert messages() == ["first", "in 0", "in 1", "in 2", "after 2", "after 1", "after 0"]


def test_a_child_counts_only_its_own_losses(run, messages):
    ended = run(
        """
state = StateRuntime.open(sys.argv[1], backfill=False)
handler = attach(state, queue_size=2)
for _ in range(5):
    log.info("parent")
pid = os.fork()
if pid:
    sys.exit(end_of(pid))
assert handler.lost == 0
for _ in range(4):
    log.info("child")
assert handler.lost == 2
"""
    )
    assert ended.returncode == 0, ended.stderr
    told = [text.partition(" were")[0] for text in messages() if "were lost" in text]
    assert told == ["3 log records", "2 log records"]
    assert messages().count("parent") == messages().count("child") == 2


def test_a_handler_closed_before_the_fork_stays_closed(run, messages):
    ended = run(
        OPENED
        + """
state.close()
pid = os.fork()
if pid:
    sys.exit(end_of(pid))
log.info("child")
assert handler.lost == 1
"""
    )
    assert ended.returncode == 0, ended.stderr
    assert messages() == ["first"]


def test_a_fork_from_asyncio_is_a_fork_like_any(run, messages):
    ended = run(
        """
async def main():
    async with AsyncStateRuntime.open(sys.argv[1], backfill=False) as state:
        handler = attach(state)
        log.info("first")
        pid = os.fork()
        if not pid:
            log.info("child")
            logging.shutdown()
            os._exit(0)
        assert end_of(pid) == 0
        log.info("parent")
        handler.flush()
        assert [row.message for row in await state.query_logs()] == ["first", "child", "parent"]

asyncio.run(main())
"""
    )
    assert ended.returncode == 0, ended.stderr
    assert messages() == ["first", "child", "parent"]


def test_forks_while_threads_log_and_read_lose_nothing_and_never_lock_up(run, messages):
    ended = run(
        """
state = StateRuntime.open(sys.argv[1], backfill=False)
handler = attach(state, batch_size=5, flush_interval_s=0.001, queue_size=10**6)
done = threading.Event()
counts = {}

def logs(name):
    counts[name] = 0
    while not done.wait(0.0005):
        log.info("thread %d", name)
        counts[name] += 1

def reads():
    while not done.is_set():
        state.query_logs(LogQuery(limit=5, descending=True))
        state.is_synced()

threads = [threading.Thread(target=logs, args=(name,)) for name in range(2)]
threads += [threading.Thread(target=reads) for _ in range(2)]
for thread in threads:
    thread.start()
try:
    for number in range(15):
        pid = os.fork()
        if not pid:
            log.info("child %d", number)
            state.query_logs(LogQuery(limit=1))
            logging.shutdown()
            os._exit(0)
        assert end_of(pid) == 0
finally:
    done.set()
for thread in threads:
    thread.join()
handler.close()
print(counts[0], counts[1])
"""
    )
    assert ended.returncode == 0, ended.stderr
    found = Counter(messages())
    for name, count in enumerate(ended.stdout.split()):
        assert found.pop(f"thread {name}") == int(count)
    assert found == Counter(f"child {number}" for number in range(15))


def test_flushing_and_forking_end_although_others_log_all_the_time(run):
    ended = run(
        """
state = StateRuntime.open(sys.argv[1], backfill=False)
handler = attach(state, batch_size=20, flush_interval_s=0.001, queue_size=512)
done = threading.Event()

def logs():
    while not done.is_set():
        log.info("Hello")

threads = [threading.Thread(target=logs) for _ in range(2)]
for thread in threads:
    thread.start()
for _ in range(3):
    handler.flush()
    pid = os.fork()
    if not pid:
        os._exit(0)
    assert end_of(pid) == 0
done.set()
for thread in threads:
    thread.join()
"""
    )
    assert ended.returncode == 0, ended.stderr


def test_a_program_that_forks_from_another_thread_loses_nothing(run, messages):
    ended = run(
        OPENED
        + """
statuses = []

def forks():
    pid = os.fork()
    if not pid:
        log.info("child")
        logging.shutdown()
        os._exit(0)
    statuses.append(end_of(pid))

thread = threading.Thread(target=forks)
thread.start()
thread.join()
log.info("parent")
assert statuses == [0]
"""
    )
    assert ended.returncode == 0, ended.stderr
    assert messages() == ["first", "child", "parent"]


MULTIPROCESSING = """
import multiprocessing, concurrent.futures

def work(text):
    log.info(text)
    if text == "exits":
        sys.exit(3)
    if text == "raises":
        raise RuntimeError

def work_in_a_new_process(home, text):
    state = StateRuntime.open(home, backfill=False)
    attach(state)
    work(text)

def ended(process):
    process.start()
    process.join()
    return process.exitcode
"""


@pytest.mark.parametrize("late", [True, False], ids=["loaded late", "loaded first"])
def test_processes_forked_by_multiprocessing_write_what_they_log(run, messages, late):
    parts = [OPENED, MULTIPROCESSING] if late else [MULTIPROCESSING, OPENED]
    program = run(
        "".join(parts)
        + """
context = multiprocessing.get_context("fork")
for text, status in (("returns", 0), ("exits", 3), ("raises", 1)):
    assert ended(context.Process(target=work, args=(text,))) == status
with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
    list(pool.map(work, ["pool 1", "pool 2"]))
log.info("parent")
"""
    )
    assert program.returncode == 0, program.stderr
    assert messages() == ["first", "returns", "exits", "raises", "pool 1", "pool 2", "parent"]


def test_processes_spawned_by_multiprocessing_write_what_they_log(run, messages):
    program = run(
        MULTIPROCESSING
        + """
if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    for text, status in (("returns", 0), ("exits", 3), ("raises", 1)):
        new = context.Process(target=work_in_a_new_process, args=(sys.argv[1], text))
        assert ended(new) == status
"""
    )
    assert program.returncode == 0, program.stderr
    assert messages() == ["returns", "exits", "raises"]


def test_another_program_that_is_started_meanwhile_inherits_nothing(run, messages):
    ended = run(
        OPENED
        + """
import subprocess
handler.flush()
listing = "import os; print([os.readlink(f'/proc/self/fd/{n}') for n in range(3, 20) if os.path.exists(f'/proc/self/fd/{n}')])"
found = subprocess.run([sys.executable, "-c", listing], close_fds=False, capture_output=True)
assert b"sqlite" not in found.stdout, found.stdout
"""
    )
    assert ended.returncode == 0, ended.stderr
    assert messages() == ["first"]
