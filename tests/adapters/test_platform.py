"""HttpPlatform against the real API over real HTTP, and against platforms that fail."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from sqlalchemy import Engine

from mlrunbook.adapters.platform import HttpPlatform
from mlrunbook.db import transaction
from mlrunbook.domain.errors import NotFound, Refused, Transient, Unknown
from mlrunbook.domain.performance import Confusion
from mlrunbook.platform import serving_config, workorders
from mlrunbook.platform.api import create_app
from mlrunbook.ports import ModelPlatform
from mlrunbook.settings import Settings
from mlrunbook.tokens import Scope
from tests.platform.kit import bearer, log, new_model, reading, release, running, settings_for


@dataclass
class World:
    engine: Engine
    settings: Settings
    url: str

    def platform(self, *scopes: Scope) -> HttpPlatform:
        token = bearer(self.engine, *scopes)["Authorization"].removeprefix("Bearer ") if scopes else None
        return HttpPlatform(self.url, token, timeout_s=5)

    def released(self) -> str:
        model = new_model()
        release(self.engine, self.settings.models_dir, model, "v1.5.0", "v2.0.0")
        return model


@pytest.fixture(scope="module")
def world(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    settings = settings_for(tmp_path_factory.mktemp("data"), engine, model_server_url="http://127.0.0.1:9")
    with running(create_app(settings, engine, evaluate_every_s=None), {}) as client:
        yield World(engine, settings, str(client.base_url))


def roll_back(platform: ModelPlatform, model: str, *, to: str = "v1.5.0", key: str = "k1") -> str:
    status = platform.rollback(model, target_version=to, reason="worse", rolled_back_by="ml_team_lead", idempotency_key=key)
    return status.serving_version


def test_a_rollback_is_made_read_back_and_not_made_twice(world: World) -> None:
    platform, model = world.platform(Scope.OPERATE), world.released()
    assert roll_back(platform, model) == "v1.5.0"
    assert roll_back(platform, model) == "v1.5.0"
    status = platform.status(model)
    assert (status.serving_version, status.previous_version, status.staging_version) == ("v1.5.0", "v2.0.0", None)
    assert (status.server_healthy, status.server_version) == (False, None)
    assert status.deployed_at is not None
    assert status.deployed_at.tzinfo is not None
    changes = platform.changes(model, since=datetime.now(UTC) - timedelta(minutes=5))
    assert [(c.kind, c.ref, c.author, c.detail["from"]) for c in changes] == [("rollback", "v1.5.0", "ml_team_lead", "v2.0.0")]


def test_metrics_come_through_whole(world: World) -> None:
    platform, model, now = world.platform(), world.released(), datetime.now(UTC)
    log(world.engine, model, tp=8, fp=2, fn=2, tn=88, at=now - timedelta(days=1), asset_type="H")
    log(world.engine, model, tp=4, fp=6, fn=6, tn=84, at=now - timedelta(minutes=2), version="v2.0.0")
    found = platform.metrics(model)
    assert found.baseline.by_asset_type == {"H": Confusion(tp=8, fp=2, fn=2, tn=88)}
    assert found.current.confusion == Confusion(tp=4, fp=6, fn=6, tn=84)
    assert (found.current.versions, found.current.flagged_share, found.current.null_rate) == (("v2.0.0",), 0.1, 0)
    assert found.current.latency_p95_ms == 20
    assert platform.metrics(model, since=now - timedelta(minutes=1), version="v2.0.0").current.predictions == 0
    assert platform.alerts(model) == []


def test_the_prediction_log_comes_through_newest_first(world: World) -> None:
    platform, model = world.platform(), world.released()
    ids = log(world.engine, model, tp=1, unlabelled=2, features_of=reading(None))
    found = platform.prediction_log(model, limit=2)
    assert [p.id for p in found] == ids[:0:-1]
    assert platform.prediction_log(model, until=datetime(2026, 1, 1, tzinfo=UTC)) == []
    (labelled,) = platform.prediction_log(model, labelled_only=True, since=datetime(2026, 1, 1, tzinfo=UTC))
    assert (labelled.id, labelled.outcome, labelled.label, labelled.features) == (ids[0], True, True, reading(None))


def test_work_orders_are_listed_and_flagged(world: World) -> None:
    platform, model = world.platform(Scope.OPERATE), world.released()
    config = serving_config.ensure(world.settings.serving_config_file, threshold=0.5)
    with transaction(world.engine) as conn:
        workorders.create(conn, [(1, "asset_1", 0.9)], model=model, config=config, at=datetime.now(UTC))
    assert [o.flagged_for_review for o in platform.work_orders(model)] == [False]
    assert [o.flagged_for_review for o in platform.flag_pending_work_orders(model, reason="x", idempotency_key="k")] == [True]
    assert platform.work_orders(model, state="done") == []


def test_what_does_not_exist_is_not_found(world: World) -> None:
    platform, model = world.platform(Scope.OPERATE), world.released()
    with pytest.raises(NotFound, match=r"registered are v1\.5\.0, v2\.0\.0"):
        roll_back(platform, model, to="v9.9.9")
    with pytest.raises(NotFound):
        platform.status("nobody")
    with pytest.raises(NotFound):
        platform.status("../../model-performance/alerts")


def test_a_token_without_the_scope_is_refused_and_the_scope_named(world: World) -> None:
    model = world.released()
    for platform in (world.platform(), world.platform(Scope.READ)):
        with pytest.raises(Refused, match="scope operate"):
            roll_back(platform, model)
    assert world.platform().status(model).serving_version == "v2.0.0"


def test_a_reused_key_is_refused_with_the_platforms_own_words(world: World) -> None:
    platform, model = world.platform(Scope.OPERATE), world.released()
    roll_back(platform, model)
    with pytest.raises(Refused, match="Idempotency-Key 'k1' was used for"):
        roll_back(platform, model, to="v2.0.0")


def answering(answer: Callable[[httpx.Request], httpx.Response]) -> HttpPlatform:
    return HttpPlatform("http://platform", "t", transport=httpx.MockTransport(answer))


@pytest.mark.parametrize(
    ("status", "read_error", "write_error"),
    [
        (400, Refused, Refused),
        (401, Refused, Refused),
        (302, Refused, Refused),
        (404, NotFound, NotFound),
        (409, Refused, Refused),
        (429, Transient, Transient),
        (500, Transient, Transient),
        (503, Transient, Transient),
        (502, Transient, Unknown),  # a proxy lost the answer
        (504, Transient, Unknown),
    ],
)
def test_statuses_become_what_the_caller_may_do(status: int, read_error: type[Exception], write_error: type[Exception]) -> None:
    platform = answering(lambda _: httpx.Response(status, text="<html>"))
    with pytest.raises(read_error) as read:
        platform.status("m")
    with pytest.raises(write_error) as written:
        roll_back(platform, "m")
    assert (read.type, written.type) == (read_error, write_error)


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"{}", b"null", b'{"model": "m", "servingVersion": "v1"}', b"\xff"])
def test_an_answer_of_another_shape_is_refused_not_guessed(body: bytes) -> None:
    with pytest.raises(Refused, match="not the runbook's shape"):
        answering(lambda _: httpx.Response(200, content=body)).status("m")


def test_a_model_without_anything_in_production_is_not_found() -> None:
    with pytest.raises(NotFound, match="promote one first"):
        answering(lambda _: httpx.Response(200, json={"model": "m", "servingVersion": None})).status("m")


def test_a_platform_that_is_down_is_transient_for_reads_and_writes() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound, not listening: refuses
        platform = HttpPlatform(f"http://127.0.0.1:{closed.getsockname()[1]}", "t", timeout_s=1)
        with pytest.raises(Transient, match="is the model platform up"):
            platform.status("m")
        with pytest.raises(Transient, match="is the model platform up"):
            roll_back(platform, "m")


def test_a_write_that_was_sent_and_not_answered_is_unknown_and_a_read_is_transient() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections, never answers
        platform = HttpPlatform(f"http://127.0.0.1:{silent.getsockname()[1]}", "t", timeout_s=0.2)
        with pytest.raises(Unknown, match="read back whether it happened"):
            roll_back(platform, "m")
        with pytest.raises(Transient):
            platform.status("m")


def test_a_connection_cut_after_the_request_is_unknown() -> None:
    with socket.create_server(("127.0.0.1", 0)) as cutting:

        def cut() -> None:
            connection, _ = cutting.accept()
            connection.recv(65536)
            connection.close()

        threading.Thread(target=cut, daemon=True).start()
        with pytest.raises(Unknown):
            roll_back(HttpPlatform(f"http://127.0.0.1:{cutting.getsockname()[1]}", "t", timeout_s=2), "m")
