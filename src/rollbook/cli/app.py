"""The command ``rollbook``: its commands, and what becomes of an error."""

import gc
import io
import logging
import sys
from importlib import import_module

import click

from rollbook.cli import render
from rollbook.cli.options import Settings, add_options
from rollbook.cli.secrets import hide_passwords
from rollbook.errors import RollbookError, UsageError

_INTERRUPTED = 130
_MODULES = {
    "archive": "archive",
    "completion": "completion",
    "copy": "copy",
    "delete": "delete",
    "doctor": "doctor",
    "export": "export",
    "list": "list",
    "logs": "logs",
    "mcp": "mcp",
    "path": "show",
    "pin": "annotate",
    "projects": "projects",
    "prune": "delete",
    "relocate": "projects",
    "rename": "annotate",
    "search": "search",
    "serve": "serve",
    "show": "show",
    "stats": "stats",
    "sync": "sync",
    "tag": "annotate",
    "tools": "show",
    "unarchive": "archive",
    "unpin": "annotate",
    "untag": "annotate",
}


class _Commands(click.Group):
    """Loads a command when it is run: what the others need takes longer than most of them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        del ctx
        return sorted(_MODULES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        del ctx
        if cmd_name not in _MODULES:
            return None
        module = import_module(f"rollbook.cli.{_MODULES[cmd_name]}")
        command: click.Command = getattr(module, f"{cmd_name}_command")
        return command


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    invoke_without_command=True,
)
@click.version_option(package_name="rollbook")
@add_options
@click.pass_context
def cli(
    context: click.Context,
    home: str | None,
    database: str | None,
    read_database: str | None,
    as_json: bool,
) -> None:
    """List, look up and archive the threads of a coding agent's home.

    \b
    rollbook sync          index the home, or what is new in it
    rollbook list          the newest threads
    rollbook search TEXT   messages that say it
    rollbook stats         what tokens were used
    rollbook show ID       one thread; any unambiguous beginning of its id will do
    rollbook serve         all of it in the browser
    rollbook export ID     a thread as Markdown, HTML or JSON
    rollbook tag ID TAG    order: also rename, pin, projects, relocate, delete, prune
    rollbook doctor        what state the home is in
    rollbook sync --watch --db postgresql://…      share it with other hosts

    \b
    Exit codes: 0 done, 1 failed, 2 wrong usage, 3 not found, 4 busy, 5 damaged.
    """
    context.obj = Settings(home, database, as_json, read_database)
    if context.invoked_subcommand is None:
        render.echo(context.get_help())


class _Notes(logging.Handler):
    """Tells the person what Rollbook warns of."""

    def emit(self, record: logging.LogRecord) -> None:
        render.note(f"rollbook: {render.printable(record.getMessage())}")


def main() -> None:
    """Run the command line and end the process with the exit code that the outcome has."""
    hide_passwords(sys.orig_argv)
    logging.getLogger("rollbook").addHandler(_Notes(logging.WARNING))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # whatever the terminal's encoding lacks
            stream.reconfigure(errors="backslashreplace")
    try:
        cli.main(prog_name="rollbook", standalone_mode=False)
    except RollbookError as error:
        _fail(error.code, str(error), error.exit_code)
    except click.UsageError as error:
        path = error.ctx.command_path if error.ctx else "rollbook"
        _fail(UsageError.code, f"{error.format_message()} (see `{path} --help`)", error.exit_code)
    except click.ClickException as error:
        _fail(RollbookError.code, error.format_message(), error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        sys.exit(_INTERRUPTED)
    finally:
        gc.freeze()  # or Python would look through all that was loaded before it ends: 15 ms


def _fail(code: str, message: str, exit_code: int) -> None:
    render.note_error(code, message, as_json="--json" in sys.argv)
    sys.exit(exit_code)
