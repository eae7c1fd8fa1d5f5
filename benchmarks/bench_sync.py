"""Time the first and the second sync of a home against ``wc -l`` over the same files.

    python benchmarks/generate_home.py /tmp/home
    python benchmarks/bench_sync.py /tmp/home [--runs 5]

Each is a whole process; the index is written outside of the home. The floor and the syncs take turns,
so that a machine whose speed drifts doesn't spoil the ratio. Prints medians and their ratios.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

COMMAND = Path(sys.executable).with_name("rollbook")


def timed(command: list[str], **options: object) -> tuple[float, float]:
    """Run a command to its end: wall seconds, and peak memory of its largest process in MB."""
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, **options)  # type: ignore[call-overload]
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    if status:
        sys.exit(f"{command} ended with {os.waitstatus_to_exitcode(status)}")
    return seconds, usage.ru_maxrss / 1024


def wc(home: Path) -> tuple[float, float]:
    """Count the lines of all rollouts: each byte read once, nothing understood."""
    names = subprocess.run(
        ["find", str(home), "-name", "rollout-*.jsonl", "-print0"], capture_output=True, check=True
    ).stdout
    with tempfile.TemporaryFile() as file:
        file.write(names)
        file.seek(0)
        return timed(["wc", "-l", "--files0-from=-"], stdin=file)


def main() -> None:
    """Parse the command line, measure, print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("home", type=Path)
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    figures: dict[str, list[tuple[float, float]]] = {}
    wc(arguments.home)  # warms the cache
    for _ in range(arguments.runs):
        figures.setdefault("wc -l", []).append(wc(arguments.home))
        for jobs in ("1", "2"):
            with tempfile.TemporaryDirectory() as directory:
                database = f"{directory}/state.sqlite"
                sync = [str(COMMAND), "sync", "--home", str(arguments.home), "--db", database]
                first = timed([*sync, "--jobs", jobs])
                figures.setdefault(f"first sync, {jobs} job(s)", []).append(first)
                figures.setdefault("second sync", []).append(timed(sync))
    floor = statistics.median(seconds for seconds, _ in figures["wc -l"])
    print(f"{'':<20} {'median s':>9} {'min':>7} {'max':>7} {'x wc -l':>8} {'peak MB':>8}")
    for name, runs in figures.items():
        seconds = [each for each, _ in runs]
        median = statistics.median(seconds)
        print(
            f"{name:<20} {median:9.2f} {min(seconds):7.2f} {max(seconds):7.2f}"
            f" {median / floor:8.1f} {max(peak for _, peak in runs):8.0f}"
        )


if __name__ == "__main__":
    main()
