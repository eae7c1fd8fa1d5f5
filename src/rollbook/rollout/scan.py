"""From the bytes of a rollout to the records that matter, at the speed of the disk.

Most bytes are tool output, which says nothing about a thread's metadata.  So a line is recognised
by its head where it has the form in which Codex writes it, and skipped undecoded if its kind can't
change the outcome; a line of any other form is decoded.  A skipped line must still look whole:
closed at its end, no second record inside, no NUL, valid UTF-8.  What lies between is not parsed,
so damage there that leaves all this intact goes uncounted (and can't change the metadata).

Memory stays within a few blocks whatever the length of a file or of a skipped line; a line that
matters is held whole.
"""

import codecs
import re
from collections.abc import Generator, Iterator
from typing import BinaryIO, Protocol, cast

from rollbook.model.times import parse_time
from rollbook.rollout.lines import (
    KNOWN_TYPES,
    MalformedLineError,
    RolloutItem,
    decode_line,
    is_turn_record,
)

BLOCK_BYTES = 1 << 20
RECORD_START = b'{"timestamp":"'
_MAX_FUSED_RECORDS = 32

# The head of a line that can't matter. Group 1 is its time, group 2 its ordinal: these are all
# records of a turn, and the last one that has a time counts.
_SKIPPABLE = re.compile(
    rb"""\{"timestamp":"([^"\\]{19,40})",(?:"ordinal":(\d{1,18}),)?"type":"(?:
        response_item","payload":\{"type":"(?:
            (?!message")\w+"
          | message",(?:"id":"[^"\\]*",)?"role":"(?!user")\w+"
        )
      | event_msg","payload":\{"type":"(?:
            (?!user_message"|token_count"|item_completed"|thread_)\w+"
          | item_completed",(?:"\w+":"[^"\\]*",){0,4}"item":\{"type":"(?!UserMessage")\w+"
        )
      | (?:compacted|world_state|inter_agent_communication_metadata)","payload":\{
    )""",
    re.VERBOSE,
)


_NOTHING = re.compile(rb"(?!)")


class Readable(Protocol):
    """What is read from its beginning to its end."""

    def read(self, size: int, /) -> bytes:
        """Read at most so many bytes; none at the end."""


class Scan:
    """Iterate over the records of a rollout that matter for its thread, in order, or ``everything``.

    Start it on a binary stream that stands at ``offset``.  When the iteration has ended,
    ``offset`` is the end of the last line that was taken: an unfinished last line is left for the
    next read, unless it is a whole record that only lacks its line break.
    """

    def __init__(
        self, stream: "Readable | BinaryIO", offset: int = 0, *, everything: bool = False
    ) -> None:
        self._stream = stream
        self._skippable = _NOTHING if everything else _SKIPPABLE
        self._turn_records: list[re.Match[bytes] | RolloutItem] = []  # skipped, and yielded
        self.offset = offset
        self.records = 0
        self.parse_errors = 0
        self.unknown_items = 0
        self.unfinished = b""  # the beginning of the unfinished last line

    @property
    def trailing_turn_time(self) -> str:
        """The time of a skipped turn record that came after all those yielded, else empty."""
        head = self._trailing_head()
        return _time_of(head) if head else ""

    @property
    def trailing_turn_ordinal(self) -> int | None:
        """The ordinal of that record; None where it has none."""
        head = self._trailing_head()
        return int(head[2]) if head and head[2] else None

    def _trailing_head(self) -> re.Match[bytes] | None:
        last = self._turn_records[-1] if self._turn_records else None
        return last if isinstance(last, re.Match) else None

    def __iter__(self) -> Iterator[RolloutItem]:
        data = b""
        while block := self._stream.read(BLOCK_BYTES):
            data = yield from self._whole_lines(data + block if data else block)
            while len(data) >= BLOCK_BYTES:
                rest = yield from self._long_line(data)
                data = yield from self._whole_lines(rest)
        yield from self._last_line(data)
        self._keep_last_turn_record()

    def _whole_lines(self, data: bytes) -> Generator[RolloutItem, None, bytes]:
        """Take the lines that are whole; returns the beginning of the one that isn't."""
        start = 0
        clean = _is_clean(data[: data.rfind(b"\n") + 1])
        while (end := data.find(b"\n", start)) >= 0:
            head = self._skippable.match(data, start, end)
            if head and _looks_whole(data, start, end, clean):
                self._turn_records.append(head)
                self.records += 1
            else:
                yield from self._line(data[start:end])
            start = end + 1
        self._keep_last_turn_record()
        self.offset += start
        return data[start:]

    def _line(self, line: bytes) -> Iterator[RolloutItem]:
        """Decode one line; where a crash has fused records, save the whole ones."""
        if not line or line.isspace():
            return
        try:
            item = decode_line(line)
        except MalformedLineError:
            yield from self._fused(line)
        else:
            yield from self._record(item)

    def _fused(self, line: bytes) -> Iterator[RolloutItem]:
        at = 0
        for _ in range(_MAX_FUSED_RECORDS):
            at = line.find(RECORD_START, at + 1)
            if at < 0:
                break
            try:
                last = decode_line(line[at:])
            except MalformedLineError:
                continue
            yield from self._line(line[:at])
            yield from self._record(last)
            return
        self.parse_errors += 1

    def _record(self, item: RolloutItem) -> Iterator[RolloutItem]:
        self.records += 1
        if item.type not in KNOWN_TYPES:
            self.unknown_items += 1
        if self._turn_records and is_turn_record(item):
            self._turn_records.append(item)
        yield item

    def _keep_last_turn_record(self) -> None:
        """Forget those before the last one that has a time, and those that have none."""
        while self._turn_records and not parse_time(_time_of(self._turn_records[-1])):
            self._turn_records.pop()
        del self._turn_records[:-1]

    def _long_line(self, data: bytes) -> Generator[RolloutItem, None, bytes]:
        """Take a line that is longer than a block; returns what follows it."""
        if head := self._skippable.match(data):
            rest = self._pass_by(data, head)
            if rest is not None:
                return rest
            cast(BinaryIO, self._stream).seek(self.offset)
            data = b""
        line, rest = self._read_line(data)
        if line is None:
            yield from self._last_line(rest)
            return b""
        self.offset += len(line) + 1
        yield from self._line(line)
        return rest

    def _pass_by(self, data: bytes, head: re.Match[bytes]) -> bytes | None:
        """Let a line that can't matter pass without holding it; returns what follows it.

        None where it shows damage and has to be looked at as a whole.
        """
        length, before = 0, b""
        decoder = codecs.getincrementaldecoder("utf-8")()
        while data:
            part, line_break, rest = data.partition(b"\n")
            if b"\0" in part or RECORD_START in before + (part if length else part[1:]):
                return None
            try:
                decoder.decode(part, final=bool(line_break))
            except UnicodeDecodeError:
                return None
            length += len(part)
            before = (before + part)[-len(RECORD_START) :]
            if line_break:
                if not before.rstrip(b"\r").endswith(b"}}"):
                    return None
                self.offset += length + 1
                self.records += 1
                self._turn_records.append(head)
                self._keep_last_turn_record()
                return rest
            data = self._stream.read(BLOCK_BYTES)
        if before.endswith(b"}"):  # perhaps a whole record that only lacks its line break
            return None
        self.unfinished = head[0]
        return b""

    def _read_line(self, data: bytes) -> tuple[bytes | None, bytes]:
        """Read to the end of the line that data begins; (None, all of it) if it has none yet."""
        parts = [data]
        while block := self._stream.read(BLOCK_BYTES):
            part, line_break, rest = block.partition(b"\n")
            parts.append(part)
            if line_break:
                return b"".join(parts), rest
        return None, b"".join(parts)

    def _last_line(self, data: bytes) -> Iterator[RolloutItem]:
        """Take an unfinished line that is a whole record; leave any other for the next read."""
        if not data or data.isspace():
            return
        try:
            item = decode_line(data)
        except MalformedLineError:
            self.unfinished = data[:64].lstrip()
        else:
            self.offset += len(data)
            yield from self._record(item)


def _time_of(record: re.Match[bytes] | RolloutItem) -> str:
    if isinstance(record, RolloutItem):
        return record.timestamp
    return record[1].decode("utf-8", "replace")


def _looks_whole(data: bytes, start: int, end: int, clean: bool) -> bool:
    """Say whether a line that may be skipped shows no damage."""
    if data[end - 2 : end] != b"}}" and data[end - 3 : end] != b"}}\r":
        return False
    if data.find(RECORD_START, start + 1, end) >= 0:
        return False
    return clean or _is_clean(data[start:end])


def _is_clean(data: bytes) -> bool:
    if b"\0" in data:
        return False
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
