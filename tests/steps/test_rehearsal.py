"""What the runtime would refuse is not offered to a person, and not relied on."""

from __future__ import annotations

from mlrunbook.wiring import World
from tests.fakes import Clock, FileWorld
from tests.steps.people import plan, recorded, report, told
from tests.steps.protocol import carry


def test_a_plan_that_a_dry_run_refuses_is_not_offered_and_a_person_is_told_why(world: World, file_world: FileWorld, clock: Clock) -> None:
    file_world.slip()
    file_world.set(refuses=["restart"])
    incident_id = report(world)
    clock.advance(seconds=20)
    assert carry(world, incident_id, "run-1") == "waiting for a human"
    assert recorded(world, incident_id, "diagnosis")["path"] == "threshold"
    assert plan(world, incident_id) is None
    [said] = [text for text in told(world, incident_id, "plan") if text.startswith("No plan")]
    assert "a dry run of it was refused" in said
    assert "the server refuses to restart the predictive_maintenance server" in said


def test_where_traffic_cannot_go_to_the_previous_version_serving_stops(world: World, file_world: FileWorld) -> None:
    file_world.set(bad_versions={"v2.0.0": "dangerous"}, refuses=["route_traffic"])
    incident_id = report(world)
    carry(world, incident_id, "run-1")
    assert (file_world.state["route"], file_world.state["replicas"]) == (None, 0)
    [said] = told(world, incident_id, "containment")[:1]
    assert "traffic cannot go to v1.5.0, so serving stops: the server refuses to route" in said
