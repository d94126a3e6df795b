"""The severity rises on the way: Step 2 begins again for the worse, people hear of it, and nothing is done twice."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import Engine

from mlrunbook.domain.detection.alerts import NormalisedAlert
from mlrunbook.domain.errors import Fenced
from mlrunbook.domain.incident import IncidentType, Severity, Status
from mlrunbook.response.lifecycle import runs, severity_change
from mlrunbook.response.lifecycle.alert_intake import AlertBatch, take_in_alerts
from mlrunbook.response.world import World
from mlrunbook.store import incidents, journal, leases, records, timeline
from tests.fakes import BUSY_FOR_A_RUN, MODEL, Clock, FileWorld, LedgerNotifier, empty_store, world_of
from tests.response.carrying import carry
from tests.response.people import approve, deliver, incident_of, recorded, report, told
from tests.response.test_killed import Killer, _Tapped

SWITCHED = {"config:human_approval=True": 1, "config:auto_scheduling=False": 1}
HALTED = {"config:auto_work_orders=False": 1}


def say(world: World, incident_id: str, severity: Severity, why: str = "two gearboxes broke") -> None:
    with world.transaction() as conn:
        severity_change.say(conn, world.policy, incident_id, severity_change.Said(severity, "the lead", why), now=world.now())


@pytest.fixture
def medium(world: World, file_world: FileWorld) -> str:
    """F1 fell by 15 %: medium, nothing is changed by itself, a rollback waits for a decision."""
    file_world.set(bad_versions={"v2.0.0": "worse"})
    incident_id = report(world)
    assert carry(world, incident_id, "run-1") == "pending"
    assert incident_of(world, incident_id).severity is Severity.MEDIUM
    assert file_world.applied == {}
    return incident_id


def test_a_person_raises_it_and_the_containment_of_the_higher_severity_follows(
    world: World, file_world: FileWorld, medium: str, clock: Clock, notifier: LedgerNotifier
) -> None:
    deliver(world)
    clock.advance(minutes=5)
    before = len(notifier.pages())
    say(world, medium, Severity.HIGH)
    carry(world, medium, "run-1")
    assert file_world.applied == SWITCHED
    deliver(world)
    heard = {m.body.split("\n")[0] for m in notifier.pages()[before:]}
    why = "the lead raises it from medium to high: two gearboxes broke"
    assert {f"On-Call ML Engineer: {why}", f"ML Team Lead: {why}"} <= heard
    assert any(m.channel == "email" and "severity is now HIGH" in m.body for m in notifier.sent)
    assert f"Severity HIGH, type performance_degradation: {why}" in told(world, medium, "severity")
    assert incident_of(world, medium).status is Status.CONTAINED


def test_a_yes_that_was_given_for_less_no_longer_counts_and_is_asked_for_again(
    world: World, file_world: FileWorld, medium: str, clock: Clock, notifier: LedgerNotifier
) -> None:
    approve(world, medium)
    say(world, medium, Severity.HIGH)
    clock.advance(minutes=1)
    assert carry(world, medium, "run-1") == "pending"
    assert "rollback" not in file_world.applied
    assert any("voided: the severity rose from medium to high" in text for text in told(world, medium, "approval"))
    deliver(world)
    assert sum("your decision is needed" in m.body for m in notifier.pages()) >= 2
    approve(world, medium)
    clock.advance(minutes=2)
    assert carry(world, medium, "run-1") == "closed"
    assert file_world.applied["rollback"] == 1


def test_a_change_that_has_begun_is_seen_through(world: World, file_world: FileWorld, medium: str, clock: Clock) -> None:
    approve(world, medium)
    file_world.faults["rollback"] = list(BUSY_FOR_A_RUN)
    with pytest.raises(Exception, match="busy"):
        carry(world, medium, "run-1")
    say(world, medium, Severity.CRITICAL)
    clock.advance(minutes=5)
    assert carry(world, medium, "run-2") == "closed"
    assert file_world.applied["rollback"] == 1
    assert file_world.applied["config:human_approval=True"] == 1


def test_the_run_at_work_is_replaced_so_that_nobody_waits_for_what_it_does_meanwhile(world: World, medium: str) -> None:
    old = runs.take(world, medium, "run-1")
    assert old is not None
    say(world, medium, Severity.CRITICAL)
    with world.transaction() as conn:
        lease = leases.get(conn, medium)
    assert (lease.state, lease.generation) == ("starting", 2)


def test_a_worse_report_of_a_person_raises_it(world: World, medium: str) -> None:
    assert report(world, Severity.CRITICAL, by_alert=False, description="trains stand still") == medium
    assert incident_of(world, medium).severity is Severity.CRITICAL


def alert(clock: Clock, name: str = "ModelF1Drop", level: str = "critical") -> NormalisedAlert:
    body = {"labels": {"alertname": name, "severity": level}, "annotations": {"summary": "F1 fell further"}}
    return NormalisedAlert(name + level, True, name, MODEL, None, level, None, "F1 fell further", clock(), body)


def test_a_worse_alert_has_it_measured_again_and_the_measurement_decides(
    world: World, file_world: FileWorld, medium: str, clock: Clock
) -> None:
    with world.transaction() as conn:
        assert take_in_alerts(conn, world.policy, AlertBatch("alertmanager", [alert(clock)]), now=clock()) == [medium]
    carry(world, medium, "run-1")
    assert incident_of(world, medium).severity is Severity.MEDIUM, "an alert's level is no severity"
    file_world.set(bad_versions={"v2.0.0": "degraded"})
    clock.advance(minutes=1)
    with world.transaction() as conn:
        take_in_alerts(conn, world.policy, AlertBatch("alertmanager", [alert(clock)]), now=clock())
    carry(world, medium, "run-1")
    assert incident_of(world, medium).severity is Severity.HIGH
    assert file_world.applied == SWITCHED


def test_the_investigation_measures_once_more_and_contains_what_it_has_become(world: World, file_world: FileWorld, clock: Clock) -> None:
    file_world.set(bad_versions={"v2.0.0": "worse"})
    incident_id = report(world)
    assert carry(world, incident_id, "run-1") == "pending"
    assert recorded(world, incident_id, "graded_again") == {"rose": False}
    file_world.set(bad_versions={"v2.0.0": "degraded"})
    with world.transaction() as conn:
        records.forget(conn, incident_id, "graded_again")
    carry(world, incident_id, "run-1")
    assert file_world.applied == SWITCHED
    assert "measured again, it is high and no longer medium" in told(world, incident_id, "severity")[-1]


def test_a_stopped_server_is_our_containment_and_no_worse_harm(world: World, file_world: FileWorld, clock: Clock) -> None:
    file_world.set(bad_versions={"v2.0.0": "dangerous"}, previous=None)
    incident_id = report(world, Severity.HIGH)
    carry(world, incident_id, "run-1")
    assert file_world.applied.get("scale:0") == 1
    say(world, incident_id, Severity.HIGH, "nobody uses it on Sundays")
    with world.transaction() as conn:
        take_in_alerts(conn, world.policy, AlertBatch("alertmanager", [alert(clock, "AllAssetsHighRisk")]), now=clock())
    carry(world, incident_id, "run-1")
    assert incident_of(world, incident_id).severity is Severity.HIGH


def test_a_person_lowers_it_with_a_reason_and_only_more_harm_raises_it_again(
    world: World, file_world: FileWorld, clock: Clock, notifier: LedgerNotifier
) -> None:
    incident_id = report(world)
    carry(world, incident_id, "run-1")
    assert incident_of(world, incident_id).severity is Severity.HIGH
    deliver(world)
    say(world, incident_id, Severity.MEDIUM, "a test fleet")
    with world.transaction() as conn:
        take_in_alerts(conn, world.policy, AlertBatch("alertmanager", [alert(clock)]), now=clock())
    carry(world, incident_id, "run-1")
    assert incident_of(world, incident_id).severity is Severity.MEDIUM
    assert told(world, incident_id, "severity")[-1].endswith("the lead lowers it from high to medium: a test fleet")
    with world.transaction() as conn:
        change = severity_change.SeverityChange(Severity.CRITICAL, None, "more harm", "a test")
        severity_change.change_severity(conn, world.policy, incidents.get(conn, incident_id), change, now=clock())
        assert severity_change.lowered_from(conn, incident_id) is None


def test_the_response_time_of_the_higher_severity_counts_from_the_rise(
    world: World, medium: str, clock: Clock, notifier: LedgerNotifier
) -> None:
    clock.advance(minutes=100)
    deliver(world)
    say(world, medium, Severity.CRITICAL)
    deliver(world)
    assert told(world, medium, "response") == []
    clock.advance(minutes=15)
    deliver(world)
    assert told(world, medium, "response") == [
        "Nobody has acknowledged it within the response time (15 minutes): the VP Engineering is asked"
    ]


def test_before_triage_has_spoken_the_word_of_a_person_is_a_floor(world: World, file_world: FileWorld) -> None:
    incident_id = report(world)
    say(world, incident_id, Severity.CRITICAL)
    carry(world, incident_id, "run-1")
    assert incident_of(world, incident_id).severity is Severity.CRITICAL


def test_wherever_it_rises_the_containment_of_the_higher_severity_happens_exactly_once(
    engine: Engine, world: World, tmp_path: Path
) -> None:
    """A person raises it at a write of the run, which is fenced off there; another goes on."""
    clock = Clock(datetime(2026, 3, 29, 0, 30, tzinfo=UTC))

    class Rises(Killer):
        def __call__(self, _: str = "") -> None:
            self.count += 1
            if self.count == self.at:
                say(plain, incident_id, Severity.CRITICAL)

    at, wrong = 1, []
    while True:
        empty_store(engine)
        tap = Rises(at)
        path = tmp_path / f"{at}.json"
        state = FileWorld(path, clock, tap)
        state.set(bad_versions={})
        plain = world_of(engine, FileWorld(path, clock), clock)
        tapped = _Tapped(**world_of(engine, state, clock).__dict__)
        tapped.__dict__["tap"] = tap
        incident_id = report(plain, Severity.HIGH, IncidentType.PREDICTION_ERROR, by_alert=False)
        with contextlib.suppress(Fenced):
            carry(tapped, incident_id, "run-1")
        if tap.count < at:
            break
        with plain.transaction() as conn:
            raised_waiting = leases.get(conn, incident_id).state == "waiting"
        carry(plain, incident_id, "run-1" if raised_waiting else "run-2")
        with plain.transaction() as conn:
            chain, one = timeline.broken_at(conn, incident_id), incidents.get(conn, incident_id)
            unsettled = [r.summary for r in journal.of_incident(conn, incident_id) if not r.settled]
        found = (state.applied, chain, one.severity, one.status, unsettled)
        if found != (SWITCHED | HALTED, None, Severity.CRITICAL, Status.CONTAINED, []):
            wrong.append(f"at {at}: {found}")
        at += 5
    assert at > 20
    assert wrong == []
