"""How many outcomes of a group count as one because they come in clusters: for segments and for fairness, group by group.

One failure that makes seven positive days, or one machine that the model does not understand, is one piece of evidence. The variance is
that of `long_run_variance`, on the trials of the Jaccard index TP/(TP+FP+FN), on which F1's interval rests.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

from mlrunbook.domain.evaluation.accumulated import student
from mlrunbook.domain.evaluation.block_score import Counts, Scores
from mlrunbook.domain.evaluation.long_run_variance import long_run_variance

_LEAST_DOF = 3


@dataclass(frozen=True)
class Grouped:
    """One group's counts by block of equal time, oldest first, and by asset where assets are known; numpy arrays in both."""

    blocks: Counts
    assets: Counts | None = None


@dataclass(frozen=True)
class Clustering:
    """`per_one` outcomes count as one, at least 1; it already pays for being an estimate on `dof` degrees of freedom, so that an interval
    by the normal quantile is as wide as Student's."""

    per_one: float
    dof: int
    source: str


def clustering_of_group(group: Grouped, *, confidence: float = 0.95) -> Clustering | None:
    """None: too few blocks and assets to know, and the group is not to be judged; or it has nothing to count."""
    caught, trials = _sums(group.blocks)
    if not trials.sum() > 0:
        return None
    share = float((caught.sum() + 0.5) / (trials.sum() + 1))  # a group without an error is not known to be without any

    def influence(counts: Counts) -> Scores:
        of, out_of = _sums(counts)
        return Scores(of - share * out_of, out_of)

    found = long_run_variance(influence(group.blocks), influence(group.assets) if group.assets is not None else None)
    if found is None or found.dof < _LEAST_DOF:
        return None
    tail = (1 - confidence) / 2
    widened = (student(tail, found.dof) / NormalDist().inv_cdf(1 - tail)) ** 2
    return Clustering(max(found.per_weight / (share * (1 - share)), 1.0) * widened, found.dof, found.source)


def clustering_of_groups(groups: Mapping[str, Grouped], *, confidence: float = 0.95) -> dict[str, Clustering | None]:
    """`clustering_of_group` of each; linear in the groups."""
    return {name: clustering_of_group(group, confidence=confidence) for name, group in groups.items()}


def _sums(counts: Counts) -> tuple[Any, Any]:
    import numpy as np

    caught = np.asarray(counts.tp, float)
    return caught, caught + counts.fp + counts.fn
