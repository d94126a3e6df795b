"""How features moved over the log, by the drift rule that runs live: every later part against the first quarter."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from mlrunbook.domain.backtest.result import Drift, FeatureDrift
from mlrunbook.domain.evaluation.drift import Reference
from mlrunbook.domain.policy.judging import DriftPolicy

FIRST = 0.25
MOST_FEATURES = 30

Row = tuple[Any, ...]  # time in seconds, asset, features


def drift_of(
    sampled: Sequence[tuple[int, list[Row]]], features: Sequence[str], starts: Sequence[datetime], policy: DriftPolicy
) -> Drift | None:
    """None where there are no features, or too few parts to compare."""
    names = list(features[:MOST_FEATURES])
    reference_parts = max(1, int(len(starts) * FIRST))
    old = [row for part, rows in sampled if part < reference_parts for row in rows]
    later = [(part, rows) for part, rows in sampled if part >= reference_parts and rows]
    if not names or not old or not later:
        return None
    reference = Reference.of(_columns(old, names), **_keys(old))
    distance: dict[str, list[float | None]] = {name: [] for name in names}
    drifted: dict[str, list[bool]] = {name: [] for name in names}
    for _, rows in later:
        found = reference.compare(_columns(rows, names), policy, **_keys(rows)).columns
        for name in names:
            seen = found.get(name)
            distance[name].append(seen.effect if seen else None)
            drifted[name].append(bool(seen and seen.found))
    moved = [FeatureDrift(name, tuple(distance[name]), tuple(drifted[name])) for name in names]
    moved.sort(key=lambda f: (-sum(f.drifted), -max((d for d in f.distance if d is not None), default=0.0)))
    words = f"{starts[0]:%d %b %Y} to {starts[reference_parts]:%d %b %Y}"
    return Drift(words, tuple(starts[part] for part, _ in later), tuple(moved), sum(len(rows) for _, rows in sampled))


def _columns(rows: Sequence[Row], names: Sequence[str]) -> dict[str, list[Any]]:
    return {name: [row[i + 2] for row in rows] for i, name in enumerate(names)}


def _keys(rows: Sequence[Row]) -> dict[str, Any]:
    has_assets = any(row[1] is not None for row in rows)
    at = [datetime.fromtimestamp(row[0], UTC) for row in rows]
    return {"at": at, "entity": [str(row[1]) for row in rows] if has_assets else None}
