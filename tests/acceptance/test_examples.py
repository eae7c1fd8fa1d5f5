"""The example harness, run as the docs say: it records, crashes, resumes, and its logs are watched."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rollbook import LogReader, StateRuntime, conversation
from rollbook.rollout.history import read_items
from tests.acceptance.conftest import COMMAND, environment

HARNESS = Path(__file__).parents[2] / "examples" / "harness.py"


@pytest.fixture
def harness(home):
    """Run the harness; gives its exit code, the thread, and the answer."""

    def run(*arguments: str) -> tuple[int, str, str]:
        done = subprocess.run(
            [sys.executable, HARNESS, "--home", home, *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            env=environment(),
        )
        thread, _, answer = done.stdout.partition("\n")
        assert thread.startswith("thread "), done.stderr
        return done.returncode, thread.removeprefix("thread "), answer.strip()

    return run


def test_a_turn_is_recorded_with_its_tool_call(harness, home):
    code, thread_id, answer = harness("What is the weather in Oslo?")
    assert (code, answer) == (0, "It is snowing there.")
    with StateRuntime.open(home, backfill=False) as state:
        thread = state.get_thread(thread_id)
        assert (thread.title, thread.model) == ("What is the weather in Oslo?", "scripted-1")
        assert [tool.name for tool in state.get_dynamic_tools(thread_id)] == ["get_weather"]
        kinds = [item["type"] for item in conversation(read_items(home, thread_id))]
    assert kinds == ["message", "function_call", "function_call_output", "message"]


def test_a_crash_loses_nothing_and_the_thread_goes_on(harness, home):
    code, thread_id, answer = harness("--crash", "And in Rome?")
    assert (code, answer) == (-signal.SIGKILL, "")
    code, resumed_id, answer = harness("--resume", thread_id[:23], "How many things?")
    assert (code, resumed_id, answer) == (0, thread_id, "You have asked 2 things so far.")
    items = list(read_items(home, thread_id))
    assert [item.kind for item in items if item.type == "event_msg"].count("user_message") == 2
    assert [item["type"] for item in conversation(items)].count("function_call") == 1
    with StateRuntime.open(home, backfill=False) as state:
        assert state.sync().failed == 0
        assert state.get_thread(thread_id).title == "And in Rome?"


def test_its_logs_are_followed_from_another_terminal(harness, home):
    watching = [COMMAND, "logs", "--home", home, "--poll-ms", "20", "--json"]
    with subprocess.Popen(
        watching, stdout=subprocess.PIPE, text=True, env=environment()
    ) as watcher:
        _, thread_id, _ = harness("What is the weather in Oslo?")
        rows = []
        while not rows or "a message" not in rows[-1]["message"]:
            rows.append(json.loads(watcher.stdout.readline()))
        watcher.send_signal(signal.SIGINT)
        assert watcher.wait(30) == 0
    own = [row for row in rows if row["target"] == "harness"]
    assert {row["thread_id"] for row in own} == {thread_id}
    assert own[0]["message"].startswith("the model gave a function_call turn_id=")
    assert LogReader.open(home).last_id() >= len(rows)
