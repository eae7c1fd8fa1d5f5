"""What all commands share: the options for home, database and JSON, and opening the state."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import click
import msgspec
from click.shell_completion import CompletionItem

from rollbook.errors import RollbookError
from rollbook.runtime import StateRuntime, is_shared

_COMPLETIONS = 500


class Settings(msgspec.Struct, frozen=True):
    """Which home and database a command works on, and whether it answers in JSON."""

    home: str | None
    database: str | None
    as_json: bool
    read_database: str | None = None

    @property
    def is_shared(self) -> bool:
        """Whether the database is one that hosts share."""
        return is_shared(self.database)

    def open(self, *, temporary: bool | None = None) -> StateRuntime:
        """Open the state; a home that was never synced is left so, as a command is short-lived."""
        return StateRuntime.open(
            self.home,
            database=self.database,
            read_database=self.read_database,
            backfill=False,
            temporary=temporary,
        )


_OPTIONS = (
    click.option(
        "--home",
        metavar="DIR",
        help="The agent's home.  [default: $CODEX_HOME, else ~/.codex]",
    ),
    click.option(
        "--db",
        "database",
        metavar="PATH|URL",
        help="The database of the index, or postgresql://…, which many hosts share."
        "  [default: $ROLLBOOK_DB, else HOME/rollbook/state.sqlite]",
    ),
    click.option(
        "--read-db",
        "read_database",
        metavar="URL",
        help="A replica of that to read from.  [default: $ROLLBOOK_READ_DB]",
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
        read_database: str | None,
        as_json: bool,
        **options: Any,
    ) -> Any:
        outer = context.find_object(Settings) or Settings(None, None, False)
        settings = Settings(
            home or outer.home,
            database or outer.database,
            as_json or outer.as_json,
            read_database or outer.read_database,
        )
        return command(settings, **options)

    return add_options(with_settings)


def add_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the common options to a command or to the group."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def complete_thread_id(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Offer the shell the newest threads whose id begins with what was typed."""
    del parameter
    settings = Settings(context.params.get("home"), context.params.get("database"), as_json=False)
    try:
        with settings.open() as state:
            threads = state.list_threads(_COMPLETIONS, include_silent=True).items
    except RollbookError:
        return []  # a shell that waits for a completion has no place for a message
    return [
        CompletionItem(thread.id, help=thread.title[:60])
        for thread in threads
        if thread.id.startswith(incomplete)
    ]
