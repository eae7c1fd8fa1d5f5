"""Whatever the indexes say, a search finds what a look at every message finds."""

import re
import tempfile
import unicodedata
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from rollbook import SearchSort, StateRuntime, TextScope
from rollbook.testing import message, session_meta, write_rollout

IDS = [f"{number}2222222-2222-4222-8222-222222222222" for number in range(3)]
START = datetime(2026, 1, 1, tzinfo=UTC)
WORDS = ["sqlite", "SQLite", "locked", "lock", "get_thread", "Thread", "naïve", "naive", "Łódź"]
WORDS += [
    "数据库",
    "数据",
    "库",
    "テスト",
    "ｗｉｄｅ",
    "café2go",
    "foo.bar",
    "(bar)",
    "“quoted”",
    "x",
]
WORDS += ["GPT5模型", "ñ", "n\u0303", "ß", "STRASSE", "e\u0301te\u0301", "it's", "-", '"', "`", "*"]
texts = st.lists(st.sampled_from(WORDS), min_size=1, max_size=6).map(" ".join) | st.lists(
    st.sampled_from(WORDS), min_size=1, max_size=3
).map("".join)
messages = st.tuples(st.sampled_from(IDS), st.sampled_from(["user", "assistant"]), texts)
other_terms = st.sampled_from([word for word in WORDS if any(map(str.isalnum, word))]).map(
    lambda word: ("word", word)
)


def can_be_asked(term):
    kind, asked = term
    if kind == "part":
        return "`" not in asked and len(plain(asked)) >= 3
    return any(map(str.isalnum, plain(asked).replace('"', "")))


def terms_of(text):
    """What may be looked for and found in a text, or just not."""
    places = st.tuples(st.integers(0, len(text)), st.integers(0, len(text))).map(sorted)
    pieces = places.map(lambda place: text[slice(*place)])
    kinds = st.sampled_from(["phrase", "part", "beginning"])
    words = st.tuples(st.just("word"), st.sampled_from(text.split() or ["x"]))
    return st.one_of(words, st.tuples(kinds, pieces)).filter(can_be_asked)


unspaced = re.compile("[\u3040-\u30ff\u4e00-\u9fff]")


def plain(text: str) -> str:
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    return unicodedata.normalize("NFKC", re.sub("[\u0300-\u036f]", "", decomposed))


def cut(text: str) -> list[tuple[str, bool]]:
    """Cut a text into words, and single characters of languages without spaces.

    Each says whether it follows the one before it without anything between.
    """
    pieces: list[tuple[str, bool]] = []
    follows = False
    for character in plain(text):
        if unspaced.match(character):
            pieces.append((character, follows))
            follows = True
        elif character.isalnum():
            if pieces and follows and not unspaced.match(pieces[-1][0]):
                pieces[-1] = (pieces[-1][0] + character, pieces[-1][1])
            else:
                pieces.append((character, follows))
            follows = True
        else:
            follows = False
    return pieces


def has(text: str, kind: str, asked: str) -> bool:
    if kind == "part":
        return plain(asked) in plain(text)
    wanted, pieces = cut(asked), cut(text)
    for start in range(len(pieces) - len(wanted) + 1):
        piece = pieces[start : start + len(wanted)]
        is_equal = [
            got[0] == want[0] and (number == 0 or got[1] == want[1])
            for number, (got, want) in enumerate(zip(piece, wanted, strict=True))
        ]
        if kind == "beginning" and not is_equal[-1]:
            last, want = piece[-1], wanted[-1]
            is_equal[-1] = last[0].startswith(want[0]) and (len(wanted) == 1 or last[1] == want[1])
        if all(is_equal):
            return True
    return False


def written(kind: str, asked: str) -> str:
    return {
        "word": f'"{asked.replace(chr(34), " ")}"',
        "beginning": f'"{asked.replace(chr(34), " ")}"*',
        "phrase": f'"{asked.replace(chr(34), " ")}"',
        "part": f"`{asked}`",
    }[kind]


def line(number: int, role: str, text: str) -> bytes:
    time = (START + timedelta(minutes=number)).strftime("%Y-%m-%dT%H:%M:%SZ")
    return message(text, role, timestamp=time)


@st.composite
def conversations(draw):
    """What is said first and later, what is looked for in it, and what must not be there."""
    said = draw(st.lists(messages, min_size=1, max_size=8))
    _, _, text = draw(st.sampled_from(said))
    wanted = draw(st.lists(terms_of(text), min_size=1, max_size=2))
    return said, draw(st.integers(0, len(said))), wanted, draw(st.lists(other_terms, max_size=1))


@pytest.mark.usefixtures("either_engine")
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@example(([(IDS[0], "user", "数据库")], 0, [("part", "数据库")], []))
@example(([(IDS[0], "user", "it's STRASSE")], 0, [("phrase", "it's ß")], []))
@given(conversations())
def test_a_search_finds_what_a_look_at_every_message_finds(conversation):
    said, first, wanted, unwanted = conversation
    query = " ".join([written(*term) for term in wanted] + ["-" + written(*t) for t in unwanted])
    with (
        tempfile.TemporaryDirectory() as directory,
        StateRuntime.open(directory, backfill=False) as state,
    ):
        paths = {i: write_rollout(Path(directory), i, [session_meta(i)]) for i in IDS}
        for number, (thread_id, role, text) in enumerate(said):
            if number == first:
                state.sync()
            with paths[thread_id].open("ab") as rollout:
                rollout.write(line(number, role, text) + b"\n")
        state.sync()
        expected = {
            (role, text)
            for _, role, text in said
            if all(has(text, *term) for term in wanted)
            and not any(has(text, *term) for term in unwanted)
        }
        page = state.search(query, limit=100, sort=SearchSort.NEWEST)
        assert {(hit.role, whole(state, hit)) for hit in page.hits} == expected
        assert page.is_complete
        times = [hit.time for hit in page.hits]
        assert times == sorted(times, reverse=True)
        for hit in page.hits:
            assert hit.marks, hit
            assert all(0 <= start < end <= len(hit.snippet) for start, end in hit.marks)


def whole(state, hit) -> str:
    item = state.read_thread(hit.thread.id, limit=1, at=hit.position).items[0]
    assert item.role == hit.role
    return item.text


@pytest.mark.usefixtures("either_engine")
@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.tuples(st.sampled_from(IDS), texts), max_size=30), st.integers(1, 5))
def test_pages_give_what_one_page_gives(said, size):
    with (
        tempfile.TemporaryDirectory() as directory,
        StateRuntime.open(directory, backfill=False) as state,
    ):
        for thread_id in IDS:
            lines = [line(n, "user", f"{t} all") for n, (i, t) in enumerate(said) if i == thread_id]
            write_rollout(Path(directory), thread_id, [session_meta(thread_id), *lines])
        state.sync(text=TextScope.MESSAGES)
        for sort in SearchSort:
            whole_page = state.search("all", limit=1000, sort=sort)
            hits, cursor = [], None
            while True:
                page = state.search("all", limit=size, sort=sort, cursor=cursor)
                hits += page.hits
                cursor = page.next_cursor
                if cursor is None:
                    break
            assert [hit.position for hit in hits] == [hit.position for hit in whole_page.hits]
            assert len(hits) == len({text for _, text in said})
