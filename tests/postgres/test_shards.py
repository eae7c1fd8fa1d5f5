"""What is shared can be spread over many databases: a thread is whole in one, and so is a log."""

import shutil
import time
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rollbook import LogEntry, LogQuery, SortKey, StateRuntime
from rollbook.content.query import parse_query
from rollbook.content.search import Asked
from rollbook.errors import DatabaseUnavailableError
from rollbook.fleet.reading import find_messages, transcript_of
from rollbook.model.paging import ThreadFilter
from rollbook.model.search import SearchSort
from rollbook.model.thread import ThreadMetadata
from rollbook.store import shared_logs, usage
from rollbook.store.engine import SHARED
from rollbook.testing import message, session_meta, token_count, user_message, write_rollout
from tests.conftest import CORPUS
from tests.postgres.fixtures import SHARED_TABLES, TEMPLATE, empty
from tests.postgres.server import Server
from tests.postgres.shards import SHARDS, Router, Shard, make_databases, number_of

PLACED_BY = {
    "threads": "id",
    "thread_texts": "thread_id",
    "thread_dynamic_tools": "thread_id",
    "rollout_files": "thread_id",
    "transcript_items": "thread_id",
    "usage": "thread_id",
    "annotation_lines": "thread_id",
    "annotations": "thread_id",
    "thread_tags": "thread_id",
    "logs": "host",
    "log_positions": "host",
}
EVERYWHERE = {"hosts", "thread_groups"}  # small, and each database has its own
GIVEN_THERE = "ARRAY['group_id'] || CASE WHEN {table} = 'logs' THEN ARRAY['id'] ELSE '{{}}' END"
START = datetime(2026, 1, 1, tzinfo=UTC)
WORDS = ("apple", "pear", "plum")


@dataclass
class Spread:
    """The same in one database, as hosts send it, and in many."""

    server: Server
    one: Shard
    names: list[str]
    router: Router
    reader: StateRuntime  # of the one


@pytest.fixture(scope="module")
def spread(postgres, tmp_path_factory):
    empty(postgres)
    names = ["one", *(f"shard_{number}" for number in range(SHARDS))]
    addresses = make_databases(postgres, names, TEMPLATE)
    one, router = Shard.open(addresses[0], SHARED), Router(addresses[1:])
    homes = tmp_path_factory.mktemp("homes")
    for host in ("alpha", "beta"):
        shutil.copytree(CORPUS / "0.169.0" / "home", homes / host)
    write_home(homes / "gamma")
    for host in ("alpha", "beta", "gamma"):
        with StateRuntime.open(
            homes / host, database=addresses[0], host=host, backfill=False
        ) as state:
            state.sync()
            annotate(state)
            state.insert_logs([log(f"{number} of {host}") for number in range(5)])
            state.sync()
            router.deliver(state)
    (homes / "reader").mkdir()
    reader = StateRuntime.open(homes / "reader", database=addresses[0], host="", backfill=False)
    yield Spread(postgres, one, names[1:], router, reader)
    reader.close()
    router.close()
    one.close()
    for name in names:
        postgres.drop_database(name)


def write_home(home: Path) -> None:
    """Write threads of a few times only, and messages that several of them have."""
    for number in range(120):
        started = START + timedelta(hours=number % 5)
        meta = {"cwd": f"/work/{number % 3}", "source": ("cli", "exec")[number // 2 % 2]}
        lines = [
            session_meta(generated_id(number), timestamp=f"{started:%Y-%m-%dT%H:%M:%S}Z", **meta),
            *([user_message(f"Thread {number}")] if number % 7 else []),
            *(
                message(f"{word} {number % size} " + "and more " * (number % 4), timestamp=at)
                for word, size in zip(WORDS, (2, 30, 500), strict=True)
                for at in [f"{started + timedelta(minutes=number % 3):%Y-%m-%dT%H:%M:%S}Z"]
            ),
            token_count(number),
        ]
        write_rollout(home, generated_id(number), lines, archived=number % 10 == 0, mtime=started)


def generated_id(number: int) -> str:
    return f"{number:08x}-0000-4000-8000-000000000000"


def annotate(state: StateRuntime) -> None:
    """Say something of the same threads on each host that has them."""
    for number, thread in enumerate(state.list_threads(8, include_silent=True).items):
        state.tag_thread(thread.id, ["all", state.host, f"t{number % 2}"])
        if number % 3 == 0:
            state.pin_thread(thread.id)


def log(text: str) -> LogEntry:
    return LogEntry(ts=int(time.time()), ts_nanos=0, level="INFO", target="test", message=text)


def rows_of(server: Server, database: str, table: str) -> list[tuple[str, str]]:
    """Read by what each row is placed, and the row, but for the numbers that a database gives."""
    given_there = GIVEN_THERE.format(table=f"'{table}'")
    sql = f"SELECT {PLACED_BY[table]}, CAST(to_jsonb(t) - ({given_there}) AS text) FROM {table} t"
    return server.execute(sql, database)


def check_rows(spread: Spread) -> None:
    """Each row that one database has is in one of the many, where it belongs."""
    for table in PLACED_BY:
        found = []
        for number, name in enumerate(spread.names):
            rows = rows_of(spread.server, name, table)
            assert {number_of(subject) for subject, _ in rows} <= {number}, table
            found += rows
        expected = rows_of(spread.server, "one", table)
        assert expected, table
        assert Counter(found) == Counter(expected), table


def every_thread(spread: Spread) -> list[ThreadMetadata]:
    found = []
    for archived in (False, True):
        found += spread.reader.list_threads(1000, archived_only=archived, include_silent=True).items
    return found


def test_the_keys_of_large_tables_lead_with_what_they_are_placed_by(postgres):
    leading = """SELECT c.relname, a.attname, i.indisprimary OR c.relname = 'usage'
            AND to_regclass('usage_of_thread') = i.indexrelid
        FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid
        JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = i.indkey[0]
        WHERE c.relnamespace = to_regnamespace('public')"""
    keys = {
        table: column for table, column, is_key in postgres.execute(leading, TEMPLATE) if is_key
    }
    assert {table: keys[table] for table in PLACED_BY} == PLACED_BY


def test_nothing_else_is_unique_or_refers_to_another_table(postgres):
    """Which nobody could see to who has only a part of the rows."""
    unique = """SELECT c.relname, array_agg(CAST(a.attname AS text))
        FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid
        JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = ANY(i.indkey)
        WHERE i.indisunique AND c.relnamespace = to_regnamespace('public')
        GROUP BY i.indexrelid, c.relname"""
    for table, columns in postgres.execute(unique, TEMPLATE):
        assert PLACED_BY.get(table, columns[0]) in columns
    references = "SELECT conrelid FROM pg_constraint WHERE contype = 'f'"
    assert postgres.execute(references, TEMPLATE) == []
    assert PLACED_BY.keys() | EVERYWHERE == {*SHARED_TABLES}


def test_each_row_is_where_its_thread_or_its_host_is(spread):
    check_rows(spread)


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.integers(1, 60),
    st.sampled_from(SortKey),
    st.booleans(),
    st.sampled_from(
        [
            {},
            {"sources": ("exec",)},
            {"cwds": ("/work/1",)},
            {"title_contains": "thread 1"},
            {"tags": ("all", "t0")},
            {"pinned": True},
            {"pinned": False},
        ]
    ),
    st.sampled_from([None, "/work/2"]),
)
def test_a_walk_gives_what_one_database_gives(spread, size, sort_key, archived, chosen, project):
    def of_one():
        names = {"sources": "allowed_sources", "cwds": "cwd"}
        options = {names.get(name, name): value for name, value in chosen.items()}
        if "cwd" in options:
            (options["cwd"],) = options["cwd"]
        return spread.reader.list_threads(
            1000,
            None,
            sort_key,
            archived_only=archived,
            include_silent=True,
            project=project,
            **options,
        ).items

    selection = ThreadFilter(archived=archived, include_silent=True, **chosen)
    expected, found, anchor = of_one(), [], None
    while True:
        items, anchor = spread.router.page(size, anchor, sort_key, selection, project)
        found += items
        if anchor is None:
            break
        assert len(items) == size
    assert found == expected


def test_a_page_takes_two_statements_of_each(spread):
    page, counts = spread.router.counted(spread.router.page, 9, None, SortKey.UPDATED_AT)
    expected = spread.reader.list_threads(9, None, SortKey.UPDATED_AT)
    assert page == (expected.items, expected.next_anchor)
    assert counts == dict.fromkeys(range(SHARDS), 2)  # the threads, and what was said of them


def test_a_thread_is_looked_up_on_its_shard_alone(spread):
    for thread in every_thread(spread):
        found, counts = spread.router.counted(spread.router.copies, thread.id)
        assert counts.keys() == {number_of(thread.id)}
        assert spread.reader.get_thread(thread.id) in found
        assert thread.host in {each.host for each in found}
    assert spread.router.copies(generated_id(5_000)) == []


@pytest.mark.parametrize("sort", SearchSort)
@pytest.mark.parametrize(
    "text", ["apple", "pear", "plum 7*", "the", "apple -more", "`ppl`", "nowhere"]
)
def test_a_search_finds_what_one_database_finds(spread, text, sort):
    now = int((START + timedelta(days=1000)).timestamp())
    asked = Asked(query=parse_query(text), roles=("user", "assistant"), sort=sort, now=now)
    for selection in (ThreadFilter(sources=("exec",)), ThreadFilter(include_silent=True)):
        for most in (1, 10, 500):
            expected = find_messages(spread.one, asked, most, selection, anywhere=True)
            assert spread.router.find(asked, most, selection) == expected
    assert bool(expected[0]) is (text != "nowhere")


def test_a_transcript_is_read_where_its_thread_is_and_those_that_it_begins_in(spread):
    def read(thread: ThreadMetadata) -> list:
        return list(spread.router.transcript(thread.host, thread.id).all())

    forks = 0
    for thread in every_thread(spread):
        if thread.host == "delta":  # some rollouts of which another test has removed
            continue
        items, counts = spread.router.counted(read, thread)
        with spread.one.read() as tx:
            single = transcript_of(tx, thread.host, thread.id)
            assert items == list(single.all())
        bases = {rollout.thread_id for rollout, _ in single._segments} - {thread.id}
        assert counts.keys() == {number_of(each) for each in {thread.id, *bases}}
        forks += bool(bases)
    assert forks


def test_what_was_used_adds_up(spread):
    def used(shard: Shard) -> Counter:
        with shard.read() as tx:
            found = usage.between(tx, 0, 1 << 40, by_thread=False)
        return Counter({(each.bucket, each.model): each.tokens.total for each in found})

    assert sum(spread.router.all(used), Counter()) == +used(spread.one)


def test_the_log_of_a_host_is_on_one_shard_in_its_order(spread):
    for host in ("alpha", "beta", "gamma"):
        with spread.router.shard_of(host).read() as tx:
            rows = shared_logs.select(tx, LogQuery())
        said = [row.message for row in rows if row.host == host]
        assert said == [f"{number} of {host}" for number in range(5)]


def test_what_one_shard_has_missed_is_sent_to_that_one_later(spread, on):
    address = spread.server.url_of("one")
    with on("delta", database=address) as state:
        state.sync()
        state.insert_logs([log("of delta")])
        away = number_of(state.list_threads(1).items[0].id)
        with spread.router.without(spread.server, away):
            with pytest.raises(DatabaseUnavailableError):
                spread.router.deliver(state)
        having = [
            name for name in spread.names if "delta" in {h for (h,) in hosts_of(spread, name)}
        ]
        assert having == [name for n, name in enumerate(spread.names) if n != away]
        state.sync()
        spread.router.deliver(state)
        check_rows(spread)
        for path in sorted((state.codex_home / "sessions").rglob("*.jsonl"))[::2]:
            path.unlink()
        state.sync()
        spread.router.deliver(state)
        check_rows(spread)
        before = [shard_versions(shard) for shard in spread.router.shards]
        spread.router.deliver(state)
        assert [shard_versions(shard) for shard in spread.router.shards] == before


def hosts_of(spread: Spread, database: str) -> list[tuple[str]]:
    return spread.server.execute("SELECT host FROM hosts", database)


def shard_versions(shard: Shard) -> list:
    with shard.read() as tx:
        return sorted(tx.query("SELECT host, version FROM hosts"))
