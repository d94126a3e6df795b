"""A row of the outbox that cannot be delivered by anybody: it is taken out of the way, and a person hears of it."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection

from mlrunbook.domain.policy.policy import Policy
from mlrunbook.domain.roles import Role
from mlrunbook.response.communication.notifications import Page, request_action
from mlrunbook.store import incidents, outbox, timeline

ACTOR = "dispatcher"


def unreadable(conn: Connection, policy: Policy, item: outbox.Item, why: str, *, now: datetime) -> None:
    if item.incident_id is not None:
        incidents.get(conn, item.incident_id, lock=True)  # everybody locks it before rows of the outbox
    outbox.set_aside(conn, item, why, now=now)
    _call(conn, policy, item, f"a {item.kind} of this incident cannot be read and was set aside: {why}", now=now)


def unknown(conn: Connection, policy: Policy, item: outbox.Item, *, now: datetime) -> None:
    """It stays: a newer gateway may know the kind."""
    if item.incident_id is not None:
        incidents.get(conn, item.incident_id, lock=True)
    if outbox.leave(conn, item, "no dispatcher knows this kind"):
        _call(conn, policy, item, f"this version does not know {item.kind!r}, which is due: it was left for a newer one", now=now)


def _call(conn: Connection, policy: Policy, item: outbox.Item, words: str, *, now: datetime) -> None:
    if item.incident_id is None:
        return  # the log has it
    incident = incidents.get(conn, item.incident_id)
    data = {"row": item.id, "kind": item.kind}
    timeline.append(conn, incident.id, "delivery", words[:1].upper() + words[1:], actor=ACTOR, at=now, data=data)
    step = "Read the timeline and do by hand what it stood for"
    request_action(conn, policy, incident, Page(Role.ONCALL_ML_ENGINEER, words, f"set-aside:{item.kind}", step), now=now)
