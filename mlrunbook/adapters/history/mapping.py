"""Which column of a log says what: named by the user, else guessed by names and types. A guess that could be another one is refused."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mlrunbook.base.wording import plainly
from mlrunbook.base.yaml_text import first_alias
from mlrunbook.domain.errors import Invalid

# What each column may be called, the surest first: a name of a later row counts only where none of an earlier one is there.
NAMES: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "outcome_time": (
        (
            "outcome_time",
            "outcome_at",
            "outcome_ts",
            "label_time",
            "labelled_at",
            "labeled_at",
            "observed_at",
            "known_at",
            "outcome_timestamp",
        ),
        ("resolved_at", "closed_at", "label_timestamp"),
    ),
    "time": (
        ("time", "timestamp", "at", "predicted_at", "prediction_time", "prediction_timestamp", "scored_at"),
        ("ts", "datetime", "date_time", "event_time", "event_timestamp", "created_at", "date", "inference_time"),
    ),
    "outcome": (
        ("outcome", "failed", "failure", "actual", "ground_truth", "y_true", "truth", "is_failure", "actual_label"),
        ("target", "observed", "y", "result"),
        ("label", "class"),
    ),
    "score": (
        ("score", "probability", "proba", "prediction_score", "predicted_probability", "risk_score", "y_score", "failure_probability"),
        ("prob", "p", "risk", "y_prob", "y_proba", "confidence"),
        ("prediction", "predicted", "y_pred"),
    ),
    "label": (
        ("flag", "flagged", "predicted_label", "predicted_class", "alert", "high_risk", "decision"),
        ("prediction", "predicted", "y_pred"),
        ("label", "class"),
    ),
    "threshold": (("threshold", "decision_threshold", "cutoff"),),
    "id": (("prediction_id", "request_id", "event_id", "inference_id"), ("id", "uuid")),
    "asset": (
        ("asset_id", "asset", "machine_id", "device_id", "equipment_id", "entity_id", "unit_id"),
        ("machine", "device", "equipment", "unit", "customer_id", "user_id", "account_id", "sensor_id"),
    ),
    "segment": (("asset_type", "segment", "group", "device_type", "machine_type"), ("type", "region", "site", "category", "product")),
    "version": (("model_version", "version"),),
    "model": (("model", "model_name", "model_id"),),
}
ROLES = ("time", "score", "label", "threshold", "outcome", "outcome_time", "id", "asset", "segment", "version", "model")
NO_VALUE = ("STRUCT", "MAP", "UNION", "BLOB")
FRACTIONS = ("DOUBLE", "FLOAT", "DECIMAL")
_UNITS = {"s": 1.0, "min": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}
DEFAULT_THRESHOLD = 0.5
LONGEST_DELAY_S = 10 * 365 * 86_400.0


def seconds_of(length: str) -> float:
    """'7d' as seconds; Invalid for what is no length of time."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(s|min|h|d|w)\s*", length)
    if not found:
        raise Invalid(f"{length!r} is no length of time: write 30min, 12h, 7d or 2w", field="outcome-delay")
    seconds = float(found[1]) * _UNITS[found[2]]
    if seconds > LONGEST_DELAY_S:
        raise Invalid(f"{length[:20]!r} is longer than ten years", field="outcome-delay")
    return seconds


class MappingFile(BaseModel):
    """`--mapping FILE`: column names, and what no column says."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    time: str | None = None
    score: str | None = None
    label: str | None = None
    threshold: str | Annotated[float, Field(gt=0, lt=1)] | None = None
    outcome: str | None = None
    outcome_time: str | None = None
    id: str | None = None
    asset: str | None = None
    segment: str | None = None
    version: str | None = None
    model: str | None = None
    features: tuple[str, ...] | None = None
    outcome_delay: str | None = None


@dataclass(frozen=True)
class Given:
    """What the user has said. A column named "" is one that the log does not have, whatever it looks like."""

    columns: Mapping[str, str]
    features: tuple[str, ...] | None = None
    threshold: float | None = None
    outcome_delay_s: float | None = None


@dataclass(frozen=True)
class Columns:
    """The column behind each role (a role without one is not in `of`), which of them were guessed, and what holds for every row.

    `threshold`: of every row, where no column says it; `threshold_from` says in words where it comes from.
    """

    of: Mapping[str, str]
    guessed: frozenset[str]
    features: tuple[str, ...]
    threshold: float
    threshold_from: str
    outcome_delay_s: float | None = None
    features_named: bool = False

    @property
    def has_score(self) -> bool:
        return "score" in self.of


def given(columns: Sequence[str], file: Path | None, threshold: float | None, outcome_delay: str | None) -> Given:
    """From `--column ROLE=NAME`, `--mapping`, `--threshold` and `--outcome-delay`; a flag goes before the file."""
    read = _read(file) if file else MappingFile()
    named = {role: name for role in ROLES if isinstance(name := getattr(read, role), str)}
    for one in columns:
        role, equals, name = one.partition("=")
        if not equals or role not in ROLES:
            raise Invalid(f"--column {one[:100]!r}: write ROLE=NAME, where ROLE is one of {', '.join(ROLES)}", field="column")
        named[role] = name
    constant = threshold if threshold is not None else read.threshold if isinstance(read.threshold, float) else None
    if constant is not None and not 0 < constant < 1:
        raise Invalid(f"--threshold {constant:g}: must be between 0 and 1", field="threshold")
    delay = outcome_delay or read.outcome_delay
    return Given(named, read.features, constant, seconds_of(delay) if delay else None)


def _read(file: Path) -> MappingFile:
    try:
        found = _loaded(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise Invalid(f"there is no mapping file {file}") from error
    except OSError as error:
        raise Invalid(f"cannot read {file}: {error.strerror or error}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise Invalid(f"{file} cannot be read as YAML: {' '.join(str(error).split())[:200]}") from error
    try:
        return MappingFile.model_validate(found)
    except ValidationError as error:
        first = error.errors()[-1]  # of a value that may be text or a number: that of the number
        at = str(first["loc"][0]) if first["loc"] else ""
        known = f"; known keys: {', '.join(MappingFile.model_fields)}" if first["type"] == "extra_forbidden" else ""
        raise Invalid(f"{file.name}: {at or 'the file'}: {plainly(first)}{known}") from error


def _loaded(text: str) -> object:
    """Invalid for an alias, which may stand for gigabytes, and for a key that is given twice."""
    if alias := first_alias(text):
        raise ValueError(f"write the value out instead of the alias *{alias.anchor}")
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    keys = [key.value for key, _ in root.value] if isinstance(root, yaml.MappingNode) else []
    if twice := [str(key) for key in keys if keys.count(key) > 1]:
        raise ValueError(f"{twice[0]} is given twice; keep one")
    return yaml.safe_load(text) or {}


def settle(types: Mapping[str, str], said: Given) -> Columns:
    """The columns of a log with these columns and DuckDB types. Invalid with what to say where it cannot be told."""
    of = {role: _one_value(role, _exactly(name, types, role), types) for role, name in said.columns.items() if name}
    closed = set(said.columns)
    if said.threshold is not None:
        closed.add("threshold")
    guessed: dict[str, str] = {}
    for role in NAMES:
        if role not in closed and (found := _guess(role, types, {*of.values(), *guessed.values()})):
            guessed[role] = found
    if "label" in guessed and "score" in {**of, **guessed} and "label" not in of and types[guessed["label"]] in FRACTIONS:
        del guessed["label"]
    if "time" not in closed and "time" not in guessed and (only := _only_time(types, {*of.values(), *guessed.values()})):
        guessed["time"] = only
    whole = of | guessed
    _required(whole, types)
    twice = next((n for n in whole.values() if list(whole.values()).count(n) > 1), None)
    if twice is not None:
        raise Invalid(f"column {twice!r} is named for {' and '.join(r for r, n in whole.items() if n == twice)}; one column says one thing")
    features = said.features
    if features is None:
        features = tuple(name for name, type_ in types.items() if name not in whole.values() and _is_feature(type_))
    features = tuple(dict.fromkeys(_one_value("features", _exactly(name, types, "features"), types) for name in features))
    if known := [name for name in features if name in (whole.get("outcome"), whole.get("outcome_time"))]:
        raise Invalid(f"features: {known[0]!r} is only known after the prediction, and cannot be one", field="features")
    named = said.features is not None
    return Columns(whole, frozenset(guessed), features, *_threshold(whole, said), said.outcome_delay_s, features_named=named)


def _is_value(type_: str) -> bool:
    """One value a row: no list, no structure."""
    return not type_.endswith("]") and not type_.startswith(NO_VALUE)


def _is_feature(type_: str) -> bool:
    """A moment is none: every row has a new one, and that says nothing of the inputs."""
    return _is_value(type_) and not type_.startswith(("TIMESTAMP", "DATE"))


def _threshold(of: Mapping[str, str], said: Given) -> tuple[float, str]:
    if said.threshold is not None:
        return said.threshold, "given"
    if "threshold" in of:
        return DEFAULT_THRESHOLD, "logged with each row"
    if "score" not in of:
        return DEFAULT_THRESHOLD, "none: the log holds no score"
    if "label" in of:
        return DEFAULT_THRESHOLD, "not logged: rows are flagged as their label says, and thresholds cannot be judged; --threshold names one"
    return DEFAULT_THRESHOLD, "the default, as the log has neither threshold nor label; --threshold names another"


def _required(of: Mapping[str, str], types: Mapping[str, str]) -> None:
    has = f"it has {', '.join(repr(n) for n in list(types)[:20])}" + (f" and {len(types) - 20} more" if len(types) > 20 else "")
    for role, words in (("time", "when each prediction was made"), ("outcome", "what truly happened (0 or 1)")):
        if role not in of:
            raise Invalid(f"no column looks like the {role}, {words}: name it with --column {role}=NAME; {has}", field="column")
    if "score" not in of and "label" not in of:
        what = "the model's score (0 to 1) or its label (0 or 1)"
        raise Invalid(f"no column looks like {what}: name one with --column score=NAME or --column label=NAME; {has}", field="column")


def _exactly(name: str, types: Mapping[str, str], role: str) -> str:
    if name in types:
        return name
    if len(same := [n for n in types if n.casefold() == name.casefold()]) == 1:
        return same[0]
    close = get_close_matches(name, types, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else f"; it has {', '.join(repr(n) for n in list(types)[:20])}"
    raise Invalid(f"{role}: the log has no column {name!r}{hint}", field="column")


def _one_value(role: str, name: str, types: Mapping[str, str]) -> str:
    if not _is_value(types[name]):
        raise Invalid(f"{role}: column {name!r} holds lists or structures: write the value into a column of its own", field="column")
    return name


def _guess(role: str, types: Mapping[str, str], taken: set[str]) -> str | None:
    for names in NAMES[role]:
        found = [name for name in types if name not in taken and _plain(name) in names and _could_be(role, name, types[name])]
        if len(found) > 1:
            listed = " or ".join(repr(n) for n in found)
            raise Invalid(f"{listed} may be the {role}: say which with --column {role}={found[0]}", field="column")
        if found:
            return found[0]
    return None


def _could_be(role: str, name: str, type_: str) -> bool:
    """`prediction` is a score where it holds fractions, else a label."""
    if not _is_value(type_):
        return False
    if _plain(name) not in ("prediction", "predicted", "y_pred"):
        return True
    return type_.startswith(FRACTIONS) == (role == "score")


def _only_time(types: Mapping[str, str], taken: set[str]) -> str | None:
    found = [name for name, type_ in types.items() if name not in taken and type_.startswith(("TIMESTAMP", "DATE"))]
    if len(found) > 1:
        raise Invalid(f"{' or '.join(map(repr, found))} may be the time: say which with --column time={found[0]}", field="column")
    return found[0] if found else None


def _plain(name: str) -> str:
    """`MachineID`, `machineId` and `Machine id` are machine_id."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name.strip())
    return re.sub(r"[^a-z0-9]+", "_", words.casefold()).strip("_")
