"""How values look: on a terminal, in a pipe, and as JSON.

Text from rollouts is untrusted: nothing of it may reach a terminal as a control sequence.
"""

import os
import re
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from rollbook.model.documents import to_json
from rollbook.model.labels import age_text, directory_text, here, source_text
from rollbook.model.thread import ThreadMetadata
from rollbook.model.times import format_time

_SPACES = re.compile(r"\s+")
# Control characters, those that change the direction of text, and what no terminal can draw.
_UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]"
)


def printable(text: str) -> str:
    """Bring text onto one line that a terminal can be given as it is."""
    return visible(_SPACES.sub(" ", text).strip())


def visible(text: str) -> str:
    """Make text something that a terminal can be given as it is; line breaks don't survive it."""
    return _UNSAFE.sub("\ufffd", text)


def printable_lines(text: str) -> list[str]:
    """Break text into lines that a terminal can be given as they are; at least one."""
    lines = text.rstrip("\n").split("\n")
    return [_UNSAFE.sub("\ufffd", line.removesuffix("\r").expandtabs()) for line in lines]


def echo_json(value: Any) -> None:
    """Write one JSON document to standard output, in UTF-8 whatever the terminal's encoding."""
    echo(to_json(value).encode())


def echo(text: str | bytes, *, is_line: bool = True) -> None:
    """Write a line of an answer to standard output, or a piece; ends the process if nobody reads on."""
    try:
        click.echo(text, nl=is_line)
    except BrokenPipeError:
        # The reader has seen enough. Python would complain when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)


def note(text: str) -> None:
    """Tell the person something that is no part of the answer, on standard error."""
    click.echo(text, err=True)


def note_error(code: str, message: str, *, as_json: bool) -> None:
    """Tell that something failed: one line, or one JSON object, on standard error."""
    message = printable(message)
    error = to_json({"error": {"code": code, "message": message}})
    note(error if as_json else f"rollbook: {message}")


def on_terminal() -> bool:
    """Say whether the answer goes to a person's terminal."""
    return sys.stdout.isatty()


def has_colour() -> bool:
    """Say whether the answer may have colours: on a terminal, unless NO_COLOR is set."""
    return on_terminal() and not os.environ.get("NO_COLOR")


def title_of(thread: ThreadMetadata) -> str:
    """Choose what a thread is called: its name, else its title, on one line."""
    return printable((thread.name or thread.title)[:1000]) or "(nothing said)"


def marked_title_of(thread: ThreadMetadata) -> str:
    """Choose what a thread is called, with a mark for a pin, and its tags."""
    marks = ["★"] if thread.pinned else []
    tags = [f"#{printable(tag)}" for tag in thread.tags]
    return " ".join([*marks, title_of(thread), *tags])


def source_of(thread: ThreadMetadata) -> str:
    """Shorten the source of a thread for people."""
    return source_name(thread.source)


def source_name(source: str) -> str:
    """Shorten a source for people: sub-agents are stored as JSON."""
    return printable(source_text(source))


def directory_of(thread: ThreadMetadata, width: int) -> str:
    """Shorten a directory for people: the user's own is ``~``, and the end says most."""
    cwd = printable(directory_text(thread.cwd, str(Path.home())))
    return cwd if len(cwd) <= width else "…" + cwd[1 - width :]


def local_time(time: datetime | None) -> str:
    """Write a time for people, in their own time zone."""
    return "" if time is None else here(time).isoformat(" ", "minutes")[:16]


def age_of(time: datetime | None) -> str:
    """Write how long ago a time was, or its date where that is over a week."""
    return age_text(time, datetime.now(UTC))


def plain_row(thread: ThreadMetadata, time: datetime | None) -> str:
    """Write a thread as one line with tabs, for pipes."""
    when = "" if time is None else format_time(time)
    cells = (thread.id, when, thread.source, thread.cwd, marked_title_of(thread))
    return "\t".join(printable(cell) for cell in cells)
