"""Which project a thread belongs to."""

import re

_REMOTE = re.compile(
    r"(?:[a-z][a-z0-9+.-]*://)?(?:[^/@]*@)?(?P<host>[^/:@]+)(?::\d+)?[:/]+(?P<path>.+?)(?:\.git)?/*",
    re.IGNORECASE,
)


def project_of(cwd: str, git_origin_url: str | None) -> str:
    """Name the project of a thread: its repository, however it is reached, else its directory.

    ``git@example.com:me/it.git`` and ``https://example.com/me/it`` are both ``example.com/me/it``.
    """
    origin = (git_origin_url or "").strip()
    match = _REMOTE.fullmatch(origin)
    if match and not origin.startswith(("/", ".", "file:")):
        return f"{match['host'].lower()}/{match['path'].strip('/')}"
    return origin or cwd
