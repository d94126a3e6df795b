"""A critical asset failed after a low score: critical from the first alert on, also where an incident is open already."""

from __future__ import annotations

from datetime import datetime

from mlrunbook.domain.detection.alerts import NormalisedAlert
from mlrunbook.domain.incident import IncidentType, Severity, Status
from mlrunbook.response.lifecycle.alert_intake import AlertBatch, take_in_alerts
from mlrunbook.response.world import World
from tests.fakes import MODEL, Clock, FileWorld, LedgerNotifier, LedgerOrchestrator
from tests.response.carrying import carry
from tests.response.people import deliver, incident_of, recorded, report, resolve

ORDERS = [{"id": n, "asset": f"asset_{n}", "flagged": False} for n in (1, 2)]


def missed(world: World, starts_at: datetime) -> str:
    """The platform's alert, as the gateway takes it in."""
    summary = "critical failure missed: press_1 (type H) failed 3 h after prediction 7 scored it 0.04, under the threshold 0.5"
    labels = {"alertname": "CriticalFailureMissed", "severity": "critical", "model": MODEL}
    body = {"labels": labels, "annotations": {"summary": summary}}
    alert = NormalisedAlert("f1", True, "CriticalFailureMissed", MODEL, "v1.5.0", "critical", None, summary, starts_at, body)
    with world.transaction() as conn:
        return take_in_alerts(conn, world.policy, AlertBatch("alertmanager", [alert]), now=world.now())[0]


def test_a_missed_critical_failure_is_paged_at_once_contained_as_a_safety_risk_and_left_to_people(
    world: World, file_world: FileWorld, clock: Clock, notifier: LedgerNotifier
) -> None:
    file_world.set(bad_versions={}, serving="v1.5.0", work_orders=ORDERS)
    incident_id = missed(world, clock.at)
    deliver(world)
    assert {m.body.split(":")[0] for m in notifier.pages()} == {"On-Call ML Engineer", "ML Team Lead", "Engineering Manager"}
    assert carry(world, incident_id, "run-1") == "waiting for a human"
    incident = incident_of(world, incident_id)
    assert (incident.severity, incident.type) == (Severity.CRITICAL, IncidentType.PREDICTION_ERROR)
    assert recorded(world, incident_id, "triage")["summary"].startswith("critical failure missed: press_1")
    assert file_world.state["config"]["auto_work_orders"] is False
    assert all(w["flagged"] for w in file_world.state["work_orders"])
    assert not {"rollback", "promote", "scale:0"} & set(file_world.applied), "one missed failure is no bad model"
    assert recorded(world, incident_id, "diagnosis")["cause"] == "unknown"
    deliver(world)
    assert {m.channel for m in notifier.sent} >= {"supervisors", "maintenance"}
    assert any("look at the asset, its readings before the failure" in m.body for m in notifier.pages())
    resolve(world, incident_id, "press_1 has its sensor back")
    clock.advance(minutes=2)
    assert carry(world, incident_id, "run-2") == "closed"
    assert file_world.state["config"]["auto_work_orders"] is True


def test_one_that_is_missed_while_an_incident_is_open_makes_it_critical_and_contains_it_anew(
    world: World, file_world: FileWorld, clock: Clock, notifier: LedgerNotifier, orchestrator: LedgerOrchestrator
) -> None:
    file_world.set(bad_versions={"v2.0.0": "worse"}, work_orders=ORDERS)
    incident_id = report(world)
    deliver(world)
    assert carry(world, incident_id, "run-1") == "pending"
    assert incident_of(world, incident_id).severity is Severity.MEDIUM
    assert file_world.applied == {}
    orchestrator.suspended.add("run-1")
    clock.advance(minutes=1)
    assert missed(world, clock.at) == incident_id
    deliver(world)
    assert orchestrator.resumed == ["run-1"], "the run that waits for an approval is woken"
    assert carry(world, incident_id, "run-1") == "pending"
    incident = incident_of(world, incident_id)
    assert (incident.severity, incident.status) == (Severity.CRITICAL, Status.CONTAINED)
    assert file_world.state["config"]["auto_work_orders"] is False
    deliver(world)
    assert "Engineering Manager" in {m.body.split(":")[0] for m in notifier.pages()}
    assert {m.channel for m in notifier.sent} >= {"supervisors", "maintenance"}
