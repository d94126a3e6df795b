"""What a person does to an incident: of each act a page that says what will happen (GET), and the act (POST).

A GET changes nothing. What may be done is looked up by `possible`, and checked once more by `operations`, whose answer counts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, Response
from sqlalchemy import Connection

from mlrunbook.base.tokens import Identity
from mlrunbook.domain.errors import Refused
from mlrunbook.domain.incident import TRANSITIONS, Incident, Severity, Status
from mlrunbook.domain.policy.policy import Policy
from mlrunbook.domain.roles import Duty, Role
from mlrunbook.gateway import operations
from mlrunbook.gateway.api import response as bodies
from mlrunbook.gateway.api import schemas
from mlrunbook.gateway.api.dependencies import IncidentId
from mlrunbook.gateway.closing import Closing
from mlrunbook.gateway.console.forms import NOTHING, Problem, Typed, TypedIn, answered, form_page
from mlrunbook.gateway.console.possible import Act, Case, Possible, case_of, of, possible
from mlrunbook.gateway.console.route import router as console_router
from mlrunbook.gateway.console.visitor import Operator, Visitor
from mlrunbook.response import known_people
from mlrunbook.response.communication.notifications import assigned
from mlrunbook.response.world import World
from mlrunbook.store import incidents


@dataclass(frozen=True)
class Seen:
    """An incident as far as acting on it goes, as this visitor sees it."""

    incident: Incident
    case: Case
    acts: tuple[Possible, ...]

    def may(self, act: Act, digest: str = "") -> Possible:
        return of(self.acts, act, digest)

    def mark(self, act: Act) -> str:
        """Of what the page of this act shows to decide on. It goes with the form: a tab left open decides nothing else."""
        shown = {
            Act.SEVERITY: (self.incident.severity,),
            Act.CLOSE: self.case.in_force,
            Act.REVERSE: self.case.in_force + self.case.ordered,
        }
        return hashlib.sha256("\n".join(shown[act]).encode()).hexdigest()[:16] if act in shown else ""


def seen(conn: Connection, policy: Policy, incident_id: str, who: Identity, world: World) -> Seen:
    incident = incidents.get(conn, incident_id)
    case = case_of(conn, policy, incident, now=world.now())
    return Seen(incident, case, possible(case, who))


def refuse_if_stale(world: World, incident_id: str, who: Identity, act: Act, typed: Typed) -> None:
    """Where somebody changed meanwhile what the form rests on."""
    with world.transaction() as conn:
        found = seen(conn, world.policy, incident_id, who, world)
    if typed["mark"] and typed["mark"] != found.mark(act):
        raise Refused("the incident changed while you had this page open. Read it again below, then confirm")


def back_to(incident_id: str, did: str) -> str:
    return f"/incidents/{incident_id}?did={did}"


@dataclass(frozen=True)
class Form:
    """An act that who operates may do: how it is done, and what its page shows beside the incident."""

    act: Act
    do: Callable[[World, str, Identity, Typed], object]
    more: Callable[[Connection, World, Seen], dict[str, Any]] = lambda conn, world, found: {}


def router(world: World) -> APIRouter:
    routes = console_router()
    for form in FORMS:
        _expose(routes, world, form)
    return routes


def _expose(routes: APIRouter, world: World, form: Form) -> None:
    path, template = f"/incidents/{{id}}/{form.act}", f"act_{form.act.replace('-', '_')}.html.j2"

    def shown(request: Request, visitor: Visitor, incident_id: str, typed: Typed = NOTHING, problem: Problem | None = None) -> HTMLResponse:
        with world.transaction() as conn:
            found = seen(conn, world.policy, incident_id, visitor.who, world)
            more = form.more(conn, world, found)
        may = found.may(form.act)
        values: dict[str, Any] = {"incident": found.incident, "case": found.case, "may": may, **more}
        return form_page(request, visitor, template, typed, problem, title=form.act.words, mark=found.mark(form.act), **values)

    @routes.get(path)
    def look(request: Request, visitor: Operator, incident_id: IncidentId) -> Response:
        return shown(request, visitor, incident_id)

    @routes.post(path)
    def act(request: Request, visitor: Operator, incident_id: IncidentId, typed: TypedIn) -> Response:
        def done() -> str:
            refuse_if_stale(world, incident_id, visitor.who, form.act, typed)
            form.do(world, incident_id, visitor.who, typed)
            return back_to(incident_id, str(form.act))

        return answered(request, done, lambda problem: shown(request, visitor, incident_id, typed, problem))


# --- each act


def _acknowledge(world: World, incident_id: str, who: Identity, _: Typed) -> None:
    operations.acknowledge(world, incident_id, who)


def _resolve(world: World, incident_id: str, who: Identity, typed: Typed) -> None:
    said = typed.into(schemas.ResolutionIn)
    operations.resolve(world, incident_id, who, what=said.what, root_cause=said.root_cause)


def _close(world: World, incident_id: str, who: Identity, typed: Typed) -> None:
    said = typed.into(schemas.ClosingIn)
    operations.close(world, incident_id, who, Closing(said.reason, said.false_alarm, said.keep_containment))


def _hand_over(world: World, incident_id: str, who: Identity, typed: Typed) -> None:
    said = typed.into(bodies.HandoverIn)
    operations.hand_over(world, incident_id, who, said.role, said.to, said.note)


def _set_severity(world: World, incident_id: str, who: Identity, typed: Typed) -> None:
    said = typed.into(bodies.SeverityIn)
    operations.set_severity(world, incident_id, who, said.severity, said.reason)


def _go_on(world: World, incident_id: str, who: Identity, typed: Typed) -> None:
    operations.go_on(world, incident_id, who, typed.into(bodies.GoOnIn).note)


# --- what the pages show


def _of_closing(_: Connection, __: World, found: Seen) -> dict[str, Any]:
    return {
        "may_be_false": Status.FALSE_ALARM in TRANSITIONS[found.incident.status],
        "needs_reason": found.incident.status is not Status.RESOLVED,
        "is_low": found.incident.severity is Severity.LOW,
    }


@dataclass(frozen=True)
class Held:
    """A role or duty, and who has it now ("": nobody is named)."""

    value: str
    words: str
    name: str


def _of_handover(conn: Connection, world: World, found: Seen) -> dict[str, Any]:
    held = {one.duty: one.name for one in assigned(conn, world.policy, found.incident)}
    roles = [Held(role, role.words, known_people.named_for(world.policy.for_model(found.incident.model), role)) for role in Role]
    duties = [Held(duty, duty.words, held.get(duty, "")) for duty in Duty]
    return {"duties": duties, "roles": roles, "people": known_people.suggested(conn, world.policy)}


@dataclass(frozen=True)
class Level:
    """A severity that may be chosen, and what follows from it."""

    value: str
    is_now: bool
    follows: str


def levels(now: Severity, policy: Policy) -> tuple[Level, ...]:
    return tuple(Level(one, one is now, _follows(now, one, policy)) for one in reversed(Severity))


def _follows(now: Severity, to: Severity, policy: Policy) -> str:
    minutes = int(policy.response_min.of(to).total_seconds() // 60)
    within = f"{minutes // 60} h" if minutes >= 60 and minutes % 60 == 0 else f"{minutes} min"
    if to is now:
        return f"As it is now: somebody answers within {within}."
    if to.rank < now.rank:
        return f"Somebody answers within {within}. Nothing in production is taken back by it."
    return (
        f"Somebody answers within {within}, counted from now. Containment is decided anew, and what policy lets a rule do at this level "
        "is done. Approvals of plans that have not begun are void."
    )


def _of_severity(_: Connection, world: World, found: Seen) -> dict[str, Any]:
    return {"levels": levels(found.incident.severity, world.policy)}


FORMS = (
    Form(Act.ACKNOWLEDGE, _acknowledge),
    Form(Act.RESOLVE, _resolve),
    Form(Act.CLOSE, _close, _of_closing),
    Form(Act.HAND_OVER, _hand_over, _of_handover),
    Form(Act.SEVERITY, _set_severity, _of_severity),
    Form(Act.GO_ON, _go_on),
)
