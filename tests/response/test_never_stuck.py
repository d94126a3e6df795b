"""Nothing a human does is lost, and no step that fails keeps the incident from going on, from being resolved, or from being closed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from flows import resolution as resolution_flows
from mlrunbook.domain.actions import Path, Plan, PlanKind, RouteTraffic
from mlrunbook.domain.approval import Decision, FormAnswer
from mlrunbook.domain.detection.reports import NewReport
from mlrunbook.domain.errors import Refused, Transient, Unknown
from mlrunbook.domain.incident import IncidentType, Severity, Status
from mlrunbook.domain.observed import ServingState
from mlrunbook.domain.resolution.request import Request
from mlrunbook.response.containment import containment, evidence
from mlrunbook.response.detection import triage
from mlrunbook.response.execution import approval_gate, execute
from mlrunbook.response.execution import plans as changes
from mlrunbook.response.execution.approvals import approve_by_rule, decide
from mlrunbook.response.lifecycle import runs
from mlrunbook.response.lifecycle.opening import open_or_join
from mlrunbook.response.resolution import resolution
from mlrunbook.response.review import closing
from mlrunbook.response.run import Run
from mlrunbook.response.world import World
from mlrunbook.store import journal, leases, plans
from tests.fakes import MODEL, Clock, FileWorld, LedgerNotifier, LedgerOrchestrator
from tests.response.carrying import carry, play
from tests.response.people import approve, deliver, incident_of, plan, recorded, report, resolve, say, told

ROLL_BACK = Request(path=Path.ROLLBACK, target_version="v1.5.0", reason="memory leak", by="an engineer")
RAISE_THRESHOLD = Request(path=Path.THRESHOLD, threshold=0.6, reason="too many alarms", by="an engineer")


def ask_for(world: World, request: Request | None = None) -> str:
    """A run that somebody starts in Prefect opens the incident, or joins the open one, before it takes the lease."""
    said = NewReport(MODEL, Severity.HIGH, IncidentType.PERFORMANCE_DEGRADATION, "F1 fell", "", "an engineer")
    return open_or_join(world, said, request)


def taken(world: World, incident_id: str, holder: str = "run-1") -> Run:
    run = runs.take(world, incident_id, holder)
    assert run is not None
    return run


def state_of(world: World, incident_id: str) -> str:
    with world.transaction() as conn:
        return leases.get(conn, incident_id).state


def rows(world: World, incident_id: str) -> list[journal.Row]:
    with world.transaction() as conn:
        return journal.of_incident(conn, incident_id)


def with_mitigation(world: World, file_world: FileWorld) -> tuple[str, Plan]:
    """A high incident that waits for decisions: the temporary rollback, and the resolution."""
    file_world.set(bad_versions={"v2.0.0": "worse"})
    incident_id = report(world, Severity.HIGH, by_alert=False)
    assert carry(world, incident_id, "run-1") == "pending"
    offered = plan(world, incident_id, PlanKind.MITIGATION)
    assert offered is not None
    return incident_id, offered


# Nobody's word is lost


def test_a_run_started_in_prefect_that_dies_before_it_takes_the_lease_is_started_again(
    world: World, clock: Clock, orchestrator: LedgerOrchestrator
) -> None:
    incident_id = ask_for(world)
    deliver(world)
    clock.advance(seconds=leases.START_GRACE_S - 1)
    deliver(world)
    assert not orchestrator.started, "it may still come"
    clock.advance(seconds=2)
    deliver(world)
    assert [p["incident_id"] for p in orchestrator.started.values()] == [incident_id]
    assert carry(world, incident_id, "run-2") == "pending"


def test_what_a_human_says_while_the_run_stops_for_them_starts_the_next_run(
    world: World, clock: Clock, file_world: FileWorld, orchestrator: LedgerOrchestrator
) -> None:
    incident_id = report(world)
    deliver(world)
    carry(world, incident_id, "run-1")
    say(world, incident_id, "rejected")
    run = taken(world, incident_id)
    assert not run.recorded("human_resolution")
    file_world.set(serving="v1.5.0")
    resolve(world, incident_id)  # after the run has looked, before it lets go
    runs.stop_for_human(run, reason="the plan was rejected")
    before = len(orchestrator.started)
    deliver(world)
    assert len(orchestrator.started) == before + 1
    clock.advance(minutes=2)
    assert carry(world, incident_id, "run-2") == "closed"


def test_a_path_asked_for_while_the_run_asks_about_another_plan_resumes_it_to_plan_anew(
    world: World, clock: Clock, orchestrator: LedgerOrchestrator
) -> None:
    incident_id = report(world)
    deliver(world)
    run = taken(world, incident_id)
    triage.triage(run)
    evidence.preserve(run)
    containment.announce(run)
    digest = resolution.plan(run)
    assert digest is not None
    ask_for(world, RAISE_THRESHOLD)
    assert approval_gate.wait_for_approval(run, digest) is not None
    assert state_of(world, incident_id) == "waiting"
    orchestrator.suspended.add("run-1")
    deliver(world)
    assert orchestrator.resumed == ["run-1"]
    clock.advance(seconds=5)
    assert carry(world, incident_id, "run-1") == "pending"
    assert recorded(world, incident_id, "resolution_plan")["path"] == "threshold"
    assert recorded(world, incident_id, "resolution_plan")["digest"] != digest


def test_a_path_asked_for_while_a_fix_is_measured_gets_a_run_of_its_own(
    world: World, clock: Clock, orchestrator: LedgerOrchestrator
) -> None:
    incident_id = report(world)
    deliver(world)
    carry(world, incident_id, "run-1")
    approve(world, incident_id)
    run = taken(world, incident_id)
    digest = resolution.plan(run)
    assert digest is not None
    play(resolution_flows.resolve, run, digest=digest)
    ask_for(world, replace(ROLL_BACK, target_version="v1.4.0"))
    assert runs.take(world, incident_id, "the path's run") is None, "the first run carries the incident"
    clock.advance(seconds=5)
    with pytest.raises(Refused, match="nothing has been applied yet") as stopped:
        resolution.measure_recovery(run)
    runs.failed(run, stopped.value)
    before = len(orchestrator.started)
    deliver(world)
    assert len(orchestrator.started) == before + 1
    assert carry(world, incident_id, "run-2") == "pending"
    asked = plan(world, incident_id)
    assert asked is not None
    assert asked.actions[0].target() == {"target_version": "v1.4.0"}


def test_a_path_asked_for_after_a_human_said_it_is_fixed_is_planned(world: World, clock: Clock, file_world: FileWorld) -> None:
    incident_id = report(world)
    carry(world, incident_id, "run-1")
    file_world.set(labelled=False)
    resolve(world, incident_id)
    assert carry(world, incident_id, "run-1") == "too early to say"
    clock.advance(minutes=2)
    ask_for(world, ROLL_BACK)
    assert carry(world, incident_id, "run-2") == "pending"
    assert recorded(world, incident_id, "resolution_plan")["path"] == "rollback"


def test_a_path_asked_for_on_a_model_that_measures_well_is_no_false_alarm(world: World, file_world: FileWorld) -> None:
    file_world.set(bad_versions={})
    incident_id = ask_for(world, ROLL_BACK)
    assert carry(world, incident_id, "run-1") == "pending"
    assert incident_of(world, incident_id).status is not Status.FALSE_ALARM
    asked = plan(world, incident_id)
    assert asked is not None
    assert asked.actions[0].target() == {"target_version": "v1.5.0"}


# A step that fails stops nothing else


@pytest.mark.parametrize("fault", ["lost", "refused"])
def test_containment_that_cannot_be_taken_back_is_paged_and_kept_with_the_reason_and_the_incident_closes(
    world: World, clock: Clock, file_world: FileWorld, notifier: LedgerNotifier, fault: str
) -> None:
    incident_id = report(world)
    carry(world, incident_id, "run-1")
    approve(world, incident_id)
    clock.advance(minutes=2)
    file_world.faults = {"config:auto_scheduling=True": [fault], "config:human_approval=False": [fault]}
    assert carry(world, incident_id, "run-1") == "closed"
    deliver(world)
    assert any("a step of the undo could not be done" in m.body for m in notifier.pages())
    left = [r for r in rows(world, incident_id) if r.undo_of is None and r.kept_because]
    assert len(left) == 2
    assert all("could not be done" in str(r.kept_because) for r in left)
    config = file_world.state["config"]
    assert (config["human_approval"], config["auto_scheduling"]) == (True, False), "what could not be taken back is still in force"


def test_an_unknown_change_that_turns_out_to_hold_is_settled_and_not_applied_again(world: World, file_world: FileWorld) -> None:
    incident_id = report(world)
    carry(world, incident_id, "run-1")
    approve(world, incident_id)
    file_world.faults["rollback"] = ["lost"]
    with pytest.raises(Unknown):
        carry(world, incident_id, "run-1")
    file_world.set(serving="v1.5.0")  # it arrived after all, or a person did it
    run = taken(world, incident_id, "run-2")
    wanted = plan(world, incident_id)
    assert wanted is not None
    assert changes.apply_action(run, wanted.digest, 0) == "done"
    assert "rollback" not in file_world.applied
    assert [r.state for r in rows(world, incident_id) if r.plan_digest == wanted.digest] == ["done"]


def test_a_temporary_rollback_that_is_refused_does_not_stand_in_the_way_of_a_human(
    world: World, clock: Clock, file_world: FileWorld, notifier: LedgerNotifier
) -> None:
    incident_id, offered = with_mitigation(world, file_world)
    file_world.faults["rollback"] = ["refused"]
    approve(world, incident_id, PlanKind.MITIGATION)
    assert carry(world, incident_id, "run-1") == "pending", "the resolution is still asked for"
    deliver(world)
    assert any("a step of the mitigation could not be done" in m.body for m in notifier.pages())
    file_world.set(serving="v1.5.0")  # by hand
    clock.advance(minutes=5)
    resolve(world, incident_id)
    clock.advance(minutes=2)
    assert carry(world, incident_id, "run-2") == "closed"
    assert "rollback" not in file_world.applied, f"{offered.digest} is not tried again by itself"


def test_an_incident_does_not_close_over_a_containment_change_whose_outcome_is_unknown(world: World, file_world: FileWorld) -> None:
    incident_id, offered = with_mitigation(world, file_world)
    approve(world, incident_id, PlanKind.MITIGATION)
    run = taken(world, incident_id)
    file_world.faults["rollback"] = ["lost"]
    with pytest.raises(Unknown):
        changes.apply_action(run, offered.digest, 0)
    with pytest.raises(Refused, match="cannot close") as refused:
        closing.announce_resolution(run)
    assert offered.actions[0].summary in str(refused.value)
    assert incident_of(world, incident_id).status is not Status.CLOSED


def test_containment_that_a_person_rejects_is_left_out_and_the_runbook_goes_on(world: World, clock: Clock, file_world: FileWorld) -> None:
    incident_id = report(world)
    run = taken(world, incident_id, "run-0")
    triage.triage(run)
    evidence.preserve(run)
    assert containment.plan(run).automatic
    say(world, incident_id, "rejected", PlanKind.CONTAINMENT)
    assert carry(world, incident_id, "run-0") == "pending"
    assert file_world.applied == {}
    assert any("the lead rejected the plan" in line for line in told(world, incident_id, "action"))
    approve(world, incident_id)
    clock.advance(minutes=2)
    assert carry(world, incident_id, "run-0") == "closed"
    assert file_world.applied == {"rollback": 1}


def test_a_change_of_one_incident_whose_outcome_is_unknown_does_not_keep_another_from_being_contained(
    world: World, clock: Clock, file_world: FileWorld
) -> None:
    first = report(world)
    carry(world, first, "run-1")
    approve(world, first)
    file_world.faults["rollback"] = ["lost"]
    with pytest.raises(Unknown):
        carry(world, first, "run-1")
    file_world.set(bad_versions={"v2.0.0": "dangerous"})
    second = report(world, Severity.CRITICAL, IncidentType.INFRASTRUCTURE, by_alert=False, description="all assets are flagged")
    assert second != first
    clock.advance(minutes=1)
    assert carry(world, second, "run-2") in ("pending", "waiting for a human")
    done = [r for r in rows(world, second) if r.settled]
    assert done
    assert all(r.settled for r in rows(world, second))
    assert recorded(world, second, "contained")


# Who is asked


def test_the_temporary_rollback_is_asked_of_the_on_call_engineer_once(
    world: World, clock: Clock, file_world: FileWorld, notifier: LedgerNotifier
) -> None:
    _, offered = with_mitigation(world, file_world)
    for _ in range(6):
        deliver(world)
        clock.advance(minutes=60)
    asked = [m.body.split(":")[0] for m in notifier.pages() if f"--plan {offered.digest[:12]}" in m.body]
    assert asked == ["On-Call ML Engineer"]


def test_a_decision_in_prefects_form_has_no_role_and_counts_where_policy_lets_the_form_in(
    world: World, clock: Clock, file_world: FileWorld
) -> None:
    rules = world.policy.approvals
    opened = rules.model_copy(update={"resolution": rules.resolution.model_copy(update={"accept_prefect_form": True})})
    world = replace(world, policy=world.policy.model_copy(update={"approvals": opened}))
    incident_id = report(world)
    carry(world, incident_id, "run-1")
    run, wanted = taken(world, incident_id), plan(world, incident_id)
    assert wanted is not None
    assert approval_gate.record_form(run, wanted.digest, 1, FormAnswer("approved", "somebody"))
    with world.transaction() as conn:
        [kept] = plans.approvals_of(conn, incident_id, wanted.digest)
    assert (kept.approver, kept.role, kept.verified) == ("somebody", None, False)
    clock.advance(minutes=2)
    assert carry(world, incident_id, "run-1") == "closed"
    assert file_world.applied["rollback"] == 1


def test_a_person_at_any_other_door_still_needs_the_role(world: World) -> None:
    incident_id = report(world)
    carry(world, incident_id, "run-1")
    wanted = plan(world, incident_id)
    assert wanted is not None
    with world.transaction() as conn, pytest.raises(Refused, match="role is not set"):
        decide(conn, world.policy, incident_id, wanted.digest, Decision("approved", "somebody", None, "rest"), now=world.now())


# What cannot be read is not taken for done


def test_a_route_is_not_called_taken_back_while_the_server_restarts(world: World, clock: Clock, file_world: FileWorld) -> None:
    class Restarting(FileWorld):
        """The server is wanted and does not answer."""

        def observe(self, model: str) -> ServingState:
            return ServingState(1, 0, None, None, None, None)

    file_world.set(route="v1.5.0")
    incident_id = report(world)
    run = taken(world, incident_id)
    evidence.preserve(run)
    undo = Plan(incident_id, PlanKind.UNDO, MODEL, (RouteTraffic(MODEL, None),), ("undo",), rule=resolution.UNDO_RULE)
    with world.transaction() as conn:
        plans.propose(conn, undo, now=world.now())
        approve_by_rule(conn, undo, now=world.now())
    with pytest.raises(Transient, match="cannot be read now"):
        execute.execute(replace(world, runtime=Restarting(file_world.path, clock)), run.lease, undo, 0)
    assert file_world.state["route"] == "v1.5.0"
    assert execute.execute(world, run.lease, undo, 0).state == "done", "the server is back"
    assert file_world.state["route"] is None
