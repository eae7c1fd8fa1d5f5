"""Thread names as Codex keeps them: ``session_index.jsonl`` in the home (behaviour.md 119)."""

import os
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from rollbook.errors import InvalidThreadIdError, RolloutError
from rollbook.filesystem import open_regular
from rollbook.model.thread import clean_text, parse_thread_id
from rollbook.rollout.layout import SESSION_INDEX


class GivenName(NamedTuple):
    """What Codex calls a thread, "" for nothing, and since when, where that is told."""

    name: str
    given_at: datetime | None


class _Entry(msgspec.Struct):
    id: str
    thread_name: str
    updated_at: Any = None


_decoder = msgspec.json.Decoder(_Entry)


def read_names(home: Path) -> dict[str, str]:
    """Read the name of each thread that has one; otherwise as :func:`read_given_names`."""
    given = read_given_names(home).items()
    return {thread_id: each.name for thread_id, each in given if each.name}


def read_given_names(home: Path) -> dict[str, GivenName]:
    """Read the name that each thread was given last: the last entry of an id wins.

    Entries that can't be read are skipped, a blank name takes the name away.  Empty where there is
    no such file.  Errors: RolloutError where it is there and can't be read.
    """
    names: dict[str, GivenName] = {}
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
        names[thread_id] = GivenName(clean_text(entry.thread_name).strip(), _time(entry.updated_at))
    return names


def _time(text: Any) -> datetime | None:
    try:
        return msgspec.convert(text, datetime)
    except msgspec.ValidationError:
        return None


def stat_names(home: Path) -> tuple[int, int]:
    """Size in bytes and mtime in nanoseconds of the file, (-1, -1) where there is none."""
    try:
        status = (home / SESSION_INDEX).lstat()
    except OSError:
        return -1, -1
    return status.st_size, status.st_mtime_ns
