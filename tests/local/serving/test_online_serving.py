"""The model server by asset id, and the version in staging in its shadow, over HTTP in this process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
from sqlalchemy import Engine, text

from mlrunbook.base import json_file
from mlrunbook.base.db import transaction
from mlrunbook.base.tokens import Scope
from mlrunbook.domain.errors import Transient
from mlrunbook.domain.observed import Prediction
from mlrunbook.local.platform import artefacts, predictions, registry, work_orders
from mlrunbook.local.platform import columns as features
from mlrunbook.local.serving.model_server import create_app
from tests.local.platform.kit import COOL, HOT, NOW, bearer, new_model, reading, release, running, save_version, settings_for
from tests.waiting import until


class Store:
    """Online rows by asset id; `error` is what a read then raises."""

    def __init__(self, **rows: dict[str, Any]) -> None:
        self.rows, self.asked = rows, []  # type: ignore[var-annotated]
        self.error: Exception | None = None

    def start(self) -> None: ...
    def stop(self) -> None: ...

    def probe(self) -> None:
        if self.error:
            raise self.error

    def read(self, asset_ids: Sequence[str]) -> list[dict[str, Any]]:
        self.probe()
        self.asked.append(list(asset_ids))
        return [self.rows.get(i, dict.fromkeys(features.RAW)) for i in asset_ids]


class World:
    def __init__(self, folder: Path, engine: Engine) -> None:
        self.engine, self.model, self.settings = engine, new_model(), settings_for(folder, engine)
        self.store = Store(hot=reading(HOT, type="H"), cool=reading(COOL))
        release(engine, self.settings.models_dir, self.model, "v1.5.0")

    def start(self, *, online: bool = True) -> AbstractContextManager[httpx.Client]:
        app = create_app(self.settings, self.engine, model=self.model, online=self.store if online else None)
        return running(app, bearer(self.engine, Scope.PREDICT, Scope.READ))

    def predict(self, client: httpx.Client, *assets: dict[str, Any]) -> httpx.Response:
        return client.post(f"/api/v1/ml/models/{self.model}/predict", json={"assets": list(assets)})

    def logged(self) -> list[Prediction]:
        with transaction(self.engine) as conn:
            return predictions.recent(conn, model=self.model)[::-1]

    def errors(self) -> dict[str, int]:
        with transaction(self.engine) as conn:
            found = conn.execute(text("SELECT kind, count FROM platform.serving_errors WHERE model = :m"), {"m": self.model}).tuples()
            return dict(found.all())

    def stage(self, version: str | None, **how: Any) -> None:
        with transaction(self.engine) as conn:
            who: dict[str, Any] = {"model": self.model, "version": version, "by": "x", "at": NOW}
            if version and version not in {v.version for v in registry.list_versions(conn, self.model)}:
                save_version(self.settings.models_dir, self.model, version, **how or {"flags_all": True})
                registry.register(conn, self.settings.models_dir, **who)
            registry.stage(conn, self.settings.models_dir, **who)


@pytest.fixture
def world(engine: Engine, tmp_path: Path) -> World:
    """v1.5.0 serves; the store holds a hot and a cool asset."""
    return World(tmp_path, engine)


@pytest.fixture
def served(world: World) -> Iterator[httpx.Client]:
    with world.start() as client:
        yield client


def test_assets_without_features_are_read_by_id_and_logged_as_read(world: World, served: httpx.Client) -> None:
    answer = world.predict(served, {"assetId": "cool"}, {"assetId": "hot"}, {"assetId": "nobody"}).json()
    assert [p["label"] for p in answer["predictions"]][:2] == [False, True]
    cool, hot, nobody = world.logged()
    assert (hot.features, hot.asset_type) == (reading(HOT, type="H"), "H")
    assert (cool.asset_id, cool.features) == ("cool", reading(COOL))
    assert (nobody.features, nobody.asset_type) == (dict.fromkeys(features.RAW), "unknown")
    with transaction(world.engine) as conn:
        found = conn.execute(text("SELECT null_count FROM platform.predictions WHERE model = :m ORDER BY id"), {"m": world.model})
        assert found.scalars().all() == [0, 0, len(features.RAW)]


def test_features_in_the_request_are_taken_as_sent_and_only_the_others_read(world: World, served: httpx.Client) -> None:
    sent = {"assetId": "hot", "assetType": "M", "features": reading(COOL)}
    answer = world.predict(served, {"assetId": "hot"}, sent, {"assetId": "cool"}).json()
    assert [p["label"] for p in answer["predictions"]] == [True, False, False]
    assert world.store.asked == [["hot", "cool"]]
    assert [p.asset_type for p in world.logged()] == ["H", "M", "L"]


def test_a_store_that_cannot_be_read_is_a_counted_error_and_requests_with_features_go_on(world: World, served: httpx.Client) -> None:
    until(lambda: served.get("/health").json()["features"]["state"] == "ok")
    for world.store.error in (Transient("the online store is locked"), RuntimeError("surprise")):
        refused = world.predict(served, {"assetId": "hot"}, {"assetId": "cool"})
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
        assert "surprise" not in refused.text
    assert world.errors() == {"features": 4}
    assert world.predict(served, {"assetId": "hot", "features": reading(HOT)}).status_code == 200
    health = served.get("/health").json()
    assert (health["status"], health["features"]["checkedAt"] is not None) == ("ok", True)


def test_without_a_feature_store_features_must_be_sent(world: World) -> None:
    with world.start(online=False) as client:
        assert client.get("/health").json()["features"]["state"] == "not_configured"
        refused = world.predict(client, {"assetId": "cool", "features": reading(COOL)}, {"assetId": "hot"})
        assert (refused.status_code, refused.json()["field"]) == (422, "assets.1.features")
        assert "MLRUNBOOK_FEATURE_REPO" in refused.json()["detail"]


def test_what_is_staged_scores_every_request_and_nobody_acts_on_it(world: World, served: httpx.Client) -> None:
    world.stage("v2.1.0")  # flags everything
    until(lambda: served.get("/health").json()["stagingVersion"] == "v2.1.0")
    answer = world.predict(served, {"assetId": "cool"})
    assert (answer.json()["version"], answer.json()["predictions"][0]["label"], answer.json()["workOrdersCreated"]) == ("v1.5.0", False, 0)
    assert "v2.1.0" not in answer.text
    (row,) = world.logged()
    assert (row.version, row.label, row.shadow_version) == ("v1.5.0", False, "v2.1.0")
    assert row.shadow_score is not None
    assert row.shadow_score > 0.5
    with transaction(world.engine) as conn:
        assert work_orders.find(conn, model=world.model) == []
    world.stage(None)
    until(lambda: served.get("/health").json()["stagingVersion"] is None)
    world.predict(served, {"assetId": "cool"})
    assert (world.logged()[1].shadow_version, world.logged()[1].shadow_score) == (None, None)


def test_a_staged_version_that_fails_harms_no_answer_and_is_counted(world: World, served: httpx.Client) -> None:
    known = [reading(COOL), dict.fromkeys(features.RAW), *artefacts.TYPICAL]
    columns = features.engineer(features.as_frame(known)).to_numpy()
    picky = make_pipeline(OneHotEncoder(handle_unknown="error"), LogisticRegression()).fit(
        columns, [0, 1, 0, 0, 1]
    )  # fails on any other value
    world.stage("v2.1.0", estimator=picky)
    until(lambda: served.get("/health").json()["stagingVersion"] == "v2.1.0")
    assert world.predict(served, {"assetId": "hot"}).json()["predictions"][0]["label"] is True
    world.predict(served, {"assetId": "cool"})
    hot, cool = world.logged()
    assert (hot.shadow_version, hot.shadow_score) == (None, None)
    assert cool.shadow_version == "v2.1.0"
    assert f'model_shadow_errors_total{{model="{world.model}",version="v2.1.0"}} 1.0' in served.get("/metrics").text
    health = served.get("/health").json()
    assert (health["status"], health["error"]) == ("ok", None)
    assert "v2.1.0 in staging cannot score" in health["stagingError"]
    assert world.errors() == {}


def test_a_staged_version_that_was_changed_is_not_loaded_and_the_server_goes_on(world: World) -> None:
    world.stage("v2.1.0")
    (world.settings.models_dir / world.model / "v2.1.0" / artefacts.ARTEFACT).write_bytes(b"changed")
    with world.start() as client:
        health = client.get("/health").json()
        assert (health["version"], health["stagingVersion"], "changed after" in health["stagingError"]) == ("v1.5.0", None, True)
        assert world.predict(client, {"assetId": "hot", "features": reading(HOT)}).status_code == 200
    assert world.logged()[0].shadow_version is None


def test_a_staged_version_that_traffic_is_routed_to_is_no_shadow_of_itself(world: World, served: httpx.Client) -> None:
    world.stage("v2.1.0")
    until(lambda: served.get("/health").json()["stagingVersion"] == "v2.1.0")
    json_file.patch(world.settings.serving_state_file, {"route_version": "v2.1.0"})
    until(lambda: served.get("/health").json()["version"] == "v2.1.0")
    world.predict(served, {"assetId": "cool", "features": reading(COOL)})
    (row,) = world.logged()
    assert (row.version, row.shadow_version) == ("v2.1.0", None)
