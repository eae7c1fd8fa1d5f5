"""``rollbook delete`` and ``prune``: take threads away."""

import sys
from datetime import timedelta

import click

from rollbook.cli import render
from rollbook.cli.filters import filter_options
from rollbook.cli.options import Settings, common_options, complete_thread_id
from rollbook.cli.times import read_age
from rollbook.errors import UsageError
from rollbook.model.deletion import DeletionReport
from rollbook.model.documents import as_object
from rollbook.model.labels import size_text
from rollbook.runtime import StateRuntime
from rollbook.selection import Selection

_SHOWN = 20

_rollout_option = click.option(
    "--rollout", is_flag=True, help="Also delete the rollouts, which nothing brings back."
)
_dry_run_option = click.option("--dry-run", is_flag=True, help="Only tell what would go.")
_yes_option = click.option("--yes", "-y", is_flag=True, help="Don't ask.")


@click.command("delete", short_help="Remove threads, and every trace of them.")
@click.argument(
    "thread_ids", metavar="ID...", nargs=-1, required=True, shell_complete=complete_thread_id
)
@_rollout_option
@_dry_run_option
@_yes_option
@common_options
def delete_command(
    settings: Settings, *, thread_ids: tuple[str, ...], rollout: bool, dry_run: bool, yes: bool
) -> None:
    """Remove threads, and every trace that Rollbook holds of them.

    \b
    rollbook delete 01a207c8
    rollbook delete 01a207c8 --rollout

    That is what the index, the search and the statistics know of them, their log rows, names, tags
    and pins. Their rollouts stay, unless --rollout says otherwise; one that stays is left alone until
    the thread goes on. All of the threads are deleted, or none.
    """
    with settings.open() as state:
        ids = [state.resolve_thread_id(text) for text in thread_ids]
        planned = state.delete_threads(ids, rollouts=rollout, dry_run=True)
        _carry_out(settings, state, planned, dry_run=dry_run, yes=yes)


@click.command("prune", short_help="Delete the threads that are older than an age.")
@click.option(
    "--older-than",
    required=True,
    callback=read_age,
    metavar="AGE",
    help="Whose last turn is so long ago: 180d, 26w, 12h.",
)
@click.option(
    "--keep-pinned/--no-keep-pinned", default=True, show_default=True, help="Keep pinned threads."
)
@click.option(
    "--keep-tag", "keep_tags", multiple=True, metavar="TAG", help="Keep those with this tag."
)
@_rollout_option
@_dry_run_option
@_yes_option
@filter_options
@common_options
def prune_command(
    settings: Settings,
    *,
    older_than: timedelta,
    keep_pinned: bool,
    keep_tags: tuple[str, ...],
    rollout: bool,
    dry_run: bool,
    yes: bool,
    selection: Selection,
) -> None:
    """Delete the threads whose last turn is longer ago than an age, as `rollbook delete` does.

    \b
    rollbook prune --older-than 180d --dry-run
    rollbook prune --older-than 26w --keep-tag reference --rollout --yes

    The options of `rollbook list` choose among them.
    """
    if selection.pinned is not None:
        raise UsageError("say --keep-pinned or --no-keep-pinned")
    with settings.open() as state:
        planned = state.prune(
            older_than,
            keep_pinned=keep_pinned,
            keep_tags=keep_tags,
            rollouts=rollout,
            dry_run=True,
            allowed_sources=selection.sources,
            model_providers=selection.providers,
            archived_only=selection.archived,
            cwd=selection.cwd,
            title_contains=selection.title,
            include_silent=selection.everything,
            project=selection.project,
            tags=selection.tags,
        )
        _carry_out(settings, state, planned, dry_run=dry_run, yes=yes)


def _carry_out(
    settings: Settings, state: StateRuntime, planned: DeletionReport, *, dry_run: bool, yes: bool
) -> None:
    """Delete what was planned, and nothing else, once somebody has said yes."""
    report = planned
    if not dry_run:
        if not yes:
            _ask(planned)
        ids = [thread.id for thread in planned.threads]
        report = state.delete_threads(ids, rollouts=planned.with_rollouts)
    if settings.as_json:
        render.echo_json(_object(report))
        return
    for line in _lines(report):
        render.echo(line)
    render.note(f"{'Would delete' if dry_run else 'Deleted'} {_summary(report)}.")


def _ask(report: DeletionReport) -> None:
    if not sys.stdin.isatty():
        raise UsageError("nobody is there to say yes", hint="add --yes, or --dry-run to see first")
    if not report.threads:
        return
    lines = list(_lines(report))
    for line in lines[:_SHOWN]:
        render.note(line)
    if len(lines) > _SHOWN:
        render.note(f"… and {len(lines) - _SHOWN:,} more")
    click.confirm(f"Delete {_summary(report)}?", abort=True, err=True)


def _lines(report: DeletionReport) -> list[str]:
    return [
        "\t".join(
            (
                thread.id,
                render.age_of(thread.recency_at),
                size_text(thread.rollout_bytes),
                render.printable(thread.title[:1000]) or "(nothing said)",
            )
        )
        for thread in report.threads
    ]


def _summary(report: DeletionReport) -> str:
    number = len(report.threads)
    size = size_text(report.rollout_bytes)
    rollouts = (
        f"and their rollouts, {size}" if report.with_rollouts else f"but no rollouts ({size})"
    )
    return f"{number:,} thread{'' if number == 1 else 's'}, {rollouts}"


def _object(report: DeletionReport) -> dict[str, object]:
    threads = [as_object(thread) for thread in report.threads]
    return as_object(report) | {"threads": threads, "rollout_bytes": report.rollout_bytes}
