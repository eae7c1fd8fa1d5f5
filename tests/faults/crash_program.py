"""A program that tests start, stop and kill: it does one thing over and over, and says what is done.

What it has said it has done.  Its lines, and what it complains of, come through one pipe, whose end
is reached when it has ended and all the processes that it has started.
"""

import faulthandler
import fcntl
import logging
import os
import random
import shutil
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable
from itertools import count
from pathlib import Path

import apsw

from rollbook import (
    DynamicToolSpec,
    LogEntry,
    LogLimits,
    LogQuery,
    RollbookError,
    RollbookHandler,
    RolloutRecorder,
    StateRuntime,
    SyncStage,
    ThreadMetadataBuilder,
    items,
)
from rollbook.index import extraction
from rollbook.rollout.lines import decode_line
from rollbook.testing import (
    DEFAULT_TIME,
    make_line,
    make_thread,
    session_meta,
    token_count,
    user_message,
    write_rollout,
)

HANGS_AFTER_S = 100
LIMITS = LogLimits(max_bytes=400_000, max_thread_bytes=100_000)
SHARED = str(uuid.UUID(int=0))  # the thread that all writers write, each a field of its own
SHARED_TOOLS = str(uuid.UUID(int=1))
SHARED_FIELDS = {
    "tokens_used": token_count,
    "name": lambda number: make_line(
        "event_msg", {"type": "thread_name_updated", "thread_name": str(number)}
    ),
    "model": lambda number: make_line("turn_context", {"model": str(number)}),
    "cwd": lambda number: make_line("turn_context", {"cwd": str(number)}),
    **{
        field: lambda number, field=field: make_line(
            "session_meta", {"id": SHARED, field: str(number)}
        )
        for field in ("cli_version", "originator", "agent_nickname", "agent_role")
    },
}


def start(activity: Callable, *arguments: object) -> subprocess.Popen[str]:
    """Start this program; called by tests."""
    return subprocess.Popen(
        [sys.executable, "-P", __file__, activity.__name__, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        bufsize=1,
    )


def say(*words: object) -> None:
    """One line, with one write: it is there as a whole, or not."""
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


def thread_id_of(*numbers: int) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_OID, str(numbers)))


def write_threads(home: Path, threads: int) -> list[str]:
    """Write the rollouts of some threads; called by tests."""
    ids = [thread_id_of(number) for number in range(threads)]
    for number, thread_id in enumerate(ids):
        tools = [{"name": f"tool {number}", "description": "", "inputSchema": {}}]
        lines = [session_meta(thread_id, dynamic_tools=tools), user_message(f"Thread {number}")]
        lines += [token_count(total) for total in range(number)]
        write_rollout(home, thread_id, lines)
    return ids


def append(path: Path, *lines: bytes) -> None:
    """Append to a rollout as an agent does."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, b"".join(line + b"\n" for line in lines))
    os.close(descriptor)


def builder_of(path: Path) -> ThreadMetadataBuilder:
    return ThreadMetadataBuilder(path.stem[-36:], str(path), DEFAULT_TIME)


def join_backfill() -> None:
    """Wait until nothing is indexed in the background any more; called by tests, too."""
    for thread in threading.enumerate():
        if thread.name == "rollbook-backfill":
            thread.join()


# --- What is killed at any moment -------------------------------------------------------------


def sync(home: Path, directory: str, seed: str, jobs: str = "1") -> None:
    """Fill a new database, then let it follow rollouts that have grown; and again."""
    rng = random.Random(seed)
    rollouts = sorted(home.rglob("*.jsonl"))
    for number in count():
        database = Path(directory) / str(number // 3) / "state.sqlite"
        with StateRuntime.open(home, database=database, backfill=False) as state:
            state.sync(jobs=int(jobs), rebuild=number % 3 == 2)
        say("done", number)
        for path in rng.sample(rollouts, 3):
            append(path, token_count(rng.randrange(1_000_000)))


def sync_with_workers(home: Path, directory: str, seed: str) -> None:
    extraction.WORTH_WORKERS_BYTES = 0
    sync(home, directory, seed, jobs="2")


def backfill(home: Path, directory: str) -> None:
    for number in count():
        with StateRuntime.open(
            home, database=Path(directory) / str(number) / "state.sqlite"
        ) as state:
            join_backfill()
            say("done", number, state.is_synced())


def append_live(home: Path, first: str, seed: str) -> None:
    """Append to rollouts, old and new ones, and apply what was appended."""
    rng = random.Random(seed)
    rollouts = sorted(home.rglob("*.jsonl"))
    with StateRuntime.open(home, backfill=False) as state:
        for number in count(int(first)):
            path, lines = rng.choice(rollouts), [token_count(number)]
            if rng.random() < 0.05:
                thread_id = thread_id_of(number)
                path = path.with_name(f"rollout-2026-01-27T12-34-56-{thread_id}.jsonl")
                rollouts.append(path)
                lines = [session_meta(thread_id), user_message("New"), *lines]
                append(path.with_suffix(".new"), *lines)
                path.with_suffix(".new").rename(path)
            else:
                append(path, *lines)
            state.apply_rollout_items(builder_of(path), [decode_line(line) for line in lines])
            say("done", builder_of(path).id, number)


def record(home: Path, seed: str) -> None:
    """Begin threads, fork every third of them, and go on with them after closing them."""
    rng = random.Random(seed)
    with StateRuntime.open(home, backfill=False) as state:
        thread_id = None
        for thread in count():
            if thread_id and thread % 3 == 0:
                recorder = RolloutRecorder.fork(state, thread_id, cwd="/")
            else:
                given = str(uuid.UUID(int=rng.getrandbits(128))) if thread % 3 == 1 else None
                recorder = RolloutRecorder.create(state, cwd="/", git=False, thread_id=given)
            thread_id = recorder.thread_id
            recorded = len(numbers_of(recorder))
            say("done", thread_id, recorded)
            for number in range(recorded, recorded + rng.randrange(10)):
                output = items.function_call_output(str(number), "x" * (number * 997 % 9000))
                recorder.record_items([output, *items.user_message(str(number))])
                say("done", thread_id, number + 1)
                chance = rng.random()
                if chance < 0.3:
                    recorder.flush()
                elif chance < 0.5:
                    recorder.close()
                    recorder = RolloutRecorder.resume(state, thread_id)
            recorder.close()


def numbers_of(recorder: RolloutRecorder) -> list[int]:
    """The numbers that a thread had recorded when its recorder was made; called by tests, too."""
    kind = "function_call_output"
    return [int(item.payload["call_id"]) for item in recorder.history if item.kind == kind]


def log(
    home: Path, first: str, seed: str, limits: LogLimits = LogLimits(), length: int = 1
) -> None:
    """Log numbers, in batches that say where they end."""
    rng = random.Random(seed)
    number = int(first)
    with StateRuntime.open(home, backfill=False, log_limits=limits) as state:
        while True:
            end = number + rng.choice([1, 7, 64, 200])
            state.insert_logs(
                [
                    LogEntry(0x7FFFFFFF, 0, "INFO", str(end), str(n).zfill(length), thread_id="t")
                    for n in range(number, end)
                ]
            )
            say("done", end)
            number = end


def log_within_limits(home: Path, first: str, seed: str) -> None:
    log(home, first, seed, LIMITS, 300)


def log_through_handler(home: Path, first: str) -> None:
    logger = logging.Logger("agent")  # noqa: LOG001 - apart from those of the test
    with StateRuntime.open(home, backfill=False) as state:
        handler = RollbookHandler(state, flush_interval_s=0.005)
        logger.addHandler(handler)
        for number in count(int(first)):
            logger.info("%d", number)
            if number % 50 == 0:
                handler.flush()
                say("done", number + 1)


def archive(home: Path, seed: str) -> None:
    rng = random.Random(seed)
    with StateRuntime.open(home, backfill=False) as state:
        ids = [path.stem[-36:] for path in sorted(home.rglob("*.jsonl"))]
        while True:
            thread_id = rng.choice(ids)
            is_archived = state.get_thread(thread_id).archived_at is not None
            say("moving", thread_id)
            move = state.unarchive_thread if is_archived else state.archive_thread
            move(thread_id)
            say("done", thread_id, not is_archived)


def migrate(home: Path, directory: str, old_database: str) -> None:
    """Bring copies of an old database to the present schema."""
    for number in count():
        copy = Path(directory) / str(number) / "state.sqlite"
        copy.parent.mkdir()
        shutil.copy(old_database, copy.with_name("copy"))
        copy.with_name("copy").rename(copy)
        StateRuntime.open(home, database=copy, backfill=False).close()
        say("done", number)


# --- Many at once -----------------------------------------------------------------------------


def write(home: Path, process: str, seconds: str) -> None:
    """Write threads, tools and logs; in the end say how often."""
    field, line_of = list(SHARED_FIELDS.items())[int(process)]
    shared, own, upserted = (
        builder_of(next(home.rglob(f"*{thread_id}.jsonl")))
        for thread_id in (SHARED, thread_id_of(int(process)), thread_id_of(100, int(process)))
    )
    with StateRuntime.open(home, backfill=False) as state:
        say("ready")
        sys.stdin.readline()
        deadline, number = time.monotonic() + float(seconds), 0
        while time.monotonic() < deadline:
            number += 1
            state.apply_rollout_items(own, [decode_line(token_count(number))])
            state.apply_rollout_items(shared, [decode_line(line_of(number))])
            seen = getattr(state.get_thread(SHARED), field), state.get_thread(own.id).tokens_used
            assert (str(seen[0]), seen[1]) == (str(number), number)
            state.upsert_thread(
                make_thread(home, id=upserted.id, title=str(number), tokens_used=number)
            )
            with_tools = thread_id_of(200, int(process), number)
            state.upsert_thread(make_thread(home, id=with_tools))
            tools = [DynamicToolSpec(f"{process} {name}", "", number) for name in range(3)]
            for thread_id in (with_tools, SHARED_TOOLS):
                state.persist_dynamic_tools(thread_id, tools)
            state.insert_logs(
                [LogEntry(0x7FFFFFFF, part, "INFO", process, str(number)) for part in range(2)]
            )
        say("done", number)


def read(home: Path, process: str, seconds: str) -> None:
    """Read all that is written; nothing may ever go back."""
    seen = {field: 0 for field in SHARED_FIELDS if field != "cwd"}
    with StateRuntime.open(home, backfill=False) as state:
        say("ready")
        sys.stdin.readline()
        deadline, largest, times = time.monotonic() + float(seconds), 0, 0
        while time.monotonic() < deadline:
            thread = state.get_thread(SHARED)
            now = {field: _number(getattr(thread, field)) for field in seen}
            assert all(now[field] >= seen[field] for field in seen), (seen, now)
            tools = state.get_dynamic_tools(SHARED_TOOLS) or []
            assert len({(tool.name.split()[0], tool.input_schema) for tool in tools}) <= 1
            assert len(tools) in (0, 3)
            page = state.list_threads(20, include_silent=True)
            assert len(page.items) == len({item.id for item in page.items})
            rows = state.query_logs(LogQuery(descending=True, limit=20))
            assert all(row.id >= largest for row in rows[:1])
            seen, largest, times = now, rows[0].id if rows else 0, times + 1
        say("done", times)


def _number(value: object) -> int:
    text = str(value)
    return int(text) if text.isdecimal() else 0


def hold(home: Path, database: str, driver: str) -> None:
    """Be in the middle of a transaction until told to go on."""
    with StateRuntime.open(home, backfill=False) as state:
        state.query_logs()
        if driver == "sqlite":
            connection = apsw.Connection(database)
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("CREATE TABLE uncommitted (x)")
            say("inside")
            sys.stdin.readline()
            connection.execute("ROLLBACK")
        else:
            is_state = database == state.database
            engine = state._engine if is_state else state._logs._open()[0]
            with engine.write() as tx:
                tx.execute(
                    "UPDATE threads SET title = 'uncommitted'" if is_state else "DELETE FROM logs"
                )
                say("inside")
                sys.stdin.readline()
                tx.execute("UPDATE threads SET title = title" if is_state else "DELETE FROM logs")
    say("done")


def open_together(name: str) -> None:
    """Open homes when the lock on the gate beside them is free, with all others that wait for it."""
    for line in sys.stdin:
        faulthandler.dump_traceback_later(HANGS_AFTER_S, exit=True)
        home = Path(line.strip())
        with home.with_suffix(".gate").open() as gate:
            say("waiting")
            fcntl.flock(gate, fcntl.LOCK_SH)
        try:
            with StateRuntime.open(home) as state:
                state.insert_log(LogEntry(0x7FFFFFFF, 0, "INFO", str(name)))
        except RollbookError as error:
            say("failed", repr(error))
        else:
            say("done")


def sync_slowly(home: Path) -> None:
    """Stop at the first rollout, before anything was stored, until told to go on."""

    def wait(progress: object) -> None:
        if progress.files_done == 1 and progress.stage is SyncStage.METADATA:
            say("inside")
            sys.stdin.readline()

    with StateRuntime.open(home, backfill=False) as state:
        state.sync(jobs=1, progress=wait)
    say("done")


if __name__ == "__main__":
    activity, home, *arguments = sys.argv[1:]
    faulthandler.dump_traceback_later(HANGS_AFTER_S, exit=True)  # what hangs says where, and ends
    say("started")
    globals()[activity](Path(home), *arguments)
