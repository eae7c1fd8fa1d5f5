"""Look at a home and what Rollbook keeps for it; nothing is created, changed, or locked."""

import os
import resource
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from rollbook.doctor import databases, disk
from rollbook.doctor.processes import examine_locks
from rollbook.doctor.report import Finding, Report, Status
from rollbook.doctor.sharing import examine_sharing
from rollbook.filesystem import is_network, kind_of
from rollbook.model.labels import number, size_text
from rollbook.rollout.layout import ROOTS, newest_of, resolve_home, state_path
from rollbook.store.snapshot import sqlite_version
from rollbook.store.sqlite_file import size_of
from rollbook.version import __version__

INTEGRITY_WITHIN_S = 0.4
LEAST_FREE_BYTES = 100 << 20  # about a day of an agent's rollouts and logs
FEW_FILES = 256  # that a process may have open
FEW_WATCHES = 8192
_WATCHES = Path("/proc/sys/fs/inotify/max_user_watches")


def examine_home(
    home: str | os.PathLike[str] | None = None,
    database: str | os.PathLike[str] | None = None,
    *,
    within_s: float | None = INTEGRITY_WITHIN_S,
) -> Report:
    """Look at a home: its databases, the index against the disk, locks, and what is around them.

    ``home`` and ``database`` are as in :meth:`rollbook.StateRuntime.open`.  Each database is looked
    through for ``within_s`` seconds, or to its end.

    Errors: HomeNotFoundError, HomeError.
    """
    place = resolve_home(home)
    found = [
        *_examine(place, state_path(place, database), within_s),
        *examine_sharing(place, database),
    ]
    return Report(str(place), tuple(found))


def _examine(home: Path, state: Path, within_s: float | None) -> Iterator[Finding]:
    rollouts = disk.look(home)
    agents = databases.agent_databases(home, state)
    newest = newest_of(agents, "state")
    yield _versions()
    yield _home(home, rollouts)
    yield from disk.examine_rollouts(rollouts)
    yield from _file_system(home, state)
    yield from _space(home, state)
    own = list(databases.examine_own(state, within_s))
    yield from own
    yield from databases.examine_permissions(home, state)
    index = disk.read_index(home, state) if databases.is_comparable(own) else None
    if isinstance(index, Finding):
        yield index
        index = None
    if index is not None:
        yield from disk.compare(rollouts, index)
    yield from examine_locks(rollouts, state)
    yield from _limits(rollouts)
    yield from disk.examine_clock(rollouts, index, state)
    yield from databases.examine_agents(agents, within_s)
    if index is not None and newest is not None:
        yield from disk.only_the_agent_knows(rollouts, index, newest)


def _versions() -> Finding:
    versions = {
        "rollbook": __version__,
        "Python": ".".join(map(str, sys.version_info[:3])),
        "SQLite": sqlite_version(),
    }
    text = ", ".join(f"{name} {version}" for name, version in versions.items())
    details = {name.lower(): version for name, version in versions.items()}
    return Finding("versions", Status.OK, text, details=details)


def _home(home: Path, rollouts: disk.Disk) -> Finding:
    if not os.access(home, os.R_OK | os.X_OK):
        message, hint = f"{home} can't be read", "check its permissions, and whose it is"
        return Finding("home", Status.PROBLEM, message, hint, {"home": str(home)})
    if not any(os.path.isdir(home / root) for root in ROOTS):
        message = f"{home} has neither {' nor '.join(ROOTS)}"
        hint = "is it the right directory, and is its disk there?"
        return Finding("home", Status.NOTE, message, hint, {"home": str(home), "rollouts": 0})
    count = len(rollouts.listing.files)
    details = {"home": str(home), "rollouts": count, "directories": rollouts.directories}
    return Finding("home", Status.OK, f"{home}: {number(count, 'rollout')}", details=details)


def _file_system(home: Path, state: Path) -> Iterator[Finding]:
    for name, path in {"home": home, "database": state.parent}.items():
        if name == "database" and path.is_relative_to(home):
            continue
        kind = kind_of(path) or "unknown"
        on_network = is_network(path)
        details = {
            "kind": kind,
            "network": on_network,
            "journal_mode": "truncate" if on_network else "wal",
        }
        if on_network:
            yield Finding(
                "file system",
                Status.NOTE,
                f"the {name} is on a network file system ({kind}), where a write-ahead log is not"
                " safe: a rollback journal (mode truncate) and lock files are used instead",
                "faster on a local disk: name a database there with --db",
                details,
            )
        else:
            message = f"the {name} is on {kind}: a write-ahead log is used"
            yield Finding("file system", Status.OK, message, details=details)


def _space(home: Path, state: Path) -> Iterator[Finding]:
    """Ask for room for what comes next, and for a database that is made anew beside the old one."""
    needed = LEAST_FREE_BYTES + sum(size_of(path) for _, path, _ in databases.own_databases(state))
    seen = set()
    for place in (home, state.parent):
        path = next(path for path in (place, *place.parents) if os.path.exists(path))
        device = path.stat().st_dev
        if device in seen:
            continue
        seen.add(device)
        free = shutil.disk_usage(path).free
        has_enough = free >= needed
        yield Finding(
            "disk space",
            Status.OK if has_enough else Status.PROBLEM,
            f"{size_text(free)} free at {path}",
            "" if has_enough else f"free some space: {size_text(needed)} may be needed",
            {"path": str(path), "free_bytes": free, "needed_bytes": needed},
        )


def _limits(rollouts: disk.Disk) -> Iterator[Finding]:
    open_files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= open_files < FEW_FILES:  # below 0 there is no limit
        message, hint = f"a process may have only {open_files} files open", "raise it: `ulimit -n`"
        yield Finding("limits", Status.NOTE, message, hint, {"open_files": open_files})
    try:
        watches = int(_WATCHES.read_text("ascii"))
    except (OSError, ValueError):
        return
    if watches < max(FEW_WATCHES, 2 * rollouts.directories):
        message = f"only {watches:,} directories can be watched, and others watch some, too"
        hint = "`sync --watch` may need more: raise fs.inotify.max_user_watches"
        yield Finding("limits", Status.NOTE, message, hint, {"watches": watches})
