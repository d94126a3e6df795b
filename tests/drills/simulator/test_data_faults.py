"""What the world or a careless human does to the data: seen from the requests that leave the simulator."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pytest

from mlrunbook.domain.errors import Invalid
from mlrunbook.domain.evaluation.probing import judge_probing
from mlrunbook.domain.incident import Status
from mlrunbook.domain.observed import Prediction
from mlrunbook.drills.simulator.faults import FAULTS, SensorOffset, fault
from mlrunbook.drills.simulator.fleet import Fleet
from mlrunbook.drills.simulator.simulator import FleetSimulator
from mlrunbook.drills.simulator.traffic import Access

SEED = 5
BOUNDARY_NM = 61.3


class Platform:
    """Takes predictions and outcomes; its model flags torque over a boundary."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.outcomes: dict[int, bool] = {}
        self.serves = True

    def __call__(self, request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        if request.url.path.endswith("/predict"):
            if not self.serves:
                return httpx.Response(503, json={"detail": "stopped"})
            first = len(self.rows)
            self.rows += body["assets"]
            told = [{"predictionId": first + i, "label": self.flags(a)} for i, a in enumerate(body["assets"])]
            return httpx.Response(200, json={"predictions": told})
        self.outcomes |= {o["predictionId"]: o["failed"] for o in body["outcomes"]}
        return httpx.Response(200, json={})

    @staticmethod
    def flags(asset: dict[str, Any]) -> bool:
        return bool(asset["features"]["torque_nm"] > BOUNDARY_NM)

    def column(self, name: str, start: int = 0) -> Any:
        return np.array([row["features"][name] for row in self.rows[start:]])

    def log(self) -> list[Prediction]:
        at = datetime(2025, 3, 1, tzinfo=UTC)
        return [
            Prediction(i, at + timedelta(seconds=i), a["assetId"], "L", a["features"], 0.5, self.flags(a), "v1.5.0", 0.5, 2.0)
            for i, a in enumerate(self.rows)
        ]


Start = Callable[[], tuple[FleetSimulator, Platform]]


@pytest.fixture
def start(tmp_path: Path) -> Start:
    def build() -> tuple[FleetSimulator, Platform]:
        platform = Platform()
        http = httpx.Client(transport=httpx.MockTransport(platform))
        simulator = FleetSimulator(Fleet(SEED, assets=500), access=Access("http://s", "http://p", ""), models_dir=tmp_path, http=http)
        return simulator, platform

    return build


class TestSensorOffset:
    def test_one_sensor_of_every_asset_reads_too_high_and_what_happens_to_the_assets_stays(self, start: Start) -> None:
        offset = fault("sensor-offset")
        assert isinstance(offset, SensorOffset)
        (simulator, platform), (untouched, usual) = start(), start()
        simulator.inject(offset)
        simulator.tick(500)
        untouched.tick(500)
        assert platform.column("torque_nm") == pytest.approx(usual.column("torque_nm") + offset.offset)
        assert (platform.column("rotational_speed_rpm") == usual.column("rotational_speed_rpm")).all()
        assert platform.outcomes == usual.outcomes
        assert "reads +6" in simulator.inject(offset)
        assert "calibrated" in simulator.repair(offset)
        simulator.tick(500)
        untouched.tick(500)
        assert (platform.column("torque_nm", 500) == usual.column("torque_nm", 500)).all()


def test_outcomes_that_stopped_are_kept_and_delivered_when_the_feed_is_mended(start: Start) -> None:
    simulator, platform = start()
    simulator.tick(300)
    late = fault("late-labels")
    simulator.inject(late)
    for _ in range(3):
        simulator.tick(300)
    assert (len(platform.rows), len(platform.outcomes)) == (1200, 300)
    simulator.repair(late)
    simulator.tick(300)
    assert set(platform.outcomes) == set(range(1500))


class TestAdversarialBurst:
    def test_the_log_shows_near_duplicates_on_both_sides_of_the_boundary_and_readings_no_machine_can_have(self, start: Start) -> None:
        simulator, platform = start()
        for _ in range(8):
            simulator.tick(500)
        ordinary = platform.log()
        assert judge_probing(ordinary[2000:], ordinary[:2000]).suspicious is False
        simulator.inject(fault("adversarial-burst"))
        for _ in range(2):
            simulator.tick(500)
        found = judge_probing(platform.log()[3000:], ordinary[:3000])
        assert found.suspicious
        assert found.alike >= 100
        assert found.flips > 0
        assert found.impossible == 40
        assert len(found.assets) == 1
        assert len(platform.outcomes) == 5000, "nobody knows what became of machines that do not exist"

    def test_it_ends_with_the_token(self, start: Start) -> None:
        simulator, platform = start()
        simulator.inject(fault("adversarial-burst"))
        simulator.tick(500)
        simulator.repair(fault("adversarial-burst"))
        asked = len(platform.rows)
        simulator.tick(500)
        assert len(platform.rows) == asked + 500

    def test_a_server_that_is_stopped_stops_the_caller_too(self, start: Start) -> None:
        simulator, platform = start()
        simulator.inject(fault("adversarial-burst"))
        platform.serves = False
        simulator.tick(500)
        assert (platform.rows, simulator.traffic.predictions) == ([], 0)
        platform.serves = True
        simulator.tick(500)
        assert len(platform.rows) > 600


class TestOrdinaryWeek:
    def test_days_are_warm_and_busy_and_nights_are_not(self) -> None:
        fleet = Fleet(SEED)
        fleet.swing(6, air_k=2.0, load_nm=3.0)
        uses = [fleet.readings(1000) for _ in range(12)]
        air = [u["air_temperature_k"].mean() for u in uses]
        load = [u["torque_nm"].mean() for u in uses]
        assert max(air) - min(air) > 3
        assert max(load) - min(load) > 4
        assert air[1] - air[4] == pytest.approx(air[7] - air[10], abs=0.5), "one day is as the other"

    def test_without_seasons_the_fleet_is_as_it_was(self) -> None:
        ordinary, still = Fleet(SEED, assets=50), Fleet(SEED, assets=50)
        still.swing(6, air_k=0.0, load_nm=0.0)
        pd.testing.assert_frame_equal(ordinary.readings(200), still.readings(200))


def test_faults_of_the_machines_need_the_simulated_fleet(tmp_path: Path) -> None:
    class Table:
        def training(self, n: int) -> pd.DataFrame:
            raise NotImplementedError

        readings = training

    simulator = FleetSimulator(Table(), access=Access("http://s", "http://p", ""), models_dir=tmp_path)
    for name in ("biased-segment", "nothing-wrong"):
        with pytest.raises(Invalid, match="simulated fleet"):
            simulator.inject(fault(name))


def test_what_no_path_mends_people_can(start: Start) -> None:
    simulator, _ = start()
    for one in FAULTS.values():
        truth = one.truth
        if truth.path is None and truth.status is Status.CLOSED and truth.refused is None:
            assert simulator.repair(one)
