"""Log rows in the database (behaviour.md 125, 128 to 130), and how much each thread takes."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from rollbook.model.log import LogEntry, LogQuery, LogRow
from rollbook.model.thread import clean_text
from rollbook.store.engine import Row, Transaction
from rollbook.store.statements import load

THREADLESS = ""
LARGEST_ID = (1 << 63) - 1


class Amount(NamedTuple):
    """How much may be deleted at once."""

    rows: int
    bytes: int


_COLUMNS = (
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
_THREAD = _COLUMNS.index("thread_id")
_TEXTS = slice(_COLUMNS.index("target"), None)  # those that make a row large
_ROW_BYTES = 100  # what a row and its index entries take beside its texts, about
_SIZE = f"""{_ROW_BYTES} + octet_length(target) + coalesce(octet_length(message), 0)
    + coalesce(octet_length(module_path), 0) + coalesce(octet_length(file), 0)"""
_STATEMENTS = {name: sql.format(size=_SIZE) for name, sql in load("logs.sql").items()}
_LEVEL = "CASE upper(level) WHEN 'WARNING' THEN 'WARN' ELSE upper(level) END"


def insert(tx: Transaction, entries: Iterable[LogEntry]) -> int:
    """Append entries, in order; says how many bytes they take, about."""
    rows = [_to_row(entry) for entry in entries]
    tx.insert_many("logs", _COLUMNS, rows)
    sizes: Counter[str] = Counter()
    for row in rows:
        sizes[row[_THREAD] or THREADLESS] += _size_of(row)
    _count(tx, sizes)
    return sizes.total()


def begin_after(tx: Transaction, row_id: int) -> None:
    """Have an empty table give larger ids than this to the rows that are appended."""
    tx.execute(_STATEMENTS["begin_after"], {"id": row_id})


def restore(tx: Transaction, rows: Sequence[dict[str, Any]]) -> int:
    """Put rows back that have ids; says how many were not there already."""
    sizes: Counter[str] = Counter()
    restored = 0
    for row in rows:
        if tx.query(_STATEMENTS["restore"], row):
            sizes[row["thread_id"] or THREADLESS] += _size_of(tuple(row[c] for c in _COLUMNS))
            restored += 1
    _count(tx, sizes)
    return restored


def select(tx: Transaction, query: LogQuery, *, message_column: str = "message") -> list[LogRow]:
    """Read the rows that a query asks for; ``message_column`` is what the table calls it."""
    where, parameters = _conditions(tx, query, message_column)
    order = "DESC" if query.descending else "ASC"
    limit = "" if query.limit is None else " LIMIT :n"
    rows = tx.query(
        f"SELECT id, ts, ts_nanos, level, target, {message_column}, thread_id, file, line"
        f" FROM logs{where} ORDER BY id {order}{limit}",
        parameters | ({} if query.limit is None else {"n": _countable(query.limit)}),
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


def delete_before(tx: Transaction, ts: int, most: Amount, up_to_id: int = LARGEST_ID) -> int:
    """Delete rows before a time, oldest first; says how many."""
    parameters = {"ts": _countable(ts), "n": most.rows, "up_to_id": up_to_id}
    return _delete(tx, tx.query(_STATEMENTS["before"], parameters), most.bytes)


def delete_oldest(tx: Transaction, most: Amount) -> int:
    """Delete the rows that were written first; says how many."""
    return _delete(tx, tx.query(_STATEMENTS["oldest"], {"n": most.rows}), most.bytes)


def delete_oldest_of(tx: Transaction, thread_id: str, most: Amount) -> int:
    """Delete the first rows of one thread, or of THREADLESS; says how many."""
    name = "oldest_threadless" if thread_id == THREADLESS else "oldest_of"
    rows = tx.query(_STATEMENTS[name], {"thread_id": thread_id, "n": most.rows})
    return _delete(tx, rows, most.bytes)


def largest_thread(tx: Transaction, above_bytes: int) -> str | None:
    """Find the thread whose rows take most, if that is more than allowed; None otherwise."""
    rows = tx.query(_STATEMENTS["too_large"], {"bytes": above_bytes})
    return str(rows[0][0]) if rows else None


def thread_bytes(tx: Transaction, thread_id: str) -> int:
    """Read how many bytes the rows of a thread, or of THREADLESS, take, about."""
    rows = tx.query(_STATEMENTS["size"], {"thread_id": thread_id})
    return int(rows[0][0]) if rows else 0


def _delete(tx: Transaction, rows: list[Row], max_bytes: int) -> int:
    """Delete the first of these rows, up to so many bytes but at least one."""
    sizes: Counter[str] = Counter()
    ids: list[int] = []
    for row_id, thread_id, size in rows:
        if ids and -sizes.total() + size > max_bytes:
            break
        ids.append(row_id)
        sizes[thread_id] -= size
    if ids:
        tx.execute(f"DELETE FROM logs WHERE {tx.in_list('id', 'ids')}", {"ids": tx.list_value(ids)})
        _count(tx, sizes)
        tx.execute(_STATEMENTS["forget_empty"])
    return len(ids)


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


def _conditions(
    tx: Transaction, query: LogQuery, message_column: str
) -> tuple[str, dict[str, Any]]:
    """Build the filter from fixed fragments, each there only where it restricts."""
    where: list[str] = []
    parameters: dict[str, Any] = {}
    if query.level:
        where.append(f"{_LEVEL} = {_LEVEL.replace('level', ':level')}")
        parameters["level"] = clean_text(query.level)
    for condition, value in (
        ("ts >= :from_ts", query.from_ts),
        ("ts <= :to_ts", query.to_ts),
        ("id > :after_id", query.after_id),
        ("id <= :up_to_id", query.up_to_id),
    ):
        if value is not None:
            where.append(condition)
            parameters[condition.partition(":")[2]] = _countable(value)
    for column, texts in (
        ("module_path", query.module_like),
        ("file", query.file_like),
        (message_column, (query.search,) if query.search else ()),
    ):
        conditions, bound = _list(tx.contains, tx.contains_any, tx, column, texts)
        where += conditions
        parameters |= bound
    conditions, bound = _list(_equals, tx.in_list, tx, "thread_id", query.thread_ids)
    parameters |= bound
    if query.include_threadless:
        conditions.append("thread_id IS NULL")
    if conditions:
        where.append(f"({' OR '.join(conditions)})")
    return (f" WHERE {' AND '.join(where)}" if where else ""), parameters


def _list(
    one: Callable[[str, str], str],
    several: Callable[[str, str], str],
    tx: Transaction,
    column: str,
    texts: Sequence[str],
) -> tuple[list[str], dict[str, Any]]:
    """Build the condition of a list: none where it holds only empty texts (behaviour.md 133)."""
    wanted = [clean_text(text) for text in texts if text]
    if not wanted:
        return [], {}
    if len(wanted) == 1:  # which an index can answer in order
        return [one(column, column)], {column: wanted[0]}
    return [several(column, column)], {column: tx.list_value(wanted)}


def _equals(column: str, parameter: str) -> str:
    return f"{column} = :{parameter}"


def _countable(number: int) -> int:
    """Bring a number within what databases count: beyond that, no row differs."""
    return max(-LARGEST_ID - 1, min(number, LARGEST_ID))
