"""The same state for asyncio: each method is one hop to a worker thread, for a whole operation.

Cancellation: a caller that is cancelled stops waiting at once.  A read is then of no consequence;
a write that has begun runs to its end in its thread, so that it happens whole or not at all.
"""

import asyncio
import os
import threading
from collections.abc import (
    AsyncIterator,
    Callable,
    Generator,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, tzinfo
from functools import partial
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from rollbook.model.deletion import DeletionReport
from rollbook.model.lineage import LineageNode
from rollbook.model.log import LogEntry, LogLimits, LogQuery, LogRow
from rollbook.model.outcome import BackfillStats, ProgressCallback, WatchUpdate
from rollbook.model.paging import Anchor, SortKey, ThreadsPage
from rollbook.model.prices import Prices
from rollbook.model.project import Project
from rollbook.model.search import SearchPage, SearchSort, TextScope
from rollbook.model.thread import DynamicToolSpec, ThreadMetadata, ThreadMetadataBuilder
from rollbook.model.transcript import TranscriptItem, TranscriptPage
from rollbook.model.usage import UsageKey, UsageReport
from rollbook.rollout.lines import RolloutItem
from rollbook.runtime import StateRuntime

_ITEMS_AT_ONCE = 100
_THREADS = 5  # one writer and four readers: more could only wait
_Result = TypeVar("_Result")


class AsyncStateRuntime:
    """:class:`rollbook.StateRuntime` as coroutines: same names, arguments, results and errors."""

    def __init__(self, runtime: StateRuntime, executor: ThreadPoolExecutor) -> None:
        self._runtime = runtime
        self._executor = executor

    @classmethod
    def open(
        cls,
        home: str | os.PathLike[str] | None = None,
        *,
        default_provider: str = "openai",
        database: str | os.PathLike[str] | None = None,
        backfill: bool = True,
        temporary: bool | None = None,
        log_limits: LogLimits = LogLimits(),
        read_database: str | None = None,
        host: str | None = None,
    ) -> "Opening":
        """See :meth:`rollbook.StateRuntime.open`.

        ``async with AsyncStateRuntime.open() as state`` closes it at the end,
        ``state = await AsyncStateRuntime.open()`` leaves that to the caller.
        """
        return Opening(
            partial(
                StateRuntime.open,
                home,
                default_provider=default_provider,
                database=database,
                backfill=backfill,
                temporary=temporary,
                log_limits=log_limits,
                read_database=read_database,
                host=host,
            )
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """See :meth:`rollbook.StateRuntime.close`."""
        await self._run(self._runtime.close)
        self._executor.shutdown(wait=False)

    def before_closing(self, finish: Callable[[], None]) -> Callable[[], None]:
        """See :meth:`rollbook.StateRuntime.before_closing`; called in a worker thread."""
        return self._runtime.before_closing(finish)

    @property
    def blocking(self) -> StateRuntime:
        """The same state without the hop, for what works in a thread of its own."""
        return self._runtime

    @property
    def is_closed(self) -> bool:
        """See :attr:`rollbook.StateRuntime.is_closed`."""
        return self._runtime.is_closed

    @property
    def codex_home(self) -> Path:
        """See :attr:`rollbook.StateRuntime.codex_home`."""
        return self._runtime.codex_home

    @property
    def default_provider(self) -> str:
        """See :attr:`rollbook.StateRuntime.default_provider`."""
        return self._runtime.default_provider

    @property
    def database(self) -> str:
        """See :attr:`rollbook.StateRuntime.database`."""
        return self._runtime.database

    @property
    def degraded(self) -> str:
        """See :attr:`rollbook.StateRuntime.degraded`."""
        return self._runtime.degraded

    @property
    def database_system(self) -> str:
        """See :attr:`rollbook.StateRuntime.database_system`."""
        return self._runtime.database_system

    @property
    def own_database(self) -> str:
        """See :attr:`rollbook.StateRuntime.own_database`."""
        return self._runtime.own_database

    @property
    def host(self) -> str:
        """See :attr:`rollbook.StateRuntime.host`."""
        return self._runtime.host

    async def is_synced(self) -> bool:
        """See :meth:`rollbook.StateRuntime.is_synced`."""
        return await self._run(self._runtime.is_synced)

    async def get_thread(self, thread_id: str) -> ThreadMetadata | None:
        """See :meth:`rollbook.StateRuntime.get_thread`."""
        return await self._run(self._runtime.get_thread, thread_id)

    async def rollout_exists(self, metadata: ThreadMetadata) -> bool:
        """See :meth:`rollbook.StateRuntime.rollout_exists`."""
        return await self._run(self._runtime.rollout_exists, metadata)

    async def resolve_thread_id(self, text: str) -> str:
        """See :meth:`rollbook.StateRuntime.resolve_thread_id`."""
        return await self._run(self._runtime.resolve_thread_id, text)

    async def is_elsewhere(self, metadata: ThreadMetadata) -> bool:
        """See :meth:`rollbook.StateRuntime.is_elsewhere`."""
        return await self._run(self._runtime.is_elsewhere, metadata)

    async def get_dynamic_tools(self, thread_id: str) -> list[DynamicToolSpec] | None:
        """See :meth:`rollbook.StateRuntime.get_dynamic_tools`."""
        return await self._run(self._runtime.get_dynamic_tools, thread_id)

    async def find_rollout_path_by_id(
        self, thread_id: str, archived_only: bool | None = None
    ) -> Path | None:
        """See :meth:`rollbook.StateRuntime.find_rollout_path_by_id`."""
        return await self._run(self._runtime.find_rollout_path_by_id, thread_id, archived_only)

    async def list_threads(
        self,
        page_size: int,
        anchor: Anchor | None = None,
        sort_key: SortKey = SortKey.CREATED_AT,
        allowed_sources: Sequence[str] = (),
        model_providers: Sequence[str] | None = None,
        archived_only: bool = False,
        *,
        cwd: str | None = None,
        title_contains: str | None = None,
        include_silent: bool = False,
        project: str | None = None,
        tags: Sequence[str] = (),
        pinned: bool | None = None,
        patience_s: float | None = None,
    ) -> ThreadsPage:
        """See :meth:`rollbook.StateRuntime.list_threads`."""
        return await self._run(
            self._runtime.list_threads,
            page_size,
            anchor,
            sort_key,
            allowed_sources,
            model_providers,
            archived_only,
            cwd=cwd,
            title_contains=title_contains,
            include_silent=include_silent,
            project=project,
            tags=tags,
            pinned=pinned,
            patience_s=patience_s,
        )

    async def list_thread_ids(
        self,
        limit: int,
        anchor: Anchor | None = None,
        sort_key: SortKey = SortKey.CREATED_AT,
        allowed_sources: Sequence[str] = (),
        model_providers: Sequence[str] | None = None,
        archived_only: bool = False,
        *,
        cwd: str | None = None,
        title_contains: str | None = None,
        include_silent: bool = False,
        project: str | None = None,
        tags: Sequence[str] = (),
        pinned: bool | None = None,
    ) -> list[str]:
        """See :meth:`rollbook.StateRuntime.list_thread_ids`."""
        return await self._run(
            self._runtime.list_thread_ids,
            limit,
            anchor,
            sort_key,
            allowed_sources,
            model_providers,
            archived_only,
            cwd=cwd,
            title_contains=title_contains,
            include_silent=include_silent,
            project=project,
            tags=tags,
            pinned=pinned,
        )

    async def upsert_thread(self, metadata: ThreadMetadata) -> None:
        """See :meth:`rollbook.StateRuntime.upsert_thread`."""
        await self._run(self._runtime.upsert_thread, metadata)

    async def persist_dynamic_tools(
        self, thread_id: str, dynamic_tools: Sequence[DynamicToolSpec] | None
    ) -> None:
        """See :meth:`rollbook.StateRuntime.persist_dynamic_tools`."""
        await self._run(self._runtime.persist_dynamic_tools, thread_id, dynamic_tools)

    async def apply_rollout_items(
        self, builder: ThreadMetadataBuilder, items: Iterable[RolloutItem | Mapping[str, Any]]
    ) -> None:
        """See :meth:`rollbook.StateRuntime.apply_rollout_items`."""
        await self._run(self._runtime.apply_rollout_items, builder, items)

    async def reconcile_rollout(self, rollout_path: str | os.PathLike[str]) -> None:
        """See :meth:`rollbook.StateRuntime.reconcile_rollout`."""
        await self._run(self._runtime.reconcile_rollout, rollout_path)

    async def mark_archived(
        self, thread_id: str, rollout_path: str | os.PathLike[str], archived_at: datetime
    ) -> None:
        """See :meth:`rollbook.StateRuntime.mark_archived`."""
        await self._run(self._runtime.mark_archived, thread_id, rollout_path, archived_at)

    async def mark_unarchived(self, thread_id: str, rollout_path: str | os.PathLike[str]) -> None:
        """See :meth:`rollbook.StateRuntime.mark_unarchived`."""
        await self._run(self._runtime.mark_unarchived, thread_id, rollout_path)

    async def archive_thread(self, thread_id: str) -> ThreadMetadata:
        """See :meth:`rollbook.StateRuntime.archive_thread`."""
        return await self._run(self._runtime.archive_thread, thread_id)

    async def unarchive_thread(self, thread_id: str) -> ThreadMetadata:
        """See :meth:`rollbook.StateRuntime.unarchive_thread`."""
        return await self._run(self._runtime.unarchive_thread, thread_id)

    async def rename_thread(self, thread_id: str, name: str | None) -> ThreadMetadata:
        """See :meth:`rollbook.StateRuntime.rename_thread`."""
        return await self._run(self._runtime.rename_thread, thread_id, name)

    async def tag_thread(self, thread_id: str, tags: Sequence[str]) -> ThreadMetadata:
        """See :meth:`rollbook.StateRuntime.tag_thread`."""
        return await self._run(self._runtime.tag_thread, thread_id, tags)

    async def untag_thread(self, thread_id: str, tags: Sequence[str]) -> ThreadMetadata:
        """See :meth:`rollbook.StateRuntime.untag_thread`."""
        return await self._run(self._runtime.untag_thread, thread_id, tags)

    async def pin_thread(self, thread_id: str) -> ThreadMetadata:
        """See :meth:`rollbook.StateRuntime.pin_thread`."""
        return await self._run(self._runtime.pin_thread, thread_id)

    async def unpin_thread(self, thread_id: str) -> ThreadMetadata:
        """See :meth:`rollbook.StateRuntime.unpin_thread`."""
        return await self._run(self._runtime.unpin_thread, thread_id)

    async def relocate(self, old: str | os.PathLike[str], new: str | os.PathLike[str]) -> int:
        """See :meth:`rollbook.StateRuntime.relocate`."""
        return await self._run(self._runtime.relocate, old, new)

    async def projects(self) -> list[Project]:
        """See :meth:`rollbook.StateRuntime.projects`."""
        return await self._run(self._runtime.projects)

    async def delete_threads(
        self, thread_ids: Sequence[str], *, rollouts: bool = False, dry_run: bool = False
    ) -> DeletionReport:
        """See :meth:`rollbook.StateRuntime.delete_threads`."""
        return await self._run(
            self._runtime.delete_threads, thread_ids, rollouts=rollouts, dry_run=dry_run
        )

    async def prune(
        self,
        older_than: timedelta,
        *,
        keep_pinned: bool = True,
        keep_tags: Sequence[str] = (),
        rollouts: bool = False,
        dry_run: bool = False,
        allowed_sources: Sequence[str] = (),
        model_providers: Sequence[str] | None = None,
        archived_only: bool = False,
        cwd: str | None = None,
        title_contains: str | None = None,
        include_silent: bool = False,
        project: str | None = None,
        tags: Sequence[str] = (),
    ) -> DeletionReport:
        """See :meth:`rollbook.StateRuntime.prune`."""
        return await self._run(
            self._runtime.prune,
            older_than,
            keep_pinned=keep_pinned,
            keep_tags=keep_tags,
            rollouts=rollouts,
            dry_run=dry_run,
            allowed_sources=allowed_sources,
            model_providers=model_providers,
            archived_only=archived_only,
            cwd=cwd,
            title_contains=title_contains,
            include_silent=include_silent,
            project=project,
            tags=tags,
        )

    async def sync(
        self,
        *,
        jobs: int | None = None,
        rebuild: bool = False,
        metadata_only: bool = False,
        text: TextScope | None = None,
        progress: ProgressCallback | None = None,
        wait_s: float = 30.0,
    ) -> BackfillStats:
        """See :meth:`rollbook.StateRuntime.sync`; ``progress`` is called in the worker thread."""
        return await self._run(
            self._runtime.sync,
            jobs=jobs,
            rebuild=rebuild,
            metadata_only=metadata_only,
            text=text,
            progress=progress,
            wait_s=wait_s,
        )

    async def read_thread(
        self,
        thread_id: str,
        *,
        limit: int = 50,
        before: str | None = None,
        after: str | None = None,
        at: str | None = None,
    ) -> TranscriptPage:
        """See :meth:`rollbook.StateRuntime.read_thread`."""
        return await self._run(
            self._runtime.read_thread, thread_id, limit=limit, before=before, after=after, at=at
        )

    async def read_whole_thread(self, thread_id: str) -> AsyncIterator[TranscriptItem]:
        """See :meth:`rollbook.StateRuntime.read_whole_thread`."""
        items = await self._run(self._runtime.read_whole_thread, thread_id)
        while batch := await self._run(_next_of, items):
            for item in batch:
                yield item

    async def lineage(self, thread_id: str) -> LineageNode:
        """See :meth:`rollbook.StateRuntime.lineage`."""
        return await self._run(self._runtime.lineage, thread_id)

    async def search(
        self,
        text: str,
        *,
        limit: int = 20,
        cursor: str | None = None,
        sort: SearchSort = SearchSort.RELEVANCE,
        substring: bool = False,
        roles: Sequence[str] = ("user", "assistant"),
        thread_id: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        allowed_sources: Sequence[str] = (),
        model_providers: Sequence[str] | None = None,
        archived: bool | None = None,
        cwd: str | None = None,
        title_contains: str | None = None,
        project: str | None = None,
        tags: Sequence[str] = (),
        pinned: bool | None = None,
    ) -> SearchPage:
        """See :meth:`rollbook.StateRuntime.search`."""
        return await self._run(
            self._runtime.search,
            text,
            limit=limit,
            cursor=cursor,
            sort=sort,
            substring=substring,
            roles=roles,
            thread_id=thread_id,
            since=since,
            until=until,
            allowed_sources=allowed_sources,
            model_providers=model_providers,
            archived=archived,
            cwd=cwd,
            title_contains=title_contains,
            project=project,
            tags=tags,
            pinned=pinned,
        )

    async def usage(
        self,
        by: Sequence[UsageKey] = (UsageKey.DAY,),
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        time_zone: tzinfo | None = None,
        thread_id: str | None = None,
        allowed_sources: Sequence[str] = (),
        model_providers: Sequence[str] | None = None,
        archived: bool | None = None,
        cwd: str | None = None,
        title_contains: str | None = None,
        project: str | None = None,
        tags: Sequence[str] = (),
        pinned: bool | None = None,
        prices: Prices | None = None,
    ) -> UsageReport:
        """See :meth:`rollbook.StateRuntime.usage`."""
        return await self._run(
            self._runtime.usage,
            by,
            since=since,
            until=until,
            time_zone=time_zone,
            thread_id=thread_id,
            allowed_sources=allowed_sources,
            model_providers=model_providers,
            archived=archived,
            cwd=cwd,
            title_contains=title_contains,
            project=project,
            tags=tags,
            pinned=pinned,
            prices=prices,
        )

    async def watch(
        self, *, check_interval_s: float = 60.0, stop: threading.Event | None = None
    ) -> AsyncIterator[WatchUpdate]:
        """See :meth:`rollbook.StateRuntime.watch`; ends when the iteration over it does, too."""
        ending = _Ending(stop)
        updates = self._runtime.watch(check_interval_s=check_interval_s, stop=ending)
        executor = ThreadPoolExecutor(1, thread_name_prefix="rollbook-watch")
        following = partial(
            asyncio.get_running_loop().run_in_executor, executor, next, updates, None
        )
        try:
            while (update := await following()) is not None:
                yield update
        finally:
            ending.set()
            executor.shutdown(wait=False)

    async def insert_log(self, entry: LogEntry) -> None:
        """See :meth:`rollbook.StateRuntime.insert_log`."""
        await self._run(self._runtime.insert_log, entry)

    async def insert_logs(self, entries: Sequence[LogEntry]) -> None:
        """See :meth:`rollbook.StateRuntime.insert_logs`."""
        await self._run(self._runtime.insert_logs, entries)

    async def query_logs(self, query: LogQuery = LogQuery()) -> list[LogRow]:
        """See :meth:`rollbook.StateRuntime.query_logs`."""
        return await self._run(self._runtime.query_logs, query)

    async def max_log_id(self, query: LogQuery = LogQuery()) -> int:
        """See :meth:`rollbook.StateRuntime.max_log_id`."""
        return await self._run(self._runtime.max_log_id, query)

    async def delete_logs_before(self, ts: int) -> int:
        """See :meth:`rollbook.StateRuntime.delete_logs_before`."""
        return await self._run(self._runtime.delete_logs_before, ts)

    async def _run(
        self, operation: Callable[..., _Result], *arguments: Any, **options: Any
    ) -> _Result:
        call = partial(operation, *arguments, **options)
        return await asyncio.get_running_loop().run_in_executor(self._executor, call)


def _next_of(items: Iterator[TranscriptItem]) -> list[TranscriptItem]:
    return list(islice(items, _ITEMS_AT_ONCE))


class _Ending(threading.Event):
    """Set when an iteration ends, or when the caller's event is."""

    def __init__(self, other: threading.Event | None) -> None:
        super().__init__()
        self._other = other

    def is_set(self) -> bool:
        return super().is_set() or (self._other is not None and self._other.is_set())


class Opening:
    """A state that is about to be opened: await it, or enter it with ``async with``."""

    def __init__(self, opening: Callable[[], StateRuntime]) -> None:
        self._opening = opening
        self._state: AsyncStateRuntime | None = None

    def __await__(self) -> Generator[Any, None, AsyncStateRuntime]:
        return self._open().__await__()

    async def _open(self) -> AsyncStateRuntime:
        executor = ThreadPoolExecutor(_THREADS, thread_name_prefix="rollbook")
        try:
            runtime = await asyncio.get_running_loop().run_in_executor(executor, self._opening)
        except BaseException:
            executor.shutdown(wait=False)
            raise
        return AsyncStateRuntime(runtime, executor)

    async def __aenter__(self) -> AsyncStateRuntime:
        self._state = await self
        return self._state

    async def __aexit__(self, *error: object) -> None:
        if self._state is not None:
            await self._state.close()
