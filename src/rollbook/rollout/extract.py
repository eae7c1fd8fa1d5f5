"""One rollout file, or the part of it that is new, folded into what it says of its thread."""

import hashlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from io import FileIO, RawIOBase
from itertools import chain
from pathlib import Path
from typing import Any

import msgspec

from rollbook.errors import InvalidThreadIdError, RolloutError
from rollbook.filesystem import open_regular
from rollbook.model.outcome import ExtractionOutcome
from rollbook.model.thread import (
    DynamicToolSpec,
    ThreadMetadata,
    ThreadMetadataBuilder,
    parse_thread_id,
)
from rollbook.model.times import from_epoch, parse_time
from rollbook.rollout.fold import (
    FoldState,
    ThreadFold,
    dynamic_tools_of,
    is_meta_of,
)
from rollbook.rollout.layout import RolloutFile, RolloutName, parse_rollout_name, place_below
from rollbook.rollout.lines import RolloutItem, text_of
from rollbook.rollout.scan import DeceptiveLineError, Scan

_DIGEST_WINDOW = 1024
_NS = 1_000_000_000


class FoldPoint(msgspec.Struct, frozen=True):
    """How far a rollout was folded: enough to go on from there, or to see that one can't.

    ``digest`` is over the first bytes of the file and those just before ``bytes_folded``.
    """

    bytes_folded: int
    digest: bytes
    state: FoldState = FoldState()


class Extraction(msgspec.Struct, frozen=True):
    """The outcome of one rollout, where its fold stopped, and how many bytes were read for it.

    ``resumed`` says that only the part after the previous fold point was read, so that the counts
    of the outcome are of that part.
    """

    outcome: ExtractionOutcome
    point: FoldPoint
    bytes_read: int
    resumed: bool = False


def extract(
    home: Path,
    file: RolloutFile,
    default_provider: str,
    resume: tuple[ThreadMetadata, FoldPoint] | None = None,
) -> Extraction:
    """Fold a rollout from its start, or from where it was folded to if that part is unchanged.

    ``file`` is the state of the file as it was seen before opening: its mtime becomes
    ``updated_at``.  Errors: RolloutError naming the file where nothing can be learnt from it.
    Source: behaviour.md 33 to 37, 59.
    """
    return _exactly(partial(_extract, home, file, default_provider, resume))


def extract_segments(home: Path, files: list[RolloutFile], default_provider: str) -> Extraction:
    """Fold the files of one thread, oldest first, as if they were one.

    The metadata names the newest file, and the fold point is that file's.
    Errors: as :func:`extract`.
    """
    first, *later = files
    whole = extract(home, first, default_provider)
    for file in later:
        before = whole.outcome
        metadata = msgspec.structs.replace(before.metadata, rollout_path=str(home / file.path))
        start = FoldPoint(0, b"", whole.point.state)
        part = _exactly(partial(_extract_segment, home, file, default_provider, metadata, start))
        outcome = ExtractionOutcome(
            metadata=part.outcome.metadata,
            dynamic_tools=before.dynamic_tools or part.outcome.dynamic_tools,
            parse_errors=before.parse_errors + part.outcome.parse_errors,
            unknown_items=before.unknown_items + part.outcome.unknown_items,
        )
        whole = Extraction(outcome, part.point, whole.bytes_read + part.bytes_read)
    return whole


def read_dynamic_tools(
    home: Path, file: RolloutFile, thread_id: str
) -> tuple[DynamicToolSpec, ...]:
    """Read a thread's tools from the head of its rollout, no further than its session meta.

    Empty where it has none.  Errors: RolloutError where the file can't be read.
    """
    with reading(home, file) as stream:
        for item in Scan(stream, everything=True):
            if item.type == "session_meta" and is_meta_of(item.payload, thread_id):
                return dynamic_tools_of(item.payload)
    return ()


def read_thread_id(home: Path, file: RolloutFile) -> str | None:
    """Read whose rollout a file is from its first session meta; None where it has none.

    Errors: RolloutError where the file can't be read.  Source: behaviour.md 36.
    """
    with reading(home, file) as stream:
        for item in Scan(stream, everything=True):
            if item.type == "session_meta" and _has_valid_id(item):
                return parse_thread_id(text_of(item.payload, "id"))
    return None


@contextmanager
def reading(home: Path, file: RolloutFile) -> Iterator[RawIOBase]:
    """Open a rollout for reading, decompressing on the way where it is compressed.

    Errors: RolloutError.
    """
    errors: tuple[type[Exception], ...] = (OSError, EOFError)
    path = place_below(home, f"{file.path}.zst" if file.compressed else file.path)
    try:
        with FileIO(open_regular(path)) as stream:
            if file.compressed:
                zstd = _zstd()
                errors = (*errors, zstd.ZstdError)
                with zstd.ZstdFile(stream, "rb") as unpacked:
                    yield unpacked
            else:
                yield stream
    except errors as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise RolloutError(f"can't be read: {reason}", path=file.path) from error


def _zstd() -> Any:
    """The standard library's module, or its backport before Python 3.14; loaded when needed."""
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    return zstd


def _can_resume(stream: RawIOBase, file: RolloutFile, point: FoldPoint) -> bool:
    if file.compressed or not point.state.has_meta or point.bytes_folded > file.size:
        return False
    return digest_before(stream, point.bytes_folded) == point.digest


def digest_before(stream: RawIOBase, offset: int) -> bytes:
    """Take the digest of the first bytes of a file, and of those just before an offset."""
    size = min(_DIGEST_WINDOW, offset)
    first = os.pread(stream.fileno(), size, 0)
    last = os.pread(stream.fileno(), size, offset - size)
    return hashlib.blake2b(first + last, digest_size=16).digest()


def _exactly(read: Callable[..., Extraction]) -> Extraction:
    """Read what matters of a rollout; everything, where its looks deceive."""
    try:
        return read(everything=False)
    except DeceptiveLineError:
        return read(everything=True)


def _extract(
    home: Path,
    file: RolloutFile,
    default_provider: str,
    resume: tuple[ThreadMetadata, FoldPoint] | None,
    *,
    everything: bool,
) -> Extraction:
    with reading(home, file) as stream:
        if resume is not None and _can_resume(stream, file, resume[1]):
            return _fold_on(stream, file, default_provider, *resume, everything=everything)
        stream.seek(0)
        scan = Scan(stream, everything=everything)
        items = iter(scan)
        name = parse_rollout_name(file.path.rpartition("/")[2])
        early = _up_to_meta(scan, items, name)
        if not scan.records and not (name and scan.unfinished.startswith(b"{")):
            reason = "holds no readable record" if file.size else "is empty"
            raise RolloutError(reason, path=file.path)
        builder = _builder(f"{home}/{file.path}", early, name)
        if builder is None:
            reason = "has neither a session meta nor a name that says which thread it is"
            raise RolloutError(reason, path=file.path)
        thread = ThreadFold(builder.build(default_provider), FoldState(), default_provider)
        return _fold_items(thread, scan, chain(early, items), stream, file)


def _extract_segment(
    home: Path,
    file: RolloutFile,
    default_provider: str,
    metadata: ThreadMetadata,
    start: FoldPoint,
    *,
    everything: bool,
) -> Extraction:
    with reading(home, file) as stream:
        return _fold_on(stream, file, default_provider, metadata, start, everything=everything)


def _fold_on(
    stream: RawIOBase,
    file: RolloutFile,
    default_provider: str,
    metadata: ThreadMetadata,
    point: FoldPoint,
    *,
    everything: bool,
) -> Extraction:
    if not point.state.has_title:  # then a live writer's, of a record that is still to come
        metadata = msgspec.structs.replace(metadata, title="", preview="")
    stream.seek(point.bytes_folded)
    scan = Scan(stream, point.bytes_folded, everything=everything)
    thread = ThreadFold(metadata, point.state, default_provider)
    scan.is_settled, scan.own_from = thread.is_settled, thread.own_from
    return _fold_items(thread, scan, scan, stream, file, point)


def _fold_items(
    thread: ThreadFold,
    scan: Scan,
    items: Iterable[RolloutItem],
    stream: RawIOBase,
    file: RolloutFile,
    start: FoldPoint | None = None,
) -> Extraction:
    for item in items:
        thread.take(item)
        scan.is_settled, scan.own_from = thread.is_settled, thread.own_from
    digest = b"" if file.compressed else digest_before(stream, scan.offset)
    read = file.size if file.compressed else scan.offset - (start.bytes_folded if start else 0)
    outcome = ExtractionOutcome(
        metadata=msgspec.structs.replace(
            thread.metadata, updated_at=from_epoch(file.mtime_ns // _NS)
        ),
        dynamic_tools=thread.tools,
        parse_errors=scan.parse_errors,
        unknown_items=scan.unknown_items,
    )
    point = FoldPoint(scan.offset, digest, thread.state)
    return Extraction(outcome, point, read, resumed=start is not None)


def _up_to_meta(
    scan: Scan, items: Iterator[RolloutItem], name: RolloutName | None
) -> list[RolloutItem]:
    """Take records up to the session meta of the thread that the file belongs to.

    That is the file's first record, whatever the file is called; where that one is lost, the one
    with the id of the file's name, as others may be copied from the thread it was forked from.
    """
    taken: list[RolloutItem] = []
    for item in items:
        taken.append(item)
        if item.type == "session_meta" and _has_valid_id(item):
            is_first = len(taken) == 1 and not scan.has_skipped and not scan.parse_errors
            if is_first or name is None or is_meta_of(item.payload, name.thread_id):
                break
    return taken


def _has_valid_id(item: RolloutItem) -> bool:
    try:
        parse_thread_id(text_of(item.payload, "id"))
    except InvalidThreadIdError:
        return False
    return True


def _builder(
    path: str, early: list[RolloutItem], name: RolloutName | None
) -> ThreadMetadataBuilder | None:
    """Begin a thread from its session meta, else from the file name; None where neither will do.

    Source: behaviour.md 37.
    """
    meta = early[-1] if early and early[-1].type == "session_meta" else None
    if meta is not None and _has_valid_id(meta):
        thread_id = parse_thread_id(text_of(meta.payload, "id"))
        created_at = parse_time(text_of(meta.payload, "timestamp"))
        if name is not None and name.thread_id == thread_id:
            created_at = created_at or name.created_at
        created_at = created_at or parse_time(meta.timestamp)
        if created_at is not None:
            return ThreadMetadataBuilder(thread_id, path, created_at)
    return ThreadMetadataBuilder(name.thread_id, path, name.created_at) if name else None
