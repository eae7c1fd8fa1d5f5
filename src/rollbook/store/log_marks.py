"""Marks say of blocks of log rows what they have: a small index that doesn't slow down as it grows.

A *span* of 1,024 ids is marked all at once, when there are rows behind it: with the times of its
rows, and, of each block of 64 ids, which rows have which level, thread, and place in a program, and
which trigrams the messages have.  Rows that are deleted leave their marks until their span is empty.
So there may be a mark without a row, but, as far as spans are marked, never a row without its marks:
what marks find has to be looked at (:mod:`rollbook.store.log_places`), and nothing else.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping

from rollbook.store.engine import Transaction
from rollbook.store.statements import load

SPAN_BITS, BLOCK_BITS = 10, 6  # of the ids; the statements have them too
SPAN_SIZE = 1 << SPAN_BITS
_LAST_OF_BLOCK = (1 << BLOCK_BITS) - 1
_SIGN = 1 << _LAST_OF_BLOCK  # the bit that makes a number of SQLite's negative
_MERGED_ROWS = 16  # for each page that is merged; a span takes ten pages or so
LEVEL = "CASE upper(level) WHEN 'WARNING' THEN 'WARN' ELSE upper(level) END"
_NOTHING = "[]"
_Value = tuple[str, str, str]  # kind, name, file
_STATEMENTS = {
    name: sql.format(level=LEVEL) if "{level}" in sql else sql
    for name, sql in load("log_marks.sql").items()
}


def are_kept(tx: Transaction) -> bool:
    """Say whether a database has marks at all: Codex's own, and old ones, have none."""
    return bool(tx.query(_STATEMENTS["has_marks"]))


def first_unmarked_id(tx: Transaction) -> int:
    """Say from which id on rows have no marks yet."""
    last = tx.query(_STATEMENTS["last_span"])[0][0]
    return 0 if last is None else (last + 1) << SPAN_BITS


def mark_next(tx: Transaction, most: int) -> int:
    """Mark the next spans that are complete, at most so many; says how many."""
    for done in range(most):
        found = tx.query(_STATEMENTS["unmarked"], {"first_id": first_unmarked_id(tx)})
        if not found:
            return done
        _mark(tx, found[0][0])
    return most


def merge_texts(tx: Transaction, rows: int) -> None:
    """Do a share of the work that keeps the index of texts together, for so many new rows."""
    tx.execute(_STATEMENTS["merge_texts"], {"pages": 1 + rows // _MERGED_ROWS})


def mark_again(tx: Transaction, ids: Iterable[int]) -> None:
    """Mark what has got rows back, as far as it has been marked before."""
    marked = first_unmarked_id(tx)
    for span in sorted({row_id >> SPAN_BITS for row_id in ids if row_id < marked}):
        before = _forget(tx, span)
        _mark(tx, span)
        # Only now, as others may be asking by the numbers of the values that are still there.
        tx.execute(_STATEMENTS["forget_values"], {"values": before})


def empty_spans(tx: Transaction, most: int) -> list[int]:
    """Find spans with marks and without rows."""
    return [span for (span,) in tx.query(_STATEMENTS["empty"], {"n": most})]


def forget_empty(tx: Transaction, span: int) -> None:
    """Take the marks of a span away, if it still has no rows."""
    if tx.query(_STATEMENTS["is_empty"], _ids_of(span)):
        tx.execute(_STATEMENTS["forget_values"], {"values": _forget(tx, span)})


def forget_thread_before(tx: Transaction, thread_id: str, row_id: int) -> None:
    """Take marks of a thread away that has no rows before an id any more."""
    values = {"thread_id": thread_id, "block": row_id >> BLOCK_BITS}
    tx.execute(_STATEMENTS["forget_thread_before"], values)


def _mark(tx: Transaction, span: int) -> None:
    marks: defaultdict[_Value, defaultdict[int, int]] = defaultdict(lambda: defaultdict(int))
    texts: defaultdict[int, list[str]] = defaultdict(list)
    times: list[int] = []
    for row_id, level, thread_id, module, file, ts, message in tx.query(
        _STATEMENTS["rows"], _ids_of(span)
    ):
        block, bit = row_id >> BLOCK_BITS, 1 << (row_id & _LAST_OF_BLOCK)
        if bit == _SIGN:
            bit = -bit
        marks["level", level, ""][block] |= bit
        marks["thread", thread_id, ""][block] |= bit
        marks["place", module, file][block] |= bit
        times.append(ts)
        if message:
            texts[block].append(message)
    values = {_id_of(tx, value): blocks for value, blocks in marks.items()}
    rows = [(i, block, bits) for i, blocks in values.items() for block, bits in blocks.items()]
    tx.insert_many("log_marks", ("value", "block", "rows"), rows)
    _mark_texts(tx, texts)
    of_span = {"span": span, "min_ts": min(times), "max_ts": max(times)}
    tx.execute(_STATEMENTS["add_span"], of_span | {"values": tx.list_value(list(values))})


def _id_of(tx: Transaction, value: _Value) -> int:
    asked = dict(zip(("kind", "name", "file"), value, strict=True))
    found = tx.query(_STATEMENTS["value"], asked) or tx.query(_STATEMENTS["add_value"], asked)
    return int(found[0][0])


def _mark_texts(tx: Transaction, texts: Mapping[int, list[str]]) -> None:
    tx.execute_many(
        _STATEMENTS["mark_text"],
        # The index would take a NUL, which a damaged file may give, for the end of the text.
        ({"block": b, "text": "\n".join(t).replace("\0", "\n")} for b, t in texts.items()),
    )


def _forget(tx: Transaction, span: int) -> str:
    """Take the marks of a span away; gives the list of what it was marked by."""
    found = tx.query(_STATEMENTS["marked_by"], {"span": span})
    if not found:
        return _NOTHING
    marked_by = str(found[0][0])
    blocks = range(span << SPAN_BITS - BLOCK_BITS, span + 1 << SPAN_BITS - BLOCK_BITS)
    ends = {"first_block": blocks[0], "last_block": blocks[-1]}
    tx.execute(_STATEMENTS["forget_marks"], ends | {"values": marked_by})
    tx.execute_many(_STATEMENTS["forget_text"], ({"block": block} for block in blocks))
    tx.execute(_STATEMENTS["forget_span"], {"span": span})
    return marked_by


def _ids_of(span: int) -> dict[str, int]:
    return {"first": span << SPAN_BITS, "last": (span + 1 << SPAN_BITS) - 1}
