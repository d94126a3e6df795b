"""The deadlines of the law on an incident: what it is to that law, and that the authority was told. Also of an incident that is over."""

from __future__ import annotations

import re
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, Response

from mlrunbook.domain.communication import regulatory
from mlrunbook.domain.communication.regulatory import CASES, Notification, Statement
from mlrunbook.domain.incident import ClockName
from mlrunbook.gateway.api import schemas
from mlrunbook.gateway.api.dependencies import IncidentId, named
from mlrunbook.gateway.console.acting import back_to
from mlrunbook.gateway.console.forms import NOTHING, Problem, Typed, TypedIn, answered, form_page
from mlrunbook.gateway.console.route import router as console_router
from mlrunbook.gateway.console.visitor import Operator, Visitor
from mlrunbook.response.communication import regulatory_clocks
from mlrunbook.response.world import World
from mlrunbook.store import incidents
from mlrunbook.store import regulatory_clocks as clocks

LAWS = {ClockName.GDPR: "GDPR", ClockName.AI_ACT: "EU AI Act"}
_WITHOUT_ZONE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d)?")


def router(world: World) -> APIRouter:
    routes = console_router()

    def shown(
        request: Request, visitor: Visitor, incident_id: str, clock: ClockName, typed: Typed = NOTHING, problem: Problem | None = None
    ) -> HTMLResponse:
        now = world.now()
        with world.transaction() as conn:
            incident = incidents.get(conn, incident_id)
            running = clocks.get(conn, incident_id, clock)
        values: dict[str, Any] = {"incident": incident, "clock": clock, "law": LAWS[clock]}
        values |= {"running": running, "sentence": running.sentence(now) if running else "", "cases": CASES[clock]}
        values |= {"not_advice": regulatory.NOT_ADVICE}
        return form_page(request, visitor, "act_clock.html.j2", typed, problem, title=f"{LAWS[clock]}: the deadline", **values)

    @routes.get("/incidents/{id}/clocks/{clock}")
    def look(request: Request, visitor: Operator, incident_id: IncidentId, clock: ClockName) -> Response:
        return shown(request, visitor, incident_id, clock)

    @routes.post("/incidents/{id}/clocks/{clock}")
    def state_case(request: Request, visitor: Operator, incident_id: IncidentId, clock: ClockName, typed: TypedIn) -> Response:
        def done() -> str:
            said = in_utc(typed, "aware_at").into(schemas.CaseIn)
            with world.transaction() as conn:
                stated = Statement(said.case, named(visitor.who), said.aware_at)
                regulatory_clocks.state_case(conn, world.policy, incident_id, clock, stated, now=world.now())
            return back_to(incident_id, "clock")

        return answered(request, done, lambda problem: shown(request, visitor, incident_id, clock, typed, problem))

    @routes.post("/incidents/{id}/clocks/{clock}/notification")
    def record_notification(request: Request, visitor: Operator, incident_id: IncidentId, clock: ClockName, typed: TypedIn) -> Response:
        def done() -> str:
            said = in_utc(typed, "at").into(schemas.NotificationIn)
            with world.transaction() as conn:
                word = Notification(named(visitor.who), said.reference, said.not_required, said.at)
                regulatory_clocks.end(conn, incident_id, clock, word, now=world.now())
            return back_to(incident_id, "notified")

        return answered(request, done, lambda problem: shown(request, visitor, incident_id, clock, typed, problem))

    return routes


def in_utc(typed: Typed, name: str) -> Typed:
    """A date field of a browser says no time zone; its label says that it is UTC."""
    said = typed[name].strip()
    return Typed({**typed.values, name: f"{said}Z"}) if _WITHOUT_ZONE.fullmatch(said) else typed
