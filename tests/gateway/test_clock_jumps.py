"""Somebody sets the clock of a machine, or two machines disagree: no page is late, no approval lives longer, no living run is replaced."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, update

from mlrunbook.domain.actions import Plan, PlanKind, RollBack
from mlrunbook.domain.approval import Decision
from mlrunbook.domain.detection.reports import Report
from mlrunbook.domain.incident import IncidentType, Severity
from mlrunbook.response.clock_watch import ClockWatch
from mlrunbook.response.communication.escalation import acknowledge
from mlrunbook.response.lifecycle import runs, severity_change
from mlrunbook.response.plan_state import valid_approval
from mlrunbook.response.world import World
from mlrunbook.store import incidents, journal, leases, outbox, plans, tables
from tests.fakes import MODEL, Clock, FileWorld, LedgerNotifier, LedgerOrchestrator, empty_store, world_of
from tests.response.carrying import carry
from tests.response.people import approve, deliver, report

JUMPS = pytest.mark.parametrize("hours", [1, -1, 25, -25])


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def notifier() -> LedgerNotifier:
    return LedgerNotifier()


@pytest.fixture
def file_world(tmp_path: Path, clock: Clock) -> FileWorld:
    return FileWorld(tmp_path / "world.json", clock)


@pytest.fixture
def world(engine: Engine, file_world: FileWorld, clock: Clock, notifier: LedgerNotifier) -> World:
    empty_store(engine)
    return world_of(engine, file_world, clock, notifier=notifier, orchestrator=LedgerOrchestrator())


def restarted(world: World) -> World:
    """The process was stopped and started: what it held in memory is gone."""
    return replace(world, clock_watch=ClockWatch())


def on_another_machine(world: World, clock: Clock) -> World:
    return replace(world, now=clock, elapsed=clock.elapsed, clock_watch=ClockWatch())


def generation(world: World, incident_id: str) -> int:
    with world.transaction() as conn:
        return leases.get(conn, incident_id).generation


def is_approved(world: World, incident_id: str) -> bool:
    with world.transaction() as conn:
        plan = plans.current(conn, incident_id, PlanKind.RESOLUTION)
        assert plan is not None
        return valid_approval(conn, world.policy, plan, now=world.now())[0] is not None


def pages_after(world: World, clock: Clock, notifier: LedgerNotifier, limit_s: int) -> int:
    """How many seconds pass until the first page is out."""
    for waited_s in range(0, limit_s, 5):
        deliver(world)
        if notifier.pages():
            return waited_s
        clock.advance(seconds=5)
    raise AssertionError(f"no page within {limit_s} s")


class TestRuns:
    @JUMPS
    def test_a_living_run_keeps_its_lease_and_one_that_dies_is_replaced_in_time(self, world: World, clock: Clock, hours: int) -> None:
        incident_id = report(world)
        deliver(world)
        run = runs.take(world, incident_id, "run-1")
        assert run is not None
        clock.jump(hours=hours)
        deliver(world)
        assert generation(world, incident_id) == 1
        for _ in range(5):
            clock.advance(seconds=10)
            with world.transaction() as conn:
                assert leases.renew(conn, run.lease, here=world.elapsed(), lease_s=world.lease_s)
            deliver(world)
        assert generation(world, incident_id) == 1
        clock.jump(hours=hours)
        clock.advance(seconds=world.lease_s + 1)
        deliver(restarted(world))
        assert generation(world, incident_id) == 2

    def test_a_run_that_slept_with_its_machine_has_not_died(self, world: World, clock: Clock) -> None:
        incident_id = report(world)
        deliver(world)
        runs.take(world, incident_id, "run-1")
        deliver(world)
        clock.sleep(hours=8)
        deliver(world)
        assert generation(world, incident_id) == 1
        clock.advance(seconds=world.lease_s + 1)
        deliver(world)
        assert generation(world, incident_id) == 2

    @pytest.mark.parametrize("minutes", [-5, 5])
    def test_the_clock_of_the_machine_that_runs_it_does_not_matter(self, world: World, clock: Clock, minutes: int) -> None:
        incident_id = report(world)
        deliver(world)
        worker = on_another_machine(world, Clock(clock.at + timedelta(minutes=minutes), boot="worker"))
        run = runs.take(worker, incident_id, "run-1")
        assert run is not None
        for _ in range(12):
            deliver(world)
            with worker.transaction() as conn:
                leases.renew(conn, run.lease, here=worker.elapsed(), lease_s=world.lease_s)
            clock.advance(seconds=10)
        assert generation(world, incident_id) == 1
        deliver(world)
        clock.advance(seconds=world.lease_s + 1)
        deliver(world)
        assert generation(world, incident_id) == 2


class TestPages:
    @JUMPS
    @pytest.mark.parametrize("is_restarted", [False, True])
    def test_one_that_is_due_goes_out_at_once(
        self, world: World, clock: Clock, notifier: LedgerNotifier, hours: int, is_restarted: bool
    ) -> None:
        report(world, Severity.CRITICAL)
        clock.jump(hours=hours)
        assert pages_after(restarted(world) if is_restarted else world, clock, notifier, 60) == 0

    @JUMPS
    def test_one_that_a_dead_dispatcher_had_claimed_goes_out_after_its_claim(
        self, world: World, clock: Clock, notifier: LedgerNotifier, hours: int
    ) -> None:
        report(world, Severity.CRITICAL)
        with world.transaction() as conn:
            assert outbox.claim(conn, kinds=("page",), now=clock())
        clock.jump(hours=hours)
        assert pages_after(restarted(world), clock, notifier, 60) <= outbox.CLAIM_OF_PAGES_S + 5

    @JUMPS
    def test_one_whose_channel_failed_is_tried_again_in_time(
        self, world: World, clock: Clock, notifier: LedgerNotifier, hours: int
    ) -> None:
        report(world, Severity.CRITICAL)
        notifier.fail.add("page")
        for _ in range(8):
            deliver(world)
            clock.advance(minutes=1)
        notifier.fail.clear()
        clock.jump(hours=hours)
        assert pages_after(world, clock, notifier, 120) <= outbox.MAX_BACKOFF_S

    @pytest.mark.parametrize("hours", [-1, -25])
    @pytest.mark.parametrize("before_min", [0, 10, 100])
    def test_the_ladder_goes_on_in_the_time_that_passes(
        self, world: World, clock: Clock, notifier: LedgerNotifier, hours: int, before_min: int
    ) -> None:
        incident_id = report(world, Severity.CRITICAL, by_alert=False)
        deliver(world)
        with world.transaction() as conn:
            acknowledge(conn, incident_id, by="somebody", role=None, now=clock())
        clock.advance(minutes=before_min)
        clock.jump(hours=hours)
        clock.advance(minutes=119 - before_min)
        deliver(world)
        assert not any("VP Engineering" in m.body.split(":")[0] for m in notifier.pages())
        clock.advance(minutes=2)
        deliver(world)
        assert any("VP Engineering" in m.body.split(":")[0] for m in notifier.pages())

    @pytest.mark.parametrize("hours", [-1, -25])
    def test_the_ladder_of_a_severity_raised_after_the_jump_counts_from_the_opening(
        self, world: World, clock: Clock, notifier: LedgerNotifier, hours: int
    ) -> None:
        incident_id = report(world, Severity.MEDIUM, by_alert=False)
        deliver(world)
        clock.advance(minutes=10)
        clock.jump(hours=hours)
        deliver(world)
        with world.transaction() as conn:
            severity_change.say(
                conn, world.policy, incident_id, severity_change.Said(Severity.HIGH, "the lead", "it is worse"), now=world.now()
            )
        clock.advance(minutes=51)
        deliver(world)
        assert any("Engineering Manager" in m.body.split(":")[0] for m in notifier.pages())

    def test_one_from_a_machine_whose_clock_is_ahead_goes_out_at_once(self, world: World, clock: Clock, notifier: LedgerNotifier) -> None:
        deliver(world)
        report(on_another_machine(world, Clock(clock.at + timedelta(minutes=7), boot="worker")), Severity.CRITICAL)
        assert pages_after(world, clock, notifier, 60) == 0

    def test_none_is_lost_or_late_when_the_machine_was_off_and_its_clock_is_behind(
        self, world: World, clock: Clock, notifier: LedgerNotifier
    ) -> None:
        report(world, Severity.CRITICAL)
        clock.reboot("next boot", minutes=3)
        clock.jump(hours=-2)
        assert pages_after(restarted(world), clock, notifier, 60) == 0


class TestApprovals:
    def test_one_that_stands_when_the_clock_is_set_back_is_carried_out(self, world: World, clock: Clock) -> None:
        incident_id = report(world)
        carry(world, incident_id, "run-1")
        approve(world, incident_id)
        clock.jump(hours=-1)
        clock.advance(minutes=2)
        assert carry(world, incident_id, "run-1") == "closed"

    @pytest.mark.parametrize("jumps", [(-1,), (1, -1), (-1, 1), (-25,), (-1, -1, -1)])
    def test_none_lives_longer_and_none_that_has_expired_comes_back(self, world: World, clock: Clock, jumps: tuple[int, ...]) -> None:
        minutes = world.policy.approvals.resolution.expires_after_min
        incident_id = report(world)
        carry(world, incident_id, "run-1")
        approve(world, incident_id)
        clock.advance(minutes=minutes + 1 - 2 * len(jumps))
        for hours in jumps:
            clock.jump(hours=hours)
            clock.advance(minutes=2)
        assert not is_approved(restarted(world), incident_id)
        clock.jump(hours=-3)
        assert not is_approved(world, incident_id)
        assert not is_approved(restarted(world), incident_id)

    def test_one_that_was_given_while_the_clock_was_ahead_ends_in_time(self, world: World, clock: Clock) -> None:
        incident_id = report(world)
        carry(world, incident_id, "run-1")
        clock.jump(hours=1)
        approve(world, incident_id)
        clock.jump(hours=-1)
        assert is_approved(world, incident_id)
        clock.advance(minutes=world.policy.approvals.resolution.expires_after_min + 1)
        assert not is_approved(world, incident_id)

    def test_none_outlives_a_boot_after_which_the_clock_is_behind(self, world: World, clock: Clock) -> None:
        incident_id = report(world)
        carry(world, incident_id, "run-1")
        approve(world, incident_id)
        clock.reboot("next boot", minutes=50)
        clock.jump(hours=-1)
        assert not is_approved(restarted(world), incident_id), "nobody knows how long the machine was off"
        approve(world, incident_id)
        assert is_approved(world, incident_id)

    @pytest.mark.parametrize("minutes", [-5, 5])
    def test_it_counts_on_a_machine_whose_clock_differs_and_no_longer_than_its_minutes(
        self, world: World, clock: Clock, minutes: int
    ) -> None:
        incident_id = report(world)
        carry(world, incident_id, "run-1")
        their_clock = Clock(clock.at + timedelta(minutes=minutes), boot="worker")
        worker = on_another_machine(world, their_clock)
        with worker.transaction():
            pass
        approve(world, incident_id)
        assert is_approved(worker, incident_id)
        for one in (clock, their_clock):
            one.advance(minutes=world.policy.approvals.resolution.expires_after_min + 1)
        time_passes_at_the_database(world, 61 * 60)
        assert not is_approved(world, incident_id)
        assert not is_approved(worker, incident_id)


def time_passes_at_the_database(world: World, seconds: float) -> None:
    with world.transaction() as conn:
        conn.execute(update(tables.approvals).values(stored_at=tables.approvals.c.stored_at - timedelta(seconds=seconds)))


@JUMPS
def test_the_limit_of_automatic_changes_counts_an_hour_that_passes(world: World, clock: Clock, hours: int) -> None:
    incident_id = report(world)
    carry(world, incident_id, "run-1")
    with world.transaction() as conn:
        done = journal.automatic_in_last_hour(conn, MODEL, now=clock())
    assert done, "containment is automatic"
    clock.jump(hours=hours)
    clock.advance(minutes=50)
    with world.transaction() as conn:
        assert journal.automatic_in_last_hour(conn, MODEL, now=clock()) == done


# Any number of jumps, restarts and deaths

SECONDS = st.sampled_from([1, 7, 15, 60, 600, 1800])
SPANS = st.sampled_from([-7200, -3600, -1800, -61, -6, 6, 61, 1800, 3600, 7200])
MACHINES = st.sampled_from([0, 1])
MINUTES = 60
TOLERANCE_S = 5.0  # a jump that is no jump

steps = st.lists(
    st.one_of(
        st.tuples(st.just("pass"), SECONDS),
        st.tuples(st.just("jump"), MACHINES, SPANS),
        st.tuples(st.just("restart"), MACHINES),
        st.tuples(st.just("page"), MACHINES, st.sampled_from([0, 30, 1800, 7200])),
        st.tuples(st.just("approve"), MACHINES),
        st.tuples(st.just("claim and die")),
        st.tuples(st.just("fail")),
    ),
    min_size=5,
    max_size=25,
)


@dataclass
class Life:
    """A gateway and a worker with clocks of their own; `t` is the time that really passes."""

    worlds: list[World]
    clocks: list[Clock]
    incident_id: str
    t: float = 0.0
    keys: list[str] = field(default_factory=list)
    due: dict[str, float] = field(default_factory=dict)
    given: dict[str, float] = field(default_factory=dict)

    def step(self, name: str, *args: int) -> None:
        getattr(self, name.replace(" ", "_") if name != "pass" else "time_passes")(*args)

    def time_passes(self, seconds: int) -> None:
        self.t += seconds
        for clock in self.clocks:
            clock.advance(seconds=seconds)
        time_passes_at_the_database(self.worlds[0], seconds)

    def jump(self, machine: int, seconds: int) -> None:
        self.clocks[machine].jump(seconds=seconds)

    def restart(self, machine: int) -> None:
        self.worlds[machine] = restarted(self.worlds[machine])

    def page(self, machine: int, delay_s: int) -> None:
        world, key = self.worlds[machine], f"page {len(self.keys)}"
        self.keys.append(key)
        with world.transaction() as conn:
            outbox.put(conn, "page", key, {}, now=world.now(), at=world.now() + timedelta(seconds=delay_s))
        self.due[key] = self.t + delay_s

    def approve(self, machine: int) -> None:
        world = self.worlds[machine]
        plan = Plan(self.incident_id, PlanKind.EMERGENCY, MODEL, (RollBack(MODEL, f"v{len(self.given)}"),), ("ordered",))
        with world.transaction() as conn:
            digest = plans.propose(conn, plan, now=world.now())
            said = Decision("approved", "the lead", "ml_team_lead", "rest")
            at = world.now()
            plans.decide(conn, self.incident_id, digest, said, now=at, expires_at=at + timedelta(minutes=MINUTES))
        assert self.is_valid(world, digest)
        self.given[digest] = self.t

    def claim_and_die(self) -> None:
        self.delayed(self.claimed(), outbox.CLAIM_OF_PAGES_S + 1)

    def fail(self) -> None:
        world, items = self.worlds[0], self.claimed()
        with world.transaction() as conn:
            for item in items:
                outbox.failed(conn, item, "no answer", now=world.now())
        self.delayed(items, outbox.MAX_BACKOFF_S)

    def claimed(self) -> list[outbox.Item]:
        world = self.worlds[0]
        with world.transaction() as conn:
            now = world.now()
            return [item for lane in outbox.lanes_due(conn, ("page",), now=now) for item in outbox.claim(conn, lane=lane, now=now)]

    def delayed(self, items: list[outbox.Item], seconds: float) -> None:
        self.due |= {item.dedup_key: max(self.due[item.dedup_key], self.t + seconds) for item in items if item.dedup_key in self.due}

    def is_valid(self, world: World, digest: str) -> bool:
        with world.transaction() as conn:
            rows = plans.approvals_of(conn, self.incident_id, digest)
            plan = plans.get(conn, self.incident_id, digest)
            return bool(rows) and valid_approval(conn, world.policy, plan, now=world.now())[0] is not None

    def check(self) -> None:
        items = self.claimed()
        with self.worlds[0].transaction() as conn:
            for item in items:
                outbox.delivered(conn, item, now=self.worlds[0].now())
                self.due.pop(item.dedup_key)
        late = {key: self.t - due for key, due in self.due.items() if due + TOLERANCE_S < self.t}
        assert late == {}
        for digest, at in self.given.items():
            if self.t - at > MINUTES * 60 + TOLERANCE_S:
                assert not any(self.is_valid(world, digest) for world in self.worlds)


@settings(max_examples=40, deadline=None)
@given(steps=steps)
def test_whatever_the_clocks_do_no_page_is_late_and_no_approval_lives_longer(
    engine: Engine, tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str | int, ...]]
) -> None:
    empty_store(engine)
    clocks = [Clock(), Clock(boot="worker")]
    gateway = world_of(engine, FileWorld(tmp_path_factory.mktemp("life") / "world.json", clocks[0]), clocks[0])
    with gateway.transaction() as conn:
        said = Report(MODEL, IncidentType.PERFORMANCE_DEGRADATION, "performance", Severity.MEDIUM, "F1 fell 40 %", "alertmanager")
        incident_id = incidents.open_or_join(conn, said, now=clocks[0]())[0].id
    life = Life([gateway, on_another_machine(gateway, clocks[1])], clocks, incident_id)
    for name, *args in steps:
        life.step(str(name), *(int(a) for a in args))
        life.check()


@settings(max_examples=40, deadline=None)
@given(
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("pass"), st.integers(1, 10)),
            st.tuples(st.just("jump"), SPANS),
            st.tuples(st.just("sleep"), st.integers(1, 50_000)),
            st.just(("restart",)),
            st.just(("die",)),
        ),
        min_size=10,
        max_size=40,
    ),
    apart=st.booleans(),
)
def test_whatever_the_clocks_do_there_is_one_run_and_a_dead_one_is_found_within_its_lease(
    engine: Engine, tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str | int, ...]], apart: bool
) -> None:
    empty_store(engine)
    clock, theirs = Clock(), Clock(boot="worker")
    gateway = world_of(engine, FileWorld(tmp_path_factory.mktemp("life") / "world.json", clock), clock)
    worker = on_another_machine(gateway, theirs) if apart else gateway
    with gateway.transaction() as conn:
        said = Report(MODEL, IncidentType.PERFORMANCE_DEGRADATION, "performance", Severity.MEDIUM, "F1 fell 40 %", "alertmanager")
        incident_id = incidents.open_or_join(conn, said, now=clock())[0].id
        lease = leases.take(conn, incident_id, "run-1", here=worker.elapsed(), lease_s=30)
    assert lease is not None
    is_alive, silent_s = True, 0
    for name, *args in steps:
        n = int(args[0]) if args else 0
        if name == "pass":
            clock.advance(seconds=n)
            theirs.advance(seconds=n)
            silent_s += n
        elif name == "jump":
            clock.jump(seconds=n)
        elif name == "sleep":
            clock.sleep(seconds=n)
        elif name == "restart":
            gateway = restarted(gateway)
        else:
            is_alive = False
        if is_alive:
            with worker.transaction() as conn:
                assert leases.renew(conn, lease, here=worker.elapsed(), lease_s=30)
            silent_s = 0
        with gateway.transaction() as conn:
            leases.look(conn, gateway.elapsed())
            found = bool(leases.silent(conn, gateway.elapsed()))
        if is_alive:
            assert not found
            with gateway.transaction() as conn:
                assert leases.take(conn, incident_id, "run-2", here=gateway.elapsed(), lease_s=30) is None
        assert found or silent_s <= 30 + 10, f"silent for {silent_s} s and not found"
