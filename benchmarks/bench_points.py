"""Time single operations beside the same transactions through bare apsw.

    python benchmarks/bench_points.py [--directory build/bench] [--rounds 7]

The statements of an operation are noted while it runs twice; the floor runs the same, with the values
of both in turns, on a bare connection to a copy of the database that is set up in the same way: to
write what is there already would cost it next to nothing.
"""

import os
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

import apsw
import msgspec
from figures import Figure, Goal, Scale, in_turns, run_alone
from homes import small_id

from rollbook import (
    DynamicToolSpec,
    RolloutItem,
    StateRuntime,
    ThreadMetadata,
    ThreadMetadataBuilder,
    items,
)
from rollbook.testing import DEFAULT_TIME, make_thread, session_meta, user_message, write_rollout

_THREADS = 1_000
_CALLS = 200
_PRAGMAS = ("journal_mode = wal", "synchronous = normal", "wal_autocheckpoint = 4000")
_COLUMNS = ThreadMetadata.__struct_fields__
_TIMES = [n for n, column in enumerate(_COLUMNS) if column.endswith("_at")]
_FLAG, _PATH = _COLUMNS.index("has_user_event"), _COLUMNS.index("rollout_path")
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
            yield _beside_program(scale, state, bare)
            for name, operation in operations.named().items():
                yield _beside_statements(scale, state, bare, name, operation)
            for name, event in operations.events().items():
                yield _beside_statements(
                    scale, state, bare, f"apply_rollout_items, {name}", event, operations.grow
                )
            for name, event in operations.events().items():
                yield Figure(
                    area="points",
                    name=f"written to disk for {name}",
                    value=_bytes_written(event) / 1e3,
                    unit="kB",
                    goal=Goal.MOST,
                    limit=50.0,
                )


def _beside_statements(
    scale: Scale,
    state: StateRuntime,
    bare: apsw.Connection,
    name: str,
    operation: Callable[[], object],
    before: Callable[[], object] = int,
) -> Figure:
    """``before`` is what the operation does that isn't to be counted."""
    operation()
    noted = cycle([statements_of(state, operation) for _ in range(2)])
    bare_seconds, more_seconds, seconds = in_turns(
        4 * scale.rounds, partial(_run, bare, noted), before, operation, calls=_CALLS
    )
    return Figure(
        area="points",
        name=name,
        value=1e6 * (seconds - more_seconds),
        unit="µs",
        floor="apsw, the same transaction",
        floor_value=1e6 * bare_seconds,
        goal=Goal.TIMES,
        limit=2.0,
    )


def _beside_program(scale: Scale, state: StateRuntime, bare: apsw.Connection) -> Figure:
    """What of a look-up is neither the query nor ours to save: the file, and the value."""
    look_up = partial(state.get_thread, small_id(1))
    [(sql, values)] = statements_of(state, look_up)
    look_up_by_hand = partial(_look_up_by_hand, bare, str(state.codex_home), sql, values)
    assert look_up_by_hand() == look_up()
    bare_seconds, seconds = in_turns(4 * scale.rounds, look_up_by_hand, look_up, calls=_CALLS)
    return Figure(
        area="points",
        name="get_thread, with all that it takes",
        value=1e6 * seconds,
        unit="µs",
        floor="apsw, a look for the file, the value",
        floor_value=1e6 * bare_seconds,
        goal=Goal.TIMES,
        limit=2.0,
    )


def _look_up_by_hand(
    bare: apsw.Connection, home: str, sql: str, values: Any
) -> ThreadMetadata | None:
    """What a program that knows nothing of damage and replaced files would do."""
    row = list(bare.execute(sql, values).fetchall()[0])
    for column in _TIMES:
        if row[column] is not None:
            row[column] = datetime.fromtimestamp(row[column], UTC)
    row[_FLAG] = bool(row[_FLAG])
    row[_PATH] = f"{home}/{row[_PATH]}"
    os.lstat(row[_PATH])
    return ThreadMetadata(*row)


class Operations:
    """What is timed, each on one thread of the home."""

    def __init__(self, state: StateRuntime) -> None:
        self._state = state
        thread = state.get_thread(small_id(1))
        assert thread is not None
        self._thread: ThreadMetadata = thread
        self._builder = ThreadMetadataBuilder(thread.id, thread.rollout_path, DEFAULT_TIME)
        self._number, self._now_s = 0, round(DEFAULT_TIME.timestamp())
        tools = [DynamicToolSpec(f"tool_{n}", "Look it up", {"type": "object"}) for n in range(4)]
        state.persist_dynamic_tools(thread.id, tools)

    def named(self) -> dict[str, Callable[[], object]]:
        """The operations by name."""
        own = make_thread(self._state.codex_home, id=small_id(2))
        states = cycle([own, msgspec.structs.replace(own, tokens_used=own.tokens_used + 1)])
        return {
            "get_thread": partial(self._state.get_thread, self._thread.id),
            "get_dynamic_tools": partial(self._state.get_dynamic_tools, self._thread.id),
            "upsert_thread": lambda: self._state.upsert_thread(next(states)),
        }

    def events(self) -> dict[str, Callable[[], object]]:
        """Events that an agent has just written, by name."""
        return {
            "one event": partial(self._apply, later_s=1),
            "one event in the same second": partial(self._apply, later_s=0),
        }

    def _apply(self, later_s: int) -> None:
        event = self.grow(later_s)
        self._state.apply_rollout_items(self._builder, [event])

    def grow(self, later_s: int = 1) -> RolloutItem:
        """Make the rollout longer, as an agent does that writes an event; gives that."""
        self._number += 1
        self._now_s += later_s
        os.truncate(self._thread.rollout_path, 1_000 + self._number)
        os.utime(self._thread.rollout_path, (self._now_s, self._now_s))
        time = f"{datetime.fromtimestamp(self._now_s, UTC):%Y-%m-%dT%H:%M:%SZ}"
        return msgspec.structs.replace(items.token_count(self._number), timestamp=time)


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


def _run(bare: apsw.Connection, noted: Iterator[Statements]) -> None:
    for sql, values in next(noted):
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
