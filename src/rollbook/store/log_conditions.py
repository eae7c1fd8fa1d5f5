"""What a question to the logs asks of a row, as conditions in SQL (behaviour.md 128, 129)."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from rollbook.model.log import LogQuery
from rollbook.model.thread import clean_text
from rollbook.store.engine import Transaction
from rollbook.store.log_marks import LEVEL

LARGEST_ID = (1 << 63) - 1
LEVEL_ASKED = LEVEL.replace("level", ":level")


class Conditions(NamedTuple):
    """Conditions that are all to hold, and the values of their parameters."""

    sql: list[str]
    values: dict[str, Any]

    @property
    def where(self) -> str:
        """The clause that they make; empty where there is none."""
        return f" WHERE {' AND '.join(self.sql)}" if self.sql else ""

    def __add__(self, other: "Conditions") -> "Conditions":  # type: ignore[override]
        return Conditions(self.sql + other.sql, self.values | other.values)


def of_row(tx: Transaction, query: LogQuery, message_column: str) -> Conditions:
    """All that is asked of a row but its id, what is quickly seen first; only what restricts."""
    level = Conditions([], {})
    if query.level:
        level = Conditions([f"{LEVEL} = {LEVEL_ASKED}"], {"level": clean_text(query.level)})
    search = (query.search,) if query.search else ()
    return (
        _compared(("ts >= :from_ts", query.from_ts), ("ts <= :to_ts", query.to_ts))
        + _of_thread(tx, query)
        + level
        + of_place(tx, query)
        + _any_of(tx.contains, tx.contains_any, tx, message_column, search)
    )


def of_id(query: LogQuery) -> Conditions:
    """What is asked of a row's id."""
    return _compared(("id > :after_id", query.after_id), ("id <= :up_to_id", query.up_to_id))


def of_place(tx: Transaction, query: LogQuery, module_column: str = "module_path") -> Conditions:
    """What is asked of module and file."""
    return _any_of(tx.contains, tx.contains_any, tx, module_column, query.module_like) + _any_of(
        tx.contains, tx.contains_any, tx, "file", query.file_like
    )


def countable(number: int) -> int:
    """Bring a number within what databases count: beyond that, no row differs."""
    return max(-LARGEST_ID - 1, min(number, LARGEST_ID))


def _compared(*comparisons: tuple[str, int | None]) -> Conditions:
    given = [(sql, value) for sql, value in comparisons if value is not None]
    return Conditions(
        [sql for sql, _ in given],
        {sql.partition(":")[2]: countable(value) for sql, value in given},
    )


def _of_thread(tx: Transaction, query: LogQuery) -> Conditions:
    listed = _any_of(_equals, tx.in_list, tx, "thread_id", query.thread_ids)
    either = [*listed.sql, *(["thread_id IS NULL"] if query.include_threadless else [])]
    return Conditions([f"({' OR '.join(either)})"] if either else [], listed.values)


def _any_of(
    one: Callable[[str, str], str],
    several: Callable[[str, str], str],
    tx: Transaction,
    column: str,
    texts: Sequence[str],
) -> Conditions:
    """Build the condition of a list: none where it holds only empty texts (behaviour.md 133)."""
    wanted = [clean_text(text) for text in texts if text]
    if not wanted:
        return Conditions([], {})
    if len(wanted) == 1:  # which an index can answer in order
        return Conditions([one(column, column)], {column: wanted[0]})
    return Conditions([several(column, column)], {column: tx.list_value(wanted)})


def _equals(column: str, parameter: str) -> str:
    return f"{column} = :{parameter}"
