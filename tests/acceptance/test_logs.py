"""``rollbook logs``, as a person or a script uses it."""

import json
import re
import signal
import subprocess
import time
from pathlib import Path

import apsw
import pexpect
import pytest

from rollbook import LogEntry, StateRuntime
from tests.acceptance.conftest import COMMAND, environment

THREAD = "01a207c8-8e7e-7062-a3db-f0444cf6b4cf"
OTHER = "01a207c8-9999-7062-a3db-f0444cf6b4cf"
NOON = 1_769_515_200  # 2026-01-27T12:00:00Z
PATCH = "ToolCall: apply_patch\n*** Update File: x.py\n+new line\n-old line\n same line"
ROWS = [
    LogEntry(NOON, 1_500_000, "INFO", "agent.loop", "begun", THREAD, "agent.loop", "a/loop.py", 1),
    LogEntry(NOON + 60, 0, "WARN", "agent.tool", "slow: 100%", THREAD, "agent.tool", "a/tool.py"),
    LogEntry(NOON + 120, 0, "ERROR", "agent.tool", "it\nbroke \x1b[2J", OTHER, "agent_x.tool"),
    LogEntry(NOON + 180, 0, "DEBUG", "http", "GET /", None, "http", "b/http.py"),
    LogEntry(NOON + 240, 999_999_999, "TRACE", "http", PATCH),
]


def add(home: Path, *entries: LogEntry) -> None:
    with StateRuntime.open(home, backfill=False) as state:
        state.insert_logs(entries)


@pytest.fixture
def logged(home) -> Path:
    """A home with a row of each kind."""
    add(home, *ROWS)
    return home


@pytest.fixture
def messages(run, logged):
    """The first words of the rows that filters leave."""

    def filtered(*filters: str) -> list[str]:
        done = run("logs", "--home", logged, "--no-follow", "--json", *filters)
        assert (done.code, done.err) == (0, "")
        rows = [json.loads(line) for line in done.out.splitlines()]
        return [row["message"].split()[0] for row in rows]

    return filtered


def test_rows_are_printed_oldest_first_as_the_reference_prints_them(run, logged):
    done = run("logs", "--home", logged, "--no-follow")
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines() == [
        f"2026-01-27T12:00:00.001Z INFO  [{THREAD}] agent.loop - begun",
        f"2026-01-27T12:01:00.000Z WARN  [{THREAD}] agent.tool - slow: 100%",
        f"2026-01-27T12:02:00.000Z ERROR [{OTHER}] agent.tool - it",
        "    broke \ufffd[2J",
        "2026-01-27T12:03:00.000Z DEBUG [-] http - GET /",
        "2026-01-27T12:04:00.999Z TRACE [-] http - ToolCall: apply_patch",
        "    *** Update File: x.py",
        "    +new line",
        "    -old line",
        "     same line",
    ]


def test_each_row_is_one_json_object_with_all_its_fields(run, logged):
    done = run("logs", "--home", logged, "--no-follow", "--json", "--backfill", "5")
    rows = [json.loads(line) for line in done.out.splitlines()]
    assert rows[0] == {
        "id": 1,
        "ts": NOON,
        "ts_nanos": 1_500_000,
        "level": "INFO",
        "target": "agent.loop",
        "message": "begun",
        "thread_id": THREAD,
        "file": "a/loop.py",
        "line": 1,
        "host": "",
    }
    assert [row["id"] for row in rows] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("filters", "left"),
    [
        ((), ["begun", "slow:", "it", "GET", "ToolCall:"]),
        (("--level", "eRRor"), ["it"]),
        (("--level", "warning"), ["slow:"]),
        (("--from", "2026-01-27T13:02:00+01:00"), ["it", "GET", "ToolCall:"]),
        (("--to", str(NOON + 60)), ["begun", "slow:"]),
        (("--from", str(NOON + 60), "--to", str(NOON + 60)), ["slow:"]),
        (("--module", "agent.", "--module", "HTTP"), ["begun", "slow:", "GET"]),
        (("--module", "agent_"), ["it"]),
        (("--file", "loop", "--file", "tool"), ["begun", "slow:"]),
        (("--file", "%"), []),
        (("--thread-id", THREAD), ["begun", "slow:"]),
        (("--thread-id", "01a207c8-8"), ["begun", "slow:"]),
        (("--thread-id", "01A207C8-99", "--threadless"), ["it", "GET", "ToolCall:"]),
        (("--threadless",), ["GET", "ToolCall:"]),
        (("--search", "100%"), ["slow:"]),
        (("--search", "BROKE"), ["it"]),
        (("--backfill", "2"), ["GET", "ToolCall:"]),
        (("--backfill", "0"), []),
        (("--backfill", "1", "--level", "info"), ["begun"]),
    ],
)
def test_filters_leave_what_they_say(messages, filters, left):
    assert messages(*filters) == left


def test_a_time_may_say_how_long_ago(messages, logged):
    now = int(time.time())
    add(logged, LogEntry(now - 3000, 0, "INFO", "x", "recent"))
    assert messages("--from", "2h") == ["recent"]
    assert messages("--from", "2h", "--to", "30m") == ["recent"]
    assert messages("--from", "15m") == []


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--from", "yesterday"], 2, ["--from", "yesterday", "2026-01-27T12:34:56Z", "15m"]),
        (["--to", "2026-13-01T00:00:00Z"], 2, ["--to", "no time"]),
        (["--backfill", "-1"], 2, ["--backfill"]),
        (["--poll-ms", "0"], 2, ["--poll-ms"]),
        (["--thread-id", "01a207c8"], 2, [THREAD, OTHER, "give more"]),
        (["--thread-id", ""], 2, ["--threadless"]),
        (["--db", "nothing/state.sqlite", "--no-follow"], 0, ["no logs yet", "nothing"]),
    ],
)
def test_what_is_wrong_is_said_with_what_to_do(run, logged, arguments, code, words):
    done = run("logs", "--home", logged, *arguments, cwd=logged)
    assert (done.code, done.out) == (code, "")
    for word in words:
        assert word in done.err


def test_a_file_that_is_no_database_is_refused(run, home):
    (home / "junk.sqlite").write_bytes(b"no database" * 100)
    done = run("logs", "--db", home / "junk.sqlite", "--no-follow")
    assert done.code == 5
    assert "no database" in done.err


def test_a_database_without_logs_is_refused(run, home):
    apsw.Connection(str(home / "other.sqlite")).execute("CREATE TABLE t (x)")
    done = run("logs", "--db", home / "other.sqlite", "--no-follow")
    assert done.code == 1
    assert "no table of logs" in done.err


@pytest.mark.parametrize("message_column", ["message", "feedback_log_body"])
def test_the_logs_of_codex_are_read_while_it_writes_and_nothing_of_it_changes(
    run, tmp_path, message_column
):
    path = tmp_path / "logs_2.sqlite"
    codex = apsw.Connection(str(path))
    codex.execute(
        "PRAGMA journal_mode = WAL; CREATE TABLE logs (id INTEGER PRIMARY KEY AUTOINCREMENT,"
        " ts INTEGER NOT NULL, ts_nanos INTEGER NOT NULL, level TEXT NOT NULL, target TEXT NOT NULL,"
        f" {message_column} TEXT, module_path TEXT, file TEXT, line INTEGER, thread_id TEXT)"
    ).fetchall()
    insert = f"INSERT INTO logs (ts, ts_nanos, level, target, {message_column}) VALUES"
    codex.execute(f"{insert} ({NOON}, 0, 'INFO', 'codex', 'from Codex')")
    codex.execute("BEGIN IMMEDIATE")
    codex.execute(f"{insert} ({NOON}, 0, 'INFO', 'codex', 'not yet')")
    before = {file.name: file.read_bytes() for file in tmp_path.glob("*.sqlite*")}
    done = run("logs", "--db", path, "--no-follow", "--search", "codex")
    assert done.out == "2026-01-27T12:00:00.000Z INFO  [-] codex - from Codex\n"
    after = {file.name: file.read_bytes() for file in tmp_path.glob("*.sqlite*")}
    assert after.keys() == before.keys()
    assert {n: b for n, b in after.items() if not n.endswith("-shm")} == {
        n: b for n, b in before.items() if not n.endswith("-shm")
    }
    codex.execute("COMMIT")


def follow(home: Path, *arguments: str, **options) -> subprocess.Popen:
    return subprocess.Popen(
        [COMMAND, "logs", "--home", home, "--poll-ms", "20", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(PYTHONUNBUFFERED="1"),
        **options,
    )


def test_new_rows_are_followed_and_the_interrupt_ends_it_cleanly(logged):
    with follow(logged, "--level", "info") as process:
        assert process.stdout.readline().endswith("begun\n")
        add(
            logged,
            LogEntry(NOON, 0, "WARN", "x", "not this"),
            LogEntry(NOON, 0, "INFO", "x", "new"),
        )
        assert process.stdout.readline().endswith("x - new\n")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (0, "", "")


def test_a_log_that_is_not_there_yet_is_waited_for(home):
    with follow(home) as process:
        assert "waiting" in process.stderr.readline()
        add(home, LogEntry(NOON, 0, "INFO", "x", "the first"))
        assert process.stdout.readline().endswith("the first\n")
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0


def test_a_log_that_begins_anew_is_followed_from_its_beginning(logged):
    with follow(logged, "--backfill", "1") as process:
        assert "apply_patch" in process.stdout.readline()
        for file in (logged / "rollbook").glob("logs.sqlite*"):
            file.unlink()
        add(logged, LogEntry(NOON, 0, "INFO", "x", "anew"))
        assert "anew" in "".join(process.stdout.readline() for _ in range(5))
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0


def test_a_reader_that_goes_away_ends_it_although_nothing_comes(logged):
    with follow(logged) as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(30) == 0
        assert process.stderr.read() == ""


def test_levels_and_patches_have_colours_on_a_terminal_and_none_with_no_color(logged):
    def shown(**more: str) -> str:
        child = pexpect.spawn(
            str(COMMAND),
            ["logs", "--home", str(logged), "--no-follow"],
            encoding="utf-8",
            dimensions=(40, 200),
            timeout=60,
            env=environment(TERM="xterm-256color", LANG="C.UTF-8", **more),
        )
        child.expect(pexpect.EOF)
        child.close()
        assert child.exitstatus == 0
        return child.before

    text = shown()
    for level, code in (("ERROR", 31), ("WARN ", 33), ("INFO ", 32), ("DEBUG", 34), ("TRACE", 35)):
        assert re.search(rf"\x1b\[{code}m(\x1b\[1m)?{level}", text), level
    assert "\x1b[32m+new line" in text
    assert "\x1b[31m-old line" in text
    assert "\x1b[2J" not in text
    assert "\x1b" not in shown(NO_COLOR="1")


def test_reading_creates_nothing(run, home):
    before = sorted(path for path in home.rglob("*"))
    assert run("logs", "--home", home, "--no-follow").code == 0
    assert sorted(path for path in home.rglob("*")) == before
