"""How an incident is handled, over HTTP: its severity, who has which role, and whether automation goes on."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from fastapi import APIRouter
from pydantic import Field

from mlrunbook.base.web import CamelModel
from mlrunbook.domain.actions import Order
from mlrunbook.domain.incident import Severity
from mlrunbook.domain.roles import Duty, Role
from mlrunbook.gateway import operations
from mlrunbook.gateway.api import schemas
from mlrunbook.gateway.api.dependencies import NEXT_BEFORE, READER, Approver, Before, IncidentId, Limit, Operator
from mlrunbook.gateway.api.schemas import IncidentOut, Name, Said, Words
from mlrunbook.gateway.text import clean
from mlrunbook.response.world import World
from mlrunbook.store import alerts


class SeverityIn(CamelModel):
    severity: Severity
    reason: Said


class HandoverIn(CamelModel):
    """Of a role of the escalation matrix, or of a duty in this incident."""

    role: Role | Duty
    to: Name
    note: Words = ""


class GoOnIn(CamelModel):
    note: Words = ""


class ContainmentIn(CamelModel):
    """Step 2 on your word, without waiting for a measurement."""

    order: Order
    version: schemas.Name | None = Field(None, description="For `route`: the version that answers every request")
    reason: Said
    door: Literal["rest", "cli"] = "rest"


class SilencedOut(CamelModel):
    """An alert that nobody was told of."""

    model: str
    alert: str
    source: str
    status: str = Field(description="firing or resolved")
    count: int
    starts_at: datetime
    last_seen_at: datetime
    why: str
    until: datetime


class SilencedAlertsOut(CamelModel):
    alerts: list[SilencedOut] = Field(description="Those that came last first")
    before: int | None = Field(description=NEXT_BEFORE)


def of_all(routes: APIRouter, world: World) -> None:
    @routes.get("/api/v1/alerts/silenced", dependencies=[READER])
    def list_silenced_alerts(before: Before = None, limit: Limit = 100) -> SilencedAlertsOut:
        """Alerts that came in a silence or a maintenance window and belong to no incident."""
        with world.transaction() as conn:
            rows = alerts.silenced(conn, before=before, limit=limit)
        found = []
        for row in rows:
            body = row["body"]
            name = clean(str(body.get("labels", {}).get("alertname", "alert")))
            kept = {k: row[k] for k in ("source", "status", "count", "starts_at", "last_seen_at")}
            found.append(SilencedOut(model=body["model"], alert=name, why=body["silenced"], until=body["until"], **kept))
        return SilencedAlertsOut(alerts=found, before=rows[-1]["id"] if len(rows) == limit else None)


def of_incident(routes: APIRouter, world: World) -> None:
    """Below one incident."""

    @routes.post("/{id}/severity")
    def set_severity(incident_id: IncidentId, body: SeverityIn, who: Operator) -> IncidentOut:
        """Raise or lower the severity. A higher one begins containment again and voids what was approved for less and has not begun."""
        made = operations.set_severity(world, incident_id, who, body.severity, body.reason)
        out: IncidentOut = IncidentOut.of(made)
        return out

    @routes.post("/{id}/containment", status_code=202)
    def order_containment(incident_id: IncidentId, body: ContainmentIn, who: Approver) -> schemas.PlanOut:
        """Order containment on the spot, or take all of it back. The order is your approval; the next run carries it out first, and it
        is paged until it is in force."""
        wanted = operations.Wanted(body.order, body.reason, body.version, body.door)
        plan = operations.order_containment(world, incident_id, who, wanted)
        with world.transaction() as conn:
            return schemas.PlanOut.of(conn, world.policy, plan, now=world.now())

    @routes.post("/{id}/handover")
    def hand_over(incident_id: IncidentId, body: HandoverIn, who: Operator) -> IncidentOut:
        """Record who has a role now: pages to it, and notices, name that person."""
        made = operations.hand_over(world, incident_id, who, body.role, body.to, body.note)
        out: IncidentOut = IncidentOut.of(made)
        return out

    @routes.post("/{id}/go-on")
    def go_on(incident_id: IncidentId, who: Operator, body: GoOnIn | None = None) -> IncidentOut:
        """Let automation go on after an incident that opened again and again."""
        made = operations.go_on(world, incident_id, who, body.note if body else "")
        out: IncidentOut = IncidentOut.of(made)
        return out
