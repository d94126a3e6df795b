from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlrunbook.domain.evaluation.performance import Confusion
from mlrunbook.domain.policy.judging import RecoveryPolicy
from mlrunbook.domain.resolution.recovery import judge_confirmation, judge_recovery
from tests.domain.builders import BASELINE, FALLEN, HEALTHY, window


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


def test_while_predictions_flow_their_outcomes_are_waited_for() -> None:
    fresh = Confusion(tp=20, fp=1, tn=500)
    late = judge_recovery(BASELINE, fresh, window=window(fresh, predictions=9000, label_delay_s=3600.0), usual=window(BASELINE))
    assert (late.recovered, late.waits_for_outcomes) == (None, True)
    assert "521 of 9,000 predictions have a known outcome; outcomes take 60 min" in late.sentence
    silent = judge_recovery(BASELINE, Confusion(), window=window(Confusion(), predictions=3), usual=window(BASELINE))
    assert (silent.recovered, silent.waits_for_outcomes) == (None, False), "a model that predicts nothing waits for no outcome"


def test_the_first_outcomes_to_come_are_no_fair_sample() -> None:
    """Failures are known at once, that nothing happened only at the end of the horizon: all that is known so far are failures."""
    first = Confusion(tp=80, fn=20)
    early = judge_recovery(BASELINE, first, window=window(first, predictions=3000), usual=window(BASELINE))
    assert (early.recovered, early.waits_for_outcomes) == (None, True)
    assert early.sentence.startswith("too early to say: 50 % of the usual share of outcomes is needed, 3 % is known")
    sampled = window(BASELINE, predictions=BASELINE.n * 30)  # where one in thirty is usual, it is enough
    assert judge_recovery(BASELINE, HEALTHY, window=window(HEALTHY, predictions=HEALTHY.n * 30), usual=sampled).recovered is True


@pytest.mark.parametrize(
    ("fresh", "again", "held", "asks"),
    [(HEALTHY, True, True, False), (FALLEN, False, False, False), (Confusion(), True, None, True), (Confusion(), False, None, False)],
)
def test_later_outcomes_agree_disagree_or_are_asked_again_in_time(fresh: Confusion, again: bool, held: bool | None, asks: bool) -> None:
    said = judge_confirmation(judge_recovery(BASELINE, fresh), may_ask_again=again)
    assert (said.held, said.ask_again) == (held, asks)
