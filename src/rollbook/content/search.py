"""Find messages: the indexes say in which chunks to look, and the rollouts say what is there.

Candidates are looked at newest first, a batch at a time.  What is found there can't be better than its age allows, so one
can stop as soon as the worst that would be shown is better than that.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Protocol

import msgspec

from rollbook.content.places import records_at
from rollbook.content.query import Query
from rollbook.content.words import fold, places_unfolded
from rollbook.model.search import SearchSort
from rollbook.model.times import parse_time, to_epoch
from rollbook.rollout.layout import position_key
from rollbook.rollout.transcript import searchable
from rollbook.store import content_files, texts
from rollbook.store.engine import Transaction
from rollbook.store.files import Located

_AT_ONCE = 32  # chunks
_ENOUGH = 5  # batches, where a page was full before
_MOST = 20_000  # chunks, for one search
_HALF_WORTH_S = 180 * 86_400  # a message so old counts half of a new one
_WEIGHTS = {"user": 1.0, "assistant": 0.85, "tool": 0.6}
_LONG = 600  # characters, of which one match counts about half of what it does alone
_BEFORE, _SNIPPET = 60, 200  # characters of a snippet, before the first match and in all
_SPACES = re.compile(r"\s+")


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What is looked for, where, and in which order; times are epoch seconds.

    Nothing that is newer than ``now`` is found, so that pages fit each other.
    """

    query: Query
    roles: tuple[str, ...]
    sort: SearchSort
    now: int
    since: int | None = None
    until: int | None = None
    thread_id: str | None = None


class Match(msgspec.Struct, frozen=True):
    """A message in which all was found, and how good it is; ``host`` as in a thread."""

    thread_id: str
    position: str
    role: str
    time: int
    text: str
    score: float
    host: str = ""


class Candidates(Protocol):
    """Where something may be found; iterate over it for batches, the newest first.

    A batch says what time (epoch seconds) nothing in it is later than, and what matches in it.
    """

    is_all: bool  # that there are, after the iteration

    def __iter__(self) -> Iterator[tuple[int, Iterable[Match]]]:
        """Give batch after batch."""


def find(asked: Asked, most: int, candidates: Candidates) -> tuple[list[Match], bool]:
    """Find the first matches, at most so many; says whether all places were considered.

    A message that is in several rollouts, as forks have what they were forked from, is found once.
    """
    best: dict[tuple[str, str], Match] = {}
    for number, (last_time, matches) in enumerate(candidates):
        if len(best) >= most:
            worst = sorted(map(_rank_for(asked), best.values()), reverse=True)[most - 1]
            if worst >= _bound(asked, last_time):
                return _ordered(asked, best.values())[:most], True
            if number >= _ENOUGH:
                return _ordered(asked, best.values())[:most], False
        for match in matches:
            key = (match.role, match.text)
            other = best.get(key)
            if other is None or match.score > other.score:
                best[key] = match
    return _ordered(asked, best.values())[:most], candidates.is_all


def matched(
    asked: Asked, thread_id: str, position: str, role: str, time: int, text: str, host: str = ""
) -> Match | None:
    """Look whether a message has all that is looked for; None where it hasn't."""
    if not _is_in_time(asked, time) or role not in asked.roles:
        return None
    quality = _quality(asked.query, fold(text))
    if not quality:
        return None
    score = quality * _WEIGHTS[role] * _recency(asked, time)
    return Match(thread_id, position, role, time, text, score, host)


class Chunks:
    """Chunks of the content database that may have what is looked for.

    ``rollouts`` says of some threads, as far as they may be found, where their rollouts are now, by
    key.
    """

    def __init__(
        self,
        tx: Transaction,
        home: Path,
        asked: Asked,
        rollouts: Callable[[set[str]], Mapping[str, Located]],
    ) -> None:
        self._tx = tx
        self._home = home
        self._asked = asked
        self._rollouts = rollouts
        self._found = texts.candidates(
            tx,
            words=asked.query.words(),
            roles=asked.roles,
            trigrams=asked.query.trigrams(),
            since=asked.since,
            until=asked.until,
            thread_id=asked.thread_id,
        )
        self.is_all = len(self._found) <= _MOST

    def __iter__(self) -> Iterator[tuple[int, Iterable[Match]]]:
        """Give batch after batch; what matches is read when it is asked for."""
        for start in range(0, min(len(self._found), _MOST), _AT_ONCE):
            batch = self._found[start : start + _AT_ONCE]
            yield batch[0][2], self._matches(batch)

    def _matches(self, batch: Sequence[tuple[int, int, int]]) -> Iterator[Match]:
        tx = self._tx
        files = content_files.by_ids(tx, {file_id for _, file_id, _ in batch})
        rollouts = self._rollouts({file.thread_id for file in files.values()})
        chunks = texts.get(tx, [number for number, _, _ in batch])
        wanted = sorted(chunks.values(), key=lambda chunk: chunk.file_id)
        for file_id, of_file in groupby(wanted, key=lambda chunk: chunk.file_id):
            file = files.get(file_id)
            rollout = None if file is None else rollouts.get(file.key)
            if rollout is not None:
                places = [place for chunk in of_file for place in chunk.places]
                yield from self._in_rollout(rollout, places)

    def _in_rollout(self, rollout: Located, places: list[tuple[int, int]]) -> Iterator[Match]:
        key = position_key(rollout.path)
        records = records_at(self._home, rollout.path, places, compressed=rollout.compressed)
        for offset, record in records:
            parsed = parse_time(record.timestamp)
            time = 0 if parsed is None else to_epoch(parsed)
            said = searchable(record) if _is_in_time(self._asked, time) else None
            if said is None:
                continue
            place = f"{key}:{offset}"
            match = matched(self._asked, rollout.thread_id, place, said[0], time, said[1])
            if match is not None:
                yield match


def _rank_for(asked: Asked) -> Callable[[Match], float]:
    if asked.sort is SearchSort.NEWEST:
        return lambda match: match.time
    return lambda match: match.score


def _bound(asked: Asked, last_time: int) -> float:
    """Say what rank nothing in a chunk can be above."""
    return last_time if asked.sort is SearchSort.NEWEST else _recency(asked, last_time)


def _recency(asked: Asked, time: int) -> float:
    return _HALF_WORTH_S / (_HALF_WORTH_S + max(asked.now - time, 0))


def _ordered(asked: Asked, matches: Iterable[Match]) -> list[Match]:
    rank = _rank_for(asked)
    return sorted(
        matches, key=lambda match: (rank(match), match.time, match.position), reverse=True
    )


def _is_in_time(asked: Asked, time: int) -> bool:
    return (
        time <= asked.now
        and (asked.since is None or time >= asked.since)
        and (asked.until is None or time < asked.until)
    )


def _quality(query: Query, folded: str) -> float:
    """Say how much a text is about what is looked for: 0 where it doesn't match, below 1."""
    total = 0.0
    for term in query.terms:
        times = sum(1 for _ in term.occurrences(folded))
        if not times:
            return 0.0
        total += times / (times + 0.5 + len(folded) / _LONG)
    if any(True for term in query.excluded for _ in term.occurrences(folded)):
        return 0.0
    return total / len(query.terms)


def snippet(query: Query, text: str) -> tuple[str, tuple[tuple[int, int], ...]]:
    """Cut out the part around the first match, on one line, and say where the matches in it are."""
    spans = _spans(query, text)
    first = spans[0][0] if spans else 0
    start = 0 if first <= _BEFORE else text.rfind(" ", 0, first - _BEFORE // 2) + 1
    start = max(start, first - _BEFORE)
    start += len(text[start:first]) - len(text[start:first].lstrip())
    end = start + _SNIPPET
    line = "… " if text[:start].strip() else ""
    marks, at = [], start
    for begin, stop in spans:
        if begin < at or stop > end:
            continue
        line += _SPACES.sub(" ", text[at:begin])
        mark = len(line)
        line += _SPACES.sub(" ", text[begin:stop])
        marks.append((mark, len(line)))
        at = stop
    line += _SPACES.sub(" ", text[at:end]) + (" …" if end < len(text) else "")
    return line, tuple(marks)


def _spans(query: Query, text: str) -> list[tuple[int, int]]:
    """Find where in a text all the matches are, in order, none inside of another."""
    folded = fold(text)
    places = places_unfolded(text, folded)
    found = [
        (match.start(), match.end()) for term in query.terms for match in term.occurrences(folded)
    ]
    if places is not None:
        found = [(places[start], places[end - 1] + 1) for start, end in found]
    spans: list[tuple[int, int]] = []
    for start, end in sorted(found):
        if not spans or start >= spans[-1][1]:
            spans.append((start, end))
    return spans
