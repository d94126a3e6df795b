"""What is plain once the whole log is known: falls that were never called, and how F1 went."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil, sqrt

from mlrunbook.domain.backtest.blocks import BlockLog, confusion, confusions
from mlrunbook.domain.backtest.replay import Called, Replay, Watch
from mlrunbook.domain.backtest.result import Missed, Point, SegmentFigure
from mlrunbook.domain.evaluation.accumulated import student
from mlrunbook.domain.evaluation.block_score import Rates, Stacked, score
from mlrunbook.domain.evaluation.long_run_variance import long_run_variance
from mlrunbook.domain.policy.judging import F1
from mlrunbook.domain.tally import Confusion

LENGTHS = (7, 14, 28, 56, 112)  # blocks
FALL = 0.20  # what counts as missed
TAIL = 0.0005  # one-sided, of one window: hundreds are looked at
MOST_POINTS = 180
MOST_MISSED, MOST_SEGMENTS = 20, 40


def missed(replay: Replay) -> Iterator[Missed]:
    """Windows whose F1, at the baseline's failure rate, is 20 % lower, surely over the limit of a medium incident; the clearest of
    those that overlap."""
    rule = replay.policy.drops.rule(F1)
    for watch in replay.watches:
        if watch.against is not None and rule is not None:
            found = sorted(_falls(watch, rule.medium), key=lambda f: -f[2] / f[3])
            yield from _clearest(replay.log, watch, found, [c for c in replay.called if c.watch.version is watch.version])


def _falls(watch: Watch, limit: float) -> Iterator[tuple[int, int, float, float, float]]:
    """First block, end, fall, its standard error, half its interval."""
    import numpy as np

    against = watch.against
    assert against is not None
    scored = score(watch.version.between(watch.since, watch.until), against.rates)
    known = against.f1.known_for(scored)
    fall, weight = (np.concatenate([[0.0], np.cumsum(x)]) for x in (scored.fall, scored.weight))
    z = student(TAIL, against.f1.dof)
    for length in LENGTHS:
        end = np.arange(length, len(fall))
        held = np.maximum(weight[end] - weight[end - length], 1e-12)
        size = (fall[end] - fall[end - length]) / held
        error = known.error(held)
        for at in np.flatnonzero((size >= FALL) & (size - z * error > limit)).tolist():
            yield watch.since + at, watch.since + at + length, float(size[at]), float(error[at]), float(z * error[at])


def _clearest(log: BlockLog, watch: Watch, found: list[tuple[int, int, float, float, float]], called: list[Called]) -> Iterator[Missed]:
    taken = [(c.began - 1, c.until) for c in called]
    for first, end, size, _, half in found:
        if len(taken) - len(called) >= MOST_MISSED:
            return
        if all(end <= a or first >= b for a, b in taken):
            taken.append((first, end))
            yield Missed(log.starts(first), log.starts(end), watch.version.version, size, size - half, min(size + half, 1.0))


@dataclass(frozen=True)
class Known:
    """How much F1 varies by itself: the variance of a sum of scores for each unit of weight; `rows_as_one` outcomes count as one, as they
    come in clusters, against independent outcomes."""

    per_weight: float
    rows_as_one: float


def variance_of(replay: Replay) -> Known | None:
    """Of the first baseline, in which nothing was called; else of the whole log."""
    pinned = next((w.against for w in replay.watches if w.against), None)
    if pinned is not None:
        counts = pinned.version.between(pinned.since, pinned.until)
        return Known(pinned.f1.variance, _rows_as_one(counts, pinned.f1.variance, pinned.rates))
    rates = Rates.of(replay.log.total.total)
    found = long_run_variance(score(replay.log.total, rates)) if rates else None
    if found is None or rates is None or not found.per_weight > 0:
        return None
    return Known(found.per_weight, _rows_as_one(replay.log.total, found.per_weight, rates))


def _rows_as_one(counts: Stacked, per_weight: float, rates: Rates) -> float:
    total = confusion(counts)
    by_recall = ((2 - rates.f1) / rates.f1) ** 2 * total.positives * rates.recall * (1 - rates.recall)
    by_false = (total.n - total.positives) * rates.false_positive_rate * (1 - rates.false_positive_rate)
    independent, weight = by_recall + by_false, float(score(counts.total, rates).weight)
    return max(per_weight * weight / independent, 1.0) if independent > 0 else 1.0


def points(log: BlockLog, per_weight: float | None, confidence: float) -> tuple[Point, ...]:
    joined = max(1, ceil(log.blocks / MOST_POINTS))
    if log.block_s < 86_400 <= log.block_s * joined:  # whole days
        joined = ceil(log.block_s * joined / 86_400) * 86_400 // int(log.block_s)
    held = confusions(log.total)
    found = []
    for first in range(0, len(held), joined):
        part = sum(held[first : first + joined], Confusion())
        found.append(
            Point(log.starts(first) + (log.starts(joined) - log.since) / 2, *interval(part, per_weight, confidence), part.n, part.positives)
        )
    return tuple(found)


def interval(part: Confusion, per_weight: float | None, confidence: float) -> tuple[float | None, float | None, float | None]:
    """F1 of a part of the log with its interval, its variance that of the whole log."""
    from statistics import NormalDist

    if part.f1 is None or not part.positives:
        return None, None, None
    weight = 2 * part.tp + part.fp + part.fn
    half = NormalDist().inv_cdf((1 + confidence) / 2) * max(part.f1, 0.05) * sqrt((per_weight or 1.0) / weight)
    return part.f1, max(part.f1 - half, 0.0), min(part.f1 + half, 1.0)


def segments(log: BlockLog, per_weight: float | None, confidence: float) -> tuple[SegmentFigure, ...]:
    """The newest quarter of each, and what the first one was."""
    quarter = max(log.blocks // 4, 1)
    found = []
    for name, counts in log.segments.items():
        rows = confusions(counts)
        before, now = sum(rows[:quarter], Confusion()), sum(rows[-quarter:], Confusion())
        found.append(SegmentFigure(name, now.n, now.positives, *interval(now, per_weight, confidence), before.f1))
    found.sort(key=lambda s: -s.outcomes)
    return tuple(found[:MOST_SEGMENTS])
