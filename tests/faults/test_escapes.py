"""Hostile homes, rollouts and rows: nothing outside of the home is opened or changed, nothing hangs.

The operations run in a process of their own under an audit hook, which sees every path that Python
opens, lists, makes, moves or removes, resolved at that moment.
"""

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path

import apsw
import pytest

from rollbook import RolloutRecorder, SortKey, StateRuntime
from rollbook.errors import RollbookError
from rollbook.rollout.history import read_items
from rollbook.testing import make_thread, session_meta, user_message, write_rollout
from tests.conftest import run_sql

ID = "11111111-1111-4111-8111-111111111111"
OTHER = "22222222-2222-4222-8222-222222222222"
NAME = f"rollout-2026-01-27T12-34-56-{ID}.jsonl"
HANGS_AFTER_S = 30

OPERATIONS = """
import json, os, sys
from datetime import datetime, UTC
from pathlib import Path
import filelock
from rollbook import RolloutRecorder, StateRuntime, ThreadMetadataBuilder
from rollbook.errors import RollbookError
from rollbook.testing import make_thread

home, thread_id, wanted = Path(sys.argv[1]), sys.argv[2], sys.argv[4:]
EVENTS = {"open", "os.chmod", "os.chown", "os.link", "os.listdir", "os.mkdir", "os.remove",
          "os.rename", "os.rmdir", "os.scandir", "os.symlink", "os.truncate", "os.utime"}
OURS = {str(home), sys.prefix, sys.base_prefix, os.path.realpath(sys.base_prefix), *sys.path}
OURS = tuple(OURS - {""}) + ("/proc/",)  # there the system tells of itself
foreign, is_listening = [], True

def listen(event, arguments):
    if is_listening and event in EVENTS:
        for argument in arguments[: 2 if event in ("os.link", "os.rename", "os.symlink") else 1]:
            if isinstance(argument, str | bytes | os.PathLike):
                real = os.fsdecode(argument)
                if event == "open" and arguments[2] & os.O_NOFOLLOW:  # its last part isn't followed
                    real = os.path.join(os.path.realpath(os.path.dirname(real)), os.path.basename(real))
                else:
                    real = os.path.realpath(real)
                if not real.startswith(OURS) and real != os.devnull:
                    foreign.append([event, real])

def now():
    return datetime.now(UTC)

def recorded(make):
    with make() as recorder:
        recorder.record_items([{"type": "event_msg", "payload": {"type": "agent_message", "message": "x"}}])
        return [str(item.payload) for item in recorder.history]

def operations(state, path):
    yield "get_thread", lambda: state.get_thread(thread_id)
    yield "get_dynamic_tools", lambda: state.get_dynamic_tools(thread_id)
    yield "find_rollout_path_by_id", lambda: state.find_rollout_path_by_id(thread_id)
    yield "rollout_exists", lambda: state.rollout_exists(state.get_thread(thread_id) or make_thread())
    yield "list_threads", lambda: state.list_threads(99).items
    if path:
        yield "reconcile_rollout", lambda: state.reconcile_rollout(path)
        yield "mark_archived", lambda: state.mark_archived(thread_id, path, now())
        yield "apply_rollout_items", lambda: state.apply_rollout_items(
            ThreadMetadataBuilder(thread_id, path, now()), [{"type": "compacted", "payload": {}}])
    yield "resume", lambda: recorded(lambda: RolloutRecorder.resume(state, thread_id))
    yield "fork", lambda: recorded(lambda: RolloutRecorder.fork(state, thread_id))
    yield "create", lambda: recorded(lambda: RolloutRecorder.create(state))
    yield "archive_thread", lambda: state.archive_thread(thread_id)
    yield "unarchive_thread", lambda: state.unarchive_thread(thread_id)
    yield "sync", lambda: state.sync(jobs=1)
    yield "rebuild", lambda: state.sync(jobs=1, rebuild=True)

sys.addaudithook(listen)
with StateRuntime.open(home, backfill=False) as state:
    for path in json.loads(sys.argv[3]):
        for name, operation in operations(state, path):
            if wanted and name not in wanted:
                continue
            if path:
                state.upsert_thread(make_thread(home, id=thread_id, rollout_path=path))
            foreign.clear()
            error = None
            try:
                result = operation()
            except RollbookError as raised:
                result = str(raised)
            except Exception as raised:
                result, error = "", repr(raised)[:200]
            print(json.dumps([f"{name} {path[-40:]}", error, foreign, str(result)]))
is_listening = False
"""


def run(home: Path, *wanted: str, paths: Sequence[str] = ("",), thread_id: str = ID) -> list[list]:
    """Run operations, for each path that a row may have; "" for no such row.

    Returns name, undocumented error, foreign paths and result of each.
    """
    done = subprocess.run(
        [sys.executable, "-c", OPERATIONS, home, thread_id, json.dumps(paths), *wanted],
        capture_output=True,
        text=True,
        check=False,
        timeout=HANGS_AFTER_S,
        cwd=home,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def assert_stayed_inside(outcomes: list[list]) -> None:
    assert outcomes
    assert {name: foreign for name, _, foreign, _ in outcomes if foreign} == {}
    assert {name: result for name, _, _, result in outcomes if "Secret" in result} == {}
    assert {name: error for name, error, _, _ in outcomes if error} == {}


@pytest.fixture
def outside(home):
    """A directory beside the home with what a thief would want; nobody has touched it in the end."""
    directory = home.parent / "outside"
    tools = [{"name": "Secret", "description": "Secret", "inputSchema": {}}]
    meta = session_meta(ID, recorder="rollbook/0", cwd="/Secret", dynamic_tools=tools)
    directory.mkdir()
    for name in ("secret.jsonl", NAME):
        (directory / name).write_bytes(meta + b"\n" + user_message("Secret") + b"\n")
        os.utime(directory / name, (1_000_000_000, 1_500_000_000))  # so that a read shows
    before = {path: path.stat() for path in directory.iterdir()}
    yield directory
    assert {path: path.stat() for path in directory.iterdir()} == before


@pytest.fixture
def some(rng, times):
    """Choose so many of what there is in a quick run, and all of it in a whole one."""
    return lambda count, found: rng.sample(found, times(min(count, len(found)), len(found)))


@pytest.fixture
def other(home) -> Path:
    """Another rollout of the home, which must be there whatever happens beside it."""
    return write_rollout(home, OTHER, [session_meta(OTHER), user_message("All is well")])


def assert_others_are_listed(home: Path) -> None:
    with StateRuntime.open(home, backfill=False) as state:
        for sort_key in SortKey:
            assert OTHER in [thread.id for thread in state.list_threads(99, None, sort_key).items]
        assert state.get_thread(OTHER).title == "All is well"


# Rows: whatever path a row has, it isn't the way out of the home.


PATHS = (
    "/etc/passwd",
    "{outside}/secret.jsonl",
    "{home}/../outside/secret.jsonl",
    "{home}/sessions/../../outside/secret.jsonl",
    "../outside/secret.jsonl",
    "sessions/../../outside/secret.jsonl",
    "{home}/sessions/link/secret.jsonl",
    "{home}/sessions/link/" + NAME,
    "{home}/sessions/secret.jsonl",
    "{home}//etc/passwd",
    "/",
    "//",
    ".",
    "{home}",
    "{home}/sessions",
    "a\0b",
    "\ud800",
    "a\nb",
    "{home}/sessions/" + "x" * 255,
    "{home}/sessions/" + "x" * 300,
    "{home}/" + "x/" * 3000,
)


def test_a_path_in_a_row_leads_nowhere_else(home, outside, other):
    (home / "sessions" / "link").symlink_to(outside)
    (home / "sessions" / "secret.jsonl").symlink_to(outside / "secret.jsonl")
    paths = [path.format(home=home, outside=outside) for path in PATHS]
    assert_stayed_inside(run(home, paths=paths))
    assert_others_are_listed(home)
    with StateRuntime.open(home, backfill=False) as state:
        for path in paths:
            state.upsert_thread(make_thread(home, id=ID, rollout_path=path))
            for operation in (state.get_thread, state.get_dynamic_tools, state.archive_thread):
                with suppress(RollbookError):
                    operation(ID)
            state.sync()
            assert_others_are_listed(home)


def test_a_path_in_the_list_of_files_leads_nowhere_else(home, outside, other):
    write_rollout(home, ID, [session_meta(ID), user_message("Mine")])
    assert_stayed_inside(run(home, "sync"))
    change(
        home,
        "INSERT INTO rollout_files (path, thread_id, compressed, size, mtime_ns, inode)"
        f" VALUES ('../outside/{NAME}', '{ID}', 0, 1, 1, 1)",
    )
    (home / "sessions/2026/01/27" / NAME).write_bytes(session_meta(ID) + b"\n")
    assert_stayed_inside(run(home, "get_thread", "sync", "rebuild", "archive_thread"))
    assert_others_are_listed(home)


# Links and other things in the place of a rollout or of a directory.


def test_a_linked_directory_of_a_day_is_not_the_way_out(home, outside, other):
    day = home / "sessions/2026/01/28"
    day.symlink_to(outside)
    assert_stayed_inside(run(home))
    assert_stayed_inside(run(home, "reconcile_rollout", paths=[str(day / NAME)]))
    assert_others_are_listed(home)


@pytest.mark.parametrize("operation", ["create", "fork"])
def test_nothing_is_recorded_through_a_linked_directory(home, outside, other, operation):
    today = datetime.now().astimezone()
    for day in (today, today + timedelta(days=1)):  # it may be midnight meanwhile
        link = home / "sessions" / f"{day:%Y}" / f"{day:%m}"
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.exists():
            link.symlink_to(outside)
    outcomes = run(home, operation, thread_id=OTHER)
    assert not [path for path in outside.rglob("*") if path.name not in ("secret.jsonl", NAME)]
    assert_stayed_inside(outcomes)


def test_nothing_is_moved_through_a_linked_directory(home, outside, other):
    (home / "sessions/2025").symlink_to(outside)
    write_rollout(
        home, ID, [session_meta(ID), user_message("Hi")], time="2025-01-27T12-34-56", archived=True
    )
    outcomes = run(home, "unarchive_thread")
    assert not (outside / "01").exists()
    assert_stayed_inside(outcomes)


@pytest.mark.parametrize("linked", ["", "sessions", "archived_sessions"])
def test_a_home_and_its_roots_may_be_links(tmp_path, linked):
    disk, home = tmp_path / "disk", tmp_path / "home"
    disk.mkdir()
    if linked:
        home.mkdir()
    (home / linked).symlink_to(disk)
    write_rollout(home, ID, [session_meta(ID, recorder="rollbook/0"), user_message("Hi")])
    with StateRuntime.open(home, backfill=False) as state:
        assert state.get_thread(ID).title == "Hi"
        with RolloutRecorder.create(state), RolloutRecorder.fork(state, ID):
            pass
        assert state.archive_thread(ID).archived_at
        assert not state.unarchive_thread(ID).archived_at
        with RolloutRecorder.resume(state, ID) as recorder:
            assert len(recorder.history) == 2
        assert state.sync(rebuild=True).indexed == 3


def make_link(path: Path, outside: Path) -> None:
    path.symlink_to(outside / "secret.jsonl")


def make_loop(path: Path, _outside: Path) -> None:
    path.symlink_to(path.name)


def make_fifo(path: Path, _outside: Path) -> None:
    os.mkfifo(path)


def make_directory(path: Path, _outside: Path) -> None:
    path.mkdir()


def make_device(path: Path, _outside: Path) -> None:
    try:
        os.mknod(path, 0o600 | 0o020000, os.makedev(1, 3))  # as /dev/null
    except PermissionError:
        pytest.skip("only root may make devices")


THINGS = [make_link, make_loop, make_fifo, make_directory, make_device]


def write_home_with(name: str, home: Path) -> Path:
    """Write a home of two rollouts, one of them with this name, that of :data:`ID`; returns that."""
    write_rollout(home, OTHER, [session_meta(OTHER), user_message("All is well")])
    path = write_rollout(home, ID, [session_meta(ID, recorder="rollbook/0"), user_message("Hi")])
    return path.rename(path.with_name(name))


@pytest.mark.parametrize("make", THINGS)
def test_a_rollout_replaced_by_something_else_is_left_alone(home, outside, some, make):
    for number, name in enumerate(some(1, [NAME, "rollout-nameless.jsonl"])):
        place = home.parent / f"home-{number}"
        path = write_home_with(name, place)
        assert_stayed_inside(run(place, "sync"))
        path.unlink()
        make(path, outside)
        assert_stayed_inside(run(place))
        assert os.path.lexists(path)
        assert_others_are_listed(place)


READ_STALE = """
import sys
from pathlib import Path
from rollbook.errors import RolloutError
from rollbook.rollout.extract import extract, read_dynamic_tools, read_thread_id
from rollbook.rollout.layout import stat_rollout
from rollbook.rollout.writer import RolloutWriter, is_in_use
from tests.faults.test_escapes import *
home, path = Path(sys.argv[1]), Path(sys.argv[2])
file = stat_rollout(home, path.relative_to(home).as_posix())
path.unlink()
{make}(path, Path(sys.argv[3]))
for action in (
    lambda: extract(home, file, "mock"),
    lambda: read_thread_id(home, file),
    lambda: read_dynamic_tools(home, file, ID),
    lambda: RolloutWriter.open(path).append(b"more"),
    lambda: is_in_use(path),
):
    try:
        print("done:", action())
    except (RolloutError, OSError) as error:
        print("refused:", error)
"""


@pytest.mark.parametrize("make", THINGS)
def test_a_rollout_replaced_between_look_and_open_is_refused(home, outside, make):
    path = write_rollout(home, ID, [session_meta(ID), user_message("Hi")])
    program = READ_STALE.format(make=make.__name__)
    done = subprocess.run(
        [sys.executable, "-c", program, home, path, outside],
        capture_output=True,
        text=True,
        check=False,
        timeout=HANGS_AFTER_S,
        cwd=Path(__file__).parents[2],
    )
    answers = [line.partition(":")[0] for line in done.stdout.splitlines()]
    assert answers == ["refused"] * 5, done.stdout + done.stderr


@pytest.mark.parametrize("make", THINGS)
def test_something_else_in_the_place_of_the_name_list_is_left_alone(home, outside, other, make):
    make(home / "session_index.jsonl", outside)
    assert_stayed_inside(run(home))
    assert_others_are_listed(home)


def test_links_that_lead_in_circles_end(home, outside, other):
    deep = home / "sessions"
    for number in range(30):
        deep = deep / f"d{number}"
    deep.mkdir(parents=True)
    (deep / "up").symlink_to(home / "sessions")
    (deep / "a").symlink_to("b")
    (deep / "b").symlink_to("a")
    assert_stayed_inside(run(home))
    assert_others_are_listed(home)


# Names


NAMES = [
    "rollout-...jsonl",
    "rollout-..\\..\\outside\\secret.jsonl",
    "rollout-\n{id}\n.jsonl",
    f"rollout-2026-01-27T12-34-56-{ID}_...jsonl",
    f"rollout-2026-01-27T12-34-56-{ID}_\x1b[31m\r.jsonl",
    f"rollout-2026-01-27T12-34-56-{ID}.jsonl.zst.jsonl",
    "rollout-%2e%2e%2foutside%2fsecret.jsonl",
    "rollout-" + "x" * 241 + ".jsonl",
    f"rollout-2026-01-27T12-34-56-{ID}_" + "x" * 184 + ".jsonl",
    "rollout-9999-99-99T99-99-99-" + ID + ".jsonl",
]


def test_a_name_is_only_a_name(home, outside, some):
    for number, name in enumerate(some(3, NAMES)):
        place = home.parent / f"home-{number}"
        write_home_with(name, place)
        assert_stayed_inside(run(place, "sync"))
        assert_stayed_inside(run(place))
        for root in ("sessions", "archived_sessions"):
            for found in (place / root).rglob("*"):
                if found.name == name:
                    found.unlink()
        assert_stayed_inside(run(place, "sync", "get_thread", "rollout_exists", "rebuild"))
        assert_others_are_listed(place)


# What a rollout says


@pytest.mark.parametrize(
    "text",
    ["/etc/passwd", "../outside/secret.jsonl", f"../../../../outside/{NAME}", ID, OTHER, "", "."],
)
def test_what_a_rollout_says_opens_nothing(home, outside, other, text):
    fields = {
        "id": ID,
        "recorder": "rollbook/0",
        "forked_from_id": text,
        "parent_thread_id": text,
        "agent_path": text,
        "rollout_path": text,
        "history_base": {"thread_id": text, "rollout_path": text, "end_byte_offset": -1},
        "source": {"subagent": {"thread_spawn": {"parent_thread_id": text, "agent_path": text}}},
    }
    path = write_rollout(
        home, ID, [session_meta(**{"thread_id": ID, **fields}), user_message("Hi")]
    )
    with path.open("ab") as file:
        file.write(
            b'{"timestamp":"2026-01-27T12:34:57.000Z","type":"turn_context","payload":'
            + json.dumps({"cwd": text, "model": text, "sandbox_policy": text}).encode()
            + b"}\n"
        )
    assert_stayed_inside(run(home))
    assert_others_are_listed(home)


def test_a_fork_of_less_than_nothing_has_nothing_of_its_parent(home, other):
    base = {"thread_id": OTHER, "end_byte_offset": -1}
    write_rollout(home, ID, [session_meta(ID, history_base=base), user_message("Mine")])
    assert [item.kind for item in read_items(home, ID)] == ["", "user_message"]


@pytest.mark.parametrize("text", ["/etc/passwd", "../outside/secret", "..", f"../{ID}", "\0"])
def test_an_id_that_is_a_path_is_no_id(home, outside, other, text):
    write_rollout(home, ID, [session_meta(text), user_message("Hi")])
    assert_stayed_inside(run(home))
    assert_others_are_listed(home)


# Rows with impossible values


def change(home: Path, sql: str) -> None:
    """Write past Rollbook into its database."""
    run_sql(home / "rollbook" / "state.sqlite", sql)


TEXTS = {"no_unicode": "CAST(x'ff' AS TEXT)", "nul": "CAST(x'610062' AS TEXT)", "empty": "''"}
TEXTS |= {"half": "CAST(x'eda080' AS TEXT)", "long": "printf('%.*c', 1000000, 'x')"}
INTEGERS = {"largest": "9223372036854775807", "smallest": "-9223372036854775808", "minus": "-1"}
INTEGERS |= {"year_10000": "253402300800", "year_0": "-62135596801"}
OF_TYPE = {"TEXT": TEXTS, "INTEGER": INTEGERS}


def columns_of(table: str) -> list[tuple[str, str]]:
    """Name and type of each column of a table."""
    connection = apsw.Connection(":memory:")
    migrations = Path(__file__).parents[2] / "src/rollbook/store/migrations/sqlite/state"
    for file in sorted(migrations.glob("*.sql")):
        connection.execute(file.read_text("utf-8")).fetchall()
    columns = connection.execute(f"SELECT name, type FROM pragma_table_info('{table}')").fetchall()
    connection.close()
    return columns


VALUES = [
    pytest.param(kind, value, id=f"{kind}-{name}")
    for kind, values in OF_TYPE.items()
    for name, value in values.items()
]


@pytest.fixture
def some_columns(some):
    """Choose columns of a table that are of a type."""

    def choose(table: str, kind: str) -> list[str]:
        return some(2, [column for column, its_kind in columns_of(table) if its_kind == kind])

    return choose


FILTERS = (
    {},
    {"include_silent": True},
    {"allowed_sources": ["cli", "x"]},
    {"model_providers": ["openai", "mock"]},
    {"cwd": "/home/dev/project"},
    {"title_contains": "ALL"},
)


@pytest.fixture(scope="module")
def three_threads(tmp_path_factory) -> Path:
    home = tmp_path_factory.mktemp("three")
    tools = [{"name": "a", "description": "b", "inputSchema": {}, "namespace": "c"}]
    for number, thread_id in enumerate((OTHER, ID, str(uuid.uuid4()))):
        meta = session_meta(thread_id, dynamic_tools=tools)
        lines = [meta, user_message("All is well")]
        write_rollout(home, thread_id, lines, time=f"2026-01-2{number}T12-34-56")
    with StateRuntime.open(home, backfill=False) as state:
        state.sync()
    return home


@pytest.fixture
def changeable(three_threads, tmp_path):
    """Make synced homes of three threads."""

    def make(name: str) -> Path:
        home = tmp_path / name
        subprocess.run(["cp", "-Rp", three_threads, home], check=True)
        with StateRuntime.open(home, backfill=False) as state:
            state.sync()  # other inodes
        return home

    return make


@pytest.mark.parametrize(("kind", "value"), VALUES)
def test_an_impossible_value_in_a_row_hides_no_other_thread(changeable, some_columns, kind, value):
    for column in some_columns("threads", kind):
        home = changeable(column)
        change(home, f"UPDATE threads SET {column} = {value} WHERE id = '{ID}'")
        with StateRuntime.open(home, backfill=False) as state:
            for sort_key in SortKey:
                for filters in FILTERS:
                    page = state.list_threads(99, None, sort_key, **filters)
                    assert len({thread.id for thread in page.items} - {ID}) >= 2, column
                    ids = state.list_thread_ids(99, None, sort_key, **filters)
                    assert len(set(ids) - {ID}) >= 2, column
            for read in (state.get_thread, state.get_dynamic_tools, state.find_rollout_path_by_id):
                with suppress(RollbookError):
                    read(ID)
            state.sync()
            state.sync(rebuild=True)
            assert state.get_thread(ID).title == "All is well", column
            assert len(state.list_threads(99).items) >= 3, column


@pytest.mark.parametrize(("kind", "value"), VALUES)
def test_an_impossible_value_in_a_tool_costs_no_more_than_the_tools(
    changeable, some_columns, kind, value
):
    for column in some_columns("thread_dynamic_tools", kind):
        home = changeable(column)
        change(home, f"UPDATE thread_dynamic_tools SET {column} = {value} WHERE thread_id = '{ID}'")
        with StateRuntime.open(home, backfill=False) as state:
            with suppress(RollbookError):
                state.get_dynamic_tools(ID)
            assert [tool.name for tool in state.get_dynamic_tools(OTHER)] == ["a"], column
            state.sync(rebuild=True)
            assert [tool.name for tool in state.get_dynamic_tools(ID)] == ["a"], column


@pytest.mark.parametrize(("kind", "value"), VALUES)
def test_an_impossible_value_of_a_file_is_mended_by_a_sync(changeable, some_columns, kind, value):
    for column in some_columns("rollout_files", kind):
        home = changeable(column)
        change(home, f"UPDATE rollout_files SET {column} = {value} WHERE thread_id = '{ID}'")
        path = next((home / "sessions").rglob(f"*{ID}*"))
        with path.open("ab") as file:
            file.write(
                b'{"timestamp":"2026-01-27T12:34:58.000Z","type":"event_msg","payload":'
                b'{"type":"thread_name_updated","thread_name":"New"}}\n'
            )
        with StateRuntime.open(home, backfill=False) as state:
            state.sync()
            state.sync()
            assert state.get_thread(ID).name == "New", column
            assert len(state.list_threads(99).items) == 3, column
