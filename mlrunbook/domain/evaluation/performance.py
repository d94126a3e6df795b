"""Counts of right and wrong predictions, the metrics of the runbook, and whether a drop is real."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from math import sqrt
from statistics import NormalDist

from mlrunbook.domain.evaluation.sequential import Falls, clustering_of, dispersion, falls, joined_slices, outcomes_to_detect
from mlrunbook.domain.incident import Severity
from mlrunbook.domain.policy.judging import DropPolicy


@dataclass(frozen=True)
class Confusion:
    """Labelled predictions by outcome. Ratios without a denominator are None, never 0."""

    tp: int = 0
    fp: int = 0
    fn: int = 0
    tn: int = 0

    def __add__(self, other: Confusion) -> Confusion:
        """Both together: `sum(counts, Confusion())`."""
        return Confusion(self.tp + other.tp, self.fp + other.fp, self.fn + other.fn, self.tn + other.tn)

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
class Rewritten:
    """Known outcomes that are not what was first reported, and were changed by somebody else, or after they had settled
    (`OutcomesPolicy`): `count` of them among `of`, `by` whom. `first` and `now` are the counts of all of these outcomes, as first
    reported and as they are. `oldest` and `newest` are of the predictions concerned, where they are not those of one window."""

    count: int = 0
    of: int = 0
    by: Mapping[str, int] = field(default_factory=dict)
    first: Confusion = Confusion()
    now: Confusion = Confusion()
    oldest: datetime | None = None
    newest: datetime | None = None


@dataclass(frozen=True)
class WindowMetrics:
    """What a model did between `since` and `until`.

    `labelled` counts predictions whose outcome is known (confusion covers those); `flagged_share` is the share of all
    predictions labelled high-risk; `null_rate` the worst feature's share of nulls; latencies in ms, rates in 0..1. `label_delay_s` is
    the median time from a prediction to its outcome, over the outcomes that have come; None where the platform does not say.
    `outcomes_due` are predictions old enough for their outcome to be expected (`outcomes.due_age_s`), `outcomes_missing` those of
    them without one; None likewise. `errors` counts the assets asked for that got no prediction by kind (features, invalid_features,
    scoring, storage, no_model, busy, internal), `refused` those that were the caller's own mistake and are no part of
    `error_rate`; empty where the platform does not say. `blocks` are the counts of equal slices of the window's time,
    oldest first: how much outcomes come in clusters; empty likewise. `rewritten`: its outcomes that were changed; None likewise.
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
    refused: Mapping[str, int] = field(default_factory=dict)
    label_delay_s: float | None = None
    outcomes_due: int | None = None
    outcomes_missing: int | None = None
    blocks: tuple[Confusion, ...] = ()
    rewritten: Rewritten | None = None

    @property
    def requests(self) -> int | None:
        """Assets asked for, with or without a prediction. None: every request failed and the platform does not say how many there were."""
        if self.errors or not self.error_rate:
            return self.predictions + sum(self.errors.values())
        return round(self.predictions / (1 - self.error_rate)) if self.error_rate < 1 else None


@dataclass(frozen=True)
class ModelMetrics:
    """`GET /api/v1/model-performance/metrics/{model}`: the current window against the baseline. `rewritten_lately`: outcomes changed in
    the last day, of predictions however old; None where the platform does not say."""

    model: str
    current: WindowMetrics
    baseline: WindowMetrics
    rewritten_lately: Rewritten | None = None


class Evidence(StrEnum):
    """What the counts say about a suspected drop."""

    REAL = "real"
    FALSE_ALARM = "false_alarm"
    INSUFFICIENT = "insufficient_evidence"


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


def wilson(successes: float, n: float, z: float) -> tuple[float, float]:
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


def f1_interval(counts: Confusion, confidence: float = 0.95, clustering: float = 1.0) -> tuple[float, float]:
    """Interval of F1 through the Jaccard index: Wilson on J = TP/(TP+FP+FN), then F1 = 2J/(1+J), which is monotone in J.

    `clustering`: how many trials count as one.
    """
    low, high = wilson(counts.tp / clustering, (counts.tp + counts.fp + counts.fn) / clustering, z_value(confidence))
    return 2 * low / (1 + low), 2 * high / (1 + high)


def relative_drop(baseline: float | None, current: float | None) -> float | None:
    """1 - current/baseline; negative for a rise; None when either is unknown or the baseline is 0."""
    return None if not baseline or current is None else 1 - current / baseline


def clustering(blocks: Sequence[Confusion], baseline_blocks: Sequence[Confusion]) -> float | None:
    """How many outcomes count as one because they come in clusters; None where neither window says. See `sequential.clustering_of`."""
    import numpy as np

    def measured(window: Sequence[Confusion]) -> tuple[float, float]:
        window = [c for c in window if c.n]  # no traffic, or no outcomes yet
        trials = np.array([c.tp + c.fp + c.fn for c in window], float)
        joined = joined_slices(len(window), float(trials.sum()))
        if not joined:
            return 1.0, 0.0
        return float(dispersion(np.array([c.tp for c in window], float), trials, joined)), len(window) / joined

    if not blocks and not baseline_blocks:
        return None
    return float(clustering_of(*measured(baseline_blocks), *measured(blocks)))


def grade_drop(
    baseline: Confusion,
    current: Confusion,
    policy: DropPolicy,
    *,
    blocks: Sequence[Confusion] = (),
    baseline_blocks: Sequence[Confusion] = (),
) -> Verdict:
    """Decide whether performance truly fell, and how badly.

    A drop is real when the point estimate is past the limit AND beyond chance however often one looks (`sequential.falls`). It is a
    false alarm when it is within the limits, or when the interval shown still holds the baseline. In between, and on few failures,
    the evidence is insufficient: look again. `blocks` and `baseline_blocks` are the counts of equal slices of time, oldest first; with
    neither, outcomes are taken as independent, and the sentence says so.

    >>> grade_drop(Confusion(tp=80, fp=18, fn=22, tn=880), Confusion(tp=50, fp=30, fn=52, tn=868), DropPolicy()).reason
    'F1 fell 31 % (0.80 -> 0.55, 95 % interval 0.46-0.63; 102 failures in 1000 outcomes, taken as independent): high, over 20 %'
    """
    if nothing := _nothing_to_compare(baseline, current, policy):
        return nothing
    was, now = baseline.f1 or 0.0, current.f1 or 0.0
    together = clustering(blocks, baseline_blocks)
    per_one = together or 1.0
    fell = falls(baseline, current, policy, clustering=per_one)
    low, high = f1_interval(current, policy.confidence, per_one)
    drop = 1 - now / was

    def verdict(evidence: Evidence, severity: Severity | None, reason: str) -> Verdict:
        return Verdict(evidence, severity, reason, drop, bool(fell.precision), bool(fell.recall))

    interval = f"{policy.confidence:.0%}".replace("%", " %") + f" interval {low:.2f}-{high:.2f}"
    size = _exact(abs(drop), policy.f1_medium, policy.f1_high)
    seen = _seen(current, together)
    moved = f"F1 {'fell' if drop > 0 else 'rose'} {size} ({was:.2f} -> {now:.2f}, {interval}; {seen})"
    if fell.f1:
        severity, limit = (Severity.HIGH, policy.f1_high) if drop > policy.f1_high else (Severity.MEDIUM, policy.f1_medium)
        return verdict(Evidence.REAL, severity, f"{moved}: {severity}, over {percent(limit)}")
    if fell.precision or fell.recall:
        return verdict(Evidence.REAL, Severity.MEDIUM, f"{_other_drops(fell, baseline, current, policy)} ({seen}): medium")
    if why := _too_early(baseline, current, policy, per_one):
        return verdict(Evidence.INSUFFICIENT, None, f"{moved}{why}: insufficient evidence")
    if drop > policy.f1_medium:
        return verdict(Evidence.FALSE_ALARM, None, f"{moved}, but the interval still holds the baseline: chance explains it")
    return verdict(Evidence.FALSE_ALARM, None, f"{moved}: within {percent(policy.f1_medium)}")


def _nothing_to_compare(baseline: Confusion, current: Confusion, policy: DropPolicy) -> Verdict | None:
    if baseline.positives < policy.min_positives or not baseline.f1:
        why = f"the baseline holds only {baseline.positives} known failures: nothing sound to compare with"
    elif current.f1 is None:
        why = f"no failure known or predicted in {current.n} labelled predictions: F1 is undefined"
    else:
        return None
    return Verdict(Evidence.INSUFFICIENT, None, why)


def _too_early(baseline: Confusion, current: Confusion, policy: DropPolicy, clustering: float) -> str:
    """Why a fall is neither shown nor ruled out; empty where it is ruled out."""
    if current.positives / clustering < policy.min_positives:
        return f", but only {current.positives} known failures, {policy.min_positives * clustering:.0f} needed"
    suspected = _suspected(baseline, current, policy, clustering)
    if not suspected:
        return ""
    detect = outcomes_to_detect(baseline, baseline.n, policy, drop=policy.f1_high, clustering=clustering)
    enough = f", {detect} outcomes show a drop of {percent(policy.f1_high)}" if detect and detect > current.n else ""
    return f": {suspected} may have fallen, not yet beyond chance at a false-alarm rate of {percent(policy.false_alarm_rate)}{enough}"


def grade_metrics(metrics: ModelMetrics, policy: DropPolicy) -> Verdict:
    """`grade_drop` of the current window against the baseline."""
    now, before = metrics.current, metrics.baseline
    return grade_drop(before.confusion, now.confusion, policy, blocks=now.blocks, baseline_blocks=before.blocks)


def _seen(counts: Confusion, clustering: float | None) -> str:
    words = f"{counts.positives} failures in {counts.n} outcomes"
    if clustering is None:
        return f"{words}, taken as independent"
    return words if clustering <= 1 else f"{words} that come in clusters and count as {counts.n / clustering:.0f}"


def _suspected(baseline: Confusion, current: Confusion, policy: DropPolicy, clustering: float) -> str:
    """The metrics that are past their limit and whose interval no longer holds the baseline: one look would call them fallen."""
    z, now = z_value(policy.confidence), current
    uppers = {
        "F1": (baseline.f1, now.f1, policy.f1_medium, f1_interval(now, policy.confidence, clustering)[1]),
        "precision": (
            baseline.precision,
            now.precision,
            policy.precision,
            wilson(now.tp / clustering, (now.tp + now.fp) / clustering, z)[1],
        ),
        "recall": (baseline.recall, now.recall, policy.recall, wilson(now.tp / clustering, now.positives / clustering, z)[1]),
    }
    return " and ".join(
        name for name, (was, is_, limit, upper) in uppers.items() if (relative_drop(was, is_) or 0) > limit and upper < (was or 0)
    )


def _other_drops(fell: Falls, baseline: Confusion, current: Confusion, policy: DropPolicy) -> str:
    parts = []
    if fell.precision:
        parts.append(_other_drop("precision", baseline.precision, current.precision, policy.precision))
    if fell.recall:
        parts.append(_other_drop("recall", baseline.recall, current.recall, policy.recall))
    return " and ".join(parts)


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
