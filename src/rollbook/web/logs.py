"""The logs: the last rows, and those that come."""

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from rollbook.model.labels import here
from rollbook.model.log import LogRow
from rollbook.model.times import from_epoch
from rollbook.web.log_rows import find_rows, usual_logs
from rollbook.web.parameters import LogsOf, LogsParameters, read_parameters
from rollbook.web.site import page, site_of

_LEVELS = ("error", "warn", "info", "debug", "trace")


def logs_page(request: Request) -> Response:
    """Show the last rows, or those before or after an id, oldest first."""
    state = site_of(request).state
    asked = read_parameters(LogsParameters, request, of_form=True)
    if asked.of is None:
        asked = msgspec.structs.replace(asked, of=usual_logs(state))
    rows = find_rows(state, asked)
    return page(
        request,
        "logs.html.jinja",
        asked=asked,
        rows=[(row, _time(row)) for row in rows],
        before=rows[0].id if len(rows) == asked.limit and asked.after is None else None,
        last=rows[-1].id if rows else asked.after or 0,
        levels=_LEVELS,
        keepers=list(LogsOf),
    )


def _time(row: LogRow) -> str:
    try:
        moment = from_epoch(row.ts)
    except OverflowError:  # whoever has written it
        return str(row.ts)
    return f"{here(moment):%Y-%m-%d %H:%M:%S}.{row.ts_nanos // 1_000_000:03}"
