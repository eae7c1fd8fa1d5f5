"""A structured log row, and the question that is put to the logs (behaviour.md 121, 128)."""

from collections.abc import Sequence
from typing import Annotated

import msgspec

_Integer = Annotated[int, msgspec.Meta(ge=-(1 << 63), le=(1 << 63) - 1)]  # what databases keep


class LogEntry(msgspec.Struct, frozen=True):
    """A log row before it is stored.

    ``ts`` is whole seconds since the epoch, UTC, ``ts_nanos`` the nanoseconds beyond them.
    ``level`` is TRACE, DEBUG, INFO, WARN or ERROR.  ``target`` says which part of a program speaks.
    ``thread_id`` is kept as it is, UUID or not (behaviour.md 123).
    """

    ts: _Integer
    ts_nanos: _Integer
    level: str
    target: str
    message: str | None = None
    thread_id: str | None = None
    module_path: str | None = None
    file: str | None = None
    line: _Integer | None = None


class LogRow(msgspec.Struct, frozen=True):
    """A log row as it is read: an entry with its ``id``, without the module (behaviour.md 130).

    ``host`` is where it was written, empty for this machine alone.
    """

    id: int
    ts: int
    ts_nanos: int
    level: str
    target: str
    message: str | None
    thread_id: str | None
    file: str | None
    line: int | None
    host: str = ""


class LogQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Which log rows are asked for; what is absent or empty doesn't restrict (behaviour.md 128).

    ``level`` matches that level only, whatever its case; WARNING is WARN.  ``from_ts`` and
    ``to_ts`` are epoch seconds, both inclusive.  ``module_like`` and ``file_like`` match rows that
    hold any of the texts, ``search`` rows whose message holds the text; all three are taken
    literally and ignore ASCII case.  ``thread_ids`` matches any of these threads,
    ``include_threadless`` the rows without one, beside those or alone.  ``after_id`` matches larger
    ids, ``up_to_id`` ids that are not larger.  At most ``limit`` rows come, ordered by id, the
    largest first if ``descending``.
    """

    level: str | None = None
    from_ts: int | None = None
    to_ts: int | None = None
    module_like: Sequence[str] = ()
    file_like: Sequence[str] = ()
    thread_ids: Sequence[str] = ()
    include_threadless: bool = False
    search: str | None = None
    after_id: int | None = None
    up_to_id: int | None = None
    limit: int | None = None
    descending: bool = False


class LogLimits(msgspec.Struct, frozen=True, kw_only=True):
    """How much is kept of the logs; what is oldest goes first.

    ``retention_days`` is the age that rows may reach, ``max_bytes`` the size of the file,
    ``max_thread_bytes`` about the size of one thread's rows, or of all those without a thread.
    """

    retention_days: int = 90
    max_bytes: int = 512 << 20
    max_thread_bytes: int = 64 << 20
