"""``rollbook archive`` and ``unarchive``: move threads out of sight and back."""

import sys
from collections.abc import Callable

import click

from rollbook.cli import render
from rollbook.cli.options import Settings, common_options, complete_thread_id
from rollbook.errors import RollbookError
from rollbook.model.documents import as_object
from rollbook.model.thread import ThreadMetadata
from rollbook.runtime import StateRuntime
from rollbook.selection import find_thread

_ids_argument = click.argument(
    "thread_ids", metavar="ID...", nargs=-1, required=True, shell_complete=complete_thread_id
)


@click.command("archive", short_help="Move threads into the archive.")
@_ids_argument
@common_options
def archive_command(settings: Settings, *, thread_ids: tuple[str, ...]) -> None:
    """Archive threads: their rollouts move to archived_sessions/, as the agent does it.

    Where one of several can't be archived, the others are all the same.
    """
    _move_all(settings, thread_ids, StateRuntime.archive_thread, "archived")


@click.command("unarchive", short_help="Bring archived threads back.")
@_ids_argument
@common_options
def unarchive_command(settings: Settings, *, thread_ids: tuple[str, ...]) -> None:
    """Bring archived threads back: their rollouts move to sessions/, by date."""
    _move_all(settings, thread_ids, StateRuntime.unarchive_thread, "active again")


def _move_all(
    settings: Settings,
    thread_ids: tuple[str, ...],
    move: Callable[[StateRuntime, str], ThreadMetadata],
    done: str,
) -> None:
    moved: list[ThreadMetadata] = []
    exit_code = 0
    with settings.open() as state:
        for text in thread_ids:
            try:
                moved.append(move(state, find_thread(state, text).id))
            except RollbookError as error:
                if len(thread_ids) == 1:
                    raise
                render.note_error(error.code, str(error), as_json=settings.as_json)
                exit_code = exit_code or error.exit_code
    if settings.as_json:
        render.echo_json([as_object(thread) for thread in moved])
    else:
        for thread in moved:
            render.echo(f"{thread.id} is {done}: {render.printable(thread.rollout_path)}")
    sys.exit(exit_code)
