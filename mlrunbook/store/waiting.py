"""What open incidents, and reviews that nobody has approved, ask of people: read for all incidents at once."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, exists, func, or_, select, text

from mlrunbook.domain.actions import Plan
from mlrunbook.domain.incident import Incident, Status
from mlrunbook.domain.records import Record
from mlrunbook.store.incident_search import seen
from mlrunbook.store.incidents import FIELDS, incident_of
from mlrunbook.store.outbox import PENDING
from mlrunbook.store.tables import ONE_OPEN, action_items, incidents, outbox, plans, records, timeline

MOST = 200
IS_OPEN = text(f"incidents.{ONE_OPEN}")
REVIEW_TIMER = "review_due"


@dataclass(frozen=True)
class Paged:
    """The last page that went out to a role about an incident that is not resolved."""

    incident: Incident
    at: datetime
    reason: str


def open_plans(conn: Connection, models: Sequence[str]) -> list[tuple[Plan, Incident, datetime]]:
    """The plans that stand of every open incident of these models, with when each was proposed."""
    query = select(*FIELDS, plans.c.body, plans.c.proposed_at).join(plans, plans.c.incident_id == incidents.c.id)
    query = query.where(IS_OPEN, plans.c.superseded_at.is_(None), seen(incidents.c.model, models)).order_by(plans.c.proposed_at)
    return [(Plan.from_dict(row.body), incident_of(row), row.proposed_at) for row in conn.execute(query)]


def pages_to(conn: Connection, role: str, models: Sequence[str]) -> list[Paged]:
    """What the role was paged about that is neither resolved nor acknowledged by the role since the incident was opened (again)."""
    delivered_at, reason = outbox.c.delivered_at.label("paged_at"), outbox.c.payload["reason"].astext.label("reason")
    query = select(*FIELDS, delivered_at, reason).join(outbox, outbox.c.incident_id == incidents.c.id)
    mine = outbox.c.payload["role"].astext == role
    query = query.where(IS_OPEN, incidents.c.status != Status.RESOLVED.value, seen(incidents.c.model, models))
    query = query.where(outbox.c.kind == "page", outbox.c.delivered_at.is_not(None), mine).order_by(outbox.c.delivered_at)
    newest = {row.id: Paged(incident_of(row), row.paged_at, row.reason or "") for row in conn.execute(query)}
    answered = _acknowledged_by(conn, role, newest)
    return [paged for incident_id, paged in newest.items() if incident_id not in answered]


def _acknowledged_by(conn: Connection, role: str, incident_ids: Collection[str]) -> set[str]:
    t = timeline.c
    began_anew = or_(t.data["reopened"].astext == "true", t.data["recognised"].astext == "true")
    said = func.max(t.seq).filter((t.kind == "acknowledged") & (t.data["role"].astext == role)).label("said")
    began = func.max(t.seq).filter(t.kind.in_(("status", "reported")) & began_anew).label("began")
    query = select(t.incident_id, said, began).where(t.incident_id.in_(incident_ids))
    rows = conn.execute(query.where(t.kind.in_(("acknowledged", "status", "reported"))).group_by(t.incident_id)) if incident_ids else ()
    return {row.incident_id for row in rows if row.said is not None and row.said > (row.began or 0)}


def unapproved_reviews(conn: Connection, models: Sequence[str]) -> list[Incident]:
    """Incidents that are over, whose review is drafted and not approved. Until it is, a reminder of it waits in the outbox: so this reads
    no incident of the years before."""
    reminded = select(outbox.c.incident_id).where(PENDING, outbox.c.kind == REVIEW_TIMER)
    query = select(*FIELDS).where(incidents.c.id.in_(reminded), incidents.c.status == Status.CLOSED.value, seen(incidents.c.model, models))
    query = query.where(_has(Record.REVIEW), ~_has(Record.APPROVED)).order_by(incidents.c.review_due_at).limit(MOST)
    return [incident_of(row) for row in conn.execute(query)]


def _has(step: Record) -> ColumnElement[bool]:
    return exists().where(records.c.incident_id == incidents.c.id, records.c.step == step.value)


def overdue_items(conn: Connection, models: Sequence[str], *, now: datetime) -> list[tuple[int, str]]:
    """The numbers of open action items that are past their date, the longest first, each with its model."""
    open_ = text("action_items.status IN ('not started', 'in progress')")
    query = select(action_items.c.id, incidents.c.model).join(incidents, incidents.c.id == action_items.c.incident_id)
    query = query.where(open_, action_items.c.due_at < now, seen(incidents.c.model, models)).order_by(action_items.c.due_at)
    return [(row.id, row.model) for row in conn.execute(query.limit(MOST))]
