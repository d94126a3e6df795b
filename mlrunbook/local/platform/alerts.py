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
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import httpx
from sqlalchemy import Connection, Engine, RowMapping, insert, select, text, update

from mlrunbook.base.db import transaction
from mlrunbook.domain.detection import alert_rules
from mlrunbook.domain.detection.alert_rules import Judged, RuleState, Seen, ServerSeen
from mlrunbook.domain.detection.critical_assets import MissedFailure
from mlrunbook.domain.errors import RunbookError
from mlrunbook.domain.evaluation.performance import ModelMetrics
from mlrunbook.domain.evaluation.probing import Probing
from mlrunbook.domain.investigation.findings import Finding
from mlrunbook.domain.policy.policy import Policy
from mlrunbook.local.platform import metrics, safety_watch
from mlrunbook.local.platform.tables import alerts, models, predictions, production
from mlrunbook.local.serving import feature_watch

log = logging.getLogger(__name__)

REPEAT = timedelta(minutes=5)
LONGEST_WAIT_S = 30
CLAIM = timedelta(seconds=30)
_AHEAD = timedelta(-1)
NEVER = "0001-01-01T00:00:00Z"  # how Alertmanager writes the end of what has not ended
_ONE_EVALUATOR = 0x6D6C7261  # advisory lock: several API processes, one evaluation at a time


@dataclass(frozen=True)
class Watched:
    """What rules are judged by besides a model's figures and its server. `drift` is `DriftWatch`: the newest finding, and how long it has
    been so; `probing` is `ProbingWatch`."""

    drift: Callable[[str, ModelMetrics], tuple[Finding | None, timedelta]] = lambda *_: (None, timedelta(0))
    probing: Callable[[ModelMetrics], Probing | None] = lambda _: None
    policy: Policy = field(default_factory=Policy)

    def counted(self, conn: Connection, now: datetime) -> list[Counted]:
        """What the database says of every model with something in production."""
        return [
            Counted(
                version,
                metrics.compare(conn, model, now=now, version=version, threshold=threshold),
                safety_watch.missed_failures(conn, model, self.policy.safety, now=now),
            )
            for model, version, threshold in in_production(conn)
        ]

    def seen(self, counted: Counted, server: ServerSeen) -> Seen:
        figures = counted.figures
        policy = self.policy.for_model(figures.model)
        return Seen(
            figures.model,
            figures,
            server,
            *self.drift(figures.model, figures),
            probing=self.probing(figures),
            missed=counted.missed,
            fairness=policy.fairness,
            outcomes=policy.severity.outcomes,
        )


@dataclass(frozen=True)
class Counted:
    """One model's figures, of the version that predicts now, and its missed critical failures."""

    version: str
    figures: ModelMetrics
    missed: tuple[MissedFailure, ...]


def server_seen(health: Mapping[str, Any] | None, *, down_for: timedelta | None, now: datetime) -> ServerSeen:
    """What the server's `/health` says of the feature store, as `feature_watch.Seen` writes it, and of a version that it cannot load;
    `health` None: it does not answer."""
    said = (health or {}).get("features")
    features = said if isinstance(said, dict) else {}
    seen = replace(_loaded(health or {}, now), down_for=down_for)
    if health is None or features.get("state") == feature_watch.LOADING:
        return replace(seen, features_known=False)
    if features.get("state") != feature_watch.FAILING:
        return seen
    try:
        return replace(seen, features_down_for=now - datetime.fromisoformat(features["failingSince"]))
    except (KeyError, TypeError, ValueError):  # another server's words
        return replace(seen, features_known=False)


def _loaded(health: Mapping[str, Any], now: datetime) -> ServerSeen:
    """`notLoaded` as `served_version.NotLoaded` writes it."""
    try:
        failed = health["notLoaded"]
        return ServerSeen(not_loaded=str(failed["error"]), not_loaded_for=now - datetime.fromisoformat(failed["since"]))
    except (KeyError, TypeError, ValueError):  # all is well, or another server's words
        return ServerSeen()


def evaluate(
    conn: Connection,
    *,
    now: datetime,
    server: Callable[[str], ServerSeen],
    environment: str,
    watched: Watched = Watched(),
) -> None:
    """Judge every model with something in production and update the alerts. Safe to run in several processes."""
    if not conn.execute(text("SELECT pg_try_advisory_xact_lock(:key)"), {"key": _ONE_EVALUATOR}).scalar():
        return
    for counted in watched.counted(conn, now):
        model, version = counted.figures.model, counted.version
        seen = watched.seen(counted, server(model))
        active = [row for row in _active(conn) if row["model"] == model]
        judged = alert_rules.evaluate(seen, watched.policy.for_model(model).alerts, _states(active, version), now)
        _update(conn, judged, active, model=model, version=version, environment=environment, now=now)


def in_production(conn: Connection) -> list[tuple[str, str, float | None]]:
    """(model, version, threshold) of every model with something in production, as it predicts now.

    Like with like: the version and threshold of the newest prediction are judged, not the hour's mixture of old and new. The threshold
    is None before the first prediction.
    """
    serving = select(models.c.name, production.c.version).join(production, production.c.model == models.c.name)
    found = []
    for model, registered in conn.execute(serving.where(production.c.to_at.is_(None))).tuples().all():
        newest = select(predictions.c.version, predictions.c.threshold).where(predictions.c.model == model)
        latest = conn.execute(newest.order_by(predictions.c.at.desc(), predictions.c.id.desc()).limit(1)).one_or_none()
        found.append((model, latest.version if latest else registered, latest.threshold if latest else None))
    return found


def _states(active: Sequence[RowMapping], version: str) -> dict[str, RuleState]:
    """What the rules remember of this version: a row that fires. Pending needs no row, because those rules know how long it has lasted."""
    mine = (row for row in active if row["labels"]["model_version"] == version)
    return {f"{row['name']}:{row['severity']}": RuleState(row["starts_at"], row["starts_at"], row["quiet_since"]) for row in mine}


def _update(
    conn: Connection, judged: Sequence[Judged], active: Sequence[RowMapping], *, model: str, version: str, environment: str, now: datetime
) -> None:
    standing = alert_rules.firing(judged)
    labels = {
        name: {"alertname": name, "severity": one.rule.level.value, "model": model, "model_version": version, "environment": environment}
        for name, one in standing.items()
    }
    running = {}
    for row in active:
        if row["name"] in labels and row["fingerprint"] == fingerprint(labels[row["name"]]):
            running[row["name"]] = row
        else:
            conn.execute(update(alerts).where(alerts.c.id == row["id"]).values(ends_at=now, next_attempt_at=now, attempts=0))
    for name, one in standing.items():
        window = "" if one.rule.window == alert_rules.NOW else f"; over {one.rule.window}, predictions of the current version and threshold"
        told = {"summary": one.sentence, "description": one.sentence + window}
        if name in running:
            bad_now = one.measured is not None and one.state.quiet_since is None
            standing_words = {"annotations": told} if bad_now else {}
            change = update(alerts).where(alerts.c.id == running[name]["id"])
            conn.execute(change.values(quiet_since=one.state.quiet_since, **standing_words))
            continue
        values = {"model": model, "name": name, "severity": one.rule.level.value, "labels": labels[name], "annotations": told}
        conn.execute(insert(alerts).values(values | {"fingerprint": fingerprint(labels[name]), "starts_at": now, "next_attempt_at": now}))


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
        "((ends_at IS NULL AND (told_at IS NULL OR told_at <= :repeated OR told_at > :now)) "
        "OR (ends_at IS NOT NULL AND told IS DISTINCT FROM 'resolved')) "
        "AND (next_attempt_at <= :now OR next_attempt_at > :longest)"  # no wait is so long: the clock was set back
    )
    # Firing before resolved: a warning that became critical must not look like the end of the trouble.
    claim = text(
        f"UPDATE platform.alerts SET next_attempt_at = :claimed WHERE id IN (SELECT id FROM platform.alerts WHERE {due} "  # noqa: S608
        "ORDER BY (ends_at IS NOT NULL AND told IS NOT NULL), id LIMIT 1 FOR UPDATE SKIP LOCKED) RETURNING *"
    )
    taken = 0
    while True:
        with transaction(on) as conn:
            times = {
                "now": now,
                "repeated": now - REPEAT,
                "claimed": now + CLAIM,
                "longest": now + CLAIM + timedelta(seconds=LONGEST_WAIT_S),
            }
            row = conn.execute(claim, times).mappings().one_or_none()
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


class ServerWatch:
    """What the alerts need to know of a model's server, and since when it is down.

    `health` is what the model server that serves a model says of itself, None when it does not answer.
    """

    def __init__(
        self, health: Callable[[str], Mapping[str, Any] | None], stopped_on_purpose: Callable[[str], bool], clock: Callable[[], datetime]
    ) -> None:
        self._health, self._stopped, self._clock = health, stopped_on_purpose, clock
        self._since: dict[tuple[str, str], datetime] = {}

    def __call__(self, model: str) -> ServerSeen:
        health, now = self._health(model), self._clock()
        is_down = health is None and not self._stopped(model)
        seen = server_seen(health, down_for=self._lasted(model, "down", _AHEAD if is_down else None, now), now=now)
        features = self._lasted(model, "features", seen.features_down_for, now)
        loading = self._lasted(model, "loading", seen.not_loaded_for, now) or timedelta(0)
        return replace(seen, features_down_for=features, not_loaded_for=loading)

    def _lasted(self, model: str, what: str, said: timedelta | None, now: datetime) -> timedelta | None:
        """As it is said; where nobody says, or the clock was set back since, counted from when it was seen first."""
        if said is None or said >= timedelta(0):
            self._since.pop((model, what), None)
            return said
        since = self._since[model, what] = min(self._since.get((model, what), now), now)
        return now - since


class AlertLoop:
    """Evaluates every `every_s` seconds and delivers every second, in a thread of its own. `told` follows a delivery that was taken."""

    def __init__(
        self,
        evaluate: Callable[[], None],
        deliver: Callable[[], int],
        *,
        clock: Callable[[], datetime],
        every_s: float,
        told: Callable[[], None],
    ) -> None:
        self._evaluate, self._deliver, self._clock, self._every_s, self._told = evaluate, deliver, clock, every_s, told
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="alerts", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(timeout=5)

    def _run(self) -> None:
        due = self._clock()
        while not self._stop.wait(min(1.0, self._every_s)):
            try:
                if self._clock() >= due:
                    due = self._clock() + timedelta(seconds=self._every_s)
                    self._evaluate()
                if self._deliver():
                    self._told()
            except Exception:  # the loop outlives whatever happens in one round
                log.exception("alert round failed; trying again")
