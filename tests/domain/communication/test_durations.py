from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlrunbook.domain.communication.durations import in_words, response_deadline, review_due, times
from mlrunbook.domain.incident import Incident, IncidentType, Severity, Status
from mlrunbook.domain.policy.policy import Policy

DETECTED = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)


def incident(**changes: object) -> Incident:
    return Incident(
        **{  # type: ignore[arg-type]
            "id": "inc-7",
            "model": "predictive_maintenance",
            "type": IncidentType.PERFORMANCE_DEGRADATION,
            "family": "performance",
            "severity": Severity.HIGH,
            "status": Status.RESOLVED,
            "description": "F1 fell",
            "impact": "",
            "reported_by": "alertmanager",
            "detected_at": DETECTED,
        }
        | changes
    )


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (3 * 3600 + 15 * 60, "3 hours 15 minutes"),
        (3600, "1 hour"),
        (61, "1 minute 1 second"),
        (59.9, "59 seconds"),
        (0, "0 seconds"),
        (-5, "0 seconds"),
        (86400 + 7200, "1 day 2 hours"),
        (86400 + 60, "1 day"),
    ],
)
def test_durations_are_said_in_words(seconds: float, words: str) -> None:
    assert in_words(timedelta(seconds=seconds)) == words


def test_a_missing_duration_is_said_to_be_missing() -> None:
    assert in_words(None) == "not measured"


@given(st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=400)))
def test_words_never_overstate_and_never_lose_more_than_the_smaller_unit(duration: timedelta) -> None:
    unit_s = {"day": 86400, "hour": 3600, "minute": 60, "second": 1}
    parts = in_words(duration).split()
    said_s = sum(int(n) * unit_s[unit.rstrip("s")] for n, unit in zip(parts[::2], parts[1::2], strict=True))
    slack_s = 3600 if duration.days else 60 if duration.total_seconds() >= 3600 else 1
    assert 0 <= duration.total_seconds() - said_s < slack_s


def test_the_four_times_run_from_the_start_of_failure_and_from_detection() -> None:
    t = times(
        incident(
            started_at=DETECTED - timedelta(minutes=5),
            acknowledged_at=DETECTED + timedelta(minutes=15),
            contained_at=DETECTED + timedelta(minutes=90),
            resolved_at=DETECTED + timedelta(minutes=195),
        )
    )
    minutes = [d and d.total_seconds() / 60 for d in (t.to_detect, t.to_acknowledge, t.to_contain, t.to_resolve)]
    assert minutes == [5, 15, 90, 195]


def test_what_did_not_happen_was_not_measured() -> None:
    t = times(incident())
    assert (t.to_detect, t.to_acknowledge, t.to_contain, t.to_resolve) == (None, None, None, None)


def test_a_source_whose_clock_runs_ahead_gives_no_negative_detection_time() -> None:
    assert times(incident(started_at=DETECTED + timedelta(seconds=3))).to_detect == timedelta(0)


def test_a_high_incident_is_answered_within_the_hour_and_reviewed_within_48_hours() -> None:
    assert response_deadline(incident(), Policy()) == DETECTED + timedelta(hours=1)
    assert review_due(DETECTED, Policy()) == DETECTED + timedelta(hours=48)
