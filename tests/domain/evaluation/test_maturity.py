"""Which outcomes come first is no sample: predictions count from an age on, and the window is as long as they need."""

from __future__ import annotations

import doctest
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlrunbook.domain.evaluation import maturity as module
from mlrunbook.domain.evaluation.maturity import LEAST_DELAYS, Maturity, Pace, duration, evaluation_window, maturity

NOW, DAY_S = datetime(2026, 3, 2, 12, tzinfo=UTC), 86_400.0
WEEK = Maturity(7 * DAY_S, "the model predicts 7 days ahead")


def test_the_documented_examples_hold() -> None:
    assert doctest.testmod(module).failed == 0


def test_a_known_horizon_decides_whatever_came_early() -> None:
    ripe = maturity([60.0] * 100, [60.0] * 100, horizon_s=7 * DAY_S)
    assert ripe.matured_before(NOW) == NOW - timedelta(days=7)


def test_the_slower_kind_of_outcome_decides() -> None:
    assert maturity([60.0] * 100, [7 * DAY_S] * 100).age_s == 7 * DAY_S
    assert maturity([30 * DAY_S] * 100, [60.0] * 10_000).age_s == 30 * DAY_S


def test_few_outcomes_of_a_kind_leave_it_unknown() -> None:
    ripe = maturity([60.0] * (LEAST_DELAYS - 1), [60.0] * 1000)
    assert ripe.age_s is None
    assert ripe.matured_before(NOW) is None
    assert f"{LEAST_DELAYS - 1} failures" in ripe.reason
    pace = Pace(100, 10)
    assert evaluation_window(pace, ripe, NOW, min_outcomes=1, min_positives=1, most_s=DAY_S) is None


@given(st.lists(st.floats(0, 1e7), min_size=LEAST_DELAYS, max_size=300), st.lists(st.floats(0, 1e7), min_size=LEAST_DELAYS, max_size=300))
def test_at_that_age_all_but_one_in_a_hundred_of_each_kind_have_come(positive: list[float], negative: list[float]) -> None:
    age = maturity(positive, negative).age_s
    assert age is not None
    for delays in (positive, negative):
        assert sum(d <= age for d in delays) >= 0.99 * len(delays)
    assert age in (*positive, *negative)


def test_a_window_is_as_long_as_outcomes_and_failures_take() -> None:
    window = evaluation_window(Pace(100, 2), WEEK, NOW, min_outcomes=200, min_positives=30, most_s=60 * DAY_S)
    assert window is not None
    assert window.until == NOW - timedelta(days=7)
    assert window.until - window.since == timedelta(days=15)
    assert window.enough
    assert "15 days" in window.sentence


@pytest.mark.parametrize("positives_per_day", [0.1, 0.0])
def test_a_window_that_would_be_too_long_says_so(positives_per_day: float) -> None:
    window = evaluation_window(Pace(100, positives_per_day), WEEK, NOW, min_outcomes=200, min_positives=30, most_s=60 * DAY_S)
    assert window is not None
    assert window.until - window.since == timedelta(days=60)
    assert not window.enough


@given(st.floats(0.01, 1e6), st.floats(0, 1e4), st.integers(1, 10_000), st.integers(0, 1000), st.floats(60, 1e8))
def test_a_window_holds_what_was_asked_or_is_as_long_as_allowed(
    outcomes: float, positives: float, least: int, least_positives: int, most_s: float
) -> None:
    window = evaluation_window(Pace(outcomes, positives), WEEK, NOW, min_outcomes=least, min_positives=least_positives, most_s=most_s)
    assert window is not None
    days = (window.until - window.since).total_seconds() / DAY_S
    if window.enough:
        assert days * outcomes >= least * 0.999 - 1e-3
        assert days * positives >= least_positives * 0.999 - 1e-3
    else:
        assert days * DAY_S == pytest.approx(most_s, rel=1e-3)


def test_durations_read_well() -> None:
    assert [duration(s) for s in (60, 5400, 36 * 3600, 7 * DAY_S)] == ["1 minute", "90 minutes", "36 hours", "7 days"]
