"""Pick lines out of a rollout by their heads, each with its place.

What a second reading of a rollout looks for is little of it, too.  Unlike
:class:`rollbook.rollout.scan.Scan`, this gives places, keeps the order, and decodes nothing.  A line
in another form than Codex writes it in is given, whatever it is.
"""

from collections.abc import Callable, Generator, Iterator
from typing import Protocol

from rollbook.rollout import heads
from rollbook.rollout.scan import BLOCK_BYTES

LONGEST_LINE = 64 << 20  # of one that is given; bytes


class Blocks(Protocol):
    """What is read from where it stands to its end."""

    def read(self, size: int, /) -> bytes | None:
        """Read at most so many bytes, none at the end."""


Wants = Callable[[bytes, int, int], bool]


class Selection:
    """Iterate over the wanted lines of a rollout, without their line breaks, and where each begins.

    Start it on a binary stream that stands at ``offset``.  ``wants`` is asked of each line in
    Codex's form: the bytes that it is in, where its type begins, and where they end.  Of a longer
    line than 64 MiB the beginning is given where ``gives_heads``, else nothing; ``omitted`` says how
    many bytes of the line that was given last are missing.

    When the iteration has ended, ``offset`` is the end of the last whole line; what follows it is in
    ``unfinished``.
    """

    def __init__(
        self, stream: Blocks, wants: Wants, offset: int = 0, *, gives_heads: bool = False
    ) -> None:
        self._stream = stream
        self._wants = wants
        self._gives_heads = gives_heads
        self.omitted = 0
        self.offset = offset
        self.unfinished = b""

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        rest = b""
        while block := self._stream.read(BLOCK_BYTES):
            data = rest + block if rest else block
            stop = data.rfind(b"\n") + 1
            if stop:
                yield from self._lines(data, stop)
                self.offset += stop
                rest = data[stop:]
            elif len(data) >= BLOCK_BYTES:
                rest = yield from self._long_line(data)
            else:
                rest = data
        self.unfinished = rest

    def _lines(self, data: bytes, stop: int) -> Iterator[tuple[int, bytes]]:
        start = 0
        while start < stop:
            end = data.find(b"\n", start)
            if self._is_wanted(data, start, end):
                yield self.offset + start, data[start:end]
            start = end + 1

    def _is_wanted(self, data: bytes, start: int, end: int) -> bool:
        time = heads.TIME.match(data, start, end)
        if time is None:
            return end > start
        return self._wants(data, time.end(), end)

    def _long_line(self, data: bytes) -> Generator[tuple[int, bytes], None, bytes]:
        """Take a line that is longer than a block, held only if it is wanted; returns what follows."""
        is_wanted = self._is_wanted(data, 0, len(data))
        parts, length, is_whole = [data], len(data), is_wanted
        while block := self._stream.read(BLOCK_BYTES):
            part, line_break, rest = block.partition(b"\n")
            length += len(part)
            if is_whole and length <= LONGEST_LINE:
                parts.append(part)
            else:
                parts, is_whole = [data[: heads.LONGEST_HEAD]], False
            if line_break:
                if is_wanted and (is_whole or self._gives_heads):
                    line = b"".join(parts)
                    self.omitted = length - len(line)
                    yield self.offset, line
                    self.omitted = 0
                self.offset += length + 1
                return rest
        return b"".join(parts) if is_whole else b""
