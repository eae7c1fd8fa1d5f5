"""What is looked for: words, phrases, beginnings of words, parts of words, and what must not be there.

``sqlite "database is locked" retr* -postgres`` asks for messages with all of the first three and
without the last; what stands between backticks is found anywhere, inside of words, too.
"""

import re
from collections.abc import Iterator

import msgspec

from rollbook.content.words import (
    LONGEST_WORD,
    fold,
    is_unspaced,
    mark_of,
    pairs,
    runs_of,
    words_of,
)
from rollbook.errors import UsageError

_TERM = re.compile(
    r'(?P<no>-)?(?:"(?P<phrase>[^"]*)"?|`(?P<part>[^`]*)`?|(?P<word>[^\s"`]+))(?P<any>\*)?'
)
_MOST_TRIGRAMS = 48
_EDGE = r"[^\W_]"  # what a word goes on with


class Word(msgspec.Struct, frozen=True):
    """A word of the index, or the beginning of one."""

    text: str
    is_beginning: bool = False

    def asked(self, mark: str) -> str:
        """Write it as the index is asked for it, with the mark of whoever says it."""
        return _quoted(mark + self.text) + ("*" if self.is_beginning else "")


class Term(msgspec.Struct, frozen=True):
    """One thing that is looked for.

    ``pattern`` finds it in folded text.  ``words`` is what the index of words is asked for, empty
    for nothing; ``trigrams`` what that of trigrams is.
    """

    pattern: re.Pattern[str]
    words: tuple[Word, ...]
    trigrams: tuple[str, ...] = ()


class Query(msgspec.Struct, frozen=True):
    """All terms that have to be in a message, and those that must not."""

    terms: tuple[Term, ...]
    excluded: tuple[Term, ...] = ()

    def words(self, roles: tuple[str, ...]) -> str | None:
        """Write what the index of words is asked: None for nothing."""
        words = dict.fromkeys(word for term in self.terms for word in term.words)
        marks = dict.fromkeys(map(mark_of, roles))
        said = (" AND ".join(word.asked(mark) for word in words) for mark in marks)
        return f"({') OR ('.join(said)})" if words else None

    def trigrams(self) -> str | None:
        """Write what the index of trigrams is asked: None for nothing."""
        trigrams = dict.fromkeys(each for term in self.terms for each in term.trigrams)
        return " AND ".join(map(_quoted, trigrams)) if trigrams else None


def parse_query(text: str, *, substring: bool = False) -> Query:
    """Read what somebody looks for; with ``substring``, all of the text as it stands, anywhere.

    Errors: UsageError where nothing is asked for that could be found.
    """
    if substring:
        return Query((_part(text),))
    wanted: list[Term] = []
    excluded: list[Term] = []
    for match in _TERM.finditer(text):
        if match["part"] is not None:
            term: Term | None = _part(match["part"])
        else:
            word = match["phrase"] if match["phrase"] is not None else match["word"]
            is_beginning = bool(match["any"]) or word.endswith("*")
            term = _phrase(word.rstrip("*"), is_beginning=is_beginning)
        if term is not None:
            (excluded if match["no"] else wanted).append(term)
    if not wanted:
        raise UsageError(
            f"{text[:100]!r} has no word to look for",
            hint='give a word, a "phrase", a begin*, or `part of a word`; -word leaves out',
        )
    return Query(tuple(wanted), tuple(excluded))


def _phrase(text: str, *, is_beginning: bool) -> Term | None:
    """Look for words that follow each other; None where the text has none."""
    folded = fold(text)
    found = list(words_of(folded))
    if not found:
        return None
    pattern: list[str] = []
    end_before = 0
    for word, start, end in found:
        if pattern:
            pattern.append(r"[\W_]+" if start > end_before else "")
        pattern.append(re.escape(word))
        end_before = end
    first, last = found[0][0], found[-1][0]
    before = "" if is_unspaced(first) else f"(?<!{_EDGE})"
    behind = "" if is_unspaced(last) else f"{_EDGE}*" if is_beginning else f"(?!{_EDGE})"
    words = [asked for word, _, _ in found[:-1] for asked in _asked(word)]
    words += _asked(last, is_beginning=is_beginning)
    return Term(re.compile(before + "".join(pattern) + behind), tuple(words))


def _asked(word: str, *, is_beginning: bool = False) -> Iterator[Word]:
    """Say what the index has of a word."""
    if not is_unspaced(word):
        yield Word(word[:LONGEST_WORD], is_beginning)
    elif len(word) == 1:
        yield Word(word, is_beginning=True)
    else:
        yield from map(Word, list(pairs(word))[:-1])


def _part(text: str) -> Term:
    """Look for a text anywhere."""
    folded = fold(text)
    words = [
        asked
        for word, start, end in words_of(folded)
        if is_unspaced(word) or start > 0  # whole, but for the last, which may go on
        for asked in _asked(word, is_beginning=end == len(folded))
    ]
    trigrams = [run[at : at + 3] for run in runs_of(folded) for at in range(len(run) - 2)]
    step = 1 + len(trigrams) // _MOST_TRIGRAMS
    if not words and not trigrams:
        raise UsageError(
            f"{text[:100]!r} is too short to be looked for inside of words",
            hint="give at least three letters that follow each other",
        )
    return Term(re.compile(re.escape(folded)), tuple(words), tuple(sorted(trigrams)[::step]))


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'
