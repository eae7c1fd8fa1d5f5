"""Bad input: one line that says what is wrong and what to do, the right exit code, no harm."""

import json
import os
import subprocess
import sys
from pathlib import Path

import apsw
import pytest

from rollbook.testing import session_meta, user_message, write_rollout
from tests.conftest import run_sql

ID = "01a207c8-3ebb-7143-a4a0-e2c688606806"
OTHER = "01a207c8-ffff-7143-a4a0-e2c688606806"


@pytest.fixture
def filled(home, run) -> Path:
    """A synced home of two threads."""
    for thread_id in (ID, OTHER):
        write_rollout(home, thread_id, [session_meta(thread_id), user_message("Hi")])
    assert run("sync", "--home", home).code == 0
    return home


def contents(directory: Path) -> dict[str, bytes]:
    return {
        str(path): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file() and not path.name.endswith(("-shm", "-wal"))
    }


def assert_refused(run, arguments, code, words, *, cwd: Path) -> None:
    before = contents(cwd)
    done = run(*arguments, cwd=cwd)
    assert (done.code, done.out) == (code, "")
    assert done.err.count("\n") == 1
    assert done.err.startswith("rollbook: ")
    for word in words:
        assert word in done.err
    as_json = run(*arguments, "--json", cwd=cwd)
    error = json.loads(as_json.err)["error"]
    assert (as_json.code, as_json.out, sorted(error)) == (code, "", ["code", "message"])
    assert f"rollbook: {error['message']}\n" == done.err
    assert contents(cwd) == before


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["list", "--home", "missing"], 3, ["no home at", "missing", "--home"]),
        (["sync", "--home", "missing"], 3, ["no home at"]),
        (["list", "--home", "a-file"], 1, ["a-file", "not a directory"]),
        (["show", "99999999"], 3, ["no thread 99999999", "rollbook list --all"]),
        (["path", ID[:-1] + "7"], 3, ["no thread"]),
        (["tools", "not-an-id"], 3, ["not-an-id", "UUID"]),
        (["archive", "99999999"], 3, ["no thread"]),
        (["unarchive", "99999999"], 3, ["no thread"]),
        (["show", "01a207c8"], 2, ["fits several threads", ID, OTHER, "more of the id"]),
        (["list", "--cursor", "yesterday"], 2, ["'yesterday' is not a cursor", "next_cursor"]),
        (["list", "--limit", "0"], 2, ["--limit", "0"]),
        (["list", "--limit", "-5"], 2, ["--limit", "-5"]),
        (["list", "--limit", "many"], 2, ["--limit", "many", "--help"]),
        (["list", "--sort", "size"], 2, ["--sort", "size"]),
        (["list", "--no-such-option"], 2, ["--no-such-option", "--help"]),
        (["no-such-command"], 2, ["no-such-command", "--help"]),
        (["show"], 2, ["ID", "--help"]),
        (["sync", "--jobs", "0"], 2, ["jobs", "0"]),
        (["list", "--db", "notes.txt"], 5, ["notes.txt", "no database", "rollbook sync"]),
        (["sync", "--db", "notes.txt"], 5, ["notes.txt", "no database"]),
        (["sync", "--db", "other.sqlite"], 1, ["another program", "--db"]),
        (["sync", "--db", "a-file/state.sqlite"], 1, ["a-file", "--db"]),
        (["sync", "--db", "."], 1, ["something else in its place", "--db"]),
    ],
)
def test_bad_input_is_refused(run, filled, arguments, code, words):
    (filled / "a-file").touch()
    (filled / "notes.txt").write_text("these are my notes, no database\n" * 50)
    other = apsw.Connection(str(filled / "other.sqlite"))
    other.execute("CREATE TABLE threads (id TEXT)")
    other.close()
    if "--home" not in arguments:
        arguments = [*arguments, "--home", "."]
    assert_refused(run, arguments, code, words, cwd=filled)


def test_a_database_of_a_newer_release_is_refused(run, filled):
    future = "INSERT INTO schema_migrations VALUES (999, 'future', '')"
    run_sql(filled / "rollbook" / "state.sqlite", future)
    words = ["newer release", "upgrade Rollbook"]
    assert_refused(run, ["list", "--home", "."], 1, words, cwd=filled)


def test_a_home_that_has_a_file_in_place_of_the_database_directory(run, home):
    (home / "rollbook").touch()
    assert_refused(run, ["sync", "--home", "."], 1, ["can't be created", "--db"], cwd=home)


def test_a_home_that_may_not_be_written_to(home, tmp_path):
    """The index then goes where --db says, and the message suggests it."""
    write_rollout(home, ID, [session_meta(ID), user_message("Read only")])
    for directory in [home, *(path for path in home.rglob("*") if path.is_dir())]:
        directory.chmod(0o555)
    index = tmp_path / "index"
    index.mkdir(mode=0o777)
    index.chmod(0o777)
    code = (
        "import os, sys\n"
        "import filelock, rollbook.cli.app, rollbook.cli.list, rollbook.cli.sync\n"
        "from rollbook import StateRuntime\n"  # all loaded while that is still allowed
        "if os.geteuid() == 0: os.setgid(65534); os.setuid(65534)\n"
        "rollbook.cli.app.main()\n"
    )
    if os.geteuid() == 0:
        for directory in (tmp_path, *tmp_path.parents):
            if not directory.stat().st_mode & 0o077:
                directory.chmod(0o755)

    def run(*arguments) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", code, *map(str, arguments)],
            capture_output=True,
            text=True,
            check=False,
            env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
        )

    refused = run("sync", "--home", home)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.count("\n") == 1
    assert "Permission denied" in refused.stderr
    assert "--db" in refused.stderr
    done = run("list", "--home", home, "--db", index / "state.sqlite")
    assert (done.returncode, "Read only" in done.stdout) == (0, True), done.stderr
    for directory in [home, *(path for path in home.rglob("*") if path.is_dir())]:
        directory.chmod(0o755)


def test_an_archived_rollout_is_not_replaced(run, filled):
    active = next((filled / "sessions").rglob(f"*{ID}.jsonl"))
    (filled / "archived_sessions").mkdir()
    (filled / "archived_sessions" / active.name).write_bytes(b"precious\n")
    assert_refused(
        run,
        ["archive", "--home", ".", ID],
        1,
        ["exists already", "was not moved", f"{ID}.jsonl"],
        cwd=filled,
    )


@pytest.mark.parametrize("verb", ["archive", "unarchive"])
def test_where_the_row_can_not_be_written_the_rollout_is_moved_back(run, filled, verb):
    if verb == "unarchive":
        assert run("archive", "--home", filled, ID).code == 0
    path = Path(run("path", "--home", filled, ID).out.strip())
    before = (path.read_bytes(), path.stat().st_mtime_ns)
    run_sql(
        filled / "rollbook" / "state.sqlite",
        "CREATE TRIGGER refuse BEFORE UPDATE ON threads BEGIN SELECT RAISE(ABORT, 'no'); END",
    )
    done = run(verb, "--home", filled, ID)
    assert (done.code, done.out) == (1, "")
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before
    assert len(list(filled.rglob(f"*{ID}.jsonl"))) == 1


def test_where_the_rollout_can_not_be_moved_the_row_stays(run, filled):
    (filled / "archived_sessions").write_bytes(b"a file in the way")
    assert_refused(run, ["archive", "--home", ".", ID], 1, ["can't be moved"], cwd=filled)
    assert run("show", "--home", filled, ID, "--json").json["archived_at"] is None
