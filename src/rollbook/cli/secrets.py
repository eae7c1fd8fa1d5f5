"""Keep passwords out of what everybody on a machine can see: the command lines of its processes."""

import os
import sys
from urllib.parse import urlsplit

_OPTIONS = {
    "--db": "ROLLBOOK_DB",
    "--read-db": "ROLLBOOK_READ_DB",
    "--from": "ROLLBOOK_COPY_FROM",
    "--to": "ROLLBOOK_COPY_TO",
}


def hide_passwords(command_line: list[str]) -> None:
    """Begin anew, with addresses that hold a password in the environment, if any were arguments."""
    hidden = dict[str, str]()
    arguments: list[str] = []
    rest = iter(command_line)
    for argument in rest:
        name, separator, value = argument.partition("=")
        if name in _OPTIONS and not separator:
            value = next(rest, "")
        if name in _OPTIONS and _has_password(value):
            hidden[_OPTIONS[name]] = value
        elif name in _OPTIONS and not separator:
            arguments += [argument, value]
        else:
            arguments.append(argument)
    if hidden:
        os.execve(sys.executable, arguments, os.environ | hidden)


def _has_password(address: str) -> bool:
    try:
        parts = urlsplit(address)
    except ValueError:
        return "password" in address
    return bool(parts.password) or "password" in parts.query
