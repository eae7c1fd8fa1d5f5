"""Times as Rollbook keeps them: aware UTC datetimes of whole seconds (behaviour.md 11, 12)."""

import re
from datetime import UTC, datetime, timedelta, tzinfo

from rollbook.errors import UsageError

_FILE_NAME_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d", re.ASCII)
_RFC3339 = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(?:\.\d+)?(Z|z|[+-]\d\d:\d\d)", re.ASCII
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND = timedelta(0, 1)


def parse_time(text: str) -> datetime | None:
    """Read ``YYYY-MM-DDThh-mm-ss`` (taken as UTC) or RFC 3339 with any offset.

    Returns None for anything else, and for times outside the years 1 to 9999.
    Source: behaviour.md 12.
    """
    try:
        if match := _RFC3339.fullmatch(text):
            day, time, offset = match.groups()
            if offset in "Zz":
                return datetime.fromisoformat(f"{day}T{time}+00:00")
            return datetime.fromisoformat(f"{day}T{time}{offset}").astimezone(UTC)
        if _FILE_NAME_TIME.fullmatch(text):
            return datetime.fromisoformat(text[:10] + text[10:].replace("-", ":") + "+00:00")
    except (ValueError, OverflowError):
        pass  # the right shape, but no such time: the same answer as for any other text
    return None


def from_epoch(seconds: int) -> datetime:
    """Turn Unix epoch seconds into a datetime; OverflowError outside the years 1 to 9999."""
    return _EPOCH + timedelta(0, seconds)


def to_epoch(time: datetime) -> int:
    """Turn an aware datetime into whole Unix epoch seconds, the fraction dropped."""
    return (time - _EPOCH) // _SECOND


def whole_seconds(time: datetime) -> datetime:
    """Convert to UTC and drop the fraction of a second; a naive time is taken as UTC."""
    if time.tzinfo is UTC and not time.microsecond:
        return time
    aware = time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
    return aware.replace(microsecond=0)


def format_time(time: datetime) -> str:
    """Write as RFC 3339 in UTC with ``Z``, for example ``2026-01-27T12:34:56Z``."""
    return whole_seconds(time).strftime("%Y-%m-%dT%H:%M:%SZ").rjust(20, "0")


def find_time_zone(name: str | None) -> tzinfo | None:
    """Find a time zone by its name, such as ``Asia/Tokyo``; None for none.

    Errors: UsageError for a name that this machine doesn't know.
    """
    if name is None:
        return None
    from zoneinfo import ZoneInfo

    try:
        return ZoneInfo(name)
    except (ValueError, OSError, KeyError) as error:
        hint = "give a name like Europe/Berlin"
        raise UsageError(f"{name[:50]!r} is no time zone that is known here", hint=hint) from error
