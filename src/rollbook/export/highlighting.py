"""Code with colours, as HTML whose style is in classes: a page's policy may forbid any other."""

from functools import cache
from typing import TYPE_CHECKING

from markupsafe import Markup, escape

if TYPE_CHECKING:
    from pygments.formatters import HtmlFormatter
    from pygments.lexer import Lexer

LONGEST_COLOURED = (
    32 << 10
)  # characters; lexers take long for longer ones, and may for hostile ones
_PREFIX = "hl-"
_STYLES = ("xcode", "github-dark")  # for light and for dark; both can be read easily


def highlighted(code: str, language: str) -> Markup:
    """Give code as HTML, coloured where its language is known and it isn't long."""
    lexer = _lexer(language) if language and len(code) <= LONGEST_COLOURED else None
    if lexer is None:
        return escape(code)
    from pygments import highlight

    html = highlight(code + "\n", lexer, _formatter()).removesuffix("\n")
    return Markup(html)  # noqa: S704 - the formatter escapes


def highlighting_css() -> str:
    """Give the styles of those classes, for light and for dark."""
    light, dark = (_rules(style) for style in _STYLES)
    return (
        f"{light}\n"
        f'@media (prefers-color-scheme: dark) {{ :root:not([data-theme="light"]) {{\n{dark}\n}} }}\n'
        f':root[data-theme="dark"] {{\n{dark}\n}}\n'
    )


def _rules(style: str) -> str:
    from pygments.formatters import HtmlFormatter

    rules = HtmlFormatter(style=style, classprefix=_PREFIX).get_style_defs("code").splitlines()
    # Those of diffs, "Generic" here, are ours.
    ours = f".{_PREFIX}g"
    return "\n".join(rule for rule in rules if f".{_PREFIX}" in rule and ours not in rule)


@cache
def _formatter() -> "HtmlFormatter[str]":
    from pygments.formatters import HtmlFormatter

    return HtmlFormatter(nowrap=True, classprefix=_PREFIX)


@cache
def _lexer(language: str) -> "Lexer | None":
    from pygments.lexers import get_lexer_by_name
    from pygments.util import ClassNotFound

    try:
        return get_lexer_by_name(language, stripnl=False, ensurenl=False)
    except ClassNotFound:
        return None
