"""A thread as one HTML page that needs nothing else, an item at a time; and single items.

Everything in it is escaped, nothing in it is run or loaded: the page forbids it to itself, too.
"""

import base64
import hashlib
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from rollbook.export.blocks import (
    Block,
    blocks_of,
    is_folded,
    omission_of,
    speaker_of,
    summary_of,
)
from rollbook.export.facts import facts_of, heading_of, time_text
from rollbook.export.highlighting import highlighted, highlighting_css
from rollbook.export.markdown import LONGEST_MARKDOWN
from rollbook.export.rendering import rendered
from rollbook.model.thread import ThreadMetadata
from rollbook.model.transcript import ItemKind, TranscriptItem

_TEMPLATES = Path(__file__).with_name("templates")


def document(thread: ThreadMetadata, items: Iterable[TranscriptItem]) -> Iterator[str]:
    """Write the page of a thread, a piece at a time."""
    css = _page_css()
    digest = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
    yield from (
        _environment()
        .get_template("thread.html.jinja")
        .generate(
            heading=heading_of(thread),
            facts=list(facts_of(thread)),
            items=map(item_html, items),
            css=Markup(css),  # noqa: S704 - our own
            policy=f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'",
        )
    )


def item_html(
    item: TranscriptItem,
    *,
    longest: int | None = None,
    whole: str = "",
    is_open: bool = False,
    clock: Callable[[datetime | None], str] = time_text,
) -> Markup:
    """Give an item as an HTML fragment that is safe to put into a page.

    Of its texts, the first ``longest`` characters; a link leads to the ``whole``.  ``is_open``
    unfolds what is folded, and ``clock`` writes times.
    It is an ``article`` or ``details`` with the item's position as its id; it has neither scripts
    nor styles, loads nothing, and its links lead to the web only.  :func:`item_css` styles it.
    """
    blocks = [block for block in blocks_of(item) if block.text.strip()]
    shown = [Block(block.text[:longest], block.language) for block in blocks]
    html = (
        _environment()
        .get_template("item.html.jinja")
        .render(
            item=item,
            speaker=speaker_of(item),
            summary=summary_of(item) if is_folded(item) else "",
            is_folded=is_folded(item),
            time=clock(item.time),
            is_open=is_open,
            left=sum(len(block.text) for block in blocks) - sum(len(block.text) for block in shown),
            whole=whole,
            omission=omission_of(item),
            parts=[_part(item, block) for block in shown],
        )
    )
    return Markup(html)  # noqa: S704 - the template escapes


@cache
def item_css() -> str:
    """Give the styles of items: classes only, for light and for dark."""
    return (_TEMPLATES / "items.css").read_text("utf-8") + highlighting_css()


def colours_css() -> str:
    """Give the colours, as variables; the root's attribute ``data-theme`` is light or dark, or not there."""
    return (_TEMPLATES / "colours.css").read_text("utf-8")


@cache
def _page_css() -> str:
    return colours_css() + (_TEMPLATES / "page.css").read_text("utf-8") + item_css()


@cache
def _environment() -> Environment:
    return template_environment(_TEMPLATES)


def template_environment(folder: Path) -> Environment:
    """Read templates from a folder: whatever is put into one is escaped, and must be there."""
    return Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _part(item: TranscriptItem, block: Block) -> Markup:
    is_markdown = item.role == "assistant" or item.kind is ItemKind.REASONING
    if is_markdown and len(block.text) <= LONGEST_MARKDOWN:
        return Markup('<div class="text">{}</div>').format(rendered(block.text))
    if item.kind is ItemKind.MESSAGE:
        return Markup('<div class="text words">{}</div>').format(block.text)
    code = highlighted(block.text.rstrip("\n"), block.language)
    return Markup('<pre tabindex="0"><code>{}</code></pre>').format(code)
