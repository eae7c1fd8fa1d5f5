"""Homes to measure with: made once for a directory and a size, and found there by the next run.

A benchmark that changes one puts it back as it was.
"""

import os
import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from figures import Scale
from generate_home import LAST_DAY, generate
from generate_talk import write_talk

from rollbook.testing import make_line, session_meta, token_count, user_message, write_rollout

THREADS = 5_000
BYTES = 3e9
SEED = 1
_DAYS = 365


def generated_home(scale: Scale) -> Path:
    """A home as Codex leaves one: 5,000 threads, 3 GB."""
    threads, size = scale.of(THREADS), BYTES * scale.factor
    return _made(
        scale.directory / f"home-{threads}", lambda home: generate(home, threads, size, SEED)
    )


def small_home(scale: Scale, files: int) -> Path:
    """A home of so many rollouts of a few hundred bytes, over the days of a year.

    Ids follow the time, as those of agents do, which are UUIDs of version 7.
    """
    return _made(scale.directory / f"small-{files}", lambda home: _write_small(home, files))


def huge_home(scale: Scale) -> Path:
    """A home of a few threads, one of 1 GB, and one with a line of 200 MB."""
    return _made(
        scale.directory / f"huge-{scale.of(1000)}", lambda home: _write_huge(home, scale.factor)
    )


def talking_home(scale: Scale) -> Path:
    """A home in which 1 GB was said by people and agents, and as much by tools, over a year."""
    size = round(1e9 * scale.factor)
    return _made(
        scale.directory / f"talking-{size // 1_000_000}", lambda home: write_talk(home, size, SEED)
    )


def long_home(scale: Scale) -> Path:
    """A home of one thread of 300 MB: messages, and three times as much that tools said."""
    size = round(300e6 * scale.factor)
    return _made(
        scale.directory / f"long-{size // 1_000_000}", lambda home: _write_long(home, size)
    )


def database_of(home: Path) -> Path:
    """Where a benchmark keeps the index of such a home: not in it."""
    return home.with_name(f"{home.name}.sqlite")


def small_id(number: int) -> str:
    """The id of a thread in a small home."""
    return f"{number:08x}-0000-4000-8000-000000000000"


def warm(place: Path) -> None:
    """Read a file, or all below a directory, once: systems drop what wasn't used for a while."""
    block = bytearray(1 << 20)
    for path in [place] if place.is_file() else filter(Path.is_file, place.rglob("*")):
        with path.open("rb", buffering=0) as file:
            while file.readinto(block):
                pass


def _made(home: Path, make: Callable[[Path], object]) -> Path:
    """Make a home, unless it is there as a whole."""
    if not home.is_dir():
        begun = home.with_name(f"{home.name}.begun")
        shutil.rmtree(begun, ignore_errors=True)
        make(begun)
        os.rename(begun, home)
    return home


def _write_huge(home: Path, factor: float) -> None:
    for number, (lines, characters) in enumerate([(1_000, 1_000_000), (1, 200_000_000), (9, 100)]):
        text = "a line of output\\n" * round(characters / 18)
        output = {"type": "function_call_output", "call_id": "call", "output": text}
        line = make_line("response_item", output) + b"\n"
        head = [session_meta(small_id(number)), user_message(f"Thread {number}")]
        with write_rollout(home, small_id(number), head).open("ab") as file:
            for _ in range(max(1, round(lines * factor))):
                file.write(line)
            file.write(token_count(7) + b"\n")


def _write_long(home: Path, size: int) -> None:
    output = {"type": "function_call_output", "output": "a line of output\n" * 500}
    call = {"type": "function_call", "name": "exec_command", "arguments": '{"cmd": "make test"}'}
    answer = [{"type": "output_text", "text": "It **works** now, as `make test` says. " * 20}]
    question = [{"type": "input_text", "text": "Does it work now? Look at all the tests. " * 5}]
    event = {"type": "token_count", "info": {"total_token_usage": {"total_tokens": 1}}}
    turn = [
        make_line("response_item", {"type": "message", "role": "user", "content": question}),
        make_line("response_item", call | {"call_id": "call"}),
        make_line("response_item", output | {"call_id": "call"}),
        make_line("event_msg", event),
        make_line("response_item", {"type": "message", "role": "assistant", "content": answer}),
    ]
    lines = b"".join(line + b"\n" for line in turn)
    head = [session_meta(small_id(0)), user_message("A long thread")]
    with write_rollout(home, small_id(0), head).open("ab") as file:
        for _ in range(size // len(lines)):
            file.write(lines)


def _write_small(home: Path, files: int) -> None:
    for number in range(files):
        started = LAST_DAY - timedelta(days=_DAYS * (files - number) / files)
        write_rollout(
            home,
            small_id(number),
            [session_meta(small_id(number)), user_message(f"Thread {number}")],
            time=f"{started:%Y-%m-%dT%H-%M-%S}",
            mtime=LAST_DAY,
        )
