from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlrunbook.domain.performance import Confusion
from mlrunbook.domain.recovery import RecoveryPolicy, judge_recovery
from tests.domain.builders import BASELINE, FALLEN, HEALTHY


def test_f1_within_5_percent_of_the_baseline_is_recovered() -> None:
    verdict = judge_recovery(BASELINE, HEALTHY)
    assert verdict.recovered is True
    assert verdict.sentence == "recovered: F1 0.79 (interval 0.72-0.85) against the baseline 0.80, on 1000 fresh predictions, within 5 %"


def test_f1_surely_below_is_not_recovered() -> None:
    assert judge_recovery(BASELINE, FALLEN).recovered is False


@pytest.mark.parametrize("fresh", [Confusion(), Confusion(tn=5000), Confusion(tp=20, fp=1, tn=500), Confusion(tp=40, fp=3, fn=3, tn=20)])
def test_without_enough_outcomes_nothing_is_called_recovered(fresh: Confusion) -> None:
    verdict = judge_recovery(BASELINE, fresh)
    assert verdict.recovered is None
    assert verdict.sentence.startswith("too early to say")


def test_a_shortfall_that_chance_explains_waits_for_more_outcomes() -> None:
    verdict = judge_recovery(BASELINE, Confusion(tp=24, fp=8, fn=10, tn=400))
    assert verdict.recovered is None
    assert "still possible" in verdict.sentence


def test_without_a_baseline_a_person_judges() -> None:
    assert judge_recovery(Confusion(), HEALTHY).recovered is None


@given(st.builds(Confusion, *[st.integers(0, 300)] * 4))
def test_recovered_always_means_measured_within_5_percent_on_enough_outcomes(fresh: Confusion) -> None:
    policy = RecoveryPolicy()
    if judge_recovery(BASELINE, fresh, policy).recovered:
        assert fresh.n >= policy.min_labelled
        assert fresh.positives >= policy.min_positives
        assert fresh.f1 is not None
        assert BASELINE.f1 is not None
        assert fresh.f1 >= 0.95 * BASELINE.f1
