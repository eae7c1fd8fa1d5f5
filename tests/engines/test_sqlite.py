"""What only the SQLite engine does: files, locks, schema."""

import os
import shutil
import stat
import subprocess
import sys
import threading
from pathlib import Path

import apsw
import pytest

from rollbook import StateRuntime
from rollbook.errors import (
    DatabaseBusyError,
    DatabaseDamagedError,
    DatabaseError,
    DatabaseVersionError,
)
from rollbook.store import migrate, sqlite, sqlite_connections
from rollbook.store.sqlite import SqliteEngine
from rollbook.testing import make_thread
from tests.conftest import as_another_program


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "rollbook" / "state.sqlite"


@pytest.fixture
def engine(path):
    opened = SqliteEngine.open(path)
    yield opened
    opened.close()


def test_the_database_is_in_wal_mode_and_private(engine, path):
    assert engine._pragma("journal_mode") == "wal"
    with engine.write() as tx:
        tx.execute("DELETE FROM threads")
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    assert set(modes.values()) == {0o600}
    assert "state.sqlite-wal" in modes
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_failed_block_is_rolled_back(engine):
    with pytest.raises(ZeroDivisionError), engine.write() as tx:
        tx.execute(
            "INSERT INTO backfill_state (id, completed_at) VALUES (:id, :at)", {"id": 1, "at": 1}
        )
        raise ZeroDivisionError
    with engine.read() as tx:
        assert tx.query("SELECT count(*) FROM backfill_state") == [(0,)]


def test_opening_an_up_to_date_database_takes_no_write_lock(engine, path):
    with engine.write():
        SqliteEngine.open(path).close()


def test_reads_do_not_wait_for_a_writer(engine):
    with engine.write() as tx:
        tx.execute("DELETE FROM threads")
        with engine.read() as reading:
            assert reading.query("SELECT count(*) FROM threads") == [(0,)]


def test_a_lock_that_is_held_too_long_is_reported(engine, path, monkeypatch):
    monkeypatch.setattr(sqlite, "GIVE_UP_AFTER_S", 0.01)
    monkeypatch.setattr(sqlite_connections, "BUSY_TIMEOUT_S", 0.01)
    other = SqliteEngine.open(path)
    with engine.write():
        with (
            pytest.raises(DatabaseBusyError, match=f"locked by process {os.getpid()} "),
            other.write(),
        ):
            pass
    with other.write():
        pass
    other.close()


def test_more_readers_than_connections_take_turns(engine):
    counts = []

    def read():
        with engine.read() as tx:
            counts.append(tx.query("SELECT count(*) FROM threads"))

    threads = [threading.Thread(target=read) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counts == [[(0,)]] * 20
    assert len(engine._connections._open) <= 1 + sqlite.MAX_READERS


def test_a_file_that_is_no_database_is_left_alone(path):
    path.parent.mkdir()
    path.write_bytes(b"these are my notes\n" * 100)
    before = path.read_bytes()
    with pytest.raises(DatabaseDamagedError, match="damaged or no database"):
        SqliteEngine.open(path)
    assert path.read_bytes() == before


def test_a_database_of_another_program_is_left_alone(path):
    path.parent.mkdir()
    other = apsw.Connection(str(path))
    other.execute("PRAGMA journal_mode = WAL; CREATE TABLE threads (id TEXT)").fetchall()
    other.close()
    before = path.read_bytes()
    with pytest.raises(DatabaseError, match="another program"):
        SqliteEngine.open(path)
    assert path.read_bytes() == before


def test_an_empty_file_becomes_a_database(path):
    path.parent.mkdir()
    path.touch()
    SqliteEngine.open(path).close()


def test_a_database_of_a_newer_release_is_refused_and_not_altered(engine, path):
    with engine.write() as tx:
        tx.execute("INSERT INTO schema_migrations VALUES (999, 'future', 'x')")
    engine.close()
    before = path.read_bytes()
    with pytest.raises(DatabaseVersionError, match="newer release"):
        SqliteEngine.open(path)
    assert path.read_bytes() == before


def test_a_migration_with_another_checksum_is_refused(engine, path):
    with engine.write() as tx:
        tx.execute("UPDATE schema_migrations SET checksum = 'other'")
    engine.close()
    with pytest.raises(DatabaseDamagedError, match="another schema"):
        SqliteEngine.open(path)


def test_a_migration_that_fails_leaves_nothing_behind(path, monkeypatch):
    good = migrate.load_migrations("sqlite", "state")
    bad = migrate.Migration(
        len(good) + 1, "bad", "CREATE TABLE half (x); CREATE TABLE half (x)", "c"
    )
    monkeypatch.setattr(sqlite_connections, "load_migrations", lambda *_: [*good, bad])
    with pytest.raises(DatabaseError, match="half"):
        SqliteEngine.open(path)
    monkeypatch.undo()
    engine = SqliteEngine.open(path)
    with engine.read() as tx:
        tables = tx.query("SELECT name FROM sqlite_schema WHERE name IN ('half', 'threads')")
    engine.close()
    assert tables == [("threads",)]


def test_migrations_are_numbered_without_gaps_and_say_why():
    migrations = migrate.load_migrations("sqlite", "state")
    assert [m.version for m in migrations] == list(range(1, len(migrations) + 1))
    assert all(m.sql.startswith("-- ") for m in migrations)


def test_many_processes_open_an_empty_home_at_once(tmp_path):
    code = (
        "import sys; from rollbook import StateRuntime\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "StateRuntime.open(sys.argv[1], backfill=False).close(); print('done')"
    )
    for round_number in range(5):
        home = tmp_path / str(round_number)
        home.mkdir()
        processes = [
            subprocess.Popen(
                [sys.executable, "-c", code, home],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for _ in range(8)
        ]
        for process in processes:
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            process.stdin.write("go\n")
            process.stdin.flush()
        ends = [process.communicate() for process in processes]
        assert [end[0] for end in ends] == ["done\n"] * 8, ends


def test_a_row_with_impossible_values_is_an_error_by_id_and_left_out_of_a_list(home, caplog):
    with StateRuntime.open(home, backfill=False) as state:
        good, bad = make_thread(home), make_thread(home)
        state.upsert_thread(good)
        state.upsert_thread(bad)
        other = as_another_program(state.database)
        other.execute("UPDATE threads SET updated_at = ? WHERE id = ?", (2**60, bad.id))
        assert [thread.id for thread in state.list_threads(5).items] == [good.id]
        with pytest.raises(DatabaseDamagedError, match=bad.id):
            state.get_thread(bad.id)
        other.close()
    assert bad.id in caplog.text


def test_the_index_can_be_thrown_away(corpus_home):
    home = corpus_home("0.95.0")
    with StateRuntime.open(home, backfill=False) as state:
        state.sync()
        before = state.list_threads(50).items
    shutil.rmtree(home / "rollbook")
    with StateRuntime.open(home, backfill=False) as state:
        state.sync()
        assert state.list_threads(50).items == before
