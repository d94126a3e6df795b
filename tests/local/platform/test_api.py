"""The runbook's endpoints over HTTP, as its curl lines call them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from pydantic import SecretStr
from sqlalchemy import Engine, create_engine

from mlrunbook.adapters.local import serving_config
from mlrunbook.base import json_file
from mlrunbook.base.db import transaction
from mlrunbook.base.settings import Settings
from mlrunbook.base.tokens import Scope
from mlrunbook.local.platform import feature_schedules, work_orders
from mlrunbook.local.platform.api import create_app
from mlrunbook.local.serving import model_server
from tests.local.platform.kit import HOT, NOW, bearer, log, new_model, reading, release, running, save_version, settings_for
from tests.waiting import until

NOBODY = "http://127.0.0.1:9"  # the discard port: refuses


@dataclass
class World:
    engine: Engine
    settings: Settings
    model: str
    api: httpx.Client

    @property
    def base(self) -> str:
        return f"/api/v1/ml/models/{self.model}"

    def applied(self) -> dict[str, int]:
        found: dict[str, int] = self.api.get(f"{self.base}/applied").json()["applied"]
        return found


@pytest.fixture(scope="module")
def api(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Settings, httpx.Client]]:
    settings = settings_for(tmp_path_factory.mktemp("data"), engine, model_server_url=NOBODY)
    with running(create_app(settings, engine, evaluate_every_s=None), bearer(engine, Scope.OPERATE, Scope.OUTCOMES, Scope.READ)) as client:
        yield settings, client


@pytest.fixture
def world(engine: Engine, api: tuple[Settings, httpx.Client]) -> World:
    """v2.0.0 serves, v1.5.0 served before."""
    settings, client = api
    model = new_model()
    release(engine, settings.models_dir, model, "v1.5.0", "v2.0.0")
    serving_config.ensure(settings.serving_config_file, threshold=0.5)
    json_file.patch(settings.serving_state_file, {"model": model})
    return World(engine, settings, model, client)


def test_the_models_are_listed_by_name(world: World) -> None:
    listed = world.api.get("/api/v1/ml/models").json()["models"]
    assert {"model": world.model} in listed
    assert listed == sorted(listed, key=lambda one: one["model"])


def test_a_rollback_answers_with_the_status_and_is_applied_once(world: World) -> None:
    body = {"targetVersion": "v1.5.0", "reason": "Performance degradation in v2.0.0", "rolledBackBy": "ml_team_lead"}
    for _ in range(3):
        answer = world.api.post(f"{world.base}/rollback", json=body)
        assert (answer.status_code, answer.json()["servingVersion"], answer.json()["previousVersion"]) == (200, "v1.5.0", "v2.0.0")
    assert world.applied()["rollback"] == 1
    latest = world.api.get(f"{world.base}/changes").json()["changes"][0]
    assert (latest["kind"], latest["ref"], latest["author"]) == ("rollback", "v1.5.0", "ml_team_lead")
    assert [d["version"] for d in world.api.get(f"{world.base}/versions").json()["history"]] == ["v1.5.0", "v2.0.0", "v1.5.0"]


def test_an_idempotency_key_holds_though_something_else_was_promoted(world: World) -> None:
    body, key = {"targetVersion": "v1.5.0", "rolledBackBy": "oncall_engineer"}, {"Idempotency-Key": "incident_1:0"}
    world.api.post(f"{world.base}/rollback", json=body, headers=key)
    world.api.post(f"{world.base}/promote", json={"version": "v2.0.0"})
    assert world.api.post(f"{world.base}/rollback", json=body, headers=key).json()["servingVersion"] == "v2.0.0"
    assert world.applied() == {"promote": 3, "register": 2, "rollback": 1}


def test_a_rollback_to_an_unknown_version_is_404(world: World) -> None:
    answer = world.api.post(f"{world.base}/rollback", json={"targetVersion": "v9.9.9", "rolledBackBy": "ml_team_lead"})
    assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")
    assert "registered are v1.5.0, v2.0.0" in answer.json()["detail"]


@pytest.mark.parametrize("path", ["status", "versions", "changes", "applied", "config", "work-orders"])
def test_an_unknown_model_is_404_everywhere(world: World, path: str) -> None:
    assert world.api.get(f"/api/v1/ml/models/nobody/{path}").status_code == 404
    for url in ("metrics/nobody", "history/nobody", "alerts?model=nobody"):
        assert world.api.get(f"/api/v1/model-performance/{url}").status_code == 404


@pytest.mark.parametrize(("method", "path"), [("GET", "config"), ("PATCH", "config"), ("POST", "restart")])
def test_the_config_and_the_restart_are_those_of_the_model_that_this_machine_serves(world: World, method: str, path: str) -> None:
    """There is one server here, with one config: of another registered model it is neither told nor changed."""
    other = new_model()
    release(world.engine, world.settings.models_dir, other, "v1.5.0")
    files = (world.settings.serving_state_file, world.settings.serving_config_file)
    before = [f.read_bytes() for f in files]
    body = None if method == "GET" else {"restartId": "r9"} if path == "restart" else {"threshold": 0.9}
    answer = world.api.request(method, f"/api/v1/ml/models/{other}/{path}", json=body)
    assert (answer.status_code, f"this machine serves {world.model}, not {other}" in answer.json()["detail"]) == (409, True)
    assert [f.read_bytes() for f in files] == before
    assert "config" not in world.api.get(f"/api/v1/ml/models/{other}/applied").json()["applied"]


def test_work_orders_of_another_model_stay_as_they_are(world: World) -> None:
    other, config = new_model(), serving_config.read(world.settings.serving_config_file)
    release(world.engine, world.settings.models_dir, other, "v1.5.0")
    with transaction(world.engine) as conn:
        for model in (world.model, other):
            work_orders.create(conn, [(1, "asset_1", 0.9)], model=model, config=config, at=datetime.now(UTC))
    world.api.post(f"{world.base}/work-orders/flag", json={"reason": "unsafe"})
    (theirs,) = world.api.get(f"/api/v1/ml/models/{other}/work-orders").json()["workOrders"]
    assert not theirs["flaggedForReview"]


def test_the_status_says_unhealthy_when_the_model_server_does_not_answer(world: World) -> None:
    status = world.api.get(f"{world.base}/status").json()
    assert (status["servingVersion"], status["status"], status["serverHealthy"], status["serverVersion"]) == (
        "v2.0.0",
        "unhealthy",
        False,
        None,
    )


def test_the_status_shows_what_the_running_server_serves(world: World, engine: Engine) -> None:
    headers = bearer(engine, Scope.OPERATE, Scope.READ)
    with running(model_server.create_app(world.settings, engine, model=world.model), headers) as server:
        token = SecretStr(headers["Authorization"].partition(" ")[2])
        settings = world.settings.model_copy(update={"model_server_url": str(server.base_url), "platform_token": token})
        with running(create_app(settings, engine, evaluate_every_s=None), headers) as api:
            status = api.get(f"{world.base}/status").json()
            assert (status["status"], status["serverVersion"], status["server"]["config"]["threshold"]) == ("healthy", "v2.0.0", 0.5)
            assert status["server"]["features"]["state"] == "not_configured"


def test_metrics_carry_every_figure_the_runbook_names(world: World) -> None:
    now = datetime.now(UTC)
    log(world.engine, world.model, tp=80, fp=20, fn=20, tn=880, at=now - timedelta(days=1))
    log(world.engine, world.model, tp=40, fp=60, fn=60, tn=840, at=now - timedelta(minutes=1), version="v2.0.0")
    found = world.api.get(f"/api/v1/model-performance/metrics/{world.model}").json()
    assert found["current"]["confusionMatrix"] == {"tp": 40, "fp": 60, "fn": 60, "tn": 840}
    assert found["change"]["f1"] == pytest.approx(-0.5)
    named = {"f1", "precision", "recall", "latencyP95Ms", "errorRate", "nullRate", "flaggedShare", "byRiskLevel", "byAssetType", "versions"}
    assert named <= set(found["current"])
    url = f"/api/v1/model-performance/metrics/{world.model}/baseline"
    pinned = {"since": (now - timedelta(minutes=5)).isoformat(), "until": now.isoformat()}
    assert world.api.put(url, json=pinned).status_code == 200
    assert world.api.get(f"/api/v1/model-performance/metrics/{world.model}").json()["change"]["f1"] == 0
    naive = world.api.get(f"/api/v1/model-performance/metrics/{world.model}", params={"since": "2026-01-01T00:00:00"})
    assert (naive.status_code, naive.json()["field"]) == (422, "since")


def test_predictions_are_read_with_a_limit_and_outcomes_entered_by_id(world: World) -> None:
    ids = log(world.engine, world.model, unlabelled=3, at=datetime.now(UTC))
    answer = world.api.post("/api/v1/ml/predictions/outcomes", json={"outcomes": [{"predictionId": ids[0], "failed": True}]})
    assert answer.json() == {"recorded": 1, "unknown": []}
    found = world.api.get(f"/api/v1/ml/predictions/logs?limit=2&model={world.model}").json()["predictions"]
    assert [p["predictionId"] for p in found] == ids[:0:-1]
    labelled = world.api.get("/api/v1/ml/predictions/logs", params={"model": world.model, "labelledOnly": True}).json()["predictions"]
    assert [(p["predictionId"], p["outcome"]) for p in labelled] == [(ids[0], True)]
    unknown = world.api.post("/api/v1/ml/predictions/outcomes", json={"outcomes": [{"predictionId": 2**62, "failed": True}]})
    assert unknown.status_code == 404


def test_a_config_change_is_written_recorded_and_only_made_when_it_differs(world: World) -> None:
    body = {"threshold": 0.62, "autoScheduling": False, "changedBy": "oncall_engineer"}
    first = world.api.patch(f"{world.base}/config", json=body).json()
    again = world.api.patch(f"{world.base}/config", json=body).json()
    assert (first["threshold"], first["autoScheduling"], first["autoWorkOrders"]) == (0.62, False, True)
    assert again["revision"] == first["revision"]
    assert world.applied()["config"] == 1
    latest = world.api.get(f"{world.base}/changes").json()["changes"][0]
    assert (latest["kind"], latest["author"], latest["detail"]["to"]) == (
        "config",
        "oncall_engineer",
        {"threshold": 0.62, "auto_scheduling": False},
    )
    assert serving_config.read(world.settings.serving_config_file).threshold == 0.62
    stale = world.api.patch(f"{world.base}/config", json={"threshold": 0.3, "expectedRevision": "0"})
    assert stale.status_code == 503
    assert world.applied()["config"] == 1  # refused means not recorded either
    json_file.patch(world.settings.serving_config_file, {"threshold": 0.5, "auto_scheduling": True})


def test_a_restart_is_asked_for_once_per_id(world: World) -> None:
    for _ in range(2):
        answer = world.api.post(f"{world.base}/restart", json={"restartId": f"{world.model}:r1", "restartedBy": "ml_engineer"})
        assert (answer.status_code, answer.json()["restartId"]) == (202, f"{world.model}:r1")
    assert json_file.read(world.settings.serving_state_file)["restart_id"] == f"{world.model}:r1"
    assert world.applied()["restart"] == 1
    assert world.api.post(f"{world.base}/restart", json={}).json()["restartId"] != f"{world.model}:r1"


def test_pending_work_orders_are_flagged_all_and_once(world: World) -> None:
    config = serving_config.read(world.settings.serving_config_file)
    with transaction(world.engine) as conn:
        work_orders.create(conn, [(1, "asset_1", 0.9), (2, "asset_2", 0.8)], model=world.model, config=config, at=datetime.now(UTC))
    for _ in range(2):
        flagged = world.api.post(f"{world.base}/work-orders/flag", json={"reason": "model under suspicion"}).json()["workOrders"]
        assert [(o["assetId"], o["flaggedForReview"]) for o in flagged] == [("asset_2", True), ("asset_1", True)]
    assert world.applied()["flag_work_orders"] == 1
    assert len(world.api.get(f"{world.base}/work-orders?state=scheduled").json()["workOrders"]) == 2
    assert world.api.get(f"{world.base}/work-orders?state=lost").json()["field"] == "state"


def test_a_version_is_registered_staged_and_promoted_and_a_tampered_one_refused(world: World) -> None:
    folder = save_version(world.settings.models_dir, world.model, "v2.1.0")
    made = world.api.post(f"{world.base}/versions", json={"version": "v2.1.0", "artefact": f"{world.model}/v2.1.0"})
    assert (made.status_code, made.json()["registeredBy"]) == (201, "ml_engineer")
    assert world.api.post(f"{world.base}/staging", json={"version": "v2.1.0"}).json()["stagingVersion"] == "v2.1.0"
    assert world.api.delete(f"{world.base}/staging").json()["stagingVersion"] is None
    elsewhere = world.api.post(f"{world.base}/versions", json={"version": "v2.1.0", "artefact": "../secret"})
    assert (elsewhere.status_code, elsewhere.json()["field"]) == (422, "artefact")
    (folder / "model.skops").write_bytes(b"changed")
    refused = world.api.post(f"{world.base}/promote", json={"version": "v2.1.0", "promotedBy": "release_pipeline"})
    assert (refused.status_code, refused.json()["field"]) == (422, "version")
    assert world.api.get(f"{world.base}/status").json()["servingVersion"] == "v2.0.0"


def test_the_staging_slot_is_filled_and_emptied_once_a_key_and_answers_with_the_status(world: World) -> None:
    save_version(world.settings.models_dir, world.model, "v2.1.0")
    assert world.api.post(f"{world.base}/versions", json={"version": "v2.1.0"}, headers={"Idempotency-Key": "r"}).status_code == 201

    def stage(version: str | None, key: str) -> httpx.Response:
        return world.api.post(f"{world.base}/staging", json={"version": version, "stagedBy": "x"}, headers={"Idempotency-Key": key})

    assert [stage("v2.1.0", "s1").json()[name] for name in ("stagingVersion", "servingVersion", "serverHealthy")] == [
        "v2.1.0",
        "v2.0.0",
        False,
    ]
    assert stage(None, "s2").json()["stagingVersion"] is None
    assert stage("v2.1.0", "s1").json()["stagingVersion"] is None  # a late repeat of what was done
    assert stage("v1.5.0", "s1").status_code == 422
    assert stage("v2.0.0", "s3").status_code == 409  # it serves
    assert stage("v9.9.9", "s4").status_code == 404
    assert world.applied() == {"promote": 2, "register": 3, "staging": 2}
    assert world.api.get(f"{world.base}/versions").json()["versions"][2]["assetTypes"] == ["L", "M", "H"]


def test_schedules_are_suspended_and_resumed_by_operators(world: World, engine: Engine) -> None:
    url, body = "/api/v1/ml/features/schedules", {"views": ["asset_wear"], "changedBy": "data_engineer"}
    assert world.api.get(url).status_code == 404  # nothing runs on a schedule here yet
    assert world.api.post(f"{url}/resume", json=body).status_code == 404
    with transaction(engine) as conn:
        feature_schedules.note_run(conn, "asset_wear", at=NOW, until=NOW)
    assert world.api.post(f"{url}/suspend", json=body, headers=bearer(engine, Scope.OUTCOMES)).status_code == 403
    assert world.api.post(f"{url}/suspend", json=body).json() == {
        "schedules": [
            {
                "view": "asset_wear",
                "suspended": True,
                "lastRunAt": "2026-03-02T12:00:00Z",
                "materializedUntil": "2026-03-02T12:00:00Z",
                "error": None,
            }
        ]
    }
    for _ in range(2):
        answer = world.api.post(f"{url}/resume", json=body, headers={"Idempotency-Key": "incident_1:1"})
        assert answer.json()["schedules"][0]["suspended"] is False
    assert (world.applied()["suspend_feature_schedules"], world.applied()["resume_feature_schedules"]) == (1, 1)
    latest = world.api.get(f"{world.base}/changes").json()["changes"][0]
    assert (latest["kind"], latest["ref"], latest["author"]) == ("feature_store", "asset_wear", "data_engineer")


def test_a_replay_needs_a_version_and_a_known_model(world: World) -> None:
    log(world.engine, world.model, tp=1, unlabelled=1, features_of=reading(HOT))
    found = world.api.get(f"{world.base}/replay", params={"version": ["v1.5.0", "v9.9.9"]}).json()
    assert [p["outcome"] for p in found["rows"]] == [True]
    assert [(v["version"], len(v["scores"]), v["problem"] is None) for v in found["versions"]] == [
        ("v1.5.0", 1, True),
        ("v9.9.9", 0, False),
    ]
    assert world.api.get(f"{world.base}/replay").json()["field"] == "version"
    assert world.api.get(f"{world.base}/replay", params={"version": "v1.5.0", "limit": 10_001}).json()["field"] == "limit"
    assert world.api.get("/api/v1/ml/models/nobody/replay", params={"version": "v1.5.0"}).status_code == 404


def test_reads_and_writes_need_a_token_of_the_right_scope(world: World, engine: Engine) -> None:
    body, url = {"targetVersion": "v1.5.0", "rolledBackBy": "x"}, f"{world.base}/rollback"

    def status(headers: dict[str, str], url: str = url, body: dict[str, Any] = body) -> int:
        return world.api.post(url, json=body, headers=headers).status_code

    outcomes = {"outcomes": [{"predictionId": 2**62, "failed": True}]}
    intake = bearer(engine, Scope.OUTCOMES)
    assert status({"Authorization": ""}) == 401
    assert status({"Authorization": "Bearer mlrb_00000000_wrong"}) == 401
    assert status(intake) == 403
    assert status(intake, "/api/v1/ml/predictions/outcomes", outcomes) == 404  # let in, but no such prediction
    assert status(bearer(engine, Scope.OPERATE), "/api/v1/ml/predictions/outcomes", outcomes) == 403
    assert world.api.get(f"{world.base}/status", headers={"Authorization": ""}).status_code == 401
    assert world.api.get(f"{world.base}/status", headers=intake).status_code == 403
    assert world.applied() == {"promote": 2, "register": 2}


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({"targetVersion": 5, "rolledBackBy": "x"}, 422, "targetVersion"),
        ({"targetVersion": "../x", "rolledBackBy": "x"}, 422, "targetVersion"),
        ({"rolledBackBy": "x"}, 422, "targetVersion"),
        ({"targetVersion": "v1.5.0", "force": True}, 422, "force"),
        ({"targetVersion": "v1.5.0", "reason": "nul \x00"}, 422, None),
        ([1, 2], 400, None),
    ],
)
def test_a_bad_body_is_a_problem_that_names_the_field(world: World, body: Any, status: int, field: str | None) -> None:
    answer = world.api.post(f"{world.base}/rollback", json=body)
    assert (answer.status_code, answer.headers["content-type"], answer.json().get("field")) == (status, "application/problem+json", field)


@pytest.mark.parametrize(
    ("content", "kind"),
    [(b"{not json", "application/json"), (b"\xff\xfe", "application/json"), (b"{}", "text/plain"), (b"", "application/json")],
)
def test_a_body_that_is_not_json_is_400(world: World, content: bytes, kind: str) -> None:
    answer = world.api.post(f"{world.base}/rollback", content=content, headers={"Content-Type": kind})
    assert (answer.status_code, answer.headers["content-type"]) == (400, "application/problem+json")


def test_a_body_over_the_limit_is_413_also_when_it_comes_in_chunks(world: World) -> None:
    megabyte = b" " * (1 << 20)
    for content in (megabyte * 9, (megabyte for _ in range(9))):
        answer = world.api.post(f"{world.base}/rollback", content=content)
        assert (answer.status_code, answer.json()["title"]) == (413, "Body too large")


def test_a_wrong_path_or_method_is_a_problem_too(world: World) -> None:
    assert world.api.get("/nowhere").headers["content-type"] == "application/problem+json"
    assert world.api.get(f"{world.base}/rollback").status_code == 405


def test_without_its_database_the_platform_says_try_again(world: World) -> None:
    away = create_engine("postgresql+psycopg://x@127.0.0.1:9/x")
    with running(create_app(world.settings, away, evaluate_every_s=None), {}) as client:
        answer = client.get("/health")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert "Traceback" not in answer.text


def test_the_running_platform_raises_an_alert_and_tells_the_gateway(world: World, engine: Engine) -> None:
    now = datetime.now(UTC)
    log(engine, world.model, tp=80, fp=20, fn=20, tn=880, at=now - timedelta(days=1))
    log(engine, world.model, tp=10, fp=90, fn=90, tn=810, at=now - timedelta(minutes=1), version="v2.0.0", features_of=reading(HOT))
    got: list[dict[str, Any]] = []
    with running(_gateway(got), {}) as gateway:
        settings = world.settings.model_copy(update={"gateway_url": str(gateway.base_url)})
        with running(create_app(settings, engine, evaluate_every_s=0.2), bearer(engine, Scope.READ)) as api:
            until(lambda: any(m["commonLabels"]["model"] == world.model for m in got))
            active = api.get("/api/v1/model-performance/alerts", params={"model": world.model}).json()["alerts"]
    assert "ModelF1Drop" in {a["labels"]["alertname"] for a in active}


def _gateway(got: list[dict[str, Any]]) -> Any:
    from fastapi import FastAPI

    app = FastAPI()

    @app.post("/webhooks/alertmanager", status_code=202)
    def take(body: dict[str, Any]) -> None:
        got.append(body)

    return app
