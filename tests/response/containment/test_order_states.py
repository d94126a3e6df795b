"""Orders as desired states: the newest about a thing is in force, or people are paged about it until it is."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

import pytest
from sqlalchemy import Connection

from flows.containment import contain
from mlrunbook.domain.actions import Isolate, Order, Plan, PlanKind
from mlrunbook.domain.approval import Decision
from mlrunbook.domain.containment.emergency import undoes_of
from mlrunbook.domain.containment.orders import Thing, things_of
from mlrunbook.domain.detection.reports import Report
from mlrunbook.domain.errors import Refused, Transient
from mlrunbook.domain.incident import IncidentType, Severity
from mlrunbook.domain.policy.policy import ApprovalRule, Approvals, Policy
from mlrunbook.domain.roles import Role
from mlrunbook.response.containment.emergency import Requested, request
from mlrunbook.response.detection import triage
from mlrunbook.response.execution import standing_orders
from mlrunbook.response.lifecycle import runs, severity_change
from mlrunbook.response.lifecycle.opening import take_in
from mlrunbook.response.review.closing import unexplained
from mlrunbook.response.world import World
from mlrunbook.store import incidents, journal, plans
from tests.fakes import BUSY_FOR_A_RUN, MODEL, Clock, FileWorld, LedgerNotifier
from tests.response.carrying import carry, play
from tests.response.containment.test_emergency import ONCALL, lease_state, order
from tests.response.people import approve, deliver, incident_of, report

NAMES = {Thing.SERVING: "stop", Thing.ROUTE: "route", Thing.WORK_ORDERS: "halt"}


def state_of(world: World, incident_id: str) -> dict[str, str]:
    """The newest order of each kind, and its state."""
    with world.transaction() as conn:
        known = standing_orders.of_incident(conn, world.policy, incident_id, MODEL, now=world.now())
    return {"take back" if undoes_of(o.plan) is not None else NAMES[next(iter(things_of(o.plan)))]: str(o.state) for o in known}


def breach_that_isolates(conn: Connection, world: World, state: str) -> str:
    """Another open incident of the model whose isolation has got so far."""
    now = world.now()
    told = Report(MODEL, IncidentType.SECURITY, "security", Severity.HIGH, "copied", "Security")
    breach = take_in(conn, world.policy, told, now=now)[0].id
    plan = Plan(breach, PlanKind.ISOLATION, MODEL, (Isolate(MODEL, True),), ("copied",))
    digest = plans.propose(conn, plan, now=now)
    yes = plans.decide(conn, breach, digest, Decision("approved", "x", "security_officer", "rest"), now=now)
    row = journal.intend(conn, journal.Intent(plan, 0, yes.id, 1, {"isolated": False}), now=now)
    journal.mark(conn, row, state)
    return breach


class TestTheNewestOrderCounts:
    """docs/decisions/0006-orders-are-desired-states.md: one test a failure that was reproduced, for its kind."""

    def test_route_to_a_then_b_then_a_again_ends_at_a(self, world: World, file_world: FileWorld, clock: Clock) -> None:
        incident_id = report(world)
        for version in ("v1.5.0", "v2.0.0", "v1.5.0"):
            order(world, incident_id, Order.ROUTE, version=version)
            clock.advance(seconds=1)
        carry(world, incident_id, "run-1")
        assert file_world.state["route"] == "v1.5.0"
        assert "route:v2.0.0" not in file_world.applied, "an order that was replaced is not carried out on the way"

    def test_a_stop_does_not_wait_behind_a_route_that_nothing_answers_to(self, world: World, file_world: FileWorld, clock: Clock) -> None:
        file_world.faults["route:v1.5.0"] = ["busy"] * 50
        incident_id = report(world)
        order(world, incident_id)
        clock.advance(seconds=1)
        order(world, incident_id, Order.ROUTE, version="v1.5.0")
        assert carry(world, incident_id, "run-1") == "pending", "neither does the rest of the runbook"
        assert file_world.state["replicas"] == 0

    def test_an_order_that_has_begun_is_seen_through_past_its_time(
        self, world: World, file_world: FileWorld, clock: Clock, notifier: LedgerNotifier
    ) -> None:
        file_world.faults["scale:0"] = ["lost", "busy"]
        incident_id = report(world)
        order(world, incident_id)
        carry(world, incident_id, "run-1")
        file_world.faults["scale:0"] = []
        file_world.down = True
        clock.advance(minutes=20)
        deliver(world)
        assert any("ordered and" in m.body for m in notifier.pages())
        file_world.down = False
        carry(world, incident_id, "run-2")
        assert state_of(world, incident_id) in ({"stop": "in_force"}, {"stop": "failed"})

    def test_a_stop_that_is_read_back_late_is_in_force_and_can_be_taken_back(
        self, world: World, file_world: FileWorld, clock: Clock, notifier: LedgerNotifier
    ) -> None:
        file_world.faults["scale:0"] = ["lost"]  # it timed out, and the world changes only later
        incident_id = report(world)
        order(world, incident_id)
        carry(world, incident_id, "run-1")
        assert state_of(world, incident_id) == {"stop": "failed"}
        file_world.set(replicas=0)
        deliver(world)
        carry(world, incident_id, "run-1")
        assert state_of(world, incident_id) == {"stop": "in_force"}
        clock.advance(seconds=1)
        order(world, incident_id, Order.TAKE_BACK)
        carry(world, incident_id, "run-1")
        assert file_world.state["replicas"] == 1
        with world.transaction() as conn:
            assert unexplained(conn, incident_id) == []

    def test_a_stop_whose_end_nobody_saw_can_be_taken_back_and_closes_no_incident(
        self, world: World, file_world: FileWorld, clock: Clock
    ) -> None:
        file_world.faults["scale:0"] = ["lost"]
        incident_id = report(world)
        order(world, incident_id)
        carry(world, incident_id, "run-1")
        with world.transaction() as conn:
            assert "stop serving predictive_maintenance" in unexplained(conn, incident_id)
        file_world.set(replicas=0)
        clock.advance(seconds=1)
        order(world, incident_id, Order.TAKE_BACK)
        carry(world, incident_id, "run-1")
        assert file_world.state["replicas"] == 1
        with world.transaction() as conn:
            assert unexplained(conn, incident_id) == []

    def test_the_same_order_given_again_after_the_fix_is_not_undone_by_a_rule(
        self, world: World, file_world: FileWorld, clock: Clock
    ) -> None:
        incident_id = report(world)
        order(world, incident_id, Order.HALT_WORK_ORDERS)
        carry(world, incident_id, "run-1")
        approve(world, incident_id)
        file_world.set(labelled=False)
        assert carry(world, incident_id, "run-1") == "too early to say"
        clock.advance(seconds=30)
        order(world, incident_id, Order.HALT_WORK_ORDERS)
        file_world.set(labelled=True)
        clock.advance(minutes=2)
        with pytest.raises(Refused, match="ordered since the fix"):
            carry(world, incident_id, "run-2")
        assert file_world.state["config"]["auto_work_orders"] is False

    def test_taking_back_leaves_what_somebody_scaled_to_since(self, world: World, file_world: FileWorld, clock: Clock) -> None:
        incident_id = report(world)
        order(world, incident_id)
        carry(world, incident_id, "run-1")
        file_world.set(replicas=5)
        clock.advance(seconds=1)
        order(world, incident_id, Order.TAKE_BACK)  # by a gateway that could not read the runtime
        carry(world, incident_id, "run-1")
        assert file_world.state["replicas"] == 5
        assert "scale:1" not in file_world.applied

    def test_what_was_approved_before_a_stop_is_not_carried_out_after_it(self, world: World, file_world: FileWorld, clock: Clock) -> None:
        incident_id = report(world, Severity.HIGH)
        busy = runs.take(world, incident_id, "run-1")
        assert busy is not None
        triage.triage(busy)
        play(contain, busy)
        approve(world, incident_id, PlanKind.MITIGATION)
        clock.advance(seconds=1)
        order(world, incident_id)
        carry(world, incident_id, "run-2")
        assert "rollback" not in file_world.applied
        assert file_world.state["replicas"] == 0

    def test_a_second_yes_by_approve_makes_a_busy_run_give_way(self, world: World, file_world: FileWorld) -> None:
        two = ApprovalRule(roles=(Role.ONCALL_ML_ENGINEER, Role.ML_TEAM_LEAD), count=2, not_by_requester=False)
        world = replace(world, policy=Policy(approvals=Approvals(emergency=two)))
        incident_id = report(world)
        order(world, incident_id)
        assert runs.take(world, incident_id, "run-1") is not None
        approve(world, incident_id, PlanKind.EMERGENCY)
        assert lease_state(world, incident_id) == "starting"

    @pytest.mark.parametrize("state", ["intended", "applying", "unknown", "done"])
    def test_no_route_is_carried_out_while_an_isolation_is_not_yet_read_back(
        self, world: World, file_world: FileWorld, clock: Clock, state: str
    ) -> None:
        incident_id = report(world)
        order(world, incident_id, Order.ROUTE, version="v1.5.0")
        with world.transaction() as conn:  # of a breach of the same model, begun meanwhile
            breach = breach_that_isolates(conn, world, state)
        with suppress(Transient):  # while that incident is at it, no other plan changes the model either
            carry(world, incident_id, "run-1")
        assert file_world.state["route"] is None
        with pytest.raises(Refused, match=f"isolated for {breach}"):
            order(world, incident_id)

    def test_what_had_no_server_to_answer_before_the_stop_is_taken_back_without_one(
        self, world: World, file_world: FileWorld, clock: Clock
    ) -> None:
        incident_id = report(world)
        file_world.set(unready=True)  # a stack without a model: the process runs and is not ready
        order(world, incident_id)
        carry(world, incident_id, "run-1")
        clock.advance(seconds=1)
        order(world, incident_id, Order.TAKE_BACK)
        carry(world, incident_id, "run-1")
        assert state_of(world, incident_id)["take back"] == "in_force"
        assert file_world.state["replicas"] == 1

    def test_a_hanging_server_can_be_stopped(self, world: World, file_world: FileWorld, clock: Clock) -> None:
        incident_id = report(world)
        file_world.set(hung=True)
        order(world, incident_id)
        carry(world, incident_id, "run-1")
        assert file_world.state["replicas"] == 0
        file_world.set(hung=False)
        clock.advance(seconds=1)
        order(world, incident_id, Order.TAKE_BACK)
        carry(world, incident_id, "run-1")
        assert file_world.state["replicas"] == 1

    def test_an_order_that_failed_is_paged_until_it_is_taken_back(
        self, world: World, file_world: FileWorld, clock: Clock, notifier: LedgerNotifier
    ) -> None:
        file_world.faults["scale:0"] = ["refused"]
        incident_id = report(world)
        order(world, incident_id)
        carry(world, incident_id, "run-1")
        pages = []
        for _ in range(3):
            clock.advance(minutes=16)
            deliver(world)
            pages.append(len([m for m in notifier.pages() if "could not be done: stop serving" in m.body]))
        assert pages[0] < pages[1] < pages[2]
        order(world, incident_id, Order.TAKE_BACK)
        deliver(world)
        clock.advance(minutes=40)
        deliver(world)
        assert len([m for m in notifier.pages() if "could not be done: stop serving" in m.body]) == pages[-1]

    def test_no_rule_contains_again_what_people_have_taken_back(self, world: World, file_world: FileWorld, clock: Clock) -> None:
        file_world.set(bad_versions={"v2.0.0": "dangerous"})
        incident_id = report(world, Severity.CRITICAL)
        carry(world, incident_id, "run-1")
        assert file_world.state["route"] == "v1.5.0"
        clock.advance(seconds=1)
        order(world, incident_id, Order.TAKE_BACK)
        with world.transaction() as conn:
            severity_change.say(conn, world.policy, incident_id, severity_change.Said(Severity.HIGH, "the lead", "x"), now=world.now())
            severity_change.say(conn, world.policy, incident_id, severity_change.Said(Severity.CRITICAL, "the lead", "y"), now=world.now())
        carry(world, incident_id, "run-1")
        assert file_world.state["route"] is None

    @pytest.mark.parametrize("orders", [["v1.5.0", "v2.0.0", "v1.5.0"], ["v2.0.0", "v1.5.0", "v2.0.0", "v1.5.0"]])
    def test_the_last_of_several_orders_of_one_moment_counts(self, world: World, file_world: FileWorld, orders: list[str]) -> None:
        incident_id = report(world)
        for version in orders:
            order(world, incident_id, Order.ROUTE, version=version)
        carry(world, incident_id, "run-1")
        assert file_world.state["route"] == "v1.5.0"

    @pytest.mark.parametrize("what", [Order.STOP_SERVING, Order.HALT_WORK_ORDERS])
    def test_what_was_taken_back_can_be_ordered_again_at_the_same_moment(self, world: World, file_world: FileWorld, what: Order) -> None:
        incident_id = report(world)
        for one in (what, Order.TAKE_BACK, what):
            order(world, incident_id, one)
            carry(world, incident_id, "run-1")
        assert (file_world.state["replicas"], file_world.state["config"]["auto_work_orders"]) in ((0, True), (1, False))

    def test_what_is_ordered_while_containment_is_being_undone_stays(self, world: World, file_world: FileWorld, clock: Clock) -> None:
        incident_id = report(world)
        order(world, incident_id, Order.HALT_WORK_ORDERS)
        carry(world, incident_id, "run-1")
        approve(world, incident_id)
        clock.advance(minutes=2)
        file_world.faults["config:auto_work_orders=True"] = list(BUSY_FOR_A_RUN)
        with pytest.raises(Transient):
            carry(world, incident_id, "run-1")
        clock.advance(seconds=1)
        order(world, incident_id, Order.HALT_WORK_ORDERS)
        with pytest.raises(Refused, match="ordered since the fix"):
            carry(world, incident_id, "run-2")
        assert file_world.state["config"]["auto_work_orders"] is False
        assert incident_of(world, incident_id).status.is_open


class TestNoMeasurementEndsAnOrderThatIsNotInForce:
    """Its giver hears of it until it is in force or withdrawn, also where the model is well again."""

    def close_or_not(self, world: World, clock: Clock, notifier: LedgerNotifier, incident_id: str) -> None:
        approve(world, incident_id)
        clock.advance(minutes=2)
        with pytest.raises(Refused, match="what was ordered is not in force"):
            carry(world, incident_id, "run-1")
        assert incident_of(world, incident_id).status.is_open
        deliver(world)
        assert any("withdraw it: mlrunbook incidents contain" in m.body for m in notifier.pages())
        order(world, incident_id, Order.TAKE_BACK)
        assert carry(world, incident_id, "run-2") == "closed"

    @pytest.mark.parametrize(
        ("what", "fault"), [(Order.STOP_SERVING, "scale:0"), (Order.HALT_WORK_ORDERS, "config:auto_work_orders=False")]
    )
    def test_failed(self, world: World, file_world: FileWorld, clock: Clock, notifier: LedgerNotifier, what: Order, fault: str) -> None:
        file_world.faults[fault] = ["refused"]
        incident_id = report(world)
        order(world, incident_id, what)
        carry(world, incident_id, "run-1")
        self.close_or_not(world, clock, notifier, incident_id)

    def test_lapsed(self, world: World, clock: Clock, notifier: LedgerNotifier) -> None:
        incident_id = report(world)
        carry(world, incident_id, "run-1")
        order(world, incident_id)
        clock.advance(minutes=16)
        assert carry(world, incident_id, "run-1") == "pending"
        self.close_or_not(world, clock, notifier, incident_id)

    def test_waiting_for_a_second_yes(self, world: World, clock: Clock, notifier: LedgerNotifier) -> None:
        two = ApprovalRule(roles=(Role.ONCALL_ML_ENGINEER, Role.ML_TEAM_LEAD), count=2, not_by_requester=False)
        world = replace(world, policy=Policy(approvals=Approvals(emergency=two)))
        incident_id = report(world)
        carry(world, incident_id, "run-1")
        order(world, incident_id)
        approve(world, incident_id)
        clock.advance(minutes=2)
        with pytest.raises(Refused, match="what was ordered is not in force"):
            carry(world, incident_id, "run-1")
        assert incident_of(world, incident_id).status.is_open


def test_what_taking_back_left_to_somebody_else_is_kept_with_that_reason(world: World, file_world: FileWorld, clock: Clock) -> None:
    incident_id = report(world)
    order(world, incident_id)
    carry(world, incident_id, "run-1")
    clock.advance(seconds=1)
    order(world, incident_id, Order.HALT_WORK_ORDERS)
    carry(world, incident_id, "run-1")
    file_world.set(replicas=5)
    clock.advance(seconds=1)
    with world.transaction() as conn:
        incident = incidents.get(conn, incident_id, lock=True)
        seen = file_world.observe(MODEL)
        request(conn, world.policy, incident, Requested(Order.TAKE_BACK, ONCALL, "it was the sensor"), now=clock(), state=seen)
    carry(world, incident_id, "run-1")
    assert (file_world.state["replicas"], file_world.state["config"]["auto_work_orders"]) == (5, True)
    with world.transaction() as conn:
        assert unexplained(conn, incident_id) == []
        kept = [row.kept_because for row in journal.of_incident(conn, incident_id) if row.kind == "scale"]
    assert kept == ["somebody has scaled to 5 since: that stays"]
