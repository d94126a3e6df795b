"""Counts of right and wrong predictions, the metrics of the runbook, and whether a drop is real."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True)
class Confusion:
    """Labelled predictions by outcome. Ratios without a denominator are None, never 0."""

    tp: int = 0
    fp: int = 0
    fn: int = 0
    tn: int = 0

    @property
    def n(self) -> int:
        return self.tp + self.fp + self.fn + self.tn

    @property
    def positives(self) -> int:
        """Assets that truly failed."""
        return self.tp + self.fn

    @property
    def precision(self) -> float | None:
        return self.tp / (self.tp + self.fp) if self.tp + self.fp else None

    @property
    def recall(self) -> float | None:
        return self.tp / (self.tp + self.fn) if self.tp + self.fn else None

    @property
    def f1(self) -> float | None:
        """2TP / (2TP + FP + FN)."""
        denominator = 2 * self.tp + self.fp + self.fn
        return 2 * self.tp / denominator if denominator else None


@dataclass(frozen=True)
class WindowMetrics:
    """What a model did between `since` and `until`.

    `labelled` counts predictions whose outcome is known (confusion covers those); `flagged_share` is the share of all
    predictions labelled high-risk; `null_rate` the worst feature's share of nulls; latencies in ms, rates in 0..1.
    """

    since: datetime
    until: datetime
    predictions: int
    labelled: int
    confusion: Confusion
    flagged_share: float | None = None
    latency_p95_ms: float | None = None
    error_rate: float | None = None
    null_rate: float | None = None
    versions: tuple[str, ...] = ()
    by_risk_level: Mapping[str, Confusion] = field(default_factory=dict)
    by_asset_type: Mapping[str, Confusion] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelMetrics:
    """`GET /api/v1/model-performance/metrics/{model}`: the current window against the baseline."""

    model: str
    current: WindowMetrics
    baseline: WindowMetrics
