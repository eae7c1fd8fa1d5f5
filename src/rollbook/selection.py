"""Which threads are asked for, and where something is looked for: the same in commands and requests.

The fields have the names that their options and parameters have.
"""

from collections.abc import Iterator
from datetime import datetime
from typing import Annotated, Any

import msgspec

from rollbook.errors import ThreadNotFoundError, UsageError
from rollbook.model.paging import Anchor, SortKey, ThreadsPage
from rollbook.model.thread import ThreadMetadata
from rollbook.model.times import from_epoch
from rollbook.runtime import StateRuntime

_AT_ONCE = 200
Seconds = Annotated[
    int, msgspec.Meta(ge=-(1 << 40), le=1 << 40, description="Epoch seconds, in UTC.")
]


def find_thread(state: StateRuntime, text: str) -> ThreadMetadata:
    """Find the thread that an id or its beginning means.

    Errors: InvalidThreadIdError, AmbiguousIdError, ThreadNotFoundError.
    """
    thread_id = state.resolve_thread_id(text)
    thread = state.get_thread(thread_id)
    if thread is None:
        raise ThreadNotFoundError(f"there is no thread {thread_id} in {state.codex_home}")
    return thread


class _Filters(msgspec.Struct, frozen=True, kw_only=True):
    """What threads have to have, whoever asks for them."""

    sources: tuple[str, ...] = msgspec.field(default=(), name="source")
    providers: tuple[str, ...] = msgspec.field(default=(), name="provider")
    cwd: str | None = None
    title: str | None = None
    project: str | None = None
    tags: tuple[str, ...] = msgspec.field(default=(), name="tag")
    pinned: bool | None = None


class Selection(_Filters, frozen=True, kw_only=True):
    """Which threads of a list are asked for; see :meth:`rollbook.StateRuntime.list_threads`.

    ``everything`` adds those in which nobody has said anything.
    """

    archived: bool = False
    everything: bool = msgspec.field(default=False, name="all")

    def page(
        self,
        state: StateRuntime,
        limit: int,
        anchor: Anchor | None,
        sort: SortKey,
        *,
        patience_s: float | None = None,
    ) -> ThreadsPage:
        """Read a page of them."""
        return state.list_threads(
            limit,
            anchor,
            sort,
            self.sources,
            self.providers,
            self.archived,
            cwd=self.cwd,
            title_contains=self.title,
            include_silent=self.everything,
            project=self.project,
            tags=self.tags,
            pinned=self.pinned,
            patience_s=patience_s,
        )

    def threads(self, state: StateRuntime) -> Iterator[ThreadMetadata]:
        """Read all of them, the newest first."""
        anchor = None
        while True:
            page = self.page(state, _AT_ONCE, anchor, SortKey.CREATED_AT)
            yield from page.items
            if page.next_anchor is None:
                return
            anchor = page.next_anchor


class Reach(_Filters, frozen=True, kw_only=True):
    """Where something is looked for: in archived threads, too, unless that is said.

    ``since`` and ``until`` are epoch seconds; of ``thread_id`` the beginning will do.
    """

    thread_id: str | None = None
    since: Seconds | None = None
    until: Seconds | None = None
    archived: bool | None = None

    def arguments(self, state: StateRuntime) -> dict[str, Any]:
        """Give it as the arguments of :meth:`StateRuntime.search` and :meth:`StateRuntime.usage`.

        Errors: UsageError for a time beyond the calendar; those of an id that isn't one thread's.
        """
        return {
            "thread_id": state.resolve_thread_id(self.thread_id) if self.thread_id else None,
            "since": _time(self.since),
            "until": _time(self.until),
            "allowed_sources": self.sources,
            "model_providers": self.providers,
            "archived": self.archived,
            "cwd": self.cwd,
            "title_contains": self.title,
            "project": self.project,
            "tags": self.tags,
            "pinned": self.pinned,
        }


def _time(seconds: int | None) -> datetime | None:
    if seconds is None:
        return None
    try:
        return from_epoch(seconds)
    except OverflowError as error:
        raise UsageError(f"{seconds} is beyond all calendars", hint="say epoch seconds") from error
