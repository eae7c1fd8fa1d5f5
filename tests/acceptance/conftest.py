"""The installed command, run as a person or a script would."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import CORPUS, expected

COMMAND = Path(sys.executable).with_name("rollbook")


@dataclass
class Done:
    """What a command printed and how it ended."""

    code: int
    out: str
    err: str

    @property
    def json(self):
        assert self.out.count("\n") == 1, self.out
        return json.loads(self.out)


def environment(**more: str) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "HOME": os.environ["HOME"], "TZ": "UTC"} | more


@pytest.fixture
def run():
    """Run a command to its end."""

    def run_command(*arguments, cwd=None, **more: str) -> Done:
        done = subprocess.run(
            [COMMAND, *map(str, arguments)],
            capture_output=True,
            text=True,
            check=False,
            cwd=cwd,
            env=environment(**more),
        )
        assert "Traceback" not in done.stderr
        return Done(done.returncode, done.stdout, done.stderr)

    return run_command


@pytest.fixture(scope="module")
def sample(tmp_path_factory) -> Path:
    """A synced home of the newest release, for tests that only read."""
    home = tmp_path_factory.mktemp("sample") / "home"
    shutil.copytree(CORPUS / "0.169.0" / "home", home)
    for file in expected("0.169.0")["files"]:
        os.utime(home / file["path"], ns=(file["mtime_ns"], file["mtime_ns"]))
    subprocess.run(
        [COMMAND, "sync", "--home", home],
        check=True,
        capture_output=True,
        env={"PATH": os.environ["PATH"]},
    )
    return home
