"""Containment on a person's word, and taking it back: what will happen is shown first, with what a dry run of it finds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse, Response
from sqlalchemy import Connection

from mlrunbook.base.tokens import Identity
from mlrunbook.domain.actions import Order, Plan
from mlrunbook.domain.errors import Refused, RunbookError
from mlrunbook.gateway import operations
from mlrunbook.gateway.api import response as bodies
from mlrunbook.gateway.api.dependencies import IncidentId
from mlrunbook.gateway.console.acting import back_to, refuse_if_stale, seen
from mlrunbook.gateway.console.forms import NOTHING, Problem, Typed, TypedIn, answered, form_page
from mlrunbook.gateway.console.possible import Act
from mlrunbook.gateway.console.rendering import page
from mlrunbook.gateway.console.route import router as console_router
from mlrunbook.gateway.console.route import wants_fragment
from mlrunbook.gateway.console.visitor import Approver, FreshApprover, Visitor
from mlrunbook.response.containment import emergency
from mlrunbook.response.execution.dry_run import dry_run
from mlrunbook.response.lifecycle import unknown_models
from mlrunbook.response.world import World
from mlrunbook.store import incidents, journal

Ordered = Annotated[Order | None, Query(alias="order")]
Version = Annotated[str, Query(max_length=100)]
TO_CONTAIN = (Order.STOP_SERVING, Order.ROUTE, Order.HALT_WORK_ORDERS)


@dataclass(frozen=True)
class Words:
    """An order as a person reads it. `button` says what pressing it does."""

    title: str
    button: str
    what: str
    when: str


WORDS: Mapping[Order, Words] = {
    Order.STOP_SERVING: Words(
        "Stop serving",
        "Stop serving {model}",
        "Shuts down every model server. Every prediction request fails until serving starts again.",
        "When wrong predictions are worse than none.",
    ),
    Order.ROUTE: Words(
        "Route to another version",
        "Route all traffic to this version",
        "The version you name answers every request. The registry is left as it is, so this is no rollback.",
        "When an earlier version is known to be good.",
    ),
    Order.HALT_WORK_ORDERS: Words(
        "Halt work orders",
        "Halt automatic work orders",
        "Predictions go on but create no work orders. Pending ones are flagged for the supervisors.",
        "When people act on predictions that may be wrong.",
    ),
    Order.TAKE_BACK: Words(
        "Reverse containment",
        "Reverse containment",
        "Puts back what containment changed, and withdraws orders that have not begun.",
        "When the model may serve as before.",
    ),
}


@dataclass(frozen=True)
class Preview:
    """What the order would do. `refused`: why it would not be taken; `untried`: why that is not known."""

    actions: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    tried: tuple[str, ...] = ()
    refused: str = ""
    untried: str = ""


def router(world: World) -> APIRouter:
    routes = console_router()
    _contain(routes, world)
    _reverse(routes, world)

    @routes.get("/incidents/{id}/rehearsal")
    def rehearse(request: Request, visitor: Approver, incident_id: IncidentId, order: Order, version: Version = "") -> HTMLResponse:
        """What a dry run finds, with a look at what runs now: it may take as long as the runtime takes."""
        found = rehearsal(world, incident_id, visitor.who, order, version.strip())
        with world.transaction() as conn:
            incident = incidents.get(conn, incident_id)
        template = "act_rehearsal_part.html.j2" if wants_fragment(request) else "act_rehearsal.html.j2"
        values: dict[str, Any] = {"incident": incident, "preview": found, "words": WORDS[order], "order": order}
        return page(request, visitor, template, title="Dry run", **values)

    return routes


def _contain(routes: APIRouter, world: World) -> None:
    def shown(
        request: Request, visitor: Visitor, incident_id: str, order: Order | None, typed: Typed = NOTHING, problem: Problem | None = None
    ) -> HTMLResponse:
        with world.transaction() as conn:
            found = seen(conn, world.policy, incident_id, visitor.who, world)
            versions = known_versions(conn, found.incident.model, found.incident.model_version) if order is Order.ROUTE else []
        values: dict[str, Any] = {
            "incident": found.incident,
            "case": found.case,
            "may": found.may(Act.CONTAIN),
        }
        more: dict[str, Any] = {"order": order, "orders": [(one, WORDS[one]) for one in TO_CONTAIN], "versions": versions}
        template = "act_contain.html.j2" if order is None else "act_order.html.j2"
        words = WORDS[order] if order else None
        return form_page(
            request, visitor, template, typed, problem, title=words.title if words else "Contain", words=words, **values, **more
        )

    @routes.get("/incidents/{id}/contain")
    def look(request: Request, visitor: Approver, incident_id: IncidentId, order: Ordered = None) -> Response:
        return shown(request, visitor, incident_id, order if order in TO_CONTAIN else None)

    @routes.post("/incidents/{id}/contain")
    def contain(request: Request, visitor: FreshApprover, incident_id: IncidentId, typed: TypedIn) -> Response:
        known = Order(typed["order"]) if typed["order"] in TO_CONTAIN else None

        def done() -> str:
            said = typed.into(bodies.ContainmentIn)
            if said.order not in TO_CONTAIN:
                raise Refused("containment is taken back on its own page")
            wanted = operations.Wanted(said.order, said.reason, said.version, door="console")
            operations.order_containment(world, incident_id, visitor.who, wanted)
            return back_to(incident_id, "contain")

        return answered(request, done, lambda problem: shown(request, visitor, incident_id, known, typed, problem))


def _reverse(routes: APIRouter, world: World) -> None:
    def shown(request: Request, visitor: Visitor, incident_id: str, typed: Typed = NOTHING, problem: Problem | None = None) -> HTMLResponse:
        with world.transaction() as conn:
            found = seen(conn, world.policy, incident_id, visitor.who, world)
            may = found.may(Act.REVERSE)
            preview = _preview(conn, world, incident_id, visitor.who, Order.TAKE_BACK, "") if may.is_possible else Preview()
        values: dict[str, Any] = {"incident": found.incident, "case": found.case, "may": may}
        more: dict[str, Any] = {
            "preview": preview,
            "words": WORDS[Order.TAKE_BACK],
            "order": Order.TAKE_BACK,
            "mark": found.mark(Act.REVERSE),
        }
        return form_page(request, visitor, "act_reverse.html.j2", typed, problem, title="Reverse containment", **values, **more)

    @routes.get("/incidents/{id}/reverse")
    def look(request: Request, visitor: Approver, incident_id: IncidentId) -> Response:
        return shown(request, visitor, incident_id)

    @routes.post("/incidents/{id}/reverse")
    def reverse(request: Request, visitor: FreshApprover, incident_id: IncidentId, typed: TypedIn) -> Response:
        def done() -> str:
            said = typed.into(bodies.ContainmentIn, order=Order.TAKE_BACK, version=None)
            refuse_if_stale(world, incident_id, visitor.who, Act.REVERSE, typed)
            wanted = operations.Wanted(Order.TAKE_BACK, said.reason, door="console")
            operations.order_containment(world, incident_id, visitor.who, wanted)
            return back_to(incident_id, "reverse")

        return answered(request, done, lambda problem: shown(request, visitor, incident_id, typed, problem))


def rehearsal(world: World, incident_id: str, who: Identity, order: Order, version: str) -> Preview:
    """With a look at what the runtime shows, and a dry run of each action. Changes nothing."""
    try:
        state = emergency.look(world, incident_id, order, version=version or None)
        with world.transaction() as conn:
            plan = _plan(conn, world, incident_id, who, order, version, state=state)
        tried = dry_run(world, plan.model, plan.actions)
    except RunbookError as error:
        return Preview(refused=str(error))
    refused = "; ".join(tried.refused.values())
    found = () if tried.untried else tried.found
    return Preview(tuple(a.summary for a in plan.actions), plan.reasons[1:], found, refused, tried.untried)


def _preview(conn: Connection, world: World, incident_id: str, who: Identity, order: Order, version: str) -> Preview:
    """From the store alone."""
    try:
        plan = _plan(conn, world, incident_id, who, order, version)
    except RunbookError as error:
        return Preview(refused=str(error))
    return Preview(tuple(a.summary for a in plan.actions), plan.reasons[1:])


def _plan(conn: Connection, world: World, incident_id: str, who: Identity, order: Order, version: str, *, state: Any = None) -> Plan:
    incident = incidents.get(conn, incident_id)
    unknown_models.refuse(conn, incident)
    asked = emergency.Requested(order, emergency.Requester(who.name, who.role, "console", who.person), "a look ahead", version or None)
    return emergency.planned(conn, world.policy, incident, asked, now=world.now(), state=state)


def known_versions(conn: Connection, model: str, at_detection: str | None) -> list[str]:
    """Versions of the model that its incidents have seen or set, the newest first: to choose from while the registry is away."""
    of_incidents = [one.model_version for one in incidents.find(conn, model=model, limit=50)]
    return list(dict.fromkeys(filter(None, [at_detection, *journal.versions(conn, model), *of_incidents])))
