"""Do what can be done to a home without risk: no rollout, and nothing of the agent's, is touched."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from rollbook.content.database import content_beside
from rollbook.doctor.databases import (
    LARGE_WAL_BYTES,
    is_open_to_others,
    kept_beside,
    own_databases,
    own_files,
)
from rollbook.errors import DatabaseDamagedError, DatabaseError
from rollbook.index.home import HomeIndex
from rollbook.logs.carry_over import begin_anew
from rollbook.logs.reader import logs_beside
from rollbook.model.labels import number
from rollbook.model.log import LogQuery
from rollbook.model.outcome import ProgressCallback
from rollbook.rollout.layout import resolve_home, state_path
from rollbook.runtime import StateRuntime
from rollbook.store.engine import CONTENT
from rollbook.store.snapshot import examine
from rollbook.store.sqlite import SqliteEngine
from rollbook.store.sqlite_file import beside, is_ours, size_of

_WAIT_S = 5.0  # for another process that is syncing


def repair_home(
    home: str | os.PathLike[str] | None = None,
    database: str | os.PathLike[str] | None = None,
    *,
    progress: ProgressCallback | None = None,
) -> Iterator[str]:
    """Make Rollbook's files private, damaged databases anew, and the index complete.

    Yields a sentence for each thing, when it has been done.
    Errors: those of :meth:`rollbook.StateRuntime.open` and :meth:`rollbook.StateRuntime.sync`.
    """
    place = resolve_home(home)
    state_file = state_path(place, database)
    own = tuple(path for _, path, _ in own_databases(state_file))
    yield from _make_private(place, state_file)
    kept = _kept(*own)
    large = [path for path in own if _wal_bytes(path) > LARGE_WAL_BYTES]
    _make_anew(place, state_file)
    set_aside = _kept(*own) - kept
    yield from map(_told, sorted(set_aside))
    with StateRuntime.open(place, database=database, backfill=False, temporary=False) as state:
        stats = state.sync(progress=progress, wait_s=_WAIT_S)
        if os.path.exists(logs_beside(state_file)):
            state.query_logs(LogQuery(limit=1))  # when the readable rows were carried over
    yield from map(_told, sorted(_kept(*own) - kept - set_aside))
    if stats.indexed or stats.removed:
        yield f"indexed {number(stats.indexed, 'rollout')}, removed {stats.removed} that are gone"
    for path in large:
        if _wal_bytes(path) <= LARGE_WAL_BYTES:
            yield f"brought the write-ahead log of {path} into it"


def _make_private(home: Path, state: Path) -> Iterator[str]:
    for path in own_files(home, state):
        if is_open_to_others(path):
            with suppress(OSError):  # somebody else's, or on a disk that may only be read
                path.chmod(0o700 if path.is_dir() else 0o600)
                yield f"made {path} private"


def _make_anew(home: Path, state: Path) -> None:
    """Set damaged databases aside, and begin new ones."""
    damage = _damage_of(state)
    if damage is not None:
        before = _kept(state)
        index = HomeIndex.open(home, state, default_provider="openai", temporary=False)
        try:
            if _kept(state) == before:  # opening it has not shown the damage
                index.recover(damage)
        finally:
            index.close()
    content, logs = content_beside(state), logs_beside(state)
    damage = _damage_of(content)
    if damage is not None:
        SqliteEngine.replace(content, CONTENT, damage)
    damage = _damage_of(logs)
    if damage is not None:
        begin_anew(logs, damage)


def _damage_of(path: Path) -> DatabaseDamagedError | None:
    """Look a database through to its end; None where it is sound, not there, or another program's."""
    if not os.path.exists(path) or not is_ours(path):
        return None
    try:
        found = examine(path, within_s=None).integrity
    except DatabaseDamagedError as damage:
        return damage
    except DatabaseError:
        return None
    return None if found == "ok" else DatabaseDamagedError(f"{path}: {found}", reason=found)


def _told(kept: Path) -> str:
    return f"set a damaged database aside as {kept}"


def _kept(*databases: Path) -> set[Path]:
    return {file for path in databases for file in kept_beside(path)}


def _wal_bytes(path: Path) -> int:
    return size_of(beside(path, "-wal"))
