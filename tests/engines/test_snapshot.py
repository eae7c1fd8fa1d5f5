"""Reading the logs in a database that another program owns: seen as they are, and left as they are."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest

from rollbook import LogEntry, LogQuery, LogReader, LogRow, StateRuntime
from rollbook.errors import DatabaseDamagedError, DatabaseError
from rollbook.store.snapshot import Snapshot

COMMON = """id INTEGER PRIMARY KEY AUTOINCREMENT, ts INTEGER NOT NULL, ts_nanos INTEGER NOT NULL,
    level TEXT NOT NULL, target TEXT NOT NULL, {}, module_path TEXT, file TEXT, line INTEGER,
    thread_id TEXT"""
FORMS = {
    "message": COMMON.format("message TEXT"),
    "feedback_log_body": COMMON.format("feedback_log_body TEXT")
    + ", process_uuid TEXT, estimated_bytes INTEGER NOT NULL DEFAULT 0",
}
# Does what it is told: each line of its input is a statement, or the end.
OWNER = """
import sys, apsw
connection = apsw.Connection(sys.argv[1])
connection.set_busy_timeout(5000)
for line in sys.stdin:
    try:
        print("done", connection.execute(line).fetchall(), flush=True)
    except apsw.Error as error:
        print("failed", error, flush=True)
connection.close()
"""


class Owner:
    """Another process that has the database open."""

    def __init__(self, path: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", OWNER, path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, *statements: str) -> None:
        for sql in statements:
            self._process.stdin.write(" ".join(sql.split()) + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
            assert answer.startswith("done"), answer

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait(20)
        self._process.stdout.close()

    def kill(self) -> None:
        self._process.kill()
        self.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "codex" / "logs_2.sqlite"


@pytest.fixture
def own(path: Path) -> Iterator[Callable[[], Owner]]:
    owners: list[Owner] = []

    def start() -> Owner:
        owners.append(Owner(path))
        return owners[-1]

    path.parent.mkdir()
    yield start
    for owner in owners:
        owner._process.kill()
        owner._process.wait(20)
        owner._process.stdin.close()
        owner._process.stdout.close()


@pytest.fixture(params=FORMS)
def column(request: pytest.FixtureRequest) -> str:
    return request.param


def create(column: str = "message", mode: str = "WAL") -> tuple[str, ...]:
    return f"PRAGMA journal_mode = {mode}", f"CREATE TABLE logs ({FORMS[column]})"


def insert(message: str, column: str = "message", thread_id: str = "t") -> str:
    return (
        f"INSERT INTO logs (ts, ts_nanos, level, target, {column}, module_path, file, line,"
        f" thread_id) VALUES (7, 8, 'WARN', 'codex', '{message}', 'core', 'src/a.rs', 9,"
        f" '{thread_id}')"
    )


def messages(path: Path, **query: Any) -> list[str | None]:
    return [row.message for row in LogReader(path).query_logs(LogQuery(**query))]


def everything(path: Path) -> dict[str, tuple[Any, ...]]:
    """What can be seen of a directory without opening a database."""
    found = {".": (path.parent.stat().st_mtime_ns,)}
    for file in path.parent.iterdir():
        status = file.stat()
        found[file.name] = (status.st_mtime_ns, status.st_ino, status.st_mode, file.read_bytes())
    return found


def use_all(reader: LogReader) -> None:
    reader.query_logs(LogQuery(search="o"))
    reader.thread_ids("", 5)
    reader.last_id()


def test_a_closed_database_of_either_form_is_read_and_nothing_is_changed(path, own, column):
    owner = own()
    owner.run(*create(column), insert("one", column), insert("two", column, "u"))
    owner.close()
    before = everything(path)
    assert set(before) == {".", path.name}
    reader = LogReader(path)
    assert reader.exists()
    (row,) = reader.query_logs(LogQuery(search="TWO", level="warning", file_like=["A.RS"]))
    assert row == LogRow(
        id=2,
        ts=7,
        ts_nanos=8,
        level="WARN",
        target="codex",
        message="two",
        thread_id="u",
        file="src/a.rs",
        line=9,
    )
    assert messages(path, thread_ids=["t"], module_like=["or"]) == ["one"]
    assert messages(path, search="codex") == []
    assert reader.thread_ids("", 5) == ["t", "u"]
    assert reader.thread_ids("u", 5) == ["u"]
    assert reader.last_id() == 2
    assert everything(path) == before


def test_an_open_database_is_read_with_what_only_its_wal_holds(path, own, column):
    owner = own()
    owner.run(*create(column), insert("one", column))
    before = everything(path)
    assert set(before) == {".", *(path.name + end for end in ("", "-wal", "-shm"))}
    assert messages(path) == ["one"]
    after = everything(path)
    assert set(after) == set(before)
    for name in (path.name, path.name + "-wal"):
        assert after[name] == before[name]
    owner.run(insert("two", column))
    assert messages(path) == ["one", "two"]
    owner.run("PRAGMA wal_checkpoint(TRUNCATE)")
    assert messages(path) == ["one", "two"]
    owner.close()
    assert set(everything(path)) == {".", path.name}
    assert messages(path) == ["one", "two"]


@pytest.mark.parametrize("begin", ["BEGIN IMMEDIATE", "BEGIN EXCLUSIVE"])
def test_an_open_write_transaction_is_not_seen_and_not_held_up(path, own, begin):
    owner = own()
    owner.run(*create(), insert("one"), begin, insert("two"))
    assert messages(path) == ["one"]
    owner.run(insert("three"))
    assert messages(path) == ["one"]
    owner.run("COMMIT")
    assert messages(path) == ["one", "two", "three"]
    owner.run(begin, insert("four"), "ROLLBACK")
    assert messages(path) == ["one", "two", "three"]


def test_a_write_transaction_that_wrote_nothing_yet_is_not_held_up(path, own):
    owner = own()
    owner.run(*create(), insert("one"))
    owner.close()
    second = own()
    second.run("BEGIN IMMEDIATE")
    assert messages(path) == ["one"]
    second.run(insert("two"), "COMMIT")
    assert messages(path) == ["one", "two"]


def test_a_database_with_a_rollback_journal_is_read_while_it_is_written(path, own):
    owner = own()
    owner.run(*create(mode="DELETE"), insert("one"), "BEGIN IMMEDIATE", insert("two"))
    assert path.with_name(path.name + "-journal").exists()
    assert messages(path) == ["one"]
    owner.run("COMMIT")
    assert messages(path) == ["one", "two"]


def test_all_of_one_read_sees_one_moment(path, own):
    owner = own()
    owner.run(*create(), insert("one"))

    def look(tx: Any) -> tuple[int, int]:
        first = tx.query("SELECT count(*) FROM logs")[0][0]
        owner.run(insert("more"))
        return first, tx.query("SELECT count(*) FROM logs")[0][0]

    first, second = Snapshot(path).read(look)
    assert first == second
    assert Snapshot(path).read(lambda tx: tx.query("SELECT count(*) FROM logs")) == [(2,)]


def test_a_closed_database_that_changes_while_it_is_read_is_read_again(path, own):
    owner = own()
    owner.run(*create(), insert("one"))
    owner.close()
    changes = [insert("two")]

    def look(tx: Any) -> list[Any]:
        found = tx.query("SELECT message FROM logs ORDER BY id")
        while changes:
            other = own()
            other.run(changes.pop())
            other.close()
        return found

    assert Snapshot(path).read(look) == [("one",), ("two",)]


def test_rows_that_come_are_followed_whether_their_owner_stays_or_goes(path, own):
    staying = own()
    staying.run(*create())
    reader = LogReader(path)
    last = reader.last_id()
    seen = []
    for number in range(4):
        staying.run(insert(f"staying {number}"))
        going = own()
        going.run(insert(f"going {number}"))
        going.close()
        rows = reader.query_logs(LogQuery(after_id=last))
        seen += [row.message for row in rows]
        last = rows[-1].id
    staying.close()
    for number in range(4, 8):
        owner = own()
        owner.run(insert(f"going {number}"))
        owner.close()
        rows = reader.query_logs(LogQuery(after_id=last))
        seen += [row.message for row in rows]
        last = rows[-1].id
    expected = [f"{kind} {number}" for number in range(4) for kind in ("staying", "going")]
    assert seen == expected + [f"going {number}" for number in range(4, 8)]
    assert reader.last_id() == last


def test_a_database_that_was_replaced_is_read_anew(path, own):
    owner = own()
    owner.run(*create(), insert("old"))
    owner.close()
    reader = LogReader(path)
    assert reader.last_id() == 1
    os.replace(path, path.with_name("kept.sqlite"))
    owner = own()
    owner.run(*create("feedback_log_body"), insert("new", "feedback_log_body"))
    assert [row.message for row in reader.query_logs(LogQuery())] == ["new"]


def test_what_a_killed_owner_left_in_its_wal_is_read_and_left(path, own):
    owner = own()
    owner.run(*create(), insert("one"), "BEGIN", insert("uncommitted"))
    owner.kill()
    before = everything(path)
    assert messages(path) == ["one"]
    assert messages(path) == ["one"]
    after = everything(path)
    for name in (path.name, path.name + "-wal"):
        assert after[name] == before[name]
    owner = own()
    owner.run(insert("two"))
    assert messages(path) == ["one", "two"]


def test_nothing_can_be_written_through_a_snapshot(path, own):
    owner = own()
    owner.run(*create(), insert("one"))
    for _ in ("open", "closed"):
        for sql in ("DELETE FROM logs", "CREATE TABLE t (x)", "PRAGMA user_version = 5"):
            with pytest.raises(DatabaseError):
                Snapshot(path).read(lambda tx, sql=sql: tx.execute(sql))
        owner.close()
    assert messages(path) == ["one"]
    assert Snapshot(path).read(lambda tx: tx.query("PRAGMA user_version")) == [(0,)]


@pytest.mark.parametrize("parents", [True, False])
def test_a_missing_database_is_named_and_not_created(path, parents):
    if parents:
        path.parent.mkdir()
    reader = LogReader(path)
    assert not reader.exists()
    for use in (use_all, lambda r: r.query_logs(LogQuery()), LogReader.last_id):
        with pytest.raises(DatabaseError, match="logs_2"):
            use(reader)
    assert path.parent.exists() == parents
    assert not parents or list(path.parent.iterdir()) == []


@pytest.mark.parametrize(
    "content", [b"no database at all\n" * 99, b"SQLite format 3\0" + b"x" * 5000]
)
def test_what_is_no_database_is_said_to_be_none(path, content):
    path.parent.mkdir()
    path.write_bytes(content)
    before = everything(path)
    for use in (use_all, lambda r: r.thread_ids("", 1), LogReader.last_id):
        with pytest.raises(DatabaseDamagedError, match="logs_2"):
            use(LogReader(path))
    assert everything(path) == before


def test_an_empty_file_and_a_directory_are_refused(path):
    path.parent.mkdir()
    path.touch()
    with pytest.raises(DatabaseError):
        use_all(LogReader(path))
    path.unlink()
    path.mkdir()
    with pytest.raises(DatabaseError):
        use_all(LogReader(path))


def test_a_database_without_a_table_of_logs_is_refused(path, own):
    owner = own()
    owner.run("CREATE TABLE threads (id TEXT)")
    owner.close()
    before = everything(path)
    uses: list[Callable[[LogReader], Any]] = [
        lambda r: r.query_logs(LogQuery()),
        lambda r: r.thread_ids("", 1),
        LogReader.last_id,
    ]
    for use in uses:
        with pytest.raises(DatabaseError, match="logs"):
            use(LogReader(path))
    assert everything(path) == before


@pytest.mark.parametrize(
    "name", ["a b.sqlite", "100%41?mode=rw#x.sqlite", "é ☃.sqlite", "a&b=c.sqlite", "file:x.sqlite"]
)
def test_a_file_of_any_name_is_read(tmp_path, name):
    path = tmp_path / name
    connection = apsw.Connection(str(tmp_path / "plain"))
    for sql in (*create(), insert("one")):
        connection.execute(sql).fetchall()
    connection.close()
    (tmp_path / "plain").rename(path)
    assert messages(path) == ["one"]
    assert [file.name for file in tmp_path.iterdir()] == [name]


def test_a_file_whose_name_is_no_text_is_read(tmp_path):
    path = tmp_path / os.fsdecode(b"\xff.sqlite")
    connection = apsw.Connection(str(tmp_path / "plain"))
    for sql in (*create(), insert("one")):
        connection.execute(sql).fetchall()
    connection.close()
    (tmp_path / "plain").rename(path)
    assert messages(path) == ["one"]


def test_the_reader_finds_the_logs_of_a_home(home, tmp_path, monkeypatch):
    database = home / "rollbook" / "state.sqlite"
    reader = LogReader.open(home)
    assert not reader.exists()
    with StateRuntime.open(home, backfill=False) as state:
        assert not reader.exists()
        state.insert_log(LogEntry(ts=2**40, ts_nanos=0, level="INFO", target="t", message="one"))
        for found in (reader, LogReader.open(home), LogReader.open(database=database)):
            assert found.path == home / "rollbook" / "logs.sqlite"
            assert [row.message for row in found.query_logs(LogQuery())] == ["one"]
    monkeypatch.setenv("ROLLBOOK_DB", str(database))
    assert LogReader.open(tmp_path).last_id() == 1


def test_the_reader_takes_a_log_database_itself(home, path, own):
    owner = own()
    owner.run(*create(), insert("one"))
    assert LogReader.open(home, path).path == path
    with StateRuntime.open(home, backfill=False) as state:
        state.insert_log(LogEntry(ts=2**40, ts_nanos=0, level="INFO", target="t"))
    logs = home / "rollbook" / "logs.sqlite"
    assert LogReader.open(database=logs).path == logs
    assert LogReader.open(database=logs).last_id() == 1


def settle(path: Path) -> None:
    """Have all of a database's files look as if they had been left alone for long."""
    for file in path.parent.iterdir():
        os.utime(file, ns=(1, 1))


def left_alone(reader: LogReader) -> tuple[int, ...]:
    """What a reader says of a database that it reads, and nothing writes to.

    What keeps the logs may bring the file up to its log meanwhile, once.
    """
    for _ in range(3):
        settle(reader.path)
        before = reader.state()
        reader.query_logs(LogQuery())
        if before is not None and reader.state() == before:
            return before
    pytest.fail("a reader changes what it reads")


def test_whether_a_database_has_changed_shows_without_opening_it(home):
    reader = LogReader.open(home)
    assert reader.state() is None
    with StateRuntime.open(home, backfill=False) as state:
        state.insert_log(LogEntry(1, 0, "INFO", "t"))
        assert reader.state() is None  # another row might come at the same time by the file's clock
        before = left_alone(reader)
        for _ in range(20):  # more than the log has room for, should it begin anew
            state.insert_log(LogEntry(1, 0, "INFO", "t"))
        assert reader.state() != before
        settle(reader.path)
        assert reader.state() != before  # by the size of the log
    settle(reader.path)
    assert reader.state() is not None
