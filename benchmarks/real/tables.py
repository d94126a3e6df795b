"""A table and the small YAML that describes it, as a log of scored predictions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

Array = np.ndarray[Any, Any]


class BadTable(Exception):
    """What is wrong with a description or its table, and what to do."""


def _positive(length: str) -> str:
    if pd.Timedelta(length) <= pd.Timedelta(0):
        raise ValueError(f"{length!r} is no length of time: write 30min, 12h or 7d")
    return length


Length = Annotated[str, AfterValidator(_positive)]
Share = Annotated[float, Field(gt=0, lt=1)]


class Described(BaseModel):
    """`NAME.yaml`. Either `score` (and `threshold`) or a model fitted here: on the first `train` of the rows, its threshold chosen for
    the best F1 on the next `tune`; the rest is the log. `every` where the table has no `time` column: its rows are that far apart."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    table: str
    label: str
    time: str | None = None
    every: Length | None = None
    features: tuple[str, ...] | None = None
    score: str | None = None
    threshold: float | None = None
    train: Share = 0.4
    tune: Share = 0.1
    outcome_delay: str | None = None  # a column of seconds, or a length of time
    asset: str | None = None
    segment: str | None = None
    look: Length = "1d"
    block: Length = "7d"  # of the log, drawn as a whole: it keeps the memory in it
    baseline_looks: int = Field(default=112, ge=8)

    @model_validator(mode="after")
    def _sensible(self) -> Described:
        if (self.time is None) == (self.every is None):
            raise ValueError("name the `time` column, or how far apart rows are (`every: 30min`), one of the two")
        if self.score is not None and self.threshold is None:
            raise ValueError("a `score` needs its `threshold`")
        if pd.Timedelta(self.block) < pd.Timedelta("7d"):
            raise ValueError("a `block` must hold a week at least: shorter ones lose the memory of the week")
        if pd.Timedelta(self.block) % pd.Timedelta(self.look):
            raise ValueError("a `block` must hold whole `look`s")
        return self


@dataclass(frozen=True)
class Log:
    """Rows in time order, of the log part alone. `look` counts looks from the first row; `asset` and `segment` are codes from 0."""

    name: str
    described: Described
    flag: Array
    outcome: Array
    look: Array
    seconds: Array
    delay_s: Array
    features: pd.DataFrame
    asset: Array | None
    segment: Array | None

    @property
    def looks_in_block(self) -> int:
        return int(pd.Timedelta(self.described.block) / pd.Timedelta(self.described.look))

    @property
    def look_s(self) -> float:
        return pd.Timedelta(self.described.look).total_seconds()


def load_all(folder: Path) -> list[Log]:
    """Every described table of `folder`."""
    return [load(file) for file in described_in(folder)]


def described_in(folder: Path) -> list[Path]:
    files = sorted([*folder.glob("*.yaml"), *folder.glob("*.yml")])
    if not files:
        raise BadTable(f"{folder} holds no description (NAME.yaml): see docs/how-to/benchmark-real.md for one")
    return files


def load(file: Path) -> Log:
    described, table = read(file)
    try:
        return _log(file.stem, described, table)
    except ValueError as e:
        raise BadTable(f"{file.name}: {described.table} cannot be read: {e}") from e


def read(file: Path) -> tuple[Described, pd.DataFrame]:
    try:
        described = Described.model_validate(yaml.safe_load(file.read_text()))
    except (ValidationError, yaml.YAMLError) as e:
        raise BadTable(f"{file.name}: {e}") from e
    path = file.parent / described.table
    if not path.exists():
        raise BadTable(f"{file.name}: there is no table {path}")
    try:
        table = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)
        return described, _with_columns(file, described, table)
    except (ValueError, OSError) as e:
        raise BadTable(f"{file.name}: {described.table} cannot be read: {e}") from e


def _with_columns(file: Path, described: Described, table: pd.DataFrame) -> pd.DataFrame:
    named = [described.label, described.time, described.score, described.asset, described.segment, *(described.features or ())]
    if missing := [c for c in named if c is not None and c not in table]:
        raise BadTable(f"{file.name}: {described.table} has no column {', '.join(missing)}; it has {', '.join(map(str, table.columns))}")
    return table


def _log(name: str, described: Described, table: pd.DataFrame) -> Log:
    seconds = _seconds(described, table)
    order = np.argsort(seconds, kind="stable")
    table, seconds = table.iloc[order].reset_index(drop=True), seconds[order]
    outcome = _labels(name, described, table)
    features = _features(described, table)
    flag, first = _flags(described, table, features, outcome)
    kept = slice(first, None)
    look = ((seconds[kept] - seconds[first]) // pd.Timedelta(described.look).total_seconds()).astype(int)

    def codes(column: str | None) -> Array | None:
        return None if column is None else pd.factorize(table[column])[0][kept]

    return Log(
        name, described, flag[kept], outcome[kept], look, seconds[kept], _delays(described, table)[kept],
        features.iloc[kept].reset_index(drop=True), codes(described.asset), codes(described.segment),
    )  # fmt: skip


def _labels(name: str, described: Described, table: pd.DataFrame) -> Array:
    values = set(pd.unique(table[described.label]))
    if not values <= {0, 1}:
        raise BadTable(f"{name}: the label {described.label} must be 0 or 1 in every row, found {sorted(map(str, values))[:5]}")
    return table[described.label].to_numpy() == 1


def _seconds(described: Described, table: pd.DataFrame) -> Array:
    if described.time is None:
        return np.arange(len(table)) * pd.Timedelta(described.every).total_seconds()
    return pd.to_datetime(table[described.time], utc=True).astype("datetime64[s, UTC]").astype("int64").to_numpy().astype(float)


def _delays(described: Described, table: pd.DataFrame) -> Array:
    delay = described.outcome_delay
    if delay in table:
        return table[delay].to_numpy(float)
    return np.full(len(table), pd.Timedelta(delay).total_seconds() if delay else 0.0)


def _features(described: Described, table: pd.DataFrame) -> pd.DataFrame:
    other = {described.label, described.time, described.score, described.asset, described.outcome_delay}
    names = described.features or [c for c in table.select_dtypes("number").columns if c not in other]
    return table[list(names)]


def _flags(described: Described, table: pd.DataFrame, features: pd.DataFrame, outcome: Array) -> tuple[Array, int]:
    """Which rows are flagged, and where the log begins."""
    if described.score is not None:
        return table[described.score].to_numpy() >= described.threshold, 0
    from sklearn.ensemble import HistGradientBoostingClassifier

    trained, tuned = int(len(table) * described.train), int(len(table) * (described.train + described.tune))
    model = HistGradientBoostingClassifier(max_iter=120, learning_rate=0.08, max_leaf_nodes=15, random_state=0, early_stopping=False)
    values = features.to_numpy(float)
    scores = model.fit(values[:trained], outcome[:trained]).predict_proba(values)[:, 1]
    return scores >= best_threshold(scores[trained:tuned], outcome[trained:tuned]), tuned


def best_threshold(scores: Array, outcome: Array) -> float:
    """Of 200 quantiles the one with the best F1."""
    grid = np.unique(np.quantile(scores, np.linspace(0.01, 0.99, 200)))
    f1 = [2 * ((scores >= t) & outcome).sum() / max((scores >= t).sum() + outcome.sum(), 1) for t in grid]
    return float(grid[int(np.argmax(f1))])
