"""The states of an order, and which of several counts: docs/decisions/0006-orders-are-desired-states.md."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlrunbook.domain.actions import Action, Configure, Order, Plan, Promote, Restart, RollBack, RouteTraffic, Scale, Stage
from mlrunbook.domain.containment.emergency import Word, emergency_plan
from mlrunbook.domain.containment.orders import Change, Given, OrderState, Thing, contradicts, judge, newest_about, things_of, unspoken
from mlrunbook.domain.containment.taking_back import Executed, Seen, reverse
from mlrunbook.domain.policy.changes import Rule

NOW = datetime(2026, 3, 29, 1, 30, tzinfo=UTC)
MODEL = "predictive_maintenance"


def plan(order: Order, number: int, version: str | None = None) -> Plan:
    at = NOW + timedelta(seconds=number)
    if order is Order.TAKE_BACK:
        done = [Executed("a-1", Scale(MODEL, 0), {"replicas": 1})]
        return reverse("incident_1", MODEL, done, Seen(), Word("the lead", "it was the sensor", at))
    return emergency_plan("incident_1", MODEL, order, Word("the lead", "pumps fail", at), version=version)


def order(number: int, what: Order = Order.STOP_SERVING, *, version: str | None = None, granted: bool = True, stands: bool = True) -> Given:
    at = NOW + timedelta(seconds=number)
    return Given(plan(what, number, version), number, at, at if granted else None, stands, "approved by the lead")


def changed(one: Given, state: str, ordinal: int = 0, *, undone: bool = False) -> Given:
    action = one.plan.actions[ordinal]
    thing = Thing.ROUTE if isinstance(action, RouteTraffic) else Thing.SERVING if isinstance(action, Scale) else Thing.WORK_ORDERS
    begun = state != "intended"
    made = Change(f"{one.number}:{ordinal}", one.plan.digest, ordinal, state, thing, one.given_at, begun, undone, "forbidden")
    return replace(one, changes=(*one.changes, made))


def states(*orders: Given, others: tuple[Change, ...] = ()) -> list[OrderState]:
    return [one.state for one in judge(orders, others)]


@pytest.mark.parametrize(
    ("one", "state"),
    [
        (order(1), OrderState.REQUESTED),
        (order(1, granted=False, stands=False), OrderState.WAITING),
        (order(1, stands=False), OrderState.LAPSED),
        (changed(order(1), "intended"), OrderState.REQUESTED),
        (changed(order(1, stands=False), "intended"), OrderState.LAPSED),
        (changed(order(1, stands=False), "applying"), OrderState.IN_PROGRESS),
        (changed(order(1), "done"), OrderState.IN_FORCE),
        (changed(order(1, stands=False), "already_held"), OrderState.IN_FORCE),
        (changed(order(1), "unknown"), OrderState.FAILED),
        (changed(order(1), "refused"), OrderState.FAILED),
        (changed(order(1), "done", undone=True), OrderState.REVERSED),
        (replace(order(1), rejected=True), OrderState.REJECTED),
        (replace(order(1), failures={0: "the model is isolated"}), OrderState.FAILED),
    ],
)
def test_one_order_alone(one: Given, state: OrderState) -> None:
    assert states(one) == [state]


def test_the_newest_route_counts_whatever_came_before() -> None:
    a, b, again = (order(n, Order.ROUTE, version=v) for n, v in ((1, "v1"), (2, "v2"), (3, "v1")))
    assert states(a, b, again) == [OrderState.REPLACED, OrderState.REPLACED, OrderState.REQUESTED]


def test_an_order_that_waits_for_a_second_yes_replaces_nothing_until_it_has_it() -> None:
    first, second = order(1), order(2, Order.TAKE_BACK, granted=False, stands=False)
    assert states(first, second) == [OrderState.REQUESTED, OrderState.WAITING]


def test_what_was_withdrawn_lets_the_order_before_it_count_again() -> None:
    a, b = order(1, Order.ROUTE, version="v1"), replace(order(2, Order.ROUTE, version="v2"), rejected=True)
    assert states(a, b) == [OrderState.REQUESTED, OrderState.REJECTED]


def test_orders_about_different_things_stand_beside_each_other() -> None:
    assert states(order(1), order(2, Order.HALT_WORK_ORDERS)) == [OrderState.REQUESTED, OrderState.REQUESTED]


def test_a_plan_that_people_approved_since_and_that_sets_the_same_thing_replaces_the_order() -> None:
    stopped = changed(order(1), "done")
    served = Change("r", "resolution", 0, "done", Thing.SERVING, NOW + timedelta(minutes=5), True)
    assert states(stopped, others=(served,)) == [OrderState.REPLACED]


def test_taking_back_is_about_everything_and_replaces_what_has_not_begun() -> None:
    assert things_of(plan(Order.TAKE_BACK, 1)) == set(Thing)
    assert states(order(1, Order.HALT_WORK_ORDERS), order(2, Order.TAKE_BACK)) == [OrderState.REPLACED, OrderState.REQUESTED]


def test_a_failed_order_with_an_unknown_end_is_looked_at_again_and_a_refused_one_is_not() -> None:
    unknown, refused = judge([changed(order(1), "unknown")])[0], judge([changed(order(1), "refused")])[0]
    assert (unknown.to_carry_out, refused.to_carry_out) == (True, False)


@pytest.mark.parametrize(
    ("what", "action", "speaks_against"),
    [
        (Order.STOP_SERVING, RollBack(MODEL, "v1"), True),
        (Order.STOP_SERVING, Restart(MODEL, "r"), True),
        (Order.STOP_SERVING, Promote(MODEL, "v3"), True),
        (Order.ROUTE, Scale(MODEL, 1), True),
        (Order.TAKE_BACK, RouteTraffic(MODEL, "v1"), True),
        (Order.HALT_WORK_ORDERS, Configure(MODEL, {"auto_work_orders": True}), True),
        (Order.HALT_WORK_ORDERS, RollBack(MODEL, "v1"), False),
        (Order.STOP_SERVING, Configure(MODEL, {"human_approval": True}), False),
        (Order.STOP_SERVING, Stage(MODEL, None), False),
    ],
)
def test_what_an_order_speaks_against(what: Order, action: Action, speaks_against: bool) -> None:
    assert contradicts(plan(what, 1, "v1" if what is Order.ROUTE else None), action) is speaks_against


def test_rules_keep_to_what_nobody_has_spoken_about() -> None:
    assert unspoken(frozenset(Rule), frozenset({Thing.SERVING})) == frozenset(Rule) - {Rule.STOP_SERVING, Rule.ROUTE_PREVIOUS}
    assert unspoken(frozenset(Rule), frozenset()) == frozenset(Rule)


ORDERS = st.lists(
    st.tuples(
        st.sampled_from([Order.STOP_SERVING, Order.ROUTE, Order.HALT_WORK_ORDERS, Order.TAKE_BACK]),
        st.booleans(),
        st.booleans(),
        st.sampled_from(["", "intended", "applying", "done", "unknown", "refused"]),
    ),
    max_size=6,
)


@given(ORDERS)
def test_at_most_one_order_about_a_thing_is_carried_out_and_it_is_the_newest(drawn: list[tuple[Order, bool, bool, str]]) -> None:
    orders = []
    for number, (what, granted, rejected, state) in enumerate(drawn, start=1):
        one = order(number, what, version="v1" if what is Order.ROUTE else None, granted=granted, stands=granted)
        one = replace(one, rejected=rejected and not state)
        orders.append(changed(one, state) if state and granted else one)
    judged = judge(orders)
    for thing in Thing:
        live = [j for j in judged if j.to_carry_out and thing in things_of(j.plan)]
        newest = newest_about(judged, thing)
        for one in live:
            at_work = [a for i, a in enumerate(one.plan.actions) if i in one.left]
            if newest is not one:  # only what it is about beside this thing is left to do
                assert all(thing not in things_of(replace(one.plan, actions=(a,), facts={})) for a in at_work)
