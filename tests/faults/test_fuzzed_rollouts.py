"""Mutated lines of real rollouts, through all that reads them: only documented errors, flat memory."""

import importlib.util
import json
import random
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rollbook import RolloutRecorder, SortKey, StateRuntime
from rollbook.cli.app import cli
from rollbook.errors import RollbookError, RolloutError
from rollbook.rollout.extract import extract
from rollbook.rollout.history import as_legacy, conversation, read_items
from rollbook.rollout.layout import list_rollouts
from rollbook.testing import make_line, session_meta, user_message, write_rollout
from tests.faults.fuzz_reader import assert_storable, read
from tests.properties.test_reading import LINES, assert_same_as_decoding_everything

ROOT = Path(__file__).parents[2]
THREAD = "01a207c8-5c2e-7e11-9928-f6d6451bf219"
LINES_OF_A_ROLLOUT = 100
ROLLOUTS_OF_A_HOME = 100

# JSON values that no field expects, most of them.
VALUES = (
    *(b"null", b"true", b"false", b"0", b"-1", b"1.5", b"-0.0", b"1e308", b"5e-324"),
    *(b"9223372036854775807", b"-9223372036854775809", b"18446744073709551616", b"1" + b"0" * 40),
    *(b'""', b'"\\u0000"', b'"17"', b'"NaN"', b'" "', b'"\\n"', b'"../../../etc/passwd"'),
    *(b'"\\ud83d\\ude00"', '"\u202e\u2028"'.encode(), b'"' + b"x" * 5000 + b'"'),
    *(b"[]", b"{}", b"[null]", b"[[[]]]", b'{"":{"":[{}]}}', b"[" * 90 + b"]" * 90),
    *(b'"0001-01-01T00:00:00+23:59"', b'"9999-12-31T23:59:59-23:59"', b'"9999-12-31T23:59:60Z"'),
    *(b'"99999-01-01T00:00:00Z"', b'"2026-02-30T00:00:00.000Z"', b'"2026-01-27T12-34-56"'),
    *(
        b'"session_meta"',
        b'"user"',
        b'"UserMessage"',
        b'"token_count"',
        b'"' + THREAD.encode() + b'"',
    ),
    b'[{"type":"input_text","text":7},8,null,{"type":"input_image"},{"type":"text","text":[]}]',
    b'{"subagent":{"thread_spawn":{"parent_thread_id":[],"agent_role":"x","agent_nickname":0}}}',
    b'{"thread_id":"%s","end_byte_offset":-1}' % THREAD.encode(),
    b'[{"name":1,"type":"namespace","tools":[{},[],{"name":"a","namespace":"\\u0000"}]},{}]',
    b'{"total_token_usage":{"total_tokens":1e30,"input_tokens":-5}}',
    b'"<skill></skill><skill>"',
)
# What looks like a value and is none that a line could hold.
NO_VALUES = (
    *(b"NaN", b"-Infinity", b"1e999", b"-", b"01", b"1" * 5000, b"'x'", b"undefined", b""),
    *(b'"\\ud800"', b'"\\udc00\\ud800"', b'"\\x"', b'"\xff"', b'"\xed\xa0\x80"', b'"\xc0\x80"'),
    *(b'"\x00"', b'"\x1f"', b'"', b"[" * 5000, b"[" * 5000 + b"]" * 5000, b'{"a":' * 2000),
)
JUNK = (b"\0", b"\0" * 512, b"\r", b"\n", b"\r\n", b"\xff", b"\xc3", b"\xed\xa0\x80", b"\\", b'"')
PLACE = "the place of a value"


def with_value(rng: random.Random, line: bytes, value: bytes) -> bytes:
    """Put a value in the place of one that is anywhere in the record."""
    record = target = msgspec.json.decode(line)
    while True:
        key = rng.choice(list(target) if isinstance(target, dict) else range(len(target)))
        if not isinstance(target[key], dict | list) or not target[key] or rng.random() < 0.3:
            break
        target = target[key]
    target[key] = PLACE
    return msgspec.json.encode(record).replace(b'"%s"' % PLACE.encode(), value)


# Each takes two real lines and gives a harmed one. These give records that nobody has written:


def with_any_value(rng: random.Random, line: bytes, _other: bytes) -> bytes:
    return with_value(rng, line, rng.choice(VALUES))


def with_value_of_other(rng: random.Random, line: bytes, other: bytes) -> bytes:
    payload = msgspec.json.decode(other)["payload"]
    return with_value(rng, line, msgspec.json.encode(rng.choice(list(payload.values()))))


def with_keys_reordered(rng: random.Random, line: bytes, _other: bytes) -> bytes:
    record = msgspec.json.decode(line)
    for target in (record["payload"], record):
        pairs = list(target.items())
        rng.shuffle(pairs)
        target.clear()
        target.update(pairs)
    return msgspec.json.encode(record)


def unharmed(_rng: random.Random, line: bytes, _other: bytes) -> bytes:
    return line


# And these damage:


def with_no_value(rng: random.Random, line: bytes, _other: bytes) -> bytes:
    return with_value(rng, line, rng.choice(NO_VALUES))


def with_keys_twice(_rng: random.Random, line: bytes, other: bytes) -> bytes:
    return line[:-2] + b"," + other.partition(b'"payload":{')[2]


def with_bytes_flipped(rng: random.Random, line: bytes, _other: bytes) -> bytes:
    damaged = bytearray(line)
    for _ in range(rng.randrange(1, 5)):
        damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
    return bytes(damaged)


def with_junk(rng: random.Random, line: bytes, _other: bytes) -> bytes:
    at = rng.randrange(len(line) + 1)
    return line[:at] + rng.choice(JUNK) + line[at:]


def with_a_part_repeated(rng: random.Random, line: bytes, _other: bytes) -> bytes:
    start = rng.randrange(len(line))
    part = line[start : start + rng.randrange(1, 40)]
    return line[:start] + part * rng.choice((2, 3, 200)) + line[start + len(part) :]


def torn(rng: random.Random, line: bytes, _other: bytes) -> bytes:
    return line[: rng.randrange(len(line))]


def fused(rng: random.Random, line: bytes, other: bytes) -> bytes:
    return line[: rng.randrange(len(line) + 1)] + other


def spliced(rng: random.Random, line: bytes, other: bytes) -> bytes:
    return line[: rng.randrange(len(line))] + other[rng.randrange(len(other)) :]


RECORDS = (with_any_value, with_value_of_other, with_keys_reordered, unharmed)
DAMAGES = (
    *(with_no_value, with_keys_twice, with_bytes_flipped, with_junk),
    *(with_a_part_repeated, torn, fused, spliced),
)
HARMS = (*RECORDS, *RECORDS, *DAMAGES)


def mutated(rng: random.Random, harms: tuple[Callable[..., bytes], ...] = HARMS) -> bytes:
    """Choose a real line and do it harm."""
    return rng.choice(harms)(rng, rng.choice(LINES), rng.choice(LINES))


def content_of_rollout(rng: random.Random, thread_id: str, count: int) -> bytes:
    """Make a rollout of so many mutated lines; most begin with the session meta of the thread."""
    lines = [mutated(rng) for _ in range(count)]
    if rng.random() < 0.8:
        meta = session_meta(thread_id)
        lines[0] = with_value(rng, meta, rng.choice(VALUES)) if rng.random() < 0.5 else meta
    line_break = rng.choice((b"\n", b"\n", b"\n", b"\r\n", b"\n\n"))
    return line_break.join(lines) + rng.choice((b"", line_break))


def write_mutated_home(rng: random.Random, home: Path) -> list[str]:
    """Write a home of mutated rollouts; returns the ids in their names."""
    ids = [str(uuid.UUID(int=rng.getrandbits(128), version=4)) for _ in range(ROLLOUTS_OF_A_HOME)]
    for thread_id in ids:
        path = write_rollout(home, thread_id, [], archived=rng.random() < 0.1)
        path.write_bytes(content_of_rollout(rng, thread_id, LINES_OF_A_ROLLOUT))
    return ids


def listed(state: StateRuntime, sort_key: SortKey, *, archived: bool) -> set[str]:
    """List all threads, page by page."""
    found: list[str] = []
    anchor = None
    while True:
        page = state.list_threads(30, anchor, sort_key, archived_only=archived, include_silent=True)
        found += [thread.id for thread in page.items]
        anchor = page.next_anchor
        if anchor is None:
            assert len(found) == len(set(found))
            return set(found)


def read_each(home: Path, ids: list[str]) -> set[str]:
    """Read every rollout by itself; returns the threads that something was learnt of."""
    known = set()
    for path, file in list_rollouts(home).files.items():
        read((home / path).read_bytes())
        try:
            metadata = extract(home, file, "mock").outcome.metadata
        except RolloutError:
            continue
        assert_storable(metadata)
        known.add(metadata.id)
    for thread_id in ids[::10]:
        with suppress(RolloutError):  # begins in a thread that isn't there
            conversation(as_legacy(read_items(home, thread_id)))
    return known


def sync_and_list(home: Path, known: set[str]) -> None:
    """Index the home; every listing has each thread, and each can be looked at."""
    with StateRuntime.open(home, backfill=False) as state:
        stats = state.sync(jobs=1)
        assert all("record" in failure.message for failure in stats.failures)
        for sort_key in SortKey:
            active = listed(state, sort_key, archived=False)
            archived = listed(state, sort_key, archived=True)
            assert active | archived == known
            assert not active & archived
        before = {thread_id: state.get_thread(thread_id) for thread_id in known}
        tools = {thread_id: state.get_dynamic_tools(thread_id) for thread_id in known}
        for metadata in before.values():
            assert_storable(metadata)
        state.sync(jobs=1, rebuild=True)
        assert {thread_id: state.get_thread(thread_id) for thread_id in known} == before
        assert {thread_id: state.get_dynamic_tools(thread_id) for thread_id in known} == tools


def show(home: Path, thread_id: str) -> dict:
    """Ask the command line for a thread."""
    done = CliRunner().invoke(cli, ["--home", str(home), "--json", "show", thread_id])
    assert done.exception is None, done.exception
    return json.loads(done.stdout)


def test_mutated_rollouts_are_read_indexed_and_listed(rng, times, tmp_path):
    lines = 0
    while lines < times(40_000, 1_000_000):
        home = tmp_path / f"home-{lines}"
        ids = write_mutated_home(rng, home)
        known = read_each(home, ids)
        sync_and_list(home, known)
        for thread_id in sorted(known)[:3]:
            assert show(home, thread_id)["id"] == thread_id
        lines += ROLLOUTS_OF_A_HOME * LINES_OF_A_ROLLOUT
        shutil.rmtree(home)


def unfinished(rng: random.Random) -> bytes:
    """Begin a line, or don't; never a whole record, which would be read before its line ends."""
    return torn(rng, rng.choice(LINES), b"") if rng.random() < 0.5 else b""


def test_growth_by_mutated_lines_gives_what_reading_anew_gives(rng, times, tmp_path):
    for number in range(times(5, 100)):
        home = tmp_path / f"home-{number}"
        paths = {}
        for _ in range(10):
            thread_id = str(uuid.UUID(int=rng.getrandbits(128), version=4))
            meta_and_title = [session_meta(thread_id), user_message("Begin")]
            paths[thread_id] = write_rollout(home, thread_id, meta_and_title)
        with StateRuntime.open(home, backfill=False) as state:
            for _ in range(3):
                state.sync(jobs=1)
                for path in paths.values():
                    lines = [mutated(rng) for _ in range(20)]
                    with path.open("ab") as file:
                        file.write(b"\n".join([*lines, unfinished(rng)]))
            state.sync(jobs=1)
            grown = {thread_id: state.get_thread(thread_id) for thread_id in paths}
            state.sync(jobs=1, rebuild=True)
            assert {thread_id: state.get_thread(thread_id) for thread_id in paths} == grown
        shutil.rmtree(home)


# A real line of each kind, the shortest; all of the fields that the fold reads are in them.
def lines_of_each_kind() -> Iterator[bytes]:
    kinds = set()
    for line in LINES:
        record = json.loads(line)
        kind = (record["type"], record["payload"].get("type"), tuple(sorted(record["payload"])))
        if kind not in kinds:
            kinds.add(kind)
            yield line
    yield session_meta(
        THREAD,
        git={"commit_hash": "a", "branch": "b", "repository_url": "c"},
        source={"subagent": {"thread_spawn": {"parent_thread_id": "p", "agent_role": "r"}}},
        dynamic_tools=[{"name": "a", "description": "b", "inputSchema": {}, "namespace": "c"}],
        history_base={"thread_id": THREAD, "end_byte_offset": 7},
        subagent_history_start_ordinal=3,
    )
    parts = [{"type": "input_text", "text": "a"}, {"type": "input_image", "image_url": "b"}]
    passthrough = {"content_item_kinds": ["user.text", "unknown"]}
    yield make_line(
        "response_item",
        {
            "type": "message",
            "role": "user",
            "content": parts,
            "internal_chat_message_metadata_passthrough": passthrough,
        },
        ordinal=4,
    )


def places(value, path: tuple = ()) -> Iterator[tuple]:
    """Where there is a value in a record."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in pairs:
        yield (*path, key)
        if isinstance(inner, dict | list):
            yield from places(inner, (*path, key))


def replaced(line: bytes, path: tuple, value: bytes) -> bytes:
    record = target = json.loads(line)
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = PLACE
    return msgspec.json.encode(record).replace(b'"%s"' % PLACE.encode(), value)


@pytest.mark.parametrize("value", [*VALUES, *NO_VALUES], ids=lambda value: str(value[:30]))
def test_any_value_in_the_place_of_any_field_costs_no_more_than_its_line(value, times):
    wholes = list(lines_of_each_kind())
    share = times(10, 1)
    for number, line in enumerate(wholes):
        found = list(places(json.loads(line)))
        for path in found[number % share :: share]:
            read(session_meta(THREAD) + b"\n" + replaced(line, path, value) + b"\n")


def test_skipping_by_the_head_makes_no_difference_for_any_record(rng, times):
    """Records, not damage: what lies inside of a skipped line isn't parsed, so isn't judged."""

    for _ in range(times(120, 5000)):
        lines = [mutated(rng, RECORDS) for _ in range(rng.randrange(1, 40))]
        content = b"\n".join([session_meta(THREAD), *lines]) + b"\n"
        assert_same_as_decoding_everything(content)


UNREADABLE = "2026-02-30T00:00:00.000Z"


@pytest.mark.parametrize("kind", ["agent_message", "user_message"])  # skipped, and decoded
def test_a_record_with_an_unreadable_time_leaves_the_time_of_the_one_before(kind):
    before = make_line("event_msg", {"type": "agent_message", "message": "Hi"})
    after = make_line("event_msg", {"type": kind, "message": "Hi"}, timestamp=UNREADABLE)
    content = b"\n".join([session_meta(THREAD), before, after]) + b"\n"
    assert_same_as_decoding_everything(content)


def test_records_copied_from_the_parent_are_no_activity_of_a_sub_agent(home):
    meta = session_meta(THREAD, subagent_history_start_ordinal=3)
    later = "2027-01-01T00:00:00.000Z"
    said = {"type": "agent_message", "message": "Hi"}
    copied = make_line("event_msg", said, timestamp=later, ordinal=2)
    write_rollout(home, THREAD, [meta, copied])
    (file,) = list_rollouts(home).files.values()
    metadata = extract(home, file, "mock").outcome.metadata
    assert metadata.recency_at == metadata.created_at


DEPTHS = range(800, 1010, 3)


def deeply(depth: int, action: Callable):
    """Call a function from further down the stack."""
    return action() if depth == 0 else deeply(depth - 1, action)


def test_nesting_at_the_limit_of_the_parser_can_be_read_from_anywhere(home):
    """What a sync has stored is read in programs whose stack is deeper than the sync's."""
    ids = {depth: str(uuid.uuid4()) for depth in DEPTHS}
    for depth, thread_id in ids.items():
        tools = b'"dynamic_tools":[{"name":"t","inputSchema":%s}],"source"' % (
            b"[" * depth + b"]" * depth
        )
        meta = session_meta(thread_id).replace(b'"source"', tools)
        write_rollout(home, thread_id, [meta, user_message("Deep")])
    subprocess.run(
        [sys.executable, "-m", "rollbook", "sync", "--home", home]
        if importlib.util.find_spec("rollbook.__main__")
        else [Path(sys.executable).with_name("rollbook"), "sync", "--home", home],
        capture_output=True,
        check=True,
    )
    with StateRuntime.open(home, backfill=False) as state:
        for thread_id in ids.values():
            try:
                deeply(100, lambda thread_id=thread_id: state.get_dynamic_tools(thread_id))
            except RollbookError:
                continue  # damaged, which says what to do
        assert len(deeply(100, lambda: state.list_threads(999)).items) == len(ids)


@pytest.mark.parametrize("depth", [50, 101, 500, 900])
def test_a_thread_of_any_nesting_can_be_forked_or_is_refused(home, depth):
    deep = b"[" * depth + b"]" * depth
    thread_id = str(uuid.uuid4())
    message = make_line("response_item", {"type": "message", "content": 0})
    lines = [session_meta(thread_id), user_message("Deep"), message.replace(b":0", b":" + deep)]
    write_rollout(home, thread_id, lines)
    with StateRuntime.open(home, backfill=False) as state, suppress(RollbookError):
        RolloutRecorder.fork(state, thread_id).close()


def test_a_name_list_of_any_nesting_costs_no_more_than_its_line(home):
    thread_id = str(uuid.uuid4())
    write_rollout(home, thread_id, [session_meta(thread_id), user_message("Hello")])
    entry = b'{"id":"%s","thread_name":"%s"%%s}\n' % (thread_id.encode(), b"Named")
    deep = b',"more":' + b"[" * 5000 + b"]" * 5000
    (home / "session_index.jsonl").write_bytes(b"\xff\n[]\n" + entry % deep + entry % b"")
    with StateRuntime.open(home, backfill=False) as state:
        state.sync(jobs=1)
        assert state.get_thread(thread_id).name == "Named"


def test_mutated_name_lists_are_read(rng, times, tmp_path):
    thread_id = str(uuid.uuid4())
    write_rollout(tmp_path, thread_id, [session_meta(thread_id), user_message("Hello")])
    entry = msgspec.json.encode({"id": thread_id, "thread_name": "Named", "updated_at": "now"})
    values = [value for value in (*VALUES, *NO_VALUES) if len(value) < 4000]
    with StateRuntime.open(tmp_path, backfill=False) as state:
        for _ in range(times(20, 500)):
            lines = [with_value(rng, entry, rng.choice(values)) for _ in range(100)]
            lines += [with_bytes_flipped(rng, entry, entry) for _ in range(100)]
            (tmp_path / "session_index.jsonl").write_bytes(b"\n".join([*lines, entry]) + b"\n")
            state.sync(jobs=1)
            assert state.get_thread(thread_id).name == "Named"


JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
KINDS = [json.loads(line) for line in lines_of_each_kind()]


@st.composite
def records(draw: st.DrawFn) -> bytes:
    """A record of a known kind with any JSON in some of its fields."""
    known = draw(st.sampled_from(KINDS))
    keys = draw(st.sets(st.sampled_from(sorted(set(known["payload"]) - {"type"}) or ["none"])))
    changed = {key: draw(JSON_VALUES) for key in keys}
    text = json.dumps(known | {"payload": known["payload"] | changed}, allow_nan=False)
    return text.encode("utf-8", "surrogatepass")


@settings(deadline=None, max_examples=120, suppress_health_check=list(HealthCheck))
@given(st.lists(records(), max_size=5))
def test_any_json_in_any_field_can_be_read_and_stored(lines):
    read(b"\n".join([session_meta(THREAD), *lines]) + b"\n")


# Reads the same homes twice: whatever the second time needs beyond the first was not given back.
FLAT_MEMORY = """
import random, resource, shutil, sys
from pathlib import Path
from tests.faults.test_fuzzed_rollouts import *

seed, homes, directory = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
def peak_kb():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (1024 if sys.platform == "darwin" else 1)
def whole_run():
    rng = random.Random(seed)
    for number in range(homes):
        home = directory / f"home-{number}"
        ids = write_mutated_home(rng, home)
        sync_and_list(home, read_each(home, ids))
        shutil.rmtree(home)
whole_run()
first = peak_kb()
whole_run()
print(first, peak_kb())
"""


def test_memory_is_flat(rng, times, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", FLAT_MEMORY, str(rng.random()), str(times(2, 20)), tmp_path],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    first, second = map(int, done.stdout.split())
    assert second - first < 4096, f"{first} kB, then {second} kB"


@pytest.mark.skipif(
    not importlib.util.find_spec("atheris"), reason="atheris, no dependency, isn't installed"
)
def test_fuzzing_guided_by_coverage_finds_nothing(times, tmp_path):
    runs = times(20_000, 1_000_000)
    done = subprocess.run(
        [
            sys.executable,
            Path(__file__).with_name("fuzz_reader.py"),
            f"-runs={runs}",
            tmp_path / "s",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-5000:]
    assert f"Done {runs} runs" in done.stderr
