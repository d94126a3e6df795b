"""Does the model serve every group of assets alike? Judged on counts, with intervals; a group with few known failures is not judged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import comb, inf, sqrt

from mlrunbook.domain.evaluation.clustered import outcomes_per_one
from mlrunbook.domain.evaluation.performance import Confusion, ModelMetrics, f1_interval, percent, wilson, z_value
from mlrunbook.domain.evaluation.segments import parts_of
from mlrunbook.domain.policy.judging import FairnessPolicy
from mlrunbook.domain.tally import all_binary

Interval = tuple[float, float]
Interval3 = tuple[float, float, float]


class Fairness(StrEnum):
    FAIR = "fair"
    UNFAIR = "unfair"
    INSUFFICIENT = "insufficient"


@dataclass(frozen=True)
class GroupFigures:
    """One group. Ratios and their Wilson intervals (F1's through the Jaccard index, `performance.f1_interval`) are None where the group
    is not judged, and where there is no denominator."""

    n: int
    positives: int
    f1: float | None = None
    precision: float | None = None
    recall: float | None = None
    flagged_share: float | None = None
    f1_interval: Interval | None = None
    precision_interval: Interval | None = None
    recall_interval: Interval | None = None
    flagged_interval: Interval | None = None

    @property
    def is_judged(self) -> bool:
        return self.f1 is not None


@dataclass(frozen=True)
class Gap:
    """F1 of `better` minus F1 of `worse`, less what that was in the baseline where one is given; `low`..`high` its interval."""

    better: str
    worse: str
    size: float
    low: float
    high: float


@dataclass(frozen=True)
class FairnessVerdict:
    """`gap` is the widest one beyond chance if unfair, else the widest; None with fewer than two judged groups."""

    verdict: Fairness
    sentence: str
    groups: Mapping[str, GroupFigures]
    gap: Gap | None = None


def judge_asset_type_gap(metrics: ModelMetrics, policy: FairnessPolicy | None = None) -> FairnessVerdict:
    """Whether asset types lie further apart than they did in the baseline, where that knows any; outcomes that come in clusters by time or
    by asset count as fewer."""
    policy, before, now = policy or FairnessPolicy(), metrics.baseline, metrics.current
    per_one = outcomes_per_one(parts_of(before), parts_of(now), confidence=policy.confidence)
    return judge_groups(all_binary(now.by_asset_type), policy, all_binary(before.by_asset_type) or None, per_one)


def judge_groups(
    groups: Mapping[str, Confusion],
    policy: FairnessPolicy | None = None,
    baseline: Mapping[str, Confusion] | None = None,
    per_one: Mapping[str, float] | None = None,
) -> FairnessVerdict:
    """Unfair when two groups' F1 lie further apart than `max_gap` AND the interval of the difference excludes 0.

    The interval is that of a difference, from the intervals of its parts (Newcombe 1998; Zou and Donner 2008), at a confidence divided
    by the number of pairs (Bonferroni). With `baseline` the gap counts beyond what it was there: groups that fail more rarely have a
    lower F1 under the very same model. Fair needs every group judged; a wide gap that chance may explain is insufficient, never fair.
    `per_one`: how many outcomes of a group count as one, because they come in clusters.
    """
    policy, per_one = policy or FairnessPolicy(), per_one or {}
    figures = {name: figures_of(counts, policy, per_one.get(name, 1.0)) for name, counts in sorted(groups.items())}
    judged = [
        name
        for name, f in figures.items()
        if f.is_judged and (baseline is None or _enough(baseline.get(name, Confusion()), policy, per_one.get(name, 1.0)))
    ]
    left = ", ".join(f"{name} ({figures[name].positives} known failures)" for name in figures if name not in judged)
    if len(judged) < 2:
        where = " here and in the baseline" if baseline is not None else ""
        sentence = f"{len(judged)} of {len(figures)} groups have {policy.min_positives} known failures{where}: nothing to compare"
        return FairnessVerdict(Fairness.INSUFFICIENT, sentence, figures)
    confidence = 1 - (1 - policy.confidence) / comb(len(judged), 2)
    before = baseline or {}
    rooms = {name: _room(groups[name], before.get(name), confidence, per_one.get(name, 1.0)) for name in judged}
    widest, worst = _widest(rooms, policy.max_gap)
    not_judged = f"; not judged: {left}" if left else ""
    if worst:
        return FairnessVerdict(Fairness.UNFAIR, f"{_words(worst, figures, policy, baseline is not None)}{not_judged}", figures, worst)
    if widest.size > policy.max_gap:
        sentence = f"{_words(widest, figures, policy, baseline is not None)}, but chance may explain it{not_judged}"
        return FairnessVerdict(Fairness.INSUFFICIENT, sentence, figures, widest)
    listed = ", ".join(f"{name} {figures[name].f1:.2f}" for name in judged)
    sentence = (
        f"F1 by group is within {policy.max_gap:.2f}{' of its gaps in the baseline' if baseline is not None else ''}: {listed}{not_judged}"
    )
    return FairnessVerdict(Fairness.INSUFFICIENT if left else Fairness.FAIR, sentence, figures, widest)


def figures_of(counts: Confusion, policy: FairnessPolicy, per_one: float = 1.0) -> GroupFigures:
    """`per_one`: how many outcomes count as one."""
    if not _enough(counts, policy, per_one):
        return GroupFigures(counts.n, counts.positives)
    flagged = counts.tp + counts.fp

    def interval(part: int, of: int) -> Interval:
        return wilson(part / per_one, of / per_one, z_value(policy.confidence))

    return GroupFigures(
        n=counts.n,
        positives=counts.positives,
        f1=counts.f1,
        precision=counts.precision,
        recall=counts.recall,
        flagged_share=flagged / counts.n,
        f1_interval=f1_interval(counts, policy.confidence, per_one),
        precision_interval=interval(counts.tp, flagged) if flagged else None,
        recall_interval=interval(counts.tp, counts.positives),
        flagged_interval=interval(flagged, counts.n),
    )


def _enough(counts: Confusion, policy: FairnessPolicy, per_one: float) -> bool:
    return counts.positives >= policy.min_positives * per_one


def _widest(rooms: Mapping[str, Interval3], max_gap: float) -> tuple[Gap, Gap | None]:
    """The widest gap of all, and of those that are too wide beyond chance.

    There are two thousand groups, and two million pairs: the widest gap beyond chance is between two that no other group beats in both,
    being further out and better known, and of these there are few.
    """
    names = list(rooms)

    def gap(better: str, worse: str) -> Gap:
        (high, down, up), (low, below, above) = rooms[better], rooms[worse]
        size = high - low
        return Gap(better, worse, size, size - sqrt(down + above), size + sqrt(up + below))

    best = max(names, key=lambda name: rooms[name][0])
    worst = min((name for name in names if name != best), key=lambda name: rooms[name][0])
    above = _unbeaten([(rooms[name][0], rooms[name][1], name) for name in names])
    below = _unbeaten([(-rooms[name][0], rooms[name][2], name) for name in names])
    wide = [found for a in above for b in below if a != b and (found := gap(a, b)).size > max_gap and found.low > 0]
    return gap(best, worst), max(wide, key=lambda found: found.size, default=None)


def _unbeaten(groups: Sequence[tuple[float, float, str]]) -> list[str]:
    """Of groups by how far out they are and how little is known of them, those that none beats in both."""
    found, least = [], inf
    for _, unknown, name in sorted(groups, key=lambda group: (-group[0], group[1])):
        if unknown < least:
            found.append(name)
            least = unknown
    return found


def _room(now: Confusion, before: Confusion | None, confidence: float, per_one: float) -> Interval3:
    """F1 of a group, less that of its baseline, and the squares of the ways to the ends of its interval, below and above."""
    value = below = above = 0.0
    for sign, counts in ((1, now), *([] if before is None else [(-1, before)])):
        f1, (low, high) = counts.f1 or 0.0, f1_interval(counts, confidence, per_one)
        down, up = (f1 - low, high - f1) if sign > 0 else (high - f1, f1 - low)
        value, below, above = value + sign * f1, below + down**2, above + up**2
    return value, below, above


def _words(gap: Gap, figures: Mapping[str, GroupFigures], policy: FairnessPolicy, against_baseline: bool) -> str:
    f1 = f"F1 is {figures[gap.worse].f1 or 0:.2f} for {gap.worse} and {figures[gap.better].f1 or 0:.2f} for {gap.better}"
    size = f"{gap.size:.2f} further apart than in the baseline" if against_baseline else f"{gap.size:.2f} apart"
    interval = f"{percent(policy.confidence)} interval {max(gap.low, 0):.2f} to {gap.high:.2f}"
    return f"{f1}: {size} ({interval}), over {policy.max_gap:.2f}"
