"""Step 2, on a person's word: an order is a plan that its giver has approved, and the next run carries it out before anything else."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import Connection

from mlrunbook.domain.action_state import ActionState
from mlrunbook.domain.actions import Isolate, Order, Plan, PlanKind, RouteTraffic, Scale
from mlrunbook.domain.approval import Decision
from mlrunbook.domain.communication import console_links, messages
from mlrunbook.domain.containment.emergency import KEPT, Word, emergency_plan, undoes_of
from mlrunbook.domain.containment.orders import Ordered, OrderEnded, OrderState, OrderWaits, Thing, newest_about, things_of
from mlrunbook.domain.containment.taking_back import Seen, reverse, stays
from mlrunbook.domain.errors import Refused, Transient, Unknown
from mlrunbook.domain.incident import Incident, Status
from mlrunbook.domain.observed import ServingState
from mlrunbook.domain.people import person_of
from mlrunbook.domain.policy.policy import Policy
from mlrunbook.domain.records import Record
from mlrunbook.domain.roles import Role, named
from mlrunbook.response.carried_mode import is_quiet
from mlrunbook.response.communication.escalation import taken_up
from mlrunbook.response.communication.notifications import Page, page, send_to_stakeholders
from mlrunbook.response.execution import approvals, existing, standing_orders
from mlrunbook.response.execution.execute import execute
from mlrunbook.response.execution.plans import apply_or_page, executed_of
from mlrunbook.response.execution.standing_orders import of_run, summary_of, watch
from mlrunbook.response.plan_state import valid_approval
from mlrunbook.response.run import ACTOR, Run
from mlrunbook.response.tried import or_none
from mlrunbook.response.world import World
from mlrunbook.store import incidents, journal, leases, outbox, plans, records, timeline
from mlrunbook.store.outbox import ORDER_OVERDUE

BY_HAND = "Do it by hand: docs/runbooks/ml-model-incident.md, Quick Reference"
ANEW = "; then order it again, which reads it back: mlrunbook incidents contain {id} ... (or take it back: --take-back)"
HOLDS = {Thing.SERVING: Scale.kind, Thing.ROUTE: RouteTraffic.kind, Thing.WORK_ORDERS: "auto_work_orders"}
TRY_AGAIN_S = 5.0
LOOK_AGAIN_S = 60.0  # the longest between two tries of what may still come true


class Requester(NamedTuple):
    """Who orders, as the door proved it. `person`: the token's person id; empty: as the name says."""

    name: str
    role: str | None
    door: str
    person: str = ""

    @property
    def words(self) -> str:
        return named(self.name, self.role)


@dataclass(frozen=True)
class Requested:
    """An emergency order: who gives it, and why. `version`: where traffic goes."""

    order: Order
    by: Requester
    why: str
    version: str | None = None

    def word(self, at: datetime) -> Word:
        return Word(self.by.words, self.why, at, self.by.person or person_of(self.by.name), self.by.name)


def request(
    conn: Connection, policy: Policy, incident: Incident, asked: Requested, *, now: datetime, state: ServingState | None = None
) -> Plan:
    """Plan what is ordered, store the giver's approval of it, and have a run carry it out at once, also in the place of one that is busy.

    The newest order about a thing counts: it replaces older ones that have not begun. The same order again, while it is the newest and not
    yet in force, is the same plan. `state`: what the runtime shows now, where it answers. Refused where the role may not order it, and
    while the server is isolated. The caller holds the incident's row.
    """
    plan, was_quiet = planned(conn, policy, incident, asked, now=now, state=state), is_quiet(conn, policy, incident)
    digest = plans.propose(conn, plan, now=now)
    yes = Decision("approved", asked.by.name, asked.by.role, asked.by.door, reason=asked.why, person=asked.by.person)
    approvals.decide(conn, policy, incident.id, digest, yes, now=now)
    if was_quiet:
        taken_up(conn, policy, incident, by=asked.by.name, now=now)
    return plan


def planned(
    conn: Connection, policy: Policy, incident: Incident, asked: Requested, *, now: datetime, state: ServingState | None = None
) -> Plan:
    """What `request` would have carried out, with its refusals. Stores nothing."""
    if incident.status is Status.RESOLVED:
        raise Refused(f"{incident.id} is resolved; report it again if the trouble is back")
    _not_isolated(conn, policy, incident, now=now)
    known = standing_orders.of_model(conn, policy, incident.model, now=now)

    def given(at: datetime) -> Plan:
        if asked.order is Order.TAKE_BACK:
            return _reverse(conn, incident, known, state, asked.word(at))
        return emergency_plan(incident.id, incident.model, asked.order, asked.word(at), version=asked.version)

    plan = given(now)
    return _same_again(known, plan) or _anew(known, plan, given, now)


def look(world: World, incident_id: str, order: Order, *, version: str | None) -> ServingState | None:
    """Before an order is given: the version that it names must exist, and what the runtime shows now is what a taking back is decided on.

    Invalid where the registry has no such version; Transient where it does not answer: an order about a version nobody knows could be an
    outage. None: the runtime does not answer, which keeps nobody from taking back.
    """
    with world.transaction() as conn:
        model = incidents.get(conn, incident_id).model
    if order is Order.ROUTE and version is not None:
        try:
            existing.check_version(world, model, version)
        except Transient as error:
            raise Transient(f"{error}. `--stop-serving` needs no registry") from error
    if order is not Order.TAKE_BACK:
        return None
    return or_none("the look at the model server", lambda: world.runtime.observe(model))


def _same_again(known: Sequence[Ordered], plan: Plan) -> Plan | None:
    """The order that wants the same, where nothing newer counts about the thing and it is not over."""
    for one in reversed(known):
        if one.plan.incident_id == plan.incident_id and one.state.is_open and one.state not in (OrderState.LAPSED, OrderState.FAILED):
            same = [a.target() for a in one.plan.actions] == [a.target() for a in plan.actions]
            if same and (undoes_of(one.plan) is None) == (undoes_of(plan) is None):
                return one.plan
        if things_of(one.plan) & things_of(plan) and one.state not in (OrderState.REJECTED, OrderState.WAITING):
            return None  # something else counts since
    return None


def _anew(known: Sequence[Ordered], plan: Plan, planned: Callable[[datetime], Plan], at: datetime) -> Plan:
    """A plan of its own, also where the same person gave the same order at this very moment before: else the older one would count."""
    given = {one.plan.digest for one in known}
    while plan.digest in given:
        at += timedelta(microseconds=1)
        plan = planned(at)
    return plan


def _reverse(conn: Connection, incident: Incident, known: Sequence[Ordered], state: ServingState | None, word: Word) -> Plan:
    mine = [one for one in known if one.plan.incident_id == incident.id]
    waiting = [one for one in mine if one.state.is_open and not one.given.sent and undoes_of(one.plan) is None]
    seen = Seen(state, journal.last_replicas(conn, incident.model) or 1, _held_by_others(known, incident.id))
    withdraws = [summary_of(one.plan) for one in waiting]
    return reverse(incident.id, incident.model, executed_of(conn, incident.id), seen, word, withdraws=withdraws)


def held_by_others(run: Run) -> dict[str, str]:
    """What people have ordered in other open incidents of the model, by the kind of action or the key of the config that would change it:
    what this incident takes back leaves it alone."""
    with run.world.transaction() as conn:
        model = incidents.get(conn, run.incident_id).model
        return _held_by_others(standing_orders.of_model(conn, run.world.policy, model, now=run.world.now()), run.incident_id)


def _held_by_others(known: Sequence[Ordered], incident_id: str) -> dict[str, str]:
    others = [o for o in known if o.plan.incident_id != incident_id]
    return {
        what: f"{one.plan.incident_id} holds the {thing.replace('_', ' ')}: {one.plan.reasons[0]}"
        for thing, what in HOLDS.items()
        if (one := newest_about(others, thing)) and undoes_of(one.plan) is None
    }


def to_carry_out(run: Run) -> list[str]:
    """The digests of the orders that a run has to do something about, the newest first: nothing waits behind one that cannot be done."""
    _see_how_the_replaced_ended(run)
    with run.world.transaction() as conn:
        return [o.plan.digest for o in reversed(of_run(run, conn)) if o.to_carry_out]


def _see_how_the_replaced_ended(run: Run) -> None:
    """A change of an order that was sent and that nobody completes, because a newer one replaced it: settled by a look, never sent again.
    Until then other incidents of the model would wait for it."""
    with run.world.transaction() as conn:
        over = {o.plan.digest: o.plan for o in of_run(run, conn) if not o.to_carry_out}
        sent = [row for row in journal.of_incident(conn, run.incident_id) if row.state == ActionState.APPLYING and row.plan_digest in over]
    for row in sent:
        with suppress(Transient, Refused, Unknown):  # the next run looks again, or the journal says unknown
            execute(run.world, run.lease, over[row.plan_digest], row.ordinal, undo_of=row.undo_of)


def carry_out(run: Run, digest: str, ordinal: int) -> str:
    """One action of an order: done, already_held, failed, or replaced where it no longer counts. Raises Transient where it may work in a
    moment. What failed with an unknown outcome is looked at again: it may have come true since."""
    with run.world.transaction() as conn:
        one = _ordered(run, conn, digest)
        row = journal.find(conn, run.incident_id, digest, ordinal)
    if row is not None and row.settled:
        return row.state
    if one is None or ordinal not in one.left:
        return "replaced"
    undoes = undoes_of(one.plan)
    if row is None or row.state != ActionState.UNKNOWN:
        return apply_or_page(run, digest, ordinal, undoes[ordinal] if undoes else None)
    try:
        done = execute(run.world, run.lease, one.plan, ordinal, undo_of=row.undo_of)
    except (Unknown, Refused):
        return apply_or_page(run, digest, ordinal, row.undo_of)  # says it, where it was not said yet
    with run.write() as conn:
        records.forget(conn, run.incident_id, Record.FAILED.of(digest[:12], ordinal), Record.ORDER_ENDED.of(digest))
    return done.state


def postpone(run: Run, digest: str, ordinal: int, error: str) -> None:
    """The runtime does not answer: it is said once, the rest of the runbook goes on, and a run tries again soon."""
    with run.write() as conn:
        now, plan = run.world.now(), plans.get(conn, run.incident_id, digest)
        if records.recall(conn, run.incident_id, OrderWaits, digest[:12], ordinal) is None:
            run.keep(conn, OrderWaits(error), digest[:12], ordinal)
            run.note(conn, "action", f"Ordered and not possible yet, trying again: {plan.actions[ordinal].summary}: {error}")
        watch(conn, plan, now + timedelta(seconds=TRY_AGAIN_S), now=now)


def announce(run: Run, digest: str) -> None:
    """Once every action of the order has ended: people hear what was done, and what was planned before is planned anew."""
    with run.write() as conn:
        one = _ordered(run, conn, digest)
        is_told = records.recall(conn, run.incident_id, OrderEnded, digest) is not None
        if one is None or one.state not in (OrderState.IN_FORCE, OrderState.FAILED) or is_told:
            return  # withdrawn or replaced meanwhile, or not begun: there is nothing to tell
        failed = [one.plan.actions[i].summary for i in one.left if i in one.given.failures]
        if len(failed) < len(one.left):
            return  # the rest is tried again
        now = run.world.now()
        incident = incidents.get(conn, run.incident_id)
        if not failed and undoes_of(one.plan) is None and incident.status is Status.INVESTIGATING:
            why = "what was ordered is read back"
            incident = incidents.set_status(conn, run.incident_id, Status.CONTAINED, why=why, actor=ACTOR, now=now)
        if undoes_of(one.plan) is not None:
            left = {e.action_id: reason for e in executed_of(conn, run.incident_id) if (reason := stays(e.action))}
            for action_id, reason in (left | one.plan.facts.get(KEPT, {})).items():
                journal.set_kept(conn, action_id, reason)
        standing_orders.plan_anew(conn, run.incident_id, now=now)
        _tell(conn, run.world.policy, incident, one, failed, now=now)
        run.keep(conn, OrderEnded(tuple(failed)), digest)
        if failed:
            watch(conn, one.plan, now + timedelta(seconds=LOOK_AGAIN_S), now=now)


def _tell(conn: Connection, policy: Policy, incident: Incident, one: Ordered, failed: Sequence[str], *, now: datetime) -> None:
    plan = one.plan
    done = [a.past for i, a in enumerate(plan.actions) if (change := one.given.change(i)) and change.settled]
    told = "; ".join([*done, *(f"could not be done: {summary}" for summary in failed)])
    subject = f"[UPDATE] {messages.model_name(incident.model)} - {incident.severity.title()}"
    expected = f" {plan.expected[:1].upper()}{plan.expected[1:]}." if done else ""
    text = messages.line(f"{incident.id}: {told or 'Nothing had to be changed'}. {plan.reasons[0]}.{expected}")
    key = f"order:{plan.digest[:12]}" + (f":{now.isoformat()}" if failed else "")
    send_to_stakeholders(conn, policy, incident, messages.Rendered(subject, text), key=key, now=now)


def overdue(conn: Connection, policy: Policy, item: outbox.Item, *, now: datetime) -> None:
    """What is ordered and not in force is paged, and tried again while it may be, until it is in force or people say otherwise."""
    incident = incidents.get(conn, str(item.incident_id), lock=True)
    policy = policy.for_model(incident.model)
    digest = str(item.payload["digest"])
    known = standing_orders.of_incident(conn, policy, incident.id, incident.model, now=now) if incident.status.is_open else []
    one = next((o for o in known if o.plan.digest == digest), None)
    timers = [r for r in outbox.of_incident(conn, incident.id, ORDER_OVERDUE) if r["payload"]["digest"] == digest]
    is_watched = any(r["id"] > item.id and r["delivered_at"] is None and r["cancelled_at"] is None for r in timers)
    if one is None or not one.state.is_open or is_watched:  # a newer timer sees to it: they must not multiply
        return
    told: Mapping[str, Any] = next((r["payload"] for r in reversed(timers) if r["payload"].get("paged_at")), {})
    if one.to_carry_out:
        leases.wake(conn, incident.id, why=f"ordered and not in force: {summary_of(one.plan)}", key=f"order-{digest[:12]}-{now}", now=now)
    late_s = (now - one.given.since).total_seconds()
    paged_at = None
    if told:
        then = datetime.fromisoformat(told["paged_at"])
        paged_at = min(incidents.on_this_clock(conn, incident.id, then, told.get("moved_s", 0.0)), now)
    is_due = late_s >= policy.containment.order_overdue_after_s or one.state is OrderState.LAPSED
    every = timedelta(minutes=policy.containment.order_page_every_min)
    if is_due and (paged_at is None or now - paged_at >= every or (one.state is OrderState.LAPSED and told.get("state") != one.state)):
        _page(conn, policy, incident, one, again=paged_at is not None, key=item.dedup_key, now=now)
        if one.to_carry_out and paged_at is None and late_s >= policy.containment.order_overdue_after_s:
            leases.preempt(conn, incident.id, why=f"ordered {late_s:.0f} s ago and not in force", now=now)
        paged_at = now
    watch(conn, one.plan, _next_look(policy, one, paged_at, now), now=now, paged_at=paged_at, state=one.state)


def _next_look(policy: Policy, one: Ordered, paged_at: datetime | None, now: datetime) -> datetime:
    """Soon while it may still come true; when its approval runs out; and when it is to be paged again."""
    late_s = (now - one.given.since).total_seconds()
    looks = [(paged_at or now) + timedelta(minutes=policy.containment.order_page_every_min)]
    if one.to_carry_out:
        looks.append(now + timedelta(seconds=min(max(TRY_AGAIN_S, late_s), LOOK_AGAIN_S)))
    if paged_at is None:
        looks.append(one.given.since + timedelta(seconds=policy.containment.order_overdue_after_s))
    lapses = one.given.since + timedelta(minutes=policy.approvals.emergency.expires_after_min)
    looks.append(lapses)
    return max(min(at for at in looks if at > now), now + timedelta(seconds=1))


def _page(conn: Connection, policy: Policy, incident: Incident, one: Ordered, *, again: bool, key: str, now: datetime) -> None:
    what = summary_of(one.plan)
    match one.state:
        case OrderState.WAITING:
            words, todo = f"ordered, and it waits until enough others say yes: {what}; {one.sentence}", "Decide: " + _by_command(one)
            roles = list(policy.approvals.emergency.roles[:2])
        case OrderState.FAILED:
            words, todo, roles = (
                f"ordered and could not be done: {one.sentence}",
                BY_HAND + ANEW.format(id=incident.id),
                [Role.ONCALL_ML_ENGINEER],
            )
        case OrderState.LAPSED:
            words = f"ordered and not done, and it is no longer tried: {what}; {one.sentence}"
            todo, roles = BY_HAND + ANEW.format(id=incident.id), [Role.ONCALL_ML_ENGINEER]
        case _:
            until = f"tried until {one.given.since + timedelta(minutes=policy.approvals.emergency.expires_after_min):%H:%M} UTC"
            words = f"ordered and not done: {what}; {'begun, and tried until it is read back' if one.given.sent else until}"
            todo, roles = BY_HAND, [Role.ONCALL_ML_ENGINEER]
    timeline.append(conn, incident.id, "action", words[:1].upper() + words[1:], actor="dispatcher", at=now)
    where = console_links.of_decision(incident.id, one.plan.digest) if one.state is OrderState.WAITING else None
    for role in dict.fromkeys([*roles, *([Role.ML_TEAM_LEAD] if again else [])]):
        page(conn, policy, incident, Page(role, words, f"{key}:{role}", todo, console=where), now=now)


def _by_command(one: Ordered) -> str:
    return f"mlrunbook incidents approve {one.plan.incident_id} --plan {one.plan.digest[:12]}   (or: incidents reject)"


def ordered_things(run: Run) -> frozenset[Thing]:
    """What people have ordered, or taken back, in any open incident of the model: rules only propose it from then on."""
    with run.world.transaction() as conn:
        model = incidents.get(conn, run.incident_id).model
        of_model = standing_orders.of_model(conn, run.world.policy, model, now=run.world.now())
        known = [o for o in of_model if o.state is not OrderState.REJECTED]
    return frozenset(thing for o in known for thing in things_of(o.plan))


def in_force(conn: Connection, policy: Policy, incident: Incident, *, since: datetime, now: datetime) -> list[str]:
    """What was ordered after `since` and counts still, done or not: its giver knew of what came before."""
    known = standing_orders.of_model(conn, policy, incident.model, now=now)
    found = {o.plan.digest: o for thing in Thing if (o := newest_about(known, thing))}
    return [summary_of(o.plan) for o in found.values() if o.given.since > since and undoes_of(o.plan) is None]


def underway(conn: Connection, policy: Policy, incident: Incident, *, now: datetime) -> list[str]:
    """What people have ordered in this incident and a run is about to carry out, or is at: no close drops it."""
    known = standing_orders.of_incident(conn, policy, incident.id, incident.model, now=now)
    return [summary_of(o.plan) for o in known if o.state in (OrderState.REQUESTED, OrderState.IN_PROGRESS)]


def not_in_force(conn: Connection, policy: Policy, incident: Incident, *, now: datetime) -> list[str]:
    """What people have ordered in this incident and is not done, whatever the reason: no measurement ends the paging about it."""
    known = standing_orders.of_incident(conn, policy, incident.id, incident.model, now=now)
    return [f"{summary_of(o.plan)} ({o.state.replace('_', ' ')}: {o.sentence})" for o in known if o.state.is_open]


def _ordered(run: Run, conn: Connection, digest: str) -> Ordered | None:
    return next((o for o in of_run(run, conn) if o.plan.digest == digest), None)


def _not_isolated(conn: Connection, policy: Policy, incident: Incident, *, now: datetime) -> None:
    """Neither begun nor approved: what an officer has decided is not overtaken by an order that would end the process."""
    may = " or ".join(role.words for role in policy.for_model(incident.model).approvals.isolation.roles)
    for one in incidents.find(conn, model=incident.model, only_open=True):
        decided = plans.current(conn, one.id, PlanKind.ISOLATION)
        about_to = decided and any(isinstance(a, Isolate) and a.isolated for a in decided.actions)
        if about_to and decided and valid_approval(conn, policy, decided, now=now)[0]:
            rows = [r for r in journal.of_incident(conn, one.id) if r.plan_digest == decided.digest]
            if not any(r.undone_by for r in rows):
                raise Refused(f"{incident.model} is about to be isolated for {one.id}: it is evidence; {may} decides how it goes on")
    if holder := journal.isolating(conn, incident.model):
        raise Refused(f"{incident.model} is isolated for {holder}: it serves nobody and is evidence; {may} decides how it goes on")
