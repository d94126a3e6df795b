"""What the store knows of incidents like this one."""

from __future__ import annotations

from dataclasses import replace

from sqlalchemy import Connection

from mlrunbook.domain.action_state import SETTLED
from mlrunbook.domain.actions import PlanKind
from mlrunbook.domain.communication.durations import times
from mlrunbook.domain.detection.flapping import Reopened
from mlrunbook.domain.incident import Incident, Status
from mlrunbook.domain.investigation.diagnosis import Diagnosed
from mlrunbook.domain.investigation.similar_incidents import Case, find_similar
from mlrunbook.domain.resolution.fix import HumanResolution
from mlrunbook.response.run import Run
from mlrunbook.store import incidents, journal, plans, records

LOOKED_THROUGH = 500  # the newest closed ones
FIXES = (PlanKind.MITIGATION, PlanKind.RESOLUTION)


def of(conn: Connection, incident: Incident) -> list[Case]:
    """At most three, the most telling first; nothing where nothing resembles it."""
    past = [i for i in incidents.find(conn, status=Status.CLOSED, limit=LOOKED_THROUGH) if i.id != incident.id]
    causes = {id_: found.cause for id_, found in records.of_incidents(conn, Diagnosed, [incident.id, *(i.id for i in past)]).items()}
    cases = [Case(i.id, i.model, i.type, i.severity, causes.get(i.id), i.detected_at, times(i).to_resolve) for i in past]
    return [
        replace(case, fixed_by=_fixes(conn, case.incident_id), came_back=records.get(conn, case.incident_id, Reopened.key) is not None)
        for case in find_similar(incident.model, incident.type, causes.get(incident.id), cases)
    ]


def of_run(run: Run) -> list[Case]:
    with run.world.transaction() as conn:
        return of(conn, incidents.get(conn, run.incident_id))


def _fixes(conn: Connection, incident_id: str) -> tuple[str, ...]:
    """What was changed for good, and what a person did; containment that was taken back fixed nothing."""
    done = []
    for row in journal.of_incident(conn, incident_id):
        plan = plans.get(conn, incident_id, row.plan_digest)
        if row.state in SETTLED and row.undone_by is None and plan.kind in FIXES:
            done.append(plan.actions[row.ordinal].past)
    by_hand = records.recall(conn, incident_id, HumanResolution)
    return (*done, f"by hand: {by_hand.what}") if by_hand else tuple(done)
