"""Which rollouts were read for their content, how far, and what is wanted of it."""

from collections.abc import Collection

import msgspec

from rollbook.model.search import TextScope
from rollbook.store.engine import Row, Transaction
from rollbook.store.statements import load


class ContentFile(msgspec.Struct, frozen=True, kw_only=True):
    """A rollout as it was read for its content.

    ``key`` names it wherever it is moved; ``path`` is where it was, relative to the home.  ``id`` is
    0 as long as it isn't stored.  Of its texts, those before ``open_from`` are settled.
    """

    key: str
    thread_id: str
    path: str
    compressed: bool
    size: int
    mtime_ns: int
    inode: int
    bytes_read: int = 0
    digest: bytes = b""
    scope: int = TextScope.NOTHING
    open_from: int = 0
    state: str = ""
    id: int = 0


class ContentState(msgspec.Struct, frozen=True):
    """What is wanted, and whether all of it was read: when (epoch seconds), None for never."""

    next_chunk: int
    scope: TextScope
    completed_at: int | None


_COLUMNS = ContentFile.__struct_fields__
_STORED = _COLUMNS[:-1]
_STATEMENTS = load("content_files.sql")
_INSERT = _STATEMENTS["insert"].format(
    stored=", ".join(_STORED), values=", ".join(f":{column}" for column in _STORED)
)
_UPDATE = _STATEMENTS["update"].format(
    assignments=", ".join(f"{column} = :{column}" for column in _STORED)
)


def get_all(tx: Transaction) -> dict[str, ContentFile]:
    """Read all rollouts, by key."""
    sql = _STATEMENTS["all"].format(columns=", ".join(_COLUMNS))
    return {row[0]: _from_row(row) for row in tx.query(sql)}


def of_threads(tx: Transaction, thread_ids: Collection[str]) -> dict[str, ContentFile]:
    """Read the rollouts of some threads, by key."""
    condition = tx.in_list("thread_id", "threads")
    sql = _STATEMENTS["of_threads"].format(columns=", ".join(_COLUMNS), threads=condition)
    rows = tx.query(sql, {"threads": tx.list_value(list(thread_ids))})
    return {row[0]: _from_row(row) for row in rows}


def by_ids(tx: Transaction, ids: Collection[int]) -> dict[int, ContentFile]:
    """Read some rollouts, by id."""
    condition = tx.in_list("id", "ids")
    sql = _STATEMENTS["by_ids"].format(columns=", ".join(_COLUMNS), ids=condition)
    found = map(_from_row, tx.query(sql, {"ids": tx.list_value(list(ids))}))
    return {file.id: file for file in found}


def put(tx: Transaction, file: ContentFile) -> int:
    """Remember a rollout; returns its id."""
    values = msgspec.structs.asdict(file)
    if file.id:
        tx.execute(_UPDATE, values)
        return file.id
    del values["id"]
    return int(tx.query(_INSERT, values)[0][0])


def delete(tx: Transaction, file_id: int) -> None:
    """Forget a rollout, of which nothing else may be left."""
    tx.execute(_STATEMENTS["delete"], {"id": file_id})


def get_state(tx: Transaction) -> ContentState:
    """Read what is wanted, and whether all of it was read."""
    next_chunk, scope, completed_at = tx.query(_STATEMENTS["state"])[0]
    return ContentState(next_chunk, TextScope(scope), completed_at)


def set_scope(tx: Transaction, scope: TextScope) -> None:
    """Have other texts indexed from now on."""
    tx.execute(_STATEMENTS["set_scope"], {"scope": int(scope)})


def set_completed(tx: Transaction, completed_at: int) -> None:
    """Remember when all rollouts had been read (epoch seconds)."""
    tx.execute(_STATEMENTS["set_completed"], {"completed_at": completed_at})


def _from_row(row: Row) -> ContentFile:
    values = dict(zip(_COLUMNS, row, strict=True))
    values["compressed"] = bool(values["compressed"])
    return ContentFile(**values)
