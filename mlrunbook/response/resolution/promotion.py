"""Path C around the gate: what the approver is shown of the candidate, and the watch over it once it serves.

The candidate itself is trained, validated and shadowed before anybody is asked (`response/resolution/candidate.py`).
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from mlrunbook.domain.actions import Action, Path, Plan, PlanKind, Promote, RollBack
from mlrunbook.domain.evaluation.performance import Confusion
from mlrunbook.domain.evaluation.version_comparison import Decision, promotion_fell
from mlrunbook.domain.resolution.plan import Candidate
from mlrunbook.response.execution.approvals import approve_by_rule
from mlrunbook.response.execution.plans import apply_action
from mlrunbook.response.run import Run
from mlrunbook.store import plans, records

RETURN_RULE = "retrain.return_on_regression"
LOOK_EVERY_S = 60.0  # at least; a watch that ends sooner is looked at when it ends


def candidate(run: Run) -> Candidate | str:
    """The version that has passed validation and shadow, or the sentence that says why there is none."""
    validation, shadow = run.recorded("validation"), run.recorded("shadow")
    if validation is None:
        return "none was trained"
    if validation["verdict"] != Decision.PROMOTE:
        return str(validation["sentence"])
    if shadow is None or shadow["passed"] is not True:
        return str(shadow["sentence"]) if shadow else "it has not been in the shadow of live traffic"
    checks = tuple(f"{c['name']}: {c['sentence']}" for c in validation["checks"])
    reasons = (f"validation: {validation['sentence']}", f"shadow: {shadow['sentence']}")
    return Candidate(str(validation["version"]), reasons, checks)


def watched(run: Run, recovery: dict[str, Any]) -> dict[str, Any]:
    """`recovery` as it stands; for a promoted version only once the watch window is over. A fall within it gives `recovered` False."""
    applied = run.recorded("applied") or {}
    if applied.get("path") != Path.RETRAIN or run.recorded("promotion_watch"):
        return recovery
    now = run.world.now()
    ends = datetime.fromisoformat(applied["at"]) + timedelta(seconds=run.world.policy.retraining.watch_s)
    fell, sentence = _fell(run, since=datetime.fromisoformat(applied["at"]))
    if fell:
        with run.write() as conn:
            run.note(conn, "recovery", f"Promotion watch: {sentence}")
            records.forget(conn, run.incident_id, "recovery")
        return {**recovery, "recovered": False, "sentence": sentence}
    if now < ends:
        left_s = (ends - now).total_seconds()
        waiting = f"{recovery['sentence']}; the promoted version is watched until {ends:%H:%M:%S} UTC"
        return {**recovery, "recovered": None, "sentence": waiting, "look_again_s": min(left_s + 0.5, LOOK_EVERY_S)}
    with run.write() as conn:
        run.note(conn, "recovery", f"Promotion watch over: {sentence}")
        run.record(conn, "promotion_watch", {"at": now, "sentence": sentence})
    return recovery


def _fell(run: Run, *, since: datetime) -> tuple[bool | None, str]:
    """Live predictions of the promoted version against what it was promoted on."""
    validation = run.recorded("validation") or {}
    live = run.world.platform.metrics(run.incident().model, since=since, version=validation["version"]).current.confusion
    drops = run.world.policy.severity.drops
    return promotion_fell(Confusion(**validation["candidate"]), live, drops, version=str(validation["version"]))


def return_to_previous(run: Run) -> str | None:
    """A promotion that did not hold is taken back by itself, once; the version that then serves. None where nothing was promoted."""
    applied = run.recorded("applied") or {}
    if applied.get("path") != Path.RETRAIN:
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
    if (standing := run.recorded("return_plan")) and standing["promoted"] == promoted:
        with run.world.transaction() as conn:
            return plans.get(conn, run.incident_id, standing["digest"])
    if promoted is None or status.serving_version != promoted or status.previous_version is None:
        return None  # somebody has acted already
    actions: tuple[Action, ...] = (RollBack(model, status.previous_version, reason=f"{promoted} did not hold after its promotion"),)
    why = f"{promoted} did not hold within the watch window: {status.previous_version} serves again"
    plan = Plan(run.incident_id, PlanKind.UNDO, model, actions, (why,), rule=RETURN_RULE, expected=f"{status.previous_version} serves")
    with run.write() as conn:
        digest = plans.propose(conn, plan, now=run.world.now())
        approve_by_rule(conn, plan, now=run.world.now())
        records.forget(conn, run.incident_id, "return_plan")
        run.record(conn, "return_plan", {"digest": digest, "promoted": promoted})
        run.note(conn, "containment", why[:1].upper() + why[1:])
    return plan
