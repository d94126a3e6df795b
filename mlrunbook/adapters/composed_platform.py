"""The model platform composed of parts: each call goes to the part that policy names for the model, else to the REST platform.

A model without `platform` in policy has the REST platform alone, as ever. What no part answers is NotFound, with what is not judged then.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from mlrunbook.domain.errors import NotFound, RunbookError
from mlrunbook.domain.evaluation.history import DayFigures
from mlrunbook.domain.evaluation.outcome_blocks import OutcomeBlocks
from mlrunbook.domain.evaluation.performance import ModelMetrics, WindowMetrics
from mlrunbook.domain.observed import Change, ModelVersion, Prediction, Replayed, ServingStatus, ViewSchedule, WorkOrder
from mlrunbook.domain.policy.connections import PlatformParts, Replay
from mlrunbook.domain.policy.policy import Policy
from mlrunbook.ports import LiveFigures, ModelPlatform, PredictionLog, Registry, Replayer

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Parts:
    """What there is. `rest`: the REST platform of models without parts; `rest_is_set`: somebody gave its address, so it also answers what
    a model's parts leave out. `predictions` and `live` give what is behind a connection, by its name."""

    rest: ModelPlatform
    rest_is_set: bool
    registry: Registry | None = None
    predictions: Callable[[str], PredictionLog] | None = None
    live: Callable[[str], LiveFigures] | None = None
    replayer: Replayer | None = None


class ComposedPlatform:
    """`ports.ModelPlatform`."""

    def __init__(self, policy: Policy, parts: Parts) -> None:
        self._policy, self._parts = policy, parts

    # --- the registry

    def models(self) -> Sequence[str]:
        """Those of the registries, and those of the REST platform where there is one."""
        found = set(self._parts.registry.models()) if self._parts.registry else set()
        return sorted(found | set(self._parts.rest.models())) if self._asks_rest_for_models() else sorted(found)

    def status(self, model: str) -> ServingStatus:
        return self._registry(model).status(model)

    def changes(self, model: str, *, since: datetime) -> Sequence[Change]:
        return self._registry(model).changes(model, since=since)

    def versions(self, model: str) -> Sequence[ModelVersion]:
        return self._registry(model).versions(model)

    def rollback(self, model: str, *, target_version: str, reason: str, rolled_back_by: str, idempotency_key: str) -> ServingStatus:
        given = {"reason": reason, "rolled_back_by": rolled_back_by, "idempotency_key": idempotency_key}
        return self._registry(model).rollback(model, target_version=target_version, **given)

    def register(self, model: str, *, version: str, registered_by: str, idempotency_key: str) -> ModelVersion:
        return self._registry(model).register(model, version=version, registered_by=registered_by, idempotency_key=idempotency_key)

    def stage(self, model: str, *, version: str | None, staged_by: str, idempotency_key: str) -> ServingStatus:
        return self._registry(model).stage(model, version=version, staged_by=staged_by, idempotency_key=idempotency_key)

    def promote(self, model: str, *, version: str, reason: str, promoted_by: str, idempotency_key: str) -> ServingStatus:
        given = {"reason": reason, "promoted_by": promoted_by, "idempotency_key": idempotency_key}
        return self._registry(model).promote(model, version=version, **given)

    # --- the log of predictions and their outcomes

    def metrics(
        self, model: str, *, since: datetime | None = None, until: datetime | None = None, version: str | None = None
    ) -> ModelMetrics:
        """Latency, errors and nulls as the monitoring has them, where policy names it."""
        found = self._log(model).metrics(model, since=since, until=until, version=version)
        parts, live = self._of(model), self._parts.live
        if parts is None or parts.live is None or live is None:
            return found
        connection = parts.live.connection
        return replace(found, current=_with_live(lambda: live(connection), model, found.current))

    def history(self, model: str, *, days: int, until: datetime | None = None) -> Sequence[DayFigures]:
        return self._log(model).history(model, days=days, until=until)

    def outcome_blocks(self, model: str, *, since: datetime, until: datetime, block_s: float, version: str | None = None) -> OutcomeBlocks:
        return self._log(model).outcome_blocks(model, since=since, until=until, block_s=block_s, version=version)

    def prediction_log(
        self,
        model: str,
        *,
        limit: int = 100,
        since: datetime | None = None,
        until: datetime | None = None,
        labelled_only: bool = False,
    ) -> Sequence[Prediction]:
        return self._log(model).prediction_log(model, limit=limit, since=since, until=until, labelled_only=labelled_only)

    def replay(
        self, model: str, *, versions: Sequence[str], since: datetime | None = None, until: datetime | None = None, limit: int = 4000
    ) -> Replayed:
        return self._replayer(model).replay(model, versions=versions, since=since, until=until, limit=limit)

    # --- what only a REST platform has

    def alerts(self, model: str | None = None) -> Sequence[Mapping[str, Any]]:
        """None where there is no REST platform: the team's own monitoring sends its alerts to the gateway."""
        if self._parts.rest_is_set or (model is not None and self._of(model) is None):
            return self._parts.rest.alerts(model)
        return []

    def feature_schedules(self) -> Sequence[ViewSchedule]:
        return self._rest("no platform runs the materialisation of features: whether it is suspended is not judged").feature_schedules()

    def resume_feature_schedules(self, views: Sequence[str], *, resumed_by: str, idempotency_key: str) -> Sequence[ViewSchedule]:
        rest = self._rest("no platform runs the materialisation of features: resume it where it is scheduled")
        return rest.resume_feature_schedules(views, resumed_by=resumed_by, idempotency_key=idempotency_key)

    def work_orders(self, model: str, *, state: str | None = None) -> Sequence[WorkOrder]:
        return self._rest_for(model, f"{model} has no work orders").work_orders(model, state=state)

    def flag_pending_work_orders(self, model: str, *, reason: str, idempotency_key: str) -> Sequence[WorkOrder]:
        rest = self._rest_for(model, f"{model} has no work orders")
        return rest.flag_pending_work_orders(model, reason=reason, idempotency_key=idempotency_key)

    # ---

    def _of(self, model: str) -> PlatformParts | None:
        return self._policy.rules_of(model).platform

    def _registry(self, model: str) -> Registry:
        parts = self._of(model)
        if parts is not None and parts.registry is not None and self._parts.registry is not None:
            return self._parts.registry
        why = f"no registry is connected for {model} (models.{model}.platform.registry): its versions, and which one serves, are not known"
        return self._rest_for(model, why)

    def _log(self, model: str) -> PredictionLog:
        parts = self._of(model)
        if parts is not None and parts.predictions is not None and self._parts.predictions is not None:
            return self._parts.predictions(parts.predictions.connection)
        why = f"no log of predictions is connected for {model} (models.{model}.platform.predictions): its performance is not judged"
        return self._rest_for(model, why)

    def _replayer(self, model: str) -> Replayer:
        parts = self._of(model)
        if parts is not None and parts.replay.kind is Replay.MLFLOW and self._parts.replayer is not None:
            return self._parts.replayer
        if parts is None or parts.replay.kind is Replay.REST:
            return self._rest_for(model, f"models.{model}.platform.replay is rest, and MLRUNBOOK_PLATFORM_URL is not set")
        raise NotFound(
            f"replay is off for {model} (models.{model}.platform.replay): versions are not compared on the same requests, and path A "
            "goes back to the version that served before"
        )

    def _rest_for(self, model: str, why: str) -> ModelPlatform:
        """A model without parts always has the REST platform."""
        return self._parts.rest if self._of(model) is None else self._rest(why)

    def _rest(self, why: str) -> ModelPlatform:
        if not self._parts.rest_is_set:
            raise NotFound(f"{why}. There is no REST platform either: MLRUNBOOK_PLATFORM_URL is not set")
        return self._parts.rest

    def _asks_rest_for_models(self) -> bool:
        """Also where its address is the default one, as long as policy knows models that have nothing else."""
        return self._parts.rest_is_set or self._parts.registry is None


def _with_live(live: Callable[[], LiveFigures], model: str, window: WindowMetrics) -> WindowMetrics:
    """A monitoring that is away, or not set up, leaves the log's own figures: what the log does not know either is not judged."""
    try:
        seen = live().live(model, since=window.since, until=window.until)
    except RunbookError as error:
        log.warning("the live figures of %s are not known: %s", model, error)
        return window
    known = {name: getattr(seen, name) for name in ("latency_p95_ms", "error_rate", "null_rate")}
    return replace(window, **{name: value for name, value in known.items() if value is not None})
