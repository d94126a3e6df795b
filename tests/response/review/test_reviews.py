"""The review says what is so when it is written, and when it is read again."""

from __future__ import annotations

from mlrunbook.domain.actions import Order, PlanKind
from mlrunbook.domain.incident import Severity
from mlrunbook.response.review import contained
from mlrunbook.response.review.reviews import current
from mlrunbook.response.world import World
from mlrunbook.store import incidents, journal, plans
from tests.fakes import Clock, FileWorld, LedgerNotifier
from tests.response.carrying import carry
from tests.response.containment.test_emergency import order
from tests.response.people import approve, deliver, report


def review(world: World, incident_id: str) -> str:
    with world.transaction() as conn:
        return current(conn, incident_id)


def fixed(world: World, clock: Clock, incident_id: str) -> None:
    """The plan that waits is approved, carried out, and the recovery measured."""
    assert carry(world, incident_id, "run-1") == "pending"
    clock.advance(minutes=2)
    approve(world, incident_id)
    clock.advance(minutes=2)
    assert carry(world, incident_id, "run-1") == "closed"


def test_a_stop_that_the_plan_ended_is_impact_and_not_in_force(
    world: World, file_world: FileWorld, clock: Clock, notifier: LedgerNotifier
) -> None:
    incident_id = report(world, Severity.HIGH)
    order(world, incident_id, Order.STOP_SERVING)
    fixed(world, clock, incident_id)
    assert file_world.state["replicas"] == 1
    text = review(world, incident_id)
    assert "still in force: stop serving" not in text
    (impact,) = [row for row in text.splitlines() if row.startswith("- **Business Impact:**")]
    assert "Serving was stopped from" in impact
    assert "minutes" in impact
    deliver(world)
    (notice,) = [m for m in notifier.sent if m.subject.startswith("[RESOLVED]") and m.channel == "incidents"]
    assert "Serving was stopped from" in notice.body


def test_what_was_taken_back_is_not_in_force(world: World, file_world: FileWorld, clock: Clock) -> None:
    incident_id = report(world, Severity.HIGH)
    fixed(world, clock, incident_id)
    with world.transaction() as conn:
        incident = incidents.get(conn, incident_id)
        assert not contained.left(conn, incident), "all of it was taken back"
        (row, *_) = [r for r in journal.of_incident(conn, incident_id) if r.kind == "configure" and r.undone_by]
        assert plans.get(conn, incident_id, row.plan_digest).kind is PlanKind.CONTAINMENT
    assert "still in force" not in review(world, incident_id)
