"""Incidents over HTTP: report, read, acknowledge, decide, resolve, close. Everything that changes something is a POST."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Response
from sqlalchemy import Connection

from mlrunbook.base import web
from mlrunbook.base.tokens import Identity, Scope
from mlrunbook.base.web import require
from mlrunbook.domain.action_state import BEGUN, SETTLED
from mlrunbook.domain.approval import Decision
from mlrunbook.domain.communication import messages
from mlrunbook.domain.communication.durations import review_due
from mlrunbook.domain.communication.regulatory import Notification, Statement
from mlrunbook.domain.detection.reports import Report
from mlrunbook.domain.detection.triage import Triage
from mlrunbook.domain.errors import Invalid, NotFound, Refused
from mlrunbook.domain.incident import TRANSITIONS, ClockName, Incident, IncidentType, Severity, Status
from mlrunbook.domain.policy.intake import MODEL_ID
from mlrunbook.domain.records import Record
from mlrunbook.domain.resolution.fix import HumanResolution
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
    still_open,
)
from mlrunbook.response import known_people
from mlrunbook.response.communication import regulatory_clocks, reports
from mlrunbook.response.communication.escalation import acknowledge
from mlrunbook.response.communication.notifications import send_message, stop
from mlrunbook.response.containment import emergency
from mlrunbook.response.execution import approvals
from mlrunbook.response.known_models import refusal
from mlrunbook.response.lifecycle import unknown_models
from mlrunbook.response.lifecycle.opening import take_in
from mlrunbook.response.plan_state import valid_approval
from mlrunbook.response.review.closing import draft, left_in_force, unexplained
from mlrunbook.response.world import World
from mlrunbook.store import baseline_pins, evidence, incidents, journal, leases, outbox, plans, records, timeline
from mlrunbook.store.journal import isolations

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

# States of a journaled action of which nobody can say yet what it did.


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
        standing = world.known_models.of(world.policy, [model], fresh=True, may_see=who.may_see)[model]
        if standing.is_unknown and not (unknown_model or body.unknown_model):
            raise NotFound(refusal(model, standing.hint))
        with world.transaction() as conn:
            by = known_people.checked(conn, world.policy, body.reported_by, "reportedBy") if body.reported_by else who.name
        report = Report(
            model=model,
            type=body.type,
            family=world.policy.family_of(body.type),
            severity=body.severity,
            description=body.description,
            impact=body.impact,
            reported_by=by,
            subtype=body.subtype,
            proven_as=who.proven_as("report"),
        )
        with world.transaction() as conn:
            incident, is_new = take_in(conn, world.policy, report, now=world.now(), standing=standing)
            why = unknown_models.sentence(conn, incident)
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
        with world.transaction() as conn:
            still_open(conn, incident_id)
            incident = acknowledge(conn, incident_id, by=who.name, role=who.role, now=world.now())
        out: schemas.IncidentOut = schemas.IncidentOut.of(incident)
        return out

    @routes.post("/{id}/approvals", status_code=201)
    def decide_about_plan(incident_id: IncidentId, body: schemas.ApprovalIn, who: Approver) -> schemas.DecisionOut:
        """Approve or reject exactly the plan of this digest."""
        policy, now = world.policy, world.now()
        with world.transaction() as conn:
            still_open(conn, incident_id)
            digest = _digest(conn, incident_id, body.plan_digest)
            plan = plans.get(conn, incident_id, digest)
            said = Decision(body.decision, who.name, who.role, body.door, reason=body.reason, person=who.person)
            made = approvals.decide(conn, policy, incident_id, digest, said, now=now)
            standing, why = valid_approval(conn, policy, plan, now=now)
        out: schemas.DecisionOut = schemas.DecisionOut.of(made, plan_approved=standing is not None, why=why)
        return out

    @routes.post("/{id}/resolve", status_code=202)
    def resolve_incident(incident_id: IncidentId, body: schemas.ResolutionIn, who: Operator) -> schemas.IncidentOut:
        """Say that a human fixed it: the run goes on and measures the recovery. The newest word stands."""
        now = world.now()
        said = HumanResolution(by=who.name, what=body.what, at=now, root_cause=body.root_cause or None, counted=world.elapsed())
        with world.transaction() as conn:
            incident = still_open(conn, incident_id)
            unknown_models.refuse(conn, incident)
            if incident.status is Status.RESOLVED:
                raise Refused(f"{incident_id} is resolved already; close it with `mlrunbook incidents close {incident_id}`")
            before = records.recall(conn, incident_id, HumanResolution)
            if before is None or said.said != before.said or reports.unanswered(conn, incident_id):  # the same words again are an answer
                records.forget(conn, incident_id, Record.HUMAN_RESOLUTION)
                records.keep(conn, incident_id, said, now=now)
                timeline.append(
                    conn, incident_id, "human_resolution", f"Fixed by {who.name}: {body.what}", actor=who.name, at=now, data=said.said
                )
            times = len(timeline.of_kind(conn, incident_id, "human_resolution"))
            leases.wake(conn, incident_id, why=f"{who.name} says it is fixed", key=f"human-{times}", now=now)
        out: schemas.IncidentOut = schemas.IncidentOut.of(incident)
        return out

    @routes.post("/{id}/close")
    def close_incident(incident_id: IncidentId, who: Operator, body: schemas.ClosingIn | None = None) -> schemas.IncidentOut:
        """Close a resolved incident; with a reason also one of low severity, one that nothing measures, or one reported anew after its fix.

        With `falseAlarm` it ends as a false alarm.
        """
        with world.transaction() as conn:
            incident = incidents.get(conn, incident_id, lock=True)
            if incident.status.is_open:
                incident = _close(conn, world, incident, who, body or schemas.ClosingIn())
        out: schemas.IncidentOut = schemas.IncidentOut.of(incident)
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


def _digest(conn: Connection, incident_id: str, prefix: str) -> str:
    found = plans.digests(conn, incident_id, prefix)
    if not found:
        raise NotFound(f"{incident_id} has no plan {prefix[:12]}; see `mlrunbook incidents show {incident_id}`")
    if len(found) > 1:
        raise Invalid(f"{len(found)} plans begin with {prefix}: give more of the digest", field="planDigest")
    return found[0]


def _close(conn: Connection, world: World, incident: Incident, who: Identity, body: schemas.ClosingIn) -> Incident:
    by, now, reason = who.name, world.now(), body.reason
    handed_over = _keep_isolated(conn, world, incident, who, reason)
    if body.keep_containment:
        handed_over |= _keep_contained(conn, world, incident, who, reason)
    if body.false_alarm:
        _may_be_false(incident, reason)
    elif incident.status is not Status.RESOLVED and not handed_over:
        measured = incident.severity is not Severity.LOW and _is_measured(conn, incident.id)
        if measured and not reports.unanswered(conn, incident.id):  # else the recovery check waits for a person's word
            words = f"{incident.id} is {incident.status} and its model is measured: the recovery check closes it"
            raise Refused(f"{words}. {reports.how_to_end(incident.id)}")
        if not reason:
            raise Invalid(f"{incident.id} is {incident.status}: closing it needs a reason", field="reason")
    if underway := emergency.underway(conn, world.policy, incident, now=now):
        raise Refused(
            f"{incident.id} cannot close: ordered and not in force yet: {'; '.join(underway)}. Wait for it, or withdraw it: "
            f"`mlrunbook incidents contain {incident.id} --take-back`"
        )
    if open_ends := unexplained(conn, incident.id):
        raise Refused(
            f"{incident.id} cannot close: {', '.join(open_ends)} is neither taken back nor kept with a reason: "
            f"`mlrunbook incidents contain {incident.id} --take-back`, or close with --keep-containment"
        )
    if unsettled := [row.summary for row in journal.of_incident(conn, incident.id) if _is_open_end(row)]:
        raise Refused(f"{incident.id} cannot close: it is not known yet whether this happened: {', '.join(unsettled)}")
    what = "called a false alarm" if body.false_alarm else "closed"
    why = f"{what} by {by}" + (f": {reason}" if reason else "")
    closed = _ended(conn, world, incident, why, by, is_false=body.false_alarm)
    stop(conn, incident.id, now=now)
    outbox.cancel(conn, now=now, incident_id=incident.id, kinds=("start_run", "resume_run"))
    leases.release(conn, leases.get(conn, incident.id, lock=True), "done", now=now)
    words = "FALSE ALARM" if body.false_alarm else "CLOSED"
    message = messages.Rendered(f"[{words}] {messages.model_name(incident.model)}", f"{incident.id}: {why}")
    send_message(conn, closed, "incidents", "#ml-incidents", message, key="closed", now=now)
    if not body.false_alarm:
        draft(conn, world.policy, incident.id, now=now)
    return closed


def _is_open_end(row: journal.Row) -> bool:
    """Nobody knows whether it happened, and nobody has taken it back or said why that may be so."""
    is_open = row.state in BEGUN - SETTLED and row.may_have_happened
    return is_open and row.undone_by is None and row.kept_because is None


def _may_be_false(incident: Incident, reason: str) -> None:
    if not reason:
        raise Invalid("a false alarm needs a reason: what was looked at, and why nothing is wrong", field="reason")
    if Status.FALSE_ALARM not in TRANSITIONS[incident.status]:
        words = f"{incident.id} is {incident.status}: a fix has begun, so it was no false alarm"
        raise Refused(f"{words}; close it with a reason instead: `mlrunbook incidents close {incident.id} --reason '...'`")


ABOUT_PREDICTIONS = (IncidentType.PREDICTION_ERROR, IncidentType.PERFORMANCE_DEGRADATION, IncidentType.BIAS_FAIRNESS)


def _ended(conn: Connection, world: World, incident: Incident, why: str, by: str, *, is_false: bool) -> Incident:
    now = world.now()
    if is_false:
        if incident.type in ABOUT_PREDICTIONS:  # how the model does is in order, people say: it is what later looks compare with
            baseline_pins.forget(conn, incident.model)
        return incidents.set_status(conn, incident.id, Status.FALSE_ALARM, why=why, actor=by, now=now)
    resolved = incidents.set_status(conn, incident.id, Status.RESOLVED, why=why, actor=by, now=now)
    if resolved.review_due_at is None:
        incidents.set_review_due(conn, incident.id, review_due(resolved.resolved_at or now, world.policy))
    return incidents.set_status(conn, incident.id, Status.CLOSED, why=why, actor=by, now=now)


def _keep_isolated(conn: Connection, world: World, incident: Incident, who: Identity, reason: str) -> bool:
    """A breach handed over: who may lift the isolation may also close and leave it in force, for a reason that is kept with it."""
    rows = [row for row in isolations(conn, incident.id) if row.kept_because is None]
    if not rows:
        return False
    roles = world.policy.approvals.isolation.roles
    if who.role not in roles:
        may = " or ".join(sorted(roles))
        raise Refused(f"{incident.id} cannot close: {incident.model} is isolated; {may} may close it with a reason and leave it so")
    if not reason:
        raise Invalid(f"{incident.model} stays isolated: closing {incident.id} needs a reason", field="reason")
    for row in rows:
        journal.set_kept(conn, row.id, f"handed over by {who.name}: {reason}")
    return True


def _keep_contained(conn: Connection, world: World, incident: Incident, who: Identity, reason: str) -> bool:
    """Who may order containment may close and leave in force what is: a model that is given up stays stopped."""
    rows = [row for row in left_in_force(conn, incident.id) if row.settled]
    if not rows:
        return False
    roles = world.policy.approvals.emergency.roles
    if who.role not in roles:
        may = " or ".join(role.words for role in roles)
        create = f'mlrunbook token create "Your Name" --scope operate --scope read --role {roles[0]}'
        raise Refused(f"only {may} may close {incident.id} and keep its containment; your token has no such role: `{create}`")
    if not reason:
        raise Invalid(f"containment stays in force: closing {incident.id} needs a reason", field="reason")
    for row in rows:
        journal.set_kept(conn, row.id, f"kept by {who.name}: {reason}")
    return True


def _is_measured(conn: Connection, incident_id: str) -> bool:
    triage = records.recall(conn, incident_id, Triage)
    return triage is not None and triage.figures.f1_now is not None
