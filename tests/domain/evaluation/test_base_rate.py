"""Rarer failures are no worse model, and few outcomes are no proof that it is the same."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlrunbook.domain.evaluation.base_rate import BaseRateVerdict, Explained, Window, judge_base_rate
from mlrunbook.domain.policy.judging import DropPolicy
from tests.domain.evaluation.test_accumulated import Blocks, days

DROPS = DropPolicy()


def judged(seed: int, count: int = 60, **now: float) -> BaseRateVerdict:
    rng = np.random.default_rng(seed)
    return judge_base_rate(Window(days(rng, 200, fpr=0.05)), Window(days(rng, count, **{"fpr": 0.05, **now})), DROPS)


def share(explained: Explained, **now: float) -> float:
    return float(np.mean([judged(seed, **now).explained is explained for seed in range(60)]))


def test_a_third_of_the_failures_is_the_same_model() -> None:
    assert share(Explained.FEWER_FAILURES, positives=10) > 0.9
    assert share(Explained.WORSE, positives=10) == 0


def test_a_model_that_catches_less_is_worse_with_as_many_failures_or_fewer() -> None:
    for positives in (30, 15):
        assert share(Explained.WORSE, positives=positives, recall=0.5) > 0.9
        assert share(Explained.FEWER_FAILURES, positives=positives, recall=0.5) == 0


def test_a_worse_model_does_not_hide_behind_more_failures() -> None:
    found = judged(1, positives=120, recall=0.55)
    assert found.drop is not None
    assert found.drop_at_baseline_rate is not None
    assert found.drop < found.drop_at_baseline_rate
    assert found.explained is Explained.WORSE


def test_an_unchanged_model_is_neither() -> None:
    assert share(Explained.WORSE) <= 0.02
    assert share(Explained.FEWER_FAILURES) <= 0.02


def test_few_outcomes_excuse_nobody() -> None:
    assert share(Explained.FEWER_FAILURES, count=40, positives=1, healthy=20, recall=0.55) <= 0.05


def test_too_few_blocks_leave_it_undecided() -> None:
    rng = np.random.default_rng(1)
    verdict = judge_base_rate(Window(days(rng, 200)), Window(days(rng, 5, positives=3)), DROPS)
    assert verdict.explained is Explained.UNDECIDED
    assert "too few blocks" in verdict.sentence


def test_a_quiet_hour_without_a_failure_proves_nothing() -> None:
    quiet = Blocks(*([np.zeros(60, int)] * 3), np.full(60, 10))
    assert judge_base_rate(Window(days(np.random.default_rng(1), 200)), Window(quiet), DROPS).explained is Explained.UNDECIDED


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.floats(0, 1), st.floats(0, 1), st.integers(0, 40), st.integers(0, 100))
def test_any_window_gets_a_verdict(seed: int, recall: float, fpr: float, positives: int, healthy: int) -> None:
    rng = np.random.default_rng(seed)
    now = days(rng, 40, recall=recall, fpr=fpr, positives=positives, healthy=healthy)
    verdict = judge_base_rate(Window(days(rng, 60)), Window(now), DROPS)
    assert "nan" not in verdict.sentence
    assert verdict.error is None or verdict.error == pytest.approx(verdict.error)


def test_a_model_that_gives_more_false_alarms_is_not_the_same_one_though_it_catches_more() -> None:
    """F1 at the old failure rate is as high as before."""
    for seed in range(20):
        found = judged(seed, positives=10, recall=0.95, fpr=0.09)
        assert found.explained is not Explained.FEWER_FAILURES, found.sentence
