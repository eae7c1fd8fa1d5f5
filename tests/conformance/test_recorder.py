"""Recording threads, through both faces (behaviour.md 13, 24 to 32, 101 to 114)."""

import asyncio
import gc
import inspect
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
import typing
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Self

import apsw
import msgspec
import pytest

from rollbook import (
    AsyncRolloutRecorder,
    AsyncStateRuntime,
    DynamicToolSpec,
    GitFacts,
    RollbookError,
    RolloutItem,
    RolloutRecorder,
    StateRuntime,
    ThreadMetadata,
    conversation,
    items,
)
from rollbook.errors import (
    InvalidThreadIdError,
    RolloutError,
    ThreadInUseError,
    ThreadNotFoundError,
    UsageError,
)
from rollbook.rollout.history import files_of, read_items
from rollbook.testing import session_meta, user_message, write_rollout
from tests.conformance.conftest import Blocking
from tests.conftest import RELEASES, as_another_program, index_of, run_sql

TOOL = DynamicToolSpec("lookup", "Looks – things up", {"type": "object", "properties": {"b": {}}})
LATER_TOOL = DynamicToolSpec(
    "find", "", {"type": "object"}, defer_loading=True, namespace="tickets"
)
LINE_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", re.ASCII)
DIRECTORY_BITS, FILE_BITS = 0o700, 0o600
SAID = [
    items.task_started("turn-1"),
    *items.user_message("Where is it?"),
    items.turn_context("gpt-5.2-codex", "/elsewhere", turn_id="turn-1", effort="high"),
    items.function_call("lookup", {"what": "it"}, "call-1"),
    items.function_call_output("call-1", "There."),
    *items.agent_message("There."),
    items.token_count(120, input_tokens=100, output_tokens=20),
    items.task_complete("turn-1", "There."),
]
PRELUDE = """
import faulthandler, os, resource, signal, sys, threading
from pathlib import Path
from rollbook import RolloutRecorder, StateRuntime, items
from rollbook.errors import RolloutError, UsageError

faulthandler.register(signal.SIGALRM, chain=True)  # what hangs says where, and ends
signal.alarm(20)
state = StateRuntime.open(sys.argv[1], backfill=False)
"""


class BlockingRecorder:
    """An AsyncRolloutRecorder whose coroutines are run to their end."""

    def __init__(self, runner: asyncio.Runner, recorder: AsyncRolloutRecorder) -> None:
        self._runner = runner
        self._recorder = recorder

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._recorder, name)
        if not callable(value):
            return value

        def call(*arguments: Any, **options: Any) -> Any:
            result = value(*arguments, **options)
            return self._runner.run(result) if inspect.iscoroutine(result) else result

        return call

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class Face:
    """Make recorders for a state, of whichever face that is; git is asked only where it's said."""

    def __init__(self, runtime: Any) -> None:
        self.runtime = runtime

    def _made(self, name: str, *arguments: Any, **options: Any) -> Any:
        if not isinstance(self.runtime, Blocking):
            return getattr(RolloutRecorder, name)(self.runtime, *arguments, **options)
        runner = self.runtime._runner
        make = getattr(AsyncRolloutRecorder, name)
        return BlockingRecorder(
            runner, runner.run(make(self.runtime._state, *arguments, **options))
        )

    def create(self, **options: Any) -> Any:
        return self._made("create", **{"git": False} | options)

    def resume(self, thread_id: str) -> Any:
        return self._made("resume", thread_id)

    def fork(self, thread_id: str, **options: Any) -> Any:
        return self._made("fork", thread_id, **options)


@pytest.fixture(params=["sync-sqlite", "async-sqlite"], scope="module")
def way(request: pytest.FixtureRequest) -> list[str]:
    """A recorder writes a home, whatever that is sent to."""
    return str(request.param).split("-")


@pytest.fixture
def face(runtime: Any) -> Face:
    return Face(runtime)


@pytest.fixture
def no_git(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing on the PATH: what is recorded doesn't depend on where the tests run."""
    monkeypatch.setenv("PATH", str(tmp_path))


@pytest.fixture
def run(tmp_path: Path, home: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a program on the home to its end."""

    def to_the_end(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        file = tmp_path / "program.py"
        file.write_text(PRELUDE + code)
        command = [sys.executable, str(file), str(home), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)

    return to_the_end


@contextmanager
def running(home: Path, code: str, *arguments: str) -> Iterator["subprocess.Popen[str]"]:
    """Run a program beside the test; what is left of it at the end is killed."""
    program = subprocess.Popen(
        [sys.executable, "-c", PRELUDE + code, str(home), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with program:
        try:
            yield program
        finally:
            program.kill()


def lines_of(path: Path) -> list[dict[str, Any]]:
    """Every line of a rollout, each of which must be whole."""
    content = path.read_bytes()
    assert content.endswith(b"\n")
    return [json.loads(line) for line in content.split(b"\n")[:-1]]


def payloads(path: Path) -> list[tuple[str, Any]]:
    """Type and payload of every line but the session meta."""
    return [(line["type"], line["payload"]) for line in lines_of(path)[1:]]


def as_pairs(records: list[RolloutItem]) -> list[tuple[str, Any]]:
    return [(record.type, record.payload) for record in records]


def rebuilt(home: Path, thread_id: str) -> ThreadMetadata | None:
    """The row that a database made from nothing but the rollouts has."""
    database = home.parent / f"{uuid.uuid4()}.sqlite"
    with StateRuntime.open(home, database=database, backfill=False) as fresh:
        assert fresh.sync().failed == 0
        return fresh.get_thread(thread_id)


def what_is_there(home: Path) -> set[str]:
    """Every file and directory but the databases."""
    return {str(p.relative_to(home)) for p in home.rglob("*") if "sqlite" not in p.name}


# The session meta and the place


def test_a_new_thread_begins_with_a_session_meta(face, home):
    before = datetime.now(UTC)
    with face.create(
        cwd="/work/../work/x",
        source="cli",
        originator="harness",
        model_provider="mock",
        base_instructions="Be brief.",
        dynamic_tools=[TOOL, LATER_TOOL],
        git=GitFacts("abc", "main", "https://host/x"),
        cli_version="7.1",
    ) as recorder:
        (line,) = lines_of(recorder.rollout_path)
    assert list(line) == ["timestamp", "type", "payload"]
    assert line["type"] == "session_meta"
    meta = line["payload"]
    assert line["timestamp"] == meta["timestamp"]
    assert LINE_TIME.fullmatch(meta["timestamp"])
    assert (
        before.replace(microsecond=before.microsecond // 1000 * 1000)
        <= datetime.fromisoformat(meta.pop("timestamp"))
        <= datetime.now(UTC)
    )
    assert meta.pop("recorder").startswith("rollbook/")
    assert meta == {
        "id": recorder.thread_id,
        "cwd": "/work/x",
        "originator": "harness",
        "cli_version": "7.1",
        "source": "cli",
        "model_provider": "mock",
        "base_instructions": {"text": "Be brief."},
        "dynamic_tools": [
            {"name": "lookup", "description": TOOL.description, "inputSchema": TOOL.input_schema},
            {
                "name": "find",
                "description": "",
                "inputSchema": {"type": "object"},
                "deferLoading": True,
                "namespace": "tickets",
            },
        ],
        "git": {"commit_hash": "abc", "branch": "main", "repository_url": "https://host/x"},
    }
    assert uuid.UUID(recorder.thread_id).version == 7
    thread = face.runtime.get_thread(recorder.thread_id)
    assert (thread.cwd, thread.source, thread.model_provider) == ("/work/x", "cli", "mock")
    assert (thread.git_sha, thread.git_branch) == ("abc", "main")


def test_what_is_not_given_is_left_out_or_has_its_default(face, no_git, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with face.create(git=True) as recorder:
        meta = lines_of(recorder.rollout_path)[0]["payload"]
    assert set(meta) == {
        "id",
        "timestamp",
        "cwd",
        "originator",
        "cli_version",
        "source",
        "model_provider",
        "recorder",
    }
    assert (meta["cwd"], meta["source"]) == (str(tmp_path), "exec")
    assert (meta["originator"], meta["model_provider"]) == ("rollbook", "openai")


def test_empty_base_instructions_are_an_object_or_left_out(face):
    with face.create(base_instructions="") as recorder:
        meta = lines_of(recorder.rollout_path)[0]["payload"]
    assert meta.get("base_instructions", {"text": ""}) == {"text": ""}


def test_a_source_that_is_an_object_is_written_as_one(face):
    source = '{"subagent":{"other":"reviewer"}}'
    with face.create(source=source) as recorder:
        meta = lines_of(recorder.rollout_path)[0]["payload"]
    assert meta["source"] == {"subagent": {"other": "reviewer"}}
    assert face.runtime.get_thread(recorder.thread_id).source == source


@pytest.mark.parametrize("source", ["{no object", '{"a": "\ud800"}'])
def test_a_source_that_is_no_json_is_refused(face, home, source):
    before = what_is_there(home)
    with pytest.raises(UsageError):
        face.create(source=source)
    assert what_is_there(home) == before


def test_a_directory_with_bytes_that_are_no_text_is_written_with_replacements(face, tmp_path):
    directory = tmp_path / os.fsdecode(b"caf\xe9")
    with face.create(cwd=directory, git=True) as recorder:
        meta = lines_of(recorder.rollout_path)[0]["payload"]
    assert meta["cwd"] == str(tmp_path / "caf\ufffd")
    assert face.runtime.get_thread(recorder.thread_id).cwd == meta["cwd"]


@pytest.mark.parametrize("zone", ["UTC0", "<+14>-14", "<-08>8", "<+0545>-5:45"])
def test_the_name_and_directory_have_local_time_and_the_lines_have_utc(
    face, home, monkeypatch, zone
):
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        with face.create() as recorder:
            recorder.record_items(SAID)
        written = lines_of(recorder.rollout_path)
        moment = datetime.fromisoformat(written[0]["payload"]["timestamp"])
        local = moment.astimezone()
    finally:
        monkeypatch.undo()
        time.tzset()
    name = f"rollout-{local:%Y-%m-%dT%H-%M-%S}-{recorder.thread_id}.jsonl"
    assert recorder.rollout_path == home / "sessions" / f"{local:%Y/%m/%d}" / name
    assert all(LINE_TIME.fullmatch(line["timestamp"]) for line in written)
    recorded_at = [datetime.fromisoformat(line["timestamp"]) for line in written]
    assert all((each - moment).total_seconds() < 3600 for each in recorded_at)
    assert recorded_at == sorted(recorded_at)
    thread = face.runtime.get_thread(recorder.thread_id)
    assert thread.created_at == moment.replace(microsecond=0)
    assert thread == rebuilt(home, recorder.thread_id)


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_what_is_created_is_private_to_the_user(open_runtime, tmp_path, umask):
    (tmp_path / "home").mkdir()
    before = os.umask(umask)
    try:
        with open_runtime(tmp_path / "home") as runtime:
            with Face(runtime).create() as recorder:
                recorder.record_items(SAID)
            runtime.archive_thread(recorder.thread_id)
            with Face(runtime).create() as other:
                recorder_path = other.rollout_path
    finally:
        os.umask(before)
    bits = {path: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "home").rglob("*")}
    assert {bits[path] for path in bits if path.is_dir()} == {DIRECTORY_BITS}
    assert {bits[path] for path in bits if path.is_file()} == {FILE_BITS}
    assert recorder_path in bits


def test_directories_that_are_there_keep_their_permissions(face, home):
    (home / "sessions").chmod(0o755)
    with face.create():
        assert stat.S_IMODE((home / "sessions").stat().st_mode) == 0o755


def test_nothing_is_left_of_a_thread_that_cant_be_created(face, home):
    (home / "sessions").rmdir()
    (home / "sessions").write_text("in the way")
    with pytest.raises(RolloutError, match="can't be created"):
        face.create()
    assert what_is_there(home) == {"sessions", "rollbook"}


def test_a_thread_may_be_given_its_id_once(face):
    thread_id = str(uuid.uuid4())
    with face.create(thread_id=thread_id.upper()) as recorder:
        assert recorder.thread_id == thread_id
        assert thread_id in recorder.rollout_path.name
    content = recorder.rollout_path.read_bytes()
    for again in (thread_id, "urn:uuid:" + thread_id):
        with pytest.raises(UsageError, match="already"):
            face.create(thread_id=again)
    with pytest.raises(InvalidThreadIdError):
        face.create(thread_id="x")
    assert recorder.rollout_path.read_bytes() == content


def test_of_many_who_begin_the_same_thread_at_once_one_does(home):
    with StateRuntime.open(home, backfill=False) as state, ThreadPoolExecutor(8) as pool:
        for _ in range(20):
            thread_id, barrier = str(uuid.uuid4()), threading.Barrier(8)

            def begin(thread_id=thread_id, barrier=barrier) -> RolloutRecorder | None:
                barrier.wait(10)
                try:
                    return RolloutRecorder.create(state, thread_id=thread_id, git=False)
                except RollbookError:
                    return None

            begun = [each.result(20) for each in [pool.submit(begin) for _ in range(8)]]
            recorders = [recorder for recorder in begun if recorder is not None]
            assert len(recorders) == 1
            recorders[0].record_items(SAID)
            recorders[0].close()
            assert payloads(recorders[0].rollout_path) == as_pairs(SAID)


# Tools


@pytest.mark.parametrize(
    "tools",
    [
        [DynamicToolSpec("", "", {})],
        [DynamicToolSpec(" ", "", {})],
        [DynamicToolSpec(" lookup", "", {})],
        [DynamicToolSpec("lookup\n", "", {})],
        [DynamicToolSpec("lookup\u3000", "", {})],
        [DynamicToolSpec("mcp", "", {})],
        [DynamicToolSpec("mcp__x", "", {})],
        [DynamicToolSpec("mcp__x", "", {}, namespace="n")],
        [TOOL, LATER_TOOL, TOOL],
        [TOOL, DynamicToolSpec("other", "", [])],
        [DynamicToolSpec("lookup", "", None)],
        [DynamicToolSpec("lookup", "", "object")],
        [DynamicToolSpec("lookup", "", {"type": ...})],
    ],
)
def test_tools_that_codex_would_refuse_are_refused_before_anything_is_written(face, home, tools):
    before = what_is_there(home)
    with pytest.raises(UsageError):
        face.create(dynamic_tools=tools)
    assert what_is_there(home) == before
    assert face.runtime.list_thread_ids(5, include_silent=True) == []


def test_names_of_tools_that_only_look_reserved_are_taken(face):
    tools = [
        DynamicToolSpec("mcpx", "", {}),
        DynamicToolSpec("MCP", "", {}),
        DynamicToolSpec("mcp_x", "", {}),
        DynamicToolSpec("a b", "", {}),
        DynamicToolSpec("a b", "", {}, namespace="n"),
    ]
    with face.create(dynamic_tools=tools) as recorder:
        assert recorder.get_dynamic_tools() == tools


def test_tools_are_in_the_rollout_and_in_the_database(face, home):
    with face.create(dynamic_tools=[TOOL, LATER_TOOL]) as recorder:
        pass
    assert face.runtime.get_dynamic_tools(recorder.thread_id) == [TOOL, LATER_TOOL]
    count = "SELECT count(*) FROM thread_dynamic_tools WHERE thread_id = ?"
    assert run_sql(index_of(face.runtime), count, (recorder.thread_id,)) == [(2,)]
    with StateRuntime.open(home, database=home.parent / "x.sqlite", backfill=False) as fresh:
        assert fresh.get_dynamic_tools(recorder.thread_id) == [TOOL, LATER_TOOL]


def test_a_resumed_recorder_reads_its_tools_from_the_database_first_and_the_rollout_second(
    face, home
):
    with face.create(dynamic_tools=[TOOL]) as recorder:
        pass
    connection = as_another_program(home / "rollbook" / "state.sqlite")
    connection.execute("UPDATE thread_dynamic_tools SET description = 'database'")
    with face.resume(recorder.thread_id) as again:
        assert again.get_dynamic_tools() == [msgspec.structs.replace(TOOL, description="database")]
        connection.execute("DELETE FROM thread_dynamic_tools")
        assert again.get_dynamic_tools() == [TOOL]
    connection.close()


def test_a_thread_without_tools_has_none(face):
    with face.create() as recorder:
        assert recorder.get_dynamic_tools() == []
    with face.resume(recorder.thread_id) as again:
        assert again.get_dynamic_tools() == []


# Records


def test_records_come_as_they_are_given_one_line_each_and_the_row_follows(face, home):
    with face.create() as recorder:
        assert recorder.record_items(SAID[:3]) == 3
        assert recorder.record_items(iter(SAID[3:])) == len(SAID) - 3
        assert recorder.record_items([]) == 0
        assert payloads(recorder.rollout_path) == as_pairs(SAID)
    thread = face.runtime.get_thread(recorder.thread_id)
    assert (thread.title, thread.tokens_used, thread.cwd) == ("Where is it?", 120, "/elsewhere")
    assert thread == rebuilt(home, recorder.thread_id)


def test_events_that_only_tell_of_progress_are_left_out(face):
    progress = [
        {"type": "event_msg", "payload": {"type": kind}}
        for kind in (
            "agent_message_delta",
            "exec_approval_request",
            "exec_command_output_delta",
            "error",
            "warning",
            "",
        )
    ]
    kept = [
        {"type": "event_msg", "payload": {"type": kind}}
        for kind in (
            "user_message",
            "agent_message",
            "agent_reasoning",
            "agent_reasoning_raw_content",
            "token_count",
            "context_compacted",
            "entered_review_mode",
            "exited_review_mode",
            "thread_rolled_back",
            "undo_completed",
            "turn_aborted",
        )
    ]
    kept += [
        {"type": "response_item", "payload": {"type": kind}}
        for kind in ("message", "reasoning", "local_shell_call", "ghost_snapshot", "of_tomorrow")
    ]
    kept += [{"type": kind, "payload": {}} for kind in ("turn_context", "compacted")]
    with face.create() as recorder:
        assert recorder.record_items(progress) == 0
        mixed = [each for pair in zip(progress, kept, strict=False) for each in pair]
        assert recorder.record_items(mixed + kept[len(progress) :]) == len(kept)
        assert [{"type": k, "payload": p} for k, p in payloads(recorder.rollout_path)] == kept


def test_records_may_have_a_time_of_their_own(face):
    given = {"type": "compacted", "payload": {"message": ""}, "timestamp": "2026-01-27T12:34:56Z"}
    with face.create() as recorder:
        recorder.record_items([given, RolloutItem(**given), given | {"timestamp": ""}])
        times = [line["timestamp"] for line in lines_of(recorder.rollout_path)]
    assert times[1:3] == [given["timestamp"]] * 2
    assert LINE_TIME.fullmatch(times[3])


@pytest.mark.parametrize(
    "bad",
    [
        {},
        {"type": "compacted"},
        {"payload": {}},
        {"type": 1, "payload": {}},
        {"type": "compacted", "payload": []},
        {"type": "compacted", "payload": None},
        {"type": "compacted", "payload": {"a": ...}},
        {"type": "compacted", "payload": {}, "timestamp": 1},
        {"type": "\ud800", "payload": {}},
        {"type": "compacted", "payload": {}, "timestamp": "\ud800"},
        RolloutItem("compacted", [1]),
        RolloutItem("event_msg", [1]),
        RolloutItem(None, {}),
        "compacted",
        None,
        3,
    ],
    ids=repr,
)
def test_what_is_no_record_is_refused_and_nothing_of_its_batch_is_written(face, home, bad):
    with face.create() as recorder:
        before = recorder.rollout_path.read_bytes()
        with pytest.raises(UsageError):
            recorder.record_items([SAID[0], bad, SAID[1]])
        assert recorder.rollout_path.read_bytes() == before
        assert recorder.record_items(SAID) == len(SAID)
    assert payloads(recorder.rollout_path) == as_pairs(SAID)
    assert face.runtime.get_thread(recorder.thread_id) == rebuilt(home, recorder.thread_id)


def nested(depth: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(depth):
        value = {"a": value}
    return value


def test_what_is_nested_too_deeply_to_be_read_again_is_refused(face):
    taken = 0
    with face.create() as recorder:
        for depth in range(900, 1000, 2):
            try:
                taken += recorder.record_items([{"type": "compacted", "payload": nested(depth)}])
            except UsageError:
                continue
    with face.resume(recorder.thread_id) as again:
        assert len(again.history) == taken + 1


@pytest.mark.parametrize(
    "value", [2**53 + 1, -(2**63), 2**63, 2**64 - 1, 2**64, -(2**63) - 1, 10**30, 1e300, 5e-324]
)
def test_a_number_comes_back_as_it_was_or_is_refused(face, value):
    record = {"type": "compacted", "payload": {"a": value}}
    with face.create() as recorder:
        try:
            recorder.record_items([record])
        except UsageError:
            return
    with face.resume(recorder.thread_id) as again:
        assert repr(again.history[1].payload) == repr(record["payload"])


def test_halves_of_characters_are_replaced_and_cost_no_record(face, home):
    text = "half \ud83d and whole 😀"
    with face.create(base_instructions=text) as recorder:
        recorder.record_items(items.user_message(text))
    with face.resume(recorder.thread_id) as again:
        assert again.history[2].payload["message"] == "half \ufffd and whole 😀"
    assert face.runtime.get_thread(recorder.thread_id).title == "half \ufffd and whole 😀"
    assert face.runtime.get_thread(recorder.thread_id) == rebuilt(home, recorder.thread_id)


def test_texts_with_every_kind_of_line_break_stay_on_one_line(face):
    text = "a\nb\r\nc\rd\x0be\x0cf\x1cg\x85h\u2028i\u2029j\0k"
    with face.create() as recorder:
        recorder.record_items(items.user_message(text))
    assert len(lines_of(recorder.rollout_path)) == 3
    with face.resume(recorder.thread_id) as again:
        assert again.history[2].payload["message"] == text


def test_threads_that_record_at_once_interleave_whole_batches(home):
    with StateRuntime.open(home, backfill=False) as state:
        with RolloutRecorder.create(state, git=False) as recorder, ThreadPoolExecutor(4) as pool:

            def record(name: int) -> None:
                for batch in range(40):
                    recorder.record_items(
                        [items.message("assistant", f"{name} {batch} {n}") for n in range(5)]
                    )

            for each in [pool.submit(record, name) for name in range(4)]:
                each.result(20)
        texts = [p["content"][0]["text"].split() for _, p in payloads(recorder.rollout_path)]
        batches = [texts[at : at + 5] for at in range(0, len(texts), 5)]
        assert all([n for _, _, n in batch] == list("01234") for batch in batches)
        assert all(len({(name, b) for name, b, _ in batch}) == 1 for batch in batches)
        for name in range(4):
            order = [int(batch[0][1]) for batch in batches if batch[0][0] == str(name)]
            assert order == list(range(40))
        assert state.get_thread(recorder.thread_id) == rebuilt(home, recorder.thread_id)


# Resuming


def test_a_resumed_thread_has_its_items_in_order_and_goes_on(face, home):
    with face.create(base_instructions="Be brief.", dynamic_tools=[TOOL]) as recorder:
        recorder.record_items(SAID)
    first = recorder.rollout_path.read_bytes()
    with face.resume(recorder.thread_id.upper()) as again:
        assert (again.thread_id, again.rollout_path) == (
            recorder.thread_id,
            recorder.rollout_path,
        )
        assert as_pairs(again.history)[1:] == as_pairs(SAID)
        assert [LINE_TIME.fullmatch(item.timestamp) for item in again.history].count(None) == 0
        again.record_items(SAID)
    content = recorder.rollout_path.read_bytes()
    assert content.startswith(first)
    assert payloads(recorder.rollout_path) == as_pairs(SAID) * 2
    assert face.runtime.get_thread(recorder.thread_id) == rebuilt(home, recorder.thread_id)


def test_a_new_recorder_and_a_resumed_one_have_the_same_history(face):
    with face.create(
        git=GitFacts("abc"), dynamic_tools=[TOOL], base_instructions="Be brief."
    ) as recorder:
        begun = recorder.history
    with face.resume(recorder.thread_id) as again:
        assert as_pairs(again.history) == as_pairs(begun)
        again.record_items(SAID)
    with face.fork(recorder.thread_id) as fork:
        begun = fork.history
    with face.resume(fork.thread_id) as again:
        assert as_pairs(again.history) == as_pairs(begun)


def test_an_unknown_thread_cant_be_resumed_or_forked(face):
    for made in (face.resume, face.fork):
        with pytest.raises(ThreadNotFoundError):
            made(str(uuid.uuid4()))
        with pytest.raises(InvalidThreadIdError):
            made("x")


def test_an_archived_thread_cant_be_resumed_but_forked(face):
    with face.create() as recorder:
        recorder.record_items(SAID)
    archived = Path(face.runtime.archive_thread(recorder.thread_id).rollout_path)
    content = archived.read_bytes()
    with pytest.raises(RolloutError, match="archived"):
        face.resume(recorder.thread_id)
    with face.fork(recorder.thread_id) as fork:
        assert as_pairs(fork.history)[2:] == as_pairs(SAID)
    assert archived.read_bytes() == content
    face.runtime.unarchive_thread(recorder.thread_id)
    with face.resume(recorder.thread_id) as again:
        again.record_items(SAID)
    assert len(lines_of(again.rollout_path)) == 1 + 2 * len(SAID)


def test_a_thread_whose_file_is_gone_cant_be_resumed(face):
    with face.create() as recorder:
        pass
    recorder.rollout_path.unlink()
    with pytest.raises(RolloutError, match="is gone"):
        face.resume(recorder.thread_id)


@pytest.mark.parametrize("recorder", [None, "codex/1", "rollbook", "", 3, ["rollbook/1"]], ids=repr)
def test_only_threads_that_rollbook_has_recorded_are_appended_to(face, home, recorder):
    thread_id = str(uuid.uuid4())
    claims = {} if recorder is None else {"recorder": recorder}
    path = write_rollout(home, thread_id, [session_meta(thread_id, **claims), user_message("Hi")])
    with path.open("ab") as file:
        file.write(b'{"torn')
    before = path.read_bytes(), path.stat().st_mtime_ns
    with pytest.raises(RolloutError, match="not recorded by Rollbook"):
        face.resume(thread_id)
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before


def test_a_fork_of_ours_that_codex_has_made_is_not_ours(face, home):
    with face.create() as recorder:
        pass
    meta = recorder.rollout_path.read_bytes().rstrip()
    thread_id = str(uuid.uuid4())
    path = write_rollout(home, thread_id, [session_meta(thread_id), meta])
    with pytest.raises(RolloutError, match="not recorded by Rollbook"):
        face.resume(thread_id)
    path.write_bytes(meta + b"\n")
    with pytest.raises(RolloutError):
        face.resume(thread_id)
    assert path.read_bytes() == meta + b"\n"


def test_a_thread_of_several_files_is_not_appended_to(face, home):
    with face.create() as recorder:
        pass
    later = write_rollout(home, recorder.thread_id, [user_message("Hi")], segment="1")
    contents = recorder.rollout_path.read_bytes(), later.read_bytes()
    with pytest.raises(RolloutError, match="several files"):
        face.resume(recorder.thread_id)
    assert (recorder.rollout_path.read_bytes(), later.read_bytes()) == contents
    with face.fork(recorder.thread_id) as fork:
        assert fork.history[-1].payload["message"] == "Hi"


@pytest.mark.parametrize("release", RELEASES)
def test_threads_of_codex_are_not_resumed_and_stay_as_they_are(corpus_home, release):
    home = corpus_home(release)
    before = states(home)
    with StateRuntime.open(home, backfill=False) as state:
        state.sync()
        known = state.list_thread_ids(1000, include_silent=True)
        known += state.list_thread_ids(1000, archived_only=True, include_silent=True)
        assert len(known) > 5
        for thread_id in known:
            with pytest.raises(RolloutError):
                RolloutRecorder.resume(state, thread_id)
    assert states(home) == before


def states(home: Path) -> dict[str, tuple[bytes, int]]:
    """Content and mtime of every rollout."""
    return {
        str(path): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in home.rglob("*.jsonl*")
        if path.name.startswith("rollout-")
    }


# Forks


def test_a_fork_records_where_it_came_from_and_has_copies_of_all_records(face, home):
    with face.create(
        cwd="/origin", model_provider="mock", base_instructions="Be brief.", dynamic_tools=[TOOL]
    ) as recorder:
        recorder.record_items(SAID)
        recorder.flush()
        source = recorder.rollout_path.read_bytes()
        with face.fork(recorder.thread_id, originator="o", cli_version="9", source="cli") as fork:
            fork.record_items(items.user_message("In the fork"))
            assert recorder.rollout_path.read_bytes() == source
    first, second, *rest = lines_of(fork.rollout_path)
    assert first["payload"]["id"] == fork.thread_id != recorder.thread_id
    assert first["payload"]["forked_from_id"] == recorder.thread_id
    assert first["payload"]["base_instructions"] == {"text": "Be brief."}
    assert (first["payload"]["originator"], first["payload"]["cli_version"]) == ("o", "9")
    assert second["payload"]["id"] == recorder.thread_id
    assert [(line["type"], line["payload"]) for line in rest] == as_pairs(
        [*SAID, *items.user_message("In the fork")]
    )
    assert {line["timestamp"] for line in [second, *rest[: len(SAID)]]} == {first["timestamp"]}
    thread = face.runtime.get_thread(fork.thread_id)
    assert (thread.forked_from_id, thread.title) == (recorder.thread_id, "Where is it?")
    assert (thread.model_provider, thread.tokens_used) == ("mock", 120)
    assert thread == rebuilt(home, fork.thread_id)
    assert face.runtime.get_dynamic_tools(fork.thread_id) == [TOOL]


def test_a_fork_of_a_fork_is_a_fork_and_can_be_resumed(face, home):
    with face.create(dynamic_tools=[TOOL]) as recorder:
        recorder.record_items(SAID)
    with face.fork(recorder.thread_id) as fork:
        pass
    with face.fork(fork.thread_id, cwd="/new") as second:
        assert conversation(second.history) == conversation(SAID)
    with face.resume(second.thread_id) as again:
        assert [item.payload["id"] for item in again.history[:3]] == [
            second.thread_id,
            fork.thread_id,
            recorder.thread_id,
        ]
        again.record_items(SAID)
    assert face.runtime.get_thread(second.thread_id).forked_from_id == fork.thread_id
    assert face.runtime.get_thread(second.thread_id) == rebuilt(home, second.thread_id)
    assert face.runtime.get_dynamic_tools(second.thread_id) == [TOOL]


@pytest.mark.parametrize("release", RELEASES)
def test_every_thread_of_every_release_can_be_forked_and_stays_as_it_is(
    corpus_home, no_git, release
):
    home = corpus_home(release)
    before = states(home)
    forks: dict[str, tuple[ThreadMetadata, ThreadMetadata]] = {}
    with StateRuntime.open(home, backfill=False) as state:
        state.sync()
        parents = state.list_threads(1000, include_silent=True).items
        parents += state.list_threads(1000, archived_only=True, include_silent=True).items
        for parent in parents:
            source = list(read_items(home, parent.id))
            with RolloutRecorder.fork(state, parent.id) as fork:
                kept = [item for item in fork.history[1:] if item.type != "event_msg"]
                assert [item.type for item in kept] == [
                    item.type for item in source if item.type != "event_msg"
                ]
                assert conversation(fork.history) == conversation(source)
            assert state.get_dynamic_tools(fork.thread_id) == state.get_dynamic_tools(parent.id)
            with RolloutRecorder.resume(state, fork.thread_id) as again:
                assert as_pairs(again.history) == as_pairs(fork.history)
                again.record_items(items.user_message("In the fork"))
            forks[fork.thread_id] = parent, state.get_thread(fork.thread_id)
    after = states(home)
    assert {path: after[path] for path in before} == before
    with StateRuntime.open(home, database=home / "other.sqlite", backfill=False) as fresh:
        fresh.sync()
        for fork_id, (parent, thread) in forks.items():
            assert fresh.get_thread(fork_id) == thread
            assert thread.forked_from_id == parent.id
            assert thread.model_provider == parent.model_provider
            assert thread.has_user_event


# One recorder a thread


def test_a_thread_that_is_open_cant_be_resumed_or_archived_but_forked(face, home):
    with face.create() as recorder:
        recorder.record_items(SAID)
        with pytest.raises(ThreadInUseError):
            face.resume(recorder.thread_id)
        with pytest.raises(ThreadInUseError):
            face.runtime.archive_thread(recorder.thread_id)
        assert recorder.rollout_path.exists()
        with face.fork(recorder.thread_id):
            pass
        recorder.record_items(SAID)
    assert payloads(recorder.rollout_path) == as_pairs(SAID) * 2
    with face.resume(recorder.thread_id) as again:
        with pytest.raises(ThreadInUseError):
            face.resume(recorder.thread_id)
        with pytest.raises(ThreadInUseError):
            face.runtime.archive_thread(recorder.thread_id)
        again.record_items(SAID)
    assert payloads(recorder.rollout_path) == as_pairs(SAID) * 3
    assert face.runtime.archive_thread(recorder.thread_id).archived_at is not None


HOLDS = """
recorder = RolloutRecorder.resume(state, sys.argv[2])
recorder.record_items(items.user_message("from the other process"))
print("recorded", flush=True)
sys.stdin.read()
"""


def test_of_two_processes_the_second_is_refused_until_the_first_is_killed(face, home):
    with face.create() as recorder:
        recorder.record_items(SAID)
    with running(home, HOLDS, recorder.thread_id) as program:
        assert program.stdout.readline() == "recorded\n"
        content = recorder.rollout_path.read_bytes()
        with pytest.raises(ThreadInUseError) as caught:
            face.resume(recorder.thread_id)
        assert str(recorder.rollout_path) in str(caught.value)
        assert caught.value.hint
        with pytest.raises(ThreadInUseError):
            face.runtime.archive_thread(recorder.thread_id)
        assert recorder.rollout_path.read_bytes() == content
        program.kill()
        assert program.wait(10) == -signal.SIGKILL
        with face.resume(recorder.thread_id) as again:
            assert again.history[-1].payload["message"] == "from the other process"
            again.record_items(SAID)
    assert face.runtime.get_thread(recorder.thread_id) == rebuilt(home, recorder.thread_id)


def test_a_program_that_a_recorder_has_started_doesnt_keep_the_thread(face, home, run):
    code = """
import subprocess
recorder = RolloutRecorder.create(state, git=False)
child = subprocess.Popen(["sleep", "60"], close_fds=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
print(recorder.thread_id, child.pid, flush=True)
os._exit(0)
"""
    ended = run(code)
    thread_id, child = ended.stdout.split()
    try:
        with face.resume(thread_id) as again:
            again.record_items(SAID)
    finally:
        os.kill(int(child), signal.SIGKILL)


def test_a_forked_child_cant_use_the_recorder_and_the_parent_goes_on(face, home, run):
    ended = run(
        """
recorder = RolloutRecorder.create(state, git=False)
recorder.record_items(items.user_message("before"))
pid = os.fork()
if not pid:
    signal.alarm(10)
    for use in (lambda: recorder.record_items(items.user_message("child")), recorder.flush):
        try:
            use()
        except UsageError:
            continue
        os._exit(1)
    recorder.close()
    with RolloutRecorder.create(state, git=False) as own:
        own.record_items(items.user_message("the child's own"))
    assert state.get_thread(own.thread_id).title == "the child's own"
    try:
        RolloutRecorder.resume(state, recorder.thread_id)
    except RolloutError:
        os._exit(2)
    except Exception as error:
        assert type(error).__name__ == "ThreadInUseError"
    state.close()
    sys.exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
try:
    RolloutRecorder.resume(state, recorder.thread_id)
except Exception as error:
    assert type(error).__name__ == "ThreadInUseError"
else:
    raise SystemExit("the fork has freed the lock")
recorder.record_items(items.user_message("after"))
recorder.close()
RolloutRecorder.resume(state, recorder.thread_id).close()
state.close()
print(recorder.thread_id)
"""
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == ""
    thread_id = ended.stdout.strip()
    with face.resume(thread_id) as again:
        said = [item.payload["message"] for item in again.history if item.type == "event_msg"]
    assert said == ["before", "after"]
    assert face.runtime.get_thread(thread_id) == rebuilt(home, thread_id)


def test_a_parent_that_closes_frees_the_thread_although_a_child_lives(face, run):
    ended = run(
        """
recorder = RolloutRecorder.create(state, git=False)
reading, writing = os.pipe()
pid = os.fork()
if not pid:
    os.close(writing)
    os.read(reading, 1)
    os._exit(0)
os.close(reading)
recorder.close()
RolloutRecorder.resume(state, recorder.thread_id).close()
os.close(writing)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
"""
    )
    assert ended.returncode == 0, ended.stderr


def test_a_program_that_forks_while_it_records_never_locks_up(run):
    ended = run(
        """
recorder = RolloutRecorder.create(state, git=False)
done = threading.Event()
count = 0

def records():
    global count
    while not done.is_set():
        count += recorder.record_items([items.message("assistant", str(count))])

thread = threading.Thread(target=records)
thread.start()
for number in range(25):
    pid = os.fork()
    if not pid:
        signal.alarm(10)
        try:
            recorder.record_items([items.message("assistant", "child")])
        except UsageError:
            recorder.close()
            state.close()
            os._exit(0)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
done.set()
thread.join()
recorder.close()
lines = recorder.rollout_path.read_text().splitlines()
assert len(lines) == count + 1
assert not any("child" in line for line in lines)
"""
    )
    assert ended.returncode == 0, ended.stderr


# Closing


def test_a_closed_recorder_cant_be_used_and_may_be_closed_again(face):
    recorder = face.create()
    recorder.record_items(SAID)
    recorder.close()
    recorder.close()
    content = recorder.rollout_path.read_bytes()
    with pytest.raises(UsageError, match="closed"):
        recorder.record_items(SAID)
    with pytest.raises(UsageError, match="closed"):
        recorder.flush()
    assert recorder.rollout_path.read_bytes() == content
    assert recorder.thread_id in str(recorder.rollout_path)


def test_closing_the_state_closes_its_recorders(open_runtime, home):
    with open_runtime(home) as runtime:
        recorders = [Face(runtime).create() for _ in range(3)]
        for recorder in recorders:
            recorder.record_items(SAID)
    with open_runtime(home) as again:
        for recorder in recorders:
            assert again.get_thread(recorder.thread_id) == rebuilt(home, recorder.thread_id)
            with Face(again).resume(recorder.thread_id) as resumed:
                assert as_pairs(resumed.history)[1:] == as_pairs(SAID)
    if isinstance(runtime, StateRuntime):
        for recorder in recorders:
            with pytest.raises(UsageError, match="closed"):
                recorder.record_items(SAID)
            recorder.close()


def test_a_recorder_whose_asyncio_state_was_closed_says_so(home):
    async def use() -> None:
        async with AsyncStateRuntime.open(home, backfill=False) as state:
            recorder = await AsyncRolloutRecorder.create(state, git=False)
            await recorder.record_items(SAID)
        with pytest.raises(UsageError, match="closed"):
            await recorder.record_items(SAID)
        await recorder.close()

    asyncio.run(use())


def test_a_closed_state_begins_no_thread(home):
    state = StateRuntime.open(home, backfill=False)
    state.close()
    before = what_is_there(home)
    with pytest.raises(RollbookError):
        RolloutRecorder.create(state, git=False)
    assert what_is_there(home) == before


def test_a_failing_block_closes_its_recorder(face):
    with pytest.raises(ZeroDivisionError):
        with face.create() as recorder:
            recorder.record_items(SAID)
            raise ZeroDivisionError
    with face.resume(recorder.thread_id) as again:
        assert as_pairs(again.history)[1:] == as_pairs(SAID)


def test_many_recorders_leave_no_thread_and_no_file_open(home):
    def open_files() -> set[str]:
        """Where they are: numbers are used again."""
        places = (f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd"))
        return {os.readlink(place) for place in places if os.path.exists(place)}

    with StateRuntime.open(home, backfill=False) as state:
        for _ in range(3):
            with RolloutRecorder.create(state, git=False) as recorder:
                recorder.record_items(SAID)
            RolloutRecorder.resume(state, recorder.thread_id).close()
        assert not [each for each in open_files() if "/sessions/" in each]
        assert not [t for t in threading.enumerate() if t.name.startswith("rollbook-recorder")]


@pytest.mark.parametrize("ending", ["", "sys.exit(3)", "raise RuntimeError", "os._exit(0)"])
def test_what_was_recorded_is_there_however_the_program_ends(face, home, run, ending):
    ended = run(
        f"""
recorder = RolloutRecorder.create(state, git=False)
print(recorder.thread_id, flush=True)
recorder.record_items(items.user_message("last"))
{ending}
"""
    )
    assert "rollbook-recorder" not in ended.stderr
    thread_id = ended.stdout.strip()
    with face.resume(thread_id) as again:
        assert again.history[-1].payload["message"] == "last"
    assert face.runtime.get_thread(thread_id) == rebuilt(home, thread_id)


def test_a_cancelled_caller_leaves_no_thread_in_use(home, tmp_path, monkeypatch):
    """Git waits for the test here, so that the caller is cancelled in the middle."""
    asked, answer = tmp_path / "asked", tmp_path / "answer"
    os.mkfifo(asked)
    os.mkfifo(answer)
    git = tmp_path / "git"
    git.write_text(f"#!/bin/sh\necho > {asked}\nread x < {answer}\nexit 1\n")
    git.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    thread_id = str(uuid.uuid4())

    async def cancel_and_resume() -> None:
        async with AsyncStateRuntime.open(home, backfill=False) as state:
            making = asyncio.create_task(AsyncRolloutRecorder.create(state, thread_id=thread_id))
            with await asyncio.to_thread(asked.open):
                making.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await making
                workers = [
                    thread
                    for thread in threading.enumerate()
                    if thread.name.startswith("rollbook-recorder_")
                ]
                assert workers
                with await asyncio.to_thread(answer.open, "w") as file:
                    file.write("\n" * 9)
                    file.flush()
                    for worker in workers:
                        await asyncio.to_thread(worker.join, 10)
            gc.collect()
            async with await AsyncRolloutRecorder.resume(state, thread_id) as recorder:
                await recorder.record_items(SAID)

    asyncio.run(cancel_and_resume())


def test_records_of_a_cancelled_caller_are_written_all_the_same(home):
    async def cancel() -> Path:
        async with AsyncStateRuntime.open(home, backfill=False) as state:
            async with await AsyncRolloutRecorder.create(state, git=False) as recorder:
                first = asyncio.create_task(recorder.record_items(SAID))
                await asyncio.sleep(0)
                first.cancel()
                await recorder.record_items(SAID)
                await asyncio.gather(first, return_exceptions=True)
            return recorder.rollout_path

    assert payloads(asyncio.run(cancel())) in (as_pairs(SAID), as_pairs(SAID) * 2)


def test_coroutines_record_in_the_order_of_their_calls(home):
    async def many() -> Path:
        async with AsyncStateRuntime.open(home, backfill=False) as state:
            async with await AsyncRolloutRecorder.create(state, git=False) as recorder:
                await asyncio.gather(
                    *(recorder.record_items([items.message("user", str(n))]) for n in range(50))
                )
            return recorder.rollout_path

    texts = [payload["content"][0]["text"] for _, payload in payloads(asyncio.run(many()))]
    assert texts == [str(number) for number in range(50)]


# The database behind it


@contextmanager
def locked(home: Path) -> Iterator[None]:
    connection = as_another_program(home / "rollbook" / "state.sqlite")
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        connection.execute("ROLLBACK")
        connection.close()


def test_recording_goes_on_while_the_database_is_locked_and_is_caught_up_with(face, home):
    with face.create() as recorder:
        recorder.record_items(SAID[:3])
    with locked(home):
        again = face.resume(recorder.thread_id)
        again.record_items(SAID[3:])
        again.flush()
        assert payloads(recorder.rollout_path) == as_pairs(SAID)
    again.close()
    thread = face.runtime.get_thread(recorder.thread_id)
    assert thread.tokens_used == 120
    assert thread == rebuilt(home, recorder.thread_id)


def test_a_recorder_that_is_closed_while_the_database_is_locked_leaves_it_to_the_next_sync(
    home, monkeypatch, recwarn
):
    from rollbook.recorder import follower

    monkeypatch.setattr(follower, "_CLOSE_S", 0.05)
    state = StateRuntime.open(home, backfill=False)
    recorder = RolloutRecorder.create(state, git=False)
    with locked(home):
        recorder.record_items(SAID)
        recorder.close()
        state.close()
    for thread in threading.enumerate():
        if thread.name == "rollbook-recorder":
            thread.join(40)
    assert payloads(recorder.rollout_path) == as_pairs(SAID)
    with StateRuntime.open(home, backfill=False) as again:
        again.sync()
        assert again.get_thread(recorder.thread_id) == rebuilt(home, recorder.thread_id)


@pytest.mark.parametrize("table", ["threads", "rollout_files", "thread_dynamic_tools"])
def test_recording_goes_on_when_the_database_has_lost_a_table(face, home, caplog, table):
    with face.create(dynamic_tools=[TOOL]) as recorder:
        recorder.record_items(SAID[:3])
        recorder.flush()
        connection = as_another_program(home / "rollbook" / "state.sqlite")
        names = [name for (name,) in connection.execute("SELECT name FROM sqlite_schema")]
        assert table in names
        connection.execute(f"PRAGMA foreign_keys = OFF; DROP TABLE {table}")
        connection.close()
        recorder.record_items(SAID[3:])
        recorder.flush()
        assert payloads(recorder.rollout_path) == as_pairs(SAID)
    assert rebuilt(home, recorder.thread_id).tokens_used == 120


def test_recording_goes_on_when_the_database_is_overwritten(face, home, caplog):
    database = home / "rollbook" / "state.sqlite"
    with face.create() as recorder:
        recorder.record_items(SAID[:3])
        recorder.flush()
        for file in database.parent.glob("state.sqlite*"):
            size = file.stat().st_size
            with file.open("r+b") as stream:
                stream.write(b"\xa5" * size)
        recorder.record_items(SAID[3:])
        recorder.flush()
        assert payloads(recorder.rollout_path) == as_pairs(SAID)
    assert rebuilt(home, recorder.thread_id).tokens_used == 120


def test_tools_are_read_from_the_rollout_where_the_database_has_lost_its_own(face, home):
    with face.create(dynamic_tools=[TOOL]) as recorder:
        recorder.flush()
        run_sql(home / "rollbook" / "state.sqlite", "DROP TABLE thread_dynamic_tools")
        assert recorder.get_dynamic_tools() == [TOOL]


def test_a_sync_beside_a_recorder_changes_nothing(face, home):
    with face.create(dynamic_tools=[TOOL]) as recorder, ThreadPoolExecutor(1) as pool:
        with StateRuntime.open(home, backfill=False) as other:
            syncs = pool.submit(lambda: [other.sync(rebuild=bool(n % 2)) for n in range(6)])
            for _ in range(2000):  # each sync reads all of it
                recorder.record_items(SAID)
                if syncs.done():
                    break
            assert [stats.failed for stats in syncs.result(20)] == [0] * 6
    assert face.runtime.get_thread(recorder.thread_id) == rebuilt(home, recorder.thread_id)


def test_a_row_that_is_ahead_of_its_rollout_is_brought_back(face, home, run):
    """As after a power failure: the database has kept what the rollout has lost."""
    ended = run(
        """
recorder = RolloutRecorder.create(state, git=False)
recorder.record_items(items.agent_message("kept"))
recorder.flush()
kept = recorder.rollout_path.stat().st_size
lost = [
    items.token_count(77, input_tokens=7), items.thread_name(recorder.thread_id, "Lost"),
    items.turn_context("lost", "/lost", effort="high"), *items.user_message("lost"),
]
recorder.record_items(lost)
while state.get_thread(recorder.thread_id).tokens_used != 77:
    recorder.flush()
print(recorder.thread_id, kept, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    thread_id, kept = ended.stdout.split()
    path = face.runtime.find_rollout_path_by_id(thread_id)
    os.truncate(path, int(kept) + 20)
    run_sql(index_of(face.runtime), "UPDATE rollout_files SET applied_boot = 'the one before'")
    with face.resume(thread_id) as again:
        assert len(again.history) == 3
        again.record_items(items.agent_message("More, and longer than what was lost. " * 50))
    assert face.runtime.get_thread(thread_id).differing_fields(rebuilt(home, thread_id)) == []


# A full disk


FULL = """
import json
def limit(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
def unlimited():
    limit(resource.RLIM_INFINITY)
def refused(action):
    try:
        action()
    except RolloutError as error:
        assert error.hint or error.reason
        return
    finally:
        unlimited()
    raise SystemExit("not refused")
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
"""


@pytest.mark.parametrize("room", [0, 1, 50, 4000])
def test_on_a_full_disk_nothing_of_a_call_is_left_and_it_can_be_repeated(face, home, run, room):
    ended = run(
        FULL
        + """
room = int(sys.argv[2])
recorder = RolloutRecorder.create(state, git=False)
said = [items.message("assistant", f"{number} " + "x" * 800) for number in range(8)]
recorder.record_items(said)
recorder.flush()
while state.get_thread(recorder.thread_id) is None:
    recorder.flush()
before = recorder.rollout_path.read_bytes()
for _ in range(3):
    limit(len(before) + room)
    refused(lambda: recorder.record_items(said))
    assert recorder.rollout_path.read_bytes() == before
recorder.record_items(said)
recorder.close()
lines = recorder.rollout_path.read_bytes().splitlines()
texts = [json.loads(line)["payload"]["content"][0]["text"] for line in lines[1:]]
assert [text.split()[0] for text in texts] == list("0123456701234567")
print(recorder.thread_id)
""",
        str(room),
    )
    assert ended.returncode == 0, ended.stderr
    thread_id = ended.stdout.strip()
    assert face.runtime.get_thread(thread_id) == rebuilt(home, thread_id)


@pytest.mark.parametrize("room", [0, 1, 200])
def test_on_a_full_disk_no_thread_is_begun_and_none_is_half_there(face, home, run, room):
    ended = run(
        FULL
        + """
source = RolloutRecorder.create(state, git=False)
source.record_items(items.user_message("x" * 3_000_000))
source.close()
room = int(sys.argv[2])
there = sorted(Path(sys.argv[1], "sessions").rglob("*.jsonl*"))
limit(room)
refused(lambda: RolloutRecorder.create(state, git=False, base_instructions="x" * 1000))
limit(2_000_000 + room)
refused(lambda: RolloutRecorder.fork(state, source.thread_id))
assert sorted(Path(sys.argv[1], "sessions").rglob("*.jsonl*")) == there
fork = RolloutRecorder.fork(state, source.thread_id)
assert len(fork.history) == 4
fork.close()
""",
        str(room),
    )
    assert ended.returncode == 0, ended.stderr
    assert len(face.runtime.sync().failures) == 0
    assert len(face.runtime.list_thread_ids(5)) == 2


def test_a_last_line_that_cant_be_completed_on_a_full_disk_is_a_rollout_error(face, home, run):
    with face.create() as recorder:
        recorder.record_items(SAID)
    size = recorder.rollout_path.stat().st_size
    os.truncate(recorder.rollout_path, size - 1)
    ended = run(
        FULL
        + """
while state.get_thread(sys.argv[2]) is None: pass
limit(int(sys.argv[3]))
refused(lambda: RolloutRecorder.resume(state, sys.argv[2]))
RolloutRecorder.resume(state, sys.argv[2]).close()
""",
        recorder.thread_id,
        str(size - 1),
    )
    assert ended.returncode == 0, ended.stderr
    assert payloads(recorder.rollout_path) == as_pairs(SAID)


# Compressed threads


def compress(path: Path) -> Path:
    """Compress a rollout as newer releases do with those of cold threads."""
    from backports import zstd

    packed = path.with_name(path.name + ".zst")
    packed.write_bytes(zstd.compress(path.read_bytes()))
    status = path.stat()
    os.utime(packed, ns=(status.st_atime_ns, status.st_mtime_ns))
    path.unlink()
    return packed


def test_a_compressed_thread_of_ours_is_resumed(face, home):
    with face.create() as recorder:
        recorder.record_items(SAID)
    content = recorder.rollout_path.read_bytes()
    compress(recorder.rollout_path)
    with face.resume(recorder.thread_id) as again:
        assert as_pairs(again.history)[1:] == as_pairs(SAID)
        assert recorder.rollout_path.read_bytes() == content
        assert stat.S_IMODE(recorder.rollout_path.stat().st_mode) == FILE_BITS
        again.record_items(SAID)
    assert payloads(recorder.rollout_path) == as_pairs(SAID) * 2
    assert face.runtime.get_thread(recorder.thread_id) == rebuilt(home, recorder.thread_id)


def test_what_a_killed_process_has_left_of_unpacking_is_in_nobodys_way(face):
    with face.create() as recorder:
        recorder.record_items(SAID)
    path = recorder.rollout_path
    compress(path)
    path.with_name(f".{path.name}.tmp").write_bytes(b"half of it")
    with face.resume(recorder.thread_id) as again:
        assert as_pairs(again.history)[1:] == as_pairs(SAID)


def test_a_compressed_thread_that_was_resumed_can_be_archived_and_taken_back(face, home):
    with face.create() as recorder:
        recorder.record_items(SAID)
    compress(recorder.rollout_path)
    with face.resume(recorder.thread_id) as again:
        again.record_items(SAID)
    face.runtime.archive_thread(recorder.thread_id)
    face.runtime.sync()
    thread = face.runtime.get_thread(recorder.thread_id)
    assert thread.archived_at is not None
    face.runtime.unarchive_thread(recorder.thread_id)
    with face.resume(recorder.thread_id) as again:
        assert as_pairs(again.history)[1:] == as_pairs(SAID) * 2


def test_a_compressed_thread_that_is_damaged_is_a_rollout_error_and_stays_as_it_is(face, home):
    with face.create() as recorder:
        recorder.record_items(SAID)
    packed = compress(recorder.rollout_path)
    packed.write_bytes(packed.read_bytes()[:-7])
    before = what_is_there(home), packed.read_bytes()
    for made in (face.resume, face.fork):
        with pytest.raises(RolloutError):
            made(recorder.thread_id)
    assert (what_is_there(home), packed.read_bytes()) == before


def test_a_fork_reads_what_its_parent_has_kept_of_an_older_thread(corpus_home, no_git):
    """Newer releases share records with the thread they were forked from."""
    home = corpus_home("0.169.0")
    shared = next(
        path for path in home.rglob("rollout-*.jsonl") if b'"history_base"' in path.read_bytes()
    )
    meta = json.loads(shared.read_bytes().split(b"\n")[0])["payload"]
    base = meta["history_base"]
    (file,) = files_of(home, base["thread_id"])
    packed = [] if file.compressed else [home / file.path]
    with StateRuntime.open(home, backfill=False) as state:
        with RolloutRecorder.fork(state, meta["id"]) as fork:
            plain = as_pairs(fork.history)[1:]
        for path in packed:
            compress(path)
        with RolloutRecorder.fork(state, meta["id"]) as fork:
            assert as_pairs(fork.history)[1:] == plain
        for path in packed:
            path.with_name(path.name + ".zst").unlink()
        with pytest.raises(RolloutError, match="is gone"):
            RolloutRecorder.fork(state, meta["id"])
    assert any(kind == "response_item" for kind, _ in plain)


# Both faces


FACES = (RolloutRecorder, AsyncRolloutRecorder)
METHODS = sorted(
    name for name, _ in inspect.getmembers(RolloutRecorder, callable) if not name.startswith("_")
)
MAKERS = ("create", "fork", "resume")
PROPERTIES = ["history", "rollout_path", "thread_id"]


def test_both_recorders_have_the_same_methods_and_properties():
    theirs = [n for n, _ in inspect.getmembers(AsyncRolloutRecorder, callable) if n[0] != "_"]
    assert sorted(theirs) == METHODS
    assert set(MAKERS) < set(METHODS)
    for each in FACES:
        assert sorted(n for n, m in vars(each).items() if isinstance(m, property)) == PROPERTIES


@pytest.mark.parametrize("name", METHODS)
def test_a_method_of_the_recorder_has_the_same_signature_as_a_coroutine(name):
    ours, theirs = (getattr(each, name) for each in FACES)
    assert inspect.iscoroutinefunction(theirs)
    assert not inspect.iscoroutinefunction(ours)
    assert f"rollbook.RolloutRecorder.{name}`" in theirs.__doc__
    own, other = (typing.get_type_hints(each) for each in (ours, theirs))
    states = (own.pop("state", StateRuntime), other.pop("state", AsyncStateRuntime))
    assert states == (StateRuntime, AsyncStateRuntime)
    assert own == other
    signatures = [inspect.signature(each) for each in (ours, theirs)]
    kinds = [[(p.name, p.kind, p.default) for p in s.parameters.values()] for s in signatures]
    assert kinds[0] == kinds[1]


@pytest.mark.parametrize("name", PROPERTIES)
def test_a_property_of_the_recorder_has_the_same_type_in_both_faces(name):
    ours, theirs = (getattr(each, name).fget for each in FACES)
    assert typing.get_type_hints(ours) == typing.get_type_hints(theirs)
    assert f"rollbook.RolloutRecorder.{name}`" in theirs.__doc__


def test_a_recorder_can_be_made_inside_of_an_asyncio_with_block(home):
    async def use() -> list[str]:
        async with AsyncStateRuntime.open(home, backfill=False) as state:
            async with await AsyncRolloutRecorder.create(state, git=False) as recorder:
                await recorder.record_items(SAID)
            return await state.list_thread_ids(5)

    assert len(asyncio.run(use())) == 1


# Where files can't be written


def without_override(command: list[str]) -> list[str]:
    """Have permissions hold for root, too, where the system can do that."""
    setpriv = shutil.which("setpriv")
    if os.geteuid() != 0:
        return command
    dropped = [setpriv or "", "--bounding-set=-dac_override", "--inh-caps=-dac_override"]
    probe = partial(subprocess.run, check=False, capture_output=True, timeout=10)
    if setpriv is None or probe([*dropped, "true"]).returncode != 0:
        pytest.skip("root may write everything here")
    return [*dropped, *command]


def test_recording_goes_on_when_the_database_is_read_only(face, home, tmp_path):
    with face.create(dynamic_tools=[TOOL]) as recorder:
        recorder.record_items(SAID[:3])
    database = home / "rollbook"
    connection = apsw.Connection(str(database / "state.sqlite"))  # keeps the shared memory there
    connection.execute("SELECT * FROM threads").fetchall()
    for file in database.iterdir():
        file.chmod(0o444)
    database.chmod(0o555)
    code = """
recorder = RolloutRecorder.resume(state, sys.argv[2])
assert [tool.name for tool in recorder.get_dynamic_tools()] == ["lookup"]
recorder.record_items(items.user_message("read-only"))
recorder.flush()
recorder.close()
new = RolloutRecorder.create(state, git=False)
new.record_items(items.user_message("new"))
new.close()
state.close()
"""
    command = [sys.executable, "-c", PRELUDE + code, str(home), recorder.thread_id]
    try:
        ended = subprocess.run(
            without_override(command), capture_output=True, text=True, timeout=30, check=False
        )
    finally:
        database.chmod(0o700)
        for file in database.iterdir():
            file.chmod(0o600)
        connection.close()
    assert ended.returncode == 0, ended.stderr
    with face.resume(recorder.thread_id) as again:
        assert again.history[-1].payload["message"] == "read-only"
    face.runtime.sync()
    assert len(face.runtime.list_thread_ids(5)) == 2
    assert face.runtime.get_thread(recorder.thread_id) == rebuilt(home, recorder.thread_id)


def test_a_rollout_that_cant_be_written_is_a_rollout_error(face, home):
    with face.create() as recorder:
        recorder.record_items(SAID)
    path = recorder.rollout_path
    path.chmod(0o400)
    code = """
try:
    RolloutRecorder.resume(state, sys.argv[2])
except RolloutError as error:
    print(error)
"""
    command = [sys.executable, "-c", PRELUDE + code, str(home), recorder.thread_id]
    ended = subprocess.run(
        without_override(command), capture_output=True, text=True, timeout=30, check=False
    )
    assert "can't be written: Permission denied" in ended.stdout, ended.stderr
