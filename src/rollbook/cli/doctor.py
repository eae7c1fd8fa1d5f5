"""``rollbook doctor``: what state a home is in."""

import sys

import click
import msgspec

from rollbook.cli import render
from rollbook.cli.options import Settings, common_options
from rollbook.cli.sync import progress_bar
from rollbook.doctor.checks import INTEGRITY_WITHIN_S, examine_home
from rollbook.doctor.repair import repair_home
from rollbook.doctor.report import Finding, Report, Status
from rollbook.errors import DatabaseDamagedError

_MARKS = {
    Status.OK: ("✓", "+", "green"),
    Status.NOTE: ("·", "-", "cyan"),
    Status.PROBLEM: ("!", "!", "yellow"),
    Status.DAMAGED: ("✗", "x", "red"),
}


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
    repairs: list[str] = []
    if repair:
        with progress_bar() as progress:
            for done in repair_home(settings.home, settings.database, progress=progress):
                repairs.append(done)
                if not settings.as_json:
                    render.echo(f"repaired: {render.printable(done)}")
        if not repairs and not settings.as_json:
            render.echo("nothing had to be repaired")
    report = examine_home(settings.home, settings.database, within_s=within_s)
    if settings.as_json:
        checks = [msgspec.structs.asdict(finding) for finding in report.findings]
        render.echo_json({"healthy": report.is_healthy, "checks": checks, "repairs": repairs})
    elif render.on_terminal():
        _show(report)
    else:
        for finding in report.findings:
            cells = (finding.status, finding.check, finding.message)
            render.echo("\t".join(render.printable(cell) for cell in cells))
    if not report.is_healthy:
        is_damaged = report.status is Status.DAMAGED
        sys.exit(DatabaseDamagedError.exit_code if is_damaged else 1)


def _show(report: Report) -> None:
    is_plain = "utf" not in (sys.stdout.encoding or "").lower()
    width = max(len(finding.check) for finding in report.findings)
    for finding in report.findings:
        render.echo(_line(finding, width, is_plain=is_plain))
    problems = [f for f in report.findings if f.status in {Status.PROBLEM, Status.DAMAGED}]
    render.echo("")
    render.echo(f"{len(problems)} to look after." if problems else "All is well.")


def _line(finding: Finding, width: int, *, is_plain: bool) -> str:
    mark, plain, colour = _MARKS[finding.status]
    mark = plain if is_plain else mark
    if render.has_colour():
        mark = click.style(mark, fg=colour, bold=True)
    lines = [f"{mark} {finding.check:<{width}}  {render.printable(finding.message)}"]
    if finding.hint:
        lines.append(f"{'':<{width + 4}}→ {render.printable(finding.hint)}")
    text = "\n".join(lines)
    return text.replace("→", "->") if is_plain else text
