"""Look at a home and what Rollbook keeps for it; nothing is created, changed, or locked."""

import os
import resource
import shutil
import stat
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from rollbook.doctor.report import Finding, Report, Status
from rollbook.errors import DatabaseDamagedError, DatabaseError, RollbookError
from rollbook.filesystem import is_network, kind_of
from rollbook.holders import Holder, described, holders_of, way_out, writers_below
from rollbook.index.backfill import is_same
from rollbook.index.indexer import is_ahead
from rollbook.index.lock import sync_lock_path
from rollbook.logs.reader import logs_beside
from rollbook.rollout.layout import (
    ROOTS,
    HomeListing,
    is_archived_path,
    list_rollouts,
    parse_rollout_name,
    resolve_home,
    state_path,
)
from rollbook.store import files, threads
from rollbook.store.engine import LOGS, STATE, Schema
from rollbook.store.files import FileRow
from rollbook.store.migrate import load_migrations
from rollbook.store.snapshot import Examination, Snapshot, examine
from rollbook.store.sqlite_file import COMPANIONS, WRITE_LOCK_BYTE, beside, kept_files
from rollbook.version import __version__

INTEGRITY_WITHIN_S = 0.4
LEAST_FREE_BYTES = 100 << 20
LARGE_WAL_BYTES = 256 << 20
FEW_FILES = 256  # that a process may have open
FEW_WATCHES = 8192
_SHOWN = 5
_CLOCK_SLACK_S = 300
_WATCHES = Path("/proc/sys/fs/inotify/max_user_watches")
_OWN_COMPANIONS = (*COMPANIONS, ".lock", ".open", ".sync.lock", ".network.lock")


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
    return Report(tuple(_examine(resolve_home(home), database, within_s)))


def _examine(
    home: Path, database: str | os.PathLike[str] | None, within_s: float | None
) -> Iterator[Finding]:
    state = state_path(home, database)
    logs = logs_beside(state)
    listing = list_rollouts(home)
    yield _versions()
    yield from _home(home, listing)
    yield from _file_system(home, state)
    yield from _space(home, state)
    yield from _database(state, STATE, within_s)
    yield from _database(logs, LOGS, within_s)
    yield from _permissions(state, logs)
    yield from _index(home, state, listing)
    yield from _locks(home, listing, state, logs)
    yield from _limits()
    yield from _clock(listing)
    yield from _codex(home, state, within_s)


def _versions() -> Finding:
    python = ".".join(map(str, sys.version_info[:3]))
    return Finding(
        "versions",
        Status.OK,
        f"rollbook {__version__}, Python {python}",
        details={"rollbook": __version__, "python": python},
    )


def _home(home: Path, listing: HomeListing) -> Iterator[Finding]:
    present = [root for root in ROOTS if (home / root).is_dir()]
    if not present:
        yield Finding(
            "home",
            Status.NOTE,
            f"{home} has neither {' nor '.join(ROOTS)}",
            "is it the right directory, and is its disk there?",
        )
    else:
        yield Finding(
            "home",
            Status.OK,
            f"{home}: {_number(len(listing.files), 'rollout')}",
            details={"home": str(home), "rollouts": len(listing.files)},
        )
    if listing.failures:
        shown = [f"{failure.path} {failure.message}" for failure in listing.failures]
        yield Finding(
            "rollouts",
            Status.PROBLEM,
            f"{_number(len(shown), 'thing')} can't be read as a rollout: {_some(shown)}",
            "check permissions; links are not followed",
            {"paths": [failure.path for failure in listing.failures]},
        )
    left = sorted(
        str(path.relative_to(home))
        for root in present
        for path in (home / root).rglob(".rollout-*.tmp")
    )
    if left:
        yield Finding(
            "leftovers",
            Status.NOTE,
            f"{_number(len(left), 'unfinished file')} of killed recorders: {_some(left)}",
            "they may be deleted if no recorder is running",
            {"paths": left},
        )


def _file_system(home: Path, state: Path) -> Iterator[Finding]:
    for name, path in {"home": home, "database": state.parent}.items():
        if name == "database" and path.is_relative_to(home):
            continue
        kind = kind_of(path) or "unknown"
        details = {"kind": kind, "network": is_network(path)}
        if is_network(path):
            yield Finding(
                "file system",
                Status.NOTE,
                f"the {name} is on a network file system ({kind}), where a write-ahead log is not"
                " safe: a rollback journal (mode truncate) and lock files are used instead",
                "faster on a local disk: name a database there with --db",
                details | {"journal_mode": "truncate"},
            )
        else:
            yield Finding(
                "file system",
                Status.OK,
                f"the {name} is on {kind}: a write-ahead log is used",
                details=details | {"journal_mode": "wal"},
            )


def _space(home: Path, state: Path) -> Iterator[Finding]:
    place = next(path for path in (state.parent, *state.parents) if path.exists())
    needed = max(LEAST_FREE_BYTES, 2 * _size(state))
    for path in {place.stat().st_dev: place, home.stat().st_dev: home}.values():
        free = shutil.disk_usage(path).free
        has_enough = free >= needed
        yield Finding(
            "disk space",
            Status.OK if has_enough else Status.PROBLEM,
            f"{_megabytes(free)} free at {path}",
            "" if has_enough else f"free some space: {_megabytes(needed)} may be needed",
            {"free_bytes": free},
        )


def _database(path: Path, schema: Schema, within_s: float | None) -> Iterator[Finding]:
    check = "index" if schema is STATE else "logs"
    if not path.exists():
        if schema is STATE:
            yield Finding(
                check, Status.PROBLEM, f"there is no index yet at {path}", "run `rollbook sync`"
            )
        else:
            yield Finding(check, Status.OK, "no logs have been written yet")
        return
    try:
        found = examine(path, within_s)
    except DatabaseDamagedError as error:
        yield Finding(check, Status.DAMAGED, error.message, "run `rollbook doctor --repair`")
    except DatabaseError as error:
        yield Finding(check, Status.PROBLEM, error.message, error.hint)
    else:
        yield from _examined(check, path, schema, found)
    kept = kept_files(path)
    if kept:
        size = sum(map(_size, kept))
        yield Finding(
            check,
            Status.NOTE,
            f"{_number(len(kept), 'damaged file')} kept beside it, {_megabytes(size)}:"
            f" {_some([file.name for file in kept])}",
            "they may be deleted",
            {"paths": [str(file) for file in kept]},
        )


def _examined(check: str, path: Path, schema: Schema, found: Examination) -> Iterator[Finding]:
    known = [migration.version for migration in load_migrations("sqlite", schema.name)]
    version = max(found.versions, default=0)
    details = {
        "path": str(path),
        "version": version,
        "file_bytes": found.file_bytes,
        "wal_bytes": found.wal_bytes,
        "page_bytes": found.page_bytes,
        "rows": found.rows,
        "integrity": found.integrity or "partly checked",
    }
    rows = ", ".join(f"{count:,} {name}" for name, count in found.rows.items())
    size = f"{_megabytes(found.file_bytes)}, log {_megabytes(found.wal_bytes)}"
    text = f"{path}: {rows}; {size}; schema {version}"
    if found.application_id != schema.application_id:
        yield Finding(
            check,
            Status.PROBLEM,
            f"{path} is a database of another program",
            "name another file with --db",
            details,
        )
    elif version > max(known):
        yield Finding(
            check,
            Status.PROBLEM,
            f"{text}, which is newer than this release knows",
            "upgrade Rollbook",
            details,
        )
    elif found.integrity not in {"ok", ""}:
        yield Finding(
            check,
            Status.DAMAGED,
            f"{path}: {found.integrity}",
            "run `rollbook doctor --repair`",
            details,
        )
    elif found.wal_bytes > LARGE_WAL_BYTES:
        yield Finding(
            check,
            Status.PROBLEM,
            f"{text}: the log is large",
            "a program that reads for a long time may be in the way; see the locks below",
            details,
        )
    else:
        checked = "sound" if found.integrity else "sound as far as there was time to look"
        yield Finding(check, Status.OK, f"{text}; {checked}", details=details)


def _permissions(state: Path, logs: Path) -> Iterator[Finding]:
    open_to_others = [path for path in own_files(state, logs) if is_open_to_others(path)]
    if open_to_others:
        names = [str(path) for path in open_to_others]
        yield Finding(
            "permissions",
            Status.PROBLEM,
            f"others may use {_some(names)}",
            "run `rollbook doctor --repair`",
            {"paths": names},
        )
    else:
        yield Finding("permissions", Status.OK, "Rollbook's files are private to their owner")


def own_files(state: Path, logs: Path) -> list[Path]:
    """Find what Rollbook has made: databases, what belongs to them, and its directory."""
    found = []
    for path in (state, logs):
        found += [path, *(beside(path, end) for end in _OWN_COMPANIONS)]
        if path.parent.is_dir():
            found += kept_files(path)
    if state.parent.name == "rollbook":
        found.append(state.parent)
    return [path for path in found if path.exists()]


def is_open_to_others(path: Path) -> bool:
    """Say whether a file or directory can be used by others than its owner."""
    return bool(stat.S_IMODE(path.stat().st_mode) & 0o077)


def _index(home: Path, state: Path, listing: HomeListing) -> Iterator[Finding]:
    if not state.exists():
        return
    try:
        known, completed, lonely = Snapshot(state).read(
            lambda tx: (
                files.get_all(tx),
                files.get_backfill_state(tx),
                threads.without_rollout_file(tx, str(home)),
            )
        )
    except RollbookError:
        return  # said of the database already
    missing = sorted(listing.files.keys() - known.keys())
    stale = sorted(
        path
        for path, file in listing.files.items()
        if (row := known.get(path)) and (not is_same(row, file) or is_ahead(row, file))
    )
    gone = sorted(
        path for path in known.keys() - listing.files.keys() if _root_is_there(home, path)
    )
    for name, paths in {
        "not in the index": missing,
        "changed since they were indexed": stale,
        "in the index and no longer there": gone,
    }.items():
        if paths:
            yield Finding(
                "index and disk",
                Status.PROBLEM,
                f"{_number(len(paths), 'rollout')} {name}: {_some(paths)}",
                "run `rollbook sync`",
                {"paths": paths},
            )
    if not (missing or stale or gone):
        when = (
            time.strftime("%Y-%m-%d %H:%M", time.localtime(completed.completed_at))
            if completed
            else "never"
        )
        yield Finding(
            "index and disk",
            Status.OK,
            f"the index has all rollouts as they are; the whole home was last compared: {when}",
            details={"completed_at": completed and completed.completed_at},
        )
    yield from _unreadable(known)
    yield from _duplicates(listing)
    if lonely:
        ids = sorted(thread_id for thread_id, _ in lonely)
        yield Finding(
            "threads",
            Status.NOTE,
            f"{_number(len(ids), 'thread')} without a rollout that was indexed: {_some(ids)}",
            details={"ids": ids},
        )


def _unreadable(known: dict[str, FileRow]) -> Iterator[Finding]:
    failed = {path: row.error for path, row in sorted(known.items()) if row.error}
    if failed:
        shown = [f"{path} {error}" for path, error in failed.items()]
        yield Finding(
            "rollouts",
            Status.PROBLEM,
            f"{_number(len(failed), 'rollout')} could not be indexed: {_some(shown)}",
            "look at the file; an empty one may be deleted",
            {"paths": list(failed)},
        )
    malformed = sum(row.parse_errors for row in known.values())
    if malformed:
        yield Finding(
            "rollouts",
            Status.NOTE,
            f"{_number(malformed, 'malformed line')} were passed over",
            details={"lines": malformed},
        )


def _duplicates(listing: HomeListing) -> Iterator[Finding]:
    """Find threads with several first files: only one of them counts."""
    first_files: dict[str, list[str]] = defaultdict(list)
    for path in listing.files:
        name = parse_rollout_name(PurePosixPath(path).name)
        if name and not name.segment:
            first_files[name.thread_id].append(path)
    double = sorted(
        path
        for paths in first_files.values()
        if len(paths) > 1
        for path in sorted(paths, key=lambda path: (is_archived_path(path), path))
    )
    if double:
        yield Finding(
            "duplicate ids",
            Status.PROBLEM,
            f"{_number(len(double), 'rollout')} share their id with others: {_some(double)}",
            "the archived one counts, else the newest; move the others out of the home",
            {"paths": double},
        )


def _locks(home: Path, listing: HomeListing, state: Path, logs: Path) -> Iterator[Finding]:
    writers = writers_below(home)
    holders: dict[str, list[Holder]] = {
        "is indexing the home": holders_of(sync_lock_path(str(state)), writing=True),
        "is writing to the index": holders_of(beside(state, "-shm"), WRITE_LOCK_BYTE, writing=True),
        "is writing logs": holders_of(beside(logs, "-shm"), WRITE_LOCK_BYTE, writing=True),
        "has the index open": holders_of(beside(state, ".open")),
        "has the logs open": holders_of(beside(logs, ".open")),
    }
    for path, file in listing.files.items():
        if file.inode in writers:
            holders[f"is recording {path}"] = [writers[file.inode]]
    found = False
    for what, who in holders.items():
        others = [holder for holder in who if holder.pid != os.getpid()]
        if not others:
            continue
        found = True
        is_stopped = any(holder.is_stopped for holder in others)
        yield Finding(
            "locks",
            Status.PROBLEM if is_stopped else Status.OK,
            f"{described(others)} {what}",
            way_out(others) if is_stopped else "",
            {"processes": [holder.pid for holder in others]},
        )
    if not found:
        yield Finding("locks", Status.OK, "no other process has the databases open")


def _limits() -> Iterator[Finding]:
    open_files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if open_files < FEW_FILES:
        yield Finding(
            "limits",
            Status.NOTE,
            f"a process may have only {open_files} files open",
            "raise it with `ulimit -n`",
            {"open_files": open_files},
        )
    try:
        watches = int(_WATCHES.read_text("ascii"))
    except (OSError, ValueError):
        return
    if watches < FEW_WATCHES:
        yield Finding(
            "limits",
            Status.NOTE,
            f"only {watches} directories can be watched",
            "raise fs.inotify.max_user_watches",
            {"watches": watches},
        )


def _clock(listing: HomeListing) -> Iterator[Finding]:
    latest = (time.time() + _CLOCK_SLACK_S) * 1e9
    ahead = sorted(path for path, file in listing.files.items() if file.mtime_ns > latest)
    if ahead:
        yield Finding(
            "clock",
            Status.PROBLEM,
            f"{_number(len(ahead), 'rollout')} from the future: {_some(ahead)}",
            "is the clock of this machine right?",
            {"paths": ahead},
        )


def _codex(home: Path, state: Path, within_s: float | None) -> Iterator[Finding]:
    """Look at the agent's own databases, which are only read."""
    for path in sorted(home.glob("*.sqlite")):
        if path == state or not path.is_file():
            continue
        try:
            found = examine(path, within_s)
        except RollbookError as error:
            yield Finding(
                "codex", Status.PROBLEM, error.message, "Codex has to mend it", {"path": str(path)}
            )
            continue
        rows = ", ".join(f"{count:,} {name}" for name, count in found.rows.items())
        is_sound = found.integrity in {"ok", ""}
        yield Finding(
            "codex",
            Status.OK if is_sound else Status.PROBLEM,
            f"{path.name}: {rows + '; ' if rows else ''}{_megabytes(found.file_bytes)},"
            f" log {_megabytes(found.wal_bytes)}{'' if is_sound else '; ' + found.integrity}",
            "" if is_sound else "Codex has to mend it",
            {"path": str(path), "rows": found.rows, "file_bytes": found.file_bytes},
        )


def _root_is_there(home: Path, path: str) -> bool:
    return (home / path.partition("/")[0]).is_dir()


def _some(texts: Iterable[str]) -> str:
    shown = list(texts)
    more = f", and {len(shown) - _SHOWN} more" if len(shown) > _SHOWN else ""
    return ", ".join(shown[:_SHOWN]) + more


def _number(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
