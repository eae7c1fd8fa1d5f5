"""``rollbook logs``: the last log rows, and those that come."""

import logging
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import click
import msgspec

from rollbook.cli import render
from rollbook.cli.options import Settings, common_options
from rollbook.cli.times import read_time
from rollbook.errors import (
    AmbiguousIdError,
    DatabaseBusyError,
    DatabaseDamagedError,
    ThreadNotFoundError,
    UsageError,
)
from rollbook.logs.reader import LogReader
from rollbook.model.documents import to_json
from rollbook.model.log import LogQuery, LogRow
from rollbook.runtime import StateRuntime

_log = logging.getLogger(__name__)
_COLOURS = {
    "ERROR": "red",
    "WARN": "yellow",
    "INFO": "green",
    "DEBUG": "blue",
    "TRACE": "magenta",
}
_PATCH = "ToolCall: apply_patch"
_PART = 5000  # rows read at once
_SHOWN_CANDIDATES = 5


@click.command("logs", short_help="Print the last log rows and follow.")
@click.option("--level", metavar="LEVEL", help="Only this level: trace, debug, info, warn, error.")
@click.option(
    "--from", "from_ts", callback=read_time, metavar="TIME", help="Only from this time on."
)
@click.option("--to", "to_ts", callback=read_time, metavar="TIME", help="Only up to this time.")
@click.option("--module", "modules", multiple=True, metavar="TEXT", help="Part of a module's path.")
@click.option(
    "--file", "files", multiple=True, metavar="TEXT", help="Part of a source file's path."
)
@click.option("--thread-id", "thread_ids", multiple=True, metavar="ID", help="Only this thread.")
@click.option("--threadless", is_flag=True, help="Only, or also, rows without a thread.")
@click.option("--search", metavar="TEXT", help="Only rows with this text in their message.")
@click.option(
    "--backfill",
    type=click.IntRange(min=0),
    default=200,
    show_default=True,
    metavar="N",
    help="How many of the last rows to begin with.",
)
@click.option(
    "--poll-ms",
    type=click.IntRange(min=1),
    default=500,
    show_default=True,
    metavar="MS",
    help="How often to look for new rows, in milliseconds.",
)
@click.option("--no-follow", is_flag=True, help="End after the last rows.")
@common_options
def logs_command(
    settings: Settings,
    *,
    level: str | None,
    from_ts: int | None,
    to_ts: int | None,
    modules: tuple[str, ...],
    files: tuple[str, ...],
    thread_ids: tuple[str, ...],
    threadless: bool,
    search: str | None,
    backfill: int,
    poll_ms: int,
    no_follow: bool,
) -> None:
    """Print the last log rows, oldest first, and those that come, until Ctrl-C.

    \b
    rollbook logs --level error --from 2h
    rollbook logs --thread-id 01a207c8 --search timeout --no-follow
    rollbook logs --db ~/.codex/logs_2.sqlite      # Codex's own, only read
    rollbook logs --db postgresql://…              # those of all hosts that share it

    TIME is RFC 3339 (2026-01-27T12:34:56Z), unix seconds, or how long ago: 30s, 15m, 2h, 3d, 1w.
    Of several --module, --file or --thread-id any may fit; their texts are taken literally.  With
    --json each row is one JSON object on a line of its own.
    """
    with _opened(settings) as reader:
        query = LogQuery(
            level=level,
            from_ts=from_ts,
            to_ts=to_ts,
            module_like=modules,
            file_like=files,
            thread_ids=[_complete(reader, text) for text in thread_ids],
            include_threadless=threadless,
            search=search,
        )
        rows = (
            _last_rows(reader, query, backfill)
            if no_follow
            else _follow(reader, query, backfill, poll_ms)
        )
        try:
            for part in rows:
                _show(part, as_json=settings.as_json)
        except KeyboardInterrupt:
            if no_follow:
                raise  # else it is how one ends it


class _SharedLogs:
    """The logs of all hosts that share a database, to be read as those of a home are."""

    def __init__(self, state: StateRuntime) -> None:
        self._state = state
        self.path = state.database

    def exists(self) -> bool:
        """They are there, though there may be no rows."""
        return True

    def state(self) -> None:
        """Only a look at the rows says whether some have come."""

    def query_logs(self, query: LogQuery) -> list[LogRow]:
        """Read the rows that a query asks for."""
        return self._state.query_logs(query)

    def thread_ids(self, prefix: str, limit: int) -> list[str]:
        """Find the thread whose id begins so, if that is only one; what has logged isn't looked up."""
        try:
            return [self._state.resolve_thread_id(prefix)][:limit]
        except ThreadNotFoundError:
            return []

    def last_id(self) -> int:
        """Read the largest id of all; 0 where there are no rows."""
        return self._state.max_log_id()


_Reader = LogReader | _SharedLogs


@contextmanager
def _opened(settings: Settings) -> Iterator[_Reader]:
    if settings.is_shared:
        with settings.open() as state:
            yield _SharedLogs(state)
    else:
        reader = LogReader.open(settings.home, settings.database)
        _mend(settings, reader)
        yield reader


def _mend(settings: Settings, reader: LogReader) -> None:
    """Have a damaged log database of Rollbook set aside, and its readable rows carried over."""
    try:
        if reader.exists():
            reader.query_logs(LogQuery(limit=_PART, descending=True))
    except DatabaseDamagedError:
        if not reader.is_own:
            raise
        with settings.open() as state:
            state.query_logs(LogQuery(limit=_PART, descending=True))


def _last_rows(reader: _Reader, query: LogQuery, backfill: int) -> Iterator[list[LogRow]]:
    if not reader.exists():
        render.note(f"There are no logs yet at {reader.path}")
        return
    yield _newest(reader, query, backfill)


def _newest(reader: _Reader, query: LogQuery, count: int) -> list[LogRow]:
    newest = msgspec.structs.replace(query, limit=count, descending=True)
    return reader.query_logs(newest)[::-1]


def _follow(
    reader: _Reader, query: LogQuery, backfill: int, poll_ms: int
) -> Iterator[list[LogRow]]:
    """Yield the last rows and then, for ever, what came since; ends when nobody reads any more."""
    seen: int | None = None  # the largest id that was looked at
    looked_at: tuple[int, ...] | None = None  # the state of the file then, if that tells
    if not reader.exists():
        render.note(f"There are no logs yet at {reader.path}: waiting for them")
        seen = 0
    while True:
        try:
            state = reader.state()
            if (state is None or state != looked_at) and reader.exists():
                last_id = reader.last_id()
                if seen is None:
                    yield _newest(
                        reader, msgspec.structs.replace(query, up_to_id=last_id), backfill
                    )
                else:  # smaller ids than before: all was deleted, or the file began anew
                    yield from _between(reader, query, seen if last_id >= seen else 0, last_id)
                seen = last_id
            looked_at = state
        except (DatabaseBusyError, FileNotFoundError) as error:
            _log.info("looking again at %s: %s", reader.path, error)  # it is being replaced
        if _nobody_reads(poll_ms):
            return


def _between(reader: _Reader, query: LogQuery, after: int, last_id: int) -> Iterator[list[LogRow]]:
    while after < last_id:
        part = msgspec.structs.replace(query, after_id=after, up_to_id=last_id, limit=_PART)
        rows = reader.query_logs(part)
        if rows:
            yield rows
        if len(rows) < _PART:
            return
        after = rows[-1].id


def _nobody_reads(wait_ms: int) -> bool:
    """Wait; says early whether the other end of standard output was closed."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    return bool(poll.poll(wait_ms))


def _complete(reader: _Reader, text: str) -> str:
    """Complete a shortened thread id by those that have logged; any other text stays."""
    if not text:
        raise UsageError("--thread-id needs an id", hint="--threadless asks for rows without one")
    found = reader.thread_ids(text.lower(), _SHOWN_CANDIDATES) if reader.exists() else []
    if text in found or not found:
        return text
    if len(found) > 1:
        raise AmbiguousIdError(
            f"{text} fits several threads: {', '.join(found)}", hint="give more of the id"
        )
    return found[0]


def _show(rows: list[LogRow], *, as_json: bool) -> None:
    if not rows:
        return
    if as_json:
        render.echo("\n".join(map(to_json, rows)).encode())
    else:
        colour = render.has_colour()
        render.echo("\n".join(_line(row, colour=colour) for row in rows))


def _line(row: LogRow, *, colour: bool) -> str:
    """Write a row as behaviour.md 134 has it; the lines of a message below the first are indented."""

    def painted(text: str, foreground: str | None, **style: bool) -> str:
        return click.style(text, fg=foreground, **style) if colour else text

    level = render.printable(row.level)
    thread_id = render.printable(row.thread_id or "-")
    message = row.message or ""
    lines = render.printable_lines(message)
    if message.startswith(_PATCH):
        lines = [painted(line, _patch_colour(line)) for line in lines]
    head = " ".join(
        (
            painted(_time_text(row), None, dim=True),
            painted(f"{level:<5}", _COLOURS.get(level.upper()), bold=True),
            painted(f"[{thread_id}]", None, dim=True),
            *([painted(render.printable(row.host), "magenta")] if row.host else []),
            painted(render.printable(row.target), "cyan"),
            "-",
        )
    )
    return "\n    ".join([f"{head} {lines[0]}", *lines[1:]])


def _patch_colour(line: str) -> str | None:
    return {"+": "green", "-": "red"}.get(line[:1])


def _time_text(row: LogRow) -> str:
    try:
        moment = datetime.fromtimestamp(row.ts, UTC)
    except (OverflowError, ValueError, OSError):  # of another program's database, perhaps
        return str(row.ts)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{row.ts_nanos // 1_000_000:03}Z".rjust(24, "0")
