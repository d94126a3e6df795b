"""A bad release, severity high: contained, investigated, rolled back after approval, verified, told, reviewed, closed."""

from __future__ import annotations

from datetime import timedelta

from mlrunbook.domain.incident import Severity, Status
from mlrunbook.response.world import World
from mlrunbook.store import evidence, incidents, integrity, journal, outbox, timeline
from tests.fakes import Clock, FileWorld, LedgerNotifier
from tests.response.carrying import carry
from tests.response.people import approve, deliver, incident_of, recorded, report, say

EXPECTED = {
    "config:human_approval=True": 1,
    "config:auto_scheduling=False": 1,
    "rollback": 1,
    "config:human_approval=False": 1,
    "config:auto_scheduling=True": 1,
}


def test_a_bad_release_is_contained_rolled_back_verified_told_and_closed(world: World, file_world: FileWorld, clock: Clock) -> None:
    incident_id = report(world)
    assert carry(world, incident_id, "run-1") == "pending"
    incident = incident_of(world, incident_id)
    assert (incident.severity, incident.status) == (Severity.HIGH, Status.CONTAINED)
    assert recorded(world, incident_id, "diagnosis")["path"] == "rollback"
    assert file_world.state["config"] | {"threshold": 0} == {
        "threshold": 0,
        "human_approval": True,
        "auto_work_orders": True,
        "auto_scheduling": False,
    }
    assert file_world.state["serving"] == "v2.0.0", "nothing is rolled back before somebody approved it"

    approve(world, incident_id)
    clock.advance(minutes=2)
    assert carry(world, incident_id, "run-1") == "closed"
    assert file_world.applied == EXPECTED
    assert file_world.state["serving"] == "v1.5.0"
    assert file_world.state["config"]["auto_scheduling"] is True, "containment is taken back"
    with world.transaction() as conn:
        incident = incidents.get(conn, incident_id)
        assert incident.status is Status.CLOSED
        assert incident.resolved_at is not None
        assert incident.review_due_at == incident.resolved_at + timedelta(hours=48)
        assert integrity.altered(conn, incident_id) == []
        assert "# Post-Incident Review" in recorded(world, incident_id, "review")["markdown"]
        assert {item.name for item in evidence.manifest(conn, incident_id)} >= {"metrics.json", "predictions.json", "config.json"}
        assert all(row.settled for row in journal.of_incident(conn, incident_id))


def test_evidence_is_preserved_before_the_first_change(world: World, file_world: FileWorld) -> None:
    incident_id = report(world)
    carry(world, incident_id, "run-1")
    with world.transaction() as conn:
        kinds = [e.kind for e in timeline.read(conn, incident_id)]
    assert kinds.index("evidence") < kinds.index("action")


def test_a_rejected_plan_changes_nothing_and_goes_to_a_human(world: World, file_world: FileWorld, notifier: LedgerNotifier) -> None:
    incident_id = report(world)
    carry(world, incident_id, "run-1")
    say(world, incident_id, "rejected")
    assert carry(world, incident_id, "run-1") == "rejected"
    assert "rollback" not in file_world.applied
    deliver(world)
    assert any("the plan was rejected" in m.body for m in notifier.pages())


def test_nobody_is_paged_after_the_resolution(world: World, clock: Clock, notifier: LedgerNotifier) -> None:
    incident_id = report(world)
    carry(world, incident_id, "run-1")
    deliver(world)
    assert {"On-Call ML Engineer", "ML Team Lead"} <= {m.body.split(":")[0] for m in notifier.pages()}
    approve(world, incident_id)
    clock.advance(minutes=2)
    assert carry(world, incident_id, "run-1") == "closed"
    clock.advance(minutes=1)
    deliver(world)
    told = len(notifier.sent)
    clock.advance(hours=5)
    deliver(world)
    assert len(notifier.sent) == told
    with world.transaction() as conn:
        waiting = [row["kind"] for row in outbox.of_incident(conn, incident_id) if not (row["delivered_at"] or row["cancelled_at"])]
    assert set(waiting) == {"confirm_recovery", "action_item", "review_due"}, "tomorrow's outcomes, action items and review are to come"
