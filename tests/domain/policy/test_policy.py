"""Policy() says what runbook.md says, and refuses what makes no sense."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from pydantic import ValidationError

from mlrunbook.domain.actions import PlanKind
from mlrunbook.domain.incident import IncidentType, Severity
from mlrunbook.domain.policy.policy import FreezeWindow, Guardrails, Policy, channel_variable
from mlrunbook.domain.roles import Role


@pytest.mark.parametrize(("severity", "minutes"), [("critical", 15), ("high", 60), ("medium", 4 * 60), ("low", 24 * 60)])
def test_response_times_are_those_of_the_severity_table(severity: str, minutes: int) -> None:
    assert Policy().response_min.of(Severity(severity)) == timedelta(minutes=minutes)


def test_the_escalation_matrix_is_the_runbooks() -> None:
    rows = [(role.words, Policy().escalation.of(role)) for role in Role]
    assert [(words, r.email, r.after_min) for words, r in rows] == [
        ("On-Call ML Engineer", "ml-oncall@example.com", 0),
        ("ML Team Lead", "ml-lead@example.com", 30),
        ("Engineering Manager", "eng-manager@example.com", 60),
        ("VP Engineering", "vp-eng@example.com", 120),
        ("Compliance Officer", "compliance@example.com", None),
        ("Security Officer", "security@example.com", None),
    ]
    assert {r.name for _, r in rows} == {"[Name]"}


def test_alert_thresholds_are_those_of_automated_alerts() -> None:
    a = Policy().alerts
    assert (a.f1_drop_warning, a.f1_drop_critical, a.precision_drop_warning, a.recall_drop_warning) == (0.10, 0.20, 0.15, 0.15)
    assert (a.null_rate_warning, a.latency_warning_s, a.error_rate_warning) == (0.05, 2.0, 0.01)


def test_cadence_and_review_deadline_are_the_runbooks() -> None:
    c = Policy().communication
    assert (c.initial_within_min, c.update_every_min, c.review_due_h) == (60, 30, 48)
    assert Policy().recovery.tolerance == 0.05


def test_prediction_error_and_performance_degradation_are_one_family_and_the_others_stand_alone() -> None:
    families = {t: Policy().family_of(t) for t in IncidentType}
    assert families[IncidentType.PREDICTION_ERROR] == families[IncidentType.PERFORMANCE_DEGRADATION]
    assert len(set(families.values())) == len(IncidentType) - 1


def test_the_resolution_is_approved_by_the_lead_or_above_and_never_through_the_form_unless_policy_says_so() -> None:
    for kind in PlanKind:
        assert not Policy().approvals.of(kind).accept_prefect_form
    assert Role.ONCALL_ML_ENGINEER not in Policy().approvals.of(PlanKind.RESOLUTION).roles
    assert Role.ONCALL_ML_ENGINEER in Policy().approvals.of(PlanKind.MITIGATION).roles


def test_a_freeze_window_holds_from_its_start_until_just_before_its_end() -> None:
    start = datetime(2026, 12, 24, tzinfo=UTC)
    window = FreezeWindow(start=start, end=start + timedelta(days=3), reason="year end")
    policy = Policy(guardrails=Guardrails(freeze_windows=(window,)))
    assert policy.freeze_at(start) is window
    assert policy.freeze_at(window.end) is None
    assert Policy().freeze_at(start) is None


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"response_min": {"critical": 90}}, "longer response time"),
        ({"families": {"a": ["security"], "b": ["security"]}}, "in a and in b"),
        ({"families": {"security": ["compliance"]}}, "choose another name"),
        ({"channels": {"page": "pager"}}, "there is no channel"),
        ({"alerts": {"f1_drop_warning": 0.3}}, "must not be below"),
        ({"escalation": {"oncall_ml_engineer": {"email": "a@example.com"}}}, "nobody is paged first"),
        ({"tirage": {}}, "Extra inputs"),
        ({"severity": {"all_flaged": 1}}, "all_flaged"),
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Policy.model_validate(wrong)


def test_a_channels_address_is_looked_up_in_the_environment() -> None:
    assert channel_variable("page-lead") == "MLRUNBOOK_CHANNEL_PAGE_LEAD"
