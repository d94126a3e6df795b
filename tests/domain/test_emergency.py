"""What a person orders on the spot, as a plan; and its inverse."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from mlrunbook.domain.actions import Configure, FlagWorkOrders, Isolate, Order, Plan, PlanKind, RollBack, RouteTraffic, Scale
from mlrunbook.domain.containment import Executed
from mlrunbook.domain.emergency import emergency_plan, take_back, undoes_of
from mlrunbook.domain.errors import Invalid, Refused

NOW = datetime(2026, 3, 29, 1, 30, tzinfo=UTC)
MODEL = "predictive_maintenance"


def ordered(order: Order, version: str | None = None, at: datetime = NOW) -> Plan:
    return emergency_plan("incident_1", MODEL, order, version=version, by="the engineer on call", why="pumps fail", at=at)


def test_stopping_serving_is_one_action() -> None:
    plan = ordered(Order.STOP_SERVING)
    assert plan.actions == (Scale(MODEL, 0),)
    assert plan.kind is PlanKind.EMERGENCY
    assert plan.reasons == ("the engineer on call orders it at 2026-03-29 01:30:00.000000 UTC: pumps fail",)
    assert undoes_of(plan) is None


def test_traffic_goes_to_the_version_named() -> None:
    assert ordered(Order.ROUTE, "v1.5.0").actions == (RouteTraffic(MODEL, "v1.5.0"),)


def test_halting_work_orders_flags_the_pending_ones_too() -> None:
    assert [type(a) for a in ordered(Order.HALT_WORK_ORDERS).actions] == [Configure, FlagWorkOrders]


@pytest.mark.parametrize(("order", "version"), [(Order.ROUTE, None), (Order.STOP_SERVING, "v1.5.0")])
def test_a_version_is_given_exactly_where_one_is_meant(order: Order, version: str | None) -> None:
    with pytest.raises(Invalid) as raised:
        ordered(order, version)
    assert raised.value.field == "version"


def test_the_same_order_later_is_another_plan() -> None:
    assert ordered(Order.STOP_SERVING).digest == ordered(Order.STOP_SERVING).digest
    assert ordered(Order.STOP_SERVING).digest != ordered(Order.STOP_SERVING, at=NOW + timedelta(seconds=1)).digest


def test_taking_back_names_for_each_action_what_it_takes_back_and_for_the_rest_why_it_stays() -> None:
    executed = [
        Executed("a-1", Configure(MODEL, {"threshold": 0.7}), {"threshold": 0.5}),
        Executed("a-2", FlagWorkOrders(MODEL, reason="x"), {}),
        Executed("a-3", Scale(MODEL, 0), {"replicas": 2}),
        Executed("a-4", RollBack(MODEL, "v1.5.0", reason="x"), {"serving_version": "v2.0.0"}),
    ]
    plan = take_back("incident_1", MODEL, executed, by="the lead", why="it was the sensor", at=NOW)
    assert plan.actions[:2] == (Scale(MODEL, 2), Configure(MODEL, {"threshold": 0.5}))
    assert undoes_of(plan) == ["a-3", "a-1", None]
    assert any("work orders stay flagged" in reason for reason in plan.reasons)
    assert any("a new deployment" in reason for reason in plan.reasons)


def test_an_isolation_is_never_taken_back_by_it() -> None:
    with pytest.raises(Refused, match="isolation is lifted by a person's decision"):
        take_back("incident_1", MODEL, [Executed("a-1", Isolate(MODEL, True), {"isolated": False})], by="x", why="y", at=NOW)
