"""Log rows in the database (behaviour.md 125, 128 to 130), and how much each thread takes."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from rollbook.model.log import LogEntry, LogQuery, LogRow
from rollbook.model.thread import clean_text
from rollbook.store.engine import Row, Transaction
from rollbook.store.statements import load

THREADLESS = ""
LARGEST_ID = (1 << 63) - 1
_ROW_BYTES = 100  # what a row and its index entries take beside its texts, about
_SIZE = f"""{_ROW_BYTES} + octet_length(target) + coalesce(octet_length(message), 0)
    + coalesce(octet_length(module_path), 0) + coalesce(octet_length(file), 0)"""
_STATEMENTS = {name: sql.format(size=_SIZE) for name, sql in load("logs.sql").items()}
_LEVEL = "CASE upper(level) WHEN 'WARNING' THEN 'WARN' ELSE upper(level) END"


def insert(tx: Transaction, entries: Iterable[LogEntry]) -> int:
    """Append entries, in order; says how many bytes they take, about."""
    rows = [_to_row(entry) for entry in entries]
    tx.execute_many(_STATEMENTS["insert"], rows)
    sizes: Counter[str] = Counter()
    for row in rows:
        sizes[row["thread_id"] or THREADLESS] += _size_of(row)
    _count(tx, sizes)
    return sizes.total()


def select(tx: Transaction, query: LogQuery, *, message_column: str = "message") -> list[LogRow]:
    """Read the rows that a query asks for; ``message_column`` is what the table calls it."""
    where, parameters = _conditions(tx, query, message_column)
    order = "DESC" if query.descending else "ASC"
    limit = "" if query.limit is None else " LIMIT :n"
    rows = tx.query(
        f"SELECT id, ts, ts_nanos, level, target, {message_column}, thread_id, file, line"
        f" FROM logs{where} ORDER BY id {order}{limit}",
        parameters | ({} if query.limit is None else {"n": query.limit}),
    )
    return [LogRow(*row) for row in rows]


def max_id(tx: Transaction, query: LogQuery, *, message_column: str = "message") -> int:
    """Read the largest id that a query finds, whatever its limit; 0 where it finds none."""
    where, parameters = _conditions(tx, query, message_column)
    rows = tx.query(f"SELECT id FROM logs{where} ORDER BY id DESC LIMIT 1", parameters)
    return int(rows[0][0]) if rows else 0


def thread_ids(tx: Transaction, prefix: str, limit: int) -> list[str]:
    """Find thread ids that begin with a text, in order.

    One statement for each, as a thread may have a million rows.
    """
    found: list[str] = []
    parameters = {"low": prefix, "high": prefix + chr(0x10FFFF)}
    while len(found) < limit and (rows := tx.query(_STATEMENTS["next_thread"], parameters)):
        found.append(rows[0][0])
        parameters["low"] = found[-1] + "\x01"
    return found


def delete_before(tx: Transaction, ts: int, limit: int, up_to_id: int = LARGEST_ID) -> int:
    """Delete at most ``limit`` of the rows before a time, oldest first; says how many."""
    parameters = {"ts": ts, "n": limit, "up_to_id": up_to_id}
    return _deleted(tx, tx.query(_STATEMENTS["delete_before"], parameters))


def delete_oldest(tx: Transaction, limit: int) -> int:
    """Delete the ``limit`` rows that were written first; says how many there were."""
    return _deleted(tx, tx.query(_STATEMENTS["delete_oldest"], {"n": limit}))


def delete_oldest_of(tx: Transaction, thread_id: str, limit: int) -> int:
    """Delete the first rows of one thread, or of THREADLESS; says how many there were."""
    if thread_id == THREADLESS:
        return _deleted(tx, tx.query(_STATEMENTS["delete_oldest_threadless"], {"n": limit}))
    parameters = {"thread_id": thread_id, "n": limit}
    return _deleted(tx, tx.query(_STATEMENTS["delete_oldest_of"], parameters))


def largest_thread(tx: Transaction, above_bytes: int) -> str | None:
    """Find the thread whose rows take most, if that is more than allowed; None otherwise."""
    rows = tx.query(_STATEMENTS["too_large"], {"bytes": above_bytes})
    return str(rows[0][0]) if rows else None


def thread_bytes(tx: Transaction, thread_id: str) -> int:
    """Read how many bytes the rows of a thread, or of THREADLESS, take, about."""
    rows = tx.query(_STATEMENTS["size"], {"thread_id": thread_id})
    return int(rows[0][0]) if rows else 0


def _deleted(tx: Transaction, rows: list[Row]) -> int:
    sizes: Counter[str] = Counter()
    for thread_id, size in rows:
        sizes[thread_id] -= size
    _count(tx, sizes)
    if rows:
        tx.execute(_STATEMENTS["forget_empty"])
    return len(rows)


def _count(tx: Transaction, sizes: Counter[str]) -> None:
    for thread_id, size in sizes.items():
        tx.execute(_STATEMENTS["count"], {"thread_id": thread_id, "bytes": size})


def _to_row(entry: LogEntry) -> dict[str, Any]:
    return {
        "ts": entry.ts,
        "ts_nanos": entry.ts_nanos,
        "level": clean_text(entry.level),
        "target": clean_text(entry.target),
        "message": entry.message and clean_text(entry.message),
        "module_path": entry.module_path and clean_text(entry.module_path),
        "file": entry.file and clean_text(entry.file),
        "line": entry.line,
        "thread_id": clean_text(entry.thread_id) if entry.thread_id else None,
    }


def _size_of(row: dict[str, Any]) -> int:
    return _ROW_BYTES + sum(
        len(text) if text.isascii() else len(text.encode())
        for text in (row["target"], row["message"], row["module_path"], row["file"])
        if text
    )


def _conditions(
    tx: Transaction, query: LogQuery, message_column: str
) -> tuple[str, dict[str, Any]]:
    """Build the filter from fixed fragments, each there only where it restricts."""
    where: list[str] = []
    parameters: dict[str, Any] = {}
    if query.level:
        level = query.level.upper()
        where.append(f"{_LEVEL} = :level")
        parameters["level"] = "WARN" if level == "WARNING" else level
    for condition, value in (
        ("ts >= :from_ts", query.from_ts),
        ("ts <= :to_ts", query.to_ts),
        ("id > :after_id", query.after_id),
        ("id <= :up_to_id", query.up_to_id),
    ):
        if value is not None:
            where.append(condition)
            parameters[condition.partition(":")[2]] = value
    for column, texts in (
        ("module_path", query.module_like),
        ("file", query.file_like),
        (message_column, (query.search,) if query.search else ()),
    ):
        names = _named(column, texts, parameters)
        if names:
            where.append(f"({' OR '.join(tx.contains(column, name) for name in names)})")
    where += _thread_condition(query, parameters)
    return (f" WHERE {' AND '.join(where)}" if where else ""), parameters


def _thread_condition(query: LogQuery, parameters: dict[str, Any]) -> list[str]:
    choices = []
    names = _named("thread_id", query.thread_ids, parameters)
    if names:
        choices.append(f"thread_id IN ({', '.join(':' + name for name in names)})")
    if query.include_threadless:
        choices.append("thread_id IS NULL")
    return [f"({' OR '.join(choices)})"] if choices else []


def _named(column: str, texts: Sequence[str], parameters: dict[str, Any]) -> list[str]:
    """Bind texts that aren't empty, and name their parameters (behaviour.md 133)."""
    names = {f"{column}_{index}": clean_text(text) for index, text in enumerate(texts) if text}
    parameters |= names
    return list(names)
