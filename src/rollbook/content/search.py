"""Find messages: the indexes say in which chunks to look, and the rollouts say what is there.

Chunks are looked at newest first.  What is found there can't be better than its age allows, so one
can stop as soon as the worst that would be shown is better than that.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path

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
_ENOUGH = 160  # chunks, where a page was full before
_MOST = 20_000  # chunks, for one search
_HALF_WORTH_S = 180 * 86_400  # a message so old counts half of a new one
_WEIGHTS = {"user": 1.0, "assistant": 0.85, "tool": 0.6}
_LONG = 600  # characters, of which one match counts about half of what it does alone
_BEFORE, _SNIPPET = 60, 200  # characters of a snippet, before the first match and in all
_SPACES = re.compile(r"\s+")


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What is looked for, where, and in which order; times are epoch seconds.

    Nothing that is newer than ``now`` is found, so that pages fit each other.  ``rollouts`` says of
    some threads, as far as they may be found, where their rollouts are now, by key.
    """

    query: Query
    roles: tuple[str, ...]
    sort: SearchSort
    now: int
    since: int | None = None
    until: int | None = None
    thread_id: str | None = None
    rollouts: Callable[[set[str]], Mapping[str, Located]]


class Match(msgspec.Struct, frozen=True):
    """A message in which all was found, and how good it is."""

    thread_id: str
    position: str
    role: str
    time: int
    text: str
    score: float


def find(tx: Transaction, home: Path, asked: Asked, most: int) -> tuple[list[Match], bool]:
    """Find the first matches, at most so many; says whether all places were considered.

    A message that is in several rollouts, as forks have what they were forked from, is found once.
    """
    best: dict[tuple[str, str], Match] = {}
    candidates = _candidates(tx, asked)
    for start in range(0, min(len(candidates), _MOST), _AT_ONCE):
        batch = candidates[start : start + _AT_ONCE]
        if len(best) >= most:
            worst = sorted(map(_rank_for(asked), best.values()), reverse=True)[most - 1]
            if worst >= _bound(asked, batch[0][2]):
                return _ordered(asked, best.values())[:most], True
            if start >= _ENOUGH:
                return _ordered(asked, best.values())[:most], False
        for match in _matches(tx, home, asked, batch):
            key = (match.role, match.text)
            other = best.get(key)
            if other is None or match.score > other.score:
                best[key] = match
    return _ordered(asked, best.values())[:most], len(candidates) <= _MOST


def _candidates(tx: Transaction, asked: Asked) -> list[tuple[int, int, int]]:
    return texts.candidates(
        tx,
        words=asked.query.words(),
        roles=asked.roles,
        trigrams=asked.query.trigrams(),
        since=asked.since,
        until=asked.until,
        thread_id=asked.thread_id,
    )


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


def _matches(
    tx: Transaction, home: Path, asked: Asked, batch: Sequence[tuple[int, int, int]]
) -> Iterator[Match]:
    files = content_files.by_ids(tx, {file_id for _, file_id, _ in batch})
    rollouts = asked.rollouts({file.thread_id for file in files.values()})
    chunks = texts.get(tx, [number for number, _, _ in batch])
    wanted = sorted(chunks.values(), key=lambda chunk: chunk.file_id)
    for file_id, of_file in groupby(wanted, key=lambda chunk: chunk.file_id):
        file = files.get(file_id)
        rollout = None if file is None else rollouts.get(file.key)
        if rollout is not None:
            places = [place for chunk in of_file for place in chunk.places]
            yield from _in_rollout(home, asked, rollout, places)


def _in_rollout(
    home: Path, asked: Asked, rollout: Located, places: list[tuple[int, int]]
) -> Iterator[Match]:
    key = position_key(rollout.path)
    for offset, record in records_at(home, rollout.path, places, compressed=rollout.compressed):
        parsed = parse_time(record.timestamp)
        time = 0 if parsed is None else to_epoch(parsed)
        if not _is_in_time(asked, time):
            continue
        said = searchable(record)
        if said is None or said[0] not in asked.roles:
            continue
        role, text = said
        quality = _quality(asked.query, fold(text))
        if quality:
            score = quality * _WEIGHTS[role] * _recency(asked, time)
            yield Match(rollout.thread_id, f"{key}:{offset}", role, time, text, score)


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
