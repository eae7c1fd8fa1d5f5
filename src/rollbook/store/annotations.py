"""What was said of threads, in the database: what the lines of the file come to."""

from collections.abc import Collection, Iterable

import msgspec

from rollbook.errors import DatabaseDamagedError
from rollbook.model.annotation import Annotations, Mark, Relocations
from rollbook.store.engine import Row, Transaction
from rollbook.store.statements import load

_STATEMENTS = load("annotations.sql")
_encode = msgspec.json.Encoder().encode
_decode_tags = msgspec.json.Decoder(tuple[str, ...]).decode


class FilesState(msgspec.Struct, frozen=True):
    """Sizes and mtimes (ns) of the files that names come from, -1 for one that isn't there."""

    size: int = -1
    mtime_ns: int = -1
    session_index_size: int = -1
    session_index_mtime_ns: int = -1


def get_state(tx: Transaction) -> FilesState | None:
    """Read what the files looked like when they were last taken over; None if they never were."""
    rows = tx.query(_STATEMENTS["state"])
    return FilesState(*rows[0]) if rows else None


def set_state(tx: Transaction, state: FilesState) -> None:
    """Remember what the files looked like."""
    tx.execute(_STATEMENTS["set_state"], msgspec.structs.asdict(state))


def get_all(tx: Transaction) -> dict[str, Mark]:
    """Read what was said of each thread."""
    return dict(map(_from_row, tx.query(_STATEMENTS["all"])))


def of_threads(tx: Transaction, thread_ids: Collection[str]) -> dict[str, Mark]:
    """Read what was said of some threads, as far as anything was."""
    sql = _STATEMENTS["some"].format(among=tx.in_list("thread_id", "ids"))
    return dict(map(_from_row, tx.query(sql, {"ids": tx.list_value(list(thread_ids))})))


def has_any(tx: Transaction) -> bool:
    """Say whether any thread has a name, a tag or a pin."""
    return bool(tx.query(_STATEMENTS["has_any"]))


def deleted(tx: Transaction, thread_ids: Collection[str]) -> dict[str, int]:
    """Read which of some threads were deleted: up to which turn (epoch seconds)."""
    sql = _STATEMENTS["deleted"].format(among=tx.in_list("thread_id", "ids"))
    return dict(tx.query(sql, {"ids": tx.list_value(list(thread_ids))}))


def relocations(tx: Transaction) -> Relocations:
    """Read which directories were moved."""
    return Relocations(tuple((old, new) for old, new in tx.query(_STATEMENTS["relocations"])))


def replace(tx: Transaction, before: dict[str, Mark], now: Annotations) -> None:
    """Have the database say what the lines come to now, where it has said what they did before."""
    replace_marks(tx, before, now.marks)
    tx.execute(_STATEMENTS["forget_relocations"])
    tx.execute_many(
        _STATEMENTS["relocate"],
        [
            {"position": position, "old": old, "new": new}
            for position, (old, new) in enumerate(now.relocations.moves)
        ],
    )


def replace_marks(tx: Transaction, before: dict[str, Mark], now: dict[str, Mark]) -> None:
    """Have the database say what was said of threads, where it has said something else before."""
    gone = before.keys() - now.keys()
    changed = {id_: mark for id_, mark in now.items() if before.get(id_) != mark}
    _change_tags(
        tx, "remove_tag", ((id_, before[id_]) for id_ in before.keys() & {*gone, *changed})
    )
    tx.execute_many(_STATEMENTS["remove"], [{"thread_id": thread_id} for thread_id in gone])
    tx.execute_many(_STATEMENTS["put"], [_to_row(*each) for each in changed.items()])
    _change_tags(tx, "add_tag", changed.items())


def _change_tags(tx: Transaction, statement: str, marks: Iterable[tuple[str, Mark]]) -> None:
    each = [{"thread_id": id_, "tag": tag} for id_, mark in marks for tag in mark.tags]
    tx.execute_many(_STATEMENTS[statement], each)


def _to_row(thread_id: str, mark: Mark) -> dict[str, object]:
    return {
        **msgspec.structs.asdict(mark),
        "thread_id": thread_id,
        "tags": _encode(mark.tags).decode(),
        "pinned": int(mark.pinned),
    }


def _from_row(row: Row) -> tuple[str, Mark]:
    thread_id, name, named_at, tags, pinned, deleted_through = row
    try:
        return thread_id, Mark(name, named_at, _decode_tags(tags), bool(pinned), deleted_through)
    except msgspec.MsgspecError as error:
        message = f"what was said of thread {str(thread_id)[:100]!r} can't be read"
        raise DatabaseDamagedError(message, reason="impossible values") from error
