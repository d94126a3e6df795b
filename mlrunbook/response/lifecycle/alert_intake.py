"""A batch of alerts is taken in: what is known is counted, what is new opens or joins an incident, what is resolved is noted.

Alerts come from a webhook or from `flows/monitor.py`, and are the same to this file.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from sqlalchemy import Connection, text

from mlrunbook.domain.detection.alerts import NormalisedAlert, report_of
from mlrunbook.domain.errors import Transient
from mlrunbook.domain.incident import Incident, Status
from mlrunbook.domain.policy.alerting import MISSED_FAILURE_ALERT
from mlrunbook.domain.policy.owned import Known, Standing
from mlrunbook.domain.policy.policy import Policy
from mlrunbook.response.lifecycle import silences, unknown_models
from mlrunbook.response.lifecycle.opening import ACCEPTED, begin_response, take_in
from mlrunbook.store import alerts as known_alerts
from mlrunbook.store import incidents, leases, outbox, timeline
from mlrunbook.store.alerts import Identity

HELD_BACK = "held_back"  # in the body of an alert that has opened no incident: the reason

Hold = Callable[[NormalisedAlert, str, bool], None]  # keeps an alert aside: the reason, and whether it comes for the first time


@dataclass(frozen=True)
class AlertBatch:
    """The alerts of one message. `truncated`: how many more the sender has cut off."""

    source: str
    alerts: Sequence[NormalisedAlert]
    truncated: int = 0


@dataclass(frozen=True)
class _Group:
    """What fires of one model and failure family: it opens or joins one incident."""

    source: str
    model: str
    family: str
    standing: Standing
    alerts: Sequence[NormalisedAlert]


def take_in_alerts(
    conn: Connection,
    policy: Policy,
    batch: AlertBatch,
    *,
    now: datetime,
    standings: Mapping[str, Standing] | None = None,
    hold: Hold | None = None,
) -> list[str]:
    """Count what is known, open or join an incident for what is new, note what is resolved; the ids of the incidents.

    A repeat of an alert whose incident is over is only counted: else each repeat would open a fixed incident again. The same
    alert starting anew (another `starts_at`) is new, and so is one that still fires long after it was called a false alarm.

    `standings`: what is known of the models' names (`World.known_models`, asked before the transaction). Alerts on unknown ones that would
    open more incidents than policy allows go to `hold`.
    """
    source = batch.source
    # One message a model at a time: the second of two equal ones must see the first.
    for model in sorted({a.model for a in batch.alerts}):
        conn.execute(text("SELECT pg_advisory_xact_lock(hashtextextended(:model, 0))"), {"model": f"alerts of {model}"})

    alerts = [alert if alert.start_is_stated else _going_on(conn, source, alert) for alert in batch.alerts]
    touched: dict[str, None] = {}
    for group in _groups(policy, source, (a for a in alerts if a.firing), standings or {}):
        touched |= dict.fromkeys(_take_in_group(conn, policy, group, hold, now=now))
    for alert in (a for a in alerts if not a.firing):
        if home := _note_resolved(conn, source, alert, now=now):
            touched[home.id] = None
    if batch.truncated:
        for incident_id in touched:
            words = f"{batch.truncated} further alert{'s were' if batch.truncated > 1 else ' was'} cut off by the sender"
            note_once(conn, incident_id, source, words, f"truncated:{batch.truncated}", now=now)
    return list(touched)


def end_silence(conn: Connection, policy: Policy, item: outbox.Item, standing: Standing, *, now: datetime) -> None:
    """The silence is over: what still fires opens or joins its incident, unless another silence holds. Transient where it may not yet."""
    if found := silences.still_firing(conn, item):
        source, alert = found
        take_in_alerts(conn, policy, AlertBatch(source, [alert]), now=now, standings={alert.model: standing}, hold=_wait)


def note_once(conn: Connection, incident_id: str, source: str, words: str, key: str, *, now: datetime) -> None:
    incidents.get(conn, incident_id, lock=True)
    if not any(e.kind == "alert" and e.data.get("key") == key for e in timeline.read(conn, incident_id)):
        timeline.append(conn, incident_id, "alert", words, actor=source, at=now, data={"key": key})


def _groups(policy: Policy, source: str, alerts: Iterable[NormalisedAlert], standings: Mapping[str, Standing]) -> Iterator[_Group]:
    groups: dict[tuple[str, str], list[NormalisedAlert]] = defaultdict(list)
    for alert in alerts:
        groups[alert.model, policy.family_of(alert.type(policy))].append(alert)
    for (model, family), members in sorted(groups.items()):
        yield _Group(source, model, family, standings.get(model, ACCEPTED), members)


def _take_in_group(conn: Connection, policy: Policy, group: _Group, hold: Hold | None, *, now: datetime) -> list[str]:
    heard = [alert for alert in group.alerts if not _is_silenced(conn, policy, group.source, alert, now=now)]
    recalled = [_doubted(_recall(conn, group.source, alert), policy, now) for alert in heard]
    fresh = [alert for alert, incident in recalled if incident is None]
    if fresh and hold and (why := _why_held_back(conn, policy, group, now=now)):
        _hold_back(conn, group.source, fresh, hold, why, now=now)
        recalled, fresh = [(alert, incident) for alert, incident in recalled if incident], []
    joined, is_new = None, False
    if fresh:
        joined, is_new = take_in(conn, policy, report_of(policy, group.source, fresh, now), now=now, standing=group.standing)
    for known in {i.id: i for _, i in recalled if i}.values():
        _recognised(conn, policy, known, group.standing, by=group.source, now=now)
    touched = []
    for alert, incident in recalled:
        home = incident or joined
        assert home is not None  # a fresh one has joined
        _record(conn, group.source, alert, home, now=now)
        incidents.count_alert(conn, home.id)
        touched.append(home.id)
    if joined and not is_new:
        _wake_for_a_missed_failure(conn, joined, fresh, now=now)
    return touched


def _wake_for_a_missed_failure(conn: Connection, incident: Incident, fresh: Sequence[NormalisedAlert], *, now: datetime) -> None:
    """Triage runs again, whatever the run is waiting for."""
    missed = next((a for a in fresh if a.name == MISSED_FAILURE_ALERT), None)
    if missed and not unknown_models.is_unknown(conn, incident.id):
        key = f"missed-{missed.fingerprint}-{missed.starts_at.isoformat()}"
        leases.wake(conn, incident.id, why=missed.summary, key=key, now=now)


def _note_resolved(conn: Connection, source: str, alert: NormalisedAlert, *, now: datetime) -> Incident | None:
    """The incident it belongs to; None: to none."""
    alert, home = _recall(conn, source, alert)
    _record(conn, source, alert, home, now=now)
    if home is not None:
        note_once(conn, home.id, source, f"Alert resolved: {alert.summary}", f"resolved:{alert.fingerprint}:{alert.starts_at}", now=now)
    return home


def _why_held_back(conn: Connection, policy: Policy, group: _Group, *, now: datetime) -> str | None:
    return unknown_models.limit_reached(conn, policy, group.model, group.family, now=now) if group.standing.is_unknown else None


def _hold_back(conn: Connection, source: str, alerts: Sequence[NormalisedAlert], hold: Hold, why: str, *, now: datetime) -> None:
    """Its repeats are counted, and open an incident as soon as they may."""
    for alert in alerts:
        told = replace(alert, body=dict(alert.body) | {"model": alert.model, HELD_BACK: why})
        hold(alert, why, _record(conn, source, told, None, now=now))


def _wait(_: NormalisedAlert, why: str, is_new: bool) -> None:
    raise Transient(why)


def _recognised(conn: Connection, policy: Policy, incident: Incident, standing: Standing, *, by: str, now: datetime) -> None:
    """A repeat of an alert on a name that was unknown: where it is known by now, the response begins."""
    known = standing.known is Known.KNOWN or policy.names(incident.model)
    if known and incident.status.is_open and unknown_models.is_unknown(conn, incident.id):
        unknown_models.recognise(conn, policy, incident, why=f"{by} alerts on it", now=now)
        begin_response(conn, policy, incident, by=by, start=True, now=now)


def _is_silenced(conn: Connection, policy: Policy, source: str, alert: NormalisedAlert, *, now: datetime) -> bool:
    """What belongs to an incident is never silenced."""
    return _recall(conn, source, alert)[1] is None and silences.silence(conn, policy, source, alert, now=now)


def _going_on(conn: Connection, source: str, alert: NormalisedAlert) -> NormalisedAlert:
    """The alert with the start it had when it came first; a repeat of a known one (same start too) stays what it is."""
    same = known_alerts.find(conn, _identity(source, alert))
    since = None if same else known_alerts.firing_since(conn, source=source, fingerprint=alert.fingerprint)
    return replace(alert, starts_at=since) if since else alert


def _recall(conn: Connection, source: str, alert: NormalisedAlert) -> tuple[NormalisedAlert, Incident | None]:
    """The incident this alert belongs to, if it came before."""
    row = known_alerts.find(conn, _identity(source, alert))
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


def _record(conn: Connection, source: str, alert: NormalisedAlert, home: Incident | None, *, now: datetime) -> bool:
    status, incident_id = "firing" if alert.firing else "resolved", home.id if home else None
    return known_alerts.record(conn, _identity(source, alert), status=status, body=alert.body, incident_id=incident_id, now=now)


def _identity(source: str, alert: NormalisedAlert) -> Identity:
    return Identity(source, alert.fingerprint, alert.starts_at)
