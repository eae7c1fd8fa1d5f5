"""What Rollbook counts and times, for OpenTelemetry.  docs/telemetry.md has the table.

Only a program that has loaded OpenTelemetry's API can have set up somebody to listen.  So the API
is never loaded from here, and without it nothing happens beyond a look into ``sys.modules``.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Any

from rollbook.version import __version__

API = "opentelemetry.metrics"
OPERATION_DURATION = "db.client.operation.duration"  # OpenTelemetry's semantic conventions
DATABASE_OPENS = "rollbook.database.opens"
ERRORS = "rollbook.errors"
BACKFILL_ROLLOUTS = "rollbook.backfill.rollouts"
BACKFILL_DURATION = "rollbook.backfill.duration"
READ_FALLBACKS = "rollbook.read.fallbacks"
LOGS_DROPPED = "rollbook.logs.dropped"

_COUNTERS = {
    DATABASE_OPENS: ("{open}", "Databases opened, created, or failed to open"),
    ERRORS: ("{error}", "Operations that failed, by stage"),
    BACKFILL_ROLLOUTS: ("{rollout}", "Rollouts that backfills have looked at, by outcome"),
    READ_FALLBACKS: ("{read}", "Reads that the database could not answer and the rollouts did"),
    LOGS_DROPPED: ("{record}", "Log records that were dropped or could not be written"),
}
_HISTOGRAMS = {
    OPERATION_DURATION: ("Duration of database client operations", (0.0001, 0.0005, 0.001, 0.005)),
    BACKFILL_DURATION: ("Duration of backfills", ()),
}
_SECONDS = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 60.0)
_instruments: dict[str, Any] = {}


def is_observed() -> bool:
    """Say whether anybody can be listening."""
    return API in sys.modules


def count(name: str, amount: int = 1, **attributes: str) -> None:
    """Add to a counter; ``_`` in the name of an attribute stands for a dot."""
    if amount and is_observed():
        _instrument(name).add(amount, _dotted(attributes))


def measure(name: str, seconds: float, **attributes: str) -> None:
    """Add a duration to a histogram; attributes as in :func:`count`."""
    if is_observed():
        _instrument(name).record(seconds, _dotted(attributes))


@contextmanager
def operation(name: str, system: str) -> Iterator[None]:
    """Time a database operation, and count it where it fails."""
    start = perf_counter()
    attributes = {"db_system_name": system, "db_operation_name": name}
    try:
        yield
    except Exception as error:
        attributes["error_type"] = type(error).__name__
        count(ERRORS, rollbook_stage=name, error_type=type(error).__name__)
        raise
    finally:
        measure(OPERATION_DURATION, perf_counter() - start, **attributes)


def _instrument(name: str) -> Any:
    if name not in _instruments:
        meter = sys.modules[API].get_meter("rollbook", __version__)
        if name in _COUNTERS:
            unit, description = _COUNTERS[name]
            _instruments[name] = meter.create_counter(name, unit, description)
        else:
            description, shortest = _HISTOGRAMS[name]
            _instruments[name] = meter.create_histogram(
                name, "s", description, explicit_bucket_boundaries_advisory=[*shortest, *_SECONDS]
            )
    return _instruments[name]


def _dotted(attributes: dict[str, str]) -> dict[str, str]:
    return {name.replace("_", "."): value for name, value in attributes.items()}
