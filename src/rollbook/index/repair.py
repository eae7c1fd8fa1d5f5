"""Reads by id that the database can't answer, answered from disk and stored for the next time."""

import logging
import re
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from rollbook.errors import (
    AmbiguousIdError,
    DatabaseBusyError,
    DatabaseUnwritableError,
    RolloutError,
    ThreadNotFoundError,
)
from rollbook.index.source import Readable
from rollbook.model.thread import DynamicToolSpec, ThreadMetadata, hyphenated
from rollbook.rollout.layout import (
    RolloutFile,
    choose_files,
    find_rollouts,
    list_rollouts,
    locate,
    look,
    parse_rollout_name,
    stat_rollout,
)
from rollbook.rollout.session_index import read_names
from rollbook.store import files, threads, tools
from rollbook.store.engine import Engine
from rollbook.telemetry import READ_FALLBACKS, count

if TYPE_CHECKING:
    from rollbook.index.indexer import Indexer

_log = logging.getLogger(__name__)
_SHOWN_CANDIDATES = 5
_WAIT_S = 0.1  # for the database's lock, to store what a read has found


def get_thread(
    engine: Engine, home: Path, default_provider: str, thread_id: str
) -> ThreadMetadata | None:
    """Read a thread from the database; from disk where the row is missing or points astray.

    A row whose rollout is nowhere to be found is given as it is; None where there is neither.  What
    the rollouts say is stored, unless the database can't be written at once.
    Errors: DamagedRowError for a row with impossible values.
    """
    try:
        with engine.read() as tx:
            metadata = threads.get(tx, str(home), thread_id)
    except DatabaseUnwritableError as error:  # nor read: the disk fails, or no file can be opened
        _log.warning("thread %s is read from its rollout: %s", thread_id, error.message)
        return _look(home_indexer(engine, home, default_provider), home, thread_id, error)
    if metadata is not None and _carries(home, metadata):
        return metadata
    paths = find_rollouts(home, thread_id)
    if not paths:
        return metadata
    _fallen_back("get_thread")
    indexer = home_indexer(engine, home, default_provider, wait_s=_WAIT_S)
    try:
        indexer.index(paths)
    except (DatabaseBusyError, DatabaseUnwritableError) as error:
        _log.info("thread %s was read and not stored: %s", thread_id, error.message)
        return indexer.look(thread_id, paths) or metadata
    with engine.read() as tx:
        return threads.get(tx, str(home), thread_id)


def _look(
    indexer: "Indexer", home: Path, thread_id: str, why: DatabaseUnwritableError
) -> ThreadMetadata:
    metadata = indexer.look(thread_id, find_rollouts(home, thread_id))
    if metadata is None:
        raise why
    return metadata


def home_indexer(
    engine: Engine, home: Path, default_provider: str, *, wait_s: float | None = None
) -> "Indexer":
    """Make an indexer for single rollouts of a home."""
    from rollbook.index.indexer import Indexer

    return Indexer(engine, home, default_provider, _names(home), wait_s=wait_s)


def index_rollout(engine: Engine, home: Path, default_provider: str, path: str) -> None:
    """Index one rollout, or what is new of it, by its path below the home."""
    home_indexer(engine, home, default_provider).index([path])


def complete_thread_id(engine: Readable, home: Path, text: str) -> str:
    """Complete a shortened id from the database, else from the names of the rollouts.

    Errors: AmbiguousIdError where more than one thread fits, ThreadNotFoundError where none does.
    """
    prefix = _id_prefix(text)
    with engine.read() as tx:
        found = threads.ids_with_prefix(tx, prefix, _SHOWN_CANDIDATES)
    if not found:
        names = (parse_rollout_name(Path(path).name) for path in list_rollouts(home).files)
        found = sorted({n.thread_id for n in names if n and n.thread_id.startswith(prefix)})
    if not found:
        raise ThreadNotFoundError(
            f"there is no thread {prefix} in {home}",
            hint="`rollbook list --all` shows what there is, `rollbook sync` looks again",
        )
    if len(found) > 1:
        candidates = ", ".join(found[:_SHOWN_CANDIDATES])
        raise AmbiguousIdError(
            f"{prefix} fits several threads: {candidates}", hint="give more of the id"
        )
    return found[0]


def get_dynamic_tools(
    engine: Engine, home: Path, default_provider: str, thread_id: str
) -> list[DynamicToolSpec] | None:
    """Read a thread's tools from the database, else from its rollout, and store those.

    None where neither has any.  Source: behaviour.md 24, 31; the reference doesn't store them.
    """
    with engine.read() as tx:
        stored = tools.get(tx, thread_id)
    if stored:
        return stored
    metadata = get_thread(engine, home, default_provider, thread_id)
    if metadata is None:
        return None
    found = _tools_on_disk(home, metadata)
    if not found:
        return None
    _fallen_back("get_dynamic_tools")
    try:
        with engine.write(wait_s=_WAIT_S) as tx:
            if not threads.exists(tx, thread_id):
                return list(found)
            tools.put_first(tx, thread_id, found)
            return tools.get(tx, thread_id)
    except (DatabaseBusyError, DatabaseUnwritableError) as error:
        _log.info("tools of %s were read and not stored: %s", thread_id, error.message)
        return list(found)


def rollouts_of(engine: Engine, home: Path, thread_id: str) -> list[RolloutFile]:
    """Find the files that make a thread, oldest first: those of the index, else those on disk."""
    with engine.read() as tx:
        known = [row.path for row in files.of_thread(tx, thread_id)]
    for paths in (known, None):
        found = [
            file
            for path in (find_rollouts(home, thread_id) if paths is None else paths)
            if (file := stat_rollout(home, path)) is not None
        ]
        if found:
            return choose_files(thread_id, found)
    return []


def rollout_exists(metadata: ThreadMetadata) -> bool:
    """Say whether the file of a thread is on disk, plain or compressed."""
    path = Path(metadata.rollout_path)
    return locate(path.parent, path.name) is not None


def _fallen_back(operation: str) -> None:
    count(READ_FALLBACKS, db_operation_name=operation)


def _id_prefix(text: str) -> str:
    """Bring the beginning of an id into canonical form."""
    digits = text.strip().lower().replace("-", "")
    if not re.fullmatch(r"[0-9a-f]{1,32}", digits):
        raise ThreadNotFoundError(
            f"there is no thread {text[:100]!r}",
            hint="a thread id is a UUID such as 01a207c8-2362-7ee0-a181-2c5d5a009976",
        )
    return hyphenated(digits)


def _names(home: Path) -> dict[str, str]:
    try:
        return read_names(home)
    except RolloutError as error:  # a sync counts it; a thread can be read without its name
        _log.warning("threads of %s have no names: %s", home, error.message)
        return {}


def _tools_on_disk(home: Path, metadata: ThreadMetadata) -> tuple[DynamicToolSpec, ...]:
    from rollbook.rollout.extract import read_dynamic_tools

    file = _file_of(home, metadata)
    return () if file is None else read_dynamic_tools(home, file, metadata.id)


def _file_of(home: Path, metadata: ThreadMetadata) -> RolloutFile | None:
    """Look up the rollout that a row names; None where it is gone or outside of the home."""
    return stat_rollout(home, metadata.rollout_path.removeprefix(f"{home}/"))


def _carries(home: Path, metadata: ThreadMetadata) -> bool:
    """Say whether the rollout that a row names is there and is that thread's.

    Its name says so in nearly all cases; only where it doesn't is the file opened.
    """
    path = metadata.rollout_path
    if path.endswith(f"-{metadata.id}.jsonl") and path.startswith(f"{home}/") and look(path):
        return True
    file = _file_of(home, metadata)
    if file is None:
        return False
    name = parse_rollout_name(PurePosixPath(file.path).name)
    if name is not None:
        return name.thread_id == metadata.id
    from rollbook.rollout.extract import read_thread_id

    try:
        return read_thread_id(home, file) == metadata.id
    except RolloutError:
        return False
