"""Time searches in 1 GB of conversation beside bare FTS5, and the size and making of the index.

    python benchmarks/bench_search.py [--directory build/bench] [--factor 1] [--rounds 7]

The floor is a full-text table of SQLite with the same messages, as the handbook says to make one, and
the same words, asked for the first 20 by its own rank, with snippets.
"""

import random
import statistics
from collections.abc import Iterator
from pathlib import Path

import apsw
from figures import Figure, Goal, Scale, in_turns, run_alone, seconds
from generate_talk import Talk, said_in
from homes import SEED, database_of, talking_home, warm

from rollbook import SearchSort, StateRuntime

_HITS = 20
_QUERIES = 20  # of each kind


def measure(scale: Scale) -> Iterator[Figure]:
    """How large the index is, how long it takes to make, and what a search takes, by kind."""
    home = talking_home(scale)
    database = database_of(home)
    for path in database.parent.glob(f"{database.stem}.*"):
        path.unlink()
    characters = sum(len(text.encode()) for _, text in said_in(home))
    floor_path, floor_seconds = _bare_table(home)
    with StateRuntime.open(home, database=database, backfill=False) as state:
        listed = seconds(lambda: state.sync(metadata_only=True))
        made = seconds(state.sync)
        content = database.with_name(f"{database.stem}.content.sqlite")
        size = sum(path.stat().st_size for path in content.parent.glob(f"{content.name}*"))
        gigabytes = characters / 1e9
        yield Figure(
            area="search",
            name=f"index of {gigabytes:.2g} GB of text",
            value=size / 1e6,
            unit="MB",
            floor="the text",
            floor_value=characters / 1e6,
            goal=Goal.TIMES,
            limit=0.4,
        )
        yield Figure(
            area="search",
            name="making that index, after the list was complete",
            value=made,
            unit="s",
            floor="filling the bare table",
            floor_value=floor_seconds,
        )
        yield Figure(area="search", name="the list complete", value=listed, unit="s")
        yield Figure(
            area="search", name="sync with nothing new", value=seconds(state.sync), unit="s"
        )
        for path in (content, floor_path):
            warm(path)
        yield from _searches(state, floor_path, scale.rounds)


def _bare_table(home: Path) -> tuple[Path, float]:
    path = home.with_name(f"{home.name}.fts5")
    path.unlink(missing_ok=True)
    connection = apsw.Connection(str(path))
    connection.execute("PRAGMA journal_mode = off; PRAGMA synchronous = off")
    connection.execute("CREATE VIRTUAL TABLE messages USING fts5 (role UNINDEXED, text)")

    def fill() -> None:
        with connection:
            connection.executemany("INSERT INTO messages VALUES (?, ?)", said_in(home))

    taken = seconds(fill)
    connection.close()
    return path, taken


def _queries(rng: random.Random, words: list[str]) -> Iterator[tuple[str, str, str | None]]:
    """Kind, what we are asked for, and what FTS5 is asked for; None where it can't be asked."""
    plain = [word for word in words if word.isascii() and word.isalpha() and len(word) > 3]
    for _ in range(_QUERIES):
        rare, middle, other = (rng.choice(plain[low:high]) for low, high in _RANKS)
        yield "a rare word", rare, rare
        yield "a usual word", middle, middle
        yield "two usual words", f"{middle} {other}", f"{middle} AND {other}"
        yield "a word and not another", f"{rare} -{other}", f"{rare} NOT {other}"
        yield "the beginning of a word", f"{rare[:5]}*", f"{rare[:5]}*"
        path = rng.choice([word for word in words if word.startswith("src/")])
        phrase = " ".join(path.replace("/", " ").replace(".", " ").split())
        yield "a phrase", f'"{phrase}"', f'"{phrase}"'
        yield "part of a word", f"`{path[2:]}`", None
        yield "Chinese", rng.choice([word for word in words if word >= "\u4e00"])[:2], None
        yield "a word that is nearly everywhere", rng.choice(plain[:20]), None


_RANKS = ((20_000, 60_000), (500, 3_000), (500, 3_000))


def _searches(state: StateRuntime, floor: Path, rounds: int) -> Iterator[Figure]:
    connection = apsw.Connection(str(floor))
    kinds: dict[str, list[tuple[float, float | None]]] = {}
    asked = []
    for kind, ours, theirs in _queries(random.Random(7), Talk(SEED).words):

        def search(text: str = ours) -> None:
            state.search(text, limit=_HITS)

        def bare(text: str | None = theirs) -> None:
            if text is not None:
                connection.execute(
                    "SELECT rowid, snippet(messages, 1, '[', ']', '…', 20) FROM messages"
                    " WHERE messages MATCH ? ORDER BY rank LIMIT ?",
                    (text, _HITS),
                ).fetchall()

        search()
        our_time, floor_time = in_turns(min(rounds, 3), search, bare)
        kinds.setdefault(kind, []).append((our_time, None if theirs is None else floor_time))
        asked.append((our_time, floor_time if theirs else None))
    for kind, times in kinds.items():
        yield _figure(kind, times)
    yield _figure(f"all {len(asked)} searches", asked, limit=50.0)
    newest = [
        seconds(lambda text=ours: state.search(text, limit=_HITS, sort=SearchSort.NEWEST))
        for _, ours, _ in _queries(random.Random(7), Talk(SEED).words)
    ]
    yield Figure(
        area="search",
        name="all searches, the newest first, median",
        value=1e3 * statistics.median(newest),
        unit="ms",
    )


def _figure(
    name: str, times: list[tuple[float, float | None]], limit: float | None = None
) -> Figure:
    floors = [floor for _, floor in times if floor is not None]
    return Figure(
        area="search",
        name=f"{name}, first {_HITS}, median of {len(times)}",
        value=1e3 * statistics.median(ours for ours, _ in times),
        unit="ms",
        floor="bare FTS5" if floors else "",
        floor_value=1e3 * statistics.median(floors) if floors else None,
        goal=Goal.NONE if limit is None else Goal.MOST,
        limit=limit,
    )


if __name__ == "__main__":
    run_alone(measure, __doc__)
