"""What every alert format shares: read the body, normalise, store all of it in one transaction, answer 202.

A format is one file with a `normalise(payload)`; `router` gives it its endpoint. What a trusted sender sent is never lost: an
alert we can use opens or joins an incident, and anything else is quarantined.
"""

from __future__ import annotations

import json
import logging
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from pydantic import Field
from sqlalchemy import Connection, text

from mlrunbook.domain.incident import Incident, IncidentType, Severity, Status
from mlrunbook.domain.policy import Policy
from mlrunbook.gateway.text import clean
from mlrunbook.intake import take_in
from mlrunbook.store import alerts as known_alerts
from mlrunbook.store import incidents, timeline
from mlrunbook.store.incidents import Report
from mlrunbook.tokens import Identity, Scope
from mlrunbook.web import CamelModel, require
from mlrunbook.wiring import World

log = logging.getLogger(__name__)

MODEL_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
# An alert's level is not the incident's severity, only a first guess until triage has measured. Unknown: medium, so that it pages.
FIRST_GUESS = {"critical": Severity.HIGH, "warning": Severity.MEDIUM, "info": Severity.LOW, "none": Severity.LOW}
PLAUSIBLE_SINCE = datetime(2000, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class NormalisedAlert:
    """One alert of any format. (fingerprint, starts_at) is its identity; `level` and `incident_type` are the sender's words.

    `body` holds what is kept of it: at least "labels" and "annotations", each string to string.
    """

    fingerprint: str
    firing: bool
    name: str
    model: str
    model_version: str | None
    level: str
    incident_type: str | None
    summary: str
    starts_at: datetime
    body: Mapping[str, Any]


@dataclass(frozen=True)
class Unusable:
    """A part of a message that is no alert of ours, and the sentence that says why."""

    part: Any
    reason: str


Normalised = tuple[list[NormalisedAlert], list[Unusable], int]


class Receipt(CamelModel):
    """What became of a message: all of it is stored when this is answered."""

    accepted: int = Field(description="Alerts taken in, repeats and resolved ones too")
    quarantined: int = Field(description="Parts that were kept aside because they cannot be used")
    incidents: list[str] = Field(description="Ids of the incidents the alerts belong to")


async def raw(request: Request) -> bytes:
    return await request.body()


def router(world: World, source: str, normalise: Callable[[Any], Normalised]) -> APIRouter:
    """`POST /webhooks/{source}`."""
    routes = APIRouter(tags=["webhooks"])

    @routes.post(
        f"/webhooks/{source}",
        status_code=202,
        operation_id=f"receive_{source}",
        openapi_extra={"requestBody": {"required": True, "content": {"application/json": {"schema": {"type": "object"}}}}},
    )
    def receive(body: Annotated[bytes, Depends(raw)], sender: Annotated[Identity, Depends(require(Scope.INTAKE, basic=True))]) -> Receipt:
        """Take in one message. A bearer token, or HTTP basic with the token as password."""
        try:
            usable, unusable, truncated = normalise(json.loads(body))
        except (ValueError, RecursionError) as error:
            usable, unusable, truncated = [], [Unusable(body, f"not JSON: {error}")], 0
        now = world.now()
        with world.transaction() as conn:
            ids = store(conn, world.policy, source, usable, truncated=truncated, now=now)
            for one in unusable:
                _quarantine(conn, source, one, body, now=now)
        if unusable:
            log.warning("quarantined %d part(s) of a message of %s: %s", len(unusable), sender.name, clean(unusable[0].reason, 300))
        return Receipt(accepted=len(usable), quarantined=len(unusable), incidents=ids)

    return routes


def store(conn: Connection, policy: Policy, source: str, alerts: Sequence[NormalisedAlert], *, truncated: int, now: datetime) -> list[str]:
    """Count what is known, open or join an incident for what is new, note what is resolved; the ids of the incidents.

    A repeat of an alert whose incident is over is only counted: else each repeat would open a fixed incident again. The same
    alert starting anew (another `starts_at`) is new, and so is one that still fires long after it was called a false alarm.
    """
    # One message a model at a time: the second of two equal ones must see the first.
    for model in sorted({a.model for a in alerts}):
        conn.execute(text("SELECT pg_advisory_xact_lock(hashtextextended(:model, 0))"), {"model": f"alerts of {model}"})

    touched: dict[str, None] = {}
    groups: dict[tuple[str, str], list[NormalisedAlert]] = defaultdict(list)
    for alert in (a for a in alerts if a.firing):
        groups[alert.model, policy.family_of(_type_of(policy, alert))].append(alert)
    for (_, family), members in sorted(groups.items()):
        recalled = [_doubted(_recall(conn, source, alert), policy, now) for alert in members]
        fresh = [alert for alert, incident in recalled if incident is None]
        joined = take_in(conn, policy, _report(policy, source, family, fresh, now), now=now, by_alert=True)[0] if fresh else None
        for alert, incident in recalled:
            home = incident or joined
            assert home is not None  # a fresh one has joined
            _record(conn, source, alert, home, now=now)
            incidents.count_alert(conn, home.id)
            touched[home.id] = None

    for alert in (a for a in alerts if not a.firing):
        alert, home = _recall(conn, source, alert)
        _record(conn, source, alert, home, now=now)
        if home is not None:
            _note_once(
                conn, home.id, source, f"Alert resolved: {alert.summary}", f"resolved:{alert.fingerprint}:{alert.starts_at}", now=now
            )
            touched[home.id] = None

    if truncated:
        for incident_id in touched:
            words = f"{truncated} further alert{'s were' if truncated > 1 else ' was'} cut off by the sender"
            _note_once(conn, incident_id, source, words, f"truncated:{truncated}", now=now)
    return list(touched)


def _recall(conn: Connection, source: str, alert: NormalisedAlert) -> tuple[NormalisedAlert, Incident | None]:
    """The incident this alert belongs to, if it came before."""
    row = known_alerts.find(conn, source=source, fingerprint=alert.fingerprint, starts_at=alert.starts_at)
    incident = incidents.get(conn, row["incident_id"]) if row and row["incident_id"] else None
    if incident is not None and incident.model != alert.model:  # a sender that gives two alerts one fingerprint must not hide the second
        return _recall(conn, source, replace(alert, fingerprint=f"{alert.fingerprint}@{alert.model}"))
    return alert, incident


def _doubted(recalled: tuple[NormalisedAlert, Incident | None], policy: Policy, now: datetime) -> tuple[NormalisedAlert, Incident | None]:
    """Without its incident when that was a false alarm long ago: what still fires may be real by now."""
    alert, incident = recalled
    if incident is None or incident.status is not Status.FALSE_ALARM or incident.closed_at is None:
        return recalled
    limit = timedelta(minutes=policy.triage.doubt_false_alarm_after_min)
    return (alert, None) if now - incident.closed_at > limit else recalled


def _record(conn: Connection, source: str, alert: NormalisedAlert, home: Incident | None, *, now: datetime) -> None:
    known_alerts.record(
        conn,
        source=source,
        fingerprint=alert.fingerprint,
        starts_at=alert.starts_at,
        status="firing" if alert.firing else "resolved",
        body=alert.body,
        incident_id=home.id if home else None,
        now=now,
    )


def _report(policy: Policy, source: str, family: str, alerts: Sequence[NormalisedAlert], now: datetime) -> Report:
    """One report of several alerts of one model and family: the worst speaks for them."""
    worst = max(alerts, key=lambda a: _severity(a).rank)
    others = len({a.fingerprint for a in alerts}) - 1
    starts = [a.starts_at for a in alerts if PLAUSIBLE_SINCE <= a.starts_at <= now]
    return Report(
        model=worst.model,
        type=_type_of(policy, worst),
        family=family,
        severity=_severity(worst),
        description=worst.summary + (f" (and {others} more alert{'s' if others > 1 else ''})" if others else ""),
        reported_by=source,
        model_version=next((a.model_version for a in [worst, *alerts] if a.model_version), None),
        started_at=min(starts, default=None),
    )


def _severity(alert: NormalisedAlert) -> Severity:
    return FIRST_GUESS.get(alert.level, Severity.MEDIUM)


def _type_of(policy: Policy, alert: NormalisedAlert) -> IncidentType:
    if known := policy.type_of_alert(alert.name):
        return known
    if alert.incident_type in {t.value for t in IncidentType}:
        return IncidentType(alert.incident_type)
    return IncidentType.PERFORMANCE_DEGRADATION


def _note_once(conn: Connection, incident_id: str, source: str, words: str, key: str, *, now: datetime) -> None:
    incidents.get(conn, incident_id, lock=True)
    if not any(e.kind == "alert" and e.data.get("key") == key for e in timeline.read(conn, incident_id)):
        timeline.append(conn, incident_id, "alert", words, actor=source, at=now, data={"key": key})


def _quarantine(conn: Connection, source: str, one: Unusable, message: bytes, *, now: datetime) -> None:
    try:
        body = one.part if isinstance(one.part, bytes) else json.dumps(one.part).encode()
    except (ValueError, RecursionError):  # nested as deep as could just be read
        body = message
    known_alerts.keep_unreadable(conn, source=source, body=body, error=clean(one.reason, 500), now=now)
