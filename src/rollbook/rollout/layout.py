"""Where rollouts lie below a home, and what their names say.

A *rollout path* is relative to the home, with forward slashes, and ends in ``.jsonl`` also where
the file on disk is the compressed one (``.jsonl.zst``), as in Codex.
"""

import errno
import logging
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from functools import lru_cache
from itertools import accumulate
from pathlib import Path, PurePosixPath

import msgspec

from rollbook.errors import HomeError, HomeNotFoundError, InvalidThreadIdError, RolloutError
from rollbook.model.outcome import RolloutFailure
from rollbook.model.thread import parse_thread_id
from rollbook.model.times import parse_time

SESSIONS = "sessions"
ARCHIVED_SESSIONS = "archived_sessions"
ROOTS = (SESSIONS, ARCHIVED_SESSIONS)
SESSION_INDEX = "session_index.jsonl"
PREFIX = "rollout-"
SUFFIX = ".jsonl"
COMPRESSED_SUFFIX = ".jsonl.zst"
_ADDRESSES = ("postgresql://", "postgres://")
_NO_NAMES = frozenset(("", ".", ".."))
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
_TIME_LENGTH = len("2026-01-27T12-34-56")
_ID_LENGTH = 36
_log = logging.getLogger(__name__)
_MAX_INTEGER = (1 << 63) - 1  # databases have no larger ones


class RolloutName(msgspec.Struct, frozen=True, order=True):
    """What a rollout's file name says: time of creation, thread, and segment ("" for the first)."""

    created_at: datetime
    thread_id: str
    segment: str


class RolloutFile(msgspec.Struct, frozen=True):
    """A rollout on disk: its rollout path, whether it is compressed, and its file state.

    ``size`` is in bytes as on disk, ``mtime_ns`` in nanoseconds since the epoch.
    """

    path: str
    compressed: bool
    size: int
    mtime_ns: int
    inode: int


def resolve_home(home: str | os.PathLike[str] | None = None) -> Path:
    """Return the absolute path of the home: as given, else ``CODEX_HOME``, else ``~/.codex``.

    Errors: HomeNotFoundError where nothing is there, HomeError where it is no directory.
    """
    path = Path(home or os.environ.get("CODEX_HOME") or Path.home() / ".codex").expanduser()
    path = Path(os.path.abspath(path))
    try:
        is_directory = path.is_dir()
        exists = is_directory or path.exists()
    except OSError as error:
        raise HomeError(f"the home {path} can't be read: {error.strerror}") from error
    hint = "name a CODEX_HOME directory with --home or in the environment"
    if not exists:
        raise HomeNotFoundError(f"there is no home at {path}", hint=hint)
    if not is_directory:
        raise HomeError(f"the home {path} is not a directory", hint=hint)
    return path


def state_path(home: Path | None, database: str | os.PathLike[str] | None = None) -> Path:
    """Where a home's own state database is: as given, else ``ROLLBOOK_DB``, else in the home.

    It is in the home, too, where an address is given: of what many hosts share.
    """
    location = database or os.environ.get("ROLLBOOK_DB")
    if not location or shared_address(location):
        return (home or resolve_home()) / "rollbook" / "state.sqlite"
    return Path(os.path.abspath(Path(location).expanduser()))


def shared_address(database: str | os.PathLike[str] | None = None) -> str | None:
    """Give the address of what many hosts share, if one is given, or is in ``ROLLBOOK_DB``."""
    location = os.fspath(database or os.environ.get("ROLLBOOK_DB") or "")
    return location if location.startswith(_ADDRESSES) else None


def newest_of(databases: Iterable[Path], kind: str) -> Path | None:
    """Choose the database of a kind, such as ``state``, that the agent's newest release keeps."""
    form = re.compile(rf"{kind}(?:_(\d{{1,9}}))?\.sqlite", re.ASCII)
    numbered = {
        int(match[1] or 0): path for path in databases if (match := form.fullmatch(path.name))
    }
    return numbered[max(numbered)] if numbered else None


def beside_state(state: Path, name: str) -> Path:
    """Where a file of a state is that isn't its database: beside that, and named after it.

    ``logs.sqlite`` is beside ``state.sqlite``, and ``other.logs.sqlite`` beside ``other.sqlite``.
    """
    return state.with_name(name if state.name == "state.sqlite" else f"{state.stem}.{name}")


def is_rollout_name(name: str) -> bool:
    """Say whether a file name has the shape of a rollout's, plain or compressed."""
    return name.startswith(PREFIX) and name.endswith((SUFFIX, COMPRESSED_SUFFIX))


def plain_name(name: str) -> str:
    """Take the ``.zst`` off a compressed rollout's name or path."""
    return name.removesuffix(".zst")


def parse_rollout_name(name: str) -> RolloutName | None:
    """Split ``rollout-<time>-<uuid>[_<segment>].jsonl[.zst]``; None where it doesn't fit.

    Source: behaviour.md 13; segments as later releases write them.
    """
    if not is_rollout_name(name):
        return None
    core = plain_name(name).removeprefix(PREFIX).removesuffix(SUFFIX)
    time_text, rest = core[:_TIME_LENGTH], core[_TIME_LENGTH:]
    id_text, _, segment = rest[1:].partition("_")
    created_at = parse_time(time_text)
    if created_at is None or not rest.startswith("-") or len(id_text) != _ID_LENGTH:
        return None
    try:
        return RolloutName(created_at, parse_thread_id(id_text), segment)
    except InvalidThreadIdError:
        return None


def position_key(path: str) -> str:
    """What names a rollout wherever it is moved: what follows the time in its file's name."""
    core = plain_name(path.rpartition("/")[2]).removeprefix(PREFIX).removesuffix(SUFFIX)
    return core[_TIME_LENGTH + 1 :] or core


def is_archived_path(path: str) -> bool:
    """Say whether a rollout path lies in the archive: the place decides."""
    return path.startswith(ARCHIVED_SESSIONS + "/")


def archived_path(path: str) -> str:
    """Where a rollout goes when it is archived (behaviour.md 143)."""
    return f"{ARCHIVED_SESSIONS}/{PurePosixPath(path).name}"


def unarchived_path(path: str) -> str | None:
    """Where a rollout goes when it is unarchived: by the date in its name (behaviour.md 144).

    None where the name has no date.
    """
    name = PurePosixPath(path).name
    match = re.match(r"rollout-(\d{4})-(\d\d)-(\d\d)T", name, re.ASCII)
    return f"{SESSIONS}/{'/'.join(match.groups())}/{name}" if match else None


def new_rollout_path(home: Path, thread_id: str, now: datetime) -> Path:
    """Where a new thread is recorded: by local time, of which ``now`` is (behaviour.md 13, 101).

    Errors: as :func:`file_below`.
    """
    name = f"{PREFIX}{now:%Y-%m-%dT%H-%M-%S}-{thread_id}{SUFFIX}"
    return file_below(home, f"{SESSIONS}/{now:%Y/%m/%d}/{name}")


def file_below(home: Path, path: str) -> Path:
    """Give the file of a rollout path, be it there or not; see :func:`place_below`."""
    return Path(place_below(home, path))


def place_below(home: Path, path: str) -> str:
    """Turn a rollout path into the file that may be opened or made, be it there or not.

    The home and its roots may be links, as people keep these on other disks; nothing below is
    followed.  Errors: RolloutError for a path that leads, or may lead, out of the home.
    """
    directory, slash, name = path.rpartition("/")
    directories = _directories_to(directory) if slash else ()
    if directories is None or name in _NO_NAMES or "\0" in path:
        raise RolloutError("is no path below the home", path=path)
    base = str(home)
    try:
        for each in directories:
            if stat.S_ISLNK(os.lstat(base + each).st_mode):
                raise RolloutError("is behind a symbolic link, which is not followed", path=path)
    except (OSError, ValueError):
        pass  # nothing is there, or can be: whoever opens it is told why
    return f"{base}/{path}"


@lru_cache
def _directories_to(directory: str) -> tuple[str, ...] | None:
    """List the directories on the way to one, below a root or the home; None where it is no way.

    They begin with a slash, as what follows the home.
    """
    parts = directory.split("/")
    if not _NO_NAMES.isdisjoint(parts):
        return None
    places = accumulate(parts, lambda place, part: f"{place}/{part}", initial="")
    return tuple(place for place in places if place and place[1:] not in ROOTS)


def locate(home: Path, path: str) -> Path | None:
    """Find the file of a rollout path: the plain one, else the compressed one, else None."""
    found = _look(home, path)
    return Path(found[0]) if found else None


def stat_rollout(home: Path, path: str) -> RolloutFile | None:
    """Look a single rollout path up on disk; None where there is no such file that can be read."""
    found = _look(home, path)
    if found is None or abs(found[1].st_mtime_ns) > _MAX_INTEGER:
        return None
    return _rollout_file(path, found[0].endswith(COMPRESSED_SUFFIX), found[1])


def _look(home: Path, path: str) -> tuple[str, os.stat_result] | None:
    """Find the file of a rollout path and its state; None where nothing is there, or can be."""
    try:
        return look(place_below(home, path))
    except RolloutError:
        return None


def look(place: str) -> tuple[str, os.stat_result] | None:
    """Find a rollout by its absolute path, plain or compressed; None where none is there."""
    for file in (place, f"{place}.zst"):
        try:
            status = os.lstat(file)
        except (OSError, ValueError):  # a name may also be too long, or impossible
            continue
        if stat.S_ISREG(status.st_mode):
            return file, status
    return None


def find_rollouts(home: Path, thread_id: str) -> list[str]:
    """Find the rollout paths of a thread by file name, archived ones last.

    Reads directories only, no rollout.  Empty where there is none.
    """
    found: set[str] = set()
    for root in ROOTS:
        for entry, path in _entries(home, root, _log_failure):
            if thread_id in entry.name.lower() and _is_regular_rollout(entry):
                name = parse_rollout_name(entry.name)
                if name and name.thread_id == thread_id:
                    found.add(plain_name(path))
    return sorted(found, key=lambda path: (is_archived_path(path), path))


def choose_files(thread_id: str, candidates: list[RolloutFile]) -> list[RolloutFile]:
    """Choose and order the files that make a thread: the first one, then its later segments.

    Of copies with the same name the archived one counts (behaviour.md 118), else the newest.  A
    file whose name says that it is another thread's counts only where there is no other.
    """
    by_name: dict[str, RolloutFile] = {}
    for file in sorted(candidates, key=lambda file: (is_archived_path(file.path), file.mtime_ns)):
        by_name[PurePosixPath(file.path).name] = file
    heads, segments, others = [], [], []
    for name, file in sorted(by_name.items()):
        parsed = parse_rollout_name(name)
        if parsed is None or parsed.thread_id != thread_id:
            others.append(file)
        elif parsed.segment:
            segments.append(file)
        else:
            heads.append(file)
    return heads[-1:] + segments or others[-1:]


def _log_failure(failure: RolloutFailure) -> None:
    _log.info("passed over while looking for a thread: %s %s", failure.path, failure.message)


class HomeListing(msgspec.Struct):
    """All rollouts of a home at one moment.

    ``files`` by rollout path; ``failures`` are what looks like a rollout and can't be one;
    ``complete_roots`` are the roots that could be read through, so that what they don't hold is
    really gone.
    """

    files: dict[str, RolloutFile]
    failures: list[RolloutFailure]
    complete_roots: tuple[str, ...]


def newest_rollouts(home: Path, count: int) -> list[RolloutFile]:
    """Find at least so many of the newest active rollouts, if there are, without walking the rest.

    Newest by the directories, which are called by date.
    """
    files: dict[str, RolloutFile] = {}
    directory = ""
    for entry, path in _entries(home, SESSIONS, _log_failure):
        before, directory = directory, path.rpartition("/")[0]
        if len(files) >= count and directory != before:
            break
        if _is_regular_rollout(entry):
            _add_file(files, entry, path, _log_failure)
    return list(files.values())


def list_rollouts(home: Path) -> HomeListing:
    """Walk both roots, at any depth, without following links and without opening a file.

    Where a plain and a compressed file stand side by side, the plain one counts.
    Source: behaviour.md 116.
    """
    files: dict[str, RolloutFile] = {}
    failures: list[RolloutFailure] = []
    complete: list[str] = []
    for root in ROOTS:
        failures_before = len(failures)
        for entry, path in _entries(home, root, failures.append):
            if _is_regular_rollout(entry):
                _add_file(files, entry, path, failures.append)
        unreadable = any(failure.path.endswith("/") for failure in failures[failures_before:])
        if os.path.isdir(home / root) and not unreadable:
            complete.append(root)
    return HomeListing(files, failures, tuple(complete))


def _add_file(
    files: dict[str, RolloutFile],
    entry: "os.DirEntry[str]",
    path: str,
    report: Callable[[RolloutFailure], None],
) -> None:
    compressed = entry.name.endswith(COMPRESSED_SUFFIX)
    plain = plain_name(path)
    if compressed and plain in files:
        return
    try:
        status = entry.stat(follow_symlinks=False)
    except FileNotFoundError:
        return  # moved or removed while we looked
    except OSError as error:
        report(RolloutFailure(path, f"can't be read: {error.strerror}"))
        return
    if abs(status.st_mtime_ns) > _MAX_INTEGER:
        report(RolloutFailure(path, "has a modification time that is out of range"))
        return
    files[plain] = _rollout_file(plain, compressed, status)


def _rollout_file(path: str, compressed: bool, status: os.stat_result) -> RolloutFile:
    inode = status.st_ino & _MAX_INTEGER
    return RolloutFile(path, compressed, status.st_size, status.st_mtime_ns, inode)


def _is_regular_rollout(entry: "os.DirEntry[str]") -> bool:
    return is_rollout_name(entry.name) and entry.is_file(follow_symlinks=False)


def _entries(
    home: Path, root: str, report: Callable[[RolloutFailure], None]
) -> Iterator[tuple["os.DirEntry[str]", str]]:
    """Yield every file below a root with its path; report what can't be walked or is a link.

    The directory with the greatest name comes first.  The failure of a directory has a path that
    ends in a slash.
    """
    pending = [root]
    while pending:
        directory = pending.pop()
        below = len(pending)
        for entry in _children(home, directory, report):
            path = f"{directory}/{entry.name}"
            if not path.isprintable() and not _is_unicode(path):
                report(RolloutFailure(ascii(path)[1:-1], "has a name that is not valid UTF-8"))
            elif entry.is_symlink():
                if is_rollout_name(entry.name) or _links_to_directory(entry):
                    report(RolloutFailure(path, "is a symbolic link, which is not followed"))
            elif not entry.is_dir(follow_symlinks=False):
                yield entry, path
            elif is_rollout_name(entry.name):
                report(RolloutFailure(path, "is a directory, not a file"))
            else:
                pending.append(path)
        pending[below:] = sorted(pending[below:])


def _children(
    home: Path, directory: str, report: Callable[[RolloutFailure], None]
) -> list["os.DirEntry[str]"]:
    try:
        with os.scandir(home / directory) as entries:
            return list(entries)
    except FileNotFoundError:
        return []
    except OSError as error:
        if error.errno in _EXHAUSTED:  # which says nothing about the directory
            raise RolloutError(
                f"can't be listed: {error.strerror}",
                path=directory + "/",
                hint="close some files, or raise `ulimit -n`",
            ) from error
        report(RolloutFailure(directory + "/", f"can't be listed: {error.strerror}"))
        return []


def _is_unicode(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def _links_to_directory(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a loop
        return True
