"""What people hear of an order until it is in force, neither too often nor too seldom; and how an incident with orders ends."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mlrunbook.domain.actions import Configure, Order, Plan, PlanKind, Restart
from mlrunbook.domain.approval import Decision
from mlrunbook.domain.errors import Refused
from mlrunbook.domain.policy.policy import ApprovalRule, Approvals, Policy
from mlrunbook.domain.roles import Role
from mlrunbook.response.containment import emergency, evidence
from mlrunbook.response.execution.approvals import decide
from mlrunbook.response.lifecycle import runs
from mlrunbook.response.review.closing import unexplained
from mlrunbook.response.world import World
from mlrunbook.store import plans
from tests.fakes import MODEL, Clock, FileWorld, LedgerNotifier
from tests.response.containment.test_emergency import order
from tests.response.containment.test_orders_and_other_incidents import carried, close
from tests.response.people import approve, deliver, incident_of, report, say


def pages(notifier: LedgerNotifier, *words: str) -> list[str]:
    return [m.body for m in notifier.pages() if all(word in m.body for word in words)]


def wait(world: World, clock: Clock, incident_id: str, *, times: int, seconds: float) -> None:
    for i in range(times):
        clock.advance(seconds=seconds)
        deliver(world)
        carried(world, incident_id, f"run-{clock()}-{i}")


def test_an_order_that_is_tried_again_and_again_is_paged_every_quarter_of_an_hour(
    world: World, file_world: FileWorld, clock: Clock, notifier: LedgerNotifier
) -> None:
    file_world.faults["route:v1.5.0"] = ["busy"] * 500
    incident_id = report(world)
    order(world, incident_id, Order.ROUTE, version="v1.5.0")
    wait(world, clock, incident_id, times=28, seconds=31)
    assert len(pages(notifier, "ordered and not done")) == 1


def test_an_unknown_outcome_is_looked_at_again_without_a_page_a_minute(
    world: World, file_world: FileWorld, clock: Clock, notifier: LedgerNotifier
) -> None:
    file_world.faults["scale:0"] = ["lost"] * 50
    incident_id = report(world)
    order(world, incident_id)
    carried(world, incident_id, "run-1")
    say(world, incident_id, "rejected")
    wait(world, clock, incident_id, times=10, seconds=61)
    assert len(pages(notifier, "the plan was rejected")) == 1


def test_an_order_that_counts_again_is_paged_until_it_is_in_force(
    world: World, file_world: FileWorld, clock: Clock, notifier: LedgerNotifier
) -> None:
    incident_id = report(world)
    order(world, incident_id, Order.ROUTE, version="v1.4.0")
    clock.advance(seconds=1)
    order(world, incident_id, Order.ROUTE, version="v1.5.0")
    for _ in range(20):
        clock.advance(seconds=31)
        deliver(world)
    say(world, incident_id, "rejected", PlanKind.EMERGENCY)
    for _ in range(20):
        clock.advance(seconds=61)
        deliver(world)
    assert pages(notifier, "ordered and not done", "v1.4.0")


def test_nobody_is_told_that_an_order_was_carried_out_which_was_withdrawn_meanwhile(
    world: World, file_world: FileWorld, notifier: LedgerNotifier
) -> None:
    incident_id = report(world)
    digest = order(world, incident_id)
    run = runs.take(world, incident_id, "run-1")
    assert run is not None
    assert emergency.to_carry_out(run) == [digest]
    evidence.preserve(run)
    say(world, incident_id, "rejected", PlanKind.EMERGENCY)
    emergency.carry_out(run, digest, 0)
    emergency.announce(run, digest)
    deliver(world)
    assert not [m for m in notifier.sent if "topped" in m.body]
    assert incident_of(world, incident_id).status != "contained"


def test_an_order_that_a_newer_one_replaced_gets_no_second_yes(world: World, file_world: FileWorld, clock: Clock) -> None:
    two = ApprovalRule(roles=(Role.ONCALL_ML_ENGINEER, Role.ML_TEAM_LEAD), count=2, not_by_requester=False)
    world = replace(world, policy=Policy(approvals=Approvals(emergency=two)))
    incident_id = report(world)
    old = order(world, incident_id, Order.ROUTE, version="v1.4.0")
    clock.advance(seconds=1)
    order(world, incident_id, Order.ROUTE, version="v1.5.0")
    approve(world, incident_id, PlanKind.EMERGENCY)
    with pytest.raises(Refused, match="order it anew"), world.transaction() as conn:
        decide(conn, world.policy, incident_id, old, Decision("approved", "the lead", "ml_team_lead", "rest"), now=world.now())
    carried(world, incident_id, "run-1")
    assert file_world.state["route"] == "v1.5.0"


class TestTheClose:
    """No incident closes with serving stopped or routed and no reason, and none is kept open by what is over."""

    def test_a_clock_set_back_closes_nothing_that_is_stopped(self, world: World, file_world: FileWorld, clock: Clock) -> None:
        incident_id = report(world)
        for what, seconds in ((Order.STOP_SERVING, 60), (Order.TAKE_BACK, -30), (Order.STOP_SERVING, 0)):
            order(world, incident_id, what)
            carried(world, incident_id, "run-1")
            clock.advance(seconds=seconds)
        assert file_world.state["replicas"] == 0
        with world.transaction() as conn:
            assert unexplained(conn, incident_id) == ["stop serving predictive_maintenance"]

    def test_a_stop_that_was_taken_back_though_its_end_was_unknown_keeps_nothing_open(
        self, world: World, file_world: FileWorld, clock: Clock
    ) -> None:
        file_world.faults["scale:0"] = ["lost"]
        incident_id = report(world)
        order(world, incident_id)
        carried(world, incident_id, "run-1")
        clock.advance(seconds=1)
        order(world, incident_id, Order.TAKE_BACK)
        carried(world, incident_id, "run-1")
        report(world, by_alert=False)  # what a person reports, a person closes
        close(world, incident_id)
        assert not incident_of(world, incident_id).status.is_open

    def test_what_was_stopped_already_when_it_was_ordered_can_be_kept_with_a_reason(self, world: World, file_world: FileWorld) -> None:
        file_world.set(replicas=0)
        incident_id = report(world)
        order(world, incident_id)
        carried(world, incident_id, "run-1")
        close(world, incident_id, keep=True)
        assert not incident_of(world, incident_id).status.is_open

    def test_taking_back_says_why_the_rest_stays(self, world: World, file_world: FileWorld, clock: Clock) -> None:
        incident_id = report(world)
        carried(world, incident_id, "run-1")
        actions = (Configure(MODEL, {"threshold": 0.7}), Restart(MODEL, "r1"))
        with world.transaction() as conn:
            plans.propose(conn, Plan(incident_id, PlanKind.MITIGATION, MODEL, actions, ("x",)), now=world.now())
        approve(world, incident_id, PlanKind.MITIGATION)
        carried(world, incident_id, "run-1")
        order(world, incident_id, Order.HALT_WORK_ORDERS)
        carried(world, incident_id, "run-1")
        clock.advance(seconds=5)
        order(world, incident_id, Order.TAKE_BACK)
        carried(world, incident_id, "run-1")
        assert file_world.state["loaded_threshold"] == 0.5
        with world.transaction() as conn:
            assert unexplained(conn, incident_id) == []
