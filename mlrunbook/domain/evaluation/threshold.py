"""Path D: what another decision threshold would have done, replayed on predictions whose outcome is known.

A prediction is high-risk when score >= threshold. Scores are floats in 0..1, outcomes booleans (True: the asset failed).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mlrunbook.domain.evaluation.performance import Confusion, percent, relative_drop, wilson, z_value

MIN_POSITIVES = 30  # below this the best threshold is noise (facts measured: its bootstrap range was .15-.51)


@dataclass(frozen=True)
class ThresholdChoice:
    """`threshold` is None when infeasible: then no threshold is offered rather than a guess."""

    feasible: bool
    threshold: float | None
    expected: Confusion | None
    sentence: str


@dataclass(frozen=True)
class ThresholdEffect:
    """What moving the threshold from `current` to `target` is expected to do, replayed on known outcomes. `flagged_per_day`: predictions
    that ask for a work order, now and then; None where the traffic is not known. `current`, `now` None: the server was not read."""

    current: float | None
    target: float
    now: Confusion | None
    expected: Confusion
    flagged_per_day: tuple[float | None, float] | None
    sentence: str

    def as_dict(self) -> dict[str, float | None]:
        """The numbers an approver is shown."""
        before, after = self.flagged_per_day or (None, None)
        return {
            "precision_expected": _rounded(self.expected.precision, 4),
            "recall_expected": _rounded(self.expected.recall, 4),
            "work_orders_per_day_now": _rounded(before),
            "work_orders_per_day_expected": _rounded(after),
        }


@dataclass(frozen=True)
class Replay:
    """F1 the same scores give at `threshold`. `recoverable` is None when too few failures are known to say."""

    threshold: float
    expected: Confusion
    recoverable: bool | None
    sentence: str

    @property
    def f1(self) -> float | None:
        return self.expected.f1


def counts_at(scores: Sequence[float], outcomes: Sequence[bool], threshold: float) -> Confusion:
    """The confusion at one threshold."""
    cells = [0, 0, 0, 0]
    for score, failed in zip(scores, outcomes, strict=True):
        cells[2 * (score >= threshold) + bool(failed)] += 1
    tn, fn, fp, tp = cells
    return Confusion(tp=tp, fp=fp, fn=fn, tn=tn)


def choose_threshold(
    scores: Sequence[float],
    outcomes: Sequence[bool],
    *,
    precision_floor: float,
    current: float,
    max_step: float | None = None,
    confidence: float = 0.90,
) -> ThresholdChoice:
    """The smallest threshold whose precision clears the floor with its Wilson lower bound.

    The bound, not the point: chosen on the point estimate, a floor of .90 gave .872 on new data; on the 90 % bound .970.
    With `max_step` only thresholds at most that far from `current` are offered.
    """
    z = z_value(confidence)
    clears = [
        (threshold, counts)
        for threshold, counts in _curve(scores, outcomes)
        if wilson(counts.tp, counts.tp + counts.fp, z)[0] >= precision_floor
    ]
    if not clears:
        sentence = f"infeasible: at no threshold is precision surely {precision_floor:.2f} on {len(scores)} known outcomes"
        return ThresholdChoice(False, None, None, sentence)
    near = clears if max_step is None else [c for c in clears if abs(c[0] - current) <= max_step + 1e-9]
    if not near:
        needs = f"precision {precision_floor:.2f} needs threshold {clears[0][0]:g}"
        sentence = f"infeasible in one step: {needs}, more than {max_step:g} from {current:g}"
        return ThresholdChoice(False, None, None, sentence)
    threshold, counts = near[0]
    sentence = (
        f"threshold {current:g} -> {threshold:g}: precision {counts.precision or 0:.2f} and recall {counts.recall or 0:.2f} "
        f"expected from {counts.n} known outcomes"
    )
    return ThresholdChoice(True, threshold, counts, sentence)


def effect_of(
    scores: Sequence[float], outcomes: Sequence[bool], *, current: float | None, target: float, predictions_per_day: float | None
) -> ThresholdEffect | None:
    """None when no outcome is known. The work orders are an upper bound: an asset has one open at a time."""
    if not scores:
        return None
    expected = counts_at(scores, outcomes, target)
    now = counts_at(scores, outcomes, current) if current is not None else None
    words = [_from_to(name, getattr(now, name) if now else None, getattr(expected, name)) for name in ("recall", "precision")]
    low, high = wilson(expected.tp, expected.positives, z_value(0.95))
    words[0] += f" (95 % interval {low:.2f} to {high:.2f})" if expected.positives else ""
    on = f"expected, replayed on {expected.n} known outcomes with {expected.positives} failures"
    on += ", too few to rely on" if expected.positives < MIN_POSITIVES else ""
    flagged = None
    if predictions_per_day is None:
        orders = "work orders a day not known"
    else:
        before, after = (_flagged(c) * predictions_per_day if c else None for c in (now, expected))
        assert after is not None
        flagged = (before, after)
        was = f"{_count(before)} a day now -> " if before is not None else ""
        orders = f"work orders {was}{_count(after)} a day at most (an asset has one open at a time)"
    return ThresholdEffect(current, target, now, expected, flagged, f"{words[0]} and {words[1]} {on}; {orders}")


def replay(scores: Sequence[float], outcomes: Sequence[bool], threshold: float, *, baseline_f1: float, tolerance: float = 0.10) -> Replay:
    """What `threshold` would have given: recoverable when F1 comes within `tolerance` of the baseline."""
    return _judge(threshold, counts_at(scores, outcomes, threshold), baseline_f1, tolerance)


def best_recovery(scores: Sequence[float], outcomes: Sequence[bool], *, baseline_f1: float, tolerance: float = 0.10) -> Replay | None:
    """The threshold with the highest F1: if even that stays below the baseline, the model is bad, not its threshold.

    None when nothing usable is labelled. The best of many thresholds flatters itself, so a `recoverable` here is a hint, not proof.
    """
    curve = _curve(scores, outcomes)
    if not curve:
        return None
    threshold, counts = max(curve, key=lambda point: point[1].f1 or 0.0)
    return _judge(threshold, counts, baseline_f1, tolerance)


def _flagged(counts: Confusion) -> float:
    return (counts.tp + counts.fp) / counts.n


def _from_to(name: str, before: float | None, after: float | None) -> str:
    now, then = (f"{value:.2f}" if value is not None else "undefined" for value in (before, after))
    return f"{name} {then}" if before is None else f"{name} {now} -> {then}"


def _count(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}"


def _rounded(value: float | None, digits: int = 1) -> float | None:
    return None if value is None else round(value, digits)


def _judge(threshold: float, counts: Confusion, baseline_f1: float, tolerance: float) -> Replay:
    drop = relative_drop(baseline_f1, counts.f1)
    words = f"replayed at threshold {threshold:g}, F1 is {counts.f1 or 0:.2f} against {baseline_f1:.2f}"
    if counts.positives < MIN_POSITIVES or drop is None:
        return Replay(threshold, counts, None, f"{words}, on only {counts.positives} known failures: too few to say")
    recoverable = drop <= tolerance
    verdict = f"within {percent(tolerance)}: the model is sound there" if recoverable else f"still {percent(drop)} lower"
    return Replay(threshold, counts, recoverable, f"{words}, {verdict}")


def _curve(scores: Sequence[float], outcomes: Sequence[bool]) -> list[tuple[float, Confusion]]:
    """The confusion at every threshold that matters, ascending: the scores themselves, cut to 4 decimals so a person can type them.

    0 is left out, and 1 becomes .9999: a threshold lies strictly between, or the server refuses it.
    """
    rows = sorted(((_cut(score), bool(failed)) for score, failed in zip(scores, outcomes, strict=True)), reverse=True)
    positives = sum(failed for _, failed in rows)
    points: list[tuple[float, Confusion]] = []
    tp = fp = 0
    for i, (threshold, failed) in enumerate(rows):
        tp, fp = tp + failed, fp + (not failed)
        if threshold > 0 and (i + 1 == len(rows) or rows[i + 1][0] != threshold):
            points.append((threshold, Confusion(tp=tp, fp=fp, fn=positives - tp, tn=len(rows) - positives - fp)))
    return points[::-1]


def _cut(score: float) -> float:
    """The largest number of 4 decimals under 1 that is not above the score."""
    nearest = min(round(score, 4), 0.9999)
    return nearest if nearest <= score else round(nearest - 1e-4, 4)
