"""Breaches over HTTP: the kind, the clocks of the law, evidence that is checked, and closing what stays isolated."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import text

from mlrunbook.base.tokens import Scope
from mlrunbook.domain.actions import Isolate, Plan, PlanKind
from mlrunbook.domain.approval import Decision
from mlrunbook.domain.communication.regulatory import start
from mlrunbook.domain.containment.evidence import MANIFEST, Bundle, File, manifest
from mlrunbook.domain.incident import Case, ClockName
from mlrunbook.response.communication import regulatory_clocks
from mlrunbook.response.world import World
from mlrunbook.store import evidence, incidents, journal, outbox, plans, timeline
from tests.gateway.api.test_incidents import measured, opened, report, say
from tests.gateway.conftest import Keys

LEAK = {"type": "security", "subtype": "data_leakage"}


@pytest.fixture
def leak(client: TestClient, world: World, model: str) -> str:
    """A reported leak whose GDPR clock runs."""
    incident_id = opened(client, model, **LEAK)
    with world.transaction() as conn:
        incident = incidents.get(conn, incident_id, lock=True)
        clock = start(ClockName.GDPR, Case.PERSONAL_DATA, incident.detected_at, world.policy.regulatory, why="a leak")
        regulatory_clocks.begin(conn, world.policy, incident, clock, by="mlrunbook", now=world.now())
    return incident_id


def clocks(client: TestClient, incident_id: str) -> dict[str, dict[str, Any]]:
    return {c["clock"]: c for c in client.get(f"/api/v1/incidents/{incident_id}").json()["clocks"]}


def isolated(world: World, incident_id: str, model: str) -> str:
    plan = Plan(incident_id, PlanKind.CONTAINMENT, model, (Isolate(model, True),), ("a leak",), rule="containment.security.isolate")
    with world.transaction() as conn:
        digest = plans.propose(conn, plan, now=world.now())
        yes = plans.decide(conn, incident_id, digest, Decision("approved", str(plan.rule), None, "policy_rule"), now=world.now())
        row = journal.intend(conn, journal.Intent(plan, 0, yes.id, 1, {"isolated": False}), now=world.now())
        journal.mark(conn, row, "done", done_at=world.now())
    return row.id


def test_the_kind_of_a_breach_is_reported_and_shown(client: TestClient, leak: str) -> None:
    assert client.get(f"/api/v1/incidents/{leak}").json()["subtypes"] == ["data_leakage"]


def test_a_kind_of_another_type_is_422_naming_the_field(client: TestClient, model: str) -> None:
    answer = report(client, model, type="security", subtype="audit_failure")
    assert (answer.status_code, answer.json()["field"]) == (422, "subtype")


def test_another_report_that_names_a_kind_wakes_the_run(client: TestClient, world: World, leak: str, model: str) -> None:
    assert report(client, model, type="security", subtype="unauthorised_access").json()["id"] == leak
    assert client.get(f"/api/v1/incidents/{leak}").json()["subtypes"] == ["data_leakage", "unauthorised_access"]


def test_a_clock_is_shown_with_the_time_left_until_a_person_records_the_notification(client: TestClient, world: World, leak: str) -> None:
    running = clocks(client, leak)["gdpr"]
    assert (running["law"], running["endedAt"]) == ("GDPR Art. 33(1)", None)
    assert 0 < running["secondsLeft"] <= 72 * 3600
    ended = say(client, leak, "clocks/gdpr/notification", {"reference": "case 4711"})
    assert ended.status_code == 200
    over = clocks(client, leak)["gdpr"]
    assert (over["secondsLeft"], over["endedBy"], over["reference"]) == (None, "the lead (ML Team Lead)", "case 4711")
    with world.transaction() as conn:
        assert all(r["cancelled_at"] for r in outbox.of_incident(conn, leak, regulatory_clocks.TIMER))


@pytest.mark.parametrize("body", [{}, {"reference": "case 7", "notRequired": "no personal data"}])
def test_neither_a_reference_nor_a_reason_ends_no_clock_and_both_do_not_either(client: TestClient, leak: str, body: dict[str, str]) -> None:
    refused = say(client, leak, "clocks/gdpr/notification", body)
    assert (refused.status_code, refused.json()["field"]) == (422, "reference")


def test_a_clock_that_does_not_run_is_404_and_tells_how_to_start_it(client: TestClient, leak: str) -> None:
    missing = say(client, leak, "clocks/ai_act/notification", {"reference": "case 7"})
    assert missing.status_code == 404
    assert f"mlrunbook incidents clock {leak} --clock ai_act" in missing.json()["detail"]


def test_a_person_starts_a_clock_by_saying_what_the_incident_is_to_the_law(client: TestClient, leak: str) -> None:
    made = say(client, leak, "clocks/ai_act", {"case": "critical_infrastructure"})
    assert (made.status_code, made.json()["law"]) == (200, "EU AI Act Art. 73(3)")
    wrong = say(client, leak, "clocks/gdpr", {"case": "death"})
    assert (wrong.status_code, wrong.json()["field"]) == (422, "case")
    assert list(clocks(client, leak)) == ["ai_act", "gdpr"], "the nearest deadline first"


def test_clocks_outlive_the_closing_and_are_still_ended_then(client: TestClient, world: World, leak: str) -> None:
    assert say(client, leak, "close", {"reason": "a drill"}).status_code == 200
    with world.transaction() as conn:
        assert any(r["cancelled_at"] is None for r in outbox.of_incident(conn, leak, regulatory_clocks.TIMER))
    assert say(client, leak, "clocks/gdpr/notification", {"notRequired": "a drill"}).status_code == 200


def test_a_reader_may_not_touch_a_clock(client: TestClient, leak: str, keys: Keys) -> None:
    for path in ("clocks/gdpr", "clocks/gdpr/notification"):
        assert say(client, leak, path, {}, headers=keys.of("a reader", Scope.READ)).status_code == 403


def test_what_stays_isolated_is_closed_by_who_may_decide_and_for_a_reason_that_is_kept(
    client: TestClient, world: World, leak: str, model: str, keys: Keys
) -> None:
    row = isolated(world, leak, model)
    measured(world, leak)
    assert "may close it with a reason and leave it so" in say(client, leak, "close", {"reason": "over"}).json()["detail"]
    officer = keys.of("Security", Scope.OPERATE, role="security_officer")
    assert say(client, leak, "close", {}, headers=officer).json()["field"] == "reason"
    closed = say(client, leak, "close", {"reason": "handed over, case 77"}, headers=officer)
    assert closed.json()["status"] == "closed"
    actions = client.get(f"/api/v1/incidents/{leak}").json()["actions"]
    assert [(a["id"], a["keptBecause"]) for a in actions] == [(row, "handed over by Security: handed over, case 77")]


def test_evidence_in_folders_is_served_and_verify_tells_what_was_changed(client: TestClient, world: World, leak: str) -> None:
    bundle = Bundle((File("runtime/logs/model-server.log", b"INFO started\n", "text/plain"),))
    listed = manifest(leak, bundle, taken_at=world.now())
    with world.transaction() as conn:
        incidents.get(conn, leak, lock=True)
        for file in (*bundle.files, File(MANIFEST, listed, "application/json")):
            evidence.preserve(conn, leak, file.name, file.content, file.media_type, now=world.now())
        data = {"manifest": hashlib.sha256(listed).hexdigest()}
        timeline.append(conn, leak, "evidence", "Evidence preserved", actor="mlrunbook", at=world.now(), data=data)
    served = client.get(f"/api/v1/incidents/{leak}/evidence/runtime/logs/model-server.log")
    assert (served.status_code, served.content) == (200, b"INFO started\n")
    assert client.get(f"/api/v1/incidents/{leak}/verify").json()["evidenceFaults"] == []
    with world.transaction() as conn:
        conn.execute(text("UPDATE evidence SET content = 'x' WHERE incident_id = :i AND name LIKE 'runtime/%'"), {"i": leak})
    found = client.get(f"/api/v1/incidents/{leak}/verify").json()
    assert (found["intact"], found["evidenceFaults"]) == (False, ["runtime/logs/model-server.log was changed"])
