"""Step 2 on a person's word: "Scale down model (emergency)", at once, whatever the run is doing, and taken back by a word too."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from mlrunbook.domain.actions import Isolate, Order, PlanKind
from mlrunbook.domain.containment.orders import OrderState
from mlrunbook.domain.errors import Refused, Transient
from mlrunbook.domain.incident import IncidentType, Severity, Status, Subtype
from mlrunbook.domain.policy.policy import ApprovalRule, Approvals, FreezeWindow, Guardrails, Policy
from mlrunbook.domain.roles import Role
from mlrunbook.response.containment.emergency import BY_HAND, Requested, Requester, request
from mlrunbook.response.execution import standing_orders
from mlrunbook.response.lifecycle import runs, severity_change
from mlrunbook.response.review.closing import unexplained
from mlrunbook.response.world import World
from mlrunbook.store import incidents, journal, leases, plans
from tests.fakes import BUSY_FOR_A_RUN, MODEL, Clock, FileWorld, LedgerNotifier
from tests.response.carrying import carry
from tests.response.people import approve, deliver, incident_of, plan, recorded, report, say, told

ONCALL = Requester("the engineer on call", "oncall_ml_engineer", "cli")


def order(world: World, incident_id: str, what: Order = Order.STOP_SERVING, *, version: str | None = None, by: Requester = ONCALL) -> str:
    """Its plan's digest."""
    with world.transaction() as conn:
        incident = incidents.get(conn, incident_id, lock=True)
        asked = Requested(what, by, "pumps fail one after another", version)
        return request(conn, world.policy, incident, asked, now=world.now()).digest


def lease_state(world: World, incident_id: str) -> str:
    with world.transaction() as conn:
        return leases.get(conn, incident_id).state


def test_serving_stops_while_the_run_waits_for_another_approval_and_the_plan_then_starts_it_again(
    world: World, file_world: FileWorld, clock: Clock
) -> None:
    incident_id = report(world)
    assert carry(world, incident_id, "run-1") == "pending"
    before = plan(world, incident_id)
    order(world, incident_id)
    assert carry(world, incident_id, "run-1") == "pending"
    assert file_world.state["replicas"] == 0
    assert file_world.applied == {"config:auto_scheduling=False": 1, "config:human_approval=True": 1, "scale:0": 1}
    after = plan(world, incident_id)
    assert before is not None
    assert after is not None
    assert "serve predictive_maintenance with 1 replica(s)" in [a.summary for a in after.actions]
    assert after.digest != before.digest, "who approves sees that it starts serving again"
    approve(world, incident_id)
    clock.advance(minutes=2)
    assert carry(world, incident_id, "run-1") == "closed"
    assert (file_world.state["serving"], file_world.state["replicas"]) == ("v1.5.0", 1)
    with world.transaction() as conn:
        assert unexplained(conn, incident_id) == []


def test_it_comes_before_triage_and_only_the_evidence_before_it(world: World, file_world: FileWorld) -> None:
    incident_id = report(world)
    order(world, incident_id)
    carry(world, incident_id, "run-1")
    said = " | ".join(told(world, incident_id))
    assert said.index("Evidence preserved") < said.index("Done, read back: stop serving") < said.index("triage found it real")


def test_a_run_in_the_middle_of_something_long_gives_way_at_once(world: World, file_world: FileWorld) -> None:
    incident_id = report(world)
    busy = runs.take(world, incident_id, "run-1")
    assert busy is not None
    order(world, incident_id)
    assert lease_state(world, incident_id) == "starting"
    carry(world, incident_id, "run-2")
    assert file_world.state["replicas"] == 0


def test_with_no_run_alive_one_is_started(world: World, file_world: FileWorld) -> None:
    file_world.set(bad_versions={})
    incident_id = report(world, Severity.HIGH, IncidentType.BIAS_FAIRNESS, by_alert=False)
    assert carry(world, incident_id, "run-1") == "waiting for a human"
    order(world, incident_id)
    assert lease_state(world, incident_id) == "starting"
    assert carry(world, incident_id, "run-2") == "waiting for a human"
    assert file_world.state["replicas"] == 0


def test_given_twice_it_is_one_order_and_after_it_was_carried_out_it_changes_nothing(
    world: World, file_world: FileWorld, clock: Clock
) -> None:
    incident_id = report(world)
    assert order(world, incident_id) == order(world, incident_id)
    carry(world, incident_id, "run-1")
    clock.advance(seconds=1)
    order(world, incident_id)
    carry(world, incident_id, "run-1")
    assert file_world.applied["scale:0"] == 1


def test_two_orders_stand_beside_each_other(world: World, file_world: FileWorld) -> None:
    incident_id = report(world)
    order(world, incident_id, Order.HALT_WORK_ORDERS)
    order(world, incident_id, Order.ROUTE, version="v1.5.0")
    carry(world, incident_id, "run-1")
    assert file_world.state["route"] == "v1.5.0"
    assert file_world.state["config"]["auto_work_orders"] is False


def test_what_is_planned_by_itself_replaces_no_order(world: World, file_world: FileWorld) -> None:
    incident_id = report(world)
    digest = order(world, incident_id, Order.HALT_WORK_ORDERS)
    carry(world, incident_id, "run-1")
    with world.transaction() as conn:
        assert [p.digest for p in plans.standing(conn, incident_id, PlanKind.EMERGENCY)] == [digest]
        assert plans.current(conn, incident_id, PlanKind.CONTAINMENT) is not None


def test_a_severity_that_rises_voids_no_order(world: World, file_world: FileWorld) -> None:
    incident_id = report(world)
    order(world, incident_id)
    with world.transaction() as conn:
        said = severity_change.Said(Severity.CRITICAL, "the lead", "a gearbox broke")
        severity_change.say(conn, world.policy, incident_id, said, now=world.now())
    carry(world, incident_id, "run-1")
    assert file_world.state["replicas"] == 0


def test_an_incident_in_which_somebody_ordered_something_is_no_false_alarm(world: World, file_world: FileWorld) -> None:
    file_world.set(bad_versions={})
    incident_id = report(world)
    order(world, incident_id)
    assert carry(world, incident_id, "run-1") == "waiting for a human"
    assert incident_of(world, incident_id).status is not Status.FALSE_ALARM
    assert "ordered it at" in recorded(world, incident_id, "triage")["summary"]


def test_a_freeze_window_is_overridden_and_a_page_says_so(
    world: World, file_world: FileWorld, clock: Clock, notifier: LedgerNotifier
) -> None:
    frozen = FreezeWindow(start=clock() - timedelta(hours=1), end=clock() + timedelta(hours=9), reason="year-end closing")
    world = replace(world, policy=Policy(guardrails=Guardrails(freeze_windows=(frozen,))))
    incident_id = report(world)
    order(world, incident_id)
    carry(world, incident_id, "run-1")
    deliver(world)
    assert file_world.state["replicas"] == 0
    assert any("guardrail overridden for a person's order: stop serving" in m.body for m in notifier.pages())


def test_who_may_not_contain_may_not_order_it(world: World) -> None:
    incident_id = report(world)
    with pytest.raises(Refused, match="decided by"):
        order(world, incident_id, by=Requester("a data scientist", None, "rest"))
    assert plan(world, incident_id, PlanKind.EMERGENCY) is None


@pytest.mark.parametrize(
    ("count", "giver_is_left_out", "others"), [(1, None, 0), (1, True, 1), (2, None, 2), (2, True, 2), (2, False, 1), (3, None, 3)]
)
def test_an_order_waits_for_as_many_others_as_policy_wants(
    world: World, file_world: FileWorld, count: int, giver_is_left_out: bool | None, others: int
) -> None:
    rule = ApprovalRule(roles=(Role.ONCALL_ML_ENGINEER, Role.ML_TEAM_LEAD), count=count, not_by_requester=giver_is_left_out)
    world = replace(world, policy=Policy(approvals=Approvals(emergency=rule)))
    incident_id = report(world)
    order(world, incident_id)
    for name in ("Ann", "Bob", "Cem")[:others]:
        with world.transaction() as conn:
            [one] = standing_orders.of_incident(conn, world.policy, incident_id, MODEL, now=world.now())
        assert one.state is OrderState.WAITING
        order(world, incident_id, by=Requester(name, "ml_team_lead", "cli"))
    carry(world, incident_id, "run-1")
    assert file_world.state["replicas"] == 0


def test_an_isolated_server_is_evidence_and_is_not_stopped(world: World, file_world: FileWorld) -> None:
    incident_id = report(
        world, Severity.CRITICAL, IncidentType.SECURITY, by_alert=False, description="model stolen", subtype=Subtype.UNAUTHORISED_ACCESS
    )
    carry(world, incident_id, "run-1")
    if not file_world.state["isolated"]:
        say(world, incident_id, "approved", PlanKind.ISOLATION, by="Security", role="security_officer")
        carry(world, incident_id, "run-1")
    with pytest.raises(Refused, match=r"is isolated .* Security Officer"):
        order(world, incident_id)
    with world.transaction() as conn:
        assert {row.kind for row in journal.of_incident(conn, incident_id)} == {Isolate.kind}


def test_an_order_that_nobody_carries_out_is_paged_with_what_to_do_and_again_when_it_lapses(
    world: World, file_world: FileWorld, clock: Clock, notifier: LedgerNotifier
) -> None:
    incident_id = report(world)
    order(world, incident_id)
    clock.advance(seconds=121)
    deliver(world)
    [late] = [m for m in notifier.pages() if "ordered and not done" in m.body]
    assert "stop serving predictive_maintenance; tried until" in late.body
    assert BY_HAND in late.body
    clock.advance(minutes=14)
    deliver(world)
    assert any("it is no longer tried" in m.body and "expired" in m.body for m in notifier.pages())
    carry(world, incident_id, "run-1")
    assert file_world.state["replicas"] == 1, "an order of a quarter of an hour ago surprises nobody"


def test_what_lapsed_is_ordered_anew_with_a_page_of_its_own_and_holds_up_no_taking_back(
    world: World, file_world: FileWorld, clock: Clock, notifier: LedgerNotifier
) -> None:
    incident_id = report(world)
    lapsed = order(world, incident_id, Order.HALT_WORK_ORDERS)
    clock.advance(minutes=16)
    again = order(world, incident_id, Order.HALT_WORK_ORDERS)
    assert again != lapsed
    deliver(world)
    before = len([m for m in notifier.pages() if "ordered and not done" in m.body])
    clock.advance(seconds=121)
    deliver(world)
    assert len([m for m in notifier.pages() if "ordered and not done" in m.body]) > before
    carry(world, incident_id, "run-1")
    order(world, incident_id, Order.TAKE_BACK)
    carry(world, incident_id, "run-1")
    assert file_world.state["config"]["auto_work_orders"] is True


def test_an_order_that_somebody_rejected_is_not_carried_out_and_can_be_given_anew(
    world: World, file_world: FileWorld, clock: Clock
) -> None:
    incident_id = report(world)
    order(world, incident_id)
    say(world, incident_id, "rejected", PlanKind.EMERGENCY)
    carry(world, incident_id, "run-1")
    assert file_world.state["replicas"] == 1
    clock.advance(seconds=1)
    order(world, incident_id)
    carry(world, incident_id, "run-1")
    assert file_world.state["replicas"] == 0


def test_nobody_is_paged_about_an_order_that_was_carried_out(
    world: World, file_world: FileWorld, clock: Clock, notifier: LedgerNotifier
) -> None:
    incident_id = report(world)
    order(world, incident_id)
    carry(world, incident_id, "run-1")
    clock.advance(minutes=16)
    deliver(world)
    assert not any("ordered and not done" in m.body for m in notifier.pages())


def test_what_cannot_be_done_is_paged_and_the_runbook_goes_on(world: World, file_world: FileWorld, notifier: LedgerNotifier) -> None:
    file_world.faults["scale:0"] = ["refused"]
    incident_id = report(world)
    order(world, incident_id)
    assert carry(world, incident_id, "run-1") == "pending"
    deliver(world)
    assert any("a step of the emergency could not be done, do it by hand" in m.body for m in notifier.pages())
    assert any("could not be done: stop serving" in m.body for m in notifier.sent if m.channel == "incidents")


def test_people_are_told_who_ordered_what_and_why(world: World, file_world: FileWorld, notifier: LedgerNotifier) -> None:
    incident_id = report(world)
    order(world, incident_id)
    carry(world, incident_id, "run-1")
    deliver(world)
    [message] = [m for m in notifier.sent if m.channel == "incidents" and "ordered it at" in m.body and m.subject.startswith("[UPDATE]")]
    assert "the engineer on call (On-Call ML Engineer) ordered it at" in message.body
    assert "pumps fail one after another" in message.body
    assert "Every prediction request fails until serving is taken up again." in message.body


def test_what_is_left_of_a_plan_that_is_half_done_is_decided_anew(world: World, file_world: FileWorld, clock: Clock) -> None:
    """The old version is back and serving is about to start again, when somebody orders that it stays stopped."""
    incident_id = report(world)
    order(world, incident_id)
    assert carry(world, incident_id, "run-1") == "pending"
    approve(world, incident_id)
    file_world.faults["scale:1"] = list(BUSY_FOR_A_RUN)
    with pytest.raises(Transient):
        carry(world, incident_id, "run-1")
    clock.advance(seconds=30)
    order(world, incident_id)
    assert carry(world, incident_id, "run-2") == "pending"
    assert file_world.state["replicas"] == 0, "nothing starts it behind that person's back"
    approve(world, incident_id)
    clock.advance(minutes=2)
    assert carry(world, incident_id, "run-2") == "closed"
    assert (file_world.applied["rollback"], file_world.state["replicas"]) == (1, 1), "what was done is not done again"


def test_what_is_ordered_after_the_fix_is_not_taken_back_because_the_fix_worked(
    world: World, file_world: FileWorld, clock: Clock, notifier: LedgerNotifier
) -> None:
    """Whoever stops serving while the recovery is measured has a reason that the measurement does not know."""
    incident_id = report(world)
    carry(world, incident_id, "run-1")
    approve(world, incident_id)
    file_world.set(labelled=False)
    assert carry(world, incident_id, "run-1") == "too early to say"
    clock.advance(seconds=30)
    order(world, incident_id)
    file_world.set(labelled=True)
    clock.advance(minutes=2)
    with pytest.raises(Refused):
        carry(world, incident_id, "run-2")
    assert file_world.state["replicas"] == 0
    assert incident_of(world, incident_id).status is Status.MONITORING
    deliver(world)
    assert any("only a person takes that back: mlrunbook incidents contain" in m.body for m in notifier.pages())
    order(world, incident_id, Order.TAKE_BACK)
    assert carry(world, incident_id, "run-3") == "closed"
    assert file_world.state["replicas"] == 1


class TestTakingBack:
    """What was ordered, and what was contained by itself, goes back by a word too: also where no plan has fixed anything."""

    def test_everything_goes_back_to_the_state_before_it_and_the_incident_can_close(self, world: World, file_world: FileWorld) -> None:
        incident_id = report(world)
        order(world, incident_id)
        carry(world, incident_id, "run-1")
        assert order(world, incident_id, Order.TAKE_BACK) == order(world, incident_id, Order.TAKE_BACK), "twice is once"
        carry(world, incident_id, "run-1")
        state = file_world.state
        assert state["replicas"] == 1
        assert (state["config"]["human_approval"], state["config"]["auto_scheduling"]) == (False, True)
        with world.transaction() as conn:
            assert unexplained(conn, incident_id) == []
            assert all(row.undone_by or row.undo_of for row in journal.of_incident(conn, incident_id) if row.state == "done")

    @pytest.mark.parametrize("is_halted", [False, True], ids=["", "halted-before"])
    @pytest.mark.parametrize("asked", [one for one in Order if one is not Order.TAKE_BACK])
    def test_after_any_order_and_its_taking_back_nothing_keeps_the_incident_open(
        self, world: World, file_world: FileWorld, clock: Clock, asked: Order, is_halted: bool
    ) -> None:
        file_world.set(work_orders=[{"id": 1, "asset": "pump-1", "flagged": False}])
        if is_halted:
            file_world.set(config=file_world.state["config"] | {"auto_work_orders": False})
        before = {key: file_world.state[key] for key in ("replicas", "config")}
        incident_id = report(world, Severity.MEDIUM)
        order(world, incident_id, asked, version="v1.5.0" if asked is Order.ROUTE else None)
        carry(world, incident_id, "run-1")
        clock.advance(seconds=1)
        order(world, incident_id, Order.TAKE_BACK)
        carry(world, incident_id, "run-1")
        assert {key: file_world.state[key] for key in before} == before
        with world.transaction() as conn:
            assert unexplained(conn, incident_id) == []

    def test_it_can_be_ordered_and_taken_back_again(self, world: World, file_world: FileWorld, clock: Clock) -> None:
        incident_id = report(world)
        for number in (1, 2):
            clock.advance(seconds=30)
            order(world, incident_id)
            carry(world, incident_id, "run-1")
            assert file_world.state["replicas"] == 0
            clock.advance(seconds=30)
            order(world, incident_id, Order.TAKE_BACK)
            carry(world, incident_id, "run-1")
            assert file_world.state["replicas"] == 1
            assert file_world.applied["scale:0"] == number

    def test_a_route_goes_back_to_what_was_there(self, world: World, file_world: FileWorld) -> None:
        incident_id = report(world)
        order(world, incident_id, Order.ROUTE, version="v1.5.0")
        carry(world, incident_id, "run-1")
        order(world, incident_id, Order.TAKE_BACK)
        carry(world, incident_id, "run-1")
        assert file_world.state["route"] is None

    def test_with_nothing_in_force_there_is_nothing_to_take_back(self, world: World) -> None:
        incident_id = report(world)
        with pytest.raises(Refused, match="no containment"):
            order(world, incident_id, Order.TAKE_BACK)

    def test_an_order_that_has_not_begun_is_withdrawn_by_it(self, world: World, file_world: FileWorld) -> None:
        incident_id = report(world)
        order(world, incident_id)
        order(world, incident_id, Order.TAKE_BACK)
        carry(world, incident_id, "run-1")
        assert file_world.state["replicas"] == 1
        assert "scale:0" not in file_world.applied
