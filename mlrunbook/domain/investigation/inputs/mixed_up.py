"""Columns that carry each other's values: two that were swapped, or a row of them that shifted by one.

Where column `a` holds what `b` held, its values are likelier in the histogram of `b`. Which column holds what is the assignment of columns
to histograms with the largest likelihood (Kuhn 1955, the Hungarian method). Two columns with much the same values, like a lowest and a
highest reading, are told apart by their joint histogram: which of the two is the larger one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

from mlrunbook.domain.evaluation.drift import ks_distance
from mlrunbook.domain.investigation.inputs.relations import those_apart
from mlrunbook.domain.investigation.inputs.stretch import FORGIVEN, LEAST_ROWS, Stretch, best_stretch

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Bins = NDArray[np.int64]
    Marks = NDArray[np.bool_]

CELLS = 12  # of the joint histogram, a side
BINS = 40
LEAST_PER_COLUMN = 0.7  # nats a row and column
LEAST_REFERENCE = 200
MOST_COLUMNS = 40  # pairs grow with the square
MOST_PAIRED = 12  # of more columns, only those that no longer go with the others are tried in pairs


@dataclass(frozen=True)
class MixedUp:
    """`holds[a] == b`: column a holds what b held."""

    stretch: Stretch
    holds: Mapping[str, str]


def mixed_up(before: Mapping[str, Floats], now: Mapping[str, Floats]) -> MixedUp | None:
    """Both by column, NaN where there is no number; the same columns on both sides."""
    import numpy as np

    names = [n for n in before if np.isfinite(before[n]).sum() >= LEAST_REFERENCE and np.unique(before[n]).size > 2][:MOST_COLUMNS]
    if len(names) < 2 or not len(now[names[0]]):
        return None
    pairs = names if len(names) <= MOST_PAIRED else those_apart(before, now)[:MOST_PAIRED]
    found = [one for one in (_shifted(names, before, now), *_swapped(pairs, before, now)) if one]
    return max(found, key=lambda one: one.stretch.evidence, default=None)


def _shifted(names: Sequence[str], before: Mapping[str, Floats], now: Mapping[str, Floats]) -> MixedUp | None:
    import numpy as np
    from scipy.optimize import linear_sum_assignment

    said, own = _log_likelihoods(names, before, now), _log_likelihoods(names, before, before)
    n, best = said.shape[2], None
    for rows in sorted({n, *(LEAST_ROWS * 2**k for k in range(12) if LEAST_ROWS * 2**k < n)}):
        part = said[:, :, n - rows :].mean(axis=2)
        columns, histograms = linear_sum_assignment(part, maximize=True)
        moved = [(int(i), int(j)) for i, j in zip(columns, histograms, strict=True) if i != j]
        moved = [(i, j) for i, j in moved if part[i, j] - part[i, i] > LEAST_PER_COLUMN]
        if len(moved) < 2:
            continue
        gain: Floats = np.sum([said[i, j] - said[i, i] for i, j in moved], axis=0)
        stretch, usual = best_stretch(gain), best_stretch(np.sum([own[i, j] - own[i, i] for i, j in moved], axis=0))
        if not stretch.is_beyond(usual) or gain[stretch.start : stretch.end].mean() < LEAST_PER_COLUMN * len(moved):
            continue
        if best is None or stretch.evidence > best.stretch.evidence:
            best = MixedUp(stretch, {names[i]: names[j] for i, j in moved})
    return best


def _log_likelihoods(names: Sequence[str], before: Mapping[str, Floats], now: Mapping[str, Floats]) -> Floats:
    """[i, j, row]: of the value of column i in the histogram of column j."""
    import numpy as np

    said = np.zeros((len(names), len(names), len(now[names[0]])))
    for j, name in enumerate(names):
        old = before[name][np.isfinite(before[name])]
        low, high = old.min(), old.max()
        inner = np.unique(np.quantile(old, np.linspace(0, 1, BINS + 1)))
        margin = (high - low) * 1e-6
        edges = np.concatenate([[low - margin], inner[1:-1], [high + margin]])
        width = np.maximum(np.diff(edges), (high - low) * 1e-4)
        counts = np.histogram(old, edges)[0] + 0.5
        density = np.log(counts / counts.sum() / width)
        outside = np.log(0.5 / counts.sum() / (high - low))  # as rare as half a row spread over all that was ever seen
        table = np.concatenate([[outside], density, [outside]])
        for i, other in enumerate(names):
            values = now[other]
            place = np.clip(np.searchsorted(edges, values, side="right"), 0, len(table) - 1)
            said[i, j] = np.where(np.isfinite(values), table[place], outside)
    return said


def _swapped(names: Sequence[str], before: Mapping[str, Floats], now: Mapping[str, Floats]) -> list[MixedUp]:
    import numpy as np

    found = []
    for a, b in combinations(names, 2):
        low = max(np.nanmin(before[a]), np.nanmin(before[b]))
        high = min(np.nanmax(before[a]), np.nanmax(before[b]))
        if low > high:
            continue  # they share no value: the histograms of the columns alone tell them apart
        pooled = np.concatenate([before[a], before[b]])
        edges = np.unique(np.quantile(pooled[np.isfinite(pooled)], np.linspace(0, 1, CELLS + 1)[1:-1]))
        joint = np.full((len(edges) + 1, len(edges) + 1, 2), 0.25)  # the third: which of the two is the larger one
        known = np.isfinite(before[a]) & np.isfinite(before[b])
        np.add.at(joint, _cells(edges, before[a][known], before[b][known]), 1.0)
        may_be = _fit(before[b], now[a]) & _fit(before[a], now[b])
        gain = np.where(may_be, _gain(np.log(joint), edges, now[a], now[b]), -FORGIVEN)
        stretch, usual = best_stretch(gain), best_stretch(_gain(np.log(joint), edges, before[a], before[b]))
        if stretch.is_beyond(usual) and gain[stretch.start : stretch.end].mean() >= 2 * LEAST_PER_COLUMN:
            part = slice(stretch.start, stretch.end)
            if _distance(before, b, now[a][part]) + _distance(before, a, now[b][part]) < sum(
                _distance(before, n, now[n][part]) for n in (a, b)
            ):
                found.append(MixedUp(stretch, {a: b, b: a}))
    return found


def _distance(before: Mapping[str, Floats], name: str, values: Floats) -> float:
    """KS distance to what the column held."""
    import numpy as np

    old, new = (np.sort(v[np.isfinite(v)]) for v in (before[name], values))
    return ks_distance(old, new) if len(new) else 1.0


def _gain(told: Floats, edges: Floats, a: Floats, b: Floats) -> Floats:
    """How much likelier a row is the other way round."""
    import numpy as np

    there = np.isfinite(a) & np.isfinite(b)
    gain: Floats = np.where(there, told[_cells(edges, b, a)] - told[_cells(edges, a, b)], 0.0)
    return gain


def _fit(before: Floats, values: Floats) -> Marks:
    """Whether the values may be those of that column; what is not there speaks for nothing."""
    import numpy as np

    fit: Marks = ~np.isfinite(values) | ((values >= np.nanmin(before)) & (values <= np.nanmax(before)))
    return fit


def _cells(edges: Floats, a: Floats, b: Floats) -> tuple[Bins, Bins, Bins]:
    import numpy as np

    first, second = (np.searchsorted(edges, np.nan_to_num(values), side="right") for values in (a, b))
    return first, second, (a > b).astype(np.int64)
