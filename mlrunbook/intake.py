"""How an incident begins: one transaction that opens or joins it, plans its first pages and asks for its run."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import Connection

from mlrunbook.domain.incident import Incident, Severity
from mlrunbook.domain.policy import Policy, Role
from mlrunbook.notices import escalate, page
from mlrunbook.store import incidents, leases, records, timeline
from mlrunbook.store.incidents import Report


def take_in(
    conn: Connection, policy: Policy, report: Report, *, now: datetime, by_alert: bool = False, start: bool = True
) -> tuple[Incident, bool]:
    """Open the incident, or join the one that is open for this model and failure family.

    Whoever accepts the report answers 2xx only after this transaction commits. `by_alert`: the severity is only a first guess from
    the alert's level; a person's is a floor. `start=False`: the caller is the run itself.
    """
    incident, is_new = incidents.open_or_join(conn, report, now=now)
    if is_new:
        records.put(conn, incident.id, "report", {"by_alert": by_alert, "severity": report.severity, "type": report.type}, now=now)
        # Critical is paged at once; otherwise triage gets a moment to recognise a false alarm, then the page goes out anyway.
        grace = timedelta(0) if report.severity is Severity.CRITICAL else timedelta(seconds=policy.triage.page_anyway_after_s)
        escalate(conn, policy, incident, now=now, hold_first_until=now + grace)
        if not start:
            leases.expect(conn, incident.id, now=now)
        else:
            leases.request_start(conn, incident.id, why=f"opened by {report.reported_by}", now=now)
        return incident, True
    text = f"Reported again by {report.reported_by}: {report.description}"
    timeline.append(conn, incident.id, "reported", text, actor=report.reported_by, at=now)
    if report.severity.rank > incident.severity.rank:  # how severe it is, triage or a person decides; they must hear of it now
        why = f"{report.reported_by} reports {report.severity}, it is handled as {incident.severity}: {report.description}"
        for role in (Role.ONCALL_ML_ENGINEER, Role.ML_TEAM_LEAD):
            page(conn, policy, incident, role, why, now=now, key=f"reported-{report.severity}:{role}")
    return incident, False
