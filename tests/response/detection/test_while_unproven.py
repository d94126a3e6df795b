"""What comes while an alert waits for its outcomes: a person, another alert, a platform that stops answering. It is never forgotten."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select

from mlrunbook.domain.errors import NotFound, Refused, Transient
from mlrunbook.domain.evaluation.outcome_window import Span
from mlrunbook.domain.evaluation.performance import ModelMetrics
from mlrunbook.domain.incident import Incident, IncidentType, Severity, Status
from mlrunbook.domain.records import Record
from mlrunbook.gateway.closing import _ended
from mlrunbook.response.detection import unproven
from mlrunbook.response.lifecycle import runs
from mlrunbook.response.measurement.outcome_history import with_history
from mlrunbook.response.world import World
from mlrunbook.store import baseline_pins, incidents, outbox, tables
from tests.fakes import MODEL, T0, Clock, LedgerNotifier
from tests.response.carrying import carry
from tests.response.detection.counting import FEW, Counting, alert
from tests.response.people import deliver, incident_of, recorded, report

WAITS = "not proven yet"


def a_ticket(world: World, platform: Counting) -> str:
    platform.shows = FEW
    incident_id = alert(world, "warning")
    assert carry(world, incident_id, "run-1") == WAITS
    deliver(world)
    return incident_id


def assessment(world: World, incident_id: str) -> dict[str, Any]:
    return dict(recorded(world, incident_id, "triage")["assessment"])


def looks_now(world: World, incident_id: str) -> bool:
    """A run is on its way, and not in an hour."""
    with world.transaction() as conn:
        rows = outbox.of_incident(conn, incident_id, "start_run")
    return all(row["delivered_at"] is not None for row in rows)


def wait(world: World, clock: Clock, incident_id: str, hours: int, every: int = 1) -> None:
    for hour in range(0, hours, every):
        clock.advance(hours=every)
        deliver(world)
        carry(world, incident_id, f"later-{hour}")
    deliver(world)


# --- people


@pytest.mark.parametrize("severity", [Severity.LOW, Severity.MEDIUM, Severity.HIGH])
def test_a_persons_report_ends_the_wait_at_once(counting: World, platform: Counting, notifier: LedgerNotifier, severity: Severity) -> None:
    incident_id = a_ticket(counting, platform)
    assert report(counting, severity, by_alert=False, description="it misses pumps") == incident_id
    deliver(counting)
    assert looks_now(counting, incident_id)
    assert carry(counting, incident_id, "run-2") != WAITS
    deliver(counting)
    found = assessment(counting, incident_id)
    assert (found["real"], found["unproven"]) == (True, False)
    assert notifier.pages()


def test_a_report_that_comes_during_the_look_makes_no_ticket(counting: World, platform: Counting, notifier: LedgerNotifier) -> None:
    platform.shows = FEW
    incident_id = alert(counting, "warning")
    reading = platform.metrics

    def interrupted(model: str, **asked: Any) -> ModelMetrics:
        platform.metrics = reading  # type: ignore[method-assign]
        report(counting, Severity.MEDIUM, by_alert=False, description="it misses pumps")
        return reading(model, **asked)

    platform.metrics = interrupted  # type: ignore[method-assign]
    assert carry(counting, incident_id, "run-1") != WAITS
    deliver(counting)
    assert not assessment(counting, incident_id)["unproven"]
    assert notifier.pages()


# --- other alerts


def test_a_second_alert_that_no_outcome_will_decide_is_handled_as_if_it_had_come_first(
    counting: World, platform: Counting, notifier: LedgerNotifier
) -> None:
    incident_id = a_ticket(counting, platform)
    assert alert(counting, "warning", "FeatureDrift") == incident_id
    deliver(counting)
    assert looks_now(counting, incident_id)
    assert carry(counting, incident_id, "run-2") != WAITS
    deliver(counting)
    assert not assessment(counting, incident_id)["unproven"]
    assert notifier.pages()


def test_a_critical_alert_that_joins_a_ticket_is_paged_as_high(counting: World, platform: Counting, notifier: LedgerNotifier) -> None:
    incident_id = a_ticket(counting, platform)
    assert alert(counting, "critical", "ModelRecallDrop") == incident_id
    deliver(counting)
    assert looks_now(counting, incident_id)
    carry(counting, incident_id, "run-2")
    deliver(counting)
    assert incident_of(counting, incident_id).severity is Severity.HIGH
    assert notifier.pages()
    assert platform.applied == {}


def test_several_alerts_are_told_of_in_one_sentence(counting: World, platform: Counting) -> None:
    platform.shows = FEW
    for name in ("ModelF1Drop", "ModelPrecisionDrop", "ModelRecallDrop"):
        incident_id = alert(counting, "warning", name)
    carry(counting, incident_id, "run-1")
    (said, *_) = assessment(counting, incident_id)["reasons"]
    named = "ModelF1Drop (warning), ModelPrecisionDrop (warning) and ModelRecallDrop (warning)"
    assert said.startswith(f"{named} fired, but the outcomes have not confirmed them yet: ")


# --- the platform


def no_blocks(*_: Any, **__: Any) -> Any:
    raise NotFound("this platform counts no blocks any more")


def unreadable(*_: Any, **__: Any) -> Any:
    raise Refused("not the runbook's shape")


def silent(*_: Any, **__: Any) -> Any:
    raise Transient("it does not answer")


@pytest.mark.parametrize(
    ("broken", "what"), [("outcome_blocks", no_blocks), ("metrics", unreadable), ("metrics", silent), ("status", silent)]
)
def test_a_platform_that_says_nothing_any_more_leaves_no_ticket_lying(
    counting: World, platform: Counting, clock: Clock, notifier: LedgerNotifier, broken: str, what: Callable[..., Any]
) -> None:
    incident_id = a_ticket(counting, platform)
    assert notifier.pages() == []
    platform.shows = None
    setattr(platform, broken, what)
    wait(counting, clock, incident_id, 80, every=8)
    assert incident_of(counting, incident_id).status.is_open, "what was open by all outcomes is not ended by an hour of them"
    assert notifier.pages()
    assert platform.applied == {}


def test_an_outage_is_heard_of_while_the_metrics_cannot_be_read(
    counting: World, platform: Counting, clock: Clock, notifier: LedgerNotifier
) -> None:
    incident_id = a_ticket(counting, platform)
    status = platform.status
    platform.status = lambda model: replace(status(model), server_healthy=False)  # type: ignore[method-assign]
    platform.metrics = unreadable  # type: ignore[method-assign]
    clock.advance(hours=6)
    carry(counting, incident_id, "run-2")
    deliver(counting)
    assert incident_of(counting, incident_id).severity is Severity.CRITICAL
    assert notifier.pages()


def test_an_outage_is_heard_of_while_the_metrics_are_not_understood(counting: World, platform: Counting, notifier: LedgerNotifier) -> None:
    reading, status = platform.metrics, platform.status

    def odd(model: str, **asked: Any) -> ModelMetrics:
        seen = reading(model, **asked)
        return replace(seen, current=replace(seen.current, null_rate="most"))  # type: ignore[arg-type]

    platform.metrics = odd  # type: ignore[method-assign]
    platform.status = lambda model: replace(status(model), server_healthy=False)  # type: ignore[method-assign]
    incident_id = alert(counting, "warning")
    carry(counting, incident_id, "run-1")
    deliver(counting)
    assert incident_of(counting, incident_id).severity is Severity.CRITICAL
    assert notifier.pages()


@pytest.mark.parametrize("days", [-30, 400])
def test_a_clock_that_jumps_loses_nothing(counting: World, platform: Counting, clock: Clock, notifier: LedgerNotifier, days: int) -> None:
    incident_id = a_ticket(counting, platform)
    platform.shows, platform.falls_at = None, T0 - timedelta(minutes=20)
    clock.jump(days=days)
    carry(counting, incident_id, "jumped")
    clock.jump(days=-days)
    wait(counting, clock, incident_id, 12)
    assert incident_of(counting, incident_id).status.is_open
    assert notifier.pages()


# --- what it leads to


FOUND = (Record.DIAGNOSIS, Record.FEATURES, Record.INPUTS, Record.ROLLBACK_TARGETS)


def found_at(world: World, incident_id: str) -> dict[str, Any]:
    with world.transaction() as conn:
        rows = conn.execute(select(tables.records.c.step, tables.records.c.recorded_at).where(tables.records.c.incident_id == incident_id))
        return {row.step: row.recorded_at for row in rows if row.step in FOUND}


def test_what_was_found_before_the_proof_is_looked_for_anew(counting: World, platform: Counting, clock: Clock) -> None:
    platform.falls_at, platform.shows = T0 - timedelta(minutes=20), FEW
    incident_id = alert(counting, "critical")
    assert carry(counting, incident_id, "run-1") == WAITS
    before = found_at(counting, incident_id)
    assert Record.INPUTS in before
    platform.shows = None
    wait(counting, clock, incident_id, 12)
    assert not assessment(counting, incident_id)["unproven"]
    after = found_at(counting, incident_id)
    assert all(after[step] > at for step, at in before.items())


def closed(world: World, clock: Clock) -> Incident:
    """An incident that an alert opened, and that was fixed five minutes ago."""
    incident_id = report(world, type=IncidentType.PREDICTION_ERROR)
    with world.transaction() as conn:
        for status in (Status.INVESTIGATING, Status.RESOLVED, Status.CLOSED):
            incidents.set_status(conn, incident_id, status, why="the lead fixed it", actor="the lead", now=clock())
    clock.advance(minutes=5)
    return incident_of(world, incident_id)


def test_an_alert_that_reopened_an_incident_and_is_ruled_out_later_ends_as_it_had_ended(
    counting: World, platform: Counting, clock: Clock
) -> None:
    first = closed(counting, clock)
    incident_id = a_ticket(counting, platform)
    assert incident_id == first.id
    platform.shows = None
    wait(counting, clock, incident_id, 60, every=4)
    now = incident_of(counting, incident_id)
    assert (now.status, now.resolved_at, now.closed_at) == (Status.CLOSED, first.resolved_at, first.closed_at)


def test_a_run_that_is_killed_after_the_reopening_alert_was_ruled_out_leaves_nothing_to_do(
    counting: World, platform: Counting, clock: Clock
) -> None:
    closed(counting, clock)
    incident_id = a_ticket(counting, platform)
    platform.shows = None
    while incident_of(counting, incident_id).status.is_open:
        clock.advance(hours=4)
        run = runs.take(counting, incident_id, "killed")
        assert run is not None
        unproven.look_again(run)
    assert carry(counting, incident_id, "killed").startswith("false alarm")
    assert incident_of(counting, incident_id).status is Status.CLOSED
    assert recorded(counting, incident_id, Record.CONTAINMENT) == {}
    assert platform.applied == {}


def test_a_ticket_that_reopened_an_incident_sends_no_updates(
    counting: World, platform: Counting, clock: Clock, notifier: LedgerNotifier
) -> None:
    closed(counting, clock)
    incident_id = a_ticket(counting, platform)
    deliver(counting)
    before = len(notifier.sent)
    for _ in range(8):
        clock.advance(minutes=30)
        deliver(counting)
    assert len(notifier.sent) - before <= 2, "nobody answers: that is asked, and no update is sent every half hour"
    assert incident_of(counting, incident_id).status.is_open


# --- the pinned baseline


def pinned(world: World) -> Span | None:
    with world.transaction() as conn:
        return baseline_pins.get(conn, MODEL)


def look(world: World) -> ModelMetrics:
    return with_history(world, world.platform.metrics(MODEL, since=world.now() - timedelta(hours=1)), None)


def test_the_time_of_an_open_incident_is_never_pinned_as_healthy(counting: World, platform: Counting, clock: Clock) -> None:
    blocks, platform.outcome_blocks = platform.outcome_blocks, no_blocks  # type: ignore[method-assign]
    began = clock()
    incident_id = report(counting, by_alert=False, description="it misses pumps")
    carry(counting, incident_id, "run-1")
    platform.falls_at, platform.outcome_blocks = began, blocks  # type: ignore[method-assign]
    clock.advance(days=9)
    look(counting)
    found = pinned(counting)
    assert found is None or found.until <= began


def test_a_pinned_time_that_the_platform_no_longer_holds_is_pinned_anew(counting: World, platform: Counting, clock: Clock) -> None:
    look(counting)
    first = pinned(counting)
    assert first is not None
    clock.advance(days=200)
    platform.begins = clock() - timedelta(days=90)
    assert look(counting).history is not None
    anew = pinned(counting)
    assert anew is not None
    assert anew.since >= platform.begins


def test_a_platform_that_has_nothing_for_a_moment_moves_no_pin(counting: World, platform: Counting, clock: Clock) -> None:
    look(counting)
    first = pinned(counting)
    platform.begins = clock() + timedelta(days=1)
    look(counting)
    assert pinned(counting) == first


def test_a_false_alarm_about_something_else_leaves_the_pin(counting: World) -> None:
    look(counting)
    first = pinned(counting)
    assert first is not None
    incident_id = report(counting, type=IncidentType.INFRASTRUCTURE, by_alert=False, description="the server is down")
    with counting.transaction() as conn:
        _ended(conn, counting, incidents.get(conn, incident_id), "it answers", "the lead", is_false=True)
    assert pinned(counting) == first


def test_a_call_of_a_fall_that_people_refute_is_pinned_anew(counting: World) -> None:
    look(counting)
    incident_id = report(counting, by_alert=False, description="F1 fell")
    with counting.transaction() as conn:
        _ended(conn, counting, incidents.get(conn, incident_id), "a test set", "the lead", is_false=True)
    assert pinned(counting) is None
