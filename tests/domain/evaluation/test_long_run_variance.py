"""How much a sum varies when outcomes come in clusters, in time and by asset; for the whole, for segments and for fairness."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlrunbook.domain.evaluation.block_score import Scores
from mlrunbook.domain.evaluation.clustered import Grouped, clustering_of_group, clustering_of_groups
from mlrunbook.domain.evaluation.long_run_variance import LEAST_ASSETS, LEAST_BLOCKS, long_run_variance
from mlrunbook.domain.evaluation.performance import f1_interval
from tests.domain.evaluation.test_accumulated import Blocks, days


def memory(rng: np.random.Generator, blocks: int, phi: float) -> np.ndarray:
    out = np.zeros(blocks)
    for k, shock in enumerate(rng.standard_normal(blocks)):
        out[k] = phi * (out[k - 1] if k else 0) + shock
    return out


@pytest.mark.parametrize(("phi", "blocks", "least"), [(0.0, 120, 0.8), (0.5, 200, 0.7), (0.8, 400, 0.7)])
def test_memory_in_time_is_seen(phi: float, blocks: int, least: float) -> None:
    rng, true = np.random.default_rng(1), 1 / (1 - phi) ** 2
    seen = [long_run_variance(Scores(memory(rng, blocks, phi), np.ones(blocks))) for _ in range(60)]
    ratio = np.median([v.per_weight for v in seen if v]) / true
    assert least < ratio < 2
    assert np.mean([v.per_weight < true / 2 for v in seen if v]) < 0.25


def test_a_machine_that_the_model_does_not_understand_is_one_piece_of_evidence() -> None:
    rng, machines, length = np.random.default_rng(2), 40, 60
    own = rng.standard_normal((machines, 1)) + 0.2 * rng.standard_normal((machines, length))
    blocks, assets = Scores(own.sum(axis=0), np.full(length, machines)), Scores(own.sum(axis=1), np.full(machines, length))
    by_time, both = long_run_variance(blocks), long_run_variance(blocks, assets)
    assert by_time is not None
    assert both is not None
    assert machines / 2 < both.dof < machines
    assert both.source == f"{machines} assets"
    assert both.per_weight > 10 * by_time.per_weight


def test_too_few_blocks_and_assets_are_insufficient() -> None:
    rng = np.random.default_rng(3)

    def of(n: int) -> Scores:
        return Scores(rng.standard_normal(n), np.ones(n))

    assert long_run_variance(of(LEAST_BLOCKS - 1)) is None
    assert long_run_variance(of(LEAST_BLOCKS)) is not None
    assert long_run_variance(of(7), of(LEAST_ASSETS - 1)) is None
    assert long_run_variance(of(7), of(LEAST_ASSETS)) is not None
    assert long_run_variance(Scores(np.zeros(50), np.zeros(50))) is None


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 200), st.floats(0.1, 100))
def test_the_variance_knows_no_unit(seed: int, blocks: int, times: float) -> None:
    rng = np.random.default_rng(seed)
    fall, weight = rng.standard_normal(blocks), rng.random(blocks)
    one, scaled = long_run_variance(Scores(fall, weight)), long_run_variance(Scores(fall * times, weight * times))
    assert (one is None) == (scaled is None)
    if one and scaled:
        assert scaled.per_weight == pytest.approx(one.per_weight * times, rel=1e-6)
        assert scaled.dof == one.dof


def fleet(rng: np.random.Generator, machines: int, length: int) -> Grouped:
    """A machine fails for seven days at once, and the model catches all of them or none."""
    spells = length // 7 + 1
    shape = (machines, spells, 7)
    failed = np.broadcast_to(rng.random((machines, spells, 1)) < 0.1, shape).reshape(machines, -1)[:, :length]
    caught = np.broadcast_to(rng.random((machines, spells, 1)) < 0.8, shape).reshape(machines, -1)[:, :length]
    false = rng.random((machines, length)) < 0.01
    cells = (failed & caught, ~failed & false, failed & ~caught, ~failed & ~false)
    return Grouped(Blocks(*(c.sum(axis=0) for c in cells)), Blocks(*(c.sum(axis=1) for c in cells)))


def test_groups_whose_failures_last_a_week_differ_by_chance_no_more_often_than_promised() -> None:
    rng, apart, runs = np.random.default_rng(4), {"clustered": 0, "independent": 0}, 100
    for _ in range(runs):
        groups = {name: fleet(rng, 25, 60) for name in "ab"}
        clusters = clustering_of_groups(groups, confidence=0.95)
        totals = {name: Blocks(g.blocks.tp, g.blocks.fp, g.blocks.fn, g.blocks.tn).total() for name, g in groups.items()}
        for how in apart:
            per_one = {name: c.per_one if how == "clustered" and c else 1.0 for name, c in clusters.items()}
            parts = [(totals[name].f1 or 0, *f1_interval(totals[name], 0.95, per_one[name])) for name in "ab"]
            (high, high_low, _), (low, _, low_high) = sorted(parts, reverse=True)
            apart[how] += high - low > ((high - high_low) ** 2 + (low_high - low) ** 2) ** 0.5
    assert apart["independent"] > 0.3 * runs
    assert apart["clustered"] <= 0.1 * runs


def test_a_group_without_outcomes_or_with_too_few_days_is_not_judged() -> None:
    rng = np.random.default_rng(5)
    nothing = Blocks(*([np.zeros(60, int)] * 3), np.full(60, 10))
    assert clustering_of_group(Grouped(nothing)) is None
    assert clustering_of_group(Grouped(days(rng, 10))) is None
    independent = clustering_of_group(Grouped(days(rng, 200)))
    assert independent is not None
    assert 1 <= independent.per_one < 2.5


def test_a_group_without_an_error_still_gets_a_figure() -> None:
    perfect = Blocks(np.full(60, 3), np.zeros(60, int), np.zeros(60, int), np.full(60, 50))
    found = clustering_of_group(Grouped(perfect))
    assert found is not None
    assert found.per_one >= 1
