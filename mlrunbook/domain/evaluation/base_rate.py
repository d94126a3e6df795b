"""Rarer failures, or a worse model? F1 falls with both; recall and false-positive rate only with the second.

F1 at the baseline's base rate, F1*, is what F1 would be if as many assets failed as in the baseline. "Fewer failures, same model" needs an
equivalence test (Schuirmann 1987): that F1* did not visibly fall proves nothing where outcomes are few, and would excuse nearly every model
that is truly worse.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import sqrt
from typing import Any

from mlrunbook.domain.evaluation.accumulated import student
from mlrunbook.domain.evaluation.block_score import Counts, Rates, Scores, Stacked
from mlrunbook.domain.evaluation.failure_rate import rates_words
from mlrunbook.domain.evaluation.long_run_variance import long_run_variance
from mlrunbook.domain.evaluation.moves import percent
from mlrunbook.domain.policy.judging import F1, DropPolicy
from mlrunbook.domain.tally import Confusion, Tally, as_binary

_WORSE_TAIL = 0.0026  # one-sided: z = 2.8
_SAME_TAIL = 0.05  # one-sided: z = 1.64
_SAME_BELOW = 0.15  # a model whose F1* fell by less than this is the same model
_FLAGS_MORE = 1.5  # times as many false alarms among the healthy are no longer the same model
_EXPLAINED = 0.05  # how much of the fall of F1 the base rate must explain, at least


class Explained(StrEnum):
    WORSE = "worse"
    FEWER_FAILURES = "fewer_failures_same_model"
    UNDECIDED = "undecided"


@dataclass(frozen=True)
class Window:
    """Counts of a period as its blocks, oldest first, and by asset where the assets are known; numpy arrays in both."""

    blocks: Counts
    assets: Counts | None = None

    @property
    def total(self) -> Confusion:
        b = self.blocks
        return Confusion(*(int(_array(c).sum()) for c in (b.tp, b.fp, b.fn, b.tn)))


@dataclass(frozen=True)
class BaseRateVerdict:
    """`drop` of F1, `drop_at_baseline_rate` of F1*, both relative; `error` is the standard error of the second."""

    explained: Explained
    sentence: str
    drop: float | None = None
    drop_at_baseline_rate: float | None = None
    error: float | None = None


def judge_base_rate(baseline: Window, current: Window, drops: DropPolicy) -> BaseRateVerdict:
    """What explains that F1 is lower in `current`."""
    before, now = baseline.total, current.total
    rates, rates_now = Rates.of(before), Rates.of(now)
    if rates is None or rates_now is None:
        return BaseRateVerdict(Explained.UNDECIDED, "no failure was caught here or in the baseline: recall cannot be compared")
    was, is_ = (_variance_of_f1(window, of, rates.positive_rate) for window, of in ((baseline, rates), (current, rates_now)))
    drop, star = 1 - rates_now.f1 / rates.f1, 1 - rates_now.f1_at(rates.positive_rate) / rates.f1
    moved = rates_words(before, now)
    if was is None or is_ is None:
        return BaseRateVerdict(Explained.UNDECIDED, f"{moved}: too few blocks or assets to tell why F1 moved", drop, star)
    error = sqrt(was[0] + is_[0]) / rates.f1
    explained, words = _explain(drop, star, error, min(was[1], is_[1]), drops)
    if explained is Explained.FEWER_FAILURES and _flags_more(before, now):
        explained, words = Explained.UNDECIDED, "failures are fewer, and the model gives more false alarms"
    way = f"fell {percent(star)}" if star > 0 else f"rose {percent(-star)}"
    return BaseRateVerdict(explained, f"{words}: {moved}; F1 at the baseline's failure rate {way}", drop, star, error)


def fewer_failures(blocks: Sequence[Tally], baseline_blocks: Sequence[Tally], drops: DropPolicy) -> str | None:
    """What says that F1 fell because failures are rarer, and that the model is the same; None where nothing does. `blocks` and
    `baseline_blocks`: equal slices of time, oldest first."""
    if not blocks or not baseline_blocks:
        return None
    now, before = (Window(Stacked.of([as_binary(block) for block in side])) for side in (blocks, baseline_blocks))
    verdict = judge_base_rate(before, now, drops)
    return verdict.sentence if verdict.explained is Explained.FEWER_FAILURES else None


def _flags_more(before: Confusion, now: Confusion) -> bool:
    """More of the healthy assets are flagged, by far and beyond chance: F1 at the old failure rate may hide it behind more recall."""
    was, is_ = before.fp / (before.fp + before.tn), now.fp / (now.fp + now.tn)
    error = sqrt(is_ * (1 - is_) / (now.fp + now.tn) + was * (1 - was) / (before.fp + before.tn))
    return is_ > _FLAGS_MORE * was and is_ - was > student(_WORSE_TAIL, 1000) * error


def _explain(drop: float, star: float, error: float, dof: int, drops: DropPolicy) -> tuple[Explained, str]:
    if star > drops.most(F1) and star >= student(_WORSE_TAIL, dof) * error:
        return Explained.WORSE, "the model is worse, whatever the failure rate"
    fewer = drop > drops.most(F1) and drop - star > _EXPLAINED
    if fewer and star + student(_SAME_TAIL, dof) * error < _SAME_BELOW:
        return Explained.FEWER_FAILURES, "fewer failures, same model: F1 fell because failures are rarer; retraining would not help"
    if drop <= drops.most(F1) and star <= drops.most(F1):
        return Explained.UNDECIDED, f"F1 has not fallen {percent(drops.most(F1))}, so there is nothing to explain"
    return Explained.UNDECIDED, "not enough outcomes to tell a worse model from a different failure rate"


def _variance_of_f1(window: Window, rates: Rates, positive_rate: float) -> tuple[float, int] | None:
    """Variance of F1 at `positive_rate` by the delta method over clustered sums, and its degrees of freedom."""
    pi, r, phi = positive_rate, rates.recall, rates.false_positive_rate
    below = pi * (1 + r) + (1 - pi) * phi
    by_recall, by_false = 2 * pi * (pi + (1 - pi) * phi) / below**2, -2 * pi * r * (1 - pi) / below**2
    total = window.total
    positives, negatives = total.positives, total.n - total.positives

    def influence(counts: Counts) -> Scores:
        p, n = _array(counts.tp) + counts.fn, _array(counts.fp) + counts.tn
        return Scores(by_recall * (counts.tp - r * p) / positives + by_false * (counts.fp - phi * n) / negatives, p + n)

    found = long_run_variance(influence(window.blocks), influence(window.assets) if window.assets is not None else None)
    return (found.per_weight * total.n, found.dof) if found else None


def _array(values: Any) -> Any:
    import numpy as np

    return np.asarray(values, float)
