"""Similar past incidents, and what fixed them, for the approver."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from mlrunbook.domain.cause import Cause
from mlrunbook.domain.incident import IncidentType, Severity
from mlrunbook.domain.investigation.similar_incidents import Case, find_similar

DAY0 = datetime(2026, 3, 2, 9, tzinfo=UTC)
TYPE = IncidentType.PERFORMANCE_DEGRADATION


def case(number: int, cause: Cause | None = Cause.BAD_DEPLOYMENT, *, model: str = "pumps", day: int = 0, type: IncidentType = TYPE) -> Case:
    at = DAY0 + timedelta(days=day)
    return Case(f"incident_{number}", model, type, Severity.HIGH, cause, at, timedelta(minutes=28), ("rolled back to v1.5.0",))


def ids(found: list[Case]) -> list[str]:
    return [one.incident_id for one in found]


def test_the_same_cause_is_what_makes_two_incidents_alike() -> None:
    past = [case(1), case(2, Cause.STALE_FEATURES), case(3, None)]
    assert ids(find_similar("pumps", TYPE, Cause.BAD_DEPLOYMENT, past)) == ["incident_1"]


def test_this_model_comes_first_then_the_newest_and_three_are_enough() -> None:
    past = [case(1, model="fans", day=9), case(2, day=1), case(3, day=5), case(4, model="fans", day=3), case(5, model="fans", day=1)]
    assert ids(find_similar("pumps", TYPE, Cause.BAD_DEPLOYMENT, past)) == ["incident_3", "incident_2", "incident_1"]


@pytest.mark.parametrize("cause", [None, Cause.UNKNOWN, Cause.NOTHING_WRONG])
def test_where_no_cause_is_known_the_type_of_this_model_must_do(cause: Cause | None) -> None:
    past = [case(1), case(2, model="fans"), case(3, Cause.UNKNOWN, type=IncidentType.INFRASTRUCTURE)]
    assert ids(find_similar("pumps", TYPE, cause, past)) == ["incident_1"]


def test_the_sentence_tells_what_fixed_it_and_whether_it_held() -> None:
    fixed = case(7)
    assert fixed.sentence == "incident_7 of 2026-03-02 (pumps, high), resolved in 28 minutes: rolled back to v1.5.0"
    again = replace(fixed, came_back=True, fixed_by=(), took=None)
    assert again.sentence.endswith("closed without a measured recovery: nothing was changed, and came back afterwards")
