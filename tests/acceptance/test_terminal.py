"""On a real terminal: tables, colour, progress, and nothing that a rollout could do to it."""

import re
import uuid

import pexpect
import pytest

from rollbook.index.lock import sync_lock
from rollbook.testing import make_line, session_meta, user_message, write_rollout
from tests.acceptance.conftest import COMMAND, environment

HOSTILE = (
    "\x1b]52;c;b3duZWQ=\x07\x1b]0;owned\x07\x1b[2J\x9b31m\x9d0;x\x9c\x00\x08\x08"
    "\u202egnp.exe\u2066\u200f\r\nsecond line\ttab"
)
COLOUR = re.compile(r"\x1b\[[\d;]*m")
CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def on_terminal(*arguments, columns: int = 140, **more: str) -> tuple[str, int]:
    child = pexpect.spawn(
        str(COMMAND),
        [str(argument) for argument in arguments],
        dimensions=(40, columns),
        encoding="utf-8",
        timeout=60,
        env=environment(TERM="xterm-256color", LANG="C.UTF-8", **more),
    )
    child.expect(pexpect.EOF)
    child.close()
    return child.before, child.exitstatus


@pytest.fixture
def hostile_home(home):
    """A home in which everything that can be text is hostile."""
    thread_id = str(uuid.UUID(int=(4 << 76) + (2 << 62)))
    tool = {"name": HOSTILE, "description": HOSTILE, "inputSchema": {HOSTILE: HOSTILE}}
    meta = session_meta(
        thread_id,
        cwd=HOSTILE,
        source=HOSTILE,
        model_provider=HOSTILE,
        originator=HOSTILE,
        cli_version=HOSTILE,
        agent_nickname=HOSTILE,
        git={"branch": HOSTILE, "commit_hash": HOSTILE, "repository_url": HOSTILE},
        dynamic_tools=[tool],
    )
    context = {"cwd": HOSTILE, "model": HOSTILE, "approval_policy": HOSTILE, "effort": HOSTILE}
    lines = [meta, user_message(HOSTILE * 1000), make_line("turn_context", context)]
    write_rollout(home, thread_id, lines)
    (home / "session_index.jsonl").write_bytes(
        make_line("", {}).replace(b'"type":"","payload":{}', b'"id":"%s"' % thread_id.encode())
    )
    (home / "sessions" / "rollout-\x1b]0;owned\x07\u202e.jsonl").touch()
    return home


@pytest.mark.parametrize(
    ("columns", "headings", "title"),
    [
        (140, ("Thread", "Source", "Tokens", "Directory", "Title"), "Question typed in a terminal"),
        (100, ("Thread", "Directory", "Title"), "Question typed in a terminal"),
        (60, ("Thread", "Directory", "Title"), "Quest"),
    ],
)
def test_a_table_has_headings_and_colour_and_fits_its_width(sample, columns, headings, title):
    text, code = on_terminal("list", "--home", sample, columns=columns)
    assert code == 0
    assert COLOUR.search(text)
    lines = COLOUR.sub("", text).splitlines()
    assert all(heading in lines[1] for heading in headings)
    assert max(map(len, lines[:-2])) <= columns
    assert title in text


def test_a_page_tells_how_to_go_on(sample):
    text, _ = on_terminal("list", "--home", sample, "--limit", 3)
    assert re.search(r"--cursor '2026-11-23T09:41:41Z\|01a207c8-\S+'", text)


def test_an_empty_list_says_so(home):
    text, code = on_terminal("list", "--home", home)
    assert (code, "No threads" in text) == (0, True)


def test_sync_shows_its_progress(corpus_home):
    text, code = on_terminal("sync", "--home", corpus_home("0.169.0"))
    assert code == 0
    assert "33/33 rollouts" in text
    assert "33 indexed, 0 unchanged" in text


@pytest.mark.parametrize(
    "arguments",
    [["list"], ["show", "0"], ["tools", "0"], ["path", "0"], ["archive", "0"], ["show", HOSTILE]],
    ids=lambda arguments: arguments[0],
)
@pytest.mark.parametrize("as_json", [False, True])
def test_nothing_of_a_rollout_reaches_the_terminal_as_a_control_sequence(
    hostile_home, arguments, as_json
):
    if "\0" in arguments[-1]:
        arguments = [arguments[0], arguments[1].replace("\0", "")]
    on_terminal("sync", "--home", hostile_home)
    more = ["--json"] if as_json else []
    text, _ = on_terminal(*arguments, "--home", hostile_home, *more)
    assert CONTROL.findall(COLOUR.sub("", text)) == []


def test_a_hostile_file_name_in_a_failure_is_harmless(hostile_home):
    text, code = on_terminal("sync", "--home", hostile_home, "--jobs", 1)
    assert code == 1
    assert "is empty" in text
    shown = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", text)  # the progress bar moves the cursor
    assert CONTROL.findall(shown) == []
    assert "owned" in shown


def test_ctrl_c_ends_a_sync_that_waits_for_another(sample):
    with sync_lock(str(sample / "rollbook" / "state.sqlite"), 0):
        child = pexpect.spawn(
            str(COMMAND), ["sync", "--home", str(sample)], encoding="utf-8", timeout=60
        )
        child.expect(r"process \d+ \(.*\) is syncing .*waiting for it")
        child.sendintr()
        child.expect(pexpect.EOF)
        child.close()
    assert child.exitstatus == 130
    assert "Traceback" not in child.before


def test_the_browser_is_opened_and_the_token_is_in_no_command(home, tmp_path):
    browser, seen = tmp_path / "browser", tmp_path / "seen"
    browser.write_text(
        f'#!/bin/sh\necho "$@" > {seen}.begun\nfile=${{1#file://}}\n'
        f'(stat -c %a "$(dirname "$file")"; cat "$file") >> {seen}.begun\nmv {seen}.begun {seen}\n'
    )
    browser.chmod(0o700)
    child = pexpect.spawn(
        str(COMMAND),
        ["serve", "--home", str(home), "--port", "0"],
        encoding="utf-8",
        timeout=30,
        env=environment(TERM="xterm-256color", DISPLAY=":0", BROWSER=f"{browser} %s"),
    )
    child.expect(r"(http://127\.0\.0\.1:\d+/\?token=([\w-]+))")
    link, token = child.match[1], child.match[2]
    while not seen.exists():
        assert child.isalive()
    command, private, page = seen.read_text().split("\n", 2)
    assert command.startswith("file://")
    assert token not in command
    assert private == "700"
    assert link in page
    child.sendintr()
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0
    assert "Traceback" not in child.before
