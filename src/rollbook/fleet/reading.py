"""Read what all hosts have sent: threads, transcripts, and messages that are looked for."""

import logging
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from rollbook.content.query import Query, Term
from rollbook.content.search import Asked, Match, find, matched
from rollbook.errors import DamagedRowError, RolloutError
from rollbook.fleet.items import LONGEST_WORD
from rollbook.index.annotations import ThreadAnnotations
from rollbook.index.projects import ProjectNames
from rollbook.index.source import Readable
from rollbook.model.annotation import Relocations, annotated
from rollbook.model.paging import ThreadFilter
from rollbook.model.thread import ThreadMetadata
from rollbook.model.transcript import ItemKind, TranscriptItem
from rollbook.rollout.layout import RolloutFile, choose_files, position_key
from rollbook.rollout.pages import Place, TranscriptPages
from rollbook.rollout.transcript import LONGEST_TEXT
from rollbook.store import annotations as marks
from rollbook.store import shared, threads
from rollbook.store.engine import Transaction
from rollbook.store.shared import SentRollout

_AT_ONCE = 256  # messages that are looked at
_MOST = 20_000  # messages, for one search
_ITEMS_AT_ONCE = 200
_MOST_FORKS = 100
_LARGEST = (1 << 63) - 1
_log = logging.getLogger(__name__)


class SharedSource:
    """What hosts share, as a source of threads; see :class:`rollbook.index.source.Source`."""

    def __init__(self, engine: Readable, own: ThreadAnnotations) -> None:
        self.engine = engine
        self.home = Path("/")  # their paths are absolute
        self.annotations = SharedAnnotations(engine, own)

    def leave_out(self, damage: DamagedRowError) -> None:
        """Leave a row with impossible values out of a list: its host may send it again."""
        _log.warning("left out of a listing: %s", damage.message)

    def project_names(self) -> ProjectNames:
        """Name projects; directories were sent as they are now on their hosts."""
        return ProjectNames(Relocations())


class SharedAnnotations:
    """What persons have said of threads, on any host."""

    def __init__(self, engine: Readable, own: ThreadAnnotations) -> None:
        self._engine = engine
        self._own = own
        self.relocations = Relocations()  # hosts send directories as they are now

    def refresh(self) -> None:
        """Take over what was said here; what was said elsewhere is there already."""
        self._own.refresh()

    def shown(self, found: list[ThreadMetadata]) -> list[ThreadMetadata]:
        """Show threads with their names, tags and pins."""
        if not found:
            return found
        with self._engine.read() as tx:
            said = marks.of_threads(tx, [thread.id for thread in found])
        return [annotated(thread, said.get(thread.id), self.relocations) for thread in found]


class SharedTranscript(TranscriptPages):
    """Reads the transcript of a thread from what its host has sent."""

    def __init__(
        self, tx: Transaction, host: str, segments: list[tuple[SentRollout, int | None]]
    ) -> None:
        super().__init__([rollout.key for rollout, _ in segments])
        self._tx = tx
        self._host = host
        self._segments = segments

    def _items_from(
        self, place: Place, longest: int | None = LONGEST_TEXT
    ) -> Iterator[tuple[Place, TranscriptItem | None]]:
        del longest  # as they were cut when they were sent
        for number in range(place.segment, len(self._segments)):
            rollout, end = self._segments[number]
            start = place.offset if number == place.segment else 0
            while found := shared.items_from(
                self._tx,
                self._host,
                rollout.thread_id,
                rollout.key,
                start,
                _LARGEST if end is None else end,
                _ITEMS_AT_ONCE,
            ):
                yield from ((Place(number, offset), item) for offset, item in found)
                start = found[-1][0] + 1

    def _items_before(self, place: Place) -> Iterator[tuple[Place, TranscriptItem | None]]:
        for number in range(min(place.segment, len(self._segments) - 1), -1, -1):
            rollout, end = self._segments[number]
            before = _LARGEST if end is None else end
            if number == place.segment:
                before = min(before, place.offset)
            while found := shared.items_before(
                self._tx, self._host, rollout.thread_id, rollout.key, before, _ITEMS_AT_ONCE
            ):
                yield from ((Place(number, offset), item) for offset, item in found)
                before = found[-1][0]

    def _begins_line(self, place: Place) -> bool:
        rollout, end = self._segments[place.segment]
        if end is not None and place.offset >= end:
            return False
        return place.offset == 0 or shared.has_item(
            self._tx, self._host, rollout.thread_id, rollout.key, place.offset
        )


def transcript_of(tx: Transaction, host: str, thread_id: str) -> SharedTranscript:
    """Find what was sent of a thread's rollouts, and of those that it begins in.

    Errors: RolloutError where one of those is not there.
    """
    segments: list[tuple[SentRollout, int | None]] = [
        (rollout, None) for rollout in _rollouts_of(tx, host, thread_id)
    ]
    for _ in range(_MOST_FORKS):
        first = segments[0][0] if segments else None
        if first is None or first.base_thread_id is None:
            break
        found = _rollouts_of(tx, host, first.base_thread_id)
        if not found:
            reason = f"begins in thread {first.base_thread_id}, whose rollout is gone"
            raise RolloutError(reason, path=first.path)
        segments.insert(0, (found[0], first.base_end))
    return SharedTranscript(tx, host, segments)


def _rollouts_of(tx: Transaction, host: str, thread_id: str) -> list[SentRollout]:
    by_key = {rollout.key: rollout for rollout in shared.rollouts(tx, host, [thread_id])}
    files = [
        RolloutFile(each.path, each.compressed, each.size, each.mtime_ns, each.inode)
        for each in by_key.values()
    ]
    return [by_key[position_key(file.path)] for file in choose_files(thread_id, files)]


class Messages:
    """Messages of all hosts that may have what is looked for; see ``content.search.Candidates``."""

    def __init__(
        self, tx: Transaction, asked: Asked, allowed: Callable[[set[str]], set[str]]
    ) -> None:
        self._tx = tx
        self._asked = asked
        self._allowed = allowed
        self.is_all = True

    def __iter__(self) -> Iterator[tuple[int, Iterable[Match]]]:
        """Give batch after batch."""
        conditions, values = _conditions(self._tx, self._asked)
        for _ in range(0, _MOST, _AT_ONCE):
            found = shared.search(self._tx, conditions, values, _AT_ONCE)
            if found:
                yield found[0].time, self._matches(found)
            if len(found) < _AT_ONCE:
                return
            values |= {f"after_{number}": value for number, value in enumerate(found[-1].place)}
            conditions = [*conditions[: -1 if "after_0" in conditions[-1] else None], shared.AFTER]
        self.is_all = False

    def _matches(self, found: list[shared.FoundItem]) -> Iterator[Match]:
        allowed = self._allowed({each.thread_id for each in found})
        for each in found:
            if each.thread_id not in allowed:
                continue
            is_call = each.kind == ItemKind.TOOL_CALL
            match = matched(
                self._asked,
                each.thread_id,
                f"{each.key}:{each.byte_offset}",
                each.role,
                each.time,
                f"{each.name} {each.text}" if is_call else each.text,
                each.host,
            )
            if match is not None:
                yield match


def find_messages(
    engine: Readable, asked: Asked, most: int, selection: ThreadFilter, *, anywhere: bool
) -> tuple[list[Match], bool]:
    """Find messages of all hosts, in threads that a filter lets through."""

    def allowed(thread_ids: set[str]) -> set[str]:
        with engine.read() as tx:
            return threads.among(tx, thread_ids, selection, anywhere=anywhere)

    with engine.read() as tx:
        return find(asked, most, Messages(tx, asked, allowed))


def _conditions(tx: Transaction, asked: Asked) -> tuple[list[str], dict[str, Any]]:
    conditions = [tx.in_list("role", "roles"), "time <= :now"]
    values: dict[str, Any] = {"roles": tx.list_value(asked.roles), "now": asked.now}
    words = _tsquery(asked.query)
    if words:
        conditions.append("words @@ CAST(:words AS tsquery)")
        values["words"] = words
    for number, term in enumerate(term for term in asked.query.terms if term.trigrams):
        conditions.append(f"said LIKE :part_{number}")
        values[f"part_{number}"] = f"%{_escaped(term.literal)}%"
    for name, value, comparison in (
        ("since", asked.since, "time >= :since"),
        ("until", asked.until, "time < :until"),
        ("thread_id", asked.thread_id, "thread_id = :thread_id"),
    ):
        if value is not None:
            conditions.append(comparison)
            values[name] = value
    return conditions, values


def _tsquery(query: Query) -> str:
    words = dict.fromkeys(word for term in query.terms for word in _words_of(term))
    return " & ".join(words)


def _words_of(term: Term) -> Iterator[str]:
    """Write the words of a term, which are quoted for another index, for this one."""
    for quoted in term.words:
        is_beginning = quoted.endswith("*")
        word = quoted.removesuffix("*")[1:-1].replace('""', '"')
        is_long = len(word) >= LONGEST_WORD
        end = ":*" if is_beginning and not is_long else ""
        yield shared.quoted_word(word[:LONGEST_WORD]) + end


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
