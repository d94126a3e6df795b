"""What the approvals of a plan amount to, by policy."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection

from mlrunbook.domain.actions import Plan
from mlrunbook.domain.approval import ApprovalRules, granted, is_entitled, valid
from mlrunbook.domain.policy import Policy
from mlrunbook.store import plans
from mlrunbook.store.plans import StoredApproval

PREFECT_FORM = "prefect_form"


def rules_for(policy: Policy, plan: Plan) -> ApprovalRules:
    rule = policy.approvals.of(plan.kind)
    return ApprovalRules(
        count=rule.count,
        roles=frozenset(str(r) for r in rule.roles),
        unverified_doors=frozenset({PREFECT_FORM}) if rule.accept_prefect_form else frozenset(),
        plan_rule=plan.rule,
    )


def standing_approval(conn: Connection, policy: Policy, plan: Plan, *, now: datetime) -> tuple[StoredApproval | None, str]:
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
