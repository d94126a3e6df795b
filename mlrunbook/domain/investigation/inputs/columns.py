"""The features of logged rows as arrays: what each value is, and the number it says."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from math import isfinite
from typing import TYPE_CHECKING, Any

from mlrunbook.domain.evaluation.column_values import truth_of
from mlrunbook.domain.evaluation.prediction_rows import plain_numbers
from mlrunbook.domain.observed import Prediction

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Bools = NDArray[np.bool_]
    Ints = NDArray[np.int64]

_PLAIN = re.compile(r"\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?\s*")
_LOCAL = re.compile(r"\s*[-+]?(\d{1,3}([.\s']\d{3})+|\d+)(,\d+)?\s*")  # 1.234,5: the comma is the decimal point


class Held(IntEnum):
    """What one value is. Infinite and not representable are apart from missing: somebody divided by zero there."""

    MISSING = 0
    NUMBER = 1
    TRUTH = 2
    NUMBER_AS_TEXT = 3
    INFINITE = 4
    OTHER = 5


@dataclass(frozen=True)
class Column:
    """`numbers` is NaN where a value says none. `codes` tells different values apart, numbers too: -1 where it is missing."""

    held: Ints
    numbers: Floats
    codes: Ints
    values: tuple[Any, ...]  # by code

    def at(self, rows: Any) -> Column:
        return Column(self.held[rows], self.numbers[rows], self.codes[rows], self.values)

    @property
    def n(self) -> int:
        return len(self.held)

    def share(self, what: Held) -> float:
        return float((self.held == what).mean()) if self.n else 0.0

    @property
    def is_numeric(self) -> bool:
        """Most of what is there are plain numbers."""
        plain, there = int((self.held == Held.NUMBER).sum()), int((self.held != Held.MISSING).sum())
        return there > 0 and plain >= 0.9 * there


def read(value: Any) -> tuple[Held, float]:
    nothing = float("nan")
    if value is None or value != value:
        return Held.MISSING, nothing
    if isinstance(value, bool):
        return Held.TRUTH, float(value)
    if isinstance(value, int | float):
        try:
            number = float(value)
        except OverflowError:
            return Held.INFINITE, nothing
        return (Held.NUMBER, number) if isfinite(number) else (Held.INFINITE, nothing)
    if isinstance(value, str):
        return _read_text(value)
    plain = value.item() if callable(getattr(value, "item", None)) and not getattr(value, "shape", None) else value
    return (Held.OTHER, nothing) if plain is value or type(plain) is type(value) else read(plain)  # a number of numpy


def _read_text(value: str) -> tuple[Held, float]:
    text = value.strip()
    if not text or text.lower() in ("nan", "null", "none", "n/a", "na"):
        return Held.MISSING, float("nan")
    if text.lower().lstrip("+-") in ("inf", "infinity"):
        return Held.INFINITE, float("nan")
    if (truth := truth_of(text)) is not None:
        return Held.TRUTH, float(truth)
    if len(text) > 40:
        return Held.OTHER, float("nan")
    if not _PLAIN.fullmatch(text):
        if not _LOCAL.fullmatch(text):
            return Held.OTHER, float("nan")
        text = re.sub(r"[.\s']", "", text).replace(",", ".")
    number = float(text)
    return (Held.NUMBER_AS_TEXT, number) if isfinite(number) else (Held.INFINITE, float("nan"))


def columns_of(reference: Sequence[Prediction], rows: Sequence[Prediction]) -> dict[str, tuple[Column, Column]]:
    """Every feature of the reference, there and in `rows`; what is new has nothing to be compared with."""
    names = sorted({name for p in reference for name in p.features})
    return {name: _pair([p.features.get(name) for p in reference], [p.features.get(name) for p in rows]) for name in names}


def _key(value: Any, held: Held, number: float) -> Any:
    return number if number == number else None if held is Held.MISSING else str(value)


def _pair(before: Sequence[Any], now: Sequence[Any]) -> tuple[Column, Column]:
    """Both with the same codes: what says the same is the same, however it is written."""
    old, new = plain_numbers(before), plain_numbers(now)
    return _read_pair(before, now) if old is None or new is None else _number_pair(old, new)


def _number_pair(before: Floats, now: Floats) -> tuple[Column, Column]:
    import numpy as np

    values = np.concatenate([before, now])
    held = np.where(np.isnan(values), Held.MISSING, np.where(np.isinf(values), Held.INFINITE, Held.NUMBER)).astype(np.int64)
    different, codes = np.unique(values, return_inverse=True)
    codes = np.where(np.isnan(values), -1, codes)
    numbers, told = np.where(np.isfinite(values), values, np.nan), tuple(different.tolist())
    n = len(before)
    return Column(held[:n], numbers[:n], codes[:n], told), Column(held[n:], numbers[n:], codes[n:], told)


def _read_pair(before: Sequence[Any], now: Sequence[Any]) -> tuple[Column, Column]:
    import numpy as np

    index: dict[Any, int] = {}
    parts = []
    for values in (before, now):
        told = [read(v) for v in values]
        keys = [_key(v, *said) for v, said in zip(values, told, strict=True)]
        codes = [-1 if key is None else index.setdefault(key, len(index)) for key in keys]
        parts.append((np.array([h for h, _ in told], np.int64), np.array([x for _, x in told], np.float64), np.array(codes, np.int64)))
    return Column(*parts[0], tuple(index)), Column(*parts[1], tuple(index))
