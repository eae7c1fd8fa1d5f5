"""Options that choose threads, the same in each command that takes many."""

import os
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any

import click
import msgspec

from rollbook.cli.times import read_time, to_datetime
from rollbook.model.paging import Anchor, SortKey, ThreadsPage
from rollbook.model.thread import ThreadMetadata
from rollbook.runtime import StateRuntime

_AT_ONCE = 200


class Selection(msgspec.Struct, frozen=True, kw_only=True):
    """Which threads were asked for."""

    archived: bool
    sources: tuple[str, ...]
    providers: tuple[str, ...]
    cwd: str | None
    title: str | None
    everything: bool
    project: str | None = None
    tags: tuple[str, ...] = ()
    pinned: bool | None = None

    def page(
        self, state: StateRuntime, limit: int, anchor: Anchor | None, sort: SortKey
    ) -> ThreadsPage:
        """Read a page of them."""
        return state.list_threads(
            limit,
            anchor,
            sort,
            self.sources,
            self.providers,
            self.archived,
            cwd=self.directory,
            title_contains=self.title,
            include_silent=self.everything,
            project=self.project,
            tags=self.tags,
            pinned=self.pinned,
        )

    @property
    def directory(self) -> str | None:
        """The absolute path of the directory that was asked for."""
        return _absolute(self.cwd)

    def threads(self, state: StateRuntime) -> Iterator[ThreadMetadata]:
        """Read all of them, the newest first."""
        anchor = None
        while True:
            page = self.page(state, _AT_ONCE, anchor, SortKey.CREATED_AT)
            yield from page.items
            if page.next_anchor is None:
                return
            anchor = page.next_anchor


class Reach(msgspec.Struct, frozen=True, kw_only=True):
    """Where something is looked for that is in threads: archived ones, too, unless that is said."""

    thread_id: str | None
    since: int | None
    until: int | None
    archived: bool | None
    sources: tuple[str, ...]
    providers: tuple[str, ...]
    cwd: str | None
    project: str | None
    tags: tuple[str, ...]
    pinned: bool | None

    def arguments(self, state: StateRuntime) -> dict[str, Any]:
        """Give it as the arguments of :meth:`StateRuntime.search` and :meth:`StateRuntime.usage`."""
        return {
            "thread_id": state.resolve_thread_id(self.thread_id) if self.thread_id else None,
            "since": to_datetime(self.since),
            "until": to_datetime(self.until),
            "allowed_sources": self.sources,
            "model_providers": self.providers,
            "archived": self.archived,
            "cwd": _absolute(self.cwd),
            "project": self.project,
            "tags": self.tags,
            "pinned": self.pinned,
        }


def _absolute(directory: str | None) -> str | None:
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
    click.option("--cwd", metavar="DIR", help="Only those that work in this directory."),
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
    click.option("--cwd", metavar="DIR", help="Only in threads that work in this directory."),
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
