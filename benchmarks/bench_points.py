"""Time single operations beside the same transactions through bare apsw.

    python benchmarks/bench_points.py [--directory build/bench] [--rounds 7]

The statements of an operation are noted while it runs once; the floor runs the same, with the same
values, on a bare connection to a copy of the database that is set up in the same way.
"""

import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import apsw
from figures import Figure, Goal, Scale, in_turns, run_alone
from homes import small_id

from rollbook import DynamicToolSpec, StateRuntime, ThreadMetadata, ThreadMetadataBuilder, items
from rollbook.testing import DEFAULT_TIME, make_thread, session_meta, user_message, write_rollout

_THREADS = 1_000
_CALLS = 200
_PRAGMAS = ("journal_mode = wal", "synchronous = normal", "wal_autocheckpoint = 4000")
Statements = list[tuple[str, Any]]


def measure(scale: Scale) -> Iterator[Figure]:
    """Reads and writes of one thread; the bytes that a live event costs."""
    with tempfile.TemporaryDirectory(dir=scale.directory) as directory:
        home = Path(directory) / "home"
        for number in range(_THREADS):
            lines = [session_meta(small_id(number)), user_message(f"Thread {number}")]
            write_rollout(home, small_id(number), lines)
        with StateRuntime.open(home, backfill=False) as state:
            state.sync()
            operations = Operations(state)
            bare = apsw.Connection(str(_copy(state, Path(directory) / "bare.sqlite")))
            for pragma in _PRAGMAS:
                bare.pragma(*pragma.split(" = "))
            for name, operation in operations.named().items():
                operation()
                statements = statements_of(state, operation)
                bare_seconds, seconds = in_turns(
                    4 * scale.rounds, partial(_run, bare, statements), operation, calls=_CALLS
                )
                yield Figure(
                    area="points",
                    name=name,
                    value=1e6 * seconds,
                    unit="µs",
                    floor="apsw, the same transaction",
                    floor_value=1e6 * bare_seconds,
                    goal=Goal.TIMES,
                    limit=2.0,
                )
            yield Figure(
                area="points",
                name="written to disk for a live event",
                value=_bytes_written(operations.apply) / 1e3,
                unit="kB",
                goal=Goal.MOST,
                limit=50.0,
            )


class Operations:
    """What is timed, each on one thread of the home."""

    def __init__(self, state: StateRuntime) -> None:
        self._state = state
        self._tokens = count(1)
        thread = state.get_thread(small_id(1))
        assert thread is not None
        self._thread: ThreadMetadata = thread
        self._builder = ThreadMetadataBuilder(thread.id, thread.rollout_path, DEFAULT_TIME)
        tools = [DynamicToolSpec(f"tool_{n}", "Look it up", {"type": "object"}) for n in range(4)]
        state.persist_dynamic_tools(thread.id, tools)

    def named(self) -> dict[str, Callable[[], object]]:
        """The operations by name."""
        own = make_thread(self._state.codex_home, id=small_id(2))
        return {
            "get_thread": partial(self._state.get_thread, self._thread.id),
            "get_dynamic_tools": partial(self._state.get_dynamic_tools, self._thread.id),
            "upsert_thread": partial(self._state.upsert_thread, own),
            "apply_rollout_items, one event": self.apply,
        }

    def apply(self) -> None:
        """Apply an event as an agent has just written it."""
        self._state.apply_rollout_items(self._builder, [items.token_count(next(self._tokens))])


def _copy(state: StateRuntime, target: Path) -> Path:
    with (
        apsw.Connection(state.database) as source,
        apsw.Connection(str(target)) as copy,
        copy.backup("main", source, "main") as backup,
    ):
        backup.step()
    return target


def statements_of(state: StateRuntime, operation: Callable[[], object]) -> Statements:
    """Note the statements that an operation runs, with their values."""
    noted: Statements = []

    def note(_cursor: object, sql: str, values: Any) -> bool:
        noted.append((sql, values))
        return True

    connections = state._engine._connections._open
    for connection in connections:
        connection.exec_trace = note
    operation()
    for connection in connections:
        connection.exec_trace = None
    return noted


def _run(bare: apsw.Connection, statements: Statements) -> None:
    for sql, values in statements:
        list(bare.execute(sql, values))


def _bytes_written(operation: Callable[[], object]) -> float:
    """What one call writes to files, checkpoints included: over as many as cause several."""
    calls = 20_000
    before = _written()
    for _ in range(calls):
        operation()
    return (_written() - before) / calls


def _written() -> int:
    counters = Path("/proc/self/io").read_text("ascii").splitlines()
    return int(next(line.split()[1] for line in counters if line.startswith("wchar")))


if __name__ == "__main__":
    run_alone(measure, __doc__)
