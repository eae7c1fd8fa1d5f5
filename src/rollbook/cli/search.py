"""``rollbook search``: the messages that say something."""

from collections.abc import Iterator
from itertools import islice

import click

from rollbook.cli import render
from rollbook.cli.filters import reach_options
from rollbook.cli.options import Settings, common_options
from rollbook.cli.sync import sync_once
from rollbook.model.documents import search_object
from rollbook.model.search import ROLES, SearchHit, SearchPage, SearchSort
from rollbook.model.times import format_time
from rollbook.selection import Reach

_SHOWN_OF_THREAD = 3
_SHOWN_ID = 18
_SPEAKERS = {"user": "you", "assistant": "agent", "tool": "tool"}


@click.command("search", short_help="Find messages by what they say.")
@click.argument("text")
@click.option(
    "--substring", "-s", is_flag=True, help="Take TEXT as it stands, inside of words, too."
)
@click.option(
    "--role",
    "roles",
    multiple=True,
    type=click.Choice(ROLES),
    help="Only what they said.  [default: user and assistant]",
)
@click.option(
    "--sort",
    type=click.Choice([sort.value for sort in SearchSort]),
    default=SearchSort.RELEVANCE.value,
    show_default=True,
    help="The best first, of which newer is better, or just the newest.",
)
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, metavar="N")
@click.option("--cursor", metavar="CURSOR", help="Go on where a page ended.")
@reach_options
@common_options
def search_command(
    settings: Settings,
    *,
    text: str,
    substring: bool,
    roles: tuple[str, ...],
    sort: str,
    limit: int,
    cursor: str | None,
    reach: Reach,
) -> None:
    """Find messages by what they say, the best first.

    \b
    rollbook search 'sqlite "database is locked" -postgres'
    rollbook search 'retr*' --role user --since 30d
    rollbook search --substring 'state.get_thread('

    All words have to be in a message, in any order; "words in quotes" one after the other; word* is
    the beginning of a word, -word must not be there, `between backticks` stands what may also be
    inside of words. Case and accents don't count. What tools were given and said is found with
    --role tool, if `rollbook sync --text=tools` has indexed it.
    """
    with settings.open() as state:
        sync_once(state, settings, metadata_only=False)
        page = state.search(
            text,
            limit=limit,
            cursor=cursor,
            sort=SearchSort(sort),
            substring=substring,
            roles=roles or ("user", "assistant"),
            **reach.arguments(state),
        )
    if settings.as_json:
        render.echo_json(search_object(page))
        return
    if render.on_terminal():
        _show(page)
    else:
        for hit in page.hits:
            render.echo(_plain_row(hit))
    _tell(page)


def _plain_row(hit: SearchHit) -> str:
    time = "" if hit.time is None else format_time(hit.time)
    return "\t".join([hit.thread.id, hit.position, time, hit.role, render.printable(hit.snippet)])


def _tell(page: SearchPage) -> None:
    if not page.is_indexed:
        render.note("Not all is indexed yet: `rollbook sync` completes it.")
    if not page.hits:
        render.note("Nothing found. (Parts of words: add --substring. Tools: --role tool.)")
    if not page.is_complete:
        render.note("That is nearly everywhere: only the newest places were looked at.")
    if page.next_cursor and render.on_terminal():
        render.note(f"More: add --cursor '{page.next_cursor}'")


def _show(page: SearchPage) -> None:
    """Show threads in the order of the best that was found in each."""
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, soft_wrap=False)
    by_thread: dict[str, list[SearchHit]] = {}
    for hit in page.hits:
        by_thread.setdefault(hit.thread.id, []).append(hit)
    for thread_id, hits in by_thread.items():
        thread = hits[0].thread
        head = Text.assemble(
            (thread_id[:_SHOWN_ID], "cyan"),
            ("  " + render.directory_of(thread, console.width // 4), "green"),
            ("  " + render.title_of(thread), "bold"),
        )
        console.print(head, no_wrap=True, overflow="ellipsis")
        for hit in islice(hits, _SHOWN_OF_THREAD):
            console.print(Text.assemble(*_line(hit)), no_wrap=True, overflow="ellipsis")
        if len(hits) > _SHOWN_OF_THREAD:
            more = len(hits) - _SHOWN_OF_THREAD
            console.print(Text(f"  … {more} more: --thread-id {thread_id[:_SHOWN_ID]}", "dim"))
        console.print()


def _line(hit: SearchHit) -> Iterator[tuple[str, str]]:
    """Give the parts of a hit's line, each with its style."""
    yield f"  {render.age_of(hit.time):>10}  {_SPEAKERS[hit.role]:<6} ", "dim"
    for piece, is_match in hit.pieces():
        yield render.visible(piece), "bold yellow" if is_match else ""
