"""Deciding about plans against policy: who may, what a decision sets off, what follows when nobody decides."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from sqlalchemy import Connection

from mlrunbook.domain.actions import Plan, PlanKind
from mlrunbook.domain.approval import DECISIONS, POLICY_RULE, Decision
from mlrunbook.domain.communication import console_links
from mlrunbook.domain.communication.messages import line
from mlrunbook.domain.errors import Invalid, Refused
from mlrunbook.domain.policy.policy import OnExpiry, Policy
from mlrunbook.domain.resolution import deciding
from mlrunbook.domain.resolution.deciding import Standing
from mlrunbook.domain.resolution.plan import OBJECTION
from mlrunbook.domain.roles import Role
from mlrunbook.response.communication.notifications import Page, request_action
from mlrunbook.response.execution import standing_orders
from mlrunbook.response.plan_state import rules_for, state_of, valid_approval
from mlrunbook.store import incidents, leases, outbox, plans, timeline
from mlrunbook.store.outbox import EXPIRY
from mlrunbook.store.plans import StoredApproval

PAGED_OBJECTION = 240  # characters: the rest of a page's sentence must still fit


def approve_by_rule(conn: Connection, plan: Plan, *, now: datetime) -> StoredApproval:
    """An automatic plan rests on a named policy rule, stored as an approval row like any other."""
    if plan.rule is None:
        raise Invalid(f"plan {plan.digest[:12]} names no policy rule: a person must approve it", field="rule")
    said = Decision("approved", plan.rule, None, POLICY_RULE, reason="; ".join(plan.reasons))
    return plans.decide(conn, plan.incident_id, plan.digest, said, now=now)


def decide(conn: Connection, policy: Policy, incident_id: str, digest: str, said: Decision, *, now: datetime) -> StoredApproval:
    """A person's yes or no to exactly this plan. Refused when it comes too late, or the role may not decide it.

    Under the incident's row, as every step of `execute`: a plan that is rejected here has not begun, and does not begin afterwards.
    """
    if said.decision not in DECISIONS:
        raise Invalid(f"decision must be approved or rejected, not {said.decision!r}", field="decision")
    incidents.get(conn, incident_id, lock=True)
    plan = plans.get(conn, incident_id, digest)
    if too_late := deciding.refusal(said.decision, state_of(conn, policy, plan, now=now)):
        raise Refused(too_late)
    if said.decision == "approved" and (newer := standing_orders.replaced_by(conn, policy, plan, now=now)):
        words = f"mlrunbook incidents contain {incident_id} ..."
        raise Refused(f"plan {digest[:12]} is not carried out any more: {newer}. If you want it after all, order it anew: {words}")
    _check_role(policy, plan, said)
    was_approved = valid_approval(conn, policy, plan, now=now)[0] is not None
    expires_at = now + timedelta(minutes=policy.for_model(plan.model).approvals.of(plan.kind).expires_after_min)
    made = plans.decide(conn, incident_id, digest, said, now=now, expires_at=expires_at)
    if state_of(conn, policy, plan, now=now).standing is not Standing.PENDING:  # one yes of two: the asking goes on
        outbox.cancel(conn, now=now, incident_id=incident_id, key_prefix=_timer(plan, ""))
    leases.wake(conn, incident_id, why=f"plan {digest[:12]} {said.decision} by {said.approver}", key=f"approval-{made.id}", now=now)
    if plan.kind is PlanKind.EMERGENCY and said.decision == "approved" and not was_approved:
        _ordered(conn, policy, plan, now=now)
    elif plan.kind is PlanKind.EMERGENCY and said.decision == "rejected":
        standing_orders.counts_again(conn, policy, plan, now=now)
    return made


def _check_role(policy: Policy, plan: Plan, said: Decision) -> None:
    rules = rules_for(policy, plan)
    if rules.roles and said.role not in rules.roles and said.door not in rules.unverified_doors:
        raise Refused(f"a {plan.kind} plan is decided by {' or '.join(sorted(rules.roles))}; this token's role is {said.role or 'not set'}")


def _ordered(conn: Connection, policy: Policy, plan: Plan, *, now: datetime) -> None:
    """Somebody gave an order, or said yes to one: with enough of them it counts from now on, else others are asked. It is watched from
    now on, so that one that is not in force in time is paged."""
    if valid_approval(conn, policy, plan, now=now)[0] is None:
        request(conn, policy, plan, now=now)
    else:
        standing_orders.takes_effect(conn, policy, plan, now=now)
    standing_orders.watch(conn, plan, now + timedelta(seconds=policy.for_model(plan.model).containment.order_overdue_after_s), now=now)


def _timer(plan: Plan, round: int | str) -> str:
    return f"expire:{plan.incident_id}:{plan.digest[:12]}:{round}"


def request(conn: Connection, policy: Policy, plan: Plan, *, now: datetime) -> None:
    """Ask the first role that may decide, and set the timer for when nobody does. While that timer runs, asking again adds nothing.

    A mitigation is an offer while the cause is looked for: it is asked about once, the resolution plan follows it.
    """
    timers = [r for r in outbox.of_incident(conn, plan.incident_id, EXPIRY) if r["payload"]["digest"] == plan.digest]
    if any(r["delivered_at"] is None and r["cancelled_at"] is None for r in timers):
        return
    why = f"your decision is needed: {'; '.join(a.summary for a in plan.actions)}"
    _ask(conn, policy, plan, policy.for_model(plan.model).approvals.of(plan.kind).roles[:1], why, round=len(timers) + 1, now=now)


def expire(conn: Connection, policy: Policy, item: outbox.Item, *, now: datetime) -> None:
    """Nobody decided in time: say so, ask again, and escalate where policy says so. Never a silent yes."""
    incident_id, digest, round = str(item.incident_id), str(item.payload["digest"]), int(item.payload["round"])
    incident = incidents.get(conn, incident_id, lock=True)
    plan = plans.get(conn, incident_id, digest)
    state = state_of(conn, policy, plan, now=now)
    if incident.status.is_open and state.standing is Standing.LAPSED:
        _say_that_it_lapsed(conn, policy, plan, state.why, now=now)
    if not incident.status.is_open or state.standing is not Standing.PENDING:
        return
    rule = policy.for_model(plan.model).approvals.of(plan.kind)
    text = f"Nobody decided about plan {digest[:12]} within {rule.expires_after_min} minutes; nothing was changed"
    timeline.append(conn, incident_id, "approval", text, actor="dispatcher", at=now, data={"digest": digest})
    asked: list[Role] = [rule.roles[0]]
    if rule.on_expiry is OnExpiry.ESCALATE:
        asked.append(rule.roles[min(round, len(rule.roles) - 1)])
    _ask(conn, policy, plan, asked, text, round=round + 1, now=now)


def _say_that_it_lapsed(conn: Connection, policy: Policy, plan: Plan, why: str, *, now: datetime) -> None:
    """An order that waited for another person's yes too long: nobody can approve it any more, so nobody is asked to."""
    incident = incidents.get(conn, plan.incident_id)
    timeline.append(conn, incident.id, "approval", why[:1].upper() + why[1:], actor="dispatcher", at=now, data={"digest": plan.digest})
    todo = f"Give the order again if it is still wanted: mlrunbook incidents contain {incident.id}"
    role = policy.for_model(plan.model).approvals.of(plan.kind).roles[0]
    request_action(conn, policy, incident, Page(role, why, f"lapsed:{plan.digest[:12]}", todo), now=now)


def _ask(conn: Connection, policy: Policy, plan: Plan, roles: Iterable[Role], why: str, *, round: int, now: datetime) -> None:
    incident = incidents.get(conn, plan.incident_id)
    if against := plan.facts.get(OBJECTION):
        why = f"{line(str(against), PAGED_OBJECTION)}. Asked for anyway: {why}"
    todo = f"Decide: mlrunbook incidents approve {incident.id} --plan {plan.digest[:12]}   (or: incidents reject)"
    where = console_links.of_decision(incident.id, plan.digest)
    for role in dict.fromkeys(roles):
        request_action(conn, policy, incident, Page(role, why, f"ask:{plan.digest[:12]}:{round}:{role}", todo, console=where), now=now)
    if plan.kind is PlanKind.MITIGATION:
        return
    at = now + timedelta(minutes=policy.for_model(plan.model).approvals.of(plan.kind).expires_after_min)
    timer = {"digest": plan.digest, "round": round}
    outbox.put(conn, EXPIRY, _timer(plan, round), timer, now=now, incident_id=incident.id, at=at)
