"""The hourly audit: what the ladder asks for against what was delivered."""

from __future__ import annotations

import pytest
from sqlalchemy import delete, update

from mlrunbook.domain.incident import Severity
from mlrunbook.response.communication.escalation import acknowledge
from mlrunbook.response.communication.missed_pages import audit
from mlrunbook.response.world import World
from mlrunbook.store import tables
from mlrunbook.store.outbox import RESPONSE
from tests.fakes import Clock, LedgerNotifier
from tests.response.people import deliver, report, told

VP = "VP Engineering"


def lose(world: World, key: str, *, cancelled: bool = False) -> None:
    """Somebody's clean-up of the outbox went too far."""
    rows = tables.outbox.c.dedup_key.contains(key)
    with world.transaction() as conn:
        conn.execute(update(tables.outbox).where(rows).values(cancelled_at=world.now()) if cancelled else delete(tables.outbox).where(rows))


def pages(notifier: LedgerNotifier) -> list[str]:
    return [m.body.split(":")[0] for m in notifier.pages()]


@pytest.mark.parametrize("severity", list(Severity))
def test_where_everything_went_out_nothing_is_missing(world: World, clock: Clock, notifier: LedgerNotifier, severity: Severity) -> None:
    report(world, severity, by_alert=False)
    for hour in (0, 0.02, 0.25, 0.5, 1, 2, 4, 24, 30):
        clock.at = clock.at.replace(day=29, hour=0, minute=30)
        clock.advance(hours=hour)
        deliver(world)
        sent = len(notifier.sent)
        assert audit(world) == []
        deliver(world)
        assert len(notifier.sent) == sent


@pytest.mark.parametrize("cancelled", [False, True])
def test_a_page_that_was_lost_goes_out_now_and_is_recorded_once(
    world: World, clock: Clock, notifier: LedgerNotifier, cancelled: bool
) -> None:
    incident_id = report(world, Severity.HIGH, by_alert=False)
    deliver(world)
    lose(world, ":vp_engineering:", cancelled=cancelled)
    clock.advance(hours=2)
    deliver(world)
    assert VP not in pages(notifier)
    assert audit(world) == [], "a page that has just fallen due is on its way"
    clock.advance(minutes=5)
    [said] = audit(world)
    assert said == f"{incident_id}: VP Engineering was to be paged 2026-03-29 02:30 UTC and was not: paged now"
    deliver(world)
    assert pages(notifier).count(VP) == 1
    assert audit(world) == []
    deliver(world)
    assert pages(notifier).count(VP) == 1
    assert [t for t in told(world, incident_id, "response") if t.startswith("Escalation audit: VP Engineering was to be paged")]


def test_a_role_that_has_acknowledged_needs_no_page(world: World, clock: Clock) -> None:
    incident_id = report(world, Severity.MEDIUM, by_alert=False)
    with world.transaction() as conn:
        acknowledge(conn, incident_id, by="the on-call", role="oncall_ml_engineer", now=clock())
    clock.advance(minutes=20)
    deliver(world)
    assert audit(world) == []


def test_a_page_whose_channel_fails_is_tried_again_and_not_doubled(world: World, clock: Clock, notifier: LedgerNotifier) -> None:
    report(world, Severity.CRITICAL, by_alert=False)
    notifier.fail = {"page"}
    deliver(world)
    clock.advance(minutes=6)
    found = audit(world)
    assert len(found) == 3
    assert all("has not gone out (channel page does not answer): tried again now" in sentence for sentence in found)
    assert len(audit(world)) == 3, "an hour later it is no better, and the audit says so again"
    notifier.fail = set()
    deliver(world)
    assert sorted(pages(notifier)) == ["Engineering Manager", "ML Team Lead", "On-Call ML Engineer"]
    assert audit(world) == []


def test_a_response_time_that_nobody_watched_is_asked_for_now(world: World, clock: Clock, notifier: LedgerNotifier) -> None:
    incident_id = report(world, Severity.CRITICAL, by_alert=False)
    deliver(world)
    with world.transaction() as conn:
        conn.execute(delete(tables.outbox).where(tables.outbox.c.kind == RESPONSE))
    clock.advance(minutes=21)
    deliver(world)
    assert VP not in pages(notifier)
    assert audit(world) == [f"{incident_id}: nobody was asked although the response time ended 2026-03-29 00:45 UTC: asked now"]
    deliver(world)
    assert VP in pages(notifier)
    assert audit(world) == []


def test_an_incident_that_is_over_is_not_looked_at(world: World, clock: Clock) -> None:
    incident_id = report(world, Severity.CRITICAL, by_alert=False)
    lose(world, ":oncall_ml_engineer:")
    with world.transaction() as conn:
        conn.execute(update(tables.incidents).where(tables.incidents.c.id == incident_id).values(status="false_alarm"))
    clock.advance(hours=3)
    assert audit(world) == []
