"""A home that is followed while others write into it."""

import asyncio
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from queue import Queue

import pytest

from rollbook import AsyncStateRuntime, StateRuntime, WatchUpdate
from rollbook.errors import UsageError
from rollbook.index.lock import sync_lock
from rollbook.testing import session_meta, token_count, user_message, write_rollout
from tests.conftest import as_another_program, index_of
from tests.index.test_sync import append, everything, rebuilt

ID = "01a207c8-2362-7ee0-a181-2c5d5a009976"
OTHER = "01a207c9-2362-7ee0-a181-2c5d5a009977"
DEADLINE_S = 30


class Following:
    """A watch in a thread of its own."""

    def __init__(self, state: StateRuntime, **options) -> None:
        self.updates: Queue[WatchUpdate | None] = Queue()
        self.stop = threading.Event()
        self._iterator = state.watch(stop=self.stop, **options)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        for update in self._iterator:
            self.updates.put(update)
        self.updates.put(None)

    def until(self, is_so: Callable[[], bool]) -> list[WatchUpdate]:
        """Take updates until something is true."""
        taken = []
        while not is_so():
            update = self.updates.get(timeout=DEADLINE_S)
            assert update is not None
            taken.append(update)
        return taken

    def end(self) -> None:
        self.stop.set()
        while self.updates.get(timeout=DEADLINE_S) is not None:
            pass
        self._thread.join(DEADLINE_S)
        assert not self._thread.is_alive()


@pytest.fixture
def follow(state):
    """Follow a home; gives the watch when it has looked at all for the second time."""
    watches = []

    def start(**options) -> Following:
        watch = Following(state, **options)
        watches.append(watch)
        for _ in range(2):  # once, and once more when notifications come
            assert watch.updates.get(timeout=DEADLINE_S).is_full
        return watch

    yield start
    for watch in watches:
        watch.end()


def tokens(state: StateRuntime, thread_id: str = ID) -> int | None:
    found = [t for t in everything(state) if t.id == thread_id]
    return found[0].tokens_used if found else None


def write(home, thread_id: str = ID, **options):
    return write_rollout(home, thread_id, [session_meta(thread_id), user_message("Hi")], **options)


def test_what_is_appended_comes_into_the_index(home, state, follow):
    path = write(home)
    watch = follow()
    for number in range(1, 4):
        append(path, token_count(number))
        updates = watch.until(lambda number=number: tokens(state) == number)
        assert {thread_id for update in updates for thread_id in update.changed} == {ID}
        assert sum(update.stats.bytes_read for update in updates) < path.stat().st_size


def test_new_rollouts_in_new_directories_are_found(home, state, follow):
    watch = follow()
    for day in range(1, 6):
        thread_id = f"{day:08x}-0000-4000-8000-000000000000"
        write(home, thread_id, time=f"2026-03-{day:02}T00-00-00")
        watch.until(lambda thread_id=thread_id: tokens(state, thread_id) is not None)


def test_archived_and_back_again(home, state, follow):
    path = write(home)
    (home / "archived_sessions").mkdir()
    watch = follow()
    archived = home / "archived_sessions" / path.name
    path.rename(archived)
    (*_, update) = watch.until(lambda: bool(state.list_threads(5, archived_only=True).items))
    assert update.stats.bytes_read == 0
    archived.rename(path)
    watch.until(lambda: bool(state.list_threads(5).items))
    assert [thread.id for thread in everything(state)] == [ID]


def test_a_root_that_appears_is_followed(tmp_path, home):
    shutil.rmtree(home / "sessions")
    with StateRuntime.open(home, backfill=False) as state:
        state.sync()
        watch = Following(state)
        assert watch.updates.get(timeout=DEADLINE_S).is_full
        path = write(home)
        watch.until(lambda: tokens(state) == 0)
        append(path, token_count(5))
        watch.until(lambda: tokens(state) == 5)
        archive = home / "archived_sessions"
        archive.mkdir()
        path.rename(archive / path.name)
        watch.until(lambda: bool(state.list_threads(5, archived_only=True).items))
        watch.end()


def test_a_root_that_is_replaced_is_followed(home, state, follow):
    write(home)
    watch = follow()
    (home / "sessions").rename(home / "old")
    path = write(home, OTHER)
    watch.until(lambda: tokens(state, OTHER) == 0 and tokens(state) is None)
    append(path, token_count(7))
    watch.until(lambda: tokens(state, OTHER) == 7)


def test_a_deleted_rollout_goes(home, state, follow):
    path = write(home)
    write(home, OTHER)
    watch = follow()
    path.unlink()
    (*_, update) = watch.until(lambda: tokens(state) is None)
    assert update.removed == (ID,)
    assert tokens(state, OTHER) == 0


def test_a_deleted_day_goes(home, state, follow):
    path = write(home)
    write(home, OTHER, time="2026-02-02T00-00-00")
    watch = follow()
    shutil.rmtree(path.parent)
    watch.until(lambda: tokens(state) is None)
    assert tokens(state, OTHER) == 0


def test_a_replaced_rollout_is_read_anew(home, state, follow):
    path = write_rollout(home, ID, [session_meta(ID), user_message("A long first"), token_count(9)])
    watch = follow()
    other = path.with_name(".new")
    other.write_bytes(b"\n".join([session_meta(ID), user_message("Short"), b""]))
    other.replace(path)
    watch.until(lambda: everything(state)[0].title == "Short")
    assert tokens(state) == 0


def test_a_renamed_thread_gets_its_name(home, state, follow):
    write(home)
    watch = follow()
    name = f'{{"id":"{ID}","thread_name":"Mine","updated_at":"2026-01-27T12:34:56Z"}}\n'
    (home / "session_index.jsonl").write_text(name)
    watch.until(lambda: everything(state)[0].name == "Mine")


BURST = """
import sys
from pathlib import Path
from rollbook.testing import session_meta, user_message, write_rollout
for number in range(int(sys.argv[2])):
    thread_id = f"{number:08x}-0000-4000-8000-000000000000"
    time = f"2026-{number % 12 + 1:02}-{number % 27 + 1:02}T00-00-00"
    lines = [session_meta(thread_id), user_message("Hi")]
    write_rollout(Path(sys.argv[1]), thread_id, lines, time=time)
"""


def test_a_burst_of_new_rollouts_is_digested_without_losing_one(home, state, follow, tmp_path):
    watch = follow()
    subprocess.run([sys.executable, "-c", BURST, home, "2000"], check=True)
    watch.until(lambda: len(state.list_thread_ids(3000)) == 2000)
    assert everything(state) == rebuilt(state, tmp_path)


def test_what_no_notification_tells_of_is_found_by_the_full_check(home, state, follow, monkeypatch):
    import watchfiles

    def deaf(*_, stop_event, **__):
        while not stop_event.wait(0.01):
            yield set()

    monkeypatch.setattr(watchfiles, "watch", deaf)
    watch = follow(check_interval_s=0.05)
    path = write(home)
    watch.until(lambda: tokens(state) == 0)
    append(path, token_count(3))
    watch.until(lambda: tokens(state) == 3)


def test_two_watches_and_a_sync_agree(home, state, follow, tmp_path):
    path = write(home)
    watch = follow()
    with StateRuntime.open(home, backfill=False) as second:
        other = Following(second)
        for number in range(1, 20):
            append(path, token_count(number))
            second.sync()
        watch.until(lambda: tokens(state) == 19)
        other.end()
    assert everything(state) == rebuilt(state, tmp_path)


def test_while_another_process_syncs_notifications_are_followed(home, state, follow):
    path = write(home)
    watch = follow(check_interval_s=0.05)
    with sync_lock(index_of(state), DEADLINE_S):
        for number in range(1, 4):
            append(path, token_count(number))
            watch.until(lambda number=number: tokens(state) == number)


def test_a_database_that_is_locked_for_a_while_is_written_later(home, state, follow, caplog):
    path = write(home)
    watch = follow()
    locker = as_another_program(index_of(state))
    locker.execute("BEGIN IMMEDIATE")
    append(path, token_count(8))
    assert tokens(state) == 0
    locker.execute("COMMIT")
    locker.close()
    watch.until(lambda: tokens(state) == 8)


def test_a_damaged_database_is_made_anew_meanwhile(home, state, follow):
    path = write(home)
    watch = follow()
    with open(index_of(state), "r+b") as file:
        file.write(os.urandom(8192))
    with StateRuntime.open(home, backfill=False) as other:
        other.sync()
    append(path, token_count(4))
    watch.until(lambda: tokens(state) == 4)


def test_a_watch_ends_with_its_state(home):
    with StateRuntime.open(home, backfill=False) as state:
        watch = Following(state)
        assert watch.updates.get(timeout=DEADLINE_S).is_full
    while watch.updates.get(timeout=DEADLINE_S) is not None:
        pass
    watch._thread.join(DEADLINE_S)
    assert not watch._thread.is_alive()


def test_a_watch_that_is_not_read_on_costs_nothing(home, state):
    updates = state.watch()
    assert next(updates).is_full
    updates.close()
    with pytest.raises(StopIteration):
        next(updates)
    with pytest.raises(UsageError, match="interval"):
        state.watch(check_interval_s=0)


def test_an_asynchronous_watch_follows_and_is_cancelled(home):
    path = write(home)

    async def main() -> list[int]:
        seen = []
        async with AsyncStateRuntime.open(home, backfill=False) as state:

            async def read() -> None:
                async for _ in state.watch():
                    seen.append((await state.get_thread(ID)).tokens_used)
                    if len(seen) == 2:
                        append(path, token_count(6))

            reading = asyncio.create_task(read())
            async with asyncio.timeout(DEADLINE_S):
                while 6 not in seen:
                    await asyncio.wait({reading}, timeout=0.01)
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading
        return seen

    assert asyncio.run(main())[-1] == 6


def test_times_of_an_update_are_those_of_the_file(home, state, follow):
    path = write(home)
    watch = follow()
    os.utime(path, (1_790_000_000, 1_790_000_000))
    expected = datetime.fromtimestamp(1_790_000_000, UTC)
    watch.until(lambda: everything(state)[0].updated_at == expected)
