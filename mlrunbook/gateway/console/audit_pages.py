"""`/audits`: the audits that are filed, what each found, and its report as it was written."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Path, Query, Request, Response

from mlrunbook.domain.audits.section import Verdict
from mlrunbook.domain.errors import Invalid
from mlrunbook.gateway.api.audits import HEADERS
from mlrunbook.gateway.console import rendering, words
from mlrunbook.gateway.console.visitor import ListReader, Reader
from mlrunbook.gateway.text import clean
from mlrunbook.response.world import World
from mlrunbook.store import audits

ON_A_PAGE = 50

AuditId = Annotated[int, Path(alias="audit", ge=1, lt=2**63)]
Asked = Annotated[str, Query(max_length=200)]
Before = Annotated[int | None, Query(ge=1, lt=2**63)]


def add(routes: APIRouter, world: World) -> None:
    @routes.get("/audits")
    def list_audits(request: Request, visitor: ListReader, model: Asked = "", verdict: Asked = "", before: Before = None) -> Response:
        if verdict and verdict not in set(Verdict):
            raise Invalid(f"verdict: there is no {clean(verdict, 40)!r}; choose one of {', '.join(Verdict)}", field="verdict")
        wanted = Verdict(verdict) if verdict else None
        with world.transaction() as conn:
            models = visitor.who.limits.models
            found = audits.find(conn, model=model.strip(), verdict=wanted, before=before, models=models, limit=ON_A_PAGE + 1)
        shown = found[:ON_A_PAGE]
        older = urlencode({"model": model, "verdict": verdict, "before": shown[-1].id}) if len(found) > ON_A_PAGE else ""
        values: dict[str, Any] = {"model": model, "verdict": verdict, "verdicts": list(Verdict), "older": older, "is_first": before is None}
        return rendering.page(request, visitor, "audits.html.j2", found=shown, clock=words.clock, **values)

    @routes.get("/audits/{audit}")
    def show_audit(request: Request, visitor: Reader, audit_id: AuditId) -> Response:
        with world.transaction() as conn:
            filed = audits.get(conn, audit_id)
        return rendering.page(request, visitor, "audit.html.j2", audit=filed, clock=words.clock)

    @routes.get("/audits/{audit}/report")
    def show_report(visitor: Reader, audit_id: AuditId) -> Response:
        """The file as it was written, with its charts: its headers let nothing in it run."""
        with world.transaction() as conn:
            page = audits.report(conn, audit_id)
        return Response(page, media_type="text/html", headers=HEADERS)
