"""A new incident, reported by a person: step 1 of the runbook."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse, Response
from sqlalchemy import Connection

from mlrunbook.base.tokens import Identity
from mlrunbook.domain.errors import Invalid, NotFound
from mlrunbook.domain.incident import IncidentType, Severity, Subtype
from mlrunbook.domain.policy.intake import MODEL_ID
from mlrunbook.gateway import operations
from mlrunbook.gateway.api import schemas
from mlrunbook.gateway.console.acting import back_to
from mlrunbook.gateway.console.forms import NOTHING, Problem, Typed, TypedIn, answered, form_page
from mlrunbook.gateway.console.route import router as console_router
from mlrunbook.gateway.console.visitor import Reporter, Visitor
from mlrunbook.response.world import World
from mlrunbook.store import incidents

MOST_SUGGESTED = 200


def router(world: World) -> APIRouter:
    routes = console_router()

    def shown(request: Request, visitor: Visitor, typed: Typed, problem: Problem | None = None) -> HTMLResponse:
        with world.transaction() as conn:
            models = suggested(conn, world, visitor.who)
        values: dict[str, Any] = {
            "models": models,
            "severities": list(reversed(Severity)),
            "types": list(IncidentType),
            "subtypes": list(Subtype),
        }
        return form_page(request, visitor, "report.html.j2", typed, problem, title="Report an incident", **values)

    @routes.get("/report")
    def look(request: Request, visitor: Reporter, model: Annotated[str, Query(max_length=100)] = "") -> Response:
        return shown(request, visitor, Typed({"model": model}) if model else NOTHING)

    @routes.post("/report")
    def report(request: Request, visitor: Reporter, typed: TypedIn) -> Response:
        def done() -> str:
            said, model = typed.into(schemas.ReportIn), typed["model"].strip()
            if not MODEL_ID.fullmatch(model):
                raise Invalid("letters, digits, '.', '_' and '-' make the id of a model", field="model")
            visitor.who.confine_to(model)
            known = {name: value for name, value in vars(said).items()}
            try:
                taken = operations.report(world, visitor.who, operations.Reported(model=model, **known))
            except NotFound as error:
                raise Invalid(str(error), field="model") from error
            did = "unknown-model" if taken.why_nothing_happens else "opened" if taken.is_new else "joined"
            return back_to(taken.incident.id, did)

        return answered(request, done, lambda problem: shown(request, visitor, typed, problem))

    return routes


def suggested(conn: Connection, world: World, who: Identity) -> list[str]:
    """Models that policy names, and those that had an incident lately; the registry is not asked while a page is made."""
    of_incidents = [one.model for one in incidents.find(conn, limit=MOST_SUGGESTED)]
    return sorted({name for name in (*world.policy.named_models, *of_incidents) if who.may_see(name)})[:MOST_SUGGESTED]
