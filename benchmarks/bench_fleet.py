"""Time what is shared on a PostgreSQL beside raw COPY and the bare driver.

    python benchmarks/bench_fleet.py [--threads 20000] [--rows 200000] [--agents 1,4,16,64]
        [--sizes 10000,1000000] [--seconds 5]

The server is a real one, with fsync.  Floors are of the same rows, tables and statements: COPY into
another database with the same indexes, and the bare driver with the statements that Rollbook ran.
Prints medians and ratios.
"""

import argparse
import logging
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import psycopg

from rollbook import Anchor, LogEntry, SortKey, StateRuntime
from rollbook.store import shared, threads
from rollbook.store.engine import SHARED
from rollbook.store.postgres import PostgresEngine
from rollbook.store.postgres_transaction import PostgresTransaction, translated
from rollbook.testing import make_thread

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.postgres.server import Server

TABLES = ("threads", "thread_groups", "logs", "log_positions", "hosts")
PAGE = 50
RUNS = 3


def prepared(server: Server, name: str) -> str:
    """Make a database with the schema; gives its address."""
    address = server.create_database(name)
    engine = PostgresEngine.open(address, SHARED)
    with engine.read():
        pass
    engine.close()
    return address


def empty(server: Server, name: str) -> None:
    """Take all away from a database."""
    server.execute(f"TRUNCATE {', '.join(TABLES)}", name)
    server.execute("CHECKPOINT")


def timed(run: Callable[[], Any]) -> float:
    """Say how many seconds something takes."""
    begun = time.perf_counter()
    run()
    return time.perf_counter() - begun


def median_us(run: Callable[[], Any], times: int = 400) -> float:
    """Give the median of many runs in microseconds, after a few that don't count."""
    for _ in range(20):
        run()
    return statistics.median(timed(run) for _ in range(times)) * 1e6


def row(*cells: str) -> None:
    """Print a row of a table."""
    print(f"{cells[0]:<44}" + "".join(f"{cell:>16}" for cell in cells[1:]), flush=True)


def copied(server: Server, table: str, source: str, target: str) -> float:
    """Copy the rows of a table into another database by COPY; gives the seconds of writing."""
    select = f"COPY (SELECT * FROM {table}) TO STDOUT"
    with psycopg.connect(server.url_of(source)) as reading, reading.cursor().copy(select) as copy:
        data = b"".join(copy)
    with psycopg.connect(server.url_of(target), autocommit=True) as writing:

        def write() -> None:
            with writing.cursor().copy(f"COPY {table} FROM STDIN") as copy:
                copy.write(data)

        return timed(write)


def fill(home: Path, state: StateRuntime, count: int) -> None:
    """Have an index know so many threads."""
    with state._engine.write() as tx:
        for number in range(count):
            thread = make_thread(home, title=f"Thread {number}", cwd=f"/work/{number % 50}")
            threads.upsert(tx, str(home), thread)


def bulk(server: Server, directory: Path, thread_count: int, row_count: int) -> None:
    """Time a backfill and logs beside COPY of the same rows."""
    address = prepared(server, "bulk")
    prepared(server, "floor")
    home = directory / "bulk"
    (home / "sessions").mkdir(parents=True)
    now = int(time.time())
    with StateRuntime.open(home, database=address, host="a", backfill=False) as state:
        fill(home, state, thread_count)
        state._content.state()
        delivery, stop = state._shared._register(), threading.Event()
        send = {
            "threads": partial(delivery.threads, None, stop),
            "logs": partial(delivery.logs, stop),
        }
        sent: dict[str, list[float]] = {"threads": [], "logs": []}
        floor: dict[str, list[float]] = {"threads": [], "logs": []}
        for table, run in send.items():
            if table == "logs":  # only now, as they are indexed here in the background
                text = "the tool took 4200 ms " * 4
                state._logs.insert(
                    [LogEntry(now, 0, "INFO", "agent", text, "t", "m", "f", 7)] * row_count
                )
            for _ in range(RUNS):
                empty(server, "bulk")
                empty(server, "floor")
                sent[table].append(timed(run))
                server.execute(f"SELECT make_log_partition({now - now % 86400})", "floor")
                floor[table].append(copied(server, table, "bulk", "floor"))
    row("bulk", "Rollbook", "raw COPY", "rate")
    for name, count in (("threads", thread_count), ("logs", row_count)):
        ours, raw = (statistics.median(times[name]) for times in (sent, floor))
        row(
            f"{name}: {count:,}",
            f"{count / ours:,.0f}/s",
            f"{count / raw:,.0f}/s",
            f"{raw / ours:.2f}",
        )


def bare(address: str, statements: list[tuple[str, Any]]) -> float:
    """Give the median microseconds that the driver alone takes for some statements."""
    with psycopg.connect(address, autocommit=True, prepare_threshold=0) as connection:
        cursor = connection.cursor()

        def run() -> None:
            for sql, values in statements:
                cursor.execute(translated(sql), values).fetchall()

        return median_us(run)


def noted(run: Callable[[], Any]) -> list[tuple[str, Any]]:
    """Say which statements something runs."""
    statements: list[tuple[str, Any]] = []
    query = PostgresTransaction.query

    def note(self: PostgresTransaction, sql: str, values: Any = {}) -> list[Any]:
        statements.append((sql, values))
        return query(self, sql, values)

    PostgresTransaction.query = note  # type: ignore[method-assign]
    try:
        run()
    finally:
        PostgresTransaction.query = query  # type: ignore[method-assign]
    return statements


def reads(server: Server, directory: Path, count: int) -> None:
    """Time lists and lookups beside the bare driver with the same statements."""
    address = prepared(server, "reads")
    home = directory / "reads"
    (home / "sessions").mkdir(parents=True)
    row("read", "Rollbook", "bare driver", "ratio")
    with StateRuntime.open(home, database=address, host="a", backfill=False) as state:
        fill(home, state, count)
        state._shared.deliver_all(items=False)
        page = state.list_threads(PAGE)
        thread_id = page.items[0].id

        def lookup() -> None:
            with state._shared.reads.read() as tx:
                shared.copies(tx, thread_id)

        for name, run in (
            ("list: first page of 50", lambda: state.list_threads(PAGE)),
            ("list: next page", lambda: state.list_threads(PAGE, page.next_anchor)),
            ("list: one directory", lambda: state.list_threads(PAGE, cwd="/work/7")),
            ("lookup by id", lookup),
        ):
            statements = noted(run)
            ours, floor = median_us(run), bare(address, statements)
            row(name, f"{ours:,.0f} µs", f"{floor:,.0f} µs", f"{ours / floor:.2f}")


class Agent(threading.Thread):
    """Writes log rows, and every tenth time a thread, and times each."""

    def __init__(self, home: Path, address: str, seconds: float) -> None:
        super().__init__()
        (home / "sessions").mkdir(parents=True)
        self._home, self._address, self._seconds = home, address, seconds
        self.times: list[float] = []
        self.behind_s = 0.0

    def run(self) -> None:
        """Write until the time is over, then wait until all of it is there."""
        options = {"database": self._address, "host": self._home.name, "backfill": False}
        with StateRuntime.open(self._home, **options) as state:
            end = time.perf_counter() + self._seconds
            while time.perf_counter() < end:
                self.times.append(timed(partial(self._write, state)))
            self.behind_s = timed(state.max_log_id)

    def _write(self, state: StateRuntime) -> None:
        state.insert_logs([LogEntry(int(time.time()), 0, "INFO", "agent", "a row")])
        if len(self.times) % 10 == 0:
            state.upsert_thread(make_thread(self._home))


def agents(server: Server, directory: Path, counts: list[int], seconds: float) -> None:
    """Have more and more agents write at once, each a thread with a home of its own."""
    row("agents, each with a home (threads of one process)", "writes/s", "p99", "sent after")
    for count in counts:
        address = prepared(server, f"agents{count}")
        running = [Agent(directory / f"agent-{count}-{n}", address, seconds) for n in range(count)]
        for agent in running:
            agent.start()
        for agent in running:
            agent.join()
        times = sorted(each for agent in running for each in agent.times)
        behind = max(agent.behind_s for agent in running)
        rate, p99 = len(times) / seconds, times[int(len(times) * 0.99)] * 1000
        row(f"{count}", f"{rate:,.0f}", f"{p99:.1f} ms", f"{behind:.2f} s")


FILL = """
INSERT INTO thread_groups (archived, has_user_event, source, model_provider, cwd, origin, digest)
SELECT 0, 1, 'cli', 'openai', '/work/' || n, '', n FROM generate_series(1, 50) AS n;
INSERT INTO threads SELECT lpad(to_hex(n), 8, '0') || '-0000-4000-8000-000000000000', 'a', '/x',
    1700000000 + n, 1700000000 + n, 1700000000 + n, 'cli', 'openai', '/work/' || n % 50 + 1,
    'Thread ' || n, '', NULL, '{{}}', 'never', 0, 0, 0, 0, 0, 1, 0, NULL, NULL, NULL, NULL, NULL, NULL,
    NULL, NULL, NULL, NULL, NULL, NULL, g.id, ''
FROM generate_series(1, {count}) AS n JOIN thread_groups AS g ON g.cwd = '/work/' || n % 50 + 1;
ANALYZE threads
"""


def sizes(server: Server, counts: list[int], directory: Path) -> None:
    """Time lists of more and more threads."""
    row("list of so many threads", "first page", "in the middle", "one directory")
    for count in counts:
        name = f"size{count}"
        address = prepared(server, name)
        server.execute(FILL.format(count=count), name)
        home = directory / name
        (home / "sessions").mkdir(parents=True)
        with StateRuntime.open(home, database=address, backfill=False) as state:
            middle = state.list_threads(1).items[0]
            place = middle.created_at.timestamp() - count // 2
            anchor = Anchor(
                type(middle.created_at).fromtimestamp(place, middle.created_at.tzinfo), middle.id
            )
            runs = (
                partial(state.list_threads, PAGE),
                partial(state.list_threads, PAGE, anchor, SortKey.CREATED_AT),
                partial(state.list_threads, PAGE, cwd="/work/7"),
            )
            cells = [median_us(run, 100) for run in runs]
        row(f"{count:,}", *(f"{cell:,.0f} µs" for cell in cells))
        server.drop_database(name)


def main() -> None:
    """Print one table after the other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=20_000)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--agents", default="1,4,16,64")
    parser.add_argument("--sizes", default="10000,1000000")
    parser.add_argument("--seconds", type=float, default=5.0)
    asked = parser.parse_args()
    logging.getLogger("rollbook").setLevel(logging.ERROR)
    server = Server.start(
        fsync="on", full_page_writes="on", shared_buffers="512MB", max_connections="600"
    )
    try:
        with tempfile.TemporaryDirectory() as made:
            directory = Path(made)
            bulk(server, directory, asked.threads, asked.rows)
            reads(server, directory, asked.threads)
            agents(server, directory, [int(n) for n in asked.agents.split(",")], asked.seconds)
            sizes(server, [int(n) for n in asked.sizes.split(",")], directory)
    finally:
        server.remove()


if __name__ == "__main__":
    main()
