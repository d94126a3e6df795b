"""Step 6: the review is held within 48 hours. A reminder before, escalation after, until a person has approved it."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection

from mlrunbook.domain.communication import console_links, messages
from mlrunbook.domain.incident import Incident
from mlrunbook.domain.policy.policy import Policy
from mlrunbook.domain.review.review import Approved, next_review_reminder
from mlrunbook.domain.roles import Role
from mlrunbook.response.communication.notifications import INCIDENTS, TICKETS, Page, request_action, send_message
from mlrunbook.store import incidents, outbox, records, timeline

TIMER = "review_due"
ESCALATION = (Role.ML_TEAM_LEAD, Role.ENGINEERING_MANAGER)  # the roles that sign it; the last one is asked again and again


def schedule(conn: Connection, policy: Policy, incident: Incident, *, now: datetime) -> None:
    """The first reminder; the one after it is planned when it goes out."""
    if incident.review_due_at is not None:
        _plan_next(conn, policy, incident, incident.review_due_at, now=now)


def remind(conn: Connection, policy: Policy, item: outbox.Item, *, now: datetime) -> None:
    """Nothing where it was approved, or where the incident was opened again."""
    incident = incidents.get(conn, str(item.incident_id), lock=True)
    due = datetime.fromisoformat(item.payload["due"])
    now = max(now, datetime.fromisoformat(item.payload["at"]))  # it may come early: the clock was set back
    if incident.status.is_open or incident.review_due_at != due or records.recall(conn, incident.id, Approved):
        return
    if outbox.is_delivered(conn, item.dedup_key):
        return
    words = f"the review of {incident.id} is due {due:%Y-%m-%d %H:%M} UTC and not approved yet"
    todo = f"Hold it, then: mlrunbook incidents sign-review {incident.id} --as reviewed"
    if now < due:
        subject = f"[REVIEW DUE] {messages.model_name(incident.model)}"
        text = messages.Rendered(subject, f"{words[:1].upper()}{words[1:]}.\n{todo}", console_links.of_review(incident.id))
        for to in (INCIDENTS, TICKETS):
            send_message(conn, policy, incident, to, text, key=item.dedup_key, now=now)
    else:
        number = sum(datetime.fromisoformat(r["payload"]["at"]) >= due for r in _rows(conn, incident, due)) - 1
        role = ESCALATION[min(number, len(ESCALATION) - 1)]
        timeline.append(conn, incident.id, "review", f"Overdue: {words}; the {role.words} is asked", actor="dispatcher", at=now)
        call = Page(role, words, f"review-due:{role}:{item.dedup_key}", todo, console=console_links.of_review(incident.id))
        request_action(conn, policy, incident, call, now=now)
    _plan_next(conn, policy, incident, due, now=now)


def _plan_next(conn: Connection, policy: Policy, incident: Incident, due: datetime, *, now: datetime) -> None:
    rules = policy.communication
    at = next_review_reminder(due, now, before_h=rules.review_remind_before_h, overdue_every_h=rules.review_overdue_every_h)
    payload = {"due": due.isoformat(), "at": at.isoformat()}
    outbox.put(conn, TIMER, f"review:{incident.id}:{due.isoformat()}:{at.isoformat()}", payload, now=now, incident_id=incident.id, at=at)


def _rows(conn: Connection, incident: Incident, due: datetime) -> list[dict[str, dict[str, str]]]:
    return [r for r in outbox.of_incident(conn, incident.id, TIMER) if r["payload"]["due"] == due.isoformat()]
