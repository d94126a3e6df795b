"""The dispatcher on a clock of the test's: who is paged when, what is started again, and what is never lost."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from mlrunbook.domain.incident import IncidentType, Severity, Status
from mlrunbook.gateway.dispatcher import LOOK_AGAIN_S, Dispatcher
from mlrunbook.ports import Message
from mlrunbook.response.communication.escalation import acknowledge
from mlrunbook.response.execution import approval_gate
from mlrunbook.response.lifecycle import runs
from mlrunbook.response.world import World
from mlrunbook.store import incidents, leases, outbox
from mlrunbook.store.outbox import CLAIM_S
from tests.fakes import Clock, FileWorld, LedgerNotifier, LedgerOrchestrator, empty_store, world_of
from tests.response.carrying import carry
from tests.response.people import approve, deliver, plan, report, told

ONCALL, LEAD, MANAGER, VP = "On-Call ML Engineer", "ML Team Lead", "Engineering Manager", "VP Engineering"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def notifier() -> LedgerNotifier:
    return LedgerNotifier()


@pytest.fixture
def orchestrator() -> LedgerOrchestrator:
    return LedgerOrchestrator()


@pytest.fixture
def file_world(tmp_path: Path, clock: Clock) -> FileWorld:
    return FileWorld(tmp_path / "world.json", clock)


@pytest.fixture
def world(engine: Engine, file_world: FileWorld, clock: Clock, notifier: LedgerNotifier, orchestrator: LedgerOrchestrator) -> World:
    empty_store(engine)
    return world_of(engine, file_world, clock, notifier=notifier, orchestrator=orchestrator)


def paged(notifier: LedgerNotifier) -> list[str]:
    """Who was paged, by rank: several go out at the same moment."""
    return sorted((m.body.split(":")[0] for m in notifier.pages()), key=[ONCALL, LEAD, MANAGER, VP].index)


def lease_of(world: World, incident_id: str) -> leases.Lease:
    with world.transaction() as conn:
        return leases.get(conn, incident_id)


def rows(world: World, incident_id: str, *kinds: str) -> list[dict[str, Any]]:
    with world.transaction() as conn:
        return outbox.of_incident(conn, incident_id, *kinds)


class TestPrefectDown:
    def test_nobody_goes_unpaged_and_the_run_starts_when_prefect_is_back(
        self, world: World, clock: Clock, notifier: LedgerNotifier, orchestrator: LedgerOrchestrator
    ) -> None:
        orchestrator.up = False
        incident_id = report(world, Severity.HIGH, by_alert=False)
        deliver(world)
        assert paged(notifier) == [], "triage gets a moment to recognise a false alarm"
        clock.advance(seconds=world.policy.triage.page_anyway_after_s)
        deliver(world)
        assert paged(notifier) == [ONCALL, LEAD]
        for _ in range(10):
            clock.advance(minutes=1)
            deliver(world)
        assert orchestrator.started == {}
        orchestrator.up = True
        clock.advance(minutes=1)
        deliver(world)
        assert orchestrator.started == {f"{incident_id}:1": {"incident_id": incident_id}}

    def test_a_critical_report_is_paged_at_once(self, world: World, notifier: LedgerNotifier, orchestrator: LedgerOrchestrator) -> None:
        orchestrator.up = False
        report(world, Severity.CRITICAL, by_alert=False)
        deliver(world)
        assert paged(notifier) == [ONCALL, LEAD, MANAGER]

    def test_pages_go_out_although_looking_after_silent_runs_fails(self, world: World, clock: Clock, notifier: LedgerNotifier) -> None:
        class Strange(LedgerOrchestrator):
            def is_suspended(self, run_id: str) -> bool:
                raise ValueError("<html> is no JSON")

        world = replace(world, orchestrator=Strange())
        incident_id = report(world)
        assert carry(world, incident_id, "run-1") == "pending"
        clock.advance(minutes=2)
        deliver(world)
        assert {ONCALL, LEAD} <= set(paged(notifier))


class TestEscalation:
    """Runbook, "Escalation Path": on not resolved."""

    @pytest.mark.parametrize(
        ("severity", "ladder"),
        [
            (Severity.CRITICAL, {ONCALL: 0, LEAD: 0, MANAGER: 0, VP: 120}),
            (Severity.HIGH, {ONCALL: 1, LEAD: 1, MANAGER: 60, VP: 120}),
            (Severity.MEDIUM, {ONCALL: 1, LEAD: 30, MANAGER: 60, VP: 120}),
            (Severity.LOW, {}),
        ],
    )
    def test_each_role_is_paged_at_its_minute_and_once(
        self, world: World, clock: Clock, notifier: LedgerNotifier, severity: Severity, ladder: dict[str, int]
    ) -> None:
        incident_id = report(world, severity, by_alert=False)
        with world.transaction() as conn:
            acknowledge(conn, incident_id, by="somebody", role=None, now=clock())
        seen: dict[str, int] = {}
        start = clock.at
        for minute in (0, 1, 29, 30, 59, 60, 119, 120, 300):
            clock.at = start + timedelta(minutes=minute)
            deliver(world)
            for role in paged(notifier):
                seen.setdefault(role, minute)
        assert seen == ladder
        assert len(paged(notifier)) == len(ladder)

    def test_acknowledged_but_not_resolved_still_reaches_the_manager(self, world: World, clock: Clock, notifier: LedgerNotifier) -> None:
        incident_id = report(world, Severity.MEDIUM, by_alert=False)
        clock.advance(minutes=1)
        deliver(world)
        with world.transaction() as conn:
            acknowledge(conn, incident_id, by="on-call", role="oncall_ml_engineer", now=clock())
        clock.advance(minutes=60)
        deliver(world)
        assert paged(notifier) == [ONCALL, LEAD, MANAGER]

    def test_a_page_says_why_this_role_is_paged_now(self, world: World, clock: Clock, notifier: LedgerNotifier) -> None:
        """Opened as medium by an alert, measured as high: the lead is paged at once, not "after 30 minutes"."""
        carry(world, report(world), "run-1")
        deliver(world)
        [to_lead] = [m for m in notifier.pages() if m.body.startswith(LEAD) and "severity" in m.body.split("\n")[0]]
        assert "severity is high" in to_lead.body

    def test_nothing_goes_out_after_the_resolution(self, world: World, clock: Clock, notifier: LedgerNotifier) -> None:
        incident_id = report(world)
        carry(world, incident_id, "run-1")
        approve(world, incident_id)
        clock.advance(minutes=2)
        assert carry(world, incident_id, "run-1") == "closed"
        deliver(world)
        sent = len(notifier.sent)
        for _ in range(8):
            clock.advance(minutes=30)
            deliver(world)
        assert len(notifier.sent) == sent

    def test_updates_follow_every_30_minutes_until_it_is_resolved(self, world: World, clock: Clock, notifier: LedgerNotifier) -> None:
        incident_id = report(world)
        carry(world, incident_id, "run-1")
        for _ in range(4):
            deliver(world)
            clock.advance(minutes=30)
        sent = [m.key for m in notifier.sent if "update-" in m.key and m.channel == "email"]
        assert sent == [f"message:{incident_id}:update-{n}:email" for n in (1, 2, 3)]
        approve(world, incident_id)
        carry(world, incident_id, "run-1")
        for _ in range(4):
            deliver(world)
            clock.advance(minutes=30)
        assert len([m for m in notifier.sent if "update-" in m.key and m.channel == "email"]) == 3


class Killed(BaseException):
    """The process is gone."""


class DiesAfterSending(LedgerNotifier):
    def send(self, message: Message) -> None:
        super().send(message)
        raise Killed


class TestDelivery:
    def test_a_dispatcher_killed_between_sending_and_marking_repeats_the_page_and_misses_none(
        self, world: World, clock: Clock, notifier: LedgerNotifier
    ) -> None:
        report(world, Severity.CRITICAL, by_alert=False)
        dying = DiesAfterSending()
        with pytest.raises(Killed):
            Dispatcher(replace(world, notifier=dying)).turn()
        assert dying.pages()
        deliver(world)
        assert set(paged(notifier)) <= {ONCALL, LEAD, MANAGER}
        clock.advance(seconds=CLAIM_S + 1)
        deliver(world)
        assert set(paged(notifier)) == {ONCALL, LEAD, MANAGER}, "each once more, or for the first time"

    def test_two_dispatchers_send_each_message_once(self, world: World, notifier: LedgerNotifier) -> None:
        carry(world, report(world), "run-1")
        at_once(world, Dispatcher.turn)
        deliver(world)
        keys = [m.key for m in notifier.sent]
        assert len(keys) == len(set(keys)) > 3

    def test_a_dead_channel_is_retried_and_said_on_the_timeline_once(self, world: World, clock: Clock, notifier: LedgerNotifier) -> None:
        notifier.fail.add("page")
        incident_id = report(world, Severity.MEDIUM, by_alert=False)
        for _ in range(5):
            clock.advance(minutes=1)
            deliver(world)
        assert told(world, incident_id, "delivery") == [
            "Not delivered yet to page, will be retried: channel page does not answer",
            "page has failed 3 times: On-Call ML Engineer is paged by incidents instead",
        ]
        assert rows(world, incident_id, "page")[0]["attempts"] >= 4
        notifier.fail.clear()
        clock.advance(minutes=1)
        deliver(world)
        assert paged(notifier) == [ONCALL, ONCALL], "by another channel, and by its own once it takes it"

    def test_one_dead_channel_holds_up_no_other(self, world: World, notifier: LedgerNotifier) -> None:
        notifier.fail.add("page")
        carry(world, report(world), "run-1")
        deliver(world)
        assert {"incidents", "email"} <= {m.channel for m in notifier.sent}

    def test_a_mail_server_that_hangs_holds_up_no_page(self, world: World) -> None:
        hanging, released, paged_now = threading.Event(), threading.Event(), threading.Event()

        class Hanging(LedgerNotifier):
            def send(self, message: Message) -> None:
                if message.channel == "email":
                    hanging.set()
                    released.wait(120)
                super().send(message)
                if message.page and message.incident_id != first:
                    paged_now.set()

        first = report(world)
        carry(world, first, "run-1")
        dispatcher = Dispatcher(replace(world, notifier=Hanging()), every_s=0.02)
        running = threading.Thread(target=dispatcher.run)
        running.start()
        try:
            assert hanging.wait(120), "the first notification goes out by email"
            report(world, Severity.CRITICAL, IncidentType.INFRASTRUCTURE, by_alert=False)
            assert paged_now.wait(120)
            assert not released.is_set()
        finally:
            released.set()
            dispatcher.stop()
            running.join(120)


class TestApprovalExpiry:
    def test_an_undecided_plan_is_said_asked_again_and_escalated_and_nothing_changes(
        self, world: World, file_world: FileWorld, clock: Clock, notifier: LedgerNotifier, orchestrator: LedgerOrchestrator
    ) -> None:
        orchestrator.suspended.add("run-1")
        incident_id = report(world)
        assert carry(world, incident_id, "run-1") == "pending"
        before = file_world.applied
        asked: list[list[str]] = []
        for _ in range(4):
            deliver(world)
            asked.append(sorted(m.body.split(":")[0] for m in notifier.pages() if "Decide: " in m.body))
            notifier.sent.clear()
            clock.advance(minutes=60)
        assert asked == [[LEAD, ONCALL], [MANAGER, LEAD], [LEAD, VP], [LEAD, VP]], "the on-call engineer about the temporary rollback, once"
        said = [line for line in told(world, incident_id, "approval") if line.startswith("Nobody decided")]
        assert len(said) == 3
        assert all("nothing was changed" in line for line in said)
        assert file_world.applied == before
        assert plan(world, incident_id) is not None
        assert orchestrator.resumed == []

    def test_a_decision_ends_the_asking(
        self, world: World, clock: Clock, notifier: LedgerNotifier, orchestrator: LedgerOrchestrator
    ) -> None:
        orchestrator.suspended.add("run-1")
        incident_id = report(world)
        carry(world, incident_id, "run-1")
        approve(world, incident_id)
        deliver(world)
        notifier.sent.clear()
        clock.advance(minutes=59)
        deliver(world)
        clock.advance(minutes=2)
        deliver(world)
        assert not any("Decide: " in m.body for m in notifier.pages())


def at_once(world: World, act: Callable[[Dispatcher], object], n: int = 2) -> None:
    """`n` dispatchers do the same at the same moment."""
    together = threading.Barrier(n)

    def one(_: int) -> None:
        dispatcher = Dispatcher(world)
        together.wait()
        act(dispatcher)
        dispatcher.stop()

    with ThreadPoolExecutor(n) as pool:
        list(pool.map(one, range(n)))


class TestRuns:
    def test_an_expired_lease_starts_the_next_generation_once_with_two_dispatchers(
        self, world: World, clock: Clock, orchestrator: LedgerOrchestrator
    ) -> None:
        incident_id = report(world)
        deliver(world)
        runs.take(world, incident_id, "run-1")
        deliver(world)
        clock.advance(seconds=world.lease_s - 1)
        deliver(world)
        assert list(orchestrator.started) == [f"{incident_id}:1"], "a living run is left alone"
        clock.advance(seconds=2)
        at_once(world, Dispatcher.turn, 3)
        deliver(world)
        assert list(orchestrator.started) == [f"{incident_id}:1", f"{incident_id}:2"]
        assert len([line for line in told(world, incident_id, "run") if line.startswith("Starting again")]) == 1
        again = runs.take(world, incident_id, "run-2")
        assert again is not None
        assert again.lease.generation == 2

    def test_a_started_run_that_never_came_is_started_again(self, world: World, clock: Clock, orchestrator: LedgerOrchestrator) -> None:
        incident_id = report(world)
        deliver(world)
        clock.advance(seconds=leases.START_GRACE_S + 1)
        deliver(world)
        assert list(orchestrator.started) == [f"{incident_id}:1", f"{incident_id}:2"]

    def test_a_run_that_prefect_still_has_in_its_queue_is_not_started_a_second_time(
        self, world: World, clock: Clock, orchestrator: LedgerOrchestrator
    ) -> None:
        """No worker is up for a night: one run waits for it, not one a minute."""
        incident_id = report(world)
        deliver(world)
        queued = f"run-{incident_id}:1"
        orchestrator.queued.add(queued)
        for _ in range(32):
            clock.advance(minutes=15)
            deliver(world)
        assert list(orchestrator.started) == [f"{incident_id}:1"]
        assert not any(line.startswith("Starting again") for line in told(world, incident_id, "run"))
        assert carry(world, incident_id, queued) == "pending", "the worker is back"

    def test_a_run_that_left_the_queue_and_never_came_is_started_again(
        self, world: World, clock: Clock, orchestrator: LedgerOrchestrator
    ) -> None:
        incident_id = report(world)
        deliver(world)
        orchestrator.queued.add(f"run-{incident_id}:1")
        clock.advance(hours=1)
        deliver(world)
        orchestrator.queued.clear()
        clock.advance(minutes=2)
        deliver(world)
        assert list(orchestrator.started) == [f"{incident_id}:1", f"{incident_id}:2"]

    def test_a_suspended_run_is_left_alone_and_looked_at_now_and_then(
        self, world: World, clock: Clock, orchestrator: LedgerOrchestrator
    ) -> None:
        incident_id = report(world)
        deliver(world)
        carry(world, incident_id, "run-1")
        orchestrator.suspended.add("run-1")
        for _ in range(5):
            clock.advance(seconds=LOOK_AGAIN_S + 1)
            deliver(world)
        assert list(orchestrator.started) == [f"{incident_id}:1"]
        assert lease_of(world, incident_id).state == "waiting"

    def test_a_waiting_run_that_is_gone_is_started_again(self, world: World, clock: Clock, orchestrator: LedgerOrchestrator) -> None:
        incident_id = report(world)
        deliver(world)
        carry(world, incident_id, "run-1")
        deliver(world)
        clock.advance(seconds=approval_gate.SUSPENDED_LOOK_S + 1)
        deliver(world)
        assert list(orchestrator.started) == [f"{incident_id}:1", f"{incident_id}:2"]

    def test_while_prefect_is_away_a_waiting_run_is_not_taken_for_gone(
        self, world: World, clock: Clock, orchestrator: LedgerOrchestrator
    ) -> None:
        incident_id = report(world)
        deliver(world)
        carry(world, incident_id, "run-1")
        orchestrator.up = False
        clock.advance(hours=1)
        deliver(world)
        assert lease_of(world, incident_id).holder == "run-1"

    def test_a_decision_resumes_the_run_that_waits_for_it(self, world: World, clock: Clock, orchestrator: LedgerOrchestrator) -> None:
        incident_id = report(world)
        deliver(world)
        carry(world, incident_id, "run-1")
        orchestrator.suspended.add("run-1")
        approve(world, incident_id)
        deliver(world)
        assert orchestrator.resumed == ["run-1"]
        assert list(orchestrator.started) == [f"{incident_id}:1"]
        clock.advance(seconds=5)
        assert carry(world, incident_id, "run-1") == "closed"

    def test_a_decision_about_a_run_that_is_gone_starts_the_next_one(self, world: World, orchestrator: LedgerOrchestrator) -> None:
        incident_id = report(world)
        deliver(world)
        carry(world, incident_id, "run-1")
        approve(world, incident_id)
        deliver(world)
        assert orchestrator.resumed == []
        assert list(orchestrator.started) == [f"{incident_id}:1", f"{incident_id}:2"]

    def test_a_resume_that_comes_late_leaves_a_run_alone_that_parked_meanwhile(
        self, world: World, clock: Clock, orchestrator: LedgerOrchestrator
    ) -> None:
        """The run came back by itself before the resume went out, and has parked again when the dispatcher notes it."""
        incident_id = report(world)
        deliver(world)
        carry(world, incident_id, "run-1")
        with world.transaction() as conn:
            leases.wake(conn, incident_id, why="test", key="test", now=clock())
        run = runs.take(world, incident_id, "run-1")
        assert run is not None
        with world.transaction() as conn:
            [item] = [i for i in outbox.claim(conn, now=clock()) if i.kind == "resume_run"]
        parks = _Parks(world, run.lease)
        Dispatcher(parks)._resume_run(item)
        assert lease_of(world, incident_id).state == "waiting"
        assert orchestrator.resumed == []

    def test_a_look_that_is_scheduled_starts_at_its_time(self, world: World, clock: Clock, orchestrator: LedgerOrchestrator) -> None:
        incident_id = report(world)
        deliver(world)
        run = runs.take(world, incident_id, "run-1")
        assert run is not None
        runs.look_again_later(run, reason="too early to say", after_s=60)
        clock.advance(seconds=59)
        deliver(world)
        assert list(orchestrator.started) == [f"{incident_id}:1"]
        clock.advance(seconds=2)
        deliver(world)
        assert list(orchestrator.started) == [f"{incident_id}:1", f"{incident_id}:2"]

    def test_an_incident_that_is_over_starts_nothing(
        self, world: World, file_world: FileWorld, clock: Clock, orchestrator: LedgerOrchestrator
    ) -> None:
        file_world.set(bad_versions={})
        incident_id = report(world)
        deliver(world)
        assert carry(world, incident_id, "run-1") == "false alarm"
        clock.advance(days=2)
        deliver(world)
        assert list(orchestrator.started) == [f"{incident_id}:1"]
        with world.transaction() as conn:
            assert incidents.get(conn, incident_id).status is Status.FALSE_ALARM


class _Parks(World):
    """A world in which the run parks right after the dispatcher has looked at its lease."""

    def __init__(self, world: World, lease: leases.Lease) -> None:
        super().__init__(**world.__dict__)
        self.__dict__.update(lease=lease, base=world, looked=False)

    def transaction(self) -> Any:
        given = self.__dict__
        if given["looked"] is True:
            given["looked"] = None
            with given["base"].transaction() as conn:
                leases.release(conn, given["lease"], "waiting", now=self.now(), look_again_s=60)
        elif given["looked"] is False:
            given["looked"] = True
        return super().transaction()
