"""What Prometheus reads of the platform: true figures, nothing that nobody can tell, and few series."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import Engine, text

from mlrunbook.base.db import transaction
from mlrunbook.base.tokens import Scope
from mlrunbook.domain.evaluation.performance import ModelMetrics
from mlrunbook.domain.investigation.findings import Finding, State
from mlrunbook.domain.policy.policy import Policy
from mlrunbook.local.platform import metrics, predictions
from mlrunbook.local.platform.alerts import Watched
from mlrunbook.local.platform.api import create_app
from mlrunbook.local.platform.drift_watch import DriftWatch
from mlrunbook.local.platform.prometheus_metrics import FAMILIES, REFRESH_S, PlatformCollector
from tests.local.platform.kit import NOW, bearer, log, new_model, reading, release, running, settings_for

HEALTHY: dict[str, Any] = {"status": "ok", "features": {"state": "ok"}}


class Clock:
    def __init__(self) -> None:
        self.at = NOW

    def __call__(self) -> datetime:
        return self.at


@pytest.fixture
def model(engine: Engine, tmp_path: Path) -> Iterator[str]:
    """The only one with something in production: v2.0.0, after a labelled week of v1.5.0."""
    name = new_model()
    release(engine, tmp_path, name, "v1.5.0", "v2.0.0")
    log(engine, name, tp=80, fp=20, fn=20, tn=880, at=NOW - timedelta(days=2))
    yield name
    with transaction(engine) as conn:
        conn.execute(text("DELETE FROM platform.production"))


class Scrape:
    """A platform whose server says `health`."""

    def __init__(self, engine: Engine, health: dict[str, Any] | None = HEALTHY, *, stopped: bool = False, drift: Any = None) -> None:
        self.clock, self.health, self.looks = Clock(), health, 0
        self._registry = CollectorRegistry()

        def counted(model: str) -> dict[str, Any] | None:
            self.looks += 1
            return self.health

        self._registry.register(
            PlatformCollector(
                engine,
                clock=self.clock,
                health=counted,
                stopped_on_purpose=lambda _: stopped,
                watched=Watched(drift) if drift else Watched(),
            )
        )

    def value(self, name: str, **labels: str) -> float | None:
        return self._registry.get_sample_value(name, labels)

    def all(self) -> dict[tuple[str, str], float]:
        return {(s.name, str(sorted(s.labels.items()))): s.value for f in self._registry.collect() for s in f.samples}


def test_the_window_is_counted_by_outcome_for_the_version_that_predicts_now(engine: Engine, model: str) -> None:
    log(engine, model, tp=5, fp=6, fn=7, tn=8, unlabelled=9, version="v2.0.0")
    log(engine, model, tp=99, version="v1.5.0", at=NOW - timedelta(minutes=50))
    scrape = Scrape(engine)

    def counts(window: str, version: str) -> list[float | None]:
        labels = {"model": model, "model_version": version, "window": window}
        return [scrape.value("model_window_predictions", outcome=o, **labels) for o in ("tp", "fp", "fn", "tn", "unknown")]

    assert counts("current", "v2.0.0") == [5, 6, 7, 8, 9]
    assert counts("baseline", "") == [80, 20, 20, 880, 0]


def test_shares_and_times_are_in_the_units_their_names_say(engine: Engine, model: str) -> None:
    log(engine, model, tp=10, tn=30, version="v2.0.0", latency_ms=1500.0)
    log(engine, model, tn=10, version="v2.0.0", latency_ms=1500.0, features_of=reading(None))
    scrape, of = Scrape(engine), {"model": model, "model_version": "v2.0.0"}
    assert scrape.value("model_window_latency_p95_seconds", **of) == 1.5
    assert scrape.value("model_window_null_ratio", **of) == 0.2
    assert scrape.value("model_window_flagged_ratio", **of) == 0.2
    assert scrape.value("model_window_error_ratio", **of) == 0.0


@pytest.mark.parametrize(
    ("health", "stopped", "up", "wanted", "features"),
    [
        (HEALTHY, False, 1, 1, 1),
        ({"status": "ok", "features": {"state": "failing", "failingSince": "2026-03-02T11:59:50Z"}}, False, 1, 1, 0),
        ({"status": "ok", "features": {"state": "loading"}}, False, 1, 1, None),
        (None, False, 0, 1, None),
        (None, True, 0, 0, None),
    ],
)
def test_the_server_and_its_feature_store_are_up_down_or_not_known(
    engine: Engine, model: str, health: Any, stopped: bool, up: int, wanted: int, features: int | None
) -> None:
    scrape = Scrape(engine, health, stopped=stopped)
    assert scrape.value("model_server_up", model=model) == up
    assert scrape.value("model_server_wanted", model=model) == wanted
    assert scrape.value("model_feature_store_up", model=model) == features


def test_a_figure_nobody_can_tell_is_not_exported(engine: Engine, model: str) -> None:
    log(engine, model, tp=1, tn=3, version="v2.0.0")
    scrape = Scrape(engine)
    assert scrape.value("model_features_drifted", model=model) is None
    assert scrape.value("model_alert_reading", model=model, alert="ModelF1Drop", level="critical") is None
    log(engine, model, tp=40, fp=60, fn=60, tn=840, version="v2.0.0")
    scrape.clock.at += timedelta(seconds=REFRESH_S)
    drop = scrape.value("model_alert_reading", model=model, alert="ModelF1Drop", level="critical")
    assert drop is not None
    assert math.isclose(drop, 1 - (2 * 41 / (2 * 41 + 120)) / 0.8)


def test_scrapes_in_a_row_share_one_look(engine: Engine, model: str) -> None:
    scrape = Scrape(engine)
    first = scrape.all()
    scrape.clock.at += timedelta(seconds=REFRESH_S - 0.1)
    log(engine, model, tn=500, version="v2.0.0", at=NOW)
    assert (scrape.all(), scrape.looks) == (first, 1)
    scrape.clock.at += timedelta(seconds=0.1)
    assert scrape.all() != first
    assert scrape.looks == 2


def test_series_do_not_grow_with_versions_or_assets(engine: Engine, model: str) -> None:
    scrape = Scrape(engine)
    log(engine, model, tp=5, tn=200, version="v2.0.0")
    before = len(scrape.all())
    for i in range(5):
        log(engine, model, tp=5, tn=200, version=f"v3.{i}.0", at=NOW - timedelta(minutes=5 - i))
    scrape.clock.at += timedelta(seconds=REFRESH_S)
    assert len(scrape.all()) == before


def test_drift_is_looked_at_once_a_minute_and_how_long_it_stands_is_remembered(engine: Engine, model: str) -> None:
    chance = Random(0)
    with transaction(engine) as conn:
        conn.execute(text("DELETE FROM platform.predictions WHERE model = :model"), {"model": model})  # they are all alike

    def rows(torque: float, at: datetime) -> None:
        made = [
            predictions.Scored(at + timedelta(milliseconds=i), f"asset_{i}", "L", reading(chance.gauss(torque, 5)), 0.1)
            for i in range(1000)
        ]
        with transaction(engine) as conn:
            predictions.record(conn, made, model=model, version="v2.0.0", threshold=0.5, latency_ms=20.0)

    rows(40.0, NOW - timedelta(days=1))
    rows(55.0, NOW - timedelta(minutes=20))
    clock = Clock()
    watch = DriftWatch(engine, clock=clock, policy=Policy())
    scrape = Scrape(engine, drift=watch)
    scrape.clock = clock
    assert scrape.value("model_features_drifted", model=model) == 1

    def look() -> tuple[Finding, timedelta]:
        with transaction(engine) as conn:
            figures: ModelMetrics = metrics.compare(conn, model, now=clock())
        return watch(model, figures)

    found, _ = look()
    assert (found.state, "torque_nm" in found.sentence) == (State.SUSPECT, True)
    clock.at += timedelta(seconds=59)
    assert look() == (found, timedelta(seconds=59))
    clock.at += timedelta(hours=2)  # the window holds nothing any more: nobody can tell
    assert look()[0].state is State.UNKNOWN
    assert look()[1] == timedelta(0)


def test_the_platform_serves_its_figures_with_help_to_who_may_read(engine: Engine, model: str, tmp_path: Path) -> None:
    app = create_app(settings_for(tmp_path, engine, model_server_url="http://127.0.0.1:9"), engine, evaluate_every_s=None)
    with running(app, bearer(engine, Scope.READ)) as client:
        assert client.get("/metrics", headers={"Authorization": ""}).status_code == 401
        body = client.get("/metrics").text
    for name, (help_, _) in FAMILIES.items():
        assert f"# HELP {name} {help_}\n# TYPE {name} gauge\n" in body
    assert f'model_server_up{{model="{model}"}} 0.0' in body
