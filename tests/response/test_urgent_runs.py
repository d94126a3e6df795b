"""A run of a critical incident, or of one where a person has ordered containment, waits behind no other run."""

from __future__ import annotations

from datetime import timedelta

from mlrunbook.domain.errors import Transient
from mlrunbook.domain.incident import Severity
from mlrunbook.response.lifecycle import severity_change
from mlrunbook.response.world import World
from mlrunbook.store import leases
from tests.fakes import Clock, LedgerOrchestrator
from tests.response.people import deliver, report


def run_of(world: World, incident_id: str) -> str:
    with world.transaction() as conn:
        return f"run-{incident_id}:{leases.get(conn, incident_id).generation}"


def raise_it(world: World, incident_id: str, to: Severity = Severity.CRITICAL) -> None:
    with world.transaction() as conn:
        severity_change.say(conn, world.policy, incident_id, severity_change.Said(to, "a lead", "pumps fail"), now=world.now())


def started(world: World, orchestrator: LedgerOrchestrator, severity: Severity) -> str:
    """An incident whose run waits in Prefect for a place."""
    incident_id = report(world, severity, by_alert=False)
    deliver(world)
    orchestrator.queued.add(run_of(world, incident_id))
    return incident_id


def test_a_critical_incident_starts_in_the_place_kept_for_it_and_a_lesser_one_does_not(
    world: World, orchestrator: LedgerOrchestrator
) -> None:
    critical = started(world, orchestrator, Severity.CRITICAL)
    assert run_of(world, critical) in orchestrator.urgent


def test_one_that_becomes_critical_while_its_run_queues_goes_to_the_front(
    world: World, clock: Clock, orchestrator: LedgerOrchestrator
) -> None:
    incident_id = started(world, orchestrator, Severity.LOW)
    queued = run_of(world, incident_id)
    assert queued not in orchestrator.urgent
    raise_it(world, incident_id, Severity.HIGH)
    deliver(world)
    assert run_of(world, incident_id) == queued, "high is not critical: it keeps its turn"
    clock.at += timedelta(seconds=1)
    raise_it(world, incident_id)
    deliver(world)
    deliver(world)
    assert queued in orchestrator.cancelled
    assert run_of(world, incident_id) in orchestrator.urgent
    orchestrator.queued.add(run_of(world, incident_id))
    before = dict(orchestrator.started)
    clock.at += timedelta(minutes=10)
    deliver(world)
    assert orchestrator.started == before, "it waits its turn, and no other is started beside it"


def test_one_whose_run_a_worker_has_claimed_is_left_to_it(world: World, orchestrator: LedgerOrchestrator) -> None:
    incident_id = started(world, orchestrator, Severity.LOW)
    queued = run_of(world, incident_id)
    orchestrator.claimed.add(queued)
    raise_it(world, incident_id)
    deliver(world)
    assert not orchestrator.cancelled
    assert run_of(world, incident_id) == queued


def test_one_whose_run_has_begun_meanwhile_is_left_to_it(world: World, orchestrator: LedgerOrchestrator) -> None:
    incident_id = started(world, orchestrator, Severity.LOW)
    queued = run_of(world, incident_id)
    orchestrator.queued.clear()
    raise_it(world, incident_id)
    deliver(world)
    assert not orchestrator.cancelled
    assert run_of(world, incident_id) == queued


def test_a_resumed_run_that_waits_for_a_place_is_not_taken_to_be_dead(world: World, clock: Clock, orchestrator: LedgerOrchestrator) -> None:
    incident_id = resumed(world, orchestrator, Severity.LOW)
    clock.at += timedelta(minutes=10)
    deliver(world)
    assert run_of(world, incident_id) == f"run-{incident_id}:1"
    orchestrator.queued.clear()  # it died
    clock.at += timedelta(minutes=10)
    deliver(world)
    assert run_of(world, incident_id) != f"run-{incident_id}:1"
    assert f"run-{incident_id}:1" in orchestrator.cancelled, "should it hang and not be dead, it keeps no place"


def test_a_resumed_run_that_is_urgent_by_now_goes_to_the_front_when_no_place_is_free(
    world: World, clock: Clock, orchestrator: LedgerOrchestrator
) -> None:
    incident_id = resumed(world, orchestrator, Severity.LOW, raised=True)
    deliver(world)
    assert not orchestrator.cancelled, "it may be about to begin"
    clock.at += timedelta(seconds=11)
    deliver(world)
    deliver(world)
    assert f"run-{incident_id}:1" in orchestrator.cancelled
    assert run_of(world, incident_id) in orchestrator.urgent


def test_a_prefect_that_cannot_cancel_keeps_no_run_from_starting_again(
    world: World, clock: Clock, orchestrator: LedgerOrchestrator
) -> None:
    incident_id = resumed(world, orchestrator, Severity.LOW)
    orchestrator.queued.clear()

    def cancel(run_id: str, why: str) -> None:
        raise Transient("Prefect answered 503")

    orchestrator.cancel = cancel  # type: ignore[method-assign]
    clock.at += timedelta(minutes=10)
    deliver(world)
    assert run_of(world, incident_id) != f"run-{incident_id}:1"


def resumed(world: World, orchestrator: LedgerOrchestrator, severity: Severity, *, raised: bool = False) -> str:
    """An incident whose run waited for a person, was resumed, and waits for a place now."""
    incident_id = started(world, orchestrator, severity)
    run_id = run_of(world, incident_id)
    orchestrator.queued.clear()
    with world.transaction() as conn:
        lease = leases.take(conn, incident_id, run_id, here=world.elapsed(), lease_s=30)
        assert lease
        leases.release(conn, lease, "waiting", now=world.now(), look_again_s=300)
    orchestrator.suspended.add(run_id)
    if raised:
        raise_it(world, incident_id)
    else:
        with world.transaction() as conn:
            leases.wake(conn, incident_id, why="approved", key="approved", now=world.now())
    deliver(world)
    assert orchestrator.resumed == [run_id]
    orchestrator.queued.add(run_id)
    return incident_id
