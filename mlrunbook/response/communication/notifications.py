"""Messages put into the outbox: who is told what, from the store's state. The dispatcher delivers them.

A page's text is written when it goes out, not when it is planned: a page two hours later must not tell an old story.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from statistics import median_high
from typing import Any, Literal, NamedTuple

from sqlalchemy import Connection

from mlrunbook.domain.action_state import SETTLED
from mlrunbook.domain.actions import PlanKind, Promote, Stage
from mlrunbook.domain.communication import console_links, messages
from mlrunbook.domain.communication.durations import in_words, response_deadline, times
from mlrunbook.domain.communication.escalation import Holder
from mlrunbook.domain.communication.messages import Figures, IncidentSnapshot, Rendered
from mlrunbook.domain.detection.flapping import Reopened
from mlrunbook.domain.detection.lifecycle import Recognised
from mlrunbook.domain.detection.severity_change import SeveritySet
from mlrunbook.domain.detection.triage import Triage
from mlrunbook.domain.incident import Incident, Severity, Status
from mlrunbook.domain.investigation.diagnosis import Diagnosed
from mlrunbook.domain.policy.people import UNNAMED, Contact
from mlrunbook.domain.policy.policy import Policy, role_of
from mlrunbook.domain.roles import Assigned, Duty, Role
from mlrunbook.response.carried_mode import is_quiet
from mlrunbook.response.communication import reports
from mlrunbook.response.plan_state import state_of
from mlrunbook.store import incidents, journal, outbox, plans, records, regulatory_clocks
from mlrunbook.store.outbox import EXPIRY, ORDER_OVERDUE, RESPONSE, SETTLE, UPDATE

CONSOLE = "console"  # of a payload: a path of the console


def round_of(conn: Connection, incident_id: str) -> str:
    """Ends the keys of what is sent: a reopened incident tells people anew, and so does one whose model nobody knew before."""
    again, known = records.recall(conn, incident_id, Reopened), records.recall(conn, incident_id, Recognised)
    return (f":known-{known.number}" if known else "") + (f":reopened-{again.number}" if again else "")


def opened_at(conn: Connection, incident: Incident) -> datetime:
    """When its clocks of response began: with its detection, or the last time that it was opened again or its model became known."""
    begun = records.recall(conn, incident.id, Reopened) or records.recall(conn, incident.id, Recognised)
    at, moved_s = (begun.at, begun.moved_s) if begun else (incident.detected_at, 0.0)
    return incidents.on_this_clock(conn, incident.id, at, moved_s)


def respond_by(conn: Connection, policy: Policy, incident: Incident) -> datetime:
    """When a human must have answered, counted anew where the severity was changed on the way."""
    since = opened_at(conn, incident)
    if changed := records.recall(conn, incident.id, SeveritySet):
        since = max(since, incidents.on_this_clock(conn, incident.id, changed.at, changed.moved_s))
    return response_deadline(incident, policy, opened_at=since)


@dataclass(frozen=True)
class Page:
    """Who is called, why, and what there is to do. `key` is the page's own among those of the incident; `at` None: at once. `console`: the
    console's path for it, where that is not the incident's page."""

    role: Role
    reason: str
    key: str
    next_step: str | None = None
    at: datetime | None = None
    console: str | None = None


def _channels_to(policy: Policy, role: Role) -> tuple[str, ...]:
    """Where policy names no channel for the role: those of on-call, else the ones that carry what others do not take. Somebody is paged."""
    people, said = policy.escalation, policy.communication
    return people.of(role).channels or people.oncall_ml_engineer.channels or said.fallback_channels or (INCIDENTS.channel,)


def page(conn: Connection, policy: Policy, incident: Incident, call: Page, *, now: datetime) -> None:
    """By every channel the policy gives the role; a second page with the same key moves the first if it still waits. Nobody is paged about
    what a model in mode observe shows by itself."""
    if is_quiet(conn, policy, incident):
        return
    round_ = round_of(conn, incident.id)
    for channel in _channels_to(policy.for_model(incident.model), call.role):
        dedup = f"page:{incident.id}:{call.key}{round_}:{channel}"
        payload = {"role": str(call.role), "to": call.role.words, "reason": call.reason, "channel": channel, "next_step": call.next_step}
        payload |= _console(call.console)
        if not outbox.put(conn, "page", dedup, payload, now=now, incident_id=incident.id, at=call.at):
            outbox.reschedule(conn, dedup, call.at or now, payload, now=now)


def sync_pages(conn: Connection, incident_id: str, action: Literal["acknowledge", "resolve"], *, now: datetime) -> None:
    """A paging service that was called is told that somebody has it, or that it is over. One that may be called this moment, by a page that
    was cancelled too late, is told once that try has ended."""
    rows = outbox.of_incident(conn, incident_id, "page")
    for row in rows:
        if row["delivered_at"] is None and row["cancelled_at"] is not None and row["attempts"]:
            key = f"{SETTLE}:{incident_id}:{action}{round_of(conn, incident_id)}:row-{row['id']}"
            payload = {"channel": row["payload"]["channel"], "action": action, "page": row["id"]}
            outbox.put(conn, SETTLE, key, payload, now=now, incident_id=incident_id, at=row["claimed_until"])
    for channel in sorted({str(r["payload"]["channel"]) for r in rows if r["delivered_at"] is not None}):
        key = f"{SETTLE}:{incident_id}:{action}{round_of(conn, incident_id)}:{channel}"
        outbox.put(conn, SETTLE, key, {"channel": channel, "action": action}, now=now, incident_id=incident_id)


def settle_late(conn: Connection, incident_id: str, page_row: int, *, now: datetime) -> None:
    """A page has gone out after it was cancelled: what was then to be told to the paging service is told now, again if it was told before
    the page."""
    rows = [row for row in outbox.of_incident(conn, incident_id, SETTLE) if isinstance(row["payload"], dict)]  # one nobody can read is none
    settles = [row for row in rows if row["payload"].get("page") == page_row]
    if settles:
        last = settles[-1]
        outbox.reschedule(conn, last["dedup_key"], now, now=now)
        if last["delivered_at"] is not None:
            outbox.put(conn, SETTLE, f"{last['dedup_key']}:late", last["payload"], now=now, incident_id=incident_id)


def request_action(conn: Connection, policy: Policy, incident: Incident, call: Page, *, now: datetime) -> None:
    """A person has to act: a page, or a ticket when the severity is low (24 h to answer)."""
    if incident.severity is Severity.LOW:
        text = messages.page(snapshot(conn, policy, incident, now=now), call.role, call.reason, next_step=call.next_step)
        text = replace(text, console=call.console)
        send_message(conn, policy, incident, TICKETS, text, key=call.key, now=now)
    else:
        page(conn, policy, incident, call, now=now)


def page_text(conn: Connection, policy: Policy, payload: dict[str, Any], incident: Incident, *, now: datetime) -> Rendered:
    return messages.page(
        snapshot(conn, policy, incident, now=now), Role(payload["role"]), payload["reason"], next_step=payload.get("next_step")
    )


class To(NamedTuple):
    """A channel of the policy, and whom people call it: "the ticket queue"."""

    channel: str
    name: str


INCIDENTS, TICKETS, STAKEHOLDERS = To("incidents", "#ml-incidents"), To("tickets", "the ticket queue"), To("email", "stakeholders")


def receivers(contact: Contact, name: str) -> list[To]:
    return [To(channel, name) for channel in contact.channels]


def send_message(conn: Connection, policy: Policy, incident: Incident, to: To, message: Rendered, *, key: str, now: datetime) -> None:
    """One message by one channel, or the one that stands for it in what concerns this model. The reporter's own words lead it. None is sent
    about what a model in mode observe shows by itself."""
    if not is_quiet(conn, policy, incident):
        put_message(conn, policy, incident, to, message, key=key, now=now)


def put_message(conn: Connection, policy: Policy, incident: Incident, to: To, message: Rendered, *, key: str, now: datetime) -> None:
    channel = policy.channel_of(incident.model, to.channel)
    name = to.name if channel == to.channel else policy.channels.get(channel, to.name)
    body = messages.led_by(reports.words(conn, incident.id), message.body)
    payload = {"channel": channel, "to": name, "subject": message.subject, "body": body} | _console(message.console)
    outbox.put(
        conn, "message", f"message:{incident.id}:{key}{round_of(conn, incident.id)}:{channel}", payload, now=now, incident_id=incident.id
    )


def _console(path: str | None) -> dict[str, str]:
    return {CONSOLE: path} if path else {}


def link_of(public_url: str | None, payload: Mapping[str, Any], incident_id: str) -> str | None:
    """Where the console shows what the message is about; None where nobody has said how people's browsers reach it."""
    path = str(payload.get(CONSOLE, ""))
    return console_links.link(public_url, path if path.startswith("/") else console_links.of_incident(incident_id))


def send_to_stakeholders(conn: Connection, policy: Policy, incident: Incident, message: Rendered, *, key: str, now: datetime) -> None:
    """The incident channel and the stakeholders' mail (runbook, Step 5)."""
    for to in (INCIDENTS, STAKEHOLDERS):
        send_message(conn, policy, incident, to, message, key=key, now=now)


def update_notice(conn: Connection, policy: Policy, incident: Incident, *, number: int, now: datetime) -> None:
    message = messages.update_notification(snapshot(conn, policy, incident, now=now))
    send_to_stakeholders(conn, policy, incident, message, key=f"update-{number}", now=now)


def safety_notices(
    conn: Connection, policy: Policy, incident: Incident, pending: Sequence[messages.PendingWorkOrder] | None, *, now: datetime
) -> None:
    """Step 2, safety risk: the supervisors get the list of pending work orders (None: not readable), maintenance the emergency alert."""
    state = snapshot(conn, policy, incident, now=now)
    contacts = policy.for_model(incident.model).contacts
    for to in receivers(contacts.supervisors, "supervisors"):
        send_message(conn, policy, incident, to, messages.supervisors_notice(state, pending), key="safety", now=now)
    for to in receivers(contacts.maintenance, "maintenance team"):
        send_message(conn, policy, incident, to, messages.emergency_alert(state), key="emergency", now=now)


def snapshot(conn: Connection, policy: Policy, incident: Incident, *, now: datetime) -> IncidentSnapshot:
    """The incident as the store knows it now, for any message."""
    triage = records.recall_if_readable(conn, incident.id, Triage)
    diagnosis = records.recall_if_readable(conn, incident.id, Diagnosed)
    return IncidentSnapshot(
        incident_id=incident.id,
        model=incident.model,
        model_version=incident.model_version,
        severity=incident.severity,
        status=incident.status,
        reported=reports.words(conn, incident.id),
        summary=(diagnosis.headline if diagnosis else "") or (triage and triage.summary) or incident.description,
        figures=triage.figures if triage else Figures(),
        impact=[incident.impact] if incident.impact else [],
        actions_taken=actions_taken(conn, incident.id),
        next_steps=_next_steps(conn, policy, incident, now=now),
        expected_resolution=_usual_resolution(conn, incident),
        since_detection=now - incident.detected_at,
        update_every_min=policy.communication.update_every_min,
        respond_by=respond_by(conn, policy, incident),
        deadlines=[clock.sentence(now) for clock in regulatory_clocks.of_incident(conn, incident.id)],
        duties=[duty.words for duty in assigned(conn, policy, incident)],
        holders=_holders(conn, incident.id),
        has_work_orders=triage is None or triage.has_work_orders,
    )


def assigned(conn: Connection, policy: Policy, incident: Incident) -> list[Assigned]:
    """Who leads and who approves now: by the last hand-over of the duty, else of its role, else as the policy names the role."""
    policy, holders, found = policy.for_model(incident.model), _holders(conn, incident.id), []
    for duty in Duty:
        role = role_of(duty, incident.severity, policy)
        named = policy.escalation.of(role).name
        found.append(Assigned(duty, role, holders.get(duty) or holders.get(role) or ("" if named == UNNAMED else named)))
    return found


def _holders(conn: Connection, incident_id: str) -> dict[str, str]:
    return {role: holder.to for role, holder in records.of_kind(conn, incident_id, Holder).items()}


def _usual_resolution(conn: Connection, incident: Incident) -> str | None:
    """What incidents of this model and severity took so far, from the store; None while there are fewer than three to go by."""
    past = incidents.find(conn, model=incident.model, status=Status.CLOSED, limit=200)
    spans = sorted(span for i in past if i.severity is incident.severity and (span := times(i).to_resolve) is not None)
    return f"{in_words(median_high(spans))} (the median of {len(spans)} such incidents)" if len(spans) >= 3 else None


def figures(recorded: dict[str, Any] | None) -> Figures:
    return Figures(**recorded) if recorded else Figures()


def actions_taken(conn: Connection, incident_id: str) -> list[str]:
    """What was changed, oldest first, as people are told. Taking containment back is told with the containment."""
    told = []
    rows = journal.of_incident(conn, incident_id)
    promoted = {row.target["version"] for row in rows if row.kind == Promote.kind and row.settled}
    for row in rows:
        plan = plans.get(conn, incident_id, row.plan_digest)
        if row.state in SETTLED and not row.undo_of and plan.kind is not PlanKind.UNDO:
            note = " (taken back)" if row.undone_by else " (was so already)" if row.state == "already_held" else ""
            if row.kind == Stage.kind and row.target["version"] in promoted and not row.undone_by:
                note = " (until it was promoted, which emptied the slot)"
            told.append("; ".join([plan.actions[row.ordinal].past + note, *(() if row.undone_by else row.caveats)]))
    return told


def _next_steps(conn: Connection, policy: Policy, incident: Incident, *, now: datetime) -> Sequence[str]:
    for plan in reversed(plans.standing(conn, incident.id, *PlanKind)):
        if state_of(conn, policy, plan, now=now).waits:
            return [f"Waiting for a decision: {a.summary}" for a in plan.actions]
    return ["Measuring the recovery on fresh predictions"] if incident.status == "monitoring" else []


def stop(conn: Connection, incident_id: str, *, now: datetime) -> None:
    """Resolved or a false alarm: nothing more goes out that was planned for an open incident.

    But for the pages that outlive it: about a step that could not be done (response/execution/plans), about alerts that open it again and
    again, and about alerts that wait in the quarantine.
    """
    kinds = ("page", UPDATE, RESPONSE, EXPIRY, ORDER_OVERDUE)
    spare = tuple(f"page:{incident_id}:{key}:" for key in ("failed", "flapping", "held"))
    outbox.cancel(conn, now=now, incident_id=incident_id, kinds=kinds, spare=spare)
    sync_pages(conn, incident_id, "resolve", now=now)
