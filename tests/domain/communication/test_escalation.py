from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from mlrunbook.domain.communication.escalation import ladder
from mlrunbook.domain.incident import Severity
from mlrunbook.domain.policy.people import Escalation, Responder
from mlrunbook.domain.policy.policy import Policy
from mlrunbook.domain.roles import Role

OPENED = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)


def minutes(severity: Severity, policy: Policy | None = None) -> dict[Role, float]:
    return {rung.role: (rung.at - OPENED).total_seconds() / 60 for rung in ladder(severity, OPENED, policy or Policy())}


def test_medium_climbs_by_time_alone() -> None:
    assert minutes(Severity.MEDIUM) == {
        Role.ONCALL_ML_ENGINEER: 0,
        Role.ML_TEAM_LEAD: 30,
        Role.ENGINEERING_MANAGER: 60,
        Role.VP_ENGINEERING: 120,
    }


def test_high_pages_the_lead_at_once() -> None:
    assert minutes(Severity.HIGH)[Role.ML_TEAM_LEAD] == 0
    assert minutes(Severity.HIGH)[Role.ENGINEERING_MANAGER] == 60


def test_critical_pages_the_manager_at_once_and_the_vp_after_two_hours() -> None:
    assert minutes(Severity.CRITICAL)[Role.ENGINEERING_MANAGER] == 0
    assert minutes(Severity.CRITICAL)[Role.VP_ENGINEERING] == 120


def test_low_pages_nobody() -> None:
    assert ladder(Severity.LOW, OPENED, Policy()) == []


def test_the_compliance_officer_is_paged_only_as_needed() -> None:
    assert all(Role.COMPLIANCE_OFFICER not in minutes(severity) for severity in Severity)


def test_each_rung_says_why() -> None:
    reasons = [rung.reason for rung in ladder(Severity.HIGH, OPENED, Policy())]
    assert reasons == [
        "the On-Call ML Engineer is paged at once",
        "severity is high: the ML Team Lead is paged at once",
        "not resolved after 1 hour: the Engineering Manager is paged",
        "not resolved after 2 hours: the VP Engineering is paged",
    ]


responders = st.builds(
    Responder,
    email=st.just("a@example.com"),
    after_min=st.none() | st.integers(0, 600),
    at_once_from=st.none() | st.sampled_from(Severity),
)


@given(responders, responders, st.sampled_from(Severity), st.sampled_from(Severity))
def test_raising_the_severity_never_makes_a_rung_later(lead: Responder, manager: Responder, one: Severity, other: Severity) -> None:
    policy = Policy(escalation=Escalation(ml_team_lead=lead, engineering_manager=manager))
    milder, worse = sorted((one, other), key=lambda s: s.rank)
    before, after = minutes(milder, policy), minutes(worse, policy)
    assert all(after[role] <= at for role, at in before.items())
    assert list(after.values()) == sorted(after.values())
