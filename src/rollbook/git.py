"""What git knows about a directory, as a session meta tells it (behaviour.md 104)."""

import os
import re
import stat
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

_WAIT_S = 5.0
_DEEPEST = 100  # directories that are looked at, upwards
_LONGEST_MARKER = 8192
_COMMANDS = (
    ("rev-parse", "HEAD"),
    ("branch", "--show-current"),
    ("remote", "get-url", "origin"),
)
_PASSWORD = re.compile(r"(?<=://)([^/@:]*):[^/]*@")


class GitFacts(msgspec.Struct, frozen=True, omit_defaults=True):
    """Commit, branch and remote of a work tree; what it has none of is None."""

    commit_hash: str | None = None
    branch: str | None = None
    repository_url: str | None = None


def git_facts(directory: Path) -> GitFacts | None:
    """Ask git about a directory, at most 5 s for each question; None outside of a work tree.

    A password in the remote's address is left out.
    """
    with ThreadPoolExecutor(len(_COMMANDS)) as executor:
        commit, branch, url = executor.map(lambda words: _ask(directory, words), _COMMANDS)
    if not (commit or branch or url):
        return None
    return GitFacts(commit, branch, url and _PASSWORD.sub(r"\1@", url))


def main_work_tree(directory: str) -> str | None:
    """Find the root of the work tree that a directory is in, or was; of a linked one the main one.

    Only looks at the disk.  None outside of one, and for what is no absolute path.
    """
    place = directory.rstrip("/")
    for _ in range(_DEEPEST):
        if not place.startswith("/") or "\0" in place:
            return None
        found = _root_at(place)
        if found is not None:
            return found
        place = place.rpartition("/")[0]
    return None


def _root_at(place: str) -> str | None:
    """Say which work tree has its root here; a linked one has a file that says whose it is."""
    marker = f"{place}/.git"
    try:
        if stat.S_ISDIR(os.lstat(marker).st_mode):
            return place
        descriptor = os.open(marker, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            text = os.fsdecode(file.read(_LONGEST_MARKER))
    except (OSError, ValueError):
        return None
    main, is_linked, _ = text.removeprefix("gitdir:").strip().partition("/.git/worktrees/")
    return os.path.normpath(os.path.join(place, main)) if is_linked else place


def _ask(directory: Path, words: tuple[str, ...]) -> str | None:
    try:
        done = subprocess.run(
            ("git", "-C", str(directory), *words),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=_WAIT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):  # no git, or no answer: nothing to tell
        return None
    answer = done.stdout.decode("utf-8", "replace").strip()
    return answer if done.returncode == 0 and answer else None
