"""Somebody sets the clock while an incident is carried: a form waits, a recovery is watched, an order is not in force, it is opened again.
People are asked no later, nothing is called recovered sooner, and no person's word is overruled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine

from mlrunbook.domain.actions import Order
from mlrunbook.domain.incident import IncidentType, Severity, Status
from mlrunbook.domain.policy.policy import ApprovalRule, Approvals, Policy
from mlrunbook.domain.roles import Role
from mlrunbook.response.communication import escalation, missed_pages
from mlrunbook.response.lifecycle import severity_change
from mlrunbook.response.world import World
from mlrunbook.store import leases
from tests.fakes import Clock, FileWorld, LedgerNotifier, LedgerOrchestrator, empty_store, world_of
from tests.response.carrying import carry
from tests.response.containment.test_emergency import order
from tests.response.containment.test_order_states import state_of
from tests.response.containment.test_orders_and_other_incidents import carried, close
from tests.response.containment.test_orders_until_in_force import pages
from tests.response.people import approve, deliver, incident_of, report, resolve
from tests.response.test_paths_b_and_c import approved, concept_drift

JUMPS = pytest.mark.parametrize("hours", [(1,), (-1,), (25,), (-25,), (-1, -1, -1), (1, -1), (-3, 3), (-1, 2)])
BACK = pytest.mark.parametrize("hours", [(-1,), (-25,), (-1, -1, -1)])


def jump(world: World, clock: Clock, hours: Sequence[int]) -> None:
    """One after another, and each is noticed."""
    for each in hours:
        clock.jump(hours=each)
        deliver(world)


def acknowledged(world: World, incident_id: str, by: str = "somebody", role: str | None = None) -> None:
    with world.transaction() as conn:
        escalation.acknowledge(conn, incident_id, by=by, role=role, now=world.now())


class TestAFormThatWaits:
    @JUMPS
    def test_what_is_approved_after_the_jump_is_carried_out_once_and_closed(
        self, world: World, file_world: FileWorld, clock: Clock, hours: Sequence[int]
    ) -> None:
        incident_id = report(world)
        assert carry(world, incident_id, "run-1") == "pending"
        jump(world, clock, hours)
        approve(world, incident_id)
        clock.advance(minutes=2)
        for look in range(1, 30):
            if carry(world, incident_id, f"run-{look}") == "closed":
                break
            clock.advance(hours=2)
        assert incident_of(world, incident_id).status is Status.CLOSED
        assert file_world.applied["rollback"] == 1

    @BACK
    def test_people_are_asked_again_after_the_minutes_that_policy_gives(
        self, world: World, clock: Clock, notifier: LedgerNotifier, hours: Sequence[int]
    ) -> None:
        minutes = world.policy.approvals.resolution.expires_after_min
        incident_id = report(world)
        carry(world, incident_id, "run-1")
        deliver(world)
        clock.advance(minutes=minutes - 5)
        jump(world, clock, hours)
        before = len(notifier.sent)
        clock.advance(minutes=4)
        deliver(world)
        assert not [m for m in notifier.sent[before:] if "Nobody decided" in m.body]
        clock.advance(minutes=2)
        deliver(world)
        assert [m for m in notifier.sent[before:] if "Nobody decided" in m.body]


class TestARecoveryThatIsWatched:
    @JUMPS
    @pytest.mark.parametrize("by_hand", [False, True])
    def test_one_that_nothing_measures_goes_to_a_person_after_the_minutes_that_policy_gives(
        self, world: World, file_world: FileWorld, clock: Clock, hours: Sequence[int], by_hand: bool
    ) -> None:
        incident_id = report(world)
        carry(world, incident_id, "run-1")
        if by_hand:
            file_world.set(serving="v1.5.0")
            resolve(world, incident_id)
        else:
            approve(world, incident_id)
        file_world.set(labelled=False, predictions=3)
        clock.advance(minutes=2)
        assert carry(world, incident_id, "run-1") == "too early to say"
        clock.advance(minutes=world.policy.recovery_watch.give_up_after_min - 10)
        jump(world, clock, hours)
        assert carry(world, incident_id, "run-2") == "too early to say"
        clock.advance(minutes=11)
        assert carry(world, incident_id, "run-3") == "not recovered"

    @JUMPS
    def test_the_lead_hears_that_outcomes_are_late_after_the_minutes_that_policy_gives(
        self, world: World, file_world: FileWorld, clock: Clock, notifier: LedgerNotifier, hours: Sequence[int]
    ) -> None:
        incident_id = report(world)
        carry(world, incident_id, "run-1")
        approve(world, incident_id)
        file_world.set(labelled=False, predictions=5000, label_delay_s=7200.0)
        clock.advance(minutes=2)
        carry(world, incident_id, "run-1")
        jump(world, clock, hours)
        clock.advance(minutes=world.policy.recovery_watch.give_up_after_min + 1)
        assert carry(world, incident_id, "run-2") == "too early to say"
        deliver(world)
        assert [m for m in notifier.pages() if "outcomes are late" in m.body]

    @JUMPS
    def test_a_promoted_version_is_watched_for_as_long_as_policy_says(
        self, world: World, file_world: FileWorld, clock: Clock, hours: Sequence[int]
    ) -> None:
        concept_drift(file_world)
        incident_id = report(world)
        assert approved(world, clock, incident_id) == "too early to say"
        clock.advance(seconds=world.policy.retraining.watch_s - 120)
        jump(world, clock, hours)
        assert carry(world, incident_id, "run-2") == "too early to say"
        clock.advance(seconds=121)
        assert carry(world, incident_id, "run-3") == "closed"

    @JUMPS
    def test_the_next_look_comes_no_later(self, world: World, file_world: FileWorld, clock: Clock, hours: Sequence[int]) -> None:
        incident_id = report(world)
        carry(world, incident_id, "run-1")
        approve(world, incident_id)
        file_world.set(labelled=False, predictions=3)
        clock.advance(minutes=2)
        assert carry(world, incident_id, "run-1") == "too early to say"
        before = generation(world, incident_id)
        jump(world, clock, hours)
        clock.advance(seconds=61)
        deliver(world)
        assert incident_of(world, incident_id).status is Status.MONITORING
        assert is_on_its_way(world, incident_id), f"generation {before}"


def generation(world: World, incident_id: str) -> int:
    with world.transaction() as conn:
        return leases.get(conn, incident_id).generation


def is_on_its_way(world: World, incident_id: str) -> bool:
    """Prefect was asked for the next run."""
    with world.transaction() as conn:
        lease = leases.get(conn, incident_id)
        return lease.state == "starting" and lease.silent_after_s is not None


class TestAnOrder:
    @BACK
    def test_one_that_is_not_in_force_is_paged_as_often_as_without_the_jump(
        self, world: World, file_world: FileWorld, clock: Clock, notifier: LedgerNotifier, hours: Sequence[int]
    ) -> None:
        file_world.faults["route:v1.5.0"] = ["busy"] * 500
        incident_id = report(world)
        order(world, incident_id, Order.ROUTE, version="v1.5.0")
        every = world.policy.containment.order_page_every_min
        for minute in range(0, 4 * every, 3):
            if minute == every:
                clock.jump(hours=hours[0])
            clock.advance(minutes=3)
            deliver(world)
            carried(world, incident_id, f"run-{minute}")
        oncall = [body for body in pages(notifier, "ordered and not done") if body.startswith(f"{Role.ONCALL_ML_ENGINEER.words}:")]
        assert 3 <= len(oncall) <= 5

    @BACK
    def test_one_that_waits_for_a_second_person_is_paged_in_time(
        self, world: World, clock: Clock, notifier: LedgerNotifier, hours: Sequence[int]
    ) -> None:
        two = ApprovalRule(roles=(Role.ONCALL_ML_ENGINEER, Role.ML_TEAM_LEAD), count=2)
        world = replace(world, policy=Policy(approvals=Approvals(emergency=two)))
        incident_id = report(world)
        order(world, incident_id)
        deliver(world)
        jump(world, clock, hours)
        clock.advance(seconds=world.policy.containment.order_overdue_after_s + 1)
        deliver(world)
        assert pages(notifier, "2 other people must approve it")

    @BACK
    def test_one_given_after_the_jump_counts_although_its_incident_has_ended_since(
        self, world: World, file_world: FileWorld, clock: Clock, hours: Sequence[int]
    ) -> None:
        other = report(world, Severity.HIGH, IncidentType.INFRASTRUCTURE)
        clock.advance(minutes=1)
        mine = report(world)
        order(world, mine, Order.ROUTE, version="v1.4.0")
        jump(world, clock, hours)
        clock.advance(seconds=5)
        order(world, other, Order.ROUTE, version="v1.5.0")
        carried(world, other, "run-1")
        close(world, other, keep=True)
        carried(world, mine, "run-2")
        assert file_world.state["route"] == "v1.5.0"
        assert set(state_of(world, mine).values()) == {"replaced"}

    @BACK
    def test_one_given_after_the_fix_is_not_taken_back_by_the_recovery(
        self, world: World, file_world: FileWorld, clock: Clock, hours: Sequence[int]
    ) -> None:
        incident_id = report(world)
        carry(world, incident_id, "run-1")
        approve(world, incident_id)
        file_world.set(labelled=False, predictions=5000)
        clock.advance(minutes=2)
        assert carry(world, incident_id, "run-1") == "too early to say"
        jump(world, clock, hours)
        clock.advance(minutes=1)
        order(world, incident_id, Order.HALT_WORK_ORDERS)
        carried(world, incident_id, "run-2")
        file_world.set(labelled=True, predictions=None)
        for look in range(3, 6):
            clock.advance(hours=30)
            carried(world, incident_id, f"run-{look}")
        assert file_world.state["config"]["auto_work_orders"] is False
        assert incident_of(world, incident_id).status is not Status.CLOSED


class TestAnswers:
    @BACK
    def test_an_acknowledgement_after_the_jump_ends_the_asking(
        self, world: World, clock: Clock, notifier: LedgerNotifier, hours: Sequence[int]
    ) -> None:
        incident_id = report(world, Severity.HIGH, by_alert=False)
        deliver(world)
        jump(world, clock, hours)
        acknowledged(world, incident_id, role=str(Role.ONCALL_ML_ENGINEER))
        with world.transaction() as conn:
            assert escalation.is_answered(conn, incident_of(world, incident_id))
        before = len(notifier.pages())
        clock.advance(minutes=30)
        deliver(world)
        missed_pages.audit(world)
        deliver(world)
        assert not [m for m in notifier.pages()[before:] if "nobody" in m.body.lower()]

    @BACK
    def test_one_from_before_an_incident_was_opened_again_does_not_count(
        self, world: World, clock: Clock, closed: str, reopened: Callable[[], None], hours: Sequence[int]
    ) -> None:
        reopened()
        jump(world, clock, hours)
        with world.transaction() as conn:
            assert not escalation.is_answered(conn, incident_of(world, closed))
        acknowledged(world, closed)
        with world.transaction() as conn:
            assert escalation.is_answered(conn, incident_of(world, closed))

    @pytest.fixture
    def reopened(self, world: World, clock: Clock, closed: str, file_world: FileWorld) -> Callable[[], None]:
        def again() -> None:
            clock.advance(minutes=2)
            file_world.set(bad_versions=file_world.state["bad_versions"] | {"v1.5.0": "worse"})
            assert report(world) == closed

        return again


class TestTheLadder:
    def test_of_an_incident_opened_again_counts_from_there_although_the_clock_was_set_back_before(
        self, world: World, file_world: FileWorld, clock: Clock, notifier: LedgerNotifier
    ) -> None:
        incident_id = report(world, Severity.HIGH)
        deliver(world)
        jump(world, clock, [-25])
        assert carry(world, incident_id, "run-1") == "pending"
        approve(world, incident_id)
        for look in range(30):
            clock.advance(minutes=2 if look == 0 else 120)
            if carry(world, incident_id, f"run-{look + 1}") == "closed":
                break
        deliver(world)
        assert incident_of(world, incident_id).status is Status.CLOSED
        before = len(notifier.pages())
        clock.advance(minutes=2)
        assert report(world, Severity.HIGH) == incident_id
        clock.advance(minutes=10)
        deliver(world)
        late = [m for m in notifier.pages()[before:] if m.body.startswith(("Engineering Manager", "VP"))]
        assert not late

    def test_of_a_severity_set_after_a_jump_gives_people_the_time_to_answer(
        self, world: World, clock: Clock, notifier: LedgerNotifier
    ) -> None:
        incident_id = report(world, Severity.MEDIUM, by_alert=False)
        deliver(world)
        jump(world, clock, [-1])
        clock.advance(minutes=1)
        with world.transaction() as conn:
            severity_change.say(
                conn, world.policy, incident_id, severity_change.Said(Severity.HIGH, "the lead", "it is worse"), now=world.now()
            )
            asked_by = [r for r in escalation.outbox.of_incident(conn, incident_id, escalation.RESPONSE) if r["cancelled_at"] is None][-1]
        assert asked_by["not_before"] > world.now()


JUMP = st.sampled_from([-90_000, -7200, -3600, -600, -6, 6, 600, 3600, 7200, 90_000])


@settings(max_examples=15, deadline=None)
@given(jumps=st.lists(st.tuples(st.integers(0, 7), JUMP), max_size=6))
def test_wherever_the_clock_jumps_an_incident_is_carried_to_its_end_and_changed_once(
    engine: Engine, tmp_path_factory: pytest.TempPathFactory, jumps: list[tuple[int, int]]
) -> None:
    empty_store(engine)
    clock = Clock()
    file_world = FileWorld(tmp_path_factory.mktemp("life") / "world.json", clock)
    notifier = LedgerNotifier()
    world = world_of(engine, file_world, clock, notifier=notifier, orchestrator=LedgerOrchestrator())
    incident_id = ""
    for step in range(8):
        for _, seconds in (j for j in jumps if j[0] == step):
            clock.jump(seconds=seconds)
            deliver(world)
        match step:
            case 0:
                incident_id = report(world, Severity.HIGH)
                clock.advance(seconds=60)
                deliver(world)
                assert notifier.pages(), "somebody is paged within a minute"
            case 1 | 2:
                assert carry(world, incident_id, "run-1") == "pending"
            case 3:
                approve(world, incident_id)
            case 4:
                clock.advance(minutes=2)
                carry(world, incident_id, "run-1")
    for look in range(80):
        if incident_of(world, incident_id).status is Status.CLOSED:
            break
        deliver(world)
        with world.transaction() as conn:
            is_pending = leases.get(conn, incident_id).state == "waiting"
        if is_pending:
            approve(world, incident_id)
        clock.advance(hours=1)
        carry(world, incident_id, f"look-{look}")
    assert incident_of(world, incident_id).status is Status.CLOSED
    assert set(file_world.applied.values()) == {1}, "by whichever path: a release that lies ahead of the clock is not found"
