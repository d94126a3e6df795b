"""What goes wrong with the rows of a window: one function a kind, and what the runbook should answer.

Every kind changes what the model is fed (`fed`), and with it what the log holds; or the threshold, the outcomes, the times. `logged` is
set where the log holds what the model cannot read: text, an infinite number.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from mlrunbook.domain.actions import Path

Array = np.ndarray[Any, Any]


@dataclass
class Window:
    """`broken`: the rows that a fault touches, the newest. `columns`: the features, the one the model listens to most first."""

    fed: pd.DataFrame
    outcome: Array
    asset: Array
    segment: Array
    threshold: float
    broken: Array
    columns: list[str]
    rng: np.random.Generator
    logged: pd.DataFrame | None = None  # object columns; None: what was fed
    hours_off: Array | None = None
    reported: bool = False
    odd_segment: str = ""

    @property
    def column(self) -> str:
        return self.columns[0]

    def set(self, values: Callable[[Array], Array], *, where: Array | None = None) -> None:
        rows = self.broken if where is None else where
        self.fed.loc[rows, self.column] = values(self.fed.loc[rows, self.column].to_numpy(float))

    def spread(self) -> float:
        return float(np.nanstd(self.fed[self.column])) or 1.0


@dataclass(frozen=True)
class Expected:
    """`path` None: a person looks; retraining, a rollback or another threshold would be wrong. `names`: what the sentence must hold for
    the cause to count as named ("column", "segment", or text)."""

    path: Path | None
    names: str = ""
    fault: bool = True  # whether something is broken; else any named fault is a false one
    threshold: bool = False


@dataclass(frozen=True)
class Kind:
    name: str
    expected: Expected
    inject: Callable[[Window], None]
    partial: bool = True  # makes sense in the newest rows alone
    before: Callable[[Window], None] | None = field(default=None)  # what the baseline already held


LOOK = Expected(None, "column")
UNCHANGED = Expected(None, fault=False)
DRIFTED = Expected(Path.RETRAIN, fault=False)
SLIPPED = Expected(Path.THRESHOLD, threshold=True)


def _nothing(w: Window) -> None:
    pass


def _some_missing(w: Window) -> None:
    w.fed.loc[w.rng.random(len(w.fed)) < 0.3, w.column] = np.nan


def _flipped(w: Window) -> None:
    flip = w.rng.random(len(w.outcome)) < 0.35
    w.outcome = np.where(flip, ~w.outcome, w.outcome)


def _other_rule(w: Window) -> None:
    """What the readings mean changes where the most telling one is high."""
    values = w.fed[w.column].to_numpy(float)
    flip = (values > np.nanquantile(values, 0.6)) & (w.rng.random(len(values)) < 0.7)
    w.outcome = np.where(flip, ~w.outcome, w.outcome)


def _drift_with_one_odd_asset(w: Window) -> None:
    """One asset sends values that nobody else does: no attack, and too few to explain a fall."""
    _flipped(w)
    one = w.asset == w.asset[-1] if len(set(w.asset)) > 5 else w.rng.random(len(w.asset)) < 0.01
    w.set(lambda v: np.full(len(v), np.nanmax(w.fed[w.column]) * 1.05), where=one)


def _drift_with_missing(w: Window) -> None:
    _some_missing(w)
    _flipped(w)


def _threshold(to: Callable[[float], float], reported: bool = False) -> Callable[[Window], None]:
    def slip(w: Window) -> None:
        w.threshold, w.reported = to(w.threshold), reported

    return slip


def _low(threshold: float) -> float:
    return threshold / 8


def _high(threshold: float) -> float:
    return min(0.97, 1 - (1 - threshold) / 8)


def _values(change: Callable[[Array, Window], Array]) -> Callable[[Window], None]:
    return lambda w: w.set(lambda v: change(v, w))


def _clipped(v: Array, w: Window) -> Array:
    low, high = np.nanquantile(w.fed[w.column], [0.35, 0.65])
    return np.clip(v, low, high)


def _rounded(v: Array, w: Window) -> Array:
    return np.round(v / (2 * w.spread())) * 2 * w.spread()


def _sentinel(w: Window) -> None:
    w.set(lambda v: np.full(len(v), -999.0), where=w.broken & (w.rng.random(len(w.fed)) < 0.5))


def _as(value: Callable[[float], object]) -> Callable[[Window], None]:
    """In the log, and nothing for the model."""

    def change(w: Window) -> None:
        w.logged = w.fed.astype(object)
        w.logged.loc[w.broken, w.column] = [value(v) for v in w.fed.loc[w.broken, w.column]]
        w.fed.loc[w.broken, w.column] = np.nan

    return change


def _swapped(w: Window) -> None:
    a, b = w.columns[:2]
    w.fed.loc[w.broken, [a, b]] = w.fed.loc[w.broken, [b, a]].to_numpy()


def _shifted(w: Window) -> None:
    names = list(w.fed.columns)
    w.fed.loc[w.broken, names] = np.roll(w.fed.loc[w.broken, names].to_numpy(), 1, axis=1)


def _of_other_rows(w: Window) -> None:
    """A column that slipped by seven rows against the others."""
    w.set(lambda v: np.roll(v, 7))


def _of_any_row(w: Window) -> None:
    w.set(lambda v: w.rng.permutation(v))


def _late(w: Window) -> None:
    """What the asset said a while ago."""
    w.set(lambda v: np.concatenate([v[:1].repeat(min(50, len(v))), v[: max(len(v) - 50, 0)]]))


def _frozen(w: Window) -> None:
    """Each asset repeats the last value it had."""
    values = w.fed[w.column].to_numpy(float)
    last: dict[Any, float] = {}
    for i in np.flatnonzero(w.broken):
        values[i] = last.setdefault(w.asset[i], values[i])
    w.fed[w.column] = values


def _segment(w: Window) -> None:
    rows = np.flatnonzero(w.segment == w.odd_segment)
    w.fed.iloc[rows] = w.fed.iloc[w.rng.permutation(rows)].to_numpy()


def _other_zone(w: Window) -> None:
    w.hours_off = np.where(w.broken, -5.0, 0.0)


KINDS: tuple[Kind, ...] = (
    Kind("nothing", UNCHANGED, _nothing, partial=False),
    Kind("always 30 % missing", UNCHANGED, _some_missing, partial=False, before=_some_missing),
    Kind("concept drift", DRIFTED, _flipped, partial=False),
    Kind("concept drift, high values", DRIFTED, _other_rule, partial=False),
    Kind("concept drift, always missing", DRIFTED, _drift_with_missing, partial=False, before=_some_missing),
    Kind("concept drift, one odd asset", DRIFTED, _drift_with_one_odd_asset, partial=False),
    Kind("threshold low", SLIPPED, _threshold(_low), partial=False),
    Kind("threshold high", SLIPPED, _threshold(_high), partial=False),
    Kind("threshold low, reported", SLIPPED, _threshold(_low, True), partial=False),
    Kind("threshold high, reported", SLIPPED, _threshold(_high, True), partial=False),
    Kind("x10", LOOK, _values(lambda v, w: v * 10)),
    Kind("x0.001", LOOK, _values(lambda v, w: v / 1000)),
    Kind("Fahrenheit", LOOK, _values(lambda v, w: v * 1.8 + 32)),
    Kind("offset", LOOK, _values(lambda v, w: v + 3 * w.spread())),
    Kind("sign", LOOK, _values(lambda v, w: -v)),
    Kind("clipped", LOOK, _values(_clipped)),
    Kind("rounded", LOOK, _values(_rounded)),
    Kind("constant", LOOK, _values(lambda v, w: np.full(len(v), float(np.nanmax(w.fed[w.column]))))),
    Kind("-999", LOOK, _sentinel),
    Kind("missing", LOOK, _values(lambda v, w: np.full(len(v), np.nan))),
    Kind("infinite", LOOK, _as(lambda v: float("inf"))),
    Kind("text", LOOK, _as(lambda v: f"{v:.3f}")),
    Kind("swapped", LOOK, _swapped),
    Kind("shifted by a column", LOOK, _shifted),
    Kind("slipped by rows", LOOK, _of_other_rows),
    Kind("of any row", LOOK, _of_any_row),
    Kind("late", LOOK, _late),
    Kind("frozen", LOOK, _frozen),
    Kind("segment", Expected(None, "segment"), _segment, partial=False),
    Kind("local time", Expected(None, "the log's times"), _other_zone),
)
