"""A coding-agent harness in a hundred lines: it records, crashes on request, and resumes.

    python examples/harness.py --home /tmp/home "What is the weather in Oslo?"
    python examples/harness.py --home /tmp/home --crash "And in Rome?"     # dies in the turn
    python examples/harness.py --home /tmp/home --resume ID "Once more: Rome?"
    rollbook logs --home /tmp/home                                         # in another terminal

The model is scripted: no network, no key.
"""

import argparse
import json
import logging
import os
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rollbook import (
    DynamicToolSpec,
    RollbookHandler,
    RolloutRecorder,
    StateRuntime,
    conversation,
    items,
    thread_context,
)

log = logging.getLogger("harness")
CITIES = ("Oslo", "Rome", "Lima")
WEATHER = DynamicToolSpec(
    name="get_weather",
    description="The weather of a city",
    input_schema={
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
    },
)


def scripted_model(history: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Stand in for a model: call the tool for a city that was asked for, then answer."""
    last = history[-1]
    if last["type"] == "function_call_output":
        yield {"type": "message", "text": f"It is {last['output']} there."}
        return
    question = last["content"][0]["text"]
    city = next((city for city in CITIES if city in question), None)
    if city is None:
        asked = sum(item.get("role") == "user" for item in history)
        yield {"type": "message", "text": f"You have asked {asked} things so far."}
    else:
        yield {"type": "function_call", "name": "get_weather", "arguments": {"city": city}}


def get_weather(city: str) -> str:
    """Run the tool."""
    return {"Oslo": "snowing", "Rome": "sunny"}.get(city, "unknown")


def run_turn(recorder: RolloutRecorder, question: str, *, crash: bool) -> str:
    """Run one turn to its end; every step is on record before the next one begins."""
    turn_id = str(uuid.uuid4())
    history = conversation(recorder.history)

    def record(*records: Any) -> None:
        recorder.record_items(records)
        history.extend(each.payload for each in records if each.type == "response_item")

    record(items.task_started(turn_id), *items.user_message(question))
    record(items.turn_context("scripted-1", Path.cwd(), turn_id=turn_id))
    while True:
        for step in scripted_model(history):
            log.info("the model gave a %s", step["type"], extra={"turn_id": turn_id})
            if step["type"] == "message":
                record(*items.agent_message(step["text"]), items.token_count(100 * len(history)))
                record(items.task_complete(turn_id, step["text"]))
                return str(step["text"])
            call_id = f"call_{uuid.uuid4().hex[:8]}"
            record(items.function_call(step["name"], step["arguments"], call_id))
            if crash:
                log.error("about to crash")
                logging.shutdown()
                os.kill(os.getpid(), signal.SIGKILL)
            output = get_weather(**step["arguments"])
            log.debug("%s answered %s", step["name"], json.dumps(output))
            record(items.function_call_output(call_id, output))


def main() -> None:
    """Run one turn in a new thread, or in one that was recorded before."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("question")
    parser.add_argument("--home", default=None, help="the home (default: $CODEX_HOME, ~/.codex)")
    parser.add_argument("--resume", metavar="ID", help="go on with this thread")
    parser.add_argument("--crash", action="store_true", help="die before the tool has answered")
    options = parser.parse_args()
    with StateRuntime.open(options.home) as state:
        logging.getLogger().addHandler(RollbookHandler(state))
        log.setLevel(logging.DEBUG)
        recorder = (
            RolloutRecorder.resume(state, state.resolve_thread_id(options.resume))
            if options.resume
            else RolloutRecorder.create(state, originator="harness", dynamic_tools=[WEATHER])
        )
        print(f"thread {recorder.thread_id}", flush=True)
        with recorder, thread_context(recorder.thread_id):
            print(run_turn(recorder, options.question, crash=options.crash))


if __name__ == "__main__":
    main()
