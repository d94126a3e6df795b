"""The Post-Incident Review of Step 6, heading by heading, from the record."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest

from mlrunbook.domain.cause import Cause
from mlrunbook.domain.communication.markdown import md
from mlrunbook.domain.communication.messages import Figures
from mlrunbook.domain.incident import Incident, IncidentType, Severity, Status
from mlrunbook.domain.policy.policy import Policy
from mlrunbook.domain.review.review import Event, ReviewFacts, Signature, action_items, assess, corrected, draft, standing
from mlrunbook.domain.roles import Role

T0 = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)


def after(minutes: float) -> datetime:
    return T0 + timedelta(minutes=minutes)


INCIDENT = Incident(
    id="inc-7",
    model="predictive_maintenance",
    model_version="v2.0.0",
    type=IncidentType.PERFORMANCE_DEGRADATION,
    family="performance",
    severity=Severity.HIGH,
    status=Status.CLOSED,
    description="F1 fell",
    impact="needless inspections",
    reported_by="alertmanager",
    started_at=after(-4),
    detected_at=T0,
    acknowledged_at=after(10),
    acknowledged_by="lead",
    contained_at=after(20),
    resolved_at=after(42),
)
FACTS = ReviewFacts(
    incident=INCIDENT,
    events=[Event(after(42), "Resolved"), Event(T0, "Detected")],
    root_cause="v2.0.0 was trained on wrong labels",
    cause=Cause.BAD_DEPLOYMENT,
    chain=["Why did performance fall? Because v2.0.0 misses failures", "its labels were wrong"],
    resolution=["Rolled back to v1.4.0"],
    during=Figures(0.79, 0.55),
    after=Figures(0.79, 0.78),
    updates_due=1,
    updates_on_time=1,
)
ITEMS = action_items(Cause.BAD_DEPLOYMENT, Severity.HIGH, after(42))


def test_the_review_has_every_heading_of_the_runbook_in_order() -> None:
    headings = [row for row in draft(FACTS, ITEMS, Policy()).splitlines() if row.startswith("#")]
    assert headings == [
        "# Post-Incident Review: inc-7",
        "## Incident Summary",
        "## Timeline",
        "## Root Cause Analysis",
        "### What Happened?",
        "### Why Did It Happen?",
        "### What Went Well?",
        "### What Could Be Improved?",
        "## Action Items",
        "## Metrics",
        "## Lessons Learned",
        "## Approvals",
    ]


def test_the_review_has_every_label_of_the_runbook_in_order() -> None:
    text = draft(FACTS, ITEMS, Policy())
    bold = [row.split("**")[1] for row in text.splitlines() if "**" in row]
    assert bold == [
        *("Date:", "Duration:", "Severity:", "Model:"),
        *("Detection Time:", "Response Time:", "Time to Containment:", "Total Resolution Time:", "Business Impact:"),
        *("Technical:", "Process:", "Monitoring:"),
        *("Reviewed By:", "Approved By:", "Date:"),
    ]
    assert "| Time | Event |" in text
    assert "| Action | Owner | Due Date | Status |" in text


def test_the_metrics_are_the_measured_times() -> None:
    text = draft(FACTS, ITEMS, Policy())
    for row in (
        "- **Duration:** 42 minutes",
        "- **Detection Time:** 4 minutes (automated alert)",
        "- **Response Time:** 10 minutes (acknowledged by lead)",
        "- **Time to Containment:** 20 minutes (from detection)",
        "- **Total Resolution Time:** 42 minutes",
        "- **Business Impact:** not estimated",
    ):
        assert row in text.splitlines()


def test_what_was_not_measured_is_said() -> None:
    bare = replace(INCIDENT, started_at=None, acknowledged_at=None, contained_at=None, resolved_at=None)
    text = draft(ReviewFacts(incident=bare, events=[]), (), Policy())
    assert text.count("not measured") >= 6
    paged = draft(ReviewFacts(incident=bare, events=[], paged_at=after(1)), (), Policy())
    assert "- **Response Time:** 1 minute (engineer paged; nobody acknowledged)" in paged
    for example in ("10K", "0.82", "15 minutes", "3 hours", "incident_123", "asset type", "v1.5.0"):
        assert example not in text


def test_the_timeline_is_in_order_in_utc_and_names_the_day_only_when_there_are_two() -> None:
    rows = [row for row in draft(FACTS, ITEMS, Policy()).splitlines() if "UTC |" in row]
    assert rows == ["| 09:00 UTC | Detected |", "| 09:42 UTC | Resolved |"]
    overnight = replace(FACTS, events=[*FACTS.events, Event(after(16 * 60), "Closed")])
    assert "| 2026-03-03 01:00 UTC | Closed |" in draft(overnight, ITEMS, Policy())


def test_events_that_share_a_minute_are_told_apart_by_their_seconds() -> None:
    quick = replace(FACTS, events=[Event(T0, "Detected"), Event(after(0.4), "Contained"), Event(after(3.2), "Resolved")])
    rows = [row for row in draft(quick, ITEMS, Policy()).splitlines() if "UTC |" in row]
    assert rows == ["| 09:00:00 UTC | Detected |", "| 09:00:24 UTC | Contained |", "| 09:03:12 UTC | Resolved |"]


def test_a_short_incident_took_seconds_not_zero_minutes() -> None:
    short = replace(INCIDENT, acknowledged_at=after(0.2), contained_at=after(0.4), resolved_at=after(3.2))
    text = draft(replace(FACTS, incident=short), ITEMS, Policy())
    for row in ("**Duration:** 3 minutes 12 seconds", "**Response Time:** 12 seconds", "**Time to Containment:** 24 seconds"):
        assert row in text


def test_an_outage_is_business_impact_with_its_duration_however_long_the_rest_is() -> None:
    stopped = "Serving was stopped from 2026-03-02 09:01:00 to 09:25:30 UTC (24 minutes 30 seconds)"
    text = draft(replace(FACTS, business_impact="x" * 600, outages=[stopped]), ITEMS, Policy())
    (row,) = [row for row in text.splitlines() if row.startswith("- **Business Impact:**")]
    assert row.endswith(f"; {stopped}")


def test_a_sentence_that_no_longer_holds_is_replaced_and_what_people_wrote_stays() -> None:
    old, new = "Containment still in force: a|b (kept)", "Containment outlived the incident and is over: a|b"
    text = draft(replace(FACTS, containment_left=[old]), ITEMS, Policy())
    assert f"- {md(new)}" in corrected(text, {old: new})
    assert md(old) not in corrected(text, {old: new})
    mended = text.replace(md(old), "We keep it")
    assert corrected(mended, {old: new}) == mended


def test_the_five_whys_start_from_the_diagnosis_and_leave_the_rest_to_the_meeting() -> None:
    text = draft(FACTS, ITEMS, Policy())
    assert "1. Why did performance fall?\n   → Because v2.0.0 misses failures\n" in text
    assert "2. Why?\n   → Because its labels were wrong\n" in text
    assert text.count("→ To be answered in the review meeting") == 3


def test_a_good_response_is_told_by_its_facts() -> None:
    well, improve = assess(FACTS, Policy())
    assert well == [
        "Automated monitoring detected the failure 4 minutes after it began",
        "Acknowledged after 10 minutes, within the 1 hour allowed",
        "Contained after 20 minutes",
        "1 of 1 updates went out in time",
        "Recovery was verified by measurement, F1 score: 0.78, against 0.79 at baseline",
    ]
    assert improve == ["The chain of causes is not known to its root"]


def test_a_poor_response_is_told_by_its_facts() -> None:
    late = replace(INCIDENT, acknowledged_at=after(75), contained_at=after(90), reported_by="a supervisor")
    facts = replace(
        FACTS,
        incident=late,
        after=Figures(),
        updates_due=3,
        detected_automatically=False,
        containment_left=["Containment still in force: human approval (the vendor asked for it)"],
    )
    well, improve = assess(facts, Policy())
    assert well == []
    assert improve[:-1] == [
        "a supervisor reported the failure before monitoring did",
        "Acknowledged after 1 hour 15 minutes, past the 1 hour allowed",
        "Contained after 1 hour 30 minutes, past the response time",
        "1 of 3 updates went out in time",
        "The F1 score after the fix was not measured",
        "Containment still in force: human approval (the vendor asked for it)",
    ]


@pytest.mark.parametrize("figures", [Figures(0.79, 0.70), Figures(None, 0.78)])
def test_recovery_is_praised_only_when_f1_is_measured_back_near_the_baseline(figures: Figures) -> None:
    well, improve = assess(replace(FACTS, after=figures), Policy())
    assert not any("Recovery" in sentence for sentence in well)
    assert any(sentence.startswith("Recovery is not shown") for sentence in improve)


def test_nobody_answering_and_nothing_contained_is_improved_upon() -> None:
    _, improve = assess(replace(FACTS, incident=replace(INCIDENT, acknowledged_at=None, contained_at=None)), Policy())
    assert "Nobody acknowledged the incident; the response time is 1 hour" in improve
    assert "No containment is on record" in improve
    _, medium = assess(replace(FACTS, incident=replace(INCIDENT, severity=Severity.MEDIUM, contained_at=None)), Policy())
    assert "No containment is on record" not in medium


@pytest.mark.parametrize("cause", [*Cause, None])
def test_every_cause_gives_action_items_with_an_owner_and_a_date_after_resolution(cause: Cause | None) -> None:
    items = action_items(cause, Severity.HIGH, after(42))
    assert len(items) >= 2
    assert items[-1].owner == Role.ML_TEAM_LEAD
    assert all(item.due_on > date(2026, 3, 2) and item.status == "Not Started" for item in items)


def test_action_items_stand_in_the_table() -> None:
    row = "| Update the runbook with what this incident taught | ML Team Lead | 2026-03-09 | Not Started |"
    assert row in draft(FACTS, ITEMS, Policy())


def test_only_after_a_major_incident_the_runbook_is_to_be_updated() -> None:
    def upkeep(severity: Severity) -> bool:
        return any("Update the runbook" in item.action for item in action_items(Cause.BAD_DEPLOYMENT, severity, after(42)))

    assert {s for s in Severity if upkeep(s)} == {Severity.CRITICAL, Severity.HIGH}


def test_a_low_incident_without_a_cause_leaves_nothing_to_do() -> None:
    assert action_items(None, Severity.LOW, after(42)) == ()
    assert action_items(None, Severity.MEDIUM, after(42))


def test_the_review_shows_its_items_and_signatures_as_they_are_now() -> None:
    lead = Signature("the lead", "ML Team Lead", after(60))
    manager = Signature("the manager | <b>", "Engineering Manager", after(90))
    done = replace(ITEMS[0], status="Done")
    drafted = draft(FACTS, ITEMS, Policy())
    now = standing(drafted, [done], lead, manager)
    assert f"| {done.action} | ML Team Lead | 2026-03-16 | Done |" in now
    assert ITEMS[1].action not in now
    assert "- **Reviewed By:** the lead (ML Team Lead), 2026-03-02" in now
    assert "- **Approved By:** the manager \\| &lt;b> (Engineering Manager), 2026-03-02" in now
    assert [r for r in now.splitlines() if r.startswith("#")] == [r for r in drafted.splitlines() if r.startswith("#")]
    assert standing(now, [done], lead, manager) == now


def test_a_section_that_people_took_out_comes_back() -> None:
    now = standing("# Post-Incident Review: ours\n\nOur own words.", ITEMS, None, None)
    assert now.startswith("# Post-Incident Review: ours\n\nOur own words.")
    assert now.count("## Action Items") == now.count("## Approvals") == 1


@pytest.mark.parametrize(
    "evil", ["a | b", "<img src=x onerror=alert(1)>", "![x](https://example.com)", "`rm`", "# heading", "1. one", "a\n| b |"]
)
def test_hostile_text_stays_one_literal_cell(evil: str) -> None:
    facts = replace(
        FACTS, events=[Event(T0, evil)], incident=replace(INCIDENT, description=evil, reported_by=evil), chain=[evil], root_cause=evil
    )
    text = draft(facts, ITEMS, Policy())
    row = next(row for row in text.splitlines() if row.startswith("| 09:00 UTC |"))
    assert row.replace(r"\|", "").count("|") == 3
    assert "<img" not in text
    assert "](http" not in text.replace(r"\]", "")
    assert len([r for r in text.splitlines() if r.startswith("#")]) == 12


def test_plain_words_are_not_disfigured() -> None:
    assert md("predictive_maintenance v2.0.0: F1 0.79 -> 0.55, 31 % & up") == "predictive_maintenance v2.0.0: F1 0.79 -> 0.55, 31 % & up"
    assert md("> quoted &lt;b&gt;") == r"\> quoted &amp;lt;b&amp;gt;"
