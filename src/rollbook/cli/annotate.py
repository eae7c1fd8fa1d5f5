"""``rollbook rename``, ``tag``, ``untag``, ``pin`` and ``unpin``: what a person says of threads."""

from collections.abc import Callable

import click

from rollbook.cli import render
from rollbook.cli.options import Settings, common_options, complete_thread_id
from rollbook.errors import UsageError
from rollbook.model.documents import as_object
from rollbook.model.thread import ThreadMetadata
from rollbook.runtime import StateRuntime
from rollbook.selection import find_thread

_id_argument = click.argument("thread_id", metavar="ID", shell_complete=complete_thread_id)
_ids_argument = click.argument(
    "thread_ids", metavar="ID...", nargs=-1, required=True, shell_complete=complete_thread_id
)
_tags_argument = click.argument("tags", metavar="TAG...", nargs=-1, required=True)


@click.command("rename", short_help="Give a thread a name.")
@_id_argument
@click.argument("name", required=False)
@click.option("--clear", is_flag=True, help="Take back the name that was given here.")
@common_options
def rename_command(settings: Settings, *, thread_id: str, name: str | None, clear: bool) -> None:
    """Give a thread a name, which it keeps whatever happens to the index.

    \b
    rollbook rename 01a207c8 'How we mended the locks'
    rollbook rename 01a207c8 --clear

    Where the agent has names, too, the one that was given last counts.
    """
    if clear == (name is not None):
        raise UsageError("give a name, or --clear")
    _change(settings, [thread_id], lambda state, each: state.rename_thread(each, name))


@click.command("tag", short_help="Give a thread tags.")
@_id_argument
@_tags_argument
@common_options
def tag_command(settings: Settings, *, thread_id: str, tags: tuple[str, ...]) -> None:
    """Give a thread tags, by which `rollbook list --tag` finds it.

    \b
    rollbook tag 01a207c8 sqlite 'to read again'
    """
    _change(settings, [thread_id], lambda state, each: state.tag_thread(each, tags))


@click.command("untag", short_help="Take tags from a thread.")
@_id_argument
@_tags_argument
@common_options
def untag_command(settings: Settings, *, thread_id: str, tags: tuple[str, ...]) -> None:
    """Take tags from a thread."""
    _change(settings, [thread_id], lambda state, each: state.untag_thread(each, tags))


@click.command("pin", short_help="Pin threads.")
@_ids_argument
@common_options
def pin_command(settings: Settings, *, thread_ids: tuple[str, ...]) -> None:
    """Pin threads: `rollbook list --pinned` shows them, and `rollbook prune` keeps them."""
    _change(settings, thread_ids, StateRuntime.pin_thread)


@click.command("unpin", short_help="Take the pin from threads.")
@_ids_argument
@common_options
def unpin_command(settings: Settings, *, thread_ids: tuple[str, ...]) -> None:
    """Take the pin from threads."""
    _change(settings, thread_ids, StateRuntime.unpin_thread)


def _change(
    settings: Settings,
    thread_ids: list[str] | tuple[str, ...],
    change: Callable[[StateRuntime, str], ThreadMetadata],
) -> None:
    """Change threads, none if one of them isn't there; shows them as they are then."""
    with settings.open() as state:
        found = [find_thread(state, text).id for text in thread_ids]
        changed = [change(state, thread_id) for thread_id in found]
    if settings.as_json:
        render.echo_json([as_object(thread) for thread in changed])
        return
    for thread in changed:
        render.echo(f"{thread.id}\t{render.marked_title_of(thread)}")
