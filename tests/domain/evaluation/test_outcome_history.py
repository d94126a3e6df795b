"""All outcomes since the baseline was pinned, judged together: real, ruled out, unproven, or a baseline that cannot tell."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlrunbook.domain.evaluation.outcome_history import OutcomeBlocks, OutcomeHistory, grade_metrics, judge_history
from mlrunbook.domain.evaluation.performance import Evidence, ModelMetrics, Verdict, WindowMetrics
from mlrunbook.domain.incident import Severity
from mlrunbook.domain.policy.judging import MetricRule, SeverityPolicy, Worse
from mlrunbook.domain.tally import Confusion, Tally, total
from tests.domain.other_tasks import DROPS, errors

NOW, DAY_S = datetime(2026, 3, 2, 12, tzinfo=UTC), 86_400.0
POLICY = SeverityPolicy()


def days(
    rng: np.random.Generator, count: int, *, recall: float = 0.8, fpr: float = 0.02, positives: float = 30, healthy: float = 700
) -> list[Confusion]:
    failed, sound = rng.poisson(positives, count), rng.poisson(healthy, count)
    tp, fp = rng.binomial(failed, recall), rng.binomial(sound, fpr)
    return [Confusion(*(int(n) for n in cells)) for cells in zip(tp, fp, failed - tp, sound - fp, strict=True)]


def history(before: Sequence[Tally], since: Sequence[Tally], block_s: float = DAY_S) -> OutcomeHistory:
    pinned = NOW - timedelta(seconds=block_s * (len(since) + len(before)))
    begun = NOW - timedelta(seconds=block_s * len(since))
    return OutcomeHistory(OutcomeBlocks(pinned, block_s, tuple(before)), OutcomeBlocks(begun, block_s, tuple(since)))


def judged(since_days: int, *, baseline_days: int = 200, seed: int = 1, **model: float) -> Verdict:
    rng = np.random.default_rng(seed)
    return judge_history(history(days(rng, baseline_days), days(rng, since_days, **model)), NOW, POLICY)


@pytest.mark.parametrize(
    ("model", "severity", "fell"),
    [
        ({"recall": 0.35}, Severity.HIGH, "recall"),  # F1 .70 -> .39
        ({"recall": 0.65}, Severity.MEDIUM, "f1"),
        ({"fpr": 0.1}, Severity.HIGH, "precision"),
        ({"fpr": 0.03}, Severity.MEDIUM, "precision"),  # F1 loses less than a tenth of itself
    ],
)
def test_a_fall_is_real_with_the_severity_of_its_size(model: dict[str, float], severity: Severity, fell: str) -> None:
    found = judged(40, **model)
    assert (found.evidence, found.severity) == (Evidence.REAL, severity)
    assert fell in found.fell
    assert str(severity) in found.reason


@pytest.mark.parametrize("model", [{"recall": 0.35}, {"recall": 0.5}, {"recall": 0.65}, {"fpr": 0.1}, {"fpr": 0.05}, {"fpr": 0.03}])
@pytest.mark.parametrize("seed", [1, 2])
def test_the_fall_that_is_told_is_that_of_the_figures_beside_it_and_within_its_interval(model: dict[str, float], seed: int) -> None:
    reason = judged(40, seed=seed, **model).reason
    said = re.search(r"fell (\d+) % \(interval (\d+) % to (\d+) %\).*?(0\.\d+) -> (0\.\d+)", reason)
    assert said, reason
    fell, low, high = (int(number) / 100 for number in said.groups()[:3])
    was, now = (float(figure) for figure in said.groups()[3:])
    assert fell == pytest.approx(1 - now / was, abs=0.02)
    assert low <= fell <= high


def test_a_fall_that_is_told_as_past_a_limit_is_past_it() -> None:
    for fpr in np.linspace(0.024, 0.04, 9):
        reason = judged(80, fpr=float(fpr)).reason
        if said := re.search(r"fell (\d+) %.*, over (\d+) %", reason):
            assert int(said[1]) >= int(said[2]), reason


@pytest.mark.parametrize("share", [0.4, 0.3, 0.15])
def test_where_f1_fell_with_the_failure_rate_alone_it_is_said_to_be_so(share: float) -> None:
    rng = np.random.default_rng(3)
    since = days(rng, 200, positives=30 * share, healthy=700 + 30 * (1 - share))
    found = judge_history(history(days(rng, 200), since), NOW, POLICY)
    assert found.evidence is Evidence.FALSE_ALARM
    assert "fewer failures, same model" in found.reason
    assert "fewer failures" not in judged(200).reason


def test_an_unchanged_model_is_ruled_out_and_so_is_one_with_a_third_of_the_failures() -> None:
    assert judged(60).evidence is Evidence.FALSE_ALARM
    assert judged(120, positives=10).evidence is Evidence.FALSE_ALARM


def test_a_few_outcomes_are_unproven_until_about_then() -> None:
    found = judged(2)
    assert found.evidence is Evidence.UNPROVEN
    assert found.severity is None
    assert found.undecided_until is not None
    assert NOW < found.undecided_until < NOW + timedelta(days=30)
    assert f"{found.undecided_until:%d %b %Y %H:%M} UTC" in found.reason


def test_before_the_first_block_has_closed_it_is_unproven() -> None:
    assert judged(0).evidence is Evidence.UNPROVEN


def test_a_baseline_that_is_too_short_says_so() -> None:
    for baseline_days in (0, 10, 31):
        assert judged(30, baseline_days=baseline_days, recall=0.2).evidence is Evidence.INSUFFICIENT


def test_a_fall_that_came_after_a_long_healthy_time_is_proven_within_days() -> None:
    rng = np.random.default_rng(5)
    before, healthy = days(rng, 200), days(rng, 300)
    found = judge_history(history(before, [*healthy, *days(rng, 7, recall=0.35)]), NOW, POLICY)
    assert (found.evidence, found.severity) == (Evidence.REAL, Severity.HIGH)


@pytest.mark.parametrize("recall", [0.0, 0.1, 0.3])
@pytest.mark.parametrize("healthy_days", [5, 30, 120])
def test_the_first_call_of_a_collapse_is_as_severe_as_the_collapse(healthy_days: int, recall: float) -> None:
    rng = np.random.default_rng(healthy_days)
    before, healthy, collapsed = days(rng, 200), days(rng, healthy_days), days(rng, 10, recall=recall)
    calls = (judge_history(history(before, [*healthy, *collapsed[:k]]), NOW, POLICY) for k in range(1, 11))
    first = next(verdict for verdict in calls if verdict.is_real)
    assert first.severity is Severity.HIGH
    assert first.drop is not None
    assert first.drop > 0.2


def test_a_fall_of_an_eighth_is_medium_at_its_first_call_though_it_was_called_because_it_looked_bad() -> None:
    found = []
    for seed in range(15):
        rng = np.random.default_rng(seed)
        before, since = days(rng, 200), [*days(rng, 30), *days(rng, 60, recall=0.66)]
        found.append(next(v.severity for k in range(31, 91) if (v := judge_history(history(before, since[:k]), NOW, POLICY)).is_real))
    assert found.count(Severity.MEDIUM) >= 13


def test_a_collapse_of_23_weeks_is_proven_by_a_baseline_that_stays_where_it_is() -> None:
    """Recall loses a fiftieth of itself each week: no week is much worse than the one before."""
    rng = np.random.default_rng(3)
    before = days(rng, 56)
    since: list[Confusion] = []
    said = []
    for week in range(1, 24):
        since += days(rng, 7, recall=0.8 * 0.98**week)
        said.append(judge_history(history(before, since), NOW, POLICY).evidence)
    assert said[-1] is Evidence.REAL
    assert said.index(Evidence.REAL) < 16
    assert Evidence.REAL not in said[:2]


def test_a_quarter_lost_on_rare_failures_is_proven_within_a_day_or_two() -> None:
    """3.4 % fail, 240 predictions an hour: a window of one hour holds eight failures and never proves anything."""
    took = []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        before = days(rng, 28 * 24, recall=0.78, fpr=0.006, positives=8.2, healthy=231.8)
        since = days(rng, 168, recall=0.55, fpr=0.012, positives=8.2, healthy=231.8)
        told = (
            hour for hour in range(4, 169, 4) if judge_history(history(before, since[:hour], 3600.0), NOW, POLICY).evidence is Evidence.REAL
        )
        took.append(next(told, None))
    assert None not in took
    assert float(np.median([hour for hour in took if hour])) <= 24


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000))
def test_looking_more_often_never_makes_a_ruled_out_fall_real(seed: int) -> None:
    """Nothing between two closed blocks is another chance."""
    rng = np.random.default_rng(seed)
    given_ = history(days(rng, 150), days(rng, 40))
    first = judge_history(given_, NOW, POLICY)
    for minutes in range(0, 1440, 180):
        again = judge_history(given_, NOW + timedelta(minutes=minutes), POLICY)
        assert (again.evidence, again.severity) == (first.evidence, first.severity)


def test_of_unchanged_models_hardly_any_is_called_real_at_any_look() -> None:
    called = windows = 0
    for seed in range(40):
        rng = np.random.default_rng(100 + seed)
        before, since = days(rng, 120), days(rng, 60)
        for look in range(1, 61, 3):
            windows += 1
            called += judge_history(history(before, since[:look]), NOW, POLICY).evidence is Evidence.REAL
    assert called / windows <= 0.01


def test_a_regression_is_judged_by_its_own_tally() -> None:
    policy = replace(POLICY, drops=DROPS)
    before = [total(errors(seed, 300)) for seed in range(60)]
    worse, same = ([total(errors(seed, 300, mae=mae)) for seed in range(100, 120)] for mae in (5.5, 4.0))
    real, ruled_out = (judge_history(history(before, since), NOW, policy) for since in (worse, same))
    assert (real.evidence, real.severity, real.fell) == (Evidence.REAL, Severity.HIGH, ("mae",))
    assert "MAE rose" in real.reason
    assert ruled_out.evidence is Evidence.FALSE_ALARM


def test_a_rule_about_false_alarms_is_judged_too() -> None:
    rules = (*POLICY.drops.metrics[:1], MetricRule("false_positive_rate", Worse.HIGHER, medium=0.5))
    policy = replace(POLICY, drops=replace(POLICY.drops, metrics=rules))
    rng = np.random.default_rng(2)
    before = days(rng, 200, fpr=0.004)
    real = judge_history(history(before, days(rng, 40, fpr=0.008)), NOW, policy)
    same = judge_history(history(before, days(rng, 40, fpr=0.004)), NOW, policy)
    assert (real.evidence, real.fell) == (Evidence.REAL, ("false_positive_rate",))
    assert "the false-positive rate rose" in real.reason
    assert same.evidence is Evidence.FALSE_ALARM


# --- beside the window ----------------------------------------------------------------------------------------------------------


def metrics(current: Confusion, told: OutcomeHistory | None) -> ModelMetrics:
    before = Confusion(tp=2400, fp=1400, fn=600, tn=68_600)
    base = WindowMetrics(NOW - timedelta(days=7), NOW - timedelta(hours=1), before.n, before.n, before)
    return ModelMetrics("m", WindowMetrics(NOW - timedelta(hours=1), NOW, current.n, current.n, current), base, history=told)


FALLEN, SAME, FEW = Confusion(90, 160, 210, 6800), Confusion(240, 140, 60, 6860), Confusion(2, 1, 2, 60)


def unchanged(count: int = 60) -> OutcomeHistory:
    rng = np.random.default_rng(1)
    return history(days(rng, 200), days(rng, count))


def test_without_a_history_or_against_a_baseline_that_cannot_tell_the_window_is_judged_by_itself() -> None:
    rng = np.random.default_rng(1)
    for told in (None, history(days(rng, 5), days(rng, 5))):
        assert grade_metrics(metrics(FALLEN, told), POLICY).is_real
        assert grade_metrics(metrics(SAME, told), POLICY).evidence is Evidence.FALSE_ALARM
        assert grade_metrics(metrics(FEW, told), POLICY).evidence is Evidence.INSUFFICIENT


def test_a_window_that_begins_at_a_change_proves_by_itself_what_the_change_did() -> None:
    told = replace(unchanged(2), after_change=True)
    found = grade_metrics(metrics(FALLEN, told), POLICY)
    assert (found.evidence, found.severity) == (Evidence.REAL, Severity.HIGH)
    assert grade_metrics(metrics(FEW, told), POLICY).evidence is Evidence.UNPROVEN, "few outcomes are added to the others"


def test_a_window_that_is_alone_in_showing_a_fall_is_unproven_until_the_next_blocks_tell() -> None:
    found = grade_metrics(metrics(FALLEN, unchanged()), POLICY)
    assert (found.evidence, found.severity) == (Evidence.UNPROVEN, None)
    assert found.undecided_until is not None
    assert NOW < found.undecided_until < NOW + timedelta(hours=1), "at the pace of this hour, in which as many came as in ten days"


def test_where_all_outcomes_rule_a_fall_out_a_window_of_few_is_no_question() -> None:
    assert grade_metrics(metrics(FEW, unchanged()), POLICY).evidence is Evidence.FALSE_ALARM
