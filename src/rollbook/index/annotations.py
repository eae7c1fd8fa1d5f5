"""What a person has said of threads, and what follows for what they are shown.

The file comes first, then the database.  Whoever reads looks whether the file is as the database
knows it, and takes it over if not: after another process has written it, after a kill between the
two, and into a new database.
"""

import logging
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import msgspec

from rollbook.errors import (
    AnnotationsError,
    DatabaseBusyError,
    DatabaseUnwritableError,
    RolloutError,
)
from rollbook.index.annotation_file import AnnotationFile
from rollbook.model.annotation import (
    Line,
    Mark,
    Relocations,
    annotated,
    fold,
    milliseconds,
)
from rollbook.model.thread import ThreadMetadata
from rollbook.rollout.layout import parse_rollout_name
from rollbook.rollout.session_index import GivenName, read_given_names, stat_names
from rollbook.store import annotations as store
from rollbook.store import files, threads
from rollbook.store.annotations import FilesState
from rollbook.store.engine import Engine, Transaction

_WAIT_S = 0.1  # of a read, for the database's lock
_log = logging.getLogger(__name__)


class ThreadAnnotations:
    """The annotations of one home, in their file and in its index."""

    def __init__(self, engine: Engine, home: Path, path: Path) -> None:
        self.file = AnnotationFile(path)
        self._engine = engine
        self._home = home
        self._seen: tuple[FilesState, int] | None = None
        self._has_marks = False
        self.relocations = Relocations()
        self.host = ""  # that threads are shown to live on

    def refresh(self) -> None:
        """See to it that the database says what the file does, and know what of it shows.

        Where it can't be written now, it says what it did before.
        """
        seen = self._look(), self._engine.generation
        if seen == self._seen:
            return
        try:
            with self._engine.read() as tx:
                is_known = (store.get_state(tx) or FilesState()) == seen[0]
            if not is_known:
                self._take_over(_WAIT_S)
            self._seen = seen
        except (AnnotationsError, DatabaseBusyError, DatabaseUnwritableError) as error:
            if not isinstance(error, DatabaseBusyError):
                self._seen = seen  # to try again would change nothing
            _log.warning("names and tags may not be the latest: %s", error.message)
        self._load()

    def say(self, lines: Sequence[Line]) -> None:
        """Add lines to the file, then to the database.

        Errors: AnnotationsError; those of the database, which takes over what the file says later.
        """
        self.file.append(lines)
        self._follow()

    def forget(self, thread_ids: set[str], instead: Sequence[Line] = ()) -> None:
        """Take all that was said of some threads away, and say something else instead.

        Errors: as of :meth:`say`.
        """
        self.file.forget(thread_ids, instead)
        self._follow()

    def shown(self, found: list[ThreadMetadata]) -> list[ThreadMetadata]:
        """Show threads as the person sees them."""
        if self.host:
            found = [msgspec.structs.replace(thread, host=self.host) for thread in found]
        if not self._has_marks and not self.relocations:
            return found
        marks: dict[str, Mark] = {}
        if self._has_marks:
            with self._engine.read() as tx:
                marks = store.of_threads(tx, [thread.id for thread in found])
        return [annotated(each, marks.get(each.id), self.relocations) for each in found]

    def as_recorded(self, tx: Transaction, thread: ThreadMetadata) -> ThreadMetadata:
        """Take a name that was given here from a thread that was shown with it, and its host."""
        if self.host and thread.host == self.host:
            thread = msgspec.structs.replace(thread, host="")
        mark = store.of_threads(tx, [thread.id]).get(thread.id)
        if mark is None or mark.name is None or mark.name != thread.name:
            return thread
        return msgspec.structs.replace(thread, name=threads.recorded_name(tx, thread.id))

    def _follow(self) -> None:
        seen = self._look(), self._engine.generation
        self._take_over(None)
        self._seen = seen
        self._load()

    def _load(self) -> None:
        with self._engine.read() as tx:
            self._has_marks = store.has_any(tx)
            self.relocations = store.relocations(tx)

    def _look(self) -> FilesState:
        """Look at the files; at that of Codex's names only where there are annotations."""
        size, mtime_ns = self.file.look()
        return FilesState() if size < 0 else FilesState(size, mtime_ns, *stat_names(self._home))

    def _take_over(self, wait_s: float | None) -> None:
        """Bring what the file says into the database, read while nobody else can do the same."""
        with self._engine.write(wait_s=wait_s) as tx:
            state = self._look()
            now = fold(self.file.read())
            now = msgspec.structs.replace(now, marks=_without_outdone(now.marks, self.given()))
            before = store.get_all(tx)
            store.replace(tx, before, now)
            self._delete(tx, before, now.marks)
            store.set_state(tx, state)

    def given(self) -> dict[str, GivenName]:
        """Read the names that Codex has given, as far as they can be read."""
        try:
            return read_given_names(self._home)
        except RolloutError as error:  # a sync counts it
            _log.warning("names that Codex has given are not known: %s", error.message)
            return {}

    def _delete(self, tx: Transaction, before: dict[str, Mark], now: dict[str, Mark]) -> None:
        """Take deleted threads out; let those that no longer are be read again."""
        was = {thread_id: mark.deleted_through for thread_id, mark in before.items()}
        for thread_id, mark in now.items():
            if mark.deleted_through is not None and mark.deleted_through != was.get(thread_id):
                ignore(tx, thread_id, mark.deleted_through)
        back = {
            thread_id
            for thread_id, through in was.items()
            if through is not None and now.get(thread_id, Mark()).deleted_through is None
        }
        if back:
            for path in files.ignored(tx):
                name = parse_rollout_name(PurePosixPath(path).name)
                if name is None or name.thread_id in back:
                    files.delete(tx, path)


def ignore(tx: Transaction, thread_id: str, through: int) -> None:
    """Take a thread out of the index, unless it went on after a turn (epoch seconds).

    Its rollouts stay known, so that nobody reads them again as long as they stay as they are.
    """
    recency = threads.recency(tx, thread_id)
    if recency is not None and recency > through:
        return
    threads.delete(tx, thread_id)
    for row in files.of_thread(tx, thread_id):
        files.upsert(tx, files.without_thread(row))


def _without_outdone(marks: dict[str, Mark], given: dict[str, GivenName]) -> dict[str, Mark]:
    """Leave out the names that were given before Codex gave another one."""
    found = dict(marks)
    for thread_id in marks.keys() & given.keys():
        mark, later = marks[thread_id], given[thread_id].given_at
        if mark.name is not None and later is not None and milliseconds(later) > mark.named_at:
            found[thread_id] = msgspec.structs.replace(mark, name=None)
    return found
