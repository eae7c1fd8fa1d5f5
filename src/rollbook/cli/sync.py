"""``rollbook sync``: bring the index up to date."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import partial

import click
import msgspec

from rollbook.cli import render
from rollbook.cli.options import Settings, common_options
from rollbook.errors import DatabaseBusyError, DatabaseUnavailableError, UsageError
from rollbook.model.outcome import (
    BackfillStats,
    ProgressCallback,
    SyncProgress,
    SyncStage,
    WatchUpdate,
)
from rollbook.model.search import TextScope
from rollbook.runtime import StateRuntime

_SHOWN_FAILURES = 20
_SHOWN_IDS = 3
_STAGES = {SyncStage.METADATA: "Indexing", SyncStage.CONTENT: "Reading"}


@click.command("sync", short_help="Bring the index up to date with the rollouts.")
@click.option(
    "--jobs", type=int, help="Reading processes.  [default: one for each core, at most 4]"
)
@click.option("--rebuild", is_flag=True, help="Read every rollout again from its start.")
@click.option("--watch", is_flag=True, help="Then follow the home until Ctrl-C.")
@click.option(
    "--text",
    type=click.Choice([scope.name.lower() for scope in TextScope if scope]),
    is_flag=False,
    flag_value=TextScope.MESSAGES.name.lower(),
    help="What can be searched, from now on: messages, or calls and output of tools, too.",
)
@click.option("--metadata-only", is_flag=True, help="Leave what was said and used for later.")
@click.option("--no-text", is_flag=True, help="Have nothing to search, from now on.")
@common_options
def sync_command(
    settings: Settings,
    *,
    jobs: int | None,
    rebuild: bool,
    watch: bool,
    text: str | None,
    metadata_only: bool,
    no_text: bool,
) -> None:
    """Bring the index up to date with the rollouts.

    Reads only what has changed since the last time. It may be interrupted at any moment; the next
    run completes the work. Rollouts are never changed. Ends with 1 if a rollout could not be read.

    First comes what lists need, then what was said and used, for `rollbook search` and `stats`;
    --metadata-only leaves that to the next time. --text=tools has calls
    and output of tools indexed, too, and --no-text nothing; later runs keep to it.

    With --db postgresql://… what this host has is sent there, too, for all who share it.  If the
    server can't be reached, it ends with 4; the next run sends what is missing.

    With --watch it then goes on: what agents write is in the index within a tenth of a second. Each
    time it says what has changed; with --json, in one object a line.
    """
    if no_text and text:
        raise UsageError("--text and --no-text contradict each other", hint="give one of them")
    scope = TextScope.NOTHING if no_text else TextScope[text.upper()] if text else None
    with settings.open(temporary=False) as state:
        stats = run_sync(
            state,
            jobs=jobs,
            rebuild=rebuild,
            metadata_only=metadata_only,
            text=scope,
            quiet=False,
        )
        if settings.as_json:
            counts = msgspec.structs.asdict(stats)
            del counts["failures"]
            render.echo_json(counts)
        else:
            render.echo(_summary(state, stats))
        if watch:
            _follow(state, as_json=settings.as_json)
        is_unsent = settings.is_shared and bool(state.degraded)
    if is_unsent and not watch:
        sys.exit(DatabaseUnavailableError.exit_code)
    if stats.failed and not watch:
        sys.exit(1)


def run_sync(
    state: StateRuntime,
    *,
    jobs: int | None = None,
    rebuild: bool = False,
    metadata_only: bool = False,
    text: TextScope | None = None,
    quiet: bool,
    wait: bool = True,
) -> BackfillStats:
    """Sync with a progress bar on a terminal, and name what could not be read.

    Errors: DatabaseBusyError while another process is at it, unless one is to ``wait`` for it.
    """
    sync = partial(state.sync, jobs=jobs, rebuild=rebuild, metadata_only=metadata_only, text=text)
    with progress_bar() as progress:
        try:
            stats = sync(progress=progress, wait_s=0)
        except DatabaseBusyError as busy:
            if not wait:
                raise
            render.note(f"rollbook: {render.printable(busy.message)}: waiting for it")
            stats = sync(progress=progress)
    if not quiet:
        for failure in stats.failures[:_SHOWN_FAILURES]:
            message = f"{failure.path} {failure.message}"
            render.note(f"rollbook: not indexed: {render.printable(message)}")
        if len(stats.failures) > _SHOWN_FAILURES:
            render.note(f"rollbook: … and {len(stats.failures) - _SHOWN_FAILURES} more")
        if stats.parse_errors:
            render.note(f"rollbook: {stats.parse_errors} malformed lines were skipped")
    return stats


def sync_once(state: StateRuntime, settings: Settings, *, metadata_only: bool) -> None:
    """Sync a home that was never synced, unless another process is at it.

    Not where the state is shared: to read what others share is not to share what one has.
    """
    if settings.is_shared or state.is_synced():
        return
    try:
        run_sync(state, metadata_only=metadata_only, quiet=settings.as_json, wait=False)
    except DatabaseBusyError as error:
        render.note(f"rollbook: {render.printable(error.message)}")


def _summary(state: StateRuntime, stats: BackfillStats) -> str:
    parts = [f"{stats.indexed} indexed", f"{stats.unchanged} unchanged"]
    parts += [f"{stats.removed} removed"] if stats.removed else []
    parts += [f"{stats.failed} failed"] if stats.failed else []
    work = f"{stats.bytes_read / 1e6:.1f} MB read in" if stats.bytes_read else "looked through in"
    home = render.printable(str(state.codex_home))
    return f"{home}: {', '.join(parts)}; {work} {stats.seconds:.2f} s"


def _follow(state: StateRuntime, *, as_json: bool) -> None:
    try:
        for update in state.watch():
            if as_json:
                render.echo_json(
                    {
                        "changed": update.changed,
                        "removed": update.removed,
                        "bytes_read": update.stats.bytes_read,
                        "seconds": update.stats.seconds,
                    }
                )
            elif update.changed or update.removed:
                render.echo(_update_line(update))
    except KeyboardInterrupt:
        return  # it is how one ends it


def _update_line(update: WatchUpdate) -> str:
    parts = [f"{len(update.changed)} updated"] if update.changed else []
    parts += [f"{len(update.removed)} removed"] if update.removed else []
    ids = [*update.changed, *update.removed]
    shown = " ".join(ids[:_SHOWN_IDS]) + (" …" if len(ids) > _SHOWN_IDS else "")
    return f"{datetime.now().astimezone():%H:%M:%S} {', '.join(parts)}: {shown}"


@contextmanager
def counting(what: str) -> Iterator[Callable[[int], None] | None]:
    """Show how many of something were done, on a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console

    with Console(stderr=True).status("") as status:
        yield lambda count: status.update(f"{count:,} {what}")


@contextmanager
def progress_bar() -> Iterator[ProgressCallback | None]:
    """Show how far a sync is, on a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.fields[stage]}"),
        BarColumn(),
        TextColumn("{task.fields[files]} rollouts"),
        DownloadColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None, files="0", stage="")

        def advance(progress: SyncProgress) -> None:
            bar.update(
                task,
                completed=progress.bytes_done,
                total=progress.bytes_total,
                files=f"{progress.files_done}/{progress.files_total}",
                stage=_STAGES[progress.stage],
            )

        yield advance
