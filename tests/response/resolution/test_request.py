"""A path that a person starts alone: what is kept of it, and that a person still decides."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from prefect import Flow

from flows.materialize import materialize
from flows.retrain import retrain
from flows.rollback import rollback
from flows.threshold import threshold
from mlrunbook import bootstrap
from mlrunbook.domain.incident import Severity
from mlrunbook.domain.resolution.request import Request
from mlrunbook.response.world import World
from mlrunbook.store import incidents
from tests.fakes import MODEL
from tests.plain_engine import PlainEngine, Suspended
from tests.response.people import plan, recorded

WHY = {"reason": "the planners ask for it", "severity": Severity.HIGH}


def asked_back(world: World) -> tuple[dict[str, Any], dict[str, Any]]:
    row = {"path": "rollback", "target_version": "v1.5.0"}
    return {"model": MODEL, "targetVersion": "v1.5.0", "rolledBackBy": "anna"}, row


def asked_for_rows(world: World) -> tuple[dict[str, Any], dict[str, Any]]:
    since = world.now() - timedelta(hours=6)
    row = {"path": "materialize", "views": ["asset_sensors", "asset_wear"], "since": since.isoformat(), "until": None}
    return {"model": MODEL, "lookBackHours": 6, "requestedBy": "anna"}, row


def asked_to_retrain(world: World) -> tuple[dict[str, Any], dict[str, Any]]:
    start, end = world.now() - timedelta(days=20), world.now() - timedelta(hours=1)
    row = {"path": "retrain", "start_date": start.isoformat(), "end_date": end.isoformat()}
    return {"model_name": MODEL, "start_date": start, "end_date": end, "version": "", "requestedBy": "anna"}, row


def asked_for_a_threshold(world: World) -> tuple[dict[str, Any], dict[str, Any]]:
    return {"model": MODEL, "threshold": 0.6, "changedBy": "anna"}, {"path": "threshold", "threshold": 0.6}


@pytest.mark.parametrize(
    ("flow", "asked"),
    [(rollback, asked_back), (materialize, asked_for_rows), (retrain, asked_to_retrain), (threshold, asked_for_a_threshold)],
    ids=["A", "B", "C", "D"],
)
def test_the_path_is_kept_as_it_was_asked_for_and_its_plan_waits_for_a_person(
    world: World, flow: Flow[..., Any], asked: Callable[[World], tuple[dict[str, Any], dict[str, Any]]]
) -> None:
    parameters, row = asked(world)
    with bootstrap.using(world), pytest.raises(Suspended):
        PlainEngine().run(flow, "run-1", **parameters, **WHY)
    with world.transaction() as conn:
        (incident,) = incidents.find(conn, model=MODEL)
    kept = recorded(world, incident.id, "request")
    assert kept == {**row, "reason": "the planners ask for it", "by": "anna"}
    offered = plan(world, incident.id)
    assert offered is not None
    assert offered.path is Request.from_record(kept).path
