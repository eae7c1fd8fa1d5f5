"""Where the log rows may be that are asked for, by the marks; whoever asks looks at all of them."""

from collections.abc import Callable, Iterator
from functools import cache
from itertools import chain
from typing import Any, NamedTuple

from rollbook.model.log import LogQuery
from rollbook.model.thread import clean_text
from rollbook.store import log_conditions, log_marks
from rollbook.store.engine import Transaction
from rollbook.store.log_conditions import LARGEST_ID, countable
from rollbook.store.log_marks import BLOCK_BITS, SPAN_BITS
from rollbook.store.statements import load

Range = tuple[int, int]  # of numbers: the first and the last

_STATEMENTS = load("log_places.sql")
_LEVELS = _STATEMENTS["levels"].format(level=log_conditions.LEVEL_ASKED)
_TRIGRAM = 3
_MOST_TRIGRAMS = 24  # of a text, that are looked up
_MOST_VALUES = 500  # that marks are looked up by: more are seldom rare
_MOST_LOOKED_AT = 16  # that rows are told apart by: of more, whole blocks are looked at
_FIRST_PART, _LARGEST_PART = 16, 1024  # of blocks, or spans, asked for at once
_FIRST_PART_OF_TEXT = 64  # as each question to the text index has to begin anew
_SMALL_GAP = 64 << SPAN_BITS  # ids between two times that aren't worth another question
_ALL_ROWS = -1  # of a block: all bits
_EACH_BIT = (1 << 64) - 1


class _Mark(NamedTuple):
    """What rows must be marked by: any of some values."""

    values: list[int]


class _Text(NamedTuple):
    """What messages must hold, as an expression of the text index."""

    expression: str


_Filter = _Mark | _Text


def places(tx: Transaction, query: LogQuery) -> Iterator[list[Range]]:
    """Give the ranges of ids that hold all rows that a query asks for, in its order, some at a time."""
    first = 0 if query.after_id is None else max(0, countable(query.after_id + 1))
    last = LARGEST_ID if query.up_to_id is None else countable(query.up_to_id)
    unmarked = log_marks.first_unmarked_id(tx)
    parts = [
        _marked_places(tx, query, (first, min(last, unmarked - 1))),
        iter([[(max(first, unmarked), last)]]),
    ]
    return chain.from_iterable(reversed(parts) if query.descending else parts)


def _marked_places(tx: Transaction, query: LogQuery, ids: Range) -> Iterator[list[Range]]:
    if ids[0] > ids[1]:
        return
    filters: list[_Filter] = []
    for each in _filters(tx, query):
        if each is None:
            return
        filters.append(each)
    if not filters:
        yield from _in_time(tx, query, ids)
        return
    is_descending = query.descending
    for part, spans in _parts_in_time(tx, query, ids):
        blocks = part[0] >> BLOCK_BITS, part[1] >> BLOCK_BITS
        for found in _blocks(tx, filters, blocks, is_descending=is_descending):
            rows = {
                block: _ALL_ROWS
                for block in found
                if spans is None or block >> SPAN_BITS - BLOCK_BITS in spans
            }
            for each in filters:
                if isinstance(each, _Mark) and len(each.values) <= _MOST_LOOKED_AT:
                    rows = _rows_of(tx, each, rows)
            ranges = _clipped(_ranges_of(rows, is_descending=is_descending), part)
            if ranges:
                yield ranges


def _filters(tx: Transaction, query: LogQuery) -> Iterator[_Filter | None]:
    """Give what the marks know of a query; None for what no row has."""
    if query.level:
        yield from _marked_by(tx, _LEVELS, {"level": clean_text(query.level)})
    place = log_conditions.of_place(tx, query, "name")
    if place.sql:
        yield from _marked_by(
            tx, f"SELECT id FROM log_values{place.where} AND kind = 'place'", place.values
        )
    threads = [clean_text(thread_id) for thread_id in query.thread_ids if thread_id]
    if query.include_threadless:
        threads.append("")
    if threads:
        yield from _marked_by(tx, _STATEMENTS["threads"], {"threads": tx.list_value(threads)})
    search = clean_text(query.search or "")
    if len(search) >= _TRIGRAM:
        yield _Text(_expression(search))


def _marked_by(tx: Transaction, sql: str, values: dict[str, Any]) -> Iterator[_Mark | None]:
    found = _numbers(tx, sql, values)
    if len(found) <= _MOST_VALUES:
        yield _Mark(found) if found else None


def _expression(text: str) -> str:
    """Write what the text index is asked: all trigrams of a text, or, of a long one, many."""
    starts = range(len(text) - _TRIGRAM + 1)
    step = -(-len(starts) // _MOST_TRIGRAMS)
    trigrams = dict.fromkeys(text[start : start + _TRIGRAM] for start in starts[::step])
    quoted = (each.replace('"', '""') for each in trigrams)
    return " AND ".join(f'"{each}"' for each in quoted)


def _in_time(tx: Transaction, query: LogQuery, ids: Range) -> Iterator[list[Range]]:
    """Narrow a range of ids to those that may have the times that are asked for."""
    if query.from_ts is None and query.to_ts is None:
        yield [ids]
        return
    for found in _spans_in_time(tx, query, ids, _FIRST_PART):
        yield from ([each] for each in _clipped(_ranges_of_spans(found), ids))


def _parts_in_time(
    tx: Transaction, query: LogQuery, ids: Range
) -> Iterator[tuple[Range, set[int] | None]]:
    """Do the same where filters are asked about each part: a few parts, and their spans in time."""
    if query.from_ts is None and query.to_ts is None:
        yield ids, None
        return
    for found in _spans_in_time(tx, query, ids, LARGEST_ID):
        spans = set(found)
        for each in _clipped(_ranges_of_spans(found, _SMALL_GAP), ids):
            yield each, spans


def _spans_in_time(tx: Transaction, query: LogQuery, ids: Range, size: int) -> Iterator[list[int]]:
    times = {
        "from_ts": countable(-LARGEST_ID - 1 if query.from_ts is None else query.from_ts),
        "to_ts": countable(LARGEST_ID if query.to_ts is None else query.to_ts),
    }
    sql = _statement("spans_in_time", query.descending)

    def following(low: int, high: int, size: int) -> list[int]:
        return _numbers(tx, sql, times | {"low": low, "high": high, "n": size})

    spans = ids[0] >> SPAN_BITS, ids[1] >> SPAN_BITS
    return _in_parts(following, spans, size, is_descending=query.descending)


def _ranges_of_spans(spans: list[int], gap: int = 0) -> list[Range]:
    return _joined([(span << SPAN_BITS, (span + 1 << SPAN_BITS) - 1) for span in spans], gap)


def _blocks(
    tx: Transaction, filters: list[_Filter], blocks: Range, *, is_descending: bool
) -> Iterator[list[int]]:
    """Give the blocks that may pass all filters, in order.

    Each filter says which blocks are its next.  The one that gets furthest with as many as the
    others lets the fewest through, so only these need be looked at.
    """

    def following(low: int, high: int, size: int) -> list[int]:
        def reach(found: list[int]) -> tuple[bool, int]:
            if len(found) < size:
                return True, -len(found)
            return False, -found[-1] if is_descending else found[-1]

        asked = [_next(tx, f, (low, high), size, is_descending=is_descending) for f in filters]
        return max(asked, key=reach)

    has_text = any(isinstance(each, _Text) for each in filters)
    size = _FIRST_PART_OF_TEXT if has_text else _FIRST_PART
    return _in_parts(following, blocks, size, is_descending=is_descending)


def _in_parts(
    following: Callable[[int, int, int], list[int]],
    numbers: Range,
    size: int,
    *,
    is_descending: bool,
) -> Iterator[list[int]]:
    """Ask for the next numbers of a range, more and more at a time, until there are none."""
    low, high = numbers
    while low <= high and (found := following(low, high, size)):
        yield found
        if len(found) < size:
            return
        low, high = (low, found[-1] - 1) if is_descending else (found[-1] + 1, high)
        size = min(2 * size, _LARGEST_PART)


def _next(
    tx: Transaction, asked: _Filter, blocks: Range, size: int, *, is_descending: bool
) -> list[int]:
    """Give the next blocks that pass a filter, in order."""
    low, high = blocks
    values: dict[str, Any] = {"low": low, "high": high, "n": size}
    if isinstance(asked, _Text):
        name, values["texts"] = "blocks_of_text", asked.expression
    elif len(asked.values) == 1:
        name, values["id"] = "blocks_of_one", asked.values[0]
    else:
        name, values["ids"] = "blocks_of_any", tx.list_value(asked.values)
        values["start"] = high + 1 if is_descending else low - 1
    return _numbers(tx, _statement(name, is_descending), values)


def _rows_of(tx: Transaction, asked: _Mark, rows: dict[int, int]) -> dict[int, int]:
    """Leave out rows that aren't marked by what is asked for; rows are the bits of each block."""
    values = {"ids": tx.list_value(asked.values), "blocks": tx.list_value(list(rows))}
    marked: dict[int, int] = {}
    for block, bits in tx.query(_STATEMENTS["rows_of"], values):
        marked[block] = marked.get(block, 0) | bits
    return {block: bits & marked[block] for block, bits in rows.items() if block in marked}


def _ranges_of(rows: dict[int, int], *, is_descending: bool) -> list[Range]:
    """Give the ids of rows, neighbours together, in the order of the blocks."""
    ranges: list[Range] = []
    for block, bits in rows.items():
        first, left = block << BLOCK_BITS, bits & _EACH_BIT
        if bits == _ALL_ROWS:
            ranges.append((first, first + 63))
            continue
        while left:
            bit = left.bit_length() - 1 if is_descending else (left & -left).bit_length() - 1
            ranges.append((first + bit, first + bit))
            left ^= 1 << bit
    return _joined(ranges)


def _joined(ranges: list[Range], gap: int = 0) -> list[Range]:
    """Make one of ranges that follow each other, up or down, with no more than a gap between."""
    joined: list[Range] = []
    for first, last in ranges:
        low, high = joined[-1] if joined else (first, last)
        if low - gap - 1 <= last and first <= high + gap + 1 and joined:
            joined[-1] = min(low, first), max(high, last)
        else:
            joined.append((first, last))
    return joined


def _clipped(ranges: list[Range], within: Range) -> list[Range]:
    low, high = within
    return [(max(low, a), min(high, b)) for a, b in ranges if a <= high and b >= low]


def _numbers(tx: Transaction, sql: str, values: dict[str, Any]) -> list[int]:
    return [number for (number,) in tx.query(sql, values)]


@cache
def _statement(name: str, is_descending: bool) -> str:
    order, best, beyond, end = (
        ("DESC", "max", "<", ":low") if is_descending else ("ASC", "min", ">", ":high")
    )
    return _STATEMENTS[name].format(order=order, best=best, beyond=beyond, end=end)
