"""What the runbook needs of the outside world, as Protocols named after its verbs.

Every method may raise the errors of `mlrunbook.domain.errors` and nothing else. Times are aware UTC.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from mlrunbook.domain.performance import ModelMetrics


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


@dataclass(frozen=True)
class Change:
    """Something that changed near the model. `kind`: deployment, rollback, config, feature_store, infrastructure, data_pipeline."""

    kind: str
    ref: str
    author: str
    at: datetime
    detail: Mapping[str, Any] = field(default_factory=dict)


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
    latency_ms: float
    outcome: bool | None = None


@dataclass(frozen=True)
class WorkOrder:
    """A maintenance work order made from a prediction. `state`: pending, scheduled, done, cancelled."""

    id: int
    asset_id: str
    state: str
    flagged_for_review: bool
    created_at: datetime


class ModelPlatform(Protocol):
    """The team's model platform: the REST API of the runbook."""

    def status(self, model: str) -> ServingStatus: ...

    def metrics(
        self, model: str, *, since: datetime | None = None, until: datetime | None = None, version: str | None = None
    ) -> ModelMetrics: ...

    def alerts(self, model: str | None = None) -> Sequence[Mapping[str, Any]]: ...

    def prediction_log(
        self,
        model: str,
        *,
        limit: int = 100,
        since: datetime | None = None,
        until: datetime | None = None,
        labelled_only: bool = False,
    ) -> Sequence[Prediction]: ...

    def changes(self, model: str, *, since: datetime) -> Sequence[Change]:
        """Deployments, rollbacks and configuration changes, newest first."""
        ...

    def rollback(self, model: str, *, target_version: str, reason: str, rolled_back_by: str, idempotency_key: str) -> ServingStatus:
        """Make `target_version` the serving version. Idempotent. NotFound when the version does not exist."""
        ...

    def work_orders(self, model: str, *, state: str | None = None) -> Sequence[WorkOrder]: ...

    def flag_pending_work_orders(self, model: str, *, reason: str, idempotency_key: str) -> Sequence[WorkOrder]:
        """Flag every pending predictive work order for human review; return them all."""
        ...


@dataclass(frozen=True)
class ServingConfig:
    """The model server's config file (the runbook's `configmap model-config`). `revision` grows with each write."""

    revision: int
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


class ServingRuntime(Protocol):
    """Where the model server runs: local processes or Kubernetes. Verbs set a desired state; reads observe."""

    def observe(self, model: str) -> ServingState: ...

    def scale(self, model: str, *, replicas: int) -> None:
        """`kubectl scale deployment/... --replicas=N`."""
        ...

    def route(self, model: str, *, version: str | None) -> None:
        """`kubectl patch svc/model-service` with the version selector; None removes the override."""
        ...

    def read_config(self, model: str) -> ServingConfig:
        """The stored config, which the running server may not have loaded yet."""
        ...

    def write_config(self, model: str, changes: Mapping[str, Any], *, expected_revision: int) -> ServingConfig:
        """`kubectl edit configmap model-config`. Other keys untouched. Transient when the revision moved meanwhile.

        Switches (human_approval, auto_work_orders, auto_scheduling) take effect at once; the threshold at the next restart.
        """
        ...

    def restart(self, model: str, *, restart_id: str) -> None:
        """`kubectl rollout restart`. The same `restart_id` again is no second restart."""
        ...

    def logs(self, model: str, *, tail: int = 500) -> str: ...


@dataclass(frozen=True)
class Message:
    """One page, message or notice. `channel` is a policy name; `page` asks for an answer."""

    key: str
    incident_id: str
    channel: str
    subject: str
    body: str
    page: bool = False


class Notifier(Protocol):
    def send(self, message: Message) -> None:
        """Deliver or raise Transient/Refused. May be called again with the same key: it then may repeat."""
        ...


class Orchestrator(Protocol):
    """What starts and resumes flow runs (Prefect's API)."""

    def start(self, deployment: str, parameters: Mapping[str, Any], *, idempotency_key: str, name: str | None = None) -> str:
        """Start a run; the same key again returns the same run's id. NotFound when the deployment does not exist."""
        ...

    def resume(self, run_id: str, run_input: Mapping[str, Any]) -> None:
        """Resume a suspended run. Refused when it can never be resumed (finished, crashed, unknown); Transient otherwise."""
        ...

    def is_suspended(self, run_id: str) -> bool: ...

    def is_queued(self, run_id: str) -> bool:
        """Accepted, but no worker has begun it."""
        ...
