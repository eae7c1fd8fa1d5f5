"""Log rows in the database (behaviour.md 125, 128 to 130), and how much each thread takes."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import msgspec

from rollbook.model.log import LogEntry, LogQuery, LogRow
from rollbook.model.thread import clean_text
from rollbook.store import log_conditions, log_marks
from rollbook.store.engine import Row, Transaction
from rollbook.store.log_conditions import LARGEST_ID, Conditions, countable
from rollbook.store.log_marks import SPAN_SIZE
from rollbook.store.log_places import places
from rollbook.store.statements import load

THREADLESS = ""


class Amount(NamedTuple):
    """How much may be deleted at once."""

    rows: int
    bytes: int


COLUMNS = (
    "ts",
    "ts_nanos",
    "level",
    "line",
    "thread_id",
    "target",
    "message",
    "module_path",
    "file",
)
_THREAD = COLUMNS.index("thread_id")
_TEXTS = slice(COLUMNS.index("target"), None)  # those that make a row large
_ROW_BYTES = 100  # what a row and its index entries take beside its texts, about
_SIZE = f"""{_ROW_BYTES} + octet_length(target) + coalesce(octet_length(message), 0)
    + coalesce(octet_length(module_path), 0) + coalesce(octet_length(file), 0)"""
_STATEMENTS = {name: sql.replace("{size}", _SIZE) for name, sql in load("logs.sql").items()}

_BETWEEN = Conditions(["id BETWEEN :first AND :last"], {})
_RANGES = "(SELECT value ->> 0 AS low, value ->> 1 AS high FROM json_each(:ranges)) CROSS JOIN logs"
_AMONG = Conditions(["id BETWEEN low AND high"], {})


def insert(tx: Transaction, entries: Iterable[LogEntry]) -> int:
    """Append entries, in order; says how many bytes they take, about."""
    return insert_rows(tx, [_to_row(entry) for entry in entries])


def insert_rows(tx: Transaction, rows: Sequence[Row]) -> int:
    """Append rows as they are stored, in order; says how many bytes they take, about."""
    tx.insert_many("logs", COLUMNS, rows)
    sizes: Counter[str] = Counter()
    for row in rows:
        sizes[row[_THREAD] or THREADLESS] += _size_of(row)
    _count(tx, sizes)
    if not log_marks.mark_next(tx, len(rows) // SPAN_SIZE + 1) or len(rows) >= SPAN_SIZE:
        log_marks.merge_texts(tx, len(rows))
    return sizes.total()


def begin_after(tx: Transaction, row_id: int) -> None:
    """Have an empty table give larger ids than this to the rows that are appended."""
    tx.execute(_STATEMENTS["begin_after"], {"id": row_id})


def restore(tx: Transaction, rows: Sequence[dict[str, Any]]) -> int:
    """Put rows back that have ids; says how many were not there already."""
    sizes: Counter[str] = Counter()
    restored: list[int] = []
    for row in rows:
        if tx.query(_STATEMENTS["restore"], row):
            sizes[row["thread_id"] or THREADLESS] += _size_of(tuple(row[c] for c in COLUMNS))
            restored.append(row["id"])
    _count(tx, sizes)
    log_marks.mark_again(tx, restored)
    return len(restored)


def select(tx: Transaction, query: LogQuery, *, message_column: str = "message") -> list[LogRow]:
    """Read the rows that a query asks for; ``message_column`` is what the table calls it."""
    columns = f"id, ts, ts_nanos, level, target, {message_column}, thread_id, file, line"
    return [LogRow(*row) for row in _find(tx, query, columns, message_column)]


def ids(tx: Transaction, query: LogQuery, *, message_column: str = "message") -> list[int]:
    """Read the ids of the rows that a query asks for."""
    return [row_id for (row_id,) in _find(tx, query, "id", message_column)]


def max_id(tx: Transaction, query: LogQuery, *, message_column: str = "message") -> int:
    """Read the largest id that a query finds, whatever its limit; 0 where it finds none."""
    newest = msgspec.structs.replace(query, limit=1, descending=True)
    return next(iter(ids(tx, newest, message_column=message_column)), 0)


def _find(tx: Transaction, query: LogQuery, columns: str, message_column: str) -> list[Row]:
    """Read columns of the rows that a query asks for: of all rows, or of where marks say."""
    limit = LARGEST_ID if query.limit is None else countable(query.limit)
    end = f"ORDER BY id {'DESC' if query.descending else 'ASC'} LIMIT :n"
    asked = log_conditions.of_row(tx, query, message_column)
    if not log_marks.are_kept(tx):
        asked += log_conditions.of_id(query)
        sql = f"SELECT {columns} FROM logs{asked.where} {end}"
        return tx.query(sql, asked.values | {"n": limit})
    found: list[Row] = []
    for ranges in places(tx, query) if limit else ():
        values = asked.values | {"n": limit - len(found)}
        if len(ranges) == 1:
            within, table = asked + _BETWEEN, "logs"
            values |= {"first": ranges[0][0], "last": ranges[0][1]}
        else:
            within, table = asked + _AMONG, _RANGES
            values["ranges"] = tx.list_value(ranges)
        found += tx.query(f"SELECT {columns} FROM {table}{within.where} {end}", values)
        if len(found) == limit:
            break
    return found


def rows_after(
    tx: Transaction, row_id: int, limit: int, *, message_column: str = "message"
) -> list[Row]:
    """Read the next rows behind an id as they are stored, each with its id first."""
    columns = [message_column if column == "message" else column for column in COLUMNS]
    values = {"id": row_id, "n": limit}
    return tx.query(_STATEMENTS["rows_after"].format(columns=", ".join(columns)), values)


def last_id(tx: Transaction) -> int:
    """Read the largest id that was ever given to a row; 0 where none was."""
    rows = tx.query(_STATEMENTS["last_id"])
    return int(rows[0][0]) if rows else 0


def thread_ids(tx: Transaction, prefix: str, limit: int) -> list[str]:
    """Find thread ids that begin with a text, in order.

    One statement for each, as a thread may have a million rows.
    """
    found: list[str] = []
    table = "log_threads" if log_marks.are_kept(tx) else "logs"
    parameters = {"low": prefix, "high": prefix + chr(0x10FFFF)}
    sql = _STATEMENTS["next_thread"].format(table=table)
    while len(found) < limit and (rows := tx.query(sql, parameters)):
        found.append(rows[0][0])
        parameters["low"] = found[-1] + "\x01"
    return found


def delete(tx: Transaction, among: Sequence[int], max_bytes: int) -> list[int]:
    """Delete rows by id, up to so many bytes but at least one; gives those that were deleted."""
    sql = _STATEMENTS["sizes"].format(among=tx.in_list("id", "ids"))
    sizes: Counter[str] = Counter()
    chosen: list[int] = []
    for row_id, thread_id, size in tx.query(sql, {"ids": tx.list_value(among)}):
        if chosen and -sizes.total() + size > max_bytes:
            break
        chosen.append(row_id)
        sizes[thread_id] -= size
    if chosen:
        sql = f"DELETE FROM logs WHERE {tx.in_list('id', 'ids')}"
        tx.execute(sql, {"ids": tx.list_value(chosen)})
        _count(tx, sizes)
        tx.execute(_STATEMENTS["forget_empty"])
    return chosen


def delete_oldest(tx: Transaction, most: Amount) -> int:
    """Delete the rows that were written first; says how many."""
    oldest = [row_id for (row_id,) in tx.query(_STATEMENTS["oldest"], {"n": most.rows})]
    return len(delete(tx, oldest, most.bytes))


def delete_oldest_of(tx: Transaction, thread_id: str, most: Amount) -> int:
    """Delete the first rows of one thread, or of THREADLESS; says how many."""
    is_threadless = thread_id == THREADLESS
    names = [] if is_threadless else [thread_id]
    query = LogQuery(thread_ids=names, include_threadless=is_threadless, limit=most.rows)
    deleted = delete(tx, ids(tx, query), most.bytes)
    if deleted:
        log_marks.forget_thread_before(tx, thread_id, deleted[-1])
    return len(deleted)


def largest_thread(tx: Transaction, above_bytes: int) -> str | None:
    """Find the thread whose rows take most, if that is more than allowed; None otherwise."""
    rows = tx.query(_STATEMENTS["too_large"], {"bytes": above_bytes})
    return str(rows[0][0]) if rows else None


def thread_bytes(tx: Transaction, thread_id: str) -> int:
    """Read how many bytes the rows of a thread, or of THREADLESS, take, about."""
    rows = tx.query(_STATEMENTS["size"], {"thread_id": thread_id})
    return int(rows[0][0]) if rows else 0


def _count(tx: Transaction, sizes: Counter[str]) -> None:
    for thread_id, size in sizes.items():
        tx.execute(_STATEMENTS["count"], {"thread_id": thread_id, "bytes": size})


def _to_row(entry: LogEntry) -> Row:
    return (
        entry.ts,
        entry.ts_nanos,
        clean_text(entry.level),
        entry.line,
        clean_text(entry.thread_id) if entry.thread_id else None,
        clean_text(entry.target),
        entry.message and clean_text(entry.message),
        entry.module_path and clean_text(entry.module_path),
        entry.file and clean_text(entry.file),
    )


def _size_of(row: Row) -> int:
    return _ROW_BYTES + sum(
        len(text) if text.isascii() else len(text.encode()) for text in row[_TEXTS] if text
    )


def digest_of(row: Row) -> str:
    """What tells a row, with its id first, from another one with that id."""
    return hashlib.blake2b(msgspec.msgpack.encode(row), digest_size=16).hexdigest()


def copied(tx: Transaction, source: str) -> tuple[int, str]:
    """Read up to which row a source was copied, and what that row was; 0 where none was."""
    rows = tx.query(_STATEMENTS["copied"], {"source": source})
    return (rows[0][0], rows[0][1]) if rows else (0, "")


def put_copies(tx: Transaction, source: str, rows: Sequence[Row]) -> None:
    """Append rows of another database, each with its id there first, and remember the last."""
    insert_rows(tx, [row[1:] for row in rows])
    values = {"source": source, "last_id": rows[-1][0], "last_row": digest_of(rows[-1])}
    tx.execute(_STATEMENTS["set_copied"], values)
