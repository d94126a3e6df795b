"""The runbook's plain thresholds: F1 of the newest block against the week before it, by its point estimate and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil
from typing import Any

from mlrunbook.domain.backtest.blocks import BlockLog
from mlrunbook.domain.evaluation.maturity import duration
from mlrunbook.domain.policy.judging import F1, DropPolicy

WEEK_S = 604_800.0
LEAST_BEFORE = 7  # blocks, where a block is longer than a day


@dataclass(frozen=True)
class Episode:
    """Blocks from `first` to `last`, both alarmed, with at most one quiet block in a row between."""

    first: int
    last: int
    looks: int
    worst: float


def before_blocks(block_s: float) -> int:
    return max(ceil(WEEK_S / block_s), LEAST_BEFORE)


def rule_words(block_s: float, drops: DropPolicy) -> str:
    rule = drops.rule(F1)
    limits = f"more than {rule.medium:.0%} (medium) or {rule.high:.0%} (high)" if rule and rule.high else f"more than {drops.most(F1):.0%}"
    before = duration(before_blocks(block_s) * block_s)
    return f"F1 of {duration(block_s)} is lower by {limits} than in the {before} before"


def drops_of(log: BlockLog) -> Any:
    """By block, the relative fall of F1; NaN where either side has none."""
    import numpy as np

    total, before = log.total, before_blocks(log.block_s)
    above, below = 2 * total.tp, 2 * total.tp + total.fp + total.fn

    def rolled(values: Any) -> Any:
        sums = np.concatenate([[0.0], np.cumsum(values)])
        at = np.arange(log.blocks)
        return sums[at] - sums[np.maximum(at - before, 0)]

    with np.errstate(divide="ignore", invalid="ignore"):
        was = rolled(above) / rolled(below)
        found = 1 - (above / below) / was
    found[~np.isfinite(found)] = np.nan
    found[:before] = np.nan
    return found


def episodes(drops: Any, limit: float) -> Iterator[Episode]:
    import numpy as np

    alarmed = np.flatnonzero(np.nan_to_num(drops, nan=-1.0) > limit).tolist()
    group: list[int] = []
    for block in alarmed:
        if group and block - group[-1] > 2:
            yield _episode(group, drops)
            group = []
        group.append(block)
    if group:
        yield _episode(group, drops)


def _episode(group: list[int], drops: Any) -> Episode:
    return Episode(group[0], group[-1], len(group), float(max(drops[group])))
