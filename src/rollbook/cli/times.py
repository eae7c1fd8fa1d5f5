"""Times as people type them."""

import re
import time
from datetime import timedelta

import click

from rollbook.model.times import parse_time, to_epoch

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_AGO = re.compile(r"(\d{1,9})([smhdw])", re.ASCII)
_RFC3339 = re.compile(r".{10}[Tt ]\d\d:")
_AGE = re.compile(r"(\d{1,6})([hdw])", re.ASCII)
_DAY = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)


def read_time(context: click.Context, parameter: click.Parameter, value: str | None) -> int | None:
    """Read a time as epoch seconds: RFC 3339, a day in UTC, unix seconds, or how long ago."""
    del context, parameter
    text = (value or "").strip()
    if value is None:
        return None
    if match := _AGO.fullmatch(text):
        return int(time.time()) - int(match[1]) * _UNITS[match[2]]
    if re.fullmatch(r"-?\d{1,18}", text, re.ASCII):
        return int(text)
    if _DAY.fullmatch(text):
        text += "T00:00:00Z"
    if _RFC3339.match(text) and (moment := parse_time(text)) is not None:
        return to_epoch(moment)
    raise click.BadParameter(
        f"{text[:50]!r} is no time: say 2026-01-27T12:34:56Z, unix seconds, or 15m, 2h, 3d (ago)"
    )


def read_age(context: click.Context, parameter: click.Parameter, value: str) -> timedelta:
    """Read how old something is: more than nothing, in hours, days or weeks."""
    del context, parameter
    match = _AGE.fullmatch(value.strip())
    if match is None or not int(match[1]):
        raise click.BadParameter(f"{value[:50]!r} is no age: say 180d, 26w or 12h")
    return timedelta(seconds=int(match[1]) * _UNITS[match[2]])
