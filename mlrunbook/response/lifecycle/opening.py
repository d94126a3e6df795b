"""How an incident begins: one transaction that opens or joins it, plans its first pages and asks for its run.

A report comes from a person; alerts come from a webhook or from `flows/monitor.py`, and are the same to this file.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, text

from mlrunbook.domain.containment.breach import subtype_for
from mlrunbook.domain.detection.silences import quiet
from mlrunbook.domain.errors import Invalid, NotFound, Transient
from mlrunbook.domain.incident import Incident, IncidentType, Severity, Status, Subtype
from mlrunbook.domain.policy.alerting import MISSED_FAILURE_ALERT
from mlrunbook.domain.policy.owned import Known, Standing, is_model_id
from mlrunbook.domain.policy.policy import Policy
from mlrunbook.domain.records import CANDIDATE_RECORDS, Record
from mlrunbook.domain.resolution.request import Request
from mlrunbook.domain.roles import Role
from mlrunbook.response.communication import reports
from mlrunbook.response.communication.notifications import page, request_action
from mlrunbook.response.execution import existing
from mlrunbook.response.known_models import refusal
from mlrunbook.response.lifecycle import flapping, reopening, severity_change, unknown_models
from mlrunbook.response.world import World
from mlrunbook.store import alerts as known_alerts
from mlrunbook.store import incidents, journal, leases, outbox, records, timeline
from mlrunbook.store.incidents import Report

# An alert's level is not the incident's severity, only a first guess until triage has measured. Unknown: medium, so that it pages.
FIRST_GUESS = {"critical": Severity.HIGH, "warning": Severity.MEDIUM, "info": Severity.LOW, "none": Severity.LOW}
SILENCE_ENDS = "silence_ends"
KNOWN, ACCEPTED = Standing(Known.KNOWN), Standing(Known.UNREACHABLE)
HELD_BACK = "held_back"  # in the body of an alert that has opened no incident: the reason
_KEPT = ("fingerprint", "name", "model", "model_version", "level", "incident_type", "summary")
_STATED = "subtype:"  # the record of each kind of breach that a person has named
PLAUSIBLE_SINCE = datetime(2000, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class NormalisedAlert:
    """One alert of any format. (fingerprint, starts_at) is its identity; `level` and `incident_type` are the sender's words.

    `start_is_stated` False: the sender names no start that stays the same. Then what fires goes on with the alert of this fingerprint that
    has not been resolved, and `starts_at` is only the start of a new one.

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
    start_is_stated: bool = True
    part: Any = field(default=None, compare=False)  # of the message it stood in; None: the message is all about it


Hold = Callable[[NormalisedAlert, str, bool], None]  # keeps an alert aside: the reason, and whether it comes for the first time


def take_in(
    conn: Connection,
    policy: Policy,
    report: Report,
    *,
    now: datetime,
    by_alert: bool = False,
    start: bool = True,
    standing: Standing = ACCEPTED,
) -> tuple[Incident, bool]:
    """Open the incident, or join the one that is open for this model and failure family.

    Whoever accepts the report answers 2xx only after this transaction commits. `by_alert`: the severity is only a first guess from
    the alert's level; a person's is a floor. `start=False`: the caller is the run itself. `standing`: what is known of the model's name,
    asked before the transaction (`World.known_models`); an unknown one gets no run.
    """
    if policy.names(report.model):
        standing = KNOWN
    if by_alert:
        report = replace(report, by_person=False)
    if by_alert and not standing.is_unknown and (closed := reopening.find_closed(conn, policy, report.model, report.family, now=now)):
        back = reopening.reopen_for_alert(conn, policy, closed, why=report.description, by=report.reported_by, now=now)
        flapping.note_opening(conn, policy, back, now=now)
        return back, True
    incident, is_new = incidents.open_or_join(conn, report, now=now)
    if subtype := subtype_for(report.type, report.subtype):
        records.put(conn, incident.id, _STATED + subtype, {"by": report.reported_by, "at": now}, now=now)
    number = reports.note(conn, incident.id, report, now=now) if report.by_person else None
    if is_new:
        records.put(conn, incident.id, "report", {"by_alert": by_alert, "severity": report.severity, "type": report.type}, now=now)
        _begin(conn, policy, incident, standing, by=report.reported_by, start=start, now=now)
        return incident, True
    words = f"Reported again by {report.reported_by}: {report.description}"
    data = {reports.BY_PERSON: True} if report.by_person else None
    timeline.append(conn, incident.id, "reported", words, actor=report.reported_by, at=now, data=data)
    if unknown_models.is_unknown(conn, incident.id):
        if standing.known is not Known.KNOWN:
            if report.by_person:
                unknown_models.reported_again(conn, policy, incident, words, now=now)
            return incident, False
        unknown_models.recognise(conn, policy, incident, why=f"{report.reported_by} reports on it", now=now)
        _start(conn, policy, incident, by=report.reported_by, start=start, now=now)
    if subtype:  # what follows from it does not wait for whatever the run is waiting for
        leases.wake(conn, incident.id, why=f"{report.reported_by} reports {subtype.words}", key=f"subtype-{subtype}", now=now)
    if number is not None:
        return _heard(conn, policy, incident, report, number, now=now), False
    if report.severity.rank > incident.severity.rank and not by_alert:
        incident = severity_change.say(conn, policy, incident.id, report.severity, by=report.reported_by, why=report.description, now=now)
    elif report.severity.rank > incident.severity.rank:  # an alert's level is a guess: triage measures, people must hear of it now
        records.put(conn, incident.id, Record.SEVERITY_DOUBTED, {"severity": report.severity, "at": now}, now=now)
        leases.wake(conn, incident.id, why=report.description, key=f"worse-{report.severity}-{now.isoformat()}", now=now)
        why = f"{report.reported_by} reports {report.severity}, it is handled as {incident.severity}: {report.description}"
        for role in (Role.ONCALL_ML_ENGINEER, Role.ML_TEAM_LEAD):
            page(conn, policy, incident, role, why, now=now, key=f"reported-{report.severity}:{role}")
    return incident, False


def _begin(conn: Connection, policy: Policy, incident: Incident, standing: Standing, *, by: str, start: bool, now: datetime) -> None:
    if standing.is_unknown:
        unknown_models.opened(conn, policy, incident, standing, by=by, now=now)
        return
    unknown_models.begin(conn, policy, incident, now=now)
    _start(conn, policy, incident, by=by, start=start, now=now)


def _start(conn: Connection, policy: Policy, incident: Incident, *, by: str, start: bool, now: datetime) -> None:
    if start:
        leases.request_start(conn, incident.id, why=f"opened by {by}", now=now)
    else:
        leases.expect(conn, incident.id, now=now)
    flapping.note_opening(conn, policy, incident, now=now)


def _heard(conn: Connection, policy: Policy, incident: Incident, report: Report, number: int, *, now: datetime) -> Incident:
    """A person's report joins: somebody hears of it, and no measurement ends what it is about."""
    words = f"reported again by {report.reported_by}: {report.description}"
    halted = reports.halt_closing(conn, incident, why=words, now=now)
    if report.severity.rank > incident.severity.rank:  # a person's severity is a floor
        return severity_change.say(conn, policy, incident.id, report.severity, by=report.reported_by, why=report.description, now=now)
    why = f"{words}. Its recovery was being measured; it does not close by that any more" if halted else words
    todo = reports.how_to_end(incident.id) if halted else f"Look: mlrunbook incidents show {incident.id}"
    incident = incidents.get(conn, incident.id)
    request_action(conn, policy, incident, Role.ONCALL_ML_ENGINEER, why, now=now, key=f"reported:{number}", next_step=todo)
    return incident


def stated_subtypes(conn: Connection, incident_id: str) -> frozenset[Subtype]:
    """The kinds of breach that people have named in their reports."""
    return frozenset(Subtype(step.removeprefix(_STATED)) for step in records.with_prefix(conn, incident_id, _STATED))


def take_in_alerts(
    conn: Connection,
    policy: Policy,
    source: str,
    alerts: Sequence[NormalisedAlert],
    *,
    now: datetime,
    truncated: int = 0,
    standings: Mapping[str, Standing] | None = None,
    hold: Hold | None = None,
) -> list[str]:
    """Count what is known, open or join an incident for what is new, note what is resolved; the ids of the incidents.

    A repeat of an alert whose incident is over is only counted: else each repeat would open a fixed incident again. The same
    alert starting anew (another `starts_at`) is new, and so is one that still fires long after it was called a false alarm.

    `standings`: what is known of the models' names (`World.known_models`, asked before the transaction). Alerts on unknown ones that would
    open more incidents than policy allows go to `hold`.
    """
    standings = standings or {}
    # One message a model at a time: the second of two equal ones must see the first.
    for model in sorted({a.model for a in alerts}):
        conn.execute(text("SELECT pg_advisory_xact_lock(hashtextextended(:model, 0))"), {"model": f"alerts of {model}"})

    alerts = [alert if alert.start_is_stated else _going_on(conn, source, alert) for alert in alerts]
    touched: dict[str, None] = {}
    groups: dict[tuple[str, str], list[NormalisedAlert]] = defaultdict(list)
    for alert in (a for a in alerts if a.firing):
        groups[alert.model, policy.family_of(_type_of(policy, alert))].append(alert)
    for (model, family), members in sorted(groups.items()):
        heard = [alert for alert in members if not _is_silenced(conn, policy, source, alert, now=now)]
        recalled = [_doubted(_recall(conn, source, alert), policy, now) for alert in heard]
        fresh = [alert for alert, incident in recalled if incident is None]
        standing = standings.get(model, ACCEPTED)
        if fresh and hold and standing.is_unknown and (why := unknown_models.limit_reached(conn, policy, model, family, now=now)):
            _hold_back(conn, source, fresh, hold, why, now=now)
            recalled, fresh = [(alert, incident) for alert, incident in recalled if incident], []
        joined, is_new = (
            take_in(conn, policy, _report(policy, source, family, fresh, now), now=now, by_alert=True, standing=standing)
            if fresh
            else (None, False)
        )
        for known in {i.id: i for _, i in recalled if i}.values():
            _recognised(conn, policy, known, standing, by=source, now=now)
        for alert, incident in recalled:
            home = incident or joined
            assert home is not None  # a fresh one has joined
            _record(conn, source, alert, home, now=now)
            incidents.count_alert(conn, home.id)
            touched[home.id] = None
        if (
            joined
            and not is_new
            and not unknown_models.is_unknown(conn, joined.id)
            and (missed := next((a for a in fresh if a.name == MISSED_FAILURE_ALERT), None))
        ):
            key = f"missed-{missed.fingerprint}-{missed.starts_at.isoformat()}"  # triage judges anew, whatever the run is waiting for
            leases.wake(conn, joined.id, why=missed.summary, key=key, now=now)

    for alert in (a for a in alerts if not a.firing):
        alert, home = _recall(conn, source, alert)
        _record(conn, source, alert, home, now=now)
        if home is not None:
            note_once(conn, home.id, source, f"Alert resolved: {alert.summary}", f"resolved:{alert.fingerprint}:{alert.starts_at}", now=now)
            touched[home.id] = None

    if truncated:
        for incident_id in touched:
            words = f"{truncated} further alert{'s were' if truncated > 1 else ' was'} cut off by the sender"
            note_once(conn, incident_id, source, words, f"truncated:{truncated}", now=now)
    return list(touched)


def _hold_back(conn: Connection, source: str, alerts: Sequence[NormalisedAlert], hold: Hold, why: str, *, now: datetime) -> None:
    """Its repeats are counted, and open an incident as soon as they may."""
    for alert in alerts:
        told = replace(alert, body=dict(alert.body) | {"model": alert.model, HELD_BACK: why})
        hold(alert, why, _record(conn, source, told, None, now=now))


def _recognised(conn: Connection, policy: Policy, incident: Incident, standing: Standing, *, by: str, now: datetime) -> None:
    """A repeat of an alert on a name that was unknown: where it is known by now, the response begins."""
    known = standing.known is Known.KNOWN or policy.names(incident.model)
    if known and incident.status.is_open and unknown_models.is_unknown(conn, incident.id):
        unknown_models.recognise(conn, policy, incident, why=f"{by} alerts on it", now=now)
        _start(conn, policy, incident, by=by, start=True, now=now)


def _is_silenced(conn: Connection, policy: Policy, source: str, alert: NormalisedAlert, *, now: datetime) -> bool:
    """Nobody is told of it: it is stored and counted, and looked at again when the silence ends. What belongs to an incident does."""
    held = quiet(alert.model, alert.name, _type_of(policy, alert), now, policy.silences, policy.maintenance)
    if held is None or _recall(conn, source, alert)[1] is not None:
        return False
    body = dict(alert.body) | {"model": alert.model, "silenced": held.sentence, "until": held.until.isoformat()}
    known_alerts.record(
        conn,
        source=source,
        fingerprint=alert.fingerprint,
        starts_at=alert.starts_at,
        status="firing",
        body=body,
        incident_id=None,
        now=now,
    )
    key = f"silence:{source}:{alert.fingerprint}:{alert.starts_at.isoformat()}:{held.until.isoformat()}"
    kept = {k: getattr(alert, k) for k in _KEPT} | {"source": source, "starts_at": alert.starts_at.isoformat(), "body": dict(alert.body)}
    outbox.put(conn, SILENCE_ENDS, key, kept, now=now, at=held.until)
    return True


def end_silence(conn: Connection, policy: Policy, item: outbox.Item, standing: Standing, *, now: datetime) -> None:
    """The silence is over: what still fires opens or joins its incident, unless another silence holds. Transient where it may not yet."""
    told, source = dict(item.payload), str(item.payload["source"])
    alert = NormalisedAlert(
        **{k: told[k] for k in _KEPT}, firing=True, starts_at=datetime.fromisoformat(told["starts_at"]), body=told["body"]
    )
    row = known_alerts.find(conn, source=source, fingerprint=alert.fingerprint, starts_at=alert.starts_at)
    if row and row["status"] == "firing" and row["incident_id"] is None:
        take_in_alerts(conn, policy, source, [alert], now=now, standings={alert.model: standing}, hold=_wait)


def _wait(_: NormalisedAlert, why: str, is_new: bool) -> None:
    raise Transient(why)


def _going_on(conn: Connection, source: str, alert: NormalisedAlert) -> NormalisedAlert:
    """The alert with the start it had when it came first; a repeat of a known one (same start too) stays what it is."""
    same = known_alerts.find(conn, source=source, fingerprint=alert.fingerprint, starts_at=alert.starts_at)
    since = None if same else known_alerts.firing_since(conn, source=source, fingerprint=alert.fingerprint)
    return replace(alert, starts_at=since) if since else alert


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


def _record(conn: Connection, source: str, alert: NormalisedAlert, home: Incident | None, *, now: datetime) -> bool:
    return known_alerts.record(
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
    if alert.name == MISSED_FAILURE_ALERT:  # no measurement can make it less, so nobody's page waits for one
        return Severity.CRITICAL
    return FIRST_GUESS.get(alert.level, Severity.MEDIUM)


def _type_of(policy: Policy, alert: NormalisedAlert) -> IncidentType:
    if known := policy.type_of_alert(alert.name):
        return known
    if alert.incident_type in {t.value for t in IncidentType}:
        return IncidentType(alert.incident_type)
    return IncidentType.PERFORMANCE_DEGRADATION


def note_once(conn: Connection, incident_id: str, source: str, words: str, key: str, *, now: datetime) -> None:
    incidents.get(conn, incident_id, lock=True)
    if not any(e.kind == "alert" and e.data.get("key") == key for e in timeline.read(conn, incident_id)):
        timeline.append(conn, incident_id, "alert", words, actor=source, at=now, data={"key": key})


def open_or_join(
    world: World,
    model: str,
    severity: Severity,
    type: IncidentType,
    description: str,
    impact: str,
    reported_by: str,
    request: Request | None = None,
    *,
    by_run: str | None = None,
    subtype: Subtype | None = None,
    start: bool = False,
    by_person: bool = True,
    unknown_model: bool = False,
) -> str:
    """The id of the incident. A run that begins again from the top (resumed, retried) gets the one it has opened, and asks no second
    time: `by_run` is its id. `request` names a path a person asks for: it goes the same way
    through plan, approval and journal, only the diagnosis does not choose it; while a breach has the model server isolated it joins that
    incident, or says which one it was. Invalid, and no incident, where the request names what does not exist. `start`: the caller is not
    the run of the incident. NotFound for a model that nobody knows, unless `unknown_model`: a person reports it all the same."""
    for name, value in (("model", model), ("description", description), ("reportedBy", reported_by)):
        if not value.strip():
            raise Invalid(f"{name} is empty: give an incident id, or model, description and reportedBy", field=name)
    report = Report(
        model=model.strip(),
        type=type,
        family=world.policy.family_of(type),
        severity=severity,
        description=description.strip(),
        impact=impact.strip(),
        reported_by=reported_by.strip(),
        subtype=subtype,
        by_person=by_person,
    )
    if not is_model_id(report.model):
        raise Invalid(f"{report.model[:100]!r} is no model id: letters, digits, '.', '_' and '-', 100 at most", field="model")
    if by_run and (opened := _opened_by(world, by_run)):
        return opened
    standing = world.known_models.of(world.policy, [report.model], fresh=True)[report.model]
    if standing.is_unknown and (request or not unknown_model):
        raise NotFound(refusal(report.model, standing.hint))
    if request:
        existing.check_request(world, report.model, request)
    with world.transaction() as conn:
        isolated_by = _isolating(conn, report.model) if request else None
        if isolated_by and isolated_by.status.is_open:
            report = replace(report, type=isolated_by.type, family=isolated_by.family)
        incident, is_new = take_in(conn, world.policy, report, now=world.now(), start=start, standing=standing)
        if by_run:
            records.put(conn, incident.id, f"opened_by:{by_run}", {"new": is_new}, now=world.now())
        if request:
            fix = (Record.RESOLUTION_PLAN, Record.APPLIED, Record.HUMAN_RESOLUTION, *CANDIDATE_RECORDS)
            records.forget(conn, incident.id, Record.REQUEST, *fix)
            records.keep(conn, incident.id, request, now=world.now())
            text = f"{request.sentence}: {request.reason or 'no reason given'}"
            if isolated_by:
                text += f". {_isolated_words(world.policy, isolated_by)}"
            timeline.append(conn, incident.id, "plan", text, actor=request.by, at=world.now())
            if not is_new:  # a run that waits for a decision about another plan must plan anew
                key = f"request-{hashlib.sha256(json.dumps(request.to_record(), sort_keys=True).encode()).hexdigest()[:12]}"
                leases.wake(conn, incident.id, why=text, key=key, now=world.now())
    return incident.id


def _opened_by(world: World, run: str) -> str | None:
    with world.transaction() as conn:
        return records.incident_with(conn, f"opened_by:{run}")


def _isolating(conn: Connection, model: str) -> Incident | None:
    """The newest incident that has cut this model's server off, open or closed; None: nobody has, or it was connected again."""
    return next((i for i in incidents.find(conn, model=model) if journal.isolations(conn, i.id)), None)


def _isolated_words(policy: Policy, by: Incident) -> str:
    """What whoever asks for a path has to know, and who can help."""
    who = " or ".join(role.words for role in policy.approvals.isolation.roles)
    if by.status.is_open:
        return f"The model server is isolated: {who} decides about lifting that first; a path may be taken while it stays isolated"
    return (
        f"The model server is isolated since {by.id}, which is closed: a path changes what it will serve, and nobody reaches it. "
        f"Report an incident of type {by.type}: there {who} may lift it"
    )
