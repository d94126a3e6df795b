"""Step 1 for a claim that outcomes have not proven yet: nothing is changed on it, and it is looked at again as they come."""

from __future__ import annotations

from dataclasses import replace

from mlrunbook.domain.detection import unproven
from mlrunbook.domain.detection.flapping import Reopened
from mlrunbook.domain.detection.severity import Assessment
from mlrunbook.domain.detection.severity_change import risen
from mlrunbook.domain.detection.triage import Affected, Triage
from mlrunbook.domain.evaluation.outcome_history import grade_metrics
from mlrunbook.domain.records import Record
from mlrunbook.domain.resolution.fix import Applied, HumanResolution
from mlrunbook.response.detection.triage import Look, asked, end_false_alarm, in_the_light_of_people, look
from mlrunbook.response.lifecycle.severity_change import SeverityChange, change_severity, lowered_from
from mlrunbook.response.run import ACTOR, Run
from mlrunbook.store import incidents, records

# What the investigation found while nothing was proven.
_FOUND = (Record.DIAGNOSIS, Record.FEATURES, Record.INPUTS, Record.ROLLBACK_TARGETS, Record.GRADED_AGAIN)


def waits_s(run: Run) -> float | None:
    """How long until the next look. None: it waits for none, or a person has taken it up."""
    found = _waiting(run)
    return unproven.next_look(found.assessment, run.world.now()).total_seconds() if found else None


def look_again(run: Run) -> Triage | None:
    """Where the outcomes say by now: Step 1 anew for what they prove, the end of what they rule out. Returns what was ended."""
    if ended := _ended_as_it_was(run):
        return ended
    found = _waiting(run)
    if found is None:
        return None
    seen = look(run, final_look=True)
    judged = unproven.decided(found.assessment, seen.assessment, _measured(run, seen), run.policy.severity.run_length.planned_fall)
    return _settle(run, found, replace(seen, assessment=judged)) if judged else None


def _ended_as_it_was(run: Run) -> Triage | None:
    """An earlier run found out that the alert which reopened the incident was false, and was killed before it could end."""
    incident, again = run.incident(), run.recall(Reopened)
    if incident.status.is_open or again is None or again.measured or again.before is None:
        return None
    if incident.closed_at != again.before.closed_at:
        return None
    found = Assessment(False, incident.severity, incident.type, ("the alert that reopened it was a false alarm",))
    return Triage(False, found.severity, found.type, found.reasons[0], found, Affected(incident.model, incident.model_version))


def _measured(run: Run, seen: Look) -> unproven.Measured:
    incident, again, metrics = run.incident(), run.recall(Reopened), seen.metrics
    began = again.at if again else incident.detected_at
    verdict = grade_metrics(metrics, run.policy.severity) if metrics else None
    return unproven.Measured(verdict, metrics is not None and metrics.history is not None, began, run.world.now())


def _waiting(run: Run) -> Triage | None:
    found = run.recall(Triage)
    if found is None or not found.real or not found.assessment.waits_for_outcomes:
        return None
    return None if asked(run) or run.recall(HumanResolution) or run.recall(Applied) else found


def _settle(run: Run, found: Triage, seen: Look) -> Triage | None:
    policy, now = run.world.policy, run.world.now()
    with run.write() as conn:
        incident = incidents.get(conn, run.incident_id, lock=True)
        judged, _ = in_the_light_of_people(conn, incident, seen)
        if not judged.real:
            ended, again = replace(found.judged_anew(judged, seen.backed), real=False), records.recall(conn, incident.id, Reopened)
            records.replace(conn, incident.id, ended, now=now)
            end_false_alarm(run, conn, ended.summary, again if again and not again.measured else None)
            return ended
        to = risen(incident.severity, judged.severity, lowered_from(conn, incident.id))
        why = "; ".join(judged.reasons)
        change = SeverityChange(to, replace(judged, severity=to), why, ACTOR, backed=seen.backed, begins_anew=True)
        change_severity(conn, policy, incident, change, now=now)
        records.forget(conn, incident.id, *_FOUND, *records.with_prefix(conn, incident.id, Record.FINDINGS))
    return None
