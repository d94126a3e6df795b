"""Counts of right and wrong predictions, the metrics of the runbook, and whether a drop is real."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from math import sqrt
from statistics import NormalDist
from typing import Annotated

from pydantic import Field

from mlrunbook.domain.incident import Severity


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
    predictions labelled high-risk; `null_rate` the worst feature's share of nulls; latencies in ms, rates in 0..1. `label_delay_s` is
    the median time from a prediction to its outcome, over the outcomes that have come; None where the platform does not say.
    `outcomes_due` are predictions old enough for their outcome to be expected (`outcome_feed.due_age_s`), `outcomes_missing` those of
    them without one; None likewise. `errors` counts the assets asked for that got no prediction by kind (features, invalid_features,
    scoring, storage, no_model); empty where the platform does not say.
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
    errors: Mapping[str, int] = field(default_factory=dict)
    label_delay_s: float | None = None
    outcomes_due: int | None = None
    outcomes_missing: int | None = None


@dataclass(frozen=True)
class ModelMetrics:
    """`GET /api/v1/model-performance/metrics/{model}`: the current window against the baseline."""

    model: str
    current: WindowMetrics
    baseline: WindowMetrics


class Evidence(StrEnum):
    """What the counts say about a suspected drop."""

    REAL = "real"
    FALSE_ALARM = "false_alarm"
    INSUFFICIENT = "insufficient_evidence"


Share = Annotated[float, Field(gt=0, lt=1)]
Count = Annotated[int, Field(ge=1)]


@dataclass(frozen=True)
class DropPolicy:
    """How far a metric may fall, relative to its baseline (runbook, "Severity Levels" and "Incident Types").

    Below `min_positives` known failures in a window a drop counts only when even the interval's upper bound is past the limit.
    """

    f1_medium: Share = 0.10
    f1_high: Share = 0.20
    precision: Share = 0.15
    recall: Share = 0.15
    min_positives: Count = 30
    confidence: Share = 0.95


@dataclass(frozen=True)
class Verdict:
    """Whether performance fell. `severity` is set only when it is real; drops are relative to the baseline, negative for a rise.

    `precision_fell` and `recall_fell` say that the metric is past its limit beyond chance.
    """

    evidence: Evidence
    severity: Severity | None
    reason: str
    f1_drop: float | None = None
    precision_fell: bool = False
    recall_fell: bool = False

    @property
    def is_real(self) -> bool:
        return self.evidence is Evidence.REAL


def z_value(confidence: float) -> float:
    """Two-sided normal quantile: 1.96 for .95."""
    return NormalDist().inv_cdf(0.5 + confidence / 2)


def wilson(successes: int, n: int, z: float) -> tuple[float, float]:
    """Score interval of a proportion (Wilson 1927). With no trials nothing is known: (0, 1)."""
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n} trials")
    if n == 0:
        return 0.0, 1.0
    p, z2 = successes / n, z * z
    middle = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = z / (1 + z2 / n) * sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    # The bounds of 0 and n successes are exact; rounding would put them a hair inside.
    return (0.0 if successes == 0 else middle - half), (1.0 if successes == n else middle + half)


def f1_interval(counts: Confusion, confidence: float = 0.95) -> tuple[float, float]:
    """Interval of F1 through the Jaccard index: Wilson on J = TP/(TP+FP+FN), then F1 = 2J/(1+J), which is monotone in J."""
    low, high = wilson(counts.tp, counts.tp + counts.fp + counts.fn, z_value(confidence))
    return 2 * low / (1 + low), 2 * high / (1 + high)


def relative_drop(baseline: float | None, current: float | None) -> float | None:
    """1 - current/baseline; negative for a rise; None when either is unknown or the baseline is 0."""
    return None if not baseline or current is None else 1 - current / baseline


def beyond_chance(baseline: float, upper: float, limit: float, *, enough: bool) -> bool:
    """The interval's upper bound is below the baseline, or, on little evidence, below the limit itself."""
    return upper < (baseline if enough else baseline * (1 - limit))


def _fell(baseline: float | None, current: float | None, successes: int, n: int, limit: float, policy: DropPolicy, enough: bool) -> bool:
    drop = relative_drop(baseline, current)
    if baseline is None or drop is None or drop <= limit:
        return False
    return beyond_chance(baseline, wilson(successes, n, z_value(policy.confidence))[1], limit, enough=enough)


def grade_drop(baseline: Confusion, current: Confusion, policy: DropPolicy) -> Verdict:
    """Decide whether performance truly fell, and how badly.

    A drop is real when the point estimate is past the limit AND the upper bound of its Wilson interval is below the baseline:
    the point alone calls .24 of healthy windows of 300 predictions a drop, both together .06. The baseline is taken as known.

    >>> grade_drop(Confusion(tp=80, fp=18, fn=22, tn=880), Confusion(tp=50, fp=30, fn=52, tn=868), DropPolicy()).reason
    'F1 fell 31 % (0.80 -> 0.55, 95 % interval 0.46-0.63): high, over 20 %'
    """
    if baseline.positives < policy.min_positives or not baseline.f1:
        return Verdict(
            Evidence.INSUFFICIENT, None, f"the baseline holds only {baseline.positives} known failures: nothing sound to compare with"
        )
    if current.f1 is None:
        return Verdict(Evidence.INSUFFICIENT, None, f"no failure known or predicted in {current.n} labelled predictions: F1 is undefined")

    enough = current.positives >= policy.min_positives
    low, high = f1_interval(current, policy.confidence)
    drop = 1 - current.f1 / baseline.f1
    f1_fell = drop > policy.f1_medium and beyond_chance(baseline.f1, high, policy.f1_medium, enough=enough)
    precision_fell = _fell(baseline.precision, current.precision, current.tp, current.tp + current.fp, policy.precision, policy, enough)
    recall_fell = _fell(baseline.recall, current.recall, current.tp, current.positives, policy.recall, policy, enough)

    def verdict(evidence: Evidence, severity: Severity | None, reason: str) -> Verdict:
        return Verdict(evidence, severity, reason, drop, precision_fell, recall_fell)

    interval = f"{policy.confidence:.0%}".replace("%", " %") + f" interval {low:.2f}-{high:.2f}"
    size = _exact(abs(drop), policy.f1_medium, policy.f1_high)
    moved = f"F1 {'fell' if drop > 0 else 'rose'} {size} ({baseline.f1:.2f} -> {current.f1:.2f}, {interval})"
    if f1_fell:
        severity, limit = (Severity.HIGH, policy.f1_high) if drop > policy.f1_high else (Severity.MEDIUM, policy.f1_medium)
        return verdict(Evidence.REAL, severity, f"{moved}: {severity}, over {percent(limit)}")
    if precision_fell or recall_fell:
        parts = []
        if precision_fell:
            parts.append(_other_drop("precision", baseline.precision, current.precision, policy.precision))
        if recall_fell:
            parts.append(_other_drop("recall", baseline.recall, current.recall, policy.recall))
        return verdict(Evidence.REAL, Severity.MEDIUM, f"{' and '.join(parts)}: medium")
    if not enough:
        short = f"only {current.positives} known failures, {policy.min_positives} needed"
        return verdict(Evidence.INSUFFICIENT, None, f"{moved}, but {short}: insufficient evidence")
    if drop > policy.f1_medium:
        return verdict(Evidence.FALSE_ALARM, None, f"{moved}, but the interval still holds the baseline: chance explains it")
    return verdict(Evidence.FALSE_ALARM, None, f"{moved}: within {percent(policy.f1_medium)}")


def _other_drop(name: str, baseline: float | None, current: float | None, limit: float) -> str:
    drop = relative_drop(baseline, current) or 0.0
    return f"{name} fell {percent(drop)} ({baseline or 0:.2f} -> {current or 0:.2f}), over {percent(limit)}"


def _exact(drop: float, *limits: float) -> str:
    """One decimal more where rounding would land on a limit: "9.7 %, within 10 %"."""
    rounded = percent(drop)
    return f"{drop * 100:.1f} %" if rounded in map(percent, limits) else rounded


def percent(share: float) -> str:
    """'31 %'; one decimal where the whole number would say 0 or hide it (0.4 %)."""
    return f"{share * 100:.1f} %" if 0 < share < 0.01 else f"{share * 100:.0f} %"
