"""Which predictions speak for a model whose outcomes come late or rarely."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from mlrunbook.domain.evaluation.outcome_window import TIMES_ENOUGH, baseline_of, holds_enough, since_change, wider_window
from mlrunbook.domain.evaluation.performance import Confusion, ModelMetrics, WindowMetrics
from mlrunbook.domain.policy.judging import WindowPolicy

NOW = datetime(2026, 3, 2, 9, tzinfo=UTC)
POLICY = WindowPolicy()
DAY_S = 86_400.0


def usual(
    *, days: float = 7, failures: int = 100, healthy: int = 900, delay_s: float | None = 5.0, age_s: float | None = None
) -> WindowMetrics:
    counts = Confusion(tp=failures, tn=healthy)
    return WindowMetrics(NOW - timedelta(days=days), NOW, counts.n, counts.n, counts, label_delay_s=delay_s, mature_age_s=age_s)


@given(
    st.floats(0.1, 60),
    st.integers(0, 5000),
    st.integers(0, 50_000),
    st.floats(0, 40 * DAY_S, exclude_min=True),  # outcomes without any delay are a log that was loaded: it says nothing of their age
    st.none() | st.floats(0, 60).map(lambda days: NOW - timedelta(days=days)),
)
def test_a_window_holds_only_mature_predictions_of_the_model_as_it_is(
    days: float, failures: int, healthy: int, delay_s: float, changed_at: datetime | None
) -> None:
    window = wider_window(usual(days=days, failures=failures, healthy=healthy, delay_s=delay_s, age_s=delay_s), NOW, POLICY)
    found = since_change(window, changed_at) if window else None
    if found is None:
        return
    assert found.until == NOW - timedelta(seconds=delay_s)
    assert found.since < found.until or not failures
    assert found.until - found.since <= timedelta(days=POLICY.most_days)
    assert changed_at is None or found.since >= changed_at


def test_at_the_usual_pace_it_holds_three_times_what_an_hour_must() -> None:
    found = wider_window(usual(days=10, failures=100, healthy=900, delay_s=0.0, age_s=0.0), NOW, POLICY)
    assert found is not None
    assert found.enough
    assert (found.until - found.since) / timedelta(days=1) == TIMES_ENOUGH * POLICY.min_positives / 10  # 10 failures a day, 100 outcomes


def test_where_even_the_longest_window_holds_too_few_it_says_so() -> None:
    found = wider_window(usual(failures=1), NOW, POLICY)
    assert found is not None
    assert not found.enough
    assert found.until - found.since == timedelta(days=POLICY.most_days)
    assert "over the 28 days allowed" in found.sentence


def test_without_an_outcome_nobody_knows_how_long_it_must_be() -> None:
    assert wider_window(usual(failures=0, healthy=0, delay_s=None), NOW, POLICY) is None


def test_a_platform_that_gives_the_median_delay_alone_waits_three_times_as_long() -> None:
    found = wider_window(usual(delay_s=DAY_S), NOW, POLICY)
    assert found is not None
    assert timedelta(days=3) <= NOW - found.until < timedelta(days=3, minutes=1)


def test_nothing_is_mature_since_a_change_of_yesterday_whose_outcomes_take_two_days() -> None:
    window = wider_window(usual(delay_s=2 * DAY_S, age_s=2 * DAY_S), NOW, POLICY)
    assert window is not None
    assert since_change(window, NOW - timedelta(days=1)) is None


def test_an_hour_with_enough_outcomes_is_enough() -> None:
    assert holds_enough(usual(failures=30, healthy=70), POLICY)
    assert not holds_enough(usual(failures=29, healthy=971), POLICY)
    assert not holds_enough(usual(failures=40, healthy=40), POLICY)


def test_the_baseline_is_five_times_as_long_unless_it_is_pinned() -> None:
    window = wider_window(usual(days=10, delay_s=0.0, age_s=0.0), NOW, POLICY)
    assert window is not None
    week = WindowMetrics(window.since - timedelta(days=7), window.since, 0, 0, Confusion())
    longer = baseline_of(window, ModelMetrics("m", week, week))
    assert longer is not None
    assert (longer.until, longer.until - longer.since) == (window.since, 5 * (window.until - window.since))
    pinned = WindowMetrics(NOW - timedelta(days=300), NOW - timedelta(days=293), 0, 0, Confusion())
    assert baseline_of(window, ModelMetrics("m", week, pinned)) is None
