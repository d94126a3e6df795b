"""F1 and precision as they would be if as many assets failed as in the baseline: rarer failures alone make no worse model.

Recall and false-positive rate say how good a model is; F1 and precision fall with the failure rate too. Where failures are rarer than in
the baseline, each of them is given the weight that makes them as frequent, and F1 and precision are judged on these counts. A sum of
weighted failures says less than its size: its variance is that of the failures there were, by the delta method.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

from mlrunbook.domain.evaluation.block_score import Rates
from mlrunbook.domain.evaluation.moves import Move, f1_interval, moves_of_counts, percent, wilson, z_value
from mlrunbook.domain.evaluation.sequential import falls
from mlrunbook.domain.policy.judging import F1, PRECISION, DropPolicy
from mlrunbook.domain.tally import Confusion


@dataclass(frozen=True)
class Weighted:
    """Counts in which a failure has this `weight`, over 1."""

    tp: float
    fp: float
    fn: float
    weight: float

    @classmethod
    def of(cls, baseline: Confusion, current: Confusion) -> Weighted | None:
        """None where failures are no rarer than in the baseline, or there are none to weigh."""
        healthy = current.n - current.positives
        if not current.positives or not healthy or baseline.positives in (0, baseline.n):
            return None
        weight = baseline.positives / (baseline.n - baseline.positives) * healthy / current.positives
        return cls(current.tp * weight, current.fp, current.fn * weight, weight) if weight > 1 else None

    def thinned(self, metric: str) -> Weighted:
        """As many as say as much about F1 or precision as the outcomes there were."""
        wrong = self.fp + (self.fn if metric == F1 else 0.0)
        caught = self.tp / (self.tp + wrong) if self.tp + wrong else 0.0
        weight_of_wrong = ((self.weight * self.fn if metric == F1 else 0.0) + self.fp) / wrong if wrong else 1.0
        per_one = (1 - caught) * self.weight + caught * weight_of_wrong
        return Weighted(self.tp / per_one, self.fp / per_one, self.fn / per_one, self.weight)


def moves_at_baseline_rate(baseline: Confusion, current: Confusion, policy: DropPolicy, clustering: float) -> list[Move] | None:
    """`moves_of_counts` with F1 and precision at the baseline's failure rate; None where failures are no rarer."""
    weighted = Weighted.of(baseline, current)
    if weighted is None:
        return None

    def at_rate(move: Move) -> Move:
        if move.rule.name not in (F1, PRECISION):
            return move
        counts = weighted.thinned(move.rule.name)
        fell = bool(falls(baseline, counts, policy, clustering=clustering)[move.rule.name])
        flagged = counts.tp + counts.fp
        if move.rule.name == F1:
            now, interval = 2 * counts.tp / (flagged + counts.tp + counts.fn), f1_interval(counts, policy.confidence, clustering)
        elif flagged:
            now, interval = counts.tp / flagged, wilson(counts.tp / clustering, flagged / clustering, z_value(policy.confidence))
        else:
            return move
        return Move(move.rule, move.of, move.was, now, interval, fell)

    return [at_rate(move) for move in moves_of_counts(baseline, current, policy, clustering)]


SURELY = 2.8  # standard errors


def raises_more_false_alarms(baseline: Confusion, current: Confusion, policy: DropPolicy, clustering: float) -> bool:
    """Rarer failures do not make healthy assets be flagged more often: beyond chance, and so much that F1 is past its limit below what the
    baseline's model would reach at the failure rate of now."""
    usual, now = Rates.of(baseline), Rates.of(current)
    if usual is None or now is None or 1 - now.f1 / usual.f1_at(now.positive_rate) <= policy.most(F1):
        return False
    healthy = (baseline.fp + baseline.tn, current.fp + current.tn)
    share = (baseline.fp + current.fp) / sum(healthy)
    error = sqrt(share * (1 - share) * clustering * sum(1 / n for n in healthy))
    return now.false_positive_rate - usual.false_positive_rate > SURELY * error


def rates_words(baseline: Confusion, current: Confusion) -> str:
    """How often assets failed, and what the model made of them, before and now."""
    shares = ((c.positives / c.n, c.recall or 0.0, c.figure("false_positive_rate") or 0.0) for c in (baseline, current))
    (failed, recall, false), (failed_now, recall_now, false_now) = shares
    return (
        f"failures went from {percent(failed)} to {percent(failed_now)} of the outcomes, recall from {percent(recall)} to "
        f"{percent(recall_now)}, false alarms from {percent(false)} to {percent(false_now)} of the healthy assets"
    )
