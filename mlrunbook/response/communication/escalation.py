"""What time asks for while an incident is open: the pages of the ladder, an answer, an update every so often. All are rows of the outbox.

Each is written in the transaction that causes it and read anew when it is due, so it outlives every process, and what happened
meanwhile (an acknowledgement, the resolution) needs nobody to take it back.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import Connection

from mlrunbook.domain.communication import messages
from mlrunbook.domain.communication import updates as cadence
from mlrunbook.domain.communication.escalation import ladder, unanswered
from mlrunbook.domain.detection.lifecycle import UnknownModel
from mlrunbook.domain.detection.triage import Triage
from mlrunbook.domain.incident import Incident, Severity, Status
from mlrunbook.domain.policy.policy import Policy
from mlrunbook.domain.resolution.observation import WouldContain
from mlrunbook.domain.roles import Role
from mlrunbook.response.carried_mode import is_quiet, mode_of
from mlrunbook.response.communication.notifications import (
    TICKETS,
    Page,
    opened_at,
    page,
    respond_by,
    round_of,
    send_message,
    snapshot,
    sync_pages,
    update_notice,
)
from mlrunbook.store import incidents, leases, outbox, records, timeline
from mlrunbook.store.outbox import RESPONSE, UPDATE

DISPATCHER = "dispatcher"
ACTOR = "mlrunbook"


def escalate(
    conn: Connection,
    policy: Policy,
    incident: Incident,
    *,
    now: datetime,
    hold_first_until: datetime | None = None,
    anew: str | None = None,
) -> None:
    """Put the runbook's escalation ladder and the response deadline, or set them anew after the severity changed; what went out stays out.

    With `hold_first_until`, what would be paged at once waits until then: triage gets a moment to tell a false alarm, and if
    triage never comes (Prefect is down) the dispatcher pages by itself. `anew` says why the severity rose: who is paged at once hears of
    it, also where the role was paged or has acknowledged before.
    """
    if records.recall(conn, incident.id, UnknownModel) or is_quiet(conn, policy, incident):  # paged once, and not by a ladder
        return
    policy = policy.for_model(incident.model)
    begun = opened_at(conn, incident)
    rungs, doubt = [] if is_ticket(conn, incident) else ladder(incident.severity, begun, policy), _not_proven(conn, incident)
    for role in {Role(r) for r in Role} - {rung.role for rung in rungs}:
        outbox.cancel(conn, now=now, incident_id=incident.id, key_prefix=f"page:{incident.id}:{role}:")
    for rung in rungs:
        at = max(rung.at, hold_first_until) if hold_first_until else rung.at
        key, reason = str(rung.role), rung.reason + doubt
        if anew and rung.at <= now:
            reason = anew
            if not _waits(conn, incident, rung.role):
                key = f"{rung.role}:{incident.severity}:{now.isoformat()}"
        page(conn, policy, incident, Page(rung.role, reason, key, at=at), now=now)
    _expect_answer(conn, policy, incident, now=now)


def taken_up(conn: Connection, policy: Policy, incident: Incident, *, by: str, now: datetime) -> None:
    """A person asks for something in an incident that was only observed so far: people are paged, and its run goes on with it. Does nothing
    where it stays observed."""
    if is_quiet(conn, policy, incident):
        return
    said = f"{incident.model} is in mode observe; {by} has taken this incident up, so it is handled as in mode act from here on"
    _handled_from_now_on(conn, policy, incident, said, by=by, now=now)
    leases.wake(conn, incident.id, why=f"taken up by {by}", key=f"taken-up-{now.isoformat()}", now=now)


def no_longer_observed(conn: Connection, policy: Policy, incident: Incident, *, now: datetime) -> bool:
    """The mode of its model was changed while an incident was observed: from here on people are paged about it. Once; True then."""
    if not _was_observed(conn, incident) or timeline.of_kind(conn, incident.id, "mode", after=timeline.began(conn, incident.id)):
        return False
    if not is_unresolved(incident) or is_quiet(conn, policy, incident):
        return False
    mode = mode_of(conn, policy, incident.id, incident.model)
    said = f"{incident.model} is in mode {mode} now: what was only observed is handled from here on"
    _handled_from_now_on(conn, policy, incident, said, by=ACTOR, now=now)
    return True


def _was_observed(conn: Connection, incident: Incident) -> bool:
    """What would be done is on record; or triage has graded it, and nobody was to be paged."""
    if records.recall_if_readable(conn, incident.id, WouldContain):
        return True
    graded = records.recall_if_readable(conn, incident.id, Triage)
    return graded is not None and not any(outbox.of_incident(conn, incident.id, kind) for kind in ("page", RESPONSE))


def _handled_from_now_on(conn: Connection, policy: Policy, incident: Incident, said: str, *, by: str, now: datetime) -> None:
    timeline.append(conn, incident.id, "mode", said, actor=by, at=now)
    escalate(conn, policy, incident, now=now)
    schedule_update(conn, policy, incident, now=now, at=now + timedelta(minutes=policy.communication.update_every_min))


def is_ticket(conn: Connection, incident: Incident) -> bool:
    """A ticket, no page: a low incident, or one below high that outcomes have not proven yet."""
    if incident.severity is Severity.LOW:
        return True
    found = records.recall_if_readable(conn, incident.id, Triage)
    return found is not None and found.assessment.is_ticket and not incident.severity.at_least(Severity.HIGH)


def _not_proven(conn: Connection, incident: Incident) -> str:
    found = records.recall_if_readable(conn, incident.id, Triage)
    if found is None or not found.assessment.unproven:
        return ""
    until = found.assessment.undecided_until
    return f"; it is not proven yet{f', undecided until about {until:%d %b %Y %H:%M} UTC' if until else ''}"


def _waits(conn: Connection, incident: Incident, role: Role) -> bool:
    """The role's page of the ladder has not gone out."""
    base = f"page:{incident.id}:{role}{round_of(conn, incident.id)}"
    rows = [r for r in outbox.of_incident(conn, incident.id, "page") if r["dedup_key"].rpartition(":")[0] == base]
    return not rows or any(r["delivered_at"] is None and r["cancelled_at"] is None for r in rows)


# --- an answer


def acknowledge(conn: Connection, incident_id: str, *, by: str, role: str | None, now: datetime, key: str = "") -> Incident:
    """Somebody has it: the paging of that role and the response deadline end, the ladder to the others goes on."""
    incident = incidents.acknowledge(conn, incident_id, by=by, role=role, now=now, key=key)
    outbox.cancel(conn, now=now, incident_id=incident_id, kinds=(RESPONSE,))
    if role:
        outbox.cancel(conn, now=now, incident_id=incident_id, kinds=("page",), key_prefix=f"page:{incident_id}:{role}:")
    sync_pages(conn, incident_id, "acknowledge", now=now)
    return incident


def is_answered(conn: Connection, incident: Incident) -> bool:
    """Somebody has acknowledged it since it was opened, or opened again."""
    if incident.acknowledged_at is None:
        return False
    return bool(timeline.of_kind(conn, incident.id, "acknowledged", after=timeline.began(conn, incident.id)))


def _expect_answer(conn: Connection, policy: Policy, incident: Incident, *, now: datetime) -> None:
    if is_answered(conn, incident):
        return
    at = respond_by(conn, policy, incident)
    rows = outbox.of_incident(conn, incident.id, RESPONSE)
    if waiting := next((r for r in rows if r["delivered_at"] is None and r["cancelled_at"] is None), None):
        outbox.reschedule(conn, waiting["dedup_key"], at, {"deadline": at.isoformat()}, now=now)
    elif all(r["payload"]["deadline"] != at.isoformat() for r in rows):  # else nobody answered by then already, and it was said
        key = f"response:{incident.id}:{len(rows) + 1}"
        outbox.put(conn, RESPONSE, key, {"deadline": at.isoformat()}, now=now, incident_id=incident.id, at=at)


def acknowledgement_overdue(conn: Connection, policy: Policy, item: outbox.Item, *, now: datetime) -> None:
    """The response time is over. Without an acknowledgement the next role is asked; of a low incident by a ticket."""
    incident = incidents.get(conn, str(item.incident_id), lock=True)
    if not is_unresolved(incident) or is_answered(conn, incident) or outbox.is_delivered(conn, item.dedup_key):
        return
    ask_next_role(conn, policy, incident, datetime.fromisoformat(item.payload["deadline"]), now=now)


def is_asked(conn: Connection, incident: Incident, deadline: datetime) -> bool:
    """What follows from this deadline has happened."""
    rows = outbox.of_incident(conn, incident.id, RESPONSE)
    if any(r["payload"]["deadline"] == deadline.isoformat() and r["delivered_at"] is not None for r in rows):
        return True
    return any(e.data.get("deadline") == deadline.isoformat() for e in timeline.of_kind(conn, incident.id, "response"))


def ask_next_role(conn: Connection, policy: Policy, incident: Incident, deadline: datetime, *, now: datetime) -> None:
    policy = policy.for_model(incident.model)
    rung = unanswered(incident.severity, opened_at(conn, incident), deadline, policy)
    said = rung.reason[:1].upper() + rung.reason[1:]
    timeline.append(
        conn, incident.id, "response", said, actor=DISPATCHER, at=now, data={"role": rung.role, "deadline": deadline.isoformat()}
    )
    if is_ticket(conn, incident):
        text = messages.page(snapshot(conn, policy, incident, now=now), rung.role, rung.reason)
        send_message(conn, policy, incident, TICKETS, text, key="response", now=now)
        return
    # A rung that falls due at the same moment is the same page.
    same = {r.role for r in ladder(incident.severity, opened_at(conn, incident), policy) if r.at == rung.at}
    key = str(rung.role) if rung.role in same else f"{rung.role}:unanswered:{rung.at.isoformat()}"
    page(conn, policy, incident, Page(rung.role, rung.reason, key), now=now)


# --- updates


def schedule_update(conn: Connection, policy: Policy, incident: Incident, *, now: datetime, at: datetime) -> None:
    """The next update to stakeholders; one that waits already is moved. Tickets have none."""
    if is_ticket(conn, incident) or records.recall(conn, incident.id, UnknownModel) or is_quiet(conn, policy, incident):
        return
    rows = outbox.of_incident(conn, incident.id, UPDATE)
    if waiting := next((r for r in rows if r["delivered_at"] is None and r["cancelled_at"] is None), None):
        outbox.reschedule(conn, waiting["dedup_key"], at, now=now)
        return
    number = len(rows) + 1
    outbox.put(conn, UPDATE, f"update:{incident.id}:{number}", {"number": number}, now=now, incident_id=incident.id, at=at)


def send_update(conn: Connection, policy: Policy, item: outbox.Item, *, now: datetime) -> None:
    """Written from the store at this moment; the next one follows from now, so that what was missed is said once."""
    incident = incidents.get(conn, str(item.incident_id), lock=True)
    if outbox.is_delivered(conn, item.dedup_key):
        return
    outbox.delivered(conn, item, now=now)
    if is_unresolved(incident) and not is_ticket(conn, incident):
        update_notice(conn, policy, incident, number=int(item.payload["number"]), now=now)
        schedule_update(conn, policy, incident, now=now, at=now + timedelta(minutes=policy.communication.update_every_min))


def updates(conn: Connection, incident_id: str, until: datetime) -> list[cadence.Update]:
    """Every update that fell due before `until`, and when the first channel had it."""
    sent = {r["dedup_key"]: r["delivered_at"] for r in outbox.of_incident(conn, incident_id, "message")}
    found = []
    for row in outbox.of_incident(conn, incident_id, UPDATE):
        if row["not_before"] > until or (row["cancelled_at"] is not None and row["cancelled_at"] < row["not_before"]):
            continue
        number = int(row["payload"]["number"])
        prefix = f"message:{incident_id}:update-{number}:"
        reached = [at for key, at in sent.items() if key.startswith(prefix) and at is not None]
        found.append(cadence.Update(number, row["not_before"], min(reached, default=None)))
    return found


def is_unresolved(incident: Incident) -> bool:
    return incident.status.is_open and incident.status is not Status.RESOLVED
