"""Failures become rarer and the model catches the same share of them: triage does not call it real, and nobody retrains."""

from __future__ import annotations

import numpy as np
import pytest

from mlrunbook.domain.detection.severity import AlertSignal
from mlrunbook.domain.evaluation.performance import ModelMetrics
from mlrunbook.domain.incident import IncidentType
from mlrunbook.domain.observed import Prediction
from mlrunbook.domain.resolution.paths import Path
from tests.domain.builders import assessed
from tests.domain.investigation.worlds import STATUS, Fleet, looked_into, window

F1_DROP = AlertSignal("ModelF1Drop", "critical", IncidentType.PERFORMANCE_DEGRADATION)


def rarer(rows: list[Prediction], kept: float, seed: int) -> list[Prediction]:
    rng = np.random.default_rng(seed)
    return [row for row in rows if not row.outcome or rng.random() < kept]


@pytest.mark.parametrize("kept", [0.5, 0.25, 0.1])
@pytest.mark.parametrize("seed", [1, 2])
def test_rarer_failures_are_neither_real_nor_retrained_on(kept: float, seed: int) -> None:
    before, after = Fleet(9000, seed=seed).log(), Fleet(9000, first=9000, seed=seed + 10).log()
    now = rarer(after, kept, seed)
    found = assessed(alerts=(F1_DROP,), metrics=ModelMetrics("pump-failure", window(now), window(before)), status=STATUS)
    assert found.real is not True
    looked = looked_into(before, now)
    assert looked.diagnosis.path is not Path.RETRAIN
    assert looked.facts.degraded is not True


def test_fewer_failures_with_the_same_model_are_said_to_be_so() -> None:
    before, after = Fleet(12_000, seed=3).log(), Fleet(12_000, first=12_000, seed=13).log()
    looked = looked_into(before, rarer(after, 0.25, 3))
    assert looked.facts.verdict is not None
    assert "fewer failures, same model" in looked.facts.verdict.reason


def test_a_quiet_window_without_a_failure_is_not_called_fine_either() -> None:
    before, after = Fleet(6000, seed=4).log(), Fleet(3000, first=6000, seed=14).log()
    quiet = rarer(after, 0.0, 4)
    metrics = ModelMetrics("pump-failure", window(quiet), window(before))
    assert assessed(alerts=(F1_DROP,), metrics=metrics, status=STATUS).real is None
    assert looked_into(before, quiet).diagnosis.path is not Path.RETRAIN
