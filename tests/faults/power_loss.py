"""The disk after a power loss: all that was synced, and chance decides on the rest.

A program is run with the library ``power_loss.c``, which notes in order all that it does to files and
directories.  From the notes up to any moment the disk is made as it could be if the power failed
then.  A file has all that was written before it was last synced; each later change of it is there,
or not, or, in sectors of 512 bytes, in part.  Of a directory's entries those are surely right that
were made before it was last synced; of the later changes, in their order, the first few are there.
Times and numbers of files are kept, as the index goes by them.
"""

import ctypes
import os
import random
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from rollbook import LogEntry, LogLimits, RolloutRecorder, StateRuntime, items
from rollbook.rollout.lines import decode_line
from rollbook.testing import make_thread, token_count
from tests.faults.crash_program import append, builder_of, numbers_of, thread_id_of
from tests.faults.test_bad_files import compress

SECTOR = 512
TORN = 0.2  # of the writes that were not synced
ROOT = Path(__file__).parents[2]
_NOTE = struct.Struct("=cQqqI")  # as in power_loss.c


class Note(NamedTuple):
    """One thing that a program did."""

    kind: str
    inode: int
    offset: int
    mtime_ns: int
    data: bytes

    @property
    def names(self) -> list[str]:
        return self.data.decode(errors="surrogateescape").split("\n")


def build(directory: Path) -> Path:
    """Make the library that takes the notes."""
    library = directory / "power_loss.so"
    source = Path(__file__).with_suffix(".c")
    subprocess.run(["gcc", "-O1", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    return library


def trace(library: Path, inodes: Path, home: Path, program: Callable, *arguments) -> list[Note]:
    """Run one of the programs below and give what it did to the home."""
    notes = inodes.with_suffix(".trace")
    environment = os.environ | {
        "LD_PRELOAD": str(library),
        "POWER_LOSS_DIRECTORY": str(home),
        "POWER_LOSS_INODES": str(inodes),
        "POWER_LOSS_TRACE": str(notes),
    }
    command = [sys.executable, "-m", __name__, program.__name__, home, *arguments]
    subprocess.run(list(map(str, command)), env=environment, cwd=ROOT, check=True)
    found, content, at = [], notes.read_bytes(), 0
    while at < len(content):
        kind, inode, offset, mtime_ns, length = _NOTE.unpack_from(content, at)
        at += _NOTE.size + length
        found.append(Note(kind.decode(), inode, offset, mtime_ns, content[at - length : at]))
    return found


class _File:
    def __init__(self, content: bytes = b"", mtime_ns: int = 0) -> None:
        self.content = bytearray(content)
        self.mtime_ns = mtime_ns
        self.unsynced: list[Note] = []

    def sync(self) -> None:
        for note in self.unsynced:
            _change(self.content, note)
            self.mtime_ns = note.mtime_ns
        self.unsynced = []


class _Entry(NamedTuple):
    """A change of directories: names that are new, with their inodes, and those that are gone.

    Inode 0 is a directory.
    """

    added: dict[str, int]
    removed: tuple[str, ...] = ()

    @property
    def directories(self) -> set[str]:
        return {os.path.dirname(name) for name in (*self.added, *self.removed)}


class Disk:
    """What a home's disk holds, synced and not, while notes are followed."""

    def __init__(self, home: Path, inodes: Path) -> None:
        """Begin with a home as it is; its files get their second names."""
        self._home, self._inodes = str(home), inodes
        self._files: dict[int, _File] = {}
        self._names: dict[str, int] = {}  # as all programs see them
        self._synced_names: dict[str, int] = {}
        self._unsynced: list[_Entry] = []
        for path in sorted(home.rglob("*")):
            status = path.stat()
            self._names[str(path)] = 0 if path.is_dir() else status.st_ino
            if path.is_file():
                os.link(path, inodes / str(status.st_ino))
                self._files[status.st_ino] = _File(path.read_bytes(), status.st_mtime_ns)
        self._synced_names |= self._names

    def follow(self, note: Note) -> None:
        match note.kind:
            case "w" | "t" | "u":
                self._files[note.inode].unsynced.append(note)
            case "s":
                self._files[note.inode].sync()
            case "D":
                self._sync_directory(note.names[0])
            case "c":
                self._files[note.inode] = _File(mtime_ns=note.mtime_ns)
                if note.data:  # else it gets its name later, if at all
                    self._enter(_Entry({note.names[0]: note.inode}))
            case "l":
                self._enter(_Entry({note.names[0]: note.inode}))
            case "d":
                self._enter(_Entry({note.names[0]: 0}))
            case "x":
                self._enter(_Entry({}, (note.names[0],)))
            case "r":
                old, new = note.names
                self._enter(_Entry({new: self._names[old]}, (old,)))

    def _enter(self, entry: _Entry) -> None:
        _apply(self._names, entry)
        self._unsynced.append(entry)

    def is_synced(self, inode: int) -> bool:
        """Say whether all that a file holds is on the device."""
        return not self._files[inode].unsynced

    def _sync_directory(self, path: str) -> None:
        """Settle its entries, and, as a move is one change, those of directories moved from or to.

        So are the entries that lead to it: each file system that has a journal does it that way.
        """
        directories = {path, *map(str, Path(path).parents)}
        settled, left = [], []
        for entry in reversed(self._unsynced):
            if directories & entry.directories:
                directories |= entry.directories
                settled.append(entry)
            else:
                left.append(entry)
        for entry in reversed(settled):
            _apply(self._synced_names, entry)
        self._unsynced = left[::-1]

    def lose(self, rng: random.Random, survives: float) -> None:
        """Make the home as it could be now if the power failed, with that share of what may be lost."""
        names, ended = self._synced_names.copy(), set()
        for entry in self._unsynced:
            is_possible = all(names.get(path) == 0 for path in entry.directories - {self._home})
            if ended & entry.directories or not is_possible or rng.random() >= survives:
                ended |= entry.directories
            else:
                _apply(names, entry)
        self._make(names, lambda file: _what_is_left(file, rng, survives))

    def make_whole(self) -> None:
        """Make the home as the program has left it."""
        for file in self._files.values():
            file.sync()
        self._make(self._names, lambda file: (file.content, file.mtime_ns))

    def _make(self, names: dict[str, int], kept: Callable) -> None:
        shutil.rmtree(self._home)
        os.mkdir(self._home)
        for name, inode in sorted(names.items()):
            if inode == 0:
                os.mkdir(name)
                continue
            file = self._inodes / str(inode)
            content, mtime_ns = kept(self._files[inode])
            file.write_bytes(content)
            os.utime(file, ns=(mtime_ns, mtime_ns))
            os.link(file, name)


def _apply(names: dict[str, int], entry: _Entry) -> None:
    for name in entry.removed:
        names.pop(name, None)
    names |= entry.added


def _change(content: bytearray, note: Note) -> None:
    if note.kind == "w":
        content.extend(bytes(max(0, note.offset - len(content))))
        content[note.offset : note.offset + len(note.data)] = note.data
    elif note.kind == "t":
        del content[note.offset :]
        content.extend(bytes(note.offset - len(content)))


def _what_is_left(file: _File, rng: random.Random, survives: float) -> tuple[bytearray, int]:
    """Choose a file's content, and its time: that of the last change before any that is missing.

    Where a file's size and time may be on the device before its content, the index can be wrong: it
    takes a file of the same size and time for the same (decision 2 in docs/architecture.md).
    """
    content, mtime_ns, is_whole = bytearray(file.content), file.mtime_ns, True
    for note in file.unsynced:
        if note.kind == "w" and 0 < survives < 1 and rng.random() < TORN:
            for sector in _sectors(note):
                if rng.random() < 0.5:
                    _change(content, sector)
            is_whole = False
        elif rng.random() < survives:
            _change(content, note)
        else:
            is_whole = False
        if is_whole:
            mtime_ns = note.mtime_ns
    return content, mtime_ns


def _sectors(note: Note) -> list[Note]:
    end = note.offset + len(note.data)
    starts = [note.offset, *range(note.offset // SECTOR * SECTOR + SECTOR, end, SECTOR)]
    return [
        note._replace(offset=start, data=note.data[start - note.offset : stop - note.offset])
        for start, stop in zip(starts, [*starts[1:], end], strict=True)
    ]


# --- What loses its power ---------------------------------------------------------------------


def mark(*words: object) -> None:
    """Note that something was reported done."""
    ctypes.CDLL(None).power_loss_mark(" ".join(map(str, words)).encode())


def output_of(number: int) -> str:
    """What the record of a number holds."""
    return f"{number} " * (number * 997 % 3000)


def bring_to_device(path: Path) -> None:
    """Sync a file or directory."""
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def pack(rollout: Path) -> None:
    """Put the compressed form of a rollout in its place, as Codex does."""
    packed = rollout.with_name(rollout.name + ".zst")
    packed.write_bytes(compress(rollout.read_bytes()))
    bring_to_device(packed)
    rollout.unlink()
    bring_to_device(rollout.parent)


def record(home: Path, seed: str) -> None:
    """Begin threads, fork some, go on with some; say what was flushed."""
    rng = random.Random(seed)
    with StateRuntime.open(home, backfill=False) as state:
        thread_id = ""
        for thread in range(5):
            if thread % 3 == 1:
                recorder = RolloutRecorder.fork(state, thread_id, cwd="/")
            else:
                recorder = RolloutRecorder.create(state, cwd="/", git=False)
            thread_id = recorder.thread_id
            start = len(numbers_of(recorder))
            for number in range(start, start + rng.randrange(4, 12)):
                output = items.function_call_output(str(number), output_of(number))
                recorder.record_items([output, *items.user_message(str(number))])
                chance = rng.random()
                if chance < 0.3:
                    recorder.flush()
                    mark("flushed", thread_id, number + 1)
                elif chance < 0.5:
                    recorder.close()
                    mark("flushed", thread_id, number + 1)
                    if chance < 0.4:
                        pack(recorder.rollout_path)
                    recorder = RolloutRecorder.resume(state, thread_id)
            if thread % 2:
                recorder.close()
                mark("flushed", thread_id, number + 1)
    mark("flushed", thread_id, number + 1)


def index(home: Path, seed: str) -> None:
    """Sync, store threads, follow rollouts that grow; often enough for checkpoints."""
    rng = random.Random(seed)
    rollouts = sorted(home.rglob("*.jsonl"))
    number = 1000
    for _ in range(3):
        with StateRuntime.open(home, backfill=False) as state:
            for _ in range(2):
                mark("syncing")
                state.sync(jobs=1)
                mark("synced")
                for _ in range(rng.randrange(10, 120)):
                    number += 1
                    title = f"{number} " * rng.randrange(4000)
                    thread_id = thread_id_of(100, number % 5)
                    thread = make_thread(home, id=thread_id, title=title, tokens_used=number)
                    mark("storing", thread_id, number)
                    state.upsert_thread(thread)
                    if rng.random() < 0.2:
                        path, line = rng.choice(rollouts), token_count(number)
                        mark("applying", path.stem[-36:], number)
                        append(path, line)
                        bring_to_device(path)
                        state.apply_rollout_items(builder_of(path), [decode_line(line)])
        mark("closed")


def follow(home: Path, seed: str) -> None:
    """Apply what an agent has just written, which its disk need not have."""
    path, line = min(home.rglob("*.jsonl")), token_count(1_000_000)
    with StateRuntime.open(home, backfill=False) as state:
        state.sync(jobs=1)
        append(path, line)
        state.apply_rollout_items(builder_of(path), [decode_line(line)])
    mark("closed")


def record_while_others_store(home: Path, seed: str) -> None:
    """Record without a flush, and let the database have it on the device."""
    with StateRuntime.open(home, backfill=False) as state:
        recorder = RolloutRecorder.create(state, cwd="/", git=False)
        recorder.flush()
        recorder.record_items([items.token_count(1_000_000)])
        while state.get_thread(recorder.thread_id).tokens_used == 0:
            time.sleep(0.001)
        state._engine.settle()  # as others do who write much
        mark("stored")


def log(home: Path, seed: str, max_bytes: str) -> None:
    """Log numbers, in batches that say where they end."""
    rng = random.Random(seed)
    end = 0
    limits = LogLimits(max_bytes=int(max_bytes), max_thread_bytes=int(max_bytes))
    for _ in range(3):
        with StateRuntime.open(home, backfill=False, log_limits=limits) as state:
            for _ in range(rng.randrange(5, 40)):
                start, end = end, end + rng.choice([1, 7, 64, 200])
                state.insert_logs(
                    [
                        LogEntry(0x7FFFFFFF, 0, "INFO", str(end), str(n).zfill(300), thread_id="t")
                        for n in range(start, end)
                    ]
                )
                mark("logged", end)
        mark("closed", end)


def archive(home: Path, seed: str) -> None:
    """Archive threads and take them back."""
    rng = random.Random(seed)
    for _ in range(3):
        with StateRuntime.open(home, backfill=False) as state:
            state.sync(jobs=1)
            ids = [path.stem[-36:] for path in sorted(home.rglob("*.jsonl"))]
            for thread_id in rng.sample(ids, 6):
                is_archived = state.get_thread(thread_id).archived_at is not None
                move = state.unarchive_thread if is_archived else state.archive_thread
                move(thread_id)
                mark("moved", thread_id, not is_archived)
        mark("closed")


if __name__ == "__main__":
    activity, home, *arguments = sys.argv[1:]
    globals()[activity](Path(home), *arguments)
