"""Mature outcomes by block of time and version, as arrays: what the replay is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any

from mlrunbook.domain.evaluation.block_score import Stacked
from mlrunbook.domain.evaluation.outcome_blocks import OutcomeBlocks
from mlrunbook.domain.tally import Confusion

CELLS = ("tp", "fp", "fn", "tn")
LADDER_S = (60, 300, 900, 3600, 21_600, 86_400, 604_800)
MOST_BLOCKS, FEW_BLOCKS, FAILURES_A_BLOCK = 1500, 90, 2.0


def part(counts: Stacked, at: Any) -> Stacked:
    return Stacked(*(getattr(counts, cell)[at] for cell in CELLS))


def summed(counts: Stacked, axis: int = 0) -> Stacked:
    return Stacked(*(getattr(counts, cell).sum(axis=axis) for cell in CELLS))


def confusion(counts: Stacked) -> Confusion:
    return Confusion(*(int(getattr(counts.total, cell)) for cell in CELLS))


def confusions(counts: Stacked) -> tuple[Confusion, ...]:
    rows = zip(*(getattr(counts, cell).tolist() for cell in CELLS), strict=True)
    return tuple(Confusion(*map(int, row)) for row in rows)


@dataclass(frozen=True, eq=False)
class VersionBlocks:
    """One version, from its `first` block on. `by_asset`: blocks by groups of assets; None where no asset is known."""

    version: str
    first: int
    counts: Stacked
    by_asset: Stacked | None = None

    @property
    def end(self) -> int:
        return self.first + len(self.counts.tp)

    def between(self, since: int, until: int) -> Stacked:
        return part(self.counts, slice(since - self.first, until - self.first))

    def assets_between(self, since: int, until: int) -> Stacked | None:
        if self.by_asset is None:
            return None
        held = summed(part(self.by_asset, slice(since - self.first, until - self.first)))
        return part(held, (held.tp + held.fp + held.fn + held.tn) > 0)


@dataclass(frozen=True, eq=False)
class BlockLog:
    """Block k holds what was predicted from `since` + k x `block_s` on, and closed once its last prediction is `age_s` old. `versions` by
    when they first served; `segments` and `total` over all of them, from block 0."""

    since: datetime
    block_s: float
    age_s: float
    versions: tuple[VersionBlocks, ...]
    segments: Mapping[str, Stacked]

    @cached_property
    def blocks(self) -> int:
        return max((v.end for v in self.versions), default=0)

    @cached_property
    def total(self) -> Stacked:
        import numpy as np

        cells = []
        for cell in CELLS:
            whole = np.zeros(self.blocks)
            for v in self.versions:
                whole[v.first : v.end] += getattr(v.counts, cell)
            cells.append(whole)
        return Stacked(*cells)

    def starts(self, block: int) -> datetime:
        return self.since + timedelta(seconds=block * self.block_s)

    def closes(self, block: int) -> datetime:
        """When the block is looked at first."""
        return self.starts(block + 1) + timedelta(seconds=self.age_s)

    def outcomes(self, version: VersionBlocks, since: int, until: int) -> OutcomeBlocks:
        assets = version.assets_between(since, until)
        return OutcomeBlocks(
            self.starts(since), self.block_s, confusions(version.between(since, until)), confusions(assets) if assets is not None else ()
        )

    def serving(self, block: int) -> VersionBlocks | None:
        """The version that made most of its predictions."""
        held = [(v.between(block, block + 1), v) for v in self.versions if v.first <= block < v.end]
        return max(held, key=lambda pair: confusion(pair[0]).n, default=(None, None))[1]


def block_length(span_s: float, failures: int) -> int:
    """As short as leaves a bounded number of blocks with a few failures each; long histories by whole days, which hold a daily cycle."""
    fits = [length for length in LADDER_S if span_s / length <= MOST_BLOCKS]
    enough = [length for length in fits if failures * length / max(span_s, 1) >= FAILURES_A_BLOCK and span_s / length >= FEW_BLOCKS]
    if enough:
        whole_days = [length for length in enough if length >= 86_400 and span_s / length >= FEW_BLOCKS]
        return whole_days[0] if whole_days else enough[0]
    many = [length for length in fits if span_s / length >= FEW_BLOCKS]
    return many[-1] if many else (fits or LADDER_S[-1:])[0]
