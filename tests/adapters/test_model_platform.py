"""HttpPlatform against the real API over real HTTP, and against platforms that fail."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from sqlalchemy import Engine

from mlrunbook.adapters.local import serving_config
from mlrunbook.adapters.model_platform import HttpPlatform
from mlrunbook.base.db import transaction
from mlrunbook.base.settings import Settings
from mlrunbook.base.tokens import Scope
from mlrunbook.domain.errors import NotFound, Refused, Transient, Unknown
from mlrunbook.domain.evaluation.outcome_blocks import OutcomeBlocks
from mlrunbook.domain.evaluation.performance import Confusion
from mlrunbook.domain.observed import ViewSchedule
from mlrunbook.domain.tally import as_binary
from mlrunbook.local.platform import feature_schedules, predictions, work_orders
from mlrunbook.local.platform.api import create_app
from mlrunbook.local.serving.feature_watch import Seen
from mlrunbook.ports import ModelPlatform
from tests.local.platform.kit import HOT, NOW, bearer, log, new_model, reading, release, running, save_version, settings_for


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
    platform, model = world.platform(Scope.OPERATE, Scope.READ), world.released()
    assert roll_back(platform, model) == "v1.5.0"
    assert roll_back(platform, model) == "v1.5.0"
    status = platform.status(model)
    assert (status.serving_version, status.previous_version, status.staging_version) == ("v1.5.0", "v2.0.0", None)
    assert (status.server_healthy, status.server_version) == (False, None)
    assert status.deployed_at is not None
    assert status.deployed_at.tzinfo is not None
    changes = platform.changes(model, since=datetime.now(UTC) - timedelta(minutes=5))
    assert [(c.kind, c.ref, c.author, c.detail["from"]) for c in changes] == [("rollback", "v1.5.0", "ml_team_lead", "v2.0.0")]


def test_the_registry_lists_its_models_also_one_of_which_no_version_serves(world: World) -> None:
    served, idle = world.released(), new_model()
    save_version(world.settings.models_dir, idle, "v1.0.0")
    world.platform(Scope.OPERATE, Scope.READ).register(idle, version="v1.0.0", registered_by="ci", idempotency_key="first")
    listed = world.platform(Scope.READ).models()
    assert {served, idle} <= set(listed)
    assert "no-such-model" not in listed


def test_metrics_come_through_whole(world: World) -> None:
    platform, model, now = world.platform(Scope.READ), world.released(), datetime.now(UTC)
    log(world.engine, model, tp=8, fp=2, fn=2, tn=88, at=now - timedelta(days=1), asset_type="H")
    log(world.engine, model, tp=4, fp=6, fn=6, tn=84, at=now - timedelta(minutes=2), version="v2.0.0")
    found = platform.metrics(model)
    assert found.baseline.by_asset_type == {"H": Confusion(tp=8, fp=2, fn=2, tn=88)}
    assert found.current.confusion == Confusion(tp=4, fp=6, fn=6, tn=84)
    assert (found.current.versions, found.current.flagged_share, found.current.null_rate) == (("v2.0.0",), 0.1, 0)
    assert found.current.latency_p95_ms == 20
    assert [block for block in found.current.blocks if block.n] == [found.current.confusion]
    of_type = found.baseline.blocks_by_asset_type["H"], found.baseline.assets_by_asset_type["H"]
    assert [sum((as_binary(part) for part in parts), Confusion()) for parts in of_type] == [found.baseline.confusion] * 2
    assert platform.metrics(model, since=now - timedelta(minutes=1), version="v2.0.0").current.predictions == 0
    assert platform.alerts(model) == []


def test_the_prediction_log_comes_through_newest_first(world: World) -> None:
    platform, model = world.platform(Scope.READ), world.released()
    ids = log(world.engine, model, tp=1, unlabelled=2, features_of=reading(None))
    found = platform.prediction_log(model, limit=2)
    assert [p.id for p in found] == ids[:0:-1]
    assert platform.prediction_log(model, until=datetime(2026, 1, 1, tzinfo=UTC)) == []
    (labelled,) = platform.prediction_log(model, labelled_only=True, since=datetime(2026, 1, 1, tzinfo=UTC))
    assert (labelled.id, labelled.outcome, labelled.label, labelled.features) == (ids[0], True, True, reading(None))


def test_work_orders_are_listed_and_flagged(world: World) -> None:
    platform, model = world.platform(Scope.OPERATE, Scope.READ), world.released()
    config = serving_config.ensure(world.settings.serving_config_file, threshold=0.5)
    with transaction(world.engine) as conn:
        work_orders.create(conn, [(1, "asset_1", 0.9)], model=model, config=config, at=datetime.now(UTC))
    assert [o.flagged_for_review for o in platform.work_orders(model)] == [False]
    assert [o.flagged_for_review for o in platform.flag_pending_work_orders(model, reason="x", idempotency_key="k")] == [True]
    assert platform.work_orders(model, state="done") == []


def test_a_version_is_registered_staged_and_promoted(world: World) -> None:
    platform, model = world.platform(Scope.OPERATE, Scope.READ), world.released()
    save_version(world.settings.models_dir, model, "v2.1.0")
    for _ in range(2):
        new = platform.register(model, version="v2.1.0", registered_by="x", idempotency_key="r1")
    assert (new.version, new.threshold, new.asset_types) == ("v2.1.0", 0.5, ("L", "M", "H"))
    assert new.trained_from < new.trained_to < new.registered_at
    assert [v.version for v in platform.versions(model)] == ["v1.5.0", "v2.0.0", "v2.1.0"]
    assert platform.versions(model)[2] == new
    assert platform.stage(model, version="v2.1.0", staged_by="x", idempotency_key="s1").staging_version == "v2.1.0"
    promoted = platform.promote(model, version="v2.1.0", reason="wins", promoted_by="x", idempotency_key="p1")
    assert (promoted.serving_version, promoted.previous_version, promoted.staging_version) == ("v2.1.0", "v2.0.0", None)
    platform.stage(model, version="v1.5.0", staged_by="x", idempotency_key="s2")
    assert platform.stage(model, version=None, staged_by="x", idempotency_key="s3").staging_version is None
    with pytest.raises(NotFound):
        platform.stage(model, version="v9.9.9", staged_by="x", idempotency_key="s4")
    with pytest.raises(NotFound):
        platform.register(model, version="v9.9.9", registered_by="x", idempotency_key="r2")
    with pytest.raises(NotFound):
        platform.versions("nobody")


def test_logged_requests_are_replayed_through_versions(world: World) -> None:
    platform, model, now = world.platform(Scope.READ), world.released(), datetime.now(UTC)
    log(world.engine, model, tp=2, at=now - timedelta(minutes=2), features_of=reading(HOT))
    log(world.engine, model, tn=1, unlabelled=1, at=now - timedelta(minutes=1), features_of=reading(None))
    found = platform.replay(model, versions=["v1.5.0", "v2.0.0", "v9.9.9"], limit=2)
    assert [r.outcome for r in found.rows] == [True, False]
    one, other, unknown = found.versions
    assert one.scores == other.scores  # the same model twice
    assert (len(one.scores), one.problem, one.size_bytes is not None, one.latency_ms is not None) == (2, None, True, True)
    assert (unknown.scores, "no version 'v9.9.9'" in str(unknown.problem)) == ((), True)
    assert platform.replay(model, versions=["v1.5.0"], since=now).rows == ()


def test_feature_schedules_are_listed_and_resumed(world: World) -> None:
    platform = world.platform(Scope.OPERATE, Scope.READ)
    world.released()
    with pytest.raises(NotFound):
        platform.feature_schedules()
    at = datetime.now(UTC)
    with transaction(world.engine) as conn:
        feature_schedules.note_run(conn, "asset_sensors", at=at, until=at)
        feature_schedules.note_run(conn, "asset_wear", at=at, until=None, error="the source is missing")
        feature_schedules.suspend(conn, ["asset_sensors"], "data_engineer", at)
    assert platform.feature_schedules() == [
        ViewSchedule("asset_sensors", suspended=True, last_run_at=at),
        ViewSchedule("asset_wear", suspended=False, last_run_at=at, error="the source is missing"),
    ]
    resumed = platform.resume_feature_schedules(["asset_sensors"], resumed_by="oncall_engineer", idempotency_key="k")
    assert [s.suspended for s in resumed] == [False, False]
    with pytest.raises(NotFound, match="vibration"):
        platform.resume_feature_schedules(["vibration"], resumed_by="oncall_engineer", idempotency_key="k2")
    with pytest.raises(Refused, match="scope operate"):
        world.platform(Scope.READ).resume_feature_schedules(["asset_wear"], resumed_by="x", idempotency_key="k3")


def test_a_shadows_scores_come_with_the_log(world: World) -> None:
    platform, model = world.platform(Scope.READ), world.released()
    rows = [
        predictions.Scored(at=datetime.now(UTC), asset_id="a", asset_type="L", features=reading(), score=0.1, shadow_score=shadow)
        for shadow in (0.7, None)
    ]
    with transaction(world.engine) as conn:
        predictions.record(conn, rows, model=model, version="v2.0.0", threshold=0.5, latency_ms=1, shadow_version="v2.1.0")
    failed, scored = platform.prediction_log(model)
    assert (scored.shadow_version, scored.shadow_score) == ("v2.1.0", 0.7)
    assert (failed.shadow_version, failed.shadow_score) == (None, None)


def test_a_replay_whose_scores_do_not_fit_its_rows_is_refused() -> None:
    version = {"version": "v1", "scores": [0.1], "problem": None}
    platform = answering(lambda _: httpx.Response(200, json={"rows": [], "versions": [version]}))
    with pytest.raises(Refused, match="one score a row"):
        platform.replay("m", versions=["v1"])


def test_what_does_not_exist_is_not_found(world: World) -> None:
    platform, model = world.platform(Scope.OPERATE, Scope.READ), world.released()
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
    assert world.platform(Scope.READ).status(model).serving_version == "v2.0.0"


def test_a_reused_key_is_refused_with_the_platforms_own_words(world: World) -> None:
    platform, model = world.platform(Scope.OPERATE, Scope.READ), world.released()
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


def test_a_proxys_page_that_nothing_is_found_is_no_word_about_the_model() -> None:
    """Else every model would be unknown while an ingress has lost its backend."""
    page = answering(lambda _: httpx.Response(404, html="<h1>default backend - 404</h1>"))
    for read in (page.models, lambda: page.status("m"), lambda: page.versions("m")):
        with pytest.raises(Transient, match="MLRUNBOOK_PLATFORM_URL"):
            read()


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"{}", b"null", b'{"model": "m", "servingVersion": "v1"}', b"\xff"])
def test_an_answer_of_another_shape_is_refused_not_guessed(body: bytes) -> None:
    with pytest.raises(Refused, match="not the runbook's shape"):
        answering(lambda _: httpx.Response(200, content=body)).status("m")


@pytest.mark.parametrize(
    ("seen", "word"),
    [
        (Seen("ok", NOW), "ok"),
        (Seen("failing", NOW, NOW, "the online store is locked"), "the online store is locked"),
        (Seen("loading", NOW, error="the registry does not answer"), None),
        (Seen("not_configured"), None),
        (None, None),
    ],
)
def test_the_status_carries_the_servers_own_word_on_its_features(seen: Seen | None, word: str | None) -> None:
    server = {"status": "ok", "features": json.loads(json.dumps(seen.as_wire(), default=str)) if seen else None}
    body = {"model": "m", "servingVersion": "v1", "serverHealthy": True, "server": server}
    assert answering(lambda _: httpx.Response(200, json=body)).status("m").features == word
    assert answering(lambda _: httpx.Response(200, json=body | {"server": None})).status("m").features is None


@pytest.mark.parametrize(
    ("server", "why", "route"),
    [
        ({"notLoaded": {"version": "v2", "since": "2026-03-02T12:00:00Z", "error": "it cannot score"}}, "it cannot score", None),
        ({"notLoaded": {"version": "v9", "error": "m has no version v9"}}, None, "v9: m has no version v9"),
        ({"notLoaded": None}, None, None),
        ({}, None, None),
        (None, None, None),
    ],
)
def test_the_status_says_what_the_server_cannot_load_and_whether_the_registry_or_a_route_wants_it(
    server: dict[str, object] | None, why: str | None, route: str | None
) -> None:
    body = {"model": "m", "servingVersion": "v2", "serverHealthy": True, "serverVersion": "v1", "server": server}
    status = answering(lambda _: httpx.Response(200, json=body)).status("m")
    assert (status.not_loaded, status.unloadable_route) == (why, route)


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


@pytest.mark.parametrize(
    ("changed", "about"),
    [
        ({"since": "2026-03-01T06:00:00Z"}, "since"),
        ({"blockS": 60}, "blockS"),
        ({"blocks": [[0, 0, 0, 0]] * 3}, "blocks"),
        ({"blocks": [[0, 0, 0]] * 2}, "blocks"),
        ({"blocks": [[0, 0, 0, -1]] * 2}, "blocks"),
        ({"byAsset": [{"tp": 1}]}, "byAsset"),
        ({"blocks": [["1", "2", "3", "4"]] * 2}, "blocks"),
        ({"blocks": [[1.5, 0, 0, 0]] * 2}, "blocks"),
        ({"blocks": [[10**400, 0, 0, 0]] * 2}, "blocks"),
        ({"blocks": [[True, 0, 0, 0]] * 2}, "blocks"),
        ({"blocks": [[None, 0, 0, 0]] * 2}, "blocks"),
        ({"blocks": [None, None]}, "blocks"),
        ({"blocks": [[0, 0, 0, 0]] * 2101}, "blocks"),
        ({"blocks": {}}, "blocks"),
        ({"blocks": None}, "blocks"),
        ({"blocks": "[[0,0,0,0]]"}, "blocks"),
        ({"blockS": "3600"}, "blockS"),
        ({"blockS": -3600}, "blockS"),
        ({"blockS": 10**400}, "blockS"),
        ({"since": 1772323200}, "since"),
        ({"since": "0001-01-01T00:00:00Z"}, "since"),
        ({"task": "poetry"}, "task"),
        ({"model": "another"}, "another"),
    ],
)
def test_other_outcome_blocks_than_those_asked_for_are_refused_by_name(changed: dict[str, object], about: str) -> None:
    since = datetime(2026, 3, 1, tzinfo=UTC)
    said = {"model": "m", "since": since.isoformat(), "blockS": 3600, "blocks": [[1, 2, 3, 4], [0, 0, 0, 0]], "byAsset": [[1, 2, 3, 4]]}

    def asked(body: dict[str, object]) -> OutcomeBlocks:
        transport = httpx.MockTransport(lambda _: httpx.Response(200, json=body))
        http = HttpPlatform("http://platform", transport=transport)
        return http.outcome_blocks("m", since=since, until=since + timedelta(hours=2, minutes=59), block_s=3600.0)

    assert asked(said) == OutcomeBlocks(since, 3600.0, (Confusion(1, 2, 3, 4), Confusion()), (Confusion(1, 2, 3, 4),))
    with pytest.raises(Refused, match=about):
        asked(said | changed)
