"""The automated alerts for a team without monitoring of its own: look at a model, judge every rule, tell what fires and what ended.

The rules are `mlrunbook.domain.detection.alert_rules`; what they remember is in the store. What fires is taken in as a webhook's alerts
are. An alert that somebody else tells already, such as the platform in the box or Alertmanager, is left to them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Connection, text

from mlrunbook.domain.detection import alert_rules
from mlrunbook.domain.detection.alert_rules import Judged, Seen, ServerSeen
from mlrunbook.domain.detection.alerts import NormalisedAlert
from mlrunbook.domain.errors import NotFound
from mlrunbook.domain.evaluation.performance import ModelMetrics, WindowMetrics
from mlrunbook.domain.evaluation.probing import Probing, judge_probing
from mlrunbook.domain.investigation import findings as checks
from mlrunbook.domain.investigation.findings import Finding
from mlrunbook.domain.observed import FeatureServerAnswer, Missing, Prediction, ServingStatus
from mlrunbook.response.lifecycle.alert_intake import AlertBatch, take_in_alerts
from mlrunbook.response.measurement import feature_store, recent_changes
from mlrunbook.response.measurement import metrics as measured
from mlrunbook.response.measurement.outcome_window import with_enough_outcomes
from mlrunbook.response.tried import or_none, tried
from mlrunbook.response.world import World
from mlrunbook.store import alerts as known_alerts
from mlrunbook.store import rule_states

SOURCE = "monitor"
# Whoever else tells an alert repeats it while it fires, at least this often; then nobody needs to hear it from us.
TOLD_LATELY = timedelta(minutes=15)
PROBING_WINDOW, PROBING_ROWS = timedelta(minutes=10), 2000


def read_status(world: World, model: str) -> ServingStatus | Missing:
    """`Missing` when the platform does not answer, or nothing that can be understood. NotFound, with what to do, for an unknown model."""
    world.known_models.demand(world.policy, model)

    def read() -> ServingStatus | NotFound:
        try:
            return world.platform.status(model)
        except NotFound as error:
            return error

    found = tried("the status", read)
    if isinstance(found, NotFound):
        raise found
    return found


def read_metrics(world: World, model: str, status: ServingStatus | Missing) -> ModelMetrics | Missing:
    """Of the version that serves, since the platform's last change of the last hour: the time before it would dilute what it did."""
    if isinstance(status, Missing):
        return status
    now, version = world.now(), status.server_version or status.serving_version

    def read() -> ModelMetrics:
        changes = recent_changes.that_bound_windows(world, model, since=now - measured.WINDOW)
        since = max([now - measured.WINDOW, *(c.at for c in changes if c.at < now)])
        return with_enough_outcomes(world, world.platform.metrics(model, since=since, version=version), version)

    return tried("the metrics", read)


def read_feature_store(world: World, model: str) -> FeatureServerAnswer | Missing:
    return feature_store.server_answer(world, model)


@dataclass(frozen=True)
class LogSeen:
    """What the prediction log shows: whether features moved, and whether somebody probes the model."""

    drift: Finding
    probing: Probing


def read_log(world: World, model: str, metrics: ModelMetrics | Missing) -> LogSeen | Missing:
    """The features of the current window, and the newest rows, against the baseline's."""
    if isinstance(metrics, Missing):
        return metrics
    log = world.platform.prediction_log

    def sample(window: WindowMetrics) -> list[Prediction]:
        return alert_rules.spread(lambda a, b: log(model, limit=alert_rules.DRIFT_ROWS, since=a, until=b), window.since, window.until)

    def read() -> LogSeen:
        usual, current = sample(metrics.baseline), sample(metrics.current)
        newest = log(model, limit=PROBING_ROWS, since=world.now() - PROBING_WINDOW)
        policy = alert_rules.drift_policy(world.policy.for_model(model).alerts)
        return LogSeen(checks.feature_distributions(current, usual, policy), judge_probing(newest, usual))

    return tried("the prediction log", read)


def seen(
    world: World,
    model: str,
    status: ServingStatus | Missing,
    metrics: ModelMetrics | Missing,
    store: FeatureServerAnswer | Missing,
    log: LogSeen | Missing,
) -> Seen:
    return Seen(
        model,
        metrics=None if isinstance(metrics, Missing) else metrics,
        server=None if isinstance(status, Missing) else _server(world, status, store),
        drift=None if isinstance(log, Missing) else log.drift,
        probing=None if isinstance(log, Missing) else log.probing,
        platform_answers=not isinstance(status, Missing),
        outcomes=world.policy.for_model(model).severity.outcomes,
        fairness=world.policy.fairness,
    )


def evaluate(world: World, what: Seen) -> list[str]:
    """Judge every rule, remember its state, take in what fires and note what ended; a sentence a rule that is not well.

    One transaction: a run that is killed in it has told nothing, and the next one looks anew.
    """
    now, policy = world.now(), world.policy
    with world.transaction() as conn:  # one evaluation of a model at a time
        conn.execute(text("SELECT pg_advisory_xact_lock(hashtextextended(:model, 0))"), {"model": f"monitor of {what.model}"})
        judged = alert_rules.evaluate(what, policy.for_model(what.model).alerts, rule_states.read(conn, what.model), now)
        rule_states.write(conn, what.model, {one.rule.key: (one.state, one.sentence) for one in judged}, now=now)
        told = list(_to_tell(conn, what, judged, now))
        ids = take_in_alerts(conn, policy, AlertBatch(SOURCE, told), now=now)
    sentences = [f"{one.rule.level} {one.rule.alert} {one.state.words}: {one.sentence}" for one in judged if one.state.words != "ok"]
    sentences += [f"{one.rule.alert}: nobody can tell" for one in judged if one.measured is None and one.state.words == "ok"]
    sentences += [f"{alert.name} ended" for alert in told if not alert.firing]
    return [*sentences, f"told {', '.join(ids)}"] if ids else sentences


def _server(world: World, status: ServingStatus, store: FeatureServerAnswer | Missing) -> ServerSeen:
    """How long it has been so, the rules remember themselves."""
    down = None if status.server_healthy or _stopped_on_purpose(world, status.model) else timedelta(0)
    read = None if isinstance(store, Missing) else store.healthy and store.read_ok is not False
    failing = read is False or status.features not in (None, "ok")
    known = read is not None or status.features is not None
    return ServerSeen(
        down, timedelta(0) if failing else None, features_known=known, not_loaded=status.not_loaded or status.unloadable_route
    )


def _stopped_on_purpose(world: World, model: str) -> bool:
    seen = or_none("the look at the model server", lambda: world.runtime.observe(model))
    return seen is not None and seen.replicas == 0  # where nobody can tell, it is an outage


def _to_tell(conn: Connection, what: Seen, judged: list[Judged], now: datetime) -> Iterable[NormalisedAlert]:
    standing = {}
    for name, one in alert_rules.firing(judged).items():
        begun = one.state.firing_since or now
        if not known_alerts.told_by_others(conn, name=name, model=what.model, source=SOURCE, since=now - TOLD_LATELY, begun=begun):
            alert = _alert(what, one)
            standing[alert.fingerprint, alert.starts_at] = alert
    yield from standing.values()
    for row in known_alerts.firing(conn, source=SOURCE, model=what.model):
        body = row["body"]
        name, level = body["labels"]["alertname"], body["labels"]["severity"]
        still = any(j.rule.alert == name and j.rule.level == level and j.state.firing_since == row["starts_at"] for j in judged)
        if (row["fingerprint"], row["starts_at"]) not in standing and not still:
            yield NormalisedAlert(
                fingerprint=row["fingerprint"],
                firing=False,
                name=name,
                model=what.model,
                model_version=None,
                level=level,
                incident_type=None,
                summary=body["annotations"]["summary"],
                starts_at=row["starts_at"],
                body=body,
            )


def _alert(what: Seen, one: Judged) -> NormalisedAlert:
    labels = {"alertname": one.rule.alert, "severity": one.rule.level.value, "model": what.model}
    assert one.state.firing_since is not None
    return NormalisedAlert(
        fingerprint=hashlib.sha256(json.dumps(labels, sort_keys=True).encode()).hexdigest()[:16],
        firing=True,
        name=one.rule.alert,
        model=what.model,
        model_version=what.metrics.current.versions[0] if what.metrics and len(what.metrics.current.versions) == 1 else None,
        level=one.rule.level.value,
        incident_type=None,
        summary=one.sentence,
        starts_at=one.state.firing_since,
        body={"labels": labels, "annotations": {"summary": one.sentence}},
    )
