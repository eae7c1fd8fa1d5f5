"""A worker process: reads rollouts that it is told to on standard input, answers on standard output.

Not for people; :mod:`rollbook.index.extraction` starts it.
"""

import os
import sys
from pathlib import Path

import msgspec

from rollbook.index.extraction import WorkerTask, read_frame, run, write_frame


def main() -> None:
    """Answer one task after the other until the input ends."""
    tasks = msgspec.json.Decoder(WorkerTask)
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # nothing but answers may reach the parent
    while (frame := read_frame(sys.stdin.buffer)) is not None:
        task = tasks.decode(frame)
        write_frame(
            answers,
            msgspec.json.encode(run(Path(task.home), task.default_provider, task.job)),
        )
        answers.flush()


if __name__ == "__main__":
    try:
        main()
    except (BrokenPipeError, KeyboardInterrupt):
        sys.exit(1)
