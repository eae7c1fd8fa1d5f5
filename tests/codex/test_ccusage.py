"""Beside ccusage on the same homes: every difference is one of those that are known.

ccusage adds up what each record says was used last.  So it counts a record again when Codex says it
again, as at the beginning of a turn, and when a fork has copied it; and it reads neither archived nor
compressed rollouts.
"""

import json
import os
import subprocess
from collections import Counter

import pytest

from rollbook import StateRuntime, UsageKey
from tests.conformance.test_usage import lines_of
from tests.conftest import RELEASES

pytestmark = pytest.mark.codex


@pytest.mark.parametrize("release", RELEASES)
def test_each_difference_to_ccusage_is_explained(ccusage, corpus_home, release, tmp_path):
    home = corpus_home(release)
    with StateRuntime.open(home, backfill=False) as state:
        state.sync()
        ours = {r.keys[0]: r.tokens.total for r in state.usage([UsageKey.THREAD]).rows}
    theirs = counted_by(ccusage, home, tmp_path)
    explained = Counter()
    for path in home.rglob("rollout-*"):
        thread_id = path.name.partition(".")[0][-36:]
        own = ours.get(thread_id, 0)
        if "archived_sessions" in path.parts or path.suffix == ".zst":
            assert thread_id not in theirs
            explained["archived or compressed"] -= own
            continue
        said = told(path)
        assert theirs.get(thread_id, 0) == sum(said), path
        explained["said again or copied"] += sum(said) - own
        if not forked(path):
            assert own == once(path), path
    assert sum(theirs.values()) == sum(ours.values()) + sum(explained.values())


def counted_by(ccusage, home, tmp_path):
    done = subprocess.run(
        [ccusage, "session", "--json", "--offline"],
        env=os.environ | {"CODEX_HOME": str(home), "HOME": str(tmp_path)},
        capture_output=True,
        check=True,
    )
    found = json.loads(done.stdout)["sessions"]
    return {session["sessionId"][-36:]: session["totalTokens"] for session in found}


def infos(path):
    records = (json.loads(line)["payload"] for line in lines_of(path))
    return [r["info"] for r in records if r.get("type") == "token_count" and r["info"]]


def told(path):
    """What each record says was used last, but for estimates of how long the context is."""
    lasts = [info["last_token_usage"] for info in infos(path)]
    return [last["total_tokens"] for last in lasts if last["input_tokens"]]


def once(path):
    """The same, of each total only once."""
    lasts = {json.dumps(i["total_token_usage"]): i["last_token_usage"] for i in infos(path)[::-1]}
    return sum(last["total_tokens"] for last in lasts.values())


def forked(path):
    return json.loads(lines_of(path)[0])["payload"].get("forked_from_id")
