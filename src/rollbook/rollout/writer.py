"""Append to one rollout: whole lines only, one writer at a time.

The lock is the operating system's, on the file itself: it needs no file of its own, survives a
rename, and ends with the process that holds it.  On a network file system, where it may not hold,
it is a hidden file beside the rollout.
"""

import fcntl
import logging
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from rollbook.errors import RolloutError, ThreadInUseError
from rollbook.filesystem import is_network, make_private, open_regular, sync_directory
from rollbook.forks import abandon
from rollbook.lock_file import LockFile
from rollbook.rollout.extract import reading
from rollbook.rollout.layout import RolloutFile, file_below
from rollbook.rollout.lines import MalformedLineError, decode_line

_BLOCK_BYTES = 1 << 16
_CREATING_MOST_S = 30.0
_DESCRIPTORS = "/proc/self/fd"
_log = logging.getLogger(__name__)


class RolloutWriter:
    """A rollout that is open for appending, and locked against other writers.

    Not safe to use from several threads at once.
    """

    def __init__(self, path: Path, descriptor: int, lock: "_Lock", *, is_new: bool) -> None:
        self.path = path
        self._descriptor = descriptor
        self._lock = lock
        self._is_new = is_new

    @classmethod
    def create(cls, path: Path, chunks: Iterable[bytes]) -> Self:
        """Create a rollout that begins with these bytes: it is there with all of them, or not.

        Files and directories are private to the user.  Errors: RolloutError.
        """
        try:
            make_private(path.parent)
            new = _NewFile(path)
            try:
                writer = cls(path, new.descriptor, _Lock(path, new.descriptor), is_new=True)
            except BaseException:
                new.discard()
                os.close(new.descriptor)
                raise
            try:
                for chunk in chunks:
                    writer.append(chunk)
                new.publish()
            except BaseException:
                new.discard()
                writer.close()
                raise
        except OSError as error:
            raise RolloutError(f"can't be created: {error.strerror}", path=str(path)) from error
        return writer

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open an existing rollout and repair its end.

        A last line that is whole but for its line break gets that; what a crash has left of any
        other is cut off.  Errors: ThreadInUseError, RolloutError.
        """
        try:
            descriptor = open_regular(path, os.O_RDWR | os.O_APPEND)
        except OSError as error:
            raise RolloutError(f"can't be written: {error.strerror}", path=str(path)) from error
        try:
            writer = cls(path, descriptor, _Lock(path, descriptor), is_new=False)
        except BaseException:
            os.close(descriptor)
            raise
        try:
            writer._repair()
        except OSError as error:
            writer.close()
            raise RolloutError(f"can't be repaired: {error.strerror}", path=str(path)) from error
        except BaseException:
            writer.close()
            raise
        return writer

    def append(self, data: bytes) -> None:
        """Append whole lines with one write: all of them are on disk then, or none.

        Errors: RolloutError where the disk is full or gone; nothing was appended then.
        """
        try:
            written = os.write(self._descriptor, data)
            if written != len(data):
                self._take_back(data[:written])
        except OSError as error:
            raise RolloutError(
                f"can't be written: {error.strerror}",
                path=str(self.path),
                hint="nothing of it was written; free some disk space and record it again",
            ) from error

    def flush(self) -> None:
        """Return when all that was appended is on the device.  Errors: RolloutError."""
        try:
            os.fsync(self._descriptor)
            if self._is_new:
                for directory in (self.path.parent, *list(self.path.parents)[1:5]):
                    sync_directory(directory)
                self._is_new = False
        except OSError as error:
            raise RolloutError(
                f"can't be flushed: {error.strerror}", path=str(self.path)
            ) from error

    def close(self) -> None:
        """Free the lock, also where a forked child has not let the file go yet, and close the file."""
        self._lock.release()
        os.close(self._descriptor)

    def leave_to_parent(self) -> None:
        """Let the file go in a forked child, and leave the lock with the parent."""
        abandon(self._lock)
        os.close(self._descriptor)

    def _take_back(self, part: bytes) -> None:
        """Cut off the part of a line that was written before the disk was full."""
        start = os.fstat(self._descriptor).st_size - len(part)
        if os.pread(self._descriptor, len(part), start) == part:
            os.ftruncate(self._descriptor, start)
        raise RolloutError(
            "can't be written: the disk is full",
            path=str(self.path),
            hint="nothing of it was written; free some disk space and record it again",
        )

    def _repair(self) -> None:
        end = os.fstat(self._descriptor).st_size
        start = self._last_line_start(end)
        if start == end:
            return
        line = os.pread(self._descriptor, end - start, start)
        try:
            decode_line(line)
        except MalformedLineError:
            os.ftruncate(self._descriptor, start)
            _log.warning("%s: cut off %d bytes of an unfinished last line", self.path, end - start)
        else:
            self.append(b"\n")

    def _last_line_start(self, end: int) -> int:
        at = end
        while at > 0:
            size = min(_BLOCK_BYTES, at)
            at -= size
            found = os.pread(self._descriptor, size, at).rfind(b"\n")
            if found >= 0:
                return at + found + 1
        return 0


@contextmanager
def exclusive(directory: Path) -> Iterator[None]:
    """Let nobody else into such a block with the same directory, which is made if missing.

    Errors: RolloutError.
    """
    try:
        make_private(directory)
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise RolloutError(f"can't be used: {error.strerror}", path=str(directory)) from error
    try:
        if is_network(directory):
            lock = LockFile(directory / ".new.lock")
            try:
                lock.acquire(_CREATING_MOST_S)
            except OSError as error:
                raise RolloutError(f"can't be locked: {error}", path=str(lock.path)) from error
            try:
                yield
            finally:
                lock.release()
        else:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
    finally:
        os.close(descriptor)


def unpack(home: Path, file: RolloutFile) -> None:
    """Put the plain form of a compressed rollout in its place, with the same mtime.

    The plain one is on the device before the compressed one goes.  Errors: RolloutError.
    """
    path = file_below(home, file.path)
    try:
        new = _NewFile(path)
        try:
            with reading(home, file) as packed, open(new.descriptor, "wb") as plain:
                shutil.copyfileobj(packed, plain)
                plain.flush()
                os.utime(plain.fileno(), ns=(file.mtime_ns, file.mtime_ns))
                new.publish()
        except BaseException:
            new.discard()
            raise
        sync_directory(path.parent)
        path.with_name(path.name + ".zst").unlink()
    except OSError as error:
        raise RolloutError(f"can't be unpacked: {error.strerror}", path=file.path) from error


def is_in_use(path: Path) -> bool:
    """Say whether a recorder has a rollout open for writing.  Errors: OSError."""
    descriptor = open_regular(path)
    try:
        _Lock(path, descriptor, fcntl.LOCK_SH).release()
    except ThreadInUseError:
        return True
    finally:
        os.close(descriptor)
    return False


class _Lock:
    """The lock on a rollout that is open, from its making on.  Errors: ThreadInUseError, RolloutError."""

    def __init__(self, path: Path, descriptor: int, kind: int = fcntl.LOCK_EX) -> None:
        self._descriptor = descriptor
        self._file: LockFile | None = None
        try:
            if is_network(path):
                self._file = LockFile(path.with_name(f".{path.name}.lock"))
                self._file.acquire(0)
            else:
                fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except (BlockingIOError, TimeoutError) as error:
            raise ThreadInUseError(
                f"another recorder is writing to {path}",
                hint="close that one, or fork the thread instead",
            ) from error
        except OSError as error:
            raise RolloutError(f"can't be locked: {error.strerror}", path=str(path)) from error

    def release(self) -> None:
        """Free it, also where a forked child has not let the file go yet."""
        if self._file is not None:
            self._file.release()
        else:
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)


class _NewFile:
    """A file that gets its name when it is all there, and never replaces another one.

    Without a name, where the system can do that, nothing is left of it when its process is killed.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._hidden: Path | None = None
        flags = os.O_RDWR | os.O_APPEND
        try:
            self.descriptor = os.open(path.parent, flags | os.O_TMPFILE, 0o600)
        except (AttributeError, OSError):
            self._hidden = path.with_name(f".{path.name}.tmp")
            self.descriptor = os.open(self._hidden, flags | os.O_CREAT | os.O_EXCL, 0o600)

    def publish(self) -> None:
        """Give it its name, when its content is on the device."""
        os.fsync(self.descriptor)
        if self._hidden is None:
            descriptors = os.open(_DESCRIPTORS, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.link(str(self.descriptor), self._path, src_dir_fd=descriptors)
            finally:
                os.close(descriptors)
        else:
            os.link(self._hidden, self._path)  # unlike a rename, never replaces another one
            self.discard()

    def discard(self) -> None:
        """Take back the name that it has until it is published."""
        if self._hidden is not None:
            self._hidden.unlink(missing_ok=True)
            self._hidden = None
