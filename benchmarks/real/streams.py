"""Streams in which nothing changes, made of what really happened: blocks of the log drawn with replacement, or stretches of whole assets.

A unit is a block of the log, or of one asset's log, cut into looks. A stream runs one unit after the other; where assets are known, as many
side by side as there are assets, each begun at a random look of its first unit, so that they do not all change units at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.real.tables import BadTable, Log

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Counts:
    """Arrays of one shape."""

    tp: Array
    fp: Array
    fn: Array
    tn: Array

    def __getitem__(self, at: Any) -> Counts:
        return Counts(self.tp[at], self.fp[at], self.fn[at], self.tn[at])

    def total(self, axis: Any = None) -> Counts:
        return Counts(*(c.sum(axis=axis) for c in (self.tp, self.fp, self.fn, self.tn)))

    @property
    def n(self) -> Array:
        return self.tp + self.fp + self.fn + self.tn

    @property
    def positives(self) -> Array:
        return self.tp + self.fn

    @property
    def f1(self) -> Array:
        return 2 * self.tp / np.maximum(2 * self.tp + self.fp + self.fn, 1)


@dataclass(frozen=True)
class Pool:
    """`counts` by unit and look; `rows` of the log in the order of their units and looks, those of unit u at look k from
    `first[u, k]` on, as many as it counts."""

    log: Log
    counts: Counts
    rows: Array
    first: Array
    side_by_side: int

    @classmethod
    def of(cls, log: Log) -> Pool:
        looks = log.looks_in_block
        block, within = np.divmod(log.look, looks)
        asset = log.asset if log.asset is not None else np.zeros(len(log.look), int)
        assets, whole = int(asset.max()) + 1, (int(log.look.max()) + 1) // looks
        if assets * whole < 8:
            held = f"{assets * whole} blocks of {log.described.block}"
            raise BadTable(f"{log.name}: its log holds {held}, 8 needed: give it a longer log, or train on less")
        kept = np.flatnonzero(block < whole)
        cell = (asset[kept] * whole + block[kept]) * looks + within[kept]
        order = np.argsort(cell, kind="stable")
        cells, shape = assets * whole * looks, (assets * whole, looks)
        kind = np.where(log.outcome, np.where(log.flag, 0, 2), np.where(log.flag, 1, 3))[kept]
        counts = np.bincount(cell * 4 + kind, minlength=cells * 4).reshape(*shape, 4)
        first = np.searchsorted(cell[order], np.arange(cells)).reshape(shape)
        used = counts.sum(axis=(1, 2)) > 0
        return cls(log, Counts(*np.moveaxis(counts[used], 2, 0)), kept[order], first[used], assets)

    @property
    def all(self) -> Counts:
        return self.counts.total()

    @property
    def per_look(self) -> float:
        """Rows a look of a stream."""
        return float(self.all.n) / (self.counts.tp.size) * self.side_by_side

    def draw(self, rng: np.random.Generator, looks: int) -> Stream:
        units, length = self.counts.tp.shape
        chosen = rng.integers(units, size=(self.side_by_side, looks // length + 2))
        offset = rng.integers(length, size=(self.side_by_side, 1)) if self.side_by_side > 1 else np.zeros((1, 1), int)
        unit, look = np.divmod(np.arange(looks)[None] + offset, length)
        return Stream(self, np.take_along_axis(chosen, unit, axis=1), look)


@dataclass(frozen=True)
class Stream:
    """What was drawn: by asset and look, the unit and the look in it."""

    pool: Pool
    unit: Array
    look: Array

    @property
    def counts(self) -> Counts:
        return self.pool.counts[self.unit, self.look]

    def seconds(self, looks: int) -> Array:
        """Since the stream began, of `rows`, which are not in the order of time within a look."""
        log = self.pool.log
        look = np.repeat(np.arange(looks), self.counts.n[:, :looks].sum(axis=0))
        return look * log.look_s + (log.seconds[self.rows(looks)] - log.seconds[0]) % log.look_s

    def rows(self, looks: int) -> Array:
        """Rows of the log in the order of the stream's first `looks`."""
        first, n = self.pool.first[self.unit, self.look][:, :looks].T.ravel(), self.counts.n[:, :looks].T.ravel()
        ends = np.cumsum(n)
        return self.pool.rows[np.repeat(first - ends + n, n) + np.arange(ends[-1])]


def replaced_share(counts: Counts, fall: float) -> float:
    """How many predictions must become random flags of the same share, for F1 to fall by `fall`."""
    total = counts.total()
    flagged = (total.tp + total.fp) / total.n
    caught_by_chance = flagged * (total.tp + total.fn)
    return min(float(fall * total.tp / max(total.tp - caught_by_chance, 1e-9)), 1.0)


def fallen(rng: np.random.Generator, counts: Counts, replaced: float, flagged: float) -> Counts:
    """Each prediction is replaced with probability `replaced` by a random flag, set with probability `flagged`."""
    tp, fp, fn, tn = (rng.binomial(c, 1 - replaced) for c in (counts.tp, counts.fp, counts.fn, counts.tn))
    positives, negatives = counts.tp + counts.fn - tp - fn, counts.fp + counts.tn - fp - tn
    caught, alarmed = rng.binomial(positives, flagged), rng.binomial(negatives, flagged)
    return Counts(tp + caught, fp + alarmed, fn + positives - caught, tn + negatives - alarmed)


def rarer(rng: np.random.Generator, counts: Counts, kept: float) -> Counts:
    """A share of the failures, whichever they are."""
    return Counts(rng.binomial(counts.tp, kept), counts.fp, rng.binomial(counts.fn, kept), counts.tn)
