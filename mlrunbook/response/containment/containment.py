"""Step 2: stop or limit the damage, by severity and kind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

from sqlalchemy import Connection

from mlrunbook.domain.action_state import ActionState
from mlrunbook.domain.actions import Action, Isolate, PlanKind, RouteTraffic, lifts_isolation
from mlrunbook.domain.communication.messages import PendingWorkOrder, initial_notification
from mlrunbook.domain.containment.breach import Verdict
from mlrunbook.domain.containment.containment import Contained, Containment, ContainmentDecided, Situation, plan_containment
from mlrunbook.domain.containment.emergency import limits_damage
from mlrunbook.domain.containment.orders import unspoken
from mlrunbook.domain.detection.flapping import Reopened
from mlrunbook.domain.detection.severity_change import SeveritySet
from mlrunbook.domain.detection.triage import Triage
from mlrunbook.domain.errors import Refused
from mlrunbook.domain.evaluation.threshold import choose_threshold
from mlrunbook.domain.incident import TRANSITIONS, IncidentType, Severity, Status
from mlrunbook.domain.investigation.findings import State
from mlrunbook.domain.observed import ServingConfig, ServingState, ServingStatus
from mlrunbook.domain.policy.judging import PRECISION
from mlrunbook.domain.policy.modes import Mode
from mlrunbook.response.carried_mode import mode_of
from mlrunbook.response.communication.notifications import safety_notices, send_to_stakeholders, snapshot
from mlrunbook.response.containment import breach, emergency
from mlrunbook.response.execution import dry_run
from mlrunbook.response.execution.approvals import approve_by_rule, request
from mlrunbook.response.execution.plans import apply_or_page, is_carried_out, plan_of, report_left_out
from mlrunbook.response.investigation import investigation
from mlrunbook.response.lifecycle.flapping import automation_held
from mlrunbook.response.measurement import feature_store, recent_changes
from mlrunbook.response.measurement.metrics import is_dangerous, metrics
from mlrunbook.response.plan_state import valid_approval
from mlrunbook.response.run import ACTOR, Run
from mlrunbook.response.tried import or_none
from mlrunbook.store import incidents, journal, plans, records

REPLAY_ROWS = 5000
PROPOSES = "mode propose: a person decides about every change"


def plan(run: Run) -> ContainmentDecided:
    """Decide the containment once: an automatic plan on named rules, and perhaps a mitigation for a person to decide."""
    if found := run.recall(ContainmentDecided):
        return found
    _finish_what_began(run)
    made, left_out = decided(run)
    with run.write() as conn:
        return _record(run, conn, made, left_out)


def decided(run: Run) -> tuple[Containment, list[tuple[Action, str]]]:
    """What Step 2 asks for now, rehearsed, and what a dry run has refused. Nothing is stored."""
    triage, world, incident = run.recall(Triage), run.world, run.incident()
    assert triage is not None  # step 1 comes first
    isolate = breach.verdict(run)
    with world.transaction() as conn:
        held = automation_held(conn, run.incident_id, now=world.now())
        asks = mode_of(conn, world.policy, run.incident_id, incident.model) is Mode.PROPOSE  # in mode observe it is what would be done
    by_itself = frozenset() if held or asks else unspoken(world.policy.containment.automatic, emergency.ordered_things(run))
    rules = replace(world.policy.containment, automatic=by_itself)
    seen = _situation(run, triage, isolate)
    made = plan_containment(run.incident_id, incident.model, triage.assessment, seen, rules, isolate=isolate, backed=triage.backed)
    waits = (f"nothing is done by itself: {held}",) if held else (PROPOSES,) if asks else ()
    return _dry_run(run, made._replace(reasons=(*waits, *made.reasons)))


def _record(run: Run, conn: Connection, made: Containment, left_out: Sequence[tuple[Action, str]]) -> ContainmentDecided:
    if standing := records.recall(conn, run.incident_id, ContainmentDecided):
        return standing
    now = run.world.now()
    for action, why in left_out:
        report_left_out(run, conn, action, why)
    # Contained anew where it was reopened or got worse: a plan of the same words would count as carried out, or as asked about.
    again, worse = records.recall(conn, run.incident_id, Reopened), records.recall(conn, run.incident_id, SeveritySet)
    anew = [f"reopened at {again.at}"] if again else []
    anew += [f"{worse.to} since {worse.at.isoformat()}"] if worse else []
    automatic, mitigation = (replace(p, reasons=(*p.reasons, *anew)) if p and anew else p for p in (made.automatic, made.mitigation))
    if automatic:
        plans.propose(conn, automatic, now=now)
        approve_by_rule(conn, automatic, now=now)
    if mitigation:
        plans.propose(conn, mitigation, now=now)
        request(conn, run.world.policy, mitigation, now=now)
    run.note(conn, "containment", "Containment: " + "; ".join(made.reasons or ["no step applies"]))
    isolates = made.automatic is not None and any(isinstance(a, Isolate) for a in made.automatic.actions)
    digests = [p.digest if p else None for p in (automatic, mitigation)]
    return run.keep(conn, ContainmentDecided(made.reasons, isolates, *digests))


def _finish_what_began(run: Run) -> None:
    """A containment that a rise of the severity interrupted: an action that may have been applied is settled before another plan."""
    with run.world.transaction() as conn:
        rows = [r for r in journal.of_incident(conn, run.incident_id) if r.state in (ActionState.INTENDED, ActionState.APPLYING)]
        planned = {r.plan_digest: plans.get(conn, run.incident_id, r.plan_digest) for r in rows}
    for row in rows:
        plan = planned[row.plan_digest]
        if plan.kind is not PlanKind.EMERGENCY and limits_damage(plan, row.ordinal):  # orders are seen through before all else
            apply_or_page(run, row.plan_digest, row.ordinal)


def _dry_run(run: Run, decided: Containment) -> tuple[Containment, list[tuple[Action, str]]]:
    """What a dry run refuses is left out of the automatic plan, where it must not hold the rest up, with the reason; and is not offered."""
    left_out: list[tuple[Action, str]] = []
    if automatic := decided.automatic:
        keep, left_out = dry_run.left_out(automatic.actions, dry_run.dry_run(run.world, automatic.model, automatic.actions))
        carried = replace(automatic, actions=tuple(automatic.actions[i] for i in keep)) if keep else None
        decided = decided._replace(automatic=carried)
    if offer := decided.mitigation:
        tried = dry_run.dry_run(run.world, offer.model, offer.actions)
        refused = dry_run.refusal(offer, tried)
        if refused and offer.kind is not PlanKind.ISOLATION:  # officers are asked in any case, and read what must be mended first
            decided = decided._replace(mitigation=None, reasons=(*decided.reasons, refused))
        else:
            decided = decided._replace(mitigation=tried.shown(offer))
    return decided, left_out


def _situation(run: Run, triage: Triage, isolate: Verdict | None) -> Situation:
    assessment, pending_work_orders, has_work_orders = triage.assessment, triage.affected.pending_work_orders or 0, triage.has_work_orders
    if isolate and (isolate.is_trusted or not assessment.dangerous):
        return Situation(pending_work_orders, has_work_orders)  # without a look at the world: it could only delay
    if assessment.severity is Severity.HIGH:
        _check_first(run)
    status, state = _status(run), _state(run)
    previous = status.previous_version if status else None
    return Situation(
        pending_work_orders,
        has_work_orders,
        status,
        state,
        previous_is_dangerous=is_dangerous(run, previous) if previous else None,
        raise_to=_threshold_to_raise_to(run, state) if assessment.excessive_false_positives else None,
        recent_deployment=_deployed_within_a_day(run),
        blind=_blind(run) if assessment.dangerous else None,
        no_route=_no_route(run, previous) if assessment.dangerous and previous else None,
        no_switches=_no_switches(run) if state is None or state.config is None else None,
    )


def _no_switches(run: Run) -> str | None:
    """Why nothing about the server can be set; None where it can, or where nobody can tell now."""
    try:
        run.world.runtime.read_config(run.incident().model)
    except Refused as error:
        return str(error)
    except Exception:  # away, or not understood: what is set is tried, and people hear of it where it fails
        return None
    return None


def _no_route(run: Run, version: str) -> str | None:
    model = run.incident().model
    return dry_run.dry_run(run.world, model, [RouteTraffic(model, version)]).refused.get(0)


def announce(run: Run) -> None:
    """Status, the people of a safety risk, and the initial notification (runbook, Step 5: within 1 hour)."""
    triage, decided = run.recall(Triage), run.recall(ContainmentDecided)
    if run.recall(Contained):
        return
    safety_risk = triage is not None and triage.assessment.safety_risk
    pending = _pending(run) if safety_risk else None
    is_contained = decided is not None and decided.automatic is not None and is_carried_out(run, plan_of(run, decided.automatic))
    with run.write() as conn:
        policy, now = run.world.policy, run.world.now()
        may_be_said = Status.CONTAINED in TRANSITIONS[incidents.get(conn, run.incident_id).status]  # not while a fix is measured
        if is_contained and may_be_said:
            incidents.set_status(conn, run.incident_id, Status.CONTAINED, why="every containment action is read back", actor=ACTOR, now=now)
        incident = incidents.get(conn, run.incident_id)
        if safety_risk and triage is not None and triage.has_work_orders:
            safety_notices(conn, policy, incident, pending, now=now)
        if incident.severity is not Severity.LOW:
            message = initial_notification(snapshot(conn, policy, incident, now=now))
            send_to_stakeholders(conn, policy, incident, message, key="initial", now=now)
        run.keep(conn, Contained(now))


def _pending(run: Run) -> Sequence[PendingWorkOrder] | None:
    """None: they cannot be read; people are told so at once and look themselves."""

    def read() -> list[PendingWorkOrder]:
        pending = run.world.platform.work_orders(run.incident().model, state="pending")
        return [PendingWorkOrder(one.id, one.asset_id, one.created_at) for one in pending]

    return or_none("the list of work orders", read)


def approved_mitigation(run: Run) -> str | None:
    """The digest of a mitigation, or of an isolation, that a person has approved and that is not carried out yet."""
    for kind in (PlanKind.MITIGATION, PlanKind.ISOLATION):
        with run.world.transaction() as conn:
            proposed = plans.current(conn, run.incident_id, kind)
            if proposed is None or any(lifts_isolation(action) for action in proposed.actions):
                continue
            approved = valid_approval(conn, run.world.policy, proposed, now=run.world.now())[0]
        if approved and not is_carried_out(run, proposed):
            return proposed.digest
    return None


def _check_first(run: Run) -> None:
    """Runbook, Step 2, High: recent deployments, drift and the feature store; the metrics triage has just read. The investigation
    takes the findings over and reads the feature store through Feast itself, which takes longer than containment may wait."""
    said = [line for name in ("recent_changes", "data_quality") for line in investigation.check(run, name)]
    said += [f"{f.state}: {f.sentence}" for f in feature_store.quick_check(run)]
    suspect = [line.removeprefix("suspect: ") for line in said if line.startswith("suspect: ")]
    with run.write() as conn:
        run.note(conn, "containment", f"Checked first: {'; '.join(suspect) or 'nothing suspect in changes, data and feature store'}")


def _blind(run: Run) -> str | None:
    """Why no version would see well now, from what can be read at once."""
    if paused := [s.view for s in feature_store.schedules(run) or () if s.suspended]:
        return f"the materialization of {', '.join(paused)} is suspended"
    return next((f.sentence for f in feature_store.quick_check(run) if f.state is State.SUSPECT), None)


def _status(run: Run) -> ServingStatus | None:
    return or_none("the status", lambda: run.world.platform.status(run.incident().model))


def _state(run: Run) -> ServingState | None:
    return or_none("the look at the model server", lambda: run.world.runtime.observe(run.incident().model))


def _deployed_within_a_day(run: Run) -> bool | None:
    """Runbook, Step 2, High: "Check recent deployments (last 24 hours)"."""
    incident = run.incident()
    since = incident.detected_at - timedelta(hours=24)
    changes = or_none("the change history", lambda: recent_changes.of_model(run.world, incident.model, since=since))
    return None if changes is None else any(c.kind == "deployment" for c in changes)


def _threshold_to_raise_to(run: Run, state: ServingState | None) -> float | None:
    """The smallest threshold that brings precision back to its baseline on the newest known outcomes; None when none does."""
    config = state.config if state else None
    return None if config is None else or_none("the search for a threshold", lambda: _best_threshold(run, config))


def _best_threshold(run: Run, config: ServingConfig) -> float | None:
    incident, limit = run.incident(), run.policy.severity.drops.most(PRECISION)
    floor = metrics(run).baseline.confusion.precision
    if floor is None or incident.type is IncidentType.INFRASTRUCTURE:
        return None
    known = run.world.platform.prediction_log(incident.model, limit=REPLAY_ROWS, labelled_only=True)
    chosen = choose_threshold(
        [p.score for p in known], [bool(p.outcome) for p in known], precision_floor=floor * (1 - limit), current=config.threshold
    )
    return chosen.threshold
