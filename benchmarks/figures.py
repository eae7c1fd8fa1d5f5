"""What a benchmark says: figures, each beside a floor of the same run, each with a goal.

The machines are shared and their speed drifts, so a figure and its floor are measured in turns, and
the medians are compared.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from enum import StrEnum
from pathlib import Path

import msgspec


class Goal(StrEnum):
    """How a figure is compared with its goal."""

    TIMES = "times"  # at most so many times the floor
    MORE = "more"  # at most so much more than the floor
    MOST = "most"  # at most this, whatever the floor
    NONE = "none"  # told for comparison


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One measured value: medians, in ``unit``, of what is ours and of the floor that it is beside."""

    area: str
    name: str
    value: float
    unit: str
    floor: str = ""
    floor_value: float | None = None
    goal: Goal = Goal.NONE
    limit: float | None = None

    @property
    def ratio(self) -> float | None:
        """Ours divided by the floor."""
        return self.value / self.floor_value if self.floor_value else None

    @property
    def is_met(self) -> bool | None:
        """Whether the goal is; None where there is none."""
        if self.limit is None or self.goal is Goal.NONE:
            return None
        floor = self.floor_value or 0.0
        most = {
            Goal.TIMES: floor * self.limit,
            Goal.MORE: floor + self.limit,
            Goal.MOST: self.limit,
        }
        return self.value <= most[self.goal]


class Scale(msgspec.Struct, frozen=True):
    """How much to measure, and where: ``factor`` 1 is what the goals are about."""

    directory: Path
    factor: float = 1.0
    rounds: int = 7

    def of(self, count: int) -> int:
        """A number of things at this scale; never none."""
        return max(1, round(count * self.factor))


def seconds(action: Callable[[], object]) -> float:
    """How long a call takes."""
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def in_turns(rounds: int, *actions: Callable[[], object], calls: int = 1) -> list[float]:
    """Median seconds for one call of each action; each round measures all, one after the other."""
    taken: list[list[float]] = [[] for _ in actions]
    for _ in range(rounds):
        for times, action in zip(taken, actions, strict=True):
            started = time.perf_counter()
            for _ in range(calls):
                action()
            times.append((time.perf_counter() - started) / calls)
    return [statistics.median(times) for times in taken]


def show(figures: Iterable[Figure]) -> list[Figure]:
    """Print figures as a table, each as soon as it is there; returns them all."""
    shown = []
    print(f"{'':<62} {'ours':>10} {'floor':>10}      {'ratio':>7}  goal")
    for figure in figures:
        shown.append(figure)
        print(line_of(figure), flush=True)
    return shown


def line_of(figure: Figure) -> str:
    """Write a figure as a line of the table."""
    floor = "" if figure.floor_value is None else f"{figure.floor_value:.4g}"
    ratio = "" if figure.ratio is None else f"{figure.ratio:.2f}"
    return (
        f"{figure.area + ': ' + figure.name:<62} {figure.value:>10.4g} {floor:>10} {figure.unit:<4}"
        f" {ratio:>7}  {goal_of(figure)}"
    )


def goal_of(figure: Figure) -> str:
    """Write a goal, and whether it is met."""
    limit = f"{figure.limit:g}" if figure.limit is not None else ""
    words = {
        Goal.TIMES: f"{limit}x {figure.floor}",
        Goal.MORE: f"{limit} {figure.unit} more than {figure.floor}",
        Goal.MOST: f"{limit} {figure.unit}",
        Goal.NONE: f"beside {figure.floor}" if figure.floor else "",
    }
    outcome = {True: " (met)", False: " (NOT MET)", None: ""}
    return words[figure.goal] + outcome[figure.is_met]


def run_alone(measure: Callable[[Scale], Iterator[Figure]], description: str) -> None:
    """The command line of one benchmark."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--directory", type=Path, default=Path("build/bench"), help="where to work")
    parser.add_argument("--factor", type=float, default=1.0, help="how much of the full size")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    options.directory.mkdir(parents=True, exist_ok=True)
    show(measure(Scale(options.directory, options.factor, options.rounds)))
