"""Look at the rollouts on disk, and compare them with the index."""

import os
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from rollbook.doctor.report import Finding, Status, about_paths, about_threads
from rollbook.errors import DatabaseDamagedError, DatabaseError
from rollbook.index.backfill import is_same
from rollbook.index.indexer import is_ahead
from rollbook.logs.reader import logs_beside
from rollbook.model.labels import number
from rollbook.rollout.layout import (
    COMPRESSED_SUFFIX,
    PREFIX,
    ROOTS,
    HomeListing,
    list_rollouts,
    locate,
    plain_name,
    stat_rollout,
)
from rollbook.store import files, threads
from rollbook.store.engine import Transaction
from rollbook.store.files import FileRow
from rollbook.store.snapshot import Snapshot

_CLOCK_SLACK_S = 300
_LOOK_AGAIN_AT = 1000  # at most
_ID = slice(len("rollout-2026-01-27T12-34-56-"), len("rollout-2026-01-27T12-34-56-") + 36)
_SYNC = "run `rollbook sync`"
_REPAIR = "run `rollbook doctor --repair`"
_AHEAD = "SELECT id FROM threads WHERE max(created_at, updated_at, recency_at) > :latest"


class Disk(msgspec.Struct, frozen=True):
    """What lies below a home.

    ``leftovers`` are unfinished files of recorders, ``lock_files`` those of recorders on network
    file systems, ``pairs`` the rollouts that are there plain and compressed; all below the home.
    """

    home: Path
    listing: HomeListing
    directories: int = 0
    leftovers: tuple[str, ...] = ()
    lock_files: tuple[str, ...] = ()
    pairs: tuple[str, ...] = ()


class Index(msgspec.Struct, frozen=True):
    """What the index knows: rollouts, when the home was last compared, ids of threads.

    ``without_rollout`` are id and path of threads that no indexed rollout stands for, ``ahead`` the
    ids of threads from the future.
    """

    files: dict[str, FileRow]
    completed_at: int | None
    ids: frozenset[str]
    without_rollout: tuple[tuple[str, str], ...]
    ahead: tuple[str, ...]


def look(home: Path) -> Disk:
    """Walk a home's rollouts; opens none.  Nothing is found in a home that may not be entered."""
    if not os.access(home, os.R_OK | os.X_OK):
        return Disk(home, HomeListing({}, [], ()))
    directories = 0
    leftovers: list[str] = []
    lock_files: list[str] = []
    pairs: list[str] = []
    for root in ROOTS:
        for place, _, names in os.walk(home / root):
            directories += 1
            below = place.removeprefix(f"{home}/") + "/"
            present = set(names)
            for name in names:
                if name.startswith(f".{PREFIX}"):
                    if name.endswith(".tmp"):
                        leftovers.append(below + name)
                    elif name.endswith(".lock"):
                        lock_files.append(below + name)
                elif name.endswith(COMPRESSED_SUFFIX) and plain_name(name) in present:
                    pairs.append(below + plain_name(name))
    found = tuple(leftovers), tuple(lock_files), tuple(pairs)
    return Disk(home, list_rollouts(home), directories, *found)


def read_index(home: Path, state: Path) -> Index | Finding:
    """Read what an index knows; a finding where that can't be read."""

    def read(tx: Transaction) -> Index:
        completed = files.get_backfill_state(tx)
        latest = {"latest": int(time.time()) + _CLOCK_SLACK_S}
        return Index(
            files.get_all(tx),
            completed.completed_at if completed else None,
            frozenset(row[0] for row in tx.query("SELECT id FROM threads")),
            tuple(threads.without_rollout_file(tx, str(home))),
            tuple(row[0] for row in tx.query(_AHEAD, latest)),
        )

    try:
        return Snapshot(state).read(read)
    except DatabaseDamagedError as error:
        return Finding("index and disk", Status.DAMAGED, error.message, _REPAIR)
    except DatabaseError as error:
        message = f"the index could not be compared with the disk: {error.message}"
        return Finding("index and disk", Status.PROBLEM, message, error.hint)


def examine_rollouts(disk: Disk) -> Iterator[Finding]:
    """Say what lies below a home that can't be read, or needn't be there."""
    if disk.listing.failures:
        failures = sorted((failure.path, failure.message) for failure in disk.listing.failures)
        yield Finding(
            "rollouts",
            Status.PROBLEM,
            f"{number(len(failures), 'place')} can't be read as a rollout",
            "check permissions; links are not followed",
            {"paths": [path for path, _ in failures]},
            tuple(map(" ".join, failures)),
        )
    if disk.leftovers:
        message = f"{number(len(disk.leftovers), 'unfinished file')} of recorders that were killed"
        hint = "they may be deleted while no recorder is running"
        yield about_paths("leftovers", Status.NOTE, message, disk.leftovers, hint)
    if disk.pairs:
        message = f"{number(len(disk.pairs), 'rollout')} there plain and compressed"
        hint = "the plain one counts"
        yield about_paths("rollouts", Status.NOTE, message, disk.pairs, hint)


def compare(disk: Disk, index: Index) -> Iterator[Finding]:
    """Compare the rollouts on disk with what the index knows of them."""
    on_disk, known = disk.listing.files, index.files
    not_there = {path for path in known.keys() - on_disk.keys() if _is_below(path, disk)}
    differences = {
        "not in the index": on_disk.keys() - known.keys(),
        "changed since indexed": {
            path
            for path, file in on_disk.items()
            if (row := known.get(path)) and (not is_same(row, file) or is_ahead(row, file))
        },
        "in the index and no longer on disk": not_there,
    }
    is_current = True
    for what, paths in differences.items():
        left = _still(disk.home, known, paths)
        if left:
            is_current = False
            message = f"{number(len(left), 'rollout')} {what}"
            yield about_paths("index and disk", Status.PROBLEM, message, left, _SYNC)
    if is_current:
        yield _all_compared(index)
    yield from _failed(known)
    yield from _duplicates(disk.listing, known)
    yield from _without_rollout(disk, index)
    read = {row.thread_id for row in index.files.values() if row.thread_id and not row.error}
    lost = sorted(read - index.ids)
    if lost:
        message = f"{number(len(lost), 'thread')} lost from the index, not from the disk"
        yield about_threads("threads", Status.PROBLEM, message, lost, _SYNC)


def examine_clock(disk: Disk, index: Index | None, state: Path) -> Iterator[Finding]:
    """Find what is from the future: it stands before everything else for as long."""
    latest = time.time() + _CLOCK_SLACK_S
    hint = "is the clock of this machine right, or was it wrong?"
    ahead = [p for p, file in disk.listing.files.items() if file.mtime_ns > latest * 1e9]
    if ahead:
        message = f"{number(len(ahead), 'rollout')} with a time in the future"
        yield about_paths("clock", Status.PROBLEM, message, ahead, hint)
    elif index and index.ahead:
        message = f"{number(len(index.ahead), 'thread')} with a time in the future"
        yield about_threads("clock", Status.PROBLEM, message, index.ahead, hint)
    if index and index.completed_at and index.completed_at > latest:
        message = f"the index was last compared with the disk in the future: {_local(index)}"
        yield Finding("clock", Status.PROBLEM, message, hint)
    rows = _logs_ahead(logs_beside(state), int(latest))
    if rows:
        message = f"{number(rows, 'log row')} with a time in the future"
        yield Finding("clock", Status.PROBLEM, message, hint, {"rows": rows})


def only_the_agent_knows(disk: Disk, index: Index, agents: Path) -> Iterator[Finding]:
    """Find threads that the agent's database and the disk have, and the index hasn't."""
    try:
        ids = Snapshot(agents).read(lambda tx: tx.query("SELECT id FROM threads"))
    except DatabaseError:
        return  # said of the database already
    found = {row[0] for row in ids} - index.ids
    if not found:
        return
    on_disk = {
        _identity(path, index.files)[0]
        for path in disk.listing.files
        if not (row := index.files.get(path)) or row.thread_id or row.error  # else deleted
    }
    missing = sorted(thread_id for thread_id in found & on_disk if thread_id)
    if missing:
        message = (
            f"{number(len(missing), 'thread')} known to Codex, with a rollout, and not indexed"
        )
        hint = f"{_REPAIR}; see the rollouts that could not be indexed if they stay away"
        yield about_threads("codex", Status.PROBLEM, message, missing, hint)


def _is_below(path: str, disk: Disk) -> bool:
    """Say whether a path is below a root that could be read through."""
    return path.partition("/")[0] in disk.listing.complete_roots


def _still(home: Path, known: dict[str, FileRow], paths: Iterable[str]) -> list[str]:
    """Look again at what differs: an agent and a sync go on while we look."""
    suspects = list(paths)
    if len(suspects) > _LOOK_AGAIN_AT:
        return suspects
    left = []
    for path in suspects:
        file, row = stat_rollout(home, path), known.get(path)
        if file is None and row is None:
            continue  # moved since
        if file is None or row is None or not is_same(row, file) or is_ahead(row, file):
            left.append(path)
    return left


def _all_compared(index: Index) -> Finding:
    details = {"completed_at": index.completed_at}
    if index.completed_at is None:
        message = "the whole home was never compared with the index"
        return Finding("index and disk", Status.NOTE, message, _SYNC, details)
    message = "the index has all rollouts as they are; the whole home was last compared: " + _local(
        index
    )
    return Finding("index and disk", Status.OK, message, details=details)


def _local(index: Index) -> str:
    try:
        return time.strftime("%Y-%m-%d %H:%M", time.localtime(index.completed_at))
    except (OverflowError, ValueError, OSError):
        return str(index.completed_at)


def _failed(known: dict[str, FileRow]) -> Iterator[Finding]:
    failed = {path: row.error for path, row in sorted(known.items()) if row.error}
    if failed:
        yield Finding(
            "rollouts",
            Status.PROBLEM,
            f"{number(len(failed), 'rollout')} could not be indexed",
            "look at the file; an empty one may be deleted",
            {"paths": list(failed)},
            tuple(f"{path} {error}" for path, error in failed.items()),
        )
    malformed = {path: row.parse_errors for path, row in known.items() if row.parse_errors}
    if malformed:
        lines = sum(malformed.values())
        yield about_paths(
            "rollouts",
            Status.NOTE,
            f"{number(lines, 'malformed line')} passed over in {number(len(malformed), 'rollout')}",
            malformed,
        )


def _duplicates(listing: HomeListing, known: dict[str, FileRow]) -> Iterator[Finding]:
    """Find threads with several first files: only one of them counts."""
    first_files: dict[str, list[str]] = defaultdict(list)
    for path in listing.files:
        thread_id, is_segment = _identity(path, known)
        if thread_id and not is_segment:
            first_files[thread_id].append(path)
    double = {id_: sorted(paths) for id_, paths in first_files.items() if len(paths) > 1}
    if double:
        paths = [path for thread_id in sorted(double) for path in double[thread_id]]
        yield Finding(
            "duplicate ids",
            Status.PROBLEM,
            f"{number(len(double), 'id')} with several rollouts, of which one counts",
            "the archived one counts, else the newest; move the others out of the home",
            {"ids": sorted(double), "paths": paths},
            tuple(paths),
        )


def _identity(path: str, known: dict[str, FileRow]) -> tuple[str, bool]:
    """Say whose rollout a path is, as it was read or by its name, and whether a later segment."""
    name = path.rpartition("/")[2]
    row = known.get(path)
    return (row and row.thread_id) or name[_ID].lower(), name[_ID.stop : _ID.stop + 1] == "_"


def _without_rollout(disk: Disk, index: Index) -> Iterator[Finding]:
    """Tell threads apart whose rollout is gone, and such as never had one here."""
    gone: list[str] = []
    others: list[str] = []
    for thread_id, path in index.without_rollout:
        relative = path.removeprefix(f"{disk.home}/")
        is_here = _is_below(relative, disk) and not locate(disk.home, relative)
        (gone if is_here else others).append(thread_id)
    notes: dict[str, tuple[Status, list[str], str]] = {
        "whose rollout is gone": (Status.PROBLEM, gone, _SYNC),
        "without an indexed rollout": (Status.NOTE, others, ""),
    }
    for what, (status, found, hint) in notes.items():
        if found:
            message = f"{number(len(found), 'thread')} {what}"
            yield about_threads("threads", status, message, found, hint)


def _logs_ahead(logs: Path, latest: int) -> int:
    """Count the log rows from the future; 0 where that can't be read, as is said of the logs."""

    def count(tx: Transaction) -> int:
        sql = "SELECT count(*) FROM logs WHERE ts > :latest"
        return int(tx.query(sql, {"latest": latest})[0][0])

    if not os.path.isfile(logs):
        return 0
    try:
        return Snapshot(logs).read(count)
    except DatabaseError:
        return 0
