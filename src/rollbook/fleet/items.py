"""What is sent of a rollout: its items, as a person reads them, with what they are searched by."""

from collections.abc import Iterator
from io import RawIOBase
from pathlib import Path

import msgspec

from rollbook.content.words import fold, is_unspaced, pairs, words_of
from rollbook.model.search import TextScope
from rollbook.model.thread import clean_text
from rollbook.model.transcript import ItemKind, TranscriptItem
from rollbook.rollout.extract import digest_before, reading
from rollbook.rollout.layout import RolloutFile
from rollbook.rollout.lines import MalformedLineError, decode_line
from rollbook.rollout.pages import base_of, item_of
from rollbook.rollout.selection import Selection
from rollbook.rollout.transcript import LONGEST_TEXT, may_be_item, searchable
from rollbook.store.shared import SentItem, SentRollout

LONGEST_WORD = 200  # characters: of what is longer, so many are looked for
_LONGEST_OUTPUT = (
    16 << 10
)  # characters of what a tool was given, or gave; the rest stays on the host
_MOST_WORD_BYTES = 600 << 10  # of one item: a tsvector has room for a megabyte
_PART_CHARACTERS = 2 << 20
_ROLES = {
    TextScope.NOTHING: (),
    TextScope.MESSAGES: ("user", "assistant"),
    TextScope.TOOLS: ("user", "assistant", "tool"),
}
_OF_TOOLS = (ItemKind.TOOL_CALL, ItemKind.TOOL_OUTPUT)


class Part(msgspec.Struct, frozen=True):
    """Items that are sent at once, and the rollout as it is then; the first replaces what was sent."""

    rollout: SentRollout
    items: list[SentItem]
    is_first: bool


def unsent(home: Path, rollout: SentRollout, scope: TextScope) -> Iterator[Part]:
    """Read what was not sent of a rollout, or all of it where it isn't the one that was.

    ``scope`` says what is to be found by its words.  Errors: RolloutError.
    """
    roles = _ROLES[scope]
    file = RolloutFile(
        rollout.path, rollout.compressed, rollout.size, rollout.mtime_ns, rollout.inode
    )
    with reading(home, file) as stream:
        start = rollout.bytes_read if _goes_on(stream, rollout, scope) else 0
        rollout = msgspec.structs.replace(rollout, scope=scope)
        if not start:
            base_thread_id, base_end = base_of(home, file) or (None, None)
            rollout = msgspec.structs.replace(
                rollout, base_thread_id=base_thread_id, base_end=base_end
            )
        stream.seek(start)
        lines = Selection(stream, may_be_item, start, gives_heads=True)
        batch: list[SentItem] = []
        characters, is_first = 0, start == 0
        for offset, line in lines:
            sent = _sent(line, offset, lines.omitted, roles)
            if sent is None:
                continue
            batch.append(sent)
            characters += len(sent.item.text)
            if characters > _PART_CHARACTERS:
                end = offset + len(line) + lines.omitted + 1
                yield Part(_read_to(stream, rollout, end), batch, is_first)
                batch, characters, is_first = [], 0, False
        end = lines.offset
        last = _sent(lines.unfinished, end, 0, roles) if lines.unfinished else None
        if last is not None:  # a whole record that only lacks its line break
            batch.append(last)
            end += len(lines.unfinished)
        done = _read_to(stream, rollout, end)
    looked_at = {"read_size": rollout.size, "read_mtime_ns": rollout.mtime_ns}
    yield Part(msgspec.structs.replace(done, **looked_at), batch, is_first)


def is_sent(rollout: SentRollout, scope: TextScope) -> bool:
    """Say whether all of a rollout was sent, as it looks now."""
    sent = rollout.read_size, rollout.read_mtime_ns, rollout.scope
    return sent == (rollout.size, rollout.mtime_ns, scope)


def words_in(folded: str) -> list[str]:
    """Give the words that a folded text is found by, each once."""
    found: dict[str, None] = {}
    room = _MOST_WORD_BYTES
    for word, _, _ in words_of(folded):
        for each in pairs(word) if is_unspaced(word) else (word[:LONGEST_WORD],):
            if each not in found:
                found[each] = None
                room -= len(each.encode()) + 4
        if room < 0:
            break
    return list(found)


def _goes_on(stream: RawIOBase, rollout: SentRollout, scope: TextScope) -> bool:
    if (
        rollout.scope != scope
        or not rollout.bytes_read
        or rollout.compressed
        or rollout.bytes_read > rollout.size
    ):
        return False
    return digest_before(stream, rollout.bytes_read) == rollout.digest


def _read_to(stream: RawIOBase, rollout: SentRollout, end: int) -> SentRollout:
    digest = b"" if rollout.compressed else digest_before(stream, end)
    return msgspec.structs.replace(rollout, bytes_read=end, digest=digest)


def _sent(line: bytes, offset: int, omitted: int, roles: tuple[str, ...]) -> SentItem | None:
    item = item_of(line, "", omitted, LONGEST_TEXT)
    if item is None:
        return None
    said = None
    if not omitted and item.role in roles:
        try:
            said = searchable(decode_line(line))
        except MalformedLineError:
            said = None
    if said is None:
        return SentItem(offset, _bounded(item))
    folded = clean_text(fold(said[1][:LONGEST_TEXT]))
    return SentItem(offset, _bounded(item), folded, words_in(folded))


def _bounded(item: TranscriptItem) -> TranscriptItem:
    text, omitted = item.text, item.omitted
    if item.kind in _OF_TOOLS and len(text) > _LONGEST_OUTPUT:
        omitted += len(text) - _LONGEST_OUTPUT
        text = text[:_LONGEST_OUTPUT]
    return msgspec.structs.replace(
        item,
        text=clean_text(text),
        omitted=omitted,
        role=clean_text(item.role),
        name=clean_text(item.name),
        call_id=clean_text(item.call_id),
        turn=clean_text(item.turn),
    )
