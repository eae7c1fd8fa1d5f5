"""The state of a Codex home: its threads and their dynamic tools, from the database first.

Everything public is a method of :class:`StateRuntime`; each is one transaction.
:class:`rollbook.AsyncStateRuntime` has the same methods as coroutines.
"""

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, tzinfo
from functools import partial, wraps
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Self, TypeVar

import msgspec

from rollbook import telemetry
from rollbook.content.database import ContentDatabase, content_beside
from rollbook.content.keeper import ContentKeeper, tell_of
from rollbook.errors import (
    DatabaseDamagedError,
    InvalidThreadIdError,
    RollbookError,
    ThreadNotFoundError,
    UsageError,
)
from rollbook.index import repair
from rollbook.index.home import HomeIndex
from rollbook.logs.database import LogDatabase
from rollbook.logs.reader import logs_beside
from rollbook.model.lineage import LineageNode
from rollbook.model.log import LogEntry, LogLimits, LogQuery, LogRow
from rollbook.model.outcome import BackfillStats, ProgressCallback, WatchUpdate
from rollbook.model.paging import Anchor, SortKey, ThreadFilter, ThreadsPage
from rollbook.model.prices import Prices
from rollbook.model.search import SearchPage, SearchSort, TextScope
from rollbook.model.thread import (
    DynamicToolSpec,
    ThreadMetadata,
    ThreadMetadataBuilder,
    parse_thread_id,
)
from rollbook.model.times import whole_seconds
from rollbook.model.transcript import TranscriptItem, TranscriptPage
from rollbook.model.usage import UsageKey, UsageReport
from rollbook.rollout.layout import resolve_home, state_path
from rollbook.rollout.lines import MalformedLineError, RolloutItem, as_written, to_item
from rollbook.store import threads, tools

if TYPE_CHECKING:
    from rollbook.rollout.pages import TranscriptReader

_LARGEST_PAGE = (1 << 62) - 1  # what a database can count, one row more included

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")


def _operation(
    method: Callable[Concatenate["StateRuntime", _Parameters], _Result],
) -> Callable[Concatenate["StateRuntime", _Parameters], _Result]:
    """Have a public method answer from a new index where it has found the old one damaged.

    It is timed for telemetry, where there is somebody to listen.
    """
    name = method.__name__

    @wraps(method)
    def observed(
        self: "StateRuntime", /, *arguments: _Parameters.args, **options: _Parameters.kwargs
    ) -> _Result:
        if not telemetry.is_observed():
            return whatever_is_damaged(self, *arguments, **options)
        with telemetry.operation(name, self.database_system):
            return whatever_is_damaged(self, *arguments, **options)

    def whatever_is_damaged(
        self: "StateRuntime", /, *arguments: _Parameters.args, **options: _Parameters.kwargs
    ) -> _Result:
        try:
            return method(self, *arguments, **options)
        except DatabaseDamagedError as damage:
            if not self._index.recover(damage):
                raise
        return method(self, *arguments, **options)

    return observed


class StateRuntime:
    """The threads of one home.  Open it with :meth:`open`, as a context manager.

    Safe to use from several threads; several processes may open the same home.
    """

    def __init__(self, index: HomeIndex, logs: LogDatabase) -> None:
        self._content = ContentDatabase(content_beside(Path(index.engine.location)), index.home)
        self._keeper = ContentKeeper(self._content, index)
        self._index = index
        self._home = index.home
        self._engine = index.engine
        self._default_provider = index.default_provider
        self._logs = logs
        self._is_closed = False
        self._closing: dict[object, Callable[[], None]] = {}

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
    ) -> Self:
        """Open the state of a home, creating its database where there is none.

        ``home`` defaults to ``CODEX_HOME``, then ``~/.codex``.  ``database`` is a path; it defaults
        to ``ROLLBOOK_DB``, then ``<home>/rollbook/state.sqlite``.  ``default_provider`` stands in
        for threads that name no model provider.  A home that was never synced is indexed in the
        background, unless ``backfill`` is false; reads by id are answered from the rollouts
        meanwhile.  ``log_limits`` bounds the logs, whose database stands beside the other and is
        opened when it is first used.

        A damaged database is set aside and made again from the rollouts.  Where none can be kept, a
        ``temporary`` one takes its place, unless that is false, or a database was named: see
        :attr:`degraded`.

        Errors: HomeNotFoundError, HomeError; DatabaseUnwritableError; DatabaseVersionError,
        DatabaseBusyError; DatabaseError and DatabaseDamagedError for a file that isn't Rollbook's.
        Source: behaviour.md 1, 115.
        """
        path = resolve_home(home)
        place = state_path(path, database)
        if temporary is None:
            temporary = place.parent.parent == path
        index = HomeIndex.open(path, place, default_provider, temporary=temporary)
        state = cls(index, LogDatabase(logs_beside(place), log_limits))
        if backfill and not index.is_synced():
            index.start_backfill()
            state._keeper.want()
        return state

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop what runs in the background, let log handlers write their last rows, and close."""
        self._is_closed = True
        for finish in reversed(list(self._closing.values())):
            finish()
        self._keeper.close()
        self._content.close()
        self._logs.close()
        self._index.close()

    def before_closing(self, finish: Callable[[], None]) -> Callable[[], None]:
        """Have a function called when this state is closed, while it can still be used.

        For what writes in the background; the last to come is called first.  Returns a function
        that takes it back.
        """
        key = object()
        self._closing[key] = finish

        def take_back() -> None:
            self._closing.pop(key, None)

        return take_back

    @property
    def is_closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return self._is_closed

    @property
    def codex_home(self) -> Path:
        """The absolute path of the home."""
        return self._home

    @property
    def default_provider(self) -> str:
        """The model provider of threads that name none."""
        return self._default_provider

    @property
    def database(self) -> str:
        """Where the database is: an absolute path."""
        return self._engine.location

    @property
    def degraded(self) -> str:
        """What is not as it should be, in a sentence; empty where the index is kept and written.

        Where the database can't be written it is only read; where it can't be read either, or was
        never complete, a temporary index lasts as long as this state.
        """
        return self._index.degraded

    @property
    def database_system(self) -> str:
        """Which engine the database is of: ``sqlite``."""
        return self._engine.name

    def is_synced(self) -> bool:
        """Say whether the whole home has been compared with the index at least once."""
        return self._index.is_synced()

    @_operation
    def get_thread(self, thread_id: str) -> ThreadMetadata | None:
        """Look a thread up: in the database, else among the rollouts, and store it then.

        Returns None where there is neither.  A row whose rollout is gone is returned as it is; see
        :meth:`rollout_exists`.

        Errors: InvalidThreadIdError; DatabaseDamagedError for a row with impossible values.
        Cost: one read and a look at the file; a walk through the directories where that misses.
        Source: behaviour.md 15.
        """
        return self._thread(thread_id)

    def rollout_exists(self, metadata: ThreadMetadata) -> bool:
        """Say whether a thread's rollout is on disk, plain or compressed."""
        return repair.rollout_exists(metadata)

    @_operation
    def resolve_thread_id(self, text: str) -> str:
        """Complete a shortened id: any prefix that fits one thread only, hyphens optional.

        Errors: AmbiguousIdError where more than one thread fits, ThreadNotFoundError where none
        does, as for a text that can't begin a UUID.
        """
        return repair.complete_thread_id(self._engine, self._home, text)

    @_operation
    def get_dynamic_tools(self, thread_id: str) -> list[DynamicToolSpec] | None:
        """Read a thread's tools in order: from the database, else from its rollout, stored then.

        Returns None where neither has any.

        Errors: InvalidThreadIdError; DatabaseDamagedError where a stored schema isn't JSON;
        RolloutError where the rollout has to be read and can't be.
        Source: behaviour.md 24, 31.
        """
        return repair.get_dynamic_tools(
            self._engine, self._home, self._default_provider, parse_thread_id(thread_id)
        )

    @_operation
    def find_rollout_path_by_id(
        self, thread_id: str, archived_only: bool | None = None
    ) -> Path | None:
        """Find where a thread's rollout is; ``archived_only`` asks for archived or active ones.

        Returns None for an unknown thread, for one in the other place, and for what is no UUID.
        The path ends in ``.jsonl`` also where the file is compressed, and is given as it is known
        where the file is gone.  Source: behaviour.md 17, 95.
        """
        try:
            metadata = self._thread(thread_id)
        except InvalidThreadIdError:
            return None
        if metadata is None or archived_only not in (None, metadata.archived_at is not None):
            return None
        return Path(metadata.rollout_path)

    @_operation
    def list_threads(
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
    ) -> ThreadsPage:
        """List threads, newest first: at most ``page_size`` of them, strictly after ``anchor``.

        Of titles and previews, a list has the first 300 characters: look a thread up for the rest.
        ``next_anchor`` is None on the last page; a page of size 0 is empty and has none.  Empty
        sources or providers don't restrict.  ``archived_only`` selects archived threads when true
        and unarchived ones when false.  ``cwd`` is compared for equality, ``title_contains`` is
        taken literally and ignores ASCII case.  Threads in which nobody has said anything are left
        out unless ``include_silent``.  As long as the home was never indexed as a whole, the
        rollouts that the page needs are indexed first.

        Errors: UsageError for a negative page size.  Cost: one query, independent of depth.
        Source: behaviour.md 68 to 78; unlike 75, a row with impossible values is left out.
        """
        selection = _filter(
            allowed_sources, model_providers, archived_only, cwd, title_contains, include_silent
        )
        self._prepare_list(_checked(page_size), anchor, sort_key, selection)
        return self._page(_checked(page_size), anchor, sort_key, selection)

    @_operation
    def list_thread_ids(
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
    ) -> list[str]:
        """List at most ``limit`` ids with the order and filters of :meth:`list_threads`.

        Errors: UsageError for a negative limit.  Source: behaviour.md 76.
        """
        selection = _filter(
            allowed_sources, model_providers, archived_only, cwd, title_contains, include_silent
        )
        self._prepare_list(_checked(limit), anchor, sort_key, selection)
        with self._engine.read() as tx:
            return threads.ids(tx, _checked(limit), anchor, sort_key, selection)

    @_operation
    def upsert_thread(self, metadata: ThreadMetadata) -> None:
        """Insert a thread, or overwrite every field of it.

        Times are reduced to whole seconds in UTC.  Errors: InvalidThreadIdError.
        Source: behaviour.md 11, 16.
        """
        canonical = _canonical(metadata)
        with self._engine.write() as tx:
            threads.upsert(tx, str(self._home), canonical)

    @_operation
    def persist_dynamic_tools(
        self, thread_id: str, dynamic_tools: Sequence[DynamicToolSpec] | None
    ) -> None:
        """Store a thread's tools, all or none; a thread that has some keeps those.

        Does nothing for an absent or empty list.  Errors: ThreadNotFoundError for a thread that
        isn't in the database, InvalidThreadIdError.  Source: behaviour.md 25, 26.
        """
        canonical_id = parse_thread_id(thread_id)
        if not dynamic_tools:
            return
        with self._engine.write() as tx:
            tools.put_first(tx, canonical_id, dynamic_tools)

    @_operation
    def apply_rollout_items(
        self, builder: ThreadMetadataBuilder, items: Iterable[RolloutItem | Mapping[str, Any]]
    ) -> None:
        """Fold records into a thread, in one transaction, as they are written to its rollout.

        ``items`` are records, or the JSON objects of their lines.  Nothing happens for none.  For a
        thread that exists, only id and path of the builder count.  ``updated_at`` becomes the mtime
        of the rollout, if that can be read.  The tools of the thread's session meta are stored.

        Errors: InvalidThreadIdError; UsageError for an item that is no record.
        Source: behaviour.md 19, 20, 28; unlike 21, no concurrent change is lost.
        """
        try:
            records = [as_written(to_item(item)) for item in items]
        except MalformedLineError as error:
            raise UsageError(f"that is no record of a rollout: {error}") from error
        if not records:
            return
        from rollbook.index.apply import apply_items

        with self._engine.write() as tx:
            apply_items(tx, self._home, builder, records, self._default_provider)

    @_operation
    def reconcile_rollout(self, rollout_path: str | os.PathLike[str]) -> None:
        """Bring the index in step with one rollout: reads what it doesn't know of it yet.

        What can't be read is recorded, as in :meth:`sync`.  Nothing happens where there is no such
        file.  Errors: UsageError for a path outside of the home.  Source: behaviour.md 120.
        """
        path = Path(os.path.abspath(rollout_path))
        if not path.is_relative_to(self._home):
            raise UsageError(f"{path} is not below the home {self._home}")
        relative = path.relative_to(self._home).as_posix()
        repair.index_rollout(self._engine, self._home, self._default_provider, relative)

    @_operation
    def mark_archived(
        self, thread_id: str, rollout_path: str | os.PathLike[str], archived_at: datetime
    ) -> None:
        """Record that a thread was archived, its rollout now being at ``rollout_path``.

        Moves no file: see :meth:`archive_thread`.  Does nothing for an unknown thread.
        Errors: InvalidThreadIdError.  Source: behaviour.md 18.
        """
        self._mark(thread_id, rollout_path, whole_seconds(archived_at))

    @_operation
    def mark_unarchived(self, thread_id: str, rollout_path: str | os.PathLike[str]) -> None:
        """Record that a thread was unarchived; otherwise as :meth:`mark_archived`."""
        self._mark(thread_id, rollout_path, None)

    @_operation
    def archive_thread(self, thread_id: str) -> ThreadMetadata:
        """Move a thread's rollout to the archive, as the agent does, and record it.

        Returns the thread as it is afterwards; one that is archived already is left as it is.
        Where either the move or the record fails, the other is undone.

        Errors: ThreadNotFoundError, RolloutError, InvalidThreadIdError.
        Source: behaviour.md 143; an archived file of that name is not replaced.
        """
        from rollbook.index import archive

        metadata = self._required_thread(thread_id)
        if metadata.archived_at is not None:
            return metadata
        return archive.archive(self._engine, self._home, metadata, archive.utc_now())

    @_operation
    def unarchive_thread(self, thread_id: str) -> ThreadMetadata:
        """Move a thread's rollout out of the archive; otherwise as :meth:`archive_thread`.

        The file's mtime becomes now.  Source: behaviour.md 144.
        """
        from rollbook.index import archive

        metadata = self._required_thread(thread_id)
        if metadata.archived_at is None:
            return metadata
        return archive.unarchive(self._engine, self._home, metadata)

    @_operation
    def sync(
        self,
        *,
        jobs: int | None = None,
        rebuild: bool = False,
        metadata_only: bool = False,
        text: TextScope | None = None,
        progress: ProgressCallback | None = None,
        wait_s: float = 30.0,
    ) -> BackfillStats:
        """Compare the whole home with the index and bring the index up to date.

        Opens no rollout that has not changed, reads on where one has grown, forgets those that are
        gone.  ``jobs`` is the number of reading processes (default: one for each core, at most 4);
        ``rebuild`` reads everything again.  ``progress`` is called from this thread as rollouts are
        done.  Safe to kill at any moment: the next run completes the work.

        Then the rollouts are read for what was said in them, unless ``metadata_only``; lists are
        complete before that.  ``text`` says what of it can be searched from now on, and is
        remembered; None leaves that as it is.  The counts are those of the first reading.

        Errors: DatabaseBusyError where another process is at it for more than ``wait_s`` seconds.
        A rollout that can't be read is no error; it is counted and named in the result.
        """
        if jobs is not None and jobs < 1:
            raise UsageError(f"the number of jobs must be 1 or more, not {jobs}")
        stats, changed = self._index.sync(
            jobs=jobs, rebuild=rebuild, progress=progress, wait_s=wait_s
        )
        try:
            if text is not None:
                self._content.set_scope(text)
            if not metadata_only:
                self._content.build(
                    self._index.engine,
                    changed=changed,
                    rebuild=rebuild,
                    progress=progress,
                    wait_s=wait_s,
                )
        except RollbookError as error:
            tell_of(error)
        return stats

    @_operation
    def read_thread(
        self,
        thread_id: str,
        *,
        limit: int = 50,
        before: str | None = None,
        after: str | None = None,
        at: str | None = None,
    ) -> TranscriptPage:
        """Read a page of what was said and done in a thread, from its rollout, oldest first.

        That is the last page; or the one before a position, the one after it, or the one that
        begins ``at`` it (``start``: the first).  Positions are those of items and of search hits;
        pass ``before`` and ``after`` of a page to go on.  A page has at most ``limit`` items, and
        fewer where more than 64 MiB would have to be read for it.  Of texts that are longer than
        256 Ki characters, the rest is left out, and counted.  Empty for a thread without a rollout.

        Errors: ThreadNotFoundError, InvalidThreadIdError; InvalidCursorError for a position that is
        none in this thread; UsageError for a limit below 1 and for two positions; RolloutError
        where the rollout can't be read, or the one in which it begins is gone.
        Cost: the bytes of the page, and what lies between its items; all for a compressed rollout.
        """
        positions = {"before": before, "after": after, "at": at}
        given = {name: value for name, value in positions.items() if value is not None}
        if limit < 1:
            raise UsageError(f"a page can't have {limit} items", hint="ask for 1 or more")
        if len(given) > 1:
            raise UsageError(f"{' and '.join(given)} contradict each other", hint="give one")
        reader = self._transcript(thread_id)
        for name, value in given.items():
            page: TranscriptPage = getattr(reader, name)(value, limit)
            return page
        return reader.last(limit)

    def read_whole_thread(self, thread_id: str) -> Iterator[TranscriptItem]:
        """Read all that was said and done in a thread, oldest first, each text as a whole.

        Errors: as of :meth:`read_thread`.
        """
        return self._transcript(thread_id).all()

    @_operation
    def lineage(self, thread_id: str) -> LineageNode:
        """Read the tree that a thread belongs to: forks, sub-agents and reviews, as indexed.

        That is the whole tree, whichever of its threads is asked for; a thread that descends from
        none and has no descendants is a tree alone.  A thread that others name and that is not
        known is in it, without its metadata.

        Errors: ThreadNotFoundError, InvalidThreadIdError.  Cost: two queries a generation.
        """
        from rollbook.index.lineage import tree_of

        thread = self._required_thread(thread_id)
        with self._engine.read() as tx:
            return tree_of(tx, str(self._home), thread.id, self._index.leave_out)

    @_operation
    def search(
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
    ) -> SearchPage:
        """Find messages by what they say: at most ``limit`` of them, the best first.

        ``text`` has words, all of which must be in a message, ``"phrases"``, the beginnings of words
        (``retr*``), parts of words between backticks, and what must not be there (``-postgres``).
        Case and accents don't count; languages without spaces are found, too.  With ``substring``
        all of it is looked for as it stands, inside of words, too.  ``roles`` are who said it:
        ``user``, ``assistant``, and ``tool`` for calls and output of tools, where these are indexed.
        ``since`` and ``until`` bound the time of a message, the latter exclusive.  Other filters are
        as for :meth:`list_threads`, but archived threads are found, too, unless ``archived`` says
        otherwise.  Newer messages count more, down to half after half a year; with
        :attr:`SearchSort.NEWEST` only the time counts.  A message that forks have from each other is
        found once.  Pass ``next_cursor`` of a page, with all else unchanged, for the next.

        Nothing that changed since the last :meth:`sync` or :meth:`watch` is found.  Where the home
        was never read for its texts, that begins in the background; see ``is_indexed`` of the page.

        Errors: UsageError for a text without words, an unknown role, a limit below 1;
        InvalidCursorError, InvalidThreadIdError.
        """
        from rollbook.content.pages import SearchRequest, search_page

        request = SearchRequest(
            text=text,
            limit=limit,
            cursor=cursor,
            sort=SearchSort(sort),
            substring=substring,
            roles=tuple(roles),
            thread_id=None if thread_id is None else parse_thread_id(thread_id),
            since=since,
            until=until,
            threads=_anywhere(allowed_sources, model_providers, archived, cwd, title_contains),
            anywhere=archived is None,
        )
        page = search_page(self._content, self._engine, self._home, request)
        if not page.is_indexed:
            self._keeper.want()
        return page

    @_operation
    def usage(
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
        prices: Prices | None = None,
    ) -> UsageReport:
        """Add up the tokens that threads have used, as their rollouts say, each of them once.

        One row for each combination of values of the keys ``by``.  Days are those of a
        ``time_zone``; of the machine's for None.  ``since`` and ``until`` (exclusive) are exact to a
        quarter of an hour.  Filters are as for :meth:`list_threads`, but archived threads count,
        too, unless ``archived`` says otherwise.  With ``prices`` each row has a cost, unless one of
        its models has no price.  What a fork has copied of its source counts for its source.  What
        was used in threads whose rollouts are gone is not known any more.

        Nothing that came since the last :meth:`sync` or :meth:`watch` is in it.  Where the home was
        never read for it, that begins in the background; see ``is_complete`` of the report.

        Errors: InvalidThreadIdError; UsageError for an unknown key.
        """
        from rollbook.content.report import UsageRequest, usage_report

        try:
            keys = tuple(map(UsageKey, by))
        except ValueError as error:
            hint = f"there are {', '.join(UsageKey)}"
            raise UsageError(f"usage can't be told so: {error}", hint=hint) from error
        request = UsageRequest(
            by=keys,
            since=since,
            until=until,
            time_zone=time_zone,
            thread_id=None if thread_id is None else parse_thread_id(thread_id),
            threads=_anywhere(allowed_sources, model_providers, archived, cwd, title_contains),
            anywhere=archived is None,
            prices=prices,
        )
        report = usage_report(self._content, self._engine, request)
        if not report.is_complete:
            self._keeper.want()
        return report

    def watch(
        self, *, check_interval_s: float = 60.0, stop: threading.Event | None = None
    ) -> Iterator[WatchUpdate]:
        """Follow the home while agents write into it: iterate over what is brought into the index.

        The first update is the comparison of the whole home, as by :meth:`sync`; others come as the
        file system tells of changes, within a tenth of a second.  Every ``check_interval_s`` seconds
        the whole home is compared again, as notifications can be missed; that gives an update, too.
        Ends when ``stop`` is set, within a second, or the state is closed.  What can't be stored is
        logged and tried again.

        Errors: UsageError for an interval of 0 or less.
        """
        if check_interval_s <= 0:
            raise UsageError(f"the interval must be more than 0 seconds, not {check_interval_s}")
        return self._watch(check_interval_s, stop)

    def _watch(
        self, check_interval_s: float, stop: threading.Event | None
    ) -> Iterator[WatchUpdate]:
        from rollbook.index.watch import Watch

        either = _Either(stop or threading.Event())
        take_back = self.before_closing(either.closing.set)
        try:
            for update in Watch(self._index, check_interval_s, either):
                self._keeper.want(None if update.is_full else update.changed + update.removed)
                yield update
        finally:
            take_back()

    @_operation
    def insert_log(self, entry: LogEntry) -> None:
        """Append one log row.  Errors: DatabaseBusyError, DatabaseError.  Source: behaviour.md 121."""
        self._logs.insert([entry])

    @_operation
    def insert_logs(self, entries: Sequence[LogEntry]) -> None:
        """Append log rows in order, all of them or none; nothing happens for none.

        Errors: DatabaseBusyError where another process holds the lock for 30 s, DatabaseError.
        Source: behaviour.md 125; any number of rows fits.
        """
        self._logs.insert(entries)

    @_operation
    def query_logs(self, query: LogQuery = LogQuery()) -> list[LogRow]:
        """Read log rows by id, oldest first unless the query says otherwise; empty for none.

        Errors: UsageError for a negative limit; DatabaseError.
        Source: behaviour.md 128 to 130; unlike 129, ``%`` and ``_`` are just characters.
        """
        return self._logs.select(query)

    @_operation
    def max_log_id(self, query: LogQuery = LogQuery()) -> int:
        """Find the largest id among the rows that a query asks for; 0 where there are none.

        Source: behaviour.md 130.
        """
        return self._logs.max_id(query)

    @_operation
    def delete_logs_before(self, ts: int) -> int:
        """Delete the log rows whose time is before ``ts`` (epoch seconds); returns how many.

        Works in small transactions, so that nobody who logs has to wait.  Source: behaviour.md 126.
        """
        return self._logs.delete_before(ts)

    def _page(
        self, limit: int, anchor: Anchor | None, sort_key: SortKey, selection: ThreadFilter
    ) -> ThreadsPage:
        with self._engine.read() as tx:
            items, next_anchor, scanned = threads.page(
                tx, str(self._home), limit, anchor, sort_key, selection, self._index.leave_out
            )
        return ThreadsPage(items, next_anchor, scanned)

    def _prepare_list(
        self, limit: int, anchor: Anchor | None, sort_key: SortKey, selection: ThreadFilter
    ) -> None:
        def has_enough(latest: datetime) -> bool:
            page = self._page(limit, anchor, sort_key, selection)
            return page.next_anchor is not None and page.next_anchor.ts > latest

        if limit:
            self._index.prepare_list(sort_key, has_enough, archived=selection.archived)

    def _thread(self, thread_id: str) -> ThreadMetadata | None:
        return repair.get_thread(
            self._engine, self._home, self._default_provider, parse_thread_id(thread_id)
        )

    def _transcript(self, thread_id: str) -> "TranscriptReader":
        from rollbook.rollout.pages import TranscriptReader, segments_of

        thread = self._required_thread(thread_id)
        find = partial(repair.rollouts_of, self._engine, self._home)
        return TranscriptReader(self._home, segments_of(self._home, thread.id, find))

    def _required_thread(self, thread_id: str) -> ThreadMetadata:
        metadata = self._thread(thread_id)
        if metadata is None:
            raise ThreadNotFoundError(f"there is no thread {thread_id} in {self._home}")
        return metadata

    def _mark(
        self, thread_id: str, rollout_path: str | os.PathLike[str], archived_at: datetime | None
    ) -> None:
        from rollbook.index.apply import with_file_time

        canonical_id = parse_thread_id(thread_id)
        with self._engine.write() as tx:
            metadata = threads.get(tx, str(self._home), canonical_id)
            if metadata is None:
                return
            changed = msgspec.structs.replace(
                metadata, rollout_path=os.fspath(rollout_path), archived_at=archived_at
            )
            threads.upsert(tx, str(self._home), with_file_time(changed))


class _Either:
    """An event of the caller's, or the closing of the state."""

    def __init__(self, stop: threading.Event) -> None:
        self.closing = threading.Event()
        self._stop = stop

    def is_set(self) -> bool:
        """Say whether either has come."""
        return self.closing.is_set() or self._stop.is_set()

    def wait(self, timeout_s: float) -> bool:
        """Wait for the closing, but not for longer."""
        return self.closing.wait(timeout_s) or self._stop.is_set()


def _filter(
    allowed_sources: Sequence[str],
    model_providers: Sequence[str] | None,
    archived_only: bool,
    cwd: str | None,
    title_contains: str | None,
    include_silent: bool,
) -> ThreadFilter:
    return ThreadFilter(
        sources=tuple(allowed_sources),
        providers=None if model_providers is None else tuple(model_providers),
        archived=archived_only,
        cwd=cwd,
        title_contains=title_contains,
        include_silent=include_silent,
    )


def _anywhere(
    allowed_sources: Sequence[str],
    model_providers: Sequence[str] | None,
    archived: bool | None,
    cwd: str | None,
    title_contains: str | None,
) -> ThreadFilter:
    """Make the filter of what looks at archived threads, too, and at those without a word."""
    return _filter(
        allowed_sources, model_providers, bool(archived), cwd, title_contains, include_silent=True
    )


def _checked(size: int) -> int:
    if size < 0:
        raise UsageError(f"a page can't have {size} threads", hint="ask for 0 or more")
    return min(size, _LARGEST_PAGE)


def _canonical(metadata: ThreadMetadata) -> ThreadMetadata:
    archived_at, recency_at = metadata.archived_at, metadata.recency_at
    return msgspec.structs.replace(
        metadata,
        id=parse_thread_id(metadata.id),
        rollout_path=os.fspath(metadata.rollout_path),
        cwd=os.fspath(metadata.cwd),
        created_at=whole_seconds(metadata.created_at),
        updated_at=whole_seconds(metadata.updated_at),
        archived_at=archived_at and whole_seconds(archived_at),
        recency_at=recency_at and whole_seconds(recency_at),
    )
