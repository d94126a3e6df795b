"""When a claim that is not proven yet is looked at again."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from mlrunbook.domain.detection.severity import Assessment
from mlrunbook.domain.detection.unproven import HOURLY, LATEST, next_look
from mlrunbook.domain.incident import IncidentType, Severity

NOW = datetime(2026, 3, 2, 9, tzinfo=UTC)


def unproven(until: datetime | None) -> Assessment:
    return Assessment(
        True, Severity.HIGH, IncidentType.PERFORMANCE_DEGRADATION, (), insufficient=True, unproven=True, undecided_until=until
    )


@given(st.floats(1, 60 * 86_400))
def test_the_looks_before_a_decision_come_sooner_the_nearer_it_is_and_one_comes_as_it_does(left_s: float) -> None:
    left = timedelta(seconds=left_s)
    wait = next_look(unproven(NOW + left), NOW)
    assert timedelta(0) < wait <= LATEST
    assert wait <= max(left, timedelta(seconds=5))


@given(st.floats(0, 30 * 86_400))
def test_a_decision_that_is_late_is_looked_for_soon_at_first_and_every_hour_in_the_end(late_s: float) -> None:
    wait = next_look(unproven(NOW), NOW + timedelta(seconds=late_s))
    assert timedelta(0) < wait <= HOURLY
    assert wait <= max(timedelta(seconds=late_s), timedelta(seconds=5))


def test_where_nobody_can_say_when_it_is_looked_at_every_hour() -> None:
    assert next_look(unproven(None), NOW) == HOURLY
