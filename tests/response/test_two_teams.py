"""Two models of two teams fail at the same time: each is judged by its own thresholds, and goes to its own people by its own channels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mlrunbook.base.policy_file import parse
from mlrunbook.domain.actions import PlanKind
from mlrunbook.domain.approval import Decision
from mlrunbook.domain.errors import Invalid, Refused
from mlrunbook.domain.incident import Severity
from mlrunbook.domain.policy.policy import Policy
from mlrunbook.response.execution.approvals import decide
from mlrunbook.response.plan_state import valid_approval
from mlrunbook.response.world import World
from mlrunbook.store import outbox, plans
from tests.fake_fleet import FileFleet
from tests.fakes import MODEL, Clock, FileWorld, LedgerNotifier
from tests.response.carrying import carry
from tests.response.people import deliver, incident_of
from tests.response.test_two_models import CHURN, report

POLICY = parse(f"""
channels:
  pumps: "#pumps"
  pump_pager: pager of Reliability ML
  pump_lead: phone of the pump lead
  customers: "#customers"
  customer_pager: pager of Customer ML
models:
  {MODEL}:
    owner: Reliability ML
    channels: {{incidents: pumps, email: pumps, page: pump_pager, tickets: pumps}}
    escalation:
      ml_team_lead: {{name: Ida, channels: [pump_lead], after_min: 5, at_once_from: null}}
    approvals:
      resolution: {{roles: [vp_engineering], count: 1}}
    severity: {{drops: {{metrics: [{{name: f1, worse: lower, medium: 0.1, high: 0.2}}]}}}}
  "churn*":
    owner: Customer ML
    channels: {{incidents: customers, email: customers, page: customer_pager, tickets: customers}}
    escalation:
      ml_team_lead: {{name: Ole}}
    approvals:
      resolution: {{count: 2}}
    severity: {{drops: {{metrics: [{{name: f1, worse: lower, medium: 0.1, high: 0.95}}]}}}}
""")
PUMPS, CUSTOMERS = {"pumps", "pump_pager", "pump_lead"}, {"customers", "customer_pager"}


@pytest.fixture
def fleet(tmp_path: Path, clock: Clock) -> FileFleet:
    return FileFleet(*(FileWorld(tmp_path / f"{name}.json", clock, model=name) for name in (MODEL, CHURN)))


@pytest.fixture
def world(world: World, fleet: FileFleet) -> World:
    return replace(world, platform=fleet, runtime=fleet, features=None, policy=POLICY)  # type: ignore[arg-type]


@pytest.fixture
def carried(world: World) -> dict[str, str]:
    """The incident of each model, as far as it goes without people."""
    mine = {model: report(world, model) for model in (MODEL, CHURN)}
    for model, incident_id in mine.items():
        assert carry(world, incident_id, f"run-{model}") == "pending"
    return mine


def test_each_is_as_severe_as_its_own_limits_say(world: World, carried: dict[str, str]) -> None:
    assert incident_of(world, carried[MODEL]).severity is Severity.HIGH
    assert incident_of(world, carried[CHURN]).severity is Severity.MEDIUM


def test_pages_and_messages_of_each_go_by_its_own_channels_alone(
    world: World, carried: dict[str, str], clock: Clock, notifier: LedgerNotifier
) -> None:
    for _ in range(7):
        deliver(world)
        clock.advance(minutes=20)
    went = {incident_id: {m.channel for m in notifier.sent if m.incident_id == incident_id} for incident_id in carried.values()}
    assert went[carried[MODEL]] == PUMPS
    assert went[carried[CHURN]] == CUSTOMERS


def test_the_lead_of_each_is_paged_when_its_own_ladder_says(world: World, carried: dict[str, str]) -> None:
    """Ida five minutes after the detection although it is high; Ole, by the ladder of all, after thirty."""

    def minutes(model: str) -> set[float]:
        incident = incident_of(world, carried[model])
        with world.transaction() as conn:
            rows = [
                r for r in outbox.of_incident(conn, incident.id, "page") if r["dedup_key"].startswith(f"page:{incident.id}:ml_team_lead:")
            ]
        ladder = [r for r in rows if r["dedup_key"].count(":") == 3]
        return {(r["not_before"] - incident.detected_at).total_seconds() / 60 for r in ladder}

    assert minutes(MODEL) == {5}
    assert minutes(CHURN) == {30}


def test_each_plan_is_decided_by_its_own_roles_and_by_as_many_people(world: World, carried: dict[str, str]) -> None:
    def approve(model: str, by: str, role: str) -> bool:
        with world.transaction() as conn:
            asked = plans.current(conn, carried[model], PlanKind.RESOLUTION)
            assert asked is not None
            decide(conn, world.policy, asked.incident_id, asked.digest, Decision("approved", by, role, "rest"), now=world.now())
            return valid_approval(conn, world.policy, asked, now=world.now())[0] is not None

    with pytest.raises(Refused):
        approve(MODEL, "Ida", "ml_team_lead")
    assert approve(MODEL, "Vera", "vp_engineering")
    assert not approve(CHURN, "Ole", "ml_team_lead"), "one of two"
    assert approve(CHURN, "Mia", "engineering_manager")


class Silent(LedgerNotifier):
    """The team's own pager has no address yet."""

    def has_address(self, channel: str) -> bool:
        return channel != "pump_pager"


def test_a_channel_of_its_own_without_an_address_leaves_nobody_uncalled(world: World) -> None:
    silent = replace(world, notifier=Silent())
    carry(silent, report(silent, MODEL), "run-1")
    deliver(silent)
    pages = silent.notifier.pages()  # type: ignore[attr-defined]
    assert {"pump_pager", "page"} <= {m.channel for m in pages if m.body.startswith("On-Call ML Engineer")}
    assert "page" not in {m.channel for m in pages if m.body.startswith("ML Team Lead")}, "she has a channel with an address"


def test_a_role_to_which_no_channel_leads_is_paged_by_those_of_on_call(world: World, notifier: LedgerNotifier) -> None:
    nowhere = parse("models: {'*': {escalation: {oncall_ml_engineer: {channels: []}, ml_team_lead: {channels: []}}}}")
    bare = replace(world, policy=nowhere)
    carry(bare, report(bare, MODEL), "run-1")
    deliver(bare)
    assert {m.channel for m in notifier.pages()} == set(Policy().communication.fallback_channels)


def test_no_override_leaves_nobody_to_be_paged_first() -> None:
    with pytest.raises(Invalid, match="after_min"):
        parse("models: {churn: {escalation: {oncall_ml_engineer: {after_min: null}}}}")
