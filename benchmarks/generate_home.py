"""Write a synthetic home: many threads, gigabytes, lines of the shapes and sizes that Codex writes.

    python benchmarks/generate_home.py TARGET [--threads 5000] [--bytes 3e9] [--seed 1]

The same seed gives the same home. Most bytes are tool output, as in real homes; three releases' line
formats are mixed. Sizes of threads and of tool outputs follow log-normal distributions.
"""

import argparse
import json
import os
import random
import sys
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

LAST_DAY = datetime(2026, 11, 1, tzinfo=UTC)
DAYS = 365
MEDIAN_OUTPUT_BYTES = 2_000
SMALLEST_BYTES = 100_000  # about what a thread of one turn has
WORDS = [
    "error",
    "warning",
    "build",
    "test",
    "passed",
    "failed",
    "src",
    "lib",
    "main",
    "index",
    "parser",
    "token",
    "value",
    "return",
    "import",
    "def",
    "class",
    "const",
    "static",
    "void",
    "public",
    "async",
    "await",
    "none",
    "true",
    "false",
    "127",
    "0x7f",
    "404",
    "zażółć",
    "naïve",
    "測試",
    "→",
    "✓",
    "README.md",
    "pyproject.toml",
    "Cargo.lock",
    "node_modules",
    "rollout",
    "thread",
    "session",
    "turn",
    "tool",
]


class Texts:
    """Random text like the output of commands, cut from one large piece."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        lines = []
        for _ in range(20_000):
            line = " ".join(rng.choices(WORDS, k=rng.randint(2, 16)))
            lines.append(f"\x1b[32m{line}\x1b[0m" if rng.random() < 0.05 else line)
        self._text = "\n".join(lines)

    def of(self, size: int) -> str:
        """Cut a text of this many characters from somewhere."""
        size = max(size, 1)
        if size >= len(self._text):
            return (self._text * (size // len(self._text) + 1))[:size]
        start = self._rng.randrange(len(self._text) - size)
        return self._text[start : start + size]


class Thread:
    """One rollout that is being made: its clock, its counts, the format of its release."""

    def __init__(self, rng: random.Random, texts: Texts, number: int, started: datetime) -> None:
        self.release = ("0.95.0", "0.125.0", "0.169.0")[number % 3]
        self.started = started
        self.now = started
        self.id = uuid7(started, rng)
        self._rng = rng
        self._texts = texts
        self._ordinal = 0
        self._total = 0
        self._cwd = f"/home/dev/projects/project-{rng.randrange(40)}"

    def lines(self, size: int) -> Iterator[bytes]:
        """Write turns until the rollout has about this many bytes."""
        written = 0
        for line in self._head():
            written += len(line)
            yield line
        first = True
        while first or written < size:
            for line in self._turn(size - written):
                written += len(line)
                yield line
            first = False

    def _head(self) -> Iterator[bytes]:
        meta: dict[str, Any] = {
            "id": self.id,
            "timestamp": stamp(self.now),
            "cwd": self._cwd,
            "originator": "codex_cli_rs",
            "cli_version": self.release,
            "source": self._rng.choice(["cli", "cli", "vscode", "exec"]),
            "model_provider": "openai",
            "base_instructions": {"text": self._texts.of(15_000)},
            "git": {
                "commit_hash": f"{self._rng.getrandbits(160):040x}",
                "branch": self._rng.choice(["main", "fix/parser", "feature/index"]),
                "repository_url": "https://example.com/acme/project.git",
            },
        }
        if self._rng.random() < 0.1:
            schema = {"type": "object", "properties": {"ticket": {"type": "string"}}}
            meta["dynamic_tools"] = [
                {"name": f"tool_{n}", "description": "Look it up", "inputSchema": schema}
                for n in range(self._rng.randint(1, 8))
            ]
        yield self._line("session_meta", meta)

    def _turn(self, left: int) -> Iterator[bytes]:
        turn_id = uuid7(self.now, self._rng)
        if self.release != "0.95.0":
            yield self._event("task_started", turn_id=turn_id, model_context_window=258_400)
        environment = f"<environment_context>\n  <cwd>{self._cwd}</cwd>\n</environment_context>"
        yield self._message("user", "# AGENTS.md instructions for x\n" + self._texts.of(1_500))
        yield self._message("user", environment)
        yield self._line("turn_context", self._context(turn_id))
        prompt = self._texts.of(int(self._rng.lognormvariate(4.5, 1.0)))
        yield self._message("user", prompt)
        yield self._user_event(prompt)
        for _ in range(self._rng.randint(3, 40)):
            yield from self._call()
            left -= MEDIAN_OUTPUT_BYTES * 2
            if left < 0:
                break
        answer = self._texts.of(1_200)
        yield self._event("agent_message", message=answer)
        yield self._message("assistant", answer)
        yield self._tokens()
        if self.release != "0.95.0":
            yield self._event("task_complete", turn_id=turn_id, last_agent_message=answer)

    def _call(self) -> Iterator[bytes]:
        call_id = f"call_{self._rng.getrandbits(64):x}"
        summary = [{"type": "summary_text", "text": self._texts.of(200)}]
        encrypted = f"{self._rng.getrandbits(8 * 700):x}"
        yield self._item("reasoning", summary=summary, content=None, encrypted_content=encrypted)
        arguments = json.dumps({"command": ["bash", "-lc", self._texts.of(80)]})
        yield self._item("function_call", name="shell", arguments=arguments, call_id=call_id)
        size = int(self._rng.lognormvariate(0, 1.6) * MEDIAN_OUTPUT_BYTES)
        output = self._texts.of(min(size, 600_000))
        yield self._item("function_call_output", call_id=call_id, output=output)
        yield self._tokens()

    def _context(self, turn_id: str) -> dict[str, Any]:
        context: dict[str, Any] = {
            "turn_id": turn_id,
            "cwd": self._cwd,
            "approval_policy": "on-request",
            "sandbox_policy": {"type": "danger-full-access"},
            "model": "gpt-5.2-codex",
            "effort": "high",
            "summary": "auto",
        }
        if self.release != "0.169.0":
            context |= {"user_instructions": self._texts.of(1_500), "truncation_policy": {}}
        if self.release != "0.95.0":
            context["permission_profile"] = {"type": "disabled"}
        return context

    def _user_event(self, prompt: str) -> bytes:
        if self.release != "0.169.0":
            return self._event("user_message", message=prompt, images=[], local_images=[])
        item = {"type": "UserMessage", "id": "u", "content": [{"type": "text", "text": prompt}]}
        return self._event("item_completed", thread_id=self.id, turn_id="t", item=item)

    def _tokens(self) -> bytes:
        self._total += self._rng.randint(500, 8_000)
        usage = {
            "input_tokens": self._total,
            "cached_input_tokens": self._total // 2,
            "output_tokens": self._total // 10,
            "reasoning_output_tokens": self._total // 20,
            "total_tokens": self._total + self._total // 10,
        }
        info = {"total_token_usage": usage, "last_token_usage": usage}
        return self._event("token_count", info=info, rate_limits={"primary": None})

    def _message(self, role: str, text: str) -> bytes:
        kind = "output_text" if role == "assistant" else "input_text"
        return self._item("message", role=role, content=[{"type": kind, "text": text}])

    def _item(self, kind: str, **payload: Any) -> bytes:
        return self._line("response_item", {"type": kind, **payload})

    def _event(self, kind: str, **payload: Any) -> bytes:
        return self._line("event_msg", {"type": kind, **payload})

    def _line(self, kind: str, payload: dict[str, Any]) -> bytes:
        self.now += timedelta(milliseconds=self._rng.randint(20, 4_000))
        record: dict[str, Any] = {"timestamp": stamp(self.now)}
        if self.release == "0.169.0":
            record["ordinal"] = self._ordinal
            self._ordinal += 1
        record |= {"type": kind, "payload": payload}
        return json.dumps(record, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"


def stamp(moment: datetime) -> str:
    """Write a time as Codex does."""
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"


def uuid7(moment: datetime, rng: random.Random) -> str:
    """Make a UUID of version 7 for a moment."""
    milliseconds = int(moment.timestamp() * 1000)
    value = milliseconds << 80 | 7 << 76 | rng.getrandbits(12) << 64 | 2 << 62 | rng.getrandbits(62)
    return str(uuid.UUID(int=value))


def generate(target: Path, threads: int, total: float, seed: int) -> int:
    """Write the home; returns its size in bytes."""
    rng = random.Random(seed)
    texts = Texts(rng)
    weights = [rng.lognormvariate(0, 1.5) for _ in range(threads)]
    scale = max(total - threads * SMALLEST_BYTES, 0) / sum(weights)
    written = 0
    for number, weight in enumerate(weights):
        started = LAST_DAY - timedelta(seconds=rng.randrange(DAYS * 86_400))
        thread = Thread(rng, texts, number, started)
        archived = number % 50 == 49
        folder = "archived_sessions" if archived else f"sessions/{started:%Y/%m/%d}"
        path = target / folder / f"rollout-{started:%Y-%m-%dT%H-%M-%S}-{thread.id}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            file.writelines(thread.lines(int(weight * scale)))
            written += file.tell()
        os.utime(path, (thread.now.timestamp(), thread.now.timestamp()))
    return written


def main() -> None:
    """Parse the command line and write the home."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", type=Path)
    parser.add_argument("--threads", type=int, default=5_000)
    parser.add_argument("--bytes", type=float, default=3e9, dest="total")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    if arguments.target.exists() and any(arguments.target.iterdir()):
        sys.exit(f"{arguments.target} is not empty: name another directory")
    started = time.perf_counter()
    written = generate(arguments.target, arguments.threads, arguments.total, arguments.seed)
    seconds = time.perf_counter() - started
    print(f"{arguments.threads} threads, {written / 1e9:.2f} GB in {seconds:.0f} s")


if __name__ == "__main__":
    main()
