"""Search and statistics take the options about how threads are organised."""

import json

from tests.acceptance.test_commands import TOOLS


def test_search_and_stats_look_at_tagged_pinned_threads_of_a_project_only(run, corpus_home):
    home = {"CODEX_HOME": str(corpus_home("0.169.0"))}
    assert run("tag", TOOLS, "tickets", **home).code == 0
    assert run("pin", TOOLS, **home).code == 0

    def found(*options):
        hits = json.loads(
            run("search", "answer", "--limit", "100", "--json", *options, **home).out
        )["items"]
        return {hit["thread"]["id"] for hit in hits}

    def used(*options):
        rows = json.loads(run("stats", "--by", "thread", "--all", "--json", *options, **home).out)[
            "rows"
        ]
        return {row["thread"] for row in rows}

    for look in (found, used):
        assert len(look()) > 5
        assert look("--tag", "tickets") == look("--pinned") == {TOOLS}
        assert TOOLS not in look("--not-pinned")
        assert TOOLS in look("--project", "acme/alpha") < look()
