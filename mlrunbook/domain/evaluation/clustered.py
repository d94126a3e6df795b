"""How many outcomes of a group count as one because they come in clusters: for segments and for fairness, group by group.

One failure that makes seven positive days, or one machine that the model does not understand, is one piece of evidence. The variance is
that of `long_run_variance`, on the trials of the Jaccard index TP/(TP+FP+FN), on which F1's interval rests.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import sqrt
from statistics import NormalDist
from typing import Any, Self

from mlrunbook.domain.evaluation.accumulated import student
from mlrunbook.domain.evaluation.block_score import Counts, Scores, Stacked
from mlrunbook.domain.evaluation.long_run_variance import LongRunVariance, estimates
from mlrunbook.domain.tally import Tally, as_binary

_LEAST_DOF = 3
BEYOND_CHANCE = 1.64  # standard errors: of several estimates on independent outcomes the largest is far over 1
_MOST_CONFIDENCE = 0.999  # Student's quantiles further out are those of a normal sum no more


@dataclass(frozen=True)
class Grouped:
    """One group's counts by block of equal time, oldest first, and by asset where assets are known; numpy arrays in both."""

    blocks: Counts
    assets: Counts | None = None

    @classmethod
    def of(cls, blocks: Sequence[Tally], assets: Sequence[Tally] = ()) -> Self:
        return cls(_stacked(blocks), _stacked(assets) if assets else None)


@dataclass(frozen=True)
class Parts:
    """The groups of a window by block of time and by asset, where they are known."""

    blocks: Mapping[str, Sequence[Tally]] = field(default_factory=dict)
    assets: Mapping[str, Sequence[Tally]] = field(default_factory=dict)

    @property
    def names(self) -> set[str]:
        return {*self.blocks, *self.assets}

    def of(self, names: Collection[str]) -> Parts:
        """These groups alone."""
        blocks, assets = ({name: parts for name, parts in of.items() if name in names} for of in (self.blocks, self.assets))
        return Parts(blocks, assets)

    def group(self, name: str) -> Grouped | None:
        blocks, assets = self.blocks.get(name, ()), self.assets.get(name, ())
        return Grouped.of(blocks, assets) if blocks or assets else None


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
    of_assets = _sums(group.assets) if group.assets is not None else None
    if of_assets is not None and not trials.sum() > 0:
        caught, trials = of_assets
    if not trials.sum() > 0:
        return None
    share = float((caught.sum() + 0.5) / (trials.sum() + 1))  # a group without an error is not known to be without any

    def influence(counts: Counts) -> Scores:
        of, out_of = _sums(counts)
        return Scores(of - share * out_of, out_of)

    found = estimates(influence(group.blocks), influence(group.assets) if group.assets is not None else None)
    known = [one for one in found if one.dof >= _LEAST_DOF]
    if not known:
        return None
    tail = (1 - min(confidence, _MOST_CONFIDENCE)) / 2

    def clustering(one: LongRunVariance) -> Clustering:
        per_one = one.per_weight / (share * (1 - share))
        if per_one <= 1 + BEYOND_CHANCE * sqrt(2 / one.dof):
            return Clustering(1.0, one.dof, one.source)
        return Clustering(per_one * (student(tail, one.dof) / NormalDist().inv_cdf(1 - tail)) ** 2, one.dof, one.source)

    return max(map(clustering, known), key=lambda c: (c.per_one, c.dof))


def clustering_of_groups(groups: Mapping[str, Grouped], *, confidence: float = 0.95) -> dict[str, Clustering | None]:
    """`clustering_of_group` of each; linear in the groups."""
    return {name: clustering_of_group(group, confidence=confidence) for name, group in groups.items()}


def outcomes_per_one(baseline: Parts, current: Parts, *, confidence: float) -> dict[str, float]:
    """By group, how many outcomes count as one. As the baseline says: a fall inside the current window would pass for a cluster, and hide
    itself; else as the current window does. A group too small to say counts as all groups together do. Empty where no window says
    anything."""
    found: dict[str, float] = {}
    left = baseline.names | current.names
    for parts in (baseline, current):
        groups = {name: group for name in sorted(left) if (group := parts.group(name)) is not None}
        known = {name: c.per_one for name, c in clustering_of_groups(groups, confidence=confidence).items() if c is not None}
        found |= known
        left -= known.keys()
    if left and (together := _together(baseline, confidence) or _together(current, confidence)):
        found |= dict.fromkeys(left, together)
    return found


def _together(parts: Parts, confidence: float) -> float | None:
    import numpy as np

    stacked = [_stacked(blocks) for blocks in parts.blocks.values() if blocks]
    longest = max((len(s.tp) for s in stacked), default=0)
    cells = [[getattr(s, cell) for s in stacked if len(s.tp) == longest] for cell in ("tp", "fp", "fn", "tn")]
    blocks = Stacked(*(np.sum(cell, axis=0) if cell else np.zeros(0) for cell in cells))
    assets = [asset for of_group in parts.assets.values() for asset in of_group]
    found = clustering_of_group(Grouped(blocks, _stacked(assets) if assets else None), confidence=confidence)
    return found.per_one if found else None


def _stacked(tallies: Iterable[Tally]) -> Stacked:
    return Stacked.of([as_binary(tally) for tally in tallies])


def _sums(counts: Counts) -> tuple[Any, Any]:
    import numpy as np

    caught = np.asarray(counts.tp, float)
    return caught, caught + counts.fp + counts.fn
