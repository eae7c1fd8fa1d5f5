from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollbook.model.times import format_time, from_epoch, parse_time, to_epoch, whole_seconds

NOON = datetime(2026, 1, 27, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    "text",
    [
        "2026-01-27T12-00-00",
        "2026-01-27T12:00:00Z",
        "2026-01-27t12:00:00z",
        "2026-01-27 12:00:00+00:00",
        "2026-01-27T14:00:00+02:00",
        "2026-01-27T12:00:00.000Z",
        "2026-01-27T12:00:00.999999999Z",
        "2026-01-26T23:30:00-12:30",
    ],
)
def test_both_forms_are_read_with_the_fraction_dropped(text):
    assert parse_time(text) == NOON


@pytest.mark.parametrize(
    "text",
    [
        "",
        "now",
        "2026-01-27",
        "2026-01-27T12:00:00",
        "2026-13-27T12:00:00Z",
        "2026-02-30T12-00-00",
        "20260127T120000Z",
        "0001-01-01T00:00:00+01:00",
        "9999-12-31T23:59:59-01:00",
        "99999-01-01T00:00:00Z",
        "２０２６-01-27T12-00-00",
    ],
)
def test_anything_else_is_no_time(text):
    assert parse_time(text) is None


@given(st.datetimes(timezones=st.just(UTC)))
def test_what_is_written_is_read_again(time):
    assert parse_time(format_time(time)) == whole_seconds(time)
    assert from_epoch(to_epoch(time)) == whole_seconds(time)


def test_other_offsets_and_naive_times_become_utc():
    east = timezone(timedelta(hours=2))
    assert whole_seconds(datetime(2026, 1, 27, 14, 0, 0, 5, tzinfo=east)) == NOON
    assert whole_seconds(datetime(2026, 1, 27, 12)) == NOON  # noqa: DTZ001


def test_epoch_seconds_outside_of_the_calendar_are_refused():
    with pytest.raises(OverflowError):
        from_epoch(2**60)
