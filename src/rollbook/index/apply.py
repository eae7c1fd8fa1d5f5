"""Records of a running agent into the database, as they are written (behaviour.md 19, 20)."""

import os
from datetime import datetime
from functools import cache
from pathlib import Path

import msgspec

from rollbook.model.thread import ThreadMetadata, ThreadMetadataBuilder, parse_thread_id
from rollbook.model.times import from_epoch
from rollbook.rollout.fold import FoldState, ThreadFold, decode_state, encode_state
from rollbook.rollout.layout import look
from rollbook.rollout.lines import RolloutItem
from rollbook.store import files, threads, tools
from rollbook.store.engine import Transaction

_NS = 1_000_000_000
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def apply_items(
    tx: Transaction,
    home: Path,
    builder: ThreadMetadataBuilder,
    items: list[RolloutItem],
    default_provider: str,
) -> None:
    """Fold records into a thread's row and store its tools, inside the caller's transaction.

    The tools are those of the first session meta that is the thread's own.
    """
    thread_id, place, root = parse_thread_id(builder.id), os.fspath(builder.rollout_path), str(home)
    known = threads.get_folded(tx, root, thread_id)
    before, state_before = known or (_begun(builder, thread_id, default_provider), "{}")
    thread = ThreadFold(before, decode_state(state_before) or FoldState(), default_provider)
    for item in items:
        thread.take(item)
    status, state = _status(place), encode_state(thread.state)
    changes = {**thread.changes, "rollout_path": place, "updated_at": _time(status, before)}
    if known is None:
        threads.upsert(tx, root, msgspec.structs.replace(before, **changes), state)
    else:
        threads.change(tx, root, before, changes, None if state == state_before else state)
    path = place.removeprefix(f"{root}/")
    if status is not None and path != place:
        # How much of the rollout the row knows, in case a power cut keeps only the row.
        files.set_applied(tx, path, status.st_size, boot_id())
    tools.put_first(tx, thread_id, thread.tools)


def _begun(builder: ThreadMetadataBuilder, thread_id: str, default_provider: str) -> ThreadMetadata:
    return msgspec.structs.replace(builder.build(default_provider), id=thread_id)


def with_file_time(metadata: ThreadMetadata) -> ThreadMetadata:
    """Set ``updated_at`` to the rollout's mtime, if that can be read (behaviour.md 18, 59)."""
    updated_at = _time(_status(metadata.rollout_path), metadata)
    return msgspec.structs.replace(metadata, updated_at=updated_at)


def _status(path: str) -> os.stat_result | None:
    found = look(path)
    return found and found[1]


def _time(status: os.stat_result | None, metadata: ThreadMetadata) -> datetime:
    if status is None:
        return metadata.updated_at
    try:
        return from_epoch(status.st_mtime_ns // _NS)
    except OverflowError:  # a time that no calendar has
        return metadata.updated_at


@cache
def boot_id() -> str:
    """Say which boot of the machine this is; empty where the system doesn't tell."""
    try:
        return _BOOT_ID.read_text("ascii").strip()
    except OSError:
        return ""
