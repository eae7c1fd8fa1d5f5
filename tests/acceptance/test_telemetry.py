"""What a program with OpenTelemetry's SDK sees, through its in-memory reader, in a process of its own."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs" / "telemetry.md"
PROGRAM = """
import json, logging, shutil, sys
from pathlib import Path
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

reader = InMemoryMetricReader()
metrics.set_meter_provider(MeterProvider([reader]))
from rollbook import LogEntry, RollbookHandler, RolloutRecorder, StateRuntime
from rollbook.errors import RollbookError
from rollbook.testing import make_thread, session_meta, user_message, write_rollout

home = Path(sys.argv[1])
ID = "66666666-6666-4666-8666-666666666666"
write_rollout(home, ID, [session_meta(ID, dynamic_tools=[{"name": "t", "inputSchema": {}}]),
                         user_message("Hello")])
(home / "sessions/rollout-bad.jsonl").write_text("")
with StateRuntime.open(home, backfill=False) as state:
    state.get_thread(ID)
    state.get_thread(ID)
    state.sync(jobs=1)
    handler = RollbookHandler(state, queue_size=1, flush_interval_s=60)
    log = logging.getLogger("program")
    log.propagate = False
    log.addHandler(handler)
    for number in range(4):
        log.warning("%d", number)
    handler.flush()
    state.upsert_thread(make_thread(home, id=ID, rollout_path="/gone"))
    try:
        state.archive_thread("99999999-9999-4999-8999-999999999999")
    except RollbookError:
        pass
StateRuntime.open(home, backfill=False).close()
(home / "other").write_text("no database" * 100)
try:
    StateRuntime.open(home, database=home / "other")
except RollbookError:
    pass

for scope in reader.get_metrics_data().resource_metrics[0].scope_metrics:
    for metric in scope.metrics:
        for point in metric.data.data_points:
            value = getattr(point, "value", None)
            print(json.dumps([metric.name, metric.unit, dict(point.attributes),
                              point.count if value is None else value]))
"""
WITHOUT = """
import sys
from rollbook import StateRuntime
with StateRuntime.open(sys.argv[1], backfill=False) as state:
    state.sync()
    state.list_threads(1)
assert not [name for name in sys.modules if name.startswith("opentelemetry")]
"""


def run(program: str, home: Path) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", program, str(home)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.fixture(scope="module")
def points(tmp_path_factory):
    """Name, unit, attributes and value (or count) of every data point."""
    home = tmp_path_factory.mktemp("home")
    (home / "sessions").mkdir()
    return [json.loads(line) for line in run(PROGRAM, home)]


def value_of(points, name, **attributes):
    wanted = {key.replace("_", "."): value for key, value in attributes.items()}
    return sum(
        value
        for metric, _, found, value in points
        if metric == name and wanted.items() <= found.items()
    )


def test_openings_are_counted_by_outcome(points):
    outcomes = {
        (database, outcome): value_of(
            points,
            "rollbook.database.opens",
            rollbook_database=database,
            rollbook_outcome=outcome,
            db_system_name="sqlite",
        )
        for database in ("state", "logs")
        for outcome in ("created", "opened", "failed")
    }
    assert outcomes == {
        ("state", "created"): 1,
        ("state", "opened"): 1,
        ("state", "failed"): 1,
        ("logs", "created"): 1,
        ("logs", "opened"): 0,
        ("logs", "failed"): 0,
    }


def test_errors_are_counted_by_stage_and_type(points):
    name = "rollbook.errors"
    assert value_of(points, name, rollbook_stage="archive_thread") == 1
    assert value_of(points, name, error_type="ThreadNotFoundError") == 1


def test_backfills_are_counted_and_timed(points):
    name = "rollbook.backfill.rollouts"
    assert value_of(points, name, rollbook_outcome="unchanged") == 1
    assert value_of(points, name, rollbook_outcome="failed") == 1
    assert value_of(points, "rollbook.backfill.duration") == 1


def test_reads_that_the_rollouts_answered_are_counted(points):
    name = "rollbook.read.fallbacks"
    assert value_of(points, name, db_operation_name="get_thread") == 1


def test_lost_log_records_are_counted(points):
    assert value_of(points, "rollbook.logs.dropped") > 0


def test_operations_are_timed_under_the_name_of_the_conventions(points):
    name = "db.client.operation.duration"
    assert value_of(points, name, db_operation_name="get_thread", db_system_name="sqlite") == 2
    failed = {"db_operation_name": "archive_thread", "error_type": "ThreadNotFoundError"}
    assert value_of(points, name, **failed) == 1
    assert {unit for metric, unit, _, _ in points if metric == name} == {"s"}


def test_every_metric_and_attribute_is_in_the_table_of_the_docs(points):
    table = set(re.findall(r"`([a-z_.]+)`", DOCS.read_text("utf-8")))
    assert {name for name, _, _, _ in points} <= table
    assert {key for _, _, attributes, _ in points for key in attributes} <= table


def test_without_opentelemetry_nothing_of_it_is_loaded(tmp_path):
    (tmp_path / "sessions").mkdir()
    run(WITHOUT, tmp_path)
