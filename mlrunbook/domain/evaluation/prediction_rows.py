"""Rows of the prediction log as the statistics take them: in time order, a column a feature, counts of the known outcomes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeGuard

from mlrunbook.domain.evaluation.drift import DriftVerdict, Reference
from mlrunbook.domain.evaluation.performance import Confusion
from mlrunbook.domain.observed import Prediction
from mlrunbook.domain.policy.judging import DriftPolicy

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

MOST = 1e150  # of a number that can be counted with: its square is a float still
_PLAIN = frozenset({float, int, type(None)})


def is_number(value: Any) -> TypeGuard[float]:
    """A number that can be counted with: no bool, no NaN, none that is infinite or too large for a float."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= MOST


def plain_numbers(values: Sequence[Any]) -> Floats | None:
    """Where all are numbers or None, as an array, NaN for None: value by value would take fifty times as long. None where others are
    among them."""
    import numpy as np

    if not set(map(type, values)) <= _PLAIN:
        return None
    try:
        return np.array(values, np.float64)
    except OverflowError:
        return None


def numbers_of(rows: Sequence[Prediction], name: str) -> Floats:
    """A value of the feature for each row; NaN where it is no number that can be counted with."""
    import numpy as np

    values = [p.features.get(name) for p in rows]
    plain = plain_numbers(values)
    if plain is None:
        return np.array([float(v) if is_number(v) else np.nan for v in values], np.float64)
    return np.where(np.abs(plain) <= MOST, plain, np.nan)


def in_time_order(predictions: Sequence[Prediction]) -> list[Prediction]:
    return sorted(predictions, key=lambda p: (p.at, p.id))


def feature_columns(predictions: Sequence[Prediction]) -> dict[str, list[Any]]:
    """A column a feature; a feature that a row lacks is None there. The asset type counts as a feature."""
    rows: list[Mapping[str, Any]] = [{"asset_type": p.asset_type} | dict(p.features) for p in predictions]
    names = sorted({name for row in rows for name in row})
    return {name: [row.get(name) for row in rows] for name in names}


def drift_between(before: Sequence[Prediction], now: Sequence[Prediction], policy: DriftPolicy | None = None) -> DriftVerdict:
    """Of the features of two samples in time order; rows of one asset resemble each other."""
    known = Reference.of(feature_columns(before), at=[p.at for p in before], entity=[p.asset_id for p in before])
    return known.compare(feature_columns(now), policy, at=[p.at for p in now], entity=[p.asset_id for p in now])


def confusion_of(predictions: Iterable[Prediction]) -> Confusion:
    """Counts of the predictions whose outcome is known."""
    cells = [0, 0, 0, 0]
    for p in predictions:
        if p.outcome is not None:
            cells[2 * p.label + p.outcome] += 1
    tn, fn, fp, tp = cells
    return Confusion(tp=tp, fp=fp, fn=fn, tn=tn)
