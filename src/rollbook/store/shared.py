"""What many hosts share: the statements by which a host sends what is its own, and others read it.

Threads, groups, annotations and usage are in tables of the same names and columns as in the local
databases, so what reads those reads these.
"""

import hashlib
from collections.abc import Collection, Iterable, Sequence
from contextlib import nullcontext
from itertools import groupby
from operator import itemgetter
from typing import Any

import msgspec

from rollbook.errors import DamagedRowError
from rollbook.model.thread import ThreadMetadata
from rollbook.model.times import from_epoch, to_epoch
from rollbook.model.transcript import ItemKind, TranscriptItem
from rollbook.store import threads, tools, usage
from rollbook.store.engine import Row, Transaction
from rollbook.store.files import Located
from rollbook.store.postgres_transaction import PostgresTransaction
from rollbook.store.statements import load

CHANNEL = "rollbook"
_LIVE = 8  # threads, that are sent in one round trip; more are copied
_FILE_COLUMNS = ("key", "path", "compressed", "size", "mtime_ns", "inode")
_ITEM_COLUMNS = (
    "kind",
    "role",
    "text",
    "time",
    "name",
    "call_id",
    "turn",
    "starts_turn",
    "omitted",
)
_THREAD_COLUMNS = (*threads.STORED, "group_id", "digest")
_HOST = threads.STORED.index("host")
_GROUP = itemgetter(
    *(threads.STORED.index("git_origin_url" if c == "origin" else c) for c in threads.GROUPED_BY)
)
_encode = msgspec.msgpack.Encoder().encode
_USAGE_COLUMNS = ("thread_id", "bucket", "model", *usage.COLUMNS)
_OF_THREADS = ("thread_texts", "thread_dynamic_tools", "usage")  # written anew with each change
_STATEMENTS = load("shared.sql")


class Outgoing(msgspec.Struct, frozen=True):
    """A thread with all that is sent of it but what was said, as it is stored.

    ``row`` is each of ``threads.STORED``, with the path absolute; ``texts`` are title and preview as
    a whole, where the row has less.  ``rollouts`` are by what names them.
    """

    row: Row
    texts: tuple[str, str] | None
    tools: list[Row]
    rollouts: dict[str, Located]
    used: list[Row]

    @property
    def id(self) -> str:
        """The thread's id."""
        return str(self.row[0])

    def digest(self) -> str:
        """What is another one once any of it is."""
        return hashlib.blake2b(_encode(self), digest_size=16).hexdigest()


class SentRollout(msgspec.Struct, frozen=True):
    """A rollout of a host, how it looked when it was sent, and how far it was.

    ``read_size`` is -1 where nothing was sent yet.  It may begin in another thread, up to
    ``base_end`` bytes of that one's rollout.
    """

    thread_id: str
    key: str
    path: str
    compressed: bool
    size: int
    mtime_ns: int
    inode: int
    read_size: int = -1
    read_mtime_ns: int = 0
    scope: int = -1
    bytes_read: int = 0
    digest: bytes = b""
    base_thread_id: str | None = None
    base_end: int | None = None


class SentItem(msgspec.Struct, frozen=True):
    """An item of a rollout as it is sent: with what it can be searched by, if it can."""

    offset: int
    item: TranscriptItem
    said: str | None = None
    words: list[str] = []


def homes_of(tx: Transaction, machine: str) -> dict[str, str]:
    """Read what the homes of a machine are called: each home, by its name."""
    return dict(tx.query(_STATEMENTS["hosts_of"], {"machine": machine}))


def is_taken(tx: Transaction, host: str) -> bool:
    """Say whether any machine and home have a name."""
    return bool(tx.query(_STATEMENTS["is_taken"], {"host": host}))


def register(tx: Transaction, machine: str, home: str, host: str) -> None:
    """Give a machine and home a name, whoever had it."""
    tx.execute(_STATEMENTS["register"], {"machine": machine, "home": home, "host": host})


def rename(tx: Transaction, before: str, host: str) -> None:
    """Have all that was sent under one name be under another; log rows keep the one they have."""
    names = {"before": before, "host": host}
    for table in (*_OF_THREADS, "threads", "rollout_files", "transcript_items", "annotation_lines"):
        tx.execute(_STATEMENTS["forget_host"].format(table=table), names)
        tx.execute(_STATEMENTS["rename_host"].format(table=table), names)
    tx.execute(_STATEMENTS["forget_host"].format(table="log_positions"), names)
    tx.execute(_STATEMENTS["rename_log"], names)
    tx.execute(_STATEMENTS["forget_host"].format(table="hosts"), {"host": before})


def take_turn(tx: Transaction, subject: str) -> None:
    """Keep others from sending what is of a host, or a thread, until the end of the transaction."""
    number = int.from_bytes(hashlib.blake2b(subject.encode(), digest_size=8).digest(), signed=True)
    tx.execute(_STATEMENTS["take_turn"], {"number": number})


def versions(tx: Transaction) -> dict[str, int]:
    """Read how often each host has changed."""
    return dict(tx.query(_STATEMENTS["versions"]))


def delivered_at(tx: Transaction, host: str) -> int | None:
    """Read when all of a host was last compared (epoch seconds); None where it never was."""
    return next((at for (at,) in tx.query(_STATEMENTS["delivered_at"], {"host": host})), None)


def set_delivered(tx: Transaction, host: str, at: int) -> None:
    """Remember that all of a host was compared, at a time (epoch seconds)."""
    tx.execute(_STATEMENTS["set_delivered"], {"host": host, "at": at})


def tell(tx: Transaction, host: str, message: str) -> None:
    """Count a change of a host, and tell those who listen; messages have below 8,000 bytes."""
    tx.execute(_STATEMENTS["changed"], {"host": host})
    tx.execute(_STATEMENTS["notify"], {"message": message})


def digests(tx: Transaction, host: str, among: Collection[str] | None = None) -> dict[str, str]:
    """Read what was sent of the threads of a host, of all or of some."""
    if among is None:
        return dict(tx.query(_STATEMENTS["digests"], {"host": host}))
    sql = _STATEMENTS["digests_of"].format(among=_among("id"))
    return dict(tx.query(sql, {"host": host, "ids": tx.list_value(list(among))}))


def put_threads(
    tx: PostgresTransaction, host: str, sent: dict[str, Outgoing], known: Collection[str]
) -> None:
    """Store threads of a host, each by its digest, over those that were ``known`` of them."""
    groups = _groups_of(tx, {_GROUP(each.row) for each in sent.values()})
    rows = [
        (*each.row[:_HOST], host, *each.row[_HOST + 1 :], groups[_GROUP(each.row)], digest)
        for digest, each in sent.items()
    ]
    threads_sent = list(sent.values())
    again = [each.id for each in threads_sent if each.id in known]
    texts = [(each.id, host, *each.texts) for each in threads_sent if each.texts]
    of_tools = [(host, *row) for each in threads_sent for row in each.tools]
    used = [(host, *row) for each in threads_sent for row in each.used]
    with tx.pipelined() if len(sent) <= _LIVE else nullcontext():
        for table in _OF_THREADS if again else ():
            _delete(tx, table, host, again)
        if again:
            tx.upsert_many("threads", ("id", "host"), _THREAD_COLUMNS, rows)
        else:
            tx.insert_many("threads", _THREAD_COLUMNS, rows)
        tx.insert_many("thread_texts", ("thread_id", "host", "title", "preview"), texts)
        tx.insert_many("thread_dynamic_tools", ("host", *tools.COLUMNS), of_tools)
        tx.insert_many("usage", ("host", *_USAGE_COLUMNS), used)
        _put_rollouts(tx, host, threads_sent, again)


def _put_rollouts(
    tx: PostgresTransaction, host: str, sent: Sequence[Outgoing], again: list[str]
) -> None:
    rows = [
        (
            each.id,
            host,
            key,
            file.path,
            int(file.compressed),
            file.size,
            file.mtime_ns,
            file.inode,
        )
        for each in sent
        for key, file in each.rollouts.items()
    ]
    if again:
        sql = _STATEMENTS["delete_files"].format(
            among=_among("thread_id"),
            present="SELECT unnest(CAST(:present AS text[]))",
        )
        present = [f"{row[0]} {row[2]}" for row in rows]
        for thread_id, key in tx.query(
            sql, {"host": host, "ids": tx.list_value(again), "present": tx.list_value(present)}
        ):
            delete_items(tx, host, thread_id, key)
    columns = ("thread_id", "host", *_FILE_COLUMNS)
    tx.upsert_many("rollout_files", columns[:3], columns, rows)


def delete_threads(tx: PostgresTransaction, host: str, thread_ids: list[str]) -> None:
    """Take all that a host has sent of some threads away, but what persons have said of them."""
    for table in (*_OF_THREADS, "rollout_files", "transcript_items"):
        _delete(tx, table, host, thread_ids)
    _delete(tx, "threads", host, thread_ids, column="id")


def _delete(
    tx: Transaction, table: str, host: str, thread_ids: list[str], column: str = "thread_id"
) -> None:
    sql = _STATEMENTS["delete"].format(table=table, among=_among(column))
    tx.execute(sql, {"host": host, "ids": tx.list_value(thread_ids)})


def _groups_of(tx: Transaction, wanted: set[Row]) -> dict[Row, int]:
    """Give the numbers of groups; those that are not there yet are added."""
    digests = {_group_digest(group): group for group in wanted}
    sql = _STATEMENTS["groups"].format(among=tx.in_list("digest", "digests"))
    asked = {"digests": tx.list_value(list(digests))}
    found: dict[str, int] = dict(tx.query(sql, asked))
    new = [
        {"digest": digest, **dict(zip(threads.GROUPED_BY, _values_of(group), strict=True))}
        for digest, group in digests.items()
        if digest not in found
    ]
    if new:
        new.sort(key=lambda row: str(row["digest"]))  # so that two who add the same don't deadlock
        tx.execute_many(_STATEMENTS["add_group"], new)
        found = dict(tx.query(sql, asked))
    return {group: found[digest] for digest, group in digests.items()}


def _group_digest(group: Row) -> str:
    values = "\0".join(map(str, _values_of(group)))
    return hashlib.blake2b(values.encode(), digest_size=16).hexdigest()


def _values_of(group: Row) -> Row:
    """A thread without a remote is listed by an empty one."""
    return (*group[:-1], group[-1] or "")


def analyze(tx: Transaction) -> None:
    """Have the server find out what is in its tables; only a warning, for whoever may not."""
    tx.execute(_STATEMENTS["analyze"])


def _among(column: str) -> str:
    """Give the condition that a column is one of many ids.

    They are joined, as the server would compare each row with each of a list where it believes that
    a table that was just filled is still small.
    """
    return f"{column} IN (SELECT unnest(CAST(:ids AS text[])))"


def copies(tx: Transaction, thread_id: str) -> list[ThreadMetadata]:
    """Read a thread as each host has it, whole, the one that changed last first."""
    found = threads.whole(tx, "", [thread_id], _never)
    return sorted(found, key=lambda thread: (thread.updated_at, thread.host), reverse=True)


def _never(damage: DamagedRowError) -> None:
    raise damage


def rollouts(tx: Transaction, host: str, thread_ids: Collection[str]) -> list[SentRollout]:
    """Read which rollouts some threads have on a host, and how far they were sent."""
    sql = _STATEMENTS["rollouts_of"].format(
        columns=", ".join(SentRollout.__struct_fields__), among=_among("thread_id")
    )
    rows = tx.query(sql, {"host": host, "ids": tx.list_value(list(thread_ids))})
    return [_sent_rollout(row) for row in rows]


def _sent_rollout(row: Row) -> SentRollout:
    thread_id, key, path, compressed, size, mtime_ns, inode, *rest = row
    return SentRollout(thread_id, key, path, bool(compressed), size, mtime_ns, int(inode), *rest)


def is_as_read(tx: Transaction, host: str, rollout: SentRollout) -> bool:
    """Say whether a rollout is there, and was sent as far as it was when it was looked up."""
    now = {each.key: each for each in rollouts(tx, host, [rollout.thread_id])}.get(rollout.key)
    return now is not None and (now.bytes_read, now.digest) == (rollout.bytes_read, rollout.digest)


def delete_items(tx: Transaction, host: str, thread_id: str, key: str) -> None:
    """Take away what was sent of a rollout."""
    tx.execute(_STATEMENTS["delete_items"], {"thread_id": thread_id, "host": host, "key": key})


def put_items(
    tx: PostgresTransaction, host: str, rollout: SentRollout, sent: Iterable[SentItem]
) -> None:
    """Add items of a rollout, and remember how far it was sent with them."""
    columns = ("thread_id", "host", "key", "byte_offset", *_ITEM_COLUMNS, "said", "words")
    place = rollout.thread_id, host, rollout.key
    tx.insert_many("transcript_items", columns, [(*place, *_item_row(each)) for each in sent])
    values = {name: getattr(rollout, name) for name in SentRollout.__struct_fields__}
    tx.execute(_STATEMENTS["set_read"], values | {"host": host})


def _item_row(sent: SentItem) -> Row:
    item = sent.item
    return (
        sent.offset,
        str(item.kind),
        item.role,
        item.text,
        0 if item.time is None else to_epoch(item.time),
        item.name,
        item.call_id,
        item.turn,
        int(item.starts_turn),
        item.omitted,
        sent.said,
        None if sent.said is None else _as_vector(sent.words),
    )


def _as_vector(words: list[str]) -> str:
    """Write words as a tsvector is read."""
    return " ".join(map(quoted_word, words))


def quoted_word(word: str) -> str:
    """Write a word so that neither a tsvector nor a tsquery takes anything in it for its own."""
    return "'" + word.replace("\\", "\\\\").replace("'", "''") + "'"


def items_from(
    tx: Transaction, host: str, thread_id: str, key: str, start: int, end: int, n: int
) -> list[tuple[int, TranscriptItem]]:
    """Read the items of a rollout from a byte on and before another, at most so many."""
    return _items(tx, "items_from", host, thread_id, key, start=start, end=end, n=n)


def items_before(
    tx: Transaction, host: str, thread_id: str, key: str, end: int, n: int
) -> list[tuple[int, TranscriptItem]]:
    """Read the items of a rollout before a byte, the last first, at most so many."""
    return _items(tx, "items_before", host, thread_id, key, end=end, n=n)


def has_item(tx: Transaction, host: str, thread_id: str, key: str, start: int) -> bool:
    """Say whether an item of a rollout begins at a byte."""
    values = {"host": host, "thread_id": thread_id, "key": key, "start": start}
    return bool(tx.query(_STATEMENTS["has_item"], values))


def _items(
    tx: Transaction, name: str, host: str, thread_id: str, key: str, **values: int
) -> list[tuple[int, TranscriptItem]]:
    sql = _STATEMENTS[name].format(columns=", ".join(("byte_offset", *_ITEM_COLUMNS)))
    rows = tx.query(sql, {"host": host, "thread_id": thread_id, "key": key, **values})
    return [(row[0], _to_item(f"{key}:{row[0]}", host, row[1:])) for row in rows]


def _to_item(position: str, host: str, row: Row) -> TranscriptItem:
    values = dict(zip(_ITEM_COLUMNS, row, strict=True))
    values["kind"] = ItemKind(values["kind"])
    values["time"] = from_epoch(values["time"]) if values["time"] else None
    values["starts_turn"] = bool(values["starts_turn"])
    return TranscriptItem(position=position, host=host if values["omitted"] else "", **values)


def lines_of_host(tx: Transaction, host: str) -> dict[str, list[str]]:
    """Read what a host has sent of its annotations, by thread."""
    rows = tx.query(_STATEMENTS["lines_of_host"], {"host": host})
    return {id_: [line for _, line in each] for id_, each in groupby(rows, key=itemgetter(0))}


def lines_of_thread(tx: Transaction, thread_id: str) -> list[str]:
    """Read what was said of a thread, on all hosts, in no order."""
    return [line for (line,) in tx.query(_STATEMENTS["lines_of_thread"], {"thread_id": thread_id})]


def put_lines(tx: Transaction, host: str, thread_id: str, lines: Sequence[str]) -> None:
    """Have what a host says of a thread be these lines."""
    _delete(tx, "annotation_lines", host, [thread_id])
    rows = [
        {"thread_id": thread_id, "host": host, "number": number, "line": line}
        for number, line in enumerate(lines)
    ]
    tx.execute_many(_STATEMENTS["put_line"], rows)


class FoundItem(msgspec.Struct, frozen=True):
    """A message that may have what is looked for; ``time`` is in epoch seconds, 0 for none."""

    time: int
    thread_id: str
    host: str
    key: str
    byte_offset: int
    role: str
    kind: str
    name: str
    text: str

    @property
    def place(self) -> tuple[int, str, str, str, int]:
        """What the order goes by."""
        return self.time, self.thread_id, self.host, self.key, self.byte_offset


AFTER = (
    "(time, thread_id, host, key, byte_offset) < (:after_0, :after_1, :after_2, :after_3, :after_4)"
)


def search(
    tx: Transaction, conditions: Sequence[str], values: dict[str, Any], n: int
) -> list[FoundItem]:
    """Read the newest messages for which some conditions hold, at most so many."""
    sql = _STATEMENTS["search"].format(conditions="".join(f" AND {each}" for each in conditions))
    return [FoundItem(*row) for row in tx.query(sql, values | {"n": n})]


def forget_items(tx: Transaction, host: str) -> None:
    """Have the rollouts of a host be sent from their beginnings again."""
    tx.execute(_STATEMENTS["forget_items"], {"host": host})
