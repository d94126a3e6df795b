"""The severity of an open incident is set anew: by a person's word or report, or by a measurement. One transaction says all that follows.

A higher one begins Step 2 again: containment is planned anew, what was approved for the lesser severity and has not begun no longer counts,
the ladder and the response time start again, stakeholders are told, and the run goes on at once.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from sqlalchemy import Connection

from mlrunbook.domain.actions import PlanKind
from mlrunbook.domain.communication import messages
from mlrunbook.domain.detection.lifecycle import UnknownModel
from mlrunbook.domain.detection.severity import Assessment
from mlrunbook.domain.detection.severity_change import SeveritySet, by_word
from mlrunbook.domain.detection.triage import Backed, Triage
from mlrunbook.domain.incident import Incident, Severity
from mlrunbook.domain.policy.intake import OWN
from mlrunbook.domain.policy.policy import Policy
from mlrunbook.domain.records import Record
from mlrunbook.response.carried_mode import is_quiet
from mlrunbook.response.communication.escalation import escalate, schedule_update, taken_up
from mlrunbook.response.communication.notifications import send_to_stakeholders
from mlrunbook.store import incidents, journal, leases, plans, records
from mlrunbook.store.incidents import Classification


@dataclass(frozen=True)
class Said:
    """A person's word. `proven_as` as in `Report`: who operates is known."""

    severity: Severity
    by: str
    why: str
    proven_as: str = OWN


def say(conn: Connection, policy: Policy, incident_id: str, said: Said, *, now: datetime) -> Incident:
    """A person sets the severity. Repeated it changes nothing. The run that is at work is replaced where it rose: it must not
    finish what it began for less."""
    incident, severity = incidents.get(conn, incident_id, lock=True), said.severity
    if incident.severity is severity:
        return incident
    triage = records.recall(conn, incident_id, Triage)
    raised = severity.rank > incident.severity.rank
    words = f"{said.by} {'raises' if raised else 'lowers'} it from {incident.severity} to {severity}: {said.why}"
    found = by_word(triage.assessment, severity, words) if triage else None
    backed = triage.backed if triage else None
    if triage and not policy.intake.trusted_for.trusts("containment", said.proven_as):
        backed = backed or Backed(triage.assessment, ())
        backed = replace(backed, without=tuple(dict.fromkeys((*backed.without, said.by))))
    elif backed:
        backed = replace(backed, assessment=by_word(backed.assessment, severity, words))
    change = SeverityChange(severity, found, words, said.by, by_person=True, proven_as=said.proven_as, backed=backed)
    was_quiet = is_quiet(conn, policy, incident)
    made = change_severity(conn, policy, incident, change, now=now)
    if was_quiet:
        taken_up(conn, policy, made, by=said.by, now=now)
    if raised and not records.recall(conn, incident_id, UnknownModel):
        leases.preempt(conn, incident_id, why=words, now=now)
    return made


@dataclass(frozen=True)
class SeverityChange:
    """`found` None: triage has not run. `begins_anew`: what was unproven is proven, so all that a higher severity brings follows."""

    to: Severity
    found: Assessment | None
    why: str
    by: str
    by_person: bool = False
    proven_as: str = OWN
    backed: Backed | None = None
    begins_anew: bool = False


def change_severity(conn: Connection, policy: Policy, incident: Incident, change: SeverityChange, *, now: datetime) -> Incident:
    """Set another severity, and all that follows but the run. The caller holds the incident's row."""
    before, severity, found, why = incident.severity, change.to, change.found, change.why
    raised = severity.rank > before.rank or change.begins_anew
    earlier = records.recall(conn, incident.id, SeveritySet)
    number = earlier.number + 1 if earlier else 1
    moved_s = incidents.moved_s(conn, incident.id)
    noted = SeveritySet(number, now, before, severity, change.by, why, change.by_person, moved_s, change.proven_as)
    records.replace(conn, incident.id, noted, now=now)
    judged = Classification(severity, found.type if found else incident.type)
    made = incidents.classify(conn, incident.id, judged, why=why, actor=change.by, now=now)
    if found and (triage := records.recall(conn, incident.id, Triage)):
        records.replace(conn, incident.id, triage.judged_anew(found, change.backed), now=now)
    if raised:
        records.forget(conn, incident.id, Record.CONTAINMENT, Record.CONTAINED, Record.WOULD_CONTAIN)
        _void_what_has_not_begun(
            conn, incident.id, because=why if change.begins_anew else f"the severity rose from {before} to {severity}", now=now
        )
        schedule_update(conn, policy, made, now=now, at=now + timedelta(minutes=policy.communication.update_every_min))
    escalate(conn, policy, made, now=now, anew=why if raised else None)
    subject = f"[UPDATE] {messages.model_name(incident.model)} - {severity.title()}"
    text = messages.line(f"{incident.id}: the severity is now {severity.upper()}. {why}")
    send_to_stakeholders(conn, policy, made, messages.Rendered(subject, text), key=f"severity-{number}", now=now)
    return made


def lowered_from(conn: Connection, incident_id: str) -> Severity | None:
    """The severity that a person has lowered it from, where that was the last word."""
    said = records.recall(conn, incident_id, SeveritySet)
    return said.lowered_from if said else None


def _void_what_has_not_begun(conn: Connection, incident_id: str, *, because: str, now: datetime) -> None:
    """A change that has begun is seen through: half of it would be worse. What a person has ordered on the spot is only more urgent now."""
    spared = {row.plan_digest for row in journal.of_incident(conn, incident_id)}
    spared |= {plan.digest for plan in plans.standing(conn, incident_id, PlanKind.EMERGENCY)}
    for digest in dict.fromkeys(row.plan_digest for row in plans.approvals_of(conn, incident_id)):
        if digest not in spared:
            plans.void(conn, incident_id, digest, because=because, now=now)
