"""What is looked for: words, phrases, beginnings of words, parts of words, and what must not be there.

``sqlite "database is locked" retr* -postgres`` asks for messages with all of the first three and
without the last; what stands between backticks is found anywhere, inside of words, too.
"""

import re
from collections.abc import Iterator
from itertools import pairwise

import msgspec

from rollbook.content.words import (
    LETTER,
    fold,
    is_unspaced,
    pairs,
    words_of,
)
from rollbook.errors import UsageError

_TERM = re.compile(
    r'(?P<no>-)?(?:"(?P<phrase>[^"]*)"?|`(?P<part>[^`]*)`?|(?P<word>[^\s"`]+))(?P<any>\*)?'
)
_MOST_TRIGRAMS = 48
_BETWEEN = r"[\W_]+"  # words that follow each other


class Term(msgspec.Struct, frozen=True):
    """One thing that is looked for.

    ``pattern`` finds it in folded text, of which it must have ``literal``, which is quicker to see.
    ``words`` is what the index of words is asked for, empty
    for nothing; ``trigrams`` what that of trigrams is.
    """

    pattern: re.Pattern[str]
    literal: str
    words: tuple[str, ...]
    trigrams: tuple[str, ...] = ()

    def occurrences(self, folded: str) -> Iterator[re.Match[str]]:
        """Find it in a folded text."""
        return self.pattern.finditer(folded) if self.literal in folded else iter(())


class Query(msgspec.Struct, frozen=True):
    """All terms that have to be in a message, and those that must not."""

    terms: tuple[Term, ...]
    excluded: tuple[Term, ...] = ()

    def words(self) -> str | None:
        """Write what the indexes of words are asked: None for nothing."""
        words = dict.fromkeys(word for term in self.terms for word in term.words)
        return " AND ".join(words) if words else None

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
    first, last = found[0][0], found[-1][0]
    # What must not precede is looked at last, as text without the word is passed over quickly then.
    pattern = [
        re.escape(first) + ("" if is_unspaced(first) else f"(?<!{LETTER}{re.escape(first)})")
    ]
    for (_, _, end), (word, start, _) in pairwise(found):
        pattern.append((_BETWEEN if start > end else "") + re.escape(word))
    if not is_unspaced(last):
        pattern.append(f"{LETTER}*" if is_beginning else f"(?!{LETTER})")
    words = [asked for word, _, _ in found[:-1] for asked in _asked(word)]
    words += _asked(last, is_beginning=is_beginning)
    literal = max((word for word, _, _ in found), key=len)
    return Term(re.compile("".join(pattern)), literal, tuple(words))


def _asked(word: str, *, is_beginning: bool = False) -> Iterator[str]:
    """Write what the index has of a word."""
    if not is_unspaced(word):
        yield _quoted(word) + ("*" if is_beginning else "")
    elif len(word) == 1:
        yield _quoted(word) + "*"
    else:
        yield from map(_quoted, list(pairs(word))[:-1])


def _part(text: str) -> Term:
    """Look for a text anywhere."""
    folded = fold(text)
    words = [
        asked
        for word, start, end in words_of(folded)
        if is_unspaced(word) or start > 0  # whole, but for the last, which may go on
        for asked in _asked(word, is_beginning=end == len(folded))
    ]
    starts = range(len(folded) - 2)
    trigrams = [folded[at : at + 3] for at in starts[:: 1 + len(starts) // _MOST_TRIGRAMS]]
    if not words and not trigrams:
        raise UsageError(
            f"{text[:100]!r} is too short to be looked for inside of words",
            hint="give at least three characters",
        )
    return Term(re.compile(re.escape(folded)), folded, tuple(words), tuple(trigrams))


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'
