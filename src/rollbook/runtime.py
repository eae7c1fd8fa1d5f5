"""The state of a Codex home: its threads and their dynamic tools, from the database first.

Everything public is a method of :class:`StateRuntime`; each is one transaction.
:class:`rollbook.AsyncStateRuntime` has the same methods as coroutines.
"""

import os
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta, tzinfo
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
    DatabaseError,
    DatabaseUnavailableError,
    HomeNotFoundError,
    InvalidThreadIdError,
    RollbookError,
    ThreadElsewhereError,
    ThreadNotFoundError,
    UsageError,
)
from rollbook.index import repair
from rollbook.index.home import HomeIndex
from rollbook.index.source import Source
from rollbook.logs.database import LogDatabase
from rollbook.logs.reader import checked, logs_beside
from rollbook.model.annotation import annotated
from rollbook.model.deletion import DeletionReport
from rollbook.model.lineage import LineageNode
from rollbook.model.log import LogEntry, LogLimits, LogQuery, LogRow
from rollbook.model.outcome import BackfillStats, ProgressCallback, WatchUpdate
from rollbook.model.paging import Anchor, SortKey, ThreadFilter, ThreadsPage
from rollbook.model.prices import Prices
from rollbook.model.project import Project
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
from rollbook.rollout.layout import resolve_home, shared_address, state_path
from rollbook.rollout.lines import MalformedLineError, RolloutItem, as_written, to_item
from rollbook.store import files, shared_logs, threads, tools
from rollbook.store.engine import Transaction

if TYPE_CHECKING:
    from tempfile import TemporaryDirectory

    from rollbook.content.pages import SearchRequest
    from rollbook.content.search import Asked, Match
    from rollbook.fleet.state import SharedState
    from rollbook.rollout.pages import TranscriptPages

_SYNC_WAIT_S = 30.0
_PRUNED_AT_ONCE = 1000
_LARGEST_PAGE = (1 << 62) - 1  # what a database can count, one row more included

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")


def _operation(
    method: Callable[Concatenate["StateRuntime", _Parameters], _Result],
) -> Callable[Concatenate["StateRuntime", _Parameters], _Result]:
    """Have a public method answer from a new index where it has found the old one damaged.

    Where what hosts share can't be reached, it answers from what this one has.  It is timed for telemetry, where there is somebody to listen.
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
            return wherever_it_can_be_read(self, *arguments, **options)
        except DatabaseDamagedError as damage:
            if not self._index.recover(damage):
                raise
        return wherever_it_can_be_read(self, *arguments, **options)

    def wherever_it_can_be_read(
        self: "StateRuntime", /, *arguments: _Parameters.args, **options: _Parameters.kwargs
    ) -> _Result:
        begun = time.monotonic()
        while True:
            try:
                return method(self, *arguments, **options)
            except DatabaseUnavailableError as error:
                if self._shared is None or not self._shared.lost(error, begun):
                    raise

    return observed


class StateRuntime:
    """The threads of one home.  Open it with :meth:`open`, as a context manager.

    Safe to use from several threads; several processes may open the same home.
    """

    def __init__(
        self,
        index: HomeIndex,
        logs: LogDatabase,
        share: Callable[[HomeIndex, ContentDatabase, LogDatabase], "SharedState"] | None = None,
    ) -> None:
        self._content = ContentDatabase(content_beside(Path(index.engine.location)), index.home)
        self._keeper = ContentKeeper(self._content, index, self._content_was_read)
        self._index = index
        self._home = index.home
        self._engine = index.engine
        self._default_provider = index.default_provider
        self._logs = logs
        self._is_closed = False
        self._after_closing: Callable[[], None] = lambda: None
        self._closing: dict[object, Callable[[], None]] = {}
        self._shared = None if share is None else share(index, self._content, logs)

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
    ) -> Self:
        """Open the state of a home, creating its database where there is none.

        ``home`` defaults to ``CODEX_HOME``, then ``~/.codex``.  ``database`` is a path; it defaults
        to ``ROLLBOOK_DB``, then ``<home>/rollbook/state.sqlite``.  Or it is the address of a
        PostgreSQL that many hosts share, ``postgresql://…``: what is written here is sent there, and
        what all have sent is read.  ``read_database``, else ``ROLLBOOK_READ_DB``, is the address of a
        replica to read from.  ``host`` is what this home is called there; it defaults to
        ``ROLLBOOK_HOST``, then to the machine's name.  While the server can't be reached, what this
        host has is read, and what it writes is sent afterwards.  Without a home, there is only that
        server to read from.
          ``default_provider`` stands in
        for threads that name no model provider.  A home that was never synced is indexed in the
        background, unless ``backfill`` is false; reads by id are answered from the rollouts
        meanwhile.  ``log_limits`` bounds the logs, whose database stands beside the other and is
        opened when it is first used.

        A damaged database is set aside and made again from the rollouts.  Where none can be kept, a
        ``temporary`` one takes its place, unless that is false, or a database was named: see
        :attr:`degraded`.

        Errors: HomeNotFoundError, HomeError; UsageError for an address that can't be read, or without
        the driver for it; DatabaseUnwritableError; DatabaseVersionError,
        DatabaseBusyError; DatabaseError and DatabaseDamagedError for a file that isn't Rollbook's.
        Source: behaviour.md 1, 115.
        """
        address = shared_address(database)
        path, nowhere = _home_of(home, is_needed=address is None)
        place = state_path(path, database)
        if temporary is None:
            temporary = place.parent.parent == path
        index = HomeIndex.open(path, place, default_provider, temporary=temporary)
        share = None
        if address is not None:
            share = _sharing(address, read_database, host, has_home=nowhere is None)
        try:
            state = cls(index, LogDatabase(logs_beside(place), log_limits), share)
        except BaseException:
            index.close()
            raise
        if nowhere is not None:
            state._after_closing = nowhere.cleanup
        elif backfill:
            state._catch_up()
        return state

    def _catch_up(self) -> None:
        """Index the home in the background, if it never was, and send it to where it is shared."""
        if not self._index.is_synced():
            self._index.start_backfill()
            self._keeper.want()
        if self._shared is not None:
            self._shared.want(None, items=True, annotations=True, logs=True)

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
        if self._shared is not None:
            self._shared.close()
        self._content.close()
        self._logs.close()
        self._index.close()
        self._after_closing()

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
        """Where the database is: an absolute path, or an address without what is secret."""
        return self._engine.location if self._shared is None else self._shared.location

    @property
    def own_database(self) -> str:
        """Where what this home has is indexed: the same, unless the database is shared; a path."""
        return self._engine.location

    @property
    def degraded(self) -> str:
        """What is not as it should be, in a sentence; empty where the index is kept and written.

        Where the database can't be written it is only read; where it can't be read either, or was
        never complete, a temporary index lasts as long as this state.  Where what hosts share can't
        be reached, only what this one has is shown.
        """
        if self._shared is not None and self._shared.why_away:
            return f"{self._shared.why_away}: only what {self._shared.host} has is shown"
        return self._index.degraded

    @property
    def database_system(self) -> str:
        """Which engine the database is of: ``sqlite`` or ``postgresql``."""
        return self._engine.name if self._shared is None else self._shared.engine.name

    @property
    def host(self) -> str:
        """What this home is called among those that share a database; empty where none is shared."""
        return "" if self._shared is None else self._shared.host

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
        thread = self._thread(thread_id)
        return thread and self._shown(thread)

    def rollout_exists(self, metadata: ThreadMetadata) -> bool:
        """Say whether a thread's rollout is on this machine's disk, plain or compressed."""
        return not self.is_elsewhere(metadata) and repair.rollout_exists(metadata)

    def is_elsewhere(self, metadata: ThreadMetadata) -> bool:
        """Say whether a thread lives on another host: its rollout is there, and nowhere else."""
        return metadata.host not in {"", self.host}

    @_operation
    def resolve_thread_id(self, text: str) -> str:
        """Complete a shortened id: any prefix that fits one thread only, hyphens optional.

        Errors: AmbiguousIdError where more than one thread fits, ThreadNotFoundError where none
        does, as for a text that can't begin a UUID.
        """
        return repair.complete_thread_id(self._source().engine, self._home, text)

    @_operation
    def get_dynamic_tools(self, thread_id: str) -> list[DynamicToolSpec] | None:
        """Read a thread's tools in order: from the database, else from its rollout, stored then.

        Returns None where neither has any.

        Errors: InvalidThreadIdError; DatabaseDamagedError where a stored schema isn't JSON;
        RolloutError where the rollout has to be read and can't be.
        Source: behaviour.md 24, 31.
        """
        canonical_id = parse_thread_id(thread_id)
        found = repair.get_dynamic_tools(
            self._engine, self._home, self._default_provider, canonical_id
        )
        shared = None if found or self._shared is None else self._shared.source()
        if shared is not None:
            with shared.engine.read() as tx:
                elsewhere = self._elsewhere(tx, canonical_id)
                found = (elsewhere and tools.get(tx, canonical_id, elsewhere.host)) or None
        return found

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
        project: str | None = None,
        tags: Sequence[str] = (),
        pinned: bool | None = None,
        patience_s: float | None = None,
    ) -> ThreadsPage:
        """List threads, newest first: at most ``page_size`` of them, strictly after ``anchor``.

        Of titles and previews, a list has the first 300 characters: look a thread up for the rest.
        ``next_anchor`` is None on the last page; a page of size 0 is empty and has none.  Empty
        sources or providers don't restrict.  ``archived_only`` selects archived threads when true
        and unarchived ones when false.  ``cwd`` is compared for equality, ``title_contains`` is
        taken literally and ignores ASCII case.  Threads in which nobody has said anything are left
        out unless ``include_silent``.  ``project`` is the key of one, the end of that, or a directory
        of it; of ``tags`` a thread must have all; ``pinned`` selects threads that are pinned, or that
        are not.  As long as the home was never indexed as a whole, the
        rollouts that the page needs are indexed first; with ``patience_s``, for so many seconds
        at most, and only if the page isn't full without; it has what is known so far then.

        Errors: UsageError for a negative page size, and where several projects end so.
        Cost: one query, independent of depth; with tags, or pinned: as many threads as have them.
        Source: behaviour.md 68 to 78; unlike 75, a row with impossible values is left out.
        """
        selection = self._filter(
            allowed_sources,
            model_providers,
            archived_only,
            cwd,
            title_contains,
            include_silent,
            project,
            tags,
            pinned,
        )
        source = self._source()
        if source is self._index:
            self._prepare_list(_checked(page_size), anchor, sort_key, selection, patience_s)
        return self._page(source, _checked(page_size), anchor, sort_key, selection)

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
        project: str | None = None,
        tags: Sequence[str] = (),
        pinned: bool | None = None,
    ) -> list[str]:
        """List at most ``limit`` ids with the order and filters of :meth:`list_threads`.

        Errors: UsageError for a negative limit.  Source: behaviour.md 76.
        """
        selection = self._filter(
            allowed_sources,
            model_providers,
            archived_only,
            cwd,
            title_contains,
            include_silent,
            project,
            tags,
            pinned,
        )
        source = self._source()
        if source is self._index:
            self._prepare_list(_checked(limit), anchor, sort_key, selection)
        with source.engine.read() as tx:
            return threads.ids(tx, _checked(limit), anchor, sort_key, selection)

    @_operation
    def upsert_thread(self, metadata: ThreadMetadata) -> None:
        """Insert a thread, or overwrite every field of it.

        Times are reduced to whole seconds in UTC.  Tags, a pin and a name that were given in Rollbook
        stay as they are.  Errors: InvalidThreadIdError.
        Source: behaviour.md 11, 16.
        """
        canonical = _canonical(metadata)
        with self._engine.write() as tx:
            recorded = self._index.annotations.as_recorded(tx, canonical)
            self._refuse_other_host(recorded)
            threads.upsert(tx, str(self._home), recorded)
        self._share([recorded.id])

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
        self._share([canonical_id])

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
        self._share([parse_thread_id(builder.id)])

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
        if self._shared is not None:
            with self._engine.read() as tx:
                row = files.get(tx, relative)
            self._share([row.thread_id] if row and row.thread_id else [])

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

        metadata = self._own_thread(thread_id)
        if metadata.archived_at is not None:
            return self._shown(metadata)
        moved = archive.archive(self._engine, self._home, metadata, archive.utc_now())
        self._share([moved.id])
        return self._shown(moved)

    @_operation
    def unarchive_thread(self, thread_id: str) -> ThreadMetadata:
        """Move a thread's rollout out of the archive; otherwise as :meth:`archive_thread`.

        The file's mtime becomes now.  Source: behaviour.md 144.
        """
        from rollbook.index import archive

        metadata = self._own_thread(thread_id)
        if metadata.archived_at is None:
            return self._shown(metadata)
        moved = archive.unarchive(self._engine, self._home, metadata)
        self._share([moved.id])
        return self._shown(moved)

    @_operation
    def rename_thread(self, thread_id: str, name: str | None) -> ThreadMetadata:
        """Give a thread a name; None takes back the one that was given here.

        The name that was given last counts, here or by the agent.  What is given here is kept in a
        file beside the database, and survives whatever happens to that.  Returns the thread as it
        is afterwards.

        Errors: UsageError for an empty name; ThreadNotFoundError, InvalidThreadIdError;
        AnnotationsError where the file can't be written; DatabaseBusyError where the name is in the
        file, and the database takes it over later.
        """
        from rollbook.model.annotation import checked_name

        return self._say("name", thread_id, name=None if name is None else checked_name(name))

    @_operation
    def tag_thread(self, thread_id: str, tags: Sequence[str]) -> ThreadMetadata:
        """Give a thread tags, besides those that it has; otherwise as :meth:`rename_thread`.

        Errors: also UsageError for no tag, and for one that is empty or has over 100 characters.
        """
        from rollbook.model.annotation import checked_tags

        return self._say("tag", thread_id, tags=checked_tags(tags))

    @_operation
    def untag_thread(self, thread_id: str, tags: Sequence[str]) -> ThreadMetadata:
        """Take tags from a thread, as far as it has them; otherwise as :meth:`tag_thread`."""
        from rollbook.model.annotation import checked_tags

        return self._say("untag", thread_id, tags=checked_tags(tags))

    @_operation
    def pin_thread(self, thread_id: str) -> ThreadMetadata:
        """Pin a thread: it can be listed by that, and is not pruned.  See :meth:`rename_thread`."""
        return self._say("pin", thread_id)

    @_operation
    def unpin_thread(self, thread_id: str) -> ThreadMetadata:
        """Take the pin from a thread; otherwise as :meth:`pin_thread`."""
        return self._say("unpin", thread_id)

    @_operation
    def relocate(self, old: str | os.PathLike[str], new: str | os.PathLike[str]) -> int:
        """Say that a directory is elsewhere now: its threads are shown, and listed, under that.

        So are those below it, and those that come later.  No rollout is touched; to move it back
        takes that back.  Returns how many threads it is about.  Paths are absolute.

        Errors: UsageError for the same directory, or what is no absolute path; otherwise as of
        :meth:`rename_thread`.  Cost: an index entry for each thread.
        """
        from rollbook.index.projects import threads_below
        from rollbook.model.annotation import Line

        places = [os.path.normpath(os.fspath(each)) for each in (old, new)]
        if places[0] == places[1] or not all(map(os.path.isabs, places)):
            raise UsageError("name two directories, by absolute paths", hint=" and ".join(places))
        self._index.annotations.refresh()
        with self._engine.read() as tx:
            count = threads_below(tx, self._index.project_names(), places[0])
        line = Line(datetime.now(UTC), "relocate", old=places[0], new=places[1])
        self._index.annotations.say([line])
        if self._shared is not None:
            with self._engine.read() as tx:
                self._shared.want(threads.all_ids(tx))
        return count

    @_operation
    def projects(self) -> list[Project]:
        """List the projects that threads belong to, the one with the latest turn first.

        That is the repository, by its remote as it was recorded; without a remote, the work tree on
        disk that the directory is in; else the directory.  Threads in which nobody has said anything
        don't count.  Cost: an index entry for each thread, and a look at each directory.
        """
        from rollbook.index.projects import projects

        source = self._source()
        source.annotations.refresh()
        with source.engine.read() as tx:
            return projects(tx, source.project_names())

    @_operation
    def delete_threads(
        self, thread_ids: Sequence[str], *, rollouts: bool = False, dry_run: bool = False
    ) -> DeletionReport:
        """Remove threads, and every trace that Rollbook holds of them; their rollouts if wanted.

        That is their rows, what was said in them and used, their log rows, names, tags and pins.
        Where rollouts stay, that they are to be left alone is remembered, with nothing but id and
        time of the last turn; a thread that goes on after that is there again.  The home is synced
        before.  Killed in between, a thread is deleted, or not; to delete it again completes it.

        Errors: InvalidThreadIdError, ThreadNotFoundError; with rollouts also ThreadInUseError where
        one is being written, RolloutError where a fork begins in one, or it can't be deleted;
        nothing is deleted where one of the threads can't be, but for the last.
        """
        return self._delete(list(map(parse_thread_id, thread_ids)), rollouts, dry_run)

    @_operation
    def prune(
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
        """Delete the threads whose last turn is so long ago; see :meth:`delete_threads`.

        Pinned threads stay, unless ``keep_pinned`` is false, and so do those with one of
        ``keep_tags``.  ``dry_run`` only tells what would go.  Filters are as for
        :meth:`list_threads`.

        Errors: UsageError for a time that isn't positive; those of :meth:`delete_threads`.
        """
        if older_than <= timedelta(0):
            raise UsageError("threads are pruned by an age of more than nothing")
        self._sync_index()
        selection = self._filter(
            allowed_sources,
            model_providers,
            archived_only,
            cwd,
            title_contains,
            include_silent,
            project,
            tags,
            False if keep_pinned else None,
            source=self._index,
        )
        doomed = self._older_than(datetime.now(UTC) - older_than, selection, set(keep_tags))
        return self._delete(doomed, rollouts, dry_run)

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
        if rebuild and self._shared is not None:
            self._shared.forget_items()
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
        if self._shared is not None:
            self._shared.deliver_all(items=not metadata_only)
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
        with self._transcript(thread_id) as reader:
            for name, value in given.items():
                page: TranscriptPage = getattr(reader, name)(value, limit)
                return page
            return reader.last(limit)

    def read_whole_thread(self, thread_id: str) -> Iterator[TranscriptItem]:
        """Read all that was said and done in a thread, oldest first, each text as a whole.

        Errors: as of :meth:`read_thread`.
        """
        opened = ExitStack()
        reader = opened.enter_context(self._transcript(thread_id))

        def items() -> Iterator[TranscriptItem]:
            with opened:
                yield from reader.all()

        return items()

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
        source = self._source()
        with source.engine.read() as tx:
            return tree_of(
                tx, str(source.home), thread.id, source.leave_out, source.annotations.shown
            )

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
        project: str | None = None,
        tags: Sequence[str] = (),
        pinned: bool | None = None,
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

        selection = self._filter(
            allowed_sources,
            model_providers,
            bool(archived),
            cwd,
            title_contains,
            True,
            project,
            tags,
            pinned,
        )
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
            threads=selection,
            anywhere=archived is None,
        )
        source = self._source()
        finder = None if source is self._index else self._shared_finder(source, request)
        page = search_page(self._content, source, request, finder)
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
        project: str | None = None,
        tags: Sequence[str] = (),
        pinned: bool | None = None,
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
        selection = self._filter(
            allowed_sources,
            model_providers,
            bool(archived),
            cwd,
            title_contains,
            True,
            project,
            tags,
            pinned,
        )
        request = UsageRequest(
            by=keys,
            since=since,
            until=until,
            time_zone=time_zone,
            thread_id=None if thread_id is None else parse_thread_id(thread_id),
            threads=selection,
            anywhere=archived is None,
            prices=prices,
        )
        source = self._source()
        report = usage_report(self._content, source, request, is_shared=source is not self._index)
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
        Where the state is shared, what other hosts change gives updates, too, whose ``hosts`` are
        those; what this home changes is sent before the update comes.
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
        either = _Either(stop or threading.Event())
        take_back = self.before_closing(either.closing.set)
        try:
            if self._shared is not None:
                yield from self._shared.merged(self._own_updates(check_interval_s, either), either)
            else:
                yield from self._own_updates(check_interval_s, either)
        finally:
            take_back()

    def _own_updates(self, check_interval_s: float, stop: "_Either") -> Iterator[WatchUpdate]:
        from rollbook.index.watch import Watch

        is_first = True
        for update in Watch(self._index, check_interval_s, stop):
            changed = update.changed + update.removed
            self._keeper.want(None if update.is_full else changed)
            if self._shared is not None:
                self._shared.follow(None if is_first else changed)
            is_first = False
            yield update

    @_operation
    def insert_log(self, entry: LogEntry) -> None:
        """Append one log row.  Errors: DatabaseBusyError, DatabaseError.  Source: behaviour.md 121."""
        self.insert_logs([entry])

    @_operation
    def insert_logs(self, entries: Sequence[LogEntry]) -> None:
        """Append log rows in order, all of them or none; nothing happens for none.

        Errors: DatabaseBusyError where another process holds the lock for 30 s, DatabaseError.
        Source: behaviour.md 125; any number of rows fits.
        """
        self._logs.insert(entries)
        if self._shared is not None and entries:
            self._shared.want(logs=True)

    @_operation
    def query_logs(self, query: LogQuery = LogQuery()) -> list[LogRow]:
        """Read log rows by id, oldest first unless the query says otherwise; empty for none.

        Errors: UsageError for a negative limit; DatabaseError.
        Source: behaviour.md 128 to 130; unlike 129, ``%`` and ``_`` are just characters.
        """
        source = self._source(logs=True)
        if source is self._index:
            return self._logs.select(query)
        with source.engine.read() as tx:
            return shared_logs.select(tx, checked(query))

    @_operation
    def max_log_id(self, query: LogQuery = LogQuery()) -> int:
        """Find the largest id among the rows that a query asks for; 0 where there are none.

        Source: behaviour.md 130.
        """
        source = self._source(logs=True)
        if source is self._index:
            return self._logs.max_id(query)
        with source.engine.read() as tx:
            return shared_logs.max_id(tx, checked(query))

    @_operation
    def delete_logs_before(self, ts: int) -> int:
        """Delete the log rows whose time is before ``ts`` (epoch seconds); returns how many.

        Works in small transactions, so that nobody who logs has to wait.  Source: behaviour.md 126.
        """
        source = self._source(logs=True)
        if self._shared is None or source is self._index:
            return self._logs.delete_before(ts)
        self._logs.delete_before(ts)
        with self._shared.engine.write() as tx:
            return shared_logs.delete_before(tx, ts)

    def _filter(
        self,
        allowed_sources: Sequence[str],
        model_providers: Sequence[str] | None,
        archived: bool,
        cwd: str | None,
        title_contains: str | None,
        include_silent: bool,
        project: str | None,
        tags: Sequence[str],
        pinned: bool | None,
        source: Source | None = None,
    ) -> ThreadFilter:
        """Make a filter, by how threads are organised now."""
        source = source or self._source()
        annotations = source.annotations
        annotations.refresh()
        return ThreadFilter(
            sources=tuple(allowed_sources),
            providers=None if model_providers is None else tuple(model_providers),
            archived=archived,
            cwds=None if cwd is None else annotations.relocations.recorded_as(cwd),
            title_contains=title_contains,
            include_silent=include_silent,
            groups=None if project is None else self._groups_of(source, project),
            tags=tuple(tags),
            pinned=pinned,
        )

    def _say(self, kind: str, thread_id: str, **said: Any) -> ThreadMetadata:
        from rollbook.model.annotation import Line

        thread = self._required_thread(thread_id)
        self._index.annotations.say([Line(datetime.now(UTC), kind, thread.id, **said)])
        if self._shared is not None:
            self._shared.want(annotations=True)
        return self._shown(thread)

    def _sync_index(self) -> None:
        _, changed = self._index.sync(jobs=None, rebuild=False, progress=None, wait_s=_SYNC_WAIT_S)
        self._share(changed)

    def _older_than(
        self, time: datetime, selection: ThreadFilter, keep_tags: set[str]
    ) -> list[str]:
        found: list[str] = []
        anchor: Anchor | None = Anchor(time, "ffffffff-ffff-ffff-ffff-ffffffffffff")
        while anchor is not None:
            page = self._page(self._index, _PRUNED_AT_ONCE, anchor, SortKey.RECENCY_AT, selection)
            kept = set(keep_tags)
            items = page.items
            if self._shared is not None:
                source = self._source()
                if source is self._index:
                    raise DatabaseError(
                        f"{self._shared.why_away}: what others have pinned or tagged isn't known",
                        hint="prune when it can be reached again",
                    )
                items = source.annotations.shown(items)
                items = [each for each in items if selection.pinned is None or not each.pinned]
            found += [each.id for each in items if kept.isdisjoint(each.tags)]
            anchor = page.next_anchor
        return found

    def _delete(self, thread_ids: list[str], rollouts: bool, dry_run: bool) -> DeletionReport:
        from rollbook.index.deletion import Deletion

        self._sync_index()
        deletion = Deletion(self._index, thread_ids, rollouts=rollouts)
        gone, log_rows = deletion.threads(), 0
        if gone and not dry_run:
            deletion.forget()
            self._content.forget_threads(thread_ids)
            log_rows = self._logs.delete_threads(thread_ids)
            deletion.remove_rollouts()
            log_rows = max(log_rows, self._forget_shared(thread_ids))
        return DeletionReport(
            threads=gone, with_rollouts=rollouts, is_dry_run=dry_run, log_rows=log_rows
        )

    def _forget_shared(self, thread_ids: list[str]) -> int:
        """Take threads that were deleted here away from what is shared; says how many log rows."""
        if self._shared is None:
            return 0
        self._shared.want(thread_ids, annotations=True)
        if self._source() is self._index:
            return 0
        with self._shared.engine.write() as tx:
            return shared_logs.delete_threads(tx, thread_ids)

    def _source(self, *, logs: bool = False) -> Source:
        """Choose where to read: what hosts share, if that can be reached, else what this one has."""
        shared = None if self._shared is None else self._shared.source(logs=logs)
        return self._index if shared is None else shared

    def _share(self, thread_ids: Collection[str] | None, *, items: bool = False) -> None:
        if self._shared is not None:
            self._shared.want(thread_ids, items=items, annotations=items)

    def _content_was_read(self, thread_ids: Collection[str] | None) -> None:
        """Share what was used in threads, which is only known then."""
        if self._shared is not None:
            self._shared.renew(thread_ids)

    def _refuse_other_host(self, thread: ThreadMetadata) -> None:
        if self._shared is not None and thread.host:
            raise ThreadElsewhereError(
                f"thread {thread.id} is of host {thread.host}, and this is {self._shared.host}",
                host=thread.host,
                hint="have that host write it",
            )

    def _groups_of(self, source: Source, project: str) -> tuple[int, ...]:
        from rollbook.index.projects import groups_of

        with source.engine.read() as tx:
            return groups_of(tx, source.project_names(), project)

    def _page(
        self,
        source: Source,
        limit: int,
        anchor: Anchor | None,
        sort_key: SortKey,
        selection: ThreadFilter,
    ) -> ThreadsPage:
        with source.engine.read() as tx:
            items, next_anchor, scanned = threads.page(
                tx, str(source.home), limit, anchor, sort_key, selection, source.leave_out
            )
        return ThreadsPage(source.annotations.shown(items), next_anchor, scanned)

    def _prepare_list(
        self,
        limit: int,
        anchor: Anchor | None,
        sort_key: SortKey,
        selection: ThreadFilter,
        within_s: float | None = None,
    ) -> None:
        def has_enough(latest: datetime) -> bool:
            page = self._page(self._index, limit, anchor, sort_key, selection)
            return page.next_anchor is not None and page.next_anchor.ts > latest

        if limit:
            self._index.prepare_list(
                sort_key, has_enough, archived=selection.archived, within_s=within_s
            )

    def _shown(self, thread: ThreadMetadata) -> ThreadMetadata:
        source = self._source()
        if source is not self._index and not thread.host:
            own = msgspec.structs.replace(thread, host=self.host)
            thread = annotated(own, None, self._index.annotations.relocations)
        return source.annotations.shown([thread])[0]

    def _thread(self, thread_id: str) -> ThreadMetadata | None:
        """Look a thread up as its rollouts say, without what was said of it here."""
        self._index.annotations.refresh()
        canonical_id = parse_thread_id(thread_id)
        own = repair.get_thread(self._engine, self._home, self._default_provider, canonical_id)
        shared = None if own or self._shared is None else self._shared.source()
        if shared is None:
            return own
        with shared.engine.read() as tx:
            return self._elsewhere(tx, canonical_id)

    def _elsewhere(self, tx: Transaction, thread_id: str) -> ThreadMetadata | None:
        """Look up what hosts share of a thread: of several copies, the one that changed last."""
        from rollbook.store.shared import copies

        found = copies(tx, thread_id)
        if self._index.is_synced():  # what it doesn't have is about to be taken away there, too
            found = [each for each in found if each.host != self.host]
        return found[0] if found else None

    @contextmanager
    def _transcript(self, thread_id: str) -> Iterator["TranscriptPages"]:
        from rollbook.rollout.pages import TranscriptReader, segments_of

        thread = self._required_thread(thread_id)
        find = partial(repair.rollouts_of, self._engine, self._home)
        segments = segments_of(self._home, thread.id, find)
        shared = None if segments or self._shared is None else self._shared.source()
        if shared is None:
            yield TranscriptReader(self._home, segments)
            return
        from rollbook.fleet.reading import transcript_of

        with shared.engine.read() as tx:
            yield transcript_of(tx, thread.host or self.host, thread.id)

    def _own_thread(self, thread_id: str) -> ThreadMetadata:
        """Look up a thread whose rollout is to be changed."""
        metadata = self._required_thread(thread_id)
        if self.is_elsewhere(metadata):
            raise ThreadElsewhereError(
                f"the rollout of thread {metadata.id} is on host {metadata.host}",
                host=metadata.host,
                hint=f"do it there: it is {metadata.rollout_path}",
            )
        return metadata

    def _shared_finder(
        self, source: Source, request: "SearchRequest"
    ) -> "Callable[[Asked, int], tuple[list[Match], bool]]":
        from rollbook.fleet.reading import find_messages

        return lambda asked, most: find_messages(
            source.engine, asked, most, request.threads, anywhere=request.anywhere
        )

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
        self._share([canonical_id])


def is_shared(database: str | os.PathLike[str] | None = None) -> bool:
    """Say whether a database, else ``ROLLBOOK_DB``, is one on a server, which many hosts share."""
    return shared_address(database) is not None


def _home_of(
    home: str | os.PathLike[str] | None, *, is_needed: bool
) -> "tuple[Path, TemporaryDirectory[str] | None]":
    """Find the home; an empty one that doesn't last, where there is none and none is needed."""
    try:
        return resolve_home(home), None
    except HomeNotFoundError:
        if is_needed or home or os.environ.get("CODEX_HOME"):
            raise
    from tempfile import TemporaryDirectory

    directory = TemporaryDirectory(prefix="rollbook-", ignore_cleanup_errors=True)
    return Path(directory.name), directory


def _sharing(
    address: str, read_address: str | None, host: str | None, *, has_home: bool
) -> Callable[[HomeIndex, ContentDatabase, LogDatabase], "SharedState"]:
    try:
        from rollbook.fleet.state import SharedState
    except ModuleNotFoundError as error:
        raise UsageError(
            f"a database on a server needs {error.name}",
            hint="pip install 'rollbook[postgres]'",
        ) from error
    read_address = read_address or os.environ.get("ROLLBOOK_READ_DB") or None

    def share(index: HomeIndex, content: ContentDatabase, logs: LogDatabase) -> SharedState:
        return SharedState(address, read_address, host, index, content, logs, has_home=has_home)

    return share


class _Either:
    """An event of the caller's, or the closing of the state."""

    def __init__(self, stop: threading.Event) -> None:
        self.closing = threading.Event()
        self._stop = stop

    def end(self) -> None:
        """Have it be as if it had come."""
        self.closing.set()

    def is_set(self) -> bool:
        """Say whether either has come."""
        return self.closing.is_set() or self._stop.is_set()

    def wait(self, timeout_s: float) -> bool:
        """Wait for the closing, but not for longer."""
        return self.closing.wait(timeout_s) or self._stop.is_set()


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
        cwd=os.fspath(metadata.recorded_cwd or metadata.cwd),
        created_at=whole_seconds(metadata.created_at),
        updated_at=whole_seconds(metadata.updated_at),
        archived_at=archived_at and whole_seconds(archived_at),
        recency_at=recency_at and whole_seconds(recency_at),
    )
