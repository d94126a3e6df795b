"""After the closing: the recovery measured once more on the outcomes that have come since. What disagrees reopens the incident.

The dispatcher's timer calls it; nothing waits in a process. Measuring only reads. What follows from it is one transaction together with
the timer's row, so that a dispatcher that is killed, or two that hold the row, leave it said once.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection

from mlrunbook.domain.communication import messages
from mlrunbook.domain.detection.flapping import Reopened
from mlrunbook.domain.detection.triage import Triage
from mlrunbook.domain.errors import NotFound, Refused
from mlrunbook.domain.evaluation.rewritten import judge_rewrites
from mlrunbook.domain.incident import Incident, Status
from mlrunbook.domain.policy.policy import Policy
from mlrunbook.domain.records import Record
from mlrunbook.domain.resolution.fix import Applied, HumanResolution
from mlrunbook.domain.resolution.recovery import Confirmation, Recovery, RecoveryVerdict, judge_confirmation, judge_recovery
from mlrunbook.domain.tally import Tally, as_binary
from mlrunbook.response.communication.escalation import escalate
from mlrunbook.response.communication.notifications import send_to_stakeholders
from mlrunbook.response.lifecycle.reopening import discard
from mlrunbook.response.measurement import recent_changes
from mlrunbook.response.run import ACTOR
from mlrunbook.response.tried import required
from mlrunbook.response.world import World
from mlrunbook.store import incidents, leases, outbox, records, timeline

TIMER = "confirm_recovery"


def schedule(conn: Connection, policy: Policy, incident_id: str, *, now: datetime) -> None:
    """In the transaction that closes. Without a measured recovery there is nothing to confirm."""
    recovery = records.recall(conn, incident_id, Recovery)
    fix = records.recall(conn, incident_id, Applied) or records.recall(conn, incident_id, HumanResolution)
    if fix is None or recovery is None or not recovery.f1_baseline:
        return
    _put(conn, policy, incident_id, {"since": fix.stored_at, "closed_at": now}, now=now)


def _put(conn: Connection, policy: Policy, incident_id: str, payload: dict[str, Any], *, now: datetime) -> datetime:
    number = len(outbox.of_incident(conn, incident_id, TIMER)) + 1
    at = now + timedelta(minutes=policy.recovery_watch.confirm_after_min)
    outbox.put(conn, TIMER, f"confirm:{incident_id}:{number}", payload, now=now, incident_id=incident_id, at=at)
    return at


def confirm(world: World, item: outbox.Item) -> None:
    """One look. Raises Transient while the platform is away: the outbox tries again."""
    incident_id, policy = str(item.incident_id), world.policy
    with world.transaction() as conn:
        incident = incidents.get(conn, incident_id)
        triage = records.recall(conn, incident_id, Triage)
    said = None
    if incident.status is Status.CLOSED:
        closed_at = datetime.fromisoformat(str(item.payload["closed_at"]))
        until = closed_at + timedelta(minutes=policy.recovery_watch.confirm_for_min)
        again_at = world.now() + timedelta(minutes=policy.recovery_watch.confirm_after_min)
        seen = _measure(world, incident, item, closed_at, triage.baseline if triage else None)
        said = judge_confirmation(seen, may_ask_again=again_at <= until)
    with world.transaction() as conn:
        incident = incidents.get(conn, incident_id, lock=True)
        if said is not None and incident.status is Status.CLOSED and not outbox.is_delivered(conn, item.dedup_key):
            _follow(conn, policy, incident, said, item, now=world.now())
        outbox.delivered(conn, item, now=world.now())


def _measure(world: World, incident: Incident, item: outbox.Item, closed_at: datetime, before: Tally | None) -> RecoveryVerdict:
    """Predictions made since the fix, up to whatever came over them: another release or setting, or another incident."""
    since = datetime.fromisoformat(str(item.payload["since"]))
    try:
        changed = [c.at for c in recent_changes.that_bound_windows(world, incident.model, since=closed_at) if c.at > closed_at]
        with world.transaction() as conn:
            later = [i for i in incidents.find(conn, model=incident.model, limit=50) if i.detected_at > closed_at]
        until = min([world.now(), *changed, *(min(i.started_at or i.detected_at, i.detected_at) for i in later)])
        if until <= since:
            return RecoveryVerdict(None, "something else changed as soon as it was closed")
        seen = required("the metrics", lambda: world.platform.metrics(incident.model, since=since, until=until))
    except (NotFound, Refused) as error:
        return RecoveryVerdict(None, f"it cannot be measured: {error}")
    rewritten = judge_rewrites(seen, world.policy.for_model(incident.model).severity.outcomes)
    if rewritten.beyond:
        return RecoveryVerdict(None, f"it cannot be measured: {rewritten.sentence}")
    baseline = as_binary(before or seen.baseline.tally)
    return judge_recovery(baseline, seen.current.confusion, world.policy.recovery, window=seen.current, usual=seen.baseline)


def _follow(conn: Connection, policy: Policy, incident: Incident, said: Confirmation, item: outbox.Item, *, now: datetime) -> None:
    text = said.sentence[:1].upper() + said.sentence[1:]
    if said.ask_again:
        at = _put(conn, policy, incident.id, dict(item.payload), now=now)
        text = f"{text}; measured again at {at:%Y-%m-%d %H:%M} UTC"
    timeline.append(conn, incident.id, "recovery", text, actor="dispatcher", at=now, data={"held": said.held})
    if said.held is not False:
        return
    other = next((i for i in incidents.find(conn, model=incident.model, only_open=True) if i.family == incident.family), None)
    if other is None:
        _reopen(conn, policy, incident, said.sentence, since=datetime.fromisoformat(str(item.payload["since"])), now=now)
        return
    incidents.get(conn, other.id, lock=True)
    timeline.append(conn, incident.id, "reported", f"{other.id} is open for the same failure and goes on with it", actor=ACTOR, at=now)
    timeline.append(conn, other.id, "reported", f"{incident.id} was closed too early: {said.sentence}", actor=ACTOR, at=now)


def _reopen(conn: Connection, policy: Policy, incident: Incident, why: str, *, since: datetime, now: datetime) -> None:
    """The incident begins again at triage: what was planned for it did not hold, and its containment was taken back."""
    earlier, triage = records.recall(conn, incident.id, Reopened), records.recall(conn, incident.id, Triage)
    records.forget(conn, incident.id, Record.TRIAGE)
    discard(conn, incident.id)
    number, baseline = earlier.number + 1 if earlier else 1, triage.baseline if triage else None
    again = Reopened(number, now, since, why, baseline, moved_s=incidents.moved_s(conn, incident.id))
    records.replace(conn, incident.id, again, now=now)
    reopened = incidents.reopen(conn, incident.id, why=why, actor=ACTOR, now=now)
    escalate(conn, policy, reopened, now=now)
    subject = f"[REOPENED] {messages.model_name(incident.model)} - {incident.severity.title()}"
    send_to_stakeholders(conn, policy, reopened, messages.Rendered(subject, f"{incident.id}: {why}"), key="reopened", now=now)
    leases.request_start(conn, incident.id, why=f"reopened: {why}", now=now)
