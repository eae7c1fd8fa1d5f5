"""``rollbook stats``: what was used, by day, model, project and the like."""

import csv
import sys
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import click
import msgspec

from rollbook.cli import render
from rollbook.cli.filters import reach_options
from rollbook.cli.options import Settings, common_options
from rollbook.cli.sync import sync_once
from rollbook.errors import UsageError
from rollbook.model.documents import usage_object, usage_row_object
from rollbook.model.prices import find_prices, read_prices
from rollbook.model.times import find_time_zone
from rollbook.model.usage import UsageKey, UsageReport, UsageRow
from rollbook.selection import Reach

_DEFAULT_S = 30 * 86_400
_TIMES = {UsageKey.DAY, UsageKey.WEEK, UsageKey.MONTH}
_BAR = 16  # columns
_CENT = Decimal("0.01")


@click.command("stats", short_help="Show what tokens were used, and by what.")
@click.option(
    "--by",
    "keys",
    multiple=True,
    type=click.Choice([key.value for key in UsageKey]),
    help="A row for each; may be given several times.  [default: day]",
)
@click.option(
    "--all", "everything", is_flag=True, help="From the beginning on; without, the last 30 days."
)
@click.option("--time-zone", metavar="NAME", help="Whose days, as Asia/Tokyo.  [default: yours]")
@click.option(
    "--prices",
    type=click.Path(path_type=Path),
    help="Your prices.  [default: $ROLLBOOK_PRICES, else HOME/rollbook/prices.toml if it is there]",
)
@click.option("--csv", "as_csv", is_flag=True, help="Answer with comma-separated values.")
@reach_options
@common_options
def stats_command(
    settings: Settings,
    *,
    keys: tuple[str, ...],
    everything: bool,
    time_zone: str | None,
    reach: Reach,
    prices: Path | None,
    as_csv: bool,
) -> None:
    """Show what tokens were used, by day, or by what you say.

    \b
    rollbook stats --by week --by model --since 90d
    rollbook stats --by project --all --csv > projects.csv
    rollbook stats --by thread --cwd . --prices prices.toml

    Tokens are counted once, in whichever thread they were used. Prices are yours, as none that are
    built in would stay true: a file with `currency = "USD"` and, for each model, a part like
    [models."gpt-5*"] with input, cached_input and output, for a million tokens each.
    """
    if as_csv and settings.as_json:
        raise UsageError("--csv and --json contradict each other", hint="give one of them")
    if reach.since is None and not everything:
        reach = msgspec.structs.replace(reach, since=int(time.time()) - _DEFAULT_S)
    with settings.open() as state:
        sync_once(state, settings, metadata_only=False)
        report = state.usage(
            tuple(map(UsageKey, keys or (UsageKey.DAY.value,))),
            time_zone=find_time_zone(time_zone),
            **reach.arguments(state),
            prices=read_prices(prices) if prices else find_prices(state.codex_home),
        )
    if settings.as_json:
        render.echo_json(usage_object(report))
    elif as_csv:
        _write_csv(report)
    elif render.on_terminal():
        _show(report)
    else:
        for row in report.rows:
            render.echo("\t".join(map(render.printable, _cells(row))))
    _tell(report)


def _cells(row: UsageRow) -> Iterator[str]:
    yield from row.keys
    for value in usage_row_object(row).values():
        yield "" if value is None else str(value)


def _write_csv(report: UsageReport) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow([*report.by, *usage_row_object(report.total)])
    for row in report.rows:
        writer.writerow([_harmless(cell) for cell in _cells(row)])


def _harmless(cell: str) -> str:
    """Keep a spreadsheet from taking a name for a formula."""
    text = render.printable(cell)
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text


def _tell(report: UsageReport) -> None:
    if not report.is_complete:
        render.note("Not all is read yet: `rollbook sync` completes it.")
    if not report.rows:
        render.note("Nothing was used in that time. (--all counts from the beginning.)")
    if report.unpriced:
        names = ", ".join(render.printable(name) or "(no name)" for name in report.unpriced)
        render.note(f"No price, and so no cost in all: {names}")


def _show(report: UsageReport) -> None:
    if not report.rows:
        return
    from rich import box
    from rich.bar import Bar
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_footer=len(report.rows) > 1)
    for key in report.by:
        table.add_column(
            key.value.capitalize(), style="cyan", no_wrap=True, overflow="ellipsis", max_width=40
        )
    names = ["Requests", "Input", "Cached", "Output", "Reasoning", "Total"]
    for name, footer in zip(names, _numbers(report.total), strict=True):
        table.add_column(name, footer, justify="right", no_wrap=True)
    if report.currency or report.total.cost is not None:
        table.add_column(report.currency or "Cost", _money(report.total), justify="right")
    table.add_column("", width=_BAR)
    rows = report.rows
    if not _TIMES.intersection(report.by):
        rows = sorted(rows, key=lambda row: row.tokens.total, reverse=True)
    most = max(row.tokens.total for row in rows) or 1
    for row in rows:
        cells: list[Text | Bar] = [
            Text(_shown(key, name)) for key, name in zip(report.by, row.keys, strict=True)
        ]
        cells += [Text(number) for number in _numbers(row)]
        if report.currency or report.total.cost is not None:
            cells.append(Text(_money(row)))
        table.add_row(*cells, Bar(most, 0, row.tokens.total, color="blue"))
    console.print(table)


def _shown(key: UsageKey, name: str) -> str:
    shown = render.source_name(name) if key is UsageKey.SOURCE else render.printable(name)
    return shown or "(none)"


def _numbers(row: UsageRow) -> list[str]:
    return [f"{count:,}" for count in (row.requests, *msgspec.structs.astuple(row.tokens))]


def _money(row: UsageRow) -> str:
    return "" if row.cost is None else f"{row.cost.quantize(_CENT):,}"
