"""Every prediction that was asked for and not made is counted, whatever the cause; what cannot score serves nobody."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
from sqlalchemy import Engine, create_engine, text

from mlrunbook.base import json_file
from mlrunbook.base.db import transaction
from mlrunbook.base.tokens import Scope
from mlrunbook.local.platform import artefacts, metrics, schemas
from mlrunbook.local.platform import columns as features
from mlrunbook.local.serving.failures import Failures
from mlrunbook.local.serving.model_server import create_app
from mlrunbook.local.serving.predicting import Figures, Predictor
from mlrunbook.local.serving.served_version import Serving
from tests.local.platform.kit import HOT, NOW, bearer, new_model, reading, release, running, settings_for
from tests.waiting import until


class World:
    def __init__(self, folder: Path, engine: Engine) -> None:
        self.engine, self.model, self.settings = engine, new_model(), settings_for(folder, engine)
        self.path = f"/api/v1/ml/models/{self.model}/predict"

    def stored(self) -> dict[str, int]:
        with transaction(self.engine) as conn:
            found = conn.execute(text("SELECT kind, count FROM platform.serving_errors WHERE model = :m"), {"m": self.model}).tuples()
            return dict(found.all())

    def ask(self, client: httpx.Client, *readings: dict[str, Any], model: str | None = None) -> httpx.Response:
        path = self.path.replace(self.model, model or self.model)
        return client.post(path, json={"assets": [{"assetId": "a", "features": one} for one in readings]})


def seen_by_prometheus(client: httpx.Client, kind: str) -> float:
    lines = client.get("/metrics").text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("model_errors_total{") and f'kind="{kind}"' in line)


@pytest.fixture
def world(engine: Engine, tmp_path: Path) -> World:
    return World(tmp_path, engine)


@pytest.fixture
def served(world: World) -> Iterator[httpx.Client]:
    release(world.engine, world.settings.models_dir, world.model, "v1.5.0")
    app = create_app(world.settings, world.engine, model=world.model)
    with running(app, bearer(world.engine, Scope.PREDICT, Scope.READ)) as client:
        yield client


def test_what_the_caller_got_wrong_is_counted_by_itself_and_is_no_error_of_the_model(world: World, served: httpx.Client) -> None:
    assert world.ask(served, reading()).status_code == 200
    assert world.ask(served, reading(), reading(), model="another").status_code == 404
    assert served.post(world.path, json={"assets": []}).status_code == 422
    assert served.post(world.path, content=b"{").status_code == 400
    assert world.ask(served, reading() | {"torque_nm": [1]}).status_code == 422
    assert served.post(world.path, json={"assets": [{"assetId": "a\x00", "features": reading()}]}).status_code == 422
    until(lambda: world.stored() == {"unknown_model": 2, "invalid_request": 4})
    assert (seen_by_prometheus(served, "unknown_model"), seen_by_prometheus(served, "invalid_request")) == (2, 4)
    with transaction(world.engine) as conn:
        seen = metrics.window(conn, world.model, since=NOW.replace(year=2020), until=NOW.replace(year=2100))
    assert (seen.error_rate, seen.errors, seen.refused) == (0, {}, {"unknown_model": 2, "invalid_request": 4})


def test_who_is_nobody_is_counted_at_the_door_and_never_in_the_store(world: World, served: httpx.Client) -> None:
    assert served.post(world.path, json={"assets": []}, headers={"Authorization": "Bearer mlrb_nobody"}).status_code == 401
    assert 'mlrunbook_refused_requests_total{reason="authentication"} 1.0' in served.get("/metrics").text
    served.get("/health")
    assert world.stored() == {}


def test_an_isolated_server_counts_whom_it_turns_away_and_reports_no_errors(world: World, served: httpx.Client) -> None:
    json_file.patch(world.settings.serving_state_file, {"isolated": True})
    assert world.ask(served, reading()).status_code == 503
    assert seen_by_prometheus(served, "isolated") == 1
    assert world.stored() == {}


def test_a_version_that_fails_on_one_request_says_so_and_goes_on_serving(world: World) -> None:
    known = [dict.fromkeys(features.RAW), *artefacts.TYPICAL]
    columns = features.engineer(features.as_frame(known)).to_numpy()
    picky = make_pipeline(OneHotEncoder(handle_unknown="error"), LogisticRegression()).fit(columns, [0, 1, 0, 1])
    release(world.engine, world.settings.models_dir, world.model, "v1.5.0", estimator=picky)
    with running(create_app(world.settings, world.engine, model=world.model), bearer(world.engine, Scope.PREDICT, Scope.READ)) as client:
        assert world.ask(client, reading(HOT), reading(HOT)).status_code == 500
        assert world.stored() == {"scoring": 2}
        health = client.get("/health").json()
        assert (health["status"], health["error"]) == ("ok", None)
        assert "unknown categories" in health["scoringError"]["error"]
        assert client.get("/ready").status_code == 200


class Flaky:
    """Scores what it is told to."""

    score = 0.5

    def predict_proba(self, rows: Any) -> Any:
        return np.full((len(rows), 2), self.score)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, -0.1, 1.0001])
def test_scores_that_are_no_probabilities_fail_are_counted_and_take_the_version_out_of_service(world: World, bad: float) -> None:
    release(world.engine, world.settings.models_dir, world.model, "v1.5.0")
    serving = Serving(world.model, world.settings, world.engine, restart_id=None)
    serving.refresh()
    assert serving.loaded is not None
    estimator = Flaky()
    serving.loaded = artefacts.LoadedModel(serving.loaded.manifest, estimator)
    predictor = Predictor(serving, world.engine, None, Figures())
    asked = [schemas.Asset(asset_id="a", features=reading())] * 3
    assert len(predictor.answer(world.model, asked, caller="x")["predictions"]) == 3
    estimator.score = bad
    with pytest.raises(Exception, match="no probabilities"):
        predictor.answer(world.model, asked, caller="x")
    assert world.stored() == {"scoring": 3}
    assert serving.health()["status"] == "cannot_score"
    assert "no probabilities" in str(serving.health()["error"])
    estimator.score = 0.5
    serving.refresh()
    assert serving.health()["status"] == "ok"


def test_what_the_store_cannot_take_yet_is_counted_when_it_can(world: World) -> None:
    away = create_engine("postgresql+psycopg://nobody@127.0.0.1:1/nothing", connect_args={"connect_timeout": 1})
    figures = Figures()
    failures = Failures(world.model, away, figures.errors)
    failures.note("storage", 7)
    failures.flush()
    failures.note("storage", 2)
    failures._engine = world.engine  # it answers again
    failures.flush()
    failures.flush()
    assert world.stored() == {"storage": 9}
