"""What hosts share, spread over many databases: threads by their ids, logs by their hosts.

No statement and no transaction is of more than one database; what several are asked is put together
here.
"""

import hashlib
import heapq
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from itertools import chain, islice
from typing import Any, TypeVar

import msgspec

from rollbook import Anchor, SortKey, StateRuntime, ThreadMetadata
from rollbook.content.search import Asked, Match
from rollbook.errors import DamagedRowError
from rollbook.fleet.delivery import Delivery
from rollbook.fleet.host import machine_identity
from rollbook.fleet.reading import SharedTranscript, find_messages, transcript_of
from rollbook.index.projects import ProjectNames, groups_of
from rollbook.model.annotation import Relocations, annotated
from rollbook.model.paging import ThreadFilter
from rollbook.model.search import SearchSort
from rollbook.store import annotations as marks
from rollbook.store import shared, threads
from rollbook.store.engine import SHARED, Parameters, Row
from rollbook.store.postgres import PostgresEngine
from rollbook.store.postgres_transaction import PostgresTransaction
from tests.postgres.server import Server

SHARDS = 16
T = TypeVar("T")


def number_of(subject: str, shards: int = SHARDS) -> int:
    """Say in which database a thread, or the log of a host, is."""
    return int.from_bytes(hashlib.blake2b(subject.encode(), digest_size=8).digest()) % shards


def make_databases(server: Server, names: Sequence[str], template: str) -> list[str]:
    """Make databases that have the schema; gives their addresses."""
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(lambda name: server.create_database(name, template), names))


class Shard(PostgresEngine):
    """One of the databases; counts the statements that are run there."""

    statements = 0

    def _transaction(self, connection: Any) -> "_Counted":
        return _Counted(connection, self)


class _Counted(PostgresTransaction):
    __slots__ = ("_shard",)

    def __init__(self, connection: Any, shard: Shard) -> None:
        super().__init__(connection, is_secured=shard._is_secured)
        self._shard = shard

    def query(self, sql: str, parameters: Parameters = {}) -> list[Row]:
        self._shard.statements += 1
        return super().query(sql, parameters)

    def execute(self, sql: str, parameters: Parameters = {}) -> None:
        self._shard.statements += 1
        super().execute(sql, parameters)


class _OnItsShard:
    """Runs each statement where the one thread is that it is about."""

    def __init__(self, router: "Router") -> None:
        self._router = router

    def query(self, sql: str, parameters: Parameters = {}) -> list[Row]:
        (thread_id,) = parameters.get("ids") or [parameters["thread_id"]]
        with self._router.shard_of(thread_id).read() as tx:
            return tx.query(sql, parameters)

    def list_value(self, values: Sequence[str]) -> list[str]:
        return list(values)


class _PartDelivery(Delivery):
    """Sends what is said of the threads of one shard."""

    shard = 0
    shards = 1

    def _said(self) -> dict[str, list[str]]:
        said = super()._said()
        return {
            id_: each for id_, each in said.items() if number_of(id_, self.shards) == self.shard
        }


class Router:
    """Knows which database has what; all are asked at once, or one after the other."""

    def __init__(self, addresses: Sequence[str], at_once: int = SHARDS) -> None:
        self.shards = [Shard.open(address, SHARED) for address in addresses]
        self._pool = ThreadPoolExecutor(at_once)

    def close(self) -> None:
        """Close all connections."""
        self._pool.shutdown()
        for shard in self.shards:
            shard.close()

    def shard_of(self, subject: str) -> Shard:
        """Give the database of a thread, or of the log of a host."""
        return self.shards[number_of(subject, len(self.shards))]

    def counted(self, action: Callable[..., T], *arguments: Any) -> tuple[T, dict[int, int]]:
        """Say how many statements an action runs, by the numbers of the databases that it asks."""
        before = [shard.statements for shard in self.shards]
        result = action(*arguments)
        more = [shard.statements - count for shard, count in zip(self.shards, before, strict=True)]
        return result, {number: count for number, count in enumerate(more) if count}

    def all(self, ask: Callable[[Shard], T]) -> list[T]:
        """Ask every database; where one can't answer, the others have before that is said."""
        if len(self.shards) == 1:
            return [ask(self.shards[0])]
        asking = [self._pool.submit(ask, shard) for shard in self.shards]
        wait(asking)
        return [each.result() for each in asking]

    def page(
        self,
        limit: int,
        anchor: Anchor | None = None,
        sort_key: SortKey = SortKey.CREATED_AT,
        selection: ThreadFilter = ThreadFilter(),
        project: str | None = None,
    ) -> tuple[list[ThreadMetadata], Anchor | None]:
        """Read a page; every database gives as many threads, as they may all be of one."""

        def place(thread: ThreadMetadata) -> tuple[Any, str, str]:
            return getattr(thread, f"{sort_key}_at"), thread.id, thread.host

        def ask(shard: Shard) -> tuple[list[ThreadMetadata], bool]:
            with shard.read() as tx:
                chosen = selection
                if project is not None:  # groups have other numbers in each database
                    groups = groups_of(tx, ProjectNames(Relocations()), project)
                    chosen = msgspec.structs.replace(selection, groups=groups)
                found, after, _ = threads.page(tx, "/", limit, anchor, sort_key, chosen, _refuse)
                said = marks.of_threads(tx, [each.id for each in found]) if found else {}
            shown = [annotated(each, said.get(each.id), Relocations()) for each in found]
            return shown, after is not None

        pages = self.all(ask)
        items = list(
            islice(heapq.merge(*(found for found, _ in pages), key=place, reverse=True), limit)
        )
        has_more = any(more for _, more in pages) or sum(len(p) for p, _ in pages) > limit
        return items, Anchor(*place(items[-1])) if items and has_more else None

    def copies(self, thread_id: str) -> list[ThreadMetadata]:
        """Look a thread up, as each host has it."""
        with self.shard_of(thread_id).read() as tx:
            said = marks.of_threads(tx, [thread_id]).get(thread_id)
            return [annotated(t, said, Relocations()) for t in shared.copies(tx, thread_id)]

    def find(
        self, asked: Asked, most: int, selection: ThreadFilter = ThreadFilter()
    ) -> tuple[list[Match], bool]:
        """Find messages; what several threads have, which may be anywhere, is found once."""

        def ask(shard: Shard) -> tuple[list[Match], bool]:
            return find_messages(shard, asked, most, selection, anywhere=True)

        def rank(match: Match) -> tuple[float, int, str]:
            is_newest = asked.sort is SearchSort.NEWEST
            return match.time if is_newest else match.score, match.time, match.position

        found = self.all(ask)
        first: dict[tuple[str, str], Match] = {}
        for match in sorted(chain(*(each for each, _ in found)), key=rank, reverse=True):
            first.setdefault((match.role, match.text), match)
        return list(first.values())[:most], all(is_all for _, is_all in found)

    def transcript(self, host: str, thread_id: str) -> SharedTranscript:
        """Read a transcript; a thread that begins in another one is read on that one's shard, too."""
        return transcript_of(_OnItsShard(self), host, thread_id)

    def deliver(self, state: StateRuntime) -> None:
        """Send what a home has, to each database what is of it, and in its own transactions."""
        with state._index.engine.read() as local:
            own = threads.all_ids(local)

        def send(number: int, shard: Shard) -> None:
            delivery = self._delivery(state, number)
            with shard.write() as tx:
                shared.register(tx, machine_identity(), str(state.codex_home), state.host)
                known = shared.digests(tx, state.host)
            ids = {each for each in own if self.shard_of(each) is shard}.union(known)
            delivery.threads(ids, stop)
            delivery.items(ids, stop)
            delivery.annotations()
            if self.shard_of(state.host) is shard:
                delivery.logs(stop)

        stop = threading.Event()
        self.all(lambda shard: send(self.shards.index(shard), shard))

    def _delivery(self, state: StateRuntime, number: int) -> Delivery:
        part = _PartDelivery(
            self.shards[number], state.host, state._index, state._content, state._logs
        )
        part.shard, part.shards = number, len(self.shards)
        return part

    @contextmanager
    def without(self, server: Server, number: int) -> Iterator[None]:
        """Have one of the databases be away."""
        name = self.shards[number].location.rpartition("/")[2]
        server.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
        try:
            server.execute(
                f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = '{name}'"
            )
            yield
        finally:
            server.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')


def _refuse(damage: DamagedRowError) -> None:
    raise damage
