"""What time asks for while an incident is open, on a clock of the test's: the ladder, an answer, updates. It is the night clocks change."""

from __future__ import annotations

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlrunbook.domain.communication.escalation import ladder, unanswered
from mlrunbook.domain.incident import Severity, Status
from mlrunbook.domain.policy.policy import Policy
from mlrunbook.domain.roles import Role
from mlrunbook.gateway.dispatcher import Dispatcher
from mlrunbook.response.communication import escalation
from mlrunbook.response.communication.escalation import acknowledge
from mlrunbook.response.communication.notifications import stop
from mlrunbook.response.world import World
from mlrunbook.store import incidents, outbox
from mlrunbook.store.outbox import RESPONSE
from tests.fakes import Clock, LedgerNotifier
from tests.response.carrying import carry
from tests.response.people import approve, deliver, recorded, report, told

ONCALL, LEAD, MANAGER, VP = "On-Call ML Engineer", "ML Team Lead", "Engineering Manager", "VP Engineering"
MINUTES = (0, 1, 14, 15, 29, 30, 59, 60, 119, 120, 239, 240, 1439, 1440, 3000)


def walk(world: World, clock: Clock, notifier: LedgerNotifier) -> list[tuple[int, str]]:
    """(minute, who) of every page."""
    start, seen = clock.at, []
    for minute in MINUTES:
        clock.at = start + timedelta(minutes=minute)
        before = len(notifier.pages())
        deliver(world)
        seen += sorted((minute, m.body.split(":")[0]) for m in notifier.pages()[before:])
    return seen


@pytest.mark.parametrize(
    ("severity", "unheard", "heard"),
    [
        (
            Severity.CRITICAL,
            [(0, MANAGER), (0, LEAD), (0, ONCALL), (15, VP), (120, VP)],
            [(0, MANAGER), (0, LEAD), (0, ONCALL), (120, VP)],
        ),
        (Severity.HIGH, [(1, LEAD), (1, ONCALL), (60, MANAGER), (120, VP)], [(60, MANAGER), (120, VP)]),
        (
            Severity.MEDIUM,
            [(1, ONCALL), (30, LEAD), (60, MANAGER), (120, VP), (240, VP)],
            [(30, LEAD), (60, MANAGER), (120, VP)],
        ),
        (Severity.LOW, [], []),
    ],
)
def test_the_whole_ladder_of_each_severity(
    world: World, clock: Clock, notifier: LedgerNotifier, severity: Severity, unheard: list[tuple[int, str]], heard: list[tuple[int, str]]
) -> None:
    report(world, severity, by_alert=False)
    assert walk(world, clock, notifier) == unheard
    with world.transaction() as conn:
        for incident in incidents.find(conn, only_open=True):
            incidents.set_status(conn, incident.id, Status.RESOLVED, why="it is well", actor="a test", now=clock())
            incidents.set_status(conn, incident.id, Status.CLOSED, why="it is well", actor="a test", now=clock())
            stop(conn, incident.id, now=clock())
    assert walk(world, clock, notifier) == [], "nothing after the resolution"

    incident_id = report(world, severity, by_alert=False)
    if severity is not Severity.CRITICAL:  # both roles that are paged at once have answered, the ladder to the others goes on
        for role in ("oncall_ml_engineer", *(["ml_team_lead"] if severity is Severity.HIGH else [])):
            with world.transaction() as conn:
                acknowledge(conn, incident_id, by=role, role=role, now=clock())
    else:
        deliver(world)
        with world.transaction() as conn:
            acknowledge(conn, incident_id, by="on-call", role="oncall_ml_engineer", now=clock())
    start = clock.at
    before = len(notifier.pages()) - (3 if severity is Severity.CRITICAL else 0)
    for minute in MINUTES:
        clock.at = start + timedelta(minutes=minute)
        deliver(world)
    assert sorted(m.body.split(":")[0] for m in notifier.pages()[before:]) == sorted(who for _, who in heard)


@given(
    severity=st.sampled_from(Severity),
    minutes=st.integers(0, 2880),
)
def test_a_clock_change_moves_no_rung(severity: Severity, minutes: int) -> None:
    """In elapsed time: on a local clock 02:30 may not exist."""
    policy, utc = Policy(), ZoneInfo("UTC")
    opened = (datetime(2026, 3, 28, tzinfo=utc) + timedelta(minutes=minutes)).astimezone(ZoneInfo("Europe/Berlin"))
    rungs = ladder(severity, opened, policy)
    assert [r.at - opened.astimezone(utc) for r in rungs] == sorted(
        timedelta(minutes=0 if _at_once(policy, r.role, severity) else policy.escalation.of(r.role).after_min or 0) for r in rungs
    )


def _at_once(policy: Policy, role: Role, severity: Severity) -> bool:
    at_once_from = policy.escalation.of(role).at_once_from
    return at_once_from is not None and severity.at_least(at_once_from)


@given(severity=st.sampled_from(Severity), minutes=st.integers(1, 3000))
def test_an_answer_that_is_missing_is_asked_of_a_role_of_the_ladder_that_was_not_paged_before_or_of_the_last(
    severity: Severity, minutes: int
) -> None:
    policy, opened = Policy(), datetime(2026, 3, 29, tzinfo=ZoneInfo("UTC"))
    deadline = opened + timedelta(minutes=minutes)
    asked = unanswered(severity, opened, deadline, policy)
    rungs = ladder(severity, opened, policy)
    assert asked.at == deadline
    if severity is Severity.LOW:
        assert asked.role is Role.ML_TEAM_LEAD
    else:
        paged = {r.role for r in rungs if r.at < deadline}
        assert asked.role not in paged or paged == {r.role for r in rungs}


def test_nobody_answers_and_the_timeline_and_the_review_say_so(world: World, clock: Clock) -> None:
    incident_id = report(world)
    carry(world, incident_id, "run-1")
    clock.advance(minutes=61)
    deliver(world)
    [said] = told(world, incident_id, "response")
    assert said == "Nobody has acknowledged it within the response time (1 hour): the Engineering Manager is asked"
    approve(world, incident_id)
    clock.advance(minutes=2)
    assert carry(world, incident_id, "run-1") == "closed"
    review = recorded(world, incident_id, "review")["markdown"].lower()
    assert "nobody has acknowledged it within the response time" in review


def test_a_low_incident_that_nobody_answers_becomes_a_ticket_and_pages_nobody(world: World, clock: Clock, notifier: LedgerNotifier) -> None:
    incident_id = report(world, Severity.LOW, by_alert=False)
    clock.advance(hours=24)
    deliver(world)
    assert [m.key for m in notifier.sent] == [f"message:{incident_id}:response:tickets"]
    assert LEAD in notifier.sent[0].body


def test_two_dispatchers_that_hold_the_deadline_say_it_once(world: World, clock: Clock, notifier: LedgerNotifier) -> None:
    incident_id = report(world, Severity.CRITICAL, by_alert=False)
    deliver(world)
    clock.advance(minutes=15)
    with world.transaction() as conn:
        [held] = outbox.claim(conn, now=clock(), kinds=(RESPONSE,))
    for _ in range(2):
        with world.transaction() as conn:
            escalation.acknowledgement_overdue(conn, world.policy, held, now=clock())
            outbox.delivered(conn, held, now=clock())
    deliver(world)
    assert len(told(world, incident_id, "response")) == 1
    assert [m.body.split(":")[0] for m in notifier.pages()].count(VP) == 1


def test_a_deadline_that_passes_while_everything_is_down_is_said_when_it_is_back(
    world: World, clock: Clock, notifier: LedgerNotifier
) -> None:
    report(world, Severity.CRITICAL, by_alert=False)
    clock.advance(hours=3)
    deliver(world)
    assert sorted(m.body.split(":")[0] for m in notifier.pages()) == sorted([ONCALL, LEAD, MANAGER, VP, VP])


def test_stakeholders_hear_within_the_hour_although_no_flow_ever_ran(world: World, clock: Clock, notifier: LedgerNotifier) -> None:
    report(world, Severity.HIGH, by_alert=False)
    for _ in range(4):
        clock.advance(minutes=30)
        deliver(world)
    assert [m.key.split(":")[2] for m in notifier.sent if m.channel == "email"] == ["update-1", "update-2", "update-3"]


def test_what_was_missed_while_everything_was_down_is_one_update_and_the_review_names_it(
    world: World, clock: Clock, notifier: LedgerNotifier
) -> None:
    incident_id = report(world)
    carry(world, incident_id, "run-1")
    deliver(world)
    clock.advance(minutes=30)
    deliver(world)
    clock.advance(hours=3)
    deliver(world)
    clock.advance(minutes=30)
    deliver(world)
    sent = [m.key.split(":")[2] for m in notifier.sent if m.channel == "email" and "update" in m.key]
    assert sent == ["update-1", "update-2", "update-3"]
    approve(world, incident_id)
    clock.advance(minutes=2)
    assert carry(world, incident_id, "run-1") == "closed"
    review = recorded(world, incident_id, "review")["markdown"]
    assert "2 of 3 updates went out in time; update 2, due 2026-03-29 01:30 UTC, went out 2 hours 30 minutes late" in review


def test_an_update_that_reached_no_channel_is_late(world: World, clock: Clock, notifier: LedgerNotifier) -> None:
    incident_id = report(world)
    carry(world, incident_id, "run-1")
    notifier.fail = {"email", "incidents"}
    clock.advance(minutes=30)
    Dispatcher(world).turn()
    with world.transaction() as conn:
        [update] = escalation.updates(conn, incident_id, until=clock() + timedelta(minutes=5))
    assert not update.in_time
    assert update.lateness == "update 1, due 2026-03-29 01:00 UTC, did not go out"
