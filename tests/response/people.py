"""What people and monitoring do in the tests of the steps."""

from __future__ import annotations

from typing import Any

from mlrunbook.domain.actions import Plan, PlanKind
from mlrunbook.domain.approval import Decision
from mlrunbook.domain.detection.reports import Origin, Report
from mlrunbook.domain.incident import Incident, IncidentType, Severity, Subtype
from mlrunbook.domain.resolution.fix import HumanResolution
from mlrunbook.gateway.dispatcher import Dispatcher
from mlrunbook.response.execution.approvals import decide
from mlrunbook.response.lifecycle.opening import take_in
from mlrunbook.response.world import World
from mlrunbook.store import incidents, leases, plans, records, timeline
from tests.fakes import MODEL


def report(
    world: World,
    severity: Severity = Severity.MEDIUM,
    type: IncidentType = IncidentType.PERFORMANCE_DEGRADATION,
    *,
    by_alert: bool = True,
    description: str = "F1 fell 40 %",
    subtype: Subtype | None = None,
) -> str:
    """An alert says F1 fell; or, without `by_alert`, a person reports something."""
    reporter = "alertmanager" if by_alert else "a user"
    origin = Origin.ALERT if by_alert else Origin.PERSON
    told = Report(MODEL, type, world.policy.family_of(type), severity, description, reporter, subtype=subtype, origin=origin)
    with world.transaction() as conn:
        return take_in(conn, world.policy, told, now=world.now())[0].id


def plan(world: World, incident_id: str, kind: PlanKind = PlanKind.RESOLUTION) -> Plan | None:
    with world.transaction() as conn:
        return plans.current(conn, incident_id, kind)


def say(
    world: World, incident_id: str, decision: str, kind: PlanKind = PlanKind.RESOLUTION, *, by: str = "the lead", role: str = "ml_team_lead"
) -> None:
    with world.transaction() as conn:
        asked = plans.current(conn, incident_id, kind)
        assert asked is not None, f"there is no {kind} plan to decide about"
        decide(conn, world.policy, incident_id, asked.digest, Decision(decision, by, role, "rest"), now=world.now())


def approve(world: World, incident_id: str, kind: PlanKind = PlanKind.RESOLUTION) -> None:
    say(world, incident_id, "approved", kind)


def resolve(world: World, incident_id: str, what: str = "replaced the sensor gateway") -> None:
    """A human fixed it, as `POST .../resolve` records it."""
    now = world.now()
    with world.transaction() as conn:
        said = HumanResolution("the lead", what, now, "a broken sensor gateway", world.elapsed())
        records.replace(conn, incident_id, said, now=now)
        leases.wake(conn, incident_id, why="the lead says it is fixed", key="human-1", now=now)


def deliver(world: World) -> None:
    """The dispatcher, until nothing is due."""
    dispatcher = Dispatcher(world)
    while dispatcher.turn():
        pass
    dispatcher.stop()


def incident_of(world: World, incident_id: str) -> Incident:
    with world.transaction() as conn:
        return incidents.get(conn, incident_id)


def recorded(world: World, incident_id: str, step: str) -> dict[str, Any]:
    with world.transaction() as conn:
        return records.get(conn, incident_id, step) or {}


def told(world: World, incident_id: str, *kinds: str) -> list[str]:
    """The timeline's sentences."""
    with world.transaction() as conn:
        return [e.text for e in timeline.read(conn, incident_id) if not kinds or e.kind in kinds]
