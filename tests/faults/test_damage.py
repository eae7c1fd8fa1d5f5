"""A damaged index is noticed, set aside and made again, and whoever asked gets the right answer."""

import json
import logging
import shutil
import subprocess
import sys
from pathlib import Path

import apsw
import pytest

from rollbook import SortKey, StateRuntime
from rollbook.errors import DatabaseDamagedError, DatabaseError
from rollbook.store.sqlite_file import KEPT_FILES, kept_files
from rollbook.testing import make_thread, session_meta, user_message, write_rollout
from tests.conftest import is_sound, run_sql
from tests.index.test_sync import append

RELEASE = "0.95.0"
# Does the harm from outside: closing a file drops the locks that a process's own SQLite has on it.
VANDAL = """
import json, os, sys
for line in sys.stdin:
    path, *harm = json.loads(line)
    if harm[0] == "write":
        with open(path, "r+b" if os.path.exists(path) else "wb") as file:
            file.seek(harm[1])
            file.write(bytes.fromhex(harm[2]))
    elif harm[0] == "truncate":
        os.truncate(path, harm[1])
    elif os.path.exists(path):
        os.unlink(path)
    print(flush=True)
"""


@pytest.fixture(scope="module")
def vandal():
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", VANDAL],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )

    def harm(path: Path, *what) -> None:
        process.stdin.write(json.dumps([str(path), *what]) + "\n")
        process.stdin.flush()
        assert process.stdout.readline() == "\n"

    yield harm
    process.communicate(timeout=10)


def answers(state: StateRuntime, ids: list[str]) -> dict:
    """All that one can ask about the threads of a home."""
    return {
        "lists": [
            state.list_threads(9, sort_key=key, archived_only=archived, include_silent=True).items
            for key in SortKey
            for archived in (False, True)
        ],
        "ids": state.list_thread_ids(99),
        "threads": [state.get_thread(thread_id) for thread_id in ids],
        "tools": [state.get_dynamic_tools(thread_id) for thread_id in ids],
    }


@pytest.fixture
def filled(corpus_home):
    """A home, its ids, and what is true of it."""
    home = corpus_home(RELEASE)
    with StateRuntime.open(home, default_provider="mock", backfill=False) as state:
        state.sync()
        ids = sorted(
            state.list_thread_ids(99, include_silent=True)
            + state.list_thread_ids(99, archived_only=True, include_silent=True)
        )
        return home, ids, answers(state, ids)


def restore(home: Path, good: Path) -> None:
    shutil.rmtree(home / "rollbook")
    shutil.copytree(good, home / "rollbook")


def some_bytes(rng, size: int) -> list[tuple]:
    """Random bytes in random places, long enough that no value can look like another by chance."""
    harm = []
    for _ in range(rng.choice([1, 1, 2, 5, 20])):
        length = min(rng.choice([64, 200, 1000, 4096, 20_000]), size)
        harm.append(("write", rng.randrange(size - length + 1), rng.randbytes(length).hex()))
    return harm


def a_whole_page(rng, size: int) -> list[tuple]:
    page = rng.randrange(size // 4096)
    content = rng.choice([bytes(4096), rng.randbytes(4096), b"\xff" * 4096])
    return [("write", page * 4096, content.hex())]


def the_header(rng, size: int) -> list[tuple]:
    start = rng.randrange(100)
    return [("write", start, rng.randbytes(rng.randint(1, 100 - start)).hex())]


def cut_off(rng, size: int) -> list[tuple]:
    return [("truncate", rng.choice([0, 1, 99, 512, 4096, rng.randrange(size)]))]


def no_database(rng, size: int) -> list[tuple]:
    content = rng.choice([b"these are my notes\n" * 400, rng.randbytes(9000), bytes(8192)])
    return [("truncate", 0), ("write", 0, content.hex())]


HARM = (some_bytes, some_bytes, a_whole_page, a_whole_page, the_header, cut_off, no_database)


def test_whatever_happens_to_the_file_the_answers_stay_right(filled, vandal, rng, times, tmp_path):
    """The file is damaged while nobody has it open, or while the one who asks has."""
    home, ids, truth = filled
    good, database = tmp_path / "good", home / "rollbook" / "state.sqlite"
    shutil.copytree(home / "rollbook", good)
    for number in range(times(24, 240)):
        restore(home, good)
        harm = HARM[number % len(HARM)](rng, database.stat().st_size)
        if rng.random() < 0.5:
            with StateRuntime.open(home, default_provider="mock", backfill=False) as state:
                state.is_synced()
                for what in harm:
                    vandal(database, *what)
                assert answers(state, ids) == truth, (number, "open", harm)
        else:
            for what in harm:
                vandal(database, *what)
        for again in range(2):
            with StateRuntime.open(home, default_provider="mock", backfill=False) as state:
                assert answers(state, ids) == truth, (number, again, harm)
                state.sync()
                assert answers(state, ids) == truth, (number, again, harm)
        assert is_sound(database), (number, harm)


@pytest.fixture
def unfinished(filled, tmp_path):
    """The files as a killed process leaves them, with a WAL; and those of before its last writes."""
    home, ids, truth = filled
    database = home / "rollbook" / "state.sqlite"
    before, killed = tmp_path / "before", tmp_path / "killed"
    with StateRuntime.open(home, default_provider="mock", backfill=False) as state:
        state.sync(rebuild=True)
        shutil.copytree(database.parent, before)
        state.sync(rebuild=True)
        state.upsert_thread(state.get_thread(ids[0]))
        shutil.copytree(database.parent, killed)
    return home, ids, truth, before, killed


def of_another_database(rng, file: Path) -> bytes:
    other = apsw.Connection(str(file.with_name("other")))
    other.execute("PRAGMA journal_mode = WAL; CREATE TABLE IF NOT EXISTS t (x)").fetchall()
    other.execute("INSERT INTO t VALUES (randomblob(?))", (rng.randrange(90_000),)).fetchall()
    content = file.with_name("other-wal").read_bytes()
    other.close()
    return content


LOG_HARM = {
    "gone": None,
    "of another database": of_another_database,
    "random": lambda rng, file: rng.randbytes(file.stat().st_size),
    "cut off": lambda rng, file: file.read_bytes()[: rng.randrange(file.stat().st_size)],
    "empty": lambda *_: b"",
}


@pytest.mark.parametrize("ends", [("-wal",), ("-shm",), ("-wal", "-shm")])
@pytest.mark.parametrize("harm", [*LOG_HARM, "old"])
def test_whatever_happens_to_the_log_the_answers_stay_right(unfinished, harm, ends, rng, times):
    home, ids, truth, before, killed = unfinished
    database = home / "rollbook" / "state.sqlite"
    for _ in range(times(1, 4)):
        restore(home, killed)
        for end in ends:
            file = database.with_name(database.name + end)
            if harm == "old":
                shutil.copy2(before / file.name, file)
            elif LOG_HARM[harm] is None:
                file.unlink()
            else:
                file.write_bytes(LOG_HARM[harm](rng, file))
        for again in range(2):
            with StateRuntime.open(home, default_provider="mock", backfill=False) as state:
                assert answers(state, ids) == truth, again
                state.sync()
                assert answers(state, ids) == truth, again


@pytest.mark.parametrize("end", ["", "-wal", "-shm"])
@pytest.mark.parametrize("who", ["reads", "writes"])
def test_files_that_vanish_while_the_database_is_open(filled, vandal, end, who):
    home, ids, truth = filled
    database = home / "rollbook" / "state.sqlite"
    with StateRuntime.open(home, default_provider="mock", backfill=False) as state:
        thread = state.get_thread(ids[0])
        state.upsert_thread(thread)
        vandal(database.with_name(database.name + end), "remove")
        if who == "writes":
            state.upsert_thread(thread)
        assert answers(state, ids) == truth
        with StateRuntime.open(home, default_provider="mock", backfill=False) as other:
            assert answers(other, ids) == truth
            other.upsert_thread(thread)
        assert answers(state, ids) == truth
        state.sync()
        assert answers(state, ids) == truth


TABLES = ("threads", "thread_dynamic_tools", "rollout_files", "backfill_state", "schema_migrations")


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("is_open", [False, True])
def test_a_table_that_was_dropped(filled, table, is_open):
    home, ids, truth = filled
    database = home / "rollbook" / "state.sqlite"

    def drop() -> None:
        run_sql(database, f"DROP TABLE {table}")

    if not is_open:
        drop()
    with StateRuntime.open(home, default_provider="mock", backfill=False) as state:
        if is_open:
            drop()
        assert answers(state, ids) == truth
        state.sync()
        assert answers(state, ids) == truth
    with StateRuntime.open(home, default_provider="mock", backfill=False) as state:
        assert answers(state, ids) == truth
    if table != "schema_migrations" or not is_open:  # which nobody looks at again
        assert len(kept_files(database)) == 1


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("created_at", 2**62),
        ("updated_at", -(2**62)),
        ("recency_at", 2**40),
        ("archived_at", 2**61),
        ("title", "CAST(x'ff' AS TEXT)"),
        ("cwd", "CAST(x'610062' AS TEXT)"),
        ("id", "'../../etc/passwd'"),
        ("id", "upper(id)"),
    ],
)
def test_a_row_with_impossible_values_is_read_again_from_its_rollout(filled, column, value):
    home, ids, truth = filled
    database = home / "rollbook" / "state.sqlite"
    for is_open in (False, True):
        with StateRuntime.open(home, default_provider="mock", backfill=False) as state:
            if not is_open:
                state.close()
            update = f"UPDATE OR REPLACE threads SET {column} = {value} WHERE id = ?"
            run_sql(database, update, (ids[3],))
            if is_open:
                assert answers(state, ids) == truth
        with StateRuntime.open(home, default_provider="mock", backfill=False) as state:
            assert answers(state, ids) == truth
            state.sync()
            assert answers(state, ids) == truth
    assert kept_files(database)


def test_a_damaged_database_is_named_by_time_and_cause_and_few_are_kept(filled, caplog):
    home, ids, truth = filled
    database = home / "rollbook" / "state.sqlite"
    for number in range(KEPT_FILES + 3):
        database.write_bytes(b"no database %d" % number * 100)
        with StateRuntime.open(home, default_provider="mock", backfill=False) as state:
            assert answers(state, ids) == truth
    kept = kept_files(database)
    assert len(kept) == KEPT_FILES
    assert all(file.name.endswith("Z-file-is-not-a-database") for file in kept)
    assert kept[-1].read_bytes() == b"no database %d" % (KEPT_FILES + 2) * 100
    assert [kept[-1].name in record.getMessage() for record in caplog.records][-1]


@pytest.mark.parametrize("title", ["Known to the database alone", "Known to the database " * 900])
def test_threads_that_no_rollout_stands_for_outlast_the_damage(filled, vandal, title):
    home, ids, truth = filled
    database = home / "rollbook" / "state.sqlite"
    with StateRuntime.open(home, default_provider="mock", backfill=False) as state:
        lonely = make_thread(home, title=title)
        state.upsert_thread(lonely)
    vandal(database, "write", 0, bytes(100).hex())
    with StateRuntime.open(home, default_provider="mock", backfill=False) as state:
        assert state.get_thread(lonely.id).title == lonely.title
        assert [state.get_thread(thread_id) for thread_id in ids] == truth["threads"]


def test_a_bad_row_that_nothing_can_mend_costs_no_other(home):
    with StateRuntime.open(home, backfill=False) as state:
        good, bad = make_thread(home), make_thread(home)
        state.upsert_thread(good)
        state.upsert_thread(bad)
        with state._engine.write() as tx:
            tx.execute(
                "UPDATE threads SET created_at = :x WHERE id = :id", {"x": 2**60, "id": bad.id}
            )
        for _ in range(2):
            assert [thread.id for thread in state.list_threads(5).items] == [good.id]
            with pytest.raises(DatabaseDamagedError, match=bad.id):
                state.get_thread(bad.id)
        assert not kept_files(home / "rollbook" / "state.sqlite")


ASKER = """
import sys
from rollbook import StateRuntime
with StateRuntime.open(sys.argv[1], backfill=False) as state:
    print("ready", flush=True)
    for line in sys.stdin:
        words = line.split()
        if words[0] == "list":
            print(*sorted(state.list_thread_ids(99)), flush=True)
        elif words[0] == "get":
            print(state.get_thread(words[1]).title, flush=True)
        else:
            print(state.sync().scanned, flush=True)
"""


def test_other_processes_go_over_to_the_new_file(home, vandal, rng):
    ids = [f"{number:08x}-0000-4000-8000-000000000000" for number in range(40)]
    for thread_id in ids:
        write_rollout(home, thread_id, [session_meta(thread_id), user_message(thread_id[:8])])
    with StateRuntime.open(home, backfill=False) as state:
        state.sync()
    askers = [
        subprocess.Popen(
            [sys.executable, "-c", ASKER, home],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]

    def ask(asker: subprocess.Popen, question: str) -> str:
        asker.stdin.write(question + "\n")
        asker.stdin.flush()
        return asker.stdout.readline().strip()

    assert [asker.stdout.readline() for asker in askers] == ["ready\n"] * 3
    database = home / "rollbook" / "state.sqlite"
    for number in range(4):
        assert [ask(asker, "list") for asker in askers] == [" ".join(ids)] * 3
        size = database.stat().st_size
        vandal(database, "write", 0, rng.randbytes(size).hex())
        with StateRuntime.open(home, backfill=False) as state:
            state.sync()
        path = next(home.rglob(f"rollout-*{ids[number]}.jsonl"))
        assert [ask(asker, f"get {ids[number]}") for asker in askers] == [ids[number][:8]] * 3
        append(path, user_message("again"))
        assert ask(askers[number % 3], "sync") == "40"
        inode = database.stat().st_ino
        assert [ask(asker, "list") for asker in askers] == [" ".join(ids)] * 3
        assert database.stat().st_ino == inode
    for asker in askers:
        asker.stdin.close()
        assert asker.wait(20) == 0, asker.stderr.read()
        asker.stdout.close()
        asker.stderr.close()
    assert is_sound(database)


def test_what_is_not_rollbooks_is_never_set_aside(filled, tmp_path):
    home, _, _ = filled
    notes = tmp_path / "notes.txt"
    notes.write_text("my notes\n" * 500)
    foreign = tmp_path / "rollbook" / "my.sqlite"
    foreign.parent.mkdir()
    connection = apsw.Connection(str(foreign))
    connection.execute("CREATE TABLE t (x); INSERT INTO t VALUES (1)").fetchall()
    connection.close()
    rollout = next(home.rglob("rollout-*.jsonl"))
    for path in (notes, foreign, rollout):
        before = path.read_bytes(), sorted(path.parent.iterdir())
        with pytest.raises(DatabaseError):
            StateRuntime.open(home, database=path, backfill=False)
        assert (path.read_bytes(), sorted(path.parent.iterdir())) == before


def test_a_database_elsewhere_is_made_again_once_it_was_rollbooks(filled, tmp_path, caplog):
    home, ids, truth = filled
    path = tmp_path / "elsewhere" / "index.db"
    with StateRuntime.open(home, default_provider="mock", database=path, backfill=False) as state:
        state.sync()
    path.write_bytes(b"overwritten" * 999)
    with caplog.at_level(logging.WARNING):
        with StateRuntime.open(
            home, default_provider="mock", database=path, backfill=False
        ) as state:
            assert answers(state, ids) == truth
    assert "index.db.damaged-" in caplog.text
