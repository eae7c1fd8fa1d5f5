"""Values in a few words, for people: on a terminal, in a page, in a report."""

from datetime import datetime

_THOUSAND = 1000
_SIZES = ("kB", "MB", "GB", "TB")
_AGES = ((60, 1, "s"), (3600, 60, "min"), (86400, 3600, "h"), (7 * 86400, 86400, "d"))
_SUBAGENTS = {"review": "review", "compact": "compact", "thread_spawn": "sub-agent"}


def number(count: int, noun: str) -> str:
    """Write how many there are of something."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def size_text(size: int) -> str:
    """Write a number of bytes."""
    if size < _THOUSAND:
        return number(size, "byte")
    amount, unit = float(size), ""
    for unit in _SIZES:  # noqa: B007 - the last one that was needed
        amount /= _THOUSAND
        if amount < _THOUSAND:
            break
    return f"{amount:,.1f} {unit}"


def as_text(text: str) -> str:
    """Make text of what isn't, such as the name of a file, which may be any bytes."""
    return text.encode(errors="backslashreplace").decode()


def source_text(source: str) -> str:
    """Shorten a source: sub-agents are stored as JSON."""
    if not source.startswith("{"):
        return source
    return next((name for kind, name in _SUBAGENTS.items() if f'"{kind}"' in source), "sub-agent")


def directory_text(directory: str, home: str) -> str:
    """Shorten a directory: the user's own is ``~``."""
    if directory == home or directory.startswith(home + "/"):
        return "~" + directory.removeprefix(home)
    return directory


def age_text(time: datetime | None, now: datetime) -> str:
    """Write how long ago a time was, or its date here where that is over a week; empty for none."""
    if time is None:
        return ""
    seconds = int((now - time).total_seconds())
    for limit, length, unit in _AGES:
        if 0 <= seconds < limit:
            return f"{seconds // length} {unit} ago"
    return here(time).date().isoformat()


def here(time: datetime) -> datetime:
    """Give a time in the time zone of this machine, where the calendar has it."""
    try:
        return time.astimezone()
    except OverflowError:  # at the very ends of the calendar
        return time
