"""What is loaded, and what is not: start-up is mostly imports."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import rollbook
from rollbook.testing import session_meta, user_message, write_rollout

ID = "22222222-2222-4222-8222-222222222222"
# What each loads, beside Python's own modules.
NEEDS = {
    "import rollbook": {"rollbook"},
    "from rollbook import StateRuntime": {"rollbook", "apsw", "msgspec", "stringzilla"},
    "rollbook list --json": {"rollbook", "apsw", "msgspec", "stringzilla", "click"},
    "rollbook sync": {"rollbook", "apsw", "msgspec", "stringzilla", "click"},
}
BY_OTHERS = {"typing_extensions"}  # msgspec loads it where it is installed
# What each could load, and does without.
OTHER_FACES = {
    "asyncio",
    "zipfile",
    "rollbook.aio",
    "rollbook.contrib",
    "rollbook.doctor",
    "rollbook.recorder",
    "rollbook.testing",
}
READING = {"subprocess", "rollbook.index.backfill", "rollbook.rollout.extract"}
DOES_WITHOUT = {
    "import rollbook": {*OTHER_FACES, *READING, "logging", "tempfile", "rollbook.runtime"},
    "from rollbook import StateRuntime": {*OTHER_FACES, "rollbook.cli"},
    "rollbook list --json": {*OTHER_FACES, *READING, "rollbook.cli.doctor"},
    "rollbook sync": {*OTHER_FACES, "subprocess", "rollbook.cli.doctor"},
}


def run(code: str, *arguments: object) -> set[str]:
    """Run code in a new process; gives the modules that are loaded in the end."""
    tell = "import json, sys; print(json.dumps(sorted(sys.modules)), file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", f"{code}\n{tell}", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(json.loads(done.stderr))


def loaded(what: str, home: Path) -> set[str]:
    if not what.startswith("rollbook "):
        return run(what)
    return run("from rollbook.cli import main\nmain()", *what.split()[1:], "--home", home)


@pytest.fixture
def synced(home, state) -> Path:
    write_rollout(home, ID, [session_meta(ID), user_message("Here")])
    state.sync()
    return home


@pytest.mark.parametrize("what", NEEDS)
def test_nothing_is_loaded_that_is_not_needed(synced, what):
    modules = loaded(what, synced) - run("")
    packages = {name.partition(".")[0] for name in modules} - sys.stdlib_module_names
    assert packages - NEEDS[what] - BY_OTHERS == set()
    assert modules & DOES_WITHOUT[what] == set()


def test_the_package_itself_is_its_errors_and_its_version():
    ours = {name for name in run("import rollbook") if name.startswith("rollbook")}
    assert ours == {"rollbook", "rollbook.errors", "rollbook.version"}


def test_a_program_that_stays_has_nothing_of_ours_left_to_load(synced):
    """It may have no file descriptors left when it first archives a thread."""
    code = f"""
import sys
from datetime import timedelta
from rollbook import LogEntry, LogQuery, SortKey, StateRuntime, ThreadMetadataBuilder
from rollbook.testing import DEFAULT_TIME, token_count
with StateRuntime.open(sys.argv[1]) as state:
    before = set(sys.modules)
    thread = state.get_thread({ID!r})
    state.sync()
    state.list_threads(9)
    state.get_dynamic_tools(thread.id)
    state.resolve_thread_id(thread.id[:9])
    state.lineage(thread.id)
    state.tag_thread(thread.id, ["a"])
    state.relocate("/old", "/new")
    state.projects()
    state.list_threads(9, project="a", tags=["a"])
    state.prune(timedelta(days=1), dry_run=True)
    state.archive_thread(thread.id)
    thread = state.unarchive_thread(thread.id)
    state.mark_archived(thread.id, thread.rollout_path, DEFAULT_TIME)
    builder = ThreadMetadataBuilder(thread.id, thread.rollout_path, DEFAULT_TIME)
    state.apply_rollout_items(builder, [{{"type": "event_msg", "payload": {{}}}}])
    state.reconcile_rollout(thread.rollout_path)
    state.insert_log(LogEntry(1, 0, "INFO", "here"))
    state.query_logs(LogQuery())
    next(state.watch())
late = [name for name in set(sys.modules) - before if name.startswith("rollbook")]
assert not late, late
"""
    run(code, synced)


def test_what_type_checkers_see_is_what_is_loaded():
    seen: dict[str, tuple[str, ...]] = {}
    tree = ast.parse(Path(rollbook.__file__).read_text("utf-8"))
    [checked] = [node for node in tree.body if isinstance(node, ast.If)]
    for node in checked.body:
        assert isinstance(node, ast.ImportFrom)
        seen[node.module] = tuple(alias.name for alias in node.names)
    assert seen.pop("rollbook") == ("items",)
    assert seen == {f"rollbook.{name}": names for name, names in rollbook._DEFINED_IN.items()}


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'rollbook' has no attribute 'Threads'"):
        _ = rollbook.Threads
    with pytest.raises(ImportError):
        exec("from rollbook import Threads")
