"""Sixteen agents write while their primary is killed and its standby promoted: what came of it."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import psycopg

from rollbook import LogEntry, StateRuntime
from rollbook.errors import RollbookError
from rollbook.testing import make_thread
from tests.postgres.server import Server

WRITERS = 16
_ENOUGH = 500  # rows, before the primary is killed, and after the standby was promoted
_DEADLINE_S = 60


class Outcome(msgspec.Struct):
    """How many rows and threads agents were told are written; what of it is missing, or twice.

    ``interrupted_s`` is from the death of the primary to the first row on the new one.
    """

    acknowledged: int
    lost: int
    doubled: int
    errors: int
    interrupted_s: float


def until(is_so: Callable[[], bool]) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + _DEADLINE_S
    while not is_so():
        assert time.monotonic() < deadline
        threading.Event().wait(0.02)


class Writer(threading.Thread):
    """An agent that writes, and notes what it was told is written."""

    def __init__(self, home: Path, address: str, number: int, stop: threading.Event) -> None:
        super().__init__()
        self.host, self.home, self.address, self.stop = f"agent-{number}", home, address, stop
        self.logged: list[str] = []
        self.threads: list[str] = []
        self.errors: list[RollbookError] = []

    def run(self) -> None:
        self.home.mkdir()
        options = {"database": self.address, "host": self.host, "backfill": False}
        with StateRuntime.open(self.home, **options) as state:
            number = 0
            while not self.stop.is_set():
                try:
                    self._write(state, number)
                except RollbookError as error:
                    self.errors.append(error)
                number += 1
                self.stop.wait(0.002)
            until(lambda: not state.degraded)
            state.query_logs()

    def _write(self, state: StateRuntime, number: int) -> None:
        text = f"{self.host} {number}"
        state.insert_logs([LogEntry(int(time.time()), 0, "INFO", "test", text)])
        self.logged.append(text)
        if number % 5 == 0:
            thread = make_thread(self.home, title=text)
            state.upsert_thread(thread)
            self.threads.append(thread.id)
            state.list_threads(1)


def fail_over(start: Callable[..., Server], directory: Path) -> Outcome:
    """Do it, on servers of its own, with synchronous replication."""
    primary = start(fsync="on")
    standby = start(standby_of=primary, fsync="on")
    until(lambda: primary.execute("SELECT count(*) FROM pg_stat_replication")[0][0] == 1)
    primary.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
    primary.execute("SELECT pg_reload_conf()")
    primary.create_database("shared")
    hosts = f"127.0.0.1:{primary.port},127.0.0.1:{standby.port}"
    stop = threading.Event()
    writers = [
        Writer(directory / f"home-{n}", f"postgresql://postgres@{hosts}/shared", n, stop)
        for n in range(WRITERS)
    ]
    for writer in writers:
        writer.start()
    until(lambda: _rows(primary) > _ENOUGH)
    primary.kill()
    killed = time.monotonic()
    standby.execute("ALTER SYSTEM SET synchronous_standby_names = ''")
    standby.promote()
    before = _rows(standby)
    until(lambda: _rows(standby) > before)
    interrupted_s = time.monotonic() - killed
    until(lambda: _rows(standby) > before + _ENOUGH)
    stop.set()
    for writer in writers:
        writer.join(_DEADLINE_S)
        assert not writer.is_alive()
    return _outcome(standby, writers, interrupted_s)


def _outcome(server: Server, writers: list[Writer], interrupted_s: float) -> Outcome:
    rows = [row[0] for row in server.execute("SELECT message FROM logs", "shared")]
    ids = [row[0] for row in server.execute("SELECT id FROM threads", "shared")]
    logged = {text for writer in writers for text in writer.logged}
    threads = {thread_id for writer in writers for thread_id in writer.threads}
    return Outcome(
        acknowledged=len(logged) + len(threads),
        lost=len(logged - set(rows)) + len(threads - set(ids)),
        doubled=len(rows) - len(set(rows)) + len(ids) - len(set(ids)),
        errors=sum(len(writer.errors) for writer in writers),
        interrupted_s=interrupted_s,
    )


def _rows(server: Server) -> int:
    try:
        return server.execute("SELECT count(*) FROM logs", "shared")[0][0]
    except psycopg.Error:  # or it isn't there yet
        return 0
