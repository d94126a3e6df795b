"""What a person orders on the spot, as a plan; and its inverse."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from mlrunbook.domain.actions import Action, Configure, FlagWorkOrders, Isolate, Order, Plan, PlanKind, RollBack, RouteTraffic, Scale
from mlrunbook.domain.containment.emergency import Word, emergency_plan, undoes_of
from mlrunbook.domain.containment.taking_back import Executed, Seen, reverse
from mlrunbook.domain.errors import Invalid, Refused
from mlrunbook.domain.observed import ServingState

NOW = datetime(2026, 3, 29, 1, 30, tzinfo=UTC)
MODEL = "predictive_maintenance"


def ordered(order: Order, version: str | None = None, at: datetime = NOW) -> Plan:
    return emergency_plan("incident_1", MODEL, order, Word("the engineer on call", "pumps fail", at), version=version)


def test_stopping_serving_is_one_action() -> None:
    plan = ordered(Order.STOP_SERVING)
    assert plan.actions == (Scale(MODEL, 0),)
    assert plan.kind is PlanKind.EMERGENCY
    assert plan.reasons == ("the engineer on call ordered it at 2026-03-29 01:30:00 UTC: pumps fail",)
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
    assert ordered(Order.STOP_SERVING).digest != ordered(Order.STOP_SERVING, at=NOW + timedelta(microseconds=1)).digest


def test_taking_back_names_for_each_action_what_it_takes_back_and_for_the_rest_why_it_stays() -> None:
    executed = [
        Executed("a-1", Configure(MODEL, {"threshold": 0.7}), {"threshold": 0.5}),
        Executed("a-2", FlagWorkOrders(MODEL, reason="x"), {}),
        Executed("a-3", Scale(MODEL, 0), {"replicas": 2}),
        Executed("a-4", RollBack(MODEL, "v1.5.0", reason="x"), {"serving_version": "v2.0.0"}),
    ]
    plan = reverse("incident_1", MODEL, executed, Seen(), Word("the lead", "it was the sensor", NOW))
    assert plan.actions == (Configure(MODEL, {"threshold": 0.5}), Scale(MODEL, 2)), "a server that starts reads its config"
    assert undoes_of(plan) == ["a-1", "a-3"]
    assert any("work orders stay flagged" in reason for reason in plan.reasons)
    assert any("a new deployment" in reason for reason in plan.reasons)


def test_an_isolation_is_never_taken_back_by_it() -> None:
    with pytest.raises(Refused, match="isolation is lifted by a named person's decision"):
        reverse("incident_1", MODEL, [Executed("a-1", Isolate(MODEL, True), {"isolated": False})], Seen(), Word("x", "y", NOW))


SERVED = {"replicas": 2, "ready_replicas": 2}


def back(*executed: Executed, seen: Seen | None = None) -> tuple[Action, ...]:
    return reverse("incident_1", MODEL, executed, seen or Seen(), Word("the lead", "it was the sensor", NOW)).actions


def state(**values: Any) -> ServingState:
    return ServingState(
        **({"replicas": 0, "ready_replicas": 0, "route_version": None, "restart_id": None, "version": None, "config": None} | values)
    )


class TestTakingBackRestoresWhatWasThereBefore:
    def test_several_routes_go_back_as_one_to_what_was_there_before_the_first(self) -> None:
        routes = [
            Executed("a-1", RouteTraffic(MODEL, "v1.5.0"), {"version": None}),
            Executed("a-2", RouteTraffic(MODEL, "v1.4.0"), {"version": "v1.5.0"}),
        ]
        assert back(*routes) == (RouteTraffic(MODEL, None),)

    def test_serving_starts_last_so_that_nothing_answers_from_a_route_that_is_still_to_change(self) -> None:
        done = [
            Executed("a-1", Scale(MODEL, 0), SERVED),
            Executed("a-2", RouteTraffic(MODEL, "v9.9.9"), {"version": None}),
            Executed("a-3", Configure(MODEL, {"auto_work_orders": False}), {"auto_work_orders": True}),
        ]
        assert back(*done) == (Configure(MODEL, {"auto_work_orders": True}), RouteTraffic(MODEL, None), Scale(MODEL, 2))

    def test_what_somebody_scaled_to_since_stays(self) -> None:
        with pytest.raises(Refused, match="somebody has scaled to 5 since"):
            back(Executed("a-1", Scale(MODEL, 0), {"replicas": 1}), seen=Seen(state(replicas=5, ready_replicas=5)))

    def test_what_somebody_routed_to_since_stays_and_the_rest_goes_back(self) -> None:
        done = [Executed("a-1", Scale(MODEL, 0), SERVED), Executed("a-2", RouteTraffic(MODEL, "v1.5.0"), {"version": None})]
        assert back(*done, seen=Seen(state(route_version="v1.3.0"))) == (Scale(MODEL, 2),)

    @pytest.mark.parametrize("before", [None, {}, {"replicas": None, "ready_replicas": None}, {"replicas": 0, "ready_replicas": 0}])
    def test_a_stop_of_which_nobody_recorded_what_ran_goes_back_to_the_last_number_on_record(self, before: Any) -> None:
        assert back(Executed("a-1", Scale(MODEL, 0), before), seen=Seen(last_replicas=3)) == (Scale(MODEL, 3),)

    def test_a_route_of_which_nobody_recorded_what_was_before_is_left_to_the_registry(self) -> None:
        assert back(Executed("a-1", RouteTraffic(MODEL, "v9.9.9"), None)) == (RouteTraffic(MODEL, None),)

    def test_no_more_servers_must_answer_than_did_before_the_stop(self) -> None:
        assert back(Executed("a-1", Scale(MODEL, 0), {"replicas": 1, "ready_replicas": 0})) == (Scale(MODEL, 1, min_ready=0),)

    def test_what_another_incident_holds_stays(self) -> None:
        with pytest.raises(Refused, match="incident_3 holds the serving"):
            back(Executed("a-1", Scale(MODEL, 0), {"replicas": 0}), seen=Seen(held={"scale": "incident_3 holds the serving"}))


def test_a_plan_stored_before_there_was_a_number_of_servers_to_answer_keeps_its_digest() -> None:
    stored = {"kind": "scale", "model": MODEL, "replicas": 1}
    plan = Plan.from_dict({"incident_id": "incident_1", "kind": "undo", "model": MODEL, "actions": [stored], "reasons": []})
    assert plan.as_dict()["actions"] == [stored]


def test_whoever_gives_an_order_asked_for_it_by_person_id_and_by_name() -> None:
    word = Word("Kim Lee (ML team lead)", "pumps fail", NOW, "kim", "Kim Lee")
    assert set(emergency_plan("incident_1", MODEL, Order.STOP_SERVING, word).requested_by) == {"kim", "kim lee"}, "a form asks for a name"
