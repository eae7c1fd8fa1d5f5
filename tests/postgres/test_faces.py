"""Commands, page, API and the server for agents, for somebody who has only the server."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from mcp import Client, StdioServerParameters

from rollbook import LogEntry
from tests.web.serving import serving

PROGRAM = Path(sys.executable).with_name("rollbook")


@pytest.fixture
def reader(on, shared_database, monkeypatch, tmp_path):
    """The environment of somebody without a home; gives a thread that a host has shared."""
    with on("alpha") as alpha:
        alpha.sync()
        thread = alpha.list_threads(1).items[0]
        alpha.tag_thread(thread.id, ["shared"])
        alpha.insert_logs([LogEntry(1_795_000_000, 0, "WARN", "loop", "it broke", thread.id)])
        alpha.query_logs()
    monkeypatch.setenv("HOME", str(tmp_path / "nobody"))
    monkeypatch.setenv("ROLLBOOK_DB", shared_database)
    return thread


def run(*arguments):
    done = subprocess.run([PROGRAM, *arguments], capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
    return done


def test_each_command_that_reads_has_its_answer(reader):
    short = reader.id[:18]
    for arguments, word in (
        (("list", "--all", "--json"), reader.id),
        (("list", "--tag", "shared"), reader.id),
        (("show", short, "--json"), '"host":"alpha"'),
        (("show", short), "alpha"),
        (("show", short, "--transcript"), reader.title),
        (("tools", short, "--json"), "["),
        (("search", "the", "--json"), "alpha"),
        (("stats", "--json"), "input_tokens"),
        (("projects", "--json"), "directories"),
        (("export", short), reader.title),
        (("logs", "--no-follow", "--json"), "it broke"),
        (("logs", "--no-follow", "--thread-id", short), "alpha"),
    ):
        done = run(*arguments)
        assert done.returncode == 0, done.stderr
        assert word in done.stdout, arguments


def test_each_command_that_needs_the_rollout_says_where_that_is(reader):
    for command in ("path", "archive"):
        done = run(command, reader.id, "--json")
        error = json.loads(done.stderr.splitlines()[-1])["error"]
        assert (done.returncode, error["code"]) == (3, "elsewhere")
        assert "on host alpha" in error["message"]


def test_the_page_and_its_api_show_all_hosts(reader, tmp_path):
    home = tmp_path / "empty"
    (home / "sessions").mkdir(parents=True)
    with serving(home) as served, served.client() as client:
        assert reader.id in client.get("/").text
        page = client.get(f"/threads/{reader.id}").text
        assert reader.title in page
        assert "it broke" in client.get("/logs").text
        assert client.get("/usage").status_code == client.get("/health").status_code == 200
        headers = {"Authorization": f"Bearer {served.token}"}
        api = client.get("/api/v1/threads?limit=50", headers=headers).json()
        listed = json.loads(run("list", "--limit", "50", "--json").stdout)
        assert api["items"] == listed["items"]
        assert client.get(f"/api/v1/threads/{reader.id}", headers=headers).json()["host"] == "alpha"
        found = client.get("/api/v1/search?q=the", headers=headers).json()["items"]
        assert found


def test_an_agent_elsewhere_can_ask_for_it(reader):
    async def asked():
        server = StdioServerParameters(command=str(PROGRAM), args=["mcp"], env=dict(os.environ))
        async with Client(server) as client:
            listed = await client.call_tool("list_threads", {"limit": 50})
            read = await client.call_tool("read_thread", {"thread_id": reader.id})
            logs = await client.call_tool("query_logs", {})
            return str(listed), str(read), str(logs)

    listed, read, logs = asyncio.run(asked())
    assert reader.id in listed
    assert reader.title in read
    assert "it broke" in logs


def test_the_doctor_says_what_the_server_has(on, shared_database, home_of):
    options = ("doctor", "--home", home_of("alpha"), "--db", shared_database)
    assert "has nothing of this home" in run(*options).stdout
    with on("alpha") as alpha:
        alpha.sync()
    assert "has 33 threads of this home, as alpha" in run(*options).stdout
    assert "can't be reached" in run(*options[:-1], "postgresql://u:pw@127.0.0.1:1/x").stdout


def test_a_server_that_is_not_there_is_said_in_one_line():
    done = run("list", "--db", "postgresql://u:hunter2@127.0.0.1:1/x", "--json")
    error = json.loads(done.stderr.splitlines()[-1])["error"]
    assert (done.returncode, error["code"]) == (4, "unavailable")
    assert "hunter2" not in done.stderr
