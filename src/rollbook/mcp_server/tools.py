"""What the server offers: five ways to look something up, none of which changes anything."""

from collections.abc import Sequence
from datetime import datetime
from functools import partial
from typing import Annotated, Literal

import msgspec
from pydantic import Field

from rollbook.aio import AsyncStateRuntime
from rollbook.errors import UsageError
from rollbook.mcp_server.recorded import Page, Record, cut
from rollbook.model.log import LogQuery, LogRow
from rollbook.model.paging import SortKey, parse_cursor
from rollbook.model.search import SearchHit, SearchSort
from rollbook.model.thread import DynamicToolSpec, ThreadMetadata
from rollbook.model.times import format_time, from_epoch, parse_time, to_epoch
from rollbook.model.transcript import ItemKind, TranscriptItem

_TITLE = 200  # characters
_MOST = 50

Role = Literal["user", "assistant", "tool"]
ThreadId = Annotated[str, Field(description="A thread's id, or an unambiguous beginning of it.")]
Limit = Annotated[int, Field(ge=1, le=_MOST, description="How many at most.")]
Cursor = Annotated[
    str | None, Field(description="To go on: the cursor that the result before has given.")
]
Time = Annotated[str | None, Field(description="RFC 3339, as 2026-01-27T12:00:00Z.")]
Directory = Annotated[
    str | None, Field(description="Only threads that worked in this directory: an absolute path.")
]


class Tools:
    """The tools, on top of a state."""

    def __init__(self, state: AsyncStateRuntime) -> None:
        self._state = state

    async def search_threads(
        self,
        text: Annotated[
            str,
            Field(
                description='Words that all have to be in one message; "a phrase"; begin* of a word;'
                " -without; `part of a word or code` in backticks."
            ),
        ],
        limit: Limit = 10,
        cursor: Cursor = None,
        roles: Annotated[
            Sequence[Role], Field(description="Who said it; tools only where they are indexed.")
        ] = ("user", "assistant"),
        newest_first: Annotated[
            bool, Field(description="By time alone, instead of the best first.")
        ] = False,
        since: Time = None,
        cwd: Directory = None,
    ) -> str:
        """Find messages of earlier sessions by what they say.

        Begin here to learn how something was solved before. Each hit has its thread and a position:
        read_thread shows what was said and done around it.
        """
        find = partial(
            self._state.search,
            text,
            cursor=cursor,
            roles=tuple(roles),
            sort=SearchSort.NEWEST if newest_first else SearchSort.RELEVANCE,
            since=_time(since),
            cwd=cwd,
        )
        page = await find(limit=limit)
        result = Page(map(_hit, page.hits))
        if result.count < len(page.hits):  # for the cursor behind the last that fits
            page = await find(limit=result.count)
        return result.result(
            [
                _more(page.next_cursor),
                "" if page.is_indexed else "Not all sessions are indexed yet: there may be more.",
                ""
                if page.is_complete
                else "That is nearly everywhere: say more to narrow it down.",
            ]
        )

    async def list_threads(
        self,
        limit: Limit = 20,
        cursor: Cursor = None,
        cwd: Directory = None,
        title_contains: Annotated[
            str | None, Field(description="Only threads with this text in their title.")
        ] = None,
        sources: Annotated[
            Sequence[str], Field(description="Only threads from there: cli, exec, vscode, …")
        ] = (),
        archived: Annotated[bool, Field(description="Archived threads instead.")] = False,
    ) -> str:
        """List earlier sessions, those with the latest turn first."""
        find = partial(
            self._state.list_threads,
            anchor=parse_cursor(cursor) if cursor else None,
            sort_key=SortKey.RECENCY_AT,
            allowed_sources=tuple(sources),
            archived_only=archived,
            cwd=cwd,
            title_contains=title_contains,
        )
        page = await find(limit)
        result = Page(map(_thread, page.items))
        if result.count < len(page.items):  # for the cursor behind the last that fits
            page = await find(result.count)
        return result.result([_more(page.next_cursor)])

    async def read_thread(
        self,
        thread_id: ThreadId,
        at: Annotated[
            str | None,
            Field(description="Begin at this position, or at `start`; the last items without one."),
        ] = None,
        before: Annotated[str | None, Field(description="What comes before a position.")] = None,
        after: Annotated[str | None, Field(description="What comes after a position.")] = None,
        limit: Limit = 20,
        whole_text: Annotated[
            bool, Field(description="Without cutting long texts: for one item, with limit 1.")
        ] = False,
    ) -> str:
        """Read what was said and done in a session, a page at a time, oldest first."""
        resolved = await self._state.resolve_thread_id(thread_id)
        page = await self._state.read_thread(
            resolved, limit=limit, before=before, after=after, at=at
        )
        backward = at is None and after is None
        items = page.items[::-1] if backward else page.items
        result = Page(_item(item, whole=whole_text) for item in items)
        earlier, later = page.before, page.after
        if result.count < len(items):
            last = items[result.count - 1].position
            earlier, later = (last, later) if backward else (earlier, last)
        return result.result(
            [
                f"Earlier: before={earlier!r}" if earlier else "",
                f"Later: after={later!r}" if later else "",
            ],
            is_backward=backward,
        )

    async def get_dynamic_tools(self, thread_id: ThreadId) -> str:
        """Read which tools the client of a session had offered to its model, with their schemas."""
        resolved = await self._state.resolve_thread_id(thread_id)
        specs = await self._state.get_dynamic_tools(resolved) or []
        result = Page(map(_tool, specs))
        left = len(specs) - result.count
        return result.result([f"{left} more don't fit." if left else ""])

    async def query_logs(
        self,
        thread_id: Annotated[
            str | None, Field(description="Only rows of this thread: its id, or a beginning of it.")
        ] = None,
        level: Annotated[
            Literal["error", "warn", "info", "debug", "trace"] | None,
            Field(description="Only this level."),
        ] = None,
        text: Annotated[
            str | None, Field(description="Only with this text in the message.")
        ] = None,
        since: Time = None,
        until: Time = None,
        before_id: Annotated[
            int | None, Field(description="To go on: rows before this one.")
        ] = None,
        limit: Limit = 20,
    ) -> str:
        """Read log rows that agents and their programs have written, the newest first."""
        ids = () if thread_id is None else (await self._state.resolve_thread_id(thread_id),)
        rows = await self._state.query_logs(
            LogQuery(
                level=level,
                from_ts=_epoch(since),
                to_ts=_epoch(until),
                thread_ids=ids,
                search=text,
                up_to_id=None if before_id is None else before_id - 1,
                limit=limit,
                descending=True,
            )
        )
        result = Page(map(_row, rows))
        has_more = result.count < len(rows) or len(rows) == limit
        return result.result([f"More: before_id={rows[result.count - 1].id}" if has_more else ""])


def _time(text: str | None) -> datetime | None:
    if text is None:
        return None
    time = parse_time(text)
    if time is None:
        raise UsageError(f"{text[:50]!r} is no time", hint="say 2026-01-27T12:00:00Z")
    return time


def _epoch(text: str | None) -> int | None:
    time = _time(text)
    return None if time is None else to_epoch(time)


def _more(cursor: str | None) -> str:
    return f"More: cursor={cursor!r}" if cursor else ""


def _thread(thread: ThreadMetadata) -> Record:
    return {
        "thread": thread.id,
        "title": cut(thread.name or thread.title, _TITLE),
        "last_turn": thread.recency_at and format_time(thread.recency_at),
        "cwd": thread.cwd,
        "model": thread.model,
        "git_branch": thread.git_branch,
        "source": thread.source,
        "archived": True if thread.archived_at else None,
    }


def _hit(hit: SearchHit) -> Record:
    return {
        "thread": hit.thread.id,
        "title": cut(hit.thread.name or hit.thread.title, _TITLE),
        "cwd": hit.thread.cwd,
        "position": hit.position,
        "role": hit.role,
        "time": hit.time and format_time(hit.time),
        "snippet": hit.snippet,
    }


def _item(item: TranscriptItem, *, whole: bool) -> Record:
    text = item.text if whole else cut(item.text)
    where = f", on host {item.host}" if item.host else ""
    return {
        "position": item.position,
        "kind": item.kind.value if item.kind is not ItemKind.MESSAGE else None,
        "role": item.role,
        "name": item.name,
        "time": item.time and format_time(item.time),
        "text": f"{text} ({item.omitted:,} more were not read{where})" if item.omitted else text,
    }


def _tool(spec: DynamicToolSpec) -> Record:
    return {
        "name": f"{spec.namespace}.{spec.name}" if spec.namespace else spec.name,
        "description": cut(spec.description),
        "input_schema": cut(msgspec.json.encode(spec.input_schema).decode()),
    }


def _row(row: LogRow) -> Record:
    return {
        "id": row.id,
        "time": format_time(from_epoch(row.ts)),
        "level": row.level,
        "target": row.target,
        "thread": row.thread_id,
        "message": cut(row.message or ""),
    }
