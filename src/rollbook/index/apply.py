"""Records of a running agent into the database, as they are written (behaviour.md 19, 20)."""

import os
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
    thread_id = parse_thread_id(builder.id)
    metadata = threads.get(tx, str(home), thread_id) or builder.build(default_provider)
    metadata = msgspec.structs.replace(
        metadata, id=thread_id, rollout_path=os.fspath(builder.rollout_path)
    )
    state = decode_state(threads.fold_state(tx, thread_id)) or FoldState()
    thread = ThreadFold(metadata, state, default_provider)
    for item in items:
        thread.take(item)
    state_text, status = encode_state(thread.state), _status(metadata.rollout_path)
    threads.upsert(tx, str(home), _at(status, thread.metadata), state_text)
    path = metadata.rollout_path.removeprefix(f"{home}/")
    if status is not None and path != metadata.rollout_path:
        # How much of the rollout the row knows, in case a power cut keeps only the row.
        files.set_applied(tx, path, status.st_size, boot_id())
    tools.put_first(tx, thread_id, thread.tools)


def with_file_time(metadata: ThreadMetadata) -> ThreadMetadata:
    """Set ``updated_at`` to the rollout's mtime, if that can be read (behaviour.md 18, 59)."""
    return _at(_status(metadata.rollout_path), metadata)


def _status(path: str) -> os.stat_result | None:
    found = look(path)
    return found and found[1]


def _at(status: os.stat_result | None, metadata: ThreadMetadata) -> ThreadMetadata:
    if status is None:
        return metadata
    try:
        updated_at = from_epoch(status.st_mtime_ns // _NS)
    except OverflowError:  # a time that no calendar has
        return metadata
    return msgspec.structs.replace(metadata, updated_at=updated_at)


@cache
def boot_id() -> str:
    """Say which boot of the machine this is; empty where the system doesn't tell."""
    try:
        return _BOOT_ID.read_text("ascii").strip()
    except OSError:
        return ""
