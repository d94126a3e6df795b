"""The model's columns: what a reading carries, what is computed from it, and what a request must hold.

Physical definitions of the engineered columns follow S. Matzka (2020), whose failure rules are written in them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mlrunbook.domain.errors import Invalid

if TYPE_CHECKING:
    import pandas as pd

ASSET_TYPE = "type"
ASSET_TYPES: tuple[str, ...] = ("L", "M", "H")  # product quality: low, medium, high; a fleet may hold others too
MAX_TYPE_CHARS = 64
NUMERIC: tuple[str, ...] = ("air_temperature_k", "process_temperature_k", "rotational_speed_rpm", "torque_nm", "tool_wear_min")
RAW: tuple[str, ...] = (ASSET_TYPE, *NUMERIC)
ENGINEERED: tuple[str, ...] = ("temperature_difference_k", "power_w", "strain_min_nm")
MODEL_COLUMNS: tuple[str, ...] = ("type_code", *NUMERIC, *ENGINEERED)


def engineer(frame: pd.DataFrame, asset_types: Sequence[str] = ASSET_TYPES) -> pd.DataFrame:
    """The columns a model learns from (MODEL_COLUMNS, float64) out of the raw ones (RAW); nulls stay NaN.

    A type is coded by its place in `asset_types`, those the model was trained on; any other is NaN, which the model takes for a missing
    value.
    """
    import numpy as np
    import pandas as pd

    codes = {name: float(i) for i, name in enumerate(asset_types)}
    out: dict[str, Any] = {"type_code": frame[ASSET_TYPE].map(codes).to_numpy(dtype=float)}
    out |= {name: frame[name].to_numpy(dtype=float) for name in NUMERIC}
    out["temperature_difference_k"] = out["process_temperature_k"] - out["air_temperature_k"]
    out["power_w"] = out["torque_nm"] * out["rotational_speed_rpm"] * (2 * np.pi / 60)
    out["strain_min_nm"] = out["torque_nm"] * out["tool_wear_min"]
    return pd.DataFrame(out, columns=list(MODEL_COLUMNS), index=frame.index)


def types_in(frame: pd.DataFrame) -> tuple[str, ...]:
    """The asset types that occur: the known ones in their order of quality, then others by name."""
    seen = set(frame[ASSET_TYPE].dropna().astype(str))
    return tuple(t for t in ASSET_TYPES if t in seen) + tuple(sorted(seen - set(ASSET_TYPES)))


def check(features: Mapping[str, Any]) -> int:
    """Validate one reading of a request; return how many of its RAW columns are null.

    A column that is absent, or holds the wrong type, is Invalid and the error names it. Columns we do not know are ignored.
    """
    nulls = 0
    for name in RAW:
        if name not in features:
            raise Invalid(f"features lack {name!r}: send every one of {', '.join(RAW)} (null where unknown)", field=f"features.{name}")
        value = features[name]
        if value is None:
            nulls += 1
        elif name == ASSET_TYPE:
            if not isinstance(value, str) or not 0 < len(value) <= MAX_TYPE_CHARS:
                raise Invalid(f"{name!r} must be a text of 1 to {MAX_TYPE_CHARS} characters, not {value!r}", field=f"features.{name}")
        elif isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise Invalid(f"{name!r} must be a finite number or null, not {value!r}", field=f"features.{name}")
    return nulls


def as_frame(readings: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Checked readings as a frame of RAW columns, numbers as float64 (null: NaN)."""
    import pandas as pd

    columns: dict[str, Any] = {ASSET_TYPE: pd.Series([r[ASSET_TYPE] for r in readings], dtype=object)}
    columns |= {name: pd.Series([r[name] for r in readings], dtype=float) for name in NUMERIC}
    return pd.DataFrame(columns)
