"""Killed with SIGKILL at random moments, whatever it was doing: the next start needs no help.

After each kill the databases are sound, the index equals one built from nothing, and of what the
program had said was done nothing is lost, doubled, or out of order.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import apsw
import msgspec
import pytest

from rollbook import RolloutRecorder, StateRuntime
from rollbook.store import logs
from rollbook.store.migrate import load_migrations
from tests.conftest import as_another_program, is_sound, run_sql
from tests.faults import crash_program
from tests.faults.crash_program import LIMITS, join_backfill, numbers_of, start, write_threads
from tests.index.test_sync import everything, rebuilt

THREADS = 40
KILLS = 3, 60  # of each activity, in a quick run and in a whole one
KEPT_FILES = "[!.]*.jsonl", "state.sqlite*", "content.sqlite*", "logs.sqlite*"


@pytest.fixture
def kill(rng):
    """Start the program, kill it at a random moment, and give what it had said."""

    def at_random(activity, *arguments) -> list[list[str]]:
        starts_others = activity is crash_program.sync_with_workers  # which takes its time
        done, most_s = ([0, 0, 1, 2], 0.3) if starts_others else ([0, 0, 1, 2, 5, 9], 0.03)
        with start(activity, *arguments) as program:
            lines = [program.stdout.readline() for _ in range(1 + rng.choice(done))]
            time.sleep(rng.uniform(0, most_s))
            program.kill()
            lines += program.stdout.readlines()
        assert program.returncode == -signal.SIGKILL, lines
        said = [line.split() for line in lines]
        assert {words[0] for words in said} <= {"started", "moving", "done"}, lines
        return said

    return at_random


@pytest.fixture
def kills(times, tmp_path):
    """Count the kills, with a new directory for each."""

    def directories():
        for number in range(times(*KILLS)):
            directory = tmp_path / str(number)
            directory.mkdir()
            yield directory
            shutil.rmtree(directory)

    return directories


@pytest.fixture
def ids(home) -> list[str]:
    return write_threads(home, THREADS)


def assert_sound(database: str | Path) -> None:
    for name in (Path(database).name, "content.sqlite", "logs.sqlite"):
        file = Path(database).with_name(name)
        if file.exists():
            assert is_sound(file)
            assert run_sql(file, "PRAGMA foreign_key_check") == []


def assert_as_built_from_nothing(state: StateRuntime, tmp_path: Path) -> None:
    """When a thread was archived no rollout says; all else is compared."""

    def comparable(found):
        return [
            (t.archived_at is None, msgspec.structs.replace(t, archived_at=None)) for t in found
        ]

    assert comparable(everything(state)) == comparable(rebuilt(state, tmp_path))


def assert_tidy(*directories: Path) -> None:
    """No file is left that somebody would have to clean up."""
    for directory in directories:
        files = [path for path in directory.rglob("*") if path.is_file()]
        left = [path for path in files if not any(map(path.match, KEPT_FILES))]
        set_aside = [path for path in files if "damaged" in path.name]
        assert left + set_aside == []


def newest(directory: Path) -> Path:
    """The database that the program was at, or would have made next."""
    numbers = [int(path.name) for path in directory.iterdir() if path.name.isdecimal()]
    return directory / str(max(numbers, default=0)) / "state.sqlite"


def reopened(home: Path, ids: list[str], tmp_path: Path, database: Path | None = None) -> None:
    """The next start: it syncs without complaint and then has every thread once."""
    with StateRuntime.open(home, database=database, backfill=False) as state:
        stats = state.sync()
        assert stats.failures == ()
        assert sorted(thread.id for thread in everything(state)) == sorted(ids)
        assert_as_built_from_nothing(state, tmp_path)
        assert_sound(state.database)


@pytest.mark.parametrize("activity", [crash_program.sync, crash_program.sync_with_workers])
def test_killed_while_it_syncs(home, ids, kill, kills, rng, activity):
    for directory in kills():
        kill(activity, home, directory, rng.random())
        reopened(home, ids, directory, newest(directory))
        assert_tidy(home, newest(directory).parent)


def test_killed_while_it_indexes_in_the_background(home, ids, kill, kills):
    for directory in kills():
        kill(crash_program.backfill, home, directory)
        with StateRuntime.open(home, database=newest(directory)) as state:
            join_backfill()
            assert state.is_synced()
            assert sorted(thread.id for thread in everything(state)) == sorted(ids)
        reopened(home, ids, directory, newest(directory))
        assert_tidy(home, newest(directory).parent)


def test_killed_while_it_applies_what_an_agent_writes(home, ids, kill, kills, rng):
    for number, directory in enumerate(kills(), 1):
        said = kill(crash_program.append_live, home, number * 1_000_000, rng.random())
        done = {thread_id: int(tokens) for _, thread_id, tokens in said[1:]}
        with StateRuntime.open(home, backfill=False) as state:
            behind = {i for i in done if state.get_thread(i).tokens_used < done[i]}
        assert behind == set()
        present = {path.stem[-36:] for path in home.rglob("*.jsonl")}
        assert present >= {*ids, *done}
        reopened(home, sorted(present), directory)
        assert_tidy(home / "rollbook")


def test_killed_while_it_records(kill, kills, rng):
    for directory in kills():
        home = directory / "home"
        home.mkdir()
        said = kill(crash_program.record, home, rng.random())
        done = {thread_id: int(recorded) for _, thread_id, recorded in said[1:]}
        present = {path.stem[-36:] for path in home.rglob("[!.]*.jsonl")}
        assert present >= set(done)
        assert len(present) - len(done) in (0, 1)
        with StateRuntime.open(home, backfill=False) as state:
            for thread_id in present:
                with RolloutRecorder.resume(state, thread_id) as recorder:
                    numbers = numbers_of(recorder)
                assert numbers == list(range(len(numbers)))
                if thread_id in done:
                    assert len(numbers) - done[thread_id] in (0, 1)
                lines = recorder.rollout_path.read_bytes().splitlines(keepends=True)
                assert all(msgspec.json.decode(line) and line[-1:] == b"\n" for line in lines)
        reopened(home, sorted(present), directory)
        assert_tidy(home)


def test_killed_while_it_begins_a_thread_it_leaves_nothing_behind(home):
    """At the worst moment: the rollout has its name, and still the one that it was written under."""
    try:
        os.close(os.open(home, os.O_RDWR | os.O_TMPFILE))
    except (AttributeError, OSError):
        pytest.skip("this file system has no files without a name")
    code = """
import os, signal, sys
from rollbook import RolloutRecorder, StateRuntime
link = os.link
def link_and_die(*names, **how):
    link(*names, **how)
    os.kill(os.getpid(), signal.SIGKILL)
os.link = link_and_die
RolloutRecorder.create(StateRuntime.open(sys.argv[1], backfill=False), git=False)
"""
    killed = subprocess.run([sys.executable, "-c", code, home], check=False)
    assert killed.returncode == -signal.SIGKILL
    with StateRuntime.open(home, backfill=False) as state:
        state.sync()
        [thread] = everything(state)
        RolloutRecorder.resume(state, thread.id).close()
        RolloutRecorder.create(state, git=False).close()
    assert_tidy(home)


@pytest.mark.parametrize("activity", [crash_program.log, crash_program.log_through_handler])
def test_killed_while_it_logs(home, kill, kills, rng, activity):
    expected = 0
    for _ in kills():
        chance = [rng.random()] if activity is crash_program.log else []
        said = kill(activity, home, expected, *chance)
        with StateRuntime.open(home, backfill=False) as state:
            rows = state.query_logs()
            assert_sound(state.database)
        assert_tidy(home)
        assert [int(row.message) for row in rows] == list(range(len(rows)))
        assert len(rows) >= max([expected, *(int(end) for _, end in said[1:])])
        expected = len(rows)
        if chance and rows:
            assert int(rows[-1].target) == expected, "the last batch is there in part"


def test_killed_while_it_trims_the_logs(home, kill, kills, rng):
    expected = 0
    for _ in kills():
        said = kill(crash_program.log_within_limits, home, expected, rng.random())
        with StateRuntime.open(home, backfill=False, log_limits=LIMITS) as state:
            rows = state.query_logs()
            state._logs._open()[1].keep()  # as whoever logs next begins with
            assert_sound(state.database)
            file = Path(state.database).with_name("logs.sqlite")
        assert_tidy(home)
        if not rows:
            assert said == [["started"]]
            continue
        numbers = [int(row.message) for row in rows]
        assert numbers == list(range(numbers[0], int(rows[-1].target)))
        assert numbers[-1] + 1 >= max([expected, *(int(end) for _, end in said[1:])])
        expected = numbers[-1] + 1
        connection = apsw.Connection(str(file))
        [counted] = connection.execute(f"SELECT thread_id, sum({logs._SIZE}) FROM logs GROUP BY 1")
        assert connection.execute("SELECT * FROM log_threads").fetchall() == [counted]
        connection.close()
        assert file.stat().st_size < 2 * LIMITS.max_bytes


def test_killed_while_it_archives(home, ids, kill, kills, rng):
    is_archived = dict.fromkeys(ids, False)
    with StateRuntime.open(home, backfill=False) as state:
        state.sync()
    for directory in kills():
        said = kill(crash_program.archive, home, rng.random())
        is_archived |= {i[0]: i[1] == "True" for word, *i in said[1:] if word == "done"}
        if said[-1][0] == "moving":
            moving = said[-1][1]
            is_archived[moving] = not list((home / "sessions").rglob(f"*{moving}.jsonl"))
        assert Counter(path.stem[-36:] for path in home.rglob("*.jsonl")) == Counter(ids)
        with StateRuntime.open(home, backfill=False) as state:
            found = {i: state.get_thread(i).archived_at is not None for i in ids}
        assert found == is_archived
        reopened(home, ids, directory)
        assert_tidy(home)


@pytest.fixture
def old_database(home, ids, tmp_path) -> Path:
    """A database as the first release left it: its schema, and the threads of the home."""
    path = tmp_path / "old.sqlite"
    with StateRuntime.open(home, database=tmp_path / "new.sqlite", backfill=False) as state:
        state.sync()
        first, *later = load_migrations("sqlite", "state")
        assert later
        old = apsw.Connection(str(path))
        new = as_another_program(state.database)
        old.pragma("application_id", new.pragma("application_id"))
        old.pragma("journal_mode", "wal")
        [[history]] = new.execute("SELECT sql FROM sqlite_schema WHERE name = 'schema_migrations'")
        old.execute(history)
        old.execute(first.sql)
        old.execute(
            "INSERT INTO schema_migrations VALUES (?, ?, ?)",
            (first.version, first.name, first.checksum),
        )
        old.execute("ATTACH ? AS new", (state.database,))
        tables = old.execute("SELECT name FROM main.sqlite_schema WHERE type = 'table'").fetchall()
        for [table] in tables:
            if table != "schema_migrations":
                columns = old.execute(f"SELECT name FROM pragma_table_info('{table}', 'main')")
                names = ", ".join(name for [name] in columns.fetchall())
                old.execute(f"INSERT INTO main.{table} ({names}) SELECT {names} FROM new.{table}")
        old.close()
        new.close()
    return path


def test_killed_while_it_migrates(home, ids, kill, kills, old_database):
    versions = [migration.version for migration in load_migrations("sqlite", "state")]
    with StateRuntime.open(home, database=old_database.with_name("new.sqlite")) as state:
        expected = everything(state)
    for directory in kills():
        kill(crash_program.migrate, home, directory, old_database)
        database = newest(directory)
        if not database.exists():
            continue
        with StateRuntime.open(home, database=database, backfill=False) as state:
            assert everything(state) == expected
            found = run_sql(state.database, "SELECT version FROM schema_migrations ORDER BY 1")
            assert [version for [version] in found] == versions
            assert state.sync().indexed == 0
        reopened(home, ids, directory, database)
        (database.parent / "copy").unlink(missing_ok=True)
        assert_tidy(home, database.parent)
