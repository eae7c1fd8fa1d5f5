"""Read from a replica, where there is one, and never see less than was seen before."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rollbook.errors import DatabaseUnavailableError
from rollbook.store.engine import Transaction
from rollbook.store.postgres import PostgresEngine

_PAUSE_S = 5.0  # before a replica that could not be reached is asked again


class Reads:
    """Where to read: a replica, as long as it has all that was seen or written here; else the primary.

    How far a server has come is its place in the log of the primary.
    """

    def __init__(self, primary: PostgresEngine, replica: PostgresEngine | None) -> None:
        self._primary = primary
        self._replica = replica
        self._seen = "0/0"
        self._has_failed = False
        self._replica_from = 0.0

    @contextmanager
    def read(self) -> Iterator[Transaction]:
        """Lend a transaction to read in."""
        if self._replica is None:
            with self._primary.read() as tx:
                yield tx
            return
        if time.monotonic() >= self._replica_from:
            try:
                with self._replica.read() as tx:
                    seen = _place_of_replica(tx, self._seen)
                    if seen is not None:
                        self._seen = seen
                        yield tx
                        return
            except DatabaseUnavailableError:
                self._has_failed = True
                raise
        with self._primary.read() as tx:
            yield tx
            self._seen = _place_of_primary(tx)

    def has_written(self) -> None:
        """Remember how far the primary is, after something was written."""
        if self._replica is not None:
            with self._primary.read() as tx:
                self._seen = _place_of_primary(tx)

    def gives_up_replica(self) -> bool:
        """Say whether it was the replica that was lost; then it isn't asked for a while."""
        has_failed, self._has_failed = self._has_failed, False
        if has_failed:
            self._replica_from = time.monotonic() + _PAUSE_S
        return has_failed

    def close(self) -> None:
        """Close all connections."""
        self._primary.close()
        if self._replica is not None:
            self._replica.close()


def _place_of_primary(tx: Transaction) -> str:
    """Say how far the primary is; as far as a replica, where that was made the primary."""
    return str(tx.query("SELECT CAST(pg_current_wal_lsn() AS text)")[0][0])


def _place_of_replica(tx: Transaction, seen: str) -> str | None:
    """Say how far a replica is; None where that is not far enough."""
    sql = (
        "SELECT CAST(place AS text) FROM (SELECT CASE WHEN pg_is_in_recovery()"
        " THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END AS place) AS places"
        " WHERE place >= CAST(:seen AS pg_lsn)"
    )
    rows = tx.query(sql, {"seen": seen})
    return str(rows[0][0]) if rows else None
