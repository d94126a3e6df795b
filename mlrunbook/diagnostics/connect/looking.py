"""Looking at all that a team named, at once: what is there, and one line for each part that could not be looked at."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from mlrunbook.adapters.feast.looking import views
from mlrunbook.adapters.kubernetes import looking as kubernetes
from mlrunbook.adapters.kubernetes.cluster import Cluster, login
from mlrunbook.adapters.mlflow.client import MlflowClient
from mlrunbook.adapters.prometheus.looking import PrometheusLook
from mlrunbook.adapters.warehouse.looking import ROWS, Column, Looking
from mlrunbook.base.concurrent_reads import read_all
from mlrunbook.diagnostics.connect.rendering import Names
from mlrunbook.domain.connecting import names, promql
from mlrunbook.domain.connecting.model import SERVING
from mlrunbook.domain.connecting.seen import ClusterSeen, ColumnSeen, Holds, MetricsSeen, RegisteredModel, TableSeen, ViewSeen
from mlrunbook.domain.connection_secrets import secrets_of
from mlrunbook.domain.errors import NotFound, Refused, RunbookError, Transient

T = TypeVar("T")
MOST_TABLES = 40  # that columns are read of
MOST_MODELS = 200
WITHIN_S = 120.0


@dataclass(frozen=True)
class Places:
    """What there is to look at: addresses, as the environment or a flag gave them. `tokens` and `ca_files` by connection.

    `models`: of the registry, those that are looked into; of the others the name alone. None named: every one.
    `table`, `outcomes_table`: said by a person. `ask_cluster`: a context may be the kubeconfig's current one.
    """

    names: Names = field(default_factory=Names)
    mlflow: str | None = None
    predictions: str | None = None
    table: str | None = None
    outcomes_table: str | None = None
    prometheus: str | None = None
    ask_cluster: bool = False
    kube_context: str | None = None
    namespace: str | None = None
    feast: Path | None = None
    tokens: Mapping[str, str] = field(default_factory=dict)
    ca_files: Mapping[str, str] = field(default_factory=dict)
    models: tuple[str, ...] = ()

    @property
    def secrets(self) -> tuple[str, ...]:
        """What no line may hold."""
        told = {s for a in (self.mlflow, self.predictions, self.prometheus) if a for s in secrets_of(a)}
        return tuple(sorted({s for s in (*told, *self.tokens.values()) if s}, key=len, reverse=True))


@dataclass(frozen=True)
class Named:
    """The tables and queries that the policy names: they alone are looked at."""

    tables: tuple[str, ...] = ()
    queries: tuple[str, ...] = ()


@dataclass(frozen=True)
class Looked:
    """None: nobody named it, or it could not be looked at; `problems` has why, by part."""

    models: tuple[RegisteredModel, ...] | None = None
    tables: Mapping[str, TableSeen] | None = None
    metrics: MetricsSeen | None = None
    cluster: ClusterSeen | None = None
    views: tuple[ViewSeen, ...] | None = None
    problems: Mapping[str, str] = field(default_factory=dict)


def look(places: Places, now: datetime, *, named: Named | None = None, within_s: float = WITHIN_S) -> Looked:
    asked: dict[str, Callable[[], Any]] = {}
    if places.mlflow:
        asked["MLflow"] = lambda: registered(places)
    if places.predictions:
        asked["predictions"] = lambda: tables(places, named)
    if places.prometheus:
        asked["Prometheus"] = lambda: metrics(places, now)
    if places.ask_cluster:
        asked["cluster"] = lambda: cluster(places)
    if places.feast:
        asked["feature store"] = lambda: views(places.feast or Path())
    read = read_all(asked, within_s=within_s)
    problems = {part: _clean(str(value), places.secrets) for part, value in read.items() if isinstance(value, RunbookError)}
    good = {part: value for part, value in read.items() if part not in problems}
    seen = good.get("cluster")
    if seen is not None:
        problems |= {f"cluster permission {i}": said for i, said in enumerate(seen.lacking, 1)}
    return Looked(
        good.get("MLflow"), good.get("predictions"), good.get("Prometheus"), seen, good.get("feature store"), problems
    )  # fmt: skip


def _clean(said: str, secrets: Sequence[str]) -> str:
    for secret in secrets:
        said = said.replace(secret, "***")
    return " ".join(said.split())


def _tried(read: Callable[[], T], otherwise: T) -> T:
    """For what makes a guess better and is no ground to stop."""
    try:
        return read()
    except RunbookError:
        return otherwise


def registered(places: Places) -> tuple[RegisteredModel, ...]:
    name = places.names.registry or "mlflow"
    client = MlflowClient(name, places.mlflow, places.tokens.get(name), ca_file=places.ca_files.get(name))
    try:
        found = client.registered_models()
        if not found:
            client.server_version()
            raise Refused(
                f"{client.url} has no registered models: register one there (`mlflow.register_model`), "
                f"or correct {client.variable}; without a registry name models with --model"
            )
        if len(found) > MOST_MODELS and not places.models:
            raise Refused(f"{client.url} has {len(found)} registered models: name those to connect with --model")
        return tuple(
            _registered(client, one.name, one.aliases)
            if not places.models or one.name in places.models
            else RegisteredModel(one.name, (), dict(one.aliases))
            for one in found
        )
    finally:
        client.close()


def _registered(client: MlflowClient, name: str, aliases: Mapping[str, str]) -> RegisteredModel:
    versions = tuple(one.version for one in client.versions(name))
    serving = next((aliases[a] for word in SERVING for a in aliases if a.lower() == word), next(iter(aliases.values()), None))
    newest = serving or (versions[-1] if versions else None)
    features = _tried(lambda: client.features(name, newest), None) if newest else None
    return RegisteredModel(name, versions, dict(aliases), features=features)


def tables(places: Places, named: Named | None = None) -> dict[str, TableSeen]:
    """By the names that the policy would give them. One that the policy names and that is not there is left out."""
    name = places.names.predictions or "predictions"
    looking = Looking(name, places.predictions or "", places.tokens.get(name))
    if named is not None:
        seen: dict[str, TableSeen | None] = {one: _if_any(partial(_table, looking, one)) for one in named.tables}
        seen |= {sql: _of_query(looking, sql) for sql in named.queries}
        return {one: table for one, table in seen.items() if table is not None}
    wanted = [t for t in (places.table, places.outcomes_table) if t]
    there = wanted if len(wanted) == 2 else [*wanted, *(t for t in looking.tables() if t not in wanted)][:MOST_TABLES]
    if not there:
        raise Refused(f"{name} holds no tables that this login may read: correct the address, or grant SELECT on them")
    return {one: _table(looking, one) for one in there}


def _if_any(read: Callable[[], T]) -> T | None:
    try:
        return read()
    except NotFound:
        return None


def _table(looking: Looking, name: str) -> TableSeen:
    seen = looking.table(name)
    columns = tuple(_column(looking, name, column) for column in seen.columns)
    times = [c for c in columns if names.is_time(c) and (names.AT.rank(c.name) or names.REPORTED.rank(c.name))]
    spans = {c.name: _newest(looking, name, c) for c in times}
    newest = {column: at for column, at in spans.items() if at is not None}
    return TableSeen(name, columns, ROWS, newest, _by_model(looking, name, columns))


def _by_model(looking: Looking, table: str, columns: Sequence[ColumnSeen]) -> dict[str, dict[str, tuple[str, ...]]]:
    """Where one log holds several models: what each one's rows say of versions and outcomes."""
    of = next((c for c in columns if names.MODEL.rank(c.name) == 3 and names.MODEL.holds(c) and len(c.values) > 1), None)
    result: dict[str, dict[str, tuple[str, ...]]] = {}
    for column in columns if of is not None else ():
        if of is not None and column != of and _is_told_apart(column):
            read = partial(looking.values_by, table, of.name, column.name)
            none: Mapping[str, Sequence[str]] = {}
            for model, values in _tried(read, none).items():
                result.setdefault(model, {})[column.name] = tuple(values)
    return result


def _is_told_apart(column: ColumnSeen) -> bool:
    few = column.holds in {Holds.TEXT, Holds.INTEGER} and (column.distinct or 0) <= names.MOST_LABELS
    return few and any(role.rank(column.name) >= 2 for role in (names.OUTCOME, names.LABEL, names.VERSION))


def _of_query(looking: Looking, sql: str) -> TableSeen:
    return TableSeen(sql, tuple(_seen(column) for column in looking.query(sql).columns))


def _newest(looking: Looking, table: str, column: ColumnSeen) -> datetime | None:
    span = _tried(lambda: looking.span(table, column.name), None)
    newest: Any = span[1] if span else None
    if (unit := names.epoch_unit(column)) and newest is not None:
        return datetime.fromtimestamp(float(newest) / names.EPOCH_DIVISOR[unit], UTC)
    if not isinstance(newest, datetime):
        return None
    return newest if newest.tzinfo else newest.replace(tzinfo=UTC)


def _column(looking: Looking, table: str, column: Column) -> ColumnSeen:
    """Of a text that may name a model, a version or an outcome, all its values: the newest rows alone may hold one of two."""
    seen = _seen(column)
    roles = (names.MODEL, names.OUTCOME, names.LABEL, names.VERSION)
    if seen.holds is Holds.TEXT and (seen.distinct or 0) <= names.MOST_LABELS and any(r.rank(seen.name) >= 2 for r in roles):
        all_: Sequence[tuple[str | None, int]] = _tried(lambda: looking.values_of(table, seen.name), ())
        values = tuple(value for value, _ in all_ if value is not None)
        return replace(seen, values=values, distinct=len(values)) if values else seen
    return seen


def _seen(column: Column) -> ColumnSeen:
    return ColumnSeen(
        column.name, holds(column.kind), column.low, column.high, column.samples, column.distinct or None, column.missing
    )  # fmt: skip


_KINDS = (
    (re.compile(r"timestamp\('"), Holds.ZONED),
    (re.compile(r"timestamp"), Holds.TIME),
    (re.compile(r"date"), Holds.DATE),
    (re.compile(r"bool"), Holds.BOOLEAN),
    (re.compile(r"u?int\d+"), Holds.INTEGER),
    (re.compile(r"float|decimal"), Holds.NUMBER),
    (re.compile(r"string|uuid"), Holds.TEXT),
)


def holds(kind: str) -> Holds:
    """From the type as ibis names it.

    >>> [holds(kind).name for kind in ("timestamp('UTC', 6)", "timestamp(6)", "int64", "decimal(9, 2)", "struct<a: int64>")]
    ['ZONED', 'TIME', 'INTEGER', 'NUMBER', 'OTHER']
    """
    return next((of for pattern, of in _KINDS if pattern.match(kind)), Holds.OTHER)


def metrics(places: Places, now: datetime) -> MetricsSeen:
    name = places.names.live or "prometheus"
    client = PrometheusLook(name, places.prometheus or "", places.tokens.get(name), ca_file=places.ca_files.get(name))
    try:
        return client.metrics(promql.LOOKED_AT, now.timestamp())
    finally:
        client.close()


def cluster(places: Places) -> ClusterSeen:
    def sign_in() -> Any:
        return login(places.kube_context, places.namespace)

    try:
        return kubernetes.look(Cluster(sign_in, timeout_s=10.0))
    except ImportError as error:
        raise Transient(f"the Kubernetes client is not installed: {error}") from error
