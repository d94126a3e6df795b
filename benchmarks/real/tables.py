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
    positive: str | int | float | bool | None = None  # the label of a failure, where it is none of 1, true and yes
    time: str | None = None
    every: Length | None = None
    features: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
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
    left_out: str = ""  # rows that cannot be used, in words

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
    except BadTable as e:
        raise BadTable(f"{file.name}: {e}") from e


def read(file: Path) -> tuple[Described, pd.DataFrame]:
    described = _described(file)
    path = file.parent / described.table
    if not path.is_file():
        raise BadTable(f"{file.name}: `table`: there is no file {path}")
    try:
        table = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path, low_memory=False)
    except (ValueError, OSError) as e:  # of pandas and of pyarrow too
        raise BadTable(
            f"{file.name}: {described.table} is no readable {'Parquet' if path.suffix == '.parquet' else 'CSV'} file: {e}"
        ) from e
    return described, _with_columns(file, described, table)


def in_order(described: Described, table: pd.DataFrame) -> tuple[pd.DataFrame, Array]:
    """The rows that have what every row needs, by time, and which of them failed."""
    table, _ = _usable(described, table)
    table = table.iloc[np.argsort(_seconds(described, table), kind="stable")].reset_index(drop=True)
    return table, _labels(described, table)


def _described(file: Path) -> Described:
    try:
        content = yaml.safe_load(file.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as e:
        raise BadTable(f"{file.name} is no YAML: {' '.join(str(e).split())}") from e
    if not isinstance(content, dict):
        raise BadTable(f"{file.name} must hold keys and values, of which `table` and `label` are needed: see docs/how-to/benchmark-real.md")
    try:
        return Described.model_validate(content)
    except ValidationError as e:
        raise BadTable(f"{file.name}: {'; '.join(_words(error) for error in e.errors())}") from e


def _words(error: Any) -> str:
    key = ".".join(map(str, error["loc"]))
    if error["type"] == "extra_forbidden":
        return f"there is no key `{key}`; the keys are {', '.join(Described.model_fields)}"
    if error["type"] == "missing":
        return f"the key `{key}` is missing"
    said = error["msg"].removeprefix("Value error, ")
    return f"`{key}`: {said} (it is {error['input']!r})" if key else said


def _with_columns(file: Path, described: Described, table: pd.DataFrame) -> pd.DataFrame:
    named = [described.label, described.time, described.score, described.asset, described.segment, *(described.features or ())]
    if missing := [c for c in named if c is not None and c not in table]:
        raise BadTable(f"{file.name}: {described.table} has no column {', '.join(missing)}; it has {', '.join(map(str, table.columns))}")
    return table


def _log(name: str, described: Described, table: pd.DataFrame) -> Log:
    table, left_out = _usable(described, table)
    seconds = _seconds(described, table)
    order = np.argsort(seconds, kind="stable")
    table, seconds = table.iloc[order].reset_index(drop=True), seconds[order]
    outcome = _labels(described, table)
    features = _features(described, table)
    flag, first = _flags(described, table, features, outcome)
    kept = slice(first, None)
    if not 0 < outcome[kept].sum() < len(outcome[kept]):
        raise BadTable(f"`label`: every row of the log has the same {described.label}: nothing to measure")
    look = ((seconds[kept] - seconds[first]) // pd.Timedelta(described.look).total_seconds()).astype(int)

    def codes(column: str | None) -> Array | None:
        return None if column is None else pd.factorize(table[column][kept], use_na_sentinel=False)[0]

    return Log(
        name, described, flag[kept], outcome[kept], look, seconds[kept], _delays(described, table)[kept],
        features.iloc[kept].reset_index(drop=True), codes(described.asset), codes(described.segment), left_out,
    )  # fmt: skip


def _usable(described: Described, table: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Without the rows that lack what every row needs, and how many those are."""
    needed = [c for c in (described.label, described.time, described.score) if c is not None]
    lacks = {c: int(table[c].isna().sum()) for c in needed}
    kept = table.dropna(subset=needed).reset_index(drop=True)
    if kept.empty:
        raise BadTable(f"no row of {described.table} has a value in {' and '.join(needed)}")
    return kept, ", ".join(f"{n:,} rows without {c}" for c, n in lacks.items() if n)


_FAILED, _HEALTHY = ("1", "1.0", "true", "t", "yes", "y"), ("0", "0.0", "false", "f", "no", "n")


def _labels(described: Described, table: pd.DataFrame) -> Array:
    said = table[described.label].astype(str).str.strip().str.lower()
    values = sorted(said.unique())
    if described.positive is not None:
        positive = str(described.positive).strip().lower()
        if positive not in values:
            raise BadTable(f"`positive`: no row has the {described.label} {described.positive!r}; there are {_few(values)}")
        return (said == positive).to_numpy()
    if not set(values) <= {*_FAILED, *_HEALTHY}:
        raise BadTable(f"`label`: {described.label} holds {_few(values)}; name the one that is a failure, as in `positive: {values[0]}`")
    return said.isin(_FAILED).to_numpy()


def _few(values: list[str]) -> str:
    return ", ".join(values[:5]) + (f" and {len(values) - 5} more" if len(values) > 5 else "")


_UNITS = ((1e17, "ns"), (1e14, "us"), (1e11, "ms"), (1e8, "s"))  # of seconds since 1970, by how large they are


def _seconds(described: Described, table: pd.DataFrame) -> Array:
    if described.time is None:
        return np.arange(len(table)) * pd.Timedelta(described.every).total_seconds()
    column, unit = table[described.time], None
    if pd.api.types.is_numeric_dtype(column):
        unit = next((unit for least, unit in _UNITS if column.median() > least), None)
        if unit is None:
            example = column.iloc[0]
            raise BadTable(f"`time`: {described.time} holds numbers that are no times since 1970 ({example}); use `every: 1d` instead")
    try:
        times = pd.to_datetime(column, utc=True, unit=unit, format=None if unit else "mixed")
    except (ValueError, OverflowError) as e:
        raise BadTable(f"`time`: {described.time} holds what is no time: {e}") from e
    return times.astype("datetime64[s, UTC]").astype("int64").to_numpy().astype(float)


def _delays(described: Described, table: pd.DataFrame) -> Array:
    delay = described.outcome_delay
    if delay in table:
        return _numbers("outcome_delay", str(delay), table)
    try:
        return np.full(len(table), pd.Timedelta(delay).total_seconds() if delay else 0.0)
    except ValueError as e:
        raise BadTable(f"`outcome_delay`: {delay!r} is neither a column nor a length of time (7d)") from e


def _numbers(key: str, column: str, table: pd.DataFrame) -> Array:
    numbers = pd.to_numeric(table[column], errors="coerce")
    if (bad := numbers.isna() & table[column].notna()).any():
        raise BadTable(f"`{key}`: {column} must hold numbers, found {table[column][bad].iloc[0]!r} in {int(bad.sum()):,} rows")
    return numbers.to_numpy(float)


def _features(described: Described, table: pd.DataFrame) -> pd.DataFrame:
    """As numbers: a code for each text."""
    other = {described.label, described.time, described.score, described.asset, described.outcome_delay}
    names = described.features or [c for c in table.select_dtypes(["number", "bool"]).columns if c not in other]

    def numbers(column: pd.Series) -> Array:
        if pd.api.types.is_numeric_dtype(column) or pd.api.types.is_bool_dtype(column):
            return column.to_numpy(float, na_value=np.nan)
        codes = pd.factorize(column)[0].astype(float)
        return np.where(codes < 0, np.nan, codes)

    return pd.DataFrame({name: numbers(table[name]) for name in names})


def _flags(described: Described, table: pd.DataFrame, features: pd.DataFrame, outcome: Array) -> tuple[Array, int]:
    """Which rows are flagged, and where the log begins."""
    if described.score is not None:
        return _numbers("score", described.score, table) >= described.threshold, 0
    from sklearn.ensemble import HistGradientBoostingClassifier

    trained, tuned = int(len(table) * described.train), int(len(table) * (described.train + described.tune))
    if features.empty:
        raise BadTable("there is no column of numbers to fit a model on: name `features`, or a `score` and its `threshold`")
    for key, part in (("train", outcome[:trained]), ("tune", outcome[trained:tuned])):
        if not 0 < part.sum() < len(part):
            raise BadTable(f"`{key}`: every one of its {len(part):,} rows has the same {described.label}; make it larger")
    model = HistGradientBoostingClassifier(max_iter=120, learning_rate=0.08, max_leaf_nodes=15, random_state=0, early_stopping=False)
    values = features.to_numpy(float)
    scores = model.fit(values[:trained], outcome[:trained]).predict_proba(values)[:, 1]
    return scores >= best_threshold(scores[trained:tuned], outcome[trained:tuned]), tuned


def best_threshold(scores: Array, outcome: Array) -> float:
    """Of 200 quantiles the one with the best F1."""
    grid = np.unique(np.quantile(scores, np.linspace(0.01, 0.99, 200)))
    f1 = [2 * ((scores >= t) & outcome).sum() / max((scores >= t).sum() + outcome.sum(), 1) for t in grid]
    return float(grid[int(np.argmax(f1))])
