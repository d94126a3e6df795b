"""When a fall is beyond chance, however often one looks: a group-sequential rule on the stream of outcomes.

F1, precision and recall are shares of a stream of trials (F1 through J = TP/(TP+FP+FN)). Judging a growing window at every look by a
95 % interval calls most healthy streams fallen sooner or later (Armitage, McPherson and Rowe 1969). Here the evidence asked for depends
on the information in the window: much on little, least at the planned information, and then ever more, so that the false alarms of all
looks together stay within the rate, whatever the looks. Up to the planned information the boundary is that of O'Brien and Fleming (1979)
in information time (Lan and DeMets 1983); the baseline counts as the sample it is. Trials that come in clusters count as fewer.

Counts may be numbers or numpy arrays of one shape; arrays come back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from math import ceil, exp, sqrt
from statistics import NormalDist
from typing import Any, NamedTuple, Protocol

from mlrunbook.domain.policy.judging import F1, PRECISION, RECALL, DropPolicy, MetricRule, Worse

_NORMAL = NormalDist()
PLANNED_POWER = 0.9  # at the planned information, for a drop of the planned size
# After the planned information the squared score asked for grows by 2 x 5 ln(information / planned): some .7 of the rate is spent by then.
_MOST_GROWTH = 5.0
# On little information never more than the planned score and this is asked for, so that a collapse shows at once (Haybittle 1971), over
# so many e-folds of information; on less than that, more again.
_MOST_ABOVE, _EARLY_EFOLDS = 1.25, 2.0
# The metric that leads gets most of the rate; together they spend it all (Bonferroni).
_LEADING_SHARE, _SHARE_OF_OTHERS = 0.9, 0.1
# A dispersion is measured on joined slices: at most 60 of them, each with this many trials on average, eight slices at least.
_MOST_SLICES, _LEAST_TRIALS, _LEAST_SLICES = 60, 5, 8
_RAISED_Z = 2.33  # the current window's clustering counts when it is above the baseline's beyond chance (1 %)
MOST_OUTCOMES = 10**9

Numbers = Any  # float, or numpy array of floats


class Cells(Protocol):
    """Counts of outcomes. Those of a true negative say nothing about F1, precision or recall, and may be left out."""

    @property
    def tp(self) -> Numbers: ...
    @property
    def fp(self) -> Numbers: ...
    @property
    def fn(self) -> Numbers: ...


class _Share(NamedTuple):
    """How a metric follows from a share of a stream of trials."""

    successes: Callable[[Any], Numbers]
    trials: Callable[[Any], Numbers]
    ratio: Callable[[Numbers], Numbers]
    inverse: Callable[[Numbers], Numbers]


@cache
def critical_value(rate: float) -> float:
    """The score c asked for at the planned information, so that an unchanged share is ever called fallen with probability <= `rate`.

    The sum of three parts: 2(1 - Phi(c)) up to there (reflection principle); after it half the upcrossings of a boundary that does not
    rise, the integral of b phi(b) / 2 over log information (Siegmund 1985, ch. IV), in closed form (c phi(c) + 1 - Phi(c)) / (2 g), for
    it does rise (on 20,000 simulated walks the part is at most .96 of that half); and on little information the upcrossings of the flat
    one, b phi(b) / 2 an e-fold.

    >>> round(critical_value(0.008), 2)
    2.75
    """
    low, high = 0.0, 40.0
    for _ in range(80):
        c = (low + high) / 2
        tail, most = 1 - _NORMAL.cdf(c), c + _MOST_ABOVE
        early = most * _NORMAL.pdf(most) / 2 * _EARLY_EFOLDS
        if 2 * tail + (c * _NORMAL.pdf(c) + tail) / (4 * _growth(c)) + early > rate:
            low = c
        else:
            high = c
    return high


def _planned(c: float) -> float:
    """The planned information: at a drop of the planned size the score passes c with probability PLANNED_POWER."""
    z = _NORMAL.inv_cdf(PLANNED_POWER)
    return (c + z) * (c + z)


def _growth(c: float) -> float:
    """Small enough that what is beyond chance at one rate is so at every higher rate."""
    return min(_MOST_GROWTH, c * sqrt(_planned(c)) / 2)


def needed_score(information: Numbers, rate: float) -> Numbers:
    """The score at which a fall is beyond chance. `information` in squared standard deviations of the planned drop."""
    import numpy as np

    c = critical_value(rate)
    most = c + _MOST_ABOVE
    with np.errstate(divide="ignore"):
        fraction = np.asarray(information) / _planned(c)
        flat = most * np.maximum(1, c / most * exp(-_EARLY_EFOLDS / 2) / np.sqrt(fraction))
        early = np.minimum(c / np.sqrt(fraction), flat)
        return np.where(fraction < 1, early, np.sqrt(c * c + 2 * _growth(c) * np.log(np.maximum(fraction, 1))))


def information(before: Numbers, fallen_to: Numbers, trials_before: Numbers, trials: Numbers) -> Numbers:
    """How well a share that fell from `before` to `fallen_to` shows against samples of this size: its squared expected score."""
    import numpy as np

    with np.errstate(divide="ignore"):
        return (before - fallen_to) ** 2 / (before * (1 - before)) / (1 / np.asarray(trials) + 1 / np.asarray(trials_before))


def fall_score(successes_before: Numbers, trials_before: Numbers, successes: Numbers, trials: Numbers) -> Numbers:
    """How far the share of successes fell, in standard deviations; negative for a rise, 0 without trials.

    The signed root of the likelihood ratio of two binomial samples: near normal also far out and on few trials.
    """
    import numpy as np

    before, now = np.asarray(trials_before, float), np.asarray(trials, float)

    def part(seen: Numbers, expected: Numbers) -> Numbers:
        return np.where(seen > 0, seen * np.log(seen / expected), 0.0)

    with np.errstate(divide="ignore", invalid="ignore"):
        share = (successes_before + successes) / (before + now)
        deviance = (
            part(successes, now * share)
            + part(now - successes, now * (1 - share))
            + part(successes_before, before * share)
            + part(before - successes_before, before * (1 - share))
        )
        fell = np.sign(successes_before / before - successes / now)
        return np.nan_to_num(fell * np.sqrt(2 * np.maximum(deviance, 0.0)), nan=0.0)


def spent(rules: Sequence[MetricRule], rate: float) -> list[tuple[MetricRule, float]]:
    """Each rule with its part of the false-alarm rate."""
    if len(rules) < 2:
        return [(rule, rate) for rule in rules]
    leading, *others = rules
    each = _SHARE_OF_OTHERS / len(others)
    return [(leading, rate * _LEADING_SHARE), *((rule, rate * each) for rule in others)]


def falls(before: Cells, now: Cells, policy: DropPolicy, *, clustering: Numbers = 1.0) -> dict[str, Numbers]:
    """By metric, whether it moved for the worse by more than its limit AND beyond chance, at `policy.false_alarm_rate` for all metrics
    together and for all looks at a window while it grows. `clustering`: how many trials count as one (`clustering_of`).

    Planned for `MetricRule.planned`.
    """
    rules = spent(policy.rules_for(_SHARES), policy.false_alarm_rate)
    return {rule.name: _fell(rule, before, now, clustering, rate) for rule, rate in rules}


def _fell(rule: MetricRule, before: Cells, now: Cells, clustering: Numbers, rate: float) -> Numbers:
    import numpy as np

    share, higher = _SHARES[rule.name], rule.worse is Worse.HIGHER
    s0, n0 = share.successes(before) / clustering, share.trials(before) / clustering
    s1, n1 = share.successes(now) / clustering, share.trials(now) / clustering
    with np.errstate(divide="ignore", invalid="ignore"):
        was, is_ = share.ratio(np.divide(s0, n0)), share.ratio(np.divide(s1, n1))
        relative = np.nan_to_num(is_ / was, nan=1.0)
        smooth = (s0 + 0.5) / (n0 + 1)  # a baseline without an error is not known to be without any
    planned = share.ratio(smooth) * (1 + rule.planned if higher else 1 - rule.planned)
    known = information(smooth, share.inverse(planned), n0, n1)
    score = fall_score(s0, n0, s1, n1)
    past, score = (relative > 1 + rule.medium, -score) if higher else (relative < 1 - rule.medium, score)
    return past & (score >= needed_score(known, rate))


def _itself(share: Numbers) -> Numbers:
    return share


def _f1_of_jaccard(share: Numbers) -> Numbers:
    return 2 * share / (1 + share)


def _jaccard_of_f1(f1: Numbers) -> Numbers:
    return f1 / (2 - f1)


_SHARES = {
    F1: _Share(lambda c: c.tp, lambda c: c.tp + c.fp + c.fn, _f1_of_jaccard, _jaccard_of_f1),
    PRECISION: _Share(lambda c: c.tp, lambda c: c.tp + c.fp, _itself, _itself),
    RECALL: _Share(lambda c: c.tp, lambda c: c.tp + c.fn, _itself, _itself),
    "false_positive_rate": _Share(lambda c: c.fp, lambda c: c.fp + c.tn, _itself, _itself),
}


# --- trials that come in clusters -------------------------------------------------------------------------------------------


def joined_slices(slices: int, trials: float) -> int:
    """How many neighbouring slices are joined, so that a joined one holds enough trials; 0 when too few would be left."""
    joined = max(ceil(slices / _MOST_SLICES), ceil(_LEAST_TRIALS * slices / trials) if trials else slices)
    return joined if slices >= max(_LEAST_SLICES * joined, 2 * joined + 1) else 0


def dispersion(successes: Numbers, trials: Numbers, joined: int) -> Numbers:
    """The variance of the share of successes in a slice of time over that of independent trials; the last axis is time.

    From overlapping differences of neighbours, each `joined` slices long (von Neumann 1941; Allan variance, Riley 2008, NIST SP 1065):
    a fall inside the window is one step and does not pass for noise, and longer slices keep the memory of the stream inside.
    """
    import numpy as np

    def running(counts: Numbers) -> Numbers:
        total = np.concatenate([np.zeros((*counts.shape[:-1], 1)), np.cumsum(counts, axis=-1)], axis=-1)
        return total[..., joined:] - total[..., :-joined]

    s, n = running(np.asarray(successes, float)), running(np.asarray(trials, float))
    (s1, n1), (s2, n2) = (s[..., :-joined], n[..., :-joined]), (s[..., joined:], n[..., joined:])
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.sum(successes, axis=-1) / np.sum(trials, axis=-1)
        squares = (s1 / n1 - s2 / n2) ** 2 / (1 / n1 + 1 / n2)
        held = (n1 > 0) & (n2 > 0)
        mean = np.where(held, squares, 0.0).sum(axis=-1) / held.sum(axis=-1)
        return np.nan_to_num(mean / (share * (1 - share)), nan=1.0, posinf=1.0)


def clustering_of(before: Numbers, slices_before: Numbers, now: Numbers, slices_now: Numbers) -> Numbers:
    """How many trials count as one, at least 1: the baseline's dispersion, or the current window's where it is higher beyond chance.

    A dispersion measured on d slices is widened by d/(d - 4): about the square of Student's quantile over the normal one, as far out as
    the boundary lies. The baseline leads because a short window cannot hold the memory of its own stream. `slices_*`: joined slices
    behind each, 0 for not measured.
    """
    import numpy as np

    def widened(measured: Numbers, slices: Numbers) -> Numbers:
        d = np.maximum(np.asarray(slices, float), _LEAST_SLICES)
        return np.where(np.asarray(slices) >= _LEAST_SLICES, np.maximum(measured * d / (d - 4), 1.0), 1.0)

    base = widened(before, slices_before)
    with np.errstate(divide="ignore"):
        raised = np.asarray(now) > base * (1 + _RAISED_Z * np.sqrt(2 / np.asarray(slices_now, float)))
    return np.where(raised, np.maximum(base, widened(now, slices_now)), base)


# --- what the rule promises -------------------------------------------------------------------------------------------------


def outcomes_to_detect(
    before: Cells, labelled: int, policy: DropPolicy, *, drop: float, power: float = PLANNED_POWER, clustering: float = 1.0
) -> int | None:
    """Known outcomes after which a true F1 `drop`, precision and recall falling alike, is called real with probability `power`.

    `before` is the baseline's counts, `labelled` its size. None when no number is enough against so small a baseline, or policy does not
    judge F1. Normal approximation of the last look alone; earlier ones only help.
    """
    import numpy as np

    trials_before = before.tp + before.fp + before.fn
    rules = spent(policy.rules_for(_SHARES), policy.false_alarm_rate)
    rule, rate = next(((rule, rate) for rule, rate in rules if rule.name == F1), (None, 0.0))
    if rule is None or not before.tp or not labelled:
        return None
    was = (before.tp + 0.5) / (trials_before + 1)
    planned, fallen = (_jaccard_of_f1(_f1_of_jaccard(was) * (1 - d)) for d in (rule.planned, drop))
    recall, precision = (1 - drop) * before.tp / (before.tp + before.fn), (1 - drop) * before.tp / (before.tp + before.fp)
    trials_per_outcome = (before.tp + before.fn) / labelled * (1 + recall * (1 - precision) / precision)
    outcomes = np.unique(np.geomspace(1, MOST_OUTCOMES, 4000).astype(int))
    n0, n1 = trials_before / clustering, outcomes * trials_per_outcome / clustering
    middle = (was * n0 + fallen * n1) / (n0 + n1)
    chance = np.sqrt(middle * (1 - middle) * (1 / n0 + 1 / n1))
    spread = np.sqrt(was * (1 - was) / n0 + fallen * (1 - fallen) / n1)
    needed = needed_score(information(was, planned, n0, n1), rate) * chance
    limit = was - _jaccard_of_f1(_f1_of_jaccard(was) * (1 - rule.medium))
    found = was - fallen - np.maximum(needed, limit) >= _NORMAL.inv_cdf(power) * spread
    return int(outcomes[np.argmax(found)]) if found.any() else None
