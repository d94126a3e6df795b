"""The severity of an open incident is set anew: by a person's word or report, or by a measurement. One transaction says all that follows.

A higher one begins Step 2 again: containment is planned anew, what was approved for the lesser severity and has not begun no longer counts,
the ladder and the response time start again, stakeholders are told, and the run goes on at once.
"""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection

from mlrunbook.domain.actions import PlanKind
from mlrunbook.domain.communication import messages
from mlrunbook.domain.detection.severity import Assessment
from mlrunbook.domain.detection.severity_change import by_word
from mlrunbook.domain.incident import Incident, IncidentType, Severity
from mlrunbook.domain.policy.policy import Policy
from mlrunbook.domain.records import Record
from mlrunbook.response.communication.escalation import escalate, schedule_update
from mlrunbook.response.communication.notifications import UNKNOWN_MODEL, send_to_stakeholders
from mlrunbook.store import incidents, journal, leases, plans, records


def say(conn: Connection, policy: Policy, incident_id: str, severity: Severity, *, by: str, why: str, now: datetime) -> Incident:
    """A person sets the severity. Repeated it changes nothing. The run that is at work is replaced where it rose: it must not
    finish what it began for less."""
    incident = incidents.get(conn, incident_id, lock=True)
    if incident.severity is severity:
        return incident
    triage = records.get(conn, incident_id, "triage")
    raised = severity.rank > incident.severity.rank
    words = f"{by} {'raises' if raised else 'lowers'} it from {incident.severity} to {severity}: {why}"
    found = by_word(assessment_of(triage), severity, words) if triage else None
    made = change_severity(conn, policy, incident, severity, found, words=words, by=by, by_person=True, now=now)
    if raised and not records.get(conn, incident_id, UNKNOWN_MODEL):
        leases.preempt(conn, incident_id, why=words, now=now)
    return made


def change_severity(
    conn: Connection,
    policy: Policy,
    incident: Incident,
    severity: Severity,
    found: Assessment | None,
    *,
    words: str,
    by: str,
    by_person: bool = False,
    now: datetime,
) -> Incident:
    """Set another severity, and all that follows but the run. The caller holds the incident's row. `found` None: triage has not spoken."""
    before = incident.severity
    raised = severity.rank > before.rank
    number = int((records.get(conn, incident.id, Record.SEVERITY_SET) or {}).get("number", 0)) + 1
    records.forget(conn, incident.id, Record.SEVERITY_SET)
    said = {"number": number, "at": now.isoformat(), "from": before, "to": severity, "by": by, "why": words, "by_person": by_person}
    records.put(conn, incident.id, Record.SEVERITY_SET, said, now=now)
    kind = found.type if found else incident.type
    made = incidents.classify(conn, incident.id, severity=severity, type=kind, why=words, actor=by, now=now)
    if found and (triage := records.get(conn, incident.id, "triage")):
        records.forget(conn, incident.id, "triage")
        told = {"severity": severity, "type": found.type, "assessment": asdict(found), "summary": "; ".join(found.reasons)}
        records.put(conn, incident.id, "triage", triage | told, now=now)
    if raised:
        records.forget(conn, incident.id, Record.CONTAINMENT, Record.CONTAINED)
        _void_what_has_not_begun(conn, incident.id, because=f"the severity rose from {before} to {severity}", now=now)
        schedule_update(conn, policy, made, now=now, at=now + timedelta(minutes=policy.communication.update_every_min))
    escalate(conn, policy, made, now=now, anew=words if raised else None)
    subject = f"[UPDATE] {messages.model_name(incident.model)} - {severity.title()}"
    text = messages.line(f"{incident.id}: the severity is now {severity.upper()}. {words}")
    send_to_stakeholders(conn, made, messages.Rendered(subject, text), key=f"severity-{number}", now=now)
    return made


def lowered_from(conn: Connection, incident_id: str) -> Severity | None:
    """The severity that a person has lowered it from, where that was the last word."""
    said = records.get(conn, incident_id, Record.SEVERITY_SET)
    if not said or not said["by_person"] or Severity(said["to"]).at_least(Severity(said["from"])):
        return None
    return Severity(said["from"])


def assessment_of(triage: dict[str, Any]) -> Assessment:
    """The assessment as triage recorded it."""
    body = triage["assessment"]
    kept = {"severity": Severity(body["severity"]), "type": IncidentType(body["type"]), "reasons": tuple(body["reasons"])}
    return Assessment(**body | kept)


def _void_what_has_not_begun(conn: Connection, incident_id: str, *, because: str, now: datetime) -> None:
    """A change that has begun is seen through: half of it would be worse. What a person has ordered on the spot is only more urgent now."""
    spared = {row.plan_digest for row in journal.of_incident(conn, incident_id)}
    spared |= {plan.digest for plan in plans.standing(conn, incident_id, PlanKind.EMERGENCY)}
    for digest in dict.fromkeys(row.plan_digest for row in plans.approvals_of(conn, incident_id)):
        if digest not in spared:
            plans.void(conn, incident_id, digest, because=because, now=now)
