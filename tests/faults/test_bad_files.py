"""One bad file is one counted failure with a message that names it; the rest is indexed."""

import os
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from rollbook import StateRuntime
from rollbook.testing import (
    make_line,
    session_meta,
    token_count,
    user_message,
    write_rollout,
)

BAD = "11111111-1111-4111-8111-111111111111"
NAME = f"rollout-2026-01-27T12-34-56-{BAD}.jsonl"


@pytest.fixture
def day(home) -> Path:
    """The directory of one day, with one good rollout in it."""
    good = str(uuid.uuid4())
    return write_rollout(home, good, [session_meta(good), user_message("All is well")]).parent


def assert_one_failure(state: StateRuntime, path: str, reason: str) -> None:
    for _ in range(2):  # a second sync says the same, without opening what has not changed
        stats = state.sync()
        assert [(failure.path, reason in failure.message) for failure in stats.failures] == [
            (path, True)
        ]
        assert stats.failed == 1
    assert [thread.title for thread in state.list_threads(9).items] == ["All is well"]


def relative(path: Path, home: Path) -> str:
    return path.relative_to(home).as_posix()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"\n\n  \n", "no readable record"),
        (b"\0" * 4096, "no readable record"),
        (b"\xff\xfe\x00garbage\n\xc3\x28\n", "no readable record"),
        (b"this is no rollout\n", "no readable record"),
        (b"[1, 2, 3]\n", "no readable record"),
    ],
)
def test_a_file_with_nothing_to_read_is_named(home, day, state, content, reason):
    (day / NAME).write_bytes(content)
    assert_one_failure(state, relative(day / NAME, home), reason)


def test_a_directory_named_like_a_rollout_is_named(home, day, state):
    (day / NAME).mkdir()
    assert_one_failure(state, relative(day / NAME, home), "is a directory")


def test_a_link_named_like_a_rollout_is_not_followed(home, day, state, tmp_path):
    outside = tmp_path / "outside.jsonl"
    outside.write_bytes(session_meta(BAD) + b"\n" + user_message("Not of this home") + b"\n")
    (day / NAME).symlink_to(outside)
    assert_one_failure(state, relative(day / NAME, home), "symbolic link")
    assert state.get_thread(BAD) is None


def test_a_link_that_points_at_itself_is_named(home, day, state):
    (day / NAME).symlink_to(NAME)
    assert_one_failure(state, relative(day / NAME, home), "symbolic link")


def test_a_loop_of_directories_is_not_followed(home, day, state):
    (day / "loop").symlink_to(home / "sessions")
    assert_one_failure(state, relative(day / "loop", home), "symbolic link")


def test_a_time_out_of_range_is_named(home, day, state):
    path = write_rollout(home, BAD, [session_meta(BAD)])
    os.utime(path, (2**38, 2**38))
    assert_one_failure(state, relative(path, home), "out of range")


@pytest.mark.parametrize("timestamp", ["99999-01-01T00:00:00Z", "yesterday", "", 12])
def test_a_session_meta_without_a_usable_time_takes_that_of_the_name(home, state, timestamp):
    write_rollout(home, BAD, [session_meta(BAD, timestamp=timestamp), user_message("Hi")])
    assert state.sync().failed == 0
    assert str(state.get_thread(BAD).created_at) == "2026-01-27 12:34:56+00:00"


def test_a_file_name_that_is_not_unicode_is_named(home, day, state):
    raw = os.fsencode(day) + b"/rollout-\xff.jsonl"
    Path(os.fsdecode(raw)).write_bytes(session_meta(BAD) + b"\n")
    stats = state.sync()
    assert [f.message for f in stats.failures] == ["has a name that is not valid UTF-8"]
    assert "rollout-" in stats.failures[0].path
    stats.failures[0].path.encode()


def test_a_damaged_compressed_rollout_is_named(home, day, state):
    (day / f"{NAME}.zst").write_bytes(b"no zstandard at all")
    assert_one_failure(state, relative(day / NAME, home), "can't be read")


def test_a_compressed_rollout_that_ends_early_is_named(home, day, state):
    whole = compress(session_meta(BAD) + b"\n" + os.urandom(100_000).hex().encode())
    (day / f"{NAME}.zst").write_bytes(whole[: len(whole) // 2])
    assert_one_failure(state, relative(day / NAME, home), "can't be read")


def compress(content: bytes) -> bytes:
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    return zstd.compress(content)


# Root may read everything, so it has to become somebody else, after all code is loaded.
UNREADABLE_SYNC = """
import os, sys, filelock
from rollbook import StateRuntime
if os.geteuid() == 0:
    os.setgid(65534); os.setuid(65534)
with StateRuntime.open(sys.argv[1], database=sys.argv[2], backfill=False) as state:
    stats = state.sync()
    print([(f.path, f.message) for f in stats.failures])
    print([thread.title for thread in state.list_threads(9).items])
"""


def test_an_unreadable_file_and_directory_are_named(home, day, tmp_path):
    path = write_rollout(home, BAD, [session_meta(BAD), user_message("Secret")])
    path.chmod(0)
    closed = home / "sessions" / "2025"
    closed.mkdir()
    closed.chmod(0)
    index = tmp_path / "index"
    index.mkdir()
    if os.geteuid() == 0:
        for directory in (tmp_path, *tmp_path.parents):
            if not directory.stat().st_mode & 0o077:
                directory.chmod(0o755)
        os.chown(index, 65534, 65534)
    done = subprocess.run(
        [sys.executable, "-c", UNREADABLE_SYNC, home, index / "state.sqlite"],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
    )
    assert done.stdout.splitlines() == [
        repr(
            [
                ("sessions/2025/", "can't be listed: Permission denied"),
                (relative(path, home), "can't be read: Permission denied"),
            ]
        ),
        "['All is well']",
    ], done.stderr


def test_malformed_lines_are_skipped_and_counted(home, state):
    lines = [
        session_meta(BAD),
        b"not json",
        b'{"timestamp":"2026-01-27T12:34:57.000Z","type":"event_msg"}',
        b'{"no":"record"}',
        make_line("response_item", {"type": "function_call_output", "output": "x"})[:-4],
        make_line("event_msg", {"type": "agent_message", "message": "\xff"}).replace(
            "\xff".encode(), b"\xff"
        ),
        make_line("event_msg", {"type": "agent_message", "message": "a"}).replace(b'a"', b'\0"'),
        user_message("Still here"),
        token_count(7),
    ]
    write_rollout(home, BAD, lines)
    stats = state.sync()
    assert (stats.failed, stats.parse_errors) == (0, 6)
    thread = state.get_thread(BAD)
    assert (thread.title, thread.tokens_used) == ("Still here", 7)


def test_unknown_lines_and_fields_pass_silently(home, state):
    lines = [
        session_meta(BAD, mood="excellent", git={"commit_hash": "abc", "weather": "fine"}),
        make_line("brand_new_kind", {"anything": [1, 2, {"deep": None}]}),
        make_line("event_msg", {"type": "brand_new_event"}),
        make_line("response_item", {"type": "brand_new_item"}),
        user_message("Hello", sequence=4, extra={"a": 1}),
        make_line("turn_context", {"cwd": 17, "model": ["x"], "approval_policy": {"granular": {}}}),
    ]
    write_rollout(home, BAD, lines)
    stats = state.sync()
    assert (stats.failed, stats.parse_errors) == (0, 0)
    thread = state.get_thread(BAD)
    assert (thread.title, thread.git_sha, thread.cwd) == ("Hello", "abc", "/home/dev/project")
    assert thread.approval_mode == '{"granular":{}}'


def test_an_unfinished_last_line_waits_for_the_next_read(home, state):
    line = user_message("Said in two halves")
    path = write_rollout(home, BAD, [session_meta(BAD)])
    with path.open("ab") as file:
        file.write(line[:40])
    stats = state.sync()
    assert (stats.failed, stats.parse_errors) == (0, 0)
    with path.open("ab") as file:
        file.write(line[40:] + b"\n")
    stats = state.sync()
    assert (stats.failed, stats.parse_errors, stats.bytes_read) == (0, 0, len(line) + 1)
    assert state.get_thread(BAD).title == "Said in two halves"


def test_a_first_line_that_is_still_being_written_is_no_error(home, state):
    path = write_rollout(home, BAD, [])
    path.write_bytes(session_meta(BAD, source="exec")[:50])
    assert state.sync().failed == 0
    path.write_bytes(session_meta(BAD, source="exec") + b"\n" + user_message("Go") + b"\n")
    assert state.sync().failed == 0
    assert (state.get_thread(BAD).source, state.get_thread(BAD).title) == ("exec", "Go")


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc to read peaks from")
def test_a_300_mb_file_with_a_100_mb_line_is_read_in_little_memory(home, tmp_path):
    block = make_line(
        "response_item", {"type": "function_call_output", "call_id": "c", "output": "x" * 1_000_000}
    )
    path = write_rollout(home, BAD, [session_meta(BAD), user_message("Big")])
    with path.open("ab") as file:
        for _ in range(200):
            file.write(block + b"\n")
        head, tail = block.split(b"xxxx", 1)
        file.write(head)
        for _ in range(100):
            file.write(b"y" * 1_000_000)
        file.write(tail + b"\n" + token_count(5) + b"\n")
    code = (
        "import sys; from rollbook import StateRuntime\n"
        "with StateRuntime.open(sys.argv[1], backfill=False) as state:\n"
        "    stats = state.sync(jobs=1)\n"
        "    print(stats.failed, stats.parse_errors, state.list_threads(1).items[0].tokens_used)\n"
        "print(*(line.split()[1] for line in open('/proc/self/status') if 'VmHWM' in line))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, home], capture_output=True, text=True, check=True
    )
    counts, peak_kb = done.stdout.splitlines()
    assert counts == "0 0 5"
    assert int(peak_kb) < 100_000
