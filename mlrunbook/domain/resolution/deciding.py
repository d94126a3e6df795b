"""May a person still say yes or no to a plan? Every no says what is so already, and how to take it back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from mlrunbook.domain.action_state import BEGUN, SETTLED, ActionState
from mlrunbook.domain.actions import (
    Action,
    Configure,
    Isolate,
    Plan,
    PlanKind,
    Promote,
    RollBack,
    RouteTraffic,
    Scale,
    Stage,
    lifts_isolation,
)
from mlrunbook.domain.containment.emergency import undoes_of


class Standing(StrEnum):
    """Where a plan stands. Only a pending one waits for a decision."""

    PENDING = "pending"
    APPROVED = "approved"
    REJECTED = "rejected"
    REPLACED = "replaced"
    LAPSED = "lapsed"  # an order that nobody began before its approval expired
    CARRIED_OUT = "carried_out"


@dataclass(frozen=True)
class Step:
    """One action of a plan and how far the journal says it got. `state` None: not begun."""

    action: Action
    state: str | None = None
    before: Mapping[str, Any] | None = None
    taken_back: bool = False

    @property
    def begun(self) -> bool:
        return self.state in BEGUN


@dataclass(frozen=True)
class PlanState:
    """`why` explains the standing in a sentence."""

    plan: Plan
    standing: Standing
    why: str
    steps: tuple[Step, ...]

    @property
    def begun(self) -> bool:
        return any(step.begun for step in self.steps)

    @property
    def waits(self) -> bool:
        """It waits for a person; what a rule plans needs none."""
        return self.standing is Standing.PENDING and self.plan.rule is None


def standing_of(plan: Plan, steps: Sequence[Step], *, replaced: bool, rejected: bool, approved: bool, expired: bool, why: str) -> PlanState:
    """What holds of the plan, the strongest first. `expired`: somebody approved it and none of these approvals counts any more; `why` is
    what `approval.granted` says."""
    standing, said = Standing.PENDING, why
    if steps and all(step.state in SETTLED for step in steps):
        standing, said = Standing.CARRIED_OUT, f"carried out: {words(steps)}"
    elif replaced:
        standing, said = Standing.REPLACED, f"plan {plan.digest[:12]} was replaced by a newer one"
    elif rejected:
        standing = Standing.REJECTED
    elif approved:
        standing = Standing.APPROVED
    elif expired and plan.kind is PlanKind.EMERGENCY and not any(step.begun for step in steps):
        standing, said = Standing.LAPSED, f"the order lapsed before anything was done: {why}"
    return PlanState(plan, standing, said, tuple(steps))


def refusal(decision: str, state: PlanState) -> str | None:
    """Why this decision (approved, rejected) about the plan comes too late; None where it may be taken."""
    plan = state.plan
    name, see = f"plan {plan.digest[:12]}", f"`mlrunbook incidents show {plan.incident_id}`"
    if decision == "rejected" and state.begun:
        return f"{name} can no longer be rejected: {words(state.steps)}{_what_is_left(state)}. {taking_back(plan, state.steps)}"
    if state.standing is Standing.REPLACED:
        return f"{state.why}; look at {see} and decide about that"
    if decision == "rejected":
        return None
    if state.standing is Standing.CARRIED_OUT:
        return f"{name} is {state.why}. Nothing is left to approve"
    if state.standing is Standing.REJECTED:
        return f"{state.why}: it stays rejected, a new plan is needed"
    if state.standing is Standing.LAPSED:
        return f"{state.why}. If you still want it, give the order again: `mlrunbook incidents contain {plan.incident_id}`"
    return None


def words(steps: Sequence[Step]) -> str:
    """What has begun, as one tells a colleague: "rolled back to v1.5.0; under way: restart the m server"."""
    return "; ".join(_said(step) for step in steps if step.begun)


_SAID_OF: dict[str, str] = {
    ActionState.ALREADY_HELD: "was so already",
    ActionState.UNKNOWN: "nobody knows yet whether this happened",
}


def _said(step: Step) -> str:
    if step.state == ActionState.DONE:
        past = step.action.past
        return past[:1].lower() + past[1:] + (" (taken back since)" if step.taken_back else "")
    prefix = _SAID_OF.get(step.state or "", "under way")
    return f"{prefix}: {step.action.summary}"


def _what_is_left(state: PlanState) -> str:
    left = [step.action.summary for step in state.steps if step.state is None]
    if not left or state.standing is Standing.APPROVED:
        return f"; next: {'; '.join(left)}" if left else ""
    return f"; not done, and not before somebody approves it: {'; '.join(left)}"


def taking_back(plan: Plan, steps: Sequence[Step]) -> str:
    """The order or deployment that takes back what has begun; for what cannot be taken back, that."""
    ways = dict.fromkeys(
        way
        for step in steps
        if step.state in (ActionState.DONE, ActionState.UNKNOWN) and not step.taken_back
        if (way := _way_back(plan, step))
    )
    if ways:
        return f"To take it back: {'; or: '.join(ways)}"
    if any(step.state in (ActionState.INTENDED, ActionState.APPLYING) for step in steps):
        return f"See how it ends, then decide: mlrunbook incidents timeline {plan.incident_id} --follow"
    return "There is nothing to take back"


def _way_back(plan: Plan, step: Step) -> str | None:
    action, before = step.action, step.before or {}
    contain = f"mlrunbook incidents contain {plan.incident_id}"
    match action:
        case RollBack() | Promote():
            return _serving_again(contain, action.model, before.get("serving_version"))
        case Isolate():
            what = f"order it again: report a security incident of {action.model}" if lifts_isolation(action) else "the officers lift it"
            return f"{what}: mlrunbook incidents show {plan.incident_id}"
        case Stage():
            return "reject its promotion, and it leaves the shadow" if action.version else None
        case Scale() | RouteTraffic() | Configure() if _limits_damage(plan):
            return f"{contain} --take-back --reason '...'"
        case Scale():
            return f"{contain} --stop-serving --reason '...'" if action.replicas else None
        case RouteTraffic():
            former = before.get("version") or before.get("serves")
            return f"{contain} --route {former} --reason '...'" if former and former != action.version else None
        case Configure() if "threshold" in action.settings and "threshold" in before:
            asked = f"-p model={action.model} -p threshold={before['threshold']:g} -p reason='...' -p changedBy='...'"
            return f"prefect deployment run threshold/threshold {asked}"
    return None


def _serving_again(contain: str, model: str, former: str | None) -> str | None:
    if former is None:
        return None
    for_good = f"prefect deployment run rollback/rollback -p model={model} -p targetVersion={former} -p reason='...' -p rolledBackBy='...'"
    return f"{contain} --route {former} --reason '...' (at once), or {for_good} (planned and approved)"


def _limits_damage(plan: Plan) -> bool:
    """`--take-back` is about these."""
    return plan.kind in (PlanKind.CONTAINMENT, PlanKind.MITIGATION, PlanKind.EMERGENCY) and undoes_of(plan) is None
