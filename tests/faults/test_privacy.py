"""What Rollbook makes is the user's alone; what rollouts say reaches neither its logs nor telemetry."""

import json
import stat
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from rollbook import StateRuntime
from rollbook.testing import make_line, session_meta, user_message, write_rollout
from tests.faults.test_escapes import change
from tests.faults.test_fuzzed_rollouts import DEPTHS, lines_of_each_kind, places, replaced

ID = "11111111-1111-4111-8111-111111111111"
COMMAND = Path(sys.executable).with_name("rollbook")

# Makes all that Rollbook makes, in a home that has one archived rollout, and notes what passes.
MAKERS = """
import logging, os, subprocess, sys
from pathlib import Path
from rollbook import RollbookHandler, RolloutRecorder, StateRuntime

os.umask(int(sys.argv[1], 8))
home, command, thread_id = Path(sys.argv[2]), sys.argv[3], sys.argv[4]
message = {"type": "event_msg", "payload": {"type": "user_message", "message": "Hi"}}

def note_modes():
    for path in home.rglob("*"):
        print(oct(path.stat().st_mode & 0o777), path.relative_to(home))

with StateRuntime.open(home) as state:
    state.sync(jobs=2)
    state.unarchive_thread(thread_id)
    logging.getLogger().addHandler(RollbookHandler(state))
    logging.warning("logged")
    with RolloutRecorder.create(state) as recorder:
        recorder.record_items([message])
        recorder.flush()
        note_modes()
    with RolloutRecorder.fork(state, recorder.thread_id):
        pass
    state.archive_thread(recorder.thread_id)
with StateRuntime.open(home, database=home / "some" / "where" / "other.sqlite") as state:
    state.sync()
    note_modes()
for arguments in (["sync"], ["list"], ["show", thread_id], ["archive", thread_id], ["logs", "--no-follow"],
                  ["unarchive", thread_id], ["tools", thread_id], ["sync", "--rebuild"]):
    subprocess.run([command, *arguments, "--home", home], check=True, stdout=subprocess.DEVNULL)
note_modes()
"""


@pytest.mark.parametrize("umask", ["000", "022", "077"])
def test_what_is_made_is_private(tmp_path, umask):
    home = tmp_path / "home"
    path = write_rollout(home, ID, [session_meta(ID), user_message("Hi")], archived=True)
    path.chmod(0o600)
    path.parent.chmod(0o700)
    done = subprocess.run(
        [sys.executable, "-c", MAKERS, umask, home, COMMAND, ID],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    modes = {tuple(line.split(maxsplit=1)) for line in done.stdout.splitlines()}
    made = {Path(path).name for _, path in modes}
    assert {"state.sqlite-wal", "state.sqlite-shm", "state.sqlite.sync.lock", "logs.sqlite"} <= made
    assert {(mode, path) for mode, path in modes if mode not in ("0o600", "0o700")} == set()


def test_a_compressed_rollout_is_unpacked_privately(home):
    """As recorded by Rollbook and compressed by somebody since, with a umask of 0."""
    lines = [session_meta(ID, recorder="rollbook/0"), user_message("Hi")]
    path = write_rollout(home, ID, lines)
    program = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "if sys.version_info >= (3, 14):\n"
        "    from compression import zstd\n"
        "else:\n"
        "    from backports import zstd\n"
        "from rollbook import RolloutRecorder, StateRuntime\n"
        "os.umask(0)\n"
        "path = Path(sys.argv[2])\n"
        "path.with_name(path.name + '.zst').write_bytes(zstd.compress(path.read_bytes()))\n"
        "path.unlink()\n"
        "with StateRuntime.open(sys.argv[1], backfill=False) as state:\n"
        f"    RolloutRecorder.resume(state, {ID!r}).close()\n"
    )
    subprocess.run([sys.executable, "-c", program, home, path], check=True)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


MARK = "Eavesdropped"
STRUCTURE = {"type", "role", "timestamp", "id"}  # what makes a line be what it is

# Does all that reads, with everything logged to standard error; then shows what was measured.
READERS = """
import json, logging, sys
from pathlib import Path
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

reader = InMemoryMetricReader()
metrics.set_meter_provider(MeterProvider([reader]))
logging.basicConfig(level=logging.DEBUG, stream=sys.stderr)
from rollbook import RolloutRecorder, SortKey, StateRuntime
from rollbook.rollout.history import read_items
from rollbook.rollout.layout import list_rollouts, parse_rollout_name

home = Path(sys.argv[1])

def tried(operation, *arguments):
    try:
        return operation(*arguments)
    except Exception:  # whether it should be raised is what other tests ask
        return None

def recorded(recorder):
    if recorder is not None:
        tried(recorder.record_items, [{"type": "event_msg", "payload": {"type": "agent_message"}}])
        recorder.close()

with StateRuntime.open(home) as state:  # the first time in the background, until it is synced
    tried(state.sync)
with StateRuntime.open(home, backfill=False) as state:
    tried(state.sync)
    for sort_key in SortKey:
        tried(lambda: state.list_threads(999, None, sort_key, include_silent=True))
    for path in list_rollouts(home).files:
        tried(state.reconcile_rollout, home / path)
        name = parse_rollout_name(Path(path).name)
        if name is not None:
            tried(state.get_thread, name.thread_id)
            tried(state.get_dynamic_tools, name.thread_id)
            tried(lambda: list(read_items(home, name.thread_id)))
            recorded(tried(RolloutRecorder.resume, state, name.thread_id))
    for number, path in enumerate(sorted(list_rollouts(home).files)):
        name = parse_rollout_name(Path(path).name)
        if name is not None and number % 8 == 0:
            recorded(tried(RolloutRecorder.fork, state, name.thread_id))
            tried(state.archive_thread, name.thread_id)
            tried(state.unarchive_thread, name.thread_id)
    tried(lambda: state.sync(rebuild=True))
print(reader.get_metrics_data().to_json())
"""


def marked_lines():
    """Real lines of each kind, with the mark in the place of their texts: in all, and in each."""
    mark = json.dumps(MARK).encode()
    for line in lines_of_each_kind():
        record = json.loads(line)
        texts = []
        for path in places(record):
            value = record
            for key in path:
                value = value[key]
            if isinstance(value, str) and path != ("type",):
                texts.append(path)
        for path in texts:
            yield replaced(line, path, mark)
            yield replaced(line, path, b'{%s:[%s,{"type":%s}]}' % (mark, mark, mark))
        everywhere = line
        for path in texts:
            if path[-1] not in STRUCTURE:
                everywhere = replaced(everywhere, path, mark)
        half = everywhere[: len(everywhere) // 2]
        yield from (everywhere, half, everywhere + everywhere, everywhere[:-1])
        yield everywhere.replace(b":", b"\0")


def write_marked_home(home: Path) -> None:
    """Write rollouts that say nothing but the mark, whole and damaged."""

    def add(*lines: bytes, meta: dict | None = None) -> None:
        thread_id = str(uuid.uuid4())
        fields = {"recorder": "rollbook/0", "cwd": f"/{MARK}", "source": MARK, **(meta or {})}
        fields = {"thread_id": thread_id, **fields}
        write_rollout(home, thread_id, [session_meta(**fields), *lines])

    lines = list(marked_lines())
    for start in range(0, len(lines), 200):
        add(*lines[start : start + 200])
        write_rollout(home, str(uuid.uuid4()), lines[start : start + 200])  # no meta of its own
    for base in (MARK, {"thread_id": MARK}, {"thread_id": ID, MARK: MARK}):
        add(user_message(MARK), meta={"history_base": base})
    for tools in (MARK, [MARK], [{"name": MARK}, {"name": MARK}], [{"name": MARK, MARK: {}}]):
        add(user_message(MARK), meta={"dynamic_tools": tools})
    for depth in DEPTHS[::8]:
        tools = b'[{"name":"%s","inputSchema":%s}]' % (MARK.encode(), b"[" * depth + b"]" * depth)
        thread_id = str(uuid.uuid4())
        meta = session_meta(thread_id, dynamic_tools=0).replace(
            b'"dynamic_tools":0', b'"dynamic_tools":' + tools
        )
        write_rollout(home, thread_id, [meta, user_message(MARK)])
    for content in (MARK.encode(), b"\xff" + MARK.encode(), make_line(MARK, {MARK: MARK})[:-1]):
        write_rollout(home, str(uuid.uuid4()), [content])
        (home / "sessions" / f"rollout-{uuid.uuid4()}.jsonl").write_bytes(content)
        path = write_rollout(home, str(uuid.uuid4()), [])
        path.rename(path.with_name(path.name + ".zst")).write_bytes(content)
    names = [{"id": ID, "thread_name": MARK}, {"id": MARK, "thread_name": MARK}, {MARK: MARK}, MARK]
    (home / "session_index.jsonl").write_text("\n".join(map(json.dumps, names)) + f"\n{MARK}\n")


# Rows that can't be read, all of whose other texts are the mark.
IMPOSSIBLE = ("created_at = 9223372036854775807", "title = CAST(x'4561ff' AS TEXT)")


def test_nothing_that_rollouts_say_is_logged_or_measured(home):
    write_marked_home(home)
    written = b"".join(path.read_bytes() for path in home.rglob("*.jsonl"))
    assert written.count(MARK.encode()) > 1000
    for changed in ("", *IMPOSSIBLE):
        if changed:
            change(home, f"UPDATE threads SET {changed} WHERE rowid % 3 = 0")
        done = subprocess.run(
            [sys.executable, "-c", READERS, home], capture_output=True, text=True, check=False
        )
        assert MARK not in done.stderr
        assert done.returncode == 0, done.stderr[-3000:]
        assert "rollbook.read.fallbacks" in done.stdout
        assert MARK not in done.stdout


def test_nothing_that_rollouts_say_is_on_standard_error_of_commands(home):
    write_marked_home(home)
    thread_id = str(uuid.uuid4())
    write_rollout(home, thread_id, [session_meta(thread_id), user_message(MARK)])
    for arguments in (["sync"], ["sync", "--rebuild"], ["list", "--all"], ["show", thread_id]):
        done = subprocess.run(
            [COMMAND, *arguments, "--home", home], capture_output=True, text=True, check=False
        )
        assert MARK not in done.stderr
        assert "Traceback" not in done.stderr
    with StateRuntime.open(home, backfill=False) as state:
        assert state.get_thread(thread_id).title == MARK
