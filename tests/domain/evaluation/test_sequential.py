"""Evidence that holds however often one looks."""

from __future__ import annotations

import doctest
from math import inf
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlrunbook.domain.evaluation import sequential
from mlrunbook.domain.evaluation.performance import Confusion, clustering, grade_drop
from mlrunbook.domain.evaluation.sequential import (
    clustering_of,
    critical_value,
    dispersion,
    fall_score,
    falls,
    joined_slices,
    needed_score,
    outcomes_to_detect,
)
from mlrunbook.domain.policy.judging import DropPolicy

BASELINE = Confusion(tp=780, fp=171, fn=220, tn=28_829)  # of 30,000 predictions: P .82, R .78, F1 .80
POLICY = DropPolicy()


def test_the_documented_examples_hold() -> None:
    assert doctest.testmod(sequential).failed == 0


def first_passage(rate: float, *, streams: int = 20_000) -> float:
    """The share of random walks without drift that ever pass the boundary, looked at 120 times from 1 % to 16 times the planned."""
    planned = (critical_value(rate) + 1.2816) ** 2
    information = np.geomspace(0.01, 16, 120) * planned
    rng = np.random.default_rng(3)
    walk = np.cumsum(rng.standard_normal((streams, 120)) * np.sqrt(np.diff(information, prepend=0)), axis=1)
    return float((walk / np.sqrt(information) >= needed_score(information, rate)).any(axis=1).mean())


@pytest.mark.parametrize("rate", [0.05, 0.01])
def test_all_looks_together_keep_the_stated_rate_of_false_alarms(rate: float) -> None:
    crossed = first_passage(rate)
    assert rate / 4 < crossed <= rate


def test_looking_again_and_again_with_one_looks_interval_would_not() -> None:
    rng = np.random.default_rng(3)
    walk = np.cumsum(rng.standard_normal((4000, 40)), axis=1) / np.sqrt(np.arange(1, 41))
    assert (walk >= 2.326).any(axis=1).mean() > 0.04  # the quantile of 1 %


@settings(max_examples=60, deadline=None)
@given(st.floats(0.01, 1e6), st.floats(1e-6, 0.4), st.floats(1.01, 20))
def test_what_is_beyond_chance_at_one_rate_is_so_at_every_higher_one(information: float, rate: float, times: float) -> None:
    assert needed_score(information, min(rate * times, 0.5)) <= needed_score(information, rate) + 1e-9


def test_the_evidence_asked_for_is_least_at_the_planned_information() -> None:
    planned = (critical_value(0.01) + 1.2816) ** 2
    needed = needed_score(np.array([0, 0.01, 0.1, 0.5, 1, 2, 10]) * planned, 0.01)
    assert needed[0] == inf
    assert needed[4] == pytest.approx(critical_value(0.01), abs=1e-3)
    assert (np.diff(needed[:5]) <= 1e-9).all()
    assert (np.diff(needed[4:]) > 0).all()


shares = st.tuples(st.integers(0, 300), st.integers(0, 300))


@settings(max_examples=60, deadline=None)
@given(shares, shares)
def test_the_score_changes_sign_when_the_windows_change_places(before: tuple[int, int], now: tuple[int, int]) -> None:
    score = fall_score(before[0], sum(before), now[0], sum(now))
    assert score == pytest.approx(-fall_score(now[0], sum(now), before[0], sum(before)), abs=1e-9)
    if 0 in (sum(before), sum(now)):
        assert score == 0


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 300), st.integers(1, 300), st.integers(0, 300), st.integers(0, 300))
def test_twice_the_counts_are_twice_the_evidence(tp: int, misses: int, now_tp: int, now_misses: int) -> None:
    once = fall_score(tp, tp + misses, now_tp, now_tp + now_misses)
    twice = fall_score(2 * tp, 2 * (tp + misses), 2 * now_tp, 2 * (now_tp + now_misses))
    assert twice**2 == pytest.approx(2 * once**2, abs=1e-6)


def test_what_counts_as_one_outcome_makes_a_window_smaller_by_that_factor() -> None:
    now = Confusion(tp=62, fp=33, fn=38, tn=2867)
    assert falls(BASELINE, now, POLICY)["f1"]
    assert not falls(BASELINE, now, POLICY, clustering=3.0)["f1"]


def stream(rho: float, streams: int = 200, trials: int = 1200) -> np.ndarray:
    """Trials of which each is, with probability `rho`, as the one before."""
    rng = np.random.default_rng(5)
    fresh, source = rng.random((streams, trials)) < 2 / 3, np.arange(trials)
    kept = np.maximum.accumulate(np.where(rng.random((streams, trials)) < rho, 0, source), axis=1)
    return np.take_along_axis(fresh, kept, axis=1)


@pytest.mark.parametrize(("rho", "low", "high"), [(0.0, 0.95, 1.05), (0.3, 1.7, 1.9), (0.5, 2.55, 3.05)])
def test_dispersion_measures_how_long_a_stream_remembers(rho: float, low: float, high: float) -> None:
    caught = stream(rho).reshape(200, 120, 10).sum(axis=2)  # truly (1 + rho) / (1 - rho)
    assert low < dispersion(caught, np.full(caught.shape, 10.0), joined_slices(120, 1200)).mean() < high


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32))
def test_permuting_outcomes_within_a_slice_changes_nothing(seed: int) -> None:
    def slices(rows: list[list[str]]) -> list[Confusion]:
        return [Confusion(tp=r.count("tp"), fp=r.count("fp"), fn=r.count("fn"), tn=r.count("tn")) for r in rows]

    rows = [["tp"] * (8 if k % 4 < 2 else 3) + ["fp", "fn"] * (1 if k % 4 < 2 else 3) + ["tn"] * 20 for k in range(120)]
    shuffle = Random(seed)
    shuffled = [shuffle.sample(r, len(r)) for r in rows]
    assert clustering(slices(shuffled), ()) == clustering(slices(rows), ())


def test_permuting_the_slices_themselves_loses_the_clusters() -> None:
    good, bad = Confusion(tp=9, fp=1, tn=290), Confusion(tp=2, fp=4, fn=4, tn=290)
    assert (clustering([good, good, bad, bad] * 30, ()) or 0) > 3
    assert clustering([good, bad] * 60, ()) == 1


def test_a_fall_inside_the_window_is_not_taken_for_clusters() -> None:
    good, bad = Confusion(tp=7, fp=2, fn=1, tn=290), Confusion(tp=4, fp=2, fn=4, tn=290)
    rng = np.random.default_rng(11)

    def slices(share: float, count: int) -> list[Confusion]:
        caught = rng.binomial(10, share, size=count)
        return [Confusion(tp=int(c), fn=int(10 - c), tn=290) for c in caught]

    assert good.n == bad.n
    falling = slices(0.75, 80) + slices(0.40, 40)
    assert (clustering(falling, slices(0.75, 120)) or 0) < 1.5


def test_clusters_of_the_baseline_count_for_a_window_too_short_to_show_its_own() -> None:
    assert clustering_of(2.0, 40.0, 1.0, 0.0) == pytest.approx(2.0 * 40 / 36)


def test_a_window_that_clusters_more_than_its_baseline_counts_as_it_is() -> None:
    assert clustering_of(1.0, 40.0, 3.0, 40.0) == pytest.approx(3.0 * 40 / 36)
    assert clustering_of(1.0, 40.0, 1.3, 40.0) < 1.2  # chance


@pytest.mark.parametrize("slices", [0, 1, 4, 9])
def test_few_slices_measure_nothing(slices: int) -> None:
    assert joined_slices(slices, trials=20) == 0
    assert clustering([Confusion(tp=1, fn=1, tn=9)] * slices, ()) in (None, 1.0)


@pytest.mark.parametrize("factor", [1.0, 3.0])
def test_the_stated_number_of_outcomes_finds_the_drop_nine_times_in_ten(factor: float) -> None:
    outcomes = outcomes_to_detect(BASELINE, BASELINE.n, POLICY, drop=0.20, clustering=factor)
    assert outcomes is not None
    rng = np.random.default_rng(2)
    share = np.array([0.624, 0.624 * (1 - 0.656) / 0.656, 0.376]) / 30  # caught, false alarms, missed, of all outcomes
    tp, fp, fn, _ = rng.multinomial(round(outcomes / factor), [*share, 1 - share.sum()], size=4000).T * factor
    base = rng.multinomial(round(BASELINE.n / factor), [0.026, 0.0057, 0.00733, 0.96097], size=4000).T * factor
    cells = [type("Cells", (), {"tp": c[0], "fp": c[1], "fn": c[2]})() for c in (base, (tp, fp, fn))]
    found = falls(*cells, POLICY, clustering=factor)
    assert 0.88 < found["f1"].mean() < 0.95


def test_a_larger_drop_needs_fewer_outcomes_and_a_tiny_baseline_never_suffices() -> None:
    needed = [outcomes_to_detect(BASELINE, BASELINE.n, POLICY, drop=d) or 0 for d in (0.2, 0.3, 0.45)]
    assert needed == sorted(needed, reverse=True)
    assert needed[-1] < 1000  # a few dozen failures
    assert outcomes_to_detect(Confusion(tp=26, fp=6, fn=7, tn=961), 1000, POLICY, drop=0.2) is None


def test_a_collapse_is_real_on_a_few_dozen_failures() -> None:
    """As after a bad release: F1 down by 45 %."""
    verdict = grade_drop(BASELINE, Confusion(tp=13, fp=16, fn=17, tn=840), POLICY)
    assert verdict.is_real
    assert verdict.severity == "high"
