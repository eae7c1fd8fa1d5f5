"""What tells this machine from all others."""

import os
import socket
from pathlib import Path

_MACHINE_ID = Path("/etc/machine-id")
HOST_VARIABLE = "ROLLBOOK_HOST"


def wanted_name(given: str | None) -> str | None:
    """Say which name was given to this host, if any was; it may be empty."""
    return given if given is not None else os.environ.get(HOST_VARIABLE)


def machine() -> str:
    """Give the machine's name."""
    return socket.gethostname() or "localhost"


def machine_identity() -> str:
    """Give what no other machine has, though one may be a copy of the other."""
    try:
        machine_id = _MACHINE_ID.read_text("ascii").strip()
    except (OSError, UnicodeDecodeError):
        machine_id = ""
    return f"{machine()} {machine_id}".strip()
