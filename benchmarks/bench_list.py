"""Time pages of 50 threads beside bare apsw: three sizes, every order, every combination of filters.

    python benchmarks/bench_list.py [--directory build/bench] [--factor 1] [--rounds 7]

The floor runs the statements of the same call, with the same values, on a bare connection. Each size
has 40 directories that many threads have and 5,000 that few have, four sources, three providers, two
in a hundred archived and five silent, and one thread with a source, provider and directory of its own.
"""

import asyncio
import random
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import chain, product
from pathlib import Path
from typing import Any

import apsw
from bench_points import Statements, statements_of
from figures import Figure, Goal, Scale, in_turns, run_alone, seconds
from homes import small_id, warm

from rollbook import Anchor, AsyncStateRuntime, SortKey, StateRuntime, ThreadMetadata, ThreadsPage
from rollbook.store import threads
from rollbook.testing import make_thread

_SIZES = (1_000, 100_000, 1_000_000)
_PAGE = 50
_DEEP = 10_000  # pages
_BATCH = 5_000
_ROUNDS = 5
_AGAIN = 20  # of the worst kinds
_START = datetime(2026, 1, 1, tzinfo=UTC)
_RARE = "of-one-thread"
_FILTERS: dict[str, tuple[Any, ...]] = {
    "allowed_sources": ((), ("cli",), ("exec", "mcp"), (_RARE,)),
    "model_providers": (None, ("openai",), ("local",), (_RARE,)),
    "cwd": (None, "/home/dev/project-7", "/home/dev/small-77", _RARE),
    "archived_only": (False, True),
    "include_silent": (False, True),
}


def measure(scale: Scale) -> Iterator[Figure]:
    """Per size: the median full page, the worst of them, and what a page costs that is not full."""
    slowest, fastest = 0.0, float("inf")
    for size in dict.fromkeys(max(_SIZES[0], scale.of(size)) for size in _SIZES):
        with _filled(scale, size) as state:
            warm(Path(state.database))
            full, rest = _kinds(state, size)
            times = [kind.ours for kind in full]
            slowest, fastest = max(slowest, *times), min(fastest, *times)
            worst = max(full, key=lambda kind: kind.ours / kind.floor)
            name = f"page of {_PAGE} of {size:,}"
            yield _figure(
                f"{name}, median of {len(full)} kinds",
                1e6 * statistics.median(times),
                1e6 * statistics.median(kind.floor for kind in full),
            )
            yield _figure(f"{name}, worst ratio", 1e6 * worst.ours, 1e6 * worst.floor)
            yield Figure(
                area="list",
                name=f"of {size:,}, slowest of {len(rest)} kinds with fewer",
                value=1e6 * max(kind.ours for kind in rest),
                unit="µs",
            )
    yield Figure(
        area="list",
        name="slowest full page of all",
        value=1e6 * slowest,
        unit="µs",
        floor="the fastest",
        floor_value=1e6 * fastest,
        goal=Goal.TIMES,
        limit=3.0,
    )
    yield from _long_titles(scale)
    yield asyncio.run(_beside_a_hop(scale))


@dataclass
class Kind:
    """A list of one kind: what it calls, and the median seconds of the floor and of ours."""

    fetch: Callable[[], object]
    action: Callable[[], ThreadsPage]
    floor: float = 0.0
    ours: float = 0.0

    def measure(self, rounds: int) -> None:
        """Time both, in turns."""
        self.floor, self.ours = in_turns(rounds, self.fetch, self.action, calls=3)


def _kinds(state: StateRuntime, size: int) -> tuple[list[Kind], list[Kind]]:
    """Time lists of every kind: those that fill a page, and the others.

    Of so many, a few are always disturbed by other programs: the worst are timed again, for longer.
    """
    bare = apsw.Connection(state.database)
    full: list[Kind] = []
    rest: list[Kind] = []
    for action in _pages(state, size):
        is_full = len(action().items) == _PAGE
        kind = Kind(partial(_fetch, bare, statements_of(state, action)), action)
        kind.measure(_ROUNDS)
        (full if is_full else rest).append(kind)
    by_ratio = sorted(full, key=lambda kind: kind.floor / kind.ours)[:_AGAIN]
    by_time = [sorted(kinds, key=lambda kind: -kind.ours)[:_AGAIN] for kinds in (full, rest)]
    for kind in chain(by_ratio, *by_time):
        kind.measure(10 * _ROUNDS)
    return full, rest


def _long_titles(scale: Scale) -> Iterator[Figure]:
    """A page of threads whose first messages have 100,000 characters, beside short ones."""
    taken = []
    with tempfile.TemporaryDirectory(dir=scale.directory) as directory:
        for characters in (300, 100_000):
            home = Path(directory) / str(characters)
            (home / "sessions").mkdir(parents=True)
            with StateRuntime.open(home, backfill=False) as state:
                state.sync()
                for number in range(1_000):
                    thread = make_thread(home, id=small_id(number), title="x" * characters)
                    state.upsert_thread(thread)
                action = partial(state.list_threads, _PAGE)
                taken += in_turns(5 * scale.rounds, action, calls=10)
    yield Figure(
        area="list",
        name=f"page of {_PAGE}, titles of 100,000 characters",
        value=1e6 * taken[1],
        unit="µs",
        floor="titles of 300",
        floor_value=1e6 * taken[0],
        goal=Goal.TIMES,
        limit=1.2,
    )


async def _beside_a_hop(scale: Scale) -> Figure:
    """A page through the asynchronous face, beside the same one and a bare hop to a thread."""
    home = scale.directory / f"listed-{_SIZES[0]}"
    rounds: list[tuple[float, float, float]] = []
    async with AsyncStateRuntime.open(home, backfill=False) as state:
        with StateRuntime.open(home, backfill=False) as synchronous, ThreadPoolExecutor(1) as pool:
            hop = partial(asyncio.get_running_loop().run_in_executor, pool, int)
            for _ in range(100 * scale.rounds):
                page = seconds(partial(synchronous.list_threads, _PAGE))
                bare = await _waited(hop)
                rounds.append((await _waited(partial(state.list_threads, _PAGE)), page, bare))
    ours, page, bare = map(statistics.median, zip(*rounds, strict=True))
    return Figure(
        area="list",
        name=f"page of {_PAGE}, asynchronous",
        value=1e6 * ours,
        unit="µs",
        floor="the page and a hop",
        floor_value=1e6 * (page + bare),
        goal=Goal.TIMES,
        limit=1.2,
    )


async def _waited(begin: Callable[[], Awaitable[object]]) -> float:
    """How long something is waited for."""
    started = time.perf_counter()
    await begin()
    return time.perf_counter() - started


def _figure(name: str, value: float, floor: float) -> Figure:
    return Figure(
        area="list",
        name=name,
        value=value,
        unit="µs",
        floor="apsw, the same SQL",
        floor_value=floor,
        goal=Goal.TIMES,
        limit=2.0,
    )


def _fetch(bare: apsw.Connection, statements: Statements) -> None:
    for sql, values in statements:
        bare.execute(sql, values).fetchall()


def _pages(state: StateRuntime, size: int) -> Iterator[Callable[[], ThreadsPage]]:
    deep = Anchor(
        _START + timedelta(minutes=size - _PAGE * min(_DEEP, size // _PAGE // 2)), small_id(0)
    )
    for sort_key, anchor, *chosen in product(SortKey, (None, deep), *_FILTERS.values()):
        filters = dict(zip(_FILTERS, chosen, strict=True))
        yield partial(state.list_threads, _PAGE, anchor, sort_key, **filters)


def _filled(scale: Scale, size: int) -> StateRuntime:
    home = scale.directory / f"listed-{size}"
    (home / "sessions").mkdir(parents=True, exist_ok=True)
    state = StateRuntime.open(home, backfill=False)
    if not (home / "complete").exists():
        state.sync()  # of nothing yet: so the home counts as compared
        rng = random.Random(size)
        for start in range(0, size, _BATCH):
            with state._engine.write() as tx:
                for number in range(start, min(start + _BATCH, size)):
                    threads.upsert(tx, str(home), _thread(home, rng, number, size))
        state._engine.settle()
        (home / "complete").touch()
    return state


def _thread(home: Path, rng: random.Random, number: int, size: int) -> ThreadMetadata:
    created = _START + timedelta(minutes=number)
    directory = f"project-{rng.randrange(40)}"
    if rng.random() < 0.1:
        directory = f"small-{rng.randrange(5_000)}"
    is_rare = number == size // 3
    return make_thread(
        home,
        id=small_id(rng.getrandbits(32)) if number else small_id(0),
        created_at=created,
        updated_at=created + timedelta(minutes=rng.randrange(100_000)),
        recency_at=created + timedelta(minutes=rng.randrange(100_000)),
        source=_RARE if is_rare else rng.choice(["cli", "vscode", "exec", "mcp"]),
        model_provider=_RARE if is_rare else rng.choice(["openai", "openai", "azure", "local"]),
        cwd=_RARE if is_rare else f"/home/dev/{directory}",
        title="what the person wrote first, about " + "so long " * rng.randrange(20),
        has_user_event=rng.random() > 0.05,
        archived_at=created if rng.random() < 0.02 else None,
    )


if __name__ == "__main__":
    run_alone(measure, __doc__)
