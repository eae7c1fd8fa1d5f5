"""One page of what is found, with the threads that it is in."""

import re
import time
from collections.abc import Callable
from datetime import datetime

import msgspec

from rollbook.content.database import ContentDatabase
from rollbook.content.places import by_key
from rollbook.content.query import Query, parse_query
from rollbook.content.search import Asked, Chunks, Match, find, snippet
from rollbook.errors import InvalidCursorError, UsageError
from rollbook.index.source import Source
from rollbook.model.paging import ThreadFilter
from rollbook.model.search import ROLES, SearchHit, SearchPage, SearchSort, TextScope
from rollbook.model.times import from_epoch, to_epoch, whole_seconds
from rollbook.store import files, threads
from rollbook.store.files import Located

_CURSOR = re.compile(r"(\d{1,9})@(\d{1,12})", re.ASCII)
_MOST_HITS = 10_000  # on all pages of one search


class SearchRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What :meth:`rollbook.StateRuntime.search` was asked; ``anywhere``: archived or not."""

    text: str
    limit: int
    cursor: str | None
    sort: SearchSort
    substring: bool
    roles: tuple[str, ...]
    thread_id: str | None
    since: datetime | None
    until: datetime | None
    threads: ThreadFilter
    anywhere: bool


Finder = Callable[[Asked, int], tuple[list[Match], bool]]


def search_page(
    content: ContentDatabase, source: Source, request: SearchRequest, finder: Finder | None = None
) -> SearchPage:
    """Find one page: by the content database, or by something else that finds.

    Errors: UsageError for a text without words, an unknown role, a limit below 1, or what isn't
    indexed; InvalidCursorError.
    """
    if request.limit < 1:
        raise UsageError(f"a page can't have {request.limit} hits", hint="ask for 1 or more")
    query = parse_query(request.text, substring=request.substring)
    state = content.state()
    _check_roles(request.roles, state.scope)
    skipped, now = _parse_cursor(request.cursor) if request.cursor else (0, int(time.time()))
    most = min(skipped + request.limit, _MOST_HITS)

    def rollouts(thread_ids: set[str]) -> dict[str, Located]:
        with source.engine.read() as tx:
            allowed = threads.among(tx, thread_ids, request.threads, anywhere=request.anywhere)
            return by_key(files.located(tx, allowed))

    def in_chunks(asked: Asked, most: int) -> tuple[list[Match], bool]:
        return content.read(lambda tx: find(asked, most, Chunks(tx, source.home, asked, rollouts)))

    asked = Asked(
        query=query,
        roles=request.roles,
        sort=request.sort,
        now=now,
        since=_epoch(request.since),
        until=_epoch(request.until),
        thread_id=request.thread_id,
    )
    found, is_complete = (finder or in_chunks)(asked, most + 1)
    hits = _hits(source, query, found[skipped:most])
    has_more = len(found) > most and most < _MOST_HITS
    return SearchPage(
        hits=hits,
        next_cursor=f"{most}@{now}" if has_more else None,
        is_complete=is_complete,
        is_indexed=state.completed_at is not None or finder is not None,
    )


def _check_roles(roles: tuple[str, ...], scope: TextScope) -> None:
    unknown = [role for role in roles if role not in ROLES]
    if unknown or not roles:
        named = f"{unknown[0]!r:.50} is no role" if unknown else "no role was named"
        raise UsageError(named, hint=f"roles are {', '.join(ROLES)}")
    if scope is TextScope.NOTHING:
        raise UsageError(
            "what was said is not indexed here", hint="run `rollbook sync --text` to have it so"
        )
    if "tool" in roles and scope is not TextScope.TOOLS:
        raise UsageError(
            "calls and output of tools are not indexed here",
            hint="run `rollbook sync --text=tools` to have them so",
        )


def _parse_cursor(cursor: str) -> tuple[int, int]:
    if match := _CURSOR.fullmatch(cursor):
        return int(match[1]), int(match[2])
    raise InvalidCursorError(
        f"{cursor[:100]!r} is not a cursor", hint="pass next_cursor of the previous page unchanged"
    )


def _epoch(time: datetime | None) -> int | None:
    return None if time is None else to_epoch(whole_seconds(time))


def _hits(source: Source, query: Query, found: list[Match]) -> list[SearchHit]:
    thread_ids = {match.thread_id for match in found}
    with source.engine.read() as tx:
        looked_up = threads.whole(tx, str(source.home), thread_ids, source.leave_out)
    shown = zip(looked_up, source.annotations.shown(looked_up), strict=True)
    known = {(thread.id, thread.host): as_shown for thread, as_shown in shown}
    hits = []
    for match in found:
        if (match.thread_id, match.host) in known:  # else it has just gone
            line, marks = snippet(query, match.text)
            hits.append(
                SearchHit(
                    thread=known[match.thread_id, match.host],
                    position=match.position,
                    role=match.role,
                    time=from_epoch(match.time) if match.time else None,
                    snippet=line,
                    marks=marks,
                    score=round(match.score, 4),
                )
            )
    return hits
