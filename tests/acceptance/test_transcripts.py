"""``rollbook show --transcript`` and ``rollbook export``: what they print and write."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from rollbook.testing import make_line, session_meta, user_message, write_rollout
from tests.export.conftest import ID, message, tool_call, tool_output

FORK = "01a207c8-3e7a-7d53-9840-13c88cf8a85a"
SOURCE = "01a207c8-3d25-7d92-aae0-671e6aae1baf"
ALONE = "01a207c8-5c2e-7e11-9928-f6d6451bf219"
SECRET = "AKIA" + "Q7ZP3M5XK2WJ8RTV"


@pytest.fixture
def told(home, run) -> Path:
    """A home with one thread."""
    diff = "@@ -1 +1 @@\n-old\n+new"
    lines = [session_meta(ID), user_message("Fix it"), message("Fix it", "user")]
    lines += [tool_call('{"cmd": "git diff"}'), tool_output(diff), message("Do\x1b[2J\nne")]
    write_rollout(home, ID, lines)
    run("sync", "--home", home)
    return home


def test_a_transcript_in_a_pipe_is_plain_lines(run, told):
    done = run("show", ID[:8], "--transcript", "--home", told)
    assert done.out == (
        "2026-01-27T12:34:57Z  User\n    Fix it\n"
        "2026-01-27T12:34:57Z  shell  git diff\n"
        "2026-01-27T12:34:57Z  Output  @@ -1 +1 @@ -old +new\n"
        "2026-01-27T12:34:57Z  Agent\n    Do\ufffd[2J\n    ne\n"
    )
    assert done.err == ""


def test_tools_are_shown_whole_if_wanted(run, told):
    done = run("show", ID, "--tools", "--home", told)
    assert "  shell\n    git diff\n" in done.out
    assert "  Output\n    @@ -1 +1 @@\n    -old\n    +new\n" in done.out


def test_pages_follow_each_other(run, sample):
    arguments = ("show", FORK, "--home", sample, "--json", "--limit", 4)
    first = run(*arguments, "--at", "start").json
    assert first["before"] is None
    second = run(*arguments, "--after", first["after"]).json
    back = run(*arguments, "--before", second["before"]).json
    assert back["items"] == first["items"]
    assert len(first["items"]) == 4
    whole = run("show", FORK, "--home", sample, "--json", "--transcript").json
    assert whole["items"][:8] == first["items"] + second["items"]
    assert (whole["before"], whole["after"]) == (None, None)


def test_a_position_that_is_none_is_wrong_usage(run, sample):
    done = run("show", FORK, "--at", "nowhere", "--home", sample)
    assert done.code == 2
    assert "no position" in done.err


def test_show_has_the_tree_that_a_thread_belongs_to(run, sample):
    done = run("show", FORK, "--home", sample)
    assert re.search(rf"Lineage\n +{SOURCE}  .*\n  →   fork {FORK}  ", done.out)
    assert run("show", FORK, "--home", sample, "--json").json["lineage"] == [
        {"id": SOURCE, "above": None, "relation": "root", "segments": 1, "is_known": True},
        {"id": FORK, "above": SOURCE, "relation": "fork", "segments": 1, "is_known": True},
    ]
    assert "Lineage" not in run("show", ALONE, "--home", sample).out


def test_a_thread_goes_to_standard_output(run, told):
    markdown = run("export", ID, "--home", told).out
    assert markdown.startswith("# Fix it\n")
    assert "\x1b" not in markdown
    html = run("export", ID, "--home", told, "--format", "html").out
    assert html.startswith("<!DOCTYPE html>")
    document = json.loads(run("export", ID, "--home", told, "--json").out)
    assert document["thread"]["id"] == ID
    kinds = [item["kind"] for item in document["items"]]
    assert kinds == ["message", "tool_call", "tool_output", "message"]
    document = json.loads(run("export", ID, "--home", told, "--json", "--no-tools").out)
    assert [item["kind"] for item in document["items"]] == ["message", "message"]


def test_files_are_private_and_never_replaced_unasked(run, told, tmp_path):
    path = tmp_path / "thread.md"
    arguments = ("export", ID, "--home", told, "-o", path)
    assert run(*arguments).code == 0
    assert path.stat().st_mode & 0o777 == 0o600
    path.write_text("mine")
    done = run(*arguments)
    assert done.code == 1
    assert "--force" in done.err
    assert path.read_text() == "mine"
    assert run(*arguments, "--force").code == 0
    assert path.read_text("utf-8").startswith("# Fix it")
    assert set(os.listdir(tmp_path)) == {"home", path.name}


def test_a_link_is_not_written_through(run, told, tmp_path):
    target, link = tmp_path / "target", tmp_path / "thread.md"
    target.write_text("mine")
    link.symlink_to(target)
    assert run("export", ID, "--home", told, "-o", link).code == 1
    assert run("export", ID, "--home", told, "-o", link, "--force").code == 0
    assert target.read_text() == "mine"
    assert not link.is_symlink()


def test_threads_of_a_filter_go_into_a_directory(run, sample, tmp_path):
    output = tmp_path / "threads"
    listed = run("list", "--home", sample, "--json", "--limit", 100, "--source", "exec").json
    done = run("export", "--home", sample, "--source", "exec", "-o", output, "--json")
    assert done.code == 0
    files = done.json["files"]
    assert {file["id"] for file in files} == {item["id"] for item in listed["items"]}
    assert {Path(file["path"]) for file in files} == set(output.iterdir())
    assert output.stat().st_mode & 0o777 == 0o700
    again = run("export", "--home", sample, "--source", "exec", "-o", output, "--json")
    assert again.code == 1
    assert again.json["failed"] == len(files)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        [FORK, SOURCE],
        [FORK, "--source", "exec"],
        [FORK, "--json", "--format", "html"],
        [FORK, "--format", "pdf"],
    ],
)
def test_what_can_not_be_meant_is_wrong_usage(run, sample, arguments):
    assert run("export", *arguments, "--home", sample).code == 2


def test_a_thread_whose_rollout_is_gone_is_not_found(run, told, tmp_path):
    for path in told.glob("sessions/**/*.jsonl"):
        path.unlink()
    done = run("export", ID, "--home", told, "-o", tmp_path / "x.md")
    assert done.code == 3
    assert not (tmp_path / "x.md").exists()


def test_redaction_says_what_it_took_out(run, home):
    text = f"AWS is {SECRET}, in /home/alice/x"
    write_rollout(home, ID, [session_meta(ID), user_message(text), message(text, "user")])
    done = run("export", ID, "--home", home, "--redact")
    assert SECRET not in done.out
    assert "# AWS is \\[redacted: AWS Access Key\\], in \\~/x" in done.out.replace("~", "\\~")
    assert "AWS Access Key" in done.err


def test_a_large_thread_takes_no_more_memory_than_a_small_one(home, tmp_path):
    text = "long " * 20_000
    noise = make_line("event_msg", {"type": "token_count", "info": "x" * 100_000})
    body = [message(text), tool_output(text), noise] * 100
    write_rollout(home, ID, [session_meta(ID), user_message("a"), *body])
    code = """
import re, sys
from pathlib import Path
from rollbook.cli import main
try: main()
finally: print(re.search("VmHWM: *(.*) kB", Path("/proc/self/status").read_text())[1], file=sys.stderr)
"""
    for form in ("markdown", "html", "json"):
        arguments = ["export", ID, "--format", form, "--home", home]
        with (tmp_path / form).open("wb") as output:
            done = subprocess.run(
                [sys.executable, "-c", code, *map(str, arguments)],
                stdout=output,
                stderr=subprocess.PIPE,
                text=True,
                check=True,
            )
        assert (tmp_path / form).stat().st_size > 20_000_000
        assert int(done.stderr.split()[-1]) < 90 << 10, form
