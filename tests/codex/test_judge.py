"""Real releases of Codex accept what is in a home."""

import shutil
from pathlib import Path

import pytest

from tests.codex.app_server import AppServer

pytestmark = pytest.mark.codex

_CORPUS = Path(__file__).parent.parent / "data" / "corpus"
_EVERY_SOURCE = [
    "cli",
    "vscode",
    "exec",
    "appServer",
    "subAgent",
    "subAgentReview",
    "subAgentCompact",
    "subAgentThreadSpawn",
    "subAgentOther",
    "unknown",
]


@pytest.fixture
def home(tmp_path):
    return Path(shutil.copytree(_CORPUS / "0.95.0" / "home", tmp_path / "home"))


def test_threads_that_0_95_0_wrote_are_listed_when_they_have_a_question(codex, home):
    asked = {
        path.stem[-36:]
        for path in (home / "sessions").rglob("rollout-*.jsonl")
        if '"type":"user_message"' in path.read_text(encoding="utf-8")
    }
    with AppServer(codex, home) as server:
        answer = server.request(
            "thread/list", {"limit": 100, "modelProviders": [], "sourceKinds": _EVERY_SOURCE}
        )
    assert {thread["id"] for thread in answer["data"]} == asked
    assert len(asked) == 26
