"""The rows of a damaged log database into the new one, as logs can't be made again."""

import logging
import threading
import time
from itertools import islice
from pathlib import Path

from rollbook.errors import DatabaseDamagedError, DatabaseError
from rollbook.model.log import LogEntry, LogQuery
from rollbook.store import logs
from rollbook.store.carry_over import readable_rows
from rollbook.store.engine import LOGS
from rollbook.store.sqlite import SqliteEngine
from rollbook.store.sqlite_file import is_ours, needed, pending_files
from rollbook.telemetry import ERRORS, count

_AT_ONCE = 250
_PAUSE_S = 0.001  # between two batches, so that who logs gets a turn
_ROOM = 1_000_000  # ids that may be given between a look at the damaged file and its replacement
_LARGEST_ID = 1 << 60
_log = logging.getLogger(__name__)


def begin_anew(path: Path, damage: DatabaseDamagedError) -> bool:
    """Set a damaged log database aside and begin a new one, whose ids go on behind the old ones.

    False where the file can't be taken for Rollbook's.
    Errors: DatabaseBusyError, DatabaseUnwritableError.
    """
    if not is_ours(path):
        return False
    after = _last_id(path)
    kept = SqliteEngine.replace(path, LOGS, damage, lambda tx: logs.begin_after(tx, after))
    if kept is not None:
        count(ERRORS, rollbook_stage="damage", error_type=type(damage).__name__)
        _log.warning("%s: it is kept as %s, and its rows are carried over", damage, kept.name)
    return True


def carry_over(engine: SqliteEngine, stop: threading.Event) -> None:
    """Carry over what can be read of damaged files, and log how much that is.

    Goes on where a killed process was at; returns early when it is to stop.
    """
    for kept in pending_files(Path(engine.location)):
        try:
            with needed(kept) as is_mine:
                if is_mine and not _carry_over_file(engine, kept, stop):
                    return
        except FileNotFoundError:
            continue  # another process has just done it


def _carry_over_file(engine: SqliteEngine, kept: Path, stop: threading.Event) -> bool:
    """Carry over one file; says whether that was done to its end."""
    first, last, found = _LARGEST_ID, 0, 0
    with engine.read() as tx:
        rows = readable_rows(tx, "logs", kept)
    while batch := list(islice(rows, _AT_ONCE)):
        sane = [row for row in batch if 0 < row["id"] < _LARGEST_ID]
        with engine.write() as tx:
            logs.restore(tx, sane)
        found += len(sane)
        first, last = min([first, *(r["id"] for r in sane)]), max([last, *(r["id"] for r in sane)])
        if stop.wait(_PAUSE_S):
            return False
    lost = max(0, last - first + 1 - found)
    message = (
        f"the log database was damaged: {found} rows were carried over, at most {lost} others"
        f" between them were lost; what is left of it is kept as {kept.name}"
    )
    _log.warning("%s", message)
    now = time.time()
    with engine.write() as tx:
        entry = LogEntry(
            ts=int(now),
            ts_nanos=int(now % 1 * 1_000_000_000),
            level="WARN",
            target=__name__,
            message=message,
            module_path=__name__,
        )
        logs.insert(tx, [entry])
    return True


def _last_id(path: Path) -> int:
    """Find an id that no row of a damaged database is beyond."""
    try:
        engine = SqliteEngine.open(path, LOGS)
        try:
            with engine.read() as tx:
                return logs.max_id(tx, LogQuery()) + _ROOM
        finally:
            engine.close()
    except DatabaseError:
        return int(time.time() * 1000)  # milliseconds: as many rows nobody has written
