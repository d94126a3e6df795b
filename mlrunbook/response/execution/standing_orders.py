"""What people have ordered, read from the store and judged by `mlrunbook.domain.containment.orders`; and what follows at once when an order
counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from sqlalchemy import Connection

from mlrunbook.domain.actions import Action, Plan, PlanKind
from mlrunbook.domain.approval import ApprovalRules, granted, valid
from mlrunbook.domain.containment.orders import Change, Failed, Given, Ordered, OrderState, contradicts, judge, thing_of, things_of
from mlrunbook.domain.policy.policy import Policy
from mlrunbook.domain.records import Record
from mlrunbook.domain.resolution.plan import ResolutionPlan
from mlrunbook.response.plan_state import is_rejected, rules_for, valid_approval
from mlrunbook.response.run import Run
from mlrunbook.store import incidents, journal, leases, outbox, plans, records
from mlrunbook.store.outbox import ORDER_OVERDUE
from mlrunbook.store.plans import StoredApproval


def of_model(conn: Connection, policy: Policy, model: str, *, now: datetime, also_over: bool = False) -> list[Ordered]:
    """The orders of every open incident of the model, oldest first: the newest about a thing counts, whichever incident it is of, and
    whether that is still open. `also_over`: with those of incidents that have ended."""
    orders = plans.orders_about(conn, model)
    if not orders:
        return []
    given, others = [], []
    for incident_id in dict.fromkeys(one.plan.incident_id for one in orders):
        mine = {one.plan.digest: one for one in orders if one.plan.incident_id == incident_id}
        changes = _changes(conn, incident_id)
        given += [_given(conn, policy, one.plan, one.at, changes, now=now) for one in mine.values()]
        others += [c for c in changes if c.digest not in mine]
    is_over = {one.plan.digest for one in orders if one.is_over}
    return [one for one in judge(given, others) if also_over or one.plan.digest not in is_over]


def of_incident(conn: Connection, policy: Policy, incident_id: str, model: str, *, now: datetime) -> list[Ordered]:
    """This incident's, judged in view of what people have ordered in others about the same model."""
    return [one for one in of_model(conn, policy, model, now=now) if one.plan.incident_id == incident_id]


def grant(rows: Sequence[StoredApproval], digest: str, rules: ApprovalRules) -> StoredApproval | None:
    """The yes with which there were enough of them, the last time that happened; it may have expired since. None: never, or taken back."""
    mine = sorted((r for r in rows if r.plan_digest == digest and r.voided_at is None), key=lambda r: (r.at, r.id))
    found = None
    for i, row in enumerate(mine):
        was_enough, _ = granted(mine[:i], digest, row.at, rules)  # some of it may have expired by then
        is_enough, _ = granted(mine[: i + 1], digest, row.at, rules)
        if is_enough and not was_enough:
            found = row
    return found


def contradicting(conn: Connection, policy: Policy, plan: Plan, action: Action, *, since: int, now: datetime) -> Ordered | None:
    """The newest order that was given after the approval of number `since` and that speaks against carrying the action out."""
    for one in reversed(of_model(conn, policy, action.model, now=now, also_over=True)):
        if (
            one.given.granted_at
            and one.given.number > since
            and not one.given.rejected
            and one.plan.digest != plan.digest
            and contradicts(one.plan, action)
        ):
            return one
    return None


def takes_effect(conn: Connection, policy: Policy, plan: Plan, *, now: datetime) -> None:
    """The order counts from now on: what this incident had approved before and contradicts it is decided anew (`execute` refuses it for
    every incident), and a run carries the order out at once, also in the place of one that is busy."""
    why, incident_id = plan.reasons[0], plan.incident_id
    kinds = [kind for kind in PlanKind if kind not in (PlanKind.EMERGENCY, PlanKind.ISOLATION)]
    for other in plans.standing(conn, incident_id, *kinds):
        if any(contradicts(plan, action) for action in _not_settled(conn, other)):
            plans.void(conn, incident_id, other.digest, because=f"ordered since: {why}", now=now)
            if other.kind is PlanKind.CONTAINMENT:
                records.forget(conn, incident_id, Record.CONTAINMENT)
    plan_anew(conn, incident_id, now=now)
    leases.preempt(conn, incident_id, why=why, now=now)


def plan_anew(conn: Connection, incident_id: str, *, now: datetime) -> None:
    """A resolution plan that has not begun was made for what was the case before: with serving stopped it must start it again. Of one that
    is half done nobody has approved the rest in view of the order."""
    planned = records.recall(conn, incident_id, ResolutionPlan)
    digest = planned.digest if planned else None
    begun = {row.ordinal: row.settled for row in journal.of_incident(conn, incident_id) if row.plan_digest == digest}
    if digest is None or not begun:
        records.forget(conn, incident_id, Record.RESOLUTION_PLAN)
    elif sum(begun.values()) < len(plans.get(conn, incident_id, digest).actions):
        plans.void(conn, incident_id, digest, because="containment was ordered since: decide about what is left of it", now=now)


def watch(
    conn: Connection, plan: Plan, at: datetime, *, now: datetime, paged_at: datetime | None = None, state: OrderState | None = None
) -> None:
    """Look at the order again then: is it in force? `paged_at`, `state`: when people were last paged about it, and as what."""
    key = f"order-overdue:{plan.incident_id}:{plan.digest[:12]}:{at.isoformat()}"
    moved_s = incidents.moved_s(conn, plan.incident_id)
    payload = {"digest": plan.digest, "paged_at": paged_at.isoformat() if paged_at else None, "moved_s": moved_s, "state": state}
    outbox.put(conn, ORDER_OVERDUE, key, payload, now=now, incident_id=plan.incident_id, at=at)


def counts_again(conn: Connection, policy: Policy, withdrawn: Plan, *, now: datetime) -> None:
    """An order is withdrawn: those before it count again, so they are watched again, and a run of their incident looks at them."""
    about = things_of(withdrawn)
    for one in of_model(conn, policy, withdrawn.model, now=now):
        if one.state.is_open and things_of(one.plan) & about:
            watch(conn, one.plan, now + timedelta(seconds=1), now=now)


def replaced_by(conn: Connection, policy: Policy, plan: Plan, *, now: datetime) -> str | None:
    """What replaced the order; None where nothing did, where nobody has said yes to it yet, and of a plan that is no order."""
    if plan.kind is not PlanKind.EMERGENCY:
        return None
    known = of_incident(conn, policy, plan.incident_id, plan.model, now=now)
    mine = (o for o in known if o.plan.digest == plan.digest and o.given.number)
    return next((o.sentence for o in mine if o.state is OrderState.REPLACED), None)


def _not_settled(conn: Connection, plan: Plan) -> list[Action]:
    rows = {row.ordinal: row for row in journal.of_incident(conn, plan.incident_id) if row.plan_digest == plan.digest}
    return [action for i, action in enumerate(plan.actions) if not (i in rows and rows[i].settled)]


def _changes(conn: Connection, incident_id: str) -> list[Change]:
    known: dict[str, Plan] = {}
    found = []
    for row in journal.of_incident(conn, incident_id):
        if row.plan_digest not in known:
            known[row.plan_digest] = plans.get(conn, incident_id, row.plan_digest)
        thing = thing_of(known[row.plan_digest].actions[row.ordinal])
        found.append(
            Change(
                row.id,
                row.plan_digest,
                row.ordinal,
                row.state,
                thing,
                row.intended_at,
                sent=row.may_have_happened,
                undone=row.undone_by is not None,
                error=row.error,
                approval=row.approval_id,
            )
        )
    return found


def _given(conn: Connection, policy: Policy, plan: Plan, at: datetime, changes: Sequence[Change], *, now: datetime) -> Given:
    digest, rules = plan.digest, rules_for(policy, plan)
    rows = plans.approvals_of(conn, plan.incident_id, digest)
    yes = grant(rows, digest, rules)
    asked = replace(rules, requesters=frozenset())  # it waits for others while its giver stands by it, whether that yes counts or not
    stands, why = valid_approval(conn, policy, plan, now=now)
    failures = {
        i: found.error for i in range(len(plan.actions)) if (found := records.recall(conn, plan.incident_id, Failed, digest[:12], i))
    }
    return Given(
        plan,
        yes.id if yes else max((row.id for row in rows), default=0),
        at,
        yes.at if yes else None,
        stands is not None,
        why,
        has_a_yes=any(valid(row, digest, now, asked)[0] for row in rows),
        rejected=is_rejected(conn, policy, plan),
        changes=tuple(c for c in changes if c.digest == digest),
        failures=failures,
    )


def of_run(run: Run, conn: Connection) -> list[Ordered]:
    incident = incidents.get(conn, run.incident_id)
    return of_incident(conn, run.world.policy, incident.id, incident.model, now=run.world.now())


def summary_of(plan: Plan) -> str:
    return "; ".join(action.summary for action in plan.actions) or "take back what is in force"
