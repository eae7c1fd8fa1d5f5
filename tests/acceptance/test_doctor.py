"""``rollbook doctor`` on homes that are well, and on such as are not."""

import json
import os
import random
import re
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path

import apsw
import filelock
import msgspec
import pexpect
import pytest

from rollbook import LogEntry, StateRuntime
from rollbook.doctor.checks import examine_home
from rollbook.doctor.repair import repair_home
from rollbook.doctor.report import Status
from rollbook.index.lock import sync_lock
from rollbook.testing import session_meta, token_count, user_message, write_rollout
from tests.conftest import RELEASES, expected, run_sql
from tests.index.test_sync import append

COMMAND = Path(sys.executable).with_name("rollbook")
IDS = [f"{number:08x}-0000-4000-8000-000000000000" for number in range(5)]


@pytest.fixture
def doctor(home):
    """Run the command; gives the exit code and the findings by check."""

    def run(*options: str | Path, within=(), **environment: str):
        done = subprocess.run(
            [*within, COMMAND, "doctor", "--json", "--home", home, *options],
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
    assert repairs == ["indexed 1 rollout, removed 0 that are gone"]
    assert doctor("--repair")[2] == []


def test_what_differs_from_the_disk_is_named(filled, doctor):
    append(rollout(filled, 0), token_count(4))
    rollout(filled, 1).unlink()
    write_rollout(filled, "99999999-0000-4000-8000-000000000000", [user_message("New")])
    code, findings, _ = doctor()
    assert code == 1
    text = " ".join(message for _, message in problems(findings))
    assert "1 rollout not in the index" in text
    assert "1 rollout changed since indexed" in text
    assert "1 rollout in the index and no longer on disk" in text
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
    future = "INSERT INTO schema_migrations VALUES (999, 'future', '')"
    run_sql(filled / "rollbook" / "state.sqlite", future)
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
    assert "1 problem to look after." in text
    assert "→ run `rollbook doctor --repair`" in text
    piped = subprocess.run(
        [COMMAND, "doctor", "--home", filled], capture_output=True, text=True, check=False
    )
    assert piped.returncode == 1
    assert all(line.count("\t") == 2 for line in piped.stdout.splitlines())


def everything(directory: Path) -> dict[str, tuple]:
    """What can be seen of a directory; a reader of a WAL notes in the -shm that it is there."""
    found: dict[str, tuple] = {}
    for path in [directory, *sorted(directory.rglob("*"))]:
        status = path.lstat()
        seen = (status.st_mode, status.st_uid, status.st_ino)
        if not path.name.endswith("-shm"):
            seen += (status.st_mtime_ns, path.read_bytes() if path.is_file() else b"")
        found[str(path)] = seen
    return found


def statuses(home: Path, **options) -> dict[str, list[str]]:
    """What is not well, or noted, in a home: sentences by status."""
    found: dict[str, list[str]] = {}
    for finding in examine_home(home, **options).findings:
        if finding.status is not Status.OK:
            found.setdefault(finding.status, []).append(finding.sentence)
    return found


def execute(path: Path, *statements: str) -> None:
    connection = apsw.Connection(str(path))
    for sql in statements:
        connection.execute(sql).fetchall()
    connection.close()


@pytest.mark.parametrize("release", RELEASES)
def test_a_home_of_every_release_is_well(corpus_home, release):
    home = corpus_home(release)
    assert repaired(home)
    assert statuses(home) == {}
    assert repaired(home) == []


def repaired(home: Path, **options) -> list[str]:
    return list(repair_home(home, **options))


# --- What may not be used ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "check"),
    [
        (".", "home"),
        ("sessions", "rollouts"),
        ("sessions/2026/01/27", "rollouts"),
        ("rollbook", "index"),
        ("rollbook/state.sqlite", "index"),
        ("rollbook/logs.sqlite", "logs"),
        ("state_5.sqlite", "codex"),
    ],
)
def test_what_may_not_be_read_is_told(filled, doctor, obeying, name, check):
    execute(filled / "state_5.sqlite", "CREATE TABLE threads (id TEXT)")
    path = filled / name
    mode = path.stat().st_mode
    path.chmod(0)
    try:
        code, findings, _ = doctor(within=obeying)
        assert code == 1
        assert check in {which for which, _ in problems(findings)}
        text = " ".join(message for _, message in problems(findings))
        assert "no longer on disk" not in text  # nobody can know that
        if name != ".":
            assert doctor("--repair", within=obeying)[0] == 1
    finally:
        path.chmod(mode)
    assert doctor()[0] == 0


def test_a_root_that_leads_to_where_one_may_not_look_is_told(filled, doctor, obeying, tmp_path):
    far = tmp_path / "far"
    far.mkdir()
    (filled / "sessions").rename(far / "sessions")
    (filled / "sessions").symlink_to(far / "sessions")
    assert doctor("--repair")[0] == 0
    far.chmod(0)
    try:
        code, findings, _ = doctor(within=obeying)
    finally:
        far.chmod(0o700)
    assert code == 1
    message = findings["rollouts"][0]["message"]
    assert message.endswith("sessions/ can't be listed: Permission denied")
    assert "no longer on disk" not in str(problems(findings))


def test_what_may_not_be_written_is_told(filled, doctor, obeying):
    database = filled / "rollbook" / "state.sqlite"
    database.chmod(0o400)
    code, findings, _ = doctor(within=obeying)
    assert (code, [check for check, _ in problems(findings)]) == (1, ["permissions"])
    assert "1 file can't be written" in problems(findings)[0][1]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_files_of_another_user_are_told(filled):
    os.chown(filled / "rollbook" / "state.sqlite", 4711, 4711)
    (message,) = statuses(filled)["problem"]
    assert "1 file not root's" in message
    assert "state.sqlite" in message


def test_another_programs_database_is_told_and_left_alone(filled, tmp_path):
    place = tmp_path / "rollbook"  # a name that means nothing elsewhere
    place.mkdir(mode=0o755)
    foreign = place / "foreign.sqlite"
    execute(foreign, "CREATE TABLE threads (id TEXT)")
    foreign.chmod(0o644)
    before = everything(place)
    (message,) = statuses(filled, database=foreign)["problem"]
    assert "is a database of another program" in message
    done = subprocess.run(
        [COMMAND, "doctor", "--repair", "--home", filled, "--db", foreign],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "not all repaired" in done.stderr
    assert "is a database of another program" in done.stdout
    foreign.write_bytes(b"damaged" * 2000)
    assert Status.DAMAGED in statuses(filled, database=foreign)
    with pytest.raises(Exception, match="foreign"):
        repaired(filled, database=foreign)
    foreign.unlink()
    execute(foreign, "CREATE TABLE threads (id TEXT)")
    foreign.chmod(0o644)
    assert {name: seen[:2] for name, seen in everything(place).items()} == {
        name: seen[:2] for name, seen in before.items()
    }


# --- Databases --------------------------------------------------------------------------------


def test_an_empty_file_is_no_index_yet(filled):
    database = filled / "rollbook" / "state.sqlite"
    database.write_bytes(b"")
    assert "is empty" in statuses(filled)["problem"][0]
    repaired(filled)
    assert statuses(filled).get("problem") is None


def test_a_directory_in_its_place_is_told(filled):
    database = filled / "rollbook" / "state.sqlite"
    database.unlink()
    database.mkdir()
    assert f"{database} is no file" in statuses(filled)["problem"]


def test_an_index_of_an_older_release_is_noted_and_brought_up_to_date(filled):
    database = filled / "rollbook" / "state.sqlite"
    with StateRuntime.open(filled, backfill=False) as state:
        threads = state.list_threads(100, allowed_sources=("cli", "exec")).items
    orders = {"creation": "created_at", "update": "updated_at", "recency": "recency_at"}
    execute(
        database,
        *(f"DROP INDEX threads_by_{order}" for order in orders),
        *(f"DROP INDEX threads_of_group_by_{order}" for order in orders),
        "ALTER TABLE threads DROP COLUMN group_id",
        "DROP TABLE thread_groups",
        "DROP TABLE thread_texts",
        *(
            f"DROP TABLE {table}"
            for table in ("annotations", "thread_tags", "relocations", "annotation_state")
        ),
        f"UPDATE threads SET title = printf('%.*c', 1000, 'x') WHERE id = '{threads[0].id}'",
        *(
            f"CREATE INDEX threads_by_{order}"
            f" ON threads (archived, {column} DESC, id DESC, has_user_event)"
            for order, column in orders.items()
        ),
        "DROP INDEX threads_by_parent",
        "DROP INDEX threads_by_fork",
        "DELETE FROM schema_migrations WHERE version >= 4",
    )
    assert any("schema 3, which becomes 6" in text for text in statuses(filled)["note"])
    repaired(filled)
    assert statuses(filled) == {}
    with StateRuntime.open(filled, backfill=False) as state:
        first, *others = state.list_threads(100, allowed_sources=("cli", "exec")).items
        assert others == threads[1:]
        assert first.title == "x" * 300
        assert state.get_thread(first.id).title == "x" * 1000


def test_a_write_ahead_log_that_is_too_large_is_brought_into_the_database(filled, monkeypatch):
    for module in ("databases", "repair"):
        monkeypatch.setattr(f"rollbook.doctor.{module}.LARGE_WAL_BYTES", 4096)
    database = filled / "rollbook" / "state.sqlite"
    writer = subprocess.Popen(
        [sys.executable, "-c", OWNER, database], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert writer.stdout.readline() == b"open\n"
    writer.kill()
    writer.communicate(timeout=20)
    (message,) = statuses(filled)["problem"]
    assert "the log is too large" in message
    assert repaired(filled) == [f"brought the write-ahead log of {database} into it"]
    assert statuses(filled) == {}


def test_rows_that_a_damaged_file_still_has_are_waited_for(filled):
    kept = filled / "rollbook" / "logs.sqlite.damaged-20260101T000000.000000Z-x"
    kept.write_bytes(b"x" * 1000)
    hints = {finding.hint for finding in examine_home(filled).findings}
    assert "nothing needs them; they may be deleted" in hints
    kept.with_name(f"{kept.name}-pending").touch()
    hints = {finding.hint for finding in examine_home(filled).findings}
    assert "rows of it are still to be carried over: run `rollbook doctor --repair`" in hints


def test_an_index_that_was_never_compared_is_noted(filled):
    execute(filled / "rollbook" / "state.sqlite", "DELETE FROM backfill_state")
    assert statuses(filled) == {"note": ["the whole home was never compared with the index"]}


@pytest.mark.parametrize(
    "name", ["rollbook/state.sqlite", "rollbook/logs.sqlite", "state_5.sqlite"]
)
def test_damage_of_any_kind_is_told_and_never_raised(filled, name):
    path = filled / name
    if not path.exists():
        shutil.copy(filled / "rollbook" / "state.sqlite", path)
    whole = path.read_bytes()
    chance = random.Random(name)
    for _ in range(60):
        content = bytearray(whole)
        for _ in range(chance.choice((1, 5, 200))):
            content[chance.randrange(len(content))] = chance.randrange(256)
        if chance.random() < 0.2:
            del content[chance.randrange(len(content)) :]
        path.write_bytes(content)
        before = path.read_bytes()
        examine_home(filled)
        assert path.read_bytes() == before


# --- Index and disk ---------------------------------------------------------------------------


def test_threads_that_the_index_has_lost_are_read_again(filled):
    execute(filled / "rollbook" / "state.sqlite", f"DELETE FROM threads WHERE id = '{IDS[1]}'")
    assert statuses(filled) == {
        "problem": [f"1 thread lost from the index, not from the disk: {IDS[1]}"]
    }
    assert repaired(filled) == ["indexed 1 rollout, removed 0 that are gone"]
    assert statuses(filled) == {}


def test_what_need_not_be_there_is_noted(filled):
    path = rollout(filled, 0)
    path.with_name(f"{path.name}.zst").touch()
    path.with_name(f".{path.name}.tmp").touch()
    (path.parent / "notes.tmp").touch()
    leftover, pair = statuses(filled)["note"]
    assert "1 unfinished file of recorders that were killed: sessions/" in leftover
    assert "1 rollout there plain and compressed: sessions/" in pair
    assert set(statuses(filled)) == {"note"}


def test_a_thread_whose_rollout_was_never_here_is_noted(filled, tmp_path):
    with StateRuntime.open(filled, backfill=False) as state:
        thread = state.get_thread(IDS[0])
        other = "77777777-0000-4000-8000-000000000000"
        elsewhere = str(tmp_path / "x.jsonl")
        state.upsert_thread(msgspec.structs.replace(thread, id=other, rollout_path=elsewhere))
    assert statuses(filled) == {"note": [f"1 thread without an indexed rollout: {other}"]}


def test_segments_and_forks_are_no_duplicates(corpus_home):
    home = corpus_home("0.169.0-compressed" if "0.169.0-compressed" in RELEASES else RELEASES[-1])
    repaired(home)
    assert not [f for f in examine_home(home).findings if f.check == "duplicate ids"]


def test_names_that_are_no_text_and_such_as_would_harm_a_terminal(filled, doctor):
    hostile = "\x1b]0;owned\x07\u202e"
    (filled / os.fsdecode(b"\xff.sqlite")).touch()
    (filled / f"{hostile}.sqlite").touch()
    (filled / "sessions" / f"rollout-{hostile}.jsonl").touch()
    (filled / "sessions" / os.fsdecode(b".rollout-\xff.tmp")).touch()
    code, findings, _ = doctor()
    assert code == 1
    assert any("\\udcff.sqlite" in each["message"] for each in findings["codex"])
    for options in ({}, {"COLUMNS": "40"}):
        text = pexpect.run(
            f"{COMMAND} doctor --home {filled}", encoding="utf-8", env=os.environ | options
        )
        text = re.sub(r"\x1b\[[\d;]*m", "", text)
        assert "owned" in text
        assert not re.search("[\x00-\x09\x0b\x0c\x0e-\x1f\x7f-\x9f\u202e\ud800-\udfff]", text)
    piped = subprocess.run([COMMAND, "doctor", "--home", filled], capture_output=True, check=False)
    assert b"owned" in piped.stdout
    assert b"\x1b" not in piped.stdout


# --- The clock --------------------------------------------------------------------------------


def test_rows_from_the_future_are_a_problem(filled):
    execute(
        filled / "rollbook" / "state.sqlite",
        f"UPDATE threads SET recency_at = 4000000000 WHERE id = '{IDS[3]}'",
        "UPDATE backfill_state SET completed_at = 4000000000",
    )
    execute(filled / "rollbook" / "logs.sqlite", "UPDATE logs SET ts = 4000000000")
    thread, compared, row = statuses(filled)["problem"]
    assert thread == f"1 thread with a time in the future: {IDS[3]}"
    assert "last compared with the disk in the future: 2096-" in compared
    assert row == "1 log row with a time in the future"


# --- Other processes --------------------------------------------------------------------------


def test_what_another_process_keeps_from_being_repaired_is_told(filled, doctor, monkeypatch):
    monkeypatch.setattr("rollbook.doctor.repair._WAIT_S", 0.1)
    rollout(filled, 0).unlink()
    with sync_lock(str(filled / "rollbook" / "state.sqlite"), 0):
        code, findings, repairs = doctor("--repair")
        assert (code, repairs) == (1, [])
        (finding,) = [f for f in findings["locks"] if "is indexing" in f["message"]]
        assert f"process {os.getpid()} (" in finding["message"]
        with pytest.raises(Exception, match="is syncing"):
            repaired(filled)
    assert doctor("--repair")[0] == 0


def test_lock_files_on_a_network_file_system_are_looked_at(filled, monkeypatch):
    monkeypatch.setenv("ROLLBOOK_NETWORK_FILES", "1")
    repaired(filled)
    lock = filled / "rollbook" / "state.sqlite.network.lock"
    with filelock.SoftFileLock(lock):
        machine = lock.read_text().splitlines()[1]
    lock.write_text(f"4194305\n{machine}\n")
    assert any("1 lock file of processes that have ended" in n for n in statuses(filled)["note"])
    lock.write_text("1\nanother-machine\n")
    sentences = [finding.sentence for finding in examine_home(filled).findings]
    assert f"1 lock file in use: {lock}: process 1 of another-machine" in sentences


# --- The agent's databases --------------------------------------------------------------------

OWNER = """
import sys, apsw
connection = apsw.Connection(sys.argv[1])
connection.execute("PRAGMA wal_autocheckpoint = 0; UPDATE threads SET title = 'new'").fetchall()
connection.execute("BEGIN; UPDATE threads SET title = 'newer'").fetchall()
print("open", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def agents(corpus_home):
    """A home with the database that its release keeps, as its rows say."""
    home = corpus_home("0.169.0")
    rows = expected("0.169.0")["threads"]
    connection = apsw.Connection(str(home / "state_5.sqlite"))
    connection.execute("PRAGMA journal_mode = WAL").fetchall()
    columns = ", ".join(rows[0])
    connection.execute(f"CREATE TABLE threads ({columns}, PRIMARY KEY (id))").fetchall()
    values = ", ".join(f":{column}" for column in rows[0])
    connection.executemany(f"INSERT INTO threads VALUES ({values})", rows).fetchall()
    connection.close()
    execute(home / "state_4.sqlite", "CREATE TABLE threads (id)", "INSERT INTO threads VALUES (7)")
    execute(home / "memories.sqlite", "CREATE TABLE logs (x)", "CREATE VIEW threads AS SELECT 1 a")
    repaired(home)
    return home


def test_a_database_of_the_agent_is_compared_and_stays_as_it_is(agents):
    before = everything(agents)
    assert statuses(agents) == {}
    found = [f.message for f in examine_home(agents).findings if f.check == "codex"]
    assert any(text.startswith("state_5.sqlite: 33 threads, ") for text in found)
    assert all("journal mode" in text for text in found)
    assert everything(agents) == before
    assert repaired(agents) == []
    own = agents / "rollbook"
    after = everything(agents)
    assert {n: s for n, s in after.items() if not n.startswith(str(own))} == {
        n: s for n, s in before.items() if not n.startswith(str(own))
    }


def test_a_database_that_the_agent_has_open_stays_as_it_is(agents):
    path = agents / "state_5.sqlite"
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert owner.stdout.readline() == b"open\n"
        before = everything(agents)
        assert {f"{path}{end}" for end in ("", "-wal", "-shm")} <= set(before)
        assert statuses(agents) == {}
        assert everything(agents) == before
    finally:
        owner.communicate(b"\n", timeout=20)


def test_threads_that_only_the_agent_knows_are_a_problem(agents):
    lost = expected("0.169.0")["threads"][0]["id"]
    database = agents / "rollbook" / "state.sqlite"
    execute(database, f"DELETE FROM threads WHERE id = '{lost}'")
    execute(database, f"DELETE FROM rollout_files WHERE thread_id = '{lost}'")
    execute(agents / "state_5.sqlite", "INSERT INTO threads (id) VALUES ('gone from the disk')")
    first, second = statuses(agents)["problem"]
    assert first.startswith("1 rollout not in the index: ")
    assert second == f"1 thread known to Codex, with a rollout, and not indexed: {lost}"
    assert repaired(agents) == ["indexed 1 rollout, removed 0 that are gone"]
    assert statuses(agents) == {}


# --- How it looks -----------------------------------------------------------------------------


def test_a_terminal_of_any_width_and_encoding(filled):
    rollout(filled, 0).unlink()
    for columns in (20, 60, 200):
        text = pexpect.run(
            f"{COMMAND} doctor --home {filled}",
            encoding="utf-8",
            env=os.environ | {"NO_COLOR": "1"},
            dimensions=(40, columns),
        )
        assert "\x1b" not in text
        groups = [line for line in text.splitlines() if line and not line.startswith(" ")]
        assert groups[0] == "Home"
        assert groups[-1] == "1 problem to look after."
    plain = pexpect.run(
        f"{COMMAND} doctor --home {filled}",
        encoding="utf-8",
        env=os.environ | {"PYTHONIOENCODING": "ascii", "NO_COLOR": "1"},
    )
    assert plain.isascii()
    assert "  ! index and disk  1 rollout in the index" in plain
    assert "> run `rollbook sync`" in plain


def test_a_missing_home_is_told_once(home):
    done = subprocess.run(
        [COMMAND, "doctor", "--repair", "--json", "--home", home / "none"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr.count("home_not_found")) == (3, "", 1)
