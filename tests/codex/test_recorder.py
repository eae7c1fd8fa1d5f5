"""Real releases of Codex list, read and resume what only Rollbook has recorded."""

import shutil
from pathlib import Path

import pytest

from rollbook import DynamicToolSpec, RolloutRecorder, StateRuntime, conversation, items
from tests.codex.app_server import AppServer

pytestmark = pytest.mark.codex

CORPUS = Path(__file__).parent.parent / "data" / "corpus"
TOOL = DynamicToolSpec("lookup", "Looks things up", {"type": "object", "properties": {}})


def record_turn(recorder: RolloutRecorder, turn_id: str, question: str, answer: str) -> None:
    recorder.record_items(
        [
            items.task_started(turn_id),
            *items.user_message(question),
            items.turn_context("gpt-5.2-codex", "/tmp", turn_id=turn_id),
            items.function_call("lookup", {"what": question}, f"call-{turn_id}"),
            items.function_call_output(f"call-{turn_id}", "found"),
            *items.agent_message(answer),
            items.token_count(1000, input_tokens=900, output_tokens=100),
            items.task_complete(turn_id, answer),
        ]
    )


def listed(server: AppServer) -> dict[str, dict]:
    parameters = {"limit": 100, "modelProviders": [], "sourceKinds": ["cli", "vscode", "exec"]}
    return {thread["id"]: thread for thread in server.request("thread/list", parameters)["data"]}


def said(thread: dict) -> list[tuple[str, str]]:
    """Who said what in the turns that Codex answers."""
    return [
        ("agent", item["text"])
        if item["type"] == "agentMessage"
        else ("user", "".join(part.get("text", "") for part in item["content"]))
        for turn in thread["turns"]
        for item in turn["items"]
        if item["type"] in ("agentMessage", "userMessage")
    ]


def read(server: AppServer, thread_id: str) -> dict:
    return server.request("thread/read", {"threadId": thread_id, "includeTurns": True})["thread"]


def resumed(server: AppServer, thread_id: str) -> dict:
    return server.request("thread/resume", {"threadId": thread_id})["thread"]


@pytest.fixture
def recorded(home):
    """A home that only Rollbook has written: one thread of two turns, and a fork with a third."""
    with StateRuntime.open(home, backfill=False) as state:
        with RolloutRecorder.create(
            state,
            cwd=home,
            source="cli",
            model_provider="mock",
            base_instructions="Be brief.",
            dynamic_tools=[TOOL],
        ) as recorder:
            record_turn(recorder, "turn-1", "Where is it?", "There.")
        with RolloutRecorder.resume(state, recorder.thread_id) as again:
            record_turn(again, "turn-2", "And now?", "Gone.")
        with RolloutRecorder.fork(state, recorder.thread_id, source="exec") as fork:
            record_turn(fork, "turn-3", "In the fork?", "Here.")
    return recorder.thread_id, fork.thread_id


def test_recorded_threads_are_listed_read_and_resumed_with_their_items(codex, home, recorded):
    thread_id, fork_id = recorded
    turns = [
        ("user", "Where is it?"),
        ("agent", "There."),
        ("user", "And now?"),
        ("agent", "Gone."),
    ]
    with AppServer(codex, home) as server:
        threads = listed(server)
        assert set(threads) == {thread_id, fork_id}
        assert threads[thread_id]["preview"] == "Where is it?"
        assert threads[thread_id]["modelProvider"] == "mock"
        assert said(read(server, thread_id)) == turns
        assert said(resumed(server, thread_id)) == turns
        forked = [*turns, ("user", "In the fork?"), ("agent", "Here.")]
        assert said(read(server, fork_id)) == forked
        assert said(resumed(server, fork_id)) == forked


def test_rollbook_goes_on_where_codex_has_resumed(codex, home, recorded):
    thread_id, _ = recorded
    with AppServer(codex, home) as server:
        resumed(server, thread_id)
    with StateRuntime.open(home, backfill=False) as state:
        with RolloutRecorder.resume(state, thread_id) as recorder:
            assert len(conversation(recorder.history)) == 8
            record_turn(recorder, "turn-4", "Still there?", "Yes.")
    with AppServer(codex, home) as server:
        assert said(read(server, thread_id))[-2:] == [("user", "Still there?"), ("agent", "Yes.")]


@pytest.mark.parametrize("release", ["0.95.0", "0.140.0", "0.169.0"])
def test_forks_of_threads_of_any_release_are_read(codex, home, release):
    source = Path(shutil.copytree(CORPUS / release / "home", home, dirs_exist_ok=True))
    for leftover in source.glob("*.jsonl"):
        leftover.unlink()
    forks = {}
    with StateRuntime.open(home, backfill=False) as state:
        state.sync()
        for thread in state.list_threads(100).items:
            with RolloutRecorder.fork(state, thread.id, source="cli") as fork:
                record_turn(fork, "turn-last", "In the fork?", "Here.")
            forks[fork.thread_id] = thread
    shutil.rmtree(home / "rollbook")
    assert len(forks) > 10
    with AppServer(codex, home) as server:
        for fork_id, parent in forks.items():
            conversation_shown = said(read(server, fork_id))
            assert conversation_shown[-2:] == [("user", "In the fork?"), ("agent", "Here.")]
            if not parent.title.startswith("["):
                assert len(conversation_shown) > 2, parent
