"""Every command on a real home: what it prints, its JSON, its exit code."""

import json
import subprocess
from pathlib import Path

import pytest

from rollbook.testing import session_meta, user_message, write_rollout
from tests.acceptance.conftest import COMMAND, environment
from tests.conftest import expected

TOOLS = "01a207c8-3ebb-7143-a4a0-e2c688606806"
NAMED = "01a207c8-450b-7c20-bbf9-1e06a53b338a"
ARCHIVED = "01a207c8-3fd6-7b63-bf3c-22531c8d18bc"
UNKNOWN = "ffffffff-ffff-4fff-8fff-ffffffffffff"
SYNC_KEYS = [
    "scanned",
    "indexed",
    "unchanged",
    "removed",
    "failed",
    "parse_errors",
    "bytes_read",
    "seconds",
]


def ids(done) -> list[str]:
    return [item["id"] for item in done.json["items"]]


def test_sync_counts_what_it_did(run, corpus_home):
    home = corpus_home("0.155.0")
    first = run("sync", "--home", home, "--json").json
    assert list(first) == SYNC_KEYS
    assert (first["scanned"], first["indexed"], first["failed"]) == (33, 33, 0)
    second = run("sync", "--home", home, "--json").json
    assert (second["unchanged"], second["indexed"], second["bytes_read"]) == (33, 0, 0)
    rebuilt = run("sync", "--home", home, "--json", "--rebuild", "--jobs", 2).json
    assert (rebuilt["indexed"], rebuilt["bytes_read"]) == (33, first["bytes_read"])


def test_sync_names_what_it_could_not_read_and_ends_with_1(run, home):
    good, bad = TOOLS, UNKNOWN
    write_rollout(home, good, [session_meta(good), user_message("Fine"), b"{torn"])
    path = write_rollout(home, bad, [])
    done = run("sync", "--home", home, "--json")
    assert done.code == 1
    assert (done.json["failed"], done.json["indexed"], done.json["parse_errors"]) == (1, 1, 1)
    assert f"{path.relative_to(home)} is empty" in done.err
    assert "1 malformed line" in done.err
    assert ids(run("list", "--home", home, "--json")) == [good]


def test_list_pages_give_every_thread_once(run, sample):
    everything = ids(run("list", "--home", sample, "--json", "--limit", 100, "--all"))
    assert len(everything) == 32
    seen, cursor = [], None
    while True:
        more = ["--cursor", cursor] if cursor else []
        page = run("list", "--home", sample, "--json", "--limit", 9, "--all", *more)
        assert list(page.json) == ["items", "next_cursor"]
        seen += ids(page)
        cursor = page.json["next_cursor"]
        if cursor is None:
            break
    assert seen == everything


@pytest.mark.parametrize(
    ("sort", "field"),
    [("recency", "recency_at"), ("created", "created_at"), ("updated", "updated_at")],
)
def test_list_sorts_newest_first(run, sample, sort, field):
    items = run("list", "--home", sample, "--json", "--sort", sort).json["items"]
    assert len(items) == 25
    assert items == sorted(items, key=lambda item: (item[field], item["id"]), reverse=True)
    if sort == "recency":
        assert items == run("list", "--home", sample, "--json").json["items"]


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        (["--source", "exec"], lambda row: row["source"] == "exec"),
        (
            ["--source", "exec", "--source", '{"subagent":"review"}'],
            lambda row: row["source"] in ("exec", '{"subagent":"review"}'),
        ),
        (["--provider", "mock"], lambda row: row["model_provider"] == "mock"),
        (["--provider", "nobody"], lambda row: False),
        (["--cwd", "/home/dev/projects/beta/"], lambda row: row["cwd"].endswith("/beta")),
        (["--title", "TICKET"], lambda row: "ticket" in row["title"]),
        ([], lambda row: True),
    ],
)
def test_list_filters(run, sample, options, wanted):
    """What Codex itself stored says which threads fit; only a silent fork has no title there."""
    active = [r for r in expected("0.169.0")["threads_backfilled"] if not r["archived"]]
    want = {row["id"] for row in active if row["title"] and wanted(row)}
    found = run("list", "--home", sample, "--json", "--limit", 100, *options)
    assert set(ids(found)) == want
    assert len(ids(found)) == len(want)


def test_list_shows_archived_and_silent_threads_on_request(run, sample):
    assert ids(run("list", "--home", sample, "--json", "--archived")) == [ARCHIVED]
    shown = set(ids(run("list", "--home", sample, "--json", "--limit", 100)))
    everything = set(ids(run("list", "--home", sample, "--json", "--limit", 100, "--all")))
    [silent] = everything - shown
    assert expected("0.169.0")["scenarios"][silent] == "server fork, no turn"


def test_a_directory_may_be_relative(run, home, tmp_path):
    project = tmp_path / "project"
    project.mkdir()
    write_rollout(home, TOOLS, [session_meta(TOOLS, cwd=str(project)), user_message("Here")])
    done = run("list", "--home", home, "--cwd", ".", "--json", cwd=project)
    assert ids(done) == [TOOLS]


def test_the_first_list_of_a_home_syncs_it(run, corpus_home):
    done = run("list", "--home", corpus_home("0.95.0"), "--json")
    assert (done.code, done.err, len(done.json["items"])) == (0, "", 25)


def test_a_thread_in_json_has_every_field(run, sample):
    thread = run("show", "--home", sample, "--json", ARCHIVED[:20]).json
    row = next(r for r in expected("0.169.0")["threads"] if r["id"] == ARCHIVED)
    assert thread["rollout_path"] == f"{sample}/archived_sessions/{Path(row['rollout_path']).name}"
    for field in ("created_at", "updated_at", "source", "cwd", "title", "model", "tokens_used"):
        assert thread[field] == row[field]
    assert isinstance(thread["archived_at"], int)
    assert (thread["dynamic_tools"], thread["rollout_exists"]) == ([], True)


def test_show_says_that_a_rollout_is_gone_and_list_forgets_it(run, corpus_home):
    home = corpus_home("0.169.0")
    run("sync", "--home", home)
    path = Path(run("path", "--home", home, NAMED).out.strip())
    path.unlink()
    thread = run("show", "--home", home, "--json", NAMED).json
    assert (thread["rollout_exists"], thread["name"]) == (False, "Release ✨ planning")
    assert "(gone)" in run("show", "--home", home, NAMED).out
    assert run("path", "--home", home, NAMED).code == 3
    assert run("sync", "--home", home, "--json").json["removed"] == 1
    assert NAMED not in run("list", "--home", home, "--limit", 100).out
    assert run("show", "--home", home, NAMED).code == 3


def test_tools_are_listed_in_order(run, sample):
    tools = run("tools", "--home", sample, "--json", TOOLS).json
    assert [list(tool) for tool in tools] == [["name", "description", "input_schema"]] * 2
    assert [tool["name"] for tool in tools] == ["lookup_ticket", "post_note"]
    assert list(tools[0]["input_schema"]) == [
        "type",
        "required",
        "properties",
        "additionalProperties",
    ]
    assert "zażółć" in run("tools", "--home", sample, TOOLS).out
    assert run("tools", "--home", sample, "--json", NAMED).json == []


@pytest.mark.parametrize("release", ["0.169.0", "0.169.0-compressed"])
def test_path_prints_a_file_that_is_there(run, corpus_home, release):
    home = corpus_home(release)
    done = run("path", "--home", home, TOOLS)
    assert (done.code, Path(done.out.strip()).is_file()) == (0, True)
    assert run("path", "--home", home, TOOLS, "--json").json == {"path": done.out.strip()}


@pytest.mark.parametrize("release", ["0.169.0", "0.169.0-compressed"])
def test_archive_and_unarchive_move_the_rollout_and_the_list_follows(run, corpus_home, release):
    home = corpus_home(release)
    run("sync", "--home", home)
    before = Path(run("path", "--home", home, TOOLS).out.strip())
    assert run("archive", "--home", home, TOOLS[:18]).code == 0
    assert (home / "archived_sessions" / before.name).is_file()
    assert not before.exists()
    assert TOOLS in ids(run("list", "--home", home, "--archived", "--json"))
    assert run("archive", "--home", home, TOOLS).code == 0
    assert run("sync", "--home", home, "--json").json["indexed"] == 0
    [thread] = run("unarchive", "--home", home, "--json", TOOLS).json
    assert (thread["id"], thread["archived_at"]) == (TOOLS, None)
    assert before.is_file()
    assert TOOLS in ids(run("list", "--home", home, "--json", "--limit", 100))


def test_one_unknown_id_does_not_keep_the_others_from_the_archive(run, corpus_home):
    home = corpus_home("0.169.0")
    done = run("archive", "--home", home, UNKNOWN, TOOLS, NAMED)
    assert done.code == 3
    assert UNKNOWN in done.err
    assert len(ids(run("list", "--home", home, "--archived", "--json"))) == 3


def test_options_may_stand_before_or_after_the_command(run, sample):
    after = run("list", "--home", sample, "--json").out
    assert run("--home", sample, "--json", "list").out == after
    assert run("list", "--json", CODEX_HOME=str(sample)).out == after


def test_the_database_may_be_elsewhere(run, corpus_home, tmp_path):
    home = corpus_home("0.95.0")
    for number, (options, more) in enumerate(
        [(["--db", tmp_path / "0.db"], {}), ([], {"ROLLBOOK_DB": str(tmp_path / "1.db")})]
    ):
        assert run("sync", "--home", home, *options, **more).code == 0
        assert (tmp_path / f"{number}.db").is_file()
        assert len(ids(run("list", "--home", home, "--json", *options, **more))) == 25
    assert not (home / "rollbook").exists()


def test_in_a_pipe_the_output_is_plain_and_the_reader_may_leave(sample):
    script = f"{COMMAND} list --home {sample} | head -1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, check=True, env=environment()
    )
    line, status = done.stdout.splitlines()
    assert (status, done.stderr) == ("0", "")
    assert line.split("\t")[4] == "Question typed in a terminal"
    assert "\x1b" not in line


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_there_is_completion_for_the_shells(run, shell):
    done = run("completion", shell)
    assert done.code == 0
    assert "_ROLLBOOK_COMPLETE" in done.out


def test_ids_are_completed(run, sample):
    done = run(
        CODEX_HOME=str(sample),
        _ROLLBOOK_COMPLETE="bash_complete",
        COMP_WORDS="rollbook show 01a207c8-3eb",
        COMP_CWORD="2",
    )
    assert done.out.split() == [f"plain,{TOOLS}"]


@pytest.mark.parametrize(
    "command",
    [
        "",
        "sync",
        "list",
        "search",
        "show",
        "export",
        "stats",
        "mcp",
        "tools",
        "path",
        "archive",
        "completion",
    ],
)
def test_help_teaches_and_the_docs_know_every_option(run, command):
    done = run(*command.split(), "--help")
    assert done.code == 0
    docs = (Path(__file__).parents[2] / "docs" / "cli.md").read_text("utf-8")
    assert f"`{command}" in docs or not command
    options = {word for word in done.out.split() if word.startswith("--") and word[2:].isalpha()}
    assert {o for o in options if o not in docs} <= {"--help", "--version"}


def test_without_a_command_the_help_is_shown(run):
    done = run()
    assert (done.code, done.err) == (0, "")
    assert done.out == run("--help").out


def test_the_version_is_that_of_the_package(run):
    assert run("--version").out == "rollbook, version 0.1.0\n"


def test_json_is_one_document_that_a_terminal_can_show(run, home):
    hostile = "\x1b]0;owned\x07 \x9b31m \u202e txt \x7f"
    write_rollout(home, TOOLS, [session_meta(TOOLS, cwd=hostile), user_message(hostile)])
    done = run("list", "--home", home, "--json")
    assert json.loads(done.out)["items"][0]["title"] == hostile
    assert not {"\x1b", "\x07", "\x9b", "\u202e", "\x7f"} & set(done.out)


def test_a_terminal_without_unicode_is_no_obstacle(run, sample):
    more = {"PYTHONIOENCODING": "latin-1"}
    done = run("show", "--home", sample, NAMED, **more)
    assert (done.code, "Release \\u2728 planning" in done.out) == (0, True)
    assert (
        run("show", "--home", sample, NAMED, "--json", **more).json["name"] == "Release ✨ planning"
    )


@pytest.mark.parametrize("time", ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z"])
@pytest.mark.parametrize("zone", ["Pacific/Kiritimati", "America/Los_Angeles"])
def test_times_at_the_ends_of_the_calendar_are_shown(run, home, time, zone):
    write_rollout(home, TOOLS, [session_meta(TOOLS, timestamp=time), user_message("When?")])
    done = run("show", "--home", home, TOOLS, TZ=zone)
    assert (done.code, time[:4] in done.out) == (0, True)
    assert run("list", "--home", home, "--sort", "created", TZ=zone).out.split("\t")[1] == time
