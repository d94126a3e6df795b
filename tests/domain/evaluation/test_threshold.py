from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mlrunbook.domain.evaluation.performance import wilson, z_value
from mlrunbook.domain.evaluation.threshold import best_recovery, choose_threshold, counts_at, effect_of, replay

rows = st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=120)
typed_rows = st.lists(st.tuples(st.integers(0, 999).map(lambda k: k / 1000), st.booleans()), min_size=1, max_size=120)


def sample(n: int = 600, separation: float = 2.0, seed: int = 1) -> tuple[list[float], list[bool]]:
    """Scores of a decent model: 20 % failures, logistic of two normals."""
    rng = np.random.default_rng(seed)
    failed = rng.random(n) < 0.2
    scores = 1 / (1 + np.exp(-(rng.normal(size=n) + separation * np.where(failed, 1, -1))))
    return scores.tolist(), failed.tolist()


def test_a_score_at_the_threshold_is_flagged() -> None:
    counts = counts_at([0.2, 0.5, 0.5, 0.9], [False, False, True, True], 0.5)
    assert (counts.tp, counts.fp, counts.fn, counts.tn) == (2, 1, 0, 1)


@given(typed_rows, st.floats(0.1, 0.95))
def test_a_chosen_threshold_surely_clears_the_floor_and_no_smaller_one_does(data: list[tuple[float, bool]], floor: float) -> None:
    scores, outcomes = [s for s, _ in data], [o for _, o in data]
    choice = choose_threshold(scores, outcomes, precision_floor=floor, current=0.5)

    def clears(threshold: float) -> bool:
        counts = counts_at(scores, outcomes, threshold)
        return wilson(counts.tp, counts.tp + counts.fp, z_value(0.90))[0] >= floor

    good = [s for s in sorted(scores) if s > 0 and clears(s)]
    assert choice.threshold == (good[0] if good else None)
    assert choice.feasible == bool(good)


@given(rows, st.floats(0.1, 0.95))
@example([(0.0, False), (1.0, True), (1e-165, True)], 0.375)
@example([(0.0, False), (1.0, True), (1.0, True)], 0.375)
def test_an_offered_threshold_can_be_set_and_gives_what_was_expected(data: list[tuple[float, bool]], floor: float) -> None:
    scores, outcomes = [s for s, _ in data], [o for _, o in data]
    choice = choose_threshold(scores, outcomes, precision_floor=floor, current=0.5)
    best = best_recovery(scores, outcomes, baseline_f1=0.8)
    for threshold, expected in [(choice.threshold, choice.expected), *([(best.threshold, best.expected)] if best else [])]:
        if threshold is not None:
            assert 0 < threshold < 1
            assert threshold == round(threshold, 4)
            assert counts_at(scores, outcomes, threshold) == expected


def test_an_unreachable_precision_is_said_to_be_infeasible() -> None:
    scores, outcomes = sample(separation=0.0)
    choice = choose_threshold(scores, outcomes, precision_floor=0.9, current=0.5)
    assert not choice.feasible
    assert choice.sentence.startswith("infeasible: at no threshold is precision surely 0.90")


def test_a_step_beyond_the_cap_is_not_offered() -> None:
    scores, outcomes = sample()
    free = choose_threshold(scores, outcomes, precision_floor=0.9, current=0.01)
    assert free.feasible
    capped = choose_threshold(scores, outcomes, precision_floor=0.9, current=0.01, max_step=0.2)
    assert not capped.feasible
    assert "infeasible in one step" in capped.sentence


@given(typed_rows)
def test_the_best_threshold_has_no_better_neighbour(data: list[tuple[float, bool]]) -> None:
    scores, outcomes = [s for s, _ in data], [o for _, o in data]
    best = best_recovery(scores, outcomes, baseline_f1=0.8)
    f1s = [counts_at(scores, outcomes, s).f1 or 0 for s in scores if s > 0]
    assert (best is None) == (not f1s)
    if best is not None:
        assert (best.f1 or 0) == max(f1s)


def test_scores_at_the_very_ends_still_give_a_threshold_between_0_and_1() -> None:
    best = best_recovery([0.0, 1.0], [False, True], baseline_f1=0.8)
    assert best is not None
    assert (best.threshold, best.f1) == (0.9999, 1.0)


def test_a_slipped_threshold_is_told_from_a_bad_model() -> None:
    scores, outcomes = sample()
    baseline = counts_at(scores, outcomes, 0.5).f1
    assert baseline is not None
    assert replay(scores, outcomes, 0.01, baseline_f1=baseline).recoverable is False
    assert replay(scores, outcomes, 0.5, baseline_f1=baseline).recoverable is True
    bad_scores, bad_outcomes = sample(separation=0.1)
    bad = best_recovery(bad_scores, bad_outcomes, baseline_f1=baseline)
    assert bad is not None
    assert bad.recoverable is False


def test_a_replay_on_few_failures_says_nothing() -> None:
    scores, outcomes = sample(n=60)
    assert replay(scores, outcomes, 0.5, baseline_f1=0.8).recoverable is None


def test_without_outcomes_there_is_no_best_threshold() -> None:
    assert best_recovery([], [], baseline_f1=0.8) is None
    assert choose_threshold([], [], precision_floor=0.5, current=0.5).feasible is False


def test_scores_and_outcomes_must_pair_up() -> None:
    with pytest.raises(ValueError, match="argument 2 is shorter"):
        counts_at([0.1, 0.2], [True], 0.5)


def test_a_very_small_threshold_is_written_in_full() -> None:
    assert "threshold 0.002" in replay([0.1], [True], 0.002, baseline_f1=0.8).sentence


def test_the_approver_is_told_what_becomes_of_recall_and_of_the_number_of_work_orders() -> None:
    scores, outcomes = [0.9] * 40 + [0.6] * 10 + [0.3] * 50 + [0.1] * 100, [True] * 40 + [False] * 50 + [True] * 10 + [False] * 100
    effect = effect_of(scores, outcomes, current=0.2, target=0.5, predictions_per_day=2400)
    assert effect is not None
    assert effect.sentence == (
        "recall 1.00 -> 0.80 (95 % interval 0.67 to 0.89) and precision 0.50 -> 0.80 expected, replayed on 200 known outcomes with "
        "50 failures; work orders 1,200 a day now -> 600 a day at most (an asset has one open at a time)"
    )
    assert effect.as_dict() == {
        "precision_expected": 0.8,
        "recall_expected": 0.8,
        "work_orders_per_day_now": 1200.0,
        "work_orders_per_day_expected": 600.0,
    }


@given(typed_rows, st.floats(0.01, 0.99), st.floats(0.01, 0.99))
def test_a_higher_threshold_never_promises_more_recall_or_more_work_orders(data: list[tuple[float, bool]], a: float, b: float) -> None:
    scores, outcomes = [s for s, _ in data], [o for _, o in data]
    effect = effect_of(scores, outcomes, current=min(a, b), target=max(a, b), predictions_per_day=1000)
    assert effect is not None
    assert effect.now is not None
    assert effect.flagged_per_day is not None
    assert (effect.expected.recall or 0) <= (effect.now.recall or 0)
    assert effect.flagged_per_day[1] <= (effect.flagged_per_day[0] or 0)


def test_what_is_not_known_of_a_threshold_is_said() -> None:
    scores, outcomes = [0.9, 0.1], [False, False]
    effect = effect_of(scores, outcomes, current=None, target=0.95, predictions_per_day=None)
    assert effect is not None
    assert effect.sentence == (
        "recall undefined and precision undefined expected, replayed on 2 known outcomes with 0 failures, too few to rely on; "
        "work orders a day not known"
    )
    assert effect_of([], [], current=0.5, target=0.6, predictions_per_day=10) is None
