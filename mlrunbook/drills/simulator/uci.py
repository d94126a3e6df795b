"""The real AI4I 2020 table (UCI machine learning repository, data set 601) as a source of readings. Not shipped: give its path."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mlrunbook.domain.errors import Invalid
from mlrunbook.local.platform.columns import ASSET_TYPE, ASSET_TYPES, NUMERIC

if TYPE_CHECKING:
    import pandas as pd

# The table's column names and ours.
COLUMNS: dict[str, str] = {
    "UDI": "udi",
    "Product ID": "asset_id",
    "Type": ASSET_TYPE,
    "Air temperature [K]": "air_temperature_k",
    "Process temperature [K]": "process_temperature_k",
    "Rotational speed [rpm]": "rotational_speed_rpm",
    "Torque [Nm]": "torque_nm",
    "Tool wear [min]": "tool_wear_min",
    "Machine failure": "failed",
    "TWF": "twf",
    "HDF": "hdf",
    "PWF": "pwf",
    "OSF": "osf",
    "RNF": "rnf",
}
FLAGS = ("failed", "twf", "hdf", "pwf", "osf", "rnf")
TRAIN_SHARE = 0.6


def read_table(path: Path) -> pd.DataFrame:
    """The whole table, oldest row first, under our column names. Invalid names the file, and the column where one is at fault."""
    import pandas as pd

    try:
        table = pd.read_csv(path, encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError, pd.errors.EmptyDataError, pd.errors.ParserError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise Invalid(f"{path} is not a readable CSV file ({reason}); give the AI4I 2020 table as CSV", field="data") from error
    for name in COLUMNS:
        if name not in table.columns:
            raise Invalid(f"{path} lacks the column {name!r}; give the AI4I 2020 table with its own column names", field=name)
    if table.empty:
        raise Invalid(f"{path} has a header and no rows; give the AI4I 2020 table as CSV", field="data")
    table = table[list(COLUMNS)].rename(columns=COLUMNS)
    theirs = {ours: name for name, ours in COLUMNS.items()}
    for ours in ("udi", *NUMERIC, *FLAGS):
        table[ours] = pd.to_numeric(table[ours], errors="coerce").astype(float)
        if not np.isfinite(table[ours]).all():
            row = int(np.flatnonzero(~np.isfinite(table[ours]))[0]) + 2
            raise Invalid(f"{path}, line {row}: {theirs[ours]!r} is not a number", field=theirs[ours])
    for ours in FLAGS:
        if not table[ours].isin((0, 1)).all():
            raise Invalid(f"{path}: {theirs[ours]!r} must hold 0 and 1 only", field=theirs[ours])
    if not table[ASSET_TYPE].isin(ASSET_TYPES).all():
        raise Invalid(f"{path}: 'Type' must be one of {', '.join(ASSET_TYPES)}", field="Type")
    table = table.sort_values("udi", kind="stable", ignore_index=True).drop(columns="udi")
    table["asset_id"] = table["asset_id"].astype(str)
    return table.astype(dict.fromkeys(FLAGS, bool))


class UciTable:
    """The table as a source (fleet.Source): the oldest 60 % to train on, the rest again and again, shuffled, as traffic."""

    def __init__(self, path: Path, seed: int) -> None:
        table = read_table(path)
        cut = int(len(table) * TRAIN_SHARE)
        self._past, self._later = table.iloc[:cut], table.iloc[cut:]
        self._rng = np.random.default_rng(seed)
        if not (self._past["failed"].any() and self._later["failed"].any()):
            raise Invalid(
                f"{path}: {len(table)} rows hold too few failures to learn from and to check on; give the whole table", field="data"
            )

    def training(self, n: int) -> pd.DataFrame:
        return self._past.tail(n).reset_index(drop=True)

    def readings(self, n: int) -> pd.DataFrame:
        """No row twice within the length of the table: an asset has one reading at a time."""
        shuffles = [self._rng.permutation(len(self._later)) for _ in range(-(-n // len(self._later)))]
        return self._later.iloc[np.concatenate(shuffles)[:n]].reset_index(drop=True)
