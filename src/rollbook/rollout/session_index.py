"""Thread names as Codex keeps them: ``session_index.jsonl`` in the home (behaviour.md 119)."""

import os
from pathlib import Path

import msgspec

from rollbook.errors import InvalidThreadIdError, RolloutError
from rollbook.filesystem import open_regular
from rollbook.model.thread import clean_text, parse_thread_id
from rollbook.rollout.layout import SESSION_INDEX


class _Entry(msgspec.Struct):
    id: str
    thread_name: str


_decoder = msgspec.json.Decoder(_Entry)


def read_names(home: Path) -> dict[str, str]:
    """Read the name of each thread that has one: the last entry of an id wins.

    Entries that can't be read are skipped, a blank name takes the name away.  Empty where there is
    no such file.  Errors: RolloutError where it is there and can't be read.
    """
    names: dict[str, str] = {}
    try:
        with os.fdopen(open_regular(home / SESSION_INDEX), "rb") as file:
            content = file.read()
    except FileNotFoundError:
        return names
    except OSError as error:
        raise RolloutError(f"can't be read: {error.strerror}", path=SESSION_INDEX) from error
    for line in content.splitlines():
        try:
            entry = _decoder.decode(line)
            thread_id = parse_thread_id(entry.id)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, InvalidThreadIdError):
            continue
        names[thread_id] = clean_text(entry.thread_name).strip()
    return {thread_id: name for thread_id, name in names.items() if name}


def stat_names(home: Path) -> tuple[int, int]:
    """Size in bytes and mtime in nanoseconds of the file, (-1, -1) where there is none."""
    try:
        status = (home / SESSION_INDEX).lstat()
    except OSError:
        return -1, -1
    return status.st_size, status.st_mtime_ns
