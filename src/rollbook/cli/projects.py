"""``rollbook projects`` and ``relocate``: where threads work."""

import os

import click

from rollbook.cli import render
from rollbook.cli.options import Settings, common_options
from rollbook.cli.sync import sync_once
from rollbook.model.documents import as_object
from rollbook.model.project import Project
from rollbook.model.times import format_time


@click.command("projects", short_help="List the projects that threads belong to.")
@common_options
def projects_command(settings: Settings) -> None:
    """List the projects that threads belong to, the one with the latest turn first.

    \b
    rollbook projects
    rollbook list --project owner/name

    A project is a repository: by its remote, or its work tree on disk; else it is a directory.
    """
    with settings.open() as state:
        sync_once(state, settings, metadata_only=True)
        found = state.projects()
    if settings.as_json:
        render.echo_json([as_object(project) for project in found])
    elif render.on_terminal():
        _show_table(found)
    else:
        for project in found:
            render.echo(_plain_row(project))


def _plain_row(project: Project) -> str:
    when = format_time(project.recency_at) if project.recency_at else ""
    numbers = (str(project.threads), str(project.archived_threads))
    return "\t".join(map(render.printable, (project.key, *numbers, when, *project.directories)))


def _show_table(found: list[Project]) -> None:
    if not found:
        render.note("No projects, as there are no threads.")
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, expand=True)
    table.add_column("Project", style="cyan", no_wrap=True, overflow="ellipsis", ratio=2)
    table.add_column("Threads", justify="right", no_wrap=True)
    table.add_column("Archived", justify="right", no_wrap=True, style="dim")
    table.add_column("Last turn", no_wrap=True)
    table.add_column("Directory", style="green", no_wrap=True, overflow="ellipsis", ratio=2)
    for project in found:
        others = len(project.directories) - 1
        directory = render.printable(project.directories[0]) + (f" +{others}" if others else "")
        numbers = (f"{project.threads:,}", f"{project.archived_threads:,}")
        cells = (render.printable(project.key), *numbers, render.age_of(project.recency_at))
        table.add_row(*map(Text, (*cells, directory)))
    console.print(table)


@click.command("relocate", short_help="Tell where a directory has moved to.")
@click.argument("old", metavar="OLD")
@click.argument("new", metavar="NEW")
@common_options
def relocate_command(settings: Settings, *, old: str, new: str) -> None:
    """Tell where a directory has moved to: its threads are shown, listed and grouped there.

    \b
    rollbook relocate ~/old/project ~/work/project

    So are those of the directories below it, and those that come later. No rollout is touched; to
    move it back takes that back.
    """
    places = [os.path.abspath(os.path.expanduser(each)) for each in (old, new)]
    with settings.open() as state:
        sync_once(state, settings, metadata_only=True)
        threads = state.relocate(*places)
    if not os.path.isdir(places[1]):
        render.note(f"rollbook: there is no directory {render.printable(places[1])}")
    if settings.as_json:
        render.echo_json({"old": places[0], "new": places[1], "threads": threads})
    else:
        number = f"{threads:,} thread{'' if threads == 1 else 's'}"
        render.echo(f"{number}: {' → '.join(map(render.printable, places))}")
