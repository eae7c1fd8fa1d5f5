"""Text as it is looked for: without case, accents and the like, and cut into words.

Languages that put no spaces between words are cut into pairs of characters.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator

LONGEST_WORD = 64  # of longer ones, so much is indexed
# Han, kana, hangul and their forms; Thai, Lao, Burmese, Khmer.
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1100-\u11ff\u1780-\u17ff\u2e80-\u2fdf\u3005-\u3007"
    "\u3040-\u30ff\u3130-\u318f\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"
    "\uff66-\uff9f\U00020000-\U0003ffff"
)
_WORD = re.compile(rf"[{_UNSPACED}]+|[^\W_{_UNSPACED}]+")
_RUN = re.compile(r"[^\W_]+")
_BEYOND_ASCII = re.compile(r"[^\x00-\x7f]+")
_is_unspaced = re.compile(rf"[{_UNSPACED}]").match
_TOOL_MARK = "\u2063"  # to the index, part of a word
_ACCENTS = range(0x300, 0x370)


class _Folds(dict[int, str]):
    """What becomes of a character; found out when it is first seen."""

    def __missing__(self, code: int) -> str:
        decomposed = unicodedata.normalize("NFKD", chr(code).casefold())
        plain = "".join(each for each in decomposed if ord(each) not in _ACCENTS)
        self[code] = unicodedata.normalize("NFKC", plain)
        return self[code]


_folds = _Folds()


def fold(text: str) -> str:
    """Take case, accents and forms of characters off a text."""
    lower = text.lower()
    if lower.isascii():
        return lower
    return _BEYOND_ASCII.sub(lambda match: match[0].translate(_folds), lower)


def places_unfolded(text: str, folded: str) -> list[int] | None:
    """Say which character of a text each of its fold comes from, and where both end.

    None where they are the same ones.
    """
    if len(folded) == len(text) and (text.isascii() or _is_even(text)):
        return None
    places = [at for at, each in enumerate(text) for _ in _folds[ord(each)]]
    return [*places, len(text)]


def _is_even(text: str) -> bool:
    return all(len(_folds[ord(each)]) == 1 for each in set(text))


def words_of(folded: str) -> Iterator[tuple[str, int, int]]:
    """Give the words of a folded text and where each begins and ends.

    One in a language without spaces is a whole run of characters.
    """
    for match in _WORD.finditer(folded):
        yield match[0], match.start(), match.end()


def is_unspaced(word: str) -> bool:
    """Say whether a word is of a language without spaces between them."""
    return bool(_is_unspaced(word))


def runs_of(folded: str) -> set[str]:
    """Give what stands between spaces and the like in a folded text, each once."""
    return set(_RUN.findall(folded))


def indexed(runs: Iterable[str], role: str) -> set[str]:
    """Give what runs of characters are found by, among what a role says."""
    found: set[str] = set()
    for run in runs:
        if run.isascii():
            found.add(run[:LONGEST_WORD])
            continue
        for word in _WORD.findall(run):
            if is_unspaced(word):
                found.update(pairs(word))
            else:
                found.add(word[:LONGEST_WORD])
    mark = mark_of(role)
    return {mark + word for word in found} if mark else found


def mark_of(role: str) -> str:
    """Say what words are marked with in the index: those of tools, as few look for them."""
    return _TOOL_MARK if role == "tool" else ""


def pairs(run: str) -> Iterator[str]:
    """Cut a run of characters into pairs, and the last one alone."""
    return (run[at : at + 2] for at in range(len(run)))
