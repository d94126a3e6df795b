"""A person closes an incident: what must be settled before, who may leave what in force, and what follows."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection

from mlrunbook.base.tokens import Identity
from mlrunbook.domain.action_state import BEGUN, SETTLED
from mlrunbook.domain.communication import messages
from mlrunbook.domain.communication.durations import review_due
from mlrunbook.domain.detection.triage import Triage
from mlrunbook.domain.errors import Invalid, Refused
from mlrunbook.domain.incident import TRANSITIONS, Incident, IncidentType, Severity, Status
from mlrunbook.domain.resolution.observation import ObservationOver
from mlrunbook.response.carried_mode import is_quiet
from mlrunbook.response.communication import reports
from mlrunbook.response.communication.notifications import INCIDENTS, send_message, stop
from mlrunbook.response.containment import emergency
from mlrunbook.response.review.closing import draft, left_in_force, unexplained
from mlrunbook.response.world import World
from mlrunbook.store import baseline_pins, incidents, journal, leases, outbox, records
from mlrunbook.store.journal import isolations


@dataclass(frozen=True)
class Closing:
    """How a person closes an incident. `false_alarm`: nothing was wrong. `keep_containment`: what is contained stays as it is."""

    reason: str = ""
    false_alarm: bool = False
    keep_containment: bool = False


def close(conn: Connection, world: World, incident: Incident, who: Identity, said: Closing) -> Incident:
    """Of an open incident, locked."""
    by, now, reason = who.name, world.now(), said.reason
    observed = is_quiet(conn, world.policy, incident)  # then its recovery is not measured, and nobody reviews it
    handed_over = _keep_isolated(conn, world, incident, who, reason)
    if said.keep_containment:
        handed_over |= _keep_contained(conn, world, incident, who, reason)
    if said.false_alarm:
        _may_be_false(incident, reason)
    elif incident.status is not Status.RESOLVED and not handed_over:
        measured = incident.severity is not Severity.LOW and not observed and _is_measured(conn, incident.id)
        if measured and not reports.unanswered(conn, incident.id):  # else the recovery check waits for a person's word
            words = f"{incident.id} is {incident.status} and its model is measured: the recovery check closes it"
            raise Refused(f"{words}. {reports.how_to_end(incident.id)}")
        if not reason:
            raise Invalid(f"{incident.id} is {incident.status}: closing it needs a reason", field="reason")
    if underway := emergency.underway(conn, world.policy, incident, now=now):
        raise Refused(
            f"{incident.id} cannot close: ordered and not in force yet: {'; '.join(underway)}. Wait for it, or withdraw it: "
            f"`mlrunbook incidents contain {incident.id} --take-back`"
        )
    if open_ends := unexplained(conn, incident.id):
        raise Refused(
            f"{incident.id} cannot close: {', '.join(open_ends)} is neither taken back nor kept with a reason: "
            f"`mlrunbook incidents contain {incident.id} --take-back`, or close with --keep-containment"
        )
    if unsettled := [row.summary for row in journal.of_incident(conn, incident.id) if is_open_end(row)]:
        raise Refused(f"{incident.id} cannot close: it is not known yet whether this happened: {', '.join(unsettled)}")
    what = "called a false alarm" if said.false_alarm else "closed"
    why = f"{what} by {by}" + (f": {reason}" if reason else "")
    closed = _ended(conn, world, incident, why, by, is_false=said.false_alarm)
    stop(conn, incident.id, now=now)
    outbox.cancel(conn, now=now, incident_id=incident.id, kinds=("start_run", "resume_run"))
    leases.release(conn, leases.get(conn, incident.id, lock=True), "done", now=now)
    words = "FALSE ALARM" if said.false_alarm else "CLOSED"
    message = messages.Rendered(f"[{words}] {messages.model_name(incident.model)}", f"{incident.id}: {why}")
    send_message(conn, world.policy, closed, INCIDENTS, message, key="closed", now=now)
    if not said.false_alarm and not observed:
        draft(conn, world.policy, incident.id, now=now)
    return closed


def is_open_end(row: journal.Row) -> bool:
    """Nobody knows whether it happened, and nobody has taken it back or said why that may be so."""
    is_open = row.state in BEGUN - SETTLED and row.may_have_happened
    return is_open and row.undone_by is None and row.kept_because is None


def _may_be_false(incident: Incident, reason: str) -> None:
    if not reason:
        raise Invalid("a false alarm needs a reason: what was looked at, and why nothing is wrong", field="reason")
    if Status.FALSE_ALARM not in TRANSITIONS[incident.status]:
        words = f"{incident.id} is {incident.status}: a fix has begun, so it was no false alarm"
        raise Refused(f"{words}; close it with a reason instead: `mlrunbook incidents close {incident.id} --reason '...'`")


ABOUT_PREDICTIONS = (IncidentType.PREDICTION_ERROR, IncidentType.PERFORMANCE_DEGRADATION, IncidentType.BIAS_FAIRNESS)


def _ended(conn: Connection, world: World, incident: Incident, why: str, by: str, *, is_false: bool) -> Incident:
    now, observed = world.now(), is_quiet(conn, world.policy, incident)
    if observed:
        records.keep(conn, incident.id, ObservationOver(now, why, by), now=now)
    if is_false:
        if incident.type in ABOUT_PREDICTIONS:  # how the model does is in order, people say: it is what later looks compare with
            baseline_pins.forget(conn, incident.model)
        return incidents.set_status(conn, incident.id, Status.FALSE_ALARM, why=why, actor=by, now=now)
    resolved = incidents.set_status(conn, incident.id, Status.RESOLVED, why=why, actor=by, now=now)
    if resolved.review_due_at is None and not observed:
        incidents.set_review_due(conn, incident.id, review_due(resolved.resolved_at or now, world.policy))
    return incidents.set_status(conn, incident.id, Status.CLOSED, why=why, actor=by, now=now)


def _keep_isolated(conn: Connection, world: World, incident: Incident, who: Identity, reason: str) -> bool:
    """A breach handed over: who may lift the isolation may also close and leave it in force, for a reason that is kept with it."""
    rows = [row for row in isolations(conn, incident.id) if row.kept_because is None]
    if not rows:
        return False
    roles = world.policy.for_model(incident.model).approvals.isolation.roles
    if who.role not in roles:
        may = " or ".join(sorted(roles))
        raise Refused(f"{incident.id} cannot close: {incident.model} is isolated; {may} may close it with a reason and leave it so")
    if not reason:
        raise Invalid(f"{incident.model} stays isolated: closing {incident.id} needs a reason", field="reason")
    for row in rows:
        journal.set_kept(conn, row.id, f"handed over by {who.name}: {reason}")
    return True


def _keep_contained(conn: Connection, world: World, incident: Incident, who: Identity, reason: str) -> bool:
    """Who may order containment may close and leave in force what is: a model that is given up stays stopped."""
    rows = [row for row in left_in_force(conn, incident.id) if row.settled]
    if not rows:
        return False
    roles = world.policy.for_model(incident.model).approvals.emergency.roles
    if who.role not in roles:
        may = " or ".join(role.words for role in roles)
        create = f'mlrunbook token create "Your Name" --scope operate --scope read --role {roles[0]}'
        raise Refused(f"only {may} may close {incident.id} and keep its containment; your token has no such role: `{create}`")
    if not reason:
        raise Invalid(f"containment stays in force: closing {incident.id} needs a reason", field="reason")
    for row in rows:
        journal.set_kept(conn, row.id, f"kept by {who.name}: {reason}")
    return True


def _is_measured(conn: Connection, incident_id: str) -> bool:
    triage = records.recall(conn, incident_id, Triage)
    return triage is not None and triage.figures.f1_now is not None
