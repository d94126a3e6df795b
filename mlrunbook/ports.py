"""What the runbook needs of the outside world, as Protocols named after its verbs.

Every method may raise the errors of `mlrunbook.domain.errors` and nothing else. Times are aware UTC.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, Protocol

from mlrunbook.domain.actions import Action
from mlrunbook.domain.alias_moves import Mark, Move, Seen
from mlrunbook.domain.evaluation.history import DayFigures
from mlrunbook.domain.evaluation.outcome_blocks import OutcomeBlocks
from mlrunbook.domain.evaluation.performance import ModelMetrics
from mlrunbook.domain.observed import (
    Change,
    FeatureStoreState,
    Instance,
    ModelVersion,
    Prediction,
    Replayed,
    Resources,
    Revision,
    ServingConfig,
    ServingState,
    ServingStatus,
    ViewSchedule,
    WorkOrder,
)


class Registry(Protocol):
    """Where a model's versions are registered and which one serves. NotFound for a model that is not registered."""

    def models(self) -> Sequence[str]:
        """Every registered model. NotFound where the platform keeps no such list."""
        ...

    def status(self, model: str) -> ServingStatus: ...

    def changes(self, model: str, *, since: datetime) -> Sequence[Change]:
        """Deployments, rollbacks and configuration changes, newest first."""
        ...

    def versions(self, model: str) -> Sequence[ModelVersion]:
        """Every registered version, oldest first."""
        ...

    def rollback(self, model: str, *, target_version: str, reason: str, rolled_back_by: str, idempotency_key: str) -> ServingStatus:
        """Make `target_version` the serving version. Idempotent. NotFound when the version does not exist."""
        ...

    def register(self, model: str, *, version: str, registered_by: str, idempotency_key: str) -> ModelVersion:
        """Enter a trained version. Idempotent; Refused when that version is registered with another artefact."""
        ...

    def stage(self, model: str, *, version: str | None, staged_by: str, idempotency_key: str) -> ServingStatus:
        """Put a version into the staging slot, where it scores live requests that nobody acts on; None empties the slot."""
        ...

    def promote(self, model: str, *, version: str, reason: str, promoted_by: str, idempotency_key: str) -> ServingStatus:
        """Make `version` the serving version and empty the staging slot. Idempotent."""
        ...


class PredictionLog(Protocol):
    """A model's predictions and what became of them, counted where they are kept."""

    def metrics(
        self, model: str, *, since: datetime | None = None, until: datetime | None = None, version: str | None = None
    ) -> ModelMetrics: ...

    def history(self, model: str, *, days: int, until: datetime | None = None) -> Sequence[DayFigures]:
        """Figures by day of UTC, oldest first: the day that `until` (now) is in, up to `until`, and the days before it, `days` in all;
        those on which nothing was asked for are left out. NotFound where the platform keeps none."""
        ...

    def outcome_blocks(self, model: str, *, since: datetime, until: datetime, block_s: float, version: str | None = None) -> OutcomeBlocks:
        """The outcomes known of the predictions made in each whole block of [since, until), `outcome_blocks.MOST_BLOCKS` at most. NotFound
        where the platform does not count so."""
        ...

    def prediction_log(
        self,
        model: str,
        *,
        limit: int = 100,
        since: datetime | None = None,
        until: datetime | None = None,
        labelled_only: bool = False,
    ) -> Sequence[Prediction]: ...


class Replayer(Protocol):
    """Scores logged requests with registered versions."""

    def replay(
        self, model: str, *, versions: Sequence[str], since: datetime | None = None, until: datetime | None = None, limit: int = 4000
    ) -> Replayed:
        """Score the newest logged requests of [since, until) whose outcome is known with each of `versions`, as if it had served."""
        ...


class Maintenance(Protocol):
    """The maintenance domain: what only some teams have. NotFound where there is none."""

    def feature_schedules(self) -> Sequence[ViewSchedule]:
        """The scheduled materialisation of every feature view. NotFound where the platform does not run it."""
        ...

    def resume_feature_schedules(self, views: Sequence[str], *, resumed_by: str, idempotency_key: str) -> Sequence[ViewSchedule]: ...

    def work_orders(self, model: str, *, state: str | None = None) -> Sequence[WorkOrder]: ...

    def flag_pending_work_orders(self, model: str, *, reason: str, idempotency_key: str) -> Sequence[WorkOrder]:
        """Flag every pending predictive work order for human review; return them all."""
        ...


class ModelPlatform(Registry, PredictionLog, Replayer, Maintenance, Protocol):
    """The team's model platform: the REST API of the runbook, or composed of parts. Everything is about the model named: NotFound for one
    that is not registered, and an answer about another one is Refused."""

    def alerts(self, model: str | None = None) -> Sequence[Mapping[str, Any]]: ...


@dataclass(frozen=True)
class Live:
    """What the monitoring measured of a model server in one window. Shares 0..1; None: not measured; `missing` says why, by figure."""

    latency_p95_ms: float | None = None
    error_rate: float | None = None
    requests: int | None = None
    null_rate: float | None = None
    missing: Mapping[str, str] = field(default_factory=dict)


class LiveFigures(Protocol):
    """Latency, errors and traffic as the monitoring has them (PromQL)."""

    def live(self, model: str, *, since: datetime, until: datetime) -> Live: ...


class RegistryLedger(Protocol):
    """What the aliases of a registry named, kept by us. Thread-safe; Transient while the store is away."""

    def moves(self, model: str) -> Sequence[Move]:
        """Newest first, also those that were only begun."""
        ...

    def mark(self, model: str) -> Mark:
        """To be taken before the registry is read: what has come into the ledger since is newer than what was read."""
        ...

    def begin(self, move: Move) -> Move:
        """Before it is made. The one that has its key already, where there is one."""
        ...

    def saw(self, seen: Seen) -> Sequence[Move]:
        """Take down what a look has found; what moved since the last one. Open incidents of the model hear of what was not ours."""
        ...

    def answered(self, move: Move) -> None:
        """The servers have followed it."""
        ...


MISSING = ".missing"  # a part of `preserve` that could not be read: its name with this, and the reason as content


class ServingRuntime(Protocol):
    """Where the model server runs: local processes or Kubernetes. Verbs set a desired state; reads observe.

    Refused, with nothing changed or read, for a model that this runtime does not serve or that policy does not map: there is no default to
    fall back to. `preserve` alone says so as a missing part.
    """

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

    def write_config(self, model: str, changes: Mapping[str, Any], *, expected_revision: str) -> ServingConfig:
        """`kubectl edit configmap model-config`. Other keys untouched. Transient when the revision moved meanwhile.

        Switches (human_approval, auto_work_orders, auto_scheduling) take effect at once; the threshold at the next restart.
        """
        ...

    def restart(self, model: str, *, restart_id: str) -> None:
        """`kubectl rollout restart`. The same `restart_id` again is no second restart."""
        ...

    def logs(self, model: str, *, tail: int = 500, since: datetime | None = None) -> str:
        """The newest `tail` lines of every instance, also of the one that ran before it crashed; none written before `since`."""
        ...

    def instances(self, model: str) -> Sequence[Instance]:
        """`kubectl get pods -l app=model-server`, with why those that do not serve do not."""
        ...

    def resources(self, model: str) -> Resources:
        """CPU and memory use. NotFound where nothing measures it."""
        ...

    def revisions(self, model: str) -> Sequence[Revision]:
        """`kubectl rollout history`, newest first. Empty where the runtime keeps none."""
        ...

    def undo_rollout(self, model: str, *, revision: int) -> None:
        """`kubectl rollout undo --to-revision=N`: put that revision's pod template back. NotFound when the history no longer has it."""
        ...

    def dry_run(self, model: str, actions: Sequence[Action]) -> Sequence[str]:
        """Let the runtime check each of its actions without carrying one out; what people should know of them before they decide.
        Refused, with its words, when it would refuse one; Transient where it cannot be tried."""
        ...

    def isolate(self, model: str, *, isolated: bool) -> None:
        """Cut the model server off from every client but forensics, or connect it again. Its process goes on, with its memory and logs:
        no pod is deleted, nothing is restarted. `observe` tells whether it holds."""
        ...

    def preserve(self, model: str) -> Mapping[str, bytes]:
        """What of the runtime is evidence, by file name ("logs/model-server.log"): logs, specifications, events, config without secret
        values. Reads alone, and never fails as a whole: a part that cannot be read is `<name>.missing` with the reason."""
        ...


@dataclass(frozen=True)
class Message:
    """One page, message or notice. `channel` is a policy name; `page` asks for an answer. `link` to the console stands in the body too, as
    a line of its own; None: nobody has said how browsers reach it."""

    key: str
    incident_id: str
    channel: str
    subject: str
    body: str
    page: bool = False
    severity: str | None = None
    link: str | None = None


class FeatureStore(Protocol):
    """The team's Feast, through its Python API. Never imported before it is needed: that takes seconds."""

    def inspect(self, *, entities: int = 200, until: datetime | None = None) -> FeatureStoreState:
        """Read what staleness, nulls and outages are judged from; `until`: against the source as it was then. What is broken is in
        `problems`; this never raises for it."""
        ...

    def materialize(
        self, views: Sequence[str], *, since: datetime | None, until: datetime, progress: Callable[[str, int, int], None]
    ) -> None:
        """Bring the online store up to `until` (never later than now): incremental, or from `since` on for rows that came late. A row
        online is never replaced by an older one, unless a value is empty there.

        `progress(view, done, total)` counts entities. Safe to repeat. Raises NotFound (view), Refused (source missing, corrupt, wrong
        entity key, no rows) or Transient (store locked or away).
        """
        ...


class Trainer(Protocol):
    def train(
        self, model: str, *, version: str, start: datetime, end: datetime, log: Callable[[str], None], alive: Callable[[], bool]
    ) -> None:
        """Run the team's training command to its end, in a process of its own; `log` gets each line it prints.

        Afterwards the version can be registered. Repeating a finished training returns at once. Refused with the last lines when the
        command fails, runs over its time or its memory; stops it and raises Fenced once `alive()` is false.
        """
        ...


class Notifier(Protocol):
    def send(self, message: Message) -> None:
        """Deliver or raise Transient/Refused. May be called again with the same key: it then may repeat."""
        ...

    def settle(self, message: Message, action: Literal["acknowledge", "resolve"]) -> bool:
        """Tell a paging service what became of the incident's pages; False when the channel keeps no such thing."""
        ...

    def has_address(self, channel: str) -> bool:
        """Whether messages to it reach anybody, or are only written down."""
        ...


class Orchestrator(Protocol):
    """What starts and resumes flow runs (Prefect's API)."""

    def start(
        self, deployment: str, parameters: Mapping[str, Any], *, idempotency_key: str, name: str | None = None, urgent: bool = False
    ) -> str:
        """Start a run; the same key again returns the same run's id. NotFound when the deployment does not exist. `urgent`: before all
        others, and in a place that no other takes."""
        ...

    def resume(self, run_id: str, run_input: Mapping[str, Any]) -> None:
        """Resume a suspended run. Refused when it can never be resumed (finished, crashed, unknown); Transient otherwise."""
        ...

    def is_suspended(self, run_id: str) -> bool: ...

    def is_queued(self, run_id: str) -> bool:
        """Accepted, but no worker has begun it."""
        ...

    def is_held_up(self, run_id: str) -> bool:
        """Not started as urgent, and no worker has claimed it: it waits for a place behind others."""
        ...

    def cancel(self, run_id: str, why: str) -> None:
        """End it, wherever it is; one that has ended stays as it is."""
        ...
