"""The same pair of messages, a beginning and its end, in the words of many senders; and what is neither."""

from __future__ import annotations

from typing import Any

import pytest

from mlrunbook.domain.policy.intake import IntakePolicy
from mlrunbook.gateway.webhooks import mail
from mlrunbook.gateway.webhooks.parsing import Received
from tests.gateway.conftest import Clock
from tests.gateway.webhooks.test_as_the_sender_meant import CE, Desk, alertmanager, desk, event, pagerduty

__all__ = ["desk"]


def datadog(desk: Desk, **said: str) -> dict[str, Any]:
    shown = {"alert_id": "5", "alert_cycle_key": "c5", "alert_transition": "Triggered", "alert_title": "[Triggered] Recall falls"}
    return shown | {"alert_type": "error", "tags": f"model:{desk.model}"} | said


class TestMail:
    @pytest.mark.parametrize(
        ("begins", "ends"),
        [
            ("** PROBLEM Service Alert: scorer/recall is CRITICAL **", "** RECOVERY Service Alert: scorer/recall is OK **"),
            ("[PROBLEM] recall on scorer is WARNING!", "[RECOVERY] recall on scorer is OK!"),
            ("Problem: recall falls", "Resolved in 1h 5m 0s: recall falls"),
            ("[Monitor Alert] Triggered: recall falls", "[Monitor Alert] Recovered: recall falls"),
            ("Fired:Sev2 recall-rule on workspace", "Resolved:Sev2 recall-rule on workspace"),
            ("Watch: scorer/recall OK -> CRIT", "Watch: scorer/recall CRIT -> OK"),
            ("[Probe (east)] scorer (HTTP) Down (timeout)", "[Probe (east)] scorer (HTTP) Up (200)"),
            ("DOWN alert: scorer (a.example.com) is DOWN", "UP alert: scorer (a.example.com) is UP"),
            ("[CRITICAL] Issue opened: recall falls", "[CRITICAL] Issue closed: recall falls"),
            ("OPEN Problem P-12: recall falls", "RESOLVED Problem P-12: recall falls"),
            ("[Pager] Open: P1: recall falls", "[Pager] Closed: P1: recall falls"),
            ("recall of scorer - Active", "recall of scorer - Recovered"),
            ("[WARNING] recall of scorer", "[CLEAR] recall of scorer"),
            ("Failed: recall check", "Success: recall check"),
        ],
    )
    def test_begins_and_ends_one_alert(self, desk: Desk, begins: str, ends: str) -> None:
        for subject in (begins, ends):
            desk.mail(subject, f"Model: {desk.model}")
        assert (len(desk.incidents), desk.ends) == (1, 1)

    @pytest.mark.parametrize(
        "subject",
        [
            "Start-up alert: recall falls",
            "Back up failed: no copy of the registry",
            "Recovery failed: scorer",
            "Rollout OK -> CRIT",
            "Re: not resolved",
            "Error rate is up 40 %",
            "Error Rate is Up 40 % on the Scorer",
            "Latency (up) on the scorer",
            "Error rate Up (40 %)",
            "The topic is closed: the scorer gets no readings",
            "Follow-up: recall still falls",
            "Back up: the disk is full",
            "It is clear that recall fell",
            "Clear drop: recall of the scorer",
            "Completed with errors: retraining",
            "Partially resolved: recall falls",
        ],
    )
    def test_fires_where_an_end_is_only_spoken_of(self, desk: Desk, subject: str) -> None:
        desk.mail(subject, f"Model: {desk.model}")
        assert desk.only.status == "detected"

    @pytest.mark.parametrize(
        ("subject", "severity"),
        [
            ("** PROBLEM Service Alert: scorer/recall is CRITICAL **", "high"),
            ("[WARNING] recall falls", "medium"),
            ("Fired:Sev1 recall-rule", "high"),
            ("[FIRING:1] recall is low", "medium"),
            ("Latency is high on P4", "medium"),
        ],
    )
    def test_is_as_bad_as_its_subject_surely_says(self, desk: Desk, subject: str, severity: str) -> None:
        desk.mail(subject, f"Model: {desk.model}")
        assert desk.only.severity == severity

    def test_of_two_labels_in_brackets_are_two_alerts(self, desk: Desk) -> None:
        for subject in ("[FIRING:1] recall (east)", "[FIRING:1] recall (west)", "[RESOLVED] recall (east)"):
            desk.mail(subject, f"Model: {desk.model}")
        assert desk.ends == 1

    def test_of_somebody_on_holiday_says_nothing(self) -> None:
        said = {
            "subject": "Automatic reply: [FIRING:1] recall",
            "from": "a@example.com",
            "text": "I am away",
            "auto_submitted": "auto-replied",
        }
        [reading] = mail.read(Received(said, {}, Clock()(), IntakePolicy()))
        assert not reading.alerts
        assert not reading.unusable


class TestAStatus:
    @pytest.mark.parametrize(
        ("begins", "ends"),
        [
            ("Fired", "Resolved"),
            ("MissingData", "ResolvedMissingData"),
            ("CHECK_FAILURE", "CHECK_RECOVERY"),
            ("CHECK_DEGRADED", "CHECK_DEGRADED_RECOVERY"),
            ("Critical", "Closed (was critical)"),
            ("OK -> ALARM", "ALARM -> OK"),
            ("unreachable", "restored"),
        ],
    )
    def test_of_the_end_is_told_from_what_it_ends(self, desk: Desk, begins: str, ends: str) -> None:
        for status in (begins, ends):
            desk.take("generic", {"model": desk.model, "kind": "Recall", "status": status, "dedup_key": "r"})
        assert (len(desk.incidents), desk.ends) == (1, 1)

    @pytest.mark.parametrize(
        ("begins", "ends"),
        [
            ("FAIL", "SUCCESS"),
            ("fail", "pass"),
            ("Errored", "Success"),
            ("CompletedWithViolations", "Completed"),
            ("jobs.on_failure", "jobs.on_success"),
            ("JOB_STATE_FAILED", "JOB_STATE_SUCCEEDED"),
            ("violated", "OK"),
            ("major_outage", "operational"),
            ("Crashed", "Completed"),
            ("INVESTIGATING", "NO_ACTION_NEEDED"),
            ("CRITICAL", "CLEAR"),
            ("in_triage", "cancelled"),
            ("In Progress", "Done"),
        ],
    )
    def test_of_a_job_or_a_ticket_begins_and_ends_one(self, desk: Desk, begins: str, ends: str) -> None:
        for status in (begins, ends):
            desk.take("generic", {"model": desk.model, "kind": "Recall", "status": status, "dedup_key": "r"})
        assert (len(desk.incidents), desk.ends) == (1, 1)

    @pytest.mark.parametrize("status", ["ACKNOWLEDGED", "Acknowledgement", "escalated", "investigating"])
    def test_in_between_goes_on(self, desk: Desk, status: str) -> None:
        for said in ("open", status):
            desk.take("generic", {"model": desk.model, "kind": "Recall", "status": said, "dedup_key": "r"})
        assert (len(desk.incidents), desk.ends) == (1, 0)

    @pytest.mark.parametrize(
        "status",
        ["recovery failed", "unable to say it is closed", "not recovered", "failing until closed", "up_for_retry", "completed with errors"],
    )
    def test_that_denies_the_end_is_none(self, desk: Desk, status: str) -> None:
        for said in ("open", status):
            desk.take("generic", {"model": desk.model, "kind": "Recall", "status": said, "dedup_key": "r"})
        assert desk.ends == 0


@pytest.mark.parametrize("label", ["sloth_severity", "monitor_priority", "Alert-Severity"])
def test_a_label_that_ends_in_severity_or_priority_is_one(desk: Desk, label: str) -> None:
    desk.take("alertmanager", alertmanager({"alertname": "Burn", "model": desk.model, label: "page" if "sev" in label.lower() else "P1"}))
    assert desk.only.severity == "high"


class TestAnUpdate:
    def test_of_the_priority_makes_it_worse(self, desk: Desk) -> None:
        mapped = desk.under(models={"service:Scorer": desk.model})
        mapped.take("pagerduty", pagerduty("incident.triggered", 1, urgency="low"))
        mapped.take("pagerduty", pagerduty("incident.priority_updated", 2, urgency="high", priority={"summary": "P1"}))
        assert any(text.startswith("Reported again") for text in mapped.told)

    def test_of_the_service_names_the_model(self, desk: Desk) -> None:
        mapped = desk.under(models={"service:Scorer": desk.model})
        mapped.take("pagerduty", pagerduty("incident.triggered", 1, service={"id": "X", "summary": "Somebody else's"}))
        mapped.take("pagerduty", pagerduty("incident.service_updated", 2))
        assert desk.only.severity == "high"

    @pytest.mark.parametrize("kind", ["incident.priority_updated", "incident.custom_field_values.updated"])
    def test_after_the_end_begins_nothing(self, desk: Desk, kind: str) -> None:
        fields = {"custom_fields": [{"name": "model", "value": desk.model}]}
        desk.take("pagerduty", pagerduty("incident.triggered", 1, **fields))
        desk.take("pagerduty", pagerduty("incident.resolved", 2, **fields))
        desk.take("pagerduty", pagerduty(kind, 3, incident={"id": "Q1"}, **fields))
        assert (len(desk.incidents), desk.ends) == (1, 1)
        desk.take("pagerduty", pagerduty("incident.reopened", 4, **fields))
        assert any("again" in text.lower() for text in desk.told)

    def test_of_a_closed_opsgenie_alert_begins_nothing(self, desk: Desk) -> None:
        about = {"alertId": "9", "message": "Recall falls", "tags": [f"model:{desk.model}"], "createdAt": 1772442000000}
        for n, action in enumerate(("Create", "Close", "AddTags", "UpdateDetails")):
            desk.take("opsgenie", {"action": action, "alert": about | {"updatedAt": n}})
        assert (len(desk.incidents), desk.ends) == (1, 1)
        assert desk.alert_status == ["resolved"]


class TestAnEvent:
    @pytest.mark.parametrize("findings", [{"is_drift": 0}, {"is_drift": [0, 0]}, {"drift": {"data_drift": False}}, {"violations": 0.0}])
    def test_that_found_nothing_anywhere_opens_nothing(self, desk: Desk, findings: dict[str, Any]) -> None:
        desk.take("cloudevents", event("com.example.drift", data={"p_val": 0.4} | findings, model=desk.model), CE)
        assert desk.incidents == []

    @pytest.mark.parametrize("findings", [{"is_drift": 1}, {"is_drift": [0, 1]}, {"drift": {"data_drift": True, "label_drift": False}}])
    def test_that_found_something_anywhere_opens_one(self, desk: Desk, findings: dict[str, Any]) -> None:
        desk.take("cloudevents", event("com.example.drift", data={"p_val": 0.4} | findings, model=desk.model), CE)
        assert desk.only.status == "detected"

    @pytest.mark.parametrize("type_", ["Example.Registry.ModelDeployed", "Example.Registry.ModelRegistered"])
    def test_whose_type_is_in_one_word_is_a_change(self, desk: Desk, type_: str) -> None:
        before = desk.waiting
        desk.take("cloudevents", event(type_, model=desk.model, version="4"), CE)
        assert (desk.incidents, desk.waiting) == ([], before)

    @pytest.mark.parametrize("type_", ["Example.Jobs.RunCompleted", "Example.Jobs.RunStatusChanged", "example.audit.log.v1.written"])
    def test_of_a_job_or_an_audit_log_is_passed_over(self, desk: Desk, type_: str) -> None:
        before = desk.waiting
        desk.take("cloudevents", event(type_, model=desk.model), CE)
        assert (desk.incidents, desk.waiting) == ([], before)

    @pytest.mark.parametrize("status", ["ACTIVE", "created", "New", "IN_PROGRESS"])
    def test_of_a_thing_that_is_made_is_no_alert_for_its_state(self, desk: Desk, status: str) -> None:
        desk.take("cloudevents", event("com.example.model.created", model=desk.model, status=status), CE)
        assert desk.incidents == []

    def test_of_a_deployment_that_failed_is_an_alert(self, desk: Desk) -> None:
        desk.take("cloudevents", event("com.example.service.deployed", model=desk.model, status="FAILED"), CE)
        assert desk.only.status == "detected"

    def test_may_say_its_state_in_capitals(self, desk: Desk) -> None:
        for n, state in enumerate(("OPEN", "CLOSED")):
            desk.take("cloudevents", event("example.problem", n, State=state, model=desk.model), CE)
        assert (len(desk.incidents), desk.ends) == (1, 1)


def test_an_acknowledgement_without_a_payload_waits_for_nobody(desk: Desk) -> None:
    before, said = desk.waiting, {"summary": "Recall falls", "source": "s", "severity": "critical", "custom_details": {"model": desk.model}}
    for action, payload in (("trigger", said), ("acknowledge", None), ("resolve", None)):
        desk.take("pagerduty", {"event_action": action, "dedup_key": "k"} | ({"payload": payload} if payload else {}))
    assert (len(desk.incidents), desk.ends, desk.waiting) == (1, 1, before)


@pytest.mark.parametrize("key", ["null", "None", "$ALERT_CYCLE_KEY", "undefined", "<no value>"])
def test_a_placeholder_makes_no_two_alerts_one(desk: Desk, key: str) -> None:
    for number in ("1", "2"):
        desk.take("datadog", datadog(desk, alert_id=number, alert_cycle_key=key))
        desk.take("generic", {"model": desk.model, "kind": f"Recall {number}", "dedup_key": key})
    desk.take("datadog", datadog(desk, alert_id="1", alert_cycle_key=key, alert_transition="Recovered"))
    desk.take("generic", {"model": desk.model, "kind": "Recall 2", "dedup_key": key, "status": "resolved"})
    assert sorted(desk.alert_status) == ["firing", "firing", "resolved", "resolved"]


def test_an_alert_that_joins_says_how_it_was_read(desk: Desk) -> None:
    for number, level in (("1", "warning"), ("2", "page")):
        desk.take("alertmanager", alertmanager({"alertname": "ModelF1Drop", "model": desk.model, "severity": level}, fingerprint=number))
    [joined] = [text for text in desk.told if text.startswith("Reported again")]
    assert "'page'" in joined


def test_a_test_of_datadogs_opens_nothing_and_is_kept(desk: Desk) -> None:
    before = desk.waiting
    desk.take("datadog", datadog(desk, alert_title="[TEST] [Triggered] Recall falls"))
    assert (desk.incidents, desk.waiting) == ([], before + 1)
    desk.take("datadog", datadog(desk, alert_title="[Triggered] [TEST] Recall falls"))
    assert desk.only.status == "detected"
