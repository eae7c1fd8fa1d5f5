"""Real releases of Codex run threads, forks and archives while Rollbook watches."""

import contextlib
import threading
from pathlib import Path

import apsw
import pytest

from rollbook import LogQuery, LogReader, StateRuntime
from rollbook.errors import DatabaseError
from tests.codex.app_server import AppServer, AppServerError
from tests.codex.model_server import ModelServer
from tests.index.test_sync import everything, rebuilt

pytestmark = pytest.mark.codex

ROUNDS = 6
# What both keep in the same way, whatever the release; tests/parity goes through every field.
FIELDS = (
    "id",
    "cwd",
    "source",
    "model_provider",
    "tokens_used",
    "archived",
    "git_branch",
    "cli_version",
)


@pytest.fixture
def model():
    with ModelServer() as server:
        yield server


def say(server: AppServer, thread_id: str, text: str) -> None:
    server.request("turn/start", {"threadId": thread_id, "input": [{"type": "text", "text": text}]})
    server.notification("turn/completed")


def stored_by_codex(home: Path) -> dict[str, dict]:
    """The threads in Codex's own newest database."""
    databases = sorted(home.glob("state*.sqlite"), key=lambda path: path.stat().st_mtime_ns)
    assert databases, list(home.iterdir())
    connection = apsw.Connection(str(databases[-1]), flags=apsw.SQLITE_OPEN_READONLY)
    cursor = connection.execute("SELECT * FROM threads")
    names = [name for name, *_ in cursor.getdescription()]
    rows = [dict(zip(names, row, strict=True)) for row in cursor]
    connection.close()
    return {row["id"]: row for row in rows}


def test_while_codex_runs_threads_forks_and_archives_the_index_keeps_up(
    codex, home, model, tmp_path
):
    config = (
        f'model_providers.mock={{name="mock",base_url="{model.url}",wire_api="responses"}}',
        "features.sqlite=true",
        'approval_policy="never"',
        'sandbox_mode="read-only"',
    )
    stop = threading.Event()
    updates = []
    with StateRuntime.open(home, default_provider="mock", backfill=False) as state:
        watcher = threading.Thread(target=lambda: updates.extend(state.watch(stop=stop)))
        watcher.start()
        with AppServer(codex, home, config=config) as server:
            ids = []
            for number in range(ROUNDS):
                started = server.request("thread/start", {"cwd": str(tmp_path)})
                ids.append(started["thread"]["id"])
                for turn in range(3):
                    say(server, ids[-1], f"Question {number}.{turn}")
            for thread_id in ids[::2]:
                fork = server.request("thread/fork", {"threadId": thread_id})["thread"]["id"]
                say(server, fork, "And now something else")
                ids.append(fork)
            for thread_id in ids[1::3]:
                server.request("thread/archive", {"threadId": thread_id})
            with contextlib.suppress(AppServerError):  # which 0.95.0 may not have
                server.request("thread/unarchive", {"threadId": ids[1]})
            complaints = server.stderr
        state.sync()
        stop.set()
        watcher.join(30)
        assert not watcher.is_alive()
        assert any(update.changed and not update.is_full for update in updates)
        found = {thread.id: thread for thread in everything(state)}
        assert set(found) == set(ids)
        assert list(found.values()) == rebuilt(state, tmp_path)
    stored = stored_by_codex(home)
    assert set(stored) == set(ids)
    for thread_id, row in stored.items():
        ours = found[thread_id]
        values = {name: getattr(ours, name, None) for name in FIELDS}
        values["archived"] = int(ours.archived_at is not None)
        assert values == {name: row.get(name, values[name]) for name in FIELDS}
        assert str(Path(row["rollout_path"]).relative_to(home)) == str(
            Path(ours.rollout_path).relative_to(home)
        )
    assert trouble_in(complaints.splitlines()) == []
    assert trouble_in(logged_by_codex(home)) == []


def logged_by_codex(home: Path) -> list[str]:
    """What Codex has logged of errors and warnings into its own databases."""
    messages = []
    for path in [*home.glob("logs*.sqlite"), *home.glob("state*.sqlite")]:
        reader = LogReader.open(home, path)
        with contextlib.suppress(DatabaseError):  # one without logs
            for level in ("ERROR", "WARN"):
                messages += [row.message or "" for row in reader.query_logs(LogQuery(level=level))]
    return messages


def trouble_in(messages: list[str]) -> list[str]:
    words = ("database", "sqlite", "locked", "malformed")
    return [text for text in messages if any(word in text.lower() for word in words)]
