"""The simulator seeds a past in a real database and then acts through the HTTP API alone, like any other client."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pandas as pd
import pyarrow.parquet as pq
import pytest
from sqlalchemy import Engine, func, select

from mlrunbook.adapters.local.serving_state import claim
from mlrunbook.base import tokens
from mlrunbook.base.db import transaction
from mlrunbook.base.settings import Settings
from mlrunbook.domain.errors import Invalid, Refused
from mlrunbook.domain.evaluation.performance import Confusion, Evidence, grade_drop
from mlrunbook.domain.policy.judging import DropPolicy
from mlrunbook.drills.simulator.faults import FAULTS, Blip, Fault, fault
from mlrunbook.drills.simulator.fleet import Fleet
from mlrunbook.drills.simulator.simulator import FleetSimulator
from mlrunbook.drills.simulator.traffic import GOOD_VERSION, MODEL, Access, History
from mlrunbook.drills.simulator.uci import COLUMNS, UciTable
from mlrunbook.local.platform import api, artefacts, registry
from mlrunbook.local.platform.artefacts import LoadedModel
from mlrunbook.local.platform.columns import RAW, as_frame, check
from mlrunbook.local.platform.tables import predictions
from mlrunbook.local.platform.training import confusion
from mlrunbook.local.serving import model_server
from tests.served import served
from tests.waiting import until

NOW = datetime(2024, 6, 1, 12, tzinfo=UTC)


class Platform:
    """The HTTP shapes of the model platform over real artefacts, in memory: what serves, its config, what was predicted."""

    def __init__(self, models_dir: Path, history: History) -> None:
        self.models_dir, self.threshold, self.configured = models_dir, history.threshold, history.threshold
        self.registered: list[str] = []
        self.requests: list[tuple[str, str]] = []
        self.log: list[tuple[bool, bool | None]] = []  # label, outcome
        self.alerts: list[str] = []
        self.serving, self.serves, self.takes_outcomes = self.load(GOOD_VERSION), True, True

    def load(self, version: str) -> LoadedModel:
        return artefacts.load(self.models_dir / MODEL / version)

    def __call__(self, request: httpx.Request) -> httpx.Response:  # noqa: C901 - a whole API, an answer a route
        path = request.url.path
        if path == "/api/v1/model-performance/alerts":
            return httpx.Response(200, json={"alerts": self.alerts})
        body = json.loads(request.content)
        self.requests.append((request.method, path))
        if request.headers["Authorization"] != "Bearer secret":
            return httpx.Response(401, json={"detail": "no token"})
        if path == f"/api/v1/ml/models/{MODEL}/predict":
            return self.predict(body)
        if path == "/api/v1/ml/predictions/outcomes":
            if not self.takes_outcomes:
                return httpx.Response(503, json={"detail": "database down"})
            for o in body["outcomes"]:
                self.log[o["predictionId"]] = (self.log[o["predictionId"]][0], o["failed"])
            return httpx.Response(200, json={"recorded": len(body["outcomes"])})
        if path == f"/api/v1/ml/models/{MODEL}/versions":
            assert body["artefact"] == f"{MODEL}/{body['version']}"
            self.registered.append(self.load(body["version"]).manifest.version)
            return httpx.Response(201, json={})
        if path == f"/api/v1/ml/models/{MODEL}/promote" and body["version"] in self.registered:
            self.serving = self.load(body["version"])
            return httpx.Response(200, json={})
        if (request.method, path) == ("PATCH", f"/api/v1/ml/models/{MODEL}/config"):
            self.configured = body["threshold"]
            return httpx.Response(200, json={})
        if path == f"/api/v1/ml/models/{MODEL}/restart":
            self.threshold = self.configured
            return httpx.Response(202, json={})
        return httpx.Response(404, json={"detail": path})

    def predict(self, body: dict[str, Any]) -> httpx.Response:
        if not self.serves:
            raise httpx.ConnectError("connection refused")
        assert sum(check(asset["features"]) for asset in body["assets"]) == 0
        scores = self.serving.score(as_frame([asset["features"] for asset in body["assets"]]))
        first = len(self.log)
        self.log += [(bool(score >= self.threshold), None) for score in scores]
        return httpx.Response(200, json={"predictions": [{"predictionId": first + i} for i in range(len(scores))]})

    def f1(self) -> float:
        return self.counts().f1 or 0.0

    def counts(self) -> Confusion:
        labelled = pd.DataFrame([row for row in self.log if row[1] is not None], columns=["label", "outcome"]).astype(bool)
        return confusion(labelled["outcome"].to_numpy(), labelled["label"].to_numpy())


Start = Callable[[], tuple[FleetSimulator, Platform, History]]


@pytest.fixture(scope="module")
def past(tmp_path_factory: pytest.TempPathFactory, engine: Engine) -> tuple[Path, History]:
    """The seeded past: its models folder and its baseline."""
    models_dir = tmp_path_factory.mktemp("models")
    simulator = FleetSimulator(Fleet(3), access=Access("http://server", "http://platform", ""), models_dir=models_dir)
    return models_dir, simulator.build_history(engine, now=NOW, rows=12_000)


@pytest.fixture
def start(past: tuple[Path, History], tmp_path: Path, engine: Engine) -> Start:
    """A simulator that knows the past, with a models folder of its own, and a platform."""

    def build() -> tuple[FleetSimulator, Platform, History]:
        shutil.copytree(past[0], tmp_path / "models")
        platform = Platform(tmp_path / "models", past[1])
        simulator = FleetSimulator(
            Fleet(11),
            access=Access("http://server:8080/", "http://platform:8070", "secret"),
            models_dir=tmp_path / "models",
            http=httpx.Client(transport=httpx.MockTransport(platform)),
        )
        return simulator, platform, simulator.build_history(engine, now=NOW, rows=20_000)

    return build


@contextmanager
def running(simulator: FleetSimulator, *, interval_s: float = 0.01) -> Iterator[None]:
    """Ordinary traffic in the background; it must end when told."""
    stop = threading.Event()
    thread = threading.Thread(target=simulator.run, args=(stop,), kwargs={"interval_s": interval_s, "batch": 10})
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(timeout=120)
        assert not thread.is_alive()


def test_the_past_holds_two_versions_in_production_longer_than_a_week(past: tuple[Path, History], engine: Engine) -> None:
    with transaction(engine) as conn:
        slots, history = registry.slots(conn, MODEL), registry.history(conn, MODEL)
    assert (slots.serving, slots.previous) == ("v1.5.0", "v1.4.0")
    assert all(d.from_at < NOW - timedelta(days=7) for d in history)
    assert len(history) == 2


def test_the_past_is_a_week_of_labelled_predictions_that_ends_two_hours_ago(past: tuple[Path, History], engine: Engine) -> None:
    p = predictions.c
    with transaction(engine) as conn:
        row = conn.execute(
            select(func.count(), func.count(p.outcome), func.min(p.at), func.max(p.at), func.count(p.asset_id.distinct()))
        ).one()
        tp = conn.scalar(select(func.count()).where(p.label, p.outcome))
        versions = set(conn.scalars(select(p.version.distinct())))
    assert tuple(row)[:2] == (12_000, 12_000)
    assert (row[2], row[3]) == (NOW - timedelta(days=7), NOW - timedelta(hours=2))
    assert row[4] == 1000
    assert versions == {"v1.5.0"}
    assert tp == past[1].baseline.tp


def test_the_baseline_is_that_of_a_useful_model(past: tuple[Path, History]) -> None:
    assert 0.8 < (past[1].baseline.f1 or 0) < 0.95
    assert past[1].version == "v1.5.0"


def test_a_past_is_built_once(start: Start, past: tuple[Path, History], engine: Engine) -> None:
    _, _, again = start()
    assert again.baseline.f1 == pytest.approx(past[1].baseline.f1, rel=0.08)
    with transaction(engine) as conn:
        assert conn.scalar(select(func.count()).where(predictions.c.model == MODEL)) == 12_000
        assert len(registry.history(conn, MODEL)) == 2


def test_the_real_table_gives_a_past_too(tmp_path: Path, engine: Engine) -> None:
    table = Fleet(5).readings(10_000).reset_index(names="udi").rename(columns={ours: theirs for theirs, ours in COLUMNS.items()})
    table.assign(**{name: table[name].astype(int) for name in ("Machine failure", "TWF", "HDF", "PWF", "OSF", "RNF")}).to_csv(
        tmp_path / "t.csv"
    )
    simulator = FleetSimulator(
        UciTable(tmp_path / "t.csv", seed=1),
        access=Access("http://s", "http://p", ""),
        models_dir=tmp_path,
        model="real_table",
    )
    history = simulator.build_history(engine, now=NOW, rows=4000)
    assert 0.6 < (history.baseline.f1 or 0) < 0.95
    with transaction(engine) as conn:
        assert registry.slots(conn, "real_table").serving == "v1.5.0"


def test_a_tick_is_one_request_and_its_true_outcomes(start: Start) -> None:
    simulator, platform, history = start()
    for _ in range(10):
        simulator.tick(1500)
    assert len(platform.requests) == 20
    assert len(platform.log) == simulator.traffic.predictions == simulator.traffic.outcomes == 15_000
    assert simulator.traffic.errors == 0
    assert platform.f1() == pytest.approx(history.baseline.f1, rel=0.06)


def test_a_stopped_server_is_counted_and_traffic_goes_on_when_it_is_back(start: Start) -> None:
    simulator, platform, _ = start()
    platform.serves = False
    simulator.tick(100)
    assert (simulator.traffic.predictions, simulator.traffic.errors) == (0, 1)
    assert "is it running" in simulator.traffic.last_error
    platform.serves = True
    simulator.tick(100)
    assert simulator.traffic.outcomes == 100


def test_outcomes_wait_while_the_platform_is_away(start: Start) -> None:
    simulator, platform, _ = start()
    platform.takes_outcomes = False
    simulator.tick(1500)
    simulator.tick(1500)
    assert (simulator.traffic.outcomes, simulator.traffic.errors) == (0, 2)
    platform.takes_outcomes = True
    simulator.tick(100)
    assert simulator.traffic.outcomes == 3100
    assert all(outcome is not None for _, outcome in platform.log)


@pytest.mark.parametrize("name", ["bad-release", "all-high-risk"])
def test_a_bad_release_is_saved_registered_and_promoted(name: str, start: Start) -> None:
    simulator, platform, history = start()
    assert "v2.0.0" in simulator.inject(fault(name))
    assert platform.serving.manifest.version == "v2.0.0"
    for _ in range(3):
        simulator.tick(5000)
    drop = 1 - platform.f1() / (history.baseline.f1 or 1)
    assert {"bad-release": 0.25 < drop < 0.6, "all-high-risk": drop > 0.85}[name]
    assert name not in json.dumps(platform.requests) + artefacts.load(platform.models_dir / MODEL / "v2.0.0").manifest.version


def test_a_second_bad_release_takes_the_next_number(start: Start) -> None:
    simulator, platform, _ = start()
    simulator.inject(fault("bad-release"))
    assert "v2.0.1" in simulator.inject(fault("bad-release"))
    assert platform.registered == ["v2.0.0", "v2.0.1"]


def test_a_threshold_slip_is_a_config_change_and_a_restart(start: Start) -> None:
    simulator, platform, history = start()
    simulator.inject(fault("threshold-slip"))
    assert platform.requests == [("PATCH", f"/api/v1/ml/models/{MODEL}/config"), ("POST", f"/api/v1/ml/models/{MODEL}/restart")]
    simulator.tick(10_000)
    assert 1 - platform.f1() / (history.baseline.f1 or 1) > 0.25
    assert sum(label for label, _ in platform.log) / len(platform.log) < 0.4
    assert platform.serving.manifest.version == GOOD_VERSION


def test_a_blip_is_one_honest_window_and_then_ordinary_traffic(start: Start) -> None:
    simulator, platform, history = start()
    blip = fault("blip")
    assert isinstance(blip, Blip)
    simulator.inject(blip)
    assert len(platform.log) == blip.rows
    assert 0.10 < 1 - platform.f1() / (history.baseline.f1 or 1) < 0.20
    assert not grade_drop(history.baseline, platform.counts(), DropPolicy()).is_real
    assert {path.rsplit("/", 1)[1] for _, path in platform.requests} == {"predict", "outcomes"}  # nothing was changed
    for _ in range(4):
        simulator.tick(5000)
    assert platform.f1() == pytest.approx(history.baseline.f1, rel=0.05)
    assert grade_drop(history.baseline, platform.counts(), DropPolicy()).evidence is Evidence.FALSE_ALARM


def test_no_other_traffic_is_sent_until_somebody_noticed_the_blip(start: Start) -> None:
    simulator, platform, _ = start()
    blip = fault("blip")
    assert isinstance(blip, Blip)
    simulator.inject(blip)
    with running(simulator):
        threading.Event().wait(0.1)
        assert len(platform.log) == blip.rows
        platform.alerts = ["ModelF1Drop"]
        until(lambda: len(platform.log) > blip.rows)


def test_traffic_goes_on_when_nobody_notices_a_blip(start: Start) -> None:
    simulator, platform, _ = start()
    blip = fault("blip")
    assert isinstance(blip, Blip)
    simulator.inject(replace(blip, quiet_s=0.05))
    with running(simulator):
        until(lambda: len(platform.log) > blip.rows)


def test_a_run_ends_when_told(start: Start) -> None:
    simulator, _, _ = start()
    with running(simulator, interval_s=30):
        until(lambda: simulator.traffic.outcomes > 0)
    assert simulator.traffic.predictions == 10


def test_a_platform_that_refuses_a_change_is_heard(start: Start, tmp_path: Path) -> None:
    _, platform, _ = start()
    http = httpx.Client(transport=httpx.MockTransport(platform))
    stranger = FleetSimulator(Fleet(1), access=Access("http://s", "http://p", "wrong"), models_dir=tmp_path, http=http)
    with pytest.raises(Refused, match="401"):
        stranger.inject(fault("threshold-slip"))


def test_a_blip_without_a_past_and_an_unknown_kind_of_fault_are_refused(tmp_path: Path) -> None:
    simulator = FleetSimulator(Fleet(1), access=Access("http://s", "http://p", ""), models_dir=tmp_path)
    with pytest.raises(Invalid, match="build_history"):
        simulator.inject(fault("blip"))
    with pytest.raises(Invalid, match="does not know"):
        simulator.inject(Fault(name="meteor", truth=FAULTS["blip"].truth))


def test_the_past_lies_in_the_lake_each_reading_a_second_before_its_prediction(tmp_path: Path, engine: Engine) -> None:
    simulator = FleetSimulator(
        Fleet(4, assets=50),
        access=Access("http://s", "http://p", ""),
        models_dir=tmp_path,
        lake=tmp_path / "readings",
        model="in_the_lake",
    )
    for _ in range(2):  # a past is built once
        simulator.build_history(engine, now=NOW, rows=200)
    (file,) = (tmp_path / "readings").iterdir()
    landed = {(row["asset_id"], row["event_timestamp"]): row for row in pq.read_table(file).to_pylist()}
    with transaction(engine) as conn:
        logged = conn.execute(select(predictions).where(predictions.c.model == "in_the_lake")).mappings().all()
    assert len(landed) == len(logged) == 200
    for row in logged:
        reading = landed[row["asset_id"], row["at"].replace(tzinfo=None) - timedelta(seconds=1)]
        assert {name: reading[name] for name in RAW} == row["features"]
        assert reading["created"] == reading["event_timestamp"]  # else it would count as not known at the time


def test_traffic_goes_on_where_no_schedule_runs_or_one_fails(tmp_path: Path) -> None:
    asked: list[list[str]] = []
    schedules: dict[str, Any] = {"view": "asset_wear", "suspended": False, "materializedUntil": None, "error": "the source is gone"}

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/api/v1/ml/features/schedules":
            return httpx.Response(200, json={"schedules": [schedules]}) if schedules else httpx.Response(404, json={})
        body = json.loads(request.content)
        if request.url.path.endswith("/predict"):
            asked.append([asset["assetId"] for asset in body["assets"]])
            return httpx.Response(200, json={"predictions": [{"predictionId": i} for i, _ in enumerate(body["assets"])]})
        return httpx.Response(200, json={})

    simulator = FleetSimulator(
        Fleet(1, assets=5),
        access=Access("http://s", "http://p", ""),
        models_dir=tmp_path,
        lake=tmp_path / "readings",
        http=httpx.Client(transport=httpx.MockTransport(answer)),
    )
    simulator.tick(5)
    schedules.clear()
    simulator.tick(7)
    ids = [f"asset_{i}" for i in range(1, 6)]
    assert asked == [ids, ids, ids[:2]]  # an asset that comes twice is asked for twice, after its second reading has landed
    assert len(list((tmp_path / "readings").iterdir())) == 3
    assert simulator.traffic.outcomes == 12


def test_a_bad_release_and_its_rollback_show_in_the_figures_of_the_real_platform(tmp_path: Path, engine: Engine) -> None:
    model, config = "rolled_back", Settings(data_dir=tmp_path)
    claim(config.serving_state_file, model)
    with transaction(engine) as conn:
        token = tokens.create(
            conn, name="fleet", scopes=[tokens.Scope.PREDICT, tokens.Scope.OUTCOMES, tokens.Scope.OPERATE, tokens.Scope.READ]
        )
    http = httpx.Client(headers={"Authorization": f"Bearer {token}"}, timeout=10)
    with (
        served(api.create_app(config, engine, evaluate_every_s=None)) as platform,
        served(model_server.create_app(config, engine, model=model)) as server,
    ):
        simulator = FleetSimulator(Fleet(2), access=Access(server, platform, token), models_dir=config.models_dir, model=model, http=http)

        def until_serving(version: str) -> None:
            until(lambda: http.get(f"{server}/health").json()["version"] == version)

        def f1_drop(version: str) -> float:
            for _ in range(2):
                simulator.tick(3000)
            assert simulator.traffic.errors == 0, simulator.traffic.last_error
            figures = http.get(f"{platform}/api/v1/model-performance/metrics/{model}", params={"version": version}).json()
            assert figures["baseline"]["f1"] == pytest.approx(history.baseline.f1)
            return -float(figures["change"]["f1"])

        history = simulator.build_history(engine, now=datetime.now(UTC), rows=12_000)
        until_serving("v1.5.0")
        assert f1_drop("v1.5.0") == pytest.approx(0, abs=0.08)
        simulator.inject(fault("bad-release"))
        until_serving("v2.0.0")
        assert f1_drop("v2.0.0") > 0.25
        assert http.post(f"{platform}/api/v1/ml/models/{model}/rollback", json={"targetVersion": "v1.5.0"}).is_success
        until_serving("v1.5.0")
        assert f1_drop("v1.5.0") == pytest.approx(0, abs=0.08)
        simulator.inject(fault("threshold-slip"))
        assert http.get(f"{platform}/api/v1/ml/models/{model}/config").json()["threshold"] == 0.002
        assert simulator.traffic.errors == 0
