"""Two models, an incident on each: whatever is done to one by itself, by order or by plan, the other's world stays as it was."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mlrunbook.domain.actions import Order, PlanKind
from mlrunbook.domain.detection.reports import Origin, Report
from mlrunbook.domain.errors import RunbookError
from mlrunbook.domain.incident import IncidentType, Severity, Status
from mlrunbook.domain.policy.owned import ModelRules
from mlrunbook.domain.policy.policy import Policy
from mlrunbook.response.containment.emergency import Requested, request
from mlrunbook.response.lifecycle.opening import take_in
from mlrunbook.response.world import World
from mlrunbook.store import incidents, journal, plans
from tests.fake_fleet import FileFleet
from tests.fakes import MODEL, Clock, FileWorld
from tests.response.carrying import carry
from tests.response.containment.test_emergency import ONCALL
from tests.response.people import approve, deliver, incident_of, plan

CHURN = "churn"
PENDING = [{"id": n, "asset": f"asset_{n}", "flagged": False} for n in (1, 2, 3)]
POLICY = Policy(models={MODEL: ModelRules(owner="Reliability ML"), CHURN: ModelRules(owner="Customer ML")})


@pytest.fixture
def fleet(tmp_path: Path, clock: Clock) -> FileFleet:
    """Both models are broken in the same way."""
    made = FileFleet(*(FileWorld(tmp_path / f"{name}.json", clock, model=name) for name in (MODEL, CHURN)))
    for one in made.of.values():
        one.set(work_orders=PENDING)
    return made


@pytest.fixture
def world(world: World, fleet: FileFleet) -> World:
    return replace(world, platform=fleet, runtime=fleet, features=None, policy=POLICY)  # type: ignore[arg-type]


def report(world: World, model: str, severity: Severity = Severity.MEDIUM, *, by_alert: bool = True) -> str:
    type_ = IncidentType.PERFORMANCE_DEGRADATION
    reporter, origin = ("alertmanager", Origin.ALERT) if by_alert else ("anna", Origin.PERSON)
    told = Report(model, type_, world.policy.family_of(type_), severity, "F1 fell 40 %", reporter, origin=origin)
    with world.transaction() as conn:
        return take_in(conn, world.policy, told, now=world.now())[0].id


def order(world: World, incident_id: str, what: Order, version: str | None = None) -> None:
    with world.transaction() as conn:
        incident = incidents.get(conn, incident_id, lock=True)
        request(conn, world.policy, incident, Requested(what, ONCALL, "it harms", version), now=world.now())


def what_is_recorded_of(world: World, model: str) -> list[Any]:
    """The journal and the plans of this model's incidents."""
    with world.transaction() as conn:
        mine = [i.id for i in incidents.find(conn, model=model)]
        return [[(r.id, r.state) for r in journal.of_incident(conn, i)] for i in mine] + [plans.standing(conn, i, *PlanKind) for i in mine]


@pytest.mark.parametrize(("acted_on", "other"), [(MODEL, CHURN), (CHURN, MODEL)])
@pytest.mark.parametrize("trouble", ["dangerous", "degraded"])
def test_containment_orders_and_the_fix_of_one_change_nothing_of_the_other(
    world: World, fleet: FileFleet, clock: Clock, acted_on: str, other: str, trouble: str
) -> None:
    ours, theirs = report(world, acted_on), report(world, other)
    fleet.of[acted_on].set(bad_versions={"v2.0.0": trouble})
    before, recorded = fleet.of[other].state, what_is_recorded_of(world, other)

    assert carry(world, ours, "run-1") == "pending"
    automatic = dict(fleet.of[acted_on].applied)
    assert automatic, "something was contained by itself"
    for what, version in ((Order.HALT_WORK_ORDERS, None), (Order.ROUTE, "v1.5.0"), (Order.STOP_SERVING, None), (Order.TAKE_BACK, None)):
        clock.advance(minutes=1)
        order(world, ours, what, version)
        carry(world, ours, "run-1")
        deliver(world)
    assert fleet.of[acted_on].applied.get("scale:0") == 1
    assert plan(world, ours) is not None
    approve(world, ours)
    clock.advance(minutes=2)
    assert carry(world, ours, "run-1") == "closed"
    assert fleet.of[acted_on].state["serving"] == "v1.5.0"

    assert fleet.of[other].state == before
    assert fleet.of[other].applied == {}
    assert what_is_recorded_of(world, other) == recorded
    with world.transaction() as conn:
        assert {row.model for row in journal.of_incident(conn, ours)} == {acted_on}
        assert journal.of_incident(conn, theirs) == []
    assert incident_of(world, theirs).status is Status.DETECTED


def test_both_are_contained_each_by_its_own_incident(world: World, fleet: FileFleet) -> None:
    """At the same time, and each journal names its own model alone."""
    for one in fleet.of.values():
        one.set(bad_versions={"v2.0.0": "dangerous"})
    mine = {model: report(world, model) for model in (MODEL, CHURN)}
    for model, incident_id in mine.items():
        carry(world, incident_id, f"run-{model}")
    assert fleet.of[MODEL].applied == fleet.of[CHURN].applied != {}
    with world.transaction() as conn:
        for model, incident_id in mine.items():
            assert {row.model for row in journal.of_incident(conn, incident_id)} == {model}


@pytest.mark.parametrize("model", ["fraud", "chrun"])
def test_a_critical_report_on_a_model_that_nobody_knows_changes_neither(world: World, fleet: FileFleet, model: str) -> None:
    before = {name: one.state for name, one in fleet.of.items()}
    standing = world.known_models.of(world.policy, [model])[model]
    told = Report(model, IncidentType.PREDICTION_ERROR, "performance", Severity.CRITICAL, "it flags every pump", "anna")
    with world.transaction() as conn:
        incident, _ = take_in(conn, world.policy, told, now=world.now(), standing=standing)
    for run in ("run-1", "run-2"):
        assert carry(world, incident.id, run) == "not ours"
    deliver(world)
    assert {name: one.state for name, one in fleet.of.items()} == before


def test_a_model_that_policy_names_and_nothing_serves_is_contained_nowhere(world: World, fleet: FileFleet) -> None:
    world = replace(world, policy=Policy(models={"fraud": ModelRules(owner="Fraud ML")}))
    before = {name: one.state for name, one in fleet.of.items()}
    incident_id = report(world, "fraud", Severity.CRITICAL, by_alert=False)
    attempts: list[Callable[[], object]] = [
        lambda: carry(world, incident_id, "run-1"),
        lambda: order(world, incident_id, Order.STOP_SERVING),
        lambda: carry(world, incident_id, "run-2"),
    ]
    for attempt in attempts:
        try:
            attempt()
        except RunbookError:  # refused is as good as not done
            continue
    assert {name: one.state for name, one in fleet.of.items()} == before
