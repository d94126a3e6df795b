"""Step 6: the review is held within 48 hours, or people are asked for it until it is."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlrunbook.domain.errors import Refused
from mlrunbook.domain.incident import Severity, Status
from mlrunbook.domain.review.review import next_review_reminder
from mlrunbook.response.lifecycle import runs
from mlrunbook.response.review import closing, reviews
from mlrunbook.response.world import World
from mlrunbook.store import incidents, records
from tests.fakes import Clock, LedgerNotifier
from tests.response.carrying import carry
from tests.response.people import deliver, incident_of, report, told

DUE = datetime(2026, 3, 30, tzinfo=UTC)


@given(minutes=st.integers(-6000, 6000))
def test_the_next_reminder_is_ahead_and_none_is_skipped(minutes: int) -> None:
    now = DUE + timedelta(minutes=minutes)
    at = next_review_reminder(DUE, now, before_h=24, overdue_every_h=24)
    assert at > now
    assert at - now <= timedelta(hours=24) or at == DUE - timedelta(hours=24)
    assert (at - DUE) % timedelta(hours=24) == timedelta(0)


def asked(notifier: LedgerNotifier) -> list[str]:
    return [m.body.split(":")[0] for m in notifier.pages() if "not approved yet" in m.body]


def test_a_reminder_comes_before_and_escalation_after_until_it_is_signed(
    world: World, clock: Clock, notifier: LedgerNotifier, closed: str
) -> None:
    due = incident_of(world, closed).review_due_at
    assert due is not None
    clock.at = due - timedelta(hours=24)
    deliver(world)
    assert sorted(m.channel for m in notifier.sent if m.subject.startswith("[REVIEW DUE]")) == ["incidents", "tickets"]
    assert asked(notifier) == []
    for day in range(3):
        clock.at = due + timedelta(days=day)
        deliver(world)
    assert asked(notifier) == ["ML Team Lead", "Engineering Manager", "Engineering Manager"]
    assert f"mlrunbook incidents sign-review {closed}" in notifier.pages()[-1].body
    assert "Respond by" not in notifier.pages()[-1].body
    assert sum("Overdue: the review" in text for text in told(world, closed, "review")) == 3
    with world.transaction() as conn:
        for part, who, role in (("reviewed", "the lead", "ml_team_lead"), ("approved", "the manager", "engineering_manager")):
            reviews.sign(conn, world.policy, closed, part, reviews.Signer(who, role), now=clock())  # type: ignore[arg-type]
    clock.advance(days=5)
    deliver(world)
    assert len(asked(notifier)) == 3


def test_after_days_of_silence_it_is_asked_for_once(world: World, clock: Clock, notifier: LedgerNotifier, closed: str) -> None:
    clock.advance(days=30)
    deliver(world)
    assert len(asked(notifier)) <= 1
    assert len([m for m in notifier.sent if m.subject.startswith("[REVIEW DUE]")]) == 0


def test_a_review_of_an_incident_that_is_open_again_is_not_asked_for(
    world: World, clock: Clock, notifier: LedgerNotifier, closed: str
) -> None:
    with world.transaction() as conn:
        incidents.reopen(conn, closed, why="it is back", actor="a test", now=clock())
    clock.advance(days=3)
    deliver(world)
    assert asked(notifier) == []


def test_a_low_incident_gets_a_ticket_and_no_page(world: World, clock: Clock, notifier: LedgerNotifier) -> None:
    incident_id = report(world, Severity.LOW, by_alert=False)
    now = clock()
    with world.transaction() as conn:
        for status in (Status.RESOLVED, Status.CLOSED):
            incidents.set_status(conn, incident_id, status, why="mended", actor="a test", now=now)
        incidents.set_review_due(conn, incident_id, now + timedelta(hours=48))
        closing.draft(conn, world.policy, incident_id, now=now)
    clock.advance(days=2)
    deliver(world)
    clock.advance(days=1)
    deliver(world)
    assert notifier.pages() == []
    assert any(m.channel == "tickets" and "not approved yet" in m.body for m in notifier.sent)


def test_an_incident_closes_by_itself_only_on_a_measured_recovery(world: World, clock: Clock) -> None:
    incident_id = report(world)
    assert carry(world, incident_id, "run-1") == "pending"
    run = runs.take(world, incident_id, "run-1")
    assert run is not None
    for recorded in (None, {"recovered": False}, {"recovered": None}):
        with run.write() as conn:
            records.forget(conn, incident_id, "recovery")
            if recorded:
                records.put(conn, incident_id, "recovery", recorded, now=clock())
        with pytest.raises(Refused):
            closing.announce_resolution(run)
    assert incident_of(world, incident_id).status is Status.CONTAINED
