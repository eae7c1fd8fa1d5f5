"""Threads in the database.

Paths of rollouts are stored relative to the home, so that a home can be moved; a path outside of it
is stored as it is.  The functions take the home's absolute path as text and give absolute paths.
"""

import heapq
from collections.abc import Callable, Collection, Iterator
from datetime import datetime
from functools import cache
from itertools import islice
from operator import itemgetter
from pathlib import Path
from types import GenericAlias
from typing import Any, get_type_hints

import msgspec
import stringzilla

from rollbook.errors import DamagedRowError
from rollbook.model.paging import Anchor, SortKey, ThreadFilter
from rollbook.model.thread import ThreadMetadata, are_thread_ids, clean_text, parse_thread_id
from rollbook.model.times import to_epoch, whole_seconds
from rollbook.store.carry_over import readable_rows
from rollbook.store.engine import Row, Transaction
from rollbook.store.statements import load


class ThreadFacts(msgspec.Struct, frozen=True):
    """What usage is told by."""

    id: str
    source: str = ""
    model_provider: str = ""
    cwd: str = ""
    git_origin_url: str | None = None


class Group(msgspec.Struct, frozen=True):
    """The threads that are listed by the same values: where they work, how many, and since when.

    ``recency_at`` is in epoch seconds, 0 for no threads.
    """

    id: int
    archived: bool
    has_user_event: bool
    cwd: str
    origin: str
    threads: int
    recency_at: int


_ANNOTATED = ("tags", "pinned", "recorded_cwd")  # fields that no rollout says anything about
COLUMNS = tuple(each for each in ThreadMetadata.__struct_fields__ if each not in _ANNOTATED)
STORED = (*COLUMNS, "archived")  # what a thread's row says, and that isn't found by it
GROUPED_BY = ("archived", "has_user_event", "source", "model_provider", "cwd", "origin")
# What is in other tables, too.
_SHOWN_ELSEWHERE = {*GROUPED_BY, "archived_at", "git_origin_url", "title", "preview"}
_GROUP = f"""(SELECT thread_groups.id FROM thread_groups
    WHERE {" AND ".join(f"thread_groups.{column} = :{column}" for column in GROUPED_BY)})"""
_STATEMENTS = {
    name: sql.format(
        columns=", ".join(COLUMNS),
        values=", ".join(f":{column}" for column in COLUMNS),
        assignments=", ".join(f"{column} = excluded.{column}" for column in COLUMNS[1:]),
        group=_GROUP,
    )
    for name, sql in load("threads.sql").items()
}
SHOWN_CHARACTERS = 300  # of a title and a preview, in a list; migrations know it, too
_Place = tuple[int | str, ...]  # time and key
_PINNED = "SELECT thread_id FROM annotations WHERE pinned = 1"
_FEW_GROUPS = 32  # to merge so many takes no longer than one statement
_ALL = 1 << 62
_PROBED = 4_000  # index entries, a third of a millisecond
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
    return _whole(tx, home, thread_id, rows[0]) if rows else None


def get_folded(tx: Transaction, home: str, thread_id: str) -> tuple[ThreadMetadata, str] | None:
    """Read one thread, and what its fold remembers, as JSON; otherwise as :func:`get`."""
    rows = tx.query(_STATEMENTS["get_folded"], {"id": thread_id})
    return (_whole(tx, home, thread_id, rows[0][:-1]), rows[0][-1]) if rows else None


def _whole(tx: Transaction, home: str, thread_id: str, row: Row) -> ThreadMetadata:
    """Make a thread of its row, and of the texts that stand elsewhere where they are long."""
    if row[0] != thread_id:
        raise _damaged(row)
    thread = _from_row(row, home)
    if len(thread.title) < SHOWN_CHARACTERS and len(thread.preview) < SHOWN_CHARACTERS:
        return thread
    for title, preview in tx.query(_STATEMENTS["texts"], {"id": thread_id}):
        thread = msgspec.structs.replace(thread, title=title, preview=preview)
    return thread


def recency(tx: Transaction, thread_id: str) -> int | None:
    """Read the time of a thread's last turn (epoch seconds); None where there is no thread."""
    rows = tx.query(_STATEMENTS["recency"], {"id": thread_id})
    return int(rows[0][0]) if rows else None


def recorded_name(tx: Transaction, thread_id: str) -> str | None:
    """Read what the agent calls a thread; None for nothing, and where there is no thread."""
    rows = tx.query(_STATEMENTS["recorded_name"], {"id": thread_id})
    return rows[0][0] if rows else None


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
    row = _to_row({column: getattr(metadata, column) for column in COLUMNS}, home)
    row["recency_at"] = to_epoch(metadata.recency_at or metadata.created_at)
    row["has_user_event"] = int(metadata.has_user_event)
    row["archived"] = int(metadata.archived_at is not None)
    row["origin"] = row["git_origin_url"] or ""
    whole = {"id": row["id"], "title": row["title"], "preview": row["preview"]}
    is_long = max(len(whole["title"]), len(whole["preview"])) > SHOWN_CHARACTERS
    if is_long:
        row["title"] = whole["title"][:SHOWN_CHARACTERS]
        row["preview"] = whole["preview"][:SHOWN_CHARACTERS]
    tx.execute(_STATEMENTS["group"], {column: row[column] for column in GROUPED_BY})
    if fold_state is None:
        tx.execute(_STATEMENTS["upsert"], row)
    else:
        tx.execute(_STATEMENTS["upsert_folded"], row | {"fold_state": fold_state})
    if is_long:
        tx.execute(_STATEMENTS["keep_texts"], whole)
    else:
        tx.execute(_STATEMENTS["forget_texts"], {"id": row["id"]})


def change(
    tx: Transaction,
    home: str,
    before: ThreadMetadata,
    values: dict[str, Any],
    fold_state: str | None = None,
) -> None:
    """Set fields of a thread that was read in the same transaction; else as :func:`upsert`.

    Only what differs is written: a column that is set is written anew, changed or not, and so is
    each index that it is part of.
    """
    changes = {name: value for name, value in values.items() if value != getattr(before, name)}
    if not _SHOWN_ELSEWHERE.isdisjoint(changes):
        upsert(tx, home, msgspec.structs.replace(before, **changes), fold_state)
        return
    row = _to_row(changes, home)
    if fold_state is not None:
        row["fold_state"] = fold_state
    if row:
        tx.execute(_update(tuple(row)), row | {"id": before.id})


@cache
def _update(columns: tuple[str, ...]) -> str:
    assignments = ", ".join(f"{column} = :{column}" for column in columns)
    return f"UPDATE threads SET {assignments} WHERE id = :id"


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
    place, scanned = _place(tx, anchor), 0
    while True:
        wanted = limit - len(items)
        rows = _listing(tx, COLUMNS, wanted + 1, place, sort_key, threads)
        scanned += len(rows)
        items += _readable(rows[:wanted], home, on_damage)
        has_more = len(rows) > wanted
        if not has_more or len(items) == limit:
            break
        last = rows[wanted - 1]
        place = tuple(last[COLUMNS.index(c)] for c in (_SORT_COLUMNS[sort_key], *tx.thread_key))
    if not has_more or not items:
        return items, None, scanned
    last_time = getattr(items[-1], _SORT_COLUMNS[sort_key])
    return items, Anchor(last_time, items[-1].id, items[-1].host), scanned


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
    rows = _listing(tx, tx.thread_key, limit, _place(tx, anchor), sort_key, threads)
    return [_checked_id(row) for row in rows]


def among(
    tx: Transaction, thread_ids: Collection[str], threads: ThreadFilter, *, anywhere: bool
) -> set[str]:
    """Say which of some threads a filter lets through; ``anywhere``: archived or not."""
    where, parameters = _Walk(tx, SortKey.CREATED_AT, threads).conditions(anywhere=anywhere)
    sql = (
        "SELECT threads.id FROM threads JOIN thread_groups ON thread_groups.id = threads.group_id"
        f" WHERE {' AND '.join([tx.in_list('threads.id', 'ids'), *where])}"
    )
    parameters["ids"] = tx.list_value(list(thread_ids))
    return {row[0] for row in tx.query(sql, parameters)}


def several(
    tx: Transaction,
    home: str,
    thread_ids: Collection[str],
    on_damage: Callable[[DamagedRowError], None],
) -> list[ThreadMetadata]:
    """Read what a list shows of some threads, as far as they are known, in any order.

    A row with impossible values is told of and left out.
    """
    sql = f"SELECT {', '.join(COLUMNS)} FROM threads WHERE {tx.in_list('id', 'ids')}"
    rows = tx.query(sql, {"ids": tx.list_value(list(map(clean_text, thread_ids)))})
    return _readable(rows, home, on_damage)


def whole(
    tx: Transaction,
    home: str,
    thread_ids: Collection[str],
    on_damage: Callable[[DamagedRowError], None],
) -> list[ThreadMetadata]:
    """Read some threads as :func:`several`, but with whole texts; all that hosts have of each."""
    found = several(tx, home, thread_ids, on_damage)
    long = [
        thread.id
        for thread in found
        if max(len(thread.title), len(thread.preview)) >= SHOWN_CHARACTERS
    ]
    if not long:
        return found
    of_host = "host" if "host" in tx.thread_key else "''"
    sql = (
        f"SELECT thread_id, {of_host}, title, preview FROM thread_texts"
        f" WHERE {tx.in_list('thread_id', 'ids')}"
    )
    texts = {
        (thread_id, host): {"title": title, "preview": preview}
        for thread_id, host, title, preview in tx.query(sql, {"ids": tx.list_value(long)})
    }
    return [
        msgspec.structs.replace(thread, **texts.get((thread.id, thread.host), {}))
        for thread in found
    ]


def stored(
    tx: Transaction, thread_ids: Collection[str], on_damage: Callable[[DamagedRowError], None]
) -> list[Row]:
    """Read some threads as they are stored: each of STORED, paths relative to the home.

    A row with impossible values is told of and left out.
    """
    sql = f"SELECT {', '.join(STORED)} FROM threads WHERE {tx.in_list('id', 'ids')}"
    rows = tx.query(sql, {"ids": tx.list_value(list(thread_ids))})
    _readable([row[:-1] for row in rows], "/", on_damage)
    return rows


def long_texts(tx: Transaction, thread_ids: Collection[str]) -> dict[str, tuple[str, str]]:
    """Read title and preview of some threads, of those of which a list shows only a part."""
    sql = (
        f"SELECT thread_id, title, preview FROM thread_texts WHERE {tx.in_list('thread_id', 'ids')}"
    )
    rows = tx.query(sql, {"ids": tx.list_value(list(thread_ids))})
    return {thread_id: (title, preview) for thread_id, title, preview in rows}


def all_ids(tx: Transaction) -> list[str]:
    """Read the ids of all threads, in order."""
    return [row[0] for row in tx.query(_STATEMENTS["all_ids"])]


def facts(tx: Transaction, thread_ids: Collection[str]) -> list[ThreadFacts]:
    """Read of some threads what usage is told by."""
    columns = ", ".join(ThreadFacts.__struct_fields__)
    sql = f"SELECT {columns} FROM threads WHERE {tx.in_list('id', 'ids')}"
    return [ThreadFacts(*row) for row in tx.query(sql, {"ids": tx.list_value(list(thread_ids))})]


def groups(tx: Transaction) -> list[Group]:
    """Read the groups that threads are listed by.  Cost: an index entry for each thread."""
    return [
        Group(number, bool(archived), bool(has_user_event), *rest)
        for number, archived, has_user_event, *rest in tx.query(_STATEMENTS["groups"])
    ]


def group_places(tx: Transaction) -> list[tuple[int, str, str]]:
    """Read number, directory and repository of all groups."""
    return tx.query(_STATEMENTS["group_places"])


def set_names(tx: Transaction, names: dict[str, str]) -> list[str]:
    """Give threads their names, unknown ids are passed over; gives those that had another."""
    sql = _STATEMENTS["rename"]
    return [each for each, name in names.items() if tx.query(sql, {"id": each, "name": name})]


def without_rollout_file(tx: Transaction, home: str) -> list[tuple[str, str]]:
    """Read id and path of the threads that no indexed rollout stands for."""
    rows = tx.query(_STATEMENTS["without_rollout_file"])
    return [(thread_id, _absolute(path, home)) for thread_id, path in rows]


def readable(tx: Transaction, home: str, damaged: Path) -> Iterator[ThreadMetadata]:
    """Read the threads that can be read in a damaged SQLite file, which must be out of use."""
    texts = {row["thread_id"]: row for row in readable_rows(tx, "thread_texts", damaged)}
    for row in readable_rows(tx, "threads", damaged):
        whole = texts.get(row["id"], row)
        row |= {"title": whole["title"], "preview": whole["preview"]}
        try:
            yield _from_checked_row(tuple(row[column] for column in COLUMNS), home)
        except DamagedRowError:
            continue  # of a damaged file some rows are


def _readable(
    rows: list[Row], home: str, on_damage: Callable[[DamagedRowError], None]
) -> list[ThreadMetadata]:
    try:
        return _from_rows(rows, home)
    except (OverflowError, ValueError):  # one of them
        found = []
        for row in rows:
            try:
                found.append(_from_checked_row(row, home))
            except DamagedRowError as error:
                on_damage(error)
        return found


def _place(tx: Transaction, anchor: Anchor | None) -> _Place | None:
    if anchor is None:
        return None
    place = to_epoch(whole_seconds(anchor.ts)), parse_thread_id(anchor.id), anchor.host
    return place[: 1 + len(tx.thread_key)]


def _listing(
    tx: Transaction,
    columns: tuple[str, ...],
    limit: int,
    after: _Place | None,
    sort_key: SortKey,
    threads: ThreadFilter,
) -> list[Row]:
    """Read what a list shows of threads, in its order.

    What a filter lets through is found group by group; where those are many, a short walk along all
    threads is tried first, as most of them may be let through.
    """
    walk = _Walk(tx, sort_key, threads)
    if not walk.is_filtered:
        return walk.along_all(", ".join(columns), limit, after)
    key_of = itemgetter(*map(columns.index, tx.thread_key))
    of_place = itemgetter(*range(1, 1 + len(tx.thread_key)))
    while True:
        places = walk.places(limit, after)
        rows = tx.query(
            f"SELECT {', '.join(columns)} FROM threads WHERE {tx.in_list('id', 'ids')}",
            {"ids": tx.list_value([str(place[1]) for place in places])},
        )
        by_key = {key_of(row): row for row in rows}
        found = [by_key[of_place(place)] for place in places if of_place(place) in by_key]
        if len(found) == len(places):  # else one was deleted, or moved, between two statements
            return found


class _Walk:
    """The statements of one list, built of fixed fragments, each there only where it is used.

    Only names of columns and of parameters are put into the text, never a value.
    """

    def __init__(self, tx: Transaction, sort_key: SortKey, threads: ThreadFilter) -> None:
        self._tx = tx
        self._sort = _SORT_COLUMNS[sort_key]
        self._key = tx.thread_key
        self._parameters: dict[str, Any] = {"archived": int(threads.archived)}
        self._is_silent = threads.include_silent
        self._all = ["archived = :archived"]
        if not threads.include_silent:
            self._all.append("has_user_event = 1")
        self._unpinned = [f"id NOT IN ({_PINNED})"] if threads.pinned is False else []
        self._all += self._unpinned
        self._seeks_title = bool(threads.title_contains)
        if threads.title_contains:
            self._parameters["title"] = clean_text(threads.title_contains)
        self._groups: list[str] = []
        self._restrict("source", threads.sources or None)
        self._restrict("model_provider", threads.providers or None)
        self._restrict("cwd", threads.cwds)
        if threads.groups is not None:
            self._groups.append(tx.in_list("thread_groups.id", "groups"))
            self._parameters["groups"] = tx.list_value(threads.groups)
        self._marked = [_PINNED] if threads.pinned else []
        for number, tag in enumerate(threads.tags):
            self._marked.append(f"SELECT thread_id FROM thread_tags WHERE tag = :tag{number}")
            self._parameters[f"tag{number}"] = clean_text(tag)
        self.is_filtered = bool(self._groups or self._marked)

    def _restrict(self, column: str, values: tuple[str, ...] | None) -> None:
        if values is None:
            return
        if len(values) == 1:
            self._groups.append(f"thread_groups.{column} = :{column}")
            self._parameters[column] = clean_text(values[0])
        else:
            self._groups.append(self._tx.in_list(f"thread_groups.{column}", column))
            self._parameters[column] = self._tx.list_value(list(map(clean_text, values)))

    def conditions(self, *, anywhere: bool) -> tuple[list[str], dict[str, Any]]:
        """Give the conditions on threads joined with their groups, and what is bound to them."""
        marked = [f"threads.id IN ({each})" for each in self._marked]
        return [*marked, *self._on_threads(anywhere=anywhere)], dict(self._parameters)

    def _on_threads(self, *, anywhere: bool) -> list[str]:
        """Give those that no table of marks has."""
        of_threads = [f"threads.{each}" for each in self._all[1 if anywhere else 0 :]]
        return [*of_threads, *self._groups, *self._titled("threads")]

    def places(self, limit: int, after: _Place | None) -> list[_Place]:
        """Find the first threads that the filter lets through."""
        if self._marked:
            return self._among_marked(limit, after)
        groups = self._found_groups(_FEW_GROUPS + 1)
        if len(groups) > _FEW_GROUPS:
            places, is_all = self._among_next(limit, after)
            if is_all or len(places) == limit:
                return places
            groups = self._found_groups(_ALL)
        return list(islice(self._merged(groups, limit, after), limit))

    def along_all(self, columns: str, limit: int, after: _Place | None) -> list[Row]:
        """Walk along all threads that are archived, or that are not."""
        where = [*self._all, *self._titled("threads")]
        return self._tx.query(*self._ordered(columns, where, limit, after))

    def _titled(self, place: str) -> list[str]:
        """Build the condition on the title, which is elsewhere, too, where it is long."""
        if not self._seeks_title:
            return []
        shown = self._tx.contains(f"{place}.title", "title")
        whole = self._tx.contains("thread_texts.title", "title")
        if "host" in self._key:
            whole += f" AND thread_texts.host = {place}.host"
        return [
            (
                f"({shown} OR length({place}.title) = {SHOWN_CHARACTERS} AND EXISTS"
                f" (SELECT 1 FROM thread_texts WHERE thread_texts.thread_id = {place}.id AND {whole}))"
            )
        ]

    def _found_groups(self, most: int) -> list[int]:
        """Find the groups of the threads that are let through."""
        has_said = "IN (0, 1)" if self._is_silent else "= 1"  # so that an index is of use
        where = ["thread_groups.archived = :archived", f"thread_groups.has_user_event {has_said}"]
        sql = f"SELECT id FROM thread_groups WHERE {' AND '.join(where + self._groups)} LIMIT :most"
        return [row[0] for row in self._tx.query(sql, self._parameters | {"most": most})]

    def _among_marked(self, limit: int, after: _Place | None) -> list[_Place]:
        """Find those that are let through among the pinned, or those with tags: these are few."""
        where = ["threads.id = marked.thread_id", *self._on_threads(anywhere=False)]
        place: dict[str, int | str] = {}
        if after is not None:
            condition, place = self._after(after, "threads.")
            where.append(condition)
        return self._tx.query(
            f"SELECT {', '.join(self._columns('threads.'))}"
            f" FROM ({' INTERSECT '.join(self._marked)}) AS marked CROSS JOIN threads"
            " JOIN thread_groups ON thread_groups.id = threads.group_id"
            f" WHERE {' AND '.join(where)} {self._order('threads.')} LIMIT :limit",
            self._parameters | place | {"limit": limit},
        )

    def _among_next(self, limit: int, after: _Place | None) -> tuple[list[_Place], bool]:
        """Find those that are let through among the next of all; says whether that were all."""
        columns = [*self._columns(), "group_id", *(["title"] if self._seeks_title else [])]
        sql, parameters = self._ordered(", ".join(columns), self._all, _PROBED, after)
        places = self._tx.query(
            f"SELECT {', '.join(self._columns('next.'))} FROM ({sql}) AS next"
            " JOIN thread_groups ON thread_groups.id = next.group_id"
            f" WHERE {' AND '.join(self._groups + self._titled('next'))} LIMIT :limit",
            parameters | {"limit": limit},
        )
        if len(places) == limit:
            return places, False
        (probed,) = self._tx.query(f"SELECT count(*) FROM ({sql}) AS next", parameters)
        return places, probed[0] < _PROBED

    def _merged(self, groups: list[int], limit: int, after: _Place | None) -> Iterator[_Place]:
        """Merge the threads of groups, each read on only as far as it is needed."""
        at_once = 2 * limit // max(len(groups), 1) + 4
        where = ["group_id = :group", *self._unpinned, *self._titled("threads")]
        columns = ", ".join(self._columns())
        first = self._ordered(columns, where, at_once, after)
        more = self._ordered(columns, where, at_once, (0, *("" for _ in self._key)))[0]

        def of_group(group: int) -> Iterator[_Place]:
            sql, parameters = first[0], first[1] | {"group": group}
            while True:
                rows = self._tx.query(sql, parameters)
                yield from rows
                if len(rows) < at_once:
                    return
                sql = more
                parameters |= self._after(rows[-1])[1]

        return heapq.merge(*map(of_group, groups), reverse=True)

    def _ordered(
        self, columns: str, where: list[str], limit: int, after: _Place | None
    ) -> tuple[str, dict[str, Any]]:
        parameters = self._parameters | {"n": limit}
        if after is not None:
            condition, place = self._after(after)
            where = [*where, condition]
            parameters |= place
        sql = f"SELECT {columns} FROM threads WHERE {' AND '.join(where)} {self._order()} LIMIT :n"
        return sql, parameters

    def _columns(self, of: str = "") -> list[str]:
        """Name the columns of a place, of one of several tables."""
        return [f"{of}{column}" for column in (self._sort, *self._key)]

    def _order(self, of: str = "") -> str:
        return "ORDER BY " + ", ".join(f"{column} DESC" for column in self._columns(of))

    def _after(self, place: _Place, of: str = "") -> tuple[str, dict[str, int | str]]:
        """Build the condition on what comes after a place, and what is bound to it."""
        values = {f"after_{number}": value for number, value in enumerate(place)}
        bound = ", ".join(f":{name}" for name in values)
        return f"({', '.join(self._columns(of))}) < ({bound})", values


def _to_row(values: dict[str, Any], home: str) -> dict[str, Any]:
    """Turn fields of a thread, all or some, into what is stored of them."""
    row = {
        column: clean_text(value)
        if isinstance(value, str)
        else to_epoch(value)
        if isinstance(value, datetime)
        else value
        for column, value in values.items()
    }
    if "rollout_path" in values:
        row["rollout_path"] = clean_text(_relative(values["rollout_path"], home))
    return row


_HINTS = get_type_hints(ThreadMetadata)
_STORED_AS = {datetime: int, datetime | None: int | None, bool: int}
# A row as it is stored, and as it is given: two looks of a C library cost less than one of ours.
_Stored = msgspec.defstruct(
    "_Stored", [(c, _STORED_AS.get(_HINTS[c], _HINTS[c])) for c in COLUMNS], array_like=True
)
_Given = msgspec.defstruct("_Given", [(c, _HINTS[c]) for c in COLUMNS], array_like=True)
_STORED_ROWS, _GIVEN_ROWS = GenericAlias(list, (_Stored,)), GenericAlias(list, (_Given,))
_NUL_IN_JSON = b"\\u0000"


def _from_checked_row(row: Row, home: str) -> ThreadMetadata:
    _checked_id(row)
    return _from_row(row, home)


def _from_row(row: Row, home: str) -> ThreadMetadata:
    """Make a thread of a row whose id is known to be one.  Errors: DamagedRowError."""
    try:
        msgspec.convert(row, _Stored)
        _refuse_nul([row])
        return _threads([msgspec.convert(row, _Given, strict=False)], home)[0]
    except (OverflowError, ValueError) as error:
        raise _damaged(row) from error


def _from_rows(rows: list[Row], home: str) -> list[ThreadMetadata]:
    """Make threads of rows.  Errors: ValueError or OverflowError for impossible values in any."""
    msgspec.convert(rows, _STORED_ROWS)
    _refuse_nul(rows)
    if not are_thread_ids([row[0] for row in rows]):
        raise ValueError("an id that is not in its canonical form")
    return _threads(msgspec.convert(rows, _GIVEN_ROWS, strict=False), home)


def _threads(given: list[Any], home: str) -> list[ThreadMetadata]:
    """Make threads of their fields, the paths of their rollouts absolute."""
    base = f"{home}/"
    for each in given:
        if not each.rollout_path.startswith("/"):
            each.rollout_path = base + each.rollout_path
    return [ThreadMetadata(*values) for values in map(msgspec.structs.astuple, given)]


def _refuse_nul(rows: list[Row]) -> None:
    """Refuse a NUL, which is never stored: it would show in JSON, where one search finds it."""
    if stringzilla.find(msgspec.json.encode(rows), _NUL_IN_JSON) >= 0 and any(
        "\0" in value for row in rows for value in row if isinstance(value, str)
    ):
        raise ValueError("a NUL in a text")


def _checked_id(row: Row) -> str:
    if isinstance(row[0], str) and are_thread_ids([row[0]]):
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
