"""Taking the lease, and letting it go at the places where a run may stop: for a human, for labels, for good."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import Connection

from mlrunbook.domain.detection.lifecycle import Stopped
from mlrunbook.domain.errors import Refused, Transient, Unknown
from mlrunbook.domain.policy.owned import Known, Standing
from mlrunbook.domain.policy.policy import Policy
from mlrunbook.domain.records import Record
from mlrunbook.domain.resolution.observation import WouldContain
from mlrunbook.domain.roles import Role
from mlrunbook.response import modes
from mlrunbook.response.communication import escalation, reports
from mlrunbook.response.communication.notifications import Page, page, request_action
from mlrunbook.response.lifecycle import unknown_models
from mlrunbook.response.lifecycle.flapping import automation_held
from mlrunbook.response.run import Run
from mlrunbook.response.world import World
from mlrunbook.store import incidents, leases, records, timeline

MOST = 1000
WAITING_FOR_HUMAN = "Waiting for a human"


def take(world: World, incident_id: str, holder: str) -> Run | None:
    """Become the run of this incident; None when another carries it, nothing is left to do, or nobody knows its model."""
    with world.transaction() as conn:
        model = incidents.get(conn, incident_id).model
    standing = world.known_models.of(world.policy, [model], fresh=True)[model]
    with world.transaction() as conn:
        now = world.now()
        lease = leases.take(conn, incident_id, holder, here=world.elapsed(), lease_s=world.lease_s)
        if lease and _has_unknown_model(conn, world.policy, incident_id, standing, now=now):
            leases.release(conn, lease, "free", now=now)
            return None
        if lease:
            modes.note(conn, world.policy, now=now)
            escalation.no_longer_observed(conn, world.policy, incidents.get(conn, incident_id), now=now)
    return Run(world.of(model), lease) if lease else None


def take_up_what_was_observed(world: World) -> None:
    """The policy was read anew: what it no longer only observes is paged about and handled now, not at the next look hours later."""
    with world.transaction() as conn:
        modes.note(conn, world.policy, now=world.now())
        open_ = [one.id for one in incidents.find(conn, only_open=True, limit=MOST)]
        seen = records.of_incidents(conn, WouldContain, open_)
    for incident_id in seen:
        with world.transaction() as conn:
            incident, now = incidents.get(conn, incident_id, lock=True), world.now()
            if escalation.no_longer_observed(conn, world.policy, incident, now=now):
                leases.wake(conn, incident_id, why="its model is no longer in mode observe", key=f"mode-{now.isoformat()}", now=now)


def _has_unknown_model(conn: Connection, policy: Policy, incident_id: str, standing: Standing, *, now: datetime) -> bool:
    """Nothing may be planned or changed. Where the name has become known, the response begins."""
    incident = incidents.get(conn, incident_id)
    if standing.is_unknown:
        return unknown_models.found(conn, policy, incident, standing, now=now)
    if standing.known is Known.KNOWN and unknown_models.is_unknown(conn, incident_id):
        unknown_models.recognise(conn, policy, incident, why="the registry or policy names it", now=now)
    return unknown_models.is_unknown(conn, incident_id)


def stop_for_human(run: Run, reason: str, role: Role = Role.ML_TEAM_LEAD) -> None:
    """No safe automatic way on: page, and end this run until a human acts. A run that only looked again, and stops for the same reason,
    says nothing new."""
    with run.write() as conn:
        if _is_said(conn, run.incident_id, reason):
            leases.release(conn, run.lease, "free", now=run.world.now())
            return
        incident = incidents.get(conn, run.incident_id)
        todo = reports.how_to_end(incident.id)
        key = f"human:{len(records.of_kind(conn, run.incident_id, Stopped)) + 1}"
        run.keep(conn, Stopped(reason), key)
        run.note(conn, "waiting", f"{WAITING_FOR_HUMAN}: {reason}")
        request_action(conn, run.world.policy, incident, Page(role, reason, key, todo), now=run.world.now())
        leases.release(conn, run.lease, "free", now=run.world.now())


def _is_said(conn: Connection, incident_id: str, reason: str) -> bool:
    """People were asked for exactly this, and but for the dispatcher's deliveries and timers nothing has happened since."""
    last = timeline.last_not_by(conn, incident_id, "dispatcher")
    return last is not None and (last.kind, last.text) == ("waiting", f"{WAITING_FOR_HUMAN}: {reason}")


def is_recorded(run: Run, record: Record) -> bool:
    """Whether an earlier run came this far: a run that comes back need not ask for every step."""
    return run.recorded(record) is not None


def held(run: Run) -> str | None:
    """Why nothing more happens by itself: a person has reported since, or it opens again and again. None where it does."""
    with run.world.transaction() as conn:
        return reports.unanswered(conn, run.incident_id) or automation_held(conn, run.incident_id, now=run.world.now())


def look_again_later(run: Run, reason: str, after_s: float) -> datetime:
    """End this run and have the dispatcher start the next one then."""
    at = run.world.now() + timedelta(seconds=after_s)
    with run.write() as conn:
        run.note(conn, "waiting", f"{reason}; next look at {at:%H:%M:%S} UTC")
        leases.release(conn, run.lease, "free", now=run.world.now())
        if leases.get(conn, run.incident_id).state == "free":  # else somebody acted meanwhile, and the next run is on its way
            leases.request_start(conn, run.incident_id, why=reason, now=run.world.now(), at=at)
    return at


def done(run: Run) -> None:
    with run.write() as conn:
        leases.release(conn, run.lease, "done", now=run.world.now())


def failed(run: Run, error: Exception) -> None:
    """The run ends on an error: a definite no, or an unknown outcome, needs a human; anything else is tried again by a later run."""
    words = f"{type(error).__name__}: {error}"
    if isinstance(error, Refused | Unknown):
        stop_for_human(run, reason=str(error))
        return
    if not isinstance(error, Transient):  # a defect of ours: people must know, and the incident must still go on
        with run.write() as conn:
            incident = incidents.get(conn, run.incident_id)
            why = f"the flow failed ({words}); it is tried again"
            call = Page(Role.ONCALL_ML_ENGINEER, why, f"defect:{run.lease.generation}")
            page(conn, run.world.policy, incident, call, now=run.world.now())
    look_again_later(run, reason=f"This run failed ({words})", after_s=min(10.0 * 2 ** min(run.lease.generation, 6), 600.0))
