"""Disks that are full or may only be read, files that may not be, nothing left to open: Rollbook says
so, answers what can be answered, and is well again when the cause is gone.

The harm is done to a process of its own: a function of this file that returns what it has found.
Where something is mounted, only that process sees it.
"""

import ctypes
import errno
import fnmatch
import json
import logging
import os
import platform
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from datetime import datetime
from pathlib import Path

import filelock  # noqa: F401 - loaded before the harm is done, as a long-lived program has it
import msgspec
import pytest

import rollbook.recorder.recorder
from rollbook import (
    LogEntry,
    LogQuery,
    RollbookError,
    RollbookHandler,
    RolloutRecorder,
    StateRuntime,
    items,
)
from rollbook.store.sqlite_file import kept_files
from rollbook.testing import session_meta, token_count, user_message, write_rollout
from tests.acceptance.conftest import COMMAND
from tests.conftest import is_sound
from tests.faults.crash_program import append, numbers_of, thread_id_of, write_threads
from tests.faults.test_damage import answers
from tests.index.test_sync import everything, rebuilt

PROJECT = Path(__file__).parents[2]
HANGS_AFTER_S = 400
THREADS = 20
THREAD_BYTES = 256 << 20


# --- How a test starts a program --------------------------------------------------------------


def run_program(function: Callable, *arguments: object, within=(), **environment: str):
    """Run a function of a test file in a process of its own, and give what it returns."""
    code = (
        f"import faulthandler, json, sys; faulthandler.dump_traceback_later({HANGS_AFTER_S}, exit=True);"
        f" from {function.__module__} import {function.__name__} as run;"
        " print(json.dumps(run(*sys.argv[1:])))"
    )
    done = subprocess.run(
        [*within, sys.executable, "-c", code, *map(str, arguments)],
        cwd=PROJECT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert "Traceback" not in done.stderr, done.stderr[-4000:]  # of a thread that has died
    return json.loads(done.stdout)


@pytest.fixture(scope="session")
def own_mounts() -> list[str]:
    """The command that runs another one where mounts are its own."""
    why = "this system has no unshare"
    for command in (["unshare", "-m"], ["unshare", "-Urm"]):
        with suppress(FileNotFoundError):
            tried = [*command, "mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", "/mnt"]
            done = subprocess.run(tried, capture_output=True, text=True, check=False)
            if done.returncode == 0:
                return command
            why = done.stderr.strip()
    pytest.skip(f"nothing can be mounted here: {why}")


# --- What the programs have in common ---------------------------------------------------------


def told(action: Callable) -> str:
    """Say what became of something: done, or the error."""
    try:
        action()
    except RollbookError as error:
        return f"{type(error).__name__}: {error}"
    return "done"


def command(*arguments: object, **environment: str) -> dict:
    done = subprocess.run(
        [COMMAND, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | environment,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return {"code": done.returncode, "out": done.stdout, "err": done.stderr}


def listed(done: dict) -> list[str]:
    """The ids that `rollbook list --json` has printed."""
    return sorted(item["id"] for item in json.loads(done["out"])["items"])


def truth_of(home: Path, scratch: Path, ids: list[str]) -> dict:
    """What an index says that was made from nothing, where nothing is wrong."""
    with StateRuntime.open(home, database=scratch / "truth.sqlite", backfill=False) as state:
        state.sync(rebuild=True)
        return answers(state, ids)


def faults_left(home: Path, scratch: Path) -> list[str]:
    """Say what is not as if nothing had ever happened."""
    faults = []
    with StateRuntime.open(home, backfill=False) as state:
        if state.degraded:
            faults.append(f"degraded: {state.degraded}")
        if state.sync(wait_s=3).failed:
            faults.append("a rollout could not be read")
        if everything(state) != rebuilt(state, scratch):
            faults.append("the index is not what the rollouts say")
        state.insert_log(LogEntry(int(time.time()), 0, "INFO", "test", "all is well"))
        if state.query_logs(LogQuery(descending=True, limit=1))[0].message != "all is well":
            faults.append("nothing was logged")
    for name in ("state.sqlite", "logs.sqlite"):
        database = home / "rollbook" / name
        faults += [f"set aside: {kept.name}" for kept in kept_files(database)]
        if not is_sound(database):
            faults.append(f"{name} is damaged")
    faults += [f"left behind: {path.name}" for path in home.rglob(".*.tmp")]
    return faults


# --- The harm ---------------------------------------------------------------------------------


def mount(*arguments: object) -> None:
    subprocess.run(["mount", *map(str, arguments)], check=True)


def mount_small_disk(home: Path) -> None:
    mount("-t", "tmpfs", "-o", "size=24m", "tmpfs", home)


def fill(home: Path, left: int = 0) -> None:
    disk = os.statvfs(home)
    size = disk.f_bavail * disk.f_frsize - left
    with (home / "ballast").open("wb") as file:
        if size > 0:
            os.posix_fallocate(file.fileno(), 0, size)


@contextmanager
def full_disk(home: Path, left: int) -> Iterator[None]:
    fill(home, left * 4096)
    try:
        yield
    finally:
        (home / "ballast").unlink()


@contextmanager
def only_read(home: Path, left: int = 0) -> Iterator[None]:
    mount("-o", "remount,ro", home)
    try:
        yield
    finally:
        mount("-o", "remount,rw", home)


@contextmanager
def no_descriptors(home: Path, left: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = [os.open(os.devnull, os.O_RDONLY)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (taken[0] + 64, before[1]))
    with suppress(OSError):
        while True:
            taken.append(os.open(os.devnull, os.O_RDONLY))
    for descriptor in taken[len(taken) - left :]:
        os.close(descriptor)
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
        for descriptor in taken[: len(taken) - left]:
            os.close(descriptor)


@contextmanager
def small_files(home: Path, left: int) -> Iterator[None]:
    """No file may be written beyond some bytes; Python ignores the signal, so it is an error."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (left * 4096 + left % 7 * 100, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextmanager
def no_threads(home: Path, left: int) -> Iterator[None]:
    """There is memory to work with, but not for one thread more."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[0])
    limit = pages * resource.getpagesize() + THREAD_BYTES // 2
    stack = threading.stack_size(THREAD_BYTES)
    resource.setrlimit(resource.RLIMIT_AS, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
        threading.stack_size(stack)


HARM = {
    harm.__name__: harm for harm in (full_disk, only_read, no_descriptors, small_files, no_threads)
}
MOUNTED = ("full_disk", "only_read")
LEFT = {  # how much of what there is too little of
    "full_disk": [*range(40), *range(40, 300, 10)],
    "only_read": [0],
    "no_descriptors": range(20),
    "small_files": [*range(20), 25, 30, 40, 80],
    "no_threads": [0],
}


# --- Whatever one does meanwhile --------------------------------------------------------------


class Life:
    """One home under harm, with all that one can do to it, and what went wrong."""

    def __init__(self, home: Path, scratch: Path, harm: str, number: int) -> None:
        self.home, self.scratch, self.harm = home, scratch, harm
        self.passed: Counter = Counter()
        self.refused: defaultdict = defaultdict(set)
        self.wrong: list[str] = []
        self.logger = logging.Logger("agent")  # noqa: LOG001 - apart from those of the test
        self.logged = 0
        self.recorded: dict[str, int] = {}
        self.ids = write_threads(home, THREADS)
        self.old: dict = {}
        self.movable = thread_id_of(number, 1)
        write_rollout(home, self.movable, [session_meta(self.movable), user_message("Moves")])

    def rollouts_grow(self, number: int) -> None:
        for thread_id in self.ids[1::2]:
            append(next(self.home.rglob(f"*{thread_id}.jsonl")), token_count(number + 1000))
        self.newest = thread_id_of(number, 2)
        write_rollout(self.home, self.newest, [session_meta(self.newest), user_message("New")])
        with StateRuntime.open(
            self.home, database=self.scratch / "truth.sqlite", backfill=False
        ) as state:
            state.sync(rebuild=True)
            self.new = {thread.id: thread for thread in everything(state)}

    def attempt(self, what: str, action: Callable):
        """Do something: it succeeds, or says what is the matter."""
        try:
            result = action()
        except RollbookError as error:
            self.refused[what].add(f"{type(error).__name__}: {error}")
            return None
        except BaseException:  # noqa: BLE001 - whatever it is, it is wrong
            self.wrong.append(f"{what}: {traceback.format_exc(limit=-6)}")
            return None
        self.passed[what] += 1
        return result

    def check(self, what: str, is_right: bool, about: object = "") -> None:
        if not is_right:
            self.wrong.append(f"{what} is wrong: {about}")

    def read(self, state: StateRuntime) -> None:
        """Every thread is found, as it was or as it is."""
        found = self.attempt("list", lambda: everything(state))
        if found is not None:
            here = {thread.id for thread in found}
            self.check("list", here >= self.old.keys() - {self.movable}, self.old.keys() - here)
            known = [thread for thread in found if thread.id in self.new]
            self.check("list", all(map(self.is_right, known)))
        for thread_id in (self.ids[0], self.ids[1], self.newest):
            thread = self.attempt("get", lambda i=thread_id: state.get_thread(i) or "no thread")
            self.check(f"get {thread_id}", thread is None or self.is_right(thread), thread)
        tools = self.attempt("tools", lambda: state.get_dynamic_tools(self.ids[1]) or [])
        self.check("tools", tools is None or [tool.name for tool in tools] == ["tool 1"], tools)
        self.attempt("logs", state.query_logs)

    def is_right(self, thread: object) -> bool:
        if isinstance(thread, str):
            return False
        return thread.id == self.movable or thread in (
            self.old.get(thread.id),
            self.new[thread.id],
        )

    def record(self, recorder: RolloutRecorder | None) -> None:
        if recorder is not None:
            for _ in range(5):
                number = self.recorded.setdefault(recorder.thread_id, 0)
                lines = [items.function_call_output(str(number), "x" * number * 997)]
                if self.attempt("record", lambda x=lines: recorder.record_items(x)):
                    self.recorded[recorder.thread_id] += 1
            self.attempt("flush", recorder.flush)

    def log(self, handler: RollbookHandler) -> None:
        for number in range(self.logged, self.logged + 50):
            self.attempt("handle", lambda n=number: self.logger.info("%d", n))
        self.logged += 50
        self.attempt("flush logs", handler.flush)

    def do_all(self, state: StateRuntime, handler: RollbookHandler) -> RolloutRecorder | None:
        recorder = self.attempt("create", lambda: RolloutRecorder.create(state, cwd="/", git=False))
        if recorder is not None:
            self.recorded[recorder.thread_id] = 0
        self.record(recorder)
        self.log(handler)
        self.attempt("log", lambda: state.insert_log(LogEntry(0x7FFFFFFF, 0, "INFO", "x", "log")))
        self.attempt("upsert", lambda: state.upsert_thread(state.get_thread(self.ids[0])))
        self.attempt("archive", lambda: state.archive_thread(self.movable))
        stats = self.attempt("sync", lambda: state.sync(jobs=1))
        self.check("sync", stats is None or stats.removed == 0, stats)
        self.attempt("unarchive", lambda: state.unarchive_thread(self.movable))
        return recorder

    def goes_on(self, state: StateRuntime, handler: RollbookHandler, *recorders) -> None:
        """Do in the same process what was refused: all of it works."""
        self.refused_before, self.refused = self.refused, defaultdict(set)
        self.do_all(state, handler)
        for recorder in recorders:
            self.record(recorder)
        self.read(state)
        if state.get_thread(self.movable).archived_at is not None:
            state.unarchive_thread(self.movable)
        handler.flush()
        told_of = [row for row in state.query_logs() if row.target == "agent"]
        self.check("log", len(told_of) + handler.lost == self.logged, (handler.lost, self.logged))
        numbers = [int(row.message) for row in told_of]
        self.check("log", numbers == sorted(set(numbers)), numbers)
        self.wrong += [f"afterwards {what}: {why}" for what, why in self.refused.items()]
        self.refused = self.refused_before

    def ends(self) -> None:
        with StateRuntime.open(self.home, backfill=False) as state:
            for thread_id, number in self.recorded.items():
                with RolloutRecorder.resume(state, thread_id) as recorder:
                    self.check("record", numbers_of(recorder) == [*range(number)], thread_id)
        self.wrong += faults_left(self.home, self.scratch)


def live_through(harm: str, home: str, scratch: str, seed: str, times: str) -> dict:
    """Do everything under harm, in a home that was indexed or not, by a process old or new."""
    rng = random.Random(seed)
    home, scratch = Path(home), Path(scratch)
    if harm in MOUNTED:
        mount_small_disk(home)
    passed, refused, wrong = Counter(), defaultdict(set), []
    # A disk with files that are open for writing can't be made one that may only be read.
    moments = ["never indexed", "indexed"] + ["open"] * (harm != "only_read")
    for number in range(int(times)):
        for path in home.iterdir():
            shutil.rmtree(path)
        moment, left = moments[number % len(moments)], 0 if number < 3 else rng.choice(LEFT[harm])
        life = Life(home, scratch, harm, number)
        if moment != "never indexed":
            with StateRuntime.open(home, backfill=False) as state:
                state.sync()
                state.insert_log(LogEntry(0x7FFFFFFF, 0, "INFO", "x", "before"))
                life.old = {thread.id: thread for thread in everything(state)}
        life.rollouts_grow(number)
        state = handler = recorder = None
        if moment == "open":
            state = StateRuntime.open(home, backfill=False)
            handler = RollbookHandler(state, flush_interval_s=60)
            recorder = RolloutRecorder.create(state, cwd="/", git=False)
            life.record(recorder)
        with HARM[harm](home, left):
            state = state or life.attempt("open", lambda: StateRuntime.open(home, backfill=False))
            if state is not None:
                handler = handler or RollbookHandler(state, flush_interval_s=60)
                life.logger.addHandler(handler)
                life.read(state)
                life.record(recorder)
                other = life.do_all(state, handler)
                life.read(state)
        if state is not None:
            if moment != "never indexed" or not state.degraded:
                life.goes_on(state, handler, recorder, other)
            life.attempt("close", handler.close)
            life.attempt("close", state.close)
        life.ends()
        wrong += [f"{moment}, {left} left: {text}" for text in life.wrong]
        passed += life.passed
        for what, why in life.refused.items():
            refused[what] |= why
    return {
        "wrong": wrong,
        "passed": passed,
        "refused": {what: sorted(why) for what, why in refused.items()},
    }


CAUSES = {  # what an error has to say
    "full_disk": "disk is full|No space left|free some disk space",
    "only_read": "Read-only file system|only read",
    "no_descriptors": "Too many open files|too many files open",
    "small_files": "File too large|disk is full|disk I/O error|only read",
    "no_threads": "thread",
}
QUICK = {"full_disk": 9, "only_read": 2, "no_descriptors": 12, "small_files": 9, "no_threads": 3}


@pytest.fixture(scope="module")
def lives() -> dict[str, dict]:
    """What was found under each kind of harm: tests come in any order, so a parameter alone won't do."""
    return {}


@pytest.fixture(params=HARM)
def lived(request, tmp_path, lives):
    """What has become of everything that one does under a kind of harm."""
    harm = request.param
    if harm not in lives:
        within = request.getfixturevalue("own_mounts") if harm in MOUNTED else []
        home, scratch = tmp_path / "home", tmp_path / "scratch"
        home.mkdir()
        scratch.mkdir()
        times = QUICK[harm] * (25 if request.config.getoption("all_faults") else 1)
        seed = request.config.getoption("fault_seed")
        lives[harm] = run_program(live_through, harm, home, scratch, seed, times, within=within)
    return harm, lives[harm]


def test_all_that_can_be_answered_is_and_all_is_well_again_afterwards(lived):
    harm, found = lived
    assert found["wrong"] == []
    if harm != "no_descriptors":  # without which nothing can be opened
        assert not {"list", "get", "tools", "logs"} & found["refused"].keys()


def test_what_is_refused_is_told_the_cause(lived):
    harm, found = lived
    told_otherwise = {
        what: [text for text in why if not re.search(CAUSES[harm], text)]
        for what, why in found["refused"].items()
    }
    assert {what: why for what, why in told_otherwise.items() if why} == {}


# --- A full disk ------------------------------------------------------------------------------


def disk_fills_during_a_sync(home: str, scratch: str, seed: str) -> list:
    home, scratch = Path(home), Path(scratch)
    rng = random.Random(seed)
    mount_small_disk(home)
    ids = [thread_id_of(number) for number in range(120)]
    for number, thread_id in enumerate(ids):
        write_rollout(home, thread_id, [session_meta(thread_id), user_message("x" * number * 50)])
    truth = truth_of(home, scratch, ids)
    found = []
    for at in (1, 50, 51, *(rng.randrange(1, 120) for _ in range(4))):

        def fill_at(progress, at=at) -> None:
            if progress.files_done == at:
                fill(home)

        with StateRuntime.open(home, backfill=False) as state:
            refused = told(lambda: state.sync(jobs=1, progress=fill_at))
            now = answers(state, ids)
            served = now == truth or bool(state.degraded)  # a list that is not complete says so
            served = served and (now["threads"], now["tools"]) == (truth["threads"], truth["tools"])
            (home / "ballast").unlink()
            stats = state.sync()
            found.append([refused, served, stats.scanned, answers(state, ids) == truth])
        found[-1].append(faults_left(home, scratch))
        shutil.rmtree(home / "rollbook")
    return found


def test_a_disk_that_fills_during_a_sync(own_mounts, home, tmp_path, rng):
    found = run_program(disk_fills_during_a_sync, home, tmp_path, rng.random(), within=own_mounts)
    for refused, *rest in found:
        assert "DatabaseUnwritableError" in refused
        assert re.search(CAUSES["full_disk"], refused)
        assert rest == [True, 120, True, []]


def commands_under(harm: str, home: str, scratch: str, moment: str) -> dict:
    """What the command line says under harm, and afterwards."""
    home, scratch = Path(home), Path(scratch)
    mount_small_disk(home)
    ids = write_threads(home, THREADS)
    if moment != "never indexed":
        with StateRuntime.open(home, backfill=False) as state:
            state.sync()
    if moment in {"killed", "killed, no -shm"}:
        run_and_die(home)
    if moment == "killed, no -shm":
        for name in ("state", "logs"):
            (home / "rollbook" / f"{name}.sqlite-shm").unlink()
    found = {"ids": sorted(ids), "titles": {}}
    with HARM[harm](home, 0):
        for name in ("list", "sync"):
            found[name] = command(name, "--json", "--home", home)
        found["archive"] = command("archive", "--home", home, ids[3])
        found["show"] = command("show", "--json", "--home", home, ids[0])
        found["tools"] = command("tools", "--json", "--home", home, ids[1])
        found["logs"] = command("logs", "--json", "--no-follow", "--home", home)
        with StateRuntime.open(home, backfill=False) as state:
            found["degraded"] = state.degraded
            found["api list"] = sorted(thread.id for thread in everything(state))
            found["api get"] = state.get_thread(ids[0]).title
            found["api sync"], found["api archive"] = (
                told(state.sync),
                told(lambda: state.archive_thread(ids[3])),
            )
            found["api read logs"] = told(
                lambda: found.update({"api logs": [row.message for row in state.query_logs()]})
            )
            found["api log"] = told(lambda: state.insert_log(LogEntry(1, 0, "INFO", "x", "y")))
    found["list afterwards"] = command("list", "--json", "--home", home)
    with StateRuntime.open(home, backfill=False) as state:
        state.sync(rebuild=True)  # for the title that is only in the WAL
    found["faults left"] = faults_left(home, scratch)
    return found


def run_and_die(home: Path) -> None:
    code = (
        "import sys; from tests.faults.test_bad_environment import write_and_die as run;"
        " run(sys.argv[1])"
    )
    done = subprocess.run([sys.executable, "-c", code, home], cwd=PROJECT, check=False)
    assert done.returncode == -signal.SIGKILL
    assert (home / "rollbook" / "state.sqlite-wal").stat().st_size


def write_and_die(home: str) -> None:
    """Leave a WAL with what is in it alone."""
    state = StateRuntime.open(home, backfill=False)
    thread = state.get_thread(thread_id_of(0))
    state.upsert_thread(msgspec.structs.replace(thread, title="In the WAL"))
    state.insert_log(LogEntry(0x7FFFFFFF, 0, "INFO", "x", "logged"))
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("harm", ["full_disk", "only_read"])
@pytest.mark.parametrize("moment", ["never indexed", "indexed", "killed", "killed, no -shm"])
def test_a_home_that_can_not_be_written_is_read(own_mounts, home, tmp_path, harm, moment):
    found = run_program(commands_under, harm, home, tmp_path, moment, within=own_mounts)
    is_killed = moment.startswith("killed")
    for name in ("list", "show", "tools"):
        assert found[name]["code"] == 0, found[name]
    assert listed(found["list"]) == found["api list"] == found["ids"]
    title = "In the WAL" if is_killed else "Thread 0"
    assert json.loads(found["show"]["out"])["title"] == found["api get"] == title
    assert json.loads(found["tools"]["out"])[0]["name"] == "tool 1"
    assert found["api read logs"] == "done"
    assert found["api logs"] == (["logged"] if is_killed else [])
    if is_killed:
        assert found["logs"]["code"] == 0, found["logs"]
        assert json.loads(found["logs"]["out"])["message"] == "logged"
    if harm == "only_read" or moment == "never indexed":
        assert found["degraded"]
        assert found["list"]["err"].startswith("rollbook: ")
        assert (found["sync"]["code"], found["sync"]["out"]) == (1, ""), found["sync"]
    if harm == "only_read":
        assert (found["archive"]["code"], found["archive"]["out"]) == (1, ""), found["archive"]
        assert "DatabaseUnwritableError" in found["api log"]
        assert (
            "DatabaseUnwritableError" in found["api archive"] or "Rollout" in found["api archive"]
        )
    for name in ("sync", "archive"):
        if found[name]["code"]:
            assert re.search(CAUSES[harm], found[name]["err"]), found[name]
    archived = {thread_id_of(3)} if "done" in found["api archive"] else set()
    assert set(listed(found["list afterwards"])) == set(found["ids"]) - archived
    assert found["faults left"] == []


# --- Permission denied ------------------------------------------------------------------------


def only_some_may_be_read(home: str, scratch: str, where: str) -> dict:
    """Take the permissions of a file or directory away while a state is open, and give them back."""
    home, scratch = Path(home), Path(scratch)
    ids = write_threads(home, THREADS)
    newer = thread_id_of(1000)
    (home / "session_index.jsonl").write_text(
        "".join(json.dumps({"id": i, "thread_name": f"Name of {i}"}) + "\n" for i in ids), "ascii"
    )
    with StateRuntime.open(home, backfill=False) as state:
        state.sync()
        old = {thread.id: thread for thread in everything(state)}
        # Something is new in all that is taken away.
        path = next(home.rglob(f"*{ids[3]}.jsonl"))
        append(path, token_count(12345))
        write_rollout(home, newer, [session_meta(newer), user_message("Newer")])
        append(
            home / "session_index.jsonl",
            json.dumps({"id": ids[5], "thread_name": "Other name"}).encode(),
        )
        taken = path if where == "the rollout" else home / where
        mode = taken.stat().st_mode
        taken.chmod(0)
        try:
            stats, again = state.sync(), state.sync(rebuild=where != "session_index.jsonl")
            found = {
                "failed": [stats.failed, again.failed],
                "removed": [stats.removed, again.removed],
                "missing": sorted(old.keys() - {thread.id for thread in everything(state)}),
                "get": told(lambda: [state.get_thread(i) for i in (*ids, newer)]),
                "path": told(lambda: state.find_rollout_path_by_id(ids[3])),
                "tools": told(lambda: [state.get_dynamic_tools(i) for i in ids]),
                "list": told(lambda: state.list_threads(5)),
                "exists": told(lambda: state.rollout_exists(old[ids[3]])),
                "reconcile": told(lambda: state.reconcile_rollout(path)),
                "complete": told(lambda: state.resolve_thread_id("f" * 30)),
                "resume": told(lambda: RolloutRecorder.resume(state, ids[3])),
                "archive": told(lambda: state.archive_thread(ids[3])),
                "command": command("list", "--json", "--home", home),
                "sync command": command("sync", "--home", home),
            }
        except Exception:  # noqa: BLE001 - whatever it is, it is wrong
            found = {"raised": traceback.format_exc()}
        finally:
            taken.chmod(mode)
        if list((home / "archived_sessions").glob("*")):
            state.unarchive_thread(ids[3])
        stats = state.sync()
        found["failed afterwards"] = stats.failed
        found["found afterwards"] = {newer, *ids} - {
            thread.id for thread in everything(state)
        } == set()
        found["grown"] = state.get_thread(ids[3]).tokens_used
        found["named"] = state.get_thread(ids[5]).name
        found["other names"] = [state.get_thread(i).name for i in ids[6:]] == [
            f"Name of {i}" for i in ids[6:]
        ]
    found["faults left"] = faults_left(home, scratch)
    return found


@pytest.mark.parametrize(
    "where",
    ["sessions/2026/01/27", "sessions/2026", "sessions", "the rollout", "session_index.jsonl"],
)
def test_what_may_not_be_read_for_a_while_is_not_forgotten(obeying, home, tmp_path, where):
    found = run_program(only_some_may_be_read, home, tmp_path, where, within=obeying)
    assert "raised" not in found, found["raised"]
    assert found["failed afterwards"] == 0
    assert found["removed"] == [0, 0]
    assert found["missing"] == []
    assert min(found["failed"]) > 0
    assert found["found afterwards"]
    assert found["grown"] == 12345
    assert found["named"] == "Other name"
    assert found["other names"]
    assert found["command"]["code"] == 0
    assert "ermission denied" in found["sync command"]["err"]
    assert found["faults left"] == []


def database_may_not_be_used(home: str, scratch: str, where: str, mode: str) -> dict:
    home, scratch = Path(home), Path(scratch)
    ids = write_threads(home, THREADS)
    with StateRuntime.open(home, backfill=False) as state:
        state.sync()
        state.insert_log(LogEntry(0x7FFFFFFF, 0, "INFO", "x", "before"))
    truth = truth_of(home, scratch, ids)
    place = home / "rollbook"
    taken = [path for path in (place, *place.iterdir()) if fnmatch.fnmatch(path.name, where)]
    modes = [path.stat().st_mode for path in taken]
    for path in reversed(taken):
        path.chmod(int(mode, 8))
    try:
        StateRuntime.open(home, backfill=False).close()
    except Exception:  # noqa: BLE001 - whatever it is, it is wrong
        return {"raised": traceback.format_exc()}
    found = {}
    with StateRuntime.open(home, backfill=False) as state:
        found["degraded"] = state.degraded
        found["right"] = answers(state, ids) == truth
        found["log"] = told(lambda: state.insert_log(LogEntry(1, 0, "INFO", "x", "y")))
        found["logs"] = told(state.query_logs)
        with RolloutRecorder.create(state, cwd="/", git=False) as recorder:
            recorder.record_items(items.user_message("Hi"))
        found["recorded"] = state.get_thread(recorder.thread_id).title
        found["sync"] = told(state.sync)
        found["list"] = command("list", "--json", "--home", home, "--all")
        found["sync command"] = command("sync", "--home", home)
        for path, old_mode in zip(taken, modes, strict=True):
            path.chmod(old_mode)
        found["log afterwards"] = told(lambda: state.insert_log(LogEntry(1, 0, "INFO", "x", "y")))
        found["sync afterwards"] = told(state.sync)
    found["new sync afterwards"] = command("sync", "--home", home)
    if found["new sync afterwards"]["code"] == 0:
        found["faults left"] = faults_left(home, scratch)
    return found


@pytest.mark.parametrize(
    ("where", "mode", "is_read"),
    [
        ("*.sqlite", "0444", True),
        ("*.sqlite*", "0444", True),
        ("rollbook", "0555", True),
        ("*", "0555", True),
        ("*.sqlite", "0", False),
        ("rollbook", "0", False),
        ("rollbook", "0444", False),
    ],
)
def test_a_database_that_may_not_be_used(obeying, home, tmp_path, where, mode, is_read):
    found = run_program(database_may_not_be_used, home, tmp_path, where, mode, within=obeying)
    assert "raised" not in found, found["raised"]
    assert found["right"]
    assert found["recorded"] == "Hi"
    if (where, mode) != ("rollbook", "0555"):  # there the files may be written
        assert found["degraded"]
        assert "DatabaseUnwritableError" in found["log"]
        assert found["list"]["err"].startswith("rollbook: ")
        assert found["sync command"]["code"] == 1
        assert re.search("ermission|only read|can't be", found["sync command"]["err"])
    if is_read:
        assert found["logs"] == "done"
    assert found["list"]["code"] == 0
    assert (found["log afterwards"], found["sync afterwards"]) == ("done", "done")
    assert found["new sync afterwards"]["code"] == 0, found["new sync afterwards"]
    assert found["faults left"] == []


# --- Nothing left to open ---------------------------------------------------------------------


def first_use_without_descriptors(home: str, scratch: str) -> dict:
    """Do for the first time, with no file to be opened, what loads a module."""
    home, scratch = Path(home), Path(scratch)
    write_threads(home, THREADS)
    for name in [name for name in sys.modules if name.partition(".")[0] == "filelock"]:
        del sys.modules[name]
    found = {}
    with StateRuntime.open(home, backfill=False) as state:
        with no_descriptors(home, 0):
            for name, action in (
                ("sync", state.sync),
                ("record", lambda: RolloutRecorder.create(state, cwd="/")),
            ):
                try:
                    found[name] = told(action)
                except OSError as error:
                    found[name] = repr(error)
        found["sync afterwards"] = told(state.sync)
    found["faults left"] = faults_left(home, scratch)
    return found


def test_what_is_used_for_the_first_time_without_descriptors_says_so(home, tmp_path):
    found = run_program(first_use_without_descriptors, home, tmp_path)
    assert re.match("DatabaseUnwritableError.*oo many", found["sync"])
    assert re.match("RolloutError.*oo many", found["record"])
    assert found["sync afterwards"] == "done"
    assert found["faults left"] == []


# --- A disk that fails ------------------------------------------------------------------------

CALLS = {
    "x86_64": {"read": 0, "write": 1, "pread64": 17, "pwrite64": 18, "fsync": 74, "renameat2": 316},
    "aarch64": {"read": 63, "write": 64, "pread64": 67, "pwrite64": 68, "fsync": 82},
}
CALLS["x86_64"]["fdatasync"], CALLS["aarch64"]["fdatasync"] = 75, 83
CALLS["aarch64"]["renameat2"] = 276
knows_calls = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() not in CALLS, reason="needs Linux's seccomp"
)


class _Instruction(ctypes.Structure):
    _fields_ = (
        ("code", ctypes.c_ushort),
        ("if_true", ctypes.c_ubyte),
        ("if_false", ctypes.c_ubyte),
        ("value", ctypes.c_uint),
    )


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.POINTER(_Instruction)))


def refuse(error: int, *calls: str, argument: int, value: int) -> None:
    """Have the kernel refuse system calls of this thread, for good, that have such an argument."""
    load, is_equal, end = 0x20, 0x15, 0x06
    allowed, refused = 0x7FFF0000, 0x00050000 | error
    numbers = [CALLS[platform.machine()][name] for name in calls]
    lines = [(load, 0, 0, 0)]
    lines += [(is_equal, len(numbers) - at, 0, number) for at, number in enumerate(numbers)]
    lines += [(end, 0, 0, allowed), (load, 0, 0, 16 + 8 * argument)]
    lines += [(is_equal, 0, 1, value), (end, 0, 0, refused), (end, 0, 0, allowed)]
    instructions = (_Instruction * len(lines))(*(_Instruction(*line) for line in lines))
    program = _Program(len(lines), instructions)
    libc = ctypes.CDLL(None, use_errno=True)
    no_new_privileges, set_filter, by_program = 38, 22, 2
    for words in ((no_new_privileges, 1, 0), (set_filter, by_program, ctypes.byref(program))):
        if libc.prctl(*words, 0, 0):
            raise OSError(ctypes.get_errno(), "the kernel can't be told to refuse that")


def open_files(*ends: str) -> list[int]:
    """The descriptors of this process for files whose path has one of these ends."""
    return [
        int(entry.name)
        for entry in os.scandir("/proc/self/fd")
        if os.path.lexists(entry.path) and os.readlink(entry.path).endswith(ends)
    ]


PAGE_BYTES = 4096


def disk_fails(home: str, scratch: str, calls: str) -> dict:
    """Have the kernel refuse to read, write or sync a database in one thread of a process."""
    home, scratch = Path(home), Path(scratch)
    ids = write_threads(home, THREADS)
    truth = truth_of(home, scratch, ids)
    found = {}
    with StateRuntime.open(home, backfill=False) as state:
        state.sync()
        state.insert_log(LogEntry(0x7FFFFFFF, 0, "INFO", "x", "before"))
    with StateRuntime.open(home, backfill=False) as state:
        thread = state.list_threads(1).items[0]
        state.upsert_thread(thread)  # which opens a connection that stays
        state.insert_log(LogEntry(0x7FFFFFFF, 0, "INFO", "x", "open"))
        append(next(home.rglob(f"*{ids[3]}.jsonl")), token_count(12345))

        def harmed() -> None:
            if "sync" not in calls:
                refuse(errno.EIO, *calls.split(), argument=2, value=PAGE_BYTES)
            else:
                for descriptor in open_files(".sqlite", ".sqlite-wal"):
                    refuse(errno.EIO, *calls.split(), argument=0, value=descriptor)
            for name, action in {
                "list": lambda: everything(state),
                "tools": lambda: [state.get_dynamic_tools(i) for i in ids],
                "get": lambda: [state.get_thread(i) for i in ids],
                "upsert": lambda: state.upsert_thread(thread),
                "sync": lambda: state.sync(rebuild=True, jobs=1),
                "log": lambda: state.insert_log(LogEntry(1, 0, "INFO", "x", "y")),
                "logs": state.query_logs,
            }.items():
                try:
                    found[name] = told(action)
                except Exception:  # noqa: BLE001 - whatever it is, it is wrong
                    found[name] = traceback.format_exc()

        harm = threading.Thread(target=harmed)
        harm.start()
        harm.join()
        state.sync(rebuild=True)
        found["grown"] = state.get_thread(ids[3]).tokens_used
        found["right"] = answers(state, ids)["tools"] == truth["tools"]
    found["faults left"] = faults_left(home, scratch)
    return found


@knows_calls
@pytest.mark.parametrize("calls", ["read pread64", "write pwrite64", "fsync fdatasync"])
def test_a_disk_that_fails_is_no_damage(home, tmp_path, calls):
    found = run_program(disk_fails, home, tmp_path, calls)
    faults, grown, right = (found.pop(name) for name in ("faults left", "grown", "right"))
    assert faults == [], found
    assert (grown, right) == (12345, True)
    refused = {what: why for what, why in found.items() if why != "done"}
    if calls != "fsync fdatasync":
        assert refused
    for why in refused.values():
        assert re.match("DatabaseUnwritableError.*disk I/O error.*check the disk", why), refused
    if calls != "read pread64":
        assert not {"list", "tools", "get", "logs"} & refused.keys()
    assert "get" not in refused  # the rollouts can answer that


# --- A clock that jumps -----------------------------------------------------------------------

DAY_S = 86400


class _Shifted(datetime):
    @classmethod
    def now(cls, tz=None):
        return datetime.fromtimestamp(time.time(), tz)


def shift_clock(seconds: int) -> None:
    """Set this process's clock; that of the machine can't be set without harm to others."""
    real, real_ns = time.time, time.time_ns
    time.time = lambda: real() + seconds
    time.time_ns = lambda: real_ns() + seconds * 1_000_000_000
    for module in (rollbook.recorder.recorder, rollbook.index.archive):
        module.datetime = _Shifted


def under_a_clock(days: str, home: str, scratch: str) -> dict:
    """Record, log, archive and sync while the clock is ahead or behind, and say what is there."""
    shift_clock(int(days) * DAY_S)
    home, scratch = Path(home), Path(scratch)
    with StateRuntime.open(home, backfill=False) as state:
        stats = state.sync()
        with RolloutRecorder.create(state, cwd="/", git=False) as recorder:
            recorder.record_items(items.user_message(f"At {days}"))
        for path in home.rglob("*.jsonl"):
            append(path, token_count(int(days) + 10_000))
            os.utime(path, (time.time(), time.time()))
        grown = state.sync()
        logger = logging.Logger("agent")  # noqa: LOG001 - apart from those of the test
        with closing(RollbookHandler(state)) as handler:
            logger.addHandler(handler)
            logger.info("at %s", days)
        state.archive_thread(thread_id_of(0))
        state.unarchive_thread(thread_id_of(0))
        os.utime(home / Path(state.get_thread(thread_id_of(0)).rollout_path), (time.time(),) * 2)
        state.sync()
        state._logs._open()[1].keep()  # what is done once a day, at the latest by now
        found = {
            "failed": stats.failed + grown.failed,
            "grown": grown.indexed,
            "tokens": sorted({thread.tokens_used for thread in everything(state)}),
            "titles": sorted(thread.title for thread in everything(state)),
            "newest": state.list_threads(1).items[0].title,
            "logs": [row.message for row in state.query_logs()],
            "again": state.sync().indexed,
        }
    found["command"] = len(listed(command("list", "--json", "--home", home, "--source", "exec")))
    found["logs command"] = command("logs", "--json", "--no-follow", "--home", home)["out"].count(
        "\n"
    )
    with StateRuntime.open(home, backfill=False) as state:
        found["right"] = everything(state) == rebuilt(state, scratch)
    return found


def test_a_clock_that_jumps_does_no_harm(home, tmp_path):
    write_threads(home, 3)
    titles, logs = [f"Thread {number}" for number in range(3)], []
    for number, days in enumerate((0, 3, -3, 400, -1, 0, 4000, 0)):
        found = run_program(under_a_clock, days, home, tmp_path)
        titles.append(f"At {days}")
        logs.append(f"at {days}")
        assert found["failed"] == 0
        assert (found["grown"], found["again"]) == (len(titles), 0)
        assert found["tokens"] == [days + 10_000]
        assert found["titles"] == sorted(titles)
        assert found["command"] == number + 1
        assert found["right"]
        logs = [text for text in logs if days - int(text[3:]) < 10]  # the others are too old now
        assert found["logs"] == logs
