"""The clocks of the law on an incident: started, moved and ended by a person's word, and told of until then.

Reminders are rows of the outbox and have nothing to do with the incident's status: they go on after it is closed.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection

from mlrunbook.domain.communication import console_links, messages, regulatory
from mlrunbook.domain.communication.regulatory import Clock, Notification, Statement
from mlrunbook.domain.errors import NotFound
from mlrunbook.domain.incident import ClockName, Incident
from mlrunbook.domain.policy.policy import Policy
from mlrunbook.domain.roles import Role
from mlrunbook.ports import Message
from mlrunbook.response.communication import chain
from mlrunbook.response.world import World
from mlrunbook.store import incidents, outbox, regulatory_clocks, timeline

TIMER = "regulatory_clock"


def begin(conn: Connection, policy: Policy, incident: Incident, clock: Clock, *, by: str, now: datetime) -> bool:
    """Start it, unless it runs or has ended already. The caller holds the incident's row."""
    if regulatory_clocks.get(conn, incident.id, clock.name):
        return False
    _set(conn, policy, incident, clock, f"Clock started, {clock.sentence(now)}: {clock.why}", by=by, now=now)
    return True


def state_case(conn: Connection, policy: Policy, incident_id: str, name: ClockName, said: Statement, *, now: datetime) -> Clock:
    """A person says what the incident is to that law, and perhaps since when it is known: the deadline follows. Starts the clock where it
    does not run."""
    incident = incidents.get(conn, incident_id, lock=True)
    before = regulatory_clocks.get(conn, incident_id, name)
    since = said.aware_at or (before.aware_at if before else incident.detected_at)
    clock = regulatory.start(name, said.case, since, policy.regulatory, why=f"{said.by} says: {said.case.value.replace('_', ' ')}")
    if before is None or (before.case, before.deadline) != (clock.case, clock.deadline) or not before.runs:
        _set(conn, policy, incident, clock, f"Clock set by {said.by}, {clock.sentence(now)}", by=said.by, now=now)
    return clock


def end(conn: Connection, incident_id: str, name: ClockName, said: Notification, *, now: datetime) -> Clock:
    """A person has notified the authority, or says why nobody need be. The newest word stands."""
    incident = incidents.get(conn, incident_id, lock=True)
    clock = regulatory_clocks.get(conn, incident_id, name)
    if clock is None:
        raise NotFound(f"no {name} clock runs on {incident_id}; `mlrunbook incidents clock {incident_id} --clock {name}` starts it")
    over = regulatory.ended(clock, said, now)
    same = (clock.ended_by, clock.reference, clock.not_required) == (said.by, said.reference, said.not_required)
    if same and (said.at is None or said.at == clock.ended_at):
        return clock
    regulatory_clocks.save(conn, incident_id, over, now=now)
    outbox.cancel(conn, now=now, incident_id=incident.id, key_prefix=_key(incident.id, name))
    timeline.append(conn, incident_id, "clock", over.sentence(now), actor=said.by, at=now, data=over.to_record())
    return over


def remind(world: World, item: outbox.Item) -> None:
    """Send, then mark and plan the next: killed in between, it goes out again. Raises Transient while the channel is away."""
    incident_id, now = str(item.incident_id), world.now()
    with world.transaction() as conn:
        incident = incidents.get(conn, incident_id)
        clock = _meant(conn, item)
    head = chain.sent(world, incident_id)
    if clock is not None:
        text = messages.regulatory_reminder(incident, clock, now)
        link = console_links.link(world.public_url, console_links.of_incident(incident_id))
        body = chain.with_head(console_links.with_link(text.body, link), head)
        world.notifier.send(Message(item.dedup_key, incident_id, item.payload["channel"], text.subject, body, page=True, link=link))
    with world.transaction() as conn:
        incident = incidents.get(conn, incident_id, lock=True)
        if clock is not None and clock == _meant(conn, item) and not outbox.is_delivered(conn, item.dedup_key):
            words = f"Reminded {Role.COMPLIANCE_OFFICER.words}: {clock.sentence(now)}"
            data = {"channel": item.payload["channel"]} | chain.noted(head)
            timeline.append(conn, incident_id, "clock", words, actor="dispatcher", at=now, data=data)
            _plan_next(conn, world.policy, incident, clock, item.payload["channel"], now=now)
        outbox.delivered(conn, item, now=now)


def _meant(conn: Connection, item: outbox.Item) -> Clock | None:
    """The clock the row was planned for; None when it has ended or was moved since."""
    clock = regulatory_clocks.get(conn, str(item.incident_id), ClockName(item.payload["clock"]))
    return clock if clock and clock.runs and clock.deadline.isoformat() == item.payload["deadline"] else None


def _set(conn: Connection, policy: Policy, incident: Incident, clock: Clock, said: str, *, by: str, now: datetime) -> None:
    regulatory_clocks.save(conn, incident.id, clock, now=now)
    timeline.append(conn, incident.id, "clock", said, actor=by, at=now, data=clock.to_record())
    outbox.cancel(conn, now=now, incident_id=incident.id, key_prefix=_key(incident.id, clock.name))
    for channel in policy.for_model(incident.model).escalation.of(Role.COMPLIANCE_OFFICER).channels:
        _plan_next(conn, policy, incident, clock, channel, now=now)


def _plan_next(conn: Connection, policy: Policy, incident: Incident, clock: Clock, channel: str, *, now: datetime) -> None:
    at = regulatory.next_reminder(clock, now, policy.regulatory)
    if at is None:
        return
    payload = {"clock": clock.name, "deadline": clock.deadline.isoformat(), "channel": channel}
    key = f"{_key(incident.id, clock.name)}{clock.deadline.isoformat()}:{at.isoformat()}:{channel}:{len(_rows(conn, incident.id))}"
    outbox.put(conn, TIMER, key, payload, now=now, incident_id=incident.id, at=at)


def _rows(conn: Connection, incident_id: str) -> list[dict[str, object]]:
    return outbox.of_incident(conn, incident_id, TIMER)


def _key(incident_id: str, name: ClockName) -> str:
    return f"clock:{incident_id}:{name}:"
