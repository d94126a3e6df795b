"""A run that ends on an error: what cannot work goes to a human, anything else is tried again by a later run."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mlrunbook.domain.errors import Refused, Transient, Unknown
from mlrunbook.domain.incident import Status
from mlrunbook.response.world import World
from mlrunbook.store import leases, outbox
from tests.fakes import BUSY_FOR_A_RUN, Clock, FileWorld, LedgerNotifier, LedgerOrchestrator
from tests.response.carrying import carry
from tests.response.people import approve, deliver, incident_of, recorded, report, resolve, told


@pytest.fixture
def approved(world: World, clock: Clock) -> str:
    """An incident whose rollback is approved and not begun."""
    incident_id = report(world)
    clock.advance(seconds=20)
    assert carry(world, incident_id, "run-1") == "pending"
    approve(world, incident_id)
    clock.advance(minutes=1)
    return incident_id


def state_of(world: World, incident_id: str) -> str:
    with world.transaction() as conn:
        return leases.get(conn, incident_id).state


@pytest.mark.parametrize(("fault", "error"), [("refused", Refused), ("lost", Unknown)])
def test_a_definite_no_or_an_unknown_outcome_pages_a_human_and_is_not_repeated(
    world: World, file_world: FileWorld, clock: Clock, notifier: LedgerNotifier, approved: str, fault: str, error: type[Exception]
) -> None:
    file_world.faults["rollback"] = [fault]
    with pytest.raises(error):
        carry(world, approved, "run-1")
    deliver(world)
    assert any("incidents resolve" in m.body for m in notifier.pages())
    assert state_of(world, approved) == "free", "nobody runs until a human acts"
    assert "rollback" not in file_world.applied

    file_world.set(serving="v1.5.0")  # the human rolls back by hand
    clock.advance(minutes=10)
    resolve(world, approved, "rolled back by hand")
    clock.advance(minutes=5)
    assert carry(world, approved, "run-2") == "closed"
    assert "rollback" not in file_world.applied


def test_a_platform_that_is_busy_for_a_moment_is_tried_again_by_the_same_run(
    world: World, file_world: FileWorld, clock: Clock, approved: str
) -> None:
    file_world.faults["rollback"] = ["busy", "busy"]
    clock.advance(minutes=2)
    assert carry(world, approved, "run-1") == "closed"
    assert file_world.applied["rollback"] == 1


def test_a_platform_that_stays_busy_is_tried_again_by_the_next_run(
    world: World, file_world: FileWorld, clock: Clock, orchestrator: LedgerOrchestrator, approved: str
) -> None:
    file_world.faults["rollback"] = list(BUSY_FOR_A_RUN)
    deliver(world)
    with pytest.raises(Transient):
        carry(world, approved, "run-1")
    assert any("This run failed (Transient" in line for line in told(world, approved, "waiting"))
    before = len(orchestrator.started)
    clock.advance(minutes=10)
    deliver(world)
    assert len(orchestrator.started) == before + 1
    assert carry(world, approved, "run-2") == "closed"
    assert file_world.applied["rollback"] == 1


def test_a_defect_of_ours_pages_on_call_and_the_incident_still_goes_on(
    world: World, file_world: FileWorld, clock: Clock, notifier: LedgerNotifier, approved: str
) -> None:
    file_world.set(labelled=False, predictions=3)  # so that the run waits, for nobody knows how long
    with pytest.raises(TypeError) as error:
        carry(replace(world, patience_s=None), approved, "run-1")  # type: ignore[arg-type]
    assert not isinstance(error.value, Refused | Transient | Unknown)
    deliver(world)
    assert any("the flow failed" in m.body for m in notifier.pages())
    with world.transaction() as conn:
        assert outbox.of_incident(conn, approved, "start_run")[-1]["delivered_at"] is None, "the next run is planned"


def test_a_recovery_that_nobody_can_measure_in_time_goes_to_a_human(
    world: World, file_world: FileWorld, clock: Clock, notifier: LedgerNotifier, approved: str
) -> None:
    file_world.set(labelled=False, predictions=3)
    assert carry(world, approved, "run-1") == "too early to say"
    clock.advance(minutes=world.policy.recovery_watch.give_up_after_min + 1)
    assert carry(world, approved, "run-2") == "not recovered"
    assert incident_of(world, approved).status is Status.INVESTIGATING
    assert recorded(world, approved, "resolution_plan") == {}
    deliver(world)
    assert any("the fix did not work" in m.body for m in notifier.pages())


def test_a_containment_step_that_cannot_be_done_pages_on_call_and_the_runbook_goes_on(
    world: World, file_world: FileWorld, clock: Clock, notifier: LedgerNotifier
) -> None:
    file_world.faults["config:human_approval=True"] = ["refused"]
    incident_id = report(world)
    clock.advance(seconds=20)
    assert carry(world, incident_id, "run-1") == "pending"
    deliver(world)
    assert len([m for m in notifier.pages() if "do it by hand" in m.body]) == 1
    assert file_world.applied == {"config:auto_scheduling=False": 1}, "the other step is done"
    approve(world, incident_id)
    clock.advance(minutes=2)
    assert carry(world, incident_id, "run-1") == "closed"
    assert file_world.applied == {"config:auto_scheduling=False": 1, "rollback": 1, "config:auto_scheduling=True": 1}
