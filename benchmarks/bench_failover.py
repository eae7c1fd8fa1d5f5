"""Kill a primary under sixteen agents and promote its standby: what is lost, doubled, and how long it takes.

Run it from the root of the project: ``.venv/bin/python benchmarks/bench_failover.py --runs 10``.
"""

import argparse
import logging
import statistics
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.postgres.failover import Outcome, fail_over
from tests.postgres.server import Server


def run_once() -> Outcome:
    """Fail over once, on servers that are gone afterwards."""
    servers: list[Server] = []

    def start(**options: object) -> Server:
        servers.append(Server.start(**options))
        return servers[-1]

    with tempfile.TemporaryDirectory() as directory:
        try:
            return fail_over(start, Path(directory))
        finally:
            for server in servers:
                server.remove()


def main() -> None:
    """Print a row for each run, and what they come to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    runs = parser.parse_args().runs
    logging.getLogger("rollbook").setLevel(logging.ERROR)
    print(f"{'run':>5} {'acknowledged':>13} {'lost':>6} {'doubled':>8} {'interrupted':>12}")
    outcomes = []
    for number in range(1, runs + 1):
        outcome = run_once()
        outcomes.append(outcome)
        print(
            f"{number:>5} {outcome.acknowledged:>13,} {outcome.lost:>6} {outcome.doubled:>8}"
            f" {outcome.interrupted_s:>10.2f} s",
            flush=True,
        )
    median = statistics.median(outcome.interrupted_s for outcome in outcomes)
    total = sum(outcome.acknowledged for outcome in outcomes)
    lost, doubled = (sum(getattr(o, name) for o in outcomes) for name in ("lost", "doubled"))
    print(f"{'all':>5} {total:>13,} {lost:>6} {doubled:>8} {median:>10.2f} s (median)")


if __name__ == "__main__":
    main()
