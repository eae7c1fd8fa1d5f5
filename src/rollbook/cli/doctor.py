"""``rollbook doctor``: what state a home is in."""

import shutil
import sys
import textwrap
from collections.abc import Iterator
from typing import Any

import click

from rollbook.cli import render
from rollbook.cli.options import Settings, common_options
from rollbook.cli.sync import progress_bar
from rollbook.doctor.checks import INTEGRITY_WITHIN_S, examine_home
from rollbook.doctor.repair import repair_home
from rollbook.doctor.report import Finding, Report, Status
from rollbook.errors import DatabaseDamagedError, HomeError, RollbookError

_MARKS = {
    Status.OK: ("✓", "+", "green"),
    Status.NOTE: ("·", "-", "cyan"),
    Status.PROBLEM: ("!", "!", "yellow"),
    Status.DAMAGED: ("✗", "x", "red"),
}
_PLAIN = str.maketrans({"→": ">", "…": "...", "·": "-"})  # where the terminal has no more
_WIDEST = 120
_MARGIN = 6  # of the mark, and between columns


@click.command("doctor", short_help="Say what state a home is in, and mend it.")
@click.option("--repair", is_flag=True, help="Do what can be done without risk, and say what.")
@click.option("--full", is_flag=True, help="Look each database through to its end.")
@common_options
def doctor_command(settings: Settings, *, repair: bool, full: bool) -> None:
    """Say what state a home is in: databases, index and disk, locks, space, permissions.

    \b
    rollbook doctor                 look; changes nothing
    rollbook doctor --repair        make the index complete, damaged databases anew, files private

    Ends with 0 if all is well, 5 if a database is damaged, 1 for any other problem.  Rollouts and
    the agent's own databases are only ever read.
    """
    within_s = None if full else INTEGRITY_WITHIN_S
    repairs = _repair(settings) if repair else []
    report = examine_home(settings.home, settings.database, within_s=within_s)
    if settings.as_json:
        render.echo_json(report.as_object() | {"repairs": repairs})
    elif render.on_terminal():
        _show(report)
    else:
        for finding in report.findings:
            cells = (finding.status, finding.check, finding.sentence)
            render.echo("\t".join(render.printable(cell) for cell in cells))
    if not report.is_healthy:
        is_damaged = report.status is Status.DAMAGED
        sys.exit(DatabaseDamagedError.exit_code if is_damaged else 1)


def _repair(settings: Settings) -> list[str]:
    """Repair what can be, and say what was done; what is in the way is no reason not to look."""
    repairs: list[str] = []
    try:
        with progress_bar() as progress:
            for done in repair_home(settings.home, settings.database, progress=progress):
                repairs.append(done)
                if not settings.as_json:
                    render.echo(f"repaired: {render.printable(done)}")
    except HomeError:
        raise
    except RollbookError as error:
        render.note_error(error.code, f"not all repaired: {error}", as_json=settings.as_json)
    else:
        if not repairs and not settings.as_json:
            render.echo("nothing had to be repaired")
    return repairs


def _show(report: Report) -> None:
    columns = min(shutil.get_terminal_size().columns, _WIDEST)
    is_plain = "utf" not in (sys.stdout.encoding or "").lower()
    for line in _report_lines(report, columns, is_plain=is_plain):
        render.echo(line.translate(_PLAIN) if is_plain else line)


def _report_lines(report: Report, columns: int, *, is_plain: bool) -> Iterator[str]:
    width = max(len(finding.check) for finding in report.findings)
    for group, members in report.groups.items():
        yield _styled(group, bold=True)
        for finding in members:
            mark, plain, colour = _MARKS[finding.status]
            start = _styled(plain if is_plain else mark, fg=colour, bold=True)
            head = f"  {start} {finding.check:<{width}}  "
            for line in _finding_lines(finding, columns - width - _MARGIN):
                yield head + line
                head = " " * (width + _MARGIN)
        yield ""
    yield _styled(report.summary, bold=True)


def _styled(text: str, **style: Any) -> str:
    return click.style(text, **style) if render.has_colour() else text


def _finding_lines(finding: Finding, columns: int) -> Iterator[str]:
    """Break a finding into lines: what is, the first examples, what to do."""
    message = finding.message + (":" if finding.examples else "")
    yield from _wrapped(message, columns, "", "")
    for example in finding.shown_examples:
        yield from _wrapped(example, columns, "  ", "    ")
    if finding.hint:
        yield from _wrapped(finding.hint, columns, "→ ", "  ")


def _wrapped(text: str, columns: int, first: str, others: str) -> list[str]:
    return textwrap.wrap(
        render.printable(text),
        max(columns, 20),
        initial_indent=first,
        subsequent_indent=others,
        break_long_words=False,
        break_on_hyphens=False,
    )
