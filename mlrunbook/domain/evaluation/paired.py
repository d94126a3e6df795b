"""Two versions judged on the same rows: how far their F1 lie apart, and whether chance explains it.

The rows fall into eight cells (truth x what the first said x what the second said); everything below is computed from those counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import sqrt

from mlrunbook.domain.evaluation.performance import Confusion, f1_interval

# An exact sign test on fewer disagreements cannot reach p < .05 (2 x .5^5 = .063): fewer are never beyond chance.
LEAST_DISAGREEMENTS = 6

Cell = tuple[bool, bool, bool]  # truth, first flagged, second flagged


@dataclass(frozen=True)
class Paired:
    """The second version against the first. `gain` is F1 of the second less F1 of the first (None: one of them is undefined), with its
    interval; of `disagreements` rows where one is right and the other wrong, the second is right in `second_right`.

    `p_value`: exact McNemar test (McNemar 1947; binomial, two-sided) on those rows.
    """

    first: Confusion
    second: Confusion
    gain: float | None
    low: float
    high: float
    disagreements: int
    second_right: int
    p_value: float

    @property
    def better(self) -> bool:
        """The second is better beyond chance."""
        return self.gain is not None and self.low > 0 and self.disagreements >= LEAST_DISAGREEMENTS

    @property
    def worse(self) -> bool:
        """The second is worse beyond chance."""
        return self.gain is not None and self.high < 0 and self.disagreements >= LEAST_DISAGREEMENTS


def compare(truth: Sequence[bool], first: Sequence[bool], second: Sequence[bool], *, confidence: float = 0.95) -> Paired:
    """Compare two versions' alarms on the same rows.

    The interval of the F1 difference squares and adds the distances of both F1 intervals (Wilson on the Jaccard index), less what the
    rows' correlation takes away: Newcombe 1998 (paired, method 10), in the general form of Zou and Donner 2008 ("MOVER"). Measured on
    drawn windows of 9 to 150 failures its 95 % interval covers .91-.99; the delta method falls to .69, a bootstrap of the cells to .63.

    >>> compare([True] * 40 + [False] * 960, [True] * 20 + [False] * 980, [True] * 36 + [False] * 964).better
    True
    """
    cells = Counter(zip(map(bool, truth), map(bool, first), map(bool, second), strict=True))
    one, two = _confusion((t, a, n) for (t, a, _), n in cells.items()), _confusion((t, b, n) for (t, _, b), n in cells.items())
    only_first = sum(n for (t, a, b), n in cells.items() if a == t != b)
    only_second = sum(n for (t, a, b), n in cells.items() if b == t != a)
    gain, low, high = difference(one, two, confidence=confidence, correlation=_correlation(cells, one, two))
    return Paired(one, two, gain, low, high, only_first + only_second, only_second, mcnemar(only_first, only_second))


def difference(
    first: Confusion, second: Confusion, *, confidence: float = 0.95, correlation: float = 0.0
) -> tuple[float | None, float, float]:
    """F1 of the second less F1 of the first, and its interval; `correlation` 0 for counts of different rows."""
    if first.f1 is None or second.f1 is None:
        return None, -1.0, 1.0
    (low1, high1), (low2, high2) = f1_interval(first, confidence), f1_interval(second, confidence)
    gain = second.f1 - first.f1

    def distance(a: float, b: float) -> float:
        return sqrt(max(a * a - 2 * correlation * a * b + b * b, 0.0))

    return gain, gain - distance(second.f1 - low2, high1 - first.f1), gain + distance(high2 - second.f1, first.f1 - low1)


def mcnemar(only_first_right: int, only_second_right: int) -> float:
    """Exact two-sided p-value that both are right equally often.

    >>> mcnemar(0, 6)
    0.03125
    """
    n, fewer = only_first_right + only_second_right, min(only_first_right, only_second_right)
    ways = tail = 1  # of k of n rows, and summed up to k; whole numbers, which do not overflow
    for k in range(fewer):
        ways = ways * (n - k) // (k + 1)
        tail += ways
    return min(1.0, 2 * tail / (1 << n))


def _confusion(marginal: Iterable[tuple[bool, bool, int]]) -> Confusion:
    counts: Counter[tuple[bool, bool]] = Counter()
    for truth, flagged, n in marginal:
        counts[truth, flagged] += n
    return Confusion(tp=counts[True, True], fp=counts[False, True], fn=counts[True, False], tn=counts[False, False])


def _correlation(cells: Counter[Cell], one: Confusion, two: Confusion) -> float:
    """Of the two F1 estimates, from how each row moves them (their influence functions)."""
    if not one.f1 or not two.f1:
        return 0.0

    def pull(truth: bool, flagged: bool, f1: float) -> float:
        return 2 - 2 * f1 if truth and flagged else -f1 if truth or flagged else 0.0

    pulls = [(pull(t, a, one.f1), pull(t, b, two.f1), n) for (t, a, b), n in cells.items()]
    own1, own2 = sum(n * p * p for p, _, n in pulls), sum(n * q * q for _, q, n in pulls)
    return sum(n * p * q for p, q, n in pulls) / sqrt(own1 * own2) if own1 and own2 else 0.0
