"""What was used: by day, week or month as a chart, and by model, project, source and thread."""

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Literal
from urllib.parse import urlencode

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from rollbook.export.facts import heading_of
from rollbook.model.labels import source_text
from rollbook.model.prices import find_prices
from rollbook.model.times import to_epoch
from rollbook.model.usage import Tokens, UsageKey, UsageReport, UsageRow
from rollbook.runtime import StateRuntime
from rollbook.selection import Reach
from rollbook.web.parameters import read_parameters
from rollbook.web.rendering import short_directory
from rollbook.web.site import page, site_of

_MOST_ROWS = 15
_MOST_COLUMNS = 400
_DAYS = (7, 30, 90, 365)
_PARTS = {
    UsageKey.MODEL: "Models",
    UsageKey.PROJECT: "Projects",
    UsageKey.SOURCE: "Sources",
    UsageKey.THREAD: "Threads",
}


class UsagePageParameters(Reach, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the page shows; ``days`` counts back from today, 0 means all."""

    days: Annotated[int, msgspec.Meta(ge=0, le=36_500)] = 30
    by: Literal["day", "week", "month"] = "day"


class Column(msgspec.Struct, frozen=True):
    """A column of the chart; heights and places are parts of a thousand, from the top."""

    label: str
    tokens: Tokens
    left: float
    width: float
    cached: float
    fresh: float
    output: float


class Part(msgspec.Struct, frozen=True):
    """A table: what was used by each model, project, source or thread, the most first."""

    title: str
    rows: list[tuple[str, str, UsageRow, float]]
    others: int


def usage_page(request: Request) -> Response:
    """Show what was used in some days."""
    asked = read_parameters(UsagePageParameters, request, of_form=True)
    if asked.days and asked.since is None:
        asked = msgspec.structs.replace(asked, since=_first_second(asked.days))
    state = site_of(request).state
    prices = find_prices(state.codex_home)
    reach = asked.arguments(state)
    report = state.usage((UsageKey(asked.by),), prices=prices, **reach)
    columns = _columns(report, asked)
    return page(
        request,
        "usage.html.jinja",
        asked=asked,
        report=report,
        columns=columns,
        most=max((column.tokens.total for column in columns), default=0),
        parts=[
            _part(state, title, state.usage((key,), prices=prices, **reach))
            for key, title in _PARTS.items()
        ],
        choices=_DAYS,
    )


def _first_second(days: int) -> int:
    """Give the time at which the first of so many days has begun, the last being today."""
    today = datetime.now().astimezone().replace(hour=0, minute=0, second=0, microsecond=0)
    try:
        return to_epoch((today - timedelta(days - 1)).astimezone(UTC))
    except OverflowError:
        return 0


def _columns(report: UsageReport, asked: UsagePageParameters) -> list[Column]:
    used = {row.keys[0]: row.tokens for row in report.rows}
    labels = list(used)
    if asked.by == "day" and labels:
        labels = _days_between(labels[0], labels[-1])
    labels = labels[-_MOST_COLUMNS:]
    most = max((used[label].total for label in labels if label in used), default=0) or 1
    step = 1000 / max(len(labels), 7)
    columns = []
    for place, label in enumerate(labels):
        tokens = used.get(label, Tokens())
        cached = 1000 * tokens.cached_input / most
        fresh = 1000 * max(0, tokens.input - tokens.cached_input) / most
        output = 1000 * tokens.output / most
        columns.append(
            Column(label, tokens, place * step + step * 0.1, step * 0.8, cached, fresh, output)
        )
    return columns


def _days_between(first: str, last: str) -> list[str]:
    """Name all days, those without usage, too."""
    try:
        start, end = date.fromisoformat(first), date.fromisoformat(last)
    except ValueError:
        return [first, last] if first != last else [first]
    count = min((end - start).days, _MOST_COLUMNS)
    return [(end - timedelta(days)).isoformat() for days in range(count, -1, -1)]


def _part(state: StateRuntime, title: str, report: UsageReport) -> Part:
    ordered = sorted(report.rows, key=lambda row: row.tokens.total, reverse=True)
    most = (ordered[0].tokens.total if ordered else 0) or 1
    name = _NAMES[report.by[0]]
    rows = []
    for row in ordered[:_MOST_ROWS]:
        shown, link = name(state, row.keys[0])
        rows.append((shown or "(none)", link, row, 1000 * row.tokens.total / most))
    return Part(title, rows, max(0, len(ordered) - _MOST_ROWS))


def _thread(state: StateRuntime, thread_id: str) -> tuple[str, str]:
    found = state.get_thread(thread_id)
    return (heading_of(found) if found else thread_id), f"/threads/{thread_id}"


_NAMES: dict[UsageKey, Callable[[StateRuntime, str], tuple[str, str]]] = {
    UsageKey.MODEL: lambda _state, name: (name, ""),
    UsageKey.PROJECT: lambda _state, name: (
        short_directory(name),
        f"/?{urlencode({'project': name})}" if name else "",
    ),
    UsageKey.SOURCE: lambda _state, name: (source_text(name), ""),
    UsageKey.THREAD: _thread,
}
