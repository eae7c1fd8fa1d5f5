"""Look at what a home shares with other hosts, if it does: from the server, and nothing is sent."""

import os
from collections.abc import Iterator
from pathlib import Path

from rollbook.doctor.report import Finding, Status
from rollbook.errors import DatabaseError, UsageError
from rollbook.model.labels import number
from rollbook.rollout.layout import shared_address

_CHECK = "sharing"


def examine_sharing(home: Path, database: str | os.PathLike[str] | None) -> Iterator[Finding]:
    """Say whether the server can be reached, and what it has of this home."""
    address = shared_address(database)
    if address is None:
        return
    try:
        from rollbook.fleet.state import look_at
    except ModuleNotFoundError as error:
        hint = "pip install 'rollbook[postgres]'"
        yield Finding(_CHECK, Status.PROBLEM, f"a server needs {error.name}", hint)
        return
    try:
        seen = look_at(address, home)
    except (DatabaseError, UsageError) as error:
        yield Finding(_CHECK, Status.PROBLEM, error.message, error.hint)
        return
    details = {
        "database": seen.location,
        "host": seen.host,
        "threads": seen.threads,
        "delivered_at": seen.delivered_at or 0,
    }
    if not seen.is_shared:
        hint = "run `rollbook sync --db …` to have it there"
        yield Finding(
            _CHECK, Status.NOTE, f"{seen.location} has nothing of this home", hint, details
        )
        return
    message = f"{seen.location} has {number(seen.threads, 'thread')} of this home, as {seen.host}"
    yield Finding(_CHECK, Status.OK, message, details=details)
