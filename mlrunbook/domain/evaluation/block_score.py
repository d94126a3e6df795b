"""What a block of outcomes says about a fall of the figure: a sum that is 0 on average while the model is what it was.

Any tally can play: a `score(block, reference)` that returns `Scores`, whose `fall` has the expected value `relative fall x weight`. Both
add up over blocks, so evidence does. Here is the binary one. It compares true and false positives with what the baseline's recall and
false-positive rate make of the failures and the healthy assets that there were, so that rarer failures alone move nothing; F1 of the
counts falls with them under the very same model. (F1 linearised at the baseline, recall and false-positive rate as in the classical
likelihood ratios of a diagnostic test.)

Counts may be numbers or numpy arrays of one shape; arrays come back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from mlrunbook.domain.evaluation.sequential import Cells, Numbers
from mlrunbook.domain.policy.judging import F1, FALSE_ALARMS, PRECISION, RECALL


class Counts(Cells, Protocol):
    """Labelled predictions by outcome."""

    @property
    def tn(self) -> Numbers: ...


@dataclass(frozen=True, eq=False)
class Stacked:
    """Counts of many blocks or assets as numpy arrays."""

    tp: Numbers
    fp: Numbers
    fn: Numbers
    tn: Numbers

    @classmethod
    def of(cls, counts: Sequence[Counts]) -> Stacked:
        import numpy as np

        return cls(*(np.array([getattr(c, cell) for c in counts], float) for cell in ("tp", "fp", "fn", "tn")))

    @property
    def total(self) -> Stacked:
        return Stacked(self.tp.sum(), self.fp.sum(), self.fn.sum(), self.tn.sum())


class Part(NamedTuple):
    """What outcomes of one kind add to a score."""

    fall: Numbers
    weight: Numbers


class Scores(NamedTuple):
    """Of one block or many. A fall by a tenth gives `fall` = 0.1 x `weight` on average; an unchanged model gives 0.

    `parts` add up to both, where kinds of outcomes that vary differently may come in another mix than in the baseline; else empty.
    """

    fall: Numbers
    weight: Numbers
    parts: tuple[Part, ...] = ()


def relative(change: Numbers, weight: Numbers, figure: float, *, more_is_worse: bool = False) -> Scores:
    """The score of any other tally: blocks whose figure differs from the baseline's by `change` / `weight` (to first order), as a relative
    fall; where more is worse, as with an error, as a relative rise.

    >>> relative(change=10.0, weight=50.0, figure=2.0, more_is_worse=True).fall  # mean absolute error 2.0 -> 2.2 over 50 rows: a tenth
    5.0
    """
    return Scores(change / figure if more_is_worse else -change / figure, weight)


@dataclass(frozen=True)
class Rates:
    """What a binary model did in its baseline."""

    recall: float
    false_positive_rate: float
    f1: float
    positive_rate: float

    @classmethod
    def of(cls, counts: Counts) -> Rates | None:
        """None where the baseline has no failure, no healthy asset, or no failure that the model caught: nothing to fall from."""
        positives, negatives = counts.tp + counts.fn, counts.fp + counts.tn
        if not counts.tp or not negatives:
            return None
        f1 = 2 * counts.tp / (2 * counts.tp + counts.fp + counts.fn)
        return cls(counts.tp / positives, counts.fp / negatives, f1, positives / (positives + negatives))

    def f1_at(self, positive_rate: float) -> float:
        """F1 of a model with these rates where `positive_rate` of the assets fail."""
        caught = positive_rate * self.recall
        return 2 * caught / (positive_rate + caught + (1 - positive_rate) * self.false_positive_rate) if caught else 0.0

    def precision_at(self, positive_rate: float) -> float:
        """Likewise."""
        caught, false = positive_rate * self.recall, (1 - positive_rate) * self.false_positive_rate
        return caught / (caught + false) if caught else 0.0


def score(block: Counts, rates: Rates) -> Scores:
    """Base-rate-free: at the baseline's mix of outcomes the fall is that of F1.

    >>> from mlrunbook.domain.tally import Confusion
    >>> rates = Rates.of(Confusion(tp=80, fp=20, fn=20, tn=880))
    >>> fall, weight, _ = score(Confusion(tp=60, fp=20, fn=40, tn=880), rates)  # recall .8 -> .6
    >>> f"{fall / weight:.3f}, and of {score(Confusion(tp=8, fp=20, fn=2, tn=880), rates).weight:.0f} a tenth as many failures say 0"
    '0.150, and of 38 a tenth as many failures say 0'
    """
    positives, negatives = block.tp + block.fn, block.fp + block.tn
    missed = Part(-(2 - rates.f1) / rates.f1 * (block.tp - rates.recall * positives), positives * (1 + rates.recall))
    flagged = Part(block.fp - rates.false_positive_rate * negatives, negatives * rates.false_positive_rate)
    return Scores(missed.fall + flagged.fall, missed.weight + flagged.weight, (missed, flagged))


def of_recall(block: Counts, rates: Rates) -> Scores:
    """A fall of recall alone."""
    expected = rates.recall * (block.tp + block.fn)
    return Scores(expected - block.tp, expected)


def of_false_alarms(block: Counts, rates: Rates) -> Scores:
    """A rise of the false-positive rate alone, relative to it."""
    expected = rates.false_positive_rate * (block.fp + block.tn)
    return Scores(block.fp - expected, expected)


def of_precision(block: Counts, rates: Rates) -> Scores:
    """A fall of precision at the baseline's mix of outcomes: rarer failures, which alone lower it, move nothing."""
    caught, false = rates.recall * (block.tp + block.fn), rates.false_positive_rate * (block.fp + block.tn)
    per_caught = (1 - rates.positive_rate) * rates.false_positive_rate / (rates.positive_rate * rates.recall)
    missed = Part(per_caught * (caught - block.tp), caught)
    flagged = Part(block.fp - false, false)
    return Scores(missed.fall + flagged.fall, missed.weight + flagged.weight, (missed, flagged))


SCORES: Mapping[str, Callable[[Counts, Rates], Scores]] = {
    F1: score,
    RECALL: of_recall,
    PRECISION: of_precision,
    FALSE_ALARMS: of_false_alarms,
}
"""The score of each metric of a binary model, as policy calls them."""
