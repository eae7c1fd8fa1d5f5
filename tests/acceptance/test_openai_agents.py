"""The OpenAI Agents SDK, the real one, keeps its memory in a thread across processes."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest
from agents.memory import Session, SessionSettings

from rollbook import AsyncStateRuntime, StateRuntime
from rollbook.contrib.openai_agents import RollbookSession
from rollbook.errors import ThreadInUseError

PROGRAM = """
import asyncio, json, sys
from agents import Agent, Model, ModelResponse, Runner, Usage, function_tool, set_tracing_disabled
from openai.types.responses import (
    ResponseFunctionToolCall, ResponseOutputMessage, ResponseOutputText,
)
from rollbook import AsyncStateRuntime
from rollbook.contrib.openai_agents import RollbookSession

set_tracing_disabled(True)


@function_tool
def get_weather(city: str) -> str:
    return "snowing in " + city


class Scripted(Model):
    async def get_response(self, system_instructions, input, *args, **options):
        print(json.dumps(input))
        if input[-1].get("role") == "user" and "weather" in str(input[-1]["content"]):
            output = ResponseFunctionToolCall(
                type="function_call", name="get_weather", arguments='{"city":"Oslo"}', call_id="c1")
        else:
            text = ResponseOutputText(type="output_text", text=f"{len(input)} items", annotations=[])
            output = ResponseOutputMessage(
                id="m1", type="message", role="assistant", status="completed", content=[text])
        return ModelResponse(output=[output], usage=Usage(), response_id=None)

    def stream_response(self, *args, **options):
        raise NotImplementedError


async def main():
    agent = Agent(name="tester", model=Scripted(), tools=[get_weather])
    async with AsyncStateRuntime.open(sys.argv[1], backfill=False) as state:
        async with RollbookSession("support 42", state) as session:
            result = await Runner.run(agent, sys.argv[2], session=session)
            print(json.dumps(result.final_output))


asyncio.run(main())
"""


def turn(home: Path, question: str) -> list:
    """Run one turn in a process of its own: what the model was given each time, and the answer."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(home), question],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_the_runner_remembers_across_two_processes(home):
    *given, answer = turn(home, "What is the weather?")
    assert [len(items) for items in given] == [1, 3]
    assert answer == "3 items"
    *given, answer = turn(home, "And what did I ask?")
    assert answer == "5 items"
    assert [item.get("type") for item in given[0]] == [
        None,
        "function_call",
        "function_call_output",
        "message",
        None,
    ]
    assert given[0][0] == {"content": "What is the weather?", "role": "user"}
    assert given[0][2]["output"] == "snowing in Oslo"
    with StateRuntime.open(home, backfill=False) as state:
        state.sync(rebuild=True)
        [thread] = state.list_threads(5).items
    assert (thread.title, thread.name) == ("What is the weather?", "support 42")
    assert thread.originator == "openai-agents"


def in_session(
    home: Path, use, session_id: str = "66666666-6666-4666-8666-666666666666", **options
):
    """Use a session to its end."""

    async def main():
        async with AsyncStateRuntime.open(home, backfill=False) as state:
            async with RollbookSession(session_id, state, **options) as session:
                return await use(session)

    return asyncio.run(main())


ITEMS = [
    {"role": "user", "content": "one"},
    {"role": "assistant", "content": "two"},
    {"role": "user", "content": [{"type": "input_text", "text": "three"}]},
    {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "four"}]},
    {"type": "function_call", "name": "f", "arguments": "{}", "call_id": "c"},
    {"type": "function_call_output", "call_id": "c", "output": "five"},
    {"type": "some_future_item", "value": [1.5, None, {"deep": True}]},
]


def test_it_is_a_session_of_the_sdk(home):
    async def use(session):
        return isinstance(session, Session), session.session_id

    assert in_session(home, use) == (True, "66666666-6666-4666-8666-666666666666")


def test_items_come_back_as_they_were_given(home):
    async def use(session):
        assert await session.get_items() == []
        await session.add_items(ITEMS[:3])
        await session.add_items(ITEMS[3:])
        return await session.get_items()

    async def again(session):
        return await session.get_items(), await session.get_items(limit=2)

    assert in_session(home, use) == ITEMS
    assert in_session(home, again) == (ITEMS, ITEMS[-2:])


def test_the_limit_of_the_settings_counts_where_none_is_given(home):
    async def use(session):
        await session.add_items(ITEMS)
        return len(await session.get_items()), len(await session.get_items(limit=5))

    assert in_session(home, use, session_settings=SessionSettings(limit=2)) == (2, 5)


def test_what_is_taken_back_or_cleared_stays_away(home):
    async def use(session):
        assert await session.pop_item() is None
        await session.add_items(ITEMS[:3])
        assert await session.pop_item() == ITEMS[2]
        await session.add_items(ITEMS[4:5])
        return await session.get_items()

    async def clear(session):
        assert await session.get_items() == [*ITEMS[:2], ITEMS[4]]
        await session.clear_session()
        await session.add_items(ITEMS[:1])
        return await session.get_items()

    async def read(session):
        return await session.get_items()

    assert in_session(home, use) == [*ITEMS[:2], ITEMS[4]]
    assert in_session(home, clear) == ITEMS[:1]
    assert in_session(home, read) == ITEMS[:1]


def test_reading_an_unknown_session_creates_nothing(home):
    async def use(session):
        await session.clear_session()
        return await session.get_items()

    assert in_session(home, use, "unknown") == []
    assert not list((home / "sessions").rglob("*.jsonl"))


def test_a_second_session_on_the_same_thread_is_refused(home):
    async def use(session):
        await session.add_items(ITEMS)
        other = RollbookSession(session.session_id, session._state)
        with pytest.raises(ThreadInUseError, match="another recorder"):
            await other.add_items(ITEMS)
        return await session.get_items()

    assert in_session(home, use) == ITEMS
