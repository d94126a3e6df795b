"""What each person may do to an incident now: the buttons, and why others are not there."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from sqlalchemy import Engine

from mlrunbook.base.tokens import Identity, Scope
from mlrunbook.domain.actions import PlanKind
from mlrunbook.domain.incident import Incident, IncidentType, Severity, Status
from mlrunbook.domain.resolution.deciding import Standing
from mlrunbook.gateway.console.possible import Act, Asked, Case, Possible, case_of, of, possible
from mlrunbook.response.world import World
from mlrunbook.store import incidents
from tests.fakes import Clock, FileWorld, LedgerNotifier, LedgerOrchestrator, empty_store, world_of
from tests.response.carrying import carry
from tests.response.people import plan, report, say

NOW = datetime(2026, 3, 2, 3, 0, tzinfo=UTC)
ALL = frozenset({Scope.READ, Scope.OPERATE, Scope.APPROVE})
LEAD = Identity("t1", "Ann Lee", "ml_team_lead", ALL)
ON_CALL = Identity("t2", "Bob Roe", "oncall_ml_engineer", ALL)
READER = Identity("t3", "Cas Vu", None, frozenset({Scope.READ}))
RESPONDERS = frozenset({"oncall_ml_engineer", "ml_team_lead"})

OPEN = Case(
    Incident(
        "incident_7",
        "pump_failure",
        IncidentType.PERFORMANCE_DEGRADATION,
        "performance",
        Severity.HIGH,
        Status.CONTAINED,
        "F1 fell",
        "",
        "alertmanager",
        NOW,
    ),
    contain_roles=RESPONDERS,
    isolation_roles=frozenset({"security_officer"}),
    closes_itself=True,
)
WAITING = Asked("a" * 64, PlanKind.RESOLUTION, Standing.PENDING, False, True, frozenset({"ml_team_lead"}))


def acts(found: Iterable[Possible]) -> set[Act]:
    return {one.act for one in found if one.is_possible}


def as_status(case: Case, status: Status) -> Case:
    return replace(case, incident=replace(case.incident, status=status))


def test_who_may_only_read_is_offered_nothing_and_every_act_says_why() -> None:
    found = possible(replace(OPEN, asked=(WAITING,), in_force=("stop serving",)), READER)
    assert acts(found) == set()
    assert all(one.why_not.endswith(".") for one in found)


def test_a_plan_is_offered_to_whom_policy_lets_decide() -> None:
    case = replace(OPEN, asked=(WAITING,))
    assert {Act.APPROVE, Act.REJECT} <= acts(possible(case, LEAD))
    assert "ML Team Lead" in of(possible(case, ON_CALL), Act.APPROVE, "aaaa").why_not
    assert of(possible(OPEN, LEAD), Act.APPROVE).why_not


def test_who_asked_for_it_or_has_said_yes_does_not_count_twice() -> None:
    two = replace(WAITING, count=2, yes_of=frozenset({LEAD.person}))
    assert not of(possible(replace(OPEN, asked=(two,)), LEAD), Act.APPROVE).is_possible
    own = replace(WAITING, requesters=frozenset({LEAD.person}))
    assert not of(possible(replace(OPEN, asked=(own,)), LEAD), Act.APPROVE).is_possible
    assert of(possible(replace(OPEN, asked=(own,)), LEAD), Act.REJECT).is_possible


def test_what_is_approved_may_still_be_rejected_until_it_begins() -> None:
    approved = replace(WAITING, standing=Standing.APPROVED, waits=False)
    found = possible(replace(OPEN, asked=(approved,)), LEAD)
    assert (of(found, Act.APPROVE).is_possible, of(found, Act.REJECT).is_possible) == (False, True)
    begun = possible(replace(OPEN, asked=(replace(approved, begun=True),)), LEAD)
    assert not of(begun, Act.REJECT).is_possible


@pytest.mark.parametrize("status", [Status.CLOSED, Status.FALSE_ALARM])
def test_nothing_is_offered_once_it_is_over(status: Status) -> None:
    assert acts(possible(as_status(replace(OPEN, asked=(WAITING,)), status), LEAD)) == set()


def test_a_measured_incident_closes_itself_or_as_a_false_alarm() -> None:
    closing = of(possible(OPEN, LEAD), Act.CLOSE)
    assert closing.is_possible
    assert "false alarm" in closing.note
    assert not of(possible(as_status(OPEN, Status.MONITORING), LEAD), Act.CLOSE).is_possible
    assert not of(possible(replace(OPEN, closes_itself=False), LEAD), Act.CLOSE).note
    assert not of(possible(as_status(OPEN, Status.RESOLVED), LEAD), Act.CLOSE).note


def test_what_is_underway_or_unsettled_keeps_it_open() -> None:
    assert not of(possible(replace(OPEN, underway=("stop serving",)), LEAD), Act.CLOSE).is_possible
    assert not of(possible(replace(OPEN, unsettled=("stop serving",)), LEAD), Act.CLOSE).is_possible


def test_containment_is_reversed_where_there_is_some() -> None:
    assert Act.REVERSE not in acts(possible(OPEN, ON_CALL))
    assert Act.REVERSE in acts(possible(replace(OPEN, in_force=("stop serving",)), ON_CALL))
    isolated = replace(OPEN, in_force=("isolate",), isolated_for="incident_7", isolated_here=True)
    assert acts(possible(isolated, ON_CALL)).isdisjoint({Act.CONTAIN, Act.REVERSE, Act.CLOSE})
    officer = Identity("t4", "Dee Fox", "security_officer", ALL)
    assert Act.CLOSE in acts(possible(isolated, officer))


def test_of_a_model_that_nobody_knows_nothing_is_changed() -> None:
    found = acts(possible(replace(OPEN, model_is_unknown=True, closes_itself=False), LEAD))
    assert found.isdisjoint({Act.CONTAIN, Act.RESOLVE})
    assert Act.CLOSE in found


def test_who_has_it_hands_it_over_and_others_may_take_it() -> None:
    mine = replace(OPEN, answered_by=LEAD.name)
    assert Act.ACKNOWLEDGE not in acts(possible(mine, LEAD))
    assert Act.ACKNOWLEDGE in acts(possible(mine, ON_CALL))
    assert Act.GO_ON not in acts(possible(mine, LEAD))
    assert Act.GO_ON in acts(possible(replace(mine, automation_held=True), LEAD))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def acting(engine: Engine, tmp_path, clock: Clock) -> World:  # type: ignore[no-untyped-def]
    empty_store(engine)
    files = FileWorld(tmp_path / "world.json", clock)
    return world_of(engine, files, clock, notifier=LedgerNotifier(), orchestrator=LedgerOrchestrator())


def test_a_real_incident_waits_for_the_lead_until_the_plan_is_rejected(acting: World) -> None:
    incident_id = report(acting)
    carry(acting, incident_id, "run-1")
    asked = plan(acting, incident_id)
    assert asked is not None

    def now_possible() -> tuple[Possible, ...]:
        with acting.transaction() as conn:
            return possible(case_of(conn, acting.policy, incidents.get(conn, incident_id), now=acting.now()), LEAD)

    found = now_possible()
    assert {Act.REVERSE, Act.CONTAIN, Act.ACKNOWLEDGE} <= acts(found)
    assert of(found, Act.APPROVE, asked.digest).is_possible
    say(acting, incident_id, "rejected")
    assert not of(now_possible(), Act.APPROVE, asked.digest).is_possible
