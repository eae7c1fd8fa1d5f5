"""``rollbook sync --watch`` as a process."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rollbook.testing import session_meta, token_count, user_message, write_rollout
from tests.index.test_sync import append

ID = "01a207c8-2362-7ee0-a181-2c5d5a009976"
COMMAND = Path(sys.executable).with_name("rollbook")


@pytest.fixture
def watching(home):
    """A home with one rollout, and the command that follows it."""
    path = write_rollout(home, ID, [session_meta(ID), user_message("Hi")])
    started = []

    def start(*options: str) -> subprocess.Popen:
        process = subprocess.Popen(
            [COMMAND, "sync", "--watch", "--home", home, *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield path, start
    for process in started:
        process.kill()
        process.communicate()


def test_it_tells_what_changes_until_it_is_interrupted(watching):
    path, start = watching
    process = start()
    assert "1 indexed" in process.stdout.readline()
    append(path, token_count(1))  # found by the notification or by the check that follows
    line = process.stdout.readline()
    assert ID in line
    assert "1 updated" in line
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (0, "")


def test_with_json_each_update_is_an_object_on_a_line(watching):
    path, start = watching
    process = start("--json")
    assert json.loads(process.stdout.readline())["indexed"] == 1
    for _ in range(2):
        assert json.loads(process.stdout.readline())["changed"] == []
    append(path, token_count(5))
    update = json.loads(process.stdout.readline())
    assert (update["changed"], update["removed"]) == ([ID], [])
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 0


def test_it_ends_when_nobody_reads_any_more(watching):
    path, start = watching
    process = start("--json")
    for _ in range(3):
        process.stdout.readline()
    process.stdout.close()
    append(path, token_count(5))
    process.stdout = None
    assert process.wait(20) == 0
