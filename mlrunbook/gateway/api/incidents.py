"""Incidents over HTTP: report, read, acknowledge, decide, resolve, close. Everything that changes something is a POST."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Response

from mlrunbook.base import web
from mlrunbook.base.tokens import Scope
from mlrunbook.base.web import require
from mlrunbook.domain.communication.regulatory import Notification, Statement
from mlrunbook.domain.errors import NotFound
from mlrunbook.domain.incident import ClockName, Status
from mlrunbook.domain.policy.intake import MODEL_ID
from mlrunbook.gateway import operations
from mlrunbook.gateway.api import chain, reviews, schemas
from mlrunbook.gateway.api import messages as messages_api
from mlrunbook.gateway.api import response as response_api
from mlrunbook.gateway.api.dependencies import (
    OF_ALL,
    READER,
    Approver,
    Before,
    IncidentId,
    Limit,
    Operator,
    Reader,
    Reporter,
    named,
)
from mlrunbook.gateway.closing import Closing
from mlrunbook.response.communication import regulatory_clocks
from mlrunbook.response.world import World
from mlrunbook.store import evidence, incidents, timeline

OF_MODEL = "/api/v1/model-governance/{modelId}/incidents"

ModelId = Annotated[str, Path(alias="modelId", pattern=f"^{MODEL_ID.pattern}$")]
OnlyOpen = Annotated[bool, Query(alias="open")]
UnknownModel = Annotated[bool, Query(alias="unknownModel", description="Report it although nobody knows the model; or so in the body")]
EntriesBefore = Annotated[int | None, Query(ge=1, lt=2**31, description="Instead: the newest entries below this number")]
After = Annotated[int, Query(ge=0, lt=2**31, description="Only entries after this number")]

# Evidence is written by others. A page of it may run its own scripts, in an origin of its own: it reaches neither this service nor the net.
EVIDENCE_HEADERS = {
    "Content-Security-Policy": (
        "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
        "img-src data: blob:; font-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "private, no-store",
}


def router(world: World) -> APIRouter:
    """All of it: the lists, and one incident below both `OF_ALL` and its model's `OF_MODEL`."""
    routes = web.router(tags=["incidents"])
    _reporting(routes, world)
    _lists(routes, world)
    reviews.of_all(routes, world)
    chain.of_all(routes, world)
    response_api.of_all(routes, world)

    def of_this_model(model: ModelId, incident_id: IncidentId) -> None:
        with world.transaction() as conn:
            if incidents.get(conn, incident_id).model != model:
                raise NotFound(f"{incident_id} is no incident of {model}; see {OF_ALL}/{incident_id}")

    one = web.router()
    _reading(one, world)
    _operating(one, world)
    _clocks(one, world)
    reviews.of_incident(one, world)
    chain.of_incident(one, world)
    response_api.of_incident(one, world)
    messages_api.of_incident(one, world)
    routes.include_router(one, prefix=OF_ALL)
    routes.include_router(one, prefix=OF_MODEL, dependencies=[Depends(of_this_model)])
    return routes


def _reporting(routes: APIRouter, world: World) -> None:
    @routes.post(
        OF_MODEL,
        status_code=201,
        responses={200: {"model": schemas.ReportedOut, "description": "Joined the incident that is open already"}},
    )
    def report_incident(
        model: ModelId, body: schemas.ReportIn, who: Reporter, response: Response, unknown_model: UnknownModel = False
    ) -> schemas.ReportedOut:
        """Open an incident, or join the one that is open for this model and failure family. 404 for a model that nobody knows."""
        said = operations.Reported(
            model=model,
            type=body.type,
            severity=body.severity,
            description=body.description,
            impact=body.impact,
            subtype=body.subtype,
            reported_by=body.reported_by,
            unknown_model=unknown_model or body.unknown_model,
        )
        incident, is_new, why = operations.report(world, who, said)
        response.status_code = 201 if is_new else 200
        response.headers["Location"] = f"{OF_ALL}/{incident.id}"
        out: schemas.ReportedOut = schemas.ReportedOut.of(incident, joined=not is_new, unknown_model=why)
        return out


def _lists(routes: APIRouter, world: World) -> None:
    def listed(model: str | None, status: Status | None, only_open: bool, before: int | None, limit: int) -> schemas.IncidentsOut:
        with world.transaction() as conn:
            found = incidents.find(conn, model=model, status=status, only_open=only_open, before=before, limit=limit)
            older = incidents.number_of(conn, found[-1].id) if len(found) == limit else None
        return schemas.IncidentsOut(incidents=[schemas.IncidentOut.of(i) for i in found], before=older)

    @routes.get(OF_MODEL, dependencies=[READER])
    def list_incidents_of_model(
        model: ModelId, status: Status | None = None, only_open: OnlyOpen = False, before: Before = None, limit: Limit = 100
    ) -> schemas.IncidentsOut:
        return listed(model, status, only_open, before, limit)

    @routes.get(OF_ALL, dependencies=[READER])
    def list_incidents(
        status: Status | None = None, only_open: OnlyOpen = False, before: Before = None, limit: Limit = 100
    ) -> schemas.IncidentsOut:
        return listed(None, status, only_open, before, limit)


def _reading(routes: APIRouter, world: World) -> None:
    @routes.get("/{id}")
    def show_incident(incident_id: IncidentId, who: Reader) -> schemas.IncidentDetail:
        """The whole incident: what was reported, found, planned, decided and done."""
        with world.transaction() as conn:
            return schemas.detail(conn, world.policy, incidents.get(conn, incident_id), now=world.now(), who=who)

    @routes.get("/{id}/timeline", dependencies=[READER])
    def show_timeline(incident_id: IncidentId, after: After = 0, before: EntriesBefore = None, limit: Limit = 1000) -> schemas.TimelineOut:
        """A page of it, oldest first: from the beginning, going on at `after`; or the newest below `before`."""
        with world.transaction() as conn:
            incidents.get(conn, incident_id)
            if before is not None:
                found = timeline.last(conn, incident_id, before=before, limit=limit)
            else:
                found = timeline.read(conn, incident_id, after=after, limit=limit)
        newer = found[-1].seq if len(found) == limit and before is None else None
        older = found[0].seq if before is not None and found and found[0].seq > 1 else None
        return schemas.TimelineOut(entries=[schemas.EntryOut.of(e) for e in found], after=newer, before=older)

    @routes.get(
        "/{id}/evidence/{name:path}",
        dependencies=[Depends(require(Scope.READ, basic=True))],  # a browser asks for the token as a password
        response_class=Response,
        responses={200: {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}},
    )
    def show_evidence(incident_id: IncidentId, name: Annotated[str, Path()]) -> Response:
        """One piece of the evidence as it was preserved; what there is stands in `evidence` of the incident."""
        with world.transaction() as conn:
            incidents.get(conn, incident_id)
            kept = evidence.content(conn, incident_id, name)
        if kept is None:
            raise NotFound(f"{incident_id} has no evidence {name[:100]}; see {OF_ALL}/{incident_id}")
        return Response(kept[0], media_type=kept[1], headers=EVIDENCE_HEADERS)


def _operating(routes: APIRouter, world: World) -> None:
    @routes.post("/{id}/acknowledge")
    def acknowledge_incident(incident_id: IncidentId, who: Operator) -> schemas.IncidentOut:
        """Say that you have it. Ends the paging of your role, not the escalation to the others."""
        out: schemas.IncidentOut = schemas.IncidentOut.of(operations.acknowledge(world, incident_id, who))
        return out

    @routes.post("/{id}/approvals", status_code=201)
    def decide_about_plan(incident_id: IncidentId, body: schemas.ApprovalIn, who: Approver) -> schemas.DecisionOut:
        """Approve or reject exactly the plan of this digest."""
        said = operations.Verdict(body.decision, body.plan_digest, body.reason, body.door)
        made = operations.decide(world, incident_id, who, said)
        out: schemas.DecisionOut = schemas.DecisionOut.of(made.approval, plan_approved=made.plan_approved, why=made.why)
        return out

    @routes.post("/{id}/resolve", status_code=202)
    def resolve_incident(incident_id: IncidentId, body: schemas.ResolutionIn, who: Operator) -> schemas.IncidentOut:
        """Say that a human fixed it: the run goes on and measures the recovery. The newest word stands."""
        incident = operations.resolve(world, incident_id, who, what=body.what, root_cause=body.root_cause)
        out: schemas.IncidentOut = schemas.IncidentOut.of(incident)
        return out

    @routes.post("/{id}/close")
    def close_incident(incident_id: IncidentId, who: Operator, body: schemas.ClosingIn | None = None) -> schemas.IncidentOut:
        """Close a resolved incident; with a reason also one of low severity, one that nothing measures, or one reported anew after its fix.

        With `falseAlarm` it ends as a false alarm.
        """
        said = Closing(body.reason, body.false_alarm, body.keep_containment) if body else Closing()
        out: schemas.IncidentOut = schemas.IncidentOut.of(operations.close(world, incident_id, who, said))
        return out


def _clocks(routes: APIRouter, world: World) -> None:
    """Also of an incident that is over: the law does not ask."""

    @routes.post("/{id}/clocks/{clock}")
    def state_case(incident_id: IncidentId, clock: ClockName, body: schemas.CaseIn, who: Operator) -> schemas.ClockOut:
        """Say what the incident is to that law; the deadline follows. Starts a clock that does not run."""
        now = world.now()
        with world.transaction() as conn:
            said = Statement(body.case, named(who), body.aware_at)
            made = regulatory_clocks.state_case(conn, world.policy, incident_id, clock, said, now=now)
        return schemas.ClockOut.of(made, now)

    @routes.post("/{id}/clocks/{clock}/notification")
    def record_notification(incident_id: IncidentId, clock: ClockName, body: schemas.NotificationIn, who: Operator) -> schemas.ClockOut:
        """Record that the authority was notified, or why nobody need be: reminders end."""
        now = world.now()
        with world.transaction() as conn:
            said = Notification(named(who), body.reference, body.not_required, body.at)
            made = regulatory_clocks.end(conn, incident_id, clock, said, now=now)
        return schemas.ClockOut.of(made, now)
