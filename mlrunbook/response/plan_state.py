"""Where a plan stands: what its approvals amount to against policy, and what the journal says of its actions. Reads alone."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from sqlalchemy import Connection

from mlrunbook.domain.actions import Plan
from mlrunbook.domain.approval import PREFECT_FORM, Approval, ApprovalRules, granted, is_entitled, valid
from mlrunbook.domain.policy.policy import Policy
from mlrunbook.domain.resolution.deciding import PlanState, Step, standing_of
from mlrunbook.store import journal, plans
from mlrunbook.store.plans import StoredApproval


def rules_for(policy: Policy, plan: Plan) -> ApprovalRules:
    rule = policy.approvals.of(plan.kind)
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
        return None, f"plan {digest[:12]} was replaced by a newer one; decide about that"
    rows = plans.approvals_of(conn, plan.incident_id, digest)
    rules = rules_for(policy, plan)
    yes, why = granted(rows, digest, now, rules)
    return (next(r for r in reversed(rows) if valid(r, digest, now, rules)[0]) if yes else None), why


def is_rejected(conn: Connection, policy: Policy, plan: Plan) -> bool:
    """Somebody who may decide said no."""
    rules = rules_for(policy, plan)
    rows = plans.approvals_of(conn, plan.incident_id, plan.digest)
    return any(r.decision == "rejected" and r.voided_at is None and is_entitled(r, rules) for r in rows)


def state_of(conn: Connection, policy: Policy, plan: Plan, *, now: datetime) -> PlanState:
    """Where the plan stands now. Hold the incident's row for an answer that still holds when you act on it."""
    approval, why = valid_approval(conn, policy, plan, now=now)
    approvals = plans.approvals_of(conn, plan.incident_id, plan.digest)
    return standing_of(
        plan,
        [_step(conn, plan, ordinal) for ordinal in range(len(plan.actions))],
        replaced=plans.is_superseded(conn, plan.incident_id, plan.digest),
        rejected=is_rejected(conn, policy, plan),
        approved=approval is not None,
        expired=_have_expired(approvals, now),
        why=why,
    )


def _step(conn: Connection, plan: Plan, ordinal: int) -> Step:
    row = journal.find(conn, plan.incident_id, plan.digest, ordinal)
    action = plan.actions[ordinal]
    return Step(action, row.state, row.before, row.undone_by is not None) if row else Step(action)


def _have_expired(approvals: Iterable[Approval], now: datetime) -> bool:
    """Somebody approved it, and every such approval is over by now."""
    said = [row for row in approvals if row.decision == "approved" and row.voided_at is None]
    return bool(said) and all(row.expires_at is not None and row.expires_at <= now for row in said)
