"""The power fails at any moment: what was reported durable is there, and the rest is in order.

See power_loss.py for what a disk may hold then.
"""

import shutil
import sys
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

from rollbook import RolloutRecorder, StateRuntime, items
from tests.conftest import run_sql
from tests.faults import power_loss
from tests.faults.crash_program import numbers_of, write_threads
from tests.faults.power_loss import Disk, Note, build, output_of, trace
from tests.faults.test_kill_at_random import assert_as_built_from_nothing, assert_sound
from tests.index.test_sync import everything

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or not shutil.which("gcc"), reason="needs Linux and gcc"
)
LOSSES = 12, 300  # of power in each program, in a quick run and in a whole one
PER_RUN = 50
SURVIVING = 0, 0.1, 0.5, 0.9, 1  # shares of what was not synced
Losses = Iterator[tuple[Path, list[list[str]]]]


@pytest.fixture(scope="module")
def library(tmp_path_factory) -> Path:
    return build(tmp_path_factory.mktemp("library"))


@pytest.fixture
def traced(library, tmp_path, rng):
    """Run a program in a new home; gives that, its disk from before, and what was done to it."""
    runs = count()

    def run(program: Callable, *arguments: object, threads: int) -> tuple[Path, Disk, list[Note]]:
        directory = tmp_path / str(next(runs))
        home, inodes = directory / "home", directory / "inodes"
        home.mkdir(parents=True)
        inodes.mkdir()
        write_threads(home, threads)
        disk = Disk(home, inodes)
        return home, disk, trace(library, inodes, home, program, rng.random(), *arguments)

    return run


@pytest.fixture
def losses(traced, rng, times):
    """Run a program, and give the home as a power loss may leave it, and what was said before."""

    def after_one_run(number: int, program: Callable, *arguments: object, threads: int) -> Losses:
        home, disk, notes = traced(program, *arguments, threads=threads)
        in_the_end = content_of(home)
        marks = [place for place, note in enumerate(notes, 1) if note.kind == "m"]
        anywhere = rng.choices(range(len(notes) + 1), k=number // 2)
        moments = [*anywhere, *rng.choices(marks, k=number - len(anywhere))]
        said = []
        for place, note in enumerate([*notes, None]):
            for _ in range(moments.count(place)):
                disk.lose(rng, rng.choice(SURVIVING))
                yield home, said
            if note is not None:
                disk.follow(note)
                said += [note.data.decode().split()] if note.kind == "m" else []
        disk.make_whole()
        assert content_of(home) == in_the_end, "not all that the program did was noted"
        shutil.rmtree(home.parent)

    def after(program: Callable, *arguments: object, threads: int = 0) -> Losses:
        left = times(*LOSSES)
        while left > 0:
            yield from after_one_run(min(left, PER_RUN), program, *arguments, threads=threads)
            left -= PER_RUN

    return after


def assert_in_order(state: StateRuntime) -> None:
    """The databases are sound, and not because a damaged one was replaced by a new one."""
    assert_sound(state.database)
    assert list(state.codex_home.rglob("*.damaged-*")) == []


def content_of(home: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(home)): path.read_bytes() if path.is_file() else b""
        for path in home.rglob("*")
    }


def test_records_that_were_flushed_are_there(losses, tmp_path):
    for home, said in losses(power_loss.record):
        flushed = {thread_id: int(number) for _, thread_id, number in said}
        with StateRuntime.open(home, backfill=False) as state:
            state.sync(jobs=1)
            assert {thread.id for thread in everything(state)} >= set(flushed)
            for thread_id, number in flushed.items():
                with RolloutRecorder.resume(state, thread_id) as recorder:
                    assert numbers_of(recorder)[:number] == list(range(number))
                    outputs = [i for i in recorder.history if i.kind == "function_call_output"]
                    for n in range(number):
                        assert outputs[n].payload["output"] == output_of(n)
                    recorder.record_items(items.user_message("after the power loss"))
                assert recorder.rollout_path.read_bytes()[-1:] == b"\n"
                with RolloutRecorder.resume(state, thread_id) as recorder:
                    assert "after the power loss" in str(recorder.history[-1].payload)
            assert_as_built_from_nothing(state, tmp_path)
            assert_in_order(state)


def test_the_index_is_in_order(losses, tmp_path):
    for home, said in losses(power_loss.index, threads=8):
        possible: list[dict[str, int]] = [{}]  # what each transaction has left
        applied: set[str] = set()
        for word, *what in said:
            if word in {"storing", "applying"}:
                possible.append(possible[-1] | {what[0]: int(what[1])})
            if word == "applying":
                applied.add(what[0])
            if word == "syncing":  # only threads with rollouts are left
                possible.append({i: n for i, n in possible[-1].items() if i in applied})
            if word in {"synced", "closed"}:
                possible = possible[-1:]
        with StateRuntime.open(home, backfill=False) as state:
            sql = "SELECT id, tokens_used FROM threads WHERE tokens_used >= 1000"
            assert dict(run_sql(state.database, sql)) in possible
            assert_in_order(state)
            assert state.sync(jobs=1).failures == ()
            assert_as_built_from_nothing(state, tmp_path)


@pytest.mark.parametrize("max_bytes", [1_000_000_000, 400_000])
def test_the_logs_have_no_holes(losses, max_bytes):
    for home, said in losses(power_loss.log, max_bytes):
        closed = max([int(end) for word, end in said if word == "closed"], default=0)
        with StateRuntime.open(home, backfill=False) as state:
            rows = state.query_logs()
            assert_in_order(state)
        numbers = [int(row.message) for row in rows]
        first = numbers[0] if max_bytes == 400_000 and numbers else 0
        assert numbers == list(range(first, first + len(numbers)))
        end = int(rows[-1].target) if rows else 0
        assert closed <= end
        assert not numbers or numbers[-1] + 1 == end, "the last batch is there in part"


def test_archived_rollouts_are_in_one_place_or_the_other(losses, tmp_path):
    for home, _ in losses(power_loss.archive, threads=8):
        with StateRuntime.open(home, backfill=False) as state:
            assert state.sync(jobs=1).failures == ()
            assert len(everything(state)) == 8
            assert_as_built_from_nothing(state, tmp_path)
            assert_in_order(state)


def test_a_new_rollout_has_its_first_records_or_is_not_there(traced):
    _, disk, notes = traced(power_loss.record, threads=0)
    for note in notes:
        if note.kind == "l":
            assert disk.is_synced(note.inode)
        disk.follow(note)


@pytest.mark.parametrize(
    ("program", "arguments", "made", "reported"),
    [
        (power_loss.record, [], "sessions", "flushed"),
        (power_loss.follow, [], "rollbook", "closed"),
        (power_loss.log, [1_000_000], "rollbook", "closed"),
    ],
)
def test_new_directories_are_synced_in_case_the_file_system_does_not_see_to_it(
    traced, program, arguments, made, reported
):
    home, _, notes = traced(program, *arguments, threads=program is power_loss.follow)
    done = [(note.kind, note.names[0].partition(" ")[0]) for note in notes]
    done = done[: done.index(("m", reported))]
    assert ("D", str(home)) in done[done.index(("d", str(home / made))) :]


@pytest.mark.parametrize("program", [power_loss.follow, power_loss.record_while_others_store])
def test_the_index_forgets_what_rollouts_have_lost(traced, rng, tmp_path, program):
    home, disk, notes = traced(program, threads=1)
    for note in notes:
        disk.follow(note)
        if note.kind == "m":
            break
    disk.lose(rng, 0)
    with StateRuntime.open(home, backfill=False) as state:
        state.sync(jobs=1)
        assert_as_built_from_nothing(state, tmp_path)
