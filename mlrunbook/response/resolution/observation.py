"""Mode observe: what would be done, on the record and in one channel. Nothing is proposed, approved or changed."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import Connection

from mlrunbook.domain.actions import Path, Plan
from mlrunbook.domain.communication import messages
from mlrunbook.domain.detection.triage import Triage
from mlrunbook.domain.incident import Incident, Status
from mlrunbook.domain.investigation.diagnosis import Diagnosed
from mlrunbook.domain.policy.modes import Mode
from mlrunbook.domain.resolution.fix import HumanResolution
from mlrunbook.domain.resolution.observation import ObservationOver, Would, WouldContain, WouldResolve, said
from mlrunbook.response.carried_mode import mode_of
from mlrunbook.response.communication.notifications import To, put_message, stop
from mlrunbook.response.containment import containment
from mlrunbook.response.resolution import resolution
from mlrunbook.response.run import ACTOR, Run
from mlrunbook.store import alerts, incidents, records

TRAINS = "a candidate would be trained and tried in the shadow; only one that proves better would be proposed"
SILENT_AFTER = timedelta(hours=24)  # an alert whose sender repeats none for so long, and ends none, is over
LOOK_AGAIN_S = 6 * 3600.0


def is_observed(run: Run) -> bool:
    """Nothing may be changed and nobody is asked: the model is in mode observe, and no person has reported or ordered anything."""
    with run.world.transaction() as conn:
        incident = incidents.get(conn, run.incident_id)
        return mode_of(conn, run.world.policy, incident.id, incident.model) is Mode.OBSERVE


def would_contain(run: Run) -> None:
    """Step 2 as it would be decided."""
    if run.recall(WouldContain):
        return
    decided, left_out = containment.decided(run)
    reasons = (*decided.reasons, *(f"left out: {action.summary}: {why}" for action, why in left_out))
    with run.write() as conn:
        seen = WouldContain(run.world.now(), Would.of(decided.automatic), Would.of(decided.mitigation), reasons)
        run.keep(conn, seen)
        run.note(conn, "observed", "Mode observe, not done. Containment: " + ("; ".join(reasons) or "no step applies"))


def would_resolve(run: Run) -> None:
    """Step 4 as it would be proposed; said on the timeline and in the channel of what is observed."""
    contain = run.recall(WouldContain)
    if run.recall(WouldResolve) or contain is None:
        return
    diagnosis = run.recall(Diagnosed)
    retrain = diagnosis is not None and diagnosis.path is Path.RETRAIN
    proposed = TRAINS if retrain else resolution.proposed(run)
    headline = diagnosis.headline if diagnosis else ""
    changes, why = (Would.of(proposed), proposed.expected) if isinstance(proposed, Plan) else ((), proposed)
    with run.write() as conn:
        path = diagnosis.path if diagnosis else None
        resolve = run.keep(conn, WouldResolve(run.world.now(), headline, changes, path, why))
        words = said(contain, resolve)
        run.note(conn, "observed", f"Mode observe, not done. {words}", {"path": path})
        _tell(run, conn, incidents.get(conn, run.incident_id), words)


def _tell(run: Run, conn: Connection, incident: Incident, words: str) -> None:
    triage = run.recall(Triage)
    lines = (
        f"{incident.id}: {triage.summary if triage else incident.description}",
        words,
        "Nothing was changed and nobody was paged: the model is in mode observe. To have it handled, report it: "
        f"mlrunbook incidents report --model {incident.model}",
    )
    message = messages.Rendered(
        f"[OBSERVED] {messages.model_name(incident.model)} - {incident.severity.title()}", "\n".join(messages.line(one) for one in lines)
    )
    policy = run.world.policy
    channel = policy.communication.observe_channel
    to = To(channel, policy.channels.get(channel, channel))
    put_message(conn, policy, incident, to, message, key=f"observed:{incident.severity}", now=run.world.now())


def is_over(run: Run) -> str | None:
    """Why nothing is left to observe; the incident is closed then. None: its alerts still fire, or a person has taken it up."""
    now = run.world.now()
    with run.write() as conn:
        incident = incidents.get(conn, run.incident_id, lock=True)
        if not incident.status.is_open:
            return f"{incident.id} is {incident.status}"
        if mode_of(conn, run.world.policy, incident.id, incident.model) is not Mode.OBSERVE:
            return None  # a person has reported or ordered meanwhile: its next run handles it
        fixed = records.recall(conn, run.incident_id, HumanResolution)
        over = ObservationOver(now, f"fixed by {fixed.by}: {fixed.what}", fixed.by) if fixed else _ended(run, conn)
        if over is None:
            return None
        _close(run, conn, over)
        return over.why


def _ended(run: Run, conn: Connection) -> ObservationOver | None:
    now, rows = run.world.now(), alerts.of_incident(conn, run.incident_id)
    if any(row["status"] == "firing" and now - row["last_seen_at"] < SILENT_AFTER for row in rows):
        return None
    if not rows and now - incidents.get(conn, run.incident_id).detected_at < SILENT_AFTER:
        return None
    return ObservationOver(now, "its alerts have ended, and the runbook has changed nothing")


def _close(run: Run, conn: Connection, over: ObservationOver) -> None:
    run.keep(conn, over)
    for status in (Status.RESOLVED, Status.CLOSED):
        incidents.set_status(conn, run.incident_id, status, why=over.why, actor=over.by or ACTOR, now=run.world.now())
    stop(conn, run.incident_id, now=run.world.now())
