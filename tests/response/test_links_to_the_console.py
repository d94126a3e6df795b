"""Every page, notice and reminder of an incident links to the page of the console where its reader acts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mlrunbook.domain.actions import PlanKind
from mlrunbook.domain.incident import IncidentType as Type
from mlrunbook.domain.incident import Severity, Subtype
from mlrunbook.response.world import World
from mlrunbook.store import outbox
from tests.fakes import Clock, LedgerNotifier
from tests.response.carrying import carry
from tests.response.people import approve, deliver, incident_of, plan, report

URL = "https://mlrunbook.example.com"


@pytest.fixture
def world(world: World) -> World:
    return replace(world, public_url=URL)


def test_every_message_of_an_incident_links_to_where_its_reader_acts(world: World, clock: Clock, notifier: LedgerNotifier) -> None:
    incident_id = report(world)
    carry(world, incident_id, "run-1")
    deliver(world)
    clock.advance(minutes=31)  # pages of the ladder, a status update
    deliver(world)
    asked = plan(world, incident_id)
    assert asked is not None
    approve(world, incident_id)
    clock.advance(minutes=2)
    assert carry(world, incident_id, "run-1") == "closed"
    deliver(world)
    due = incident_of(world, incident_id).review_due_at
    assert due is not None
    clock.at = due
    deliver(world)
    clock.advance(days=40)  # action items are overdue
    deliver(world)

    home = f"{URL}/incidents/{incident_id}"
    decisions = {f"{home}/approve?plan={one.digest[:12]}" for one in (asked, plan(world, incident_id, PlanKind.MITIGATION)) if one}
    assert {m.link for m in notifier.sent} == {home, *decisions, f"{home}/review", f"{URL}/actions"}
    for message in notifier.sent:
        assert message.body.splitlines().count(f"Console: {message.link}") == 1
    by_link = {link: [m for m in notifier.sent if m.link == link] for link in {m.link for m in notifier.sent}}
    assert all("incidents approve" in m.body for m in by_link[f"{home}/approve?plan={asked.digest[:12]}"])
    assert all("sign-review" in m.body for m in by_link[f"{home}/review"])
    assert all("mlrunbook actions done" in m.body for m in by_link[f"{URL}/actions"])
    assert {"[INCIDENT]", "[UPDATE]", "[RESOLVED]"} <= {m.subject.split()[0] for m in by_link[home]}
    assert any(m.page for m in by_link[home])


def test_a_ticket_and_a_reminder_of_the_law_link_too(world: World, clock: Clock, notifier: LedgerNotifier) -> None:
    low = report(world, Severity.LOW, by_alert=False)
    breach = report(world, Severity.HIGH, Type.SECURITY, by_alert=False, subtype=Subtype.DATA_LEAKAGE)
    carry(world, breach, "run-1")
    deliver(world)
    clock.advance(hours=71)
    deliver(world)
    assert any(m.channel == "tickets" and m.link == f"{URL}/incidents/{low}" for m in notifier.sent)
    assert any(m.subject.startswith("[DEADLINE]") and m.link == f"{URL}/incidents/{breach}" for m in notifier.sent)
    assert all(f"Console: {m.link}" in m.body.splitlines() for m in notifier.sent)


def test_a_row_from_before_there_were_links_goes_out_with_the_incidents(world: World, notifier: LedgerNotifier) -> None:
    incident_id = report(world)
    with world.transaction() as conn:
        payload = {"channel": "incidents", "to": "#ml-incidents", "subject": "old", "body": "old", "console": 7}
        outbox.put(conn, "message", "old", payload, now=world.now(), incident_id=incident_id)
    deliver(world)
    (old,) = (m for m in notifier.sent if m.subject == "old")
    assert old.link == f"{URL}/incidents/{incident_id}"


def test_without_a_public_address_messages_are_as_they_were(world: World, notifier: LedgerNotifier) -> None:
    alone = replace(world, public_url=None)
    incident_id = report(alone)
    carry(alone, incident_id, "run-1")
    deliver(alone)
    assert notifier.sent
    assert all(m.link is None and "Console:" not in m.body for m in notifier.sent)
