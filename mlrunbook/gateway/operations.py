"""What a person does to an incident, whichever door they came through: the API or the console.

Each is one transaction: what is not allowed, or makes no sense as things stand, raises and changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from sqlalchemy import Connection

from mlrunbook.base.tokens import Identity
from mlrunbook.domain.actions import Order, Plan
from mlrunbook.domain.approval import Decision
from mlrunbook.domain.detection.reports import Report
from mlrunbook.domain.errors import Invalid, NotFound, Refused
from mlrunbook.domain.incident import Incident, IncidentType, Severity, Status, Subtype
from mlrunbook.domain.records import Record
from mlrunbook.domain.resolution.fix import HumanResolution
from mlrunbook.domain.roles import Duty, Role
from mlrunbook.gateway import closing
from mlrunbook.gateway.api.dependencies import named, still_open
from mlrunbook.response import known_people
from mlrunbook.response.communication import escalation, handover, reports
from mlrunbook.response.containment import emergency
from mlrunbook.response.execution import approvals
from mlrunbook.response.known_models import refusal
from mlrunbook.response.lifecycle import flapping, severity_change, unknown_models
from mlrunbook.response.lifecycle.opening import take_in
from mlrunbook.response.plan_state import valid_approval
from mlrunbook.response.world import World
from mlrunbook.store import incidents, leases, plans, records, timeline
from mlrunbook.store.plans import StoredApproval

Door = Literal["rest", "cli", "console"]


@dataclass(frozen=True)
class Reported:
    """Runbook, Step 1: the incident report. `reported_by` None: whoever sends it. `unknown_model`: also of a model that nobody knows."""

    model: str
    type: IncidentType
    severity: Severity
    description: str
    impact: str = ""
    subtype: Subtype | None = None
    reported_by: str | None = None
    unknown_model: bool = False


class TakenIn(NamedTuple):
    incident: Incident
    is_new: bool
    why_nothing_happens: str | None  # nobody knows the model


@dataclass(frozen=True)
class Verdict:
    """About the plan whose SHA-256 begins with `digest`."""

    decision: Literal["approved", "rejected"]
    digest: str
    reason: str = ""
    door: Door = "rest"


class Decided(NamedTuple):
    approval: StoredApproval
    plan_approved: bool  # the plan may be carried out now
    why: str


@dataclass(frozen=True)
class Wanted:
    """Containment on the spot. `version`: what answers every request, for `route`."""

    order: Order
    reason: str
    version: str | None = None
    door: Door = "rest"


def report(world: World, who: Identity, said: Reported) -> TakenIn:
    """Open an incident, or join the one that is open for this model and failure family. NotFound for a model that nobody knows."""
    standing = world.known_models.of(world.policy, [said.model], fresh=True, may_see=who.may_see)[said.model]
    if standing.is_unknown and not said.unknown_model:
        raise NotFound(refusal(said.model, standing.hint))
    with world.transaction() as conn:
        by = known_people.checked(conn, world.policy, said.reported_by, "reportedBy") if said.reported_by else who.name
    taken = Report(
        model=said.model,
        type=said.type,
        family=world.policy.family_of(said.type),
        severity=said.severity,
        description=said.description,
        impact=said.impact,
        reported_by=by,
        subtype=said.subtype,
        proven_as=who.proven_as("report"),
    )
    with world.transaction() as conn:
        incident, is_new = take_in(conn, world.policy, taken, now=world.now(), standing=standing)
        return TakenIn(incident, is_new, unknown_models.sentence(conn, incident))


def acknowledge(world: World, incident_id: str, who: Identity) -> Incident:
    """They have it. Ends the paging of their role, not the escalation to the others."""
    with world.transaction() as conn:
        still_open(conn, incident_id)
        return escalation.acknowledge(conn, incident_id, by=who.name, role=who.role, now=world.now())


def decide(world: World, incident_id: str, who: Identity, said: Verdict) -> Decided:
    """Approve or reject exactly the plan of this digest."""
    policy, now = world.policy, world.now()
    with world.transaction() as conn:
        still_open(conn, incident_id)
        digest = _digest(conn, incident_id, said.digest)
        plan = plans.get(conn, incident_id, digest)
        decision = Decision(said.decision, who.name, who.role, said.door, reason=said.reason, person=who.person)
        made = approvals.decide(conn, policy, incident_id, digest, decision, now=now)
        standing, why = valid_approval(conn, policy, plan, now=now)
    return Decided(made, standing is not None, why)


def resolve(world: World, incident_id: str, who: Identity, *, what: str, root_cause: str = "") -> Incident:
    """A human fixed it: the run goes on and measures the recovery. The newest word stands."""
    now = world.now()
    said = HumanResolution(by=who.name, what=what, at=now, root_cause=root_cause or None, counted=world.elapsed())
    with world.transaction() as conn:
        incident = still_open(conn, incident_id)
        unknown_models.refuse(conn, incident)
        if incident.status is Status.RESOLVED:
            raise Refused(f"{incident_id} is resolved already; close it with `mlrunbook incidents close {incident_id}`")
        before = records.recall(conn, incident_id, HumanResolution)
        if before is None or said.said != before.said or reports.unanswered(conn, incident_id):  # the same words again are an answer
            records.forget(conn, incident_id, Record.HUMAN_RESOLUTION)
            records.keep(conn, incident_id, said, now=now)
            timeline.append(conn, incident_id, "human_resolution", f"Fixed by {who.name}: {what}", actor=who.name, at=now, data=said.said)
        times = len(timeline.of_kind(conn, incident_id, "human_resolution"))
        leases.wake(conn, incident_id, why=f"{who.name} says it is fixed", key=f"human-{times}", now=now)
    return incident


def close(world: World, incident_id: str, who: Identity, said: closing.Closing) -> Incident:
    """Close a resolved incident; with a reason also one of low severity, one that nothing measures, or one reported anew after its fix.
    One that is over stays as it is."""
    with world.transaction() as conn:
        incident = incidents.get(conn, incident_id, lock=True)
        return closing.close(conn, world, incident, who, said) if incident.status.is_open else incident


def set_severity(world: World, incident_id: str, who: Identity, severity: Severity, reason: str) -> Incident:
    """A higher one begins containment again and voids what was approved for less and has not begun."""
    with world.transaction() as conn:
        still_open(conn, incident_id)
        return severity_change.say(conn, world.policy, incident_id, severity_change.Said(severity, named(who), reason), now=world.now())


def order_containment(world: World, incident_id: str, who: Identity, wanted: Wanted) -> Plan:
    """Order containment on the spot, or take all of it back. The order is their approval; the next run carries it out first."""
    now = world.now()
    seen = emergency.look(world, incident_id, wanted.order, version=wanted.version)
    with world.transaction() as conn:
        incident = still_open(conn, incident_id)
        unknown_models.refuse(conn, incident)
        by = emergency.Requester(who.name, who.role, wanted.door, who.person)
        asked = emergency.Requested(wanted.order, by, wanted.reason, wanted.version)
        return emergency.request(conn, world.policy, incident, asked, now=now, state=seen)


def hand_over(world: World, incident_id: str, who: Identity, role: Role | Duty, to: str, note: str = "") -> Incident:
    """Pages to the role, and notices, name that person from now on."""
    with world.transaction() as conn:
        still_open(conn, incident_id)
        known = known_people.checked(conn, world.policy, to, "to")
        return handover.hand_over(conn, world.policy, incident_id, handover.Handing(role, known, note), by=named(who), now=world.now())


def go_on(world: World, incident_id: str, who: Identity, note: str = "") -> Incident:
    """Automation goes on after an incident that opened again and again."""
    with world.transaction() as conn:
        still_open(conn, incident_id)
        return flapping.resume_automation(conn, incident_id, by=named(who), note=note, now=world.now())


def _digest(conn: Connection, incident_id: str, prefix: str) -> str:
    found = plans.digests(conn, incident_id, prefix)
    if not found:
        raise NotFound(f"{incident_id} has no plan {prefix[:12]}; see `mlrunbook incidents show {incident_id}`")
    if len(found) > 1:
        raise Invalid(f"{len(found)} plans begin with {prefix}: give more of the digest", field="planDigest")
    return found[0]
