"""What a rollout has used, and what of it was used before it began."""

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path

import msgspec

from rollbook.errors import InvalidThreadIdError, RolloutError
from rollbook.model.thread import parse_thread_id
from rollbook.model.times import parse_time
from rollbook.model.usage import Tokens
from rollbook.rollout import usage
from rollbook.rollout.extract import reading
from rollbook.rollout.layout import RolloutFile
from rollbook.rollout.lines import (
    MalformedLineError,
    RolloutItem,
    decode_line,
    object_of,
    text_of,
)
from rollbook.rollout.pages import Segment, segments_of
from rollbook.rollout.selection import Selection
from rollbook.rollout.usage import UsageReader, UsageState, total_of, totals_in
from rollbook.store.content_files import ContentFile
from rollbook.store.usage import Used

_COPYING = timedelta(seconds=1)  # no fork takes longer to be made
FindFiles = Callable[[str], list[RolloutFile]]


class UsageCollector:
    """Takes the records of a rollout from where it was read to, and adds up what was used."""

    def __init__(self, thread_id: str, state: UsageState) -> None:
        self._reader = UsageReader(thread_id, state)
        self._sums: dict[tuple[int, str], Used] = {}

    @property
    def state(self) -> str:
        """What to go on with, as it is stored."""
        return msgspec.json.encode(self._reader.state).decode()

    def take(self, record: RolloutItem) -> None:
        """Take the next record."""
        event = self._reader.take(record)
        if event is None:
            return
        key = event.bucket, event.model
        so_far = self._sums.get(key, Used(event.bucket, event.model, 0, Tokens()))
        tokens = so_far.tokens.plus(event.tokens)
        self._sums[key] = Used(event.bucket, event.model, so_far.requests + 1, tokens)

    def finish(self) -> list[Used]:
        """Give the sums since the last time."""
        sums, self._sums = list(self._sums.values()), {}
        return sums


def decode_state(text: str) -> UsageState:
    """Read a stored state.  Errors: msgspec.MsgspecError."""
    return msgspec.json.decode(text, type=UsageState)


def beginning_of(home: Path, file: ContentFile, find_files: FindFiles) -> UsageState:
    """Say what was used before a rollout begins, and what it has copied of that.

    Where that can't be known, as the other rollout is gone, what was written while the fork was
    made is taken for copied.
    """
    meta = next((r.payload for r in _records(home, file) if r.type == "session_meta"), {})
    if "_" in file.key or object_of(meta, "history_base"):  # few do, and to look is dear
        try:
            before = _segment_before(home, file, find_files)
        except RolloutError:
            return UsageState()  # the total is then not what counts, but what its first record adds
        if before is not None:
            return UsageState(before=_last_total(home, before))
    try:
        source = parse_thread_id(text_of(meta, "forked_from_id"))
    except InvalidThreadIdError:
        return UsageState(before=Tokens())
    return UsageState(copied=tuple(_copied(home, file, source, find_files)))


def _segment_before(home: Path, file: ContentFile, find_files: FindFiles) -> Segment | None:
    """Find the rollout that a thread was in before; None where this is its first."""
    segments = segments_of(home, file.thread_id, find_files)
    keys = [segment.key for segment in segments]
    number = keys.index(file.key) if file.key in keys else 0
    return segments[number - 1] if number else None


def _last_total(home: Path, segment: Segment) -> Tokens:
    owner = segment.key.partition("_")[0]
    with reading(home, segment.file) as stream:
        *_, last = (Tokens(), *totals_in(stream, owner, segment.end))
    return last


def _copied(home: Path, file: ContentFile, source: str, find_files: FindFiles) -> Iterator[Tokens]:
    found = find_files(source)
    if found:
        with reading(home, found[0]) as stream:
            yield from totals_in(stream, source)
        return
    begun: datetime | None = None
    for record in _records(home, file):
        time = parse_time(record.timestamp)
        begun = begun or time
        if begun is None or time is None or time - begun > _COPYING:
            return
        total = total_of(record, file.thread_id)
        if total is not None:
            yield total


def _records(home: Path, file: ContentFile) -> Iterator[RolloutItem]:
    rollout = RolloutFile(file.path, file.compressed, file.size, file.mtime_ns, file.inode)
    with reading(home, rollout) as stream:
        for _, line in Selection(stream, usage.may_matter):
            try:
                yield decode_line(line)
            except MalformedLineError:
                continue
