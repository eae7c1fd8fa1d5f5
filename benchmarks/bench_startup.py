"""Time whole processes beside one of Python that does nothing: imports, a list, an idle sync.

    python benchmarks/bench_startup.py [--directory build/bench] [--factor 1] [--rounds 25]

All find compiled bytecode, as pip compiles what it installs.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from figures import Figure, Goal, Scale, in_turns, run_alone
from homes import database_of, generated_home

from rollbook import StateRuntime

_ROUNDS = 3  # times those that others have: a process is over soon
_PYTHON = sys.executable


def measure(scale: Scale) -> Iterator[Figure]:
    """Imports and commands, each a process of its own."""
    home = generated_home(scale)
    with StateRuntime.open(home, database=database_of(home), backfill=False) as state:
        files = state.sync().scanned
    where = ["--home", str(home), "--db", str(database_of(home))]
    command = str(Path(_PYTHON).with_name("rollbook"))
    start = partial(_process, scale)
    names_and_actions = {
        "python -c pass": start(_PYTHON, "-c", "pass"),
        "import rollbook": start(_PYTHON, "-c", "import rollbook"),
        "from rollbook import StateRuntime": start(
            _PYTHON, "-c", "from rollbook import StateRuntime"
        ),
        "rollbook list --json": start(command, "list", "--json", *where),
        f"rollbook sync, {files} files unchanged": start(command, "sync", *where),
    }
    for action in names_and_actions.values():  # compiles, and warms what the system caches
        action()
    taken = [
        1000 * seconds for seconds in in_turns(_ROUNDS * scale.rounds, *names_and_actions.values())
    ]
    floor, *ours = zip(names_and_actions, taken, strict=True)
    goals = [(Goal.MORE, 40.0), (Goal.NONE, None), (Goal.MORE, 100.0), (Goal.MOST, 200.0)]
    for (name, value), (goal, limit) in zip(ours, goals, strict=True):
        yield Figure(
            area="start-up",
            name=name,
            value=value,
            unit="ms",
            floor=floor[0],
            floor_value=floor[1],
            goal=goal,
            limit=limit,
        )


def _process(scale: Scale, *command: str) -> Callable[[], object]:
    """Something that runs a process to its end."""
    environment = {
        name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"
    }
    environment["PYTHONPYCACHEPREFIX"] = str(scale.directory.absolute() / "bytecode")
    return partial(subprocess.run, command, env=environment, stdout=subprocess.DEVNULL, check=True)


if __name__ == "__main__":
    run_alone(measure, __doc__)
