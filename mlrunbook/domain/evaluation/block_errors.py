"""How far a figure may be off by chance: its standard error from the blocks of time of its window, whatever the figure.

Batch means (Schmeiser 1982; Flegal and Jones 2010): neighbouring blocks are joined to longer ones, and the largest variance counts, because
outcomes that resemble their neighbours make short blocks look more certain than they are. On the first-order scores of `Tally.score`.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, inf, log1p, sqrt
from typing import NamedTuple

from mlrunbook.domain.tally import Tally, total

LEAST_BLOCKS = 8


class Spread(NamedTuple):
    """The variance of a sum of scores per unit of their weight, and its degrees of freedom."""

    variance: float
    dof: int

    def of(self, weight: float) -> float:
        """The variance of a figure that rests on this weight."""
        return self.variance / weight if weight > 0 else inf


def held(blocks: Sequence[Tally]) -> list[Tally]:
    """The blocks with an outcome: without traffic, or before outcomes come, a block says nothing."""
    return [block for block in blocks if block.n]


def spread(metric: str, blocks: Sequence[Tally]) -> Spread | None:
    """None on fewer than eight blocks with an outcome, or where the figure of all of them is undefined."""
    known = held(blocks)
    whole = total(known)
    if whole is None or len(known) < LEAST_BLOCKS or whole.figure(metric) is None:
        return None
    scores = [block.score(metric, whole) for block in known]
    found, joined = [], 1
    while (batches := len(scores) // joined) >= LEAST_BLOCKS:
        parts = [scores[i * joined : (i + 1) * joined] for i in range(batches)]
        weight = sum(d for part in parts for _, d in part)
        squares = sum(sum(s for s, _ in part) ** 2 for part in parts)
        if weight > 0:
            found.append(Spread(squares / weight * batches / (batches - 1), batches - 1))
        joined *= 2
    return max(found, default=None)


def weight(metric: str, tally: Tally) -> float:
    return tally.score(metric, tally)[1]


def normal_score(t: float, dof: float) -> float:
    """The normal score as far out as `t` is in Student's distribution (Wallace 1959).

    >>> round(normal_score(2.365, 7), 2)  # both leave 2.5 % above
    1.96
    """
    if abs(t) == inf:
        return t
    size = (8 * dof + 1) / (8 * dof + 3) * sqrt(dof * log1p(t * t / dof))
    return size if t > 0 else -size


def student_score(z: float, dof: float) -> float:
    """The inverse of `normal_score`."""
    z *= (8 * dof + 3) / (8 * dof + 1)
    return sqrt(dof * (exp(min(z * z / dof, 600.0)) - 1))
