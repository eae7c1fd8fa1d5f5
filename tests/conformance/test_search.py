"""Search, through both faces."""

import os
from datetime import UTC, datetime, timedelta

import pytest

from rollbook import SearchSort, TextScope
from rollbook.errors import InvalidCursorError, UsageError
from rollbook.testing import make_line, message, session_meta, user_message, write_rollout

ID, OTHER = "22222222-2222-4222-8222-222222222222", "33333333-3333-4333-8333-333333333333"
NOW = datetime.now(UTC).replace(microsecond=0)


def said(text, role="user", days_ago=1):
    return message(text, role, timestamp=at(days_ago))


def output(text, days_ago=1):
    payload = {"type": "function_call_output", "call_id": "c", "output": text}
    return make_line("response_item", payload, timestamp=at(days_ago))


def at(days_ago):
    return f"{NOW - timedelta(days=days_ago):%Y-%m-%dT%H:%M:%SZ}"


@pytest.fixture
def talk(home, runtime):
    """Two threads, one of them archived, in which something was said."""
    lines = [
        session_meta(ID, cwd="/work/alpha", source="cli"),
        user_message("Why is the database locked?"),
        said("Why is the database locked?", days_ago=3),
        said("<environment_context>locked away</environment_context>", days_ago=3),
        output("sqlite3.OperationalError: database is locked", days_ago=3),
        said(
            "Another writer keeps the **database** locked; retry with `state.get_thread(id)`.",
            "assistant",
            days_ago=2,
        ),
    ]
    write_rollout(home, ID, lines)
    lines = [session_meta(OTHER, cwd="/work/beta", source="exec"), user_message("数据库锁定")]
    lines += [said("数据库锁定了怎么办", days_ago=200), said("The database again", days_ago=100)]
    write_rollout(home, OTHER, lines)
    runtime.sync()
    return runtime


def found(state, text, **options):
    return [(hit.role, hit.snippet) for hit in state.search(text, **options).hits]


def test_words_phrases_beginnings_parts_and_what_must_not_be_there(talk):
    def threads(text):
        return {hit.thread.id for hit in talk.search(text).hits}

    assert threads("database") == {ID, OTHER}
    assert threads("DATABASE locked") == {ID}
    assert threads('"database locked"') == {ID}
    assert threads('"locked database"') == set()
    assert threads("databa") == set()
    assert threads("databa*") == {ID, OTHER}
    assert threads("database -locked") == {OTHER}
    assert threads("`e.get_thr`") == {ID}
    assert threads("数据") == {OTHER}
    assert threads("锁") == {OTHER}


def test_a_hit_has_its_snippet_its_marks_and_its_place(talk):
    [hit] = talk.search("retry locked").hits
    assert hit.thread == talk.get_thread(ID)
    assert hit.role == "assistant"
    assert hit.time == NOW - timedelta(days=2)
    assert [hit.snippet[start:end] for start, end in hit.marks] == ["locked", "retry"]
    [item] = talk.read_thread(ID, limit=1, at=hit.position).items
    assert item.text.startswith("Another writer")
    assert 0 < hit.score < 1


def test_the_snippet_of_a_long_message_shows_the_match(home, runtime):
    text = "x\n" * 5000 + "here is  the\nneedle indeed " + "y " * 5000
    write_rollout(home, ID, [session_meta(ID), said(text)])
    runtime.sync()
    [hit] = runtime.search("needle").hits
    assert "here is the needle indeed" in hit.snippet
    assert hit.snippet.startswith("… x x")
    assert hit.snippet.endswith("y …")
    assert len(hit.snippet) < 210


def test_marks_stand_where_the_text_is_though_it_was_folded(home, runtime):
    write_rollout(home, ID, [session_meta(ID), said("ﬃ ½ E\u0301TÉ İstanbul straße Ａb")])
    runtime.sync()
    for asked, shown in (("été", "E\u0301TÉ"), ("STRASSE", "straße"), ("ab", "Ａb"), ("ffi", "ﬃ")):
        [hit] = runtime.search(asked).hits
        assert [hit.snippet[start:end] for start, end in hit.marks] == [shown]


def test_newer_is_better_and_the_newest_can_be_first(home, runtime):
    old = said("locked locked locked", days_ago=360)
    write_rollout(
        home, ID, [session_meta(ID), old, said("locked in a long message " * 9, days_ago=2)]
    )
    write_rollout(home, OTHER, [session_meta(OTHER), said("locked", days_ago=300)])
    runtime.sync()
    page = runtime.search("locked", sort=SearchSort.NEWEST)
    assert [(NOW - hit.time).days for hit in page.hits] == [2, 300, 360]
    scores = [hit.score for hit in runtime.search("locked").hits]
    assert scores == sorted(scores, reverse=True)
    short_old = next(hit for hit in page.hits if hit.snippet == "locked")
    write_rollout(home, OTHER, [session_meta(OTHER), said("locked", days_ago=1)])
    runtime.sync()
    assert runtime.search("locked").hits[0].score > short_old.score


def test_filters(talk):
    talk.archive_thread(OTHER)

    def threads(**options):
        return {hit.thread.id for hit in talk.search("database", **options).hits}

    assert threads() == {ID, OTHER}
    assert threads(archived=False) == {ID}
    assert threads(archived=True) == {OTHER}
    assert threads(cwd="/work/alpha") == {ID}
    assert threads(allowed_sources=["exec"]) == {OTHER}
    assert threads(model_providers=["nobody"]) == set()
    assert threads(title_contains="locked?") == {ID}
    assert threads(thread_id=OTHER) == {OTHER}
    assert threads(since=NOW - timedelta(days=10)) == {ID}
    assert threads(until=NOW - timedelta(days=10)) == {OTHER}
    assert found(talk, "database", roles=["user"], thread_id=ID) == [
        ("user", "Why is the database locked?")
    ]


def test_tools_are_found_on_request(talk):
    with pytest.raises(UsageError, match="not indexed"):
        talk.search("OperationalError", roles=["tool"])
    talk.sync(text=TextScope.TOOLS)
    assert found(talk, "operationalerror") == []
    assert found(talk, "operationalerror", roles=["tool"]) == [
        ("tool", "sqlite3.OperationalError: database is locked")
    ]
    everybody = ["user", "assistant", "tool"]
    assert {role for role, _ in found(talk, "database locked", roles=everybody)} == {*everybody}


def test_without_text_nothing_is_searched(talk):
    talk.sync(text=TextScope.NOTHING)
    with pytest.raises(UsageError, match="--text"):
        talk.search("database")
    talk.sync()
    with pytest.raises(UsageError):
        talk.search("database")
    talk.sync(text=TextScope.MESSAGES)
    assert found(talk, "retry")


def test_a_message_that_a_fork_has_copied_is_found_once(home, runtime):
    write_rollout(home, ID, [session_meta(ID), said("Only once")])
    fork = [session_meta(OTHER, forked_from_id=ID), session_meta(ID), said("Only once")]
    write_rollout(home, OTHER, fork)
    runtime.sync()
    assert len(runtime.search("once").hits) == 1


def test_what_is_appended_changed_moved_and_deleted_is_followed(home, runtime):
    path = write_rollout(home, ID, [session_meta(ID), said("first")])
    runtime.sync()
    with path.open("ab") as rollout:
        rollout.write(said("second") + b"\n" + said("third")[:-9])
    runtime.sync()
    assert (len(found(runtime, "first")), len(found(runtime, "second"))) == (1, 1)
    with path.open("ab") as rollout:
        rollout.write(said("third")[-9:] + b"\n")
    runtime.sync()
    assert len(found(runtime, "third")) == 1
    runtime.archive_thread(ID)
    assert len(found(runtime, "first")) == 1
    runtime.sync()
    assert len(found(runtime, "first")) == 1
    archived = home / "archived_sessions" / path.name
    archived.write_bytes(session_meta(ID) + b"\n" + said("other") + b"\n")
    runtime.sync()
    assert (len(found(runtime, "first")), len(found(runtime, "other"))) == (0, 1)
    archived.unlink()
    runtime.sync()
    assert found(runtime, "other") == []


def test_a_compressed_rollout_is_searched(corpus_home, open_runtime):
    with open_runtime(corpus_home("0.169.0-compressed")) as state:
        state.sync()
        hits = state.search("answer").hits
        assert hits
        assert all(state.read_thread(h.thread.id, limit=1, at=h.position).items for h in hits)


def test_a_damaged_content_database_is_made_again(talk, home):
    with (home / "rollbook" / "content.sqlite").open("r+b") as file:
        file.seek(0)
        file.write(os.urandom(20_000))
    page = talk.search("database")
    assert page.is_indexed == (talk.database_system == "postgresql")  # which has it, too
    talk.sync()
    assert talk.search("database").is_indexed
    assert len(found(talk, "database")) == 3
    assert talk.is_synced()


@pytest.mark.parametrize("text", ["", " ", "-", "-word", '""', "``", "`a`", "*", "…"])
def test_what_has_nothing_to_look_for_is_refused(talk, text):
    with pytest.raises(UsageError):
        talk.search(text)


@pytest.mark.parametrize(
    "text", ['"open', "`get_thr", "a AND b OR c", "NEAR(a b)", "text:a", "a^2"]
)
def test_whatever_is_typed_is_looked_for(talk, text):
    talk.search(text)


def test_wrong_arguments(talk):
    with pytest.raises(UsageError):
        talk.search("a", limit=0)
    with pytest.raises(UsageError):
        talk.search("a", roles=["nobody"])
    with pytest.raises(UsageError):
        talk.search("a", roles=[])
    for cursor in ("x", "1@", "@1", "1@2@3", "-1@2"):
        with pytest.raises(InvalidCursorError):
            talk.search("a", cursor=cursor)
