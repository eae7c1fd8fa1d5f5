"""Read many rollouts, in this process or in worker processes of our own.

Workers are plain ``python -m rollbook.index.worker`` processes that talk through pipes, not
``multiprocessing``: that would import the user's main module again, which breaks scripts without a
``__main__`` guard.
"""

import os
import select
import sys
from collections import deque
from collections.abc import Generator, Iterator
from io import FileIO
from pathlib import Path
from typing import IO, cast

import msgspec

from rollbook.errors import RolloutError
from rollbook.model.thread import ThreadMetadata
from rollbook.rollout.extract import Extraction, FoldPoint, extract
from rollbook.rollout.layout import RolloutFile

WORTH_WORKERS_BYTES = 32 << 20  # below this, starting processes takes longer than reading
_AHEAD = 48  # jobs that a worker has, so that it can go on while we store what was read
_PIPE_BYTES = 1 << 16
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
_results: msgspec.json.Decoder[Result] = msgspec.json.Decoder(Result)


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
    stream.write(_frame(content))


def read_frame(stream: IO[bytes]) -> bytes | None:
    """Read one message; None where the other side has ended."""
    head = stream.read(_LENGTH_BYTES)
    length = int.from_bytes(head, "big")
    content = stream.read(length) if len(head) == _LENGTH_BYTES else b""
    return content if head and len(content) == length else None


class _Worker:
    """One worker process, and the jobs that it has, first the one that it is at.

    Nothing here waits for it: neither side may, while the other waits for the first to read.
    """

    def __init__(self) -> None:
        import subprocess

        self._process = subprocess.Popen(
            # -P: nothing in the directory that the user happens to be in is imported
            [sys.executable, "-P", "-m", "rollbook.index.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
        )
        self.pending: deque[Job] = deque()
        self._tasks = cast(FileIO, self._process.stdin)
        self._answers = cast(FileIO, self._process.stdout)
        self._unsent = bytearray()
        self._received = bytearray()
        for stream in (self._tasks, self._answers):
            os.set_blocking(stream.fileno(), False)

    def give(self, job: Job, task: WorkerTask) -> None:
        """Hand it a job."""
        self.pending.append(job)
        self._unsent += _frame(msgspec.json.encode(task))

    def exchange(self) -> list[tuple[Job, Result]]:
        """Send what it takes and receive what it has done.

        Errors: OSError, EOFError or MsgspecError where it has died.
        """
        if self._unsent:
            del self._unsent[: self._tasks.write(self._unsent) or 0]
        block = self._answers.read(_PIPE_BYTES)
        if block == b"":
            raise EOFError
        self._received += block or b""
        done = []
        while (answer := _first_frame(self._received)) is not None:
            result = _results.decode(answer)
            del self._received[: _LENGTH_BYTES + len(answer)]
            done.append((self.pending.popleft(), result))
        return done

    def wait(self) -> None:
        """Wait until there is something to send or to receive."""
        select.select([self._answers], [self._tasks] if self._unsent else [], [])

    def end(self) -> None:
        """End the process, whatever it is at."""
        self._process.kill()
        self._tasks.close()
        self._answers.close()
        self._process.wait()


class _Workers:
    """Reads rollouts here and in worker processes, all taken from one list of jobs."""

    def __init__(self, home: Path, default_provider: str, jobs: list[Job], count: int) -> None:
        self._home = home
        self._default_provider = default_provider
        self._jobs = deque(jobs)
        self._missing = count
        self._workers: list[_Worker] = []

    def results(self) -> Iterator[tuple[Job, Result]]:
        try:
            while self._jobs or self._workers:
                self._start()
                for worker in list(self._workers):
                    yield from self._exchange(worker)
                if self._jobs:
                    job = self._jobs.popleft()
                    yield job, run(self._home, self._default_provider, job)
                elif self._workers:
                    self._workers[0].wait()
        finally:
            for worker in self._workers:
                worker.end()

    def _start(self) -> None:
        while self._missing and self._jobs:
            self._missing -= 1
            try:
                self._workers.append(_Worker())
            except OSError:  # there are no more processes to be had: the others read all
                self._missing = 0

    def _exchange(self, worker: _Worker) -> Iterator[tuple[Job, Result]]:
        while self._jobs and len(worker.pending) < _AHEAD:
            job = self._jobs.popleft()
            worker.give(job, WorkerTask(str(self._home), self._default_provider, job))
        try:
            yield from worker.exchange()
        except (OSError, EOFError, msgspec.MsgspecError):
            if worker.pending:  # the job that it was at when it died
                yield worker.pending.popleft(), Failure("the reading process died", passing=True)
            self._jobs.extendleft(reversed(worker.pending))
            worker.pending.clear()
            self._missing += 1
        if not worker.pending:
            self._workers.remove(worker)
            worker.end()


def _frame(content: bytes) -> bytes:
    return len(content).to_bytes(_LENGTH_BYTES, "big") + content


def _first_frame(received: bytearray) -> bytes | None:
    stop = _LENGTH_BYTES + int.from_bytes(received[:_LENGTH_BYTES], "big")
    return bytes(received[_LENGTH_BYTES:stop]) if _LENGTH_BYTES < stop <= len(received) else None
