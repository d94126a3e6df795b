"""Models that answer no yes or no: a tally of each, as a task that is shipped would have it, and windows of it."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, Self

import numpy as np

from mlrunbook.domain.evaluation.performance import ModelMetrics, WindowMetrics
from mlrunbook.domain.policy.judging import RUNBOOK_RULES, DropPolicy, MetricRule, Worse
from mlrunbook.domain.tally import Tally

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
SLICES = 60


@dataclass(frozen=True)
class AbsoluteErrors(Tally):
    """Of a regression: how far off the predictions were."""

    task: ClassVar[str] = "regression"
    metrics: ClassVar[Mapping[str, str]] = {"mae": "MAE"}

    n: int = 0
    absolute: float = 0.0

    def ratio(self, metric: str) -> tuple[float, float]:
        return self.absolute, self.n


@dataclass(frozen=True)
class ThreeClasses(Tally):
    """Of a model with three answers: by class, how many were right, named, and true. Macro-F1 is no ratio of two sums."""

    task: ClassVar[str] = "multiclass"
    metrics: ClassVar[Mapping[str, str]] = {"macro_f1": "macro-F1"}

    n: int = 0
    right_a: int = 0
    right_b: int = 0
    right_c: int = 0
    named_or_true_a: int = 0  # named + true
    named_or_true_b: int = 0
    named_or_true_c: int = 0

    @property
    def _classes(self) -> list[tuple[int, int]]:
        a, b, c = self.named_or_true_a, self.named_or_true_b, self.named_or_true_c
        return [(2 * self.right_a, a), (2 * self.right_b, b), (2 * self.right_c, c)]

    def ratio(self, metric: str) -> tuple[float, float]:
        raise NotImplementedError  # a mean of three ratios is none of two sums: `figure` and `score` stand for it

    def figure(self, metric: str) -> float | None:
        classes = self._classes
        return sum(above / below for above, below in classes) / 3 if all(below for _, below in classes) else None

    def score(self, metric: str, whole: Self) -> tuple[float, float]:
        score = 0.0
        for (above, below), (all_above, all_below) in zip(self._classes, whole._classes, strict=True):
            score += (above - all_above / all_below * below) * whole.n / all_below / 3
        return score, self.n


MAE = MetricRule("mae", Worse.HIGHER, medium=0.10, high=0.20)
MACRO_F1 = MetricRule("macro_f1", Worse.LOWER, medium=0.10, high=0.20)
DROPS = DropPolicy(metrics=(*RUNBOOK_RULES, MAE, MACRO_F1))


def errors(seed: int, n: int, *, mae: float = 4.0, memory: float = 0.0) -> list[AbsoluteErrors]:
    """Equal slices of a stream of `n` outcomes. `memory`: how much an error resembles the one before (autocorrelation of its size)."""
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal(n)
    for i in range(1, n) if memory else ():
        noise[i] = memory * noise[i - 1] + (1 - memory**2) ** 0.5 * noise[i]
    off = mae * np.exp(noise * 0.7 - 0.245)
    edges = np.arange(SLICES + 1) * n // SLICES
    return [AbsoluteErrors(int(b - a), float(off[a:b].sum())) for a, b in itertools.pairwise(edges)]


def classes(seed: int, n: int, *, right: float = 0.8) -> list[ThreeClasses]:
    rng, found = np.random.default_rng(seed), []
    for _ in range(SLICES):
        true = rng.choice(3, n // SLICES, p=[0.6, 0.3, 0.1])
        named = np.where(rng.random(len(true)) < right, true, rng.integers(0, 3, len(true)))
        hits = [int(((true == k) & (named == k)).sum()) for k in range(3)]
        found.append(ThreeClasses(len(true), *hits, *(int((true == k).sum() + (named == k).sum()) for k in range(3))))
    return found


def whole(blocks: Sequence[AbsoluteErrors]) -> AbsoluteErrors:
    return sum(blocks, AbsoluteErrors())


def window(blocks: Sequence[Tally], **changes: Any) -> WindowMetrics:
    tally = sum(blocks[1:], blocks[0])
    values = {"since": NOW - timedelta(hours=1), "until": NOW, "predictions": tally.n, "labelled": tally.n, "latency_p95_ms": 40.0}
    return WindowMetrics(**(values | {"error_rate": 0.0, "null_rate": 0.0, "tally": tally, "blocks": tuple(blocks)} | changes))


def metrics(before: Sequence[Tally], now: Sequence[Tally], **changes: Any) -> ModelMetrics:
    return ModelMetrics("remaining_life", window(now, **changes), window(before))
