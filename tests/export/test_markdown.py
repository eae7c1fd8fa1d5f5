"""Markdown of untrusted text: it stays where it is put."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from rollbook import ItemKind
from rollbook.export.documents import DocumentFormat, thread_document
from rollbook.export.markdown import document, safe_markdown
from rollbook.testing import make_thread
from tests.export.conftest import ID, an_item, message, tool_call, tool_output
from tests.export.test_html import HOSTILE

PARSER = MarkdownIt("commonmark", {"html": True}).enable("table")
MORE = [
    "```",
    "~~~~",
    "<details>",
    "## User",
    "> ## User",
    "- # Me",
    "Head\n===",
    "- ```\n  x",
    "`<b>` <i>",
    "\\`<b>`",
]
pieces = st.lists(
    st.sampled_from([*HOSTILE, *MORE, "\n", "\n\n", "\r", "    ", "> ", "- ", "`", "a", "\\"]),
    max_size=10,
).map("".join)


def structure(text: str) -> list[tuple[str, str]]:
    """The parts of a document that are ours: headings of the first two ranks, and what is folded.

    In a quotation or a list a heading is the message's for everybody to see.
    """
    found = []
    tokens = PARSER.parse(text)
    for number, token in enumerate(tokens):
        if token.type == "heading_open" and token.tag in ("h1", "h2") and token.level == 0:
            found.append((token.tag, tokens[number + 1].content.partition(" ")[0]))
        elif token.type == "html_block":
            found.append(("html", token.content.partition(">")[0]))
    return found


@pytest.mark.parametrize("text", [*HOSTILE, *MORE])
def test_no_message_is_more_than_a_message(text):
    check(text)


@settings(deadline=None, max_examples=180)
@given(pieces)
def test_no_pieces_are_more_than_a_message(text):
    check(text)


def check(text: str) -> None:
    items = [
        an_item(text),
        an_item(text, "user"),
        an_item(text, "tool", kind=ItemKind.TOOL_CALL, name=text),
        an_item(text, kind=ItemKind.REASONING),
        an_item("The end"),
    ]
    whole = "".join(document(make_thread(title=text, cwd=text), items))
    folded = [("html", "<details"), ("html", "</details")]
    expected = [("h2", "Agent"), ("h2", "User"), ("h2", "Agent")]
    found = [each for each in structure(whole) if each[0] != "h1"]
    assert [each for each in found if each[0] == "h2"] == expected
    assert [each for each in found if each[0] == "html"] in ([], folded, folded * 2)
    assert whole.endswith("\n\nThe end\n")
    assert not any(
        child.type == "html_inline"
        for token in PARSER.parse(whole)
        for child in token.children or ()
    )


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("a `<b>` c <d>", "a `<b>` c &lt;d>"),
        ("```html\n<b>\n```", "```html\n<b>\n```"),
        ("    <b>", "    <b>"),
        ("<details>\n## User", "&lt;details>\n#### User"),
        ("a < b <3 1<2", "a < b <3 1<2"),
        ("# One\n\nTwo\n---\nThree", "### One\n\n#### Two\n\nThree"),
        ("###### Six", "###### Six"),
        ("```\nopen", "```\nopen\n```"),
        ("```\nclosed\n```", "```\nclosed\n```"),
        ("*as* **it** is", "*as* **it** is"),
    ],
)
def test_markdown_stays_what_it_says(text, same):
    assert safe_markdown(text) == same


def test_a_thread_reads_well(tell):
    state = tell(
        message("I'll look:\n\n```sh\nls\n```"),
        tool_call('{"cmd": "ls"}'),
        tool_output("a\n```\nb"),
        message("Done."),
    )
    text = "".join(thread_document(state, ID, DocumentFormat.MARKDOWN))
    head, _, rest = text.partition("\n## User")
    assert head.startswith("# A title\n\n- **Thread:** 7777")
    assert rest == (
        " · 2026-01-27 12:34:57 UTC\n\n> A title\n"
        "\n## Agent · 2026-01-27 12:34:57 UTC\n\nI'll look:\n\n```sh\nls\n```\n"
        "\n<details><summary>shell · ls</summary>\n\n```bash\nls\n```\n\n</details>\n"
        "\n<details><summary>Output · a ``` b</summary>\n\n````\na\n```\nb\n````\n\n</details>\n"
        "\n## Agent · 2026-01-27 12:34:57 UTC\n\nDone.\n"
    )


def test_no_document_controls_a_terminal(tell):
    state = tell(message("a\x1b[31m\x07\x9b\u202eb\r"), title="t\x1b]0;x\x07")
    for form in DocumentFormat:
        text = "".join(thread_document(state, ID, form))
        assert not set(text) & set("\x1b\x07\x9b\u202e\r"), form
