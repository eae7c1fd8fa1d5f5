import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import pytest

from rollbook import StateRuntime

CORPUS = Path(__file__).parent / "data" / "corpus"
RELEASES = sorted(path.name for path in CORPUS.iterdir() if path.is_dir())


# What takes longest begins first, or one worker would be left with it in the end.
LONGEST = {
    "test_bad_environment.py",
    "test_network_files.py",
    "test_outage.py",
    "test_recorder.py",
    "test_use.py",
}


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.path.name not in LONGEST)


def as_another_program(database: Path | str) -> apsw.Connection:
    """A connection past Rollbook, of a program that waits for a lock instead of failing.

    Rollbook's own threads may be in the middle of a transaction when a test comes along.
    """
    connection = apsw.Connection(str(database))
    connection.set_busy_timeout(20_000)
    return connection


def run_sql(database: Path | str, sql: str, values: tuple[Any, ...] = ()) -> list[Any]:
    """Run SQL past Rollbook; gives the rows."""
    with closing(as_another_program(database)) as connection:
        return connection.execute(sql, values).fetchall()


def index_of(state: Any) -> Path:
    """Where the index of a home is, whatever it shares."""
    return state.codex_home / "rollbook" / "state.sqlite"


def is_sound(database: Path | str) -> bool:
    """Say whether SQLite finds its own structures in order."""
    return run_sql(database, "PRAGMA integrity_check") == [("ok",)]


@pytest.fixture
def use_engine(request, monkeypatch) -> Callable[[str], None]:
    """Have what is opened in a test be kept in the home alone, or be shared, too."""

    def use(name: str) -> None:
        if name == "postgresql":
            monkeypatch.setenv("ROLLBOOK_DB", request.getfixturevalue("shared_database"))
            monkeypatch.setenv("ROLLBOOK_HOST", "")

    return use


@pytest.fixture(params=["sqlite", "postgresql"])
def either_engine(request, use_engine) -> str:
    """Run a test with either engine."""
    use_engine(request.param)
    return request.param


@pytest.fixture(autouse=True)
def own_environment(monkeypatch, tmp_path_factory):
    """No test may touch the real home of whoever runs it."""
    for name in ("CODEX_HOME", "ROLLBOOK_DB", "ROLLBOOK_HOST", "ROLLBOOK_READ_DB"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path_factory.mktemp("user")))


@pytest.fixture
def home(tmp_path) -> Path:
    """An empty home."""
    path = tmp_path / "home"
    (path / "sessions").mkdir(parents=True)
    return path


@pytest.fixture
def state(home) -> Iterator[StateRuntime]:
    """The state of an empty home."""
    with StateRuntime.open(home, backfill=False) as runtime:
        if runtime.database_system == "postgresql":
            runtime.sync()  # so that it is shared
        yield runtime


@pytest.fixture
def corpus_home(tmp_path):
    """Make a writable copy of a release's home, with the mtimes that it was recorded with."""

    def copy(release: str) -> Path:
        target = tmp_path / f"codex-{release}"
        shutil.copytree(CORPUS / release / "home", target)
        for file in expected(release)["files"]:
            os.utime(target / file["path"], ns=(file["mtime_ns"], file["mtime_ns"]))
        return target

    return copy


@pytest.fixture(scope="session")
def obeying() -> list[str]:
    """The command that runs another one so that permissions hold for it, also as root."""
    if os.geteuid():
        return []
    powers = "-dac_override,-dac_read_search"
    command = ["setpriv", f"--bounding-set={powers}", f"--inh-caps={powers}"]
    try:
        subprocess.run([*command, "true"], check=True, capture_output=True)
    except (FileNotFoundError, subprocess.CalledProcessError) as error:
        pytest.skip(f"root can't be made to obey permissions here: {error}")
    return command


def expected(release: str) -> dict:
    """What the release itself stored."""
    return json.loads((CORPUS / release / "expected.json").read_text("utf-8"))
