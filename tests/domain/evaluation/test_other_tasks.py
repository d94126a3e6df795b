"""A model of another task is judged by its own tally and the policy's rules for its metrics, with the same promises."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlrunbook.domain.evaluation.block_errors import spread
from mlrunbook.domain.evaluation.performance import Confusion, Evidence, Verdict, grade_drop, grade_window
from mlrunbook.domain.evaluation.segments import judge_asset_types
from mlrunbook.domain.incident import Severity
from mlrunbook.domain.policy.judging import DropPolicy, MetricRule, Worse
from mlrunbook.domain.tally import all_binary, as_binary
from tests.domain.other_tasks import DROPS, MAE, AbsoluteErrors, classes, errors, metrics, whole

BASELINE = Confusion(tp=800, fp=180, fn=220, tn=8800)
counts = st.builds(Confusion, *[st.integers(0, 400)] * 3, st.integers(0, 9000))


def graded(before: list[AbsoluteErrors], now: list[AbsoluteErrors], policy: DropPolicy = DROPS) -> Verdict:
    return grade_drop(whole(before), whole(now), policy, blocks=now, baseline_blocks=before)


@pytest.mark.parametrize(("mae", "severity"), [(4.7, Severity.MEDIUM), (5.6, Severity.HIGH), (9.0, Severity.HIGH)])
def test_an_error_that_rose_past_its_limit_beyond_chance_is_real(mae: float, severity: Severity) -> None:
    verdict = graded(errors(1, 20_000), errors(2, 10_000, mae=mae))
    assert (verdict.evidence, verdict.severity, verdict.fell) == (Evidence.REAL, severity, ("mae",))
    assert verdict.reason.startswith("MAE rose ")
    assert "10000 outcomes" in verdict.reason


@pytest.mark.parametrize("mae", [2.0, 3.5, 4.0, 4.2])
def test_an_error_that_fell_or_stayed_is_a_false_alarm(mae: float) -> None:
    verdict = graded(errors(1, 20_000), errors(2, 10_000, mae=mae))
    assert verdict.evidence is Evidence.FALSE_ALARM
    assert verdict.drop is not None
    assert (verdict.drop > 0) == ("rose" in verdict.reason)


def test_a_macro_f1_that_fell_is_real_although_it_is_no_ratio() -> None:
    before = classes(1, 12_000)
    fallen, same = (grade_window(metrics(before, classes(2, 12_000, right=right)), DROPS) for right in (0.5, 0.8))
    assert (fallen.evidence, fallen.severity, fallen.fell) == (Evidence.REAL, Severity.HIGH, ("macro_f1",))
    assert fallen.reason.startswith("macro-F1 fell ")
    assert same.evidence is Evidence.FALSE_ALARM


def test_without_eight_blocks_or_on_few_outcomes_nothing_is_proven() -> None:
    before, now = errors(1, 20_000), errors(2, 10_000, mae=9.0)
    for blocks, baseline_blocks in (([], before), (now, []), ([*now[:7], AbsoluteErrors(), AbsoluteErrors()], before)):
        verdict = grade_drop(whole(before), whole(now), DROPS, blocks=blocks, baseline_blocks=baseline_blocks)
        assert verdict.evidence is Evidence.INSUFFICIENT
        assert "8 needed" in verdict.reason
    few = graded(before, [AbsoluteErrors(1, 6.0)] * 20)
    assert few.evidence is Evidence.INSUFFICIENT
    assert "only 20 known outcomes, 30 needed" in few.reason
    assert graded([AbsoluteErrors(1, 6.0)] * 20, now).evidence is Evidence.INSUFFICIENT


def test_an_unchanged_model_is_hardly_ever_called_worse_however_often_one_looks() -> None:
    """At a rate of 5 % over all looks at a window while it grows; with a long memory too."""
    policy = DropPolicy(metrics=(replace(MAE, medium=0.001),), false_alarm_rate=0.05)
    called = {0.0: 0, 0.7: 0}
    for memory in called:
        for seed in range(150):
            before, now = errors(2 * seed, 6000, memory=memory), errors(2 * seed + 1, 3000, memory=memory)
            called[memory] += any(graded(before, now[:looked], policy).is_real for looked in range(8, 61, 4))
    assert max(called.values()) <= 13  # of 150: 5 % and two standard errors


def test_a_step_of_the_planned_size_is_found_on_enough_outcomes() -> None:
    found = sum(graded(errors(2 * seed, 6000), errors(2 * seed + 1, 3000, mae=5.2)).is_real for seed in range(50))
    assert found >= 45


def test_outcomes_that_resemble_their_neighbours_widen_the_error() -> None:
    even, alike = spread("mae", errors(3, 6000)), spread("mae", errors(3, 6000, memory=0.9))
    assert even is not None
    assert alike is not None
    assert alike.variance > 3 * even.variance


def test_a_policy_without_a_rule_for_the_task_says_which_to_add() -> None:
    verdict = graded(errors(1, 6000), errors(2, 6000, mae=9.0), DropPolicy())
    assert verdict.evidence is Evidence.INSUFFICIENT
    assert "severity.drops.metrics (mae)" in verdict.reason


def test_a_baseline_of_another_task_is_nothing_to_compare_with() -> None:
    now = errors(2, 6000)
    assert grade_drop(BASELINE, whole(now), DROPS, blocks=now).evidence is Evidence.INSUFFICIENT
    assert grade_drop(whole(now), BASELINE, DROPS).evidence is Evidence.INSUFFICIENT


@given(counts, counts)
def test_rules_for_other_tasks_change_nothing_for_a_binary_model(before: Confusion, now: Confusion) -> None:
    assert grade_drop(before, now, DROPS) == grade_drop(before, now, DropPolicy())


@given(counts, counts)
def test_old_keys_mean_the_rules_of_that_name(before: Confusion, now: Confusion) -> None:
    old = DropPolicy(f1_medium=0.08, f1_high=0.3, precision=0.2, recall=0.25)
    lower = Worse.LOWER
    rules = (MetricRule("f1", lower, 0.08, 0.3), MetricRule("precision", lower, 0.2), MetricRule("recall", lower, 0.25))
    assert old == DropPolicy(metrics=rules)
    assert grade_drop(before, now, old) == grade_drop(before, now, DropPolicy(metrics=rules))


def test_a_false_positive_rate_that_rose_is_real_where_policy_has_a_rule_for_it() -> None:
    more_alarms = Confusion(tp=800, fp=400, fn=220, tn=8580)
    rate = DropPolicy(metrics=(MetricRule("false_positive_rate", Worse.HIGHER, 0.2, 0.5),))
    verdict = grade_drop(BASELINE, more_alarms, rate)
    assert (verdict.evidence, verdict.severity) == (Evidence.REAL, Severity.HIGH)
    assert verdict.reason.startswith("the false-positive rate rose 122 %")
    assert grade_drop(more_alarms, BASELINE, rate).evidence is Evidence.FALSE_ALARM


@given(st.lists(counts, min_size=1, max_size=12), st.sampled_from(["f1", "precision", "recall", "false_positive_rate"]))
def test_the_scores_of_the_blocks_of_a_window_add_up_to_nothing(blocks: list[Confusion], metric: str) -> None:
    window = sum(blocks, Confusion())
    scores = [block.score(metric, window) for block in blocks]
    assert sum(s for s, _ in scores) == pytest.approx(0, abs=1e-6)
    if (figure := window.figure(metric)) is not None:
        assert 0 <= figure <= 1
        assert sum(d for _, d in scores) == window.ratio(metric)[1]


def test_an_asset_type_is_judged_by_its_own_blocks() -> None:
    before, now = errors(1, 20_000), errors(2, 10_000)
    worse = errors(3, 10_000, mae=6.0)
    by_type = {"pump": tuple(now), "press": tuple(worse)}
    seen = metrics(before, now, by_asset_type={k: whole(v) for k, v in by_type.items()}, blocks_by_asset_type=by_type)
    base = replace(
        seen.baseline,
        by_asset_type=dict.fromkeys(by_type, whole(before)),
        blocks_by_asset_type=dict.fromkeys(by_type, tuple(before)),
    )
    found = judge_asset_types(replace(seen, baseline=base), DROPS)
    assert [s.name for s in found.fallen] == ["press"]
    unknown = judge_asset_types(replace(seen, baseline=replace(base, blocks_by_asset_type={})), DROPS)
    assert unknown.fell is None


def test_questions_about_failures_find_nothing_in_another_task() -> None:
    assert as_binary(whole(errors(1, 600))) == Confusion()
    assert all_binary({"pump": AbsoluteErrors(5, 2.0), "press": BASELINE}) == {"press": BASELINE}
