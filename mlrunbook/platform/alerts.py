"""The runbook's "Automated Alerts" that the platform can see: what fires, since when, and telling the gateway until it answers.

The alerts table is also the queue: an alert is told as firing, again every REPEAT while it fires, and once as resolved. One that
began and ended while the gateway was away is still told as firing first, so that nobody misses that it happened.
"""

from __future__ import annotations

import hashlib
import json
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import httpx
from sqlalchemy import Connection, Engine, RowMapping, insert, select, text, update

from mlrunbook.db import transaction
from mlrunbook.domain.errors import RunbookError
from mlrunbook.domain.performance import ModelMetrics
from mlrunbook.domain.policy import AlertThresholds
from mlrunbook.platform import feature_watch, metrics
from mlrunbook.platform.tables import alerts, models, predictions, production

log = logging.getLogger(__name__)

WARNING, CRITICAL = "warning", "critical"
# Below these a window says nothing: an alert then neither starts nor ends.
LEAST_LABELLED, LEAST_POSITIVES = 100, 5
LEAST_PREDICTIONS = 200
# A restart of the model server takes seconds and is no outage.
DOWN_FOR = timedelta(seconds=30)
FEATURES_DOWN_FOR = timedelta(seconds=10)  # a lock or a restart of the store can take that long
REPEAT = timedelta(minutes=5)
LONGEST_WAIT_S = 30
CLAIM = timedelta(seconds=30)
NEVER = "0001-01-01T00:00:00Z"  # how Alertmanager writes the end of what has not ended
_ONE_EVALUATOR = 0x6D6C7261  # advisory lock: several API processes, one evaluation at a time


@dataclass(frozen=True)
class Finding:
    """One rule's verdict. `severity` None: all is well; `known` False: too few data to tell, so leave the alert as it is."""

    name: str
    severity: str | None
    summary: str = ""
    known: bool = True


@dataclass(frozen=True)
class ServerSeen:
    """What the evaluation knows of the model server. `down_for` is None while it answers, or is stopped on purpose.

    `features_down_for`: how long it has not been able to read features; None while it can, or needs no feature store.
    `features_known` False: nobody can tell, because it does not answer or still loads the feature store.
    """

    down_for: timedelta | None = None
    features_down_for: timedelta | None = None
    features_known: bool = True


def server_seen(health: Mapping[str, Any] | None, *, down_for: timedelta | None, now: datetime) -> ServerSeen:
    """What the server's `/health` says of the feature store, as `feature_watch.Seen` writes it; `health` None: it does not answer."""
    said = (health or {}).get("features")
    features = said if isinstance(said, dict) else {}
    if health is None or features.get("state") == feature_watch.LOADING:
        return ServerSeen(down_for, features_known=False)
    if features.get("state") != feature_watch.FAILING:
        return ServerSeen(down_for)
    try:
        return ServerSeen(down_for, features_down_for=now - datetime.fromisoformat(features["failingSince"]))
    except (KeyError, TypeError, ValueError):  # another server's words
        return ServerSeen(down_for, features_known=False)


def judge(figures: ModelMetrics, server: ServerSeen, rules: AlertThresholds, firing: Mapping[str, str]) -> list[Finding]:
    """Apply every rule. `firing` maps the names that fire now to their severity: a critical F1 drop stays critical until the
    drop is below the warning level, so that a value around the limit does not raise two alerts in turn."""
    model, now, before = figures.model, figures.current, figures.baseline
    enough = all(w.labelled >= LEAST_LABELLED and w.confusion.positives >= LEAST_POSITIVES for w in (now, before))

    def drop(name: str, metric: str, was: float | None, is_: float | None, warning: float, critical: float | None = None) -> Finding:
        if not enough or not was or is_ is None:
            return Finding(name, None, known=False)
        fell = 1 - is_ / was
        summary = f"{model} {metric} fell {fell:.1%} ({was:.3f} -> {is_:.3f}, {now.labelled} labelled predictions)"
        beyond = warning if critical is not None and firing.get(name) == CRITICAL else critical
        if beyond is not None and fell > beyond:
            return Finding(name, CRITICAL, summary)
        return Finding(name, WARNING if fell > warning else None, summary)

    def over(name: str, value: float | None, limit: float, summary: str, least: int = LEAST_PREDICTIONS) -> Finding:
        if value is None or now.predictions < least:
            return Finding(name, None, known=False)
        return Finding(name, WARNING if value > limit else None, summary)

    past, present = before.confusion, now.confusion
    p95_s = now.latency_p95_ms / 1000 if now.latency_p95_ms is not None else None
    flagged = now.flagged_share if now.predictions >= LEAST_PREDICTIONS else None
    down = server.down_for is not None and server.down_for >= DOWN_FOR
    down_s = server.down_for.total_seconds() if server.down_for is not None else 0
    unread = server.features_down_for
    unread_s = unread.total_seconds() if unread is not None else 0
    errors = now.error_rate or 0
    return [  # the most dangerous first: they are told in this order, and the first one opens the incident
        Finding(
            "AllAssetsHighRisk",
            CRITICAL if flagged is not None and flagged >= rules.flagged_share_critical else None,
            f"{model} flags {flagged or 0:.1%} of {now.predictions} predictions as high-risk",
            known=flagged is not None,
        ),
        Finding("ModelServerDown", CRITICAL if down else None, f"the model server of {model} has not answered for {down_s:.0f} s"),
        Finding(
            "FeatureStoreUnavailable",
            CRITICAL if unread is not None and unread >= FEATURES_DOWN_FOR else None,
            f"the model server of {model} has not been able to read features for {unread_s:.0f} s",
            known=server.features_known,
        ),
        drop("ModelF1Drop", "F1", past.f1, present.f1, rules.f1_drop_warning, rules.f1_drop_critical),
        drop("ModelPrecisionDrop", "precision", past.precision, present.precision, rules.precision_drop_warning),
        drop("ModelRecallDrop", "recall", past.recall, present.recall, rules.recall_drop_warning),
        over("FeatureNullRateHigh", now.null_rate, rules.null_rate_warning, f"{now.null_rate or 0:.1%} of a feature of {model} is null"),
        over("InferenceLatencyHigh", p95_s, rules.latency_warning_s, f"{model} inference takes {p95_s or 0:.2f} s (p95)"),
        # A model that only fails has no predictions at all, so none are needed here.
        over("ModelErrorRateHigh", now.error_rate, rules.error_rate_warning, f"{errors:.1%} of the predictions asked of {model} failed", 0),
    ]


def evaluate(conn: Connection, *, now: datetime, rules: AlertThresholds, server: Callable[[str], ServerSeen], environment: str) -> None:
    """Judge every model with something in production and update the alerts. Safe to run in several processes."""
    if not conn.execute(text("SELECT pg_try_advisory_xact_lock(:key)"), {"key": _ONE_EVALUATOR}).scalar():
        return
    serving = select(models.c.name, production.c.version).join(production, production.c.model == models.c.name)
    for model, registered in conn.execute(serving.where(production.c.to_at.is_(None))).tuples().all():
        # Like with like: judge the version and threshold that predict now, not the hour's mixture of old and new.
        newest = select(predictions.c.version, predictions.c.threshold).where(predictions.c.model == model)
        latest = conn.execute(newest.order_by(predictions.c.at.desc(), predictions.c.id.desc()).limit(1)).one_or_none()
        version = latest.version if latest else registered
        figures = metrics.compare(conn, model, now=now, version=version, threshold=latest.threshold if latest else None)
        active = [row for row in _active(conn) if row["model"] == model]
        firing = {row["name"]: row["severity"] for row in active if row["labels"]["model_version"] == version}
        for finding in judge(figures, server(model), rules, firing):
            _update(conn, finding, active, model=model, version=version, environment=environment, now=now)


def _update(
    conn: Connection, finding: Finding, active: Sequence[RowMapping], *, model: str, version: str, environment: str, now: datetime
) -> None:
    labels = {"alertname": finding.name, "severity": finding.severity, "model": model, "model_version": version, "environment": environment}
    print_ = fingerprint(labels)
    same_name = [row for row in active if row["name"] == finding.name]
    for row in same_name:
        stays = row["fingerprint"] == print_ or (not finding.known and row["labels"]["model_version"] == version)
        if not stays:
            conn.execute(update(alerts).where(alerts.c.id == row["id"]).values(ends_at=now, next_attempt_at=now, attempts=0))
    if finding.severity is None:
        return
    window = "over the last 60 min, predictions of the current version and threshold, against the baseline window"
    annotations = {"summary": finding.summary, "description": f"{finding.summary}; {window}"}
    if running := next((row for row in same_name if row["fingerprint"] == print_), None):
        conn.execute(update(alerts).where(alerts.c.id == running["id"]).values(annotations=annotations))
        return
    values = {"model": model, "name": finding.name, "severity": finding.severity, "fingerprint": print_, "labels": labels}
    conn.execute(insert(alerts).values(values | {"annotations": annotations, "starts_at": now, "next_attempt_at": now}))


def fingerprint(labels: Mapping[str, Any]) -> str:
    """16 hex digits, the same for the same labels."""
    return hashlib.sha256(json.dumps(dict(labels), sort_keys=True).encode()).hexdigest()[:16]


def active(conn: Connection, *, model: str | None = None) -> list[dict[str, Any]]:
    """The alerts that fire now, oldest first, each as Alertmanager writes one."""
    return [as_alert(row, "firing") for row in _active(conn) if model in (None, row["model"])]


def _active(conn: Connection) -> Sequence[RowMapping]:
    return conn.execute(select(alerts).where(alerts.c.ends_at.is_(None)).order_by(alerts.c.id)).mappings().all()


def as_alert(row: RowMapping, status: str) -> dict[str, Any]:
    return {
        "status": status,
        "labels": row["labels"],
        "annotations": row["annotations"],
        "startsAt": _iso(row["starts_at"]),
        "endsAt": _iso(row["ends_at"]) if status == "resolved" else NEVER,
        "generatorURL": f"/api/v1/model-performance/metrics/{row['model']}",
        "fingerprint": row["fingerprint"],
    }


def payload(row: RowMapping, status: str) -> dict[str, Any]:
    """An Alertmanager webhook message, version 4, with this one alert. `status`: firing or resolved."""
    group = {"alertname": row["name"], "model": row["model"]}
    return {
        "version": "4",
        "groupKey": f'{{}}:{{alertname="{row["name"]}", model="{row["model"]}"}}',
        "truncatedAlerts": 0,
        "status": status,
        "receiver": "mlrunbook",
        "groupLabels": group,
        "commonLabels": row["labels"],
        "commonAnnotations": row["annotations"],
        "externalURL": "",
        "alerts": [as_alert(row, status)],
    }


def deliver_due(on: Engine, send: Callable[[dict[str, Any]], None], *, now: datetime) -> int:
    """Tell the gateway what it does not know yet; return how many messages it took. `send` raises when it did not.

    A message is claimed before it is sent and noted after: told at least once, whoever is killed in between.
    """
    due = (
        "((ends_at IS NULL AND (told_at IS NULL OR told_at <= :repeated)) OR (ends_at IS NOT NULL AND told IS DISTINCT FROM 'resolved')) "
        "AND next_attempt_at <= :now"
    )
    # Firing before resolved: a warning that became critical must not look like the end of the trouble.
    claim = text(
        f"UPDATE platform.alerts SET next_attempt_at = :claimed WHERE id IN (SELECT id FROM platform.alerts WHERE {due} "  # noqa: S608
        "ORDER BY (ends_at IS NOT NULL AND told IS NOT NULL), id LIMIT 1 FOR UPDATE SKIP LOCKED) RETURNING *"
    )
    taken = 0
    while True:
        with transaction(on) as conn:
            row = conn.execute(claim, {"now": now, "repeated": now - REPEAT, "claimed": now + CLAIM}).mappings().one_or_none()
        if row is None:
            return taken
        status = "resolved" if row["ends_at"] is not None and row["told"] is not None else "firing"
        try:
            send(payload(row, status))
        except (RunbookError, httpx.HTTPError) as error:
            wait_s = min(2 ** row["attempts"], LONGEST_WAIT_S)
            log.warning("the gateway did not take %s (%s): %s; next try in %d s", row["name"], status, error, wait_s)
            values = {"attempts": row["attempts"] + 1, "last_error": str(error), "next_attempt_at": now + timedelta(seconds=wait_s)}
        else:
            taken += 1
            values = {"told": status, "told_at": now, "attempts": 0, "last_error": None, "next_attempt_at": now}
        with transaction(on) as conn:
            conn.execute(update(alerts).where(alerts.c.id == row["id"]).values(values))


def _iso(at: datetime) -> str:
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass(frozen=True)
class Gateway:
    """Posts to the gateway's Alertmanager webhook. Raises httpx.HTTPError unless it answers 2xx."""

    http: httpx.Client
    url: str
    token: str | None

    def __call__(self, message: dict[str, Any]) -> None:
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        self.http.post(f"{self.url}/webhooks/alertmanager", json=message, headers=headers).raise_for_status()


class AlertLoop:
    """Evaluates every `every_s` seconds and delivers every second, in a thread of its own.

    `health` is what the model server that serves a model says of itself, None when it does not answer.
    """

    def __init__(
        self,
        on: Engine,
        *,
        clock: Callable[[], datetime],
        health: Callable[[str], Mapping[str, Any] | None],
        stopped_on_purpose: Callable[[], bool],
        send: Callable[[dict[str, Any]], None],
        rules: AlertThresholds,
        environment: str,
        every_s: float,
        told: Callable[[], None] = lambda: None,
    ) -> None:
        self._on, self._clock, self._health, self._stopped, self._send = on, clock, health, stopped_on_purpose, send
        self._rules, self._environment, self._every_s, self._told = rules, environment, every_s, told
        self._down_since: dict[str, datetime] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="alerts", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(timeout=5)

    def evaluate(self) -> None:
        now = self._clock()
        with transaction(self._on) as conn:
            evaluate(conn, now=now, rules=self._rules, server=self._look, environment=self._environment)

    def deliver(self) -> int:
        return deliver_due(self._on, self._send, now=self._clock())

    def _look(self, model: str) -> ServerSeen:
        health, now = self._health(model), self._clock()
        if health is not None or self._stopped():
            self._down_since.pop(model, None)
            return server_seen(health, down_for=None, now=now)
        return server_seen(None, down_for=now - self._down_since.setdefault(model, now), now=now)

    def _run(self) -> None:
        due = self._clock()
        while not self._stop.wait(min(1.0, self._every_s)):
            try:
                if self._clock() >= due:
                    due = self._clock() + timedelta(seconds=self._every_s)
                    self.evaluate()
                if self.deliver():
                    self._told()
            except Exception:  # the loop outlives whatever happens in one round
                log.exception("alert round failed; trying again")
