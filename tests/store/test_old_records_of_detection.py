"""Rows as earlier versions wrote them are read as what they say."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import Connection

from mlrunbook.domain.communication.escalation import AuditNote, Holder
from mlrunbook.domain.communication.messages import Figures
from mlrunbook.domain.detection.flapping import AutomationResumed, Ending, Flapping, Reopened
from mlrunbook.domain.detection.lifecycle import OpenedBy, Recognised, Shown, Stopped, UnknownModel
from mlrunbook.domain.detection.reports import FirstReport, PersonsReport, StatedSubtype
from mlrunbook.domain.detection.severity import Assessment
from mlrunbook.domain.detection.severity_change import GradedAgain, SeverityDoubted, SeveritySet
from mlrunbook.domain.detection.triage import Affected, Triage
from mlrunbook.domain.evaluation.performance import Confusion
from mlrunbook.domain.incident import IncidentType, Severity
from mlrunbook.domain.records import Recorded
from tests.store.old_records import check_read

AT = datetime(2026, 3, 29, 0, 30, 7, 250000, tzinfo=UTC)
CLOSED = datetime(2026, 3, 29, 0, 10, tzinfo=UTC)
HEALTHY = {"tp": 82, "fp": 18, "fn": 18, "tn": 882}
TRIAGE_ROW: dict[str, Any] = {
    "real": True,
    "severity": "high",
    "type": "performance_degradation",
    "summary": "F1 fell 40 % (0.82 -> 0.49): high, over 20 %",
    "assessment": {
        "real": True,
        "severity": "high",
        "type": "performance_degradation",
        "reasons": ["F1 fell 40 % (0.82 -> 0.49): high, over 20 %"],
        "dangerous": False,
        "safety_risk": False,
        "excessive_false_positives": True,
        "insufficient": False,
        "may_be_worse": False,
    },
    "baseline": HEALTHY,
    "baseline_by_type": {"pump": {"tp": 8, "fp": 2, "fn": 2, "tn": 88}},
    "figures": {
        "f1_baseline": 0.82,
        "f1_now": 0.49,
        "unnecessary_share": 0.5,
        "cost_per_day": None,
        "currency": "USD",
        "predictions": 1000,
        "labelled": 900,
        "label_delay_s": 60.0,
    },
    "affected": {"model": "predictive_maintenance", "version": "v2.0.0", "asset_types": ["pump"], "pending_work_orders": 3},
}
TRIAGE = Triage(
    real=True,
    severity=Severity.HIGH,
    type=IncidentType.PERFORMANCE_DEGRADATION,
    summary="F1 fell 40 % (0.82 -> 0.49): high, over 20 %",
    assessment=Assessment(
        True,
        Severity.HIGH,
        IncidentType.PERFORMANCE_DEGRADATION,
        ("F1 fell 40 % (0.82 -> 0.49): high, over 20 %",),
        excessive_false_positives=True,
    ),
    baseline=Confusion(**HEALTHY),
    baseline_by_type={"pump": Confusion(8, 2, 2, 88)},
    figures=Figures(0.82, 0.49, 0.5, None, "USD", 1000, 900, 60.0),
    affected=Affected("predictive_maintenance", "v2.0.0", ("pump",), 3),
)
UNMEASURED_ROW = TRIAGE_ROW | {
    "baseline": None,
    "baseline_by_type": {},
    "figures": dict.fromkeys(TRIAGE_ROW["figures"]) | {"currency": "EUR"},
    "affected": {"model": "m", "version": None, "asset_types": [], "pending_work_orders": None},
}
UNMEASURED = replace(TRIAGE, affected=Affected("m"), baseline=None, baseline_by_type={}, figures=Figures(currency="EUR"))
REOPENED_ROW = {
    "number": 2,
    "at": str(AT),
    "since": "2026-03-29 00:10:00+00:00",
    "why": "F1 fell",
    "baseline": HEALTHY,
    "measured": False,
    "before": {"resolved_at": "2026-03-29T00:09:00+00:00", "closed_at": "2026-03-29T00:10:00+00:00", "review_due_at": None},
    "triage": TRIAGE_ROW,
}
ENDING = Ending(datetime(2026, 3, 29, 0, 9, tzinfo=UTC), CLOSED, None)

# The kind, the row as 0.1.0 or a later version before this one wrote it, and what must be read.
SAMPLES: list[tuple[type[Recorded], dict[str, Any], Recorded]] = [
    (FirstReport, {"by_alert": True, "severity": "high", "type": "security"}, FirstReport(True, Severity.HIGH, IncidentType.SECURITY)),
    (Triage, TRIAGE_ROW, TRIAGE),
    (
        Triage,
        UNMEASURED_ROW,
        UNMEASURED,
    ),
    (GradedAgain, {"rose": False}, GradedAgain(False)),
    (SeverityDoubted, {"severity": "critical", "at": str(AT)}, SeverityDoubted(Severity.CRITICAL, AT)),
    (
        SeveritySet,
        {
            "number": 1,
            "at": AT.isoformat(),
            "from": "high",
            "to": "medium",
            "by": "the lead",
            "why": "the lead lowers it from high to medium: a test fleet",
            "by_person": True,
        },
        SeveritySet(
            1, AT, Severity.HIGH, Severity.MEDIUM, "the lead", "the lead lowers it from high to medium: a test fleet", by_person=True
        ),
    ),
    (StatedSubtype, {"by": "Security", "at": str(AT)}, StatedSubtype("Security", AT)),
    (
        UnknownModel,
        {"at": str(AT), "why": "neither the registry nor policy knows pump.", "by": "alertmanager"},
        UnknownModel(AT, "neither the registry nor policy knows pump.", "alertmanager"),
    ),
    (Recognised, {"number": 1, "at": str(AT)}, Recognised(1, AT)),
    (
        PersonsReport,
        {"by": "a user", "description": "trains stand still", "severity": "critical", "type": "prediction_error", "at": str(AT)},
        PersonsReport("a user", "trains stand still", Severity.CRITICAL, IncidentType.PREDICTION_ERROR, AT),
    ),
    (
        Holder,
        {"to": "Security", "by": "the lead", "note": "", "at": AT.isoformat()},
        Holder("Security", "the lead", "", AT),
    ),
    (AuditNote, {"at": str(AT)}, AuditNote(AT)),
    (OpenedBy, {"new": True}, OpenedBy(True)),
    (Stopped, {"reason": "no safe way on"}, Stopped("no safe way on")),
    (Shown, {"at": str(AT)}, Shown(AT)),
    (
        Reopened,
        {"number": 1, "at": str(AT), "since": str(CLOSED), "why": "outcomes that came later disagree", "baseline": None},
        Reopened(1, AT, CLOSED, "outcomes that came later disagree"),
    ),
    (Reopened, REOPENED_ROW, Reopened(2, AT, CLOSED, "F1 fell", Confusion(**HEALTHY), measured=False, before=ENDING, triage=TRIAGE)),
    (
        Reopened,
        REOPENED_ROW | {"triage": {}, "baseline": None},
        Reopened(2, AT, CLOSED, "F1 fell", measured=False, before=ENDING),
    ),
    (Flapping, {"at": AT.isoformat(), "why": "opened 4 times", "quiet_at": AT.isoformat()}, Flapping(AT, "opened 4 times", AT)),
    (AutomationResumed, {"by": "the lead", "at": AT.isoformat(), "note": "go"}, AutomationResumed("the lead", AT, "go")),
]


@pytest.mark.parametrize(("kind", "row", "meant"), SAMPLES, ids=lambda one: one.__name__ if isinstance(one, type) else "")
def test_a_row_of_an_earlier_version_is_read_as_what_it_says(
    conn: Connection, incident_id: str, kind: type[Recorded], row: dict[str, Any], meant: Recorded
) -> None:
    check_read(conn, incident_id, kind, row, meant)


@pytest.mark.parametrize(("row", "meant"), [(TRIAGE_ROW, TRIAGE), (UNMEASURED_ROW, UNMEASURED)])
def test_what_the_gateway_shows_of_triage_is_what_it_always_showed(row: dict[str, Any], meant: Triage) -> None:
    assessment = row["assessment"] | {"unproven": False, "undecided_until": None}
    # And what it rests on, where somebody was not believed; a model without work orders is newer than these rows.
    assert meant.to_record() == row | {"backed": None, "assessment": assessment, "has_work_orders": True}


@pytest.mark.parametrize("at", [AT, CLOSED])
def test_what_a_plan_says_of_a_reopening_or_a_rise_is_the_same_to_the_letter_after_an_upgrade(at: datetime) -> None:
    """It is part of the plan's digest, which an approval names."""
    again = Reopened.from_record({"number": 1, "at": str(at), "since": str(at), "why": "", "baseline": None})
    assert str(again.at) == str(Reopened.from_record(again.to_record()).at) == str(at)
    worse = SeveritySet.from_record(
        {"number": 1, "at": at.isoformat(), "from": "high", "to": "critical", "by": "", "why": "", "by_person": False}
    )
    assert worse.at.isoformat() == SeveritySet.from_record(worse.to_record()).at.isoformat() == at.isoformat()
