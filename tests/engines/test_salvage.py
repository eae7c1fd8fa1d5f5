"""Rows out of damaged files: all that the damage didn't reach, and nothing that was deleted."""

import random
import shutil
import struct
import tracemalloc
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import NoneType
from typing import Any

import apsw
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rollbook.errors import DatabaseError
from rollbook.model.log import LogEntry
from rollbook.store import logs
from rollbook.store.engine import LOGS
from rollbook.store.migrate import load_migrations
from rollbook.store.salvage import Salvage
from rollbook.store.sqlite import SqliteEngine

MIB = 1 << 20
TEXT = (str, NoneType)
LOG_ROW = ((NoneType,), (int,), (int,), (str,), (str,), TEXT, TEXT, TEXT, (int, NoneType), TEXT)
Rows = dict[int, tuple[Any, ...]]
page_sizes = st.sampled_from([512, 1024, 4096])


def make_entry(number: int, **fields: Any) -> LogEntry:
    defaults = {
        "ts": 1_760_000_000 + number,
        "ts_nanos": number,
        "level": "INFO",
        "target": "agent",
        "message": f"message {number}",
        "thread_id": f"thread {number % 7}",
        "line": number % 3000,
    }
    return LogEntry(**(defaults | fields))


def entries(count: int, **fields: Any) -> list[LogEntry]:
    return [make_entry(number, **fields) for number in range(count)]


@contextmanager
def opened(path: Path, *batches: Sequence[LogEntry]) -> Iterator[SqliteEngine]:
    """An engine on a log database, each batch committed."""
    engine = SqliteEngine.open(path, LOGS)
    try:
        for batch in batches:
            append(engine, batch)
        yield engine
    finally:
        engine.close()


def append(engine: SqliteEngine, batch: Sequence[LogEntry]) -> None:
    with engine.write() as tx:
        logs.insert(tx, batch)


def build(path: Path, batch: Sequence[LogEntry], *then: str) -> Path:
    """A closed log database, its WAL gone; the statements run at the end."""
    with opened(path, batch):
        pass
    connection = apsw.Connection(str(path))
    for sql in then:
        connection.execute(sql).fetchall()
    connection.close()
    assert not wal_of(path).exists()
    return path


def copied(path: Path, target: Path) -> Path:
    """A copy of a database that is open, as a crash would leave it."""
    target.mkdir()
    for file in (path, wal_of(path)):
        shutil.copy(file, target)
    return target / path.name


def wal_of(path: Path) -> Path:
    return path.with_name(path.name + "-wal")


def by_sqlite(path: Path) -> Rows:
    connection = apsw.Connection(str(path))
    try:
        return rows_in(connection)
    finally:
        connection.close()


def rows_in(connection: apsw.Connection) -> Rows:
    return {row[0]: (None, *row[1:]) for row in connection.execute("SELECT * FROM logs")}


def salvaged(path: Path, *, unreadable: tuple[int, int] | None = None) -> Rows:
    """The rows that are found, each once; ``unreadable`` pages and cells, if they are certain."""
    salvage = Salvage(path, LOG_ROW)
    found = list(salvage)
    assert len(found) == len(dict(found))
    if unreadable is not None:
        assert (salvage.unreadable_pages, salvage.unreadable_cells) == unreadable
    return dict(found)


def overwrite(path: Path, offset: int, content: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(content)


def noise(size: int) -> bytes:
    return random.Random(size).randbytes(size)


def pages_of_rows(connection: apsw.Connection) -> dict[int, set[int]]:
    """Which pages each row of the logs is in, as SQLite itself says."""
    leaves: dict[str, tuple[int, int]] = {}
    overflow: dict[tuple[str, int], set[int]] = defaultdict(set)
    for path, number, kind, cells in connection.execute(
        "SELECT path, pageno, pagetype, ncell FROM dbstat WHERE name = 'logs'"
    ):
        if kind == "leaf":
            leaves[path] = number, cells
        elif kind == "overflow":
            leaf, slash, cell = path.partition("+")[0].rpartition("/")
            overflow[leaf + slash, int(cell, 16)].add(number)
    ids = iter(sorted(rows_in(connection)))
    pages = {
        next(ids): {number} | overflow[leaf, cell]
        for leaf, (number, cells) in sorted(leaves.items())
        for cell in range(cells)
    }
    assert next(ids, None) is None
    return pages


def pages_of_file(path: Path) -> dict[int, set[int]]:
    connection = apsw.Connection(str(path))
    try:
        return pages_of_rows(connection)
    finally:
        connection.close()


def pages_of_kind(path: Path, table: str, kind: str) -> list[int]:
    connection = apsw.Connection(str(path))
    try:
        found = connection.execute(
            "SELECT pageno FROM dbstat WHERE name = ? AND pagetype = ?", (table, kind)
        )
        return [number for (number,) in found]
    finally:
        connection.close()


# ---- without damage


@pytest.mark.parametrize("count", [0, 1, 3000])
def test_a_file_without_damage_gives_all_its_rows(tmp_path, count):
    path = build(tmp_path / "logs.sqlite", entries(count))
    assert salvaged(path, unreadable=(0, 0)) == by_sqlite(path)
    assert len(by_sqlite(path)) == count


def test_large_texts_come_whole(tmp_path):
    sizes = [*range(3900, 4300, 3), 20_000, 70_000, MIB, 3 * MIB]
    batch = [make_entry(size, message="é" + "x" * size) for size in sizes]
    path = build(tmp_path / "logs.sqlite", batch)
    assert salvaged(path, unreadable=(0, 0)) == by_sqlite(path)


def test_values_of_all_sizes_come_as_they_are(tmp_path):
    numbers = [
        sign * (1 << power) + more
        for power in (0, 7, 15, 23, 31, 47, 62)
        for sign in (1, -1)
        for more in (-1, 0, 1)
    ]
    numbers += [-(1 << 63), (1 << 63) - 1]
    batch = [make_entry(0, ts=number, ts_nanos=-1, line=number) for number in numbers]
    batch += [make_entry(0, message=text) for text in ("", "\0", "日本語 🦀", "é" * 63, "a" * 64)]
    batch += [make_entry(0, message=None, thread_id=None, line=None)]
    path = build(tmp_path / "logs.sqlite", batch)
    assert salvaged(path, unreadable=(0, 0)) == by_sqlite(path)


def test_row_ids_of_all_sizes_come_as_they_are(tmp_path):
    ids = [-(1 << 63), -1, 0, 127, 128, 16383, 16384, 1 << 21, 1 << 55, 1 << 56, (1 << 63) - 1]
    path = build(
        tmp_path / "logs.sqlite",
        [],
        *(
            f"INSERT INTO logs (id, ts, ts_nanos, level, target) VALUES ({number}, 1, 2, 'A', 'B')"
            for number in ids
        ),
    )
    assert sorted(salvaged(path, unreadable=(0, 0))) == sorted(ids)


@pytest.mark.parametrize("auto_vacuum", ["NONE", "FULL"])
@pytest.mark.parametrize("page_size", [512, 1024, 8192, 65536])
def test_any_page_size_is_read(tmp_path, page_size, auto_vacuum):
    batch = [*entries(800), make_entry(0, message="x" * 200_000), *entries(800)]
    path = build(
        tmp_path / "logs.sqlite",
        batch,
        "PRAGMA journal_mode = DELETE",
        f"PRAGMA page_size = {page_size}; PRAGMA auto_vacuum = {auto_vacuum}",
        "VACUUM",
        "DELETE FROM logs WHERE id BETWEEN 100 AND 400",
    )
    expected = by_sqlite(path)
    assert len(path.read_bytes()) % page_size == 0
    assert salvaged(path, unreadable=(0, 0)) == expected
    overwrite(path, 0, noise(512))
    assert expected.items() <= salvaged(path).items()


def test_bytes_that_are_reserved_in_each_page_are_left_out(tmp_path):
    path = tmp_path / "logs.sqlite"
    connection = apsw.Connection(str(path))
    connection.reserve_bytes("main", 32)
    create_tables(connection)
    fill(connection, [make_entry(number, message="x" * number * 40) for number in range(300)])
    expected = rows_in(connection)
    connection.close()
    assert path.read_bytes()[20] == 32
    assert salvaged(path, unreadable=(0, 0)) == expected
    overwrite(path, 20, b"\0")
    assert {row_id for row_id in expected if row_id < 90} <= set(salvaged(path))


def test_other_tables_are_told_apart(tmp_path):
    path = tmp_path / "any.sqlite"
    connection = apsw.Connection(str(path))
    connection.execute("CREATE TABLE a (b, c); CREATE TABLE d (e, f, g)").fetchall()
    rows = [(1, "x"), (2.5, b"\xff"), (None, "y"), ("z", "w"), (True, "v")]
    connection.executemany("INSERT INTO a VALUES (?, ?)", rows)
    connection.execute("INSERT INTO d VALUES (1, 2, 3)")
    connection.close()

    def values(*accepts: tuple[type, ...]) -> list[Any]:
        salvage = Salvage(path, accepts)
        found = [values for _, values in salvage]
        assert (salvage.unreadable_pages, salvage.unreadable_cells) == (0, 0)
        return found

    assert values((int,), (str,)) == [(1, "x"), (1, "v")]
    assert values((float, NoneType), (str, bytes)) == [(2.5, b"\xff"), (None, "y")]
    assert values((int,), (int,), (int,)) == [(1, 2, 3)]
    assert values((int,)) == []


def test_nothing_is_written(tmp_path):
    with opened(tmp_path / "logs.sqlite", entries(500)):
        path = copied(tmp_path / "logs.sqlite", tmp_path / "copy")

    def look() -> list[Any]:
        return [
            (file.name, file.stat().st_mtime_ns, file.read_bytes())
            for file in sorted(path.parent.iterdir())
        ]

    before = look()
    assert salvaged(path)
    assert look() == before


# ---- deleted rows


def test_deleted_rows_stay_away(tmp_path):
    path = build(
        tmp_path / "logs.sqlite",
        [*entries(4000), make_entry(0, message="x" * MIB)],
        "DELETE FROM logs WHERE id BETWEEN 50 AND 3000 OR id % 5 = 0 OR id = 4001",
    )
    assert salvaged(path, unreadable=(0, 0)) == by_sqlite(path)


@pytest.mark.parametrize("harm", [noise, bytes])
@pytest.mark.parametrize("lost", [(0, 100), (0, 4096), (4096, 4096), (32, 4), (36, 4)])
def test_one_of_freelist_and_pointer_map_is_enough_to_keep_them_away(tmp_path, lost, harm):
    path = build(
        tmp_path / "logs.sqlite", entries(9000), "DELETE FROM logs WHERE id BETWEEN 50 AND 8000"
    )
    expected = by_sqlite(path)
    overwrite(path, lost[0], harm(lost[1]))
    assert salvaged(path) == expected


def test_with_neither_the_deleted_rows_come_too(tmp_path):
    path = build(
        tmp_path / "logs.sqlite", entries(9000), "DELETE FROM logs WHERE id BETWEEN 50 AND 8000"
    )
    expected = by_sqlite(path)
    overwrite(path, 0, noise(8192))
    found = salvaged(path)
    assert expected.items() <= found.items()
    assert len(expected) < len(found) < 9000


def test_harm_to_one_of_them_hides_no_rows(tmp_path):
    path = build(
        tmp_path / "logs.sqlite", entries(9000), "DELETE FROM logs WHERE id BETWEEN 50 AND 8000"
    )
    expected, content = by_sqlite(path), path.read_bytes()
    leaf = min(pages_of_file(path)[8500])
    entry = 4096 + 5 * (leaf - 3)  # in the pointer map, which begins with page 3
    assert content[entry] == 5
    overwrite(path, entry, b"\2\0\0\0\0")
    assert salvaged(path) == expected

    path.write_bytes(content)
    trunk = 4096 * (int.from_bytes(content[32:36]) - 1)
    overwrite(path, trunk + 8, leaf.to_bytes(4))
    assert expected.items() <= salvaged(path).items()

    path.write_bytes(content)
    overwrite(path, 0, bytes(100))
    overwrite(path, entry, b"\2")  # with the parent that only other kinds have
    assert expected.items() <= salvaged(path).items()


def test_pages_that_were_given_back_stay_away(tmp_path):
    with opened(tmp_path / "logs.sqlite", entries(9000)) as engine:
        engine.settle()  # the file has all, and is cut only at the next checkpoint
        with engine.write() as tx:
            tx.execute("DELETE FROM logs WHERE id > 3000 OR id % 2")
        engine.give_back(64 * MIB)
        path = copied(tmp_path / "logs.sqlite", tmp_path / "copy")
    found = salvaged(path, unreadable=(0, 0))
    assert found == by_sqlite(path)
    assert len(found) == 1500


def test_rows_that_moved_come_once(tmp_path):
    path = build(
        tmp_path / "logs.sqlite",
        entries(9000),
        "DELETE FROM logs WHERE id BETWEEN 50 AND 5000",
        "PRAGMA incremental_vacuum",
    )
    expected = by_sqlite(path)
    assert salvaged(path, unreadable=(0, 0)) == expected
    stale = tmp_path / "stale.sqlite"  # as if the end had not been cut off
    pages = sorted({min(pages) for pages in pages_of_file(path).values()})
    content = path.read_bytes()
    stale.write_bytes(content + b"".join(content[4096 * (n - 1) : 4096 * n] for n in pages[:20]))
    assert salvaged(stale) == expected


# ---- the WAL


def test_what_is_only_in_the_wal_is_read(tmp_path):
    with opened(tmp_path / "logs.sqlite", entries(300), entries(300)) as engine:
        path = copied(tmp_path / "logs.sqlite", tmp_path / "fresh")
        assert salvaged(path, unreadable=(0, 0)) == by_sqlite(path)
        engine.settle()
        with engine.write() as tx:
            tx.execute("DELETE FROM logs WHERE id BETWEEN 10 AND 290")
        append(engine, entries(300, message="é" * 9000))
        path = copied(tmp_path / "logs.sqlite", tmp_path / "grown")
    found = salvaged(path, unreadable=(0, 0))
    assert found == by_sqlite(path)
    assert len(found) == 619


def test_what_was_not_committed_is_not_read(tmp_path):
    with opened(tmp_path / "logs.sqlite", entries(300)):
        connection = apsw.Connection(str(tmp_path / "logs.sqlite"))
        connection.execute("PRAGMA cache_size = 10; BEGIN").fetchall()
        size = wal_of(tmp_path / "logs.sqlite").stat().st_size
        connection.execute("UPDATE logs SET message = 'x' || hex(zeroblob(5000))").fetchall()
        connection.execute("DELETE FROM logs WHERE id > 200").fetchall()
        assert wal_of(tmp_path / "logs.sqlite").stat().st_size > size
        path = copied(tmp_path / "logs.sqlite", tmp_path / "copy")
        connection.close()
    found = salvaged(path, unreadable=(0, 0))
    assert found == by_sqlite(path)
    assert len(found) == 300


@pytest.mark.parametrize("harm", ["cut", "zeros", "noise", "bit"])
def test_a_torn_end_of_the_wal_takes_only_its_transaction(tmp_path, harm):
    with opened(tmp_path / "logs.sqlite", entries(300)) as engine:
        whole = wal_of(tmp_path / "logs.sqlite").stat().st_size
        append(engine, entries(300))
        path = copied(tmp_path / "logs.sqlite", tmp_path / "copy")
    wal = wal_of(path)
    content = bytearray(wal.read_bytes())
    at = whole + 4096 + 24 + 16  # the checksum of the second frame
    if harm == "cut":
        del content[at:]
    elif harm == "bit":
        content[at] ^= 1
    else:
        content[at : at + 300] = bytes(300) if harm == "zeros" else noise(300)
    wal.write_bytes(content)
    found = salvaged(path)
    assert found == by_sqlite(path)
    assert len(found) == 300


def test_frames_from_before_the_wal_began_anew_are_left_alone(tmp_path):
    with opened(tmp_path / "logs.sqlite", entries(2000)) as engine:
        assert engine.settle()
        with engine.write() as tx:
            tx.execute("DELETE FROM logs WHERE id = 7")
        path = copied(tmp_path / "logs.sqlite", tmp_path / "copy")
    assert salvaged(path, unreadable=(0, 0)) == by_sqlite(path)


def test_a_wal_without_its_header_is_left_alone(tmp_path):
    with opened(tmp_path / "logs.sqlite", entries(2000)) as engine:
        engine.settle()
        append(engine, entries(100))
        path = copied(tmp_path / "logs.sqlite", tmp_path / "copy")
    overwrite(wal_of(path), 24, noise(4))
    found = salvaged(path)
    assert len(found) == 2000
    wal_of(path).unlink()
    assert found == salvaged(path)


def test_a_damaged_wal_does_not_hide_what_is_in_the_file(tmp_path):
    with opened(tmp_path / "logs.sqlite", *[entries(100)] * 20) as engine:
        engine.settle()
        path = copied(tmp_path / "logs.sqlite", tmp_path / "copy")
        expected = by_sqlite(tmp_path / "logs.sqlite")
    pages = pages_of_file(copied(path, tmp_path / "other"))
    overwrite(wal_of(path), wal_of(path).stat().st_size // 2, noise(10))
    found = salvaged(path)
    assert found.items() <= expected.items()
    last = max(max(pages[row_id]) for row_id in expected)
    assert {row_id for row_id in expected if last in pages[row_id]} <= set(found)


def test_the_wal_is_enough_where_the_file_is_lost(tmp_path):
    with opened(tmp_path / "logs.sqlite", entries(1000)):
        path = copied(tmp_path / "logs.sqlite", tmp_path / "copy")
        expected = by_sqlite(tmp_path / "logs.sqlite")
    path.write_bytes(b"")
    assert salvaged(path) == expected


# ---- damage


def test_without_the_first_page_all_rows_are_found(tmp_path):
    path = build(tmp_path / "logs.sqlite", entries(3000))
    expected = by_sqlite(path)
    for harm in (noise(100), bytes(100), bytes(4096), noise(4096)):
        overwrite(path, 0, harm)
        assert salvaged(path) == expected


@pytest.mark.parametrize("size", [0, 512, 1024, 2048, 8192, 32768, 4095])
def test_a_wrong_page_size_in_the_header_is_noticed(tmp_path, size):
    path = build(tmp_path / "logs.sqlite", [*entries(300), make_entry(0, message="x" * 99_999)])
    expected = by_sqlite(path)
    overwrite(path, 16, size.to_bytes(2))
    assert salvaged(path) == expected


def test_without_inner_pages_all_rows_are_found(tmp_path):
    path = build(tmp_path / "logs.sqlite", entries(12_000, message="x" * 300))
    expected = by_sqlite(path)
    inner = pages_of_kind(path, "logs", "internal")
    assert len(inner) > 1
    for number in inner:
        overwrite(path, 4096 * (number - 1), bytes(4096))
    assert salvaged(path, unreadable=(len(inner), 0)) == expected


@pytest.mark.parametrize("harm", [noise, bytes])
def test_a_lost_leaf_takes_only_its_own_rows(tmp_path, harm):
    path = build(tmp_path / "logs.sqlite", entries(3000))
    expected, pages = by_sqlite(path), pages_of_file(path)
    leaf = min(pages[1500])
    overwrite(path, 4096 * (leaf - 1), harm(4096))
    found = salvaged(path, unreadable=(1, 0))
    assert found == {row_id: row for row_id, row in expected.items() if leaf not in pages[row_id]}
    assert len(found) > 2900


def test_harm_within_a_leaf_takes_only_the_cells_it_reaches(tmp_path):
    path = build(tmp_path / "logs.sqlite", entries(3000))
    expected, pages = by_sqlite(path), pages_of_file(path)
    overwrite(path, 4096 * (min(pages[1500]) - 1) + 3000, b"\xff" * 200)
    salvage = Salvage(path, LOG_ROW)
    found = dict(salvage)
    assert found.items() <= expected.items()
    assert salvage.unreadable_cells == len(expected) - len(found)
    assert 2 <= salvage.unreadable_cells <= 6


@pytest.mark.parametrize("target", [0, 1, "itself", "leaf", 1 << 31])
def test_a_broken_chain_of_overflow_pages_takes_only_its_row(tmp_path, target):
    batch = [make_entry(number, message=f"{number:03}" * 9999) for number in range(20)]
    path = build(tmp_path / "logs.sqlite", batch)
    expected, pages = by_sqlite(path), pages_of_file(path)
    overflow = sorted(pages[7] & set(pages_of_kind(path, "logs", "overflow")))
    broken = overflow[len(overflow) // 2]
    target = {"itself": broken, "leaf": min(pages[3])}.get(target, target)
    overwrite(path, 4096 * (broken - 1), target.to_bytes(4))
    assert salvaged(path, unreadable=(0, 1)) == {
        row_id: row for row_id, row in expected.items() if row_id != 7
    }


def test_text_that_is_no_utf_8_is_unreadable(tmp_path):
    path = build(
        tmp_path / "logs.sqlite", [make_entry(0), make_entry(1, message="MARK"), make_entry(2)]
    )
    content = path.read_bytes()
    path.write_bytes(content.replace(b"MARK", b"MA\xffK"))
    assert sorted(salvaged(path, unreadable=(0, 1))) == [1, 3]


def test_a_file_that_was_cut_gives_what_is_left(tmp_path):
    path = build(tmp_path / "logs.sqlite", entries(3000))
    expected, pages, content = by_sqlite(path), pages_of_file(path), path.read_bytes()
    leaf = 4096 * (min(pages[1500]) - 1)
    for size in (*range(leaf, leaf + 4096, 177), len(content) // 2, 5000, 700, 50):
        path.write_bytes(content[:size])
        found = salvaged(path)
        assert found.items() <= expected.items()
        assert {row_id for row_id in expected if max(pages[row_id]) * 4096 <= size} <= set(found)


def test_a_row_id_that_changed_does_not_hide_a_row_elsewhere(tmp_path):
    path = build(tmp_path / "logs.sqlite", entries(3000))
    expected, pages = by_sqlite(path), pages_of_file(path)
    first = sorted(row_id for row_id in pages if pages[row_id] == pages[1])
    start = 4096 * (min(pages[1]) - 1)
    middle = first[len(first) // 2]
    content = path.read_bytes()
    (cell,) = struct.unpack_from(">H", content, start + 8 + 2 * (middle - 1))
    assert content[start + cell + 1] == middle  # after the size, both of one byte
    assert 120 not in first
    overwrite(path, start + cell + 1, bytes([120]))
    del expected[middle]
    assert salvaged(path) == expected


@pytest.mark.parametrize(
    "content", [b"", b"\r", b"not a database\r\n" * 9999, bytes(9999), noise(MIB), b"\r" * 99_999]
)
def test_what_is_no_database_has_no_rows(tmp_path, content):
    path = tmp_path / "logs.sqlite"
    path.write_bytes(content)
    assert salvaged(path) == {}
    wal_of(path).write_bytes(content)
    assert salvaged(path) == {}


def test_a_file_that_cannot_be_opened_is_an_error(tmp_path):
    for path in (tmp_path / "missing", tmp_path):
        with pytest.raises(DatabaseError, match="can't be read"):
            list(Salvage(path, LOG_ROW))


def test_memory_does_not_grow_with_the_file(tmp_path):
    path = build(tmp_path / "logs.sqlite", entries(48_000, message="x" * 300))
    assert path.stat().st_size > 16 * MIB
    tracemalloc.start()
    try:
        count = sum(1 for _ in Salvage(path, LOG_ROW))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == 48_000
    assert peak < 4 * MIB


# ---- any rows, any damage


def create_tables(connection: apsw.Connection) -> None:
    for migration in load_migrations("sqlite", "logs"):
        connection.execute(migration.sql).fetchall()


def fill(connection: apsw.Connection, batch: Sequence[LogEntry]) -> None:
    columns = ("ts", "ts_nanos", "level", "target", "message", "module_path", "file", "line")
    connection.executemany(
        f"INSERT INTO logs ({', '.join(columns)}, thread_id) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        ([*(getattr(entry, name) for name in columns), entry.thread_id] for entry in batch),
    ).fetchall()


numbers = st.integers(-(1 << 63), (1 << 63) - 1)
texts = st.text(st.characters(codec="utf-8"), max_size=20)
optional = st.none() | texts
long_texts = st.builds(str.__mul__, texts, st.sampled_from([1, 5, 30, 200]))
log_entries = st.builds(
    LogEntry,
    ts=numbers,
    ts_nanos=numbers,
    level=texts,
    target=texts,
    message=st.none() | long_texts,
    thread_id=optional,
    module_path=optional,
    file=optional,
    line=st.none() | numbers,
)


@st.composite
def databases(draw: Callable[..., Any]) -> tuple[bytes, int, Rows, Rows, dict[int, set[int]]]:
    """A file, the size of its pages, its rows, those that were deleted, and the pages of rows."""
    page_size = draw(page_sizes)
    connection = apsw.Connection(":memory:")
    auto_vacuum = draw(st.sampled_from(["NONE", "INCREMENTAL"]))
    connection.execute(
        f"PRAGMA page_size = {page_size}; PRAGMA auto_vacuum = {auto_vacuum}"
    ).fetchall()
    create_tables(connection)
    fill(connection, draw(st.lists(log_entries, max_size=6)) * draw(st.integers(1, 12)))
    deleted = rows_in(connection)
    ids = sorted(deleted)
    first, last = draw(st.tuples(st.sampled_from(ids or [0]), st.sampled_from(ids or [0])))
    connection.execute("DELETE FROM logs WHERE id BETWEEN ? AND ?", (first, last)).fetchall()
    rows = rows_in(connection)
    for row_id in rows:
        del deleted[row_id]
    pages = pages_of_rows(connection)
    content = connection.serialize("main")
    connection.close()
    return content, page_size, rows, deleted, pages


@settings(max_examples=90, deadline=None)
@given(database=databases(), data=st.data())
def test_harm_takes_only_what_it_reaches(database, data):
    content, page_size, rows, deleted, pages = database
    start = data.draw(st.integers(0, len(content) - 1))
    harm = data.draw(st.binary(min_size=1, max_size=40) | st.integers(1, 4 * page_size).map(noise))
    harm = harm[: len(content) - start]
    harmed = set(range(start // page_size + 1, (start + len(harm) - 1) // page_size + 2))
    sound = {row_id: row for row_id, row in rows.items() if not pages[row_id] & harmed}
    with TemporaryDirectory() as directory:
        path = Path(directory, "logs.sqlite")
        path.write_bytes(content)
        assert salvaged(path, unreadable=(0, 0)) == rows

        # Where the pages are gone as a whole, nothing can come from them; only old copies of rows
        # in free pages, if it is no longer known which are free.
        for number in harmed:
            overwrite(path, page_size * (number - 1), b"\xff" * page_size)
        found = salvaged(path)
        assert sound.items() <= found.items()
        assert found.items() <= rows.items() | deleted.items()

        path.write_bytes(content)
        overwrite(path, start, harm)
        found = salvaged(path)
        invented = {row_id for row_id, row in found.items() if (rows | deleted).get(row_id) != row}
        assert sound.keys() <= found.keys()
        assert all(found[row_id] == sound[row_id] for row_id in sound.keys() - invented)
        if not harmed & {number for numbers in pages.values() for number in numbers}:
            assert not invented


@settings(max_examples=40, deadline=None)
@given(database=databases(), flips=st.lists(st.integers(0, 1 << 40), min_size=1, max_size=300))
def test_bits_that_flip_all_over_do_no_more_harm(database, flips):
    content, page_size, rows, _, pages = database
    flipped = bytearray(content)
    for flip in flips:
        at = flip // 8 % len(content)
        flipped[at] ^= 1 << flip % 8
    harmed = {at // page_size + 1 for at in range(len(content)) if content[at] != flipped[at]}
    sound = {row_id for row_id in rows if not pages[row_id] & harmed}
    with TemporaryDirectory() as directory:
        path = Path(directory, "logs.sqlite")
        path.write_bytes(flipped)
        assert sound <= set(salvaged(path))
