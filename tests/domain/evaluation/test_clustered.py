"""Outcomes that come in clusters, by failure, by asset or by week, are no proof against a segment or a group."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from scipy.special import ndtr

from mlrunbook.domain.evaluation.fairness import Fairness, judge_asset_type_gap
from mlrunbook.domain.evaluation.performance import Confusion, ModelMetrics, WindowMetrics
from mlrunbook.domain.evaluation.segments import judge_asset_types
from mlrunbook.domain.policy.judging import DropPolicy, FairnessPolicy
from mlrunbook.domain.tally import as_binary

DROPS, NOW, SLICES = DropPolicy(), datetime(2026, 3, 2, tzinfo=UTC), 40
TYPES, ASSETS, WEEK = 5, 30, 7


def window(rng: np.random.Generator, days: int, alike: float, clusters: str, recall: Mapping[int, float]) -> WindowMetrics:
    """A row for each asset and day; errors of one cluster (an asset's run of a week, or a whole week) are `alike`."""
    shape, of_cluster = (TYPES, ASSETS, days), {"runs": (TYPES, ASSETS), "weeks": (TYPES, 1), "assets": (TYPES, ASSETS)}[clusters]
    runs = 1 if clusters == "assets" else days // WEEK + 1
    shared = np.repeat(rng.normal(size=(*of_cluster, runs)), days if runs == 1 else WEEK, axis=2)[:, :, :days]
    luck = ndtr(alike**0.5 * shared + (1 - alike) ** 0.5 * rng.normal(size=shape))
    failed, wanted = rng.random(shape) < 0.2, np.array([recall.get(k, 0.75) for k in range(TYPES)])[:, None, None]
    flagged = np.where(failed, luck < wanted, rng.random(shape) < 0.04)
    cells = np.stack([flagged & failed, flagged & ~failed, ~flagged & failed, ~flagged & ~failed], axis=-1).astype(int)
    counts = {f"type {k}": cells[k] for k in range(TYPES)}
    edges = np.arange(SLICES) * days // SLICES

    def tallies(rows: np.ndarray) -> tuple[Confusion, ...]:
        return tuple(Confusion(*map(int, row)) for row in rows)

    of_types = {name: tallies(c.sum(axis=(0, 1))[None])[0] for name, c in counts.items()}
    total = sum(of_types.values(), Confusion())
    return WindowMetrics(
        since=NOW - timedelta(days=days),
        until=NOW,
        predictions=total.n,
        labelled=total.n,
        tally=total,
        by_asset_type=of_types,
        blocks_by_asset_type={name: tallies(np.add.reduceat(c.sum(axis=0), edges)) for name, c in counts.items()},
        assets_by_asset_type={name: tallies(c.sum(axis=1)) for name, c in counts.items()},
    )


def judged(seed: int, alike: float, clusters: str, recall: Mapping[int, float] | None = None) -> ModelMetrics:
    rng = np.random.default_rng(seed)
    before = window(rng, 160, alike, clusters, {})
    return ModelMetrics("model", window(rng, 40, alike, clusters, recall or {}), before)


@pytest.mark.parametrize(("alike", "clusters"), [(0.3, "runs"), (0.5, "runs"), (0.5, "weeks"), (0.5, "assets")])
def test_clusters_are_not_called_a_fallen_segment_nor_an_unfair_model(alike: float, clusters: str) -> None:
    seen = [judged(seed, alike, clusters) for seed in range(30)]
    assert sum(bool(judge_asset_types(m, DROPS).fallen) for m in seen) <= 1
    policy = FairnessPolicy(confidence=0.99)
    assert sum(judge_asset_type_gap(m, policy).verdict is Fairness.UNFAIR for m in seen) <= 1


@pytest.mark.parametrize("alike", [0.0, 0.3])
def test_a_type_that_truly_fell_is_still_found(alike: float) -> None:
    found = [{s.name for s in judge_asset_types(judged(seed, alike, "runs", {2: 0.4}), DROPS).fallen} for seed in range(20)]
    assert sum("type 2" in names for names in found) >= 17
    assert sum(bool(names - {"type 2"}) for names in found) <= 1


def test_independent_outcomes_count_as_they_are() -> None:
    sure = [judged(seed, 0.0, "runs", {2: 0.5}) for seed in range(10)]
    assert sum("type 2" in {s.name for s in judge_asset_types(m, DROPS).fallen} for m in sure) >= 8


def test_the_parts_of_a_type_add_up_to_it() -> None:
    now = judged(1, 0.3, "runs").current
    for name, tally in now.by_asset_type.items():
        for parts in (now.blocks_by_asset_type[name], now.assets_by_asset_type[name]):
            assert sum(map(as_binary, parts), Confusion()) == tally
