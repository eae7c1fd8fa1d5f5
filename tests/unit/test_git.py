"""What git knows of a directory, asked of the real one (behaviour.md 104)."""

import os
import subprocess
from pathlib import Path

import msgspec
import pytest

from rollbook import GitFacts, RolloutRecorder, StateRuntime, git
from rollbook.git import git_facts


def run_git(directory: Path, *words: str) -> str:
    """Run git with no settings but its own; returns what it says."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(directory),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_AUTHOR_NAME": "a",
        "GIT_AUTHOR_EMAIL": "a@host",
        "GIT_COMMITTER_NAME": "a",
        "GIT_COMMITTER_EMAIL": "a@host",
    }
    done = subprocess.run(
        ["git", "-C", str(directory), *words],
        env=environment,
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    return done.stdout.strip()


@pytest.fixture(autouse=True)
def no_outer_repository(monkeypatch, tmp_path):
    """No repository above the test's own directory counts."""
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))


@pytest.fixture
def empty(tmp_path) -> Path:
    """A repository without a commit, on the branch ``trunk``."""
    path = tmp_path / "work"
    path.mkdir()
    run_git(path, "init", "--quiet", "--initial-branch=trunk")
    return path


@pytest.fixture
def repository(empty) -> Path:
    """A repository with one commit."""
    run_git(empty, "commit", "--quiet", "--allow-empty", "--message", "first")
    return empty


def test_commit_branch_and_remote_are_told(repository):
    run_git(repository, "remote", "add", "origin", "https://host/project.git")
    sha = run_git(repository, "rev-parse", "HEAD")
    assert git_facts(repository) == GitFacts(sha, "trunk", "https://host/project.git")


def test_a_directory_inside_of_a_work_tree_is_enough(repository):
    inside = repository / "a b" / "ü"
    inside.mkdir(parents=True)
    assert git_facts(inside) == git_facts(repository) != None  # noqa: E711


def test_a_detached_head_is_on_no_branch(repository):
    run_git(repository, "checkout", "--quiet", "--detach")
    assert git_facts(repository) == GitFacts(run_git(repository, "rev-parse", "HEAD"))


def test_a_repository_without_commits_has_a_branch_only(empty):
    assert git_facts(empty) == GitFacts(branch="trunk")


def test_a_remote_that_is_not_called_origin_is_not_told(repository):
    run_git(repository, "remote", "add", "upstream", "https://host/project.git")
    assert git_facts(repository).repository_url is None


def test_a_branch_may_have_any_name(repository):
    run_git(repository, "checkout", "--quiet", "-b", "feature/zażółć-青")
    assert git_facts(repository).branch == "feature/zażółć-青"


def test_a_linked_work_tree_has_its_own_branch(repository, tmp_path):
    run_git(repository, "worktree", "add", "--quiet", "-b", "side", str(tmp_path / "side"))
    assert git_facts(tmp_path / "side").branch == "side"


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("https://user:secret@host/x.git", "https://user@host/x.git"),
        ("https://user:s%40c:ret@host/x.git", "https://user@host/x.git"),
        ("https://user:sec@ret@host/x.git", "https://user@host/x.git"),
        ("https://:secret@host/x", "https://@host/x"),
        ("https://user:@host/x", "https://user@host/x"),
        ("ssh://git:secret@host:2222/x", "ssh://git@host:2222/x"),
        ("ssh://git@host:2222/x", "ssh://git@host:2222/x"),
        ("git@host:group/x.git", "git@host:group/x.git"),
        ("https://host:8443/@scope/x", "https://host:8443/@scope/x"),
        ("https://host/a:b@c", "https://host/a:b@c"),
        ("file:///srv/a:b@c", "file:///srv/a:b@c"),
        ("/srv/x", "/srv/x"),
        ("../x", "../x"),
    ],
)
def test_a_password_in_the_remote_is_left_out_and_nothing_else_is(repository, address, told):
    run_git(repository, "config", "remote.origin.url", address)
    assert git_facts(repository).repository_url == told


def test_outside_of_a_repository_nothing_is_told(tmp_path):
    assert git_facts(tmp_path) is None


def test_a_directory_that_is_not_there_tells_nothing(tmp_path):
    assert git_facts(tmp_path / "missing") is None
    (tmp_path / "file").write_text("")
    assert git_facts(tmp_path / "file") is None


def test_without_git_on_the_path_nothing_is_told(repository, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_facts(repository) is None
    (tmp_path / "git").write_text("no program")
    assert git_facts(repository) is None
    (tmp_path / "git").chmod(0o755)
    assert git_facts(repository) is None


def test_a_git_that_never_answers_is_not_waited_for(repository, monkeypatch, tmp_path):
    os.mkfifo(tmp_path / "never")
    (tmp_path / "git").write_text(f"#!/bin/sh\nread x < {tmp_path}/never\n")
    (tmp_path / "git").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(git, "_WAIT_S", 0.01)
    assert git_facts(repository) is None


def test_a_damaged_repository_tells_nothing_false(repository):
    (repository / ".git" / "HEAD").write_text("nonsense")
    assert git_facts(repository) is None


def test_the_session_meta_has_what_git_knows_and_no_more(repository, tmp_path, home):
    run_git(repository, "remote", "add", "origin", "https://user:secret@host/project.git")
    sha = run_git(repository, "rev-parse", "HEAD")
    with StateRuntime.open(home, backfill=False) as state:
        with RolloutRecorder.create(state, cwd=repository) as recorder:
            first = msgspec.json.decode(recorder.rollout_path.read_bytes().splitlines()[0])
        assert first["payload"]["git"] == {
            "commit_hash": sha,
            "branch": "trunk",
            "repository_url": "https://user@host/project.git",
        }
        thread = state.get_thread(recorder.thread_id)
        assert (thread.git_sha, thread.git_branch) == (sha, "trunk")
        with RolloutRecorder.create(state, cwd=tmp_path) as outside:
            assert b'"git"' not in outside.rollout_path.read_bytes()
        with RolloutRecorder.create(state, cwd=repository, git=False) as unasked:
            assert b'"git"' not in unasked.rollout_path.read_bytes()
        with RolloutRecorder.fork(state, recorder.thread_id) as fork:
            assert fork.rollout_path.read_bytes().count(sha.encode()) == 2
