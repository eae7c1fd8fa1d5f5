"""What one host writes, all others read, though its rollouts are on no other disk."""

import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from queue import Queue

import pytest

from rollbook import LogEntry, LogQuery, StateRuntime
from rollbook.errors import ThreadElsewhereError, UsageError
from rollbook.model.paging import format_cursor, parse_cursor
from rollbook.rollout.transcript import LONGEST_TEXT
from rollbook.testing import make_thread, message, session_meta, token_count, write_rollout
from tests.postgres.failover import until
from tests.postgres.fixtures import empty
from tests.postgres.pgbouncer import PgBouncer, program

ID = "01a207c8-2362-7ee0-a181-2c5d5a009976"
WAIT_S = 30


def log(text: str) -> LogEntry:
    return LogEntry(ts=int(time.time()), ts_nanos=0, level="INFO", target="test", message=text)


def all_of(state: StateRuntime, **options) -> list:
    found, anchor = [], None
    while True:
        page = state.list_threads(7, anchor, include_silent=True, **options)
        found += page.items
        if page.next_anchor is None:
            return found
        anchor = parse_cursor(format_cursor(page.next_anchor))


def test_a_reader_without_a_home_has_all_that_the_host_has(on, elsewhere):
    with on("alpha") as alpha:
        alpha.sync()
        threads = all_of(alpha) + all_of(alpha, archived_only=True)
        local = {
            each.id: (
                alpha.get_dynamic_tools(each.id),
                list(alpha.read_whole_thread(each.id)),
                alpha.lineage(each.id),
            )
            for each in threads
        }
        projects, used = alpha.projects(), alpha.usage()
        hits = alpha.search("the").hits
    assert len(threads) == 33
    assert {each.host for each in threads} == {"alpha"}
    with elsewhere() as reader:
        assert all_of(reader) + all_of(reader, archived_only=True) == threads
        for each in threads:
            assert reader.get_thread(each.id).host == "alpha"
            assert not reader.rollout_exists(each)
            tools, items, tree = local[each.id]
            assert reader.get_dynamic_tools(each.id) == tools
            assert [i.text for i in reader.read_whole_thread(each.id)] == [i.text for i in items]
            assert reader.read_thread(each.id, limit=3).items == items[-3:]
            assert reader.lineage(each.id) == tree
        assert reader.projects() == projects
        assert reader.usage().total == used.total
        assert [(h.position, h.snippet) for h in reader.search("the").hits] == [
            (h.position, h.snippet) for h in hits
        ]


def test_pages_of_a_transcript_are_those_of_the_rollout(on, elsewhere):
    with on("alpha") as alpha, elsewhere() as reader:
        alpha.sync()
        longest = max(all_of(alpha), key=lambda t: len(list(alpha.read_whole_thread(t.id)))).id
        for at in ("start", None):
            ours = alpha.read_thread(longest, limit=2, at=at)
            theirs = reader.read_thread(longest, limit=2, at=at)
            while True:
                assert theirs == ours
                step = "after" if at else "before"
                place = getattr(ours, step)
                if place is None:
                    break
                ours = alpha.read_thread(longest, limit=2, **{step: place})
                theirs = reader.read_thread(longest, limit=2, **{step: place})


def test_a_copied_home_is_on_both_hosts_and_counts_once(on, elsewhere):
    with on("alpha") as alpha, on("beta") as beta:
        alpha.sync()
        once = alpha.usage().total
        beta.sync()
        both = all_of(beta)
        assert len(both) == 2 * len({each.id for each in both})
        assert {(each.id, each.host) for each in both} == {
            (each.id, host) for each in both for host in ("alpha", "beta")
        }
        assert alpha.get_thread(both[0].id).host == "alpha"
        assert beta.get_thread(both[0].id).host == "beta"
        assert beta.usage().total == once
        shutil.rmtree(beta.codex_home / "sessions")
        (beta.codex_home / "sessions").mkdir()
        beta.sync()
    with elsewhere() as reader:
        assert {each.host for each in all_of(reader)} == {"alpha"}
        assert reader.get_thread(both[0].id).host == "alpha"


def test_what_is_only_in_the_rollout_is_said_to_be_on_its_host(on, elsewhere):
    with on("alpha") as alpha, elsewhere() as reader:
        text = "x" * (LONGEST_TEXT + 5)
        lines = [session_meta(ID), message("Look"), message(text, "assistant")]
        write_rollout(alpha.codex_home, ID, lines)
        alpha.sync()
        *_, last = reader.read_whole_thread(ID)
        assert (last.omitted, last.host, last.text) == (5, "alpha", text[:-5])
        for change in (reader.archive_thread, reader.unarchive_thread):
            with pytest.raises(ThreadElsewhereError, match="is on host alpha") as caught:
                change(ID)
            assert caught.value.host == "alpha"
        with pytest.raises(ThreadElsewhereError):
            reader.upsert_thread(reader.get_thread(ID))


def test_what_is_written_by_one_is_read_by_the_other_at_once(on):
    with on("alpha") as alpha, on("beta") as beta:
        thread = make_thread(alpha.codex_home, title="Something new")
        alpha.upsert_thread(thread)
        assert alpha.list_threads(1).items[0].title == "Something new"
        assert beta.get_thread(thread.id).host == "alpha"
        alpha.insert_logs([log("from alpha")])
        alpha.max_log_id()
        beta.insert_logs([log("from beta")])
        assert [(row.host, row.message) for row in beta.query_logs()] == [
            ("alpha", "from alpha"),
            ("beta", "from beta"),
        ]


def test_many_threads_may_search_and_read_trees_at_once(on):
    with on("alpha") as alpha:
        alpha.sync()
        thread_id = alpha.list_threads(1).items[0].id
        with ThreadPoolExecutor(12) as pool:
            trees = [pool.submit(alpha.lineage, thread_id) for _ in range(40)]
            searches = [pool.submit(alpha.search, "the") for _ in range(40)]
            assert {each.result(WAIT_S).id for each in trees} == {thread_id}
            assert all(each.result(WAIT_S).hits for each in searches)


def test_names_tags_and_pins_of_all_hosts_come_together(on, elsewhere):
    with on("alpha") as alpha, on("beta") as beta:
        alpha.sync()
        thread_id = alpha.list_threads(1).items[0].id
        alpha.tag_thread(thread_id, ["one"])
        alpha.list_threads(1)
        beta.tag_thread(thread_id, ["two"])
        beta.pin_thread(thread_id)
        beta.rename_thread(thread_id, "A name")
        beta.list_threads(1)
        shown = alpha.get_thread(thread_id)
        assert (shown.tags, shown.pinned, shown.name) == (("one", "two"), True, "A name")
        assert [t.id for t in alpha.list_threads(9, tags=["two"], pinned=True).items] == [thread_id]
        alpha.untag_thread(thread_id, ["two"])
        assert alpha.list_threads(9, tags=["two"]).items == []


def test_what_was_pinned_elsewhere_is_not_pruned(on):
    from datetime import timedelta

    with on("alpha") as alpha, on("beta") as beta:
        alpha.sync()
        kept = alpha.list_threads(1).items[0].id
        beta.pin_thread(kept)
        beta.list_threads(1)
        alpha.prune(timedelta(seconds=1))
        assert [t.id for t in all_of(alpha) if t.pinned] == [kept]


def test_a_host_has_the_name_of_its_machine_unless_that_is_taken(home_of, shared_database):
    names = []
    for each in ("one", "two", "one"):
        with StateRuntime.open(home_of(each), database=shared_database, backfill=False) as state:
            state.sync(metadata_only=True)
            names.append(state.host)
    assert names[0] == names[2]
    assert names[1] == f"{names[0]}:{home_of('two')}"


def test_a_moved_home_keeps_its_name_and_its_threads(home_of, tmp_path, shared_database):
    hosts, counts = [], []
    for home in (home_of("one"), tmp_path / "moved"):
        if not home.exists():
            home_of("one").rename(home)
        with StateRuntime.open(home, database=shared_database, backfill=False) as state:
            state.sync(metadata_only=True)
            hosts.append(state.host)
            counts.append(len(all_of(state)))
    assert hosts[0] == hosts[1]
    assert counts[0] == counts[1] > 0


def test_a_home_that_gets_another_name_has_all_under_that(home_of, on, shared_database, postgres):
    options = {"database": shared_database, "backfill": False}
    with StateRuntime.open(home_of("one"), **options) as state:
        state.sync()
        state.insert_logs([log("before")])
        before = len(all_of(state))
    with StateRuntime.open(home_of("one"), **options, host="better") as state:
        state.sync()
        state.insert_logs([log("after")])
        assert [each.host for each in all_of(state)] == ["better"] * before
        assert [row.message for row in state.query_logs()] == ["before", "after"]
    assert postgres.execute("SELECT host FROM hosts", "template") == [("better",)]


def test_to_read_is_not_to_share(home_of, on, shared_database, postgres):
    with on("alpha") as alpha:
        alpha.sync()
    with StateRuntime.open(home_of("mine"), database=shared_database, backfill=False) as state:
        own = state.get_thread(all_of(state)[0].id)
        state.search("the")
        state.query_logs(LogQuery(limit=1))
        stop = threading.Event()
        for _ in state.watch(stop=stop):
            stop.set()
        assert own.host == state.host
    assert postgres.execute("SELECT host FROM hosts", "template") == [("alpha",)]


def test_all_can_be_rebuilt_from_the_homes(on, postgres):
    with on("alpha") as alpha:
        alpha.sync()
        before, hits = all_of(alpha), alpha.search("the").hits
        empty(postgres)
        assert all_of(alpha) == []
    with on("alpha") as alpha:
        alpha.sync()
        assert (all_of(alpha), alpha.search("the").hits) == (before, hits)


def test_what_is_used_and_said_while_a_watch_goes_on_is_shared_too(on, elsewhere):
    with on("alpha") as alpha, elsewhere() as reader:
        path = write_rollout(alpha.codex_home, ID, [session_meta(ID), message("First words")])
        alpha.sync()
        before, stop = reader.usage().total.requests, threading.Event()
        watch = threading.Thread(target=lambda: list(alpha.watch(stop=stop)))
        watch.start()
        with path.open("ab") as file:
            file.write(message("Later words", "assistant") + b"\n" + token_count(9) + b"\n")
        until(lambda: reader.usage().total.requests == before + 1)
        until(lambda: reader.search('"later words"').hits)
        assert [item.text for item in reader.read_thread(ID).items] == [
            "First words",
            "Later words",
        ]
        stop.set()
        watch.join()


@pytest.mark.parametrize("is_pooled", [False, True])
def test_a_watch_is_told_of_what_other_hosts_change(on, postgres, is_pooled):
    if is_pooled and program() is None:
        pytest.skip("PgBouncer can't be had here")
    bouncer = PgBouncer.start(postgres) if is_pooled else None
    address = bouncer.url_of("template") if bouncer else postgres.url_of("template")
    try:
        with on("alpha", database=address) as alpha, on("beta") as beta:
            updates, stop = Queue(), threading.Event()

            def follow():
                for update in alpha.watch(stop=stop):
                    updates.put(update)

            watch = threading.Thread(target=follow)
            watch.start()
            assert updates.get(timeout=WAIT_S).is_full
            thread = make_thread(beta.codex_home)
            seen = None
            for _ in range(100):  # until it follows: what came before isn't told
                beta.upsert_thread(thread)
                thread = make_thread(beta.codex_home)
                beta.list_threads(1)
                while not updates.empty():
                    update = updates.get()
                    seen = update if update.hosts else seen
                if seen:
                    break
                threading.Event().wait(0.1)
            stop.set()
            watch.join(WAIT_S)
            assert seen is not None
            assert seen.hosts == ("beta",)
            assert bool(seen.changed) is not is_pooled
            assert alpha._shared.engine.is_pooled is is_pooled
    finally:
        if bouncer:
            bouncer.stop()


@pytest.mark.parametrize("address", ["postgresql://u:%zz@h/x", "postgresql://u:secret@h/x?bad=1"])
def test_an_address_that_can_not_be_read_is_not_repeated(home_of, address):
    with pytest.raises(UsageError, match="can't be read") as caught:
        StateRuntime.open(home_of("alpha"), database=address)
    assert "secret" not in str(caught.value)
