"""Small worlds for the domain tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy  # noqa: F401 - once here: the rules import it where they use it, and no timed example should pay for that

from mlrunbook.domain.communication.messages import Figures
from mlrunbook.domain.detection.severity import AlertSignal, Assessment, Claims, Measurements, assess
from mlrunbook.domain.detection.triage import Affected, Triage
from mlrunbook.domain.evaluation.performance import Confusion, ModelMetrics, WindowMetrics
from mlrunbook.domain.incident import IncidentType, Severity
from mlrunbook.domain.investigation.facts import About, Changed, DiagnosisFacts, Log, Versions, gather
from mlrunbook.domain.investigation.rollouts import NO_HISTORY
from mlrunbook.domain.observed import Change, Prediction, ServingConfig, ServingState, ServingStatus
from mlrunbook.domain.policy.policy import Policy, Retraining

NOW = datetime(2025, 3, 1, 12, 0, tzinfo=UTC)
MODEL = "predictive_maintenance"
BASELINE = Confusion(tp=80, fp=18, fn=22, tn=880)
HEALTHY = Confusion(tp=79, fp=19, fn=23, tn=879)
FALLEN = Confusion(tp=50, fp=30, fn=52, tn=868)  # F1 -31 %, precision and recall both gone
TOO_MANY_ALARMS = Confusion(tp=90, fp=150, fn=12, tn=748)  # precision collapsed, recall held
TINY = Confusion(tp=6, fp=3, fn=4, tn=90)


def window(confusion: Confusion, **changes: Any) -> WindowMetrics:
    values: dict[str, Any] = {
        "since": NOW - timedelta(hours=1),
        "until": NOW,
        "predictions": confusion.n,
        "labelled": confusion.n,
        "tally": confusion,
        "flagged_share": (confusion.tp + confusion.fp) / confusion.n if confusion.n else None,
        "latency_p95_ms": 40.0,
        "error_rate": 0.0,
        "null_rate": 0.0,
        "versions": ("v2.0.0",),
    }
    return WindowMetrics(**(values | changes))


def metrics(current: Confusion, baseline: Confusion = BASELINE, **changes: Any) -> ModelMetrics:
    return ModelMetrics(MODEL, window(current, **changes), window(baseline))


def status(**changes: Any) -> ServingStatus:
    values: dict[str, Any] = {
        "model": MODEL,
        "serving_version": "v2.0.0",
        "previous_version": "v1.5.0",
        "staging_version": None,
        "server_healthy": True,
        "server_version": "v2.0.0",
    }
    return ServingStatus(**(values | changes))


def assessed(
    *,
    severity: Severity | None = None,
    type: IncidentType | None = None,
    alerts: Sequence[AlertSignal] = (),
    platform_reachable: bool = True,
    final_look: bool = False,
    **measured: Any,
) -> Assessment:
    """What was reported, against `metrics` and `status`."""
    return assess(Claims(severity, type, alerts), Measurements(**measured, platform_reachable=platform_reachable), final_look=final_look)


def triaged(baseline: Confusion | None = None, **figures: Any) -> Triage:
    """What triage leaves of a real, high drop in performance."""
    found = Assessment(True, Severity.HIGH, IncidentType.PERFORMANCE_DEGRADATION, ("F1 fell",))
    told = Figures(**figures)
    return Triage(True, found.severity, found.type, "F1 fell", found, Affected(MODEL), baseline=baseline, figures=told)


def serving(*, threshold: float = 0.5, replicas: int = 1, route: str | None = None, **switches: bool) -> ServingState:
    config = ServingConfig(
        revision="3",
        threshold=threshold,
        human_approval=switches.get("human_approval", False),
        auto_work_orders=switches.get("auto_work_orders", True),
        auto_scheduling=switches.get("auto_scheduling", True),
    )
    return ServingState(replicas, replicas, route, None, route or "v2.0.0", config)


def change(kind: str, *, hours_ago: float, ref: str = "v2.0.0", detail: Mapping[str, Any] | None = None) -> Change:
    return Change(kind, ref, "release-bot", NOW - timedelta(hours=hours_ago), detail or {})


def threshold_change(before: float, after: float, *, hours_ago: float = 2) -> Change:
    return change("config", hours_ago=hours_ago, ref="r4", detail={"from": {"threshold": before}, "to": {"threshold": after}})


def prediction(i: int, *, score: float = 0.1, outcome: bool | None = False, threshold: float = 0.5, **changes: Any) -> Prediction:
    values: dict[str, Any] = {
        "id": i,
        "at": NOW - timedelta(seconds=i),
        "asset_id": f"asset_{i}",
        "asset_type": "LMH"[i % 3],
        "features": {"torque_nm": 40.0 + i % 7},
        "score": score,
        "label": score >= threshold,
        "version": "v2.0.0",
        "threshold": threshold,
        "latency_ms": 4.0,
        "outcome": outcome,
    }
    return Prediction(**(values | changes))


def gathered(**world: Any) -> DiagnosisFacts:
    """The facts of a world that the tests describe in one breath. Unless it says otherwise no cause lets path C be prepared."""
    triggers = tuple(world.get("retrain_triggers", ()))
    return gather(
        About(
            world["detected_at"],
            world.get("model_version"),
            missed=world.get("missed", ""),
            dangerous=world.get("dangerous", False),
            stopped=world.get("stopped", False),
        ),
        Policy(retraining=Retraining(triggers=triggers)),
        changed=Changed(world["changes"], world.get("rollout", NO_HISTORY)),
        metrics=world["metrics"],
        log=Log(world["predictions"], world.get("courses", {}), world.get("probing")),
        features=world.get("features"),
        versions=Versions(world["status"], world.get("trained_types"), world.get("targets")),
    )
