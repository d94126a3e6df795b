"""May this change be made now? The approval that it rests on, no newer order against it, evidence kept, no guardrail in its way. Asked by
`execute` alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection

from mlrunbook.domain.actions import Action, Isolate, Plan, PlanKind, Scale
from mlrunbook.domain.approval import POLICY_RULE
from mlrunbook.domain.containment.orders import WHAT_ANSWERS, OrderState, thing_of
from mlrunbook.domain.errors import NotApproved, NotFound, Overtaken, Refused, Transient
from mlrunbook.domain.incident import Severity
from mlrunbook.domain.policy.modes import Mode
from mlrunbook.domain.roles import Role
from mlrunbook.response.carried_mode import mode_of
from mlrunbook.response.communication.notifications import Page, page
from mlrunbook.response.execution import standing_orders
from mlrunbook.response.plan_state import rules_for, valid_approval
from mlrunbook.response.world import World
from mlrunbook.store import evidence, incidents, journal, plans, timeline
from mlrunbook.store.plans import StoredApproval

OVERRIDES = {PlanKind.UNDO: "taking containment back", PlanKind.EMERGENCY: "a person's order"}


def allowed(conn: Connection, world: World, plan: Plan, ordinal: int, *, started: bool) -> StoredApproval | None:
    """The approval this change rests on, and no order and no guardrail in its way. A change that has `started` is seen through while its
    approval stands, and an order also afterwards; None: it is not, so it is only looked at. Raises NotApproved for what has not started."""
    now, action = world.now(), plan.actions[ordinal]
    approval, why = valid_approval(conn, world.policy, plan, now=now)
    if plan.kind is PlanKind.EMERGENCY:
        approval, why = _order_counts(conn, world, plan, ordinal, approval, why)
    elif approval and (order := standing_orders.contradicting(conn, world.policy, plan, action, since=approval.id, now=now)):
        approval, why = None, f"{order.plan.reasons[0]}; what was approved before is not carried out after it: decide anew"
    if approval is None:
        if started:
            return None
        raise NotApproved(f"{action.summary}: {why}")
    if not evidence.manifest(conn, plan.incident_id):
        raise Refused(f"{action.summary}: no evidence has been preserved yet; nothing is altered before that")
    if not started:
        _within_mode(conn, world, plan, action, automatic=approval.door == POLICY_RULE)
        _within_guardrails(conn, world, plan, action, automatic=approval.door == POLICY_RULE)
    return approval


def _within_mode(conn: Connection, world: World, plan: Plan, action: Action, *, automatic: bool) -> None:
    """Nothing rests on a rule where people decide every change, and nothing at all where the model is only observed. Raises NotApproved."""
    mode = mode_of(conn, world.policy, plan.incident_id, plan.model)
    if mode is Mode.OBSERVE:
        raise NotApproved(f"{action.summary}: {plan.model} is in mode observe, and no person has reported or ordered anything")
    if automatic and mode is Mode.PROPOSE:
        raise NotApproved(f"{action.summary}: {plan.model} is in mode propose: a person decides every change")


def check_turn(conn: Connection, plan: Plan, action: Action) -> None:
    """One incident acts on a model at a time; an order waits for nothing but the same change. Raises Transient."""
    kinds = (action.kind,) if plan.kind is PlanKind.EMERGENCY else ()
    if other := journal.other_incident_acting(conn, plan.incident_id, action.model, kinds=kinds):
        raise Transient(f"{action.summary}: {other} is changing {action.model} right now; one incident acts on a model at a time")


def check_as_we_left_it(conn: Connection, plan: Plan, action: Action, state: Mapping[str, Any]) -> None:
    """Taking back restores what was there before, unless somebody else has changed it since: then that stays. Raises Overtaken."""
    for key in action.target():
        seen = state.get(key)
        if seen is None:
            continue
        ours = journal.values_of(conn, plan.incident_id, action.kind, key)
        if seen not in ours:
            raise Overtaken(f"{action.summary}: somebody has set {key.replace('_', ' ')} to {seen} since: that stays")


def check_not_isolated(world: World, action: Action) -> None:
    """While a model server is isolated, its process and its version are evidence: no rule changes what serves, a person may."""
    try:
        isolated = world.runtime.observe(action.model).isolated
    except (Transient, NotFound):
        return  # the effect's own reading tells; a server that nobody manages here was not isolated from here
    if isolated:
        raise Refused(f"{action.summary}: the model server is isolated, nothing but a person's decision changes what it serves")


def _order_counts(
    conn: Connection, world: World, plan: Plan, ordinal: int, approval: StoredApproval | None, why: str
) -> tuple[StoredApproval | None, str]:
    """An order that has begun is seen through past its time; one that a newer order replaces is not. An isolated server is evidence."""
    now, action = world.now(), plan.actions[ordinal]
    one = next(o for o in standing_orders.of_model(conn, world.policy, plan.model, now=now) if o.plan.digest == plan.digest)
    if ordinal not in one.left and one.state is not OrderState.IN_FORCE:
        return None, f"it is {one.state}: {one.sentence}"
    if thing_of(action) in WHAT_ANSWERS and (holder := journal.isolating(conn, plan.model)):
        raise Refused(f"{action.summary}: {plan.model} is isolated, or about to be, for {holder}; an officer decides how it goes on")
    if approval is None and one.given.sent and not one.given.rejected:
        rows = plans.approvals_of(conn, plan.incident_id, plan.digest)
        return standing_orders.grant(rows, plan.digest, rules_for(world.policy, plan)), why
    return approval, why


def _within_guardrails(conn: Connection, world: World, plan: Plan, action: Action, *, automatic: bool) -> None:
    """Freeze windows, and the limits of automation. A critical stop, a person's order and any undo override them, and a page says so."""
    policy, now = world.policy.for_model(action.model), world.now()
    limit = policy.guardrails.changes_per_model_and_hour
    broken = None
    if window := policy.freeze_at(now):
        broken = f"the freeze window until {window.end:%Y-%m-%d %H:%M %Z} ({window.reason})"
    elif automatic and journal.automatic_in_last_hour(conn, action.model, now=now) >= limit:
        broken = f"{limit} automatic changes to {action.model} in the last hour, the limit"
    elif automatic and isinstance(action, Scale) and action.replicas < policy.guardrails.min_replicas:
        broken = f"the minimum of {policy.guardrails.min_replicas} replica(s)"
    if broken is None:
        return
    incident = incidents.get(conn, plan.incident_id)
    what = OVERRIDES.get(plan.kind) or ("an isolation" if isinstance(action, Isolate) else "a critical stop")
    if incident.severity is not Severity.CRITICAL and plan.kind not in OVERRIDES and not isinstance(action, Isolate):
        raise Refused(f"{action.summary}: stopped by {broken}; wait, or change the policy")
    why = f"guardrail overridden for {what}: {action.summary}, despite {broken}"
    timeline.append(conn, plan.incident_id, "guardrail", why.capitalize(), actor="mlrunbook", at=now)
    page(conn, policy, incident, Page(Role.ML_TEAM_LEAD, why, f"guardrail:{plan.digest[:12]}:{action.kind}"), now=now)
