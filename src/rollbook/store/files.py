"""Which rollouts were read, and how far; when the whole home was last compared."""

from collections.abc import Collection, Iterator

import msgspec

from rollbook.errors import DatabaseDamagedError
from rollbook.store.engine import Row, Transaction
from rollbook.store.statements import load


class FileRow(msgspec.Struct, frozen=True, kw_only=True):
    """A rollout as it was last read; ``path`` is relative to the home.

    ``thread_id`` is None where that isn't known, or the thread was deleted.

    ``fold_state`` is JSON that only the reader of rollouts understands.  Where the rollout could
    not be indexed, ``error`` says why.  ``applied_size`` is how large it was when records of it
    were last applied as they were written, in the machine's boot ``applied_boot``.
    """

    path: str
    thread_id: str | None
    compressed: bool
    size: int
    mtime_ns: int
    inode: int
    bytes_folded: int = 0
    digest: bytes = b""
    fold_state: str = "{}"
    parse_errors: int = 0
    error: str | None = None
    applied_size: int = 0
    applied_boot: str = ""


class Located(msgspec.Struct, frozen=True):
    """A rollout whose thread is known: where it is, and what it looked like when it was read."""

    path: str
    thread_id: str
    compressed: bool
    size: int
    mtime_ns: int
    inode: int


class BackfillState(msgspec.Struct, frozen=True, kw_only=True):
    """When the whole home was last compared (epoch seconds), and the state of its name file."""

    completed_at: int
    session_index_size: int
    session_index_mtime_ns: int


_AT_ONCE = 1000
_COLUMNS = FileRow.__struct_fields__
_STATEMENTS = {
    name: sql.format(
        columns=", ".join(_COLUMNS),
        values=", ".join(f":{column}" for column in _COLUMNS),
        assignments=", ".join(f"{column} = excluded.{column}" for column in _COLUMNS[1:]),
    )
    for name, sql in load("files.sql").items()
}


def get_all(tx: Transaction) -> dict[str, FileRow]:
    """Read all rollouts, by path."""
    return {row[0]: _from_row(row) for row in tx.query(_STATEMENTS["all"])}


def states(tx: Transaction) -> Iterator[Row]:
    """Read of all rollouts, a part at a time, what shows whether they have changed.

    That is path, size, mtime_ns, inode, compressed, and whether the rollout was indexed and nothing
    was applied since: a rollout of which that isn't so needs a look at the whole row.
    Errors: DatabaseDamagedError where the order is not one, as then there would be no end.
    """
    after = ""
    while rows := tx.query(_STATEMENTS["states"], {"after": after, "n": _AT_ONCE}):
        if rows[-1][0] <= after:
            raise DatabaseDamagedError("the index has rollouts out of order", reason="no order")
        yield from rows
        after = rows[-1][0]


def get(tx: Transaction, path: str) -> FileRow | None:
    """Read one rollout; None where it was never read."""
    rows = tx.query(_STATEMENTS["get"], {"path": path})
    return _from_row(rows[0]) if rows else None


def of_thread(tx: Transaction, thread_id: str) -> list[FileRow]:
    """Read the rollouts of one thread."""
    return list(of_threads(tx, [thread_id])[thread_id].values())


def of_threads(tx: Transaction, thread_ids: Collection[str]) -> dict[str, dict[str, FileRow]]:
    """Read the rollouts of each of some threads, by path."""
    sql = f"SELECT {', '.join(_COLUMNS)} FROM rollout_files WHERE {tx.in_list('thread_id', 'ids')}"
    found: dict[str, dict[str, FileRow]] = {thread_id: {} for thread_id in thread_ids}
    for row in map(_from_row, tx.query(sql, {"ids": tx.list_value(list(thread_ids))})):
        found[str(row.thread_id)][row.path] = row
    return found


def located(tx: Transaction, thread_ids: Collection[str] | None = None) -> list[Located]:
    """Read which rollouts there are, of all threads or of some, as far as they can be read."""
    sql, parameters = _STATEMENTS["located"], {}
    if thread_ids is not None:
        sql += f" AND {tx.in_list('thread_id', 'ids')}"
        parameters = {"ids": tx.list_value(list(thread_ids))}
    return [
        Located(path, thread_id, bool(compressed), *state)
        for path, thread_id, compressed, *state in tx.query(sql, parameters)
    ]


def signature(tx: Transaction) -> Row:
    """Read what differs once any rollout does that can be read; quicker than to look at each."""
    return tx.query(_STATEMENTS["signature"])[0]


def forgotten(tx: Transaction) -> set[str]:
    """Find the paths of rollouts that were read, and whose threads are no longer there."""
    return {path for (path,) in tx.query(_STATEMENTS["forgotten"])}


def ignored(tx: Transaction) -> list[str]:
    """Find the paths of rollouts that are known, and whose threads were deleted."""
    return [path for (path,) in tx.query(_STATEMENTS["ignored"])]


def without_thread(row: FileRow) -> FileRow:
    """Make the row of a rollout whose thread was deleted: what it looks like, nothing of it."""
    return FileRow(
        path=row.path,
        thread_id=None,
        compressed=row.compressed,
        size=row.size,
        mtime_ns=row.mtime_ns,
        inode=row.inode,
    )


def upsert(tx: Transaction, row: FileRow) -> None:
    """Remember a rollout as it was read."""
    tx.execute(_STATEMENTS["upsert"], msgspec.structs.asdict(row))


def set_applied(tx: Transaction, path: str, size: int, boot: str) -> None:
    """Remember how large a rollout was when records of it were applied; nothing if it is unknown."""
    tx.execute(_STATEMENTS["set_applied"], {"path": path, "size": size, "boot": boot})


def delete(tx: Transaction, path: str) -> None:
    """Forget a rollout."""
    tx.execute(_STATEMENTS["delete"], {"path": path})


def get_backfill_state(tx: Transaction) -> BackfillState | None:
    """Read the last comparison of the whole home; None where there was none yet."""
    rows = tx.query(_STATEMENTS["backfill_state"])
    if not rows:
        return None
    completed_at, size, mtime_ns = rows[0]
    return BackfillState(
        completed_at=completed_at, session_index_size=size, session_index_mtime_ns=mtime_ns
    )


def set_backfill_state(tx: Transaction, state: BackfillState) -> None:
    """Remember a comparison of the whole home."""
    tx.execute(_STATEMENTS["set_backfill_state"], msgspec.structs.asdict(state))


def _from_row(row: Row) -> FileRow:
    values = dict(zip(_COLUMNS, row, strict=True))
    values["compressed"] = bool(values["compressed"])
    return FileRow(**values)
