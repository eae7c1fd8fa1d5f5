"""Run all benchmarks that have goals, print one table, and write it down.

    python benchmarks/run.py [--directory build/bench] [--factor 1] [--rounds 7] [--write]

The figures are written to ``figures.json`` in the directory; ``--write`` also brings the tables and
the chart of ``docs/performance.md`` up to date.
"""

import argparse
import gc
import os
import platform
import re
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import bench_backfill
import bench_growth
import bench_list
import bench_logs
import bench_page
import bench_points
import bench_search
import bench_startup
import bench_transcripts
import bench_unchanged
import msgspec
from bench_growth import Point
from figures import Figure, Scale, goal_of, show

PAGE = Path(__file__).parents[1] / "docs" / "performance.md"
CHART = PAGE.with_name("growth.svg")


def main() -> None:
    """Parse the command line, measure everything, print and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--directory", type=Path, default=Path("build/bench"))
    parser.add_argument("--factor", type=float, default=1.0, help="how much of the full size")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--write", action="store_true", help="into docs/performance.md")
    options = parser.parse_args()
    options.directory.mkdir(parents=True, exist_ok=True)
    scale = Scale(options.directory, options.factor, options.rounds)
    points: list[Point] = []
    figures = show(_all(scale, points))
    result = {
        "machine": machine(),
        "scale": options.factor,
        "figures": [
            {**msgspec.to_builtins(each), "ratio": each.ratio, "met": each.is_met}
            for each in figures
        ],
        "growth": points,
    }
    path = options.directory / "figures.json"
    path.write_bytes(msgspec.json.format(msgspec.json.encode(result)))
    missed = sum(each.is_met is False for each in figures)
    print(f"{len(figures)} figures, {missed} of them miss their goals; written to {path}")
    if options.write:
        write(figures, points)


def _all(scale: Scale, points: list[Point]) -> Iterator[Figure]:
    for bench in (
        bench_backfill,
        bench_unchanged,
        bench_list,
        bench_points,
        bench_startup,
        bench_logs,
        bench_page,
        bench_search,
        bench_transcripts,
    ):
        _tidy()
        yield from bench.measure(scale)
    _tidy()
    points.extend(bench_growth.points(scale))
    yield from bench_growth.figures_of(points)


def _tidy() -> None:
    """Let nothing that one benchmark has written or made be a burden to the next."""
    os.sync()
    gc.collect()
    gc.freeze()


def machine() -> str:
    """Describe what this runs on."""
    cores = os.cpu_count()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    model = ""
    for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, commit {commit}: {cores} cores ({model}),"
        f" {memory:.0f} GB, {platform.system()} {platform.release()},"
        f" Python {platform.python_version()}"
    )


def write(figures: list[Figure], points: list[Point]) -> None:
    """Put the figures between the marks of the page, and draw the chart."""
    rows = ["| figure | ours | floor | ratio | goal |", "| --- | ---: | ---: | ---: | --- |"]
    for each in figures:
        floor = "" if each.floor_value is None else f"{_short(each.floor_value)} {each.unit}"
        ratio = "" if each.ratio is None else f"{each.ratio:.2f}"
        ours = f"{_short(each.value)} {each.unit}"
        rows.append(f"| {each.area}: {each.name} | {ours} | {floor} | {ratio} | {goal_of(each)} |")
    growth = ["| operation | size | time | peak memory |", "| --- | ---: | ---: | ---: |"]
    growth += [
        f"| {p.operation} | {p.size:,} | {_short(1e3 * p.seconds)} ms | {p.megabytes:.0f} MB |"
        for p in points
    ]
    text = PAGE.read_text("utf-8")
    for mark, lines in (("machine", [machine()]), ("figures", rows), ("growth", growth)):
        block = "\n".join([f"<!-- {mark} -->", *lines, f"<!-- end of {mark} -->"])
        text = re.sub(
            f"<!-- {mark} -->.*?<!-- end of {mark} -->", lambda _, b=block: b, text, flags=re.DOTALL
        )
    PAGE.write_text(text, "utf-8")
    draw(points)


def _short(value: float) -> str:
    """Write a number with three digits, or whole."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def draw(points: list[Point]) -> None:
    """Draw how time and memory grow, on logarithmic scales."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams |= {"svg.hashsalt": "rollbook", "svg.fonttype": "none"}
    from matplotlib import pyplot as plt

    figure, (times, memory) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    for operation in dict.fromkeys(point.operation for point in points):
        line = [point for point in points if point.operation == operation]
        sizes = [point.size for point in line]
        times.loglog(sizes, [1e3 * point.seconds for point in line], marker="o", label=operation)
        memory.loglog(sizes, [point.megabytes for point in line], marker="o")
    times.set(xlabel="threads, or log rows", ylabel="milliseconds", title="time")
    memory.set(xlabel="threads, or log rows", ylabel="MB", title="peak memory of the process")
    memory.set_ylim(10, 1_000)
    for axes in (times, memory):
        axes.grid(visible=True, alpha=0.3)
    figure.legend(*times.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    figure.savefig(CHART, metadata={"Date": None})


if __name__ == "__main__":
    main()
