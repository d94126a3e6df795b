"""Two open incidents of one model: what people order in one is not ended by what happens in the other."""

from __future__ import annotations

from contextlib import suppress

import pytest

from mlrunbook.domain.actions import Order
from mlrunbook.domain.errors import Refused
from mlrunbook.domain.incident import IncidentType, Severity
from mlrunbook.response.world import World
from tests.fakes import Clock, FileWorld
from tests.response.carrying import carry
from tests.response.containment.test_emergency import order
from tests.response.containment.test_order_states import state_of
from tests.response.people import approve, report


@pytest.fixture
def other(world: World, clock: Clock) -> str:
    """An incident of infrastructure in which somebody has routed traffic."""
    incident_id = report(world, Severity.HIGH, IncidentType.INFRASTRUCTURE)
    order(world, incident_id, Order.ROUTE, version="v1.5.0")
    carry(world, incident_id, "run-1")
    clock.advance(seconds=1)
    return incident_id


@pytest.mark.parametrize("ordered", [Order.STOP_SERVING, Order.HALT_WORK_ORDERS])
@pytest.mark.parametrize("is_begun", [False, True], ids=["not begun", "in force"])
def test_taking_back_in_one_incident_leaves_the_orders_of_another_in_force(
    world: World, file_world: FileWorld, clock: Clock, other: str, ordered: Order, is_begun: bool
) -> None:
    mine = report(world)
    order(world, mine, ordered)
    if is_begun:
        carry(world, mine, "run-2")
    clock.advance(seconds=1)
    order(world, other, Order.TAKE_BACK)
    carry(world, other, "run-1")
    carry(world, mine, "run-2")
    assert file_world.state["route"] is None, "its own route is taken back"
    assert list(state_of(world, mine).values()) == ["in_force"]
    assert (file_world.state["replicas"], file_world.state["config"]["auto_work_orders"]) in ((0, True), (1, False))


def test_work_orders_that_two_incidents_have_halted_start_again_only_once_both_are_taken_back(
    world: World, file_world: FileWorld, clock: Clock, other: str
) -> None:
    order(world, other, Order.HALT_WORK_ORDERS)
    carry(world, other, "run-1")
    clock.advance(seconds=1)
    mine = report(world)
    order(world, mine, Order.HALT_WORK_ORDERS)
    carry(world, mine, "run-2")
    clock.advance(seconds=1)
    with suppress(Refused):
        order(world, other, Order.TAKE_BACK)
    carry(world, other, "run-1")
    assert file_world.state["config"]["auto_work_orders"] is False
    assert state_of(world, mine)["halt"] == "in_force"


def test_an_incident_that_recovers_does_not_undo_what_people_ordered_in_another(world: World, file_world: FileWorld, clock: Clock) -> None:
    recovers = report(world)
    order(world, recovers, Order.HALT_WORK_ORDERS)
    assert carry(world, recovers, "run-1") == "pending"
    clock.advance(seconds=1)
    holds = report(world, Severity.HIGH, IncidentType.INFRASTRUCTURE)
    order(world, holds, Order.HALT_WORK_ORDERS)
    carry(world, holds, "run-2")
    approve(world, recovers)
    clock.advance(minutes=2)
    assert carry(world, recovers, "run-1") == "closed"
    assert file_world.state["config"]["auto_work_orders"] is False
    assert state_of(world, holds)["halt"] == "in_force"
