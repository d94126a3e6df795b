"""The law's clocks: how long they run, what starts them, when people are reminded."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlrunbook.domain.communication.regulatory import Clock, Notification, clocks_for, ended, next_reminder, start
from mlrunbook.domain.errors import Invalid
from mlrunbook.domain.incident import Case, ClockName, Severity, Subtype
from mlrunbook.domain.policy.compliance import RegulatoryPolicy

T0 = datetime(2026, 3, 29, 0, 30, tzinfo=UTC)
POLICY = RegulatoryPolicy()
GDPR = start(ClockName.GDPR, Case.PERSONAL_DATA, T0, POLICY, why="data leakage")


def started(*kinds: Subtype, severity: Severity = Severity.HIGH) -> set[str]:
    return {c.name for c in clocks_for(kinds, severity, T0, POLICY, what="it")}


@pytest.mark.parametrize(
    ("name", "case", "span", "law"),
    [
        (ClockName.GDPR, Case.PERSONAL_DATA, timedelta(hours=72), "GDPR Art. 33(1)"),
        (ClockName.AI_ACT, Case.GENERAL, timedelta(days=15), "EU AI Act Art. 73(2)"),
        (ClockName.AI_ACT, Case.CRITICAL_INFRASTRUCTURE, timedelta(days=2), "EU AI Act Art. 73(3)"),
        (ClockName.AI_ACT, Case.WIDESPREAD, timedelta(days=2), "EU AI Act Art. 73(3)"),
        (ClockName.AI_ACT, Case.DEATH, timedelta(days=10), "EU AI Act Art. 73(4)"),
    ],
)
def test_the_deadlines_are_those_of_the_law(name: ClockName, case: Case, span: timedelta, law: str) -> None:
    clock = start(name, case, T0, POLICY, why="")
    assert (clock.deadline - T0, clock.law) == (span, law)


def test_a_case_of_another_law_is_refused() -> None:
    with pytest.raises(Invalid, match="the gdpr clock knows personal_data, not death"):
        start(ClockName.GDPR, Case.DEATH, T0, POLICY, why="")


@pytest.mark.parametrize(
    ("kind", "severity", "clocks"),
    [
        (Subtype.DATA_LEAKAGE, Severity.LOW, {"gdpr", "ai_act"}),
        (Subtype.PRIVACY_BREACH, Severity.LOW, {"gdpr", "ai_act"}),
        (Subtype.REGULATORY_VIOLATION, Severity.LOW, {"ai_act"}),
        (Subtype.UNAUTHORISED_ACCESS, Severity.MEDIUM, set()),
        (Subtype.UNAUTHORISED_ACCESS, Severity.HIGH, {"ai_act"}),
        (Subtype.ADVERSARIAL_ATTACK, Severity.HIGH, {"ai_act"}),
        (Subtype.AUDIT_FAILURE, Severity.CRITICAL, set()),
    ],
)
def test_each_kind_starts_its_clocks(kind: Subtype, severity: Severity, clocks: set[str]) -> None:
    assert started(kind, severity=severity) == clocks


def test_a_kind_that_is_not_known_starts_them_all() -> None:
    assert started(severity=Severity.LOW) == {"gdpr", "ai_act"}


def test_time_left_is_told_as_people_count_it_and_never_as_advice() -> None:
    assert GDPR.sentence(T0 + timedelta(minutes=1)) == (
        "GDPR Art. 33(1): notify the data protection authority by 2026-04-01 00:30 UTC, 2 d 23 h left (not legal advice)"
    )
    assert "5 h 10 min left" in GDPR.sentence(GDPR.deadline - timedelta(hours=5, minutes=10))
    assert "due now" in GDPR.sentence(GDPR.deadline)
    assert "overdue by 1 h 0 min" in GDPR.sentence(GDPR.deadline + timedelta(hours=1))


def test_a_late_notification_is_told_as_late() -> None:
    over = ended(GDPR, Notification("the officer", "case 7", at=GDPR.deadline + timedelta(hours=2)), T0)
    assert "2 h 0 min late by the officer, reference case 7" in over.sentence(T0)


@pytest.mark.parametrize(("reference", "why"), [("", ""), ("case 7", "no personal data")])
def test_a_clock_ends_on_a_reference_or_on_a_reason_and_on_nothing_else(reference: str, why: str) -> None:
    with pytest.raises(Invalid, match="exactly one"):
        ended(GDPR, Notification("the officer", reference, why), T0)


def test_nobody_notifies_before_they_know() -> None:
    with pytest.raises(Invalid, match="before the awareness"):
        ended(GDPR, Notification("the officer", "case 7", at=T0 - timedelta(minutes=1)), T0)


def reminders(clock: Clock, until: timedelta) -> list[float]:
    """Hours since awareness."""
    found, at = [], clock.aware_at
    while (following := next_reminder(clock, at, POLICY)) and following <= clock.aware_at + until:
        found.append((following - clock.aware_at).total_seconds() / 3600)
        at = following
    return found


def test_people_are_reminded_before_the_deadline_at_it_and_every_day_after_it() -> None:
    assert reminders(GDPR, timedelta(hours=130)) == [24, 48, 60, 68, 71, 72, 96, 120]


def test_a_clock_that_a_person_has_ended_reminds_nobody() -> None:
    over = ended(GDPR, Notification("the officer", not_required="no personal data"), T0)
    assert next_reminder(over, T0, POLICY) is None


@given(st.sampled_from([c for c in Case if c is not Case.PERSONAL_DATA]), st.timedeltas(timedelta(0), timedelta(days=60)))
def test_after_any_moment_a_running_clock_has_a_later_reminder_and_none_skips_the_deadline(case: Case, after: timedelta) -> None:
    clock = start(ClockName.AI_ACT, case, T0, POLICY, why="")
    following = next_reminder(clock, T0 + after, POLICY)
    assert following is not None
    assert following > T0 + after
    assert not T0 + after < clock.deadline < following


def test_a_clock_survives_its_record() -> None:
    over = ended(GDPR, Notification("the officer", "case 7"), T0)
    for clock in (GDPR, over):
        body = {key: value.isoformat() if isinstance(value, datetime) else value for key, value in asdict(clock).items()}
        assert Clock.from_record(body) == clock
        assert Clock.from_record(clock.to_record()) == clock
