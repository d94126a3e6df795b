"""A failure that comes back: a closed incident that an alert opens again, and automation that stops while incidents flap.

An alert is no measurement. It opens the incident again for triage, which either finds it real, and then what was found and done before is
put aside, or closes it as it was.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TypeVar

from sqlalchemy import Connection

from mlrunbook.domain.detection.flapping import AutomationResumed, Flapping, judge_flapping, quiet_at
from mlrunbook.domain.errors import Refused
from mlrunbook.domain.incident import Incident
from mlrunbook.domain.policy.policy import Policy
from mlrunbook.domain.records import Record, Recorded
from mlrunbook.domain.resolution.fix import Applied, HumanResolution
from mlrunbook.domain.roles import Role
from mlrunbook.response.communication.escalation import DISPATCHER, is_unresolved
from mlrunbook.response.communication.notifications import Page, request_action
from mlrunbook.store import incidents, leases, outbox, records, timeline

TIMER = outbox.FLAPPING
R = TypeVar("R", bound=Recorded)


# --- flapping


def counts(policy: Policy, proven_as: str) -> bool:
    """Whether an opening counts on this sender's word: false alarms of anybody else must not stop automation."""
    return policy.intake.trusted_for.trusts("containment", proven_as)


def note_opening(conn: Connection, policy: Policy, incident: Incident, *, now: datetime) -> None:
    """It was opened, or what opened it was proven: perhaps once too often. The page goes out once; what opens meanwhile moves the end."""
    back = now - timedelta(minutes=policy.recurrence.flapping_within_min)
    told = _of_family(conn, incident, Flapping)
    since = max([back, *(said.at for said in _of_family(conn, incident, AutomationResumed))])
    openings = incidents.openings(conn, incident.model, incident.family, since=since)
    flaps, why = judge_flapping(openings, now, policy.recurrence)
    if not flaps:
        return
    quiet = quiet_at(openings[-1], policy.recurrence)
    records.replace(conn, incident.id, Flapping(now, why, quiet), now=now)
    text = f"Flapping: {why}. Automatic containment and automatic closing wait for a person"
    timeline.append(conn, incident.id, "flapping", text, actor=DISPATCHER, at=now)
    key = f"automation-back:{incident.id}:{quiet.isoformat()}"
    outbox.put(conn, TIMER, key, {"quiet_at": quiet.isoformat()}, now=now, incident_id=incident.id, at=quiet)
    if not any(earlier.at > since for earlier in told):
        todo = f"Look, then: mlrunbook incidents resume-automation {incident.id}"
        for role in (Role.ONCALL_ML_ENGINEER, Role.ML_TEAM_LEAD):
            request_action(conn, policy, incident, Page(role, text, f"flapping:{role}:{now.isoformat()}", todo), now=now)


def automation_held(conn: Connection, incident_id: str, *, now: datetime) -> str | None:
    """Why nothing happens by itself on this incident; None where it does."""
    flapping = records.recall(conn, incident_id, Flapping)
    if flapping is None or flapping.quiet_at <= now:
        return None
    resumed = records.recall(conn, incident_id, AutomationResumed)
    if resumed and resumed.at >= flapping.at:
        return None
    return f"it is flapping ({flapping.why}): a person looks, then says `mlrunbook incidents resume-automation {incident_id}`"


def resume_automation(conn: Connection, incident_id: str, *, by: str, note: str, now: datetime) -> Incident:
    """A person lets automation go on. Refused where it has not stopped."""
    incident = incidents.get(conn, incident_id, lock=True)
    if automation_held(conn, incident_id, now=now) is None:
        raise Refused(f"{incident_id}: automation has not stopped, there is nothing to let go on")
    records.replace(conn, incident_id, AutomationResumed(by, now, note), now=now)
    words = f"{by} lets automation go on" + (f": {note}" if note else "")
    timeline.append(conn, incident_id, "flapping", words, actor=by, at=now)
    _resume(conn, incident, why=words, now=now)
    return incident


def quiet(conn: Connection, _: Policy, item: outbox.Item, *, now: datetime) -> None:
    """The window is over. Where nothing opened meanwhile, automation is back."""
    incident = incidents.get(conn, str(item.incident_id), lock=True)
    flapping, ends = records.recall(conn, incident.id, Flapping), datetime.fromisoformat(item.payload["quiet_at"])
    if flapping is None or flapping.quiet_at != ends or not is_unresolved(incident) or outbox.is_delivered(conn, item.dedup_key):
        return
    words = "Nothing has opened since: automation goes on"
    timeline.append(conn, incident.id, "flapping", words, actor=DISPATCHER, at=now)
    _resume(conn, incident, why=words, now=now)


def _resume(conn: Connection, incident: Incident, *, why: str, now: datetime) -> None:
    if not any(records.recall(conn, incident.id, fix) for fix in (Applied, HumanResolution)):  # else it is over but for the closing
        records.forget(conn, incident.id, Record.CONTAINMENT, Record.CONTAINED)
    if is_unresolved(incident):
        leases.preempt(conn, incident.id, why=why, now=now)


def _of_family(conn: Connection, incident: Incident, kind: type[R]) -> list[R]:
    rows = records.of_family(conn, kind.key, model=incident.model, family=incident.family)
    return [kind.from_record(row) for row in rows]
