"""Record one thread: its rollout first, the database behind it (behaviour.md 101 to 114)."""

import logging
import os
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rollbook.errors import (
    DatabaseError,
    RolloutError,
    ThreadNotFoundError,
    UsageError,
)
from rollbook.forks import renew_after_fork
from rollbook.git import GitFacts, git_facts
from rollbook.model.thread import (
    DynamicToolSpec,
    ThreadMetadata,
    ThreadMetadataBuilder,
    parse_thread_id,
)
from rollbook.recorder.follower import Follower
from rollbook.recorder.meta import (
    NewThread,
    base_instructions_of,
    check_tools,
    is_ours,
    new_thread_id,
    present_time_text,
    time_text,
)
from rollbook.rollout.fold import dynamic_tools_of
from rollbook.rollout.history import as_legacy, files_of, read_items
from rollbook.rollout.layout import SESSIONS, new_rollout_path
from rollbook.rollout.lines import (
    MalformedLineError,
    RolloutItem,
    as_read,
    encode_line,
    to_item,
)
from rollbook.rollout.policy import is_persisted
from rollbook.rollout.writer import RolloutWriter, exclusive, unpack
from rollbook.runtime import StateRuntime
from rollbook.version import __version__

_CHUNK_BYTES = 1 << 20
_FOLLOW_S = 1.0
_log = logging.getLogger(__name__)


class RolloutRecorder:
    """Writes the rollout of one thread.  Make one with :meth:`create`, :meth:`resume`, :meth:`fork`.

    Each record is one line, whole on disk or not there.  The database follows within milliseconds;
    where it can't be written, recording goes on, and what it missed is made up later, by this
    recorder or the next sync.  While a recorder is open no other can write to the thread.  It is a
    context manager, may be used from several threads, and is closed with its state; a forked child
    can't use it.
    """

    def __init__(
        self,
        state: StateRuntime,
        writer: RolloutWriter,
        builder: ThreadMetadataBuilder,
        history: Sequence[RolloutItem],
    ) -> None:
        self._writer: RolloutWriter | None = writer
        self._builder = builder
        self._history = list(history)
        self._state = state
        self._lock = threading.Lock()
        self._follower = Follower(state, builder)
        self._follower.catch_up()
        self._forget_closing = state.before_closing(self.close)
        renew_after_fork(self._leave_to_parent)

    @classmethod
    def create(
        cls,
        state: StateRuntime,
        *,
        cwd: str | os.PathLike[str] | None = None,
        source: str = "exec",
        originator: str = "rollbook",
        model_provider: str | None = None,
        base_instructions: str | None = None,
        dynamic_tools: Sequence[DynamicToolSpec] = (),
        git: GitFacts | bool = True,
        cli_version: str | None = None,
        thread_id: str | None = None,
    ) -> Self:
        """Begin a thread: its rollout is there with a session meta when this returns.

        ``cwd`` defaults to the working directory, ``model_provider`` to the default of the state.
        ``git`` is what git knows of it, asked for if true.  ``source`` is where threads of this kind
        come from: Codex shows those of ``cli`` and ``vscode`` unless asked for others.  The id is a
        new UUID of version 7, or ``thread_id``.

        Errors: UsageError for a tool that Codex would refuse (behaviour.md 29), what is nested too
        deep for it, or a thread that exists; RolloutError where the rollout can't be written.
        """
        directory = Path(os.path.abspath(cwd or Path.cwd()))
        check_tools(dynamic_tools)
        thread = NewThread(
            cwd=directory,
            source=source,
            originator=originator,
            model_provider=model_provider or state.default_provider,
            base_instructions=base_instructions,
            dynamic_tools=dynamic_tools,
            git=git if isinstance(git, GitFacts) else git_facts(directory) if git else None,
            cli_version=cli_version or __version__,
        )
        try:
            return cls._begin(state, thread, thread_id, ())
        except MalformedLineError as error:
            raise UsageError(f"a thread can't begin like that: {error}") from error

    @classmethod
    def resume(cls, state: StateRuntime, thread_id: str) -> Self:
        """Go on with a thread that Rollbook has recorded; :attr:`history` has its records.

        What a crash has left of a last line is cut off, and the index is brought up to date.

        Errors: ThreadNotFoundError; ThreadInUseError where another recorder has it open;
        RolloutError where it is archived, kept in several files, can't be read or written, or was
        recorded by another program, which may be writing to it: fork such a thread.
        """
        metadata = _required(state, thread_id)
        path = _own_file(state, metadata)
        writer = RolloutWriter.open(path)
        try:
            history = list(read_items(state.codex_home, metadata.id))
        except BaseException:
            writer.close()
            raise
        builder = ThreadMetadataBuilder(metadata.id, str(path), metadata.created_at)
        return cls(state, writer, builder, history)

    @classmethod
    def fork(
        cls,
        state: StateRuntime,
        thread_id: str,
        *,
        cwd: str | os.PathLike[str] | None = None,
        source: str = "exec",
        originator: str = "rollbook",
        cli_version: str | None = None,
    ) -> Self:
        """Begin a thread with a copy of all records of another one, whoever has recorded that.

        It has the other's tools, provider and, unless ``cwd`` is given, directory, and says where
        it came from.  The other thread is only read.  Source: behaviour.md 31, 106.

        Errors: ThreadNotFoundError; RolloutError where the other can't be read or, being nested too
        deep, can't be copied.
        """
        parent = _required(state, thread_id)
        history = list(as_legacy(read_items(state.codex_home, parent.id)))
        if not history:
            raise RolloutError("has no record that could be forked", path=parent.rollout_path)
        directory = Path(os.path.abspath(cwd or parent.cwd or Path.cwd()))
        thread = NewThread(
            cwd=directory,
            source=source,
            originator=originator,
            model_provider=parent.model_provider,
            base_instructions=base_instructions_of(history),
            dynamic_tools=state.get_dynamic_tools(parent.id) or (),
            git=git_facts(directory),
            cli_version=cli_version or __version__,
            forked_from_id=parent.id,
        )
        try:
            return cls._begin(state, thread, None, history)
        except MalformedLineError as error:
            reason = f"holds a record that can't be copied: {error}"
            raise RolloutError(reason, path=parent.rollout_path) from error

    @classmethod
    def _begin(
        cls,
        state: StateRuntime,
        thread: NewThread,
        thread_id: str | None,
        copied: Sequence[RolloutItem],
    ) -> Self:
        if state.is_closed:
            raise UsageError("the state was closed before")
        new_id = parse_thread_id(thread_id) if thread_id else new_thread_id()
        now = datetime.now(UTC)
        path = new_rollout_path(state.codex_home, new_id, now.astimezone())
        meta = RolloutItem("session_meta", thread.session_meta(new_id, now))
        history = [as_read(meta), *copied]
        with exclusive(state.codex_home / SESSIONS) if thread_id else nullcontext():
            if thread_id and state.get_thread(new_id) is not None:
                raise UsageError(f"there is a thread {new_id} already", hint="resume it")
            writer = RolloutWriter.create(path, _chunks(history, time_text(now)))
        builder = ThreadMetadataBuilder(new_id, str(path), now)
        return cls(state, writer, builder, history)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def thread_id(self) -> str:
        """The id of the thread."""
        return self._builder.id

    @property
    def rollout_path(self) -> Path:
        """Where the rollout is."""
        return Path(self._builder.rollout_path)

    @property
    def history(self) -> list[RolloutItem]:
        """The records that the thread had when this recorder was made, in order."""
        return self._history

    def get_dynamic_tools(self) -> list[DynamicToolSpec]:
        """Read the thread's tools: from the database, else from the rollout (behaviour.md 31)."""
        try:
            return self._state.get_dynamic_tools(self.thread_id) or []
        except DatabaseError as error:
            _log.warning("tools are read from the rollout: %s", error)
            return list(dynamic_tools_of(self._history[0].payload))

    def record_items(self, items: Iterable[RolloutItem | Mapping[str, Any]]) -> int:
        """Append records, all of them or none; returns how many were written.

        ``items`` are records or the JSON objects ``{"type", "payload"}`` of their lines; they get
        the present time unless they have a ``timestamp``.  Events that only tell of progress are
        left out (behaviour.md 114).  When this returns, the operating system has the lines; see
        :meth:`flush`.

        Errors: UsageError for what is no record, or after :meth:`close`; RolloutError where the
        disk is full: nothing was written then, and the same items may be recorded again.
        """
        now = present_time_text()
        lines: list[bytes] = []
        for value in items:
            try:
                item = to_item(value)
                if is_persisted(item):
                    lines.append(encode_line(item.timestamp or now, item.type, item.payload))
            except MalformedLineError as error:
                raise UsageError(f"that is no record of a rollout: {error}") from error
        if lines:
            data = b"".join(lines)
            with self._lock:
                self._open_writer().append(data)
                self._follower.put(data)
        return len(lines)

    def flush(self) -> None:
        """Return when all that was recorded is on the device.

        The database has followed then, too, unless it can't be written within a second.
        Errors: RolloutError, UsageError after :meth:`close`.
        """
        with self._lock:
            writer = self._open_writer()
            self._follower.hasten()
            writer.flush()
        self._follower.wait(_FOLLOW_S)

    def close(self) -> None:
        """Flush, let the database follow, and let the thread go.  Errors: RolloutError."""
        with self._lock:
            writer, self._writer = self._writer, None
            if writer is None:
                return
            self._forget_closing()
            try:
                writer.flush()
            finally:
                self._follower.close()
                writer.close()

    def _open_writer(self) -> RolloutWriter:
        if self._writer is None:
            raise UsageError(f"the recorder of thread {self.thread_id} was closed before")
        return self._writer

    def _leave_to_parent(self) -> None:
        self._lock = threading.Lock()
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.leave_to_parent()


def _chunks(history: Sequence[RolloutItem], now: str) -> Iterator[bytes]:
    """Write records as lines of a new rollout, some at a time."""
    chunk = bytearray()
    for item in history:
        chunk += encode_line(now, item.type, item.payload)
        if len(chunk) >= _CHUNK_BYTES:
            yield bytes(chunk)
            chunk.clear()
    yield bytes(chunk)


def _required(state: StateRuntime, thread_id: str) -> ThreadMetadata:
    metadata = state.get_thread(thread_id)
    if metadata is None:
        raise ThreadNotFoundError(f"there is no thread {thread_id} in {state.codex_home}")
    return metadata


def _own_file(state: StateRuntime, metadata: ThreadMetadata) -> Path:
    """Find the one file of a thread, that Rollbook has recorded and may write to."""
    if metadata.archived_at is not None:
        raise RolloutError("is archived", path=metadata.rollout_path, hint="unarchive it first")
    files = files_of(state.codex_home, metadata.id)
    if not files:
        raise RolloutError("is gone", path=metadata.rollout_path, hint="run `rollbook sync`")
    if len(files) > 1:
        raise RolloutError(
            "is one of several files of its thread",
            path=metadata.rollout_path,
            hint="fork the thread instead",
        )
    if not is_ours(next(read_items(state.codex_home, metadata.id), None), metadata.id):
        raise RolloutError(
            "was not recorded by Rollbook, so another program may be writing to it",
            path=metadata.rollout_path,
            hint="fork the thread instead",
        )
    if files[0].compressed:
        unpack(state.codex_home, files[0])
    return state.codex_home / files[0].path
