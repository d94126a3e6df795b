"""What people have ordered, and what of it counts: the state model of docs/decisions/0006-orders-are-desired-states.md.

An order is a desired state with the person who gave it. About each thing (serving, route, work orders) the newest order is what must be
in force; older ones are replaced by it. Nothing here reads a clock or the store.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from mlrunbook.domain.action_state import SETTLED, ActionState
from mlrunbook.domain.actions import (
    Action,
    Configure,
    FlagWorkOrders,
    Plan,
    Promote,
    Restart,
    RollBack,
    RouteTraffic,
    Scale,
    UndoRollout,
)
from mlrunbook.domain.containment.emergency import undoes_of
from mlrunbook.domain.policy.changes import Rule
from mlrunbook.domain.records import Record, Recorded


class Thing(StrEnum):
    """What an order is about. Isolation has its own plans and officers, and comes before all of these."""

    SERVING = "serving"
    ROUTE = "route"
    WORK_ORDERS = "work_orders"


class OrderState(StrEnum):
    WAITING = "waiting"  # for the yes of as many others as policy wants
    REQUESTED = "requested"  # the next run carries it out
    IN_PROGRESS = "in_progress"  # begun: seen through, also past the time that its approval ran
    IN_FORCE = "in_force"  # every change is read back
    FAILED = "failed"  # refused, or the outcome is unknown: looked at again, and paged about
    LAPSED = "lapsed"  # nobody began it before its approval expired
    REJECTED = "rejected"  # withdrawn by a person
    REPLACED = "replaced"  # by a newer order, or by a newer approved plan, about the same thing
    REVERSED = "reversed"  # taken back

    @property
    def is_open(self) -> bool:
        """What must be in force and is not: people hear of it until it is."""
        return self in (OrderState.WAITING, OrderState.REQUESTED, OrderState.IN_PROGRESS, OrderState.FAILED, OrderState.LAPSED)


# What answers a request is one question: a plan about one of these was made in view of the others.
WHAT_ANSWERS = frozenset({Thing.SERVING, Thing.ROUTE})
_CHANGES_WHAT_ANSWERS = (Scale, RouteTraffic, RollBack, Promote, UndoRollout, Restart)
ALL_THINGS = frozenset(Thing)
_ENDED_BADLY = (ActionState.REFUSED, ActionState.UNKNOWN)


@dataclass(frozen=True)
class Change:
    """One journaled action, of any plan. `sent`: it happened, or may have. `approval`: the number of the yes it rests on, which says
    what is newer; `at`, when its intent was written, only where that is the same."""

    id: str
    digest: str
    ordinal: int
    state: str  # an ActionState, as in the journal
    thing: Thing | None
    at: datetime
    sent: bool
    undone: bool = False
    error: str | None = None
    approval: int = 0

    @property
    def settled(self) -> bool:
        return self.state in SETTLED


@dataclass(frozen=True)
class Given:
    """An order as the store has it. `number` grows with every yes that is said to anything: what is newer is told by it, never by a clock.
    `granted_at`: when the last person needed said yes; None: that has not happened. `stands`: enough of what was said has not expired.
    `failures`: why an action (by its position) could not be done."""

    plan: Plan
    number: int
    given_at: datetime
    granted_at: datetime | None
    stands: bool
    why: str
    has_a_yes: bool = True
    rejected: bool = False
    changes: tuple[Change, ...] = ()
    failures: Mapping[int, str] = field(default_factory=dict)

    @property
    def since(self) -> datetime:
        return self.granted_at or self.given_at

    @property
    def sent(self) -> bool:
        return any(c.sent for c in self.changes)

    def change(self, ordinal: int) -> Change | None:
        return next((c for c in self.changes if c.ordinal == ordinal), None)


@dataclass(frozen=True)
class Ordered:
    """An order, judged. `left`: the positions of the actions that count still and are not settled."""

    given: Given
    state: OrderState
    sentence: str
    left: tuple[int, ...] = ()

    @property
    def plan(self) -> Plan:
        return self.given.plan

    @property
    def to_carry_out(self) -> bool:
        """A run has something to do about it: begin it, see it through, or look whether it has come true after all."""
        if self.state is not OrderState.FAILED:
            return self.state in (OrderState.REQUESTED, OrderState.IN_PROGRESS)
        states = {i: change.state if (change := self.given.change(i)) else None for i in self.left}
        untried = any(i not in self.given.failures and states[i] not in _ENDED_BADLY for i in self.left)
        return ActionState.UNKNOWN in states.values() or (untried and self.given.stands)


@dataclass(frozen=True)
class Failed(Recorded, key=Record.FAILED):
    """An action could not be done and people were paged: of an order, or of any containment. It is not tried again by itself."""

    error: str


@dataclass(frozen=True)
class OrderWaits(Recorded, key=Record.ORDER_WAITS):
    """An action of an order was not possible yet; it is tried again."""

    error: str


@dataclass(frozen=True)
class OrderEnded(Recorded, key=Record.ORDER_ENDED):
    """The outcome of the order was announced. `failed`: the summaries of what could not be done."""

    failed: tuple[str, ...] = ()


def thing_of(action: Action) -> Thing | None:
    """The thing that an action sets, where an order may be about it."""
    match action:
        case Scale():
            return Thing.SERVING
        case RouteTraffic():
            return Thing.ROUTE
        case FlagWorkOrders():
            return Thing.WORK_ORDERS
        case Configure() if "auto_work_orders" in action.settings:
            return Thing.WORK_ORDERS
    return None


def things_of(plan: Plan) -> frozenset[Thing]:
    """What the order is about; one that takes containment back is about everything, in its own incident."""
    return ALL_THINGS if undoes_of(plan) is not None else _sets(plan)


def _sets(plan: Plan) -> frozenset[Thing]:
    return frozenset(thing for action in plan.actions if (thing := thing_of(action)))


def _speaks_about(newer: Plan, plan: Plan) -> frozenset[Thing]:
    """The things about which `newer` counts and `plan` no longer does. Taking back ends every order of its own incident; what people have
    ordered in another one it only ends where it sets the same thing."""
    return things_of(newer) if newer.incident_id == plan.incident_id else _sets(newer)


def contradicts(order: Plan, action: Action) -> bool:
    """Whether an action that was approved before the order must not be carried out after it."""
    things = things_of(order)
    if isinstance(action, _CHANGES_WHAT_ANSWERS):
        return bool(things & WHAT_ANSWERS)
    return isinstance(action, Configure) and thing_of(action) in things


_RULES_ABOUT = {
    Rule.ROUTE_PREVIOUS: WHAT_ANSWERS,
    Rule.STOP_SERVING: WHAT_ANSWERS,
    Rule.HALT_WORK_ORDERS: frozenset({Thing.WORK_ORDERS}),
}


def unspoken(rules: frozenset[Rule], things: frozenset[Thing]) -> frozenset[Rule]:
    """The rules that may act by themselves: about what people have ordered, or taken back, no rule decides over their heads."""
    return frozenset(rule for rule in rules if not _RULES_ABOUT.get(rule, frozenset()) & things)


def judge(orders: Sequence[Given], others: Iterable[Change] = ()) -> list[Ordered]:
    """Every order's state, oldest first. `others`: what approved plans that are no orders have changed since."""
    by_age = sorted(orders, key=lambda g: g.number)
    later = [c for c in others if c.settled]
    return [_judged(one, [g for g in by_age[i + 1 :] if g.granted_at and not g.rejected], later) for i, one in enumerate(by_age)]


def newest_about(judged: Sequence[Ordered], thing: Thing) -> Ordered | None:
    """The order that must be in force about a thing; None where none does. One that only waits for a second yes counts once it has it."""
    for one in reversed(judged):
        counts = one.state not in (OrderState.REJECTED, OrderState.WAITING, OrderState.REPLACED, OrderState.REVERSED)
        if counts and thing in _sets(one.plan):
            return one
    return None


def _judged(one: Given, newer: Sequence[Given], others: Sequence[Change]) -> Ordered:
    if one.rejected:
        return Ordered(one, OrderState.REJECTED, one.why)
    stale = {i for i, action in enumerate(one.plan.actions) if _replaced(one, i, action, newer, others)}
    counts = [i for i in range(len(one.plan.actions)) if i not in stale]
    if (one.plan.actions and not counts) or (not one.plan.actions and newer):
        return Ordered(one, *_replacement(newer))
    settled = [c for i in counts if (c := one.change(i)) and c.settled]
    if len(settled) == len(counts) and one.granted_at:
        if settled and all(c.undone for c in settled):
            return Ordered(one, OrderState.REVERSED, "it was taken back")
        return Ordered(one, OrderState.IN_FORCE, "every change is read back" if settled else "nothing of it was in force yet")
    left = tuple(i for i in counts if not ((c := one.change(i)) and c.settled))
    failed = [i for i in left if i in one.failures or ((c := one.change(i)) and c.state in _ENDED_BADLY)]
    if failed:
        return Ordered(one, OrderState.FAILED, _failure(one, failed[0]), left)
    if one.sent and one.granted_at:
        return Ordered(one, OrderState.IN_PROGRESS, "begun and not read back yet", left)
    if one.stands:
        return Ordered(one, OrderState.REQUESTED, one.why, left)
    if one.granted_at is None and one.has_a_yes:
        return Ordered(one, OrderState.WAITING, one.why, left)
    return Ordered(one, OrderState.LAPSED, one.why, left)


def _replaced(one: Given, ordinal: int, action: Action, newer: Sequence[Given], others: Sequence[Change]) -> bool:
    """A newer order is about the same thing; or a plan that was approved in view of this order has set it anew since."""
    thing = thing_of(action)
    if thing is None:
        return any(undoes_of(g.plan) is not None and g.plan.incident_id == one.plan.incident_id for g in newer)
    done = one.change(ordinal)
    if (
        done
        and done.settled
        and not done.undone
        and any(c.thing is thing and (c.approval, c.at) > (done.approval, done.at) for c in others)
    ):
        return True
    return any(thing in _speaks_about(g.plan, one.plan) for g in newer) and not (done and done.settled and done.undone)


def _replacement(newer: Sequence[Given]) -> tuple[OrderState, str]:
    if not newer:
        return OrderState.REPLACED, "a newer approved plan has set it anew"
    return OrderState.REPLACED, f"a newer order counts: {newer[-1].plan.reasons[0]}"


def _failure(one: Given, ordinal: int) -> str:
    change = one.change(ordinal)
    why = one.failures.get(ordinal) or (change.error if change else None) or "no reason is recorded"
    return f"{one.plan.actions[ordinal].summary}: {why}"
