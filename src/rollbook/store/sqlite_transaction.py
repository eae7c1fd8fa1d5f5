"""Statements on one SQLite connection; see :class:`rollbook.store.engine.Transaction`."""

import time
from collections.abc import Iterable, Sequence
from functools import cache
from itertools import chain

import apsw
import msgspec

from rollbook.store.engine import Parameters, Row

_MOST_ROWS = 64  # in one statement
_STEPS_BETWEEN_LOOKS = 10_000  # of SQLite's, at the clock


@cache
def _insertion(table: str, columns: tuple[str, ...], rows: int) -> str:
    row = f"({', '.join('?' * len(columns))})"
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES {', '.join([row] * rows)}"


class SqliteTransaction:
    """Statements on one connection."""

    __slots__ = ("_cursor", "connection", "is_read_only")

    thread_key: tuple[str, ...] = ("id",)

    def __init__(self, connection: apsw.Connection, *, is_read_only: bool = False) -> None:
        self.connection = connection
        self.is_read_only = is_read_only
        # One will do, as all rows are fetched at once; to make another takes a while.
        self._cursor = connection.cursor()

    def begin(self) -> None:
        """Begin a transaction that holds the write lock."""
        self._cursor.execute("BEGIN IMMEDIATE")

    def commit(self) -> None:
        """Commit it."""
        self._cursor.execute("COMMIT")

    def roll_back(self) -> None:
        """Undo it, if there is one."""
        if self.connection.in_transaction:
            self._cursor.execute("ROLLBACK")

    def query(self, sql: str, parameters: Parameters = {}) -> list[Row]:
        """Run one statement and return all its rows."""
        return self._cursor.execute(sql, parameters).fetchall()

    def execute(self, sql: str, parameters: Parameters = {}) -> None:
        """Run one statement for its effect."""
        self._cursor.execute(sql, parameters).fetchall()

    def execute_many(self, sql: str, parameters: Iterable[Parameters]) -> None:
        """Run one statement once for each set of parameters."""
        self._cursor.executemany(sql, (dict(each) for each in parameters)).fetchall()

    def insert_many(self, table: str, columns: Sequence[str], rows: Sequence[Row]) -> None:
        """Insert rows in order, with as few statements as the engine can.

        Each statement gives the interpreter's lock away once, and where other threads are busy it
        takes 5 ms to get it back: so many rows a statement, in sizes that stay prepared.
        """
        start, size = 0, _MOST_ROWS
        while start < len(rows):
            while size > len(rows) - start:
                size //= 2
            values = list(chain.from_iterable(rows[start : start + size]))
            self.connection.execute(_insertion(table, tuple(columns), size), values)
            start += size

    def contains(self, column: str, parameter: str) -> str:
        """Give the condition that a column holds the text of a parameter, ASCII case ignored."""
        return f"instr(lower({column}), lower(:{parameter})) > 0"

    def contains_any(self, column: str, parameter: str) -> str:
        """Give the condition that a column holds one of a list of texts, ASCII case ignored."""
        texts = f"SELECT 1 FROM json_each(:{parameter})"
        return f"EXISTS ({texts} WHERE instr(lower({column}), lower(value)) > 0)"

    def in_list(self, column: str, parameter: str) -> str:
        """Give the condition that a column is one of a list of values."""
        return f"{column} IN (SELECT value FROM json_each(:{parameter}))"

    def list_value(self, values: Sequence[str] | Sequence[int] | Sequence[tuple[int, int]]) -> str:
        """Give the form in which a list is bound to a parameter of the two above, of any length."""
        return msgspec.json.encode(values).decode()

    def script(self, sql: str) -> None:
        """Run several statements."""
        self.connection.execute(sql).fetchall()

    def integrity(self, within_s: float | None = None) -> str:
        """Have SQLite look the file through: "ok", or what is wrong; empty if time ran out."""
        deadline = None if within_s is None else time.monotonic() + within_s
        if deadline is not None:
            self.connection.set_progress_handler(
                lambda: time.monotonic() > deadline, _STEPS_BETWEEN_LOOKS
            )
        try:
            return str(self.connection.execute("PRAGMA integrity_check(1)").fetchall()[0][0])
        except apsw.InterruptError:
            return ""
        finally:
            self.connection.set_progress_handler(None)
