"""Yes or no to a plan: bound to the digest of exactly the plan that the page showed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse, Response

from mlrunbook.domain.actions import digest_prefix
from mlrunbook.domain.errors import NotFound
from mlrunbook.gateway import operations
from mlrunbook.gateway.api import schemas
from mlrunbook.gateway.api.dependencies import IncidentId
from mlrunbook.gateway.console import incident_reading
from mlrunbook.gateway.console.acting import back_to
from mlrunbook.gateway.console.forms import NOTHING, Problem, Typed, TypedIn, answered
from mlrunbook.gateway.console.incident_reading import IncidentPage
from mlrunbook.gateway.console.incident_view import PlanView
from mlrunbook.gateway.console.possible import Act
from mlrunbook.gateway.console.rendering import page
from mlrunbook.gateway.console.route import router as console_router
from mlrunbook.gateway.console.visitor import Approver, FreshApprover, Visitor
from mlrunbook.response.world import World
from mlrunbook.store import incidents, plans

Digest = Annotated[str, Query(alias="plan", max_length=64, description="The digest of the plan; default: the one that waits")]
DECISIONS = {Act.APPROVE: "approved", Act.REJECT: "rejected"}


@dataclass(frozen=True)
class Choice:
    """`plan` None: there is no such plan any more, or several wait and none was named. `was_replaced`: the one that was named."""

    plan: PlanView | None
    waiting: tuple[PlanView, ...] = ()
    was_replaced: str = ""


def router(world: World) -> APIRouter:
    routes = console_router()
    for act in DECISIONS:
        _expose(routes, world, act)
    return routes


def _expose(routes: APIRouter, world: World, act: Act) -> None:
    path = f"/incidents/{{id}}/{act}"

    def shown(
        request: Request, visitor: Visitor, incident_id: str, digest: str, typed: Typed = NOTHING, problem: Problem | None = None
    ) -> HTMLResponse:
        with world.transaction() as conn:
            incident = incidents.get(conn, incident_id)
            found = incident_reading.read(conn, world.policy, incident, visitor.who, now=world.now())
            named = plans.digests(conn, incident_id, digest_prefix(digest)) if digest else []
        choice = chosen(found, digest, named)
        status = problem.status if problem else 409 if choice.was_replaced else 200
        values: dict[str, Any] = {"incident": incident, "found": found, "choice": choice, "act": act, "typed": typed, "problem": problem}
        return page(request, visitor, "act_decide.html.j2", status=status, title=f"{act.words} a plan", **values)

    @routes.get(path)
    def look(request: Request, visitor: Approver, incident_id: IncidentId, digest: Digest = "") -> Response:
        return shown(request, visitor, incident_id, digest)

    @routes.post(path)
    def decide(request: Request, visitor: FreshApprover, incident_id: IncidentId, typed: TypedIn) -> Response:
        def done() -> str:
            said = typed.into(schemas.ApprovalIn, decision=DECISIONS[act])
            verdict = operations.Verdict(said.decision, said.plan_digest, said.reason, door="console")
            operations.decide(world, incident_id, visitor.who, verdict)
            return back_to(incident_id, str(act))

        return answered(request, done, lambda problem: shown(request, visitor, incident_id, typed["plan_digest"], typed, problem))


def chosen(found: IncidentPage, digest: str, named: list[str]) -> Choice:
    """`named`: the digests of all plans of this incident, replaced ones too, that begin with `digest`. NotFound where there is none."""
    waiting = tuple(plan for plan in found.plans if plan.waits)
    if not digest:
        return Choice(waiting[0] if len(waiting) == 1 else None, waiting)
    if not named:
        raise NotFound(f"{found.incident.id} has no plan {digest[:12]}. Nothing was decided.")
    plan = next((plan for plan in found.plans if plan.digest in named), None)
    return Choice(plan, waiting, was_replaced="" if plan else named[0])
