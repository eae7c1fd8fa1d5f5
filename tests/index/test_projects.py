"""Threads by project: one repository, however it is reached, wherever it is."""

import subprocess
from pathlib import Path

import apsw
import pytest

import rollbook
from rollbook import UsageKey
from rollbook.errors import UsageError
from rollbook.git import main_work_tree
from rollbook.model.project import project_of
from rollbook.testing import session_meta, token_count, user_message, write_rollout
from tests.conftest import index_of, run_sql


def id_of(number):
    return f"{number:08x}-0000-4000-8000-000000000000"


@pytest.fixture
def places(home, state, tmp_path):
    """Threads in a repository with a remote, in one without, in a linked work tree, and in none."""
    local, linked, plain = tmp_path / "local", tmp_path / "linked", tmp_path / "plain"
    (local / "deep" / "down").mkdir(parents=True)
    plain.mkdir()
    git = ["git", "-C", str(local), "-c", "user.name=a", "-c", "user.email=a@host"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "First"], check=True)
    subprocess.run([*git, "worktree", "add", "-q", str(linked)], check=True)
    threads = [
        ("/gone/it", "git@example.com:me/it.git"),
        ("/other/it", "https://user@example.com/me/it"),
        ("/gone/it", "https://example.com/you/it"),
        (local, None),
        (local / "deep" / "down", None),
        (linked, None),
        (plain, None),
        (plain / "gone" / "too", None),
    ]
    for number, (cwd, origin) in enumerate(threads):
        payload = {"cwd": str(cwd)} | ({"git": {"repository_url": origin}} if origin else {})
        lines = [session_meta(id_of(number), **payload), user_message("Here"), token_count(1)]
        write_rollout(home, id_of(number), lines, time=f"2026-01-27T12-34-{number:02}")
    state.sync()
    return tmp_path


def listed(state, project):
    return {int(thread_id[:8], 16) for thread_id in state.list_thread_ids(99, project=project)}


def test_threads_are_grouped_by_repository_else_by_directory(places, state):
    found = {project.key: project for project in state.projects()}
    assert {key: project.threads for key, project in found.items()} == {
        "example.com/me/it": 2,
        "example.com/you/it": 1,
        str(places / "local"): 3,
        str(places / "plain"): 1,
        str(places / "plain" / "gone" / "too"): 1,
    }
    ours = found["example.com/me/it"]
    assert set(ours.directories) == {"/gone/it", "/other/it"}
    assert "example.com" in ours.origin
    assert found[str(places / "local")].origin is None


def test_a_list_takes_a_key_the_end_of_one_and_a_directory(places, state, monkeypatch):
    assert listed(state, "example.com/me/it") == listed(state, "me/it") == {0, 1}
    assert listed(state, "/gone/it") == {0, 1, 2}
    assert listed(state, str(places / "local" / "deep")) == {3, 4, 5}
    assert listed(state, str(places / "linked")) == {3, 4, 5}
    assert listed(state, str(places / "plain")) == {6}
    assert listed(state, "no/such") == listed(state, "/no/such") == listed(state, "t") == set()
    monkeypatch.chdir(places / "local")
    assert 4 in listed(state, ".")
    with pytest.raises(UsageError, match=r"example\.com/me/it, example\.com/you/it"):
        listed(state, "it")


def test_archived_and_silent_threads_are_told_apart(home, places, state):
    state.archive_thread(id_of(1))
    write_rollout(home, id_of(99), [session_meta(id_of(99), cwd="/silent")])
    state.sync()
    found = {project.key: project for project in state.projects()}
    ours = found["example.com/me/it"]
    assert (ours.threads, ours.archived_threads) == (1, 1)
    assert "/silent" not in found
    assert listed(state, "me/it") == {0}
    assert state.list_thread_ids(9, archived_only=True, project="me/it") == [id_of(1)]


def test_search_and_usage_go_by_project_too(places, state):
    state.relocate(places / "plain", places / "local" / "moved")
    rows = {row.keys[0]: row.requests for row in state.usage([UsageKey.PROJECT]).rows}
    assert rows[str(places / "local")] == 5
    assert rows["example.com/me/it"] == 2
    assert state.usage([UsageKey.MODEL], project="me/it").total.requests == 2
    [project] = [p for p in state.projects() if p.key == str(places / "local")]
    assert project.threads == 5
    assert listed(state, str(places / "local" / "moved")) >= {6, 7}


def test_a_thread_that_gets_another_remote_gets_another_project(home, places, state):
    lines = [session_meta(id_of(6), cwd="/x", git={"repository_url": "https://h/a/b"})]
    write_rollout(home, id_of(6), [*lines, user_message("Here")], time="2026-01-27T12-34-06")
    state.sync()
    assert listed(state, "a/b") == {6}


def test_an_index_of_before_projects_knows_them(places, state):
    """What the migration makes of the groups of an older release is what indexing makes."""
    state.close()
    database = str(index_of(state))
    directory = Path(rollbook.__file__).parent / "store" / "migrations" / "sqlite" / "state"
    old = Path(database).with_name("old.sqlite")
    with apsw.Connection(str(old)) as connection:
        for file in sorted(directory.glob("*.sql"))[:5]:
            connection.execute(file.read_text()).fetchall()
        connection.execute("ATTACH ? AS now", (database,)).fetchall()
        columns = [row[1] for row in connection.execute("PRAGMA main.table_info(threads)")]
        names = ", ".join(columns)
        connection.execute(f"INSERT INTO threads ({names}) SELECT {names} FROM now.threads")
        connection.execute(
            "INSERT INTO thread_groups (archived, has_user_event, source, model_provider, cwd)"
            " SELECT DISTINCT archived, has_user_event, source, model_provider, cwd FROM threads"
        ).fetchall()
        connection.execute(
            "UPDATE threads SET group_id = (SELECT id FROM thread_groups AS g"
            " WHERE g.archived = threads.archived AND g.has_user_event = threads.has_user_event"
            " AND g.source = threads.source AND g.model_provider = threads.model_provider"
            " AND g.cwd = threads.cwd)"
        ).fetchall()
        connection.execute((directory / "0006_annotations.sql").read_text()).fetchall()
    sql = """
        SELECT threads.id, g.archived, g.has_user_event, g.source, g.model_provider, g.cwd, g.origin
        FROM threads JOIN thread_groups AS g ON g.id = threads.group_id ORDER BY threads.id
    """
    assert run_sql(old, sql) == run_sql(database, sql)


@pytest.mark.parametrize(
    ("origin", "key"),
    [
        ("git@example.com:me/it.git", "example.com/me/it"),
        ("ssh://git@Example.com:2222/me/it.git/", "example.com/me/it"),
        ("https://example.com/me/group/it", "example.com/me/group/it"),
        ("/srv/git/it.git", "/srv/git/it.git"),
        ("  ", "/cwd"),
        (None, "/cwd"),
    ],
)
def test_a_remote_names_the_repository_however_it_is_reached(origin, key):
    assert project_of("/cwd", origin) == key


def test_only_a_work_tree_is_one(tmp_path):
    assert main_work_tree("relative") is None
    assert main_work_tree("/no\0such") is None
    assert main_work_tree("/" + "x/" * 200) is None
    submodule = tmp_path / "outer" / "inner"
    (tmp_path / "outer" / ".git" / "modules" / "inner").mkdir(parents=True)
    submodule.mkdir()
    (submodule / ".git").write_text("gitdir: ../.git/modules/inner\n")
    assert main_work_tree(str(submodule / "src")) == str(submodule)
    linked = tmp_path / "linked"
    linked.mkdir()
    (linked / ".git").write_text("gitdir: ../outer/.git/worktrees/linked\n")
    assert main_work_tree(str(linked)) == str(tmp_path / "outer")
