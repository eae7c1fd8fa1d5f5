"""Text as it is looked for: without case, accents and the like, and cut into words.

Languages that put no spaces between words are cut into pairs of characters.
"""

import re
import unicodedata
from collections.abc import Iterator

# Han, kana, hangul and their forms; Thai, Lao, Burmese, Khmer.
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1100-\u11ff\u1780-\u17ff\u2e80-\u2fdf\u3005-\u3007"
    "\u3040-\u30ff\u3130-\u318f\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"
    "\uff66-\uff9f\U00020000-\U0003ffff"
)
_WORD = re.compile(rf"[{_UNSPACED}]+|[^\W_{_UNSPACED}]+")
_UNSPACED_ANYWHERE = re.compile(rf"[{_UNSPACED}]+")
_NO_WORD = re.compile(rf"[^\w{_UNSPACED}]+")
_BEYOND_ASCII = re.compile(r"[^\x00-\x7f]+")
LETTER = rf"[^\W_{_UNSPACED}]"  # of a word that others of its kind belong to
_is_unspaced = re.compile(rf"[{_UNSPACED}]").match
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


def spaced(folded: str) -> str:
    """Write a folded text so that an index that knows only ASCII finds its words.

    To that, all other characters are parts of words: those that aren't become spaces, and languages
    without spaces get them.
    """
    return folded if folded.isascii() else _BEYOND_ASCII.sub(_spaced, folded)


def _spaced(run: re.Match[str]) -> str:
    if run[0].isalnum() and not _UNSPACED_ANYWHERE.search(run[0]):
        return run[0]  # letters of a word that may go on in ASCII
    return _NO_WORD.sub(" ", _UNSPACED_ANYWHERE.sub(_paired, run[0]))


def _paired(run: re.Match[str]) -> str:
    return f" {' '.join(pairs(run[0]))} "


def pairs(run: str) -> Iterator[str]:
    """Cut a run of characters into pairs, and the last one alone."""
    return (run[at : at + 2] for at in range(len(run)))
