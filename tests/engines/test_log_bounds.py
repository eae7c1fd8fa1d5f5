"""The logs keep within their bounds: age, size of a thread, size of the file, size of the WAL."""

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rollbook import LogEntry, LogLimits, LogQuery, LogRow, StateRuntime
from tests.conftest import run_sql

MIB = 1 << 20
DAY = 86400
KEEP_ALL = LogLimits(retention_days=10**9)
threads = st.sampled_from([None, "", "a", "é", "\ud800"])
texts = st.none() | st.text(st.characters(), max_size=9)


def eventually(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 8
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.005)


def make_entry(message: str = "Hello", **fields: Any) -> LogEntry:
    defaults = {"ts": int(time.time()), "ts_nanos": 0, "level": "INFO", "target": "agent"}
    return LogEntry(message=message, **(defaults | fields))


def numbered(number: int, size: int) -> str:
    return f"{number:06}" + "x" * size


def number_of(row: LogRow) -> int:
    return int(row.message[:6])


def log_database(home: Path) -> Path:
    return home / "rollbook" / "logs.sqlite"


def ask(home: Path, sql: str) -> list[tuple[Any, ...]]:
    return run_sql(log_database(home), sql)


def counted(home: Path) -> dict[str, int]:
    return dict(ask(home, "SELECT thread_id, bytes FROM log_threads"))


def measured(home: Path) -> dict[str, int]:
    return dict(
        ask(
            home,
            "SELECT coalesce(thread_id, ''), sum(100 + octet_length(target)"
            " + coalesce(octet_length(message), 0) + coalesce(octet_length(module_path), 0)"
            " + coalesce(octet_length(file), 0)) FROM logs GROUP BY thread_id",
        )
    )


@pytest.fixture
def opened(home: Path) -> Iterator[Callable[..., StateRuntime]]:
    """Open the home with limits; all is closed afterwards."""
    states: list[StateRuntime] = []

    def open_with(**limits: int) -> StateRuntime:
        states.append(StateRuntime.open(home, backfill=False, log_limits=LogLimits(**limits)))
        return states[-1]

    yield open_with
    for state in states:
        state.close()


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StateRuntime]:
    home = tmp_path_factory.mktemp("home")
    with StateRuntime.open(home, backfill=False, log_limits=KEEP_ALL) as state:
        yield state


steps = st.lists(
    st.integers(0, 5)
    | st.lists(
        st.builds(
            LogEntry,
            ts=st.integers(0, 4),
            ts_nanos=st.just(0),
            level=st.just("INFO"),
            target=st.text(max_size=3),
            message=texts,
            thread_id=threads,
            module_path=texts,
            file=texts,
        ),
        max_size=5,
    ),
    max_size=6,
)


@settings(deadline=None, max_examples=30)
@given(steps)
def test_the_counted_size_of_each_thread_is_that_of_its_rows(kept, steps):
    for step in steps:
        if isinstance(step, int):
            kept.delete_logs_before(step)
        else:
            kept.insert_logs(step)
        home = Path(kept.codex_home)
        assert counted(home) == measured(home)


def test_rows_that_are_too_old_go_when_something_is_logged(home, opened):
    now = int(time.time())
    ages = [0, 1, 6, 8, 400]
    with StateRuntime.open(home, backfill=False, log_limits=KEEP_ALL) as state:
        state.insert_logs([make_entry(str(days), ts=now - days * DAY) for days in ages])
        state.insert_logs([make_entry("400", ts=now - 400 * DAY)] * 700)
    state = opened(retention_days=7)
    state.insert_log(make_entry("new"))
    eventually(lambda: not state.query_logs(LogQuery(to_ts=now - 7 * DAY - 1)))
    assert [row.message for row in state.query_logs()] == ["0", "1", "6", "new"]


def test_by_default_rows_are_kept_for_90_days(home, opened):
    now = int(time.time())
    with StateRuntime.open(home, backfill=False, log_limits=KEEP_ALL) as state:
        state.insert_logs([make_entry("kept", ts=now - 89 * DAY)])
        state.insert_logs([make_entry("old", ts=now - 91 * DAY)])
    state = opened()
    state.insert_log(make_entry("written old", ts=now - 91 * DAY))
    eventually(lambda: not state.query_logs(LogQuery(up_to_id=2, search="old")))
    assert [row.message for row in state.query_logs()] == ["kept", "written old"]


@pytest.mark.parametrize("thread_id", ["chatty", None])
def test_a_thread_that_says_too_much_loses_its_oldest_rows_and_no_other_does(
    home, opened, thread_id
):
    state = opened(max_thread_bytes=MIB)
    state.insert_logs([make_entry("quiet", thread_id="quiet")] * 20)
    for first in range(0, 6000, 500):
        numbers = range(first, first + 500)
        state.insert_logs([make_entry(f"{n:0400}", thread_id=thread_id) for n in numbers])
    key = thread_id or ""
    eventually(lambda: counted(home)[key] <= MIB)
    ids = [] if thread_id is None else [thread_id]
    query = LogQuery(thread_ids=ids, include_threadless=thread_id is None)
    numbers = [int(row.message) for row in state.query_logs(query)]
    assert numbers == list(range(6000 - len(numbers), 6000))
    eventually(lambda: state.query_logs(query)[0].id == min(r.id for r in state.query_logs(query)))
    assert counted(home)[key] >= MIB // 2
    assert len(state.query_logs(LogQuery(thread_ids=["quiet"]))) == 20


@pytest.mark.parametrize("size", [500, 20_000, 120_000])
def test_trimming_a_thread_keeps_what_fits_however_large_its_rows_are(home, opened, size):
    count = 2 * MIB // size
    with StateRuntime.open(home, backfill=False, log_limits=KEEP_ALL) as state:
        entries = [make_entry(numbered(n, size), thread_id="t") for n in range(count)]
        state.insert_logs(entries)
    state = opened(max_thread_bytes=MIB)
    state.insert_log(make_entry("other", thread_id="other"))
    eventually(lambda: counted(home).get("t", 0) <= MIB)
    last = state.query_logs(LogQuery(thread_ids=["t"], descending=True, limit=1))
    assert [number_of(row) for row in last] == [count - 1]
    assert counted(home)["t"] >= MIB // 2


@pytest.mark.parametrize("size", [500, 20_000, 120_000])
def test_trimming_the_file_keeps_what_fits_however_large_the_rows_are(home, opened, size):
    with StateRuntime.open(home, backfill=False, log_limits=KEEP_ALL) as state:
        count = 6 * MIB // size
        state.insert_logs([make_entry(numbered(number, size)) for number in range(count)])
    state = opened(max_bytes=4 * MIB)
    state.insert_log(make_entry(numbered(0, size)))
    eventually(lambda: log_database(home).stat().st_size <= 4 * MIB)
    found = [number_of(row) for row in state.query_logs()]
    assert found[-2:] == [count - 1, 0]
    assert sum(measured(home).values()) >= 2 * MIB


def test_a_row_larger_than_the_bound_ends_the_trimming_all_the_same(home, opened):
    state = opened(max_thread_bytes=MIB)
    state.insert_log(make_entry("x" * 3 * MIB, thread_id="t"))
    eventually(lambda: counted(home).get("t", 0) <= MIB)
    state.insert_log(make_entry("after", thread_id="t"))
    assert [row.message for row in state.query_logs()][-1] == "after"


def test_a_file_that_is_too_large_shrinks_and_the_newest_rows_stay(home, opened):
    with StateRuntime.open(home, backfill=False, log_limits=KEEP_ALL) as state:
        for first in range(0, 30_000, 5000):
            state.insert_logs([make_entry(f"{n:0500}") for n in range(first, first + 5000)])
    assert log_database(home).stat().st_size > 15 * MIB
    state = opened(max_bytes=4 * MIB)
    state.insert_log(make_entry("30000"))
    eventually(lambda: log_database(home).stat().st_size <= 4 * MIB)
    numbers = [int(row.message) for row in state.query_logs()]
    assert numbers == list(range(30_001 - len(numbers), 30_001))
    assert len(numbers) > 3000
    assert counted(home) == measured(home)
    state.close()
    assert log_database(home).stat().st_size <= 4 * MIB


def test_the_file_keeps_within_its_bound_while_it_is_written_to(home, opened):
    state = opened(max_bytes=8 * MIB)
    largest = 0
    for _ in range(400):
        state.insert_logs([make_entry("x" * 600)] * 64)
        largest = max(largest, log_database(home).stat().st_size)
    assert largest <= 9 * MIB
    eventually(lambda: log_database(home).stat().st_size <= 8 * MIB)
    assert state.query_logs(LogQuery(descending=True, limit=1))[0].id == 400 * 64


def test_the_file_shrinks_after_rows_are_deleted(home, opened):
    state = opened()
    state.insert_logs([make_entry("x" * 1000, ts=int(time.time()) - 5)] * 20_000)
    eventually(lambda: log_database(home).stat().st_size > 16 * MIB)
    assert state.delete_logs_before(int(time.time()) - 1) == 20_000
    state.insert_log(make_entry())
    eventually(lambda: log_database(home).stat().st_size < 3 * MIB)


def test_the_wal_stays_small_however_much_is_written(home, opened):
    state = opened()
    wal = log_database(home).with_name("logs.sqlite-wal")
    state.insert_logs([make_entry("x" * 1000)] * 30_000)
    for _ in range(40):
        state.insert_logs([make_entry("x" * 1000)] * 300)
    assert wal.stat().st_size <= 20 * MIB
    state.close()
    assert not wal.exists()


def test_writers_and_readers_go_on_while_much_is_deleted(home, opened):
    state = opened(retention_days=10**9)
    state.insert_logs([make_entry(ts=1)] * 30_000)
    done = threading.Event()
    deleted: list[int] = []

    def delete() -> None:
        deleted.append(state.delete_logs_before(2))
        done.set()

    deleting = threading.Thread(target=delete)
    deleting.start()
    seen: set[int] = set()
    written = 0
    while not done.is_set():
        state.insert_log(make_entry("new"))
        written += 1
        seen.add(len(state.query_logs(LogQuery(to_ts=1))))
    deleting.join()
    assert deleted == [30_000]
    assert len(state.query_logs()) == written
    assert len(seen) > 5  # it happened in steps, with writes in between


def test_two_programs_with_bounds_keep_one_file_consistent(home, opened):
    states = [opened(max_bytes=2 * MIB, max_thread_bytes=MIB) for _ in range(2)]
    chosen = random.Random(5)

    def write(state: StateRuntime, name: str) -> None:
        for _ in range(60):
            size = chosen.randrange(2000)
            state.insert_logs([make_entry("x" * size, thread_id=name)] * 40)

    writers = [
        threading.Thread(target=write, args=(state, name))
        for state, name in zip(states, "ab", strict=True)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    eventually(lambda: max(counted(home).values()) <= MIB)
    eventually(lambda: log_database(home).stat().st_size <= 3 * MIB)
    for state in states:
        state.close()
    assert counted(home) == measured(home)
    assert Counter(ask(home, "PRAGMA integrity_check")) == {("ok",): 1}
    assert set(counted(home)) <= {"a", "b"}
