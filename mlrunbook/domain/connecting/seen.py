"""What was seen of the world, as its parts are looked at: the registry, the warehouse, Prometheus, the cluster, the feature store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum


@dataclass(frozen=True)
class RegisteredModel:
    """`features`: the inputs of the serving version's signature, None where it has none. `stages`: MLflow's older way to name what
    serves, stage to version."""

    name: str
    versions: tuple[str, ...] = ()
    aliases: Mapping[str, str] = field(default_factory=dict)
    stages: Mapping[str, str] = field(default_factory=dict)
    features: tuple[str, ...] | None = None


class Holds(StrEnum):
    """What a column holds; a time with a zone and one without are different things."""

    TEXT = "text"
    INTEGER = "whole numbers"
    NUMBER = "numbers"
    BOOLEAN = "true and false"
    TIME = "times without a zone"
    ZONED = "times with a zone"
    DATE = "dates"
    OTHER = "structures"


@dataclass(frozen=True)
class ColumnSeen:
    """`low` and `high` of numbers, `values`: a few of them, as text; of a sample of the newest rows. `distinct`: how many there are in it.
    `missing`: the share without a value. `partition`: the table is laid out by it."""

    name: str
    holds: Holds
    low: float | None = None
    high: float | None = None
    values: tuple[str, ...] = ()
    distinct: int | None = None
    missing: float | None = None
    partition: bool = False


@dataclass(frozen=True)
class TableSeen:
    """`sampled`: the rows that the columns' figures are of. `newest`: by column of times. `of_model`: where a column names models, the
    values of other columns in the rows of each."""

    name: str
    columns: tuple[ColumnSeen, ...]
    sampled: int = 0
    newest: Mapping[str, datetime] = field(default_factory=dict)
    of_model: Mapping[str, Mapping[str, tuple[str, ...]]] = field(default_factory=dict)

    def column(self, name: str) -> ColumnSeen | None:
        return next((c for c in self.columns if c.name == name), None)

    def of(self, model: str | None) -> TableSeen:
        """With the values that the rows of this model have."""
        own = self.of_model.get(model or "", {})
        columns = (replace(c, values=own[c.name], distinct=len(own[c.name])) if c.name in own else c for c in self.columns)
        return replace(self, columns=tuple(columns)) if own else self


@dataclass(frozen=True)
class DeploymentSeen:
    """`containers`: name to image. `config_maps`: those its pods mount or read."""

    name: str
    containers: Mapping[str, str] = field(default_factory=dict)
    pod_labels: Mapping[str, str] = field(default_factory=dict)
    selector: Mapping[str, str] = field(default_factory=dict)
    config_maps: tuple[str, ...] = ()
    text: str = ""  # arguments and plain environment of its containers: what names a model there


@dataclass(frozen=True)
class ServiceSeen:
    name: str
    selector: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ConfigMapSeen:
    """`json_keys`: keys whose value is a JSON object, with the names in it."""

    name: str
    json_keys: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class ClusterSeen:
    """`lacking`: what we may not list there, each as a rule of a Role."""

    namespace: str
    deployments: tuple[DeploymentSeen, ...] = ()
    services: tuple[ServiceSeen, ...] = ()
    config_maps: tuple[ConfigMapSeen, ...] = ()
    lacking: tuple[str, ...] = ()


@dataclass(frozen=True)
class MetricsSeen:
    """The names of metrics, and of those that measure requests the labels of their series."""

    names: frozenset[str]
    series: Mapping[str, tuple[Mapping[str, str], ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class ViewSeen:
    name: str
    features: tuple[str, ...]
    join_keys: tuple[str, ...] = ()
