"""A feature in another unit: ten times what it was, in Celsius instead of Kelvin, with the other sign.

The reference itself, converted, says what such values would look like: each row is judged by how much likelier its value is among the
converted ones (two histograms with common bins). No density is fitted, and no threshold is put on a mean.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import log10
from typing import TYPE_CHECKING

from mlrunbook.domain.evaluation.drift import ks_distance
from mlrunbook.domain.investigation.inputs.stretch import ENOUGH, LEAST_ROWS, MOST_OF_ONE, Stretch, best_stretch

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

BINS = 48
LEAST_REFERENCE = 100
LEAST_PER_ROW = 1.0  # nats: values that are barely likelier in the other unit are no proof of it
# In KS distance. Of any unit but a decimal one the shape must fit as well, to what chance adds to the distance of so many rows.
FITS, DIFFERS = 0.12, 0.45
NEARER = 0.03  # a tenth is likelier than 0.102, from newtons to kilograms-force
NEAR, STEP = 60, 0.4  # rows on both sides of the beginning; of the whole way between what was and what is
WITHIN = 0.95  # of the rows, converted back, inside what was ever seen


@dataclass(frozen=True)
class Unit:
    factor: float
    offset: float
    words: str

    def of(self, values: Floats) -> Floats:
        return values * self.factor + self.offset

    def back(self, values: Floats) -> Floats:
        return (values - self.offset) / self.factor

    @property
    def is_decimal(self) -> bool:
        """A power of ten, or the other sign: no season or market does that."""
        power = log10(abs(self.factor))
        return not self.offset and abs(power - round(power)) < 1e-6


def _factors() -> Iterator[Unit]:
    for power in (1, 2, 3, 4, 6):
        yield Unit(10.0**power, 0.0, f"{10**power:,} times what it was".replace(",", " "))
        yield Unit(10.0**-power, 0.0, f"a {10**power:,}th of what it was".replace(",", " "))
    named = {
        60.0: "minutes and seconds, or hours and minutes",
        3600.0: "hours and seconds",
        24.0: "days and hours",
        1440.0: "days and minutes",
        25.4: "inches and millimetres",
        2.54: "inches and centimetres",
        3.28084: "metres and feet",
        1.609344: "miles and kilometres",
        2.204623: "kilograms and pounds",
        3.6: "metres a second and kilometres an hour",
        4.184: "calories and joules",
        6.894757: "psi and kilopascals",
        14.503774: "bar and psi",
        9.80665: "kilograms-force and newtons",
        1.355818: "foot-pounds and newton metres",
        57.29578: "radians and degrees",
        9.549297: "radians a second and revolutions a minute",
        745.69987: "horsepower and watts",
    }
    for factor, words in named.items():
        yield Unit(factor, 0.0, f"{factor:g} times what it was, as between {words}")
        yield Unit(1 / factor, 0.0, f"{1 / factor:.3g} times what it was, as between {words}")
    yield Unit(-1.0, 0.0, "what it was with the other sign")
    yield Unit(1.0, 273.15, "273.15 more than it was, as between Celsius and kelvins")
    yield Unit(1.0, -273.15, "273.15 less than it was, as between kelvins and Celsius")
    yield Unit(1.8, 32.0, "in Fahrenheit where it was in Celsius")
    yield Unit(1 / 1.8, -32 / 1.8, "in Celsius where it was in Fahrenheit")
    yield Unit(1.8, -459.67, "in Fahrenheit where it was in kelvins")
    yield Unit(1 / 1.8, 459.67 / 1.8, "in kelvins where it was in Fahrenheit")


UNITS = tuple(_factors())


@dataclass(frozen=True)
class Converted:
    """`rows`: where the column's numbers are in the other unit."""

    stretch: Stretch
    unit: Unit
    distance: float  # between what was and these values converted back


def converted(before: Floats, now: Floats, units: Sequence[Unit] = UNITS) -> Converted | None:
    """The unit in which a stretch of `now` is; None where it is as it was, or nothing fits. Both in time order, NaN where there is no
    number."""
    import numpy as np

    old = np.sort(before[np.isfinite(before)])
    if len(old) < LEAST_REFERENCE or old[0] == old[-1]:
        return None
    if not np.isfinite(now).any():
        return None
    course = _Course.of(before, now, old)
    found = [one for unit in units if (one := _in(unit, course)) is not None]
    found = [one for one in found if one.unit.is_decimal or _in_one_step(one.stretch, before, now)]
    best = max((one.stretch.evidence for one in found), default=0.0)
    return min(
        (one for one in found if one.stretch.evidence >= 0.8 * best),
        key=lambda one: one.distance - NEARER * one.unit.is_decimal,
        default=None,
    )


def offset(before: Floats, now: Floats) -> Converted | None:
    """A stretch whose values are all so much more, or less, with the spread they had: as after a recalibration. At most once at a time, and
    in one step; what wanders there by itself is no error."""
    import numpy as np

    known, there = before[np.isfinite(before)], now[np.isfinite(now)]
    if len(known) < LEAST_REFERENCE or len(there) < LEAST_ROWS:
        return None
    middle, found = float(np.median(known)), []
    for share in (1.0, 0.5, 0.25, 0.1, 0.05):
        part = there[-max(LEAST_ROWS, int(len(there) * share)) :]
        step = float(np.median(part)) - middle
        unit = Unit(1.0, step, f"{abs(step):.3g} {'more' if step > 0 else 'less'} than it was")
        if step and (one := converted(before, now, [unit])):
            found.append(one)
    return max(found, key=lambda one: one.stretch.evidence, default=None)


def _in_one_step(stretch: Stretch, before: Floats, now: Floats) -> bool:
    """Whether the values changed where the stretch begins, not little by little, and it lasts: a market or a season moves by as much in
    weeks, and comes back."""
    import numpy as np

    if len(now) - stretch.end >= LEAST_ROWS:
        return False
    earlier = np.concatenate([before, now[: stretch.start]])
    part = now[stretch.start : stretch.end]
    earlier, part, old = (values[np.isfinite(values)] for values in (earlier, part, before))
    if min(len(earlier), len(part)) < LEAST_ROWS:
        return False
    way = float(np.median(part) - np.median(old))
    step = float(np.median(part[:NEAR]) - np.median(earlier[-NEAR:]))
    return way * step > 0 and abs(step) >= STEP * abs(way)


@dataclass(frozen=True)
class _Course:
    """A column before and now, sorted once for all units."""

    before: Floats
    now: Floats
    old: Floats  # before, sorted, finite
    quantiles: Floats  # of it

    @classmethod
    def of(cls, before: Floats, now: Floats, old: Floats) -> _Course:
        import numpy as np

        return cls(before, now, old, old[np.linspace(0, len(old) - 1, BINS // 2 + 1).round().astype(int)])

    def evidence(self, edges: Floats, ratio: Floats, values: Floats) -> Floats:
        """Log likelihood ratio a row; 0 where there is no number, and for what neither side ever showed."""
        import numpy as np

        place = np.where(values == edges[-1], len(edges) - 1, np.searchsorted(edges, values, side="right"))
        told: Floats = np.where(np.isfinite(values), ratio[np.clip(place, 0, len(ratio) - 1)], 0.0)
        return told


def _in(unit: Unit, course: _Course) -> Converted | None:
    import numpy as np

    old, now = course.old, course.now
    edges = np.unique(np.concatenate([course.quantiles, unit.of(course.quantiles)]))
    if len(edges) < 3:
        return None
    ratio = _ratio(edges, unit, old)
    evidence = course.evidence(edges, ratio, now)
    if evidence[evidence > 0].clip(max=MOST_OF_ONE).sum() < ENOUGH:
        return None
    stretch = best_stretch(evidence)
    if not stretch.is_enough or stretch.evidence < LEAST_PER_ROW * stretch.rows:
        return None
    if not stretch.is_beyond(best_stretch(course.evidence(edges, ratio, course.before))):
        return None
    part = now[stretch.start : stretch.end]
    part = part[np.isfinite(part)]
    back = np.sort(unit.back(part))
    if len(np.unique(part)) < 4 or float(((back >= old[0] - 1e-9) & (back <= old[-1] + 1e-9)).mean()) < WITHIN:
        return None
    distance, as_it_was = ks_distance(old, back), ks_distance(old, np.sort(part))
    if as_it_was < DIFFERS or distance > as_it_was or (not unit.is_decimal and distance > FITS + len(back) ** -0.5):
        return None
    return Converted(stretch, unit, distance)


def _ratio(edges: Floats, unit: Unit, old: Floats) -> Floats:
    """Of each bin, and 0 on both sides of all: by how much likelier a value there is in the unit than as it was."""
    import numpy as np

    def shares(bounds: Floats) -> Floats:
        places = np.searchsorted(old, bounds, side="left")
        places[-1] = np.searchsorted(old, bounds[-1], side="right")
        counts = np.diff(places) + 0.5
        known: Floats = counts / counts.sum()
        return known

    back = unit.back(edges)
    in_it = shares(back) if unit.factor > 0 else shares(back[::-1])[::-1]
    told: Floats = np.concatenate([[0.0], np.log(in_it / shares(edges)), [0.0]])
    return told
