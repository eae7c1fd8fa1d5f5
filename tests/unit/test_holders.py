"""Who holds a lock: real locks, held by real processes."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rollbook import holders
from rollbook.holders import Holder, described, holders_of, way_out, writers_below

pytestmark = pytest.mark.skipif(
    not Path("/proc/locks").exists(), reason="the system doesn't tell who holds locks"
)
# Is given a file and a statement; says when it has run it, and ends with its input.
CHILD = """
import fcntl, os, sys
from pathlib import Path
file = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
exec(sys.argv[2])
print("done", flush=True)
sys.stdin.read()
"""
ALONE = "fcntl.flock(file, fcntl.LOCK_EX)"
SHARED = "fcntl.flock(file, fcntl.LOCK_SH)"
BYTE_120 = "fcntl.lockf(file, fcntl.LOCK_EX, 1, 120)"
BYTES_123_TO_127 = "fcntl.lockf(file, fcntl.LOCK_SH, 5, 123)"
FROM_BYTE_200_ON = "fcntl.lockf(file, fcntl.LOCK_EX, 0, 200)"

Hold = Callable[[Path, str], "subprocess.Popen[str]"]


@pytest.fixture
def hold() -> Iterator[Hold]:
    """Have a process of its own hold a lock."""
    children: list[subprocess.Popen[str]] = []

    def start(path: Path, statement: str) -> "subprocess.Popen[str]":
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, path, statement],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        children.append(child)
        assert child.stdout.readline() == "done\n"
        return child

    yield start
    for child in children:
        child.kill()
        child.communicate(timeout=20)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "a file"
    file.touch()
    return file


def pids(found: list[Holder]) -> set[int]:
    return {holder.pid for holder in found}


def test_nobody_holds_a_lock(path):
    assert holders_of(path) == []
    assert holders_of(path.with_name("missing")) == []


def test_who_has_a_file_alone_is_found_and_gone_when_it_ends(path, hold):
    child = hold(path, ALONE)
    (holder,) = holders_of(path)
    assert (holder.pid, holder.is_stopped) == (child.pid, False)
    assert holder.program.startswith("python")
    assert holders_of(path, writing=True) == [holder]
    child.communicate(timeout=20)
    assert holders_of(path) == []


def test_all_who_share_a_file_are_found_and_none_of_them_is_writing(path, hold):
    children = [hold(path, SHARED) for _ in range(3)]
    assert pids(holders_of(path)) == {child.pid for child in children}
    assert holders_of(path, writing=True) == []


def test_a_process_with_several_locks_counts_once(path, hold):
    child = hold(path, f"{BYTE_120}; {BYTES_123_TO_127}; {SHARED}")
    assert [holder.pid for holder in holders_of(path)] == [child.pid]


def test_locks_on_single_bytes_are_told_apart(path, hold):
    writer, reader, rest = (
        hold(path, statement) for statement in (BYTE_120, BYTES_123_TO_127, FROM_BYTE_200_ON)
    )
    assert pids(holders_of(path)) == {writer.pid, reader.pid, rest.pid}
    for byte, holder in {119: set(), 120: {writer.pid}, 121: set(), 199: set()}.items():
        assert pids(holders_of(path, byte)) == holder
    for byte in (123, 125, 127):
        assert pids(holders_of(path, byte)) == {reader.pid}
        assert holders_of(path, byte, writing=True) == []
    for byte in (200, 1 << 40, (1 << 63) - 1):
        assert pids(holders_of(path, byte, writing=True)) == {rest.pid}


def test_who_waits_for_a_lock_holds_none(path, hold):
    holder = hold(path, ALONE)
    waiting = subprocess.Popen(
        [sys.executable, "-c", CHILD, path, ALONE], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        # Who waits has a line of its own, with an arrow.
        while f" {waiting.pid} " not in Path("/proc/locks").read_text():
            assert waiting.poll() is None
        assert pids(holders_of(path)) == {holder.pid}
    finally:
        waiting.kill()
        waiting.communicate(timeout=20)


def test_a_lock_is_found_by_every_name_of_its_file(path, hold):
    child = hold(path, ALONE)
    other, link = path.with_name("other"), path.with_name("link")
    other.hardlink_to(path)
    link.symlink_to(path)
    for name in (other, link):
        assert pids(holders_of(name)) == {child.pid}
    path.unlink()
    path.touch()  # another file in its place
    assert holders_of(path) == []
    assert pids(holders_of(other)) == {child.pid}


def test_a_stopped_process_is_told_as_such(path, hold):
    child = hold(path, ALONE)
    child.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, child.pid, os.WSTOPPED | os.WNOWAIT)
    found = holders_of(path)
    assert [holder.is_stopped for holder in found] == [True]
    assert described(found) == f"process {child.pid} ({found[0].program}, stopped)"
    assert f"`kill -CONT {child.pid}`" in way_out(found)
    child.send_signal(signal.SIGCONT)
    os.waitid(os.P_PID, child.pid, os.WCONTINUED | os.WNOWAIT)
    assert [holder.is_stopped for holder in holders_of(path)] == [False]


@pytest.mark.parametrize("name", ["a) T (b", "(", ")", "T", "two words"])
def test_a_program_may_have_any_name(path, hold, name):
    hold(path, f"Path('/proc/self/comm').write_text({name!r}); {ALONE}")
    assert [(holder.program, holder.is_stopped) for holder in holders_of(path)] == [(name, False)]


def test_a_program_whose_name_is_no_text_is_found(path, hold):
    child = hold(path, f"Path('/proc/self/comm').write_bytes(b'\\xff\\xfe'); {ALONE}")
    assert pids(holders_of(path)) == {child.pid}


def test_writers_below_a_directory_are_found_at_once(path, hold):
    alone, shared = path.with_name("alone"), path.with_name("shared")
    child = hold(alone, ALONE)
    hold(shared, SHARED)
    found = writers_below(path.parent)
    assert found[alone.stat().st_ino].pid == child.pid
    assert shared.stat().st_ino not in found
    assert path.stat().st_ino not in found
    assert writers_below(path.with_name("missing")) == {}


def test_a_system_that_does_not_tell_has_no_holders(path, hold, tmp_path, monkeypatch):
    hold(path, ALONE)
    monkeypatch.setattr(holders, "_LOCKS", tmp_path / "missing")
    assert holders_of(path) == []
    assert writers_below(tmp_path) == {}


def test_lines_of_every_form_are_read(path, tmp_path, monkeypatch):
    """Such as the system writes them: mandatory ones, leases, those of processes long gone."""
    status = path.stat()
    device = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    gone = 4_194_305  # larger than any process id can be
    locks = tmp_path / "locks"
    locks.write_text(
        f"1: FLOCK  ADVISORY  WRITE {os.getpid()} {device} 0 EOF\n"
        f"1: -> FLOCK  ADVISORY  WRITE 1 {device} 0 EOF\n"
        f"2: POSIX  ADVISORY  READ  {gone} {device} 5 9\n"
        f"3: LEASE  ACTIVE    READ  {gone + 1} ff:ff:1 0 EOF\n"
        "4: of a form that is not known\n"
        "\n"
    )
    monkeypatch.setattr(holders, "_LOCKS", locks)
    own, other = holders_of(path)
    assert own.pid == os.getpid()
    assert other == Holder(gone, "unknown", is_stopped=False)
    assert holders_of(path, 4) == [own]
    assert set(writers_below(tmp_path)) == {status.st_ino}


def test_holders_in_a_message():
    first, second = Holder(7, "codex", is_stopped=True), Holder(8, "two words", is_stopped=False)
    assert described([]) == "another process"
    assert described([first, second]) == "process 7 (codex, stopped) and process 8 (two words)"
    assert way_out([]) == way_out([second])
    assert "kill -CONT" not in way_out([second])
    assert way_out([first, second, first._replace(pid=9)]).startswith("`kill -CONT 7 9`")
