"""Step 2, on a person's word: an order is a plan that its giver has approved, and the next run carries it out before anything else."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import Connection

from mlrunbook import approvals, regrading
from mlrunbook.domain import communication
from mlrunbook.domain.actions import Order, Plan, PlanKind
from mlrunbook.domain.approval import valid
from mlrunbook.domain.emergency import emergency_plan, take_back, undoes_of
from mlrunbook.domain.errors import Refused
from mlrunbook.domain.incident import Incident, Status
from mlrunbook.domain.policy import Policy, Role
from mlrunbook.notices import ORDER_OVERDUE, page, tell_stakeholders
from mlrunbook.steps.breach import isolations
from mlrunbook.steps.changes import executed_of, failed_key
from mlrunbook.steps.run import ACTOR, Run
from mlrunbook.store import incidents, journal, outbox, plans, records, timeline

CARRIED_OUT = "order:"  # the record of an order that is over, by its digest: {"failed": [summary, ...]}
BY_HAND = "Do it by hand: docs/runbooks/ml-model-incident.md, Quick Reference"


class Giver(NamedTuple):
    """Who orders, as the door proved it."""

    name: str
    role: str | None
    door: str

    @property
    def words(self) -> str:
        return f"{self.name} ({Role(self.role).words})" if self.role in set(Role) else self.name


def give(
    conn: Connection, policy: Policy, incident: Incident, order: Order, *, version: str | None, by: Giver, why: str, now: datetime
) -> Plan:
    """Plan what is ordered, store the giver's approval of it, and have a run carry it out at once, also in the place of one that is busy.

    The same order again, while it is not carried out, is the same plan. Refused where the role may not order it, and while the server
    is isolated. The caller holds the incident's row.
    """
    if incident.status is Status.RESOLVED:
        raise Refused(f"{incident.id} is resolved; report it again if the trouble is back")
    _not_isolated(conn, policy, incident)
    waiting = [plan for plan in pending(conn, incident.id) if _is_wanted(conn, policy, plan, now=now)]
    if order is Order.TAKE_BACK:
        plan = next((known for known in waiting if undoes_of(known)), None) or _take_back(conn, incident, waiting, by, why, now=now)
    else:
        plan = emergency_plan(incident.id, incident.model, order, version=version, by=by.words, why=why, at=now)
        plan = next((known for known in waiting if known.actions == plan.actions), plan)
    digest = plans.propose(conn, plan, now=now)
    was_granted = approvals.standing_approval(conn, policy, plan, now=now)[0] is not None
    approvals.decide(
        conn,
        policy,
        incident.id,
        digest,
        decision="approved",
        approver=by.name,
        role=by.role,
        door=by.door,
        verified=True,
        reason=why,
        now=now,
    )
    if not was_granted:
        _watch(conn, plan, now + timedelta(seconds=policy.containment.order_overdue_after_s), now=now)
    if approvals.standing_approval(conn, policy, plan, now=now)[0] is None:  # policy wants more people than one
        approvals.request(conn, policy, plan, now=now)
    elif not was_granted:
        regrading.start_over(conn, incident.id, why=f"{by.words} orders: {_summary(plan)}", now=now)
    return plan


def pending(conn: Connection, incident_id: str) -> list[Plan]:
    """Orders that nobody has carried out, oldest first; also those that wait for another person's yes, and those that lapsed."""
    over = records.with_prefix(conn, incident_id, CARRIED_OUT)
    return [p for p in plans.standing(conn, incident_id, PlanKind.EMERGENCY) if CARRIED_OUT + p.digest not in over]


def _take_back(conn: Connection, incident: Incident, waiting: list[Plan], by: Giver, why: str, *, now: datetime) -> Plan:
    if waiting:
        raise Refused(f"{incident.id}: an order is not carried out yet ({_summary(waiting[0])}); take it back when it is, or reject it")
    return take_back(incident.id, incident.model, executed_of(conn, incident.id), by=by.words, why=why, at=now)


def _is_wanted(conn: Connection, policy: Policy, plan: Plan, *, now: datetime) -> bool:
    """Somebody's yes to it still counts, and nobody has said no."""
    rows, rules = plans.approvals_of(conn, plan.incident_id, plan.digest), approvals.rules_for(policy, plan)
    return not approvals.is_rejected(conn, policy, plan) and any(valid(row, plan.digest, now, rules)[0] for row in rows)


def standing(run: Run) -> list[tuple[str, list[str | None] | None]]:
    """What is to be carried out now: the digest of each order, and what its actions take back."""
    with run.world.transaction() as conn:
        now = run.world.now()
        return [
            (plan.digest, undoes_of(plan))
            for plan in pending(conn, run.incident_id)
            if approvals.standing_approval(conn, run.world.policy, plan, now=now)[0]
        ]


def announce(run: Run, digest: str) -> None:
    """The order is over: people are told what was done, and what was planned before is planned anew on what is the case now."""
    with run.write() as conn:
        if records.get(conn, run.incident_id, CARRIED_OUT + digest):
            return
        now = run.world.now()
        plan = plans.get(conn, run.incident_id, digest)
        failed = [a.summary for i, a in enumerate(plan.actions) if records.get(conn, run.incident_id, failed_key(digest, i))]
        incident = incidents.get(conn, run.incident_id)
        if not failed and not undoes_of(plan) and incident.status is Status.INVESTIGATING:
            why = "what was ordered is read back"
            incident = incidents.set_status(conn, run.incident_id, Status.CONTAINED, why=why, actor=ACTOR, now=now)
        _plan_anew(conn, run.incident_id, now=now)
        done = [a.past for a in plan.actions if a.summary not in failed]
        told = "; ".join([*done, *(f"could not be done: {one}" for one in failed)])
        subject = f"[UPDATE] {communication.model_name(incident.model)} - {incident.severity.title()}"
        text = communication.line(f"{incident.id}: {told}. {plan.reasons[0]}. {plan.expected[:1].upper()}{plan.expected[1:]}.")
        tell_stakeholders(conn, incident, communication.Rendered(subject, text), key=f"order:{digest[:12]}", now=now)
        run.record(conn, CARRIED_OUT + digest, {"failed": failed})


def overdue(conn: Connection, policy: Policy, item: outbox.Item, *, now: datetime) -> None:
    """An order that nobody has carried out in time is paged: Prefect may be away, and the person waits. Once more when it lapses."""
    incident = incidents.get(conn, str(item.incident_id), lock=True)
    plan = next((p for p in pending(conn, incident.id) if p.digest == item.payload["digest"]), None)
    if plan is None or not incident.status.is_open or any(r.plan_digest == plan.digest for r in journal.of_incident(conn, incident.id)):
        return  # what has begun is seen through, and what fails is paged by the run
    approval, why = approvals.standing_approval(conn, policy, plan, now=now)
    until = f"it is tried until {approval.expires_at:%H:%M} UTC" if approval and approval.expires_at else f"it is not tried: {why}"
    words = f"ordered and not done: {_summary(plan)}; {until}"
    timeline.append(conn, incident.id, "action", words[:1].upper() + words[1:], actor="dispatcher", at=now)
    page(conn, policy, incident, Role.ONCALL_ML_ENGINEER, words, now=now, key=item.dedup_key, next_step=BY_HAND)
    if approval and approval.expires_at:
        _watch(conn, plan, approval.expires_at, now=now)


def ordered(run: Run) -> str | None:
    """Who has ordered what, of the newest order; None where nobody has."""
    with run.world.transaction() as conn:
        plan = plans.current(conn, run.incident_id, PlanKind.EMERGENCY)
    return f"{plan.reasons[0]}: {_summary(plan)}" if plan else None


def in_force(conn: Connection, incident_id: str, *, since: datetime) -> list[str]:
    """What was ordered on the spot and done since then, and nobody has taken back: its giver knew of what came before."""
    rows = [r for r in journal.of_incident(conn, incident_id) if r.state == "done" and r.undone_by is None and r.kept_because is None]
    ours = {plan.digest for plan in plans.standing(conn, incident_id, PlanKind.EMERGENCY) if not undoes_of(plan)}
    return [r.summary for r in rows if r.plan_digest in ours and r.done_at and r.done_at > since]


def _plan_anew(conn: Connection, incident_id: str, *, now: datetime) -> None:
    """A plan that has not begun was made for what was the case before: with serving stopped it must start it again. Of one that is half
    done nobody has approved the rest in view of the order."""
    digest = str((records.get(conn, incident_id, "resolution_plan") or {}).get("digest"))
    begun = {row.ordinal: row.settled for row in journal.of_incident(conn, incident_id) if row.plan_digest == digest}
    if not begun:
        records.forget(conn, incident_id, "resolution_plan")
    elif sum(begun.values()) < len(plans.get(conn, incident_id, digest).actions):
        plans.void(conn, incident_id, digest, because="containment was ordered since: decide about what is left of it", now=now)


def _not_isolated(conn: Connection, policy: Policy, incident: Incident) -> None:
    for one in incidents.find(conn, model=incident.model, only_open=True):
        if isolations(conn, one.id):
            may = " or ".join(role.words for role in policy.approvals.isolation.roles)
            raise Refused(f"{incident.model} is isolated for {one.id}: it serves nobody and is evidence; {may} decides how it goes on")


def _watch(conn: Connection, plan: Plan, at: datetime, *, now: datetime) -> None:
    key = f"order-overdue:{plan.incident_id}:{plan.digest[:12]}:{at.isoformat()}"
    outbox.put(conn, ORDER_OVERDUE, key, {"digest": plan.digest}, now=now, incident_id=plan.incident_id, at=at)


def _summary(plan: Plan) -> str:
    return "; ".join(action.summary for action in plan.actions)
