"""What all commands share: the options for home, database and JSON, and opening the state."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import click
import msgspec

from rollbook.errors import RollbookError
from rollbook.runtime import StateRuntime


class Settings(msgspec.Struct, frozen=True):
    """Which home and database a command works on, and whether it answers in JSON."""

    home: str | None
    database: str | None
    as_json: bool

    def open(self) -> StateRuntime:
        """Open the state; a home that was never synced is left so, as a command is short-lived."""
        return StateRuntime.open(self.home, database=self.database, backfill=False)


_OPTIONS = (
    click.option(
        "--home",
        metavar="DIR",
        help="The agent's home.  [default: $CODEX_HOME, else ~/.codex]",
    ),
    click.option(
        "--db",
        "database",
        metavar="PATH",
        help="The database of the index.  [default: $ROLLBOOK_DB, else HOME/rollbook/state.sqlite]",
    ),
    click.option("--json", "as_json", is_flag=True, help="Answer with one JSON document."),
)


def common_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the common options and pass them to it as its first argument.

    They may stand before the command's name, too; what stands after it wins.
    """

    @wraps(command)
    @click.pass_context
    def with_settings(
        context: click.Context,
        /,
        home: str | None,
        database: str | None,
        as_json: bool,
        **options: Any,
    ) -> Any:
        outer = context.find_object(Settings) or Settings(None, None, False)
        settings = Settings(
            home or outer.home, database or outer.database, as_json or outer.as_json
        )
        return command(settings, **options)

    return add_options(with_settings)


def add_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the common options to a command or to the group."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


class ThreadId(click.ParamType):
    """An id, or the beginning of one; the shell completes it from the newest threads."""

    name = "id"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[click.shell_completion.CompletionItem]:
        """Offer the newest threads whose id begins with what was typed."""
        del param
        settings = Settings(ctx.params.get("home"), ctx.params.get("database"), as_json=False)
        try:
            with settings.open() as state:
                items = state.list_threads(500, include_silent=True).items
        except RollbookError:
            return []  # a shell that waits for a completion has no place for a message
        return [
            click.shell_completion.CompletionItem(thread.id, help=thread.title[:60])
            for thread in items
            if thread.id.startswith(incomplete)
        ]
