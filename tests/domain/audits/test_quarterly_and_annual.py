"""The quarterly audit and the annual review: documents, records, people, and a year of incidents."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from mlrunbook.domain.audits.annual import annual
from mlrunbook.domain.audits.period import Kind
from mlrunbook.domain.audits.quarterly import TokenSeen, due_audits, model_card, quarterly, token_faults
from mlrunbook.domain.audits.section import Section, Verdict
from mlrunbook.domain.incident import IncidentType, Severity
from mlrunbook.domain.policy.policy import Policy
from tests.domain.audits.audit_worlds import (
    CARD,
    NOW,
    PERIODS,
    WHOLE_CARD,
    annual_facts,
    changes_of,
    clock_of,
    incident,
    quarterly_facts,
    tokens_of_a_team,
    year_of_incidents,
)

PASS, FAIL, UNKNOWN = Verdict.PASS, Verdict.FAIL, Verdict.NOT_ENOUGH_DATA


def of_quarter(past: str = "year", **changes: object) -> dict[str, Section]:
    facts = replace(quarterly_facts(past), **changes)  # type: ignore[arg-type]
    return {s.key: s for s in quarterly(facts, PERIODS[Kind.QUARTERLY], Policy())}


def of_year(past: str = "year", **changes: object) -> dict[str, Section]:
    facts = replace(annual_facts(past), **changes)  # type: ignore[arg-type]
    return {s.key: s for s in annual(facts, PERIODS[Kind.ANNUAL], Policy())}


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        (None, FAIL),
        (WHOLE_CARD, PASS),
        (WHOLE_CARD.replace("## Factors\n\nSaid.", "## Factors\n"), FAIL),
        (WHOLE_CARD.replace("## Factors\n\nSaid.", "## 3. Factors\n\n### Groups\n\nSaid."), PASS),
        ("", FAIL),
    ],
)
def test_a_model_card_says_something_under_every_heading(text: str | None, verdict: Verdict) -> None:
    assert model_card(CARD, text, Policy()).verdict is verdict


def test_what_is_outdated_is_low_and_what_is_not_as_written_is_high() -> None:
    found = of_quarter(broken={"incident_7": "timeline entry 3"})
    severities = {key: found[key].opens.severity for key in ("documents", "model_card", "records", "approvals")}  # type: ignore[union-attr]
    assert severities == {"documents": Severity.LOW, "model_card": Severity.LOW, "records": Severity.HIGH, "approvals": Severity.HIGH}
    assert {s.opens.type for s in found.values() if s.opens and s.key != "performance"} == {IncidentType.COMPLIANCE}


def test_a_deadline_that_was_missed_is_a_violation_even_when_it_was_met_late() -> None:
    clock = clock_of(incident(1, NOW - timedelta(days=30)))
    assert of_quarter(clocks=[("incident_1", clock)])["clocks"].verdict is PASS
    late = replace(clock, ended_at=clock.deadline + timedelta(hours=1))
    assert of_quarter(clocks=[("incident_1", late)])["clocks"].verdict is FAIL
    running = replace(clock, ended_at=None, ended_by=None)
    assert of_quarter(clocks=[("incident_1", running)])["clocks"].verdict is FAIL
    assert of_quarter(clocks=[("incident_1", replace(late, not_required="no personal data"))])["clocks"].verdict is PASS


def test_a_quarter_asks_for_its_thirteen_weeks_and_the_months_that_ended_in_it() -> None:
    due = due_audits(PERIODS[Kind.QUARTERLY])
    assert [p.name for p in due if p.kind is Kind.MONTHLY] == ["2025-10", "2025-11"]
    assert len([p for p in due if p.kind is Kind.WEEKLY]) == 13  # W39 ended before it; W01 of the next year comes later


@pytest.mark.parametrize(
    ("age_days", "unused_days", "scopes", "role", "faults"),
    [
        (300, 10, ("read",), None, 0),
        (366, 10, ("read",), None, 1),
        (100, 91, ("read",), None, 1),
        (91, None, ("read",), None, 1),
        (89, None, ("read",), None, 0),
        (10, 1, ("approve",), None, 1),
        (10, 1, ("approve",), "ml_team_lead", 0),
    ],
)
def test_a_token_is_young_used_and_owned(
    age_days: int, unused_days: int | None, scopes: tuple[str, ...], role: str | None, faults: int
) -> None:
    used = None if unused_days is None else NOW - timedelta(days=unused_days)
    one = TokenSeen("a1", "the lead", role, scopes, NOW - timedelta(days=age_days), used)
    assert len(token_faults(one, NOW, Policy())) == faults


def test_the_first_drill_is_due_a_quarter_after_the_installation() -> None:
    young = [replace(t, created_at=NOW - timedelta(days=10)) for t in tokens_of_a_team()]
    assert of_quarter(drills=(), tokens=young)["drills"].verdict is UNKNOWN
    assert of_quarter(drills=())["drills"].verdict is FAIL
    old = [replace(d, held_at=NOW - timedelta(days=93)) for d in quarterly_facts("year").drills]
    assert of_quarter(drills=old)["drills"].verdict is FAIL


def test_the_annual_review_goes_along_the_functions_of_the_nist_ai_rmf() -> None:
    groups = list(dict.fromkeys(s.group for s in of_year().values()))
    assert groups == ["Govern", "Map", "Measure", "Manage"]


def test_every_kind_of_plan_has_somebody_who_may_approve_it() -> None:
    assert of_year()["roles"].verdict is PASS
    nobody_above = [t for t in tokens_of_a_team() if t.role != "engineering_manager"]
    found = of_year(tokens=nobody_above)["roles"]
    assert (found.verdict, found.sentence) == (FAIL, "too few people can approve: isolation")


def test_times_that_doubled_are_slower_beyond_chance_and_equal_ones_are_not() -> None:
    before, _ = year_of_incidents(2024, 31)
    same, _ = year_of_incidents(2025, 40)
    slower, _ = year_of_incidents(2025, 40, slower=2.5)
    assert of_year(incidents=same, before=before)["times"].verdict is PASS
    assert of_year(incidents=slower, before=before)["times"].verdict is FAIL
    assert of_year(incidents=slower[:4], before=before)["times"].verdict is UNKNOWN


def test_more_grave_incidents_count_only_beyond_chance() -> None:
    at = NOW - timedelta(days=100)
    few, more, many = ([incident(i, at) for i in range(n)] for n in (10, 13, 30))
    assert of_year(incidents=more, before=few)["incidents"].verdict is PASS
    assert of_year(incidents=many, before=few)["incidents"].verdict is FAIL
    assert of_year(incidents=many, before=())["incidents"].verdict is UNKNOWN


def test_a_cause_that_comes_back_within_ninety_days_was_not_mended() -> None:
    first, soon, late = (incident(n, NOW - timedelta(days=d)) for n, d in ((1, 300), (2, 220), (3, 205)))
    causes = {"incident_1": "stale features", "incident_2": "stale features", "incident_3": "data drift"}
    assert of_year(incidents=[first, soon, late], causes=causes)["recurrence"].verdict is FAIL
    assert of_year(incidents=[first, late], causes=causes)["recurrence"].verdict is PASS


def test_a_control_that_works_half_the_time_fails_and_one_of_three_cases_is_not_judged() -> None:
    at = NOW - timedelta(days=100)
    good = [incident(i, at) for i in range(6)]
    bad = [incident(10 + i, at, contained_at=at + timedelta(hours=9)) for i in range(6)]
    assert of_year(incidents=[*good, *bad], changes=(), items=())["controls"].verdict is FAIL
    assert of_year(incidents=good, changes=(), items=())["controls"].verdict is PASS
    assert of_year(incidents=bad[:3], changes=(), items=())["controls"].verdict is UNKNOWN
    chance = of_year(incidents=[*good, bad[0]], changes=(), items=())["controls"]
    assert (chance.verdict, "chance may explain it" in chance.sentence) == (UNKNOWN, True), "6 of 7 is below 90 %, and says little"


def test_causes_that_nobody_established_are_a_risk_nobody_manages() -> None:
    incidents, causes = year_of_incidents(2025, 20)
    assert of_year(incidents=incidents, causes=causes)["risks"].verdict is PASS
    assert of_year(incidents=incidents, causes={}, changes=changes_of(incidents))["risks"].verdict is FAIL
