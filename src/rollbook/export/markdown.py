"""A thread as Markdown, an item at a time.

Texts come from anywhere: none may pass for a part of the document that it is not.  What tools were
given and said stands in fences that are longer than any in it.  Of messages, which are Markdown
themselves, HTML is escaped, headings are put below those of the document, and fences are closed.
"""

import re
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING

from markupsafe import escape

from rollbook.export.blocks import (
    Block,
    blocks_of,
    is_folded,
    omission_of,
    speaker_of,
    summary_of,
)
from rollbook.export.facts import facts_of, heading_of, time_text
from rollbook.model.thread import ThreadMetadata
from rollbook.model.transcript import TranscriptItem

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.token import Token

LONGEST_MARKDOWN = 32 << 10  # characters: parsing hostile ones takes the square of their length
_DEEPEST_HEADING = 6
_BELOW = 2  # the headings of the document
_TAG = re.compile(r"<(?=[A-Za-z/!?])")
_CODE_OR_TAG = re.compile(r"(?P<code>(?<![`\\])(`+)(?!`).+?(?<!`)\2(?!`))|<(?=[A-Za-z/!?])")
_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|!&])")
_TICKS = re.compile(r"`{3,}")


def document(thread: ThreadMetadata, items: Iterable[TranscriptItem]) -> Iterator[str]:
    """Write a thread: its title and facts, and each item below a heading, or folded."""
    yield f"# {_plain(heading_of(thread))}\n\n"
    for label, value in facts_of(thread):
        yield f"- **{label}:** {_plain(value)}\n"
    for item in items:
        yield "\n" + (_folded(item) if is_folded(item) else _message(item))


def _message(item: TranscriptItem) -> str:
    if len(item.text) <= LONGEST_MARKDOWN:
        text = safe_markdown(item.text)
    else:
        text = _fenced(Block(item.text))
    if item.role == "user":
        text = "\n".join(f"> {line}".rstrip() for line in text.split("\n"))
    return f"## {_plain(speaker_of(item))}{_when(item)}\n\n{text}{_ending(item)}\n"


def _folded(item: TranscriptItem) -> str:
    summary = escape(" · ".join(filter(None, (speaker_of(item), summary_of(item, 100)))))
    blocks = "\n\n".join(_fenced(block) for block in blocks_of(item) if block.text.strip())
    if not blocks:
        return f"*{_plain(speaker_of(item))}*{_when(item)}\n"
    return f"<details><summary>{summary}</summary>\n\n{blocks}{_ending(item)}\n\n</details>\n"


def safe_markdown(text: str) -> str:
    """Make a message, which is Markdown, something that stays where it is put."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").lstrip("\n").rstrip()
    tokens = _parser().parse(text)
    lines = text.split("\n")
    safe = "\n".join(_without_tags(lines, _code_lines(tokens, len(lines))))
    if safe != text:
        tokens = _parser().parse(safe)
    if _has_html(tokens):  # what was taken for code is none
        safe = _TAG.sub("&lt;", safe)
        tokens = _parser().parse(safe)
    lines = safe.split("\n")
    _put_below(tokens, lines)  # only now, as a heading may have been in what was HTML
    lowered = "\n".join(lines)
    return _closed(lowered, tokens if lowered == safe else _parser().parse(lowered))


@cache
def _parser() -> "MarkdownIt":
    from markdown_it import MarkdownIt

    return MarkdownIt("commonmark", {"html": True}).enable("table")


def _code_lines(tokens: "list[Token]", count: int) -> list[bool]:
    is_code = [False] * count
    for token in tokens:
        if token.type in ("fence", "code_block") and token.map:
            for line in range(token.map[0], min(token.map[1], count)):
                is_code[line] = True
    return is_code


def _put_below(tokens: "list[Token]", lines: list[str]) -> None:
    """Write the headings of a message as ones that are below those of the document."""
    for token, inline in pairwise(tokens):
        if token.type == "heading_open" and token.level == 0 and token.map:
            marks = "#" * min(int(token.tag[1:]) + _BELOW, _DEEPEST_HEADING)
            start, end = token.map
            lines[start] = f"{marks} {' '.join(inline.content.split())}"
            lines[start + 1 : end] = [""] * (end - start - 1)


def _without_tags(lines: list[str], is_code: list[bool]) -> Iterator[str]:
    """Escape what would be HTML, outside of code: a part without code blocks at a time."""
    part: list[str] = []
    for line, code in zip(lines, is_code, strict=True):
        if not code:
            part.append(line)
            continue
        if part:
            yield _CODE_OR_TAG.sub(_escaped_tag, "\n".join(part))
            part = []
        yield line
    if part:
        yield _CODE_OR_TAG.sub(_escaped_tag, "\n".join(part))


def _escaped_tag(match: re.Match[str]) -> str:
    return match["code"] or "&lt;"


def _has_html(tokens: "list[Token]") -> bool:
    for token in tokens:
        children = token.children or ()
        if token.type == "html_block" or any(each.type == "html_inline" for each in children):
            return True
    return False


def _closed(text: str, tokens: "list[Token]") -> str:
    """Close the fence that a text ends in."""
    last = tokens[-1] if tokens else None
    if last is None or last.type != "fence" or last.map is None:
        return text
    ending = text.rstrip("\n").rpartition("\n")[2].strip()
    is_closed = len(ending) >= len(last.markup) and set(ending) == {last.markup[0]}
    has_more = last.map[1] - last.map[0] > 1
    return text if is_closed and has_more else f"{text}\n{last.markup}"


def _fenced(block: Block) -> str:
    ticks = max((len(run) for run in _TICKS.findall(block.text)), default=2)
    fence = "`" * max(ticks + 1, 3)
    return f"{fence}{block.language}\n{block.text.rstrip()}\n{fence}"


def _plain(text: str) -> str:
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))


def _ending(item: TranscriptItem) -> str:
    omission = omission_of(item)
    return f"\n\n*{omission}*" if omission else ""


def _when(item: TranscriptItem) -> str:
    return f" · {time_text(item.time)}" if item.time else ""
