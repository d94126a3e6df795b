"""The weekly review and the monthly assessment: what breaks a limit is found, and what cannot be judged is said to be so."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlrunbook.domain.audits.monthly import MonthlyFacts, monthly
from mlrunbook.domain.audits.period import Kind, complete, up_to
from mlrunbook.domain.audits.section import Audit, Lines, Section, Verdict, difference
from mlrunbook.domain.audits.weekly import FiringAlert, weekly
from mlrunbook.domain.evaluation.performance import Confusion
from mlrunbook.domain.incident import IncidentType, Severity, Status
from mlrunbook.domain.observed import Missing
from mlrunbook.domain.policy.policy import Policy
from tests.domain.audits.audit_worlds import MODEL, NOW, PERIODS, counts, incident, monthly_facts, sections, weekly_facts

PASS, FAIL, UNKNOWN = Verdict.PASS, Verdict.FAIL, Verdict.NOT_ENOUGH_DATA


def by_key(found: tuple[Section, ...]) -> dict[str, Section]:
    return {s.key: s for s in found}


def of_week(**changes: object) -> dict[str, Section]:
    return by_key(weekly(replace(weekly_facts("year"), **changes), Policy()))  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.parametrize("past", ["nothing", "day", "year"])
def test_every_section_has_a_verdict_a_sentence_and_a_key_of_its_own(kind: Kind, past: str) -> None:
    found = sections(kind, past)
    assert len({s.key for s in found}) == len(found)
    assert all(s.sentence and not s.sentence.endswith(".") for s in found)
    assert all(s.opens is None or s.verdict is not FAIL or s.opens.severity for s in found)


@pytest.mark.parametrize("kind", [Kind.WEEKLY, Kind.MONTHLY])
def test_without_history_nothing_fails_and_the_audit_does_not_pass_either(kind: Kind) -> None:
    audit = Audit(MODEL, PERIODS[kind], NOW, sections(kind, "nothing"))
    assert not [s for s in audit.sections if s.verdict is FAIL]
    assert audit.verdict is UNKNOWN


def test_a_bad_week_is_found_in_f1_in_a_segment_and_in_the_inputs() -> None:
    found = of_week()
    assert {key for key in ("performance", "segments", "drift") if found[key].verdict is FAIL} == {"performance", "segments", "drift"}
    assert found["segments"].sentence.startswith("affected: M")
    assert found["performance"].opens is not None
    assert found["performance"].opens.type is IncidentType.PERFORMANCE_DEGRADATION


def test_what_the_platform_does_not_tell_is_not_judged() -> None:
    found = of_week(metrics=Missing("no such endpoint"), history=Missing("none is kept"), alerts=Missing("none"))
    assert {found[key].verdict for key in ("performance", "latency", "errors", "nulls", "risk_levels", "segments", "alerts")} == {UNKNOWN}
    assert found["performance"].sentence == "no such endpoint"


@pytest.mark.parametrize(("hours", "verdict"), [(23, PASS), (25, FAIL)])
def test_an_alert_that_fires_for_more_than_a_day_is_overdue(hours: int, verdict: Verdict) -> None:
    assert of_week(alerts=[FiringAlert("FeatureDrift", "warning", NOW - timedelta(hours=hours), "")])["alerts"].verdict is verdict


def test_an_incident_that_nobody_answered_in_time_fails_the_week_and_one_that_ended_before_does_not() -> None:
    at = NOW - timedelta(days=3)
    answered_late = incident(1, at, acknowledged_at=at + timedelta(hours=2))
    ended_by_itself = incident(2, at, acknowledged_at=None, resolved_at=at + timedelta(minutes=20), closed_at=at + timedelta(minutes=20))
    nobody = incident(3, at, acknowledged_at=None, contained_at=None, resolved_at=None, closed_at=None, status=Status.INVESTIGATING)
    assert of_week(incidents=[ended_by_itself])["incidents"].verdict is PASS
    found = of_week(incidents=[answered_late, ended_by_itself, nobody])["incidents"]
    assert found.verdict is FAIL
    assert found.sentence.endswith("not answered within the response time: incident_1, incident_3")


@pytest.mark.parametrize(
    ("now", "verdict"),
    [
        (Confusion(tp=560, fp=440), FAIL),  # precision .56 against .80
        (Confusion(tp=770, fp=230), PASS),  # 3 points lower
        (Confusion(tp=74, fp=26), UNKNOWN),  # 6 points lower, on a hundred: chance may do that
    ],
)
def test_a_risk_level_whose_accuracy_fell_is_found_beyond_chance_alone(now: Confusion, verdict: Verdict) -> None:
    metrics = weekly_facts("year").metrics
    assert not isinstance(metrics, Missing)
    before = replace(metrics.baseline, by_risk_level={"high": Confusion(tp=800, fp=200)})
    found = of_week(metrics=replace(metrics, baseline=before, current=replace(metrics.current, by_risk_level={"high": now})))
    assert found["risk_levels"].verdict is verdict


def test_a_day_with_next_to_no_failure_is_not_drawn_as_a_fall() -> None:
    days = weekly_facts("year").history
    assert not isinstance(days, Missing)
    quiet = replace(days[3], confusion=Confusion(fn=2, tn=300))
    lines = of_week(history=[*days[:3], quiet, *days[4:]])["performance"].charts[0]
    assert isinstance(lines, Lines)
    assert [value is None for value in lines.series["recall"]] == [i == 3 for i in range(28)]


def test_a_rate_at_its_limit_is_within_it_and_too_few_requests_say_nothing() -> None:
    facts = weekly_facts("year")
    assert not isinstance(facts.metrics, Missing)

    def with_window(**changes: object) -> dict[str, Section]:
        metrics = facts.metrics
        assert not isinstance(metrics, Missing)
        return of_week(metrics=replace(metrics, current=replace(metrics.current, **changes)))  # type: ignore[arg-type]

    assert with_window(latency_p95_ms=2000.0)["latency"].verdict is PASS
    assert with_window(latency_p95_ms=2001.0)["latency"].verdict is FAIL
    assert with_window(latency_p95_ms=9000.0, predictions=150)["latency"].verdict is UNKNOWN
    assert with_window(predictions=0, errors={"scoring": 500}, error_rate=1.0)["errors"].verdict is FAIL, (
        "no prediction at all is no silence"
    )


def test_the_monthly_assessment_finds_the_type_that_is_served_worse_and_the_one_nobody_trained_on() -> None:
    found = by_key(monthly(monthly_facts("year"), Policy()))
    assert {key for key, s in found.items() if s.verdict is FAIL} == {"fairness", "change", "recall", "coverage"}
    assert all(s.opens and s.opens.type is IncidentType.BIAS_FAIRNESS for s in found.values() if s.verdict is FAIL)
    assert "X" in found["coverage"].sentence


def test_a_group_with_few_failures_is_named_and_never_judged() -> None:
    few, many = Confusion(tp=1, fn=20, tn=400), Confusion(tp=400, fp=80, fn=100, tn=9000)
    found = by_key(monthly(MonthlyFacts({"L": many, "M": many, "X": few}, {}, ("L", "M", "X"), "v1"), Policy()))
    assert {found[key].verdict for key in ("fairness", "recall", "precision", "flagged")} == {UNKNOWN}
    assert "X" in found["recall"].sentence


def test_a_fair_model_is_hardly_ever_called_unfair() -> None:
    rng, failed = np.random.default_rng(11), 0
    for _ in range(150):
        groups = {name: counts(rng, n) for name, n in (("L", 12_000), ("M", 6_000), ("H", 2_000))}
        found = monthly(MonthlyFacts(groups, {}, ("L", "M", "H"), "v1"), Policy())
        failed += any(s.verdict is FAIL for s in found)
    assert failed <= 7  # 5 % of 150


def test_a_model_that_flags_a_type_three_times_as_often_as_it_fails_is_out_of_proportion() -> None:
    over = Confusion(tp=95, fp=205, fn=5, tn=2695)
    fair = Confusion(tp=80, fp=20, fn=20, tn=2880)
    found = by_key(monthly(MonthlyFacts({"L": fair, "M": over}, {}, ("L", "M"), "v1"), Policy()))
    assert found["flagged"].verdict is FAIL
    assert found["flagged"].sentence.startswith("M is flagged 3.0 times")


@given(st.integers(1, 400), st.integers(1, 400), st.floats(0, 1), st.floats(0, 1))
def test_the_interval_of_a_difference_holds_it_and_turns_around_with_it(n: int, m: int, p: float, q: float) -> None:
    one, other = (round(p * n), n), (round(q * m), m)
    size, low, high = difference(one, other, 0.95)
    assert low - 1e-9 <= size <= high + 1e-9
    assert difference(other, one, 0.95) == pytest.approx((-size, -high, -low))


def test_a_verdict_is_compared_with_the_last_one_and_lost_data_are_no_recovery() -> None:
    performance = Section("performance", "F1", UNKNOWN, "too few")
    audit = Audit(MODEL, PERIODS[Kind.WEEKLY], NOW, (performance,), before={"performance": FAIL})
    assert audit.changes == ("F1: was fail, now not enough data",)
    assert replace(audit, before={"performance": UNKNOWN}).changes == ()
    assert replace(audit, before=None).changes == ()


@given(st.integers(0, 13 * 365 * 24 * 60), st.sampled_from(list(Kind)))
def test_calendar_periods_follow_one_another_without_gap_or_overlap(minutes: int, kind: Kind) -> None:
    now = datetime(2020, 1, 1, tzinfo=UTC) + timedelta(minutes=minutes)
    last = complete(kind, now)
    assert last.since < last.until <= now < last.until + timedelta(days=366)
    before = complete(kind, last.until - timedelta(seconds=1))
    assert (before.until, complete(kind, last.until)) == (last.since, last)
    assert before.name < last.name
    assert up_to(kind, last.since + timedelta(days=1)).within == last.name


def test_the_severity_of_what_is_opened_is_that_of_the_drop() -> None:
    opens = of_week()["performance"].opens
    assert opens is not None
    assert opens.severity is Severity.MEDIUM
