"""``rollbook doctor`` on homes that are well, and on such as are not."""

import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import apsw
import pexpect
import pytest

from rollbook import LogEntry, StateRuntime
from rollbook.testing import session_meta, token_count, user_message, write_rollout
from tests.index.test_sync import append

COMMAND = Path(sys.executable).with_name("rollbook")
IDS = [f"{number:08x}-0000-4000-8000-000000000000" for number in range(5)]


@pytest.fixture
def doctor(home):
    """Run the command; gives the exit code and the findings by check."""

    def run(*options: str, **environment: str):
        done = subprocess.run(
            [COMMAND, "doctor", "--json", "--home", home, *options],
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | environment,
        )
        assert "Traceback" not in done.stderr
        report = json.loads(done.stdout)
        assert report["healthy"] is (done.returncode == 0)
        findings: dict[str, list[dict]] = {}
        for finding in report["checks"]:
            findings.setdefault(finding["check"], []).append(finding)
        return done.returncode, findings, report["repairs"]

    return run


@pytest.fixture
def filled(home):
    """A home that is well."""
    for thread_id in IDS:
        write_rollout(home, thread_id, [session_meta(thread_id), user_message("Hi")])
    with StateRuntime.open(home, backfill=False) as state:
        state.sync()
        state.insert_log(LogEntry(1, 2, "INFO", "t", "m"))
    return home


def problems(findings: dict) -> list[tuple[str, str]]:
    return [
        (check, each["message"])
        for check, found in findings.items()
        for each in found
        if each["status"] not in {"ok", "note"}
    ]


def rollout(home: Path, number: int) -> Path:
    return next(home.rglob(f"rollout-*{IDS[number]}.jsonl"))


def test_a_home_that_is_well(filled, doctor):
    code, findings, repairs = doctor()
    assert (code, problems(findings), repairs) == (0, [], [])
    (index,) = findings["index"]
    assert index["details"]["rows"] == {"threads": 5}
    assert index["details"]["integrity"] == "ok"
    assert findings["logs"][0]["details"]["rows"] == {"logs": 1}
    assert findings["home"][0]["details"]["rollouts"] == 5
    assert doctor("--full")[0] == 0


def test_looking_changes_nothing(filled, doctor):
    def look():
        return {
            path: (path.stat().st_mtime_ns, path.stat().st_size, path.stat().st_ino)
            for path in filled.rglob("*")
        }

    before = look()
    doctor()
    assert look() == before


def test_a_home_without_an_index_gets_one(home, doctor):
    write_rollout(home, IDS[0], [session_meta(IDS[0]), user_message("Hi")])
    code, findings, _ = doctor()
    assert code == 1
    assert findings["index"][0]["hint"] == "run `rollbook sync`"
    assert not (home / "rollbook").exists()
    code, findings, repairs = doctor("--repair")
    assert (code, problems(findings)) == (0, [])
    assert repairs == ["indexed 1 rollouts, removed 0 that are gone"]
    assert doctor("--repair")[2] == []


def test_what_differs_from_the_disk_is_named(filled, doctor):
    append(rollout(filled, 0), token_count(4))
    rollout(filled, 1).unlink()
    write_rollout(filled, "99999999-0000-4000-8000-000000000000", [user_message("New")])
    code, findings, _ = doctor()
    assert code == 1
    text = " ".join(message for _, message in problems(findings))
    assert "1 rollout not in the index" in text
    assert "1 rollout changed since they were indexed" in text
    assert "1 rollout in the index and no longer there" in text
    assert doctor("--repair")[0] == 0


def test_two_rollouts_of_one_id_are_named(filled, doctor):
    archive = filled / "archived_sessions"
    archive.mkdir()
    (archive / rollout(filled, 2).name).write_bytes(rollout(filled, 2).read_bytes())
    code, findings, _ = doctor("--repair")
    assert code == 1
    (finding,) = findings["duplicate ids"]
    assert len(finding["details"]["paths"]) == 2
    assert IDS[2] in finding["message"]


def test_what_can_not_be_read_is_named(filled, doctor, tmp_path):
    rollout(filled, 3).with_name("rollout-2026-01-01T00-00-00-x.jsonl").symlink_to(tmp_path)
    write_rollout(filled, "88888888-0000-4000-8000-000000000000", [])
    code, findings, _ = doctor("--repair")
    assert code == 1
    text = " ".join(finding["message"] for finding in findings["rollouts"])
    assert "is a symbolic link" in text
    assert "is empty" in text


@pytest.mark.parametrize("name", ["state", "logs"])
def test_a_damaged_database_is_told_and_made_anew(filled, doctor, name):
    database = filled / "rollbook" / f"{name}.sqlite"
    content = bytearray(database.read_bytes())
    content[4096 * 3 : 4096 * 6] = b"\x5a" * 4096 * 3
    database.write_bytes(content)
    code, findings, _ = doctor("--full")
    assert code == 5
    assert {check for check, _ in problems(findings)} >= {"index" if name == "state" else "logs"}
    code, findings, repairs = doctor("--repair")
    assert (code, problems(findings)) == (0, [])
    assert any("set a damaged database aside" in done for done in repairs)
    kept = findings["index" if name == "state" else "logs"][1]
    assert (kept["status"], "1 damaged file kept" in kept["message"]) == ("note", True)


def test_no_database_at_all_in_its_place(filled, doctor):
    (filled / "rollbook" / "state.sqlite").write_text("not a database\n" * 1000)
    assert doctor()[0] == 5
    assert doctor("--repair")[0] == 0


def test_files_that_others_may_use_are_made_private(filled, doctor):
    directory = filled / "rollbook"
    directory.chmod(0o755)
    (directory / "state.sqlite").chmod(0o644)
    code, findings, _ = doctor()
    assert (code, problems(findings)[0][0]) == (1, "permissions")
    code, _, repairs = doctor("--repair")
    assert code == 0
    assert len(repairs) == 2
    modes = {stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()}
    assert (modes, stat.S_IMODE(directory.stat().st_mode)) == ({0o600}, 0o700)


HOLDER = """
import sys
from rollbook import RolloutRecorder, StateRuntime
state = StateRuntime.open(sys.argv[1], backfill=False)
recorder = RolloutRecorder.create(state, git=False)
recorder.flush()
with state._engine.write():
    print(recorder.rollout_path.name, flush=True)
    sys.stdin.readline()
recorder.close()
state.close()
"""


@pytest.mark.skipif(not Path("/proc/locks").exists(), reason="the system doesn't tell who locks")
def test_who_holds_locks_is_named_and_a_stopped_one_is_a_problem(filled, doctor):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, filled],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    name = holder.stdout.readline().strip()
    text = " ".join(f["message"] for f in doctor()[1]["locks"])
    assert f"process {holder.pid} (python" in text
    assert "is writing to the index" in text
    assert "has the index open" in text
    assert name in text
    holder.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, holder.pid, os.WSTOPPED | os.WNOWAIT)
    code, findings, _ = doctor()
    assert code == 1
    assert any(f"kill -CONT {holder.pid}" in finding["hint"] for finding in findings["locks"])
    holder.send_signal(signal.SIGCONT)
    holder.communicate("\n", timeout=20)
    assert holder.returncode == 0


def test_a_network_file_system_is_warned_of(filled, doctor):
    code, findings, _ = doctor(ROLLBOOK_NETWORK_FILES="1")
    assert code == 0
    (finding,) = findings["file system"]
    assert (finding["status"], finding["details"]["journal_mode"]) == ("note", "truncate")


def test_rollouts_from_the_future_are_a_problem(filled, doctor):
    os.utime(rollout(filled, 0), (4_000_000_000, 4_000_000_000))
    code, findings, _ = doctor("--repair")
    assert code == 1
    assert [check for check, _ in problems(findings)] == ["clock"]


def test_the_agents_databases_are_looked_at_and_never_changed(filled, doctor):
    path = filled / "state_5.sqlite"
    codex = apsw.Connection(str(path))
    codex.execute("PRAGMA journal_mode = WAL; CREATE TABLE threads (id TEXT)").fetchall()
    codex.execute("INSERT INTO threads VALUES ('x'), ('y')").fetchall()
    before = {p: p.read_bytes() for p in filled.glob("state_5*") if not p.name.endswith("-shm")}
    for option in ([], ["--repair"]):
        code, findings, _ = doctor(*option)
        assert code == 0
        (finding,) = findings["codex"]
        assert "state_5.sqlite: 2 threads" in finding["message"]
    assert {p: p.read_bytes() for p in before} == before
    codex.close()
    path.write_bytes(b"damaged" * 2000)
    code, findings, _ = doctor("--repair")
    assert code == 1
    assert path.read_bytes() == b"damaged" * 2000


def test_a_newer_schema_is_a_problem(filled, doctor):
    database = apsw.Connection(str(filled / "rollbook" / "state.sqlite"))
    database.execute("INSERT INTO schema_migrations VALUES (999, 'future', '')")
    database.close()
    code, findings, _ = doctor()
    assert code == 1
    assert "newer than this release" in problems(findings)[0][1]


def test_a_missing_home(home):
    done = subprocess.run(
        [COMMAND, "doctor", "--home", home / "none"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (3, "")


def test_on_a_terminal_and_in_a_pipe(filled):
    text = pexpect.run(f"{COMMAND} doctor --home {filled}", encoding="utf-8", env=os.environ)
    assert "All is well." in text
    assert "✓" in text
    (filled / "rollbook" / "state.sqlite").chmod(0o644)
    text = pexpect.run(f"{COMMAND} doctor --home {filled}", encoding="utf-8", env=os.environ)
    assert "1 to look after." in text
    assert "→ run `rollbook doctor --repair`" in text
    piped = subprocess.run(
        [COMMAND, "doctor", "--home", filled], capture_output=True, text=True, check=False
    )
    assert piped.returncode == 1
    assert all(line.count("\t") == 2 for line in piped.stdout.splitlines())
