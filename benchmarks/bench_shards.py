"""Time lists, lookups and searches over sixteen databases beside one with the same threads.

    python benchmarks/bench_shards.py [--threads 20000]

The shards are databases of one server, asked side by side, as a sharded PostgreSQL would ask its
nodes; here they share its processors.  Prints medians, and what each shard is asked.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rollbook import Anchor, StateRuntime
from rollbook.store import threads
from rollbook.testing import make_thread, message, session_meta, write_rollout

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.postgres.server import Server
from tests.postgres.shards import SHARDS, Router

PAGE = 50
TIMES = 60
SPOKEN = 300  # threads that have rollouts, to be searched


def median_ms(run: Callable[[], Any]) -> float:
    """Give the median of many runs in milliseconds."""
    times = []
    for _ in range(TIMES):
        begun = time.perf_counter()
        run()
        times.append(time.perf_counter() - begun)
    return statistics.median(times) * 1000


def filled(home: Path, state: StateRuntime, count: int) -> None:
    """Give a home threads, some of which can be searched."""
    for number in range(SPOKEN):
        thread_id = f"{number:08x}-1111-4000-8000-000000000000"
        lines = [
            session_meta(thread_id),
            message(f"Look at number {number}"),
            message("Well", "assistant"),
        ]
        write_rollout(home, thread_id, lines)
    state.sync()
    with state._engine.write() as tx:
        for number in range(count):
            threads.upsert(tx, str(home), make_thread(home, title=f"Thread {number}"))


def row(*cells: str) -> None:
    """Print a row of the table."""
    print(f"{cells[0]:<26}" + "".join(f"{cell:>20}" for cell in cells[1:]), flush=True)


def compare(one: Router, many: Router, thread_id: str, anchor: Anchor) -> None:
    """Time each kind of read on one database and on all shards."""
    row("read", "one database", f"{SHARDS} shards", "statements a shard", "ms a shard")
    kinds: dict[str, Callable[[Router], Any]] = {
        "list: first page": lambda router: router.page(PAGE),
        "list: in the middle": lambda router: router.page(PAGE, anchor),
        "lookup": lambda router: router.lookup(thread_id),
        "transcript": lambda router: router.transcript("a", thread_id),
        "search": lambda router: router.search("number", PAGE),
    }
    for name, read in kinds.items():
        single = median_ms(lambda read=read: read(one))
        before = sum(shard.statements for shard in many.shards)
        spread = median_ms(lambda read=read: read(many))
        asked = (sum(shard.statements for shard in many.shards) - before) / TIMES
        shards = SHARDS if name.startswith(("list", "search")) else 1
        cells = (
            f"{single:.2f} ms",
            f"{spread:.2f} ms",
            f"{asked / shards:.1f}",
            f"{spread / shards:.2f}",
        )
        row(name, *cells)


def main() -> None:
    """Fill both, and compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=20_000)
    count = parser.parse_args().threads
    server = Server.start(shared_buffers="256MB")
    one = Router([server.create_database("one")])
    many = Router([server.create_database(f"shard{number}") for number in range(SHARDS)])
    try:
        with tempfile.TemporaryDirectory() as made:
            home = Path(made)
            (home / "sessions").mkdir()
            with StateRuntime.open(home, backfill=False) as state:
                filled(home, state, count)
                for router in (one, many):
                    sent = router.deliver(state, "a")
                    for shard in router.shards:
                        with shard.engine.write() as tx:
                            tx.execute("ANALYZE threads, transcript_items, thread_groups")
                print(
                    f"{sum(sent.values()):,} threads; {min(sent.values()):,} to {max(sent.values()):,} a shard"
                )
                page = one.page(count // 2)
                anchor = Anchor(page[-1].created_at, page[-1].id, page[-1].host)
                compare(one, many, f"{7:08x}-1111-4000-8000-000000000000", anchor)
    finally:
        one.close()
        many.close()
        server.remove()


if __name__ == "__main__":
    main()
