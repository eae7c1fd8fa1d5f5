"""Read what was said and used in a rollout, in parts that can be stored one by one."""

from collections.abc import Iterator
from io import RawIOBase
from pathlib import Path

import msgspec

from rollbook.content.texts import ChunkMaker, FoldedChunk
from rollbook.content.usage import FindFiles, UsageCollector, beginning_of, decode_state
from rollbook.model.search import TextScope
from rollbook.rollout.extract import digest_before, reading
from rollbook.rollout.layout import RolloutFile
from rollbook.rollout.lines import MalformedLineError, RolloutItem, decode_line
from rollbook.rollout.selection import Selection
from rollbook.rollout.usage import UsageState, may_matter
from rollbook.store.content_files import ContentFile
from rollbook.store.usage import Used

UNFINISHED = -1  # the size of a rollout of which only a beginning was read
_PART_CHARACTERS = 1 << 20  # of text, in one part


class Part(msgspec.Struct, frozen=True):
    """What was read of a rollout at once, and the rollout as it is stored afterwards.

    ``is_first`` says that it takes the place of all that was stored of the rollout before,
    ``renews_last`` that it takes the place of the last chunk.
    """

    file: ContentFile
    chunks: list[FoldedChunk]
    used: list[Used]
    is_first: bool
    renews_last: bool

    @property
    def characters(self) -> int:
        """How much is said in it."""
        return sum(map(_characters_of, self.chunks))


class ContentReader:
    """Reads one rollout, from its start or from where it was read to.

    ``known`` is what is stored of it; ``now`` the same rollout as it is on disk, in the scope that is
    wanted.
    """

    def __init__(
        self,
        home: Path,
        known: ContentFile | None,
        now: ContentFile,
        find_files: FindFiles,
    ) -> None:
        self._home = home
        self._known = known
        self._now = now
        self._find_files = find_files
        self._chunks = ChunkMaker(TextScope(now.scope))

    def parts(self) -> Iterator[Part]:
        """Read it.  Errors: RolloutError where it can't be read."""
        now = self._now
        file = RolloutFile(now.path, now.compressed, now.size, now.mtime_ns, now.inode)
        with reading(self._home, file) as stream:
            yield from self._parts(stream)

    def _parts(self, stream: RawIOBase) -> Iterator[Part]:
        known = self._known if self._can_go_on(stream) else None
        start, unread = (known.open_from, known.bytes_read) if known else (0, 0)
        usage = UsageCollector(self._now.thread_id, self._usage_before(known))
        is_first, renews_last = known is None, known is not None and start < known.bytes_read
        stream.seek(start)
        lines = Selection(stream, self._wants, start)
        chunks: list[FoldedChunk] = []
        characters = 0
        for offset, line, record in self._records(lines):
            if offset >= unread:
                usage.take(record)
            full = list(self._chunks.take(offset, len(line), record))
            chunks += full
            characters += sum(map(_characters_of, full))
            if characters > _PART_CHARACTERS and self._chunks.open_from is None:
                end = offset + len(line) + 1
                stored = self._stored(stream, end, end, usage.state)
                unfinished = msgspec.structs.replace(stored, size=UNFINISHED)
                yield Part(unfinished, chunks, usage.finish(), is_first, renews_last)
                is_first = renews_last = False
                chunks, characters = [], 0
        open_from = self._chunks.open_from
        chunks += self._chunks.finish()
        end = lines.offset
        stored = self._stored(stream, end, end if open_from is None else open_from, usage.state)
        yield Part(stored, chunks, usage.finish(), is_first, renews_last)

    def _usage_before(self, known: ContentFile | None) -> UsageState:
        if known is None:
            return beginning_of(self._home, self._now, self._find_files)
        return decode_state(known.state)

    def _can_go_on(self, stream: RawIOBase) -> bool:
        known, now = self._known, self._now
        if known is None or known.scope != now.scope or known.bytes_read > now.size:
            return False
        if known.compressed or now.compressed:
            return False
        return digest_before(stream, known.bytes_read) == known.digest

    def _wants(self, data: bytes, at: int, end: int) -> bool:
        return self._chunks.wants(data, at, end) or may_matter(data, at, end)

    def _records(self, lines: Selection) -> Iterator[tuple[int, bytes, RolloutItem]]:
        for offset, line in lines:
            try:
                yield offset, line, decode_line(line)
            except MalformedLineError:
                continue  # counted when the rollout was read for its metadata
        if lines.unfinished:  # a whole record, perhaps, that only lacks its line break
            try:
                record = decode_line(lines.unfinished)
            except MalformedLineError:
                return
            yield lines.offset, lines.unfinished, record
            lines.offset += len(lines.unfinished)

    def _stored(self, stream: RawIOBase, end: int, open_from: int, state: str) -> ContentFile:
        digest = b"" if self._now.compressed else digest_before(stream, end)
        return msgspec.structs.replace(
            self._now, bytes_read=end, digest=digest, open_from=open_from, state=state
        )


def _characters_of(chunk: FoldedChunk) -> int:
    return len(chunk.messages) + len(chunk.tools)
