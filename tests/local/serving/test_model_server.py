"""The model server over HTTP: what it serves, what it logs, and what it does when something changes under it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from sqlalchemy import Engine, text

from mlrunbook.base import json_file
from mlrunbook.base.db import transaction
from mlrunbook.base.settings import Settings
from mlrunbook.base.tokens import Scope
from mlrunbook.local.platform import predictions, registry, work_orders
from mlrunbook.local.serving.model_server import create_app
from tests.local.platform.kit import COOL, HOT, NOW, bearer, linear, new_model, reading, release, running, settings_for
from tests.waiting import until


class World:
    """One model, its files, and a running server."""

    def __init__(self, folder: Path, engine: Engine) -> None:
        self.engine, self.model = engine, new_model()
        self.settings: Settings = settings_for(folder, engine)
        self.headers = bearer(engine, Scope.PREDICT, Scope.READ)

    def start(self) -> AbstractContextManager[httpx.Client]:
        return running(create_app(self.settings, self.engine, model=self.model, restart_id="restart_1"), self.headers)

    def predict(self, client: httpx.Client, *readings: dict[str, Any]) -> httpx.Response:
        assets = [{"assetId": f"asset_{i}", "features": r} for i, r in enumerate(readings)]
        return client.post(f"/api/v1/ml/models/{self.model}/predict", json={"assets": assets})

    def errors(self) -> dict[str, int]:
        with transaction(self.engine) as conn:
            found = conn.execute(text("SELECT kind, count FROM platform.serving_errors WHERE model = :m"), {"m": self.model}).tuples()
            return dict(found.all())


@pytest.fixture
def world(engine: Engine, tmp_path: Path) -> World:
    return World(tmp_path, engine)


@pytest.fixture
def served(world: World) -> Iterator[httpx.Client]:
    release(world.engine, world.settings.models_dir, world.model, "v1.5.0")
    with world.start() as client:
        yield client


def test_without_a_version_in_production_it_runs_and_says_so(world: World) -> None:
    with world.start() as client:
        health = client.get("/health").json()
        assert (health["status"], health["version"], health["config"]) == ("no_model", None, None)
        assert client.get("/ready").status_code == 503, "alive, and nobody should be sent here"
        refused = world.predict(client, reading())
    assert (refused.status_code, refused.headers["content-type"], refused.headers["retry-after"]) == (503, "application/problem+json", "5")
    assert world.errors() == {"no_model": 1}


@pytest.mark.parametrize("release_one", [True, False])
def test_who_has_no_token_learns_whether_it_serves_and_nothing_more(world: World, release_one: bool) -> None:
    if release_one:
        release(world.engine, world.settings.models_dir, world.model, "v1.5.0")
    with world.start() as client:
        for path in ("/health", "/ready"):
            said = httpx.get(f"{client.base_url}{path}")
            assert said.is_success == (release_one or path == "/health")
            assert said.json()["status"] in ("ok", "failing", 503)
            for secret in (world.model, "v1.5.0", "threshold", "restart"):
                assert secret not in said.text
        for token, answer in ((bearer(world.engine, Scope.PREDICT), 403), ({"Authorization": "Bearer mlrb_nobody"}, 401)):
            assert httpx.get(f"{client.base_url}/health", headers=token).status_code == answer


def test_many_assets_are_predicted_in_order_and_every_prediction_is_logged(world: World, served: httpx.Client) -> None:
    answer = world.predict(served, reading(HOT, type="H"), reading(COOL), reading(None)).json()
    assert [p["label"] for p in answer["predictions"]][:2] == [True, False]
    assert (answer["version"], answer["threshold"], answer["needsApproval"]) == ("v1.5.0", 0.5, False)
    with transaction(world.engine) as conn:
        logged = {p.id: p for p in predictions.recent(conn, model=world.model)}
        nulls = conn.execute(text("SELECT sum(null_count) FROM platform.predictions WHERE model = :m"), {"m": world.model}).scalar()
    first = logged[answer["predictions"][0]["predictionId"]]
    assert (first.asset_id, first.asset_type, first.features, first.version) == ("asset_0", "H", reading(HOT, type="H"), "v1.5.0")
    assert first.score == answer["predictions"][0]["score"]
    assert first.latency_ms > 0
    assert (len(logged), nulls) == (3, 1)


def test_the_config_is_created_from_the_manifest_and_shown_as_loaded(world: World, served: httpx.Client) -> None:
    health = served.get("/health").json()
    assert (health["status"], health["version"], health["restartId"], health["configRevision"]) == ("ok", "v1.5.0", "restart_1", "1")
    assert served.get("/ready").json() == {"status": "ok"}
    assert health["config"] == {"threshold": 0.5, "humanApproval": False, "autoWorkOrders": True, "autoScheduling": True}
    assert json_file.read(world.settings.serving_config_file)["threshold"] == 0.5


def test_a_new_threshold_waits_for_a_restart_and_the_switches_do_not(world: World, served: httpx.Client) -> None:
    json_file.patch(world.settings.serving_config_file, {"threshold": 0.01})
    assert (served.get("/health").json()["config"]["threshold"], served.get("/health").json()["configRevision"]) == (0.5, "1")
    json_file.patch(world.settings.serving_config_file, {"human_approval": True})
    health = served.get("/health").json()
    assert (health["config"]["threshold"], health["config"]["humanApproval"], health["configRevision"]) == (0.5, True, "1")
    with world.start() as restarted:
        health = restarted.get("/health").json()
        assert (health["config"]["threshold"], health["configRevision"]) == (0.01, "3")


def test_a_broken_config_file_leaves_the_running_server_as_it_is(world: World, served: httpx.Client) -> None:
    world.settings.serving_config_file.write_text("{")
    assert served.get("/health").json()["config"]["threshold"] == 0.5
    assert world.predict(served, reading()).status_code == 200


def test_high_risk_predictions_order_work_until_that_is_halted(world: World, served: httpx.Client) -> None:
    assert world.predict(served, reading(HOT), reading(COOL)).json()["workOrdersCreated"] == 1
    json_file.patch(world.settings.serving_config_file, {"auto_work_orders": False})
    assert world.predict(served, reading(COOL), reading(HOT)).json()["workOrdersCreated"] == 0
    with transaction(world.engine) as conn:
        assert [(o.asset_id, o.state) for o in work_orders.find(conn, model=world.model)] == [("asset_0", "scheduled")]


def test_a_promotion_is_served_without_a_restart_and_a_route_beats_the_registry(world: World, served: httpx.Client) -> None:
    def version() -> str:
        return str(served.get("/health").json()["version"])

    release(world.engine, world.settings.models_dir, world.model, "v2.0.0", flags_all=["v2.0.0"])
    until(lambda: version() == "v2.0.0")
    assert world.predict(served, reading(COOL)).json()["predictions"][0]["label"] is True
    json_file.patch(world.settings.serving_state_file, {"route_version": "v1.5.0"})
    until(lambda: version() == "v1.5.0")
    assert served.get("/health").json()["routeVersion"] == "v1.5.0"
    assert world.predict(served, reading(COOL)).json()["predictions"][0]["label"] is False
    json_file.patch(world.settings.serving_state_file, {"route_version": None})
    until(lambda: version() == "v2.0.0")


def test_a_version_that_cannot_be_trusted_does_not_replace_the_one_that_serves(world: World, served: httpx.Client) -> None:
    release(world.engine, world.settings.models_dir, world.model, "v2.0.0")
    until(lambda: served.get("/health").json()["version"] == "v2.0.0")
    (world.settings.models_dir / world.model / "v1.5.0" / "model.skops").write_bytes(b"changed")
    json_file.patch(world.settings.serving_state_file, {"route_version": "v1.5.0"})
    until(lambda: "changed after it was saved" in str(served.get("/health").json()["error"]))
    assert served.get("/health").json()["version"] == "v2.0.0"


def test_a_release_that_cannot_score_a_missing_value_is_named_and_the_version_before_goes_on_serving(
    world: World, served: httpx.Client
) -> None:
    """The registry has taken it: the file is sound, and only who scores with it finds out."""

    def not_loaded() -> dict[str, Any] | None:
        return cast(dict[str, Any] | None, served.get("/health").json()["notLoaded"])

    assert not_loaded() is None
    release(world.engine, world.settings.models_dir, world.model, "v2.0.0", estimator=linear())
    until(lambda: not_loaded() is not None)
    found = not_loaded()
    assert found is not None
    assert found["version"] == "v2.0.0"
    assert found["error"].startswith("v2.0.0 cannot score: Input X contains NaN")
    health = served.get("/health").json()
    assert (health["status"], health["version"], health["error"]) == ("ok", "v1.5.0", found["error"])
    assert world.predict(served, reading()).json()["version"] == "v1.5.0"
    with transaction(world.engine) as conn:
        change = registry.Change(registry.ROLLBACK, "ml_team_lead", NOW)
        registry.serve(conn, world.settings.models_dir, model=world.model, version="v1.5.0", change=change)
    until(lambda: not_loaded() is None)
    assert served.get("/health").json()["error"] is None


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"torque_nm": "hot"}, "assets.1.features.torque_nm"),
        ({"type": 5}, "assets.1.features.type"),
    ],
)
def test_a_feature_of_the_wrong_kind_is_named_and_counted(world: World, served: httpx.Client, changes: dict[str, Any], field: str) -> None:
    refused = world.predict(served, reading(), reading() | changes)
    assert (refused.status_code, refused.json()["field"]) == (422, field)
    assert world.errors() == {"invalid_features": 2}


def test_a_missing_feature_another_model_and_a_missing_token_are_refused(world: World, served: httpx.Client) -> None:
    short = reading()
    del short["torque_nm"]
    assert world.predict(served, short).json()["field"] == "assets.0.features.torque_nm"
    body = {"assets": [{"assetId": "a", "features": reading()}]}
    assert served.post("/api/v1/ml/models/other/predict", json=body).status_code == 404
    assert served.post(f"/api/v1/ml/models/{world.model}/predict", json=body, headers={"Authorization": ""}).status_code == 401
    assert served.post(f"/api/v1/ml/models/{world.model}/predict", json={"assets": []}).json()["field"] == "assets"


def test_prometheus_sees_predictions_latency_and_errors(world: World, served: httpx.Client) -> None:
    world.predict(served, reading(HOT), reading(COOL))
    world.predict(served, reading("x"))  # type: ignore[arg-type]
    seen = served.get("/metrics").text
    assert f'model_predictions_total{{label="high_risk",model="{world.model}",version="v1.5.0"}} 1.0' in seen
    assert f'model_errors_total{{kind="invalid_features",model="{world.model}"}} 1.0' in seen
    assert f'model_inference_seconds_count{{model="{world.model}"}} 1.0' in seen


def test_a_thousand_assets_take_under_a_quarter_second_of_cpu(world: World, served: httpx.Client) -> None:
    many = [reading(COOL)] * 1000
    assert world.predict(served, *many).status_code == 200
    spent = []
    for _ in range(3):
        before = time.process_time()
        assert len(world.predict(served, *many).json()["predictions"]) == 1000
        spent.append(time.process_time() - before)  # the client's share included
    assert min(spent) < 0.25


def test_as_a_process_it_serves_and_stops_at_once_when_told(world: World, engine: Engine) -> None:
    release(engine, world.settings.models_dir, world.model, "v1.5.0")
    url = engine.url.render_as_string(hide_password=False)
    env = os.environ | {"MLRUNBOOK_DATABASE_URL": url, "MLRUNBOOK_DATA_DIR": str(world.settings.data), "MLRUNBOOK_RESTART_ID": "r7"}
    port = _free_port()
    command = [sys.executable, "-m", "mlrunbook.local.serving.model_server", "--port", str(port), "--model", world.model]
    process = subprocess.Popen(command, env=env, cwd=Path(__file__).parents[3])
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=world.headers, timeout=60) as client:

            def healthy() -> bool:
                try:
                    return bool(client.get("/health").json()["restartId"] == "r7")
                except httpx.HTTPError:
                    return False

            until(healthy)
            assert client.get("/health").json()["version"] == "v1.5.0"
            process.terminate()
            asked = time.monotonic()
            process.wait(timeout=120)
            assert time.monotonic() - asked < 3
    finally:
        process.kill()
        process.wait()


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_rolling_back_in_the_registry_is_followed(world: World, served: httpx.Client) -> None:
    release(world.engine, world.settings.models_dir, world.model, "v2.0.0")
    with transaction(world.engine) as conn:
        change = registry.Change(registry.ROLLBACK, "ml_team_lead", NOW)
        registry.serve(conn, world.settings.models_dir, model=world.model, version="v1.5.0", change=change)
    until(lambda: served.get("/health").json()["version"] == "v1.5.0")
