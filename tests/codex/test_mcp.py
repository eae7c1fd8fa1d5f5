"""Real releases of Codex take Rollbook's MCP server, start it, and see its tools."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.codex.app_server import AppServer, home_environment

pytestmark = pytest.mark.codex

ROLLBOOK = Path(sys.executable).with_name("rollbook")


def test_codex_starts_the_server_and_sees_its_tools(codex, home):
    def run(*arguments):
        command = [codex, "mcp", *arguments]
        done = subprocess.run(command, env=home_environment(home), capture_output=True, check=True)
        return done.stdout

    run("add", "rollbook", "--", ROLLBOOK, "mcp", "--home", home)
    [registered] = json.loads(run("list", "--json"))
    assert registered["name"] == "rollbook"
    assert registered["transport"]["args"] == ["mcp", "--home", str(home)]
    with AppServer(codex, home) as server:
        [status] = server.request("mcpServerStatus/list")["data"]
    assert status["name"] == "rollbook"
    assert {name.rpartition("__")[2] for name in status["tools"]} == {
        *("search_threads", "list_threads", "read_thread", "get_dynamic_tools", "query_logs")
    }
