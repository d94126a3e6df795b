"""What stands where a model's platform is composed of parts: MLflow, a warehouse, Prometheus, the cluster.

A connection is a name and a kind. Its address is never policy: it comes from the environment, MLRUNBOOK_CONNECTION_<NAME>, with
MLRUNBOOK_CONNECTION_<NAME>_TOKEN where it needs a secret of its own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints

from mlrunbook.domain.policy.patterns import is_pattern

ConnectionName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]*$")]
Name = Annotated[str, StringConstraints(min_length=1, max_length=200)]


_RESERVED_ALIAS = re.compile(r"latest|v\d+", re.IGNORECASE)
UNDECIDED = "TODO"  # what `mlrunbook connect` writes where a person must say


class Kind(StrEnum):
    """`rest` is the API of the runbook (docs/how-to/add-a-model-platform.md)."""

    REST = "rest"
    MLFLOW = "mlflow"
    SQL = "sql"
    PROMETHEUS = "prometheus"


@dataclass(frozen=True)
class Connection:
    """`ca_file`: the certificates that a server of one's own is trusted by; the system's without it."""

    kind: Kind
    ca_file: Name | None = None


def _zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError):
        raise ValueError(f"no time zone is called {name!r}; write one as Europe/Berlin or UTC") from None
    return name


@dataclass(frozen=True)
class RegistryPart:
    """Where versions are registered and which one serves.

    name             what the model is called there; None: as here
    serving_alias    the alias that the serving version carries, `candidate_alias` that of the one in staging
    previous_alias   an alias that follows rollbacks and promotions with the version before; None: none is written
    server_follows   the model server loads what the alias names by itself; false: a rollout restart tells it to
    """

    connection: ConnectionName
    name: Name | None = None
    serving_alias: Name = "champion"
    candidate_alias: Name = "challenger"
    previous_alias: Name | None = None
    server_follows: bool = False

    def __post_init__(self) -> None:
        aliases = [one for one in (self.serving_alias, self.candidate_alias, self.previous_alias) if one is not None]
        for one in aliases:
            if _RESERVED_ALIAS.fullmatch(one):
                raise ValueError(f"registry: MLflow keeps the alias {one!r} for itself; name another one")
        if len({one.lower() for one in aliases}) < len(aliases):
            raise ValueError("registry: serving_alias, candidate_alias and previous_alias must differ: moving one would move the other")


@dataclass(frozen=True)
class Columns:
    """The columns of the prediction log, by their names there. None: it has none such, and what would be judged by it is not.

    key      joins a prediction with its outcome
    at       when it was made; `day` is the column that the log is partitioned by, so that a look reads its days alone
    label    what was decided; without it the score at `threshold` decides
    features those columns that are inputs; empty: every other column, or the keys of `features_json`
    """

    key: Name = "prediction_id"
    at: Name = "at"
    score: Name | None = "score"
    label: Name | None = None
    version: Name | None = "version"
    threshold: Name | None = None
    day: Name | None = None
    asset_id: Name | None = None
    segment: Name | None = None
    latency_ms: Name | None = None
    features: tuple[Name, ...] = ()
    features_json: Name | None = None


@dataclass(frozen=True)
class OutcomeColumns:
    """The columns of the outcomes: `reported_at` is when each came; the newest of one key is what holds (a correction). `reported_by` is
    who reported it: without it a correction counts as their own."""

    key: Name = "prediction_id"
    outcome: Name = "outcome"
    reported_at: Name | None = "reported_at"
    reported_by: Name | None = None
    day: Name | None = None


@dataclass(frozen=True)
class PredictionsPart:
    """The log of predictions and their outcomes, one table or query each.

    table, query            exactly one: a table, view or folder of the connection, or a query of it
    outcomes_*              the same; neither: the outcome stands in the column `outcomes.outcome` of the predictions' own table
    model_column            where one log holds several models: the column, and the value that is this model
    threshold               at which the score decides where no column says so
    positive, negative      what an outcome and a label say when they say yes, and no; empty: true, yes, y, t, 1, and false, no, n, f, 0.
                            Anything else is an error that names it
    time_zone               of times without a zone
    late_outcomes_days      how long after a prediction its outcome, or a correction, may come: so far back the outcomes are read
    timeout_s, most_rows    what one look may cost: beyond, it ends with an error that says so
    """

    connection: ConnectionName
    table: Name | None = None
    query: str | None = None
    outcomes_table: Name | None = None
    outcomes_query: str | None = None
    columns: Columns = field(default_factory=Columns)
    outcomes: OutcomeColumns = field(default_factory=OutcomeColumns)
    model_column: Name | None = None
    model_value: str | None = None
    threshold: Annotated[float, Field(ge=0, le=1)] = 0.5
    positive: tuple[str, ...] = ()
    negative: tuple[str, ...] = ()
    time_zone: Annotated[str, AfterValidator(_zone)] = "UTC"
    late_outcomes_days: Annotated[int, Field(ge=0, le=3650)] = 30
    timeout_s: Annotated[float, Field(gt=0)] = 30.0
    most_rows: Annotated[int, Field(ge=1)] = 500_000_000

    def __post_init__(self) -> None:
        if (self.table is None) == (self.query is None):
            raise ValueError("predictions: name either table or query")
        if self.outcomes_table is not None and self.outcomes_query is not None:
            raise ValueError("predictions: name outcomes_table or outcomes_query, not both")
        if (self.model_column is None) != (self.model_value is None):
            raise ValueError("predictions: model_column and model_value belong together")
        if self.columns.score is None and self.columns.label is None:
            raise ValueError("predictions: columns needs score or label, or nothing says what was predicted")


@dataclass(frozen=True)
class LivePart:
    """The PromQL of each live figure; {window} in it is the length of the window, as 3600s. None: not measured.

    `stale_after_s`: a newest sample older than this is no figure of now.
    """

    connection: ConnectionName
    latency_p95_s: str | None = None
    error_rate: str | None = None
    requests: str | None = None
    null_rate: str | None = None
    stale_after_s: Annotated[float, Field(gt=0)] = 300.0


class Replay(StrEnum):
    """Who scores logged requests with each version, so that versions are compared on the same ones."""

    NONE = "none"  # not "off": YAML reads that as false
    REST = "rest"
    MLFLOW = "mlflow"


@dataclass(frozen=True)
class ReplayPart:
    """`mlflow` runs the model's own code, in a process without secrets and network: each model opts in by itself.

    python       the interpreter that has MLflow and the model's libraries; None: the runbook's own
    inputs       where the model calls an input otherwise than the log: {its name: the column}
    artifacts    the folder that artefacts lie in where MLflow names a folder instead of handing them out; None: none is read
    most_rows    logged requests, the newest, that a version scores
    timeout_s    for all versions of one replay together; memory_mb is of each process, most_size_mb of each artefact
    """

    kind: Replay = Replay.NONE
    python: Name | None = None
    inputs: dict[Name, Name] = field(default_factory=dict)
    artifacts: Name | None = None
    most_rows: Annotated[int, Field(ge=1, le=20_000)] = 4_000
    timeout_s: Annotated[float, Field(gt=0, le=240)] = 240.0
    memory_mb: Annotated[int, Field(ge=256)] = 4_096
    most_size_mb: Annotated[float, Field(gt=0)] = 500.0

    def __post_init__(self) -> None:
        for name, path in (("python", self.python), ("artifacts", self.artifacts)):
            if path is not None and not path.startswith("/"):
                raise ValueError(f"replay.{name}: {path} is no absolute path")


class Shadow(StrEnum):
    """Where a candidate is tried before anybody is asked to promote it. `offline`: the requests served since it was staged are replayed."""

    PLATFORM = "platform"
    OFFLINE = "offline"


def _replay(given: object) -> object:
    """`replay: rest` is short for its kind alone."""
    return {"kind": given} if isinstance(given, str) else given


class Serving(StrEnum):
    """What an incident may do to the model server. `none`: nothing; path A is by the registry alone."""

    KUBERNETES = "kubernetes"
    LOCAL = "local"
    NONE = "none"


@dataclass(frozen=True)
class PlatformParts:
    """What a model's platform is composed of. A part that is left out is asked of the REST platform (MLRUNBOOK_PLATFORM_URL) where there is
    one; else what needs it is not judged, and says so. `serving` left out is MLRUNBOOK_RUNTIME."""

    registry: RegistryPart | None = None
    predictions: PredictionsPart | None = None
    live: LivePart | None = None
    replay: Annotated[ReplayPart, BeforeValidator(_replay)] = field(default_factory=ReplayPart)
    shadow: Shadow = Shadow.PLATFORM
    serving: Serving | None = None


def check_parts(at: str, parts: PlatformParts, connections: Mapping[str, Connection]) -> None:
    """Raises ValueError, with the key, for a connection that is not named under `connections` or is of a kind that the part cannot use."""
    wanted = (
        ("registry", parts.registry, Kind.MLFLOW),
        ("predictions", parts.predictions, Kind.SQL),
        ("live", parts.live, Kind.PROMETHEUS),
    )
    for name, part, kind in wanted:
        if part is None:
            continue
        found = connections.get(part.connection)
        if found is None:
            known = ", ".join(sorted(connections)) or "none"
            raise ValueError(
                f"{at}.{name}.connection: there is no connection {part.connection!r} (there are: {known}); name it under connections"
            )
        if found.kind is not kind:
            raise ValueError(f"{at}.{name}.connection: {part.connection} is of kind {found.kind}, this part needs {kind}")
    if parts.replay.kind is Replay.MLFLOW and (parts.registry is None or parts.predictions is None):
        raise ValueError(f"{at}.replay: mlflow scores the requests of `predictions` with versions of `registry`: name both")
    if parts.shadow is Shadow.OFFLINE and parts.replay.kind is Replay.NONE:
        raise ValueError(f"{at}.shadow: offline replays logged requests, and replay is none: set replay.kind to mlflow or rest")


def check_registered(parts: Mapping[str, PlatformParts | None]) -> None:
    """Raises ValueError where two names of the policy are one model of a registry: an incident of one would move the other's alias."""
    seen: dict[tuple[str, str], str] = {}
    for name, one in parts.items():
        part = one.registry if one is not None else None
        if part is None or (is_pattern(name) and part.name is None):
            continue
        if is_pattern(name):
            raise ValueError(f"models.{name}: platform.registry.name belongs to one model alone; name the model instead of a pattern")
        at = (part.connection, part.name or name)
        if at in seen:
            raise ValueError(
                f"models.{name}: platform.registry is {at[1]!r} of {at[0]}, which is {seen[at]} already; an incident of one would "
                "move the alias of the other"
            )
        seen[at] = name


def connection_variable(name: str) -> str:
    """The environment variable that holds a connection's address.

    >>> connection_variable("data-lake")
    'MLRUNBOOK_CONNECTION_DATA_LAKE'
    """
    return "MLRUNBOOK_CONNECTION_" + name.upper().replace("-", "_")
