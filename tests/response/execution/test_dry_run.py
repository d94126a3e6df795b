"""What the runtime would refuse is not offered to a person, and not relied on."""

from __future__ import annotations

from mlrunbook.domain.actions import PlanKind
from mlrunbook.domain.incident import IncidentType, Severity, Status, Subtype
from mlrunbook.domain.resolution.plan_page import plan_markdown
from mlrunbook.response.world import World
from tests.fakes import Clock, FileWorld, LedgerNotifier
from tests.response.carrying import carry
from tests.response.people import approve, deliver, incident_of, plan, recorded, report, told


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


def test_the_approver_reads_what_the_dry_run_found(world: World, file_world: FileWorld, clock: Clock) -> None:
    file_world.slip()
    incident_id = report(world)
    clock.advance(seconds=20)
    carry(world, incident_id, "run-1")
    asked = plan(world, incident_id)
    assert asked is not None
    assert asked.facts["dry_run"] == [f"{action.summary}: nothing speaks against it" for action in asked.actions]
    text = plan_markdown(asked)
    assert "### What a Dry Run Found" in text
    assert "restart the predictive_maintenance server: nothing speaks against it" in text.replace("\\", "")


def test_a_step_of_the_automatic_containment_that_would_be_refused_holds_up_no_other(
    world: World, file_world: FileWorld, notifier: LedgerNotifier
) -> None:
    """Nearly all assets are called high-risk: no route to the version before, so serving stops, and work orders are halted."""
    file_world.set(bad_versions={"v2.0.0": "dangerous"}, refuses=["route_traffic", "scale"])
    incident_id = report(world)
    carry(world, incident_id, "run-1")
    assert (file_world.state["replicas"], file_world.state["config"]["auto_work_orders"]) == (1, False)
    [left_out] = [text for text in told(world, incident_id, "action") if "left out" in text]
    assert "stop serving predictive_maintenance: a dry run of it was refused: the server refuses to stop serving" in left_out
    deliver(world)
    assert any("do it by hand or leave it: stop serving" in m.body for m in notifier.pages())


def test_an_isolation_that_would_be_refused_is_paged_to_security(world: World, file_world: FileWorld, notifier: LedgerNotifier) -> None:
    file_world.set(bad_versions={}, refuses=["isolate"])
    incident_id = report(world, Severity.HIGH, IncidentType.SECURITY, by_alert=False, description="Seen", subtype=Subtype.DATA_LEAKAGE)
    carry(world, incident_id, "run-1")
    assert file_world.applied == {}
    deliver(world)
    assert any("a dry run of it was refused" in m.body for m in notifier.pages() if m.channel == "security")


def test_officers_are_asked_about_an_isolation_also_where_it_would_be_refused_and_read_why(world: World, file_world: FileWorld) -> None:
    file_world.set(bad_versions={}, refuses=["isolate"])
    incident_id = report(world, Severity.HIGH, IncidentType.COMPLIANCE, by_alert=False, description="Seen", subtype=Subtype.AUDIT_FAILURE)
    carry(world, incident_id, "run-1")
    offered = plan(world, incident_id, PlanKind.ISOLATION)
    assert offered is not None
    assert "would be refused: the server refuses to isolate" in offered.facts["dry_run"][0]


def test_the_release_is_tried_before_it_is_asked_about(world: World, file_world: FileWorld, clock: Clock) -> None:
    file_world.set(bad_versions={})
    incident_id = report(world, Severity.HIGH, IncidentType.SECURITY, by_alert=False, description="Seen", subtype=Subtype.DATA_LEAKAGE)
    assert carry(world, incident_id, "run-1") == "pending"
    release = plan(world, incident_id, PlanKind.ISOLATION)
    assert release is not None
    assert release.facts["dry_run"] == ["lift the isolation of the predictive_maintenance server: nothing speaks against it"]


def test_people_are_told_what_an_isolation_rests_on_with_the_notice_and_with_the_question(
    world: World, file_world: FileWorld, notifier: LedgerNotifier
) -> None:
    file_world.set(bad_versions={}, caveats=["NetworkPolicy let-in still lets traffic through to them"])
    incident_id = report(world, Severity.HIGH, IncidentType.SECURITY, by_alert=False, description="Seen", subtype=Subtype.DATA_LEAKAGE)
    carry(world, incident_id, "run-1")
    deliver(world)
    [notice] = [m for m in notifier.sent if m.channel == "incidents" and "Isolated the model server" in m.body]
    assert "Isolated the model server, which runs on; NetworkPolicy let-in still lets traffic through to them" in notice.body
    release = plan(world, incident_id, PlanKind.ISOLATION)
    assert release is not None
    assert "NetworkPolicy let-in still lets traffic through to them" in release.reasons[0]


def test_what_cannot_be_taken_back_is_kept_with_that_reason_and_the_rest_is_taken_back(
    world: World, file_world: FileWorld, clock: Clock
) -> None:
    """The threshold goes back with the plan; approval and scheduling are switches of one config, of which one is refused later."""
    file_world.set(bad_versions={"v2.0.0": "degraded"})
    incident_id = report(world, Severity.HIGH)
    clock.advance(seconds=20)
    assert carry(world, incident_id, "run-1") == "pending"
    approve(world, incident_id)
    file_world.set(refuses=["configure"])
    clock.advance(minutes=2)
    assert carry(world, incident_id, "run-1") == "closed"
    assert incident_of(world, incident_id).status is Status.CLOSED
    assert file_world.state["config"]["human_approval"] is True
    assert any("a dry run of taking it back was refused" in text for text in told(world, incident_id, "containment"))
