"""What git knows about a directory, as a session meta tells it (behaviour.md 104)."""

import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

_WAIT_S = 5.0
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
