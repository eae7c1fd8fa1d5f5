"""Look at who holds which lock."""

import os
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from rollbook.content.database import content_beside
from rollbook.doctor.databases import own_databases
from rollbook.doctor.disk import Disk
from rollbook.doctor.report import Finding, Status, about_paths
from rollbook.holders import Holder, holders_of, way_out, writers_below
from rollbook.index.lock import sync_lock_path
from rollbook.lock_file import maker_of
from rollbook.logs.reader import logs_beside
from rollbook.model.labels import number
from rollbook.rollout.layout import ROOTS
from rollbook.store.sqlite_file import WRITE_LOCK_BYTE, beside


def examine_locks(disk: Disk, state: Path) -> Iterator[Finding]:
    """Say what other processes are doing with a home; one that was stopped is in the way."""
    activities: dict[Holder, list[str]] = defaultdict(list)
    for what, holders in _on_databases(state).items():
        for holder in holders:
            activities[holder].append(what)
    for holder, paths in _recorders(disk).items():
        shown = paths[0] if len(paths) == 1 else f"{number(len(paths), 'rollout')}: {paths[0]}, …"
        activities[holder].append(f"is writing to {shown}")
    activities = {holder: d for holder, d in activities.items() if holder.pid != os.getpid()}
    for holder, doings in activities.items():
        yield Finding(
            "locks",
            Status.PROBLEM if holder.is_stopped else Status.OK,
            f"{holder} {', '.join(doings)}",
            way_out([holder]) if holder.is_stopped else "",
            {"process": holder.pid, "program": holder.program, "activities": doings},
        )
    yield from _lock_files(disk, state)
    if not activities:
        yield Finding("locks", Status.OK, "no other process has the databases open")


def _on_databases(state: Path) -> dict[str, list[Holder]]:
    logs, content = logs_beside(state), content_beside(state)
    return {
        "is indexing the home": holders_of(sync_lock_path(str(state)), writing=True),
        "has the index open": holders_of(beside(state, ".open")),
        "is writing to the index": _writers(state),
        "is making it searchable": holders_of(sync_lock_path(str(content)), writing=True),
        "has the logs open": holders_of(beside(logs, ".open")),
        "is writing logs": _writers(logs),
    }


def _writers(path: Path) -> list[Holder]:
    return holders_of(beside(path, "-shm"), WRITE_LOCK_BYTE, writing=True)


def _recorders(disk: Disk) -> dict[Holder, list[str]]:
    """Find who has rollouts for itself: each root may be on a disk of its own."""
    found: dict[Holder, list[str]] = defaultdict(list)
    for root in ROOTS:
        writers = writers_below(disk.home / root)
        if writers:
            for path, file in disk.listing.files.items():
                if file.inode in writers and path.startswith(f"{root}/"):
                    found[writers[file.inode]].append(path)
    return found


def _lock_files(disk: Disk, state: Path) -> Iterator[Finding]:
    """Say who is named by the lock files that stand in for locks on network file systems."""
    places = [
        *(beside(path, ".network.lock") for _, path, _ in own_databases(state)),
        *(beside(path, ".sync.network.lock") for path in (state, content_beside(state))),
        *(disk.home / path for path in disk.lock_files),
    ]
    held, left = [], []
    for path in places:
        try:
            made = maker_of(path)
        except OSError:
            continue
        if made is not None:
            maker, is_dead = made
            if is_dead:
                left.append(str(path))
            else:
                held.append(f"{path}: {maker}")
    if held:
        message = f"{number(len(held), 'lock file')} in use"
        yield Finding("locks", Status.OK, message, details={"files": held}, examples=tuple(held))
    if left:
        message = f"{number(len(left), 'lock file')} of processes that have ended"
        hint = "nothing to do: whoever needs one takes it over"
        yield about_paths("locks", Status.NOTE, message, left, hint)
