"""Options of the test suite; and every example in the README and in docs/ runs."""

import doctest
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from sybil import Example, Sybil
from sybil.parsers.markdown import CodeBlockParser, PythonCodeBlockParser
from sybil.sybil import SybilCollection
from tests.postgres.fixtures import postgres, shared_database

from rollbook import StateRuntime

__all__ = ["postgres", "shared_database"]
ROOT = Path(__file__).parent
SAMPLE = ROOT / "tests" / "data" / "corpus" / "0.169.0" / "home"


def pytest_addoption(parser):
    """How much harm the tests in tests/faults do, and from which seed."""
    parser.addoption(
        "--all-faults", action="store_true", help="do all the harm, not only a quick share of it"
    )
    parser.addoption(
        "--fault-seed", type=int, default=random.randrange(1 << 32), help="repeat a run with faults"
    )


def pytest_report_header(config):
    """Say how a run can be repeated."""
    return f"faults: repeat with --fault-seed={config.getoption('fault_seed')}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport():
    """Let half a character, which tests log on purpose, get from the worker to the terminal."""
    report = yield
    report.sections = [
        (name, text.encode("utf-8", "backslashreplace").decode()) for name, text in report.sections
    ]
    return report


class ConsoleParser(CodeBlockParser):
    """Run ``$ command`` lines in a shell and compare what they print; ``...`` stands for anything."""

    language = "console"

    def evaluate(self, example: Example) -> str | None:
        """Compare each command's output with what stands below it."""
        for session in ("\n" + example.parsed).split("\n$ ")[1:]:
            command, _, want = session.partition("\n")
            done = subprocess.run(
                command,
                shell=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
            )
            got = done.stdout.strip().expandtabs()
            same = doctest.OutputChecker().check_output(
                want.strip().expandtabs() + "\n", got + "\n", doctest.ELLIPSIS
            )
            if not same:
                return f"$ {command}\nexpected:\n{want}\ngot:\n{got}"
        return None


@pytest.fixture
def sample_home(tmp_path, monkeypatch):
    """A copy of the sample home, as the home of whoever follows the examples."""
    home = tmp_path / "home"
    shutil.copytree(SAMPLE, home)
    monkeypatch.setenv("CODEX_HOME", str(home))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TZ", "UTC")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("ROLLBOOK_DB", raising=False)
    return home


@pytest.fixture
def shared_state(sample_home, monkeypatch, shared_database):
    """A database that has what the sample home has, by its address, for the examples of sharing."""
    monkeypatch.setenv("SHARED", shared_database)
    with StateRuntime.open(sample_home, database=shared_database) as state:
        state.sync()


def _examples(patterns: list[str], excludes: list[str], fixtures: list[str]) -> Sybil:
    parsers = [PythonCodeBlockParser(), ConsoleParser()]
    return Sybil(parsers=parsers, patterns=patterns, excludes=excludes, fixtures=fixtures)


pytest_collect_file = SybilCollection(
    (
        _examples(["README.md", "docs/*.md"], ["docs/fleet.md"], ["sample_home"]),
        _examples(["docs/fleet.md"], [], ["sample_home", "shared_state"]),
    )
).pytest()
