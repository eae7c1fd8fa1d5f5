"""From the bytes of a rollout to the records that matter, at the speed of the disk.

Most bytes are tool output, which says nothing about a thread's metadata.  So a line is recognised
by its head where it has the form in which Codex writes it, and skipped undecoded if its kind can't
change the outcome; a line of any other form is decoded.

Heads can be trusted only where lines are whole.  So a block of lines is first looked at all at
once: each line must begin as a record and end as one, no second record may begin inside, and there
may be no NUL.  Of a block that shows any damage, every line is decoded.  What lies between head and
end of a skipped line is not parsed, so damage there that leaves all this intact goes uncounted.  It
can't change the metadata: the last record of a turn, whose time counts, is always decoded.

Memory stays within a few blocks whatever the length of a file or of a skipped line; a line that
matters is held whole.
"""

import re
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from io import RawIOBase
from operator import itemgetter
from typing import Protocol, cast

import stringzilla

from rollbook.model.times import parse_time
from rollbook.rollout.fold import outdoes_earlier
from rollbook.rollout.lines import (
    KNOWN_TYPES,
    MalformedLineError,
    RolloutItem,
    decode_line,
    is_turn_record,
)

BLOCK_BYTES = 1 << 20
RECORD_START = b'{"timestamp":"'
_RECORD_END = b"}}\n"
_MAX_FUSED_RECORDS = 32

# What the heads of lines say, from the time on. All of these are records of a turn.
_TIME = re.compile(rb'\{"timestamp":"([^"\\]{19,40})"(?:,"ordinal":(\d{1,18}))?(?=,"type":")')
_PASSING = re.compile(  # it never matters
    rb""","type":"(?:
        response_item","payload":\{"type":"(?:
            (?!message")\w
          | message",(?:"id":"[^"\\]*",)?"role":"(?!user")\w
        )
      | event_msg","payload":\{"type":"(?:
            (?!user_message"|token_count"|item_completed"|thread_)\w
          | item_completed",(?:"\w+":"[^"\\]*",){0,4}"item":\{"type":"(?!UserMessage")\w
        )
      | (?:compacted|world_state|inter_agent_communication_metadata)","payload":\{
    )""",
    re.VERBOSE,
)
_WORDS = re.compile(  # of a person: they matter until the title is settled
    rb""","type":"(?:
        response_item","payload":\{"type":"message",(?:"id":"[^"\\]*",)?"role":"user"
      | event_msg","payload":\{"type":"(?:
            user_message"
          | item_completed",(?:"\w+":"[^"\\]*",){0,4}"item":\{"type":"UserMessage"
        )
    )""",
    re.VERBOSE,
)
_LAST_COUNTS = (  # of usage and of contexts, the last that outdoes those before it
    b',"type":"event_msg","payload":{"type":"token_count"',
    b',"type":"turn_context","payload":{',
    b',"type":"token_usage_record","payload":{',
)
_MARKS = (b'"type":"token_', b'"type":"turn_context"')  # to find them by
# Those that most lines have: to compare them is several times faster than to match expressions.
_COMMON_PASSING = (
    b',"type":"response_item","payload":{"type":"function_call',
    b',"type":"response_item","payload":{"type":"reasoning"',
    b',"type":"response_item","payload":{"type":"custom_tool_call',
    b',"type":"response_item","payload":{"type":"message","role":"assistant"',
    b',"type":"event_msg","payload":{"type":"agent_',
    b',"type":"event_msg","payload":{"type":"task_',
)
_COMMON_WORDS = (
    b',"type":"response_item","payload":{"type":"message","role":"user"',
    b',"type":"event_msg","payload":{"type":"user_message"',
)
_COMMON_SETTLED = (*_COMMON_PASSING[:2], *_LAST_COUNTS, *_COMMON_PASSING[2:], *_COMMON_WORDS)
_LONGEST_HEAD = 128
_buffers: list[bytearray] = []


class DeceptiveLineError(ValueError):
    """The last record of a turn only looked like one; it never leaves this package."""


class Readable(Protocol):
    """What is read from its beginning to its end."""

    def readinto(self, buffer: bytearray | memoryview, /) -> int | None:
        """Read at most as many bytes as fit; says how many, 0 at the end."""


class Scan:
    """Iterate over the records of a rollout that matter for its thread, in order, or ``everything``.

    Start it on a binary stream that stands at ``offset``.  The last record of a turn is always
    given, as it says how recent the thread is.  When the title ``is_settled``, what people say is
    skipped, too, and of the records of usage between two others only the last is given.

    When the iteration has ended, ``offset`` is the end of the last line that was taken: an
    unfinished last line is left for the next read, unless it is a whole record that only lacks its
    line break.

    Errors: DeceptiveLineError; then only ``everything`` says what the rollout holds.
    """

    def __init__(self, stream: "Readable", offset: int = 0, *, everything: bool = False) -> None:
        self._stream = stream
        self._everything = everything
        self._shift = 0  # how far into its line the type stood in the last one
        self._skipped: bytearray | RolloutItem | None = None
        self.is_settled = False
        self.offset = offset
        self.records = 0
        self.parse_errors = 0
        self.unknown_items = 0
        self.unfinished = b""  # the beginning of the unfinished last line

    @property
    def has_skipped(self) -> bool:
        """Whether a record was skipped since the last one of a turn that was given."""
        return self._skipped is not None

    def __iter__(self) -> Iterator[RolloutItem]:
        with _buffer() as data:
            yield from self._blocks(data)
        if self._skipped:
            yield _last_of_a_turn(self._skipped)

    def _blocks(self, data: bytearray) -> Iterator[RolloutItem]:
        """Read block after block into the same memory, each behind the rest of the one before."""
        filled = 0
        while True:
            stop = data.rfind(b"\n", 0, filled) + 1
            if stop:
                yield from self._lines(data, stop)
                filled -= stop
                data[:filled] = data[stop : stop + filled]
            elif filled == len(data):
                rest = yield from self._long_line(bytes(data))
                filled = len(rest)
                data[:filled] = rest
                continue
            with memoryview(data) as view:
                read = self._stream.readinto(view[filled:])
            if not read:
                break
            filled += read
        yield from self._last_line(data[:filled])

    def _lines(self, data: bytearray, stop: int) -> Iterator[RolloutItem]:
        """Take lines that end in a line break."""
        self.offset += stop
        count = 0 if self._everything else _whole_lines(data, stop)
        if not count:
            for line in data[:stop].split(b"\n"):
                yield from self._line(line)
            return
        find, is_common, heads = data.find, data.startswith, self._common()
        shift, start, since, given = self._shift, 0, 0, 0
        while start < stop:
            end = find(b"\n", start)
            # Where the type stands as far into the line as in the one before, a time precedes it.
            if not is_common(heads, start + shift):
                can_pass = self._can_pass(data, start, end)
                shift = self._shift
                if not can_pass:
                    yield from self._skip(data, since, start)
                    yield from self._line(data[start:end])
                    given += 1
                    since, heads = end + 1, self._common()
            start = end + 1
        self.records += count - given
        yield from self._skip(data, since, stop)

    def _common(self) -> tuple[bytes, ...]:
        return _COMMON_SETTLED if self.is_settled else _COMMON_PASSING

    def _can_pass(self, data: bytearray, start: int, end: int) -> bool:
        """Find out by the head of a line whether it has to be decoded."""
        time = _TIME.match(data, start, end)
        if time is None:
            return False
        at = time.end()
        self._shift = at - start
        is_outdone = self.is_settled and data.startswith(_LAST_COUNTS, at)
        return is_outdone or self._says_nothing(data, at, end)

    def _says_nothing(self, data: bytes | bytearray, at: int, end: int) -> bool:
        """Say whether a line can't matter, by what begins after its time."""
        return bool(
            _PASSING.match(data, at, end) or (self.is_settled and _WORDS.match(data, at, end))
        )

    def _skip(self, data: bytearray, start: int, stop: int) -> Iterator[RolloutItem]:
        """Pass lines by; when the title is settled, some of them say what only the last can say."""
        if start == stop:
            return
        self._skipped = data[max(data.rfind(b"\n", start, stop - 1) + 1, start) : stop - 1]
        if self.is_settled:
            found = [item for mark in _MARKS for item in self._last(mark, data, start, stop)]
            for _, item in sorted(found, key=itemgetter(0)):
                yield item

    def _last(
        self, mark: bytes, data: bytearray, start: int, stop: int
    ) -> Iterator[tuple[int, RolloutItem]]:
        """Find the last record with a mark that outdoes those before it, and those after it.

        Gives them with their places, last first.
        """
        while (at := stringzilla.rfind(memoryview(data)[start:stop], mark)) >= 0:
            at += start
            end = data.find(b"\n", at)
            stop = max(data.rfind(b"\n", start, at) + 1, start)
            time = _TIME.match(data, stop, end)
            if time is None or not data.startswith(_LAST_COUNTS, time.end()):
                continue
            try:
                item = decode_line(data[stop:end])
            except MalformedLineError:
                self.records -= 1
                self.parse_errors += 1
                continue
            yield at, item
            if outdoes_earlier(item):
                break

    def _line(self, line: bytes | bytearray) -> Iterator[RolloutItem]:
        """Decode one line; where a crash has fused records, save the whole ones."""
        if not line or line.isspace():
            return
        try:
            item = decode_line(line)
        except MalformedLineError:
            yield from self._fused(line)
        else:
            yield self._record(item)

    def _fused(self, line: bytes | bytearray) -> Iterator[RolloutItem]:
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
            yield self._record(last)
            return
        self.parse_errors += 1

    def _record(self, item: RolloutItem) -> RolloutItem:
        self.records += 1
        if item.type not in KNOWN_TYPES:
            self.unknown_items += 1
        if self._skipped and is_turn_record(item) and parse_time(item.timestamp):
            self._skipped = None
        return item

    def _long_line(self, data: bytes) -> Generator[RolloutItem, None, bytes]:
        """Take a line that is longer than a block; returns what follows it."""
        time = None if self._everything else _TIME.match(data)
        if time and self._says_nothing(data, time.end(), len(data)):
            rest = self._pass_by(data)
            if rest is not None:
                return rest
            cast(RawIOBase, self._stream).seek(self.offset)
            data = b""
        line, line_break, rest = self._read_line(data)
        if not line_break:
            yield from self._last_line(line)
            return b""
        self.offset += len(line) + 1
        yield from self._line(line)
        return rest

    def _pass_by(self, data: bytes) -> bytes | None:
        """Let a line that can't matter pass without holding it; returns what follows it.

        None where it shows damage and has to be looked at as a whole.
        """
        head, length, before = data[:_LONGEST_HEAD], 0, b""
        while data:
            part, line_break, rest = data.partition(b"\n")
            inside = before + part if length else part[1:]
            if b"\0" in part or stringzilla.find(inside, RECORD_START) >= 0:
                return None
            length += len(part)
            before = (before + part)[-len(RECORD_START) :]
            if line_break:
                if not (before + line_break).endswith(_RECORD_END):
                    return None
                self.offset += length + 1
                self.records += 1
                self._skipped = _record_of(head)
                return rest
            data = self._read_on()
        if before.endswith(b"}"):  # perhaps a whole record that only lacks its line break
            return None
        self.unfinished = head
        return b""

    def _read_line(self, data: bytes) -> tuple[bytes | bytearray, bytes, bytes]:
        """Read to the end of the line that data begins: the line, its line break, what follows."""
        line = bytearray(data)
        while block := self._read_on():
            part, line_break, rest = block.partition(b"\n")
            line += part
            if line_break:
                return line, line_break, rest
        return line, b"", b""

    def _read_on(self) -> bytes:
        block = bytearray(BLOCK_BYTES)
        return bytes(block[: self._stream.readinto(block) or 0])

    def _last_line(self, data: bytes | bytearray) -> Iterator[RolloutItem]:
        """Take an unfinished line that is a whole record; leave any other for the next read."""
        if not data or data.isspace():
            return
        try:
            item = decode_line(data)
        except MalformedLineError:
            self.unfinished = bytes(data[:_LONGEST_HEAD]).lstrip()
        else:
            self.offset += len(data)
            yield self._record(item)


@contextmanager
def _buffer() -> Iterator[bytearray]:
    """Lend the memory for a block: fresh memory for each costs more than reading it."""
    try:
        data = _buffers.pop()
    except IndexError:
        data = bytearray(BLOCK_BYTES)
    try:
        yield data
    finally:
        _buffers.append(data)


def _whole_lines(data: bytearray, stop: int) -> int:
    """Count lines of which each looks like one whole record; 0 where any shows damage."""
    with memoryview(data) as view, view[:stop] as lines:
        count = stringzilla.count(lines, b"\n")
        is_whole = (
            data.startswith(RECORD_START)
            and data.endswith(_RECORD_END, 0, stop)
            and stringzilla.count(lines, _RECORD_END + RECORD_START) == count - 1
            and stringzilla.count(lines, RECORD_START) == count
            and stringzilla.find(lines, b"\0") < 0
        )
    return count if is_whole else 0


def _last_of_a_turn(skipped: bytearray | RolloutItem) -> RolloutItem:
    """Decode the last record of a turn; of one that passed by, what counts is known."""
    try:
        item = skipped if isinstance(skipped, RolloutItem) else decode_line(skipped)
    except MalformedLineError as error:
        raise DeceptiveLineError(str(error)) from error
    if parse_time(item.timestamp) is None:
        raise DeceptiveLineError(f"{item.timestamp!r:.100} is no time")
    return item


def _record_of(head: bytes) -> RolloutItem:
    """Make what is known of a record from the beginning of its line."""
    match = cast("re.Match[bytes]", _TIME.match(head))
    ordinal = int(match[2]) if match[2] else None
    return RolloutItem("response_item", {}, match[1].decode("utf-8", "replace"), ordinal)
