"""Options that choose threads, the same in each command that takes many."""

import os
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any

import click
import msgspec

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
        return os.path.abspath(os.path.expanduser(self.cwd)) if self.cwd else None

    def threads(self, state: StateRuntime) -> Iterator[ThreadMetadata]:
        """Read all of them, the newest first."""
        anchor = None
        while True:
            page = self.page(state, _AT_ONCE, anchor, SortKey.CREATED_AT)
            yield from page.items
            if page.next_anchor is None:
                return
            anchor = page.next_anchor


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


def organised_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options about how threads are organised: project, tags, pinned."""
    for option in reversed(_ORGANISED):
        command = option(command)
    return command


def filter_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command these options, and pass them to it as its ``selection``."""

    @wraps(command)
    def with_selection(*arguments: Any, **options: Any) -> Any:
        chosen = {name: options.pop(name) for name in Selection.__struct_fields__}
        return command(*arguments, selection=Selection(**chosen), **options)

    for option in reversed(_OPTIONS):
        with_selection = option(with_selection)
    return with_selection
