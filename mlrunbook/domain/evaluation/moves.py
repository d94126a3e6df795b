"""How each metric of the policy moved between a baseline and a window, and whether beyond chance; for any tally.

Counts of failures and alarms are shares of trials, which `sequential` knows exactly. Any other figure is judged by the same spending of
false alarms over all looks, on its standard error from blocks of time (`block_errors`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, sqrt
from statistics import NormalDist

from mlrunbook.domain.evaluation.block_errors import Spread, normal_score, spread, student_score, weight
from mlrunbook.domain.evaluation.sequential import Cells, falls, needed_score, spent
from mlrunbook.domain.policy.judging import F1, DropPolicy, MetricRule, Worse
from mlrunbook.domain.tally import Confusion, Tally

Interval = tuple[float, float]
_MOST_INFORMATION = 1e9  # figures that do not vary at all


@dataclass(frozen=True)
class Move:
    """`fell`: it moved for the worse past its limit, beyond chance. `interval` is of `now`; None where nothing says how far chance goes."""

    rule: MetricRule
    of: type[Tally]
    was: float | None
    now: float | None
    interval: Interval | None
    fell: bool

    @property
    def called(self) -> str:
        return self.of.metrics[self.rule.name]

    def shown(self, figure: float | None) -> str:
        return self.of.shown(figure or 0.0)

    @property
    def drop(self) -> float:
        """For the worse, relative to the baseline; negative for the better, 0 where a figure is undefined."""
        change = relative_drop(self.was, self.now) or 0.0
        return change if self.rule.worse is Worse.LOWER else -change

    @property
    def is_past(self) -> bool:
        return self.drop > self.rule.medium

    @property
    def is_suspected(self) -> bool:
        """Past its limit, and its interval no longer holds the baseline: one look alone would call it fallen."""
        if not self.is_past or self.interval is None:
            return False
        low, high = self.interval
        return high < (self.was or 0.0) if self.rule.worse is Worse.LOWER else low > (self.was or 0.0)

    @property
    def verb(self) -> str:
        return "rose" if (self.drop > 0) == (self.rule.worse is Worse.HIGHER) else "fell"


def relative_drop(baseline: float | None, current: float | None) -> float | None:
    """1 - current/baseline; negative for a rise; None when either is unknown or the baseline is 0."""
    return None if not baseline or current is None else 1 - current / baseline


def percent(share: float) -> str:
    """'31 %'; one decimal where the whole number would say 0 or hide it (0.4 %)."""
    return f"{share * 100:.1f} %" if 0 < share < 0.01 else f"{share * 100:.0f} %"


def z_value(confidence: float) -> float:
    """Two-sided normal quantile: 1.96 for .95."""
    return NormalDist().inv_cdf(0.5 + confidence / 2)


def wilson(successes: float, n: float, z: float) -> Interval:
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


def f1_interval(counts: Cells, confidence: float = 0.95, clustering: float = 1.0) -> Interval:
    """Interval of F1 through the Jaccard index: Wilson on J = TP/(TP+FP+FN), then F1 = 2J/(1+J), which is monotone in J.

    `clustering`: how many trials count as one.
    """
    low, high = wilson(counts.tp / clustering, (counts.tp + counts.fp + counts.fn) / clustering, z_value(confidence))
    return 2 * low / (1 + low), 2 * high / (1 + high)


def moves_of_counts(baseline: Confusion, current: Confusion, policy: DropPolicy, clustering: float) -> list[Move]:
    """`clustering`: how many trials count as one."""
    fell = falls(baseline, current, policy, clustering=clustering)

    def interval(metric: str) -> Interval:
        if metric == F1:
            return f1_interval(current, policy.confidence, clustering)
        above, below = current.ratio(metric)
        return wilson(above / clustering, below / clustering, z_value(policy.confidence))

    return [
        Move(rule, Confusion, baseline.figure(name := rule.name), current.figure(name), interval(name), bool(fell[name]))
        for rule in policy.rules_for(current.metrics)
    ]


def moves_by_blocks(
    baseline: Tally, current: Tally, policy: DropPolicy, blocks: Sequence[Tally], baseline_blocks: Sequence[Tally]
) -> list[Move]:
    """`blocks` and `baseline_blocks`: equal slices of time, oldest first. The intervals are None on too few of them. Sums of few outcomes
    are not near normal, so nothing fell on fewer than `min_positives`."""
    found = []
    for rule, rate in spent(policy.rules_for(current.metrics), policy.false_alarm_rate):
        was, now = baseline.figure(rule.name), current.figure(rule.name)
        before, after = spread(rule.name, baseline_blocks), spread(rule.name, blocks)
        unjudged = Move(rule, type(current), was, now, None, fell=False)
        if was and now is not None and before and after and current.cases >= policy.min_positives:
            # Unchanged, a short window varies as its baseline does, whether or not it holds the memory of its own stream.
            found.append(_judged(unjudged, baseline, current, (before, max(before, after)), rate, policy.confidence))
        else:
            found.append(unjudged)
    return found


def _judged(move: Move, baseline: Tally, current: Tally, spreads: tuple[Spread, Spread], rate: float, confidence: float) -> Move:
    """Both figures are known, and the baseline's is not 0."""
    (before, after), metric = spreads, move.rule.name
    was, now = move.was or 0.0, move.now or 0.0
    weights = weight(metric, baseline), weight(metric, current)
    parts = before.of(weights[0]), after.of(weights[1])
    off = student_score(z_value(confidence), after.dof) * sqrt(parts[1])
    worse_by = (now - was) * (1 if move.rule.worse is Worse.HIGHER else -1)
    score = normal_score(*_student(worse_by, parts, (before.dof, after.dof)))
    unchanged = before.of(weights[0]) + before.of(weights[1])
    planned = (was * move.rule.planned) ** 2
    known = min(planned / unchanged, _MOST_INFORMATION) if unchanged else _MOST_INFORMATION
    fell = move.is_past and score >= float(needed_score(known, rate))
    return Move(move.rule, move.of, was, now, (now - off, now + off), fell)


def _student(difference: float, variances: tuple[float, float], dofs: tuple[int, int]) -> tuple[float, float]:
    """A difference of two figures in standard errors, and the degrees of freedom of these (Welch 1947, Satterthwaite 1946)."""
    variance = sum(variances)
    if not 0 < variance < inf:
        return (inf if variance == 0 and difference > 0 else 0.0), min(dofs)
    return difference / sqrt(variance), variance**2 / sum(v**2 / dof for v, dof in zip(variances, dofs, strict=True))
