"""Read the logs of a home, or those that Codex keeps, and never write to them."""

import os
from pathlib import Path
from typing import Self

from rollbook.errors import DatabaseDamagedError, DatabaseError, UsageError
from rollbook.model.log import LogQuery, LogRow
from rollbook.rollout.layout import beside_state, newest_of, resolve_home, state_path
from rollbook.store import logs
from rollbook.store.engine import STATE, Row, Transaction
from rollbook.store.snapshot import Snapshot
from rollbook.store.sqlite_file import is_ours

_MESSAGE_COLUMNS = ("message", "feedback_log_body")  # what releases of Codex call the message


class LogReader:
    """Reads a log database, Rollbook's or Codex's own, and never writes to it.

    ``is_own`` says that it belongs to a state of Rollbook.
    """

    def __init__(self, path: Path, *, is_own: bool = False) -> None:
        self._snapshot = Snapshot(path)
        self.is_own = is_own

    @classmethod
    def open(
        cls,
        home: str | os.PathLike[str] | None = None,
        database: str | os.PathLike[str] | None = None,
    ) -> Self:
        """Find the logs of a home; they need not be there yet, and nothing is created.

        ``home`` defaults to ``CODEX_HOME``, then ``~/.codex``.  ``database`` is a state database,
        whose logs are meant, or any database with logs in it; it defaults to ``ROLLBOOK_DB``.
        Errors: HomeNotFoundError, HomeError; DatabaseError where the file can't be read.
        """
        state = state_path(resolve_home(home) if home else None, database)
        if state.is_file() and not _is_state(state):
            return cls(state)
        return cls(logs_beside(state), is_own=True)

    @classmethod
    def of_agent(cls, home: Path) -> Self | None:
        """Find the logs that the agent's newest release keeps in its home; None where it has none."""
        path = newest_of((each for each in home.glob("logs*.sqlite") if each.is_file()), "logs")
        return None if path is None or is_ours(path) else cls(path)

    @property
    def path(self) -> Path:
        """Where the database is, or will be."""
        return self._snapshot.path

    def exists(self) -> bool:
        """Say whether the database is there, and not only about to be made."""
        return self.path.is_file() and self._snapshot.read(
            lambda tx: bool(tx.query("SELECT 1 FROM sqlite_schema LIMIT 1"))
        )

    def state(self) -> tuple[int, ...] | None:
        """Say what is different once rows have come, at the cost of a look at the file's times.

        None where there is no file, or where another change might not show yet.
        """
        return self._snapshot.state()

    def query_logs(self, query: LogQuery) -> list[LogRow]:
        """Read the rows that a query asks for, as :meth:`rollbook.StateRuntime.query_logs`.

        Errors: DatabaseError where the file is no database with logs or can't be read.
        """
        return self._snapshot.read(
            lambda tx: logs.select(tx, checked(query), message_column=_message_column(tx))
        )

    def rows_after(self, row_id: int, limit: int) -> list[Row]:
        """Read the next rows behind an id, whole, each with its id first."""
        return self._snapshot.read(
            lambda tx: logs.rows_after(tx, row_id, limit, message_column=_message_column(tx))
        )

    def thread_ids(self, prefix: str, limit: int) -> list[str]:
        """Find at most ``limit`` thread ids that rows have and that begin with a text, in order."""
        return self._snapshot.read(lambda tx: logs.thread_ids(tx, prefix, limit))

    def last_id(self) -> int:
        """Read the largest id of all; 0 where there are no rows."""
        return self._snapshot.read(
            lambda tx: logs.max_id(tx, LogQuery(), message_column=_message_column(tx))
        )


def checked(query: LogQuery) -> LogQuery:
    """Refuse what no database can be asked; UsageError names it."""
    if query.limit is not None and query.limit < 0:
        raise UsageError(f"there can't be {query.limit} log rows", hint="ask for 0 or more")
    for texts in (query.module_like, query.file_like, query.thread_ids):
        if isinstance(texts, str):
            raise UsageError(f"{texts!r:.100} should be a list of texts", hint="put it into a list")
    return query


def _is_state(path: Path) -> bool:
    try:
        mark = Snapshot(path).read(lambda tx: tx.query("PRAGMA application_id"))[0][0]
    except DatabaseDamagedError:
        if not is_ours(path):
            raise
        return True
    return bool(mark == STATE.application_id)


def _message_column(tx: Transaction) -> str:
    """Find out what a table of logs calls the message: releases of Codex differ."""
    columns = {row[0] for row in tx.query("SELECT name FROM pragma_table_info('logs')")}
    for name in _MESSAGE_COLUMNS:
        if name in columns:
            return name
    raise DatabaseError("the database has no table of logs", hint="name another file with --db")


def logs_beside(state: Path) -> Path:
    """Where the logs of a state database are: ``logs.sqlite`` beside ``state.sqlite``."""
    return beside_state(state, "logs.sqlite")
