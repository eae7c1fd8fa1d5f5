"""Look at databases: Rollbook's own, whose files they are, and those that the agent keeps."""

import os
import pwd
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rollbook.content.database import content_beside
from rollbook.doctor.report import Finding, Status, about_paths
from rollbook.errors import DatabaseBusyError, DatabaseDamagedError, DatabaseError
from rollbook.filesystem import is_network
from rollbook.index.annotation_file import annotations_beside
from rollbook.logs.reader import logs_beside
from rollbook.model.labels import number, size_text
from rollbook.store.engine import CONTENT, LOGS, STATE, Schema
from rollbook.store.migrate import load_migrations
from rollbook.store.snapshot import Examination, examine
from rollbook.store.sqlite_file import (
    COMPANIONS,
    MARK,
    PENDING,
    beside,
    is_ours,
    kept_files,
    size_of,
)

LARGE_WAL_BYTES = 256 << 20  # 16 times what it should be cut down to
_OWN_COMPANIONS = (
    *COMPANIONS,
    ".lock",
    ".open",
    ".sync.lock",
    ".network.lock",
    ".sync.network.lock",
)
_REPAIR = "run `rollbook doctor --repair`"
_SYNC = "run `rollbook sync`"
_NOT_YET = {
    CONTENT.name: "nothing was made searchable yet",
    LOGS.name: "no logs have been written yet",
}
_NOUNS = {"content_files": "rollout"}


def examine_own(state: Path, within_s: float | None) -> Iterator[Finding]:
    """Look at the index, the content and the logs."""
    for check, path, schema in own_databases(state):
        yield from _examine(check, path, schema, within_s)
        yield from _kept(check, path)


def own_databases(state: Path) -> tuple[tuple[str, Path, Schema], ...]:
    """Name the databases that Rollbook keeps for a home: what each is called, where, of which kind."""
    return (
        ("index", state, STATE),
        ("content", content_beside(state), CONTENT),
        ("logs", logs_beside(state), LOGS),
    )


def is_comparable(own: list[Finding]) -> bool:
    """Say whether findings about Rollbook's own databases show an index that this release reads."""
    index = [finding.details for finding in own if finding.check == "index"]
    return any("version" in d and d["version"] == d["newest_version"] for d in index)


def _examine(check: str, path: Path, schema: Schema, within_s: float | None) -> Iterator[Finding]:
    yield from _out_of_reach(check, path, schema)
    if not _can_be_read(path):
        return
    try:
        found = examine(path, within_s)
    except DatabaseDamagedError as error:
        hint = _REPAIR if is_ours(path) else error.hint
        yield Finding(check, Status.DAMAGED, error.message, hint, {"path": str(path)})
    except DatabaseError as error:
        yield Finding(check, Status.PROBLEM, error.message, error.hint, {"path": str(path)})
    else:
        yield _examined(check, path, schema, found)


def _out_of_reach(check: str, path: Path, schema: Schema) -> Iterator[Finding]:
    """Say why there is nothing to look at, where there isn't."""
    details = {"path": str(path)}
    try:
        is_file = stat.S_ISREG(path.stat().st_mode)
    except FileNotFoundError:
        if schema is STATE:
            message = f"there is no index yet at {path}"
            yield Finding(check, Status.PROBLEM, message, _SYNC, details)
        else:
            yield Finding(check, Status.OK, _NOT_YET[schema.name], details=details)
    except OSError as error:
        message = f"{path} can't be looked at: {error.strerror}"
        hint = "check the permissions of the directories above it"
        yield Finding(check, Status.PROBLEM, message, hint, details)
    else:
        if not is_file:
            hint = "move it away, or name another file with --db"
            yield Finding(check, Status.PROBLEM, f"{path} is no file", hint, details)
        elif not os.access(path, os.R_OK):
            message = f"{path} can't be read: it is {_user(path.stat().st_uid)}'s"
            hint = "check the permissions, or name another file with --db"
            yield Finding(check, Status.PROBLEM, message, hint, details)


def _can_be_read(path: Path) -> bool:
    return os.path.isfile(path) and os.access(path, os.R_OK)


def _examined(check: str, path: Path, schema: Schema, found: Examination) -> Finding:
    newest = max(migration.version for migration in load_migrations("sqlite", schema.name))
    version = max(found.versions, default=0)
    rows = ", ".join(
        number(count, _NOUNS.get(name, name.removesuffix("s")))
        for name, count in found.rows.items()
    )
    size = f"{size_text(found.file_bytes)}, write-ahead log {size_text(found.wal_bytes)}"
    text = f"{path}: {rows}; {size}; schema {version}"
    details = _details(path, found) | {"version": version, "newest_version": newest}
    status, hint = Status.PROBLEM, ""
    if not found.versions and not found.application_id and not found.file_bytes:
        text, hint = f"{path} is empty", _SYNC
        status = Status.PROBLEM if schema is STATE else Status.NOTE
    elif found.application_id != schema.application_id and is_ours(path):
        status, hint = Status.DAMAGED, _REPAIR
        text = f"{path} has lost the mark of Rollbook's databases"
    elif found.application_id != schema.application_id:
        text, hint = f"{path} is a database of another program", "name another file with --db"
    elif found.integrity not in {"ok", ""}:
        status, text, hint = Status.DAMAGED, f"{path}: {found.integrity}", _REPAIR
    elif version > newest:
        text = f"{text}, which is newer than this release knows ({newest})"
        hint = "upgrade Rollbook"
    elif found.wal_bytes > LARGE_WAL_BYTES:
        text = f"{text}: the log is too large"
        hint = f"{_REPAIR}; a program that reads for long may be in the way, see the locks"
    elif version < newest:
        status, hint = Status.NOTE, _SYNC
        text = f"{text}, which becomes {newest} when it is next opened"
    elif is_network(path) and found.journal_mode == "wal":
        status, hint = Status.NOTE, _SYNC
        text = f"{text}; still with a write-ahead log, until it is next opened"
    else:
        status = Status.OK
        text += (
            "; sound" if found.integrity else "; sound as far as there was time to look (--full)"
        )
    return Finding(check, status, text, hint, details)


def _details(path: Path, found: Examination) -> dict[str, Any]:
    return {
        "path": str(path),
        "file_bytes": found.file_bytes,
        "wal_bytes": found.wal_bytes,
        "page_bytes": found.page_bytes,
        "journal_mode": found.journal_mode,
        "rows": found.rows,
        "integrity": found.integrity or "partly checked",
    }


def _kept(check: str, path: Path) -> Iterator[Finding]:
    kept = kept_beside(path)
    if not kept:
        return
    names = [file.name for file in kept]
    needed = [file for file in kept if beside(file, PENDING).exists()]
    size = sum(size_of(beside(file, end)) for file in kept for end in ("", *COMPANIONS))
    yield about_paths(
        check,
        Status.NOTE,
        f"{number(len(kept), 'damaged file')} kept beside it, {size_text(size)}",
        names,
        f"rows of it are still to be carried over: {_REPAIR}"
        if needed
        else "nothing needs them; they may be deleted",
    )


def kept_beside(path: Path) -> list[Path]:
    """Find the damaged files that were set aside for a database, as far as one may look."""
    try:
        return kept_files(path)
    except OSError:
        return []


def examine_permissions(home: Path, state: Path) -> Iterator[Finding]:
    """Look at who may use Rollbook's own files."""
    own = own_files(home, state)
    is_well = bool(own)
    open_to_others = [str(path) for path in own if is_open_to_others(path)]
    owner = _owner(home if state.is_relative_to(home) else state.parent)
    others = [str(path) for path in own if owner is not None and _owner(path) not in {None, owner}]
    unwritable = [str(path) for path in own if not os.access(path, os.W_OK)]
    if open_to_others:
        is_well = False
        message = f"other users of this machine may use {number(len(open_to_others), 'file')}"
        yield about_paths("permissions", Status.PROBLEM, message, open_to_others, _REPAIR)
    if others and owner is not None:
        is_well = False
        message = f"{number(len(others), 'file')} not {_user(owner)}'s, whose home it is"
        hint = f"`chown {_user(owner)}` them: a command may have been run as another user"
        yield about_paths("permissions", Status.PROBLEM, message, others, hint)
    if unwritable:
        is_well = False
        message = f"{number(len(unwritable), 'file')} can't be written: the index stays as it is"
        hint = "check permissions, and whether the disk may only be read"
        yield about_paths("permissions", Status.PROBLEM, message, unwritable, hint)
    if is_well:
        yield Finding("permissions", Status.OK, "Rollbook's files are private to their owner")


def own_files(home: Path, state: Path) -> list[Path]:
    """Find what Rollbook has made: databases, what belongs to them, and its directory.

    Another program's database that was named with --db is none of them.
    """
    found = []
    for _, path, _ in own_databases(state):
        if is_ours(path) or _is_marked(path):
            found += [path, *(beside(path, end) for end in _OWN_COMPANIONS), *kept_beside(path)]
    annotations = annotations_beside(state)
    found += [annotations, beside(annotations, ".lock")]
    if state.parent == home / "rollbook":
        found.append(state.parent)
    return [path for path in found if os.path.exists(path) and not path.is_symlink()]


def is_open_to_others(path: Path) -> bool:
    """Say whether a file or directory can be used by others than its owner."""
    return bool(stat.S_IMODE(path.stat().st_mode) & 0o077)


def agent_databases(home: Path, state: Path) -> list[Path]:
    """Find the databases that the agent keeps in its home."""
    own = {path for _, path, _ in own_databases(state)}
    return [
        path for path in sorted(home.glob("*.sqlite")) if path not in own and os.path.isfile(path)
    ]


def examine_agents(databases: list[Path], within_s: float | None) -> Iterator[Finding]:
    """Look at the databases that the agent keeps; they are only ever read."""
    for path in databases:
        details = {"path": str(path)}
        if not os.access(path, os.R_OK):
            message = f"{path.name} can't be read: it is {_user(path.stat().st_uid)}'s"
            yield Finding("codex", Status.PROBLEM, message, "check its permissions", details)
            continue
        try:
            found = examine(path, within_s)
        except DatabaseBusyError as error:
            yield Finding("codex", Status.NOTE, error.message, details=details)
            continue
        except DatabaseError as error:
            hint = error.hint or "Codex has to mend it; Rollbook only reads it"
            yield Finding("codex", Status.PROBLEM, error.message, hint, details)
            continue
        details = _details(path, found)
        is_sound = found.integrity in {"ok", ""}
        parts = [number(count, name.removesuffix("s")) for name, count in found.rows.items()]
        parts += [size_text(found.file_bytes)]
        parts += [f"write-ahead log {size_text(found.wal_bytes)}"] if found.wal_bytes else []
        yield Finding(
            "codex",
            Status.OK if is_sound else Status.PROBLEM,
            f"{path.name}: {', '.join(parts)}, journal mode {found.journal_mode}"
            + ("" if is_sound else f"; {found.integrity}"),
            "" if is_sound else "Codex has to mend it; Rollbook only reads it",
            details,
        )


def _is_marked(path: Path) -> bool:
    """Say whether a file says of itself that it is a database of Rollbook's."""
    try:
        with open(path, "rb") as file:
            mark = file.read(MARK.stop)[MARK]
    except OSError:
        return False
    return int.from_bytes(mark) in {each.application_id for each in (STATE, CONTENT, LOGS)}


def _owner(path: Path) -> int | None:
    try:
        return path.stat().st_uid
    except OSError:
        return None


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"
