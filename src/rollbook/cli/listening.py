"""Where a server of Rollbook listens, and the token that its callers need."""

import os
import re
import secrets
import socket

from rollbook.errors import UsageError

_TOKEN = re.compile(r"[A-Za-z0-9_-]{16,}", re.ASCII)


def listen(host: str, port: int) -> socket.socket:
    """Listen on an address, or the first that a name has; port 0 takes a free one.

    Errors: UsageError where that isn't possible.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        family, _, _, _, address = found[0]
        listening = socket.socket(family)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(address)
            listening.listen()
        except OSError:
            listening.close()
            raise
    except OSError as error:
        raise UsageError(
            f"{host} port {port} can't be used: {error.strerror}", hint="--port 0 takes a free one"
        ) from error
    return listening


def token_of(variable: str) -> tuple[str, bool]:
    """Take the token from a variable of the environment, or make one; says whether it was given.

    Errors: UsageError for one that is no good.
    """
    given = os.environ.get(variable, "")
    if given and not _TOKEN.fullmatch(given):
        raise UsageError(
            f"{variable} is too short, or has something else than letters, digits, - and _",
            hint="16 characters or more",
        )
    return given or secrets.token_urlsafe(32), bool(given)
