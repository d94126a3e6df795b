"""Step 4: the plan a person decides about, the check that it worked, and taking containment back."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import timedelta

from sqlalchemy import Connection

from mlrunbook.domain.actions import Action, Configure, Path, Plan, PlanKind, Promote, RollBack
from mlrunbook.domain.containment.taking_back import Undo, undo_plan
from mlrunbook.domain.detection.flapping import Reopened
from mlrunbook.domain.errors import Refused, Transient
from mlrunbook.domain.evaluation.outcomes import next_look_s
from mlrunbook.domain.incident import Status
from mlrunbook.domain.observed import ServingState
from mlrunbook.domain.records import OF_THE_FIX, Record
from mlrunbook.domain.resolution.fix import Applied, Fix, HumanResolution
from mlrunbook.domain.resolution.paths import Situation
from mlrunbook.domain.resolution.plan import ResolutionPlan, UndoPlan, propose
from mlrunbook.domain.resolution.recovery import OutcomesOverdue, Recovery, RecoveryOutlook
from mlrunbook.domain.resolution.request import Request
from mlrunbook.domain.roles import Role
from mlrunbook.response.communication import reports
from mlrunbook.response.communication.notifications import Page, request_action
from mlrunbook.response.containment import emergency
from mlrunbook.response.execution import dry_run
from mlrunbook.response.execution.approvals import approve_by_rule
from mlrunbook.response.execution.plans import executed_containment, is_carried_out, plan_of, report_left_out
from mlrunbook.response.resolution import path, promotion, recovery, threshold
from mlrunbook.response.resolution.since_fix import fixed_at, since_fix
from mlrunbook.response.run import ACTOR, Run
from mlrunbook.response.tried import or_none
from mlrunbook.store import incidents, journal, plans, records

UNDO_RULE = "containment.undo_on_verified_recovery"


def plan(run: Run) -> str | None:
    """The digest of the resolution plan, made once; None when there is no safe automatic path (`why_no_plan` says why)."""
    if standing := run.recall(ResolutionPlan):
        return standing.digest
    made = proposed(run)
    with run.write() as conn:
        if standing := records.recall(conn, run.incident_id, ResolutionPlan):
            return standing.digest
        if isinstance(made, str):
            run.note(conn, "plan", f"No plan: {made}")
            return run.keep(conn, ResolutionPlan(digest=None, why=made)).digest
        return run.keep(conn, ResolutionPlan(plans.propose(conn, made, now=run.world.now()), made.path)).digest


def proposed(run: Run) -> Plan | str:
    """The plan, rehearsed; or the sentence that says why there is none."""
    incident, state = run.incident(), _observed(run)
    diagnosis, facts = path.chosen(run, state)
    fit = promotion.candidate(run) if diagnosis.path is Path.RETRAIN else None
    if isinstance(fit, str):
        return f"the retrained candidate is not promoted: {fit}"
    target = diagnosis.target_threshold if diagnosis.path is Path.THRESHOLD else None
    effect = threshold.expected(run, target, state) if target is not None else None
    executed = executed_containment(run)
    made = propose(Situation(run.incident_id, incident.model, diagnosis, facts, state, executed, fit, effect))
    if made is None:
        return f"{diagnosis.headline}. {diagnosis.advice}"
    if request := run.recall(Request):
        made = replace(made, requested_by=request.requested_by)
    if again := run.recall(Reopened):  # decided anew: the yes to the plan that did not hold covers no second attempt
        made = replace(made, reasons=(*made.reasons, f"reopened at {again.at}: {again.why}"))
    tried = dry_run.dry_run(run.world, incident.model, made.actions)
    if refused := dry_run.refusal(made, tried):
        return f"{diagnosis.headline}. {diagnosis.advice}: {refused}"
    return tried.shown(made)


def why_no_plan(run: Run) -> str:
    """For the human who is asked instead."""
    standing = run.recall(ResolutionPlan)
    return (standing and standing.why) or "there is no safe automatic path: look at the findings, fix it"


def begin(run: Run, digest: str) -> None:
    wanted = plan_of(run, digest)
    if run.recall(Applied):
        return
    with run.write() as conn:
        if incidents.get(conn, run.incident_id).status is Status.MONITORING:  # of a fix by hand: a person asks for a path instead
            why = "the fix that was measured is not the last word"
            incidents.set_status(conn, run.incident_id, Status.INVESTIGATING, why=why, actor=ACTOR, now=run.world.now())
        why = "; ".join(a.summary for a in wanted.actions)
        incidents.set_status(conn, run.incident_id, Status.RESOLVING, why=why, actor=ACTOR, now=run.world.now())


def applied(run: Run, digest: str) -> None:
    """Every action is read back; what the running server has loaded must agree. Then: monitoring."""
    if run.recall(Applied):
        return
    wanted = plan_of(run, digest)
    serves = [a.target_version for a in wanted.actions if isinstance(a, RollBack)]
    serves += [a.version for a in wanted.actions if isinstance(a, Promote)]
    _confirm_running(run, [a for a in wanted.actions if isinstance(a, Configure)], serves)
    with run.write() as conn:
        now = run.world.now()
        assert wanted.path is not None  # a resolution plan takes a path
        run.keep(conn, Applied(now, wanted.path, run.world.elapsed()))
        why = "every change is read back; measuring fresh predictions"
        incidents.set_status(conn, run.incident_id, Status.MONITORING, why=why, actor=ACTOR, now=now)


def _confirm_running(run: Run, configured: list[Configure], serves: list[str]) -> None:
    """Path A: `GET .../status`. Path D: "read the threshold back from the running server"."""
    model = run.incident().model
    for action in configured:
        seen = run.world.runtime.observe(model)
        loaded = seen.config.as_dict() if seen.config else {}
        wrong = {k: loaded.get(k) for k, v in action.settings.items() if loaded.get(k) != v}
        if wrong:
            raise Transient(f"the running server has {wrong}, not {dict(action.settings)}, loaded; waiting for its restart")
    for version in serves:
        status = run.world.platform.status(model)
        if status.serving_version != version:
            raise Refused(f"{model} serves {status.serving_version}, not {version}: somebody changed it after us")


def measure_recovery(run: Run) -> RecoveryOutlook:
    """Judge predictions made after the fix; waits up to the world's `patience_s`. `recovered` None: too early to say, or a promoted version
    is still being watched."""
    deadline = time.monotonic() + run.world.patience_s
    if standing := run.recall(Recovery):
        return _watched(run, standing, deadline)
    fix = _fix(run)
    _monitor(run)
    while True:
        seen = recovery.judge(run, fix.at)
        if seen.recovered is not None or time.monotonic() > deadline:
            break
        run.world.sleep(min(run.world.policy.recovery_watch.check_every_s, 1.0))
    if seen.recovered is None:
        return _not_known_yet(run, seen, fix)
    with run.write() as conn:
        run.note(conn, "recovery", f"Recovery check: {seen.sentence}", {"f1": seen.f1, "labelled": seen.labelled})
        if seen.recovered:
            seen = run.keep(conn, seen)
        else:
            incidents.set_status(conn, run.incident_id, Status.INVESTIGATING, why=seen.sentence, actor=ACTOR, now=run.world.now())
    return _watched(run, seen, deadline) if seen.recovered else RecoveryOutlook(False, seen.sentence)


def _monitor(run: Run) -> None:
    """A fix by hand is measured in the same status as one of ours."""
    if run.recall(HumanResolution) and run.incident().status in (Status.INVESTIGATING, Status.CONTAINED):
        with run.write() as conn:
            why = "a person says it is fixed; measuring fresh predictions"
            incidents.set_status(conn, run.incident_id, Status.MONITORING, why=why, actor=ACTOR, now=run.world.now())


def _not_known_yet(run: Run, seen: Recovery, fix: Fix) -> RecoveryOutlook:
    """While predictions flow and only their outcomes are missing, the incident stays in monitoring for as long as they take, and the
    team lead is told once that they are late. Anything else that cannot be measured in time goes to a human (`give_up`)."""
    elapsed = since_fix(run, fix)
    overdue = elapsed > timedelta(minutes=run.world.policy.recovery_watch.give_up_after_min)
    if not seen.waits_for_outcomes:
        return RecoveryOutlook(None, seen.sentence, give_up=overdue)
    if overdue and not run.recall(OutcomesOverdue):
        with run.write() as conn:
            if not records.recall(conn, run.incident_id, OutcomesOverdue):
                run.keep(conn, OutcomesOverdue(seen.sentence))
                why = f"outcomes are late, so the recovery cannot be judged: {seen.sentence}"
                todo = "Find out what holds outcomes up. The incident stays in monitoring and is measured as they come."
                incident = incidents.get(conn, run.incident_id)
                call = Page(Role.ML_TEAM_LEAD, why, "outcomes", todo)
                request_action(conn, run.world.policy, incident, call, now=run.world.now())
    return RecoveryOutlook(None, seen.sentence, look_again_s=next_look_s(elapsed.total_seconds(), seen.label_delay_s))


def _watched(run: Run, standing: Recovery, deadline: float) -> RecoveryOutlook:
    """A watch that ends within our patience is waited for here."""
    while True:
        seen = promotion.watched(run, standing)
        if seen.recovered is not None or time.monotonic() + seen.look_again_s > deadline:
            return seen
        run.world.sleep(min(seen.look_again_s, run.world.policy.recovery_watch.check_every_s))


def _fix(run: Run) -> Fix:
    """The last change of the plan was read back, or a human said it is fixed."""
    fix = run.recall(Applied) or run.recall(HumanResolution)
    if fix is None:
        raise Refused("nothing has been applied yet: there is no recovery to measure")
    return fix


def plan_undo(run: Run) -> UndoPlan:
    """What of the containment is taken back now, and why the rest is kept."""
    incident, since = run.incident(), fixed_at(run, _fix(run))
    with run.world.transaction() as conn:
        now = run.world.now()
        resolution = plans.current(conn, run.incident_id, PlanKind.RESOLUTION)
        if reported := reports.unanswered(conn, run.incident_id):
            raise Refused(f"containment stays: {reported}")
        if newer := emergency.in_force(conn, run.world.policy, incident, since=since, now=now):
            word = f"mlrunbook incidents contain {run.incident_id} --take-back"
            raise Refused(f"recovered, but ordered since the fix: {'; '.join(newer)}; only a person takes that back: {word}")
        if left := emergency.not_in_force(conn, run.world.policy, incident, now=now):
            word = f"do it by hand and order it again, or withdraw it: mlrunbook incidents contain {run.incident_id} --take-back"
            raise Refused(f"recovered, but what was ordered is not in force: {'; '.join(left)}; {word}")
    if standing := run.recall(UndoPlan):
        return standing
    executed = executed_containment(run)
    held, asks = emergency.held_by_others(run), not run.acts
    undo = undo_plan(run.incident_id, incident.model, executed, resolution=resolution, state=_observed(run), held=held)
    undo, left_out = _feasible(run, undo)
    with run.write() as conn:
        if standing := records.recall(conn, run.incident_id, UndoPlan):
            return standing
        for action, why in left_out:
            report_left_out(run, conn, action, why)
        digest = _propose_undo(run, conn, undo.plan, asks=asks) if undo.plan else None
        for action_id, why in undo.kept.items():
            journal.set_kept(conn, action_id, why)
        if undo.kept:
            names = {row.id: row.summary for row in journal.of_incident(conn, run.incident_id)}
            kept = "; ".join(f"{names[i]} ({why})" for i, why in undo.kept.items())
            run.note(conn, "containment", f"Kept: {kept}")
        return run.keep(conn, UndoPlan(digest, undo.undoes, undo.kept))


def _propose_undo(run: Run, conn: Connection, plan: Plan, *, asks: bool) -> str:
    again = records.recall(conn, run.incident_id, Reopened)  # a plan of the same words would count as carried out
    anew = (f"reopened at {again.at}",) if again else ()
    wanted = replace(plan, rule=None if asks else UNDO_RULE, reasons=(*plan.reasons, *anew))
    digest = plans.propose(conn, wanted, now=run.world.now())
    if not asks:
        approve_by_rule(conn, wanted, now=run.world.now())
    return digest


def undo_to_decide(run: Run) -> str | None:
    """The digest of the taking back that a person decides about, where no rule does; None: there is none, or it is carried out."""
    undo = plan_undo(run)
    wanted = plan_of(run, undo.digest) if undo.digest else None
    return wanted.digest if wanted and wanted.rule is None and not is_carried_out(run, wanted) else None


def keep_contained(run: Run, digest: str) -> None:
    """A person has said no to taking it back: what is in force stays, for that reason."""
    with run.write() as conn:
        standing = records.recall(conn, run.incident_id, UndoPlan)
        if standing is None or standing.digest != digest:
            return
        why = "a person has rejected taking it back"
        for action_id in filter(None, standing.undoes):
            journal.set_kept(conn, action_id, why)
        run.note(conn, "containment", f"Kept: {why}")
        records.replace(conn, run.incident_id, replace(standing, digest=None), now=run.world.now())


def _feasible(run: Run, undo: Undo) -> tuple[Undo, list[tuple[Action, str]]]:
    """Without what a dry run refuses: that stays in force, with this reason, and the rest is taken back."""
    if undo.plan is None:
        return undo, []
    actions = undo.plan.actions
    tried = dry_run.dry_run(run.world, undo.plan.model, actions)
    keep, left_out = dry_run.left_out(actions, tried)
    reason = f"a dry run of taking it back was refused ({'; '.join(tried.refused.values())}); a person was asked"
    kept = {**undo.kept, **{u: reason for i, u in enumerate(undo.undoes) if u and i not in keep}}
    plan = replace(undo.plan, actions=tuple(actions[i] for i in keep)) if keep else None
    return Undo(plan, tuple(undo.undoes[i] for i in keep), kept), left_out


def reopen(run: Run) -> None:
    """The fix did not work: what was found and planned is put aside, a human decides how to go on."""
    with run.write() as conn:
        records.forget(conn, run.incident_id, *OF_THE_FIX)
        for name in records.with_prefix(conn, run.incident_id, Record.FINDINGS):
            records.forget(conn, run.incident_id, name)
        why = "the fix is put aside"
        incidents.set_status(conn, run.incident_id, Status.INVESTIGATING, why=why, actor=ACTOR, now=run.world.now())


def _observed(run: Run) -> ServingState | None:
    return or_none("the look at the model server", lambda: run.world.runtime.observe(run.incident().model))
