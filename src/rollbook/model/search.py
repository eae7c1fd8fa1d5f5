"""What is found in the texts of threads."""

from collections.abc import Iterator
from datetime import datetime
from enum import IntEnum, StrEnum

import msgspec

from rollbook.model.thread import ThreadMetadata

ROLES = ("user", "assistant", "tool")  # who says something in a thread


class TextScope(IntEnum):
    """What can be searched of what was said in a thread."""

    NOTHING = 0
    MESSAGES = 1
    TOOLS = 2  # calls and output of tools, beside the messages


class SearchSort(StrEnum):
    """The order of what is found: the best first, of which newer is better, or the newest."""

    RELEVANCE = "relevance"
    NEWEST = "newest"


class SearchHit(msgspec.Struct, frozen=True):
    """A message in which something was found.

    ``position`` is that of its record, as :meth:`rollbook.StateRuntime.read_thread` takes it.
    ``snippet`` is the part of the message around the best match, on one line; ``marks`` are the
    beginnings and ends of matches in it, in characters.  ``score`` is between 0 and 1.
    """

    thread: ThreadMetadata
    position: str
    role: str
    time: datetime | None
    snippet: str
    marks: tuple[tuple[int, int], ...]
    score: float

    def pieces(self) -> Iterator[tuple[str, bool]]:
        """Give the snippet piece by piece, with whether each is a match."""
        at = 0
        for start, end in self.marks:
            yield self.snippet[at:start], False
            yield self.snippet[start:end], True
            at = end
        yield self.snippet[at:], False


class SearchPage(msgspec.Struct, frozen=True):
    """One page of what was found.

    ``next_cursor`` is None on the last page.  ``is_complete`` says that every place where something
    could be was looked at: of what is nearly everywhere, only the newest is.  ``is_indexed`` says
    that all rollouts had been read for what they say.
    """

    hits: list[SearchHit]
    next_cursor: str | None = None
    is_complete: bool = True
    is_indexed: bool = True
