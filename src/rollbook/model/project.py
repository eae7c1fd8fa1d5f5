"""Which project a thread belongs to."""

import re
from datetime import datetime

import msgspec

# A text: whoever only lists threads doesn't need it compiled.
_REMOTE = (
    r"(?i)(?:[a-z][a-z0-9+.-]*://)?(?:[^/@]*@)?"
    r"(?P<host>[^/:@]+)(?::\d+)?[:/]+(?P<path>.+?)(?:\.git)?/*"
)


def project_of(cwd: str, git_origin_url: str | None) -> str:
    """Name the project of a thread: its repository, however it is reached, else its directory.

    ``git@example.com:me/it.git`` and ``https://example.com/me/it`` are both ``example.com/me/it``.
    """
    origin = (git_origin_url or "").strip()
    match = re.fullmatch(_REMOTE, origin)
    if match and not origin.startswith(("/", ".", "file:")):
        return f"{match['host'].lower()}/{match['path'].strip('/')}"
    return origin or cwd


class Project(msgspec.Struct, frozen=True):
    """A repository, or a directory that is in none, and the threads of it.

    ``key`` is ``host/owner/name`` of the repository, or the path of its work tree where it has no
    remote, or the directory.  ``directories`` are those that threads have worked in, as they are
    now; ``origin`` is the remote as it was recorded last.
    """

    key: str
    directories: tuple[str, ...]
    origin: str | None
    threads: int
    archived_threads: int
    recency_at: datetime | None
