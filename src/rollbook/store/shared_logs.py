"""Logs of many hosts: how a host sends its rows, and how those of all are read."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import msgspec

from rollbook.model.log import LogQuery, LogRow
from rollbook.store import log_conditions, logs
from rollbook.store.engine import Row, Transaction
from rollbook.store.log_conditions import LARGEST_ID, countable
from rollbook.store.statements import load

if TYPE_CHECKING:  # the driver is there only for whoever has a server
    from rollbook.store.postgres_transaction import PostgresTransaction

_STATEMENTS = load("shared.sql")
_COLUMNS = ("host", *logs.COLUMNS)
_SHOWN = "id, ts, ts_nanos, level, target, message, thread_id, file, line, host"
_DAY_S = 86_400
_LAST_DAY = 253_402_214_400  # of the year 9999


def position(tx: Transaction, host: str) -> tuple[int, str]:
    """Read up to which row the log of a host was taken over, and what that row was."""
    rows = tx.query(
        "SELECT last_id, last_row FROM log_positions WHERE host = :host", {"host": host}
    )
    return (rows[0][0], rows[0][1]) if rows else (0, "")


def locked_position(tx: Transaction, host: str) -> tuple[int, str]:
    """Read the same, and keep others from taking over more until the end of the transaction."""
    tx.execute(_STATEMENTS["begin_log"], {"host": host})
    return tx.query(_STATEMENTS["log_position"], {"host": host})[0]


def put(
    tx: "PostgresTransaction", host: str, rows: Sequence[Row], source: str | None = None
) -> None:
    """Take over rows of a host's log, each with its id there first, and remember the last.

    ``source`` is what the position is kept for, if that isn't the log of the host itself.
    """
    last = rows[-1]
    tx.execute(_STATEMENTS["log_turn"])
    tx.insert_many("logs", _COLUMNS, [(host, *row[1:]) for row in rows])
    values = {
        "host": host if source is None else source,
        "last_id": last[0],
        "last_row": logs.digest_of(last),
    }
    tx.execute(_STATEMENTS["set_log_position"], values)


def rows_after(tx: Transaction, host: str, row_id: int, limit: int) -> list[Row]:
    """Read the next rows of a host behind an id as they are stored, each with its id first."""
    sql = _STATEMENTS["log_rows_after"].format(columns=", ".join(logs.COLUMNS))
    return tx.query(sql, {"host": host, "id": row_id, "n": limit})


def hosts(tx: Transaction) -> list[str]:
    """Read which hosts have log rows."""
    return [host for (host,) in tx.query(_STATEMENTS["log_hosts"])]


def days_of(rows: Iterable[Row]) -> set[int]:
    """Say on which days (epoch seconds of their beginnings) rows were written."""
    days = {row[1] - row[1] % _DAY_S for row in rows}
    return {day for day in days if 0 <= day <= _LAST_DAY}


def make_partition(tx: Transaction, day: int) -> None:
    """See to it that the rows of a day have a place of their own."""
    tx.query("SELECT make_log_partition(:day)", {"day": day})


def select(tx: Transaction, query: LogQuery) -> list[LogRow]:
    """Read the rows that a query asks for."""
    limit = LARGEST_ID if query.limit is None else countable(query.limit)
    asked = log_conditions.of_row(tx, query, "message") + log_conditions.of_id(query)
    end = f"ORDER BY id {'DESC' if query.descending else 'ASC'} LIMIT :n"
    rows = tx.query(f"SELECT {_SHOWN} FROM logs{asked.where} {end}", asked.values | {"n": limit})
    return [LogRow(*row) for row in rows]


def max_id(tx: Transaction, query: LogQuery) -> int:
    """Read the largest id that a query finds, whatever its limit; 0 where it finds none."""
    newest = select(tx, msgspec.structs.replace(query, limit=1, descending=True))
    return newest[0].id if newest else 0


def delete_before(tx: Transaction, ts: int) -> int:
    """Delete rows before a time (epoch seconds), as far as one may; says how many."""
    dropped = drop_days_before(tx, ts)
    (rows,) = tx.query(_STATEMENTS["delete_logs_before"], {"ts": ts})[0]
    return int(dropped + rows)


def drop_days_before(tx: Transaction, ts: int) -> int:
    """Drop the days that were over at a time (epoch seconds), and are one's own; says how many rows."""
    dropped = 0
    for name, end in tx.query(_STATEMENTS["log_partitions"]):
        if end <= ts:
            (rows,) = tx.query(f"SELECT count(*) FROM {name}")[0]
            tx.execute(f"DROP TABLE {name}")
            dropped += rows
    return dropped


def delete_threads(tx: Transaction, thread_ids: Sequence[str]) -> int:
    """Delete the rows of some threads, as far as one may; says how many."""
    sql = _STATEMENTS["delete_logs_of"].format(among=tx.in_list("thread_id", "ids"))
    return int(tx.query(sql, {"ids": tx.list_value(thread_ids)})[0][0])
