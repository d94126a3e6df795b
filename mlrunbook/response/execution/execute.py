"""The one way to change the world: `execute(plan, ordinal)`.

    approval checked -> intent journaled with the state before -> target already there? record and stop
    -> applied -> read back until it holds -> done

Killed anywhere and run again, it goes on where the world is, not where the process was: a target that holds is not applied
again; a state that is neither the one before nor the target means somebody else acted, and a human is asked.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import Connection

from mlrunbook.domain.actions import Action, Isolate, Plan, PlanKind, Promote, RollBack, RouteTraffic, Scale, Stage, check_own
from mlrunbook.domain.approval import POLICY_RULE
from mlrunbook.domain.containment.emergency import limits_damage
from mlrunbook.domain.containment.orders import WHAT_ANSWERS, OrderState, thing_of
from mlrunbook.domain.errors import NotApproved, Overtaken, Refused, RunbookError, Transient, Unknown
from mlrunbook.domain.incident import Severity
from mlrunbook.domain.roles import Role
from mlrunbook.response.communication.notifications import page
from mlrunbook.response.execution import standing_orders
from mlrunbook.response.execution.handlers import HANDLERS, ActionHandler
from mlrunbook.response.plan_state import rules_for, valid_approval
from mlrunbook.response.world import World
from mlrunbook.store import evidence, incidents, journal, leases, plans, timeline
from mlrunbook.store.plans import StoredApproval

LOOK_EVERY_S = 0.2
OVERRIDES = {PlanKind.UNDO: "taking containment back", PlanKind.EMERGENCY: "a person's order"}
WHAT_SERVES = (RollBack, RouteTraffic, Promote, Stage)


def execute(world: World, lease: leases.Lease, plan: Plan, ordinal: int, *, undo_of: str | None = None) -> journal.Row:
    """Carry out one action of an approved plan, at most once, and return its journal row.

    Raises NotApproved, Fenced, Transient (try again: safe), Refused (will not work), Unknown (ask a human).
    """
    action, effect = plan.actions[ordinal], HANDLERS[plan.actions[ordinal].kind]
    with world.transaction() as conn:
        leases.check(conn, lease)
        check_own(incidents.get(conn, plan.incident_id).model, plan.actions)
        row = journal.find(conn, plan.incident_id, plan.digest, ordinal)
        if row is not None and row.settled:
            return row
        if row is not None and row.state == "refused":
            raise Refused(f"{row.summary}: {row.error}")
        started = row is not None and row.state == "applying"
        approval = _allowed(conn, world, plan, ordinal, started=started) if row is None or row.state != "unknown" else None
    if approval is None:
        assert row is not None  # what has not begun is NotApproved without one
        return _look_once_more(world, lease, row, effect, action)

    if row is None and approval.door == POLICY_RULE and isinstance(action, WHAT_SERVES):
        _not_isolated(world, action)
    state = _first_look(world, lease, row, effect, action)
    with world.transaction() as conn:
        leases.check(conn, lease)
        if row is None or row.state != "applying":  # somebody may have said no, or ordered otherwise, while the state was read
            approval = _allowed(conn, world, plan, ordinal, started=False) or approval
        kinds = (action.kind,) if plan.kind is PlanKind.EMERGENCY else ()  # an order waits for nothing but the same change
        if other := journal.other_incident_acting(conn, plan.incident_id, action.model, kinds=kinds):
            raise Transient(f"{action.summary}: {other} is changing {action.model} right now; one incident acts on a model at a time")
        if undo_of and row is None and not effect.is_satisfied(action, state):
            _as_we_left_it(conn, plan, action, state)
        row = journal.intend(conn, journal.Intent(plan, ordinal, approval.id, lease.generation, state, undo_of), now=world.now())
    if effect.is_satisfied(action, state):
        return _settle(world, lease, row, "done" if row.state == "applying" else "already_held", state)

    if row.state == "applying":  # an earlier attempt died: it may still be on its way
        state = _read_back(world, lease, row, lambda: _wait(world, effect, action, settle_s=world.settle_s / 3))
        if effect.is_satisfied(action, state):
            return _settle(world, lease, row, "done", state)
        if state != row.before and not effect.repeatable:
            _give_up(
                world, lease, row, "unknown", f"is {state}: neither the state before ({row.before}) nor the target; somebody else acted"
            )

    with world.transaction() as conn:
        leases.check(conn, lease)
        journal.mark(conn, row, "applying")
    try:
        effect.apply(world, action, row.id)
    except Unknown:
        pass  # reading back tells
    except Refused as error:
        _give_up(world, lease, row, "refused", str(error), cause=error)
    settle_s = world.settle_s * effect.settles
    state = _read_back(world, lease, row, lambda: _wait(world, effect, action, settle_s=settle_s), applied=True)
    if not effect.is_satisfied(action, state):
        if why := effect.failed(state):
            _give_up(world, lease, row, "refused", why)
        _give_up(world, lease, row, "unknown", f"was applied but reads back as {state} after {settle_s:g} s")
    return _settle(world, lease, row, "done", state)


def _allowed(conn: Connection, world: World, plan: Plan, ordinal: int, *, started: bool) -> StoredApproval | None:
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
        _within_guardrails(conn, world, plan, action, automatic=approval.door == POLICY_RULE)
    return approval


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
    if approval is None and one.given.begun and not one.given.rejected:
        rows = plans.approvals_of(conn, plan.incident_id, plan.digest)
        return standing_orders.grant(rows, plan.digest, rules_for(world.policy, plan)), why
    return approval, why


def _first_look(world: World, lease: leases.Lease, row: journal.Row | None, effect: ActionHandler, action: Action) -> Mapping[str, Any]:
    """The state before; of what must be done also where nothing answers, that it was not seen."""
    try:
        return _read_back(world, lease, row, lambda: effect.read(world, action))
    except Transient:
        if row is not None or (unseen := effect.unseen(action)) is None:
            raise
        return unseen


def _as_we_left_it(conn: Connection, plan: Plan, action: Action, state: Mapping[str, Any]) -> None:
    """Taking back restores what was there before, unless somebody else has changed it since: then that stays. Raises Overtaken."""
    for key in action.target():
        seen = state.get(key)
        if seen is None:
            continue
        ours = journal.values_of(conn, plan.incident_id, action.kind, key)
        if seen not in ours:
            raise Overtaken(f"{action.summary}: somebody has set {key.replace('_', ' ')} to {seen} since: that stays")


def _within_guardrails(conn: Connection, world: World, plan: Plan, action: Action, *, automatic: bool) -> None:
    """Freeze windows, and the limits of automation. A critical stop, a person's order and any undo override them, and a page says so."""
    policy, now = world.policy, world.now()
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
    page(conn, policy, incident, Role.ML_TEAM_LEAD, why, now=now, key=f"guardrail:{plan.digest[:12]}:{action.kind}")


def _not_isolated(world: World, action: Action) -> None:
    """While a model server is isolated, its process and its version are evidence: no rule changes what serves, a person may."""
    try:
        isolated = world.runtime.observe(action.model).isolated
    except Transient:
        return  # the effect's own reading tells
    if isolated:
        raise Refused(f"{action.summary}: the model server is isolated, nothing but a person's decision changes what it serves")


def _look_once_more(world: World, lease: leases.Lease, row: journal.Row, effect: ActionHandler, action: Action) -> journal.Row:
    """What may have happened and is not to be applied any more: settled if the target holds, else Unknown."""
    state = effect.read(world, action)
    if effect.is_satisfied(action, state):
        return _settle(world, lease, row, "done", state)
    why = row.error or "nobody's approval covers it any more, and it may or may not have been applied"
    if row.state != "unknown":
        _give_up(world, lease, row, "unknown", why)
    raise Unknown(f"{row.summary}: its outcome is unknown ({why}); look, then approve a new plan")


def _read_back(
    world: World, lease: leases.Lease, row: journal.Row | None, read: Callable[[], Mapping[str, Any]], *, applied: bool = False
) -> Mapping[str, Any]:
    """What may have been applied and may no longer be read (a token has expired, an object is gone) is unknown, and a person looks."""
    try:
        return read()
    except Refused as error:
        if row is None or not (applied or row.state == "applying"):
            raise
        _give_up(world, lease, row, "unknown", f"cannot be read back: {error}", cause=error)
        raise  # pragma: no cover - giving up raises


def _wait(world: World, effect: ActionHandler, action: Action, *, settle_s: float) -> Mapping[str, Any]:
    """Read back until the target holds or the time is over. Raises Transient when it cannot be read then: that is no outcome yet."""
    deadline = time.monotonic() + settle_s
    while True:
        try:
            state = effect.read(world, action)
            if effect.is_satisfied(action, state) or effect.failed(state) or time.monotonic() > deadline:
                return state
        except Transient:
            if time.monotonic() > deadline:
                raise
        time.sleep(max(min(LOOK_EVERY_S, deadline - time.monotonic()), 0.0))


def _settle(world: World, lease: leases.Lease, row: journal.Row, state: str, after: Mapping[str, Any]) -> journal.Row:
    now = world.now()
    with world.transaction() as conn:
        leases.check(conn, lease)
        journal.mark(conn, row, state, after=after, done_at=now, error=None)
        if row.undo_of:
            journal.set_undone(conn, row.undo_of, row.id)
            for other in journal.taken_back_with(conn, row):
                if limits_damage(plans.get(conn, row.incident_id, other.plan_digest), other.ordinal):
                    journal.set_undone(conn, other.id, row.id)
        verb = "Done, read back" if state == "done" else "Already so, nothing changed"
        data = {"action": row.id, "before": row.before, "after": after, "approval": row.approval_id}
        said = ": ".join([f"{verb}: {row.summary}", *after.get("caveats", ())])
        timeline.append(conn, row.incident_id, "action", said, actor="mlrunbook", at=now, data=data)
        settled = journal.find(conn, row.incident_id, row.plan_digest, row.ordinal)
    assert settled is not None
    return settled


def _give_up(world: World, lease: leases.Lease, row: journal.Row, state: str, why: str, *, cause: RunbookError | None = None) -> None:
    now = world.now()
    with world.transaction() as conn:
        leases.check(conn, lease)
        journal.mark(conn, row, state, error=why)
        timeline.append(conn, row.incident_id, "action", f"{state.capitalize()}: {row.summary}: {why}", actor="mlrunbook", at=now)
    if state == "refused":
        raise Refused(f"{row.summary}: {why}") from cause
    raise Unknown(f"{row.summary}: {why}; look at the system, then approve a new plan") from cause
