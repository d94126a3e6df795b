"""Columns whose values are possible one by one, and belong together no more: values of other rows, of another asset, or late ones.

What a column says, the others foretell in part; where it broke, they do so no longer. Each row then tells by how much likelier its value
is alone than beside the others: a Gaussian regression on normal scores (van der Waerden 1952), fitted on the reference, whose own rows are
told by the other parts of it (cross-validation over blocks of time), so that what is said of them is what it says of new ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlrunbook.domain.investigation.inputs.stretch import LEAST_ROWS, Stretch, best_stretch

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

LEAST_REFERENCE = 400
LEAST_VALUES = 8  # different ones: a category has no scores
MOST_COLUMNS = 40
PARTS = 8
RIDGE = 2.0
LEAST_FORETOLD = 0.10  # of a column's variance, else the others say nothing about it
LEAST_BROKEN = 0.08  # of what a value of any other row would say against it
FURTHEST = 3.0  # a normal score
SUSPECTS = 3
TIMES_USUAL = 12.0  # markets and seasons loosen what goes together: up to nine times what the reference shows, 18 times once
LEAST_TOLD, LEAST_SPREAD = 0.05, 0.02  # nats a row that a value of any other row says against itself; of a variance


@dataclass(frozen=True)
class Apart:
    """`columns` no longer go with the others in these rows; two where either may be the broken one."""

    columns: tuple[str, ...]
    stretch: Stretch


def apart(before: Mapping[str, Floats], now: Mapping[str, Floats]) -> Apart | None:
    """The column that broke; both by column, in time order, NaN where there is no number."""
    names = usable(before, now)
    if len(names) < 2:
        return None
    old, new = scores_of(names, before, before), scores_of(names, before, now)
    found, alone = _worst(names, old, new), []
    for name, _ in found[:SUSPECTS]:
        kept = [i for i, other in enumerate(names) if other != name]
        if not _worst([names[i] for i in kept], old[:, kept], new[:, kept]):
            alone.append(name)  # what a broken column foretells looks broken too: without it, nothing does
    if not found:
        return None
    stretches = dict(found)
    broken = tuple(alone[:2]) or (found[0][0],)
    return Apart(broken, stretches[broken[0]])


def those_apart(before: Mapping[str, Floats], now: Mapping[str, Floats]) -> list[str]:
    """Every column that looks apart, the most telling first: the broken ones, and what they foretell."""
    names = usable(before, now)
    return [name for name, _ in _worst(names, scores_of(names, before, before), scores_of(names, before, now))] if len(names) > 1 else []


def apart_from_last(before: Mapping[str, Floats], last_before: Ints, now: Mapping[str, Floats], last_now: Ints) -> Apart | None:
    """The column that no longer goes with what the same asset said last. `last_...`: where that is, a row each; -1 where nowhere."""
    import numpy as np

    names = usable(before, now)
    known, there = last_before >= 0, last_now >= 0
    if not names or known.sum() < LEAST_REFERENCE or there.sum() < LEAST_ROWS:
        return None
    old, new = scores_of(names, before, before), scores_of(names, before, now)
    found = []
    for j, name in enumerate(names):
        value, last = old[known, j], old[last_before[known], j]
        slope = float(value @ last) / float(last @ last + RIDGE)
        own, told = slope * last, slope * new[last_now, j]
        spread = max(float(((value - own) ** 2).mean() / max(float((value**2).mean()), 1e-9)), LEAST_SPREAD)
        said = np.where(there, _against(new[:, j], told, spread), 0.0)
        if stretch := _broken(said, value, own, spread):
            found.append(Apart((name,), stretch))
    return max(found, key=lambda one: one.stretch.evidence, default=None)


def usable(before: Mapping[str, Floats], now: Mapping[str, Floats]) -> list[str]:
    import numpy as np

    def is_usable(name: str) -> bool:
        known = before[name][np.isfinite(before[name])]
        there = np.isfinite(now[name])
        return len(known) >= LEAST_REFERENCE and len(np.unique(known)) >= LEAST_VALUES and bool(there.any())

    return [name for name in before if is_usable(name)][:MOST_COLUMNS]


def scores_of(names: Sequence[str], before: Mapping[str, Floats], values: Mapping[str, Floats]) -> Floats:
    """Normal scores by the reference's ranks; 0, the middle, where there is no number."""
    import numpy as np
    from scipy.special import ndtri

    columns = []
    for name in names:
        old = np.sort(before[name][np.isfinite(before[name])])
        low, high = (np.searchsorted(old, values[name], side=side) for side in ("left", "right"))
        score = ndtri(np.clip((low + high + 1) / 2 / (len(old) + 1), 1e-4, 1 - 1e-4))
        columns.append(np.where(np.isfinite(values[name]), np.clip(score, -FURTHEST, FURTHEST), 0.0))
    told: Floats = np.column_stack(columns)
    return told


def _worst(names: Sequence[str], old: Floats, new: Floats) -> list[tuple[str, Stretch]]:
    """Those that are apart, the most telling first."""
    if len(names) < 2:
        return []
    own, told, spread = _foretold(old, new)
    found = []
    for j, name in enumerate(names):
        said = _against(new[:, j], told[:, j], spread[j])
        if stretch := _broken(said, old[:, j], own[:, j], spread[j]):
            found.append((name, stretch))
    return sorted(found, key=lambda one: -one[1].evidence)


def _broken(said: Floats, value: Floats, own: Floats, spread: float) -> Stretch | None:
    """Where rows of now speak against a column far more than those of the reference (`value`, foretold as `own`) ever did."""
    import numpy as np

    if 1 - spread < LEAST_FORETOLD:
        return None
    stretch = best_stretch(said)
    usual = best_stretch(_against(value, own, spread))
    if not stretch.is_beyond(usual) or stretch.evidence < TIMES_USUAL * usual.evidence:
        return None
    of_any_row = float(_against(np.roll(value, len(value) // 2), own, spread).mean())
    told = float(said[stretch.start : stretch.end].mean())
    return stretch if of_any_row > LEAST_TOLD and told >= LEAST_BROKEN * of_any_row else None


def _against(value: Floats, told: Floats, spread: float) -> Floats:
    """How much likelier the value is by itself than beside the others; scores have mean 0 and spread 1."""
    import numpy as np

    said: Floats = 0.5 * np.log(spread) + (value - told) ** 2 / (2 * spread) - value**2 / 2
    return said


def _foretold(old: Floats, new: Floats) -> tuple[Floats, Floats, Floats]:
    """What the other columns say of each value of the reference (by the other parts of it) and of now, and the variance that is left."""
    import numpy as np

    def terms(values: Floats) -> Floats:
        made: Floats = np.hstack([values, (values**2 - 1) / np.sqrt(2)])
        return made

    x, n, k = terms(old), len(old), old.shape[1]
    parts = np.arange(n) * PARTS // n
    grams = [x[parts == p].T @ x[parts == p] for p in range(PARTS)]
    whole = np.sum(grams, axis=0)
    own = np.zeros_like(old)
    for p in range(PARTS):
        own[parts == p] = x[parts == p] @ _weights(whole - grams[p], k)
    told = terms(new) @ _weights(whole, k)
    spread = np.clip(((old - own) ** 2).mean(axis=0) / np.maximum((old**2).mean(axis=0), 1e-9), LEAST_SPREAD, 1.0)
    return own, told, spread


def _weights(gram: Floats, k: int) -> Floats:
    """Of the terms of all other columns, a column each. By the inverse of all: leaving one column out is a block of it."""
    import numpy as np

    inverse = np.linalg.inv(gram + RIDGE * np.eye(2 * k))
    weights = np.zeros((2 * k, k))
    for j in range(k):
        mine, other = [j, j + k], [i for i in range(2 * k) if i not in (j, j + k)]
        # (A_oo)^-1 = B_oo - B_om B_mm^-1 B_mo
        block = inverse[np.ix_(other, other)] - inverse[np.ix_(other, mine)] @ np.linalg.solve(
            inverse[np.ix_(mine, mine)], inverse[np.ix_(mine, other)]
        )
        weights[other, j] = block @ gram[np.ix_(other, [j])][:, 0]
    return weights
