"""Limits that policy gives one model hold where that model is judged live, and nowhere else."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mlrunbook.base.policy_file import parse
from mlrunbook.domain.detection.triage import Triage
from mlrunbook.domain.evaluation.performance import ModelMetrics
from mlrunbook.response.measurement.outcome_window import with_enough_outcomes
from mlrunbook.response.world import World
from mlrunbook.store import records
from tests.response.carrying import carry
from tests.response.people import report

OWN = "severity: {drops: {metrics: [{name: f1, worse: lower, medium: 0.9, high: 0.95}]}}"


@pytest.mark.parametrize(("model", "is_its"), [("predictive_maintenance", True), ("pumps", False)])
def test_the_window_that_a_backtest_suggests_is_the_one_that_triage_looks_at(world: World, model: str, is_its: bool) -> None:
    """As `mlrunbook backtest` prints it."""
    policy = parse(f'models:\n  "{model}":\n    severity:\n      window: {{ min_outcomes: 50000, most_days: 365 }}\n')
    hour = world.platform.metrics("predictive_maintenance")
    asked: list[object] = []

    class Platform:
        def metrics(self, model: str, **span: object) -> ModelMetrics:
            asked.append(span)
            return world.platform.metrics(model, **span)

    with_enough_outcomes(replace(world, platform=Platform()), hour, None)
    assert not asked, "the usual window holds enough outcomes"
    with_enough_outcomes(replace(world, platform=Platform(), policy=policy), hour, None)
    assert bool(asked) is is_its


@pytest.mark.parametrize(("model", "is_real"), [("predictive_maintenance", False), ("pumps", True), ("predictive_*", False)])
def test_a_fall_within_the_limits_of_its_own_model_is_not_real(world: World, model: str, is_real: bool) -> None:
    policy = parse(f'models:\n  "{model}": {{{OWN}}}\n')
    judged = replace(world, policy=policy)
    incident_id = report(judged, description="F1 fell")
    carry(judged, incident_id, "run-1")
    with judged.transaction() as conn:
        triage = records.recall(conn, incident_id, Triage)
    assert triage is not None
    assert triage.real is is_real
