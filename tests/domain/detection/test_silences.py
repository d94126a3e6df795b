from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from pydantic import ValidationError

from mlrunbook.domain.detection.silences import quiet
from mlrunbook.domain.incident import IncidentType
from mlrunbook.domain.policy.alerting import MISSED_FAILURE_ALERT, Maintenance, Silence

NOW = datetime(2026, 3, 29, 1, 0, tzinfo=UTC)
DRIFT = IncidentType.PERFORMANCE_DEGRADATION


def window(**more: Any) -> dict[str, Any]:
    around = {"start": NOW - timedelta(hours=1), "end": NOW + timedelta(hours=1)}
    return around | {"reason": "new sensors", "created_by": "ml_team_lead"} | more


def silence(**more: Any) -> Silence:
    return Silence(**window(**more))


def is_quiet(
    *silences: Silence, name: str = "FeatureDrift", model: str = "pump_1", type_: IncidentType = DRIFT, at: datetime = NOW
) -> bool:
    return quiet(model, name, type_, at, silences, ()) is not None


def test_every_matcher_that_is_given_must_fit() -> None:
    one = silence(models=["pump_*"], alerts=["FeatureDrift"], types=["performance_degradation"])
    assert is_quiet(one)
    assert not is_quiet(one, model="press_1")
    assert not is_quiet(one, name="ModelF1Drop")
    assert not is_quiet(one, type_=IncidentType.SECURITY)


def test_it_begins_at_its_start_and_is_over_at_its_end() -> None:
    one = silence(models=["pump_1"])
    assert is_quiet(one, at=one.start)
    assert not is_quiet(one, at=one.end)
    assert not is_quiet(one, at=one.start - timedelta(seconds=1))


def test_a_missed_critical_failure_is_silenced_only_by_its_full_name() -> None:
    assert not is_quiet(silence(models=["pump_1"]), name=MISSED_FAILURE_ALERT)
    assert not is_quiet(silence(alerts=["*"]), name=MISSED_FAILURE_ALERT)
    assert not is_quiet(silence(alerts=["Critical*"]), name=MISSED_FAILURE_ALERT)
    assert is_quiet(silence(alerts=[MISSED_FAILURE_ALERT]), name=MISSED_FAILURE_ALERT)


@pytest.mark.parametrize(("name", "heard"), [(MISSED_FAILURE_ALERT, True), ("AllAssetsHighRisk", True), ("ModelServerDown", False)])
def test_maintenance_silences_all_but_safety(name: str, heard: bool) -> None:
    found = quiet("pump_1", name, DRIFT, NOW, (), [Maintenance(**window())])
    assert (found is None) is heard


def test_the_sentence_says_who_and_why_and_the_longer_one_counts() -> None:
    long = silence(models=["pump_1"], end=NOW + timedelta(hours=5))
    found = quiet("pump_1", "FeatureDrift", DRIFT, NOW, [silence(alerts=["FeatureDrift"]), long], ())
    assert found == (long.end, "silenced by the ML Team Lead: new sensors")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"models": ["a"], "end": NOW - timedelta(hours=2)}, "end must be after start"),
        ({}, "would silence everything"),
        ({"models": ["a"], "start": NOW.replace(tzinfo=None)}, "timezone"),
        ({"models": ["a"], "reason": ""}, "at least 1 character"),
        ({"models": ["a"], "created_by": "somebody"}, "Input should be"),
    ],
)
def test_a_silence_that_is_wrong_says_why(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        silence(**wrong)


def test_its_hours_are_those_of_its_zone_also_in_the_night_clocks_change() -> None:
    berlin = ZoneInfo("Europe/Berlin")
    one = silence(models=["a"], start=datetime(2026, 3, 29, 1, 0, tzinfo=berlin), end=datetime(2026, 3, 29, 4, 0, tzinfo=berlin))
    assert is_quiet(one, model="a", at=datetime(2026, 3, 29, 1, 59, tzinfo=UTC))
    assert not is_quiet(one, model="a", at=datetime(2026, 3, 29, 2, 0, tzinfo=UTC))
