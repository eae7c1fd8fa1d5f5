"""HTML of untrusted text: nothing of it is run, loaded, or passes for a part of the page."""

import re
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rollbook import ItemKind
from rollbook.export.documents import DocumentFormat, thread_document
from rollbook.export.html import item_css, item_html
from tests.export.conftest import ID, an_item, message, tool_call, tool_output

VOID = {"br", "hr", "meta"}
TAGS = {
    *("article", "details", "summary", "header", "span", "time", "div", "pre", "code", "p", "a"),
    *("em", "strong", "s", "ul", "ol", "li", "blockquote", "h3", "h4", "h5", "h6", "hr", "br"),
    *("table", "thead", "tbody", "tr", "th", "td"),
}
ATTRIBUTES = {"class", "id", "datetime", "tabindex", "href", "rel", "title", "start"}
HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</code></pre><script>",
    "</style><script>",
    "[x](javascript:alert(1))",
    "[x](JaVaScRiPt:alert(1) 'a')",
    "[x](data:text/html,<script>)",
    "[x](vbscript:x)",
    "[x](&#106;avascript:alert(1))",
    "[x](\\x01javascript:alert(1))",
    "[x](//evil.example)",
    "![x](https://evil.example/pixel.png)",
    "![x](javascript:alert(1))",
    "[![x](https://evil.example/p)](javascript:x)",
    "<javascript:alert(1)>",
    '```"><script>\nx\n```',
    "~~~ <b>\n</code>\n~~~",
    "# <svg onload=x>",
    "|a|b|\n|:-|-:|\n|<b>|`<i>`|",
    "[x]: javascript:x\n[x]",
    "<!--",
    "&lt;script&gt;",
    '[a](https://x.example/"onmouseover="x)',
    "{{ 7 * 7 }}{% for %}",
    "    <script>",
    "\x1b]0;title\x07",
]


class Seen(HTMLParser):
    """What elements there are, and whether each that begins ends."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.links: list[str] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.links += [value for name, value in attrs if name in ("href", "src")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data

    def handle_comment(self, data):
        raise AssertionError("there is a comment")


def check(html: str) -> Seen:
    seen = Seen(str(html))
    assert seen.open == []
    assert seen.tags <= TAGS
    assert seen.attributes <= ATTRIBUTES
    assert all(re.match(r"(https?://|mailto:)", link, re.IGNORECASE) for link in seen.links)
    return seen


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("kind", ItemKind)
@pytest.mark.parametrize("role", ["user", "assistant", "tool"])
def test_hostile_text_stays_text(text, kind, role):
    check(item_html(an_item(text, role, kind=kind, name=text, call_id=text)))


pieces = st.lists(
    st.sampled_from(
        [*HOSTILE, "\n", "\n\n", "    ", "> ", "- ", "1. ", "`", "```", "|", "**", "a"]
    ),
    max_size=12,
).map("".join)


@settings(deadline=None, max_examples=120)
@given(pieces, st.sampled_from(list(ItemKind)), st.sampled_from(["user", "assistant", "tool"]))
def test_no_text_is_more_than_text(text, kind, role):
    check(item_html(an_item(text, role, kind=kind)))


def test_links_lead_to_the_web_and_tell_nothing():
    text = "[a](https://a.example/?q=1&r=2) <mailto:b@b.example> [c](/home/dev/main.py:3)"
    html = item_html(an_item(text))
    assert (
        '<a href="https://a.example/?q=1&amp;r=2" rel="noreferrer noopener nofollow">a</a>' in html
    )
    assert 'href="mailto:b@b.example"' in html
    assert '<span class="place" title="/home/dev/main.py:3">c</span>' in html


def test_images_are_links():
    html = item_html(an_item("![a *b*](https://a.example/p.png) ![](file:///x)"))
    assert "[Image: a b]</a>" in html
    assert '<span class="place" title="file:///x">[Image: file:///x]</span>' in html


def test_markdown_is_rendered_and_code_coloured_by_classes():
    html = item_html(
        an_item("# Head\n\n- **b** `c`\n\n```python\nimport os\n```\n\n|a|\n|-:|\n|1|")
    )
    seen = check(html)
    assert {"h3", "li", "strong", "code", "table"} <= seen.tags
    assert '<span class="hl-kn">import</span>' in html
    assert '<td class="right">1</td>' in html


def test_what_the_person_wrote_stays_as_it_is():
    seen = check(item_html(an_item("# no *Markdown*\n  <b>", "user")))
    assert "# no *Markdown*\n  <b>" in seen.text


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (ItemKind.TOOL_CALL, "*** Begin Patch\n*** Update File: a\n@@\n-old\n+new\n*** End Patch"),
        (ItemKind.TOOL_CALL, '{"command": ["apply_patch", "*** Begin Patch\\n-old\\n+new\\n"]}'),
        (ItemKind.TOOL_OUTPUT, "diff --git a/a b/a\n--- a/a\n+++ b/a\n@@ -1 +1 @@\n-old\n+new\n"),
        (ItemKind.TOOL_OUTPUT, '{"output": "@@ -1 +1 @@\\n-old\\n+new\\n", "metadata": {}}'),
    ],
)
def test_diffs_are_coloured(kind, text):
    html = item_html(an_item(text, "tool", kind=kind))
    assert '<span class="hl-gd">-old</span>' in html
    assert '<span class="hl-gi">+new</span>' in html


def test_a_call_shows_what_is_run_before_its_other_arguments():
    text = '{"workdir": "/tmp", "cmd": "ls | wc"}'
    seen = check(item_html(an_item(text, "tool", kind=ItemKind.TOOL_CALL, name="exec_command")))
    assert re.search(r"exec_command\s+ls \| wc", seen.text)
    assert '"workdir": "/tmp"' in seen.text


def test_what_is_missing_of_a_text_is_said():
    assert "1,234 more characters" in item_html(an_item("a", omitted=1234))


def test_styles_are_classes_and_know_the_dark():
    css = item_css()
    assert css.count("prefers-color-scheme: dark") == 1
    assert "hl-gi" in css
    assert "url(" not in css
    assert "@import" not in css


def test_a_page_needs_nothing_else_and_forbids_it(tell):
    state = tell(message("<script>"), tool_call("<b>"), tool_output("</pre>"), title="<u>T</u>")
    html = "".join(thread_document(state, ID, DocumentFormat.HTML))
    seen = Seen(html)
    assert seen.tags - TAGS == {
        *("html", "head", "meta", "title", "style", "body", "main", "h1", "dl", "dt", "dd"),
    }
    assert seen.links == []
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', html)[1]
    assert policy.startswith("default-src &#39;none&#39;; style-src &#39;sha256-")
    assert "<h1>&lt;u&gt;T&lt;/u&gt;</h1>" in html


def test_the_policy_allows_the_style_that_is_there(tell):
    import base64
    import hashlib

    html = "".join(thread_document(tell(), ID, DocumentFormat.HTML))
    style = re.search(r"<style>(.*)</style>", html, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"sha256-{digest}" in html
