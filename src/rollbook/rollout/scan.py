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

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from io import RawIOBase
from typing import Protocol, cast

import stringzilla

from rollbook.model.times import parse_time
from rollbook.rollout import heads
from rollbook.rollout.fold import is_copied, outdoes_earlier, tells_title
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
_MAX_WAITING = 64
_buffers: list[bytearray] = []


class DeceptiveLineError(ValueError):
    """A record that stands for those before it is none, or not whole; it never leaves this package."""


class Readable(Protocol):
    """What is read from its beginning to its end."""

    def readinto(self, buffer: bytearray | memoryview, /) -> int | None:
        """Read at most as many bytes as fit; says how many, 0 at the end."""

    def read(self, size: int, /) -> bytes | None:
        """Read at most so many bytes, none at the end."""


class _Latest:
    """Records of a kind of which one that is whole leaves nothing of those before it.

    They wait undecoded, as one that is whole by its looks most often is outdone in turn.
    """

    def __init__(self, seems_whole: Callable[[bytearray], bool]) -> None:
        self._seems_whole = seems_whole
        self._lines: list[bytearray] = []
        self._stands_for_others = False  # the first of them

    def __len__(self) -> int:
        return len(self._lines)

    def outdoes(self, line: bytearray, own_from: int) -> bool:
        """Say whether a line leaves nothing of those before it, by its looks."""
        if own_from and is_copied(heads.ordinal_of(line), own_from):
            return False
        return self._seems_whole(line)

    def add(self, line: bytearray, own_from: int) -> None:
        """Have a line wait, instead of those before it if it outdoes them."""
        if self.outdoes(line, own_from):
            self._lines.clear()
            self._stands_for_others = True
        self._lines.append(line)

    def take(self, decode: Callable[[bytearray], RolloutItem | None]) -> Iterator[RolloutItem]:
        """Give those that wait, in order."""
        lines, self._lines = self._lines, []
        must_be_whole, self._stands_for_others = self._stands_for_others, False
        for line in lines:
            item = decode(line)
            if must_be_whole and not (item and outdoes_earlier(item)):
                raise DeceptiveLineError(f"{bytes(line)!r:.100} is not whole")
            must_be_whole = False
            if item:
                yield item


class Scan:
    """Iterate over the records of a rollout that matter for its thread, or over ``everything``.

    Start it on a binary stream that stands at ``offset``.  Where one record outdoes others, only
    that one may be given, so records of different kinds come in another order than they have.  At
    the end comes one that has nothing but the time of the last one that belongs to a turn, as that
    says how recent the thread is.  Set ``is_settled`` when nothing that anybody says can change the title
    any more: it is skipped then.  Set ``own_from`` to the ordinal from which on the records are the
    thread's own.

    When the iteration has ended, ``offset`` is the end of the last line that was taken: an
    unfinished last line is left for the next read, unless it is a whole record that only lacks its
    line break.

    Errors: DeceptiveLineError; then only ``everything`` says what the rollout holds.
    """

    def __init__(self, stream: "Readable", offset: int = 0, *, everything: bool = False) -> None:
        self._stream = stream
        self._everything = everything
        self._shift = 0  # how far into its line the type stood in the last one
        self._messages: list[bytearray] = []  # that matter unless an event tells the title
        self._contexts = _Latest(heads.seems_whole_context)
        self._usages = _Latest(heads.seems_whole_usage)
        self._last_of_turn: bytearray | RolloutItem | None = None
        self.is_settled = False
        self.own_from = 0
        self.has_skipped = False
        self.offset = offset
        self.records = 0
        self.parse_errors = 0
        self.unknown_items = 0
        self.unfinished = b""  # the beginning of the unfinished last line

    def __iter__(self) -> Iterator[RolloutItem]:
        with _buffer() as data:
            yield from self._blocks(data)
        if self._last_of_turn and not self._everything:
            yield self._end_of_turn(self._last_of_turn)

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
        yield from self._waiting()
        yield from self._last_line(data[:filled])

    def _lines(self, data: bytearray, stop: int) -> Iterator[RolloutItem]:
        """Take lines that end in a line break."""
        self.offset += stop
        count = 0 if self._everything else _whole_lines(data, stop)
        if not count:
            yield from self._waiting()
            for line in data[:stop].split(b"\n"):
                yield from self._line(line)
            return
        find, is_common = data.find, data.startswith
        usual = heads.common(is_settled=self.is_settled)
        shift, start, since, given_to, given = self._shift, 0, 0, 0, 0
        while start < stop:
            end = find(b"\n", start)
            # Where the type stands as far into its line as in the one before, a time precedes it.
            if not is_common(usual, start + shift):
                at = self._type_at(data, start, end)
                shift = self._shift
                if not self._can_wait(data, start, at, end):
                    self._pass(data, given_to, start)
                    given_to, given = end + 1, given + 1
                    if at and heads.may_settle(data, at, end):
                        yield from self._settling(data[start:end])
                    else:
                        self._keep_usages(data, since, start)
                        yield from self._waiting()
                        yield from self._line(data[start:end])
                        since = given_to
                    usual = heads.common(is_settled=self.is_settled)
            start = end + 1
        self.records += count - given
        self._pass(data, given_to, stop)
        self._keep_usages(data, since, stop)
        if len(self._usages) > _MAX_WAITING:
            yield from self._waiting()

    def _type_at(self, data: bytearray, start: int, end: int) -> int:
        """Find where the type of a line stands; 0 unless that is behind its time and ordinal."""
        time = heads.TIME.match(data, start, end)
        if time is None:
            return 0
        self._shift = time.end() - start
        return time.end()

    def _can_wait(self, data: bytearray, start: int, at: int, end: int) -> bool:
        """Say whether a line need not be given now, or ever."""
        if not at:
            return False
        if data.startswith(heads.CONTEXT, at):
            can_wait = len(self._contexts) < _MAX_WAITING
            if can_wait:
                self._contexts.add(data[start:end], self.own_from)
            return can_wait
        if self.is_settled and data.startswith(heads.USAGE, at):
            return True
        if heads.says_nothing(data, at, end, is_settled=self.is_settled):
            return True
        can_wait = heads.is_message(data, at, end) and len(self._messages) < _MAX_WAITING
        if can_wait:
            self._messages.append(data[start:end])
        return can_wait

    def _pass(self, data: bytearray, start: int, stop: int) -> None:
        """Pass lines by, and remember the last."""
        if start < stop:
            self.has_skipped = True
            last = max(data.rfind(b"\n", start, stop - 1) + 1, start)
            self._last_of_turn = data[last : stop - 1]

    def _settling(self, line: bytearray) -> Iterator[RolloutItem]:
        """Give what may settle the title; what tells it outdoes the messages before."""
        for item in self._line(line):
            if tells_title(item) and not is_copied(item.ordinal, self.own_from):
                self._messages.clear()
            yield from self._doubtful()
            yield item

    def _doubtful(self) -> Iterator[RolloutItem]:
        """Give the messages that no event has outdone."""
        messages, self._messages = self._messages, []
        for line in messages:
            if item := self._decoded(line):
                yield item

    def _waiting(self) -> Iterator[RolloutItem]:
        """Give all that waits."""
        yield from self._contexts.take(self._decoded)
        yield from self._usages.take(self._decoded)
        yield from self._doubtful()

    def _keep_usages(self, data: bytearray, start: int, stop: int) -> None:
        """Have the last record of usage that outdoes those before it wait, and any after it."""
        if not self.is_settled:
            return
        found: list[bytearray] = []
        with memoryview(data) as view:
            while (at := start + stringzilla.rfind(view[start:stop], heads.USAGE_MARK)) >= start:
                end = data.find(b"\n", at)
                stop = max(data.rfind(b"\n", start, at) + 1, start)
                time = heads.TIME.match(data, stop, end)
                if time and data.startswith(heads.USAGE, time.end()):
                    found.append(data[stop:end])
                    if self._usages.outdoes(found[-1], self.own_from):
                        break
        for line in reversed(found):
            self._usages.add(line, self.own_from)

    def _decoded(self, line: bytearray) -> RolloutItem | None:
        """Decode a line that was counted as a record; None where it is none."""
        try:
            return decode_line(line)
        except MalformedLineError:
            self.records -= 1
            self.parse_errors += 1
            return None

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
        if is_turn_record(item):
            self._last_of_turn = item
        return item

    def _long_line(self, data: bytes) -> Generator[RolloutItem, None, bytes]:
        """Take a line that is longer than a block; returns what follows it."""
        is_whole_head = len(data) >= heads.LONGEST_HEAD
        time = heads.TIME.match(data) if is_whole_head and not self._everything else None
        if time and heads.says_nothing(data, time.end(), len(data), is_settled=self.is_settled):
            rest = self._pass_by(data)
            if rest is not None:
                return rest
            cast(RawIOBase, self._stream).seek(self.offset)
            data = b""
        yield from self._waiting()
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
        head, length, before = data[: heads.LONGEST_HEAD], 0, b""
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
                self.has_skipped = True
                self._last_of_turn = heads.record_at(head)
                return rest
            data = self._read_on()
        if before.endswith(b"}"):  # perhaps a whole record that only lacks its line break
            return None
        self.unfinished = head
        return b""

    def _end_of_turn(self, last: bytearray | RolloutItem) -> RolloutItem:
        """Give the time of the last record of a turn, which has one unless its looks deceive.

        And no more than that: what else it says may be outdone by records that belong to no turn.
        """
        try:
            item = last if isinstance(last, RolloutItem) else decode_line(last)
        except MalformedLineError as error:
            raise DeceptiveLineError(str(error)) from error
        if parse_time(item.timestamp) is None or is_copied(item.ordinal, self.own_from):
            raise DeceptiveLineError(f"{item.timestamp!r:.100} is no time of a turn")
        return heads.record_of_turn(item.timestamp, item.ordinal)

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
        return self._stream.read(BLOCK_BYTES) or b""

    def _last_line(self, data: bytes | bytearray) -> Iterator[RolloutItem]:
        """Take an unfinished line that is a whole record; leave any other for the next read."""
        if not data or data.isspace():
            return
        try:
            item = decode_line(data)
        except MalformedLineError:
            self.unfinished = bytes(data[: heads.LONGEST_HEAD]).lstrip()
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
