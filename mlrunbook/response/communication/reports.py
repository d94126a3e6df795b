"""What people have reported on an incident, in their own words. What a person reports ends only by a person.

Reports and decisions stand on the timeline in the order in which they were made; that order says whether a report is answered.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection

from mlrunbook.domain.actions import PlanKind
from mlrunbook.domain.approval import POLICY_RULE
from mlrunbook.domain.detection.reports import PersonsReport, Report
from mlrunbook.domain.incident import Incident, Status
from mlrunbook.domain.records import Record
from mlrunbook.domain.resolution.fix import Applied, HumanResolution
from mlrunbook.store import incidents, plans, records, timeline

ACTOR = "mlrunbook"
BY_PERSON = "by_person"  # what marks its entry on the timeline


def note(conn: Connection, incident_id: str, report: Report, *, now: datetime) -> int:
    """Keep a person's words; returns the number of the report."""
    number = len(records.of_kind(conn, incident_id, PersonsReport)) + 1
    said = PersonsReport(report.reported_by, report.description, report.severity, report.type, now, report.proven_as)
    records.keep(conn, incident_id, said, number, now=now)
    return number


def of_incident(conn: Connection, incident_id: str) -> list[PersonsReport]:
    """Every report of a person, oldest first."""
    kept = records.of_kind(conn, incident_id, PersonsReport)
    return [kept[number] for number in sorted(kept, key=int)]


def words(conn: Connection, incident_id: str) -> tuple[str, ...]:
    """What people wrote, for the head of every page and notice: the first report, and the newest where it is another."""
    told = of_incident(conn, incident_id)
    shown = dict.fromkeys(f"{one.by} reports: {one.description}" for one in (*told[:1], *told[-1:]))
    return tuple(shown)


ABOUT_THE_FIX = ("human_resolution", "approval")


def unanswered(conn: Connection, incident_id: str) -> str | None:
    """The newest report that came after the last word of a person about the fix, so that nothing closes by a measurement; None: there is
    none. The report that opened the incident is answered by whatever a person decides later."""
    entries = timeline.of_kind(conn, incident_id, "reported", *ABOUT_THE_FIX)
    reports = [e for e in entries if e.kind == "reported" and e.data.get(BY_PERSON)]
    if not reports:
        return None
    last = reports[-1]
    if any(e.seq > last.seq and _is_about_the_fix(conn, incident_id, e) for e in entries):
        return None
    fixed = records.recall(conn, incident_id, HumanResolution)
    if fixed and fixed.at > last.at:
        return None
    return f"{last.text[:1].lower()}{last.text[1:]}; a person decides how it goes on"


def _is_about_the_fix(conn: Connection, incident_id: str, entry: timeline.Entry) -> bool:
    """A person says that it is fixed, or approves the plan that shall fix it."""
    if entry.kind == "human_resolution":
        return True
    if entry.kind != "approval" or entry.data.get("decision") != "approved" or entry.data.get("door") == POLICY_RULE:
        return False
    return plans.get(conn, incident_id, str(entry.data["digest"])).kind is PlanKind.RESOLUTION


def halt_closing(conn: Connection, incident: Incident, *, why: str, now: datetime) -> bool:
    """A report while the fix is being measured: the incident goes back to people. False where it was not about to end."""
    fix = any(records.recall(conn, incident.id, fix) for fix in (Applied, HumanResolution))
    if not fix and incident.status not in (Status.MONITORING, Status.RESOLVED):
        return False
    records.forget(conn, incident.id, Record.RECOVERY)  # it is measured anew once a person has decided
    if incident.status is Status.MONITORING:
        incidents.set_status(conn, incident.id, Status.INVESTIGATING, why=why, actor=ACTOR, now=now)
    elif incident.status is Status.RESOLVED:
        incidents.reopen(conn, incident.id, why=why, actor=ACTOR, now=now)
    return True


def how_to_end(incident_id: str) -> str:
    """What a person says when the machine waits for them."""
    fixed = f"Fixed: mlrunbook incidents resolve {incident_id} --what '...'"
    return f"{fixed}. Nothing is wrong: mlrunbook incidents close {incident_id} --false-alarm --reason '...'"
