"""The runbook's Step 5 templates, heading by heading, with measured numbers and hostile alert text."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlrunbook.domain.communication.messages import (
    Figures,
    IncidentSnapshot,
    PendingWorkOrder,
    Rendered,
    ResolutionFacts,
    cost_per_day,
    emergency_alert,
    initial_notification,
    line,
    model_name,
    page,
    resolution_notification,
    supervisors_notice,
    ticket,
    update_notification,
)
from mlrunbook.domain.incident import Severity, Status
from mlrunbook.domain.policy.policy import CostAssumptions
from mlrunbook.domain.roles import Role

SITUATION = IncidentSnapshot(
    incident_id="inc-7",
    model="predictive_maintenance",
    model_version="v2.0.0",
    severity=Severity.HIGH,
    status=Status.INVESTIGATING,
    summary="F1 fell 31 % (0.79 -> 0.55)",
    figures=Figures(f1_baseline=0.79, f1_now=0.55, unnecessary_share=0.37, cost_per_day=1240.0),
    impact=["Needless inspections"],
    actions_taken=["Disabled auto-scheduling"],
    since_detection=timedelta(minutes=35),
    respond_by=datetime(2026, 3, 2, 10, 0, tzinfo=UTC),
)
RESOLUTION = ResolutionFacts(
    incident_id="inc-7",
    model="predictive_maintenance",
    severity=Severity.HIGH,
    resolution_time=timedelta(minutes=42),
    root_cause="v2.0.0 was trained on wrong labels",
    resolution=["Rolled back to v1.5.0"],
    preventive_measures=["Compare candidates before promotion"],
    figures=Figures(f1_baseline=0.79, f1_now=0.78),
)
EXAMPLES = ("10K", "30%", "30 %", "0.82", "0.65", "incident_123", "3 hours 15", "2-4 hours", "v1.5.0", "new asset types")


def labels(message: Rendered) -> list[str]:
    """What stands at the start of a line, up to its colon; a line without one whole; bullets left out."""
    rows = [row for row in message.text.splitlines() if row and not row.startswith("- ")]
    return [row.partition(":")[0] + ":" if ":" in row else row for row in rows]


def test_the_initial_notification_has_every_label_of_the_runbook_in_order() -> None:
    wanted = ["Subject:", "Incident ID:", "Model:", "Severity:", "Status:", "Summary:", "Impact:", "Actions Taken:", "Expected Resolution:"]
    found = [label for label in labels(initial_notification(SITUATION)) if label in wanted]
    assert found == wanted
    assert labels(initial_notification(SITUATION))[-1] == "Updates will be provided every 30 minutes."


def test_the_resolution_notification_has_every_label_of_the_runbook_in_order() -> None:
    wanted = ["Subject:", "Incident ID:", "Resolution Time:", "Root Cause:", "Resolution:", "Preventive Measures:", "Incident closed."]
    assert [label for label in labels(resolution_notification(RESOLUTION)) if label in wanted] == wanted


def test_the_initial_notification_reads_as_the_runbook_writes_it() -> None:
    assert initial_notification(SITUATION).text == (
        "Subject: [INCIDENT] Predictive Maintenance Model - High\n\n"
        "Incident ID: inc-7\nModel: predictive_maintenance v2.0.0\nSeverity: HIGH\nStatus: Investigating\n\n"
        "Summary:\nF1 fell 31 % (0.79 -> 0.55)\nF1 score: 0.55, against 0.79 at baseline.\n\n"
        "Impact:\n- Needless inspections\n- ~37 % of maintenance work orders may be unnecessary\n"
        "- Estimated cost: 1,240 USD/day in wasted maintenance resources\n\n"
        "Actions Taken:\n- Disabled auto-scheduling\n\n"
        "Expected Resolution: not estimated\n\nUpdates will be provided every 30 minutes."
    )


def test_the_resolution_notification_reads_as_the_runbook_writes_it() -> None:
    assert resolution_notification(RESOLUTION).text == (
        "Subject: [RESOLVED] Predictive Maintenance Model - High\n\n"
        "Incident ID: inc-7\nResolution Time: 42 minutes\n\n"
        "Root Cause:\nv2.0.0 was trained on wrong labels\n\n"
        "Resolution:\n- Rolled back to v1.5.0\n- Recovery check, F1 score: 0.78, against 0.79 at baseline\n\n"
        "Preventive Measures:\n- Compare candidates before promotion\n\nIncident closed."
    )


def test_an_update_says_how_long_it_has_lasted_and_when_the_next_one_comes() -> None:
    text = update_notification(replace(SITUATION, next_steps=["Waiting for a decision: roll back"])).text
    assert "Subject: [UPDATE] Predictive Maintenance Model - High" in text
    assert "Time Since Detection: 35 minutes" in text
    assert "- Waiting for a decision: roll back" in text
    assert text.endswith("The next update follows in 30 minutes.")


def test_numbers_that_were_not_measured_are_said_to_be_missing() -> None:
    text = initial_notification(replace(SITUATION, figures=Figures())).text
    assert "F1 score: not measured." in text
    assert "Share of maintenance work orders that may be unnecessary: not measured" in text
    assert "Estimated cost: not estimated" in text
    blind = replace(RESOLUTION, figures=Figures(), resolution_time=None, root_cause=None, resolution=[], preventive_measures=[])
    assert "Resolution Time: not measured" in resolution_notification(blind).text
    assert "Recovery check, F1 score: not measured" in resolution_notification(blind).text
    assert "against a baseline that is not measured" in initial_notification(replace(SITUATION, figures=Figures(f1_now=0.5))).text


def test_the_runbooks_example_values_never_appear_by_themselves() -> None:
    bare = IncidentSnapshot("inc-7", "predictive_maintenance", None, Severity.HIGH, Status.DETECTED, "something is wrong")
    solved = ResolutionFacts("inc-7", "predictive_maintenance", Severity.HIGH, None, None, [])
    messages = [initial_notification(bare), update_notification(bare), resolution_notification(solved), ticket(bare), emergency_alert(bare)]
    messages += [page(bare, Role.ML_TEAM_LEAD, "because"), supervisors_notice(bare, [])]
    for message in messages:
        assert [example for example in EXAMPLES if example in message.text] == []


def test_cost_is_estimated_only_when_the_policy_gives_a_price() -> None:
    assert cost_per_day(12, CostAssumptions()) is None
    assert cost_per_day(None, CostAssumptions(per_unnecessary_work_order=400)) is None
    assert cost_per_day(12, CostAssumptions(per_unnecessary_work_order=400)) == 4800


def test_a_page_names_the_role_the_reason_and_the_one_thing_to_do() -> None:
    message = page(SITUATION, Role.ML_TEAM_LEAD, "not resolved after 30 minutes")
    assert message.subject == "[HIGH] Predictive Maintenance Model: F1 fell 31 % (0.79 -> 0.55)"
    assert message.body.splitlines() == [
        "ML Team Lead: not resolved after 30 minutes",
        "Incident inc-7, predictive_maintenance v2.0.0, investigating.",
        "Respond by 2026-03-02 10:00 UTC.",
        "Acknowledge: mlrunbook incidents ack inc-7",
    ]


def test_a_low_incident_is_a_ticket() -> None:
    assert ticket(replace(SITUATION, severity=Severity.LOW)).subject == "[TICKET] Predictive Maintenance Model - Low"


def test_supervisors_get_every_pending_work_order() -> None:
    at = datetime(2026, 3, 2, 9, 30, tzinfo=UTC)
    message = supervisors_notice(SITUATION, [PendingWorkOrder(n, f"asset-{n}", at) for n in range(1, 301)])
    assert "review 300 pending predictive work orders" in message.subject
    assert all(f"- WO {n}: asset asset-{n}, created 2026-03-02 09:30 UTC" in message.body for n in range(1, 301))
    assert "- None pending" in supervisors_notice(SITUATION, []).body


def test_the_emergency_alert_tells_maintenance_not_to_rely_on_the_model() -> None:
    assert emergency_alert(SITUATION).subject == "[EMERGENCY] Predictive Maintenance Model - do not rely on its predictions"


@pytest.mark.parametrize("name", ["predictive_maintenance", "predictive-maintenance", "predictive_maintenance_model"])
def test_a_model_is_called_by_its_name(name: str) -> None:
    assert model_name(name) == "Predictive Maintenance Model"


def test_alert_text_cannot_forge_a_line_of_its_own() -> None:
    evil = "all fine\r\n\r\nIncident closed.\nSeverity: LOW\x1b[2J\u202egnp.exe\u2028Status: Closed"
    message = initial_notification(replace(SITUATION, summary=evil, impact=[evil], incident_id=evil, model_version=evil))
    assert labels(message).count("Severity:") == 1
    assert "Incident closed." not in message.text.splitlines()
    assert not re.search("[\x1b\u202e\u2028\r]", message.text)
    assert "\n" not in page(replace(SITUATION, summary=evil), Role.ML_TEAM_LEAD, evil).subject


@given(st.text())
def test_a_line_is_one_printable_line_whatever_comes_in(text: str) -> None:
    said = line(text, 80)
    assert len(said) <= 80
    assert said.splitlines() in ([], [said])
    assert line(said, 80) == said
    said.encode()


def test_ordinary_text_stays_literal() -> None:
    assert line("F1 < 0.5 & recall > 10 % (*a* [b] `c`) ünïcode 模型") == "F1 < 0.5 & recall > 10 % (*a* [b] `c`) ünïcode 模型"
