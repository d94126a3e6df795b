"""What an incident that opens again must not take over from its first time. What it led to stays on the timeline and in the journal."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import Connection

from mlrunbook.domain.detection.flapping import Ending, Reopened, is_back
from mlrunbook.domain.detection.reports import Report
from mlrunbook.domain.detection.triage import Triage
from mlrunbook.domain.incident import Incident, Severity, Status
from mlrunbook.domain.policy.policy import Policy
from mlrunbook.domain.records import OF_THE_FIX, OF_THE_RESPONSE, Record
from mlrunbook.response.communication.escalation import escalate, schedule_update
from mlrunbook.response.lifecycle import flapping
from mlrunbook.store import incidents, leases, records


def discard(conn: Connection, incident_id: str) -> None:
    """All but what triage says: the incident begins again there."""
    records.forget(conn, incident_id, *OF_THE_FIX, *OF_THE_RESPONSE, *records.with_prefix(conn, incident_id, Record.FINDINGS))


def find_closed(conn: Connection, policy: Policy, model: str, family: str, *, now: datetime) -> Incident | None:
    """The incident of this model and family that closed so recently that the same failure is a part of it; None where one is open."""
    if incidents.open_of(conn, model, family):
        return None
    recent = incidents.find(conn, model=model, status=Status.CLOSED, limit=20)
    back = [i for i in recent if i.family == family and is_back(i.closed_at, now, policy.recurrence)]
    return max(back, key=lambda i: i.closed_at or now, default=None)


def reopen_for_alert(conn: Connection, policy: Policy, incident: Incident, report: Report, *, now: datetime) -> Incident:
    """Triage has to look again. Pages wait for it for a moment, as for any alert; nothing that was found before is lost yet."""
    why, by = report.description, report.reported_by
    earlier, triage = records.recall(conn, incident.id, Reopened), records.recall(conn, incident.id, Triage)
    again = Reopened(
        number=earlier.number + 1 if earlier else 1,
        at=now,
        since=incident.closed_at or now,
        why=why,
        baseline=triage.baseline if triage else None,
        measured=False,
        before=Ending(incident.resolved_at, incident.closed_at, incident.review_due_at),
        triage=triage,
        moved_s=incidents.moved_s(conn, incident.id),
    )
    unproven = not flapping.counts(policy, report.proven_as)
    records.forget(conn, incident.id, Record.TRIAGE)
    records.replace(conn, incident.id, again, now=now)
    reopened = incidents.reopen(conn, incident.id, why=f"an alert again: {report.told}", actor=by, now=now, unproven=unproven)
    grace = timedelta(0) if incident.severity is Severity.CRITICAL else timedelta(seconds=policy.triage.page_anyway_after_s)
    escalate(conn, policy, reopened, now=now, hold_first_until=now + grace)
    schedule_update(conn, policy, reopened, now=now, at=now + timedelta(minutes=policy.communication.initial_within_min))
    leases.request_start(conn, incident.id, why=f"opened again by {by}", now=now)
    return reopened


def close_as_it_was(conn: Connection, incident_id: str, again: Reopened, *, why: str, actor: str, now: datetime) -> Incident:
    """Triage has measured that the alert is a false alarm: the incident ended when it ended."""
    assert again.before is not None
    records.forget(conn, incident_id, Record.TRIAGE)
    if again.triage:
        records.keep(conn, incident_id, again.triage, now=now)
    return incidents.close_again(conn, incident_id, again.before, why=f"the alert is a false alarm: {why}", actor=actor, now=now)
