"""Keyset paging: where a page starts, what it holds, and the text form of a cursor."""

from datetime import datetime
from enum import StrEnum

import msgspec

from rollbook.errors import InvalidCursorError, InvalidThreadIdError
from rollbook.model.thread import ThreadMetadata, clean_text, parse_thread_id
from rollbook.model.times import format_time, parse_time


class SortKey(StrEnum):
    """The time by which a listing is ordered, newest first."""

    CREATED_AT = "created"
    UPDATED_AT = "updated"
    RECENCY_AT = "recency"


class Anchor(msgspec.Struct, frozen=True):
    """A place in a listing: what comes strictly after it is older, or as old with a smaller id.

    The row that it names need not exist (behaviour.md 72).  ``host`` matters only where several
    hosts have a thread of that id.
    """

    ts: datetime
    id: str
    host: str = ""


class ThreadFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which threads a listing shows.

    Empty ``sources`` and empty or absent ``providers`` don't restrict (behaviour.md 70).
    ``archived`` selects archived or unarchived threads, never both (69).  ``cwds`` are directories
    as they were recorded, compared for equality; ``title_contains`` is taken literally and ignores
    ASCII case.  ``include_silent`` adds the threads in which nobody has said anything (77).
    ``groups`` are those that the database lists threads by.  ``tags`` must all be there; ``pinned``
    selects threads that are pinned, or that are not.
    """

    sources: tuple[str, ...] = ()
    providers: tuple[str, ...] | None = None
    archived: bool = False
    cwds: tuple[str, ...] | None = None
    title_contains: str | None = None
    include_silent: bool = False
    groups: tuple[int, ...] | None = None
    tags: tuple[str, ...] = ()
    pinned: bool | None = None


class ThreadsPage(msgspec.Struct, frozen=True):
    """One page of threads.

    Of ``title`` and ``preview``, ``items`` have the first 300 characters; whoever looks a thread up
    gets them whole.
    ``next_anchor`` is None on the last page.  ``num_scanned_rows`` counts the rows read, the one
    that shows whether there is more included (behaviour.md 73).
    """

    items: list[ThreadMetadata]
    next_anchor: Anchor | None
    num_scanned_rows: int

    @property
    def next_cursor(self) -> str | None:
        """``next_anchor`` as text."""
        return format_cursor(self.next_anchor) if self.next_anchor else None


def format_cursor(anchor: Anchor) -> str:
    """Write an anchor as ``<RFC 3339 time>|<uuid>``, and ``@<host>`` if it has one.

    Source: behaviour.md 91.
    """
    host = f"@{anchor.host}" if anchor.host else ""
    return f"{format_time(anchor.ts)}|{anchor.id}{host}"


def parse_cursor(text: str) -> Anchor:
    """Read a cursor; either form of time is accepted (behaviour.md 92, 93).

    Errors: InvalidCursorError for anything that isn't a cursor.
    """
    time_text, separator, rest = text.partition("|")
    id_text, _, host = rest.partition("@")
    time = parse_time(time_text)
    if not separator or time is None:
        raise _not_a_cursor(text)
    try:
        return Anchor(time, parse_thread_id(id_text), clean_text(host))
    except InvalidThreadIdError as error:
        raise _not_a_cursor(text) from error


def _not_a_cursor(text: str) -> InvalidCursorError:
    return InvalidCursorError(
        f"{text[:100]!r} is not a cursor",
        hint="pass next_cursor of the previous page unchanged",
    )
