"""Every open incident has had every page that was due: what the ladder and the response time ask for, against what was delivered.

The dispatcher sends pages by itself; this looks whether it did. What is missing is paged now and recorded.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import Connection

from mlrunbook.domain.communication.escalation import AuditNote, Rung, ladder, overdue
from mlrunbook.domain.detection.lifecycle import UnknownModel
from mlrunbook.domain.incident import Incident
from mlrunbook.domain.policy.policy import Policy
from mlrunbook.domain.roles import Role
from mlrunbook.response.carried_mode import is_quiet
from mlrunbook.response.communication import escalation
from mlrunbook.response.communication.notifications import Page, opened_at, page, respond_by, round_of
from mlrunbook.response.world import World
from mlrunbook.store import incidents, outbox, records, timeline

GRACE = timedelta(minutes=5)  # triage holds the first page back for a moment, and a channel may be busy
AUDITOR = "escalation audit"


def audit(world: World) -> list[str]:
    """A sentence for every page that is missing, at every look. One incident at a time: one that fails keeps no other waiting."""
    with world.transaction() as conn:
        open_ = [i.id for i in incidents.find(conn, only_open=True, limit=1000)]
    found: list[str] = []
    for incident_id in open_:
        with world.transaction() as conn:
            found += _audit_one(conn, world.policy, incidents.get(conn, incident_id, lock=True), now=world.now())
    return found


def _audit_one(conn: Connection, policy: Policy, incident: Incident, *, now: datetime) -> list[str]:
    if not escalation.is_unresolved(incident) or records.recall(conn, incident.id, UnknownModel) or is_quiet(conn, policy, incident):
        return []
    policy = policy.for_model(incident.model)
    begun = opened_at(conn, incident)
    grace = max(GRACE, timedelta(seconds=2 * policy.triage.page_anyway_after_s))
    acknowledged = timeline.of_kind(conn, incident.id, "acknowledged", after=timeline.began(conn, incident.id))
    answered = {Role(e.data["role"]) for e in acknowledged if e.data.get("role") in set(Role)}
    rungs = [] if escalation.is_ticket(conn, incident) else ladder(incident.severity, begun, policy)
    missing = overdue(rungs, _paged(conn, incident, rungs), answered, now - grace)
    said = [_page_now(conn, policy, incident, rung, now=now) for rung in missing]
    deadline = respond_by(conn, policy, incident)
    if deadline + grace <= now and not escalation.is_answered(conn, incident) and not escalation.is_asked(conn, incident, deadline):
        words = f"nobody was asked although the response time ended {deadline:%Y-%m-%d %H:%M} UTC: asked now"
        escalation.ask_next_role(conn, policy, incident, deadline, now=now)
        said.append(_note(conn, incident, f"response:{deadline.isoformat()}", words, now=now))
    return said


def _paged(conn: Connection, incident: Incident, rungs: list[Rung]) -> dict[Role, list[datetime]]:
    """When each role was paged. The page of the rung itself counts from the moment that the rung asks for."""
    base = {f"page:{incident.id}:{r.role}{round_of(conn, incident.id)}": r for r in rungs}
    paged: dict[Role, list[datetime]] = {}
    for row in outbox.of_incident(conn, incident.id, "page"):
        if row["delivered_at"] is not None:
            rung = base.get(row["dedup_key"].rpartition(":")[0])
            at = max(row["delivered_at"], rung.at) if rung else row["delivered_at"]
            paged.setdefault(Role(row["payload"]["role"]), []).append(at)
    return paged


def _page_now(conn: Connection, policy: Policy, incident: Incident, rung: Rung, *, now: datetime) -> str:
    """Where the page still waits, because its channel fails say, it is tried now and not doubled."""
    base = f"page:{incident.id}:{rung.role}"
    rows = [r for r in outbox.of_incident(conn, incident.id, "page") if r["payload"]["role"] == rung.role]
    waiting = [r for r in rows if r["dedup_key"].startswith(base) and r["delivered_at"] is None and r["cancelled_at"] is None]
    was = f"{rung.role.words} was to be paged {rung.at:%Y-%m-%d %H:%M} UTC"
    if waiting:
        for row in waiting:
            outbox.reschedule(conn, row["dedup_key"], now, now=now)
        error = next((f" ({r['last_error']})" for r in waiting if r["last_error"]), "")
        words = f"{was} and the page has not gone out{error}: tried again now"
    else:
        key = f"{rung.role}:audit:{rung.at.isoformat()}"
        page(conn, policy, incident, Page(rung.role, f"{rung.reason}; this page was missing", key), now=now)
        words = f"{was} and was not: paged now"
    return _note(conn, incident, f"{rung.role}:{rung.at.isoformat()}", words, now=now)


def _note(conn: Connection, incident: Incident, key: str, words: str, *, now: datetime) -> str:
    """On the timeline once."""
    if not records.recall(conn, incident.id, AuditNote, key):
        records.keep(conn, incident.id, AuditNote(now), key, now=now)
        timeline.append(conn, incident.id, "response", f"Escalation audit: {words}", actor=AUDITOR, at=now)
    return f"{incident.id}: {words}"
