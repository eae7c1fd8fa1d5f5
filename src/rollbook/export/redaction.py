"""Secrets and home directories out of a thread, before it is shown to others.

A thread repeats what it has said once in a telling line, so what was found anywhere in a thread is
taken out everywhere in it.
"""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from rollbook.export.detection import PRIVATE_KEY, find_secrets, require_detectors
from rollbook.model.thread import ThreadMetadata
from rollbook.model.transcript import TranscriptItem

HOME = "home directory"
_LONGEST_LINE = 4_096  # looked at as a whole: what looks for secrets isn't made for longer ones
_OVERLAP = 256
_DISTINCT = 8  # characters: a shorter secret, or a word, is also said where it is none
# The detector finds the first line of a key only.
_KEY_BLOCK = re.compile(
    r"-----BEGIN (?P<kind>[A-Z ]*PRIVATE KEY(?: BLOCK)?)-----.*?(?:-----END (?P=kind)-----|\Z)",
    re.DOTALL,
)
_HOMES = r"(?:(?:/var|/mnt/[a-z])?(?:/home|/Users)|[A-Za-z]:(?:\\{1,2}|/)Users)(?:/|\\{1,2})[^\s/\\:;,'\"`<>()\[\]{}|]+"
_NAMES = frozenset(  # that say which thread, record or commit something is
    {"id", "forked_from_id", "parent_thread_id", "git_sha", "position", "call_id", "turn"}
    | {"kind", "role", "host"}
)
_Value = TypeVar("_Value", ThreadMetadata, TranscriptItem)


class Redactor:
    """Takes secrets and home directories out of one thread.

    Show it everything first, by :meth:`learn`; :meth:`clean` then gives it without.  ``counts`` is
    how many of which kind were replaced.

    Errors: UsageError where detect-secrets is not installed.
    """

    def __init__(self) -> None:
        require_detectors()
        self._replacements: dict[str, tuple[str, str]] = {}  # by what is replaced: kind, by what
        self._longest_first: list[tuple[str, tuple[str, str]]] | None = None
        own = Path.home()
        own_pattern = "" if own == own.parent else rf"|{re.escape(str(own))}(?![\w.-])"
        # Not where something else is called so: the end of an element, in </root>.
        self._home = re.compile(rf"(?<![\w.~-])(?!(?<=<)/\w+>)(?:{_HOMES}{own_pattern})")
        self.counts: Counter[str] = Counter()

    def learn(self, value: ThreadMetadata | TranscriptItem) -> None:
        """Look for secrets in a thread's metadata, or in one of its items."""
        for text in _texts(value).values():
            self._learn(text)

    def clean(self, value: _Value) -> _Value:
        """Give the same without secrets and home directories."""
        changes = {name: self._clean(text) for name, text in _texts(value).items()}
        return msgspec.structs.replace(value, **changes)

    def _learn(self, text: str) -> None:
        for each in (text, *_strings_in(text)):
            for line in _lines(each):
                self._learn_line(line)

    def _learn_line(self, line: str) -> None:
        for kind, secret in find_secrets(line):
            mask = f"[redacted: {kind}]"
            is_distinct = len(secret) >= _DISTINCT and not secret.isalpha()
            found, without = (secret, mask) if is_distinct else (line, line.replace(secret, mask))
            if found not in self._replacements:
                self._replacements[found] = kind, without
                self._longest_first = None

    def _clean(self, text: str) -> str:
        decoded = _decoded(text)
        if decoded is not None:
            cleaned = self._clean_value(decoded)
            if cleaned != decoded:
                text = msgspec.json.encode(cleaned).decode()
        return self._clean_text(text)

    def _clean_value(self, value: Any) -> Any:
        if isinstance(value, str):
            return self._clean_text(value)
        if isinstance(value, dict):
            return {self._clean_text(key): self._clean_value(each) for key, each in value.items()}
        return [self._clean_value(each) for each in value] if isinstance(value, list) else value

    def _clean_text(self, text: str) -> str:
        text = self._replaced(_KEY_BLOCK, f"[redacted: {PRIVATE_KEY}]", PRIVATE_KEY, text)
        if self._longest_first is None:
            self._longest_first = sorted(
                self._replacements.items(), key=lambda each: len(each[0]), reverse=True
            )
        for found, (kind, without) in self._longest_first:
            if found in text:
                self.counts[kind] += text.count(found)
                text = text.replace(found, without)
        return self._replaced(self._home, "~", HOME, text)

    def _replaced(self, pattern: re.Pattern[str], by: str, kind: str, text: str) -> str:
        text, count = pattern.subn(by, text)
        if count:
            self.counts[kind] += count
        return text


def _lines(text: str) -> Iterator[str]:
    for line in text.splitlines():
        step = _LONGEST_LINE - _OVERLAP
        for start in range(0, max(len(line) - _OVERLAP, 1), step):
            yield line[start : start + _LONGEST_LINE]


def _texts(value: ThreadMetadata | TranscriptItem) -> dict[str, str]:
    return {
        name: text
        for name, text in msgspec.structs.asdict(value).items()
        if isinstance(text, str) and text and name not in _NAMES
    }


def _decoded(text: str) -> Any:
    """Read a text that is a JSON object or list; None for any other."""
    if text[:1] not in ("{", "["):
        return None
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return None


def _strings_in(text: str) -> Iterator[str]:
    """Give the texts of more than one line, or with quotes, in a text that is JSON."""
    values = [_decoded(text)]
    while values:
        value = values.pop()
        if isinstance(value, str):
            if msgspec.json.encode(value) != b'"%b"' % value.encode():
                yield value
        elif isinstance(value, dict):
            values += [*value, *value.values()]
        elif isinstance(value, list):
            values += value
