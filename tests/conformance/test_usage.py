"""Usage: each token once, whatever was resumed, forked and copied."""

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest
from backports import zstd

from rollbook import UsageKey, read_prices
from rollbook.errors import UsageError
from rollbook.testing import DEFAULT_TIME, make_line, session_meta, user_message, write_rollout
from tests.conftest import RELEASES, expected

ID, OTHER, THIRD = (f"{n}2222222-2222-4222-8222-222222222222" for n in "234")
NOON = datetime(2026, 1, 26, 12, 0, tzinfo=UTC)  # a Monday


def used(total, last=None, at=NOON, **extra):
    def usage(count):
        return {
            "input_tokens": count - count // 10,
            "cached_input_tokens": count // 2,
            "output_tokens": count // 10,
            "reasoning_output_tokens": count // 20,
            "total_tokens": count,
        }

    info = {"total_token_usage": usage(total), "last_token_usage": usage(last or total)}
    payload = {"type": "token_count", "info": info, **extra}
    return make_line("event_msg", payload, timestamp=f"{at:%Y-%m-%dT%H:%M:%SZ}")


def context(model, at=NOON):
    return make_line("turn_context", {"model": model}, timestamp=f"{at:%Y-%m-%dT%H:%M:%SZ}")


def rows(report):
    return {row.keys: row.tokens.total for row in report.rows}


def by_thread(state):
    state.sync()
    return {keys[0]: total for keys, total in rows(state.usage([UsageKey.THREAD])).items()}


def lines_of(path):
    data = path.read_bytes()
    return (zstd.decompress(data) if path.suffix == ".zst" else data).splitlines()


def counted_independently(home):
    """Requests and tokens: what each distinct record says was used last, but for estimates.

    After a compaction and the like, Codex estimates how long the context is now: then only the sum is
    there, which no request has used.
    """
    seen, tokens = set(), 0
    for path in sorted(home.rglob("rollout-*")):
        for line in lines_of(path):
            record = json.loads(line)
            info = record["payload"].get("info")
            if record["payload"].get("type") != "token_count" or not info:
                continue
            last = info["last_token_usage"]
            key = json.dumps([info["total_token_usage"], last], sort_keys=True)
            if key not in seen and last["input_tokens"]:
                seen.add(key)
                tokens += last["total_tokens"]
    return len(seen), tokens


@pytest.mark.parametrize("release", RELEASES)
def test_what_releases_have_recorded_is_counted_as_an_independent_count_does(
    corpus_home, open_runtime, release
):
    home = corpus_home(release)
    with open_runtime(home) as state:
        state.sync()
        report = state.usage([UsageKey.MODEL])
        ids = {row.keys[0] for row in state.usage([UsageKey.THREAD]).rows}
        models = {state.get_thread(thread_id).model for thread_id in ids}
    assert (report.total.requests, report.total.tokens.total) == counted_independently(home)
    assert report.total.tokens.total == report.total.tokens.input + report.total.tokens.output
    assert report.is_complete
    if release >= "0.125":
        assert {row.keys[0] for row in report.rows} <= models
    assert expected(release)["codex_version"] == release.partition("-")[0]


def test_what_is_said_again_is_counted_once(home, runtime):
    lines = [session_meta(ID), used(100), used(100), used(250, 150), used(250, 150), used(251, 1)]
    write_rollout(home, ID, lines)
    assert by_thread(runtime) == {ID: 251}
    assert runtime.usage().total.requests == 3


def test_a_count_that_begins_anew_goes_on_counting(home, runtime):
    lines = [session_meta(ID), used(1000), used(300, 300), used(400, 100)]
    write_rollout(home, ID, lines)
    assert by_thread(runtime) == {ID: 1400}


def test_what_a_fork_has_copied_is_its_sources(home, runtime):
    source = [session_meta(ID), used(100), used(100), used(300, 200)]
    fork = [session_meta(OTHER, forked_from_id=ID), *source[:3], used(150, 50), used(180, 30)]
    write_rollout(home, ID, source)
    write_rollout(home, OTHER, fork)
    of_fork = [session_meta(THIRD, forked_from_id=OTHER), *fork, used(181, 1)]
    write_rollout(home, THIRD, of_fork)
    assert by_thread(runtime) == {ID: 300, OTHER: 80, THIRD: 1}


def test_a_fork_whose_source_is_gone_has_what_came_after_it_was_made(home, runtime):
    made, later = DEFAULT_TIME, DEFAULT_TIME + timedelta(minutes=3)
    fork = [session_meta(OTHER, forked_from_id=ID), session_meta(ID)]
    fork += [used(100, at=made), used(300, 200, at=made), used(310, 10, at=later)]
    write_rollout(home, OTHER, fork)
    assert by_thread(runtime) == {OTHER: 10}


def test_a_fork_without_a_copy_begins_where_its_source_was(home, runtime):
    source = write_rollout(home, ID, [session_meta(ID), used(100)])
    end = source.stat().st_size
    with source.open("ab") as rollout:
        rollout.write(used(500, 400) + b"\n")
    base = {"thread_id": ID, "end_byte_offset": end, "end_ordinal_exclusive": 2}
    fork = [session_meta(OTHER, forked_from_id=ID, history_base=base), used(130, 30)]
    write_rollout(home, OTHER, fork)
    assert by_thread(runtime) == {ID: 500, OTHER: 30}
    source.unlink()
    runtime.sync(rebuild=True)
    assert by_thread(runtime) == {OTHER: 30}


def test_a_thread_in_two_rollouts_goes_on_counting(home, runtime):
    first = write_rollout(home, ID, [session_meta(ID), used(100)])
    later = first.with_name(first.name.replace(".jsonl", f"_{OTHER}.jsonl"))
    later.write_bytes(b"\n".join([session_meta(ID), used(100), used(120, 20), b""]))
    assert by_thread(runtime) == {ID: 120}


def test_what_others_have_used_is_not_a_threads_own(home, runtime):
    usage = {"input_tokens": 9, "output_tokens": 1, "total_tokens": 10}
    record = {"thread_id": OTHER, "usage": usage, "thread_token_usage": usage}
    own = {"thread_id": ID, "usage": usage, "thread_token_usage": usage}
    stamped = {"timestamp": "2026-01-26T12:00:00Z"}
    lines = [make_line("token_usage_record", each, **stamped) for each in (record, own)]
    write_rollout(home, ID, [session_meta(ID), *lines])
    assert by_thread(runtime) == {ID: 10}


@pytest.mark.parametrize(
    "value",
    [
        None,
        "x",
        -5,
        2.5,
        [],
        {"total_tokens": "x"},
        {"total_tokens": 1 << 63},
        {"input_tokens": 1 << 41},
        {},
    ],
)
def test_nonsense_is_no_usage(home, runtime, value):
    payload = {"type": "token_count", "info": {"total_token_usage": value}}
    write_rollout(home, ID, [session_meta(ID), make_line("event_msg", payload), used(5)])
    assert by_thread(runtime) == {ID: 5}


def test_days_are_the_readers(home, runtime):
    late = datetime(2026, 1, 31, 18, 20, tzinfo=UTC)  # past midnight in Kathmandu
    lines = [session_meta(ID), used(1, at=NOON), used(3, 2, at=late)]
    write_rollout(home, ID, lines)
    runtime.sync()

    def told(key, zone):
        return rows(runtime.usage([key], time_zone=ZoneInfo(zone)))

    assert told("day", "UTC") == {("2026-01-26",): 1, ("2026-01-31",): 2}
    assert told("day", "Asia/Kathmandu") == {("2026-01-26",): 1, ("2026-02-01",): 2}
    assert told("week", "UTC") == {("2026-01-26",): 3}
    assert told("month", "UTC") == {("2026-01",): 3}
    assert told("month", "Asia/Kathmandu") == {("2026-01",): 1, ("2026-02",): 2}
    assert rows(runtime.usage(["month"], since=late, time_zone=UTC)) == {("2026-01",): 2}
    assert rows(runtime.usage(["month"], until=late, time_zone=UTC)) == {("2026-01",): 1}


def test_models_projects_sources_and_filters(home, runtime):
    git = {"repository_url": "git@Example.com:me/it.git"}
    lines = [session_meta(ID, cwd="/a", source="cli", git=git), context("big"), used(10)]
    write_rollout(home, ID, [*lines, user_message("x"), context("small"), used(14, 4)])
    git = {"repository_url": "https://example.com/me/it"}
    meta = session_meta(OTHER, cwd="/b", source="exec", git=git)
    write_rollout(home, OTHER, [meta, context("small"), used(100)])
    write_rollout(home, THIRD, [session_meta(THIRD, cwd="/c"), used(1)])
    runtime.sync()
    assert rows(runtime.usage(["model"])) == {("big",): 10, ("small",): 104, ("",): 1}
    assert rows(runtime.usage(["project"])) == {("example.com/me/it",): 114, ("/c",): 1}
    assert rows(runtime.usage(["source", "model"]))["cli", "small"] == 4
    assert rows(runtime.usage(["thread"], cwd="/b")) == {(OTHER,): 100}
    assert rows(runtime.usage([], thread_id=ID)) == {(): 14}
    assert rows(runtime.usage([], allowed_sources=["exec"])) == {(): 100}
    runtime.archive_thread(OTHER)
    assert rows(runtime.usage([])) == {(): 115}
    assert rows(runtime.usage([], archived=False)) == {(): 15}
    with pytest.raises(UsageError, match="day"):
        runtime.usage(["weather"])


def test_prices_are_the_readers(home, runtime, tmp_path):
    prices = tmp_path / "prices.toml"
    prices.write_text(
        'currency = "EUR"\n[models."big*"]\ninput = 2\ncached_input = 0.5\noutput = 10.0\n'
        "[models.small]\ninput = 1\noutput = 1\n"
    )
    lines = [session_meta(ID), context("big-1"), used(1_000_000), context("small")]
    write_rollout(home, ID, [*lines, used(1_000_010, 10), context("?"), used(1_000_011, 1)])
    runtime.sync()
    report = runtime.usage(["model"], prices=read_prices(prices))
    costs = {row.keys[0]: row.cost for row in report.rows}
    assert costs["big-1"] == Decimal("0.4") * 2 + Decimal("0.5") * Decimal("0.5") + 1
    assert costs["small"] == Decimal("0.00001")
    assert (costs["?"], report.total.cost) == (None, None)
    assert (report.currency, report.unpriced) == ("EUR", ("?",))


@pytest.mark.parametrize(
    "text", ["", "models = 1", "[models.a]\ninput = 1", "[models.a]\nx", "\xff"]
)
def test_what_has_no_prices_is_refused(tmp_path, text):
    path = tmp_path / "prices.toml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(UsageError, match="prices"):
        read_prices(path)
    with pytest.raises(UsageError, match="can't be read"):
        read_prices(tmp_path)


def test_what_grows_is_counted_as_what_is_read_at_once(corpus_home, open_runtime, tmp_path):
    home = corpus_home("0.140.0")
    with open_runtime(home) as state:
        whole = by_thread(state)
        paths = sorted(home.rglob("rollout-*.jsonl"))
        contents = {path: path.read_bytes() for path in paths}
        for path, content in contents.items():
            for part in range(1, 4):
                path.write_bytes(content[: len(content) * part // 3])
                state.sync()
            assert by_thread(state) == whole
        state.sync(rebuild=True)
        assert by_thread(state) == whole
