"""The audits that are filed, over HTTP: the list, and each one's report as a page."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Response
from pydantic import Field

from mlrunbook.base import web
from mlrunbook.base.tokens import Scope
from mlrunbook.base.web import CamelModel, require
from mlrunbook.domain.audits.period import Kind
from mlrunbook.domain.audits.section import Verdict
from mlrunbook.gateway.api.dependencies import NEXT_BEFORE, Before, Limit
from mlrunbook.response.world import World
from mlrunbook.store import audits

BASE = "/api/v1/audits"
# The page is ours, but names and alert texts in it are others': nothing in it runs or is fetched.
HEADERS = {
    "Content-Security-Policy": "sandbox; default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "private, no-store",
}


class AuditOut(CamelModel):
    """One audit without its sections, which the report has."""

    id: int
    model: str
    kind: Kind
    period: str
    since: datetime
    until: datetime
    at: datetime
    verdict: Verdict
    incidents: list[str]
    sha256: str


class AuditsOut(CamelModel):
    audits: list[AuditOut]
    before: int | None = Field(description=NEXT_BEFORE)


def router(world: World) -> APIRouter:
    routes = web.router(tags=["audits"])

    @routes.get(BASE, dependencies=[Depends(require(Scope.READ))])
    def list_audits(model: str | None = None, before: Before = None, limit: Limit = 100) -> AuditsOut:
        """The newest period first."""
        with world.transaction() as conn:
            found = audits.find(conn, model=model, before=before, limit=limit)
        return AuditsOut(audits=[_out(one) for one in found], before=found[-1].id if len(found) == limit else None)

    @routes.get(
        BASE + "/{audit}/report",
        dependencies=[Depends(require(Scope.READ, basic=True))],  # a browser asks for the token as a password
        response_class=Response,
        responses={200: {"content": {"text/html": {"schema": {"type": "string"}}}}},
    )
    def show_report(audit_id: Annotated[int, Path(alias="audit", ge=1, lt=2**63)]) -> Response:
        """The report as it was filed."""
        with world.transaction() as conn:
            page = audits.report(conn, audit_id)
        return Response(page, media_type="text/html", headers=HEADERS)

    return routes


def _out(one: audits.Filed) -> AuditOut:
    shown = {name: getattr(one, name) for name in AuditOut.model_fields if name != "incidents"}
    return AuditOut(**shown, incidents=one.incident_ids)
