"""Other ways in than an alert, and the one gate that none of them goes round."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from mlrunbook.domain.incident import IncidentType, Severity, Status
from mlrunbook.drills.simulator.traffic import MODEL
from mlrunbook.store import outbox, plans
from tests.flows.live import Live, wait_for

pytestmark = [pytest.mark.prefect, pytest.mark.stack]


@pytest.fixture(scope="module")
def healthy(live: Live) -> dict[str, Any]:
    """v1.5.0 serves, nothing is open; fresh readings arrive while these tests run."""
    still_open = [i.id for i in live.incidents() if i.status.is_open]
    if still_open or live.serving()["servingVersion"] != "v1.5.0":
        pytest.fail(f"a test before these failed: {still_open} open, {live.serving()['servingVersion']} serves", pytrace=False)
    return live.loaded()


@pytest.fixture(scope="module")
def started(live: Live, healthy: dict[str, Any]) -> Iterator[dict[str, str]]:
    """Four ways in at once: a low report at the gateway, a path's deployment, `respond` by API and by schedule."""
    respond = live.deployment("respond")
    soon = (datetime.now(UTC) + timedelta(seconds=8)).isoformat()
    about = {"model": "weekly_check", "type": "compliance", "description": "The weekly check is due", "reportedBy": "calendar"}
    schedule = {"active": True, "slug": "weekly", "schedule": {"interval": 7 * 86400, "anchor_date": soon}, "parameters": about}
    live.prefect.patch(f"/deployments/{respond}", json={"schedules": [schedule]}).raise_for_status()
    rollback = live.start("rollback", model=MODEL, targetVersion="v1.4.0", reason="v1.5.0 feels wrong", rolledBackBy="ml_engineer")
    person = live.start(
        "respond",
        model="pump_pressure",
        severity="medium",
        type="infrastructure",
        description="The pump model answers slowly",
        impact="Operators wait",
        reportedBy="shift_lead",
    )
    low = live.report(severity="low", type="bias_fairness", description="The model card is outdated", reportedBy="auditor")
    with live.traffic():
        yield {"rollback": rollback, "respond": person, "low": low}
    live.prefect.patch(f"/deployments/{respond}", json={"schedules": []}).raise_for_status()


def opened(live: Live, model: str, type: IncidentType) -> str:
    """The incident that a run has opened."""
    return str(live.wait("", f"an incident of {model}", lambda: next((i.id for i in live.incidents(model) if i.type is type), None)))


def path_incident(live: Live) -> str:
    return str(
        live.wait(
            "",
            "the path's incident",
            lambda: next((i.id for i in live.incidents() if i.status.is_open and i.family == "performance"), None),
        )
    )


def test_a_wrong_severity_is_refused_by_the_deployments_schema_with_its_field(live: Live) -> None:
    answer = live.create_run("respond", model=MODEL, severity="enormous", description="it is bad", reportedBy="somebody")
    assert answer.status_code in (409, 422)
    assert "severity" in answer.text
    assert "enormous" in answer.text


def test_a_path_started_alone_opens_an_incident_and_asks_before_it_changes_anything(live: Live, started: dict[str, str]) -> None:
    incident_id = path_incident(live)
    live.wait(incident_id, "it asks", lambda: live.lease(incident_id).state == "waiting")
    log = live.stack.data / "logs" / "worker.log"
    before = len(log.read_text())
    live.kill_flow(incident_id, "after it asked, before it was suspended")
    # The worker's runner reports the crash, and then the worker itself once more: a retry has to come after both.
    live.wait(
        incident_id, "the worker has noticed", lambda: "flow_runs.worker - Check whether the flow run exceeded" in log.read_text()[before:]
    )
    assert live.run(started["rollback"])["state_type"] == "CRASHED"
    assert live.incident(incident_id).severity is Severity.MEDIUM
    assert live.serving()["servingVersion"] == "v1.5.0"


def test_a_retry_of_the_killed_run_does_not_walk_through_the_gate(live: Live, started: dict[str, str]) -> None:
    """What `prefect flow-run retry` does."""
    incident_id, run = path_incident(live), started["rollback"]
    state = {"type": "SCHEDULED", "name": "AwaitingRetry", "message": "retried by a person"}
    assert live.prefect.post(f"/flow_runs/{run}/set_state", json={"state": state, "force": True}).json()["status"] == "ACCEPT"
    assert live.wait_until_suspended(incident_id) == run
    assert live.serving()["servingVersion"] == "v1.5.0"


def test_a_resume_without_an_approval_suspends_again_and_says_why(live: Live, started: dict[str, str]) -> None:
    incident_id, run = path_incident(live), started["rollback"]
    assert live.fill_in_form(run, "decided_elsewhere", name="Curious Person")["status"] == "ACCEPT"
    live.wait_until_said(incident_id, "Resumed by Curious Person without a valid approval (nothing was decided): waiting again")
    assert live.wait_until_suspended(incident_id) == run
    assert live.serving()["servingVersion"] == "v1.5.0"


def test_an_approval_of_another_plan_changes_nothing(live: Live, started: dict[str, str]) -> None:
    incident_id = path_incident(live)
    assert live.decide(incident_id, digest="f" * 64).status_code in (404, 409, 422)
    assert live.lease(incident_id).state == "waiting"
    assert live.serving()["servingVersion"] == "v1.5.0"


def test_a_second_run_for_the_same_incident_ends_at_once(live: Live, started: dict[str, str]) -> None:
    incident_id = path_incident(live)
    holder = live.lease(incident_id).holder
    live.wait_until_run_is(live.start("respond", incident_id=incident_id), "COMPLETED")
    assert (live.lease(incident_id).state, live.lease(incident_id).holder) == ("waiting", holder)


def test_serving_stops_on_a_persons_word_while_a_run_waits_and_starts_again_by_a_word(live: Live, started: dict[str, str]) -> None:
    incident_id, known = path_incident(live), {i.id for i in live.incidents()}
    live.order(incident_id, "stop_serving")
    live.wait_until_said(incident_id, "Done, read back: stop serving")
    with pytest.raises(httpx.HTTPError):
        live.loaded()
    live.wait_until_suspended(incident_id)
    plan = live.plan(incident_id)
    assert plan is not None
    assert any("serve predictive_maintenance with" in a.summary for a in plan.actions), "who approves sees that it starts again"
    live.order(incident_id, "take_back")
    live.wait_until_said(incident_id, "Done, read back: serve")
    assert wait_for("the model server serves", live.loaded)["version"] == "v1.5.0"
    live.wait_until_suspended(incident_id)
    assert {i.id for i in live.incidents()} == known, "a server that was stopped on purpose is no outage"


def test_a_rejected_plan_changes_nothing_and_a_human_is_paged(live: Live, started: dict[str, str]) -> None:
    incident_id = path_incident(live)
    assert live.decide(incident_id, "rejected").status_code == 201
    live.wait_until_said(incident_id, "Waiting for a human: the plan was rejected")
    live.wait_until_said(incident_id, "Paged ML Team Lead: the plan was rejected")
    assert live.serving()["servingVersion"] == "v1.5.0"


def test_another_path_joins_the_open_incident_and_its_plan_replaces_the_rejected_one(live: Live, started: dict[str, str]) -> None:
    incident_id = path_incident(live)
    asked = round(live.loaded()["config"]["threshold"] + 0.01, 4)
    live.start("threshold", model=MODEL, threshold=asked, reason="a little more precision", changedBy="ml_engineer")
    live.wait_until_suspended(incident_id)
    plan = live.plan(incident_id)
    assert plan is not None
    assert plan.path == "threshold"
    assert f"{asked:g}" in plan.actions[0].summary
    assert path_incident(live) == incident_id


def test_the_prefect_form_counts_where_policy_opts_in_and_is_recorded_as_unverified(
    live: Live, started: dict[str, str], healthy: dict[str, Any]
) -> None:
    incident_id = path_incident(live)
    run, plan = live.wait_until_suspended(incident_id), live.plan(incident_id)
    assert plan is not None
    assert live.loaded()["config"]["threshold"] == healthy["config"]["threshold"]
    assert live.fill_in_form(run, "approved", name="Team Lead")["status"] == "ACCEPT"
    assert live.wait_until_ended(incident_id).status is Status.CLOSED
    with live.store() as conn:
        (row,) = plans.approvals_of(conn, incident_id, plan.digest)
    assert (row.door, row.verified, row.approver, row.decision) == ("prefect_form", False, "Team Lead", "approved")


def test_path_d_is_read_back_from_the_running_server(live: Live, started: dict[str, str], healthy: dict[str, Any]) -> None:
    wanted = round(healthy["config"]["threshold"] + 0.01, 4)
    assert live.loaded()["config"]["threshold"] == wanted
    assert live.serving()["servingVersion"] == "v1.5.0"


def test_a_low_incident_is_a_ticket_without_page_or_change(live: Live, started: dict[str, str]) -> None:
    incident_id = started["low"]
    live.wait_until_said(incident_id, "Told the ticket queue")
    # Where the machine is so busy that the model server exceeds its latency limit, the run proposes a restart and waits.
    live.wait(incident_id, "its run has ended or waits", lambda: live.lease(incident_id).state in ("free", "done", "waiting"), 180)
    assert live.incident(incident_id).severity is Severity.LOW
    with live.store() as conn:
        assert [row["payload"] for row in outbox.of_incident(conn, incident_id, "page")] == []
    assert live.entries(incident_id, "action") == []


def test_respond_by_api_opens_the_incident_it_describes_and_carries_it(live: Live, started: dict[str, str]) -> None:
    incident_id = opened(live, "pump_pressure", IncidentType.INFRASTRUCTURE)
    live.wait_until_run_is(started["respond"], "COMPLETED")
    incident = live.incident(incident_id)
    assert (incident.description, incident.impact, incident.reported_by) == (
        "The pump model answers slowly",
        "Operators wait",
        "shift_lead",
    )
    assert incident.status is Status.INVESTIGATING
    live.wait_until_said(incident_id, "Waiting for a human: the cause is not known")
    assert live.entries(incident_id, "action") == []


def test_a_schedule_starts_respond(live: Live, started: dict[str, str]) -> None:
    incident_id = opened(live, "weekly_check", IncidentType.COMPLIANCE)
    live.wait_until_said(incident_id, "Status detected -> investigating")
    assert live.incident(incident_id).reported_by == "calendar"
