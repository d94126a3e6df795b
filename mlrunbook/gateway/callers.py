"""Who calls, and about which incident: the parameters that routes of the gateway share."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Path

from mlrunbook.domain.policy import Role
from mlrunbook.tokens import Identity, Scope
from mlrunbook.web import require

OF_ALL = "/api/v1/incidents"

IncidentId = Annotated[str, Path(alias="id")]
Reporter = Annotated[Identity, Depends(require(Scope.INTAKE))]
Operator = Annotated[Identity, Depends(require(Scope.OPERATE))]
Approver = Annotated[Identity, Depends(require(Scope.APPROVE))]
READER = Depends(require(Scope.READ))


def named(who: Identity) -> str:
    """A caller's name for the record, with the role of the token."""
    return f"{who.name} ({Role(who.role).words})" if who.role in set(Role) else who.name
