"""Who calls, and about which incident: the parameters that routes of the gateway share."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Path, Query
from sqlalchemy import Connection

from mlrunbook.base.tokens import Identity, Scope
from mlrunbook.base.web import require
from mlrunbook.domain import roles
from mlrunbook.domain.errors import Refused
from mlrunbook.domain.incident import Incident
from mlrunbook.store import incidents

OF_ALL = "/api/v1/incidents"

IncidentId = Annotated[str, Path(alias="id")]
Reporter = Annotated[Identity, Depends(require(Scope.INTAKE))]
Operator = Annotated[Identity, Depends(require(Scope.OPERATE))]
Approver = Annotated[Identity, Depends(require(Scope.APPROVE))]
Before = Annotated[int | None, Query(ge=1, lt=2**63, description="Only what is older than this: `before` of the page before")]
READER = Depends(require(Scope.READ))


def named(who: Identity) -> str:
    return roles.named(who.name, who.role)


def still_open(conn: Connection, incident_id: str) -> Incident:
    """The incident, locked. Refused when it is over."""
    incident = incidents.get(conn, incident_id, lock=True)
    if not incident.status.is_open:
        words = str(incident.status).replace("_", " ")
        raise Refused(f"{incident_id} is over ({words}); report it again if the trouble is back")
    return incident
