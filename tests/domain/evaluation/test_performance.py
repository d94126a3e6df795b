from __future__ import annotations

import doctest

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlrunbook.domain.evaluation import performance
from mlrunbook.domain.evaluation.performance import Confusion, Evidence, f1_interval, grade_drop, percent, relative_drop, wilson
from mlrunbook.domain.incident import Severity
from mlrunbook.domain.policy.judging import DropPolicy
from tests.domain.builders import BASELINE, FALLEN, HEALTHY

counts = st.builds(Confusion, *[st.integers(0, 400)] * 4)
sound_baselines = st.builds(Confusion, tp=st.integers(60, 300), fp=st.integers(0, 50), fn=st.integers(0, 50), tn=st.just(900))


def test_the_documented_examples_hold() -> None:
    assert doctest.testmod(performance).failed == 0


@given(st.integers(0, 500), st.integers(0, 500), st.floats(0.5, 4))
def test_the_wilson_interval_holds_the_point(a: int, b: int, z: float) -> None:
    n = a + b
    low, high = wilson(a, n, z)
    assert 0 <= low <= high <= 1
    if n:
        assert low <= a / n <= high


def test_the_wilson_interval_agrees_with_the_published_example() -> None:
    low, high = wilson(10, 100, 1.959964)  # Newcombe 1998
    assert (round(low, 4), round(high, 4)) == (0.0552, 0.1744)


def test_more_successes_than_trials_is_an_error() -> None:
    with pytest.raises(ValueError, match="3 successes of 2 trials"):
        wilson(3, 2, 1.96)


@given(counts)
def test_the_f1_interval_holds_the_point(c: Confusion) -> None:
    low, high = f1_interval(c)
    if c.f1 is not None:
        assert low - 1e-12 <= c.f1 <= high + 1e-12


def rank(severity: Severity | None) -> int:
    return -1 if severity is None else severity.rank


@settings(max_examples=60, deadline=None)
@given(sound_baselines, counts, st.integers(1, 50), st.integers(1, 50), st.integers(1, 50))
def test_more_harm_never_lowers_the_severity(baseline: Confusion, c: Confusion, false_alarms: int, missed: int, flipped: int) -> None:
    flipped = min(flipped, c.tp)
    worse = Confusion(c.tp - flipped, c.fp + false_alarms, c.fn + missed + flipped, c.tn)
    policy = DropPolicy()
    assert rank(grade_drop(baseline, worse, policy).severity) >= rank(grade_drop(baseline, c, policy).severity)


@settings(max_examples=60, deadline=None)
@given(sound_baselines, counts)
def test_only_a_real_drop_has_a_severity_and_every_verdict_a_reason(baseline: Confusion, c: Confusion) -> None:
    verdict = grade_drop(baseline, c, DropPolicy())
    assert (verdict.severity is not None) == verdict.is_real
    assert verdict.reason


@settings(max_examples=60, deadline=None)
@given(sound_baselines, counts, st.integers(1, 50), st.integers(1, 50))
def test_more_harm_never_makes_the_evidence_weaker(baseline: Confusion, c: Confusion, missed: int, flipped: int) -> None:
    """Slices of time as they are: the same clusters, worse outcomes."""
    slices = [Confusion(tp=2, fp=1, fn=1, tn=90), Confusion(tp=4, tn=90), Confusion(tp=1, fn=2, tn=90)] * 20
    flipped = min(flipped, c.tp)
    worse = Confusion(c.tp - flipped, c.fp, c.fn + missed + flipped, c.tn)
    before, after = (grade_drop(baseline, x, DropPolicy(), blocks=slices, baseline_blocks=slices) for x in (c, worse))
    assert after.is_real or not before.is_real
    assert rank(after.severity) >= rank(before.severity)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 6))
def test_the_same_shares_on_more_outcomes_are_never_less_real(times: int) -> None:
    small, large = (Confusion(tp=9 * k, fp=6 * k, fn=9 * k, tn=500 * k) for k in (times, times + 1))
    assert grade_drop(BASELINE, large, DropPolicy()).is_real >= grade_drop(BASELINE, small, DropPolicy()).is_real


def test_a_drop_that_one_look_would_call_real_asks_for_another_look() -> None:
    baseline = Confusion(tp=780, fp=171, fn=220, tn=28_829)
    verdict = grade_drop(baseline, Confusion(tp=44, fp=17, fn=23, tn=2000), DropPolicy())
    assert verdict.evidence is Evidence.INSUFFICIENT
    assert "F1 and recall may have fallen, not yet beyond chance at a false-alarm rate of 1 %, " in verdict.reason
    assert "outcomes show a drop of 20 %" in verdict.reason


def test_a_verdict_says_on_how_many_outcomes_and_failures_it_rests() -> None:
    for counts_ in (HEALTHY, FALLEN, Confusion(tp=12, fp=4, fn=8, tn=300)):
        assert f"{counts_.positives} failures in {counts_.n} outcomes" in grade_drop(BASELINE, counts_, DropPolicy()).reason


def test_outcomes_that_come_in_clusters_count_as_fewer_and_the_sentence_says_so() -> None:
    bursts = [Confusion(tp=10, tn=290)] * 6 + [Confusion(fp=4, fn=6, tn=290)] * 6
    clustered = grade_drop(BASELINE, FALLEN, DropPolicy(), blocks=bursts * 10, baseline_blocks=bursts * 10)
    assert grade_drop(BASELINE, FALLEN, DropPolicy()).is_real
    assert clustered.evidence is Evidence.INSUFFICIENT
    assert "102 failures in 1000 outcomes that come in clusters and count as" in clustered.reason
    even = [Confusion(tp=7, fp=1, fn=2, tn=290)] * 120
    assert "taken as independent" in grade_drop(BASELINE, FALLEN, DropPolicy()).reason
    assert "independent" not in grade_drop(BASELINE, FALLEN, DropPolicy(), blocks=even).reason


def test_a_healthy_stream_looked_at_all_the_time_is_hardly_ever_called_fallen() -> None:
    rng = np.random.default_rng(8)
    shares, called = [0.078, 0.0171, 0.022, 0.8829], 0
    for _ in range(25):
        baseline = Confusion(*map(int, rng.multinomial(10_000, shares)))
        looks = np.cumsum(rng.multinomial(150, shares, size=12), axis=0)
        called += any(grade_drop(baseline, Confusion(*map(int, seen)), DropPolicy()).is_real for seen in looks)
    assert called <= 1


def test_f1_down_10_to_20_percent_is_medium_and_more_is_high() -> None:
    medium = Confusion(tp=660, fp=240, fn=340, tn=9000)
    baseline = Confusion(tp=800, fp=180, fn=220, tn=9000)
    assert grade_drop(baseline, medium, DropPolicy()).severity is Severity.MEDIUM
    assert grade_drop(BASELINE, FALLEN, DropPolicy()).severity is Severity.HIGH


def test_a_small_window_that_crosses_10_percent_by_chance_is_a_false_alarm() -> None:
    verdict = grade_drop(BASELINE, Confusion(tp=22, fp=7, fn=11, tn=960), DropPolicy())
    assert verdict.drop is not None
    assert verdict.drop > 0.10
    assert verdict.evidence is Evidence.FALSE_ALARM
    assert "chance explains it" in verdict.reason


def test_under_30_known_failures_the_evidence_is_insufficient() -> None:
    verdict = grade_drop(BASELINE, Confusion(tp=12, fp=4, fn=8, tn=300), DropPolicy())
    assert verdict.evidence is Evidence.INSUFFICIENT
    assert "only 20 known failures, 30 needed" in verdict.reason


def test_under_30_known_failures_a_collapse_is_still_seen() -> None:
    assert grade_drop(BASELINE, Confusion(tp=2, fp=10, fn=18, tn=300), DropPolicy()).severity is Severity.HIGH


def test_a_healthy_model_is_within_10_percent() -> None:
    verdict = grade_drop(BASELINE, HEALTHY, DropPolicy())
    assert verdict.evidence is Evidence.FALSE_ALARM
    assert verdict.reason.endswith("within 10 %")


def test_a_drop_just_inside_the_limit_is_not_rounded_onto_it() -> None:
    baseline, current = Confusion(tp=800, fp=180, fn=220, tn=9000), Confusion(tp=690, fp=220, fn=310, tn=9000)
    assert grade_drop(baseline, current, DropPolicy()).reason.startswith("F1 fell 9.7 % ")


def test_precision_down_over_15_percent_is_real_without_f1() -> None:
    baseline = Confusion(tp=800, fp=180, fn=220, tn=9000)
    verdict = grade_drop(baseline, Confusion(tp=900, fp=420, fn=120, tn=9000), DropPolicy())
    assert verdict.severity is Severity.MEDIUM
    assert verdict.precision_fell
    assert not verdict.recall_fell
    assert verdict.reason == "precision fell 16 % (0.82 -> 0.68), over 15 % (1020 failures in 10440 outcomes, taken as independent): medium"


def test_recall_down_over_15_percent_is_real_without_f1() -> None:
    baseline = Confusion(tp=800, fp=400, fn=200, tn=9000)
    verdict = grade_drop(baseline, Confusion(tp=660, fp=120, fn=340, tn=9000), DropPolicy())
    assert verdict.recall_fell
    assert verdict.reason.startswith("recall fell 18 %")


@pytest.mark.parametrize("baseline", [Confusion(), Confusion(tp=5, fn=2, tn=90), Confusion(fn=50, tn=90)])
def test_without_a_sound_baseline_there_is_no_verdict(baseline: Confusion) -> None:
    assert grade_drop(baseline, FALLEN, DropPolicy()).evidence is Evidence.INSUFFICIENT


def test_a_window_without_failures_says_nothing() -> None:
    assert grade_drop(BASELINE, Confusion(tn=500), DropPolicy()).evidence is Evidence.INSUFFICIENT


def test_relative_drops_need_both_values() -> None:
    assert relative_drop(0.8, 0.6) == pytest.approx(0.25)
    assert relative_drop(None, 0.6) is None
    assert relative_drop(0.0, 0.6) is None
    assert relative_drop(0.8, None) is None


def test_shares_are_written_as_people_read_them() -> None:
    assert [percent(x) for x in (0, 0.004, 0.31, 1)] == ["0 %", "0.4 %", "31 %", "100 %"]


def overlapping(rng: np.random.Generator, days: int, assets: int = 100) -> tuple[list[Confusion], list[Confusion]]:
    """By day, and by asset: a failure is foretold, or missed, on each of the seven days before it; nothing changes."""
    hit, fails = np.zeros((assets, days), bool), np.zeros((assets, days), bool)
    for asset in range(assets):
        for first in np.flatnonzero(rng.random(days + 7) < 0.02):
            window = slice(max(first - 7, 0), max(first, 0))
            fails[asset, window], hit[asset, window] = True, rng.random() < 0.6

    def counts(axis: int) -> list[Confusion]:
        tp, fn, n = (fails & hit).sum(axis), (fails & ~hit).sum(axis), fails.shape[axis]
        return [Confusion(tp=int(a), fn=int(b), tn=int(n - a - b)) for a, b in zip(tp, fn, strict=True)]

    return counts(0), counts(1)


@pytest.mark.parametrize(("before", "now"), [(7, 7), (45, 10), (90, 30)])
@pytest.mark.parametrize("by_asset", [True, False])
def test_outcomes_of_overlapping_horizons_are_no_independent_ones(before: int, now: int, by_asset: bool) -> None:
    rng, real = np.random.default_rng([before, now]), 0
    for _ in range(100):
        (was, assets), (is_, _) = overlapping(rng, before), overlapping(rng, now)
        known = assets if by_asset else ()
        sums = [Confusion(*(sum(getattr(c, cell) for c in part) for cell in ("tp", "fp", "fn", "tn"))) for part in (was, is_)]
        real += grade_drop(*sums, DropPolicy(), blocks=is_, baseline_blocks=was, baseline_assets=known).is_real
    assert real <= 3
