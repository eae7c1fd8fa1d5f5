"""Options that choose threads, the same in each command that takes many."""

import os
from collections.abc import Callable
from functools import wraps
from typing import Any

import click
import msgspec

from rollbook.cli.times import read_time
from rollbook.selection import Reach, Selection


def _absolute(
    context: click.Context, parameter: click.Parameter, directory: str | None
) -> str | None:
    del context, parameter
    return os.path.abspath(os.path.expanduser(directory)) if directory else None


_ORGANISED = (
    click.option(
        "--project",
        metavar="KEY",
        help="Only those of this project: its key, the end of that, or a directory.",
    ),
    click.option("--tag", "tags", multiple=True, metavar="TAG", help="Only those with this tag."),
    click.option(
        "--pinned/--not-pinned", default=None, help="Only pinned ones, or only those that aren't."
    ),
)
_OPTIONS = (
    click.option("--archived", is_flag=True, help="Archived threads instead of active ones."),
    click.option("--source", "sources", multiple=True, metavar="SOURCE", help="Only from there."),
    click.option(
        "--provider", "providers", multiple=True, metavar="NAME", help="Only with that one."
    ),
    click.option(
        "--cwd", callback=_absolute, metavar="DIR", help="Only those that work in this directory."
    ),
    click.option("--title", metavar="TEXT", help="Only those with this text in their title."),
    *_ORGANISED,
    click.option(
        "--all", "everything", is_flag=True, help="Also those in which nobody said anything."
    ),
)


_REACH = (
    click.option("--since", callback=read_time, metavar="TIME", help="Only from then on."),
    click.option("--until", callback=read_time, metavar="TIME", help="Only before then."),
    click.option("--thread-id", metavar="ID", help="Only in this thread."),
    click.option(
        "--archived/--active", default=None, help="Only archived threads, or only others."
    ),
    click.option("--source", "sources", multiple=True, metavar="SOURCE", help="Only from there."),
    click.option(
        "--provider", "providers", multiple=True, metavar="NAME", help="Only with that one."
    ),
    click.option(
        "--cwd",
        callback=_absolute,
        metavar="DIR",
        help="Only in threads that work in this directory.",
    ),
    click.option("--title", metavar="TEXT", help="Only in threads with this text in their title."),
    *_ORGANISED,
)


def filter_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command options that choose threads, and pass them to it as its ``selection``."""
    return _with(command, _OPTIONS, "selection", Selection)


def reach_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command options that say where to look, and pass them to it as its ``reach``."""
    return _with(command, _REACH, "reach", Reach)


def _with(
    command: Callable[..., Any],
    options: tuple[Callable[[Any], Any], ...],
    name: str,
    kind: type[msgspec.Struct],
) -> Callable[..., Any]:
    """Give a command options, and pass them to it as one argument of a name and a kind."""

    @wraps(command)
    def gathered(*arguments: Any, **given: Any) -> Any:
        chosen = {each: given.pop(each) for each in kind.__struct_fields__}
        return command(*arguments, **{name: kind(**chosen)}, **given)

    for option in reversed(options):
        gathered = option(gathered)
    return gathered
