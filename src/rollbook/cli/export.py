"""``rollbook export``: threads as documents."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from rollbook.cli import render
from rollbook.cli.filters import filter_options
from rollbook.cli.options import Settings, common_options, complete_thread_id
from rollbook.cli.sync import sync_once
from rollbook.errors import ExportError, RollbookError, UsageError
from rollbook.export.documents import DocumentFormat, thread_document, write_document
from rollbook.model.thread import ThreadMetadata
from rollbook.runtime import StateRuntime
from rollbook.selection import Selection, find_thread


@click.command("export", short_help="Write threads as Markdown, HTML or JSON.")
@click.argument("thread_ids", nargs=-1, metavar="[ID]...", shell_complete=complete_thread_id)
@click.option(
    "--format",
    "form",
    type=click.Choice([form.value for form in DocumentFormat]),
    help="What to write.  [default: markdown]",
)
@click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path),
    help="A file; or a directory, for a file for each thread.  [default: standard output]",
)
@click.option("--redact", is_flag=True, help="Without secrets and home directories.")
@click.option("--no-tools", is_flag=True, help="Without what tools were given and said.")
@click.option("--force", is_flag=True, help="Replace files that are there.")
@filter_options
@common_options
def export_command(
    settings: Settings,
    *,
    thread_ids: tuple[str, ...],
    form: str | None,
    output: Path | None,
    redact: bool,
    no_tools: bool,
    force: bool,
    selection: Selection,
) -> None:
    """Write threads as Markdown, HTML or JSON.

    \b
    rollbook export 01a207c8 > thread.md
    rollbook export 01a207c8 --format html --redact -o thread.html
    rollbook export --cwd . -o threads/

    Without an ID, all threads are written that `rollbook list` shows with the same options, each
    into a file in a directory. HTML is one file that needs nothing else. Files are for you alone,
    and none is replaced without --force.

    --redact takes out what looks like a secret, and writes home directories as ~. It may miss
    what looks like none: read what you share.
    """
    if settings.as_json and output is None:
        if form not in (None, DocumentFormat.JSON):
            raise UsageError(f"--json and --format {form} contradict each other")
        form = DocumentFormat.JSON
    if thread_ids and selection != Selection():
        raise UsageError("threads are chosen by id or by options", hint="leave out one of them")
    writer = _Writer(DocumentFormat(form or DocumentFormat.MARKDOWN), not no_tools, redact, force)
    with settings.open() as state:
        if thread_ids:
            threads = iter([find_thread(state, text) for text in thread_ids])
        else:
            sync_once(state, settings, metadata_only=True)
            threads = selection.threads(state)
        if output is not None:
            is_many = len(thread_ids) != 1
            writer.write(state, threads, output, into_directory=is_many or output.is_dir())
            if settings.as_json:
                render.echo_json(writer.report())
        elif len(thread_ids) == 1:
            writer.print(state, next(threads))
        else:
            raise UsageError("several threads need a place", hint="name a directory with --output")
    if redact:
        _tell(writer.replaced)
    if writer.failed:
        raise ExportError(f"{writer.failed} threads could not be written")


class _Writer:
    """Writes threads, and counts."""

    def __init__(self, form: DocumentFormat, tools: bool, redacts: bool, replaces: bool) -> None:
        self._form = form
        self._tools = tools
        self._redacts = redacts
        self._replaces = replaces
        self._written: list[dict[str, str]] = []
        self.replaced: Counter[str] = Counter()
        self.failed = 0

    def print(self, state: StateRuntime, thread: ThreadMetadata) -> None:
        """Write a thread to standard output."""
        for piece in self._pieces(state, thread):
            render.echo(piece.encode(), is_line=False)

    def write(
        self,
        state: StateRuntime,
        threads: Iterator[ThreadMetadata],
        output: Path,
        *,
        into_directory: bool,
    ) -> None:
        """Write threads to a file, or each to one in a directory; one failure stops none of those."""
        if into_directory:
            _make_directory(output)
        for thread in threads:
            name = f"{thread.created_at:%Y-%m-%d}-{thread.id}{self._form.suffix}"
            path = output / name if into_directory else output
            try:
                write_document(path, self._pieces(state, thread), replace=self._replaces)
            except RollbookError as error:
                if not into_directory:
                    raise
                render.note(f"{thread.id}: {render.printable(str(error))}")
                self.failed += 1
            else:
                self._written.append({"id": thread.id, "path": str(path)})
                render.note(render.printable(str(path)))

    def report(self) -> dict[str, Any]:
        """Make the JSON object of what was done."""
        return {"files": self._written, "failed": self.failed, "replaced": dict(self.replaced)}

    def _pieces(self, state: StateRuntime, thread: ThreadMetadata) -> Iterator[str]:
        redactor = None
        if self._redacts:
            from rollbook.export.redaction import Redactor

            redactor = Redactor()
        yield from thread_document(
            state, thread.id, self._form, tools=self._tools, redactor=redactor
        )
        if redactor is not None:
            self.replaced += redactor.counts


def _make_directory(path: Path) -> None:
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ExportError(f"{path} can't be made: {error.strerror}") from error


def _tell(replaced: Counter[str]) -> None:
    kinds = ", ".join(f"{count} of kind {kind}" for kind, count in replaced.most_common())
    render.note(f"Taken out: {kinds}" if kinds else "Nothing was found to take out.")
