"""What was said, gathered into chunks for the index."""

from collections.abc import Iterator

import msgspec

from rollbook.content.words import fold
from rollbook.model.search import ROLES, TextScope
from rollbook.model.times import parse_time, to_epoch
from rollbook.rollout.lines import RolloutItem
from rollbook.rollout.transcript import may_be_said, searchable
from rollbook.store.texts import Chunk

_ROLES: dict[TextScope, tuple[str, ...]] = {
    TextScope.NOTHING: (),
    TextScope.MESSAGES: ROLES[:2],
    TextScope.TOOLS: ROLES,
}
CHUNK_CHARACTERS = 4 << 10
_LONGEST_REACH = 4 << 20  # bytes of a rollout, from the first line of a chunk to its last


class FoldedChunk(msgspec.Struct, frozen=True):
    """A chunk, and all that is said in it, folded: in messages, and by tools."""

    chunk: Chunk
    messages: str
    tools: str


class ChunkMaker:
    """Takes the records of a rollout, as far as they say something, and makes chunks of them."""

    def __init__(self, scope: TextScope) -> None:
        self._roles = _ROLES[scope]
        self._begin()

    def _begin(self) -> None:
        self._texts: dict[str, list[str]] = {}
        self._places: list[tuple[int, int]] = []
        self._times: list[int] = []
        self._characters = 0

    @property
    def open_from(self) -> int | None:
        """Where the chunk that isn't full begins; None where there is none."""
        return self._places[0][0] if self._places else None

    def wants(self, data: bytes, at: int, end: int) -> bool:
        """Say whether a line may say something, by what begins at its type."""
        return bool(self._roles) and may_be_said(data, at, end, tools="tool" in self._roles)

    def take(self, offset: int, length: int, record: RolloutItem) -> Iterator[FoldedChunk]:
        """Take the record of a line; gives the chunk that is full with it."""
        said = searchable(record)
        if said is None or said[0] not in self._roles:
            return
        if self._places and offset - self._places[0][0] > _LONGEST_REACH:
            yield from self.finish()
        role, text = said
        self._texts.setdefault(role, []).append(fold(text))
        self._characters += len(text)
        self._places.append((offset, length))
        time = parse_time(record.timestamp)
        if time is not None:
            self._times.append(to_epoch(time))
        if self._characters >= CHUNK_CHARACTERS:
            yield from self.finish()

    def finish(self) -> Iterator[FoldedChunk]:
        """Give the chunk that isn't full, if there is one, and begin another."""
        if not self._places:
            return
        chunk = Chunk(
            first_time=min(self._times, default=0),
            last_time=max(self._times, default=0),
            places=tuple(self._places),
        )
        tools = self._texts.pop("tool", [])
        messages = [text for texts in self._texts.values() for text in texts]
        yield FoldedChunk(chunk, "\n".join(messages), "\n".join(tools))
        self._begin()
