"""Read many rollouts, in this process or in worker processes of our own.

Workers are plain ``python -m rollbook.index.worker`` processes that talk through pipes, not
``multiprocessing``: that would import the user's main module again, which breaks scripts without a
``__main__`` guard.
"""

import subprocess
import sys
import threading
from collections import deque
from collections.abc import Generator, Iterator
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import IO, cast

import msgspec

from rollbook.errors import RolloutError
from rollbook.model.thread import ThreadMetadata
from rollbook.rollout.extract import Extraction, FoldPoint, extract
from rollbook.rollout.layout import RolloutFile

WORTH_WORKERS_BYTES = 32 << 20  # below this, starting processes takes longer than reading
_AHEAD = 48  # jobs, at least, that a worker has while it is at one
_LENGTH_BYTES = 4


class Job(msgspec.Struct, frozen=True):
    """A rollout to read, from its start or on from a point that it was folded to."""

    file: RolloutFile
    resume: tuple[ThreadMetadata, FoldPoint] | None = None


class Failure(msgspec.Struct, frozen=True, tag=True):
    """Why a rollout could not be read; a ``passing`` cause may be gone at the next try."""

    message: str
    passing: bool


class Gone(msgspec.Struct, frozen=True, tag=True):
    """The rollout was moved or deleted between looking and reading."""


class Success(msgspec.Struct, frozen=True, tag=True):
    """What a rollout says."""

    extraction: Extraction


Result = Success | Failure | Gone


class WorkerTask(msgspec.Struct, frozen=True):
    """What a worker is told: one job and what it needs for it."""

    home: str
    default_provider: str
    job: Job


def run(home: Path, default_provider: str, job: Job) -> Result:
    """Read one rollout in this process."""
    try:
        return Success(extract(home, job.file, default_provider, job.resume))
    except RolloutError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return Gone()
        return Failure(error.reason, passing=isinstance(error.__cause__, OSError))


def run_all(
    home: Path, default_provider: str, jobs: list[Job], workers: int
) -> Generator[tuple[Job, Result], None, None]:
    """Read rollouts, beginning in the given order, and yield the results as they come.

    Uses up to ``workers`` processes where there is enough to read, this one among them.
    """
    if workers > 1 and sum(job.file.size for job in jobs) >= WORTH_WORKERS_BYTES:
        yield from _Workers(home, default_provider, jobs, workers - 1).results()
    else:
        for job in jobs:
            yield job, run(home, default_provider, job)


def write_frame(stream: IO[bytes], content: bytes) -> None:
    """Write one message: its length, then itself."""
    stream.write(len(content).to_bytes(_LENGTH_BYTES, "big") + content)


def read_frame(stream: IO[bytes]) -> bytes | None:
    """Read one message; None where the other side has ended."""
    head = stream.read(_LENGTH_BYTES)
    length = int.from_bytes(head, "big")
    content = stream.read(length) if len(head) == _LENGTH_BYTES else b""
    return content if head and len(content) == length else None


class _Workers:
    """Reads together with worker processes, each fed from the common list of jobs by a thread."""

    def __init__(self, home: Path, default_provider: str, jobs: list[Job], count: int) -> None:
        self._home = home
        self._default_provider = default_provider
        self._jobs = deque(jobs)
        self._count = len(jobs)
        self._done: SimpleQueue[tuple[Job, Result]] = SimpleQueue()
        self._processes: set[subprocess.Popen[bytes]] = set()
        self._threads = [threading.Thread(target=self._feed, daemon=True) for _ in range(count)]

    def results(self) -> Iterator[tuple[Job, Result]]:
        for thread in self._threads:
            thread.start()
        try:
            for _ in range(self._count):
                yield self._next()
        finally:
            self._jobs.clear()
            for process in list(self._processes):
                process.kill()
            for thread in self._threads:
                thread.join()

    def _next(self) -> tuple[Job, Result]:
        """Get what a worker has done; read a rollout here while there is none."""
        try:
            return self._done.get_nowait()
        except Empty:
            pass
        try:
            job = self._jobs.popleft()
        except IndexError:
            return self._done.get()
        return job, run(self._home, self._default_provider, job)

    def _feed(self) -> None:
        pending: deque[Job] = deque()
        while self._jobs:
            try:
                process = self._start()
            except OSError:  # there are no more processes to be had: all is read here
                return
            try:
                self._exchange(process, pending)
            except (OSError, EOFError, msgspec.MsgspecError):
                if pending:  # the job that it was at when it died
                    self._done.put((pending.popleft(), Failure("the reading process died", True)))
                self._jobs.extendleft(reversed(pending))
                pending.clear()
            finally:
                self._stop(process)

    def _exchange(self, process: "subprocess.Popen[bytes]", pending: deque[Job]) -> None:
        """Have a worker read as long as there are jobs, always with some in advance."""
        to_worker, from_worker = cast(IO[bytes], process.stdin), cast(IO[bytes], process.stdout)
        while True:
            if len(pending) <= _AHEAD:
                for job in self._take():
                    pending.append(job)
                    task = WorkerTask(str(self._home), self._default_provider, job)
                    write_frame(to_worker, msgspec.json.encode(task))
                to_worker.flush()
            if not pending:
                return
            answer = read_frame(from_worker)
            if answer is None:
                raise EOFError
            result = msgspec.json.decode(answer, type=Success | Failure | Gone)
            self._done.put((pending.popleft(), result))

    def _take(self) -> Iterator[Job]:
        for _ in range(_AHEAD):
            try:
                yield self._jobs.popleft()
            except IndexError:
                return

    def _start(self) -> "subprocess.Popen[bytes]":
        process = subprocess.Popen(
            # -P: nothing in the directory that the user happens to be in is imported
            [sys.executable, "-P", "-m", "rollbook.index.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._processes.add(process)
        return process

    def _stop(self, process: "subprocess.Popen[bytes]") -> None:
        self._processes.discard(process)
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                try:
                    stream.close()
                except BrokenPipeError:
                    continue  # it has died; that was reported
        process.wait()
