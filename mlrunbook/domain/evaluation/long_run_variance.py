"""How much a sum over outcomes varies when outcomes come in clusters: by day, by horizon, by asset.

The larger of two estimates: batch means over several block lengths (Schmeiser 1982; Flegal and Jones 2010), which see memory in time up
to the longest length, and the cluster sandwich over assets (Liang and Zeger 1986), which sees what an asset has of its own. Neighbour
differences are blind to memory longer than a slice, and one block length is either too short or leaves too few blocks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from mlrunbook.domain.evaluation.block_score import Part, Scores

Array = Any  # numpy array of floats
Summed = Part | Scores

LENGTHS = (1, 2, 4, 7, 14, 28)  # blocks that are joined to one batch
LEAST_BATCHES = 8  # of a length, for the length to be tried
# Fewer blocks cannot show the memory of a few of them: 28 days of half-hours that remember a week looked three times too steady.
LEAST_BLOCKS = LEAST_BATCHES * 4
LEAST_ASSETS = 20  # to stand without blocks; from LEAST_BATCHES on they are heard beside them


@dataclass(frozen=True)
class LongRunVariance:
    """`per_weight`: the variance of a sum of scores is this times the sum of its weights. `dof`: how well that is known, as the degrees
    of freedom of a chi-squared, fewer where a few large sums make up most of it; `source` says which estimate it is, in words. `jump`: what
    a sum moves by when it moves, 0 where it moves both ways alike: with few errors a sum is no normal number.
    """

    per_weight: float
    dof: int
    source: str
    jump: float = 0.0


def long_run_variance(blocks: Summed, assets: Summed | None = None) -> LongRunVariance | None:
    """`blocks`: one score a block of equal time, oldest first; `assets`: one an asset, over the same outcomes.

    None: too few blocks and assets to know. Blocks without weight stay in: time without outcomes is time.
    """
    return max(estimates(blocks, assets), key=lambda v: v.per_weight, default=None)


def estimates(blocks: Summed, assets: Summed | None = None) -> list[LongRunVariance]:
    """One for each length of a batch, and that over assets; none where there are too few blocks and assets to know."""
    return [*_batch_means(blocks), *(_sandwich(assets) if assets is not None else ())] if _enough(blocks, assets) else []


def _enough(blocks: Summed, assets: Summed | None) -> bool:
    known = 0 if assets is None else int((_array(assets.weight) > 0).sum())
    return len(_array(blocks.weight)) >= LEAST_BLOCKS or known >= LEAST_ASSETS


def _batch_means(blocks: Summed) -> Iterator[LongRunVariance]:
    fall, weight = _array(blocks.fall), _array(blocks.weight)
    if not weight.sum() > 0:
        return
    centred = fall - fall.sum() / weight.sum() * weight
    for length in LENGTHS:
        batches = len(fall) // length
        if batches < LEAST_BATCHES:
            return
        kept = slice(len(fall) - batches * length, None)  # the newest
        sums, of = centred[kept].reshape(batches, length).sum(axis=1), weight[kept].sum()
        if of > 0:
            yield _estimate(sums, float(of), batches, f"{batches} batches of {length} block{'s' * (length > 1)}")


def _sandwich(assets: Summed) -> Iterator[LongRunVariance]:
    fall, weight = _array(assets.fall), _array(assets.weight)
    known = int((weight > 0).sum())
    if known >= LEAST_BATCHES:
        centred = fall - fall.sum() / weight.sum() * weight
        yield _estimate(centred, float(weight.sum()), known, f"{known} assets")


def _estimate(sums: Array, weight: float, known: int, source: str) -> LongRunVariance:
    """`dof` from the variance of a variance, 2 / (n - 1) + excess kurtosis / n, as 2 / dof (Satterthwaite 1946)."""
    squares = float((sums**2).sum())
    if not squares > 0:
        return LongRunVariance(0.0, known - 1, source)
    excess = max(float((sums**4).sum()) * known / squares**2 - 3, 0.0)
    dof = int(2 / (2 / (known - 1) + excess / known))
    jump = max(float((sums**3).sum()) / squares, 0.0)
    return LongRunVariance(squares / weight * known / (known - 1), max(dof, 1), source, jump)


def _array(values: Any) -> Array:
    import numpy as np

    return np.asarray(values, float)
