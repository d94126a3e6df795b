"""What is read of the outside world: values alone. Whoever reads them raises errors of `mlrunbook.domain.errors`."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from math import nan
from typing import Any


class FeatureFault(StrEnum):
    """Each has its own sentence and its own answer."""

    REGISTRY_MISSING = "registry_missing"  # an empty store looks like this too: compared with the expected views
    VIEW_MISSING = "view_missing"
    SERVICE_MISSING = "service_missing"
    ONLINE_UNREACHABLE = "online_unreachable"
    ONLINE_LOCKED = "online_locked"
    ONLINE_DROPPED = "online_dropped"
    MATERIALIZING = "materializing"  # Feast serves nothing of a view while a job writes it, unless it is configured to
    NOT_SERVED = "not_served"  # disabled, or in another state in which Feast serves nothing of it
    SOURCE_MISSING = "source_missing"
    SOURCE_CORRUPT = "source_corrupt"
    NO_ROWS_IN_WINDOW = "no_rows_in_window"
    FUTURE_END = "future_end"  # later incremental runs succeed and do nothing
    WRONG_ENTITY_KEY = "wrong_entity_key"
    STALE_JOB = "stale_job"  # the materialisation does not run
    STALE_DATA = "stale_data"  # it runs, and the online rows are old all the same
    SOURCE_STALE = "source_stale"  # nothing new arrives at the source
    NULLS_ONLINE = "nulls_online"  # empty online, whole in the source
    NULLS_IN_SOURCE = "nulls_in_source"
    ENTITIES_MISSING = "entities_missing"


@dataclass(frozen=True)
class FeatureProblem:
    """`view` and `feature` where it is about one."""

    fault: FeatureFault
    sentence: str
    view: str | None = None
    feature: str | None = None


@dataclass(frozen=True)
class ViewState:
    """One feature view as read from Feast. Of `entities` sampled assets, `behind` have an online row older than the source's newest
    for them and `missing` have none. Null shares 0..1 by feature, of the sample: online, and in the source's newest rows.

    `job_end_at` is how far the last materialisation says it came; None: never ran. It moves also when no row was new. A first row that
    the materialisation has not come to yet is `behind`, not `missing`. `lag_s` is how far the worst sampled row is behind its source;
    None: not known.
    `updated_at` is when the definition last changed.
    """

    name: str
    job_end_at: datetime | None = None
    updated_at: datetime | None = None
    source_newest_at: datetime | None = None
    online_newest_at: datetime | None = None
    entities: int = 0
    behind: int = 0
    missing: int = 0
    null_online: Mapping[str, float] | None = None
    null_source: Mapping[str, float] | None = None
    lag_s: float | None = None


@dataclass(frozen=True)
class FeatureStoreState:
    """What was read, and what could not be read and why. `read_ok`: a synthetic online read by feature service worked."""

    views: tuple[ViewState, ...]
    problems: tuple[FeatureProblem, ...] = ()
    read_ok: bool | None = None

    def of_views(self, names: Collection[str]) -> FeatureStoreState:
        """What concerns these views, and the store as a whole."""
        problems = tuple(p for p in self.problems if p.view is None or p.view in names)
        return replace(self, views=tuple(v for v in self.views if v.name in names), problems=problems)


@dataclass(frozen=True)
class Missing:
    """A source that is absent or could not be read, and why. `unexpected`: the kind of an error that nobody expected."""

    reason: str
    unexpected: str = ""


@dataclass(frozen=True)
class FeatureServerAnswer:
    """`healthy`: /health answered 200. `read_ok`: a real feature read worked (None: not tried); health alone stays green while
    reads fail."""

    healthy: bool
    read_ok: bool | None = None
    detail: str = ""


@dataclass(frozen=True)
class ServingStatus:
    """`GET /api/v1/ml/models/{model}/status`: what the registry says serves, and what the server says it serves."""

    model: str
    serving_version: str
    previous_version: str | None
    staging_version: str | None
    server_healthy: bool
    server_version: str | None
    deployed_at: datetime | None = None
    features: str | None = None  # the model server's own word on feature reads: "ok", or why they fail; None: not known, or not needed
    not_loaded: str | None = None  # why the model server cannot load `serving_version`; None: it can, or that is not known
    unloadable_route: str | None = None  # the version that traffic is routed to and that the server cannot load: which, and why


@dataclass(frozen=True)
class Change:
    """Something that changed near the model.

    `kind`: deployment, rollback, staging, config, feature_store, infrastructure, data_pipeline.
    """

    kind: str
    ref: str
    author: str
    at: datetime
    detail: Mapping[str, Any] = field(default_factory=dict)


def truth(value: Any, name: str) -> bool:
    """What says true or false, however it is written: true, 1, 1.0, "true", "0". ValueError, by its name, for anything else: "false" taken
    for true because it is a text would be wrong without a sound."""
    if isinstance(value, bool):
        return value
    said = value.strip().lower() if isinstance(value, str) else value
    try:
        return _TRUTHS[said]
    except (KeyError, TypeError):
        raise ValueError(f"{name} must be true or false, not {value!r}") from None


_TRUTHS: Mapping[Any, bool] = {1: True, 0: False, "1": True, "0": False, "1.0": True, "0.0": False, "true": True, "false": False}


def probability(value: Any, name: str) -> float:
    """A number from 0 to 1, also as text; ValueError, by its name, for anything else."""
    try:
        number = float(value) if not isinstance(value, bool) else nan
    except (TypeError, ValueError, OverflowError):
        number = nan
    if not 0 <= number <= 1:
        raise ValueError(f"{name} must be a number from 0 to 1, not {str(value)[:100]!r}")
    return number


@dataclass(frozen=True)
class Prediction:
    """One row of the prediction log. `outcome` is None until the ground truth arrives."""

    id: int
    at: datetime
    asset_id: str
    asset_type: str
    features: Mapping[str, Any]
    score: float
    label: bool
    version: str
    threshold: float
    latency_ms: float | None
    outcome: bool | None = None
    shadow_version: str | None = None  # the version in staging scored the same request, and nobody acted on it
    shadow_score: float | None = None

    def __post_init__(self) -> None:
        """Whoever makes a row of what came from outside need not know in which form it did: what can be read is, the rest is refused."""
        for name in ("label", "outcome"):
            value = getattr(self, name)
            if type(value) is not bool and value is not None:
                object.__setattr__(self, name, truth(value, name))
        for name in ("score", "threshold", "shadow_score"):
            value = getattr(self, name)
            if value is not None and not (type(value) is float and 0 <= value <= 1):
                object.__setattr__(self, name, probability(value, name))


@dataclass(frozen=True)
class ModelVersion:
    """A registered version. None: not recorded. `asset_types` are those it was trained on."""

    version: str
    registered_at: datetime
    trained_from: datetime | None
    trained_to: datetime | None
    features: tuple[str, ...] | None
    threshold: float | None
    asset_types: tuple[str, ...] | None = None

    @property
    def unseen_from(self) -> datetime:
        """From when on its training can have seen no row: where nobody recorded its end, a version has learned nothing that came after it
        was registered."""
        return self.trained_to or self.registered_at

    @property
    def not_recorded(self) -> tuple[str, ...]:
        """What the registry does not say, each with what follows."""
        missing = {
            "training window (rows before it was registered do not count in a comparison)": self.trained_to is None,
            "features (whether the servers are given all that it needs is not judged)": self.features is None,
            "threshold": self.threshold is None,
        }
        return tuple(what for what, is_missing in missing.items() if is_missing)


@dataclass(frozen=True)
class VersionReplay:
    """What one version makes of logged requests: `scores[i]` belongs to `Replayed.rows[i]`.

    `problem` says why it cannot score them (schema, artefact, library); `scores` is empty then. `latency_ms` is the median of one row.
    `labels_only`: it says yes or no alone, so a score is 1 or 0. `digest` is of the artefact that was run.
    """

    version: str
    scores: tuple[float, ...]
    problem: str | None = None
    size_bytes: int | None = None
    latency_ms: float | None = None
    labels_only: bool = False
    digest: str | None = None


@dataclass(frozen=True)
class Replayed:
    """Logged requests with a known outcome, oldest first, and every asked version's scores for them."""

    rows: tuple[Prediction, ...]
    versions: tuple[VersionReplay, ...]


@dataclass(frozen=True)
class ViewSchedule:
    """The scheduled materialisation of one feature view. `error`: why its last run failed."""

    view: str
    suspended: bool
    last_run_at: datetime | None
    error: str | None = None


@dataclass(frozen=True)
class WorkOrder:
    """A maintenance work order made from a prediction. `state`: pending, scheduled, done, cancelled."""

    id: int
    asset_id: str
    state: str
    flagged_for_review: bool
    created_at: datetime


@dataclass(frozen=True)
class ServingConfig:
    """The model server's config (the runbook's `configmap model-config`). `revision` is opaque: another one after each write."""

    revision: str
    threshold: float
    human_approval: bool
    auto_work_orders: bool
    auto_scheduling: bool

    def as_dict(self) -> dict[str, Any]:
        return {
            "threshold": self.threshold,
            "human_approval": self.human_approval,
            "auto_work_orders": self.auto_work_orders,
            "auto_scheduling": self.auto_scheduling,
        }


@dataclass(frozen=True)
class Rollout:
    """The newest rollout of the model server. `state`: done, progressing, failed; `sentence` says how far it is, or why it failed."""

    restart_id: str | None  # the restart that it carries out, if it is one of ours
    state: str
    sentence: str
    deployment: str = ""


@dataclass(frozen=True)
class Instance:
    """One server process or pod. `problem`: why it does not serve, or why it died before; None: nothing is known against it."""

    name: str
    ready: bool
    restarts: int
    problem: str | None
    owner: str | None = None  # the ReplicaSet that it belongs to, where the runtime says so


@dataclass(frozen=True)
class Resources:
    """Shares 0..1 of what the model server may use, of the fullest instance; None: not limited, or not measured."""

    cpu: float | None
    memory: float | None


@dataclass(frozen=True)
class Revision:
    """One pod template of the rollout history. It got `number` when it was last put in place, and had the `former` ones before."""

    number: int
    former: tuple[int, ...]
    name: str  # of the ReplicaSet: what stays the same when the number changes
    images: tuple[str, ...]
    version: str | None
    at: datetime  # when this template was first in place
    cause: str | None
    current: bool
    ready: int = 0  # servers of it that answer
    spec: str = ""  # equal where the same runs: a restart gives a new revision, and changes nothing else
    deployment: str = ""

    def has(self, number: int) -> bool:
        return number == self.number or number in self.former


@dataclass(frozen=True)
class ServingState:
    """What the runtime runs now, as observed, not as asked for.

    `ready_replicas` servers answer; `route_version` is the traffic override (None: the registry decides);
    `restart_id` is the id of the last restart that finished; `config` is what the running server has loaded
    (None when none runs).
    """

    replicas: int
    ready_replicas: int
    route_version: str | None
    restart_id: str | None
    version: str | None
    config: ServingConfig | None
    isolated: bool = False  # reachable for forensics alone
    caveats: tuple[str, ...] = ()  # what may keep the isolation from holding, in words
    autoscaler: str | None = None  # what scales the server by itself: "active" or "suspended"; None: nothing does
    rollout: Rollout | None = None  # None: this runtime has no rollouts
