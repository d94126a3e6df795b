"""Times in another zone: the log's own, which jump by whole hours, or a feature that tells the time of day."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from mlrunbook.domain.investigation.inputs.stretch import LEAST_ROWS, Stretch
from mlrunbook.domain.observed import Prediction

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

HOUR, QUARTER, DAY = 3600.0, 900.0, 86_400.0
FURTHEST = 14 * HOUR  # from UTC that any zone is
EXACT_S = 60.0  # a jump that cannot be placed to a minute may be a gap
LEAST_REFERENCE = 100
CLOCKS = {"hours": 24.0, "a share of the day": 1.0, "minutes": 1440.0, "seconds": 86_400.0}  # a day in it
ON_TIME = 0.98  # resultant length (Mardia 1972): 1 where a feature is the time of day itself


@dataclass(frozen=True)
class Jump:
    """`at_row`: the first row, by id, whose time is off; `hours`: by how much."""

    at_row: int
    hours: float
    back_and_forth: bool = False


def jump_of(rows: Sequence[Prediction]) -> Jump | None:
    """Rows by id. Times that go on from another hour: back by a whole number of quarter hours, or ahead by whole hours, where rows
    otherwise come too close for that to be a gap."""
    import numpy as np

    if len(rows) < 2 * LEAST_ROWS:
        return None
    steps = np.diff(np.array([p.at.timestamp() for p in rows]))
    short = np.abs(steps[np.abs(steps) < QUARTER / 2])
    usual = float(np.quantile(short, 0.95)) if len(short) >= LEAST_ROWS else QUARTER
    exact = max(2 * usual, 1.0)
    long = np.flatnonzero(np.abs(steps) >= QUARTER - exact)
    back = [int(i) for i in long if steps[i] < 0 and exact <= EXACT_S * 5 and _is_multiple(steps[i], QUARTER, exact)]
    ahead = [int(i) for i in long if steps[i] > 0 and exact <= EXACT_S and _is_multiple(steps[i], HOUR, exact)]
    gaps = [int(i) for i in long if steps[i] > 0 and not _is_multiple(steps[i], HOUR, exact)]
    if back and len([i for i in long if steps[i] < 0]) == len(back) and len(back) <= max(1, len(ahead) + 1):
        first = min([*back, *(ahead if len(ahead) + 1 >= len(back) else [])])
        return Jump(first + 1, _hours(steps[first]), len(back) + len(ahead) > 1)
    if len(back) > 1 and ahead:  # two writers take turns
        first = min(*back, *ahead)
        return Jump(first + 1, _hours(steps[first]), True)
    if len(ahead) == 1 and not gaps and ahead[0] + 1 <= len(rows) - LEAST_ROWS // 2:
        return Jump(ahead[0] + 1, _hours(steps[ahead[0]]))
    return None


def _is_multiple(step: float, of: float, exact: float) -> bool:
    return abs(abs(step) - round(abs(step) / of) * of) <= exact and of - exact <= abs(step) <= FURTHEST + exact


def _hours(step: float) -> float:
    return round(step / QUARTER) * QUARTER / HOUR


def is_by_id(rows: Sequence[Prediction]) -> bool:
    """Whether ids follow time, as where a log counts its rows; elsewhere they tell nothing of the order."""
    ordered = sorted(rows, key=lambda p: p.id)
    back = sum(later.at < earlier.at for earlier, later in pairwise(ordered))
    return len(rows) > 1 and back <= 0.02 * len(rows)


def clocks_off(
    before: Mapping[str, Floats], before_at: Floats, now: Mapping[str, Floats], now_at: Floats
) -> dict[str, tuple[Stretch, float]]:
    """The features that tell the time of day, and by how many hours they are off since when. `..._at`: seconds of the day."""
    found = {}
    for name, values in before.items():
        for day in CLOCKS.values():
            if (off := _off(values, before_at, now[name], now_at, day)) is not None:
                found[name] = off
                break
    return found


def _off(before: Floats, before_at: Floats, now: Floats, now_at: Floats, day: float) -> tuple[Stretch, float] | None:
    import numpy as np

    known = np.isfinite(before)
    if known.sum() < LEAST_REFERENCE or np.nanmin(before) < 0 or np.nanmax(before) > day or np.ptp(before[known]) < day / 4:
        return None
    if not known.any() or np.ptp(before_at[known]) < DAY / 4:
        return None
    turn = np.exp(2j * np.pi * (before[known] / day - before_at[known] / DAY)).mean()
    there = np.isfinite(now)
    if abs(turn) < ON_TIME or there.sum() < LEAST_ROWS:
        return None
    off = np.angle(np.exp(2j * np.pi * (np.where(there, now, 0.0) / day - now_at / DAY)) / turn) / (2 * np.pi) * 24
    wrong = there & (np.abs(off) > 0.75)
    if wrong.sum() < LEAST_ROWS:
        return None
    hours = float(np.median(off[wrong]))
    agree = wrong & (np.abs(off - hours) < 0.75)
    if abs(hours * 4 - round(hours * 4)) > 0.6 or agree.sum() < 0.9 * wrong.sum():
        return None
    rows = np.flatnonzero(agree)
    return Stretch(int(rows[0]), int(rows[-1]) + 1, float(len(rows))), round(hours * 4) / 4
