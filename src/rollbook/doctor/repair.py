"""Do what can be done to a home without risk: no rollout, and nothing of the agent's, is touched."""

import os
from collections.abc import Iterator
from pathlib import Path

from rollbook.doctor.checks import is_open_to_others, own_files
from rollbook.errors import DatabaseDamagedError, DatabaseError
from rollbook.index.home import HomeIndex
from rollbook.logs.carry_over import begin_anew
from rollbook.logs.reader import logs_beside
from rollbook.model.log import LogQuery
from rollbook.model.outcome import ProgressCallback
from rollbook.rollout.layout import resolve_home, state_path
from rollbook.runtime import StateRuntime
from rollbook.store.snapshot import examine
from rollbook.store.sqlite_file import kept_files


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
    logs_file = logs_beside(state_file)
    for path in own_files(state_file, logs_file):
        if is_open_to_others(path):
            path.chmod(0o700 if path.is_dir() else 0o600)
            yield f"made {path} private"
    kept = _kept(state_file, logs_file)
    damage = _damage_of(state_file)
    if damage is not None:
        _begin_index_anew(place, state_file, damage)
    damage = _damage_of(logs_file)
    if damage is not None:
        begin_anew(logs_file, damage)
    with StateRuntime.open(place, database=database, backfill=False, temporary=False) as state:
        stats = state.sync(progress=progress)
        if logs_file.exists():
            state.query_logs(LogQuery(limit=1))  # when the readable rows have been carried over
    for path in sorted(_kept(state_file, logs_file) - kept):
        yield f"set a damaged database aside as {path}"
    if stats.indexed or stats.removed:
        yield f"indexed {stats.indexed} rollouts, removed {stats.removed} that are gone"


def _damage_of(path: Path) -> DatabaseDamagedError | None:
    """Look a database through to its end; None where it is sound, or another program's."""
    if not path.exists():
        return None
    try:
        found = examine(path, within_s=None).integrity
    except DatabaseDamagedError as damage:
        return damage
    except DatabaseError:
        return None
    return None if found == "ok" else DatabaseDamagedError(f"{path}: {found}", reason=found)


def _begin_index_anew(home: Path, path: Path, damage: DatabaseDamagedError) -> None:
    """Set a damaged index aside, unless that happens when it is opened."""
    before = _kept(path)
    index = HomeIndex.open(home, path, default_provider="openai", temporary=False)
    try:
        if _kept(path) == before:
            index.recover(damage)
    finally:
        index.close()


def _kept(*databases: Path) -> set[Path]:
    return {file for path in databases if path.parent.is_dir() for file in kept_files(path)}
