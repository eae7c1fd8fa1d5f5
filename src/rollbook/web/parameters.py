"""What can be asked for in the address of a page, or of the API."""

from enum import StrEnum
from functools import cache
from typing import Annotated, Literal, TypeVar

import msgspec
from starlette.requests import Request

from rollbook.errors import UsageError
from rollbook.model.log import LogQuery
from rollbook.model.paging import SortKey, ThreadsPage, parse_cursor
from rollbook.model.search import SearchPage, SearchSort
from rollbook.model.transcript import TranscriptPage
from rollbook.model.usage import UsageKey
from rollbook.runtime import StateRuntime
from rollbook.selection import Reach, Seconds, Selection

Limit = Annotated[int, msgspec.Meta(ge=1, le=200, description="How many at most.")]
Cursor = Annotated[str | None, msgspec.Meta(description="To go on: `next_cursor` of a page.")]
Position = Annotated[str | None, msgspec.Meta(description="A position of an item or of a hit.")]
LogId = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]


class NoParameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """None at all."""


class ThreadsParameters(Selection, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A page of threads."""

    limit: Limit = 50
    cursor: Cursor = None
    sort: SortKey = SortKey.RECENCY_AT

    def find(self, state: StateRuntime, patience_s: float | None = None) -> ThreadsPage:
        """Find what was asked for."""
        anchor = None if self.cursor is None else parse_cursor(self.cursor)
        return self.page(state, self.limit, anchor, self.sort, patience_s=patience_s)


class TranscriptParameters(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A page of a thread: its end, or what is before, after, or at a position."""

    limit: Limit = 50
    before: Position = None
    after: Position = None
    at: Position = None

    def find(self, state: StateRuntime, thread_id: str) -> TranscriptPage:
        """Find what was asked for, in a thread."""
        return state.read_thread(
            thread_id, limit=self.limit, before=self.before, after=self.after, at=self.at
        )


class SearchParameters(Reach, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A page of messages that say something."""

    q: Annotated[str, msgspec.Meta(description="Words, phrases, beginnings* and -exclusions.")]
    limit: Limit = 20
    cursor: Cursor = None
    sort: SearchSort = SearchSort.RELEVANCE
    substring: bool = False
    roles: Annotated[
        tuple[Literal["user", "assistant", "tool"], ...],
        msgspec.Meta(description="Who said it. Without: user and assistant."),
    ] = msgspec.field(default=(), name="role")

    def find(self, state: StateRuntime) -> SearchPage:
        """Find what was asked for."""
        return state.search(
            self.q,
            limit=self.limit,
            cursor=self.cursor,
            sort=self.sort,
            substring=self.substring,
            roles=self.roles or ("user", "assistant"),
            **self.arguments(state),
        )


class UsageParameters(Reach, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What was used, a row for each combination of values."""

    by: Annotated[tuple[UsageKey, ...], msgspec.Meta(max_length=4)] = (UsageKey.DAY,)
    time_zone: Annotated[str | None, msgspec.Meta(description="Whose days: Asia/Tokyo.")] = None


class LogsOf(StrEnum):
    """Who keeps the logs."""

    ROLLBOOK = "rollbook"
    CODEX = "codex"


class LogsParameters(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Log rows: the last ones, or those before or after an id."""

    of: Annotated[
        LogsOf | None, msgspec.Meta(description="Rollbook's own logs, or Codex's. Without: own.")
    ] = None
    level: str | None = None
    since: Seconds | None = None
    until: Seconds | None = None
    modules: tuple[str, ...] = msgspec.field(default=(), name="module")
    files: tuple[str, ...] = msgspec.field(default=(), name="file")
    thread_ids: tuple[str, ...] = msgspec.field(default=(), name="thread_id")
    threadless: bool = False
    search: str | None = None
    before: LogId | None = None
    after: LogId | None = None
    limit: Limit = 100

    def query(self) -> LogQuery:
        """Give it as a question to the logs; of those after an id the first come, else the last."""
        return LogQuery(
            level=self.level,
            from_ts=self.since,
            to_ts=self.until,
            module_like=self.modules,
            file_like=self.files,
            thread_ids=self.thread_ids,
            include_threadless=self.threadless,
            search=self.search,
            after_id=self.after,
            up_to_id=None if self.before is None else self.before - 1,
            limit=self.limit,
            descending=self.after is None,
        )


_Kind = TypeVar("_Kind", bound=msgspec.Struct)


def read_parameters(kind: type[_Kind], request: Request, *, of_form: bool = False) -> _Kind:
    """Read the parameters of a request; what a form has left empty was not given.

    Errors: UsageError for what isn't known, is there twice, or has another form.
    """
    given: dict[str, list[str]] = {}
    for name, value in request.query_params.multi_items():
        if value or not of_form:
            given.setdefault(name, []).append(value)
    many = _list_fields(kind)
    for name, values in given.items():
        if name not in many and len(values) > 1:
            raise UsageError(f"{name[:50]!r} is there {len(values)} times", hint="give it once")
    single_or_many = {name: found if name in many else found[0] for name, found in given.items()}
    try:
        return msgspec.convert(single_or_many, kind, strict=False)
    except msgspec.ValidationError as error:
        raise UsageError(f"that can't be asked for: {error}") from error


@cache
def _list_fields(kind: type[msgspec.Struct]) -> frozenset[str]:
    """Name the parameters that may be given several times."""
    described = msgspec.inspect.type_info(kind)
    if not isinstance(described, msgspec.inspect.StructType):
        raise TypeError(f"{kind} has no fields")
    return frozenset(
        field.encode_name
        for field in described.fields
        if isinstance(field.type, msgspec.inspect.VarTupleType)
        or isinstance(getattr(field.type, "type", None), msgspec.inspect.VarTupleType)
    )
