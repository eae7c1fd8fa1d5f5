"""Markdown as HTML that is safe in a page.

HTML in it is text.  Links lead to the web or to a mailbox; others, and all images, which would be
loaded from anywhere, are shown and lead nowhere, or are links.
"""

import re
from collections.abc import Sequence
from functools import cache
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from markupsafe import Markup, escape

from rollbook.export.highlighting import highlighted

_WEB = re.compile(r"(?:https?://|mailto:)", re.IGNORECASE)
_ALIGNED = re.compile(r"text-align:(left|center|right)")


def rendered(text: str) -> Markup:
    """Render Markdown, of which nothing is run or loaded."""
    return Markup(_parser().render(text))  # noqa: S704 - it escapes HTML


@cache
def _parser() -> MarkdownIt:
    parser = _Parser("commonmark", {"html": False, "highlight": _highlight}, renderer_cls=_Renderer)
    return parser.enable(["table", "strikethrough"])


class _Parser(MarkdownIt):
    """Takes any link for one."""

    def validateLink(self, url: str) -> bool:  # noqa: N802 - its base's name and form
        """Leave it to the renderer where a link may lead."""
        del url
        return True


def _highlight(code: str, language: str, _attributes: str) -> str:
    return f'<pre tabindex="0"><code>{highlighted(code, language)}</code></pre>\n'


class _Renderer(RendererHTML):
    """Writes links, images and tables in our way."""

    def link_open(self, tokens: Sequence[Token], index: int, *_: Any) -> str:
        """Begin a link, or what looks like one and leads nowhere."""
        return _link_open(str(tokens[index].attrGet("href") or ""))

    def link_close(self, tokens: Sequence[Token], index: int, *_: Any) -> str:
        """End what was begun."""
        depth = 0
        for token in reversed(tokens[:index]):
            depth += token.nesting if token.type.startswith("link_") else 0
            if depth > 0:
                return _link_close(str(token.attrGet("href") or ""))
        raise AssertionError("a link ends that has not begun")

    def image(self, tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:
        """Write an image as a link to it."""
        token = tokens[index]
        source = str(token.attrGet("src") or "")
        text = self.renderInlineAsText(token.children, options, env) or source
        return f"{_link_open(source)}{escape(f'[Image: {text}]')}{_link_close(source)}"

    def code_block(self, tokens: Sequence[Token], index: int, *_: Any) -> str:
        """Write an indented block as one in fences."""
        return _highlight(tokens[index].content, "", "")

    def heading_open(self, tokens: Sequence[Token], index: int, *_: Any) -> str:
        """Begin a heading, below those of the page."""
        return f"<{_heading(tokens[index])}>"

    def heading_close(self, tokens: Sequence[Token], index: int, *_: Any) -> str:
        """End a heading."""
        return f"</{_heading(tokens[index])}>\n"

    def th_open(self, tokens: Sequence[Token], index: int, *_: Any) -> str:
        """Begin a cell of the head, aligned by a class."""
        return _cell_open("th", tokens[index])

    def td_open(self, tokens: Sequence[Token], index: int, *_: Any) -> str:
        """Begin a cell, aligned by a class."""
        return _cell_open("td", tokens[index])


def _heading(token: Token) -> str:
    return f"h{min(int(token.tag[1:]) + 2, 6)}"


def _link_open(address: str) -> str:
    if _WEB.match(address):
        return f'<a href="{escape(address)}" rel="noreferrer noopener nofollow">'
    return f'<span class="place" title="{escape(address)}">'


def _link_close(address: str) -> str:
    return "</a>" if _WEB.match(address) else "</span>"


def _cell_open(tag: str, token: Token) -> str:
    aligned = _ALIGNED.fullmatch(str(token.attrGet("style") or ""))
    return f'<{tag} class="{aligned[1]}">' if aligned else f"<{tag}>"
