"""Local times are told apart from drift: a log that goes on from another hour, a feature that tells another time of day."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from mlrunbook.domain.investigation.inputs.faults import Kind, input_faults
from mlrunbook.domain.observed import Prediction
from tests.domain.investigation.worlds import Fleet, looked_into

N = 2400
BEFORE = Fleet(N, seed=1).log()
NOW = Fleet(N, first=N, seed=2).log()


def clocks(before: list[Prediction], now: list[Prediction]) -> list[str]:
    return [fault.sentence for fault in input_faults(before, now) if fault.kind is Kind.CLOCK]


def moved(rows: list[Prediction], hours: float, *, since: int = N // 2, every: int = 1) -> list[Prediction]:
    return [replace(p, at=p.at + timedelta(hours=hours)) if i >= since and i % every == 0 else p for i, p in enumerate(rows)]


@pytest.mark.parametrize("hours", [-12, -5, -1, -3.5, 1, 2, 5, 10])
def test_times_that_go_on_from_another_hour_are_another_zone(hours: float) -> None:
    (said,) = clocks(BEFORE, moved(NOW, hours))
    assert f"{abs(hours):g} h {'ahead' if hours > 0 else 'behind'}" in said
    assert "local time instead of UTC" in said


def test_two_writers_of_which_one_logs_local_times_are_told() -> None:
    (said,) = clocks(BEFORE, moved(NOW, 2, every=2))
    assert "some of the log's times are 2 h ahead" in said


@pytest.mark.parametrize("minutes", [17, 50, 100, 135])
def test_a_pause_of_the_traffic_is_no_other_zone(minutes: int) -> None:
    assert clocks(BEFORE, moved(NOW, minutes / 60)) == []


def test_a_log_that_runs_once_an_hour_is_no_other_zone() -> None:
    hourly = [[replace(p, at=p.at + timedelta(hours=i // 100)) for i, p in enumerate(rows)] for rows in (BEFORE, NOW)]
    assert clocks(*hourly) == []


def test_ids_that_do_not_follow_time_tell_nothing() -> None:
    scattered = [[replace(p, id=(p.id * 7919) % 100_003) for p in rows] for rows in (BEFORE, NOW)]
    assert clocks(*scattered) == []


def hour_of(p: Prediction, off: int = 0) -> Prediction:
    """A day a window: the hours go round."""
    at = BEFORE[0].at + timedelta(minutes=0.6 * p.id)
    return replace(p, at=at, features=dict(p.features) | {"hour": (at.hour + off) % 24})


@pytest.mark.parametrize("off", [-5, 1, 2, 9])
def test_a_feature_that_tells_another_time_of_day_is_local_time(off: int) -> None:
    before, now = [hour_of(p) for p in BEFORE], [hour_of(p, off if i > N // 2 else 0) for i, p in enumerate(NOW)]
    (said,) = clocks(before, now)
    assert f"hour, which tells the time of day, is {abs(off)} h {'ahead' if off > 0 else 'behind'}" in said
    assert clocks(before, [hour_of(p) for p in NOW]) == []


def test_another_zone_is_named_and_not_retrained_on() -> None:
    d = looked_into(BEFORE, moved(NOW, -2)).diagnosis
    assert d.path is None
    assert "2 h behind" in d.sentence
