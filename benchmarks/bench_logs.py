"""Time what 10 million log rows cost: inserting, each filter, pruning, following.

    python benchmarks/bench_logs.py [--directory build/bench] [--factor 1] [--rounds 7]

The rows are made once, in some minutes, and used again; each run adds some and prunes as many of
the oldest.  Their messages are of many kinds, their threads and modules of some frequency, some of
their times out of order.
"""

import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import apsw
from figures import Figure, Goal, Scale, in_turns, run_alone, seconds
from homes import small_id, warm

from rollbook import LogEntry, LogLimits, LogQuery, StateRuntime
from rollbook.store import log_marks

_ROWS = 10_000_000
_ADDED = 100_000
_BATCH = 64
_LAST = 200  # rows that a query asks for
_MAX_MS = 20.0
_FIRST_TS = 1_700_000_000
_PRAGMAS = ("journal_mode = wal", "synchronous = normal", "wal_autocheckpoint = 4000")
_KEEP_ALL = LogLimits(max_bytes=1 << 40, max_thread_bytes=1 << 40, retention_days=100_000)
_READ_ONLY = apsw.SQLITE_OPEN_URI | apsw.SQLITE_OPEN_READONLY
_TEXT = """
agent apply approval batch budget busy cache closed command commit connect decode encode error exec
exceeded failed file flush index limit line lock migrate network offset open parse patch path pending
queue read refused request response retry rollback sandbox schema session shell size socket step
stream thread timeout token tool turn version wait write
"""
_WORDS = _TEXT.split()
_FORMS = (
    "step {n} of the turn took {ms} ms",
    "{a} {b} failed after {ms} ms: {c} {d}",
    "GET /v1/{a}/{x:08x} 200 in {ms} ms",
    "call_{x:08x} of tool {a} returned {n} bytes",
    "{a} {b} {c} {d}",
    "retrying {a} ({n}): {b} {c}",
    "token usage: input={n} output={ms} cached={n}",
    "{a}: {x:08x}-{y:08x} {b}",
)
_LEVELS = ("INFO", "DEBUG", "TRACE", "WARN", "ERROR")
_MODULES = [f"agent.{first}.{second}" for first in _WORDS[:8] for second in _WORDS[8:14]]
_RARE = "a zebra crossed the road"
_PRUNE = """
import sys
from rollbook import LogLimits, StateRuntime
limits = LogLimits(max_bytes=1 << 40, max_thread_bytes=1 << 40, retention_days=100_000)
with StateRuntime.open(sys.argv[1], backfill=False, log_limits=limits) as state:
    print(state.delete_logs_before(int(sys.argv[2])))
"""


def measure(scale: Scale) -> Iterator[Figure]:
    """Say what each operation costs with all rows there."""
    size = scale.of(_ROWS)
    home = scale.directory / f"log-rows-{size}"
    with _opened(home) as state:
        _fill(state, size)
        _settle(state, size)
        database = home / "rollbook" / "logs.sqlite"
        warm(database)
        yield from _filters(state, size, scale.rounds)
        warm(database)
        yield from _insertion(state, scale)
        yield from _bare_insertion(scale)
        yield _following(home)
        warm(database)
        yield _pruning(state, scale)


def entries(start: int, count: int, rows: int) -> list[LogEntry]:
    """Make rows as a harness logs them; in the middle of all, one of each kind is rare."""
    chosen = random.Random(start)
    return [
        _entry(number, chosen, is_rare=number == rows // 2)
        for number in range(start, start + count)
    ]


def _entry(number: int, chosen: random.Random, *, is_rare: bool) -> LogEntry:
    a, b, c, d = chosen.choices(_WORDS, k=4)
    message = chosen.choice(_FORMS).format(
        n=chosen.randrange(1_000_000),
        ms=chosen.randrange(9_000),
        x=chosen.getrandbits(32),
        y=chosen.getrandbits(32),
        a=a,
        b=b,
        c=c,
        d=d,
    )
    module = "agent.rare" if is_rare else _MODULES[int(len(_MODULES) * chosen.random() ** 3)]
    [level] = chosen.choices(_LEVELS, (60, 30, 7, 2.5, 0.5))
    share = chosen.random()
    thread = number // 5_000 % 2_000 + 10 if share < 0.5 else int(share * 10) - 5
    is_late = chosen.random() < 0.0001
    return LogEntry(
        _FIRST_TS + number // 10 - is_late * 5_000,
        number,
        "FATAL" if is_rare else level,
        module.rpartition(".")[0],
        _RARE if is_rare else message,
        thread_id="the rare thread" if is_rare else small_id(thread) if share < 0.9 else None,
        module_path=module,
        file=f"/home/dev/{module.replace('.', '/')}.py",
        line=number % 500,
    )


def _opened(home: Path) -> StateRuntime:
    (home / "sessions").mkdir(parents=True, exist_ok=True)
    return StateRuntime.open(home, backfill=False, log_limits=_KEEP_ALL)


def _fill(state: StateRuntime, rows: int) -> None:
    for start in range(state.max_log_id(), rows, 1_000):
        state.insert_logs(entries(start, min(1_000, rows - start), rows))


def _queries(rows: int) -> dict[str, LogQuery]:
    """What is asked for, by name: each the last 200 rows, but where it says otherwise."""
    day = rows // 10 // 12  # of twelve
    first, last = _FIRST_TS + 3 * day, _FIRST_TS + rows // 10
    busy, seldom = small_id(0), small_id(700)
    asked: dict[str, dict[str, Any]] = {
        "no filter": {},
        "a common level": {"level": "info"},
        "a rare level": {"level": "error"},
        "a level of one row": {"level": "fatal"},
        "the last tenth of a time": {"from_ts": last - day},
        "up to a time far back": {"to_ts": first},
        "a second far back": {"from_ts": first, "to_ts": first},
        "a common module": {"module_like": ["agent.agent"]},
        "a module of one row": {"module_like": ["RARE"]},
        "two modules and a file": {"module_like": ["commit", "busy"], "file_like": ["apply/"]},
        "a file of one row": {"file_like": ["agent/rare.py"]},
        "a busy thread": {"thread_ids": [busy]},
        "a thread seldom heard": {"thread_ids": [seldom]},
        "a thread of one row": {"thread_ids": ["the rare thread"]},
        "five threads": {"thread_ids": [small_id(number) for number in (100, 300, 500, 700, 900)]},
        "no thread": {"include_threadless": True},
        "a thread, or none": {"thread_ids": [seldom], "include_threadless": True},
        "a common text": {"search": "timeout"},
        "a text of two": {"search": "ms"},
        "a text of one row": {"search": "zebra crossed"},
        "three letters of one row": {"search": "zeb"},
        "a text that is nowhere": {"search": "the quick brown fox"},
        "a number that is rare": {"search": "call_00c0ffee"},
        "a rare level of a busy thread": {"level": "error", "thread_ids": [busy]},
        "a rare level of a thread seldom heard": {"level": "error", "thread_ids": [seldom]},
        "a common text far back": {"search": "timeout", "to_ts": first},
        "a common text, a thread of one row": {
            "search": "timeout",
            "thread_ids": ["the rare thread"],
        },
        "a common text, a thread seldom heard": {"search": "timeout", "thread_ids": [seldom]},
        "a common text, a rare level": {"search": "timeout", "level": "error"},
        "a rare text, a busy thread": {"search": "zebra crossed", "thread_ids": [busy]},
        "a busy thread far back": {"thread_ids": [busy], "to_ts": first},
    }
    named = {name: LogQuery(limit=_LAST, descending=True, **each) for name, each in asked.items()}
    named["a rare level, the first after an id"] = LogQuery(
        level="error", after_id=rows // 3, limit=_LAST
    )
    named["a text of one row, the first after an id"] = LogQuery(
        search="zebra crossed", after_id=rows // 3, limit=_LAST
    )
    return named


def _settle(state: StateRuntime, rows: int) -> None:
    """Wait until nothing is left to do of what an earlier run has pruned."""
    state.insert_logs(entries(rows, 1, rows))
    engine, _ = state._logs._open()
    is_busy = True
    while is_busy:
        time.sleep(0.1)
        with engine.read() as tx:
            is_busy = bool(log_marks.empty_spans(tx, 1))
    engine.settle()


def _filters(state: StateRuntime, rows: int, rounds: int) -> Iterator[Figure]:
    worst = 0.0
    for name, query in _queries(rows).items():
        state.query_logs(query)
        [taken] = in_turns(rounds, partial(state.query_logs, query))
        if _is_combined(query):
            yield Figure(area="logs", name=f"query_logs: {name}", value=1e3 * taken, unit="ms")
        else:
            worst = max(worst, 1e3 * taken)
            yield _at_most(f"query_logs: {name}", 1e3 * taken)
    yield _at_most(f"query_logs of {rows:,}: the slowest filter", worst)
    yield _deceptive(state)


def _is_combined(query: LogQuery) -> bool:
    """Say whether rows must pass several filters, of which no index can answer all."""
    filters = (
        query.level,
        query.from_ts or query.to_ts,
        query.module_like or query.file_like,
        query.thread_ids or query.include_threadless,
        query.search,
    )
    return sum(bool(each) for each in filters) > 1


def _deceptive(state: StateRuntime) -> Figure:
    """Ask for what the marks can't exclude: a text that is nowhere, of parts that are in most blocks."""
    text = "timeout of the tool"
    path = Path(state.codex_home) / "rollbook" / "logs.sqlite"
    with closing(apsw.Connection(f"file:{path}?mode=ro", flags=_READ_ONLY)) as bare:
        sql = "SELECT id FROM logs WHERE instr(lower(message), ?)"
        walk, taken = in_turns(
            1,
            lambda: bare.execute(sql, (text,)).fetchall(),
            lambda: state.query_logs(LogQuery(search=text, limit=_LAST)),
        )
    return Figure(
        area="logs",
        name="query_logs: common parts of a text that is nowhere",
        value=1e3 * taken,
        unit="ms",
        floor="every message looked at",
        floor_value=1e3 * walk,
    )


def _at_most(name: str, value: float, unit: str = "ms", limit: float = _MAX_MS) -> Figure:
    return Figure(area="logs", name=name, value=value, unit=unit, goal=Goal.MOST, limit=limit)


def _insertion(state: StateRuntime, scale: Scale) -> Iterator[Figure]:
    """Insert into all rows and into a fresh file, in turns."""
    rows, added = scale.of(_ROWS), scale.of(_ADDED)
    taken: tuple[list[float], list[float]] = ([], [])
    with (
        tempfile.TemporaryDirectory(dir=scale.directory) as directory,
        _opened(Path(directory)) as fresh,
    ):
        for start in range(0, added, _BATCH):
            batch = entries(rows + start, _BATCH, rows)
            for times, each in zip(taken, (state, fresh), strict=True):
                times.append(seconds(partial(each.insert_logs, batch)))
    many, few = (1e6 * sum(times) / len(times) / _BATCH for times in taken)
    yield Figure(
        area="logs",
        name=f"insert a row behind {rows:,}, {_BATCH} at once",
        value=many,
        unit="µs",
        floor=f"the first {added:,}",
        floor_value=few,
        goal=Goal.TIMES,
        limit=1.1,
    )
    ordered = sorted(taken[0])
    yield _at_most("insert 64 rows: 999 of 1,000 within", 1e3 * ordered[int(0.999 * len(ordered))])
    yield _at_most("insert 64 rows: the slowest", 1e3 * ordered[-1], limit=50.0)


def _bare_insertion(scale: Scale) -> Iterator[Figure]:
    """Insert into a fresh file beside bare apsw with the same statements on another, in turns."""
    batches = [entries(start, _BATCH, _ROWS) for start in range(0, scale.of(_ADDED), _BATCH)]
    with tempfile.TemporaryDirectory(dir=scale.directory) as directory:
        homes = [Path(directory) / name for name in ("noted", "bare", "ours")]
        with _opened(homes[0]) as noting:
            statements = [_statements_of(noting, batch) for batch in batches]
        with _opened(homes[1]) as bare_state:
            bare_state.max_log_id()  # makes the file
        bare = apsw.Connection(str(homes[1] / "rollbook" / "logs.sqlite"))
        for pragma in _PRAGMAS:
            bare.pragma(*pragma.split(" = "))
        ours, floor = 0.0, 0.0
        with _opened(homes[2]) as state:
            for batch, noted in zip(batches, statements, strict=True):
                floor += seconds(partial(_run, bare, noted))
                ours += seconds(partial(state.insert_logs, batch))
        bare.close()
    yield Figure(
        area="logs",
        name=f"insert a row, {_BATCH} at once",
        value=1e6 * ours / len(batches) / _BATCH,
        unit="µs",
        floor="apsw, the same statements",
        floor_value=1e6 * floor / len(batches) / _BATCH,
        goal=Goal.TIMES,
        limit=2.0,
    )


def _statements_of(state: StateRuntime, batch: list[LogEntry]) -> list[tuple[str, Any]]:
    noted: list[tuple[str, Any]] = []
    connection = _writer(state)

    def note(_cursor: object, sql: str, values: Any) -> bool:
        noted.append((sql, values))
        return True

    connection.exec_trace = note
    state.insert_logs(batch)
    connection.exec_trace = None
    return noted


def _writer(state: StateRuntime) -> apsw.Connection:
    engine = state._logs._open()[0]
    with engine.write() as tx:
        connection: apsw.Connection = tx.connection
    return connection


def _run(bare: apsw.Connection, statements: list[tuple[str, Any]]) -> None:
    for sql, values in statements:
        list(bare.execute(sql, values))


def _following(home: Path) -> Figure:
    """How busy ``rollbook logs`` is while nothing comes."""
    command = [str(Path(sys.executable).with_name("rollbook")), "logs", "--backfill", "1"]
    command += ["--home", str(home)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(3)  # after that, what was written last is no longer new
        before, waited = _processor_seconds(process.pid), 10.0
        time.sleep(waited)
        used = _processor_seconds(process.pid) - before
        process.kill()
    return _at_most("rollbook logs while nothing comes", 100 * used / waited, "%", 0.1)


def _processor_seconds(pid: int) -> float:
    return int(Path(f"/proc/{pid}/schedstat").read_text("ascii").split()[0]) / 1e9


def _pruning(state: StateRuntime, scale: Scale) -> Figure:
    """How long a writer waits, at most, while another process deletes the oldest rows."""
    first = state.query_logs(LogQuery(limit=1))[0]
    before = _FIRST_TS + (first.ts_nanos + scale.of(_ADDED)) // 10
    entry = entries(scale.of(2 * _ROWS), 1, _ROWS)[0]
    command = [sys.executable, "-c", _PRUNE, str(state.codex_home), str(before)]
    longest = 0.0
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as pruning:
        while pruning.poll() is None:
            longest = max(longest, seconds(lambda: state.insert_log(entry)))
            time.sleep(0.001)
        assert pruning.stdout is not None
        deleted = int(pruning.stdout.read())
    return _at_most(f"a writer waits, while {deleted:,} rows are pruned", 1e3 * longest)


if __name__ == "__main__":
    run_alone(measure, __doc__)
