"""An incident on a name that neither the registry nor policy knows: paged once, nothing planned, nothing changed, no run.

It becomes a normal incident as soon as the name is known, and ends otherwise by a person, with a reason.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial

from sqlalchemy import Connection, text

from mlrunbook.domain.communication import console_links, messages
from mlrunbook.domain.detection.alerts import NormalisedAlert
from mlrunbook.domain.detection.lifecycle import Recognised, UnknownModel
from mlrunbook.domain.detection.reports import FirstReport, Report
from mlrunbook.domain.errors import Refused
from mlrunbook.domain.incident import Incident, Severity
from mlrunbook.domain.policy.changes import BREACH_TYPES
from mlrunbook.domain.policy.owned import Standing, unknown_words
from mlrunbook.domain.policy.policy import Policy
from mlrunbook.domain.records import Record
from mlrunbook.domain.roles import Role
from mlrunbook.response.communication.escalation import escalate, schedule_update
from mlrunbook.response.communication.notifications import TICKETS, Page, page, request_action, send_message
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


@dataclass(frozen=True)
class Sender:
    """Whose alerts they are: each sender has a budget of its own, and a proven one never shares that of whoever took its name.
    `key` "": a person, or nobody who is noted; they have no limit."""

    key: str = ""
    name: str = ""

    @classmethod
    def of(cls, source: str, sender: str, proven_as: str) -> Sender:
        return cls(json.dumps([source if not sender else "", sender, proven_as]), sender or source)


def limit_reached(conn: Connection, policy: Policy, sender: Sender, model: str, family: str, *, now: datetime) -> str | None:
    """Why this sender's alert on an unknown name opens no incident now; None where it may, or where one is open already, or where nothing
    of the sender's is open that could page somebody about it.

    Locked to the end of the transaction: two at once must not both be the last one.
    """
    conn.execute(text("SELECT pg_advisory_xact_lock(hashtextextended('unknown models', 0))"))
    if incidents.open_of(conn, model, family):
        return None
    most, opened = policy.intake.unknown_models_per_hour, _opened_by(conn, sender, now=now)
    if len(opened) < most or _carrier(conn, opened) is None:
        return None
    at = opened[-most].at + HOUR
    return (
        f"{unknown_words(model)} Alerts of {sender.name[:100]} on unknown models open at most {most} incidents an hour: replay it after "
        f"{at:%Y-%m-%d %H:%M} UTC, or once the model is registered or named under `models:` of the policy"
    )


def page_held(conn: Connection, policy: Policy, sender: Sender, held: Sequence[NormalisedAlert], *, now: datetime) -> None:
    """Alerts of this sender open no incident: on-call hears of the first at once, and of what follows within `held_page_every_min`;
    critical ones are counted apart, so that nothing else delays them."""
    carrier = _carrier(conn, _opened_by(conn, sender, now=now))
    if not held or carrier is None:
        return
    worst = max(held, key=lambda alert: alert.severity.rank)
    kind = "critical" if worst.severity is Severity.CRITICAL else "low" if worst.severity is Severity.LOW else "alert"
    every = timedelta(minutes=policy.intake.held_page_every_min)
    slot = int(now.timestamp() // every.total_seconds())
    what = "A critical alert" if kind == "critical" else "Alerts"
    why = f"{what} of {sender.name[:100]} on models that nobody knows: held in the quarantine, no incident opened. {worst.summary[:300]}"
    todo = "mlrunbook quarantine list; register the model or map it in `intake.models`, then mlrunbook quarantine replay NUMBER"
    key = f"held:{kind}:{slot}"
    if kind == "low":
        told = messages.Rendered(f"[HELD] alerts of {sender.name[:100]}", f"{why}\n{todo}", console_links.QUARANTINE)
        send_message(conn, policy, carrier, TICKETS, told, key=key, now=now)
        return
    said = [row["dedup_key"] for row in outbox.of_incident(conn, carrier.id, "page")]
    if not any(one.startswith(f"page:{carrier.id}:{key}:") for one in said):
        page(conn, policy, carrier, Page(Role.ONCALL_ML_ENGINEER, why, f"{key}:first", todo, console=console_links.QUARANTINE), now=now)
    elif not any(one.startswith(f"page:{carrier.id}:{key}:more") for one in said):
        ends = datetime.fromtimestamp((slot + 1) * every.total_seconds(), UTC)
        more = Page(Role.ONCALL_ML_ENGINEER, f"More: {why}", f"{key}:more", todo, ends, console_links.QUARANTINE)
        page(conn, policy, carrier, more, now=now)


def _opened_by(conn: Connection, sender: Sender, *, now: datetime) -> list[records.Made]:
    return records.made(conn, Record.UNKNOWN_MODEL, since=now - HOUR, sender=sender.key)


def _carrier(conn: Connection, opened: Sequence[records.Made]) -> Incident | None:
    """The newest that is open: it carries the page about what is held."""
    found = (incidents.get(conn, one.incident_id) for one in reversed(opened))
    return next((incident for incident in found if incident.status.is_open), None)


def opened(conn: Connection, policy: Policy, incident: Incident, standing: Standing, *, by: str, now: datetime, sender: str = "") -> None:
    """In the transaction that opens it: the one page, and of a breach one to the officers too. `sender`: see `Sender.key`."""
    why = unknown_words(incident.model, standing.hint)
    records.keep(conn, incident.id, UnknownModel(now, why, by, sender), now=now)
    _say(conn, policy, incident, f"{why} Nothing is planned and nothing is changed", now=now)


def vouched_for(conn: Connection, policy: Policy, incident: Incident, report: Report, *, now: datetime) -> None:
    """An alert joins. A trusted sender's is paged where an unproven one has opened it, once for each severity: whoever is unproven must not
    be able to take the page of others away."""
    first, counts = records.recall(conn, incident.id, FirstReport), partial(policy.intake.trusted_for.trusts, "containment")
    if first is None or counts(first.proven_as) or not counts(report.proven_as):
        return
    why = f"{report.severity} by {report.reported_by}: {report.description}"
    request_action(conn, policy, incident, Page(Role.ONCALL_ML_ENGINEER, why, f"proven:{report.severity}", _todo(incident)), now=now)


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
