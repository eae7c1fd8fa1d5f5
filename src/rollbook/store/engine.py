"""The contract between Rollbook and a database engine.

An engine owns what differs between databases: opening, locking and retry, the style of parameters,
and the translation of its driver's errors into those of :mod:`rollbook.errors`.  Statements are
written once, with ``:name`` parameters, in the SQL that SQLite and PostgreSQL share.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import msgspec

Row = tuple[Any, ...]
Parameters = Mapping[str, Any]


class Schema(msgspec.Struct, frozen=True):
    """A kind of database: its migrations, the mark of its files, what to do when it is damaged.

    ``gives_back``: deletions are large enough that the file should shrink after them.
    ``is_derived``: all of it can be made again, so a file that looks wrong is no loss.
    """

    name: str
    application_id: int
    damage_hint: str
    gives_back: bool = False
    is_derived: bool = False


# The marks keep another program's database, or the wrong one of ours, from being taken for it.
STATE = Schema(
    name="state",
    application_id=0x526F6C6C,  # "Roll"
    damage_hint="move the file away and run `rollbook sync` to rebuild it from the rollouts",
    is_derived=True,
)
CONTENT = Schema(
    name="content",
    application_id=0x526F6354,  # "RocT"
    damage_hint="move the file away and run `rollbook sync` to rebuild it from the rollouts",
    is_derived=True,
)
# What many hosts share, on a server.
SHARED = Schema(
    name="shared",
    application_id=0,
    damage_hint="drop its tables and run `rollbook sync` on each host to fill it again",
)
LOGS = Schema(
    name="logs",
    application_id=0x526C6F67,  # "Rlog"
    damage_hint="move the file away; logging then goes on in a new one",
    gives_back=True,
)


class Transaction(Protocol):
    """Where statements are run.  Valid only inside the ``with`` block that gave it.

    ``thread_key`` are the columns that tell threads apart: the id, and, where the threads of many
    hosts are kept, the host.
    """

    thread_key: tuple[str, ...]

    def query(self, sql: str, parameters: Parameters = {}) -> list[Row]:
        """Run one statement and return all its rows; empty where it has none."""

    def execute(self, sql: str, parameters: Parameters = {}) -> None:
        """Run one statement for its effect."""

    def execute_many(self, sql: str, parameters: Iterable[Parameters]) -> None:
        """Run one statement once for each set of parameters."""

    def insert_many(self, table: str, columns: Sequence[str], rows: Sequence[Row]) -> None:
        """Insert rows in order, with as few statements as the engine can."""

    def contains(self, column: str, parameter: str) -> str:
        """Give the condition that a column holds the text of a parameter, ASCII case ignored."""

    def contains_any(self, column: str, parameter: str) -> str:
        """Give the condition that a column holds one of a list of texts, ASCII case ignored."""

    def in_list(self, column: str, parameter: str) -> str:
        """Give the condition that a column is one of a list of values."""

    def list_value(self, values: Sequence[str] | Sequence[int] | Sequence[tuple[int, int]]) -> Any:
        """Give the form in which a list is bound to a parameter of the two above, of any length."""

    def script(self, sql: str) -> None:
        """Run several statements without parameters, as a migration has them."""


class Engine(Protocol):
    """A database that is open: many readers, one writer at a time."""

    @property
    def schema(self) -> Schema:
        """Which kind of database this is."""

    @property
    def location(self) -> str:
        """Where the database is, for messages: a path or an address without secrets."""

    @property
    def generation(self) -> int:
        """Which file it is: another number than before where the file has been replaced."""

    def read(self) -> AbstractContextManager[Transaction]:
        """Read; never waits for a writer.  Each statement sees one moment, two may see two.

        Errors: DatabaseDamagedError, DatabaseError.
        """

    def write(self, *, wait_s: float | None = None) -> AbstractContextManager[Transaction]:
        """Read and write in one transaction: committed at the end of the block, or not at all.

        Waits for another writer for up to 30 s, or ``wait_s``.
        Errors: DatabaseBusyError after that; DatabaseUnwritableError; DatabaseDamagedError,
        DatabaseError.
        """

    def close(self) -> None:
        """Close all connections; afterwards the engine can't be used."""
