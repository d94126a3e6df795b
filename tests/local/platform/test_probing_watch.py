"""The platform's look at the newest rows of its own prediction log."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Engine

from mlrunbook.base.db import transaction
from mlrunbook.domain.detection import alert_rules
from mlrunbook.local.platform import alerts, metrics, predictions
from mlrunbook.local.platform.probing_watch import EVERY, ProbingWatch
from tests.fakes import Clock
from tests.local.platform.kit import NOW, new_model, reading, release


@pytest.fixture
def model(engine: Engine, tmp_path: Path) -> str:
    name = new_model()
    release(engine, tmp_path, name, "v1.5.0")
    return name


def log(engine: Engine, model: str, readings: list[dict[str, Any]], *, minutes_ago: float, asset: str | None = None) -> None:
    rows = [
        predictions.Scored(
            at=NOW - timedelta(minutes=minutes_ago),
            asset_id=asset or f"asset_{i}",
            asset_type="L",
            features=features,
            score=0.1,
            outcome=False,
        )
        for i, features in enumerate(readings)
    ]
    with transaction(engine) as conn:
        predictions.record(conn, rows, model=model, version="v1.5.0", threshold=0.5, latency_ms=3.0)


def ordinary(n: int, seed: int = 0) -> list[dict[str, Any]]:
    rng = np.random.default_rng(seed)
    return [
        reading(float(t), rotational_speed_rpm=float(s), tool_wear_min=float(w))
        for t, s, w in zip(abs(rng.normal(40, 10, n)), rng.normal(1500, 150, n), rng.uniform(0, 240, n), strict=True)
    ]


def crafted(n: int) -> list[dict[str, Any]]:
    return [reading(60 + 0.005 * i) for i in range(n)]


def fired(engine: Engine, watch: ProbingWatch) -> dict[str, str]:
    with transaction(engine) as conn:
        alerts.evaluate(
            conn,
            now=NOW,
            server=lambda _: alert_rules.ServerSeen(),
            environment="test",
            watched=alerts.Watched(probing=watch),
        )
        return {a["labels"]["alertname"]: a["labels"]["severity"] for a in alerts.active(conn)}


def test_crafted_requests_raise_a_critical_alert_that_names_the_asset_and_ordinary_ones_none(engine: Engine, model: str) -> None:
    log(engine, model, ordinary(600), minutes_ago=60 * 48)
    log(engine, model, ordinary(600, seed=1), minutes_ago=5)
    assert "ModelProbed" not in fired(engine, ProbingWatch(engine, clock=Clock(NOW)))
    log(engine, model, crafted(100), minutes_ago=1, asset="asset_7")
    assert fired(engine, ProbingWatch(engine, clock=Clock(NOW)))["ModelProbed"] == "critical"
    with transaction(engine) as conn:
        (alert,) = [a for a in alerts.active(conn, model=model) if a["labels"]["alertname"] == "ModelProbed"]
    assert "asset_7" in alert["annotations"]["summary"]


def test_the_log_is_read_every_few_seconds_however_often_it_is_asked(engine: Engine, model: str) -> None:
    log(engine, model, ordinary(600), minutes_ago=60 * 48)
    log(engine, model, ordinary(300, seed=1), minutes_ago=5)
    clock = Clock(NOW)
    watch = ProbingWatch(engine, clock=clock)
    with transaction(engine) as conn:
        figures = metrics.compare(conn, model, now=NOW)
    assert watch(figures).suspicious is False
    log(engine, model, crafted(100), minutes_ago=1, asset="asset_7")
    assert watch(figures).suspicious is False
    clock.advance(seconds=EVERY.total_seconds())
    assert watch(figures).suspicious is True
    clock.advance(minutes=15)  # nothing new since
    assert watch(figures).suspicious is None
