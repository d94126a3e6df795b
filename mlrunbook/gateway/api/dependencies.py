"""Who calls, and about which incident: the parameters that routes of the gateway share."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Annotated

from fastapi import Depends, Path, Query
from sqlalchemy import Connection

from mlrunbook.base.authentication import ModelOf
from mlrunbook.base.tokens import Identity, Scope
from mlrunbook.base.web import require
from mlrunbook.domain import roles
from mlrunbook.domain.errors import NotFound, Refused, Unstorable
from mlrunbook.domain.incident import Incident
from mlrunbook.response.world import World
from mlrunbook.store import action_items, audits, incidents

OF_ALL = "/api/v1/incidents"

IncidentId = Annotated[str, Path(alias="id")]
Reporter = Annotated[Identity, Depends(require(Scope.REPORT, sender="report"))]
Operator = Annotated[Identity, Depends(require(Scope.OPERATE))]
Approver = Annotated[Identity, Depends(require(Scope.APPROVE))]
Before = Annotated[int | None, Query(ge=1, lt=2**63, description="Only what is older than this: `before` of the page before")]
Limit = Annotated[int, Query(ge=1, le=1000)]
NEXT_BEFORE = "Ask for the next page with `before` set to this; null: there is none"
READER = Depends(require(Scope.READ))
Reader = Annotated[Identity, READER]


def models_of(world: World) -> dict[str, ModelOf]:
    """By the name of a path's parameter: which model an incident, an action item, an audit is of; None: there is no such thing."""

    def looked_up(find: Callable[[Connection, str], str]) -> ModelOf:
        def model_of(value: str) -> str | None:
            with contextlib.suppress(NotFound, ValueError, Unstorable), world.transaction() as conn:
                return find(conn, value)
            return None

        return model_of

    def of_incident(conn: Connection, incident_id: str) -> str:
        return incidents.get(conn, incident_id).model

    def of_item(conn: Connection, item: str) -> str:
        return of_incident(conn, action_items.get(conn, int(item)).incident_id)

    def of_audit(conn: Connection, audit: str) -> str:
        return audits.model_of(conn, int(audit))

    return {"id": looked_up(of_incident), "item": looked_up(of_item), "audit": looked_up(of_audit)}


def named(who: Identity) -> str:
    return roles.named(who.name, who.role)


def still_open(conn: Connection, incident_id: str) -> Incident:
    """The incident, locked. Refused when it is over."""
    incident = incidents.get(conn, incident_id, lock=True)
    if not incident.status.is_open:
        words = str(incident.status).replace("_", " ")
        raise Refused(f"{incident_id} is over ({words}); report it again if the trouble is back")
    return incident
