"""The messages that an incident's alerts came in, and how each was read: as JSON, and as a page for a browser.

All of it is others' text. It is cut, secrets are blacked out, and the page runs no script.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from textwrap import wrap
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from fastapi.responses import HTMLResponse
from pydantic import Field

from mlrunbook.base import pages, web
from mlrunbook.base.tokens import Scope
from mlrunbook.domain.blackout import shown
from mlrunbook.domain.detection.alerts import MESSAGE, READ, proven_as
from mlrunbook.domain.policy.intake import OWN, UNPROVEN
from mlrunbook.gateway.api.dependencies import READER, IncidentId
from mlrunbook.gateway.text import clean
from mlrunbook.response.world import World
from mlrunbook.store import alerts, incidents

MAX_FIELDS, MAX_NAME, MAX_VALUE = 50, 100, 500  # of labels, and of annotations
MAX_LINES, LINE = 500, 400  # of a message on the page
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "private, no-store",
}

After = Annotated[int, Query(ge=0, lt=2**63, description="Only messages after this number")]
Limit = Annotated[int, Query(ge=1, le=100)]


STEPS = ("model", "type", "level", "state", "identity")


class MessageOut(web.CamelModel):
    """The first message of one alert. The same alert again is counted."""

    number: int
    source: str
    sender: str
    proven_as: str = Field(description='The sender that it was proven to come from; "": it was not')
    alert: str
    status: str
    identity: str
    starts_at: datetime
    received_at: datetime
    last_seen_at: datetime
    times: int
    read: dict[str, str] = Field(
        description="By step (model, type, level, state, identity): what decided it; empty: nothing had to be read"
    )
    labels: dict[str, str]
    annotations: dict[str, str]
    left_out: int = Field(description="Labels and annotations beyond the first 50 of each")
    message: str | None = Field(description="As it came, as JSON; of a long one the beginning; null: it was not kept, as until 0.1")

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> MessageOut:
        body = row["body"]
        labels, annotations = _named(body.get("labels")), _named(body.get("annotations"))
        return cls(
            number=row["id"],
            source=row["source"],
            sender=row["sender"],
            proven_as=proven_as(body),
            alert=clean(str(labels.get("alertname", "")), MAX_VALUE),
            status=row["status"],
            identity=clean(row["fingerprint"], MAX_VALUE),
            starts_at=row["starts_at"],
            received_at=row["received_at"],
            last_seen_at=row["last_seen_at"],
            times=row["count"],
            read=_fields(_in_order(_named(body.get(READ)))),
            labels=_fields(labels),
            annotations=_fields(annotations),
            left_out=sum(max(0, len(one) - MAX_FIELDS) for one in (labels, annotations)),
            message=_message(body.get(MESSAGE)),
        )

    @property
    def lines(self) -> list[tuple[int, str]]:
        """The message for a page, no line too long for one: how far each is indented, and what it says."""
        said = self.message or ""
        with suppress(ValueError, RecursionError):
            said = json.dumps(json.loads(said), ensure_ascii=False, indent=2)
        parted = ((len(line) - len(line.lstrip()), wrap(line.lstrip(), LINE)) for line in said.splitlines()[:MAX_LINES])
        return [(indent, part) for indent, parts in parted for part in parts]

    @property
    def proof(self) -> str:
        """In words."""
        return {UNPROVEN: "not proven", OWN: "mlrunbook itself"}.get(self.proven_as, f"proven to be {self.proven_as}")


class MessagesOut(web.CamelModel):
    messages: list[MessageOut] = Field(description="The first that came first")
    after: int | None = Field(description="Ask for the next page with `after` set to this; null: there is none")


def of_incident(routes: APIRouter, world: World) -> None:
    """Below one incident."""

    def found(incident_id: str, after: int, limit: int) -> MessagesOut:
        with world.transaction() as conn:
            incidents.get(conn, incident_id)
            rows = alerts.messages(conn, incident_id, after=after, limit=limit)
        return MessagesOut(messages=[MessageOut.of(row) for row in rows], after=rows[-1]["id"] if len(rows) == limit else None)

    @routes.get("/{id}/messages", dependencies=[READER])
    def show_messages(incident_id: IncidentId, after: After = 0, limit: Limit = 20) -> MessagesOut:
        """The messages that its alerts came in, as they came, and how each was read."""
        return found(incident_id, after, limit)

    @routes.get(
        "/{id}/messages.html",
        dependencies=[Depends(web.require(Scope.READ, basic=True))],  # a browser asks for the token as a password
        response_class=HTMLResponse,
    )
    def show_messages_page(incident_id: IncidentId, after: After = 0, limit: Limit = 20) -> HTMLResponse:
        """The same as a page."""
        page = found(incident_id, after, limit)
        html = pages.render("mlrunbook.gateway", "messages.html.j2", incident_id=incident_id, page=page)
        return HTMLResponse(html, headers=HEADERS)


def _message(kept: Any) -> str | None:
    if not isinstance(kept, str):
        return None
    try:
        return json.dumps(shown(json.loads(kept)), ensure_ascii=False)
    except (ValueError, RecursionError):  # the beginning of a long one, without secrets since it was kept
        return str(shown(kept))


def _named(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _in_order(read: Mapping[str, Any]) -> Mapping[str, Any]:
    """The steps as they are taken; the database keeps no order."""
    return {step: read[step] for step in sorted(read, key=lambda step: STEPS.index(step) if step in STEPS else len(STEPS))}


def _fields(said: Mapping[str, Any]) -> dict[str, str]:
    few = dict(list(said.items())[:MAX_FIELDS])
    return {clean(name, MAX_NAME): clean(str(value), MAX_VALUE) for name, value in shown(few).items()}
