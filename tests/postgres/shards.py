"""Sixteen databases behind a router by thread id, as a sharded PostgreSQL would have them.

Each statement runs on one shard, in a transaction of that shard alone.  Only what is read of all
shards is put together here: pages by their order, hits by their score.
"""

import hashlib
import heapq
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

from rollbook import Anchor, SortKey, StateRuntime, ThreadMetadata
from rollbook.content.query import parse_query
from rollbook.content.search import Asked, Match
from rollbook.fleet.delivery import Delivery
from rollbook.fleet.reading import find_messages, transcript_of
from rollbook.model.paging import ThreadFilter
from rollbook.model.search import SearchSort
from rollbook.model.transcript import TranscriptItem
from rollbook.store import shared, threads
from rollbook.store.engine import SHARED, Transaction
from rollbook.store.postgres import PostgresEngine
from rollbook.store.postgres_transaction import PostgresTransaction

SHARDS = 16
FAR = 1 << 40  # seconds: later than all
_Result = TypeVar("_Result")


class Shard:
    """One database, which counts what it is asked."""

    def __init__(self, address: str) -> None:
        self.engine = PostgresEngine.open(address, SHARED)
        self.statements = 0

    @contextmanager
    def read(self):
        with self.engine.read() as tx:
            yield _Counting(tx, self)


class _Counting:
    def __init__(self, tx: PostgresTransaction, shard: Shard) -> None:
        self._tx, self._shard = tx, shard

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tx, name)

    def query(self, sql: str, parameters: Any = {}) -> list[Any]:
        self._shard.statements += 1
        return self._tx.query(sql, parameters)


class Router:
    """Knows which shard has what."""

    def __init__(self, addresses: list[str]) -> None:
        self.shards = [Shard(address) for address in addresses]
        self._pool = ThreadPoolExecutor(len(addresses))

    def close(self) -> None:
        self._pool.shutdown()
        for shard in self.shards:
            shard.engine.close()

    def shard_of(self, key: str) -> Shard:
        digest = hashlib.blake2b(key.encode(), digest_size=4).digest()
        return self.shards[int.from_bytes(digest) % len(self.shards)]

    def deliver(self, state: StateRuntime, host: str) -> Counter[int]:
        """Send all of a home, each thread to its shard, its logs to the host's."""
        stop = threading.Event()
        with state._engine.read() as tx:
            ids = threads.all_ids(tx)
        sent: Counter[int] = Counter()
        for number, shard in enumerate(self.shards):
            delivery = Delivery(shard.engine, host, state._index, state._content, state._logs)
            own = [each for each in ids if self.shard_of(each) is shard]
            delivery.threads(own, stop)
            delivery.items(own, stop)
            if self.shard_of(host) is shard:
                delivery.logs(stop)
            sent[number] = len(own)
        return sent

    def of_all(self, ask: Callable[[Shard], _Result]) -> list[_Result]:
        return list(self._pool.map(ask, self.shards))

    def page(
        self, limit: int, anchor: Anchor | None = None, sort_key: SortKey = SortKey.CREATED_AT
    ) -> list[ThreadMetadata]:
        """The next threads of all shards."""

        def ask(shard: Shard) -> list[ThreadMetadata]:
            with shard.read() as tx:
                return threads.page(tx, "/", limit, anchor, sort_key, EVERYTHING, _refuse)[0]

        column = {SortKey.CREATED_AT: "created_at"}.get(sort_key, "recency_at")

        def place(thread: ThreadMetadata) -> tuple[Any, ...]:
            return getattr(thread, column), thread.id, thread.host

        return list(heapq.merge(*self.of_all(ask), key=place, reverse=True))[:limit]

    def lookup(self, thread_id: str) -> list[ThreadMetadata]:
        with self.shard_of(thread_id).read() as tx:
            return shared.copies(tx, thread_id)

    def transcript(self, host: str, thread_id: str) -> list[TranscriptItem]:
        with self.shard_of(thread_id).read() as tx:
            return list(transcript_of(tx, host, thread_id).all())

    def search(self, text: str, most: int) -> list[Match]:
        asked = Asked(
            query=parse_query(text),
            roles=("user", "assistant"),
            sort=SearchSort.NEWEST,
            now=FAR,
        )

        def ask(shard: Shard) -> list[Match]:
            return find_messages(shard, asked, most, EVERYTHING, anywhere=True)[0]

        found = [match for part in self.of_all(ask) for match in part]
        best = {(match.role, match.text): match for match in reversed(found)}
        return sorted(best.values(), key=lambda m: (m.time, m.position), reverse=True)[:most]


EVERYTHING = ThreadFilter(include_silent=True)


def _refuse(damage: Exception) -> None:
    raise damage


def indexes_that_lead(tx: Transaction) -> dict[str, str]:
    """Say by which column the key of each large table begins."""
    rows = tx.query(
        "SELECT c.relname, a.attname FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid"
        " JOIN pg_class n ON n.oid = i.indexrelid"
        " JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = i.indkey[0]"
        " WHERE c.relnamespace = to_regnamespace(current_schema())"
        " AND (i.indisprimary OR n.relname = 'usage_of_thread')"
    )
    return dict(rows)
