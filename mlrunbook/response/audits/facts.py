"""What an audit reads: of the model platform, and of the incident store. A part that the platform does not have is `Missing`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar

from sqlalchemy import Connection

from mlrunbook.domain.audits.monthly import MonthlyFacts
from mlrunbook.domain.audits.period import Period
from mlrunbook.domain.audits.weekly import FiringAlert, WeeklyFacts
from mlrunbook.domain.communication.durations import utc
from mlrunbook.domain.detection import alert_rules
from mlrunbook.domain.errors import NotFound, Refused
from mlrunbook.domain.evaluation.drift import DriftVerdict
from mlrunbook.domain.evaluation.history import DayFigures
from mlrunbook.domain.evaluation.performance import ModelMetrics, WindowMetrics
from mlrunbook.domain.evaluation.prediction_rows import drift_between, in_time_order
from mlrunbook.domain.incident import Incident
from mlrunbook.domain.observed import Missing, Prediction
from mlrunbook.domain.review.action_items import Item
from mlrunbook.domain.tally import all_binary
from mlrunbook.response.measurement.outcome_history import with_history
from mlrunbook.response.review.closing import root_cause
from mlrunbook.response.world import World
from mlrunbook.store import action_items, incidents

T = TypeVar("T")
MOST_INCIDENTS = 10_000


def weekly(world: World, model: str, period: Period) -> WeeklyFacts:
    metrics = with_history(world, world.platform.metrics(model, since=period.since, until=period.until), None, before=period.until)
    with world.transaction() as conn:
        happened = incidents_of(conn, model, period)
        return WeeklyFacts(
            now=world.now(),
            metrics=metrics,
            history=history(world, model, world.policy.audits.history_days, period.until),
            drift=drift(world, model, metrics),
            alerts=_or_missing(lambda: [_firing(alert, world.now()) for alert in world.platform.alerts(model)]),
            incidents=happened,
            items=items_of(conn, model),
            causes={i.id: root_cause(conn, i.id) or "" for i in happened},
        )


def monthly(world: World, model: str, period: Period) -> MonthlyFacts:
    now = world.platform.metrics(model, since=period.since, until=period.until).current
    before = world.platform.metrics(model, since=period.since - period.length, until=period.since).current
    now_by_type, before_by_type = all_binary(now.by_asset_type), all_binary(before.by_asset_type)
    serving = _or_missing(lambda: world.platform.status(model).serving_version)
    if isinstance(serving, Missing):
        return MonthlyFacts(now_by_type, before_by_type, serving)

    def seen_in_training() -> Sequence[str] | None:
        return next((v.asset_types for v in world.platform.versions(model) if v.version == serving), None)

    return MonthlyFacts(now_by_type, before_by_type, _or_missing(seen_in_training), serving)


def versions(metrics: ModelMetrics | Missing) -> str:
    return "" if isinstance(metrics, Missing) else ", ".join(metrics.current.versions)


def incidents_of(conn: Connection, model: str, period: Period) -> list[Incident]:
    """Detected in the period, oldest first."""
    found = incidents.find(conn, model=model, limit=MOST_INCIDENTS)
    return sorted((i for i in found if period.since <= i.detected_at < period.until), key=lambda i: i.detected_at)


def items_of(conn: Connection, model: str, *, only_open: bool = True) -> list[Item]:
    """Action items of the model's incidents, the earliest due first."""
    ours = {i.id for i in incidents.find(conn, model=model, limit=MOST_INCIDENTS)}
    return [item for item in action_items.find(conn, only_open=only_open, limit=MOST_INCIDENTS) if item.incident_id in ours]


def history(world: World, model: str, days: int, until: datetime) -> Sequence[DayFigures] | Missing:
    return _or_missing(lambda: world.platform.history(model, days=days, until=until), "the platform keeps no history by day")


def drift(world: World, model: str, metrics: ModelMetrics) -> DriftVerdict | Missing:
    """The inputs of the period against the baseline's, judged as the alert does."""

    def sample(window: WindowMetrics) -> list[Prediction]:
        def page(since: datetime, until: datetime) -> Sequence[Prediction]:
            return world.platform.prediction_log(model, limit=alert_rules.DRIFT_ROWS, since=since, until=until)

        return in_time_order(alert_rules.spread(page, window.since, window.until))

    def compared() -> DriftVerdict | Missing:
        usual, current = sample(metrics.baseline), sample(metrics.current)
        if not usual or not current:
            return Missing(f"no prediction of the {'period' if usual else 'baseline'} is logged: nothing to compare")
        return drift_between(usual, current, alert_rules.drift_policy(world.policy.for_model(model).alerts))

    return _or_missing(compared)


def _or_missing(read: Callable[[], T], why: str = "") -> T | Missing:
    """What is not there is not judged. A platform that does not answer is another matter: the audit is held again."""
    try:
        return read()
    except (NotFound, Refused) as error:
        return Missing(f"{why} ({error})" if why else str(error))


def _firing(alert: Mapping[str, Any], now: datetime) -> FiringAlert:
    labels, annotations = alert.get("labels") or {}, alert.get("annotations") or {}
    try:
        since = utc(datetime.fromisoformat(str(alert.get("startsAt"))))
    except ValueError:
        since = now
    name, level = str(labels.get("alertname", "")), str(labels.get("severity", "-"))
    return FiringAlert(name, level, min(since, now), str(annotations.get("summary", "")))
