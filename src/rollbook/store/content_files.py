"""Which rollouts were read for their content, how far, and what is wanted of it."""

from collections.abc import Collection

import msgspec

from rollbook.model.search import TextScope
from rollbook.store.engine import Row, Transaction
from rollbook.store.statements import load


class ContentFile(msgspec.Struct, frozen=True, kw_only=True):
    """A rollout as it was read for its content.

    ``key`` names it wherever it is moved; ``path`` is where it was, relative to the home.  Of its
    texts, those before ``open_from`` are settled.
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


class ContentState(msgspec.Struct, frozen=True):
    """What is wanted, and whether all of it was read: when (epoch seconds), None for never."""

    next_chunk: int
    scope: TextScope
    completed_at: int | None


_COLUMNS = ContentFile.__struct_fields__
_STATEMENTS = {
    name: sql.format(
        columns=", ".join(_COLUMNS),
        values=", ".join(f":{column}" for column in _COLUMNS),
        assignments=", ".join(f"{column} = excluded.{column}" for column in _COLUMNS[1:]),
        threads="{threads}",
        ids="{ids}",
    )
    for name, sql in load("content_files.sql").items()
}


def get_all(tx: Transaction) -> dict[str, ContentFile]:
    """Read all rollouts, by key."""
    return {row[0]: _from_row(row) for row in tx.query(_STATEMENTS["all"])}


def signature(tx: Transaction) -> Row:
    """Read what is the same as that of the index, and 0, where all was read as it is wanted."""
    return tx.query(_STATEMENTS["signature"])[0]


def of_threads(tx: Transaction, thread_ids: Collection[str]) -> dict[str, ContentFile]:
    """Read the rollouts of some threads, by key."""
    sql = _STATEMENTS["of_threads"].format(threads=tx.in_list("thread_id", "threads"))
    rows = tx.query(sql, {"threads": tx.list_value(list(thread_ids))})
    return {row[0]: _from_row(row) for row in rows}


def by_ids(tx: Transaction, ids: Collection[int]) -> dict[int, ContentFile]:
    """Read some rollouts, by id."""
    sql = _STATEMENTS["by_ids"].format(ids=tx.in_list("id", "ids"))
    rows = tx.query(sql, {"ids": tx.list_value(list(ids))})
    return {row[-1]: _from_row(row[:-1]) for row in rows}


def id_of(tx: Transaction, key: str) -> int | None:
    """Find the id of a rollout; None where it was never read."""
    rows = tx.query(_STATEMENTS["id_of"], {"key": key})
    return int(rows[0][0]) if rows else None


def upsert(tx: Transaction, file: ContentFile) -> int:
    """Remember a rollout as it was read; returns its id."""
    return int(tx.query(_STATEMENTS["upsert"], msgspec.structs.asdict(file))[0][0])


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
