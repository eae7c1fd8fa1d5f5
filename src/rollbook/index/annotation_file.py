"""The file of annotations: what a person has said of threads, one line each, oldest first.

It stands beside the database, and can't be derived again.  So it is only appended to, whole lines,
on the device before anybody is told so; only a deletion writes it anew, beside itself, and then
takes its place.  Lines that this release doesn't understand stay.
"""

import logging
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from rollbook.errors import AnnotationsError, InvalidThreadIdError
from rollbook.filesystem import make_private, open_regular, sync_directory
from rollbook.index.lock import held, lock_path
from rollbook.model.annotation import Line, canonical
from rollbook.model.thread import parse_thread_id
from rollbook.rollout.layout import beside_state

_WAIT_S = 30.0
_log = logging.getLogger(__name__)
_decoder = msgspec.json.Decoder(Line)
_Result = TypeVar("_Result")


class AnnotationFile:
    """The file at a path, be it there or not."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def look(self) -> tuple[int, int]:
        """Size in bytes and mtime in nanoseconds, (-1, -1) where there is no file."""
        try:
            status = self.path.lstat()
        except OSError:
            return -1, -1
        return status.st_size, status.st_mtime_ns

    def read(self) -> list[Line]:
        """Read all lines that can be understood; none where there is no file.

        The end of one that is still being written is none.  Errors: AnnotationsError.
        """
        return [line for raw in self._raw_lines() if (line := _decode(raw)) is not None]

    def append(self, lines: Sequence[Line]) -> None:
        """Add lines; they outlast whatever happens afterwards.

        Errors: AnnotationsError, DatabaseBusyError, DatabaseUnwritableError.
        """
        data = b"".join(msgspec.json.encode(line) + b"\n" for line in lines)
        with self._changing():
            is_new = not self.path.exists()
            descriptor = open_regular(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT)
            try:
                _repair(descriptor)
                size = os.fstat(descriptor).st_size
                written = os.write(descriptor, data)
                if written != len(data):
                    os.ftruncate(descriptor, size)
                    raise _refused(self.path, "the disk is full")
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            if is_new:
                sync_directory(self.path.parent)

    def forget(self, thread_ids: Collection[str], instead: Sequence[Line] = ()) -> None:
        """Write the file anew without what it says of some threads; with other lines instead.

        Errors: as of :meth:`append`.
        """
        with self._changing():
            before = self._raw_lines()
            kept = [raw for raw in before if _thread_of(raw) not in thread_ids]
            kept += map(msgspec.json.encode, instead)
            if kept != before:
                self._replace(b"".join(raw + b"\n" for raw in kept))

    def _replace(self, content: bytes) -> None:
        new = self.path.with_name(f".{self.path.name}.new")
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(new, self.path)
        sync_directory(self.path.parent)

    def _raw_lines(self) -> list[bytes]:
        try:
            with os.fdopen(open_regular(self.path), "rb") as file:
                content = file.read()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise _refused(self.path, error.strerror) from error
        return [raw for raw in content[: content.rfind(b"\n") + 1].split(b"\n") if raw.strip()]

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Let nobody else change the file meanwhile."""
        try:
            make_private(self.path.parent)
            lock = lock_path(self.path.with_name(f"{self.path.name}.lock"))
            hint = "wait until it has finished"
            with held(lock, _WAIT_S, f"is writing to {self.path}", hint):
                yield
        except OSError as error:
            raise _refused(self.path, error.strerror) from error


def annotations_beside(state: Path) -> Path:
    """Where the annotations of a state database are: ``annotations.jsonl`` beside ``state.sqlite``."""
    return beside_state(state, "annotations.jsonl")


def _repair(descriptor: int) -> None:
    """Let what is appended begin a line: what a crash has left of one before is cut off."""
    size = os.fstat(descriptor).st_size
    if size == 0 or os.pread(descriptor, 1, size - 1) == b"\n":
        return
    content = os.pread(descriptor, size, 0)
    start = content.rfind(b"\n") + 1
    if _is_whole(content[start:]):
        os.write(descriptor, b"\n")
        return
    os.ftruncate(descriptor, start)
    _log.warning("cut off %d bytes of an unfinished last annotation", size - start)


def _tried(decode: Callable[[bytes], _Result], raw: bytes) -> _Result | None:
    try:
        return decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def _decode(raw: bytes) -> Line | None:
    line = _tried(_decoder.decode, raw)
    return None if line is None else canonical(line)


def _is_whole(raw: bytes) -> bool:
    return _tried(msgspec.json.decode, raw) is not None


def _thread_of(raw: bytes) -> str | None:
    """Say which thread a line is about, whatever else it says; None for one about none."""
    value: Any = _tried(msgspec.json.decode, raw)
    try:
        return parse_thread_id(str(value["thread_id"]))
    except (KeyError, TypeError, InvalidThreadIdError):
        return None


def _refused(path: Path, reason: str | None) -> AnnotationsError:
    return AnnotationsError(
        f"the annotations {path} can't be read or written: {reason}",
        hint="check the file's permissions and the space on its disk",
    )
