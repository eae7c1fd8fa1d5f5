"""Ask one database, and the same threads in sixteen, as if each of these were a server of its own.

    python benchmarks/bench_shards.py [--threads 20000] [--rounds 15]

Run it from the root of the project. All databases are on one server here, so that what the sixteen
take together is bounded by this machine; what each takes by itself is what a server of its own would.
The columns: one database, all sixteen at once, how many of them are asked, how many statements each
of those runs, and how long each takes while the others rest.
"""

import argparse
import os
import random
import statistics
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from figures import in_turns
from homes import small_id

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.postgres.server import Server
from tests.postgres.shards import SHARDS, Router, Shard, make_databases

from rollbook import Anchor, SortKey, ThreadMetadata
from rollbook.content.query import parse_query
from rollbook.content.search import Asked
from rollbook.model.paging import ThreadFilter
from rollbook.model.search import SearchSort
from rollbook.model.transcript import ItemKind, TranscriptItem
from rollbook.store import shared, threads
from rollbook.store.engine import SHARED, Row
from rollbook.store.shared import Outgoing, SentItem
from rollbook.testing import make_thread

_HOST = "host"
_BATCH = 2_000
_MESSAGES = 3  # of each thread
_PAGE = 50
_CALLS = 5  # in each round
_START = datetime(2026, 1, 1, tzinfo=UTC)
_NOW = int((_START + timedelta(days=365)).timestamp())
_WORDS = [f"word{number}" for number in range(5_000)]
_COLUMNS = (
    *("thread_id", "host", "key", "byte_offset"),
    *shared._ITEM_COLUMNS,
    *("said", "words"),
)


def main() -> None:
    """Parse the command line, fill, measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    server = Server.start(shared_buffers="256MB")
    try:
        addresses = _databases(server)
        one, many = Router(addresses[:1]), Router(addresses[1:])
        in_turn = Router(addresses[1:], at_once=1)
        _fill_all(one, many, options.threads)
        for address in addresses:
            server.execute("VACUUM ANALYZE", address.rpartition("/")[2])
        print(
            f"{options.threads:,} threads, {_MESSAGES * options.threads:,} messages;"
            f" {os.cpu_count()} processors, one server; medians of {options.rounds} rounds\n"
        )
        _show(_actions(options.threads), one, many, in_turn, options.rounds)
        for router in (one, many, in_turn):
            router.close()
    finally:
        server.remove()


def _databases(server: Server) -> list[str]:
    """Make the one and the many, each with the schema."""
    engine = Shard.open(server.create_database("template"), SHARED)
    with engine.read():
        pass
    engine.close()
    names = ["one", *(f"shard_{number}" for number in range(SHARDS))]
    return make_databases(server, names, "template")


def _fill_all(one: Router, many: Router, count: int) -> None:
    """Store the same threads in both, each in transactions of one database."""
    rng = random.Random(1)
    for start in range(0, count, _BATCH):
        batch = [_thread(rng, number) for number in range(start, min(start + _BATCH, count))]
        said = {thread.id: [_message(rng, thread, n) for n in range(_MESSAGES)] for thread in batch}
        for router in (one, many):
            parts: dict[Shard, list[ThreadMetadata]] = {}
            for thread in batch:
                parts.setdefault(router.shard_of(thread.id), []).append(thread)
            for shard, part in parts.items():
                _put(shard, part, said)


def _put(shard: Shard, part: list[ThreadMetadata], said: dict[str, list[Row]]) -> None:
    sent = {thread.id: Outgoing(_row(thread), None, [], {}, []) for thread in part}
    items = [item for thread in part for item in said[thread.id]]
    with shard.write() as tx:
        shared.put_threads(tx, _HOST, sent, ())
        tx.insert_many("transcript_items", _COLUMNS, items)


def _thread(rng: random.Random, number: int) -> ThreadMetadata:
    created = _START + timedelta(minutes=number)
    return make_thread(
        id=small_id(number),
        created_at=created,
        updated_at=created + timedelta(minutes=rng.randrange(10_000)),
        source=rng.choice(["cli", "vscode", "exec", "mcp"]),
        cwd=f"/home/dev/project-{rng.randrange(40)}",
        title="what the person wrote first, about " + "so long " * rng.randrange(20),
        has_user_event=rng.random() > 0.05,
    )


def _row(thread: ThreadMetadata) -> Row:
    row = threads._to_row({column: getattr(thread, column) for column in threads.COLUMNS}, "/")
    row |= {"has_user_event": int(thread.has_user_event), "archived": 0}
    return tuple(row[column] for column in threads.STORED)


def _message(rng: random.Random, thread: ThreadMetadata, number: int) -> Row:
    """A message of words of which some are usual and most are rare."""
    words = [_WORDS[int(len(_WORDS) * rng.random() ** 3)] for _ in range(30)]
    text = " ".join(words)
    item = TranscriptItem(
        position="",
        kind=ItemKind.MESSAGE,
        role=("user", "assistant")[number % 2],
        text=text,
        time=thread.created_at + timedelta(seconds=number),
    )
    sent = SentItem(1000 * number, item, text, list(dict.fromkeys(words)))
    return thread.id, _HOST, thread.id, *shared._item_row(sent)


def _actions(count: int) -> dict[str, Callable[[Router], object]]:
    """What is asked, each by its name; all routers are asked the same in the same order."""
    deep = Anchor(_START + timedelta(minutes=count // 10), small_id(0))
    selection = ThreadFilter()
    project = ThreadFilter(cwds=("/home/dev/project-7",))
    wanted = small_id(count // 3)

    def pages(anchor: Anchor | None, chosen: ThreadFilter) -> Callable[[Router], object]:
        return lambda router: router.page(_PAGE, anchor, SortKey.CREATED_AT, chosen)

    def search(text: str, sort: SearchSort) -> Callable[[Router], object]:
        asked = Asked(query=parse_query(text), roles=("user", "assistant"), sort=sort, now=_NOW)
        return lambda router: router.find(asked, 20)

    return {
        f"first page of {_PAGE}": pages(None, selection),
        f"page of {_PAGE}, nine tenths down": pages(deep, selection),
        f"first page of {_PAGE}, of one directory": pages(None, project),
        "lookup by id": lambda router: router.copies(wanted),
        "search, a rare word, first 20": search(_WORDS[-7], SearchSort.RELEVANCE),
        "search, a usual word, first 20": search(_WORDS[3], SearchSort.RELEVANCE),
        "search, a usual word, the newest 20": search(_WORDS[3], SearchSort.NEWEST),
    }


def _show(
    actions: dict[str, Callable[[Router], object]],
    one: Router,
    many: Router,
    in_turn: Router,
    rounds: int,
) -> None:
    """Measure and print a row for each action."""
    print(
        f"{'':<38} {'one':>8} {'of 16':>8} {'ratio':>6}   {'asked':>5} {'statements':>10} {'each':>8}"
    )
    for name, action in actions.items():
        for router in (one, many, in_turn):  # their connections are made, and statements prepared
            _repeat(action, router)
        expected, _ = one.counted(action, one)
        found, counts = many.counted(action, many)
        # A search that ends before all was considered may find others on each shard.
        is_whole = not (isinstance(expected, tuple) and expected[-1] is False)
        if is_whole and found != expected:
            raise AssertionError(f"{name}: the sixteen say something else than the one")
        alone, together, by_turns = in_turns(
            rounds, *(partial(action, router) for router in (one, many, in_turn)), calls=_CALLS
        )
        print(
            f"{name:<38} {1e3 * alone:>5.2f} ms {1e3 * together:>5.2f} ms {together / alone:>6.2f}"
            f"   {len(counts):>5} {statistics.mean(counts.values()):>10.1f}"
            f" {1e3 * by_turns / len(counts):>5.2f} ms",
            flush=True,
        )


def _repeat(action: Callable[[Router], object], router: Router) -> None:
    for _ in range(_CALLS):
        action(router)


if __name__ == "__main__":
    main()
