"""``rollbook list``: the threads of a home, page by page."""

from datetime import datetime

import click

from rollbook.cli import render
from rollbook.cli.filters import filter_options
from rollbook.cli.options import Settings, common_options
from rollbook.cli.sync import sync_once
from rollbook.errors import UsageError
from rollbook.model.documents import threads_object
from rollbook.model.paging import SortKey, ThreadsPage, parse_cursor
from rollbook.model.thread import ThreadMetadata
from rollbook.selection import Selection

_WIDE = 120  # columns of a terminal; narrower ones show what people look for first
_SHOWN_ID = 18  # time and some chance: as good as unambiguous
_HEADINGS = {
    SortKey.RECENCY_AT: "Last turn",
    SortKey.CREATED_AT: "Created",
    SortKey.UPDATED_AT: "Updated",
}


@click.command("list", short_help="List threads, newest first.")
@click.option(
    "--sort",
    type=click.Choice([key.value for key in SortKey]),
    default=SortKey.RECENCY_AT.value,
    show_default=True,
    help="Newest first, by the last turn, by creation, or by the file's last change.",
)
@click.option("--limit", type=int, default=25, show_default=True, help="How many threads.")
@click.option("--cursor", metavar="CURSOR", help="Go on where a page ended.")
@filter_options
@common_options
def list_command(
    settings: Settings,
    *,
    sort: str,
    limit: int,
    cursor: str | None,
    selection: Selection,
) -> None:
    """List threads, newest first.

    \b
    rollbook list --cwd . --limit 10
    rollbook list --source exec --source vscode --archived
    rollbook list --project . --tag wip --pinned
    rollbook list --json | jq -r '.items[].id'

    A home that was never synced is synced first.
    """
    if limit < 1:
        raise UsageError(f"--limit must be 1 or more, not {limit}")
    anchor = parse_cursor(cursor) if cursor else None
    with settings.open() as state:
        sync_once(state, settings, metadata_only=True)
        page = selection.page(state, limit, anchor, SortKey(sort))
    if settings.as_json:
        render.echo_json(threads_object(page))
    elif render.on_terminal():
        _show_table(page, SortKey(sort))
    else:
        for thread in page.items:
            render.echo(render.plain_row(thread, _time_of(thread, SortKey(sort))))


def _time_of(thread: ThreadMetadata, sort: SortKey) -> datetime | None:
    return {
        SortKey.CREATED_AT: thread.created_at,
        SortKey.UPDATED_AT: thread.updated_at,
        SortKey.RECENCY_AT: thread.recency_at,
    }[sort]


def _show_table(page: ThreadsPage, sort: SortKey) -> None:
    if not page.items:
        render.note("No threads. (`rollbook list --help` tells what can be asked for.)")
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    is_wide = console.width >= _WIDE
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, expand=True)
    table.add_column("Thread", style="cyan", no_wrap=True)
    table.add_column(_HEADINGS[sort], no_wrap=True)
    if is_wide:
        table.add_column("Source", style="dim", no_wrap=True, max_width=10)
        table.add_column("Tokens", justify="right", no_wrap=True)
    has_hosts = any(thread.host for thread in page.items)
    if has_hosts:
        table.add_column("Host", style="magenta", no_wrap=True, max_width=20)
    table.add_column("Directory", style="green", no_wrap=True)
    table.add_column("Title", no_wrap=True, overflow="ellipsis", ratio=1)
    for thread in page.items:
        cells = [thread.id[:_SHOWN_ID], render.age_of(_time_of(thread, sort))]
        if is_wide:
            cells += [render.source_of(thread), f"{thread.tokens_used:,}"]
        if has_hosts:
            cells.append(render.printable(thread.host))
        cells += [render.directory_of(thread, console.width // 4), render.marked_title_of(thread)]
        table.add_row(*map(Text, cells))
    console.print(table)
    if page.next_cursor:
        render.note(f"More: add --cursor '{page.next_cursor}'")
