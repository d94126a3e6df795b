"""Upstream drift: one broken sensor, which people mend, or a fleet that changed, which the model must learn.

A model retrained on a broken sensor learns the broken reading, and is wrong again on the day the sensor is mended.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import sqrt
from typing import TYPE_CHECKING, Any

from mlrunbook.domain.evaluation.performance import Confusion, percent
from mlrunbook.domain.evaluation.prediction_rows import in_time_order, numbers_of
from mlrunbook.domain.investigation.findings import Finding
from mlrunbook.domain.observed import Prediction

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

BLOCKS = 20  # the course of a feature is looked at in so many means
LEAST_A_BLOCK = 10
# A step crosses two neighbouring blocks at most, however it falls; a steady rise crosses a tenth of its way in two of twenty.
STEP_SHARE = 0.6
FAR_AHEAD = 3.0  # other features of a live fleet move a little by themselves
LEAST_FAILURES = 30
# In KS or Jensen-Shannon distance. Below it the share of rows beyond any value changed by less than a tenth, which explains no fall of F1
# by a tenth; a fleet of machines that wear moves that much by itself from hour to hour.
MATERIAL_EFFECT = 0.10
UNCHANGED_Z = 2.58  # two-sided 1 %: the failure rate counts as unchanged within it


@dataclass(frozen=True)
class Course:
    """How a numeric feature came from the reference to now.

    `shift` is the way from the mean of the reference to the newest mean, in the reference's standard deviations; `step_share` the part
    of the whole way that it went at one moment, 0..1.
    """

    shift: float
    step_share: float

    @property
    def at_once(self) -> bool:
        return self.step_share >= STEP_SHARE


@dataclass(frozen=True)
class Upstream:
    """`broken_sensor` True: one feature jumped, alone. False: the fleet is another one. None: too little is known to tell."""

    broken_sensor: bool | None
    sentence: str


def moved_features(distributions: Finding | None) -> tuple[str, ...]:
    """The features that moved far enough to explain a fall of performance, by the finding on feature distributions."""
    value = distributions.value if distributions else None
    return tuple(name for name, column in value.items() if _matters(column)) if isinstance(value, dict) else ()


def _matters(column: Mapping[str, Any]) -> bool:
    found, effect = set(column.get("found", ())), column.get("effect")
    return bool(found - {"moved"}) or (found == {"moved"} and (effect is None or effect >= MATERIAL_EFFECT))


def course_of(reference: Floats | Sequence[float], recent: Floats | Sequence[float]) -> Course | None:
    """Both in time order, the recent values after the reference. None when there are too few, or the reference never varied."""
    import numpy as np

    spread = float(np.std(reference)) if len(reference) > 1 else 0.0
    if not spread or min(len(reference), len(recent)) * 2 < BLOCKS * LEAST_A_BLOCK:
        return None
    means = [*_means(reference), *_means(recent)]
    way = max(means) - min(means)
    steps = [abs(later - earlier) for earlier, later in zip(means, means[2:], strict=False)]
    return Course((means[-1] - float(np.mean(reference))) / spread, min(max(steps) / way, 1.0) if way else 0.0)


def courses(reference: Sequence[Prediction], recent: Sequence[Prediction]) -> dict[str, Course]:
    """The course of every numeric feature of the prediction log; what cannot be told is left out. Rows in any order."""
    before, after = _columns(reference), _columns(recent)
    found = {name: course_of(before[name], after[name]) for name in sorted(set(before) & set(after))}
    return {name: course for name, course in found.items() if course is not None}


def judge_upstream(moved: Sequence[str], seen: Mapping[str, Course], before: Confusion, now: Confusion) -> Upstream:
    """Tell a broken sensor from a changed fleet. `moved` names the features that drifted, `seen` how; the counts hold the outcomes.

    A sensor is broken when one feature moved, at once, and no other nearly as far, and machines fail as often as before: a change of the
    machines themselves would show in another reading or in the outcomes.
    """
    if not moved:
        return Upstream(None, "no feature is known to have moved")
    names = ", ".join(moved)
    name = _far_ahead(moved, seen)
    if name is None:
        return Upstream(False, f"{names} moved together: the fleet is another one than the model learned")
    course = seen.get(name)
    if course is None:
        return Upstream(None, f"{names} moved alone, and whether at once or slowly is not known")
    size = f"{name} moved by {course.shift:+.1f} standard deviations"
    if not course.at_once:
        return Upstream(False, f"{size} little by little: the fleet is changing")
    changed, words = failures_changed(before, now)
    if changed is None:
        return Upstream(None, f"{size} at once and alone; {words}")
    if changed:
        return Upstream(False, f"{size} at once, and {words}: the machines are at work differently")
    return Upstream(True, f"{size} at once, no other feature did, and {words}: a sensor that reads wrong")


def _far_ahead(moved: Sequence[str], seen: Mapping[str, Course]) -> str | None:
    """The one that moved; of several the one that moved at once, and at least `FAR_AHEAD` times as far as any other."""
    if len(moved) == 1:
        return moved[0]
    known = {name: abs(seen[name].shift) for name in moved if name in seen}
    if len(known) < len(moved):
        return None  # a category among them: how far that moved is not known
    first, second, *_ = sorted(known, key=lambda name: -known[name])
    return first if seen[first].at_once and known[first] >= FAR_AHEAD * known[second] else None


def failures_changed(before: Confusion, now: Confusion) -> tuple[bool | None, str]:
    """Whether machines fail more or less often than before: two shares compared by the pooled z."""
    if min(before.positives, now.positives) < LEAST_FAILURES:
        return None, f"only {min(before.positives, now.positives)} failures are known to compare the failure rate on"
    was, is_ = before.positives / before.n, now.positives / now.n
    pooled = (before.positives + now.positives) / (before.n + now.n)
    error = sqrt(pooled * (1 - pooled) * (1 / before.n + 1 / now.n))
    changed = error > 0 and abs(is_ - was) > UNCHANGED_Z * error
    told = f"{_share(was)} of them failed before and {_share(is_)} now"
    return changed, f"machines fail {'at another rate' if changed else 'as often as before'} ({told})"


def _share(value: float) -> str:
    return percent(value) if value >= 0.1 or value < 0.01 else f"{value * 100:.1f} %"


def _means(values: Floats | Sequence[float]) -> list[float]:
    """BLOCKS / 2 means of equal parts, in time order."""
    import numpy as np

    count = BLOCKS // 2
    cuts = [round(i * len(values) / count) for i in range(count + 1)]
    return [float(np.mean(values[start:end])) for start, end in pairwise(cuts)]


def _columns(rows: Sequence[Prediction]) -> dict[str, Floats]:
    ordered = in_time_order(rows)
    names = sorted({name for p in ordered for name in p.features})
    columns = {name: numbers_of(ordered, name) for name in names}
    return {name: known for name, values in columns.items() if len(known := values[values == values])}
