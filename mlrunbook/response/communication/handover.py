"""Somebody takes a role or a duty over in the middle of an incident."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Connection

from mlrunbook.domain.communication import messages
from mlrunbook.domain.communication.escalation import Holder
from mlrunbook.domain.incident import Incident
from mlrunbook.domain.policy.policy import Policy
from mlrunbook.domain.roles import Duty, Role
from mlrunbook.response.communication.notifications import INCIDENTS, send_message
from mlrunbook.store import incidents, records, timeline


class Handing(NamedTuple):
    """What is handed over, and to whom."""

    role: Role | Duty
    to: str
    note: str = ""


def hand_over(conn: Connection, policy: Policy, incident_id: str, said: Handing, *, by: str, now: datetime) -> Incident:
    """From now on pages and notices name `to`. Said again with the same words it adds nothing; every other time it is on the timeline."""
    role, to, note = said
    incident = incidents.get(conn, incident_id, lock=True)
    before = records.recall(conn, incident_id, Holder, role)
    if before and (before.to, before.by, before.note) == (to, by, note):
        return incident
    records.replace(conn, incident_id, Holder(to, by, note, now), role, now=now)
    whom = f" from {before.to}" if before else ""
    words = f"{role.words} handed over{whom} to {to} by {by}" + (f": {note}" if note else "")
    timeline.append(conn, incident_id, "handover", words, actor=by, at=now, data={"role": role, "to": to})
    text = messages.Rendered(f"[HANDOVER] {messages.model_name(incident.model)}", messages.line(f"{incident.id}: {words}"))
    send_message(conn, policy, incident, INCIDENTS, text, key=f"handover:{role}:{now.isoformat()}", now=now)
    return incident
