"""Statements on one PostgreSQL connection; see :class:`rollbook.store.engine.Transaction`."""

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

from psycopg import Connection
from psycopg.pq import PipelineStatus
from psycopg.rows import TupleRow

from rollbook.store.engine import Parameters, Row

_PARAMETER = re.compile(r"(?<![:\w]):([a-z]\w*)|%")


@lru_cache(maxsize=1000)
def translated(sql: str) -> bytes:
    """Write the parameters of a statement as the driver wants them."""
    return _PARAMETER.sub(lambda found: f"%({found[1]})s" if found[1] else "%%", sql).encode()


class PostgresTransaction:
    """Statements on one connection; ``is_secured``: row by row, as policies say."""

    __slots__ = ("_cursor", "_is_secured", "connection")

    thread_key: tuple[str, ...] = ("id", "host")

    def __init__(self, connection: Connection[TupleRow], *, is_secured: bool = False) -> None:
        self.connection = connection
        self._is_secured = is_secured
        self._cursor = connection.cursor()

    def query(self, sql: str, parameters: Parameters = {}) -> list[Row]:
        """Run one statement and return all its rows."""
        self._cursor.execute(translated(sql), parameters)
        result = self._cursor.pgresult
        return self._cursor.fetchall() if result is not None and result.nfields else []

    def execute(self, sql: str, parameters: Parameters = {}) -> None:
        """Run one statement for its effect."""
        self._cursor.execute(translated(sql), parameters)

    def execute_many(self, sql: str, parameters: Iterable[Parameters]) -> None:
        """Run one statement once for each set of parameters, in one round trip."""
        self._cursor.executemany(translated(sql), parameters)

    def insert_many(self, table: str, columns: Sequence[str], rows: Sequence[Row]) -> None:
        """Insert rows in order: by COPY, if they are many."""
        names = ", ".join(columns)
        if len(rows) <= _FEW_ROWS or self._is_pipelined:
            self._insert_each(table, columns, rows, "")
        elif self._is_secured:
            with self.staged(table, columns, rows) as staging:
                self.execute(f"INSERT INTO {table} ({names}) SELECT {names} FROM {staging}")
        else:
            self._copy(table, columns, rows)

    def _copy(self, table: str, columns: Sequence[str], rows: Iterable[Row]) -> None:
        with self._cursor.copy(f"COPY {table} ({', '.join(columns)}) FROM STDIN".encode()) as copy:
            for row in rows:
                copy.write_row(row)

    def upsert_many(
        self, table: str, key: Sequence[str], columns: Sequence[str], rows: Sequence[Row]
    ) -> None:
        """Insert rows, or overwrite the given columns of those that are there: by COPY if many."""
        others = [column for column in columns if column not in key]
        change = f"UPDATE SET {', '.join(f'{c} = excluded.{c}' for c in others)}"
        conflict = f"ON CONFLICT ({', '.join(key)}) DO {change if others else 'NOTHING'}"
        names = ", ".join(columns)
        if len(rows) <= _FEW_ROWS or self._is_pipelined:
            self._insert_each(table, columns, rows, conflict)
            return
        with self.staged(table, columns, rows) as staging:
            self.execute(f"INSERT INTO {table} ({names}) SELECT {names} FROM {staging} {conflict}")

    def _insert_each(
        self, table: str, columns: Sequence[str], rows: Sequence[Row], conflict: str
    ) -> None:
        values = ", ".join(f":{column}" for column in columns)
        sql = f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({values}) {conflict}"
        if rows:
            self.execute_many(sql, (dict(zip(columns, row, strict=True)) for row in rows))

    @contextmanager
    def staged(self, table: str, columns: Sequence[str], rows: Iterable[Row]) -> Iterator[str]:
        """Copy rows into a table of this transaction's own, made like another one; gives its name.

        So they get, by COPY, where rows can't be copied directly: into what is there already, or
        past the security of rows.
        """
        staging = f"incoming_{table}"
        self.execute(
            f"CREATE TEMPORARY TABLE {staging} ON COMMIT DROP"
            f" AS SELECT {', '.join(columns)} FROM {table} WITH NO DATA"
        )
        self._copy(staging, columns, rows)
        yield staging
        self.execute(f"DROP TABLE {staging}")

    @contextmanager
    def pipelined(self) -> Iterator[None]:
        """Send the statements of the block without waiting for the answer of each, nor using COPY."""
        with self.connection.pipeline():
            yield

    @property
    def _is_pipelined(self) -> bool:
        return self.connection.pgconn.pipeline_status != PipelineStatus.OFF

    def contains(self, column: str, parameter: str) -> str:
        """Give the condition that a column holds the text of a parameter, ASCII case ignored."""
        return f"position({_lower(f'CAST(:{parameter} AS text)')} IN {_lower(column)}) > 0"

    def contains_any(self, column: str, parameter: str) -> str:
        """Give the condition that a column holds one of a list of texts, ASCII case ignored."""
        texts = f"SELECT 1 FROM unnest(CAST(:{parameter} AS text[])) AS texts (value)"
        return f"EXISTS ({texts} WHERE position({_lower('value')} IN {_lower(column)}) > 0)"

    def in_list(self, column: str, parameter: str) -> str:
        """Give the condition that a column is one of a list of values."""
        return f"{column} = ANY(:{parameter})"

    def list_value(self, values: Sequence[str] | Sequence[int] | Sequence[tuple[int, int]]) -> Any:
        """Give the form in which a list is bound to a parameter of the two above, of any length."""
        return list(values)

    def script(self, sql: str) -> None:
        """Run several statements."""
        self.connection.execute(sql.encode())


_FEW_ROWS = 16  # that take no longer one by one than a table of their own would


def _lower(text: str) -> str:
    """Bring ASCII letters into lower case, whatever the locale of the database."""
    return f'lower(({text}) COLLATE "C")'
