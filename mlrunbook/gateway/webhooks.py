"""What every alert format shares: read the body, normalise, store all of it in one transaction, answer 202.

A format is one file with a `normalise(payload)`; `router` gives it its endpoint. What a trusted sender sent is never lost: an
alert we can use goes into `mlrunbook.intake`, and anything else is quarantined.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from pydantic import Field
from sqlalchemy import Connection

from mlrunbook.gateway.text import clean
from mlrunbook.intake import NormalisedAlert, take_in_alerts
from mlrunbook.store import alerts as known_alerts
from mlrunbook.tokens import Identity, Scope
from mlrunbook.web import CamelModel, require
from mlrunbook.wiring import World

log = logging.getLogger(__name__)

MODEL_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True)
class Unusable:
    """A part of a message that is no alert of ours, and the sentence that says why."""

    part: Any
    reason: str


Normalised = tuple[list[NormalisedAlert], list[Unusable], int]


class Receipt(CamelModel):
    """What became of a message: all of it is stored when this is answered."""

    accepted: int = Field(description="Alerts taken in, repeats and resolved ones too")
    quarantined: int = Field(description="Parts that were kept aside because they cannot be used")
    incidents: list[str] = Field(description="Ids of the incidents the alerts belong to")


async def raw(request: Request) -> bytes:
    return await request.body()


def router(world: World, source: str, normalise: Callable[[Any], Normalised]) -> APIRouter:
    """`POST /webhooks/{source}`."""
    routes = APIRouter(tags=["webhooks"])

    @routes.post(
        f"/webhooks/{source}",
        status_code=202,
        operation_id=f"receive_{source}",
        openapi_extra={"requestBody": {"required": True, "content": {"application/json": {"schema": {"type": "object"}}}}},
    )
    def receive(body: Annotated[bytes, Depends(raw)], sender: Annotated[Identity, Depends(require(Scope.INTAKE, basic=True))]) -> Receipt:
        """Take in one message. A bearer token, or HTTP basic with the token as password."""
        try:
            usable, unusable, truncated = normalise(json.loads(body))
        except (ValueError, RecursionError) as error:
            usable, unusable, truncated = [], [Unusable(body, f"not JSON: {error}")], 0
        now = world.now()
        with world.transaction() as conn:
            ids = take_in_alerts(conn, world.policy, source, usable, truncated=truncated, now=now)
            for one in unusable:
                _quarantine(conn, source, one, body, now=now)
        if unusable:
            log.warning("quarantined %d part(s) of a message of %s: %s", len(unusable), sender.name, clean(unusable[0].reason, 300))
        return Receipt(accepted=len(usable), quarantined=len(unusable), incidents=ids)

    return routes


def _quarantine(conn: Connection, source: str, one: Unusable, message: bytes, *, now: datetime) -> None:
    try:
        body = one.part if isinstance(one.part, bytes) else json.dumps(one.part).encode()
    except (ValueError, RecursionError):  # nested as deep as could just be read
        body = message
    known_alerts.keep_unreadable(conn, source=source, body=body, error=clean(one.reason, 500), now=now)
