"""Pages of a thread's transcript, read from any place in its rollouts, in either direction.

The rollouts of a thread are *segments*: its own file, its later ones, and before them the beginning
of the thread that it was forked from, where it has none of its own.  What lies between two items is
passed over, and a page that has read 64 MiB ends, be it full or not.
"""

import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import IO, cast

import msgspec

from rollbook.errors import InvalidCursorError, InvalidThreadIdError, RolloutError
from rollbook.model.thread import parse_thread_id
from rollbook.model.transcript import ItemKind, TranscriptItem, TranscriptPage
from rollbook.rollout import heads
from rollbook.rollout.extract import reading
from rollbook.rollout.layout import RolloutFile, position_key
from rollbook.rollout.lines import MalformedLineError, decode_line, integer_of, object_of, text_of
from rollbook.rollout.selection import LONGEST_LINE, Selection
from rollbook.rollout.transcript import LONGEST_TEXT, may_be_item, to_transcript_item

START = "start"  # the position of a thread's first item
_MOST_BYTES = 64 << 20  # read for one page
_BLOCK_BYTES = 256 << 10
_IN_MEMORY_BYTES = 64 << 20  # of a rollout that was compressed
_MOST_FORKS = 100
_FindFiles = Callable[[str], list[RolloutFile]]


class Segment(msgspec.Struct, frozen=True):
    """A rollout of a thread; of one that only begins it, ``end`` is where that ends."""

    file: RolloutFile
    key: str
    end: int | None = None

    def has(self, end: int) -> bool:
        """Say whether what ends at a byte belongs to it, as a whole."""
        return self.end is None or end <= self.end


class Place(msgspec.Struct, frozen=True):
    """A byte of a segment, by number."""

    segment: int
    offset: int


def segments_of(home: Path, thread_id: str, find_files: _FindFiles) -> list[Segment]:
    """Find the rollouts that make a thread, oldest first; empty where there is none.

    ``find_files`` gives the files of a thread, oldest first.  Errors: RolloutError where a rollout
    can't be read, or the one that it begins in is gone.
    """
    files = find_files(thread_id)
    segments = [Segment(file, position_key(file.path)) for file in files]
    for _ in range(_MOST_FORKS):
        base = base_of(home, segments[0].file) if segments else None
        if base is None:
            return segments
        parent, end = base
        files = find_files(parent)
        if not files:
            break
        segments.insert(0, Segment(files[0], position_key(files[0].path), end))
    path = segments[0].file.path
    raise RolloutError(f"begins in thread {parent}, whose rollout is gone", path=path)


def base_of(home: Path, file: RolloutFile) -> tuple[str, int] | None:
    """Say in which thread a rollout begins, and up to which byte of that; None for in itself."""
    with reading(home, file) as stream:
        line = stream.read(_BLOCK_BYTES) or b""
        while b"\n" not in line[-_BLOCK_BYTES:] and len(line) < LONGEST_LINE:
            block = stream.read(_BLOCK_BYTES)
            if not block:
                break
            line += block
    try:
        base = object_of(decode_line(line.partition(b"\n")[0]).payload, "history_base")
        parent = parse_thread_id(text_of(base, "thread_id"))
    except (MalformedLineError, InvalidThreadIdError):
        return None
    return parent, max(integer_of(base, "end_byte_offset"), 0)


class TranscriptPages(ABC):
    """Pages of a transcript, whatever its items are read from: segments, named by their keys."""

    def __init__(self, keys: list[str]) -> None:
        self._keys = keys

    @abstractmethod
    def _items_from(
        self, place: Place, longest: int | None = LONGEST_TEXT
    ) -> Iterator[tuple[Place, TranscriptItem | None]]:
        """Read items forward, each with its place; None where enough was read, unless all is."""

    @abstractmethod
    def _items_before(self, place: Place) -> Iterator[tuple[Place, TranscriptItem | None]]:
        """Read items backward, each with its place; None where enough was read."""

    @abstractmethod
    def _begins_line(self, place: Place) -> bool:
        """Say whether something begins at a place."""

    def last(self, limit: int) -> TranscriptPage:
        """Read the last page."""
        end = Place(len(self._keys), 0)
        items, before = self._backward(end, limit)
        return TranscriptPage(items, before, None)

    def before(self, position: str, limit: int) -> TranscriptPage:
        """Read the page that ends before a record."""
        items, before = self._backward(self._place(position), limit)
        return TranscriptPage(items, before, items[-1].position if items else None)

    def at(self, position: str, limit: int) -> TranscriptPage:
        """Read the page that begins with a record, or the first one behind it."""
        place = Place(0, 0) if position == START else self._place(position)
        items, after = self._forward(place, limit)
        return TranscriptPage(items, self._before_of(place, items), after)

    def after(self, position: str, limit: int) -> TranscriptPage:
        """Read the page that begins behind a record."""
        place = self._place(position)
        items, after = self._forward(place, limit, skips_first=True)
        before = items[0].position if items else None
        return TranscriptPage(items, before, after)

    def all(self) -> Iterator[TranscriptItem]:
        """Read all items, with their whole texts."""
        for _, item in self._items_from(Place(0, 0), longest=None):
            if item is not None:
                yield item

    def _before_of(self, place: Place, items: list[TranscriptItem]) -> str | None:
        """Say how to go on before a place; None where no item is there."""
        earlier, before = self._backward(place, 1)
        if not earlier and before is None:
            return None
        return items[0].position if items else before

    def _place(self, position: str) -> Place:
        key, _, offset = position.rpartition(":")
        for number, own in enumerate(self._keys):
            if own == key and offset.isdecimal() and len(offset) < len(str(1 << 62)):
                place = Place(number, int(offset))
                if self._begins_line(place):
                    return place
        raise InvalidCursorError(
            f"{position[:100]!r} is no position in this thread",
            hint="pass the position of an item, or before or after of a page, unchanged",
        )

    def _forward(
        self, place: Place, limit: int, *, skips_first: bool = False
    ) -> tuple[list[TranscriptItem], str | None]:
        """Read items from a place on; says where to go on, if there are more."""
        items: list[TranscriptItem] = []
        first = place if skips_first else None
        for at, item in self._items_from(place):
            if at == first:
                continue
            if item is None:  # enough was read
                return items, items[-1].position if items else self._position(at)
            if len(items) == limit:
                return items, items[-1].position
            items.append(item)
        return items, None

    def _backward(self, place: Place, limit: int) -> tuple[list[TranscriptItem], str | None]:
        """Read the items before a place; says where to go on, if there are more."""
        items: list[TranscriptItem] = []
        for at, item in self._items_before(place):
            if item is None:
                before = self._position(at)
                break
            if len(items) == limit:
                before = items[-1].position
                break
            items.append(item)
        else:
            before = None
        return items[::-1], before

    def _position(self, place: Place) -> str:
        return f"{self._keys[place.segment]}:{place.offset}"


class TranscriptReader(TranscriptPages):
    """Reads the transcript of a thread whose segments are known."""

    def __init__(self, home: Path, segments: list[Segment]) -> None:
        super().__init__([segment.key for segment in segments])
        self._home = home
        self._segments = segments

    def _begins_line(self, place: Place) -> bool:
        if place.offset == 0:
            return True
        segment = self._segments[place.segment]
        if segment.end is not None and place.offset > segment.end:
            return False
        with _seekable(self._home, segment.file) as stream:
            stream.seek(place.offset - 1)
            return stream.read(1) == b"\n"

    def _items_from(
        self, place: Place, longest: int | None = LONGEST_TEXT
    ) -> Iterator[tuple[Place, TranscriptItem | None]]:
        """Read items forward, each with its place; None where enough was read, unless all is."""
        read = 0
        for number in range(place.segment, len(self._segments)):
            segment = self._segments[number]
            start = place.offset if number == place.segment else 0
            with _seekable(self._home, segment.file) as stream:
                stream.seek(start)
                lines = Selection(stream, may_be_item, start, gives_heads=True)
                for offset, line in lines:
                    if not segment.has(offset + len(line) + lines.omitted):
                        break
                    at = Place(number, offset)
                    item = item_of(line, self._position(at), lines.omitted, longest)
                    if item is not None:
                        yield at, item
                    if longest is not None and read + offset - start > _MOST_BYTES:
                        yield at, None
                        return
                read += lines.offset - start
                at = Place(number, lines.offset)
                item = item_of(lines.unfinished, self._position(at), 0, longest)
                if item is not None and segment.has(lines.offset + len(lines.unfinished)):
                    yield at, item

    def _items_before(self, place: Place) -> Iterator[tuple[Place, TranscriptItem | None]]:
        """Read items backward, each with its place; None where enough was read."""
        read = 0
        for number in range(min(place.segment, len(self._segments) - 1), -1, -1):
            segment = self._segments[number]
            with _seekable(self._home, segment.file) as stream:
                end = place.offset if number == place.segment else _end_of(stream, segment)
                for offset, line, length in _lines_backward(stream, end):
                    at = Place(number, offset)
                    if _may_be_item(line):
                        item = item_of(line, self._position(at), length - len(line), LONGEST_TEXT)
                        if item is not None:
                            yield at, item
                    if read + end - offset > _MOST_BYTES:
                        yield at, None
                        return
                read += end


def _end_of(stream: "_Stream", segment: Segment) -> int:
    size = stream.seek(0, os.SEEK_END)
    return size if segment.end is None else min(size, segment.end)


def _may_be_item(line: bytes) -> bool:
    time = heads.TIME.match(line)
    return bool(line) if time is None else may_be_item(line, time.end(), len(line))


def item_of(line: bytes, position: str, omitted: int, longest: int | None) -> TranscriptItem | None:
    """Make the item of a line; of one that is too long to be read, one that says so."""
    if omitted:
        return TranscriptItem(
            position=position,
            kind=ItemKind.NOTICE,
            role="system",
            name="too long",
            text=f"A record of {len(line) + omitted:,} bytes is not shown.",
            omitted=len(line) + omitted,
        )
    try:
        return to_transcript_item(decode_line(line), position, longest)
    except MalformedLineError:
        return None  # damage, or the beginning of what is being written


def _lines_backward(stream: "_Stream", end: int) -> Iterator[tuple[int, bytes, int]]:
    """Read lines backward from an end: where each begins, the line, and how long it is.

    Of one that is longer than 64 MiB, there is only the beginning.
    """
    parts: list[bytes] = []  # of the line that is being read, last first
    length = 0
    at = end
    while at > 0:
        size = min(_BLOCK_BYTES, at)
        at -= size
        stream.seek(at)
        block = stream.read(size)
        stop = len(block)
        while (start := block.rfind(b"\n", 0, stop)) >= 0:
            part = block[start + 1 : stop]
            yield from _line(stream, at + start + 1, [*parts, part], length + len(part))
            parts, length, stop = [], 0, start
        length += stop
        parts = [*parts, block[:stop]] if length <= LONGEST_LINE else []
    yield from _line(stream, 0, parts, length)


def _line(
    stream: "_Stream", offset: int, parts: list[bytes], length: int
) -> Iterator[tuple[int, bytes, int]]:
    if not length:
        return
    line = b"".join(reversed(parts))
    if len(line) < length:
        stream.seek(offset)
        line = stream.read(heads.LONGEST_HEAD)
    yield offset, line, length


_Stream = IO[bytes]


@contextmanager
def _seekable(home: Path, file: RolloutFile) -> Iterator[_Stream]:
    """Open a rollout for reading anywhere; a compressed one is unpacked for that."""
    with reading(home, file) as stream:
        if not file.compressed:
            yield cast(_Stream, stream)
            return
        with SpooledTemporaryFile(_IN_MEMORY_BYTES) as unpacked:
            shutil.copyfileobj(cast(IO[bytes], stream), unpacked)
            unpacked.seek(0)
            yield cast(_Stream, unpacked)
