"""Severity, hand-over and going on by hand, over HTTP."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from fastapi.testclient import TestClient

from mlrunbook.base.tokens import Scope
from mlrunbook.domain.actions import PlanKind
from mlrunbook.response.communication.notifications import page_text
from mlrunbook.response.world import World
from mlrunbook.store import incidents, outbox, plans, timeline
from tests.gateway.conftest import Clock, Keys


@pytest.fixture
def incident(client: TestClient, model: str) -> str:
    body = {"severity": "medium", "type": "performance_degradation", "description": "F1 fell"}
    return str(client.post(f"/api/v1/model-governance/{model}/incidents", json=body).json()["id"])


def shown(client: TestClient, incident: str) -> dict[str, Any]:
    return dict(client.get(f"/api/v1/incidents/{incident}").json())


def said(world: World, incident: str, kind: str) -> list[str]:
    with world.transaction() as conn:
        return [e.text for e in timeline.read(conn, incident) if e.kind == kind]


def test_a_person_raises_the_severity_with_a_reason(client: TestClient, world: World, incident: str) -> None:
    answer = client.post(f"/api/v1/incidents/{incident}/severity", json={"severity": "critical", "reason": "a gearbox broke"})
    assert (answer.status_code, answer.json()["severity"]) == (200, "critical")
    assert "the lead (ML Team Lead) raises it from medium to critical: a gearbox broke" in said(world, incident, "severity")[-1]


def test_without_a_reason_nothing_changes(client: TestClient, incident: str) -> None:
    assert client.post(f"/api/v1/incidents/{incident}/severity", json={"severity": "low", "reason": " "}).status_code == 422
    assert shown(client, incident)["severity"] == "medium"


def test_who_may_not_operate_may_not_change_it(client: TestClient, keys: Keys, incident: str) -> None:
    reader = keys.of("a reader", Scope.READ, Scope.REPORT, Scope.APPROVE)
    for path, body in (("severity", {"severity": "low", "reason": "x"}), ("handover", {"role": "ml_team_lead", "to": "Me"}), ("go-on", {})):
        assert client.post(f"/api/v1/incidents/{incident}/{path}", json=body, headers=reader).status_code == 403


def test_an_incident_that_is_over_is_not_changed(client: TestClient, incident: str) -> None:
    client.post(f"/api/v1/incidents/{incident}/close", json={"reason": "a test"})
    answer = client.post(f"/api/v1/incidents/{incident}/severity", json={"severity": "critical", "reason": "late"})
    assert answer.status_code == 409


def test_the_answer_is_due_by_the_severity_that_it_has_now(client: TestClient, clock: Clock, incident: str) -> None:
    clock.pass_(minutes=20)
    client.post(f"/api/v1/incidents/{incident}/severity", json={"severity": "critical", "reason": "a gearbox broke"})
    detail = shown(client, incident)
    assert detail["respondBy"].startswith(f"{clock.at.replace(microsecond=0) + timedelta(minutes=15):%Y-%m-%dT%H:%M}")


def test_roles_are_those_of_the_runbook_until_somebody_takes_one_over(client: TestClient, world: World, incident: str) -> None:
    duties = {d["duty"]: (d["role"], d["name"]) for d in shown(client, incident)["duties"]}
    assert duties == {
        "incident_commander": ("ml_team_lead", ""),
        "containment_approver": ("oncall_ml_engineer", ""),
        "resolution_approver": ("ml_team_lead", ""),
    }
    client.post(f"/api/v1/incidents/{incident}/severity", json={"severity": "critical", "reason": "a gearbox broke"})
    assert shown(client, incident)["duties"][0]["role"] == "engineering_manager"
    body = {"role": "oncall_ml_engineer", "to": "Night Shift", "note": "until six"}
    assert client.post(f"/api/v1/incidents/{incident}/handover", json=body).status_code == 200
    client.post(f"/api/v1/incidents/{incident}/handover", json={"role": "incident_commander", "to": "The Deputy"})
    names = {d["duty"]: d["name"] for d in shown(client, incident)["duties"]}
    assert names == {"incident_commander": "The Deputy", "containment_approver": "Night Shift", "resolution_approver": ""}
    assert said(world, incident, "handover") == [
        "On-Call ML Engineer handed over to Night Shift by the lead (ML Team Lead): until six",
        "Incident Commander handed over to The Deputy by the lead (ML Team Lead)",
    ]


def test_pages_to_a_role_name_who_has_it_now(client: TestClient, world: World, clock: Clock, incident: str) -> None:
    hostile = "Eve <script>"
    client.post(f"/api/v1/incidents/{incident}/handover", json={"role": "oncall_ml_engineer", "to": hostile})
    client.post(f"/api/v1/incidents/{incident}/handover", json={"role": "oncall_ml_engineer", "to": hostile})
    assert len(said(world, incident, "handover")) == 1, "the same words again are no second hand-over"
    with world.transaction() as conn:
        page = next(r for r in outbox.of_incident(conn, incident, "page") if r["payload"]["role"] == "oncall_ml_engineer")
        text = page_text(conn, world.policy, page["payload"], incidents.get(conn, incident), now=clock())
    assert text.body.startswith("On-Call ML Engineer (Eve <script>):")


def test_a_role_that_the_runbook_does_not_know_is_refused(client: TestClient, incident: str) -> None:
    answer = client.post(f"/api/v1/incidents/{incident}/handover", json={"role": "the boss", "to": "Me"})
    assert answer.status_code == 422


def test_there_is_nothing_to_let_go_on_where_nothing_has_stopped(client: TestClient, incident: str) -> None:
    assert client.post(f"/api/v1/incidents/{incident}/go-on").status_code == 409


class TestContainmentOnAPersonsWord:
    """`POST .../containment`: the order is the approval."""

    def order(self, client: TestClient, incident: str, **body: str) -> Any:
        return client.post(f"/api/v1/incidents/{incident}/containment", json={"reason": "pumps fail", **body})

    def test_the_plan_stands_approved_by_who_gave_it(self, client: TestClient, incident: str) -> None:
        answer = self.order(client, incident, order="stop_serving")
        assert answer.status_code == 202
        assert (answer.json()["kind"], answer.json()["decision"]) == ("emergency", "approved")
        assert [a["kind"] for a in answer.json()["actions"]] == ["scale"]
        [row] = shown(client, incident)["approvals"]
        assert (row["approver"], row["door"], row["verified"]) == ("the lead", "rest", True)

    def test_a_route_needs_its_version_and_a_registry_that_knows_it(self, client: TestClient, world: World, incident: str) -> None:
        answer = self.order(client, incident, order="route")
        assert answer.status_code == 422
        assert "version" in answer.text
        answer = self.order(client, incident, order="route", version="v1.5.0")
        assert answer.status_code == 503, "a route to a version that nobody knows could be an outage"
        assert "--stop-serving" in answer.text
        with world.transaction() as conn:
            assert plans.standing(conn, incident, PlanKind.EMERGENCY) == []

    def test_nothing_in_force_can_be_taken_back_also_where_the_runtime_does_not_answer(self, client: TestClient, incident: str) -> None:
        assert self.order(client, incident, order="take_back").status_code == 409
        self.order(client, incident, order="stop_serving")
        answer = self.order(client, incident, order="take_back")
        assert (answer.status_code, answer.json()["actions"]) == (202, [])
        orders = shown(client, incident)["orders"]
        assert [o["state"] for o in orders] == ["replaced", "in_force"]

    def test_two_orders_are_both_shown(self, client: TestClient, incident: str) -> None:
        self.order(client, incident, order="halt_work_orders")
        self.order(client, incident, order="stop_serving")
        assert [p["kind"] for p in shown(client, incident)["plans"]] == ["emergency", "emergency"]

    def test_who_may_not_approve_may_not_order_it(self, client: TestClient, keys: Keys, incident: str) -> None:
        body = {"order": "stop_serving", "reason": "x"}
        operator = keys.of("an operator", Scope.READ, Scope.OPERATE)
        assert client.post(f"/api/v1/incidents/{incident}/containment", json=body, headers=operator).status_code == 403

    def test_an_incident_that_is_over_is_not_contained(self, client: TestClient, incident: str) -> None:
        client.post(f"/api/v1/incidents/{incident}/close", json={"reason": "a test"})
        assert self.order(client, incident, order="stop_serving").status_code == 409

    def test_no_close_drops_an_order_that_a_run_is_about_to_carry_out(self, client: TestClient, incident: str) -> None:
        self.order(client, incident, order="stop_serving")
        answer = client.post(f"/api/v1/incidents/{incident}/close", json={"reason": "a test"})
        assert answer.status_code == 409
        assert "ordered and not in force yet" in answer.text
        self.order(client, incident, order="take_back")
        assert client.post(f"/api/v1/incidents/{incident}/close", json={"reason": "a test"}).status_code == 200
