"""Asking for a decision, also when the answer came to nothing."""

from __future__ import annotations

from dataclasses import replace

from mlrunbook.domain.policy import ApprovalRule, Approvals, Policy, Role
from mlrunbook.wiring import World
from tests.fakes import Clock, FileWorld, LedgerNotifier
from tests.steps.people import approve, deliver, report, say
from tests.steps.protocol import carry

TWO_PEOPLE = Policy(approvals=Approvals(resolution=ApprovalRule(roles=(Role.ML_TEAM_LEAD, Role.ENGINEERING_MANAGER), count=2)))


def asked(notifier: LedgerNotifier) -> list[str]:
    return [m.body.split(":")[0] for m in notifier.pages() if "Decide: " in m.body]


def test_a_run_that_asks_again_pages_nobody_twice(world: World, clock: Clock, notifier: LedgerNotifier) -> None:
    incident_id = report(world)
    for minute in range(3):
        clock.advance(minutes=minute)
        assert carry(world, incident_id, "run-1") == "pending"
        deliver(world)
    assert asked(notifier) == ["ML Team Lead"]


def test_an_approval_that_expired_before_the_run_came_back_is_asked_for_again(
    world: World, file_world: FileWorld, clock: Clock, notifier: LedgerNotifier
) -> None:
    incident_id = report(world)
    assert carry(world, incident_id, "run-1") == "pending"
    deliver(world)
    approve(world, incident_id)
    clock.advance(minutes=61)  # nothing ran meanwhile
    assert carry(world, incident_id, "run-1") == "pending"
    deliver(world)
    assert asked(notifier) == ["ML Team Lead", "ML Team Lead"]
    assert "rollback" not in file_world.applied
    clock.advance(minutes=61)
    deliver(world)
    assert sorted(asked(notifier)[2:]) == ["ML Team Lead", "VP Engineering"], "and escalated as before"
    approve(world, incident_id)
    clock.advance(minutes=1)
    assert carry(world, incident_id, "run-1") == "closed"


def test_where_two_must_approve_the_asking_goes_on_after_the_first(
    world: World, file_world: FileWorld, clock: Clock, notifier: LedgerNotifier
) -> None:
    world = replace(world, policy=TWO_PEOPLE)
    incident_id = report(world)
    assert carry(world, incident_id, "run-1") == "pending"
    approve(world, incident_id)
    assert carry(world, incident_id, "run-1") == "pending"
    assert "rollback" not in file_world.applied
    clock.advance(minutes=61)
    deliver(world)
    assert "Engineering Manager" in asked(notifier)
    approve(world, incident_id)
    say(world, incident_id, "approved", by="the other lead")
    clock.advance(minutes=1)
    assert carry(world, incident_id, "run-1") == "closed"
