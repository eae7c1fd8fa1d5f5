"""Order in a year of threads, on the command line."""

from pathlib import Path

import pexpect
import pytest

from tests.acceptance.conftest import COMMAND, environment

ID = "01a207c8-8e7e-7062-a3db-f0444cf6b4cf"
OTHER = "01a207c8-2362-7ee0-a181-2c5d5a009976"
UNKNOWN = "ffffffff-ffff-4fff-8fff-ffffffffffff"


@pytest.fixture
def organised(run, corpus_home):
    home = corpus_home("0.169.0")
    run("sync", "--home", home)

    def command(*arguments, **options):
        return run(*arguments, "--home", home, **options)

    command.home = home
    return command


def ids(done):
    return [line.partition("\t")[0] for line in done.out.splitlines()]


def test_names_tags_and_pins_are_given_shown_and_taken_back(organised):
    assert organised("rename", ID[:18], "Not \x1b[31mred").out == f"{ID}\tNot \ufffd[31mred\n"
    assert organised("tag", ID, "wip", "a b").out.endswith("#a b #wip\n")
    assert organised("pin", ID, OTHER).code == 0
    assert organised("list", "--pinned").out.count("★") == 2
    assert ids(organised("list", "--tag", "wip", "--tag", "a b")) == [ID]
    assert ID not in ids(organised("list", "--not-pinned"))
    shown = organised("show", ID).out
    assert "Tags        #a b #wip" in shown
    assert "Pinned      yes" in shown
    [thread] = organised("untag", ID, "wip", "--json").json
    assert (thread["tags"], thread["pinned"]) == (["a b"], True)
    organised("unpin", ID)
    organised("rename", ID, "--clear")
    assert organised("show", ID, "--json").json["name"] is None


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("rename", ID), 2),
        (("rename", ID, "A name", "--clear"), 2),
        (("tag", ID), 2),
        (("tag", ID, " "), 2),
        (("pin", UNKNOWN), 3),
        (("pin", ID, UNKNOWN), 3),
        (("delete", UNKNOWN, "--yes"), 3),
        (("delete", ID), 2),
        (("prune",), 2),
        (("prune", "--older-than", "0d"), 2),
        (("prune", "--older-than", "soon"), 2),
        (("prune", "--older-than", "1d", "--pinned"), 2),
        (("prune", "--older-than", "1d"), 2),
        (("relocate", "/a", "/a"), 2),
        (("list", "--project", "alpha", "--project"), 2),
    ],
)
def test_what_can_not_be_is_refused(organised, arguments, code):
    before = organised("list").out
    assert organised(*arguments).code == code
    assert organised("list").out == before


def test_projects_and_where_they_went(organised, tmp_path):
    lines = organised("projects").out.splitlines()
    assert lines[0].startswith("example.com/acme/alpha\t22\t1\t2026-11-23T09:41:54Z\t")
    assert len(ids(organised("list", "--project", "acme/alpha"))) == 22
    moved = organised("relocate", "/home/dev/projects", tmp_path)
    assert moved.out == f"33 threads: /home/dev/projects → {tmp_path}\n"
    assert moved.err == ""
    assert ID in ids(organised("list", "--cwd", "alpha", cwd=tmp_path))
    assert "Recorded in /home/dev/projects/alpha" in organised("show", ID).out
    [first, *_] = organised("projects", "--json").json
    assert first["key"] == "example.com/acme/alpha"
    assert str(tmp_path / "alpha") in first["directories"]
    back = organised("relocate", tmp_path, "/home/dev/projects", "--json")
    assert back.json == {"old": str(tmp_path), "new": "/home/dev/projects", "threads": 33}
    assert "there is no directory /home/dev/projects" in back.err


def test_to_delete_takes_a_yes(organised):
    rollout = Path(organised("path", ID).out.strip())
    assert organised("delete", ID, "--dry-run").err.startswith("Would delete 1 thread, but no")
    done = organised("delete", ID[:13], "--yes", "--json")
    assert [thread["id"] for thread in done.json["threads"]] == [ID]
    assert organised("show", ID).code == 3
    assert rollout.exists()
    organised("delete", ID, "--rollout", "--yes")
    assert not rollout.exists()


def test_prune_shows_what_would_go_and_keeps_what_is_pinned(organised):
    organised("pin", ID)
    organised("tag", OTHER, "reference")
    options = ("prune", "--older-than", "1h", "--keep-tag", "reference")
    planned = organised(*options, "--dry-run")
    assert len(ids(planned)) == len(ids(organised("list", "--limit", 99))) - 2
    gone = organised(*options, "--yes")
    assert gone.out == planned.out
    assert set(ids(organised("list", "--limit", 99))) == {ID, OTHER}
    assert organised("doctor").code == 0


@pytest.mark.parametrize(("answer", "is_left"), [("y", False), ("n", True), ("", True)])
def test_a_person_is_asked_and_told_what_goes(organised, answer, is_left):
    terminal = pexpect.spawn(
        str(COMMAND),
        ["delete", ID, "--rollout", "--home", str(organised.home)],
        env=environment(TERM="dumb"),
        encoding="utf-8",
        timeout=20,
        dimensions=(40, 200),
    )
    terminal.expect("Question typed in a terminal")
    terminal.expect(r"Delete 1 thread, and their rollouts, [0-9.]+ kB\? \[y/N\]")
    terminal.sendline(answer)
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert (organised("show", ID).code == 0) is is_left
