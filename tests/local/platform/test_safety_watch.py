"""A critical asset that failed after a low score, found in the prediction log as its outcome comes."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine

from mlrunbook.base.db import transaction
from mlrunbook.domain.policy.alerting import SafetyPolicy
from mlrunbook.local.platform import outcomes, predictions, safety_watch
from tests.local.platform.kit import NOW, REPORTER, new_model, release

POLICY = SafetyPolicy(critical_asset_types=("H",), critical_assets=("press_1",))


@pytest.fixture
def model(engine: Engine, tmp_path: Path) -> str:
    name = new_model()
    release(engine, tmp_path, name, "v1.5.0")
    return name


def happened(engine: Engine, model: str, asset: str, type_: str, *, score: float = 0.1, failed: bool = True, at: datetime = NOW) -> None:
    """A prediction three hours before `at`, when its outcome came."""
    row = predictions.Scored(at=at - timedelta(hours=3), asset_id=asset, asset_type=type_, features={}, score=score)
    with transaction(engine) as conn:
        ids = predictions.record(conn, [row], model=model, version="v1.5.0", threshold=0.5, latency_ms=10)
        outcomes.record(conn, dict.fromkeys(ids, failed), who=REPORTER, at=at)


def seen(engine: Engine, model: str, policy: SafetyPolicy = POLICY, at: datetime = NOW) -> list[str]:
    with transaction(engine) as conn:
        return [m.asset_id for m in safety_watch.missed_failures(conn, model, policy, now=at)]


def test_only_failures_of_critical_assets_after_a_low_score_within_the_horizon_are_found(engine: Engine, model: str) -> None:
    happened(engine, model, "press_1", "L")
    happened(engine, model, "asset_2", "H")
    happened(engine, model, "asset_3", "L")
    happened(engine, model, "asset_4", "H", score=0.9)
    happened(engine, model, "asset_5", "H", failed=False)
    assert seen(engine, model) == ["press_1", "asset_2"]
    assert seen(engine, model, SafetyPolicy()) == [], "no asset is critical by default"
    assert seen(engine, model, SafetyPolicy(critical_assets=("press_1",), horizon_h=2)) == [], "three hours later is past that horizon"
    assert seen(engine, model, at=NOW + timedelta(minutes=61)) == [], "an hour later it is told"
