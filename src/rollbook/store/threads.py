"""Threads in the database.

Paths of rollouts are stored relative to the home, so that a home can be moved; a path outside of it
is stored as it is.  The functions take the home's absolute path as text and give absolute paths.
"""

from collections.abc import Callable, Collection, Iterator
from datetime import datetime
from pathlib import Path
from types import GenericAlias
from typing import Any, get_type_hints

import msgspec
import stringzilla

from rollbook.errors import DamagedRowError
from rollbook.model.paging import Anchor, SortKey, ThreadFilter
from rollbook.model.thread import ThreadMetadata, clean_text, is_thread_id, parse_thread_id
from rollbook.model.times import to_epoch, whole_seconds
from rollbook.store.carry_over import readable_rows
from rollbook.store.engine import Row, Transaction
from rollbook.store.statements import load

COLUMNS = ThreadMetadata.__struct_fields__
_STATEMENTS = {
    name: sql.format(
        columns=", ".join(COLUMNS),
        values=", ".join(f":{column}" for column in COLUMNS),
        assignments=", ".join(f"{column} = excluded.{column}" for column in COLUMNS[1:]),
    )
    for name, sql in load("threads.sql").items()
}
_SORT_COLUMNS = {
    SortKey.CREATED_AT: "created_at",
    SortKey.UPDATED_AT: "updated_at",
    SortKey.RECENCY_AT: "recency_at",
}


def get(tx: Transaction, home: str, thread_id: str) -> ThreadMetadata | None:
    """Read one thread; None where there is none.

    Errors: DamagedRowError for a row with impossible values (behaviour.md 15).
    """
    rows = tx.query(_STATEMENTS["get"], {"id": thread_id})
    return _from_row(rows[0], home) if rows else None


def exists(tx: Transaction, thread_id: str) -> bool:
    """Say whether a thread is known."""
    return bool(tx.query(_STATEMENTS["exists"], {"id": thread_id}))


def known(tx: Transaction, thread_ids: Collection[str]) -> set[str]:
    """Say which of these threads are known."""
    sql = f"SELECT id FROM threads WHERE {tx.in_list('id', 'ids')}"
    return {row[0] for row in tx.query(sql, {"ids": tx.list_value(list(thread_ids))})}


def ids_with_prefix(tx: Transaction, prefix: str, limit: int) -> list[str]:
    """Read the ids that begin with a text, in order."""
    rows = tx.query(_STATEMENTS["ids_between"], {"low": prefix, "high": prefix + "g", "n": limit})
    return [row[0] for row in rows]


def upsert(
    tx: Transaction, home: str, metadata: ThreadMetadata, fold_state: str | None = None
) -> None:
    """Insert a thread or overwrite every column of it (behaviour.md 16).

    With a ``fold_state``, also what its fold remembers, which else stays as it is.
    """
    row = _to_row(metadata, home)
    if fold_state is None:
        tx.execute(_STATEMENTS["upsert"], row)
    else:
        tx.execute(_STATEMENTS["upsert_folded"], row | {"fold_state": fold_state})


def fold_state(tx: Transaction, thread_id: str) -> str:
    """Read what the fold of a thread remembers, as JSON; ``{}`` where there is nothing."""
    rows = tx.query(_STATEMENTS["fold_state"], {"id": thread_id})
    return str(rows[0][0]) if rows else "{}"


def delete(tx: Transaction, thread_id: str) -> None:
    """Remove a thread and its tools."""
    tx.execute(_STATEMENTS["delete"], {"id": thread_id})


def page(
    tx: Transaction,
    home: str,
    limit: int,
    anchor: Anchor | None,
    sort_key: SortKey,
    threads: ThreadFilter,
    on_damage: Callable[[DamagedRowError], None],
) -> tuple[list[ThreadMetadata], Anchor | None, int]:
    """Read one page, newest first: the threads, where the next page starts, the rows read.

    A row with impossible values is told of and left out, as one bad row must not hide the rest.
    Source: behaviour.md 71 to 77.
    """
    items: list[ThreadMetadata] = []
    place, scanned = _place(anchor), 0
    while True:
        wanted = limit - len(items)
        rows = _listing(tx, ", ".join(COLUMNS), wanted + 1, place, sort_key, threads)
        scanned += len(rows)
        items += _readable(rows[:wanted], home, on_damage)
        has_more = len(rows) > wanted
        if not has_more or len(items) == limit:
            break
        place = (rows[wanted - 1][COLUMNS.index(_SORT_COLUMNS[sort_key])], rows[wanted - 1][0])
    if not has_more or not items:
        return items, None, scanned
    last_time = getattr(items[-1], _SORT_COLUMNS[sort_key])
    return items, Anchor(last_time, items[-1].id), scanned


def ids(
    tx: Transaction,
    limit: int,
    anchor: Anchor | None,
    sort_key: SortKey,
    threads: ThreadFilter,
) -> list[str]:
    """Read the ids of at most ``limit`` threads in listing order (behaviour.md 76).

    Errors: DamagedRowError for what is no id.
    """
    rows = _listing(tx, "id", limit, _place(anchor), sort_key, threads)
    return [_checked_id(row) for row in rows]


def set_names(tx: Transaction, names: dict[str, str]) -> None:
    """Give threads their names; unknown ids are passed over."""
    tx.execute_many(
        _STATEMENTS["rename"],
        [{"id": thread_id, "name": name} for thread_id, name in names.items()],
    )


def without_rollout_file(tx: Transaction, home: str) -> list[tuple[str, str]]:
    """Read id and path of the threads that no indexed rollout stands for."""
    rows = tx.query(_STATEMENTS["without_rollout_file"])
    return [(thread_id, _absolute(path, home)) for thread_id, path in rows]


def readable(tx: Transaction, home: str, damaged: Path) -> Iterator[ThreadMetadata]:
    """Read the threads that can be read in a damaged SQLite file, which must be out of use."""
    for row in readable_rows(tx, "threads", damaged):
        try:
            yield _from_row(tuple(row[column] for column in COLUMNS), home)
        except DamagedRowError:
            continue  # of a damaged file some rows are


def _readable(
    rows: list[Row], home: str, on_damage: Callable[[DamagedRowError], None]
) -> Iterator[ThreadMetadata]:
    try:
        yield from _from_rows(rows, home)
    except (OverflowError, ValueError):  # one of them
        for row in rows:
            try:
                yield _from_row(row, home)
            except DamagedRowError as error:
                on_damage(error)


def _place(anchor: Anchor | None) -> tuple[int, str] | None:
    return (to_epoch(whole_seconds(anchor.ts)), parse_thread_id(anchor.id)) if anchor else None


def _listing(
    tx: Transaction,
    columns: str,
    limit: int,
    after: tuple[int, str] | None,
    sort_key: SortKey,
    threads: ThreadFilter,
) -> list[Row]:
    """Build the listing from fixed fragments, so that each filter is there only where it is used.

    Only names of columns and of parameters are put into the text, never a value.
    """
    sort = _SORT_COLUMNS[sort_key]
    where = ["archived = :archived"]
    parameters: dict[str, Any] = {"archived": int(threads.archived), "n": limit}
    if not threads.include_silent:
        where.append("has_user_event = 1")
    if threads.sources:
        where.append(tx.in_list("source", "sources"))
        parameters["sources"] = tx.list_value(list(map(clean_text, threads.sources)))
    if threads.providers:
        where.append(tx.in_list("model_provider", "providers"))
        parameters["providers"] = tx.list_value(list(map(clean_text, threads.providers)))
    if threads.cwd is not None:
        where.append("cwd = :cwd")
        parameters["cwd"] = clean_text(threads.cwd)
    if threads.title_contains:
        where.append(tx.contains("title", "title"))
        parameters["title"] = clean_text(threads.title_contains)
    if after is not None:
        where.append(f"({sort}, id) < (:after_time, :after_id)")
        parameters |= {"after_time": after[0], "after_id": after[1]}
    return tx.query(
        f"SELECT {columns} FROM threads WHERE {' AND '.join(where)}"
        f" ORDER BY {sort} DESC, id DESC LIMIT :n",
        parameters,
    )


def _to_row(metadata: ThreadMetadata, home: str) -> dict[str, Any]:
    values = zip(COLUMNS, msgspec.structs.astuple(metadata), strict=True)
    row = {key: clean_text(v) if isinstance(v, str) else v for key, v in values}
    row["rollout_path"] = clean_text(_relative(metadata.rollout_path, home))
    row["created_at"] = to_epoch(metadata.created_at)
    row["updated_at"] = to_epoch(metadata.updated_at)
    row["recency_at"] = to_epoch(metadata.recency_at or metadata.created_at)
    row["archived_at"] = metadata.archived_at and to_epoch(metadata.archived_at)
    row["has_user_event"] = int(metadata.has_user_event)
    row["archived"] = int(metadata.archived_at is not None)
    return row


_PATH = COLUMNS.index("rollout_path")
_HINTS = get_type_hints(ThreadMetadata)
_STORED_AS = {datetime: int, datetime | None: int | None, bool: int}
# A row as it is stored, and as it is given: two looks of a C library cost less than one of ours.
_Stored = msgspec.defstruct(
    "_Stored", [(c, _STORED_AS.get(_HINTS[c], _HINTS[c])) for c in COLUMNS], array_like=True
)
_Given = msgspec.defstruct("_Given", [(c, _HINTS[c]) for c in COLUMNS], array_like=True)
_STORED_ROWS, _GIVEN_ROWS = GenericAlias(list, (_Stored,)), GenericAlias(list, (_Given,))
_NUL_IN_JSON = b"\\u0000"


def _from_row(row: Row, home: str) -> ThreadMetadata:
    try:
        return _from_rows([row], home)[0]
    except (OverflowError, ValueError) as error:
        raise _damaged(row) from error


def _from_rows(rows: list[Row], home: str) -> list[ThreadMetadata]:
    """Make threads of rows.  Errors: ValueError or OverflowError for impossible values in any."""
    stored = msgspec.convert(rows, _STORED_ROWS)
    if not all(is_thread_id(row[0]) for row in rows):
        raise ValueError("an id that is not in its canonical form")
    if stringzilla.find(msgspec.json.encode(stored), _NUL_IN_JSON) >= 0 and _has_nul(rows):
        raise ValueError("a NUL, which is never stored")
    found = []
    for given in msgspec.convert(rows, _GIVEN_ROWS, strict=False):
        values = list(msgspec.structs.astuple(given))
        values[_PATH] = _absolute(values[_PATH], home)
        found.append(ThreadMetadata(*values))
    return found


def _has_nul(rows: list[Row]) -> bool:
    return any("\0" in value for row in rows for value in row if isinstance(value, str))


def _checked_id(row: Row) -> str:
    if isinstance(row[0], str) and is_thread_id(row[0]):
        return row[0]
    raise _damaged(row)


def _damaged(row: Row) -> DamagedRowError:
    thread_id = str(row[0])[:100]
    return DamagedRowError(
        f"the row of thread {thread_id!r} holds impossible values",
        thread_id=thread_id,
        hint="run `rollbook sync --rebuild`",
    )


def _relative(path: str, home: str) -> str:
    return path.removeprefix(home + "/").lstrip("/") if path.startswith(home + "/") else path


def _absolute(path: str, home: str) -> str:
    return path if path.startswith("/") else f"{home}/{path}"
