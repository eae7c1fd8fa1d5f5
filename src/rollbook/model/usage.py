"""What threads have used: tokens, by day, model, project and the like, and what that costs."""

from decimal import Decimal
from enum import StrEnum

import msgspec


class UsageKey(StrEnum):
    """What usage can be told by.

    A day, a week (it begins on Monday) and a month are those of the reader's time zone.  A project
    is a repository, or the directory where there is none.
    """

    DAY = "day"
    WEEK = "week"
    MONTH = "month"
    MODEL = "model"
    PROJECT = "project"
    SOURCE = "source"
    PROVIDER = "provider"
    THREAD = "thread"


class Tokens(msgspec.Struct, frozen=True, array_like=True):
    """Counts of tokens.

    ``cached_input`` is a part of ``input``, and ``reasoning_output`` one of ``output``.
    """

    input: int = 0
    cached_input: int = 0
    output: int = 0
    reasoning_output: int = 0
    total: int = 0

    def plus(self, other: "Tokens") -> "Tokens":
        """Add two counts."""
        return Tokens(*map(sum, zip(_values(self), _values(other), strict=True)))

    def beyond(self, other: "Tokens") -> "Tokens":
        """Take another count off, never below nothing."""
        pairs = zip(_values(self), _values(other), strict=True)
        return Tokens(*(max(0, mine - theirs) for mine, theirs in pairs))

    def is_within(self, other: "Tokens") -> bool:
        """Say whether no more of anything is in this than in another."""
        return all(mine <= its for mine, its in zip(_values(self), _values(other), strict=True))


class UsageRow(msgspec.Struct, frozen=True, kw_only=True):
    """What was used by one value of each key, in the order in which keys were asked for.

    ``requests`` counts what the model was asked.  ``cost`` is None without prices, or where one of
    the models has none.
    """

    keys: tuple[str, ...]
    requests: int
    tokens: Tokens
    cost: Decimal | None = None


class UsageReport(msgspec.Struct, frozen=True, kw_only=True):
    """What was used, in rows ordered by their keys, and in all.

    ``unpriced`` names the models that have no price; what they used is in no cost, so that a total
    has none either.  ``is_complete`` says that all rollouts had been read for it.
    """

    by: tuple[UsageKey, ...]
    rows: list[UsageRow]
    total: UsageRow
    currency: str = ""
    unpriced: tuple[str, ...] = ()
    is_complete: bool = True


def _values(tokens: Tokens) -> tuple[int, ...]:
    values: tuple[int, ...] = msgspec.structs.astuple(tokens)
    return values
