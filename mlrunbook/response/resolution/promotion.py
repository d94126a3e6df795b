"""Path C around the gate: what the approver is shown of the candidate, and the watch over it once it serves.

The candidate itself is trained, validated and shadowed before anybody is asked (`response/resolution/candidate.py`).
"""

from __future__ import annotations

from datetime import datetime, timedelta

from mlrunbook.domain.actions import Action, Path, Plan, PlanKind, Promote, RollBack
from mlrunbook.domain.errors import Refused
from mlrunbook.domain.evaluation.rewritten import judge_rewrites
from mlrunbook.domain.evaluation.version_comparison import Decision, promotion_fell
from mlrunbook.domain.observed import Missing
from mlrunbook.domain.records import Record
from mlrunbook.domain.resolution.candidate import Candidate, Shadow, Validation
from mlrunbook.domain.resolution.fix import Applied
from mlrunbook.domain.resolution.plan import ReturnPlan
from mlrunbook.domain.resolution.recovery import PromotionWatch, Recovery, RecoveryOutlook
from mlrunbook.response.execution.approvals import approve_by_rule
from mlrunbook.response.execution.plans import apply_action
from mlrunbook.response.resolution.since_fix import fixed_at, since_fix
from mlrunbook.response.run import Run
from mlrunbook.response.tried import tried
from mlrunbook.store import plans, records

RETURN_RULE = "retrain.return_on_regression"
LOOK_EVERY_S = 60.0  # at least; a watch that ends sooner is looked at when it ends


def candidate(run: Run) -> Candidate | str:
    """The version that has passed validation and shadow, or the sentence that says why there is none."""
    validation, shadow = run.recall(Validation), run.recall(Shadow)
    if validation is None:
        return "none was trained"
    if validation.verdict is not Decision.PROMOTE or validation.version is None:
        return validation.sentence
    if shadow is None or shadow.passed is not True:
        return shadow.sentence if shadow else "it has not been in the shadow of live traffic"
    checks = tuple(f"{check.name}: {check.sentence}" for check in validation.checks)
    return Candidate(validation.version, (f"validation: {validation.sentence}", f"shadow: {shadow.sentence}"), checks)


def watched(run: Run, recovery: Recovery) -> RecoveryOutlook:
    """`recovery` as it stands; for a promoted version only once the watch window is over. A fall within it gives `recovered` False."""
    applied, standing = run.recall(Applied), RecoveryOutlook(recovery.recovered, recovery.sentence)
    if applied is None or applied.path is not Path.RETRAIN or run.recall(PromotionWatch):
        return standing
    now = run.world.now()
    left_s = run.world.policy.retraining.watch_s - since_fix(run, applied).total_seconds()
    found = _fell(run, since=fixed_at(run, applied))
    if isinstance(found, Missing):  # the watch does not end unseen
        overdue = left_s < -60 * run.world.policy.recovery_watch.give_up_after_min
        why = f"the promoted version cannot be watched: {found.reason}"
        return RecoveryOutlook(None, why, give_up=overdue, look_again_s=LOOK_EVERY_S)
    fell, sentence = found
    if fell:
        with run.write() as conn:
            run.note(conn, "recovery", f"Promotion watch: {sentence}")
            records.forget(conn, run.incident_id, Record.RECOVERY)
        return RecoveryOutlook(False, sentence)
    if left_s > 0:
        ends = now + timedelta(seconds=left_s)
        waiting = f"{recovery.sentence}; the promoted version is watched until {ends:%H:%M:%S} UTC"
        return RecoveryOutlook(None, waiting, look_again_s=min(left_s + 0.5, LOOK_EVERY_S))
    with run.write() as conn:
        run.note(conn, "recovery", f"Promotion watch over: {sentence}")
        run.keep(conn, PromotionWatch(now, sentence))
    return standing


def _fell(run: Run, *, since: datetime) -> tuple[bool | None, str] | Missing:
    """Live predictions of the promoted version against what it was promoted on."""
    validation = run.recall(Validation)
    if validation is None or validation.version is None:
        raise Refused(f"the validation of what {run.incident_id} has promoted is not on record: nothing says what to compare it with")
    version, compared, policy = validation.version, validation.candidate, run.policy.severity

    def judged() -> tuple[bool | None, str] | Missing:
        seen = run.world.platform.metrics(run.incident().model, since=since, version=version)
        rewritten = judge_rewrites(seen, policy.outcomes)
        if rewritten.beyond:
            return Missing(f"nobody can say whether {version} holds: {rewritten.sentence}")
        return promotion_fell(compared, seen.current.confusion, policy.drops, version=version)

    return tried("the watch over the promoted version", judged)


def return_to_previous(run: Run) -> str | None:
    """A promotion that did not hold is taken back by itself, once; the version that then serves. None where nothing was promoted."""
    applied = run.recall(Applied)
    if applied is None or applied.path is not Path.RETRAIN or not run.acts:
        return None
    plan = _return_plan(run)
    if plan is None:
        return None
    for ordinal in range(len(plan.actions)):
        apply_action(run, plan.digest, ordinal)
    return next(a.target_version for a in plan.actions if isinstance(a, RollBack))


def _return_plan(run: Run) -> Plan | None:
    """Back to the version that served before the promotion; its state is in the promotion's journal row."""
    model = run.incident().model
    with run.world.transaction() as conn:
        resolution = plans.current(conn, run.incident_id, PlanKind.RESOLUTION)
    promoted = next((a.version for a in resolution.actions if isinstance(a, Promote)), None) if resolution else None
    status = run.world.platform.status(model)
    if (standing := run.recall(ReturnPlan)) and standing.promoted == promoted:
        with run.world.transaction() as conn:
            return plans.get(conn, run.incident_id, standing.digest)
    if promoted is None or status.serving_version != promoted or status.previous_version is None:
        return None  # somebody has acted already
    actions: tuple[Action, ...] = (RollBack(model, status.previous_version, reason=f"{promoted} did not hold after its promotion"),)
    why = f"{promoted} did not hold within the watch window: {status.previous_version} serves again"
    plan = Plan(run.incident_id, PlanKind.UNDO, model, actions, (why,), rule=RETURN_RULE, expected=f"{status.previous_version} serves")
    with run.write() as conn:
        digest = plans.propose(conn, plan, now=run.world.now())
        approve_by_rule(conn, plan, now=run.world.now())
        records.forget(conn, run.incident_id, Record.RETURN_PLAN)
        run.keep(conn, ReturnPlan(digest, promoted))
        run.note(conn, "containment", why[:1].upper() + why[1:])
    return plan
