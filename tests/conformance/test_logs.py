"""Log rows: appending, asking for, deleting (behaviour.md 121, 123, 125, 126, 128 to 130)."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import apsw
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rollbook import LogEntry, LogLimits, LogQuery, LogRow, StateRuntime
from rollbook.errors import DatabaseError, UsageError
from rollbook.store.sqlite_file import kept_files

KEEP_ALL = LogLimits(retention_days=10**14)  # so that any time can be tested
ASCII_LOWER = {code: code + 32 for code in range(ord("A"), ord("Z") + 1)}
LEVELS = ["ERROR", "error", "Warn", "WARN", "WARNING", "warning", "info", "INFO", "NOTICE", ""]
THREADS = ["t", "T", "t%", "é", "\0", "\ud800", "\N{REPLACEMENT CHARACTER}", "a-long-id " * 9]

times = st.integers(0, 6) | st.integers(-(2**62), 2**62)
int64 = st.integers(-(2**63), 2**63 - 2)  # a later deletion takes all of them
parts = st.text("aAzZ%_\\'\"é", max_size=2) | st.sampled_from(
    ["\0", "\ud800", "É", "ẞ", "*", "?", "["]
)
texts = st.lists(parts, max_size=4).map("".join) | st.text(st.characters(), max_size=8)
entries = st.builds(
    LogEntry,
    ts=times,
    ts_nanos=st.integers(0, 999_999_999),
    level=st.sampled_from(LEVELS),
    target=texts,
    message=st.none() | texts,
    thread_id=st.none() | st.sampled_from(["", *THREADS]),
    module_path=st.none() | texts,
    file=st.none() | texts,
    line=st.none() | int64,
)
wanted = st.lists(texts, max_size=3) | st.just([])
queries = st.builds(
    LogQuery,
    level=st.none() | st.sampled_from(LEVELS),
    from_ts=st.none() | times,
    to_ts=st.none() | times,
    module_like=wanted,
    file_like=wanted,
    thread_ids=st.just([]) | st.lists(st.sampled_from(["", *THREADS]), max_size=3),
    include_threadless=st.booleans(),
    search=st.none() | texts,
    after_id=st.none() | st.integers(-2, 10),
    up_to_id=st.none() | st.integers(-2, 10),
    limit=st.none() | st.integers(0, 4),
    descending=st.booleans(),
)


def clean(text: str | None) -> str | None:
    return text and re.sub("[\0\ud800-\udfff]", "\N{REPLACEMENT CHARACTER}", text)


def as_row(row_id: int, entry: LogEntry) -> LogRow:
    return LogRow(
        id=row_id,
        ts=entry.ts,
        ts_nanos=entry.ts_nanos,
        level=clean(entry.level),
        target=clean(entry.target),
        message=clean(entry.message),
        thread_id=clean(entry.thread_id) or None,
        file=clean(entry.file),
        line=entry.line,
    )


def holds(text: str | None, part: str) -> bool:
    folded = (clean(text) or "").translate(ASCII_LOWER)
    return text is not None and clean(part).translate(ASCII_LOWER) in folded


def same_level(one: str, other: str) -> bool:
    first, second = (
        "WARN" if level.upper() == "WARNING" else level.upper() for level in (one, other)
    )
    return first == second


def is_asked_for(query: LogQuery, row_id: int, entry: LogEntry) -> bool:
    ids = [clean(thread_id) for thread_id in query.thread_ids if thread_id]
    modules = [text for text in query.module_like if text]
    files = [text for text in query.file_like if text]
    thread_id = clean(entry.thread_id) or None
    return all(
        (
            not query.level or same_level(query.level, entry.level),
            query.from_ts is None or entry.ts >= query.from_ts,
            query.to_ts is None or entry.ts <= query.to_ts,
            query.after_id is None or row_id > query.after_id,
            query.up_to_id is None or row_id <= query.up_to_id,
            not modules or any(holds(entry.module_path, text) for text in modules),
            not files or any(holds(entry.file, text) for text in files),
            not query.search or holds(entry.message, query.search),
            (not ids and not query.include_threadless)
            or thread_id in ids
            or (query.include_threadless and thread_id is None),
        )
    )


def shifted(query: LogQuery, first_id: int) -> LogQuery:
    """Have the ids of a query count from the first row."""
    ids = {
        name: value if value is None else value + first_id
        for name, value in (("after_id", query.after_id), ("up_to_id", query.up_to_id))
    }
    return msgspec.structs.replace(query, **ids)


def make_entry(message: str | None = "Hello", **fields: Any) -> LogEntry:
    defaults = {"ts": 1, "ts_nanos": 0, "level": "INFO", "target": "agent"}
    return LogEntry(message=message, **(defaults | fields))


def messages(rows: list[LogRow]) -> list[str | None]:
    return [row.message for row in rows]


def log_database(home: Path) -> Path:
    return home / "rollbook" / "logs.sqlite"


@pytest.fixture
def runtime(open_runtime: Callable[..., Any], home: Path) -> Iterator[Any]:
    with open_runtime(home, log_limits=KEEP_ALL) as opened:
        yield opened


@pytest.fixture(scope="module")
def shared_runtime(
    open_runtime: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Any]:
    with open_runtime(tmp_path_factory.mktemp("home"), log_limits=KEEP_ALL) as opened:
        yield opened


@settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(entries, min_size=1, max_size=8), st.lists(queries, min_size=1, max_size=8))
def test_a_query_finds_exactly_the_rows_that_a_plain_filter_finds(shared_runtime, batch, asked):
    shared_runtime.delete_logs_before(2**63 - 1)
    shared_runtime.insert_logs(batch)
    first_id = shared_runtime.query_logs()[0].id
    numbered = list(enumerate(batch, first_id))
    assert shared_runtime.query_logs() == [as_row(*each) for each in numbered]
    for relative in asked:
        query = shifted(relative, first_id)
        expected = [as_row(*each) for each in numbered if is_asked_for(query, *each)]
        assert shared_runtime.max_log_id(query) == max((row.id for row in expected), default=0)
        if query.descending:
            expected.reverse()
        assert shared_runtime.query_logs(query) == expected[: query.limit]


@settings(deadline=None, max_examples=30)
@given(st.lists(entries, max_size=8), times)
def test_deleting_takes_the_rows_before_a_time_and_says_how_many(shared_runtime, batch, ts):
    shared_runtime.delete_logs_before(2**63 - 1)
    shared_runtime.insert_logs(batch)
    before = shared_runtime.query_logs()
    assert shared_runtime.delete_logs_before(ts) == sum(row.ts < ts for row in before)
    assert shared_runtime.query_logs() == [row for row in before if row.ts >= ts]


@settings(deadline=None, max_examples=30)
@given(int64, int64, int64)
def test_whole_numbers_come_back_as_they_were_stored(shared_runtime, ts_nanos, line, ts):
    shared_runtime.delete_logs_before(2**63 - 1)
    entry = make_entry(ts=max(ts, -(2**62)), ts_nanos=ts_nanos, line=line)
    shared_runtime.insert_log(entry)
    row = shared_runtime.query_logs(LogQuery(descending=True, limit=1))[0]
    assert (row.ts, row.ts_nanos, row.line) == (entry.ts, ts_nanos, line)


def test_an_empty_database_has_no_rows_and_no_largest_id(runtime):
    assert runtime.query_logs() == []
    assert runtime.max_log_id() == 0
    assert runtime.delete_logs_before(2**62) == 0


def test_nothing_is_created_before_logs_are_used(runtime, home):
    runtime.insert_logs([])
    assert not log_database(home).exists()
    runtime.insert_log(make_entry())
    assert log_database(home).exists()


def test_rows_have_rising_ids_in_the_order_they_were_given(runtime):
    runtime.insert_logs([make_entry("b"), make_entry("a")])
    runtime.insert_log(make_entry("c"))
    rows = runtime.query_logs()
    assert messages(rows) == ["b", "a", "c"]
    assert [row.id for row in rows] == sorted({row.id for row in rows})


def test_an_id_is_never_given_twice(runtime):
    runtime.insert_logs([make_entry(), make_entry()])
    last = runtime.max_log_id()
    assert runtime.delete_logs_before(2**62) == 2
    runtime.insert_log(make_entry("later"))
    assert messages(runtime.query_logs(LogQuery(after_id=last))) == ["later"]


def test_a_batch_that_can_not_be_stored_whole_is_not_stored_at_all(runtime):
    runtime.insert_log(make_entry("before"))
    with pytest.raises((OverflowError, UsageError, DatabaseError)):
        runtime.insert_logs([make_entry("first"), make_entry(line=2**70), make_entry("last")])
    assert messages(runtime.query_logs()) == ["before"]
    runtime.insert_log(make_entry("after"))
    assert messages(runtime.query_logs()) == ["before", "after"]


def test_a_batch_of_any_size_fits(runtime):
    runtime.insert_logs([make_entry(str(number)) for number in range(40_000)])
    last = runtime.query_logs(LogQuery(descending=True, limit=2))
    assert messages(last) == ["39999", "39998"]
    assert len(runtime.query_logs(LogQuery(search="9999"))) == 4


def test_deleting_many_rows_deletes_all_of_them(runtime):
    runtime.insert_logs([make_entry(ts=number) for number in range(1234)])
    assert runtime.delete_logs_before(1000) == 1000
    assert [row.ts for row in runtime.query_logs()] == list(range(1000, 1234))


LITERALLY = {
    "%": ["100%"],
    "_": ["a_b"],
    "\\": ["c\\d"],
    "0%": ["100%"],
    "a_": ["a_b"],
    "A_B": ["a_b"],
    "*": [],
    "[a]": [],
    "' OR 1=1 --": [],
    "é": ["É é"],
    "É É": [],
}


@pytest.mark.parametrize("column", ["message", "module_path", "file"])
def test_texts_are_taken_literally_and_only_ascii_case_is_ignored(runtime, column):
    stored = ["100%", "a_b", "aXb", "c\\d", "É é", "plain"]
    runtime.insert_logs([make_entry(**{"message": text, column: text}) for text in stored])
    for asked, found in LITERALLY.items():
        options = {"message": {"search": asked}, "module_path": {"module_like": [asked]}}
        query = LogQuery(**options.get(column, {"file_like": [asked]}))
        assert messages(runtime.query_logs(query)) == found, asked


def test_rows_without_a_text_never_match_a_text(runtime):
    runtime.insert_log(make_entry(None))
    for query in (LogQuery(search="e"), LogQuery(module_like=["e"]), LogQuery(file_like=["e"])):
        assert runtime.query_logs(query) == []


def test_empty_texts_restrict_nothing(runtime):
    runtime.insert_log(make_entry(None))
    query = LogQuery(level="", module_like=[""], file_like=[""], thread_ids=[""], search="")
    assert len(runtime.query_logs(query)) == 1


def test_an_empty_thread_id_is_none(runtime):
    runtime.insert_logs([make_entry(thread_id=""), make_entry(thread_id="t")])
    assert [row.thread_id for row in runtime.query_logs()] == [None, "t"]
    assert len(runtime.query_logs(LogQuery(include_threadless=True))) == 1


@pytest.mark.parametrize("level", ["über", "straße", "x\0", "\ud800"])
def test_a_level_of_any_name_is_found_by_that_name(runtime, level):
    runtime.insert_logs([make_entry(level=level), make_entry(level="INFO")])
    assert len(runtime.query_logs(LogQuery(level=level))) == 1
    assert runtime.max_log_id(LogQuery(level=level)) == runtime.max_log_id() - 1


def test_a_look_alike_of_a_level_is_another_level(runtime):
    runtime.insert_logs([make_entry(level="INFO"), make_entry(level="WARN")])
    assert runtime.query_logs(LogQuery(level="ınfo")) == []


def test_a_negative_limit_is_refused(runtime):
    for ask in (runtime.query_logs, runtime.max_log_id):
        with pytest.raises(UsageError, match="-1"):
            ask(LogQuery(limit=-1))


@pytest.mark.parametrize(
    ("bounds", "found"),
    [
        ({"limit": 2**64}, 1),
        ({"from_ts": 2**64}, 0),
        ({"to_ts": 2**64}, 1),
        ({"from_ts": -(2**64)}, 1),
        ({"to_ts": -(2**64)}, 0),
        ({"after_id": 2**64}, 0),
        ({"after_id": -(2**64)}, 1),
        ({"up_to_id": 2**64}, 1),
        ({"up_to_id": -(2**64)}, 0),
    ],
)
def test_numbers_beyond_what_a_database_counts_restrict_as_any_number(runtime, bounds, found):
    runtime.insert_log(make_entry())
    assert len(runtime.query_logs(LogQuery(**bounds))) == found


@pytest.mark.parametrize(
    ("name", "count"), [("module_like", 1100), ("file_like", 1100), ("thread_ids", 40_000)]
)
def test_any_number_of_texts_may_be_asked_for(runtime, name, count):
    entry = make_entry(module_path="last", file="last", thread_id="last")
    runtime.insert_logs([entry, make_entry(module_path="x", file="x", thread_id="x")])
    wanted = [f"other {number}" for number in range(count - 1)] + ["last"]
    assert len(runtime.query_logs(LogQuery(**{name: wanted}))) == 1


def test_another_runtime_of_the_home_reads_and_appends_beside_the_first(
    runtime, engine_options, home
):
    runtime.insert_log(make_entry("mine"))
    assert messages(runtime.query_logs()) == ["mine"]
    options = {"backfill": False, "log_limits": KEEP_ALL, **engine_options}
    with StateRuntime.open(home, **options) as other:
        assert messages(other.query_logs()) == ["mine"]
        other.insert_log(make_entry("other"))
        assert messages(runtime.query_logs()) == ["mine", "other"]
        assert other.max_log_id() == runtime.max_log_id()


def test_rows_outlive_the_runtime_that_wrote_them(open_runtime, home):
    with open_runtime(home, log_limits=KEEP_ALL) as first:
        first.insert_log(make_entry("kept"))
    with open_runtime(home, log_limits=KEEP_ALL) as second:
        assert messages(second.query_logs()) == ["kept"]


def test_the_logs_stand_beside_a_database_of_any_name(open_runtime, home, tmp_path):
    database = tmp_path / "elsewhere" / "mine.db"
    with open_runtime(home, database=database) as opened:
        opened.insert_log(make_entry())
    assert (tmp_path / "elsewhere" / "mine.logs.sqlite").is_file()
    assert not log_database(home).exists()


def test_a_closed_state_takes_no_logs_and_says_so(home):
    state = StateRuntime.open(home, backfill=False)
    state.insert_log(make_entry())
    state.close()
    for use in (lambda: state.insert_log(make_entry()), state.query_logs, state.max_log_id):
        with pytest.raises(DatabaseError, match="closed"):
            use()


def test_what_is_no_log_database_is_kept_aside_and_logging_goes_on(runtime, home):
    content = b"something else entirely" * 50
    log_database(home).write_bytes(content)
    runtime.insert_log(make_entry("now"))
    assert "now" in messages(runtime.query_logs())
    (kept,) = kept_files(log_database(home))
    assert kept.read_bytes() == content


def test_a_log_database_of_another_program_is_left_alone(runtime, home):
    other = apsw.Connection(str(log_database(home)))
    other.execute("CREATE TABLE logs (x)").fetchall()
    other.close()
    with pytest.raises(DatabaseError, match="another program"):
        runtime.insert_log(make_entry())
