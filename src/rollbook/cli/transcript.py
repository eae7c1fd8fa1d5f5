"""What was said and done in a thread, for a terminal or a pipe."""

import re
from collections.abc import Iterator

import click

from rollbook.cli import render
from rollbook.export.blocks import (
    DIFF,
    Block,
    blocks_of,
    is_folded,
    omission_of,
    speaker_of,
    summary_of,
)
from rollbook.model.times import format_time
from rollbook.model.transcript import ItemKind, TranscriptItem, TranscriptPage

_SUMMARY = 100  # characters
_COLOURS = {"user": "green", "assistant": "cyan", "tool": "yellow"}
_DIFF_COLOURS = (
    (re.compile(r"\+"), "green"),
    (re.compile(r"-"), "red"),
    (re.compile(r"@@|diff |\*\*\* |index "), "cyan"),
)


def show_page(page: TranscriptPage, *, tools: bool) -> None:
    """Print a page; calls and output as a line each, unless ``tools`` wants to see them whole.

    What an item says is indented below a line that says whose it is, so that none can pass for
    another.
    """
    for item in page.items:
        is_whole = not is_folded(item) or (tools and item.kind is not ItemKind.NOTICE)
        render.echo(_heading(item, is_whole=is_whole))
        if is_whole:
            for line in _lines(item):
                render.echo(line)
    if not page.items:
        render.note("Nothing was said here.")
    if render.on_terminal():
        if page.before:
            render.note(f"Earlier: --before '{page.before}'")
        if page.after:
            render.note(f"Later: --after '{page.after}'")


def _heading(item: TranscriptItem, *, is_whole: bool) -> str:
    time = format_time(item.time) if item.time else ""
    if render.on_terminal():
        time = render.local_time(item.time)
    speaker = click.style(render.printable(speaker_of(item)), fg=_COLOURS.get(item.role), bold=True)
    parts = [click.style(time, dim=True), speaker]
    if not is_whole:
        parts.append(render.printable(summary_of(item, _SUMMARY)))
    return "  ".join(filter(None, parts))


def _lines(item: TranscriptItem) -> Iterator[str]:
    for block in blocks_of(item):
        for line in render.printable_lines(block.text):
            yield f"    {_coloured(line, block)}".rstrip()
    if omission := omission_of(item):
        yield click.style(f"    {omission}", dim=True)


def _coloured(line: str, block: Block) -> str:
    if block.language == DIFF:
        for pattern, colour in _DIFF_COLOURS:
            if pattern.match(line):
                return click.style(line, fg=colour)
    return line
