"""An incident on a name that neither the registry nor policy knows: paged once, nothing planned, nothing changed, no run.

It becomes a normal incident as soon as the name is known, and ends otherwise by a person, with a reason.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import Connection, text

from mlrunbook.domain.detection.lifecycle import Recognised, UnknownModel
from mlrunbook.domain.errors import Refused
from mlrunbook.domain.incident import Incident, Severity
from mlrunbook.domain.policy.changes import BREACH_TYPES
from mlrunbook.domain.policy.owned import Standing, unknown_words
from mlrunbook.domain.policy.policy import Policy
from mlrunbook.domain.records import Record
from mlrunbook.domain.roles import Role
from mlrunbook.response.communication.escalation import escalate, schedule_update
from mlrunbook.response.communication.notifications import Page, request_action
from mlrunbook.store import incidents, journal, leases, outbox, records, timeline
from mlrunbook.store.outbox import RESPONSE, UPDATE

HOUR = timedelta(hours=1)
ACTOR = "mlrunbook"


def is_unknown(conn: Connection, incident_id: str) -> bool:
    return records.recall(conn, incident_id, UnknownModel) is not None


def sentence(conn: Connection, incident: Incident) -> str | None:
    """Why nothing happens on this incident, and what to do; None where its model is known."""
    said = records.recall(conn, incident.id, UnknownModel)
    return f"{said.why} {_todo(incident)}" if said else None


def refuse(conn: Connection, incident: Incident) -> None:
    """Refused where nothing may be done on the incident but closing it."""
    if said := sentence(conn, incident):
        raise Refused(f"{incident.id}: {said}")


def limit_reached(conn: Connection, policy: Policy, model: str, family: str, *, now: datetime) -> str | None:
    """Why an alert on this unknown name opens no incident now; None where it may, or where one is open already.

    Locked to the end of the transaction: two at once must not both be the last one.
    """
    conn.execute(text("SELECT pg_advisory_xact_lock(hashtextextended('unknown models', 0))"))
    if incidents.open_of(conn, model, family):
        return None
    most = policy.intake.unknown_models_per_hour
    opened = sorted(at for at in records.times_of(conn, Record.UNKNOWN_MODEL, since=now - HOUR))
    if len(opened) < most:
        return None
    at = opened[-most] + HOUR
    return (
        f"{unknown_words(model)} Alerts on unknown models open at most {most} incidents an hour: replay it after "
        f"{at:%Y-%m-%d %H:%M} UTC, or once the model is registered or named under `models:` of the policy"
    )


def opened(conn: Connection, policy: Policy, incident: Incident, standing: Standing, *, by: str, now: datetime) -> None:
    """In the transaction that opens it: the one page, and of a breach one to the officers too."""
    why = unknown_words(incident.model, standing.hint)
    records.keep(conn, incident.id, UnknownModel(now, why, by), now=now)
    _say(conn, policy, incident, f"{why} Nothing is planned and nothing is changed", now=now)


def found(conn: Connection, policy: Policy, incident: Incident, standing: Standing, *, now: datetime) -> bool:
    """The registry did not answer when it was opened, and does now. False, and nothing happens, where something was changed on it already:
    then the model was there, and what began is seen through."""
    if is_unknown(conn, incident.id) or journal.of_incident(conn, incident.id):
        return is_unknown(conn, incident.id)
    outbox.cancel(conn, now=now, incident_id=incident.id, kinds=("page", UPDATE, RESPONSE))
    opened(conn, policy, incident, standing, by=ACTOR, now=now)
    return True


def recognise(conn: Connection, policy: Policy, incident: Incident, *, why: str, now: datetime) -> None:
    """The name is known now: a normal incident from here, its clocks counted from now. Who calls sees to its run."""
    earlier = records.recall(conn, incident.id, Recognised)
    records.forget(conn, incident.id, Record.UNKNOWN_MODEL)
    records.replace(conn, incident.id, Recognised(earlier.number + 1 if earlier else 1, now, incidents.moved_s(conn, incident.id)), now=now)
    words = f"The model {incident.model} is known now ({why}): the response begins"
    timeline.append(conn, incident.id, "reported", words, actor=ACTOR, at=now, data={"recognised": True})
    begin(conn, policy, incident, now=now)


def begin(conn: Connection, policy: Policy, incident: Incident, *, now: datetime) -> None:
    """The pages of the ladder and the updates of an incident that a run will carry.

    Critical is paged at once; otherwise triage gets a moment to recognise a false alarm, then the page goes out anyway.
    """
    grace = timedelta(0) if incident.severity is Severity.CRITICAL else timedelta(seconds=policy.triage.page_anyway_after_s)
    escalate(conn, policy, incident, now=now, hold_first_until=now + grace)
    # Where triage never comes, stakeholders still hear of it in time; triage sets the update every 30 min.
    schedule_update(conn, policy, incident, now=now, at=now + timedelta(minutes=policy.communication.initial_within_min))


def reported_again(conn: Connection, policy: Policy, incident: Incident, words: str, *, now: datetime) -> None:
    """A person reports on it: that is never only counted."""
    number = len([r for r in outbox.of_incident(conn, incident.id, "page") if ":unknown-model:" in r["dedup_key"]]) + 1
    call = Page(Role.ONCALL_ML_ENGINEER, words, f"unknown-model:{number}", _todo(incident))
    request_action(conn, policy, incident, call, now=now)


def start(conn: Connection, incident_id: str, *, why: str, now: datetime) -> None:
    """A run for an incident that had none."""
    if leases.get(conn, incident_id, lock=True).state in ("free", "done"):
        leases.request_start(conn, incident_id, why=why, now=now)


def _say(conn: Connection, policy: Policy, incident: Incident, why: str, *, now: datetime) -> None:
    timeline.append(conn, incident.id, "waiting", why[:1].upper() + why[1:], actor=ACTOR, at=now)
    officers = (Role.SECURITY_OFFICER, Role.COMPLIANCE_OFFICER) if incident.type in BREACH_TYPES else ()
    for role in (Role.ONCALL_ML_ENGINEER, *officers):
        request_action(conn, policy, incident, Page(role, why, f"unknown-model:{role}", _todo(incident)), now=now)


def _todo(incident: Incident) -> str:
    model = incident.model[:100]
    return (
        f"Register {model}, name it under `models:` of the policy, or map it in `intake.models`: the response begins with the next alert "
        f"or report. A typo, or no model at all: mlrunbook incidents close {incident.id} --reason '...', and report under the right name"
    )
