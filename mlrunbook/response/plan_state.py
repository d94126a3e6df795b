"""Where a plan stands: what its approvals amount to against policy, and what the journal says of its actions. Reads alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from sqlalchemy import Connection

from mlrunbook.domain.actions import Action, Plan
from mlrunbook.domain.approval import PREFECT_FORM, Approval, ApprovalRules, granted, is_entitled, valid
from mlrunbook.domain.policy.policy import Policy
from mlrunbook.domain.resolution.deciding import PlanState, Step, standing_of
from mlrunbook.store import journal, plans
from mlrunbook.store.plans import StoredApproval


def rules_for(policy: Policy, plan: Plan) -> ApprovalRules:
    rule = policy.for_model(plan.model).approvals.of(plan.kind)
    return ApprovalRules(
        count=rule.count,
        roles=frozenset(str(r) for r in rule.roles),
        unverified_doors=frozenset({PREFECT_FORM}) if rule.accept_prefect_form else frozenset(),
        plan_rule=plan.rule,
        requesters=frozenset(plan.requested_by) if rule.excludes_requester else frozenset(),
    )


def valid_approval(conn: Connection, policy: Policy, plan: Plan, *, now: datetime) -> tuple[StoredApproval | None, str]:
    """The approval a change of this plan may rest on right now, and the sentence that says why or why not."""
    digest = plan.digest
    if plans.is_superseded(conn, plan.incident_id, digest):
        return None, _replaced(plan)
    rows = plans.approvals_of(conn, plan.incident_id, digest)
    rules = rules_for(policy, plan)
    yes, why = granted(rows, digest, now, rules)
    return (next(r for r in reversed(rows) if valid(r, digest, now, rules)[0]) if yes else None), why


def is_rejected(conn: Connection, policy: Policy, plan: Plan) -> bool:
    """Somebody who may decide said no."""
    return _rejected(plans.approvals_of(conn, plan.incident_id, plan.digest), rules_for(policy, plan))


def state_of(conn: Connection, policy: Policy, plan: Plan, *, now: datetime) -> PlanState:
    """Where the plan stands now. Hold the incident's row for an answer that still holds when you act on it."""
    said, replaced = plans.approvals_of(conn, plan.incident_id, plan.digest), plans.is_superseded(conn, plan.incident_id, plan.digest)
    return _state(policy, plan, said, journal.of_incidents(conn, [plan.incident_id]), replaced=replaced, now=now)


def states_of(conn: Connection, policy: Policy, standing: Sequence[Plan], *, now: datetime) -> list[PlanState]:
    """`state_of` each of these plans, none of which was replaced, by as many reads as one takes."""
    ids = list({plan.incident_id for plan in standing})
    said, done = plans.approvals_of_incidents(conn, ids), journal.of_incidents(conn, ids)
    return [_state(policy, plan, [row for row in said if row.incident_id == plan.incident_id], done, now=now) for plan in standing]


def _state(
    policy: Policy, plan: Plan, said: Sequence[StoredApproval], done: Sequence[journal.Row], *, replaced: bool = False, now: datetime
) -> PlanState:
    rules, mine = rules_for(policy, plan), [row for row in said if row.plan_digest == plan.digest]
    approved, why = granted(mine, plan.digest, now, rules)
    rows = {row.ordinal: row for row in done if (row.incident_id, row.plan_digest) == (plan.incident_id, plan.digest)}
    return standing_of(
        plan,
        [_step(action, rows.get(ordinal)) for ordinal, action in enumerate(plan.actions)],
        replaced=replaced,
        rejected=_rejected(mine, rules),
        approved=approved and not replaced,
        expired=_have_expired(mine, now),
        why=_replaced(plan) if replaced else why,
    )


def _replaced(plan: Plan) -> str:
    return f"plan {plan.digest[:12]} was replaced by a newer one; decide about that"


def _rejected(said: Iterable[Approval], rules: ApprovalRules) -> bool:
    return any(row.decision == "rejected" and row.voided_at is None and is_entitled(row, rules) for row in said)


def _step(action: Action, row: journal.Row | None) -> Step:
    return Step(action, row.state, row.before, row.undone_by is not None) if row else Step(action)


def _have_expired(approvals: Iterable[Approval], now: datetime) -> bool:
    """Somebody approved it, and every such approval is over by now."""
    said = [row for row in approvals if row.decision == "approved" and row.voided_at is None]
    return bool(said) and all(row.expires_at is not None and row.expires_at <= now for row in said)
