"""The index of what was said in threads: which chunks of a rollout have which words.

A *chunk* is a few messages that follow each other.  Its words are in full-text indexes, of messages
and of tools, without order or count; which trigrams 32 chunks have is in another, for parts of words.
None keeps the text: it is in the rollouts, and what the indexes find has to be looked at there.  So an
index may say too much, never too little.
"""

from collections.abc import Collection

import msgspec

from rollbook.store.engine import Row, Transaction
from rollbook.store.statements import load

GROUP_BITS = 5  # chunks that share their trigrams; the statements have it, too
_LAST_OF_GROUP = (1 << GROUP_BITS) - 1
_COLUMNS = "id, file_id, first_time, last_time, places"
_STATEMENTS = load("texts.sql")
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[tuple[int, int]]).decode


class Chunk(msgspec.Struct, frozen=True):
    """Some messages of a rollout: when they were written (epoch seconds), and where.

    ``places`` are offset and length in bytes of each line.
    """

    first_time: int
    last_time: int
    places: tuple[tuple[int, int], ...]
    file_id: int = 0
    id: int = 0


def insert(tx: Transaction, file_id: int, chunk: Chunk, *, messages: str, tools: str) -> int:
    """Add a chunk, and what it is found by; returns its number, which no other has had."""
    number = int(tx.query(_STATEMENTS["next_chunk"])[0][0])
    tx.execute(_STATEMENTS["set_next_chunk"], {"next_chunk": number + 1})
    row = (number, file_id, chunk.first_time, chunk.last_time, _encode(chunk.places))
    tx.insert_many("text_chunks", _COLUMNS.split(", "), [row])
    for name, text in (("messages", messages), ("tools", tools)):
        if text:
            tx.execute(_STATEMENTS[f"insert_{name}"], {"id": number, "text": _for_index(text)})
    return number


def group_that_ends(number: int) -> int | None:
    """Say which group is complete with a chunk; None where others are still to come."""
    return number >> GROUP_BITS if number & _LAST_OF_GROUP == _LAST_OF_GROUP else None


def insert_trigrams(tx: Transaction, group: int, text: str) -> None:
    """Add what is said in the chunks of a group."""
    tx.execute(_STATEMENTS["insert_trigrams"], {"id": group, "text": _for_index(text)})


def _for_index(text: str) -> str:
    return text.replace("\0", "\n")  # it would take that for the end of the text


def of_group(tx: Transaction, group: int) -> list[Chunk]:
    """Read the chunks of a group that are still there."""
    first = group << GROUP_BITS
    sql = _STATEMENTS["chunks_between"].format(columns=_COLUMNS)
    return list(map(_chunk, tx.query(sql, {"first": first, "last": first + _LAST_OF_GROUP})))


def get(tx: Transaction, numbers: Collection[int]) -> dict[int, Chunk]:
    """Read some chunks, by number."""
    sql = _STATEMENTS["chunks"].format(columns=_COLUMNS, ids=tx.in_list("id", "ids"))
    chunks = map(_chunk, tx.query(sql, {"ids": tx.list_value(list(numbers))}))
    return {chunk.id: chunk for chunk in chunks}


def delete_last_of(tx: Transaction, file_id: int) -> None:
    """Take the last chunk of a rollout out of the index, to be written again."""
    (last,) = tx.query(_STATEMENTS["last_chunk"], {"file_id": file_id})[0]
    if last is not None:
        _delete(tx, [last])


def delete_all_of(tx: Transaction, file_id: int) -> None:
    """Take a rollout out of the index."""
    _delete(tx, [row[0] for row in tx.query(_STATEMENTS["chunks_of_file"], {"file_id": file_id})])


def _delete(tx: Transaction, numbers: list[int]) -> None:
    each = [{"id": number} for number in numbers]
    tx.execute_many(_STATEMENTS["delete_messages"], each)
    tx.execute_many(_STATEMENTS["delete_tools"], each)
    tx.execute_many(_STATEMENTS["delete_chunk"], each)
    groups = {number >> GROUP_BITS for number in numbers}
    tx.execute_many(_STATEMENTS["delete_trigrams"], [{"id": group} for group in groups])


def compact(tx: Transaction) -> None:
    """Make the indexes as small and quick as they get, after much was added."""
    for name in ("messages", "tools", "trigrams"):
        tx.execute(_STATEMENTS[f"compact_{name}"])


def candidates(
    tx: Transaction,
    *,
    words: str | None,
    roles: Collection[str],
    trigrams: str | None,
    since: int | None,
    until: int | None,
    thread_id: str | None,
) -> list[tuple[int, int, int]]:
    """Find the chunks that may have what is looked for: number, rollout, last time; newest first.

    ``words`` and ``trigrams`` are what the indexes are asked, None for nothing; words are looked for
    in messages, among what tools said, or in both, by the ``roles``.
    """
    tables = ["text_chunks"]
    conditions = ["1"]
    parameters: dict[str, object] = {}
    if words is not None:
        said = ["in_tools"] if "tool" in roles else []
        said += ["in_messages"] if {*roles} - {"tool"} else []
        found = " UNION ".join(_STATEMENTS[each] for each in said)
        conditions.append(f"text_chunks.id IN ({found})")
        parameters["words"] = words
    if trigrams is not None:
        conditions.append(_STATEMENTS["with_trigrams"])
        parameters["trigrams"] = trigrams
    if since is not None:
        conditions.append("text_chunks.last_time >= :since")
        parameters["since"] = since
    if until is not None:
        conditions.append("text_chunks.first_time < :until")
        parameters["until"] = until
    if thread_id is not None:
        tables.append("JOIN content_files ON content_files.id = text_chunks.file_id")
        conditions.append("content_files.thread_id = :thread_id")
        parameters["thread_id"] = thread_id
    sql = _STATEMENTS["candidates"].format(
        tables=" ".join(tables), conditions=" AND ".join(conditions)
    )
    return [(int(a), int(b), int(c)) for a, b, c in tx.query(sql, parameters)]


def _chunk(row: Row) -> Chunk:
    number, file_id, first_time, last_time, places = row
    return Chunk(first_time, last_time, tuple(_decode(places)), file_id, number)
