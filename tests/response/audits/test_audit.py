"""Audits on a store: one record a period, one incident a finding, whatever befalls the run."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import pytest
from sqlalchemy import Engine, select, update

from mlrunbook.base import tokens
from mlrunbook.domain.audits.period import Kind, complete, up_to
from mlrunbook.domain.audits.quarterly import due_audits
from mlrunbook.domain.audits.section import Section, Verdict
from mlrunbook.domain.detection.reports import Report
from mlrunbook.domain.errors import NotFound, Transient
from mlrunbook.domain.evaluation.history import DayFigures
from mlrunbook.domain.incident import IncidentType, Severity, Status
from mlrunbook.response.audits import audit as steps
from mlrunbook.response.world import World
from mlrunbook.store import audits, incidents
from mlrunbook.store.audits import Filed
from mlrunbook.store.tables import approvals, outbox, timeline
from tests.fakes import MODEL, T0, Clock, FileWorld
from tests.response.carrying import carry
from tests.response.people import approve, report

LAST_WEEK = complete(Kind.WEEKLY, T0)


def held(world: World, period: object = LAST_WEEK) -> Filed:
    """As the flow holds one."""
    audit = steps.open_incidents(world, steps.examine(world, MODEL, period))  # type: ignore[arg-type]
    return steps.file(world, audit)[0]


def sections(one: Filed) -> dict[str, dict[str, object]]:
    return {s["key"]: dict(s) for s in one.sections}


def all_incidents(world: World) -> list[object]:
    with world.transaction() as conn:
        return list(incidents.find(conn))


def close(world: World, incident_id: str, at: datetime) -> None:
    with world.transaction() as conn:
        for status in (Status.RESOLVED, Status.CLOSED):
            incidents.set_status(conn, incident_id, status, why="mended", actor="a test", now=at)


def test_a_week_within_its_limits_is_filed_and_opens_nothing(world: World, file_world: FileWorld) -> None:
    file_world.set(serving="v1.5.0")
    one = held(world)
    assert sections(one)["performance"]["verdict"] == Verdict.PASS
    assert (one.period, one.incident_ids, all_incidents(world)) == ("2026-W12", [], [])
    with world.transaction() as conn:
        assert b"<!DOCTYPE html>" in audits.report(conn, one.id)


def test_a_broken_limit_opens_an_incident_of_its_type_that_is_worked_on(world: World, engine: Engine) -> None:
    one = held(world)
    (incident,) = all_incidents(world)
    assert (incident.type, incident.severity, incident.reported_by) == (  # type: ignore[attr-defined]
        IncidentType.PERFORMANCE_DEGRADATION,
        Severity.HIGH,
        "weekly audit",
    )
    assert sections(one)["performance"]["incident_id"] == incident.id  # type: ignore[attr-defined]
    with engine.begin() as conn:
        kinds = set(conn.execute(select(outbox.c.kind).where(outbox.c.incident_id == incident.id)).scalars())  # type: ignore[attr-defined]
    assert {"start_run", "page"} <= kinds


def test_killed_after_it_opened_and_after_it_filed_it_leaves_one_incident_and_one_record(world: World) -> None:
    steps.open_incidents(world, steps.examine(world, MODEL, LAST_WEEK))  # killed here
    first, again = held(world), held(world)
    assert first == again
    assert steps.filed(world, MODEL, LAST_WEEK) == first
    assert steps.examine(world, MODEL, LAST_WEEK).before is None, "an audit is not compared with itself"
    assert len(all_incidents(world)) == 1


def test_a_second_look_in_the_same_week_opens_no_second_incident_even_when_the_first_is_closed(world: World, clock: Clock) -> None:
    one = held(world, up_to(Kind.WEEKLY, clock()))
    close(world, one.incident_ids[0], clock())
    clock.advance(hours=1)
    again = held(world, up_to(Kind.WEEKLY, clock()))
    assert again.id != one.id
    assert again.incident_ids == one.incident_ids
    assert len(all_incidents(world)) == 1


def test_a_failure_that_was_an_incident_of_that_week_and_is_over_opens_no_other(world: World) -> None:
    told = Report(MODEL, IncidentType.PREDICTION_ERROR, "performance", Severity.HIGH, "F1 fell", "alertmanager")
    with world.transaction() as conn:
        incident, _ = incidents.open_or_join(conn, told, now=LAST_WEEK.since + timedelta(days=1))
    close(world, incident.id, LAST_WEEK.since + timedelta(days=2))
    audit = steps.open_incidents(world, steps.examine(world, MODEL, LAST_WEEK))
    (found,) = [s for s in audit.sections if s.key == "performance"]
    assert (found.verdict, found.incident_id) == (Verdict.FAIL, None)
    assert found.note.startswith(f"{incident.id}, which is over")
    assert len(all_incidents(world)) == 1


def test_what_passed_the_last_time_and_fails_now_is_said(world: World, file_world: FileWorld) -> None:
    before = complete(Kind.WEEKLY, T0 - timedelta(days=7))
    file_world.set(serving="v1.5.0")
    held(world, before)
    file_world.set(serving="v2.0.0")
    assert sections(held(world))["performance"]["change"] == "was pass, now fail"


def test_a_platform_that_keeps_no_history_is_judged_by_what_it_has(
    world: World, file_world: FileWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(model: str, *, days: int, until: datetime | None = None) -> Sequence[DayFigures]:
        raise NotFound("no such endpoint")

    monkeypatch.setattr(file_world, "history", none)
    audit = steps.examine(world, MODEL, LAST_WEEK)
    (found,) = [s for s in audit.sections if s.key == "performance"]
    assert found.verdict is Verdict.FAIL
    assert [type(c).__name__ for c in found.charts] == ["Matrix"]


def test_a_platform_that_does_not_answer_is_asked_again_later_and_nothing_is_filed(world: World, file_world: FileWorld) -> None:
    file_world.down = True
    with pytest.raises(Transient):
        held(world)
    assert steps.filed(world, MODEL, LAST_WEEK) is None


# --- what the quarterly audit and the annual review read of the store


def one_incident(world: World) -> str:
    """A bad release, rolled back on an approved plan."""
    incident_id = report(world)
    carry(world, incident_id, "run 1")
    approve(world, incident_id)
    carry(world, incident_id, "run 2")
    return incident_id


def quarterly(world: World, clock: Clock) -> dict[str, Section]:
    audit = steps.examine(world, MODEL, up_to(Kind.QUARTERLY, clock() + timedelta(minutes=1)))
    return {s.key: s for s in audit.sections}


def test_a_change_rests_on_its_approval_and_one_without_is_found(world: World, clock: Clock, engine: Engine) -> None:
    one_incident(world)
    assert quarterly(world, clock)["approvals"].verdict is Verdict.PASS
    with engine.begin() as conn:
        conn.execute(update(approvals).values(decision="rejected"))
    found = quarterly(world, clock)["approvals"]
    assert found.verdict is Verdict.FAIL
    assert "rejected the plan" in found.sentence


def test_an_edited_timeline_is_found_and_is_a_compliance_incident(world: World, clock: Clock, engine: Engine) -> None:
    incident_id = one_incident(world)
    assert quarterly(world, clock)["records"].verdict is Verdict.PASS
    with engine.begin() as conn:
        conn.execute(update(timeline).where(timeline.c.incident_id == incident_id, timeline.c.seq == 2).values(text="nothing happened"))
    assert incident_id in quarterly(world, clock)["records"].sentence
    made = held(world, up_to(Kind.QUARTERLY, clock() + timedelta(minutes=1)))
    opened = sections(made)["records"]["incident_id"]
    with world.transaction() as conn:
        incident = incidents.get(conn, str(opened))
    assert (incident.type, incident.severity) == (IncidentType.COMPLIANCE, Severity.HIGH)


def test_the_quarter_asks_for_the_weeks_and_months_since_the_first_that_was_held(world: World, clock: Clock) -> None:
    of = complete(Kind.QUARTERLY, T0.replace(month=4, day=2))
    weeks = [p for p in due_audits(of) if p.kind is Kind.WEEKLY]
    held(world, weeks[2])
    held(world, weeks[3])
    clock.at = of.until
    found = {s.key: s for s in steps.examine(world, MODEL, of).sections}["audits"]
    assert found.verdict is Verdict.FAIL
    assert weeks[1].name not in found.sentence
    assert weeks[4].name in found.sentence


def test_a_token_counts_as_used_when_it_was_shown(world: World, clock: Clock, engine: Engine) -> None:
    with engine.begin() as conn:
        secret = tokens.create(conn, name="the lead", scopes=[tokens.Scope.READ])
        (before,) = [t for t in tokens.in_force(conn) if t.name == "the lead"]
        tokens.verify(conn, secret)
        tokens.verify(conn, secret + "x")
        (after,) = [t for t in tokens.in_force(conn) if t.name == "the lead"]
    assert before.last_used_at is None
    assert after.last_used_at is not None


def test_the_year_counts_incidents_by_cause(world: World, clock: Clock) -> None:
    one_incident(world)
    audit = steps.examine(world, MODEL, up_to(Kind.ANNUAL, clock() + timedelta(minutes=1)))
    risks = next(s for s in audit.sections if s.key == "risks")
    assert risks.tables[0].rows[0][:2] == ("bad deployment", "1")
