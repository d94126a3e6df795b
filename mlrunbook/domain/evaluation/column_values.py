"""Values of a column as numbers, or as categories: what says the same is the same, whoever writes the log."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]


def numbers_of(values: Any) -> tuple[Floats | None, bool]:
    """The column as float64, and whether it may be read as categories too; None when it holds nothing but categories. What is no number
    counts as null, unless it is most of the column."""
    import numpy as np

    if isinstance(values, np.ndarray) and values.dtype.kind in "fiu":
        return values.astype(np.float64, copy=False), False
    kinds = set(map(type, values))
    truths = {k for k in kinds if issubclass(k, (bool, np.bool_))}
    plain = {k for k in kinds if issubclass(k, (float, int, np.floating, np.integer))} - truths
    if kinds <= plain | {type(None)}:
        return (_floats(values) if plain else np.full(len(values), np.nan)), False
    numbers = _floats(values)
    others = sum(number != number and not _is_null(v) for v, number in zip(values, numbers.tolist(), strict=True))
    if plain:
        return (numbers if np.isfinite(numbers).sum() > others else None), False
    return (numbers, True) if not others else (None, False)


def _floats(values: Any) -> Floats:
    import numpy as np

    try:
        return np.array(values, dtype=np.float64)  # quick, and right for numbers and None alone
    except (TypeError, ValueError, OverflowError):
        return np.array([number_of(v) for v in values], dtype=np.float64)


_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")


def number_of(value: Any) -> float:
    """What a value says as a number, however it is written; NaN where it says none, or one that is not finite."""
    if isinstance(value, str):
        text = value.strip()
        if (truth := truth_of(text)) is not None:
            return float(truth)
        if not _NUMBER.fullmatch(text):
            return math.nan
        value = text
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan
    return number if math.isfinite(number) else math.nan


def truth_of(text: str) -> bool | None:
    return {"true": True, "false": False}.get(text.lower())


def _is_null(value: Any) -> bool:
    return value is None or bool(value != value)


def name_of(value: Any) -> str | None:
    """The category of one value: one name for all ways to write it. Ids with leading zeros are left as they are."""
    if type(value) is str and not value[:1].isdigit() and value[:1] not in "+-.tTfF":
        return value  # most are plain words
    if _is_null(value):
        return None
    text = str(value).strip()
    number = number_of(value)
    if number != number or (isinstance(value, str) and re.match(r"[-+]?0\d", text)):
        return text
    return str(int(number)) if number.is_integer() and abs(number) < 2**53 else text


def categories_of(values: Any) -> tuple[Ints, tuple[str, ...]]:
    import numpy as np

    listed = values.tolist() if isinstance(values, np.ndarray) else list(values)
    named = {v: name_of(v) for v in set(listed)} if set(map(type, listed)) <= {str, type(None)} else None
    said = [named[v] for v in listed] if named is not None else [name_of(v) for v in listed]
    names = [name for name in dict.fromkeys(said) if name is not None]
    index: dict[str | None, int] = {name: i for i, name in enumerate(names)} | {None: -1}
    return np.fromiter(map(index.__getitem__, said), np.int64, len(said)), tuple(names)
