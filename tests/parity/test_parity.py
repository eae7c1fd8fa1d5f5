"""Rollbook against the rows that Codex itself stored, release by release and field by field.

A difference is either covered by a rule of the table below, with its reason, or a failure. A rule
that covers nothing is a failure, too.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from rollbook import StateRuntime, ThreadMetadata
from rollbook.model.times import to_epoch
from tests.conftest import RELEASES, expected


@dataclass(frozen=True)
class Rule:
    """Where and why Rollbook's value may differ from that of Codex."""

    field: str
    releases: tuple[str, ...]
    covers: Callable[[Any, Any, dict], bool]  # ours, theirs, the stored row with its scenario
    reason: str
    live_only: bool = False


UP_TO_0125 = ("0.95.0", "0.101.0", "0.115.0", "0.125.0")
FROM_0101 = tuple(release for release in RELEASES if release != "0.95.0")
FROM_0155 = ("0.155.0", "0.169.0", "0.169.0-compressed")
GIT_BY_HAND = "server git metadata set by hand"
NAME = "Release ✨ planning"

RULES = [
    Rule(
        "title",
        ("0.95.0",),
        lambda ours, theirs, row: theirs.startswith(("# AGENTS.md", "<environment_context>")),
        "0.95 takes text that the agent injected for the first message; a title is what the"
        " person wrote",
    ),
    Rule(
        "title",
        FROM_0101,
        lambda ours, theirs, row: ours == "[Image]" and "image without text" in row["scenario"],
        "the first thing said is an image alone; Codex takes the first text for the title",
    ),
    Rule(
        "title",
        ("0.125.0", "0.140.0"),
        lambda ours, theirs, row: theirs == NAME and ours == "Original first message",
        "these releases overwrite the title with the thread's name; Rollbook keeps both",
    ),
    Rule(
        "has_user_event",
        FROM_0101,
        lambda ours, theirs, row: ours == 1 and theirs == 0,
        "later releases no longer set it; Rollbook says whether a person has said anything",
    ),
    Rule(
        "has_user_event",
        ("0.95.0",),
        lambda ours, theirs, row: (
            ours == 0 and row["scenario"].endswith(("without a turn", "no turn"))
        ),
        "0.95 counts injected text; nobody has said anything in these",
    ),
    Rule(
        "cwd",
        ("0.115.0", "0.125.0", "0.140.0"),
        lambda ours, theirs, row: (
            row["scenario"] in ("server two turns, settings changed", "server fork, no turn")
        ),
        "these releases leave the directory at that of the session meta; Rollbook follows the turns",
    ),
    Rule(
        "updated_at",
        ("0.115.0", "0.155.0", "0.169.0"),
        lambda ours, theirs, row: theirs == ours + 1 or theirs == ours - 1,
        "stamped by the clock some milliseconds beside the file's mtime, or moved on by 1 ms to be"
        " unique; not from the rollout",
    ),
    Rule(
        "created_at",
        ("0.155.0",),
        lambda ours, theirs, row: theirs == ours - 1,
        "live rows are stamped some milliseconds before the session meta",
        live_only=True,
    ),
    Rule(
        "recency_at",
        FROM_0155,
        lambda ours, theirs, row: theirs <= ours + 1 or theirs == row["updated_at"],
        "live: the start of the last turn; rebuilt: the file's mtime, whatever that has become."
        " Rollbook's is the last record of a turn, from the rollout itself",
    ),
    *[
        Rule(
            field,
            ("0.115.0", "0.125.0", "0.155.0", "0.169.0"),
            lambda ours, theirs, row: row["scenario"] == GIT_BY_HAND,
            "a change by hand that these releases keep in the row only",
            live_only=True,
        )
        for field in ("git_sha", "git_branch", "git_origin_url")
    ],
    Rule(
        "preview",
        ("0.169.0",),
        lambda ours, theirs, row: "fork" in row["scenario"],
        "the live preview of a fork is its parent's; a thread's own facts are its own",
        live_only=True,
    ),
    Rule(
        "name",
        FROM_0155,
        lambda ours, theirs, row: theirs is None and ours == NAME,
        "a rebuild loses the name; Rollbook reads it from session_index.jsonl",
    ),
]


def differences(
    release: str, rows: list[dict], state: StateRuntime, live: bool
) -> tuple[list, set]:
    """What no rule covers, and the rules that were needed."""
    scenarios = expected(release)["scenarios"]
    uncovered, used = [], set()
    for stored in rows:
        row = stored | {"scenario": scenarios.get(stored["id"], "")}
        thread = state.get_thread(row["id"])
        assert thread is not None
        ours = as_row(thread, state.codex_home, expected(release)["codex_home"])
        for field in ours.keys() & row.keys():
            if ours[field] == row[field]:
                continue
            rules = [
                rule
                for rule in RULES
                if rule.field == field
                and release in rule.releases
                and (live or not rule.live_only)
                and rule.covers(ours[field], row[field], row)
            ]
            used.update(id(rule) for rule in rules)
            if not rules:
                uncovered.append((row["scenario"], field, ours[field], row[field]))
    return uncovered, used


def as_row(thread: ThreadMetadata, home: Path, recorded_home: str) -> dict[str, Any]:
    """A thread in the form of the reference's columns."""
    row = {
        field: to_epoch(value) if isinstance(value, datetime) else value
        for field, value in msgspec.structs.asdict(thread).items()
    }
    row["rollout_path"] = recorded_home + row["rollout_path"].removeprefix(str(home))
    row["has_user_event"] = int(thread.has_user_event)
    row["archived"] = int(thread.archived_at is not None)
    return row


def rows_of(release: str) -> dict[str, list[dict]]:
    stored = expected(release)
    return {key: stored[key] for key in ("threads", "threads_backfilled") if stored.get(key)}


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """Every release's home, indexed and compared: (uncovered differences, rules used)."""
    import os
    import shutil

    from tests.conftest import CORPUS

    results, used = {}, set()
    for release in RELEASES:
        home = tmp_path_factory.mktemp("parity") / "home"
        shutil.copytree(CORPUS / release / "home", home)
        stored = expected(release)
        for file in stored["files"]:
            os.utime(home / file["path"], ns=(file["mtime_ns"], file["mtime_ns"]))
        with StateRuntime.open(
            home, default_provider=stored["default_provider"], backfill=False
        ) as state:
            stats = state.sync()
            assert (stats.failed, stats.parse_errors) == (0, 0)
            assert stats.indexed == len(stored["files"])
            for kind, rows in rows_of(release).items():
                uncovered, needed = differences(release, rows, state, kind == "threads")
                results[release, kind] = uncovered
                used |= needed
            tools = {row["id"]: state.get_dynamic_tools(row["id"]) for row in rows}
            results[release, "tools"] = tools
    return results, used


@pytest.mark.parametrize("kind", ["threads", "threads_backfilled"])
@pytest.mark.parametrize("release", RELEASES)
def test_every_field_equals_the_stored_row_or_a_rule_says_why(compared, release, kind):
    results, _ = compared
    if (release, kind) not in results:
        assert release == "0.169.0-compressed"  # stored by a rebuild only
        return
    assert results[release, kind] == []


def test_every_rule_is_needed(compared):
    _, used = compared
    assert [rule.reason for rule in RULES if id(rule) not in used] == []


@pytest.mark.parametrize("release", UP_TO_0125)
def test_dynamic_tools_equal_the_stored_rows(compared, release):
    tools = compared[0][release, "tools"]
    ours = [
        (thread_id, position, tool.name, tool.description, msgspec.json.encode(tool.input_schema))
        for thread_id, found in tools.items()
        for position, tool in enumerate(found or [])
    ]
    theirs = [
        (
            row["thread_id"],
            row["position"],
            row["name"],
            row["description"],
            row["input_schema"].encode(),
        )
        for row in expected(release)["dynamic_tools"]
    ]
    assert sorted(ours) == sorted(theirs)


@pytest.mark.parametrize("release", sorted(set(RELEASES) - set(UP_TO_0125)))
def test_later_releases_store_no_tools_but_their_rollouts_have_them(compared, release):
    names = [
        [tool.name for tool in found] for found in compared[0][release, "tools"].values() if found
    ]
    assert expected(release).get("dynamic_tools", []) == []
    assert names == [["lookup_ticket", "post_note"]] * 2
