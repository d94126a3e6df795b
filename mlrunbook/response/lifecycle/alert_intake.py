"""A batch of alerts is taken in: what is known is counted, what is new opens or joins an incident, what is resolved is noted.

Alerts come from a webhook or from `flows/monitor.py`, and are the same to this file.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from sqlalchemy import Connection, text

from mlrunbook.domain.detection.alerts import NormalisedAlert, proven_as, report_of
from mlrunbook.domain.detection.reports import Report
from mlrunbook.domain.errors import Transient
from mlrunbook.domain.incident import Incident, IncidentType, Status
from mlrunbook.domain.policy.alerting import MISSED_FAILURE_ALERT
from mlrunbook.domain.policy.intake import UNPROVEN
from mlrunbook.domain.policy.owned import Known, Standing
from mlrunbook.domain.policy.policy import Policy
from mlrunbook.domain.resolution.observation import WouldContain
from mlrunbook.response.lifecycle import silences, unknown_models
from mlrunbook.response.lifecycle.known_alerts import KnownAlerts, Recalled
from mlrunbook.response.lifecycle.opening import ACCEPTED, begin_response, take_in
from mlrunbook.response.world import World
from mlrunbook.store import incidents, leases, records, timeline

MODEL_LOCK_FAMILY, MODEL_LOCKS = 0x6D6C, 256  # "ml": any constant all processes share
FEW = 5  # alerts that ended in one message: each has its entry of the timeline
HELD_BACK = "held_back"  # in the body of an alert that has opened no incident: the reason

Hold = Callable[[NormalisedAlert, str, bool], None]  # keeps an alert aside: the reason, and whether it comes for the first time


@dataclass(frozen=True)
class AlertBatch:
    """The alerts of one message. `truncated`: how many more the sender has cut off."""

    source: str
    alerts: Sequence[NormalisedAlert]
    truncated: int = 0
    sender: str = ""  # whose fingerprints they are; empty: ours


@dataclass(frozen=True)
class _Group:
    """What fires of one model and failure family: it opens or joins one incident."""

    source: str
    sender: str
    model: str
    family: str
    standing: Standing
    alerts: Sequence[tuple[int, NormalisedAlert]]  # each with its place in the batch

    @property
    def account(self) -> unknown_models.Sender:
        proven = {proven_as(alert.body) for _, alert in self.alerts}
        return unknown_models.Sender.of(self.source, self.sender, proven.pop() if len(proven) == 1 else UNPROVEN)

    def report(self, policy: Policy, alerts: Sequence[NormalisedAlert], *, now: datetime) -> Report:
        return replace(report_of(policy, self.source, alerts, now), budget=self.account.key)


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
    return list(dict.fromkeys(filter(None, homes_of(conn, policy, batch, now=now, standings=standings, hold=hold))))


def homes_of(
    conn: Connection,
    policy: Policy,
    batch: AlertBatch,
    *,
    now: datetime,
    standings: Mapping[str, Standing] | None = None,
    hold: Hold | None = None,
) -> list[str | None]:
    """The same; the incident of each alert of the batch, None: of none."""
    source = batch.source
    families = sorted({policy.family_of(type_) for type_ in IncidentType})
    known = KnownAlerts(source, batch.sender, lambda alert: policy.family_of(alert.type(policy)), families)
    _one_at_a_time(conn, {alert.model for alert in batch.alerts})
    told = known.going_on(conn, batch.alerts)
    homes: dict[int, str] = {}  # by the place in the batch
    for group in _groups(policy, batch, [(n, a) for n, a in enumerate(told) if a.firing and not known.is_over(a)], standings or {}):
        homes |= _take_in_group(conn, policy, group, known, hold, now=now)
    homes |= _note_resolved(conn, source, known, [(n, a) for n, a in enumerate(told) if not a.firing], now=now)
    known.write(conn, now=now)
    if batch.truncated:
        for incident_id in dict.fromkeys(homes.values()):
            words = f"{batch.truncated} further alert{'s were' if batch.truncated > 1 else ' was'} cut off by the sender"
            note_once(conn, incident_id, source, words, f"truncated:{batch.truncated}", now=now)
    return [homes.get(n) for n in range(len(told))]


def _one_at_a_time(conn: Connection, models: Iterable[str]) -> None:
    """One message a model at a time: the second of two equal ones must see the first. Models share locks: the database has so many."""
    for lock in sorted({int(hashlib.sha256(model.encode()).hexdigest(), 16) % MODEL_LOCKS for model in models}):
        conn.execute(text("SELECT pg_advisory_xact_lock(:family, :lock)"), {"family": MODEL_LOCK_FAMILY, "lock": lock})


def end_silence(world: World, *, now: datetime) -> None:
    """A silence is over: what still fires opens or joins its incident, unless another silence holds. A transaction for each page of a
    model's alerts, so that nobody waits for all of them. Transient where some may not open an incident yet; the others have theirs."""
    with world.transaction() as conn:
        models = silences.models(conn)
    standings, waiting = world.known_models.of(world.policy, models), list[str]()
    for model in models:
        try:
            _end_silence_of(world, model, standings[model], now=now)
        except Transient as error:
            waiting.append(str(error))
    if waiting:
        raise Transient(waiting[0])


def _end_silence_of(world: World, model: str, standing: Standing, *, now: datetime) -> None:
    after: int | None = 0
    while after is not None:
        with world.transaction() as conn:
            heard, after = silences.over(conn, world.policy, model, after=after, now=now)
            for source, sender, alerts in heard:
                batch = AlertBatch(source, alerts, sender=sender)
                take_in_alerts(conn, world.policy, batch, now=now, standings={model: standing}, hold=_wait)


def note_once(conn: Connection, incident_id: str, source: str, words: str, key: str, *, now: datetime) -> None:
    incidents.get(conn, incident_id, lock=True)
    if not timeline.is_said(conn, incident_id, "alert", key):
        timeline.append(conn, incident_id, "alert", words, actor=source, at=now, data={"key": key})


def _groups(
    policy: Policy, batch: AlertBatch, alerts: Iterable[tuple[int, NormalisedAlert]], standings: Mapping[str, Standing]
) -> Iterator[_Group]:
    groups: dict[tuple[str, str], list[tuple[int, NormalisedAlert]]] = defaultdict(list)
    for place, alert in alerts:
        groups[alert.model, policy.family_of(alert.type(policy))].append((place, alert))
    for (model, family), members in sorted(groups.items()):
        yield _Group(batch.source, batch.sender, model, family, standings.get(model, ACCEPTED), members)


def _take_in_group(
    conn: Connection, policy: Policy, group: _Group, known: KnownAlerts, hold: Hold | None, *, now: datetime
) -> dict[int, str]:
    recalled = [(place, known.recall(alert)) for place, alert in group.alerts]
    quiet = silences.silence(conn, policy, [one for _, one in recalled if one.incident is None], known, now=now)
    heard = [(place, _doubted(one, policy, now)) for place, one in recalled if one.identity not in quiet]
    fresh = [one for _, one in heard if one.incident is None]
    if fresh and hold and (why := _why_held_back(conn, policy, group, now=now)):
        unknown_models.page_held(conn, policy, group.account, _hold_back(known, fresh, hold, why), now=now)
        heard, fresh = [(place, one) for place, one in heard if one.incident], []
    joined, is_new = None, False
    if fresh:
        alerts = [one.alert for one in fresh]
        joined, is_new = take_in(conn, policy, group.report(policy, alerts, now=now), now=now, standing=group.standing)
    for incident in {one.incident.id: one.incident for _, one in heard if one.incident}.values():
        _recognised(conn, policy, incident, group.standing, by=group.source, now=now)
        worse = [one.alert for _, one in heard if one.incident is incident and _got_worse(one)]
        if worse and incident.status.is_open:
            take_in(conn, policy, group.report(policy, worse, now=now), now=now, standing=group.standing)
    homes = {}
    for place, one in heard:
        home = one.incident or joined
        assert home is not None  # a fresh one has joined
        known.tell(one, home)
        homes[place] = home.id
    for incident_id, times in Counter(homes.values()).items():
        incidents.count_alerts(conn, incident_id, times)
    if joined and not is_new:
        _wake_for_a_missed_failure(conn, joined, fresh, now=now)
    return homes


def _got_worse(one: Recalled) -> bool:
    """A repeat whose sender now calls it worse than when it came last, and than the incident is handled as."""
    assert one.incident is not None
    assert one.stored is not None
    return one.alert.severity.rank > one.incident.severity.rank and one.alert.level != one.stored.level


def _wake_for_a_missed_failure(conn: Connection, incident: Incident, fresh: Sequence[Recalled], *, now: datetime) -> None:
    """Triage runs again, whatever the run is waiting for."""
    missed = next((one for one in fresh if one.alert.name == MISSED_FAILURE_ALERT), None)
    if missed and not unknown_models.is_unknown(conn, incident.id):
        key = f"missed-{missed.identity.key}-{missed.alert.starts_at.isoformat()}"
        leases.wake(conn, incident.id, why=missed.alert.summary, key=key, now=now)


def _note_resolved(
    conn: Connection, source: str, known: KnownAlerts, told: Iterable[tuple[int, NormalisedAlert]], *, now: datetime
) -> dict[int, str]:
    """The incidents they belong to."""
    homes: dict[int, str] = {}
    ended: dict[str, list[NormalisedAlert]] = defaultdict(list)
    for place, alert in told:
        for one in known.ended(alert):
            known.tell(one, one.incident, end_noted=one.incident is not None)
            if one.incident is None:
                continue
            homes.setdefault(place, one.incident.id)
            if one.stored and not one.stored.end_noted:
                ended[one.incident.id].append(one.alert)
    for incident_id, alerts in ended.items():
        for words in _ended(alerts):
            timeline.append(conn, incident_id, "alert", words, actor=source, at=now)
        if records.recall_if_readable(conn, incident_id, WouldContain):  # only observed, it ends with its alerts
            leases.wake(conn, incident_id, why=f"{source} says its alert is over", key=f"over-{now.isoformat()}", now=now)
    return homes


def _ended(alerts: Sequence[NormalisedAlert]) -> list[str]:
    """The entries of the timeline: one each, and of many at once one for all."""
    if len(alerts) <= FEW:
        return [f"Alert resolved: {alert.summary}" for alert in alerts]
    first = "; ".join(dict.fromkeys(alert.summary for alert in alerts[:FEW]))
    return [f"{len(alerts)} alerts resolved, the first {FEW}: {first}"]


def _why_held_back(conn: Connection, policy: Policy, group: _Group, *, now: datetime) -> str | None:
    if not group.standing.is_unknown:
        return None
    return unknown_models.limit_reached(conn, policy, group.account, group.model, group.family, now=now)


def _hold_back(known: KnownAlerts, fresh: Sequence[Recalled], hold: Hold, why: str) -> list[NormalisedAlert]:
    """Its repeats are counted, and open an incident as soon as they may. Returns those that nobody has heard of."""
    new = []
    for one in fresh:
        told = replace(one.alert, body=dict(one.alert.body) | {"model": one.alert.model, HELD_BACK: why})
        is_new = known.recall(one.alert).stored is None
        hold(told, why, is_new)
        new += [told] * is_new
        known.tell(replace(one, alert=told), None)
    return new


def _wait(_: NormalisedAlert, why: str, is_new: bool) -> None:
    raise Transient(why)


def _recognised(conn: Connection, policy: Policy, incident: Incident, standing: Standing, *, by: str, now: datetime) -> None:
    """A repeat of an alert on a name that was unknown: where it is known by now, the response begins."""
    known = standing.known is Known.KNOWN or policy.names(incident.model)
    if known and incident.status.is_open and unknown_models.is_unknown(conn, incident.id):
        unknown_models.recognise(conn, policy, incident, why=f"{by} alerts on it", now=now)
        begin_response(conn, policy, incident, by=by, start=True, now=now)


def _doubted(one: Recalled, policy: Policy, now: datetime) -> Recalled:
    """Without its incident when that was a false alarm long ago: what still fires may be real by now."""
    incident = one.incident
    if incident is None or incident.status is not Status.FALSE_ALARM or incident.closed_at is None:
        return one
    limit = timedelta(minutes=policy.triage.doubt_false_alarm_after_min)
    return replace(one, incident=None) if now - incident.closed_at > limit else one
