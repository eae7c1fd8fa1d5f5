"""``rollbook copy``: move logs from one database to another."""

import click
import msgspec

from rollbook.cli import render
from rollbook.cli.options import Settings, common_options
from rollbook.cli.sync import counting
from rollbook.errors import UsageError


@click.command("copy", short_help="Copy logs to another database.")
@click.option(
    "--from",
    "source",
    required=True,
    envvar="ROLLBOOK_COPY_FROM",
    metavar="PATH|URL",
    help="Where the logs are.",
)
@click.option(
    "--to",
    "target",
    required=True,
    envvar="ROLLBOOK_COPY_TO",
    metavar="PATH|URL",
    help="Where they are to be, too.",
)
@click.option(
    "--as-host", metavar="NAME", help="Whose the rows of a file are.  [default: this one]"
)
@common_options
def copy_command(settings: Settings, *, source: str, target: str, as_host: str | None) -> None:
    """Copy logs, which can't be rebuilt as all else can, from one database to another.

    \b
    rollbook copy --from ~/.codex/rollbook/state.sqlite --to postgresql://db/rollbook
    rollbook copy --from postgresql://old/rollbook --to postgresql://new/rollbook

    It may be interrupted at any moment: the next run copies what is missing, and no row twice.
    """
    try:
        from rollbook.fleet.copying import copy_logs
    except ModuleNotFoundError as error:
        hint = "pip install 'rollbook[postgres]'"
        raise UsageError(f"a database on a server needs {error.name}", hint=hint) from error
    with counting("log rows") as progress:
        report = copy_logs(source, target, host=as_host, progress=progress)
    if settings.as_json:
        render.echo_json(msgspec.structs.asdict(report))
    else:
        render.echo(f"{report.copied:,} log rows of {report.hosts} hosts copied")
