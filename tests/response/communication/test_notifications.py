"""The numbers in the notices are measured, or said to be missing."""

from __future__ import annotations

from dataclasses import replace

from mlrunbook.domain.policy.policy import CostAssumptions, Policy
from mlrunbook.response.world import World
from tests.fakes import Clock, LedgerNotifier
from tests.response.carrying import carry
from tests.response.people import approve, deliver, report


def initial(notifier: LedgerNotifier) -> str:
    return [m.body for m in notifier.sent if m.subject.startswith("[INCIDENT]")][-1]


def test_the_cost_a_day_comes_from_the_measured_work_orders_and_the_policy(world: World, clock: Clock, notifier: LedgerNotifier) -> None:
    world = replace(world, policy=Policy(costs=CostAssumptions(per_unnecessary_work_order=100.0)))
    carry(world, report(world), "run-1")
    deliver(world)
    said = initial(notifier)
    # 3,000 predictions in the last hour, 100 flagged, half of them false alarms: 1,200 unnecessary work orders a day
    assert "- Estimated cost: 120,000 USD/day in wasted maintenance resources" in said


def test_without_a_price_the_cost_is_not_estimated(world: World, notifier: LedgerNotifier) -> None:
    carry(world, report(world), "run-1")
    deliver(world)
    assert "- Estimated cost: not estimated" in initial(notifier)


def test_the_expected_resolution_is_what_such_incidents_took_so_far(world: World, clock: Clock, notifier: LedgerNotifier) -> None:
    for _ in range(3):
        incident_id = report(world)
        carry(world, incident_id, "run-1")
        approve(world, incident_id)
        clock.advance(minutes=50)
        assert carry(world, incident_id, "run-1") == "closed"
        clock.advance(hours=2)
        world.platform.set(serving="v2.0.0", previous="v1.5.0", deployed_at=clock().isoformat())  # type: ignore[attr-defined]
    deliver(world)
    assert "Expected Resolution: not estimated" in initial(notifier)
    carry(world, report(world), "run-1")
    deliver(world)
    assert "Expected Resolution: 50 minutes (the median of 3 such incidents)" in initial(notifier)
