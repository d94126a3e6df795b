"""The scheduled materialisation against a real Feast: what has landed is served, nothing is lost, and what fails is written down."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from sqlalchemy import Engine, delete

from mlrunbook.adapters.feast.api import load_feast, open_store
from mlrunbook.base import http_server
from mlrunbook.base.db import transaction
from mlrunbook.base.settings import Settings
from mlrunbook.drills.simulator.fleet import Fleet
from mlrunbook.drills.simulator.simulator import FleetSimulator
from mlrunbook.drills.simulator.traffic import MODEL, Access, as_features
from mlrunbook.local.features import lake
from mlrunbook.local.features.definitions import VIEWS
from mlrunbook.local.features.feature_service import INTERVALS_KEPT, RETRY_S, Schedules, limits_of, reading_only, run
from mlrunbook.local.features.repository import apply
from mlrunbook.local.platform import feature_schedules, schemas
from mlrunbook.local.platform.feature_schedules import Schedule
from mlrunbook.local.platform.tables import feature_schedules as table
from mlrunbook.local.postgres import EmbeddedPostgres
from mlrunbook.local.serving.online_features import OnlineFeatures
from tests.local.features.feast_kit import SENSORS, WEAR, Feast
from tests.local.platform.kit import running
from tests.served import served
from tests.waiting import until

T0 = datetime.now(UTC) - timedelta(hours=1)
US, SECOND = timedelta(microseconds=1), timedelta(seconds=1)


class World(Feast):
    """A feature store and its schedules, whose clock is the argument of `round`."""

    def __init__(self, postgres: EmbeddedPostgres, folder: Path, engine: Engine) -> None:
        super().__init__(postgres, folder)
        self.engine = engine
        self.schedules = Schedules(self.store, self.repo, engine)

    def round(self, at: datetime) -> dict[str, Schedule]:
        self.schedules.round(at)
        return self.states()

    def states(self) -> dict[str, Schedule]:
        with transaction(self.engine) as conn:
            return {s.view: s for s in feature_schedules.states(conn)}

    def suspend(self, *views: str) -> None:
        with transaction(self.engine) as conn:
            feature_schedules.suspend(conn, views, by="somebody", at=T0)

    def resume(self, *views: str) -> None:
        with transaction(self.engine) as conn:
            feature_schedules.resume(conn, views, by="somebody", at=T0)


@pytest.fixture
def world(postgres: EmbeddedPostgres, tmp_path: Path, engine: Engine) -> World:
    with transaction(engine) as conn:
        conn.execute(delete(table))
    return World(postgres, tmp_path, engine)


def test_what_has_landed_is_materialised_and_the_schedule_says_how_far(world: World) -> None:
    assert world.round(T0) == {name: Schedule(name, False, T0) for name in VIEWS}  # it runs, and nothing is there yet
    world.land(T0, "a", "b", tool_wear_min=5.0)
    seen = world.round(T0 + SECOND)
    assert [(s.last_run_at, s.materialized_until, s.error) for s in seen.values()] == [(T0 + SECOND, T0 + US, None)] * 2
    assert (world.online("a"), world.online("b"), world.online("c")) == (5.0, 5.0, None)
    assert world.store.get_feature_view(WEAR).most_recent_end_time == T0 + US
    assert world.round(T0 + 2 * SECOND) == seen  # nothing new, and nothing done
    idle = world.round(T0 + 20 * SECOND)
    assert [(s.last_run_at, s.materialized_until) for s in idle.values()] == [(T0 + 20 * SECOND, T0 + US)] * 2


def test_a_suspended_view_stays_behind_alone_and_catches_up_with_everything_when_it_is_resumed(world: World) -> None:
    world.land(T0, "a", tool_wear_min=1.0, torque_nm=1.0)
    world.round(T0 + SECOND)
    world.suspend(WEAR)
    for i in range(2, 4):
        world.land(T0 + i * SECOND, "a" if i == 3 else "b", tool_wear_min=float(i), torque_nm=float(i))
        seen = world.round(T0 + i * SECOND + SECOND)
    assert (world.online("a"), world.online("b"), world.online("a", "torque_nm")) == (1.0, None, 3.0)
    assert (seen[WEAR].last_run_at, seen[SENSORS].materialized_until) == (T0 + SECOND, T0 + 3 * SECOND + US)
    world.resume(WEAR)
    world.round(T0 + 5 * SECOND)
    assert (world.online("a"), world.online("b")) == (3.0, 2.0)


def test_a_reading_that_lands_a_little_late_is_served_and_replaces_no_newer_one(world: World) -> None:
    world.land(T0, "a", tool_wear_min=10.0)
    world.round(T0 + SECOND)
    world.land(T0 - SECOND, "late", tool_wear_min=9.0)
    world.land(T0 - SECOND, "a", tool_wear_min=9.0)
    world.round(T0 + 2 * SECOND)
    assert (world.online("late"), world.online("a")) == (9.0, 10.0)


def test_a_reading_from_the_future_holds_up_nothing(world: World) -> None:
    world.land(T0 + timedelta(days=400), "ahead")
    world.land(T0, "a", tool_wear_min=1.0)
    assert world.round(T0 + SECOND)[WEAR].materialized_until == T0 + SECOND
    world.land(T0 + 2 * SECOND, "a", tool_wear_min=2.0)
    world.round(T0 + 3 * SECOND)
    assert (world.online("a"), world.online("ahead")) == (2.0, None)
    ran = world.states()
    assert world.round(T0 + 4 * SECOND) == ran  # it does not run again and again for a row that is not due


def test_a_view_that_ends_in_the_future_is_an_error_not_a_success_without_rows(world: World) -> None:
    world.land(T0, "a")
    world.materialize(T0 + timedelta(days=400), WEAR)
    world.land(T0 + SECOND, "a", tool_wear_min=7.0)
    seen = world.round(T0 + 2 * SECOND)
    assert "ends in the future" in (seen[WEAR].error or "")
    assert (seen[WEAR].materialized_until, seen[SENSORS].error) == (None, None)


def test_a_broken_file_is_named_and_the_schedule_goes_on_when_it_is_gone(world: World) -> None:
    world.land(T0, "a", tool_wear_min=1.0)
    (world.readings / "broken.parquet").write_bytes(b"no parquet at all")
    assert "broken.parquet is no usable Parquet file" in (world.round(T0 + SECOND)[WEAR].error or "")
    (world.readings / "broken.parquet").unlink()
    assert world.round(T0 + 5 * SECOND)[WEAR].error is None
    assert world.online("a") == 1.0


def test_a_dropped_table_is_an_error_of_its_view_alone_and_all_is_loaded_once_it_is_back(world: World) -> None:
    world.land(T0, "a", tool_wear_min=1.0)
    world.sql("DROP TABLE fleet_asset_wear")
    seen = world.round(T0 + SECOND)
    assert "fleet_asset_wear" in (seen[WEAR].error or "")
    assert (seen[SENSORS].error, world.online("a", "torque_nm")) == (None, 20.0)
    apply(open_store(world.repo), world.repo)
    world.round(T0 + SECOND + timedelta(seconds=RETRY_S))
    assert (world.states()[WEAR].error, world.online("a")) == (None, 1.0)


def test_after_postgresql_has_cut_every_connection_a_later_round_succeeds(world: World) -> None:
    world.land(T0, "a", tool_wear_min=1.0)
    world.round(T0 + SECOND)
    with psycopg.connect(world.admin_url, autocommit=True) as conn:
        conn.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [world.database])
    world.land(T0 + 2 * SECOND, "a", tool_wear_min=2.0)
    for i in range(3, 6):
        world.round(T0 + i * SECOND)
    assert (world.states()[WEAR].error, world.online("a")) == (None, 2.0)


def test_a_restart_goes_on_where_the_last_one_stopped_also_after_a_kill_in_the_middle(world: World) -> None:
    world.land(T0, "a", tool_wear_min=1.0)
    world.round(T0 + SECOND)
    view = world.store.get_feature_view(WEAR)
    view.state = type(view.state).MATERIALIZING
    world.store.registry.apply_feature_view(view, world.store.project)
    again = Schedules(open_store(world.repo), world.repo, world.engine)
    world.land(T0 + 2 * SECOND, "a", tool_wear_min=2.0)
    again.round(T0 + 3 * SECOND)
    assert (world.states()[WEAR].error, world.online("a")) == (None, 2.0)


def test_the_registry_does_not_grow_with_every_run(world: World) -> None:
    view = world.store.get_feature_view(WEAR)
    view.materialization_intervals = [(T0 + i * SECOND, T0 + (i + 1) * SECOND) for i in range(INTERVALS_KEPT)]
    world.store.registry.apply_feature_view(view, world.store.project)
    world.schedules = Schedules(world.store, world.repo, world.engine)
    world.schedules._fold_intervals(WEAR)
    kept = world.store.get_feature_view(WEAR)
    assert kept.materialization_intervals == [(T0, T0 + INTERVALS_KEPT * SECOND)]
    world.land(T0 + 2 * INTERVALS_KEPT * SECOND, "a", tool_wear_min=3.0)
    world.round(T0 + 3 * INTERVALS_KEPT * SECOND)
    assert world.online("a") == 3.0


def test_feasts_server_reads_and_refuses_to_write(world: World) -> None:
    world.land(T0, "a", tool_wear_min=4.0)
    world.round(T0 + SECOND)
    load_feast()
    from feast.feature_server import get_app

    with running(reading_only(get_app(open_store(world.repo)), limits_of(Settings())), {}) as http:
        assert http.get("/health").is_success
        asked = {"feature_service": "asset_features", "entities": {"asset_id": ["a", "nobody"]}}
        answer = http.post("/get-online-features", json=asked).json()
        row = dict(zip(answer["metadata"]["feature_names"], answer["results"], strict=True))["tool_wear_min"]
        assert (row["values"], row["statuses"]) == ([4.0, None], ["PRESENT", "NOT_FOUND"])
        for path in ("/materialize", "/materialize-incremental", "/push", "/write-to-online-store"):
            assert http.post(path, json={}).status_code == 404
        assert http.get("/docs").status_code == 404
        large = asked | {"entities": {"asset_id": ["a" * 100] * 6_000}}
        assert http.post("/get-online-features", json=large).status_code == 413
        assert http.post("/get-online-features", content=iter([b" " * 65_536] * 40)).status_code == 413, "it does not say its length"
        assert http.get("/health").is_success


def test_who_dawdles_at_the_feature_server_is_sent_away_and_holds_no_place(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for deadline in ("HEADERS_S", "BODY_S"):
        monkeypatch.setattr(http_server, deadline, 0.5)
    load_feast()
    from feast.feature_server import get_app

    app = reading_only(get_app(open_store(world.repo)), limits_of(Settings()))
    head = b"POST /get-online-features HTTP/1.1\r\nHost: x\r\n"
    with served(app, **http_server.options()) as url, httpx.Client(base_url=url, timeout=60) as http:
        address = ("127.0.0.1", int(url.rpartition(":")[2]))
        slow = [socket.create_connection(address, timeout=60) for _ in range(40)]
        for i, one in enumerate(slow):
            one.sendall(head if i % 2 else head + b"Content-Length: 100\r\n\r\n{")
        assert http.get("/health").is_success
        assert all(b" 408 " in one.recv(100) for one in slow)
        for one in slow:
            one.close()


class Platform:
    """Predictions by asset id over the real online store, and the real schedules. `predicted` holds the features each was made from."""

    def __init__(self, world: World, online: OnlineFeatures) -> None:
        self.world, self.online = world, online
        self.predicted: list[tuple[str, dict[str, Any]]] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/api/v1/ml/features/schedules":
            with transaction(self.world.engine) as conn:
                found = feature_schedules.states(conn)
            return httpx.Response(200, text=json.dumps(schemas.schedules(found), default=lambda at: at.isoformat()))
        body = json.loads(request.content)
        if request.url.path == f"/api/v1/ml/models/{MODEL}/predict":
            asked = [asset["assetId"] for asset in body["assets"]]
            assert all(asset.keys() == {"assetId"} for asset in body["assets"])
            first = len(self.predicted)
            self.predicted += zip(asked, self.online.read(asked), strict=True)
            return httpx.Response(200, json={"predictions": [{"predictionId": first + i} for i in range(len(asked))]})
        return httpx.Response(200, json={})


@pytest.fixture
def flowing(world: World) -> Iterator[tuple[FleetSimulator, Platform]]:
    """The fleet's readings land, are materialised in the background, and are predicted on."""
    online, stop = OnlineFeatures(world.repo), threading.Event()
    online.start()
    until(lambda: online.state == "ok")
    platform = Platform(world, online)
    simulator = FleetSimulator(
        Fleet(5, assets=20),
        access=Access("http://server", "http://platform", ""),
        models_dir=world.repo,
        lake=world.readings,
        http=httpx.Client(transport=httpx.MockTransport(platform)),
    )
    world.round(datetime.now(UTC))
    thread = threading.Thread(target=run, args=(world.schedules, world.repo, stop, []))
    thread.start()
    yield simulator, platform
    stop.set()
    thread.join(timeout=120)
    assert not thread.is_alive()


def test_every_prediction_is_made_from_the_reading_that_has_just_landed(flowing: tuple[FleetSimulator, Platform]) -> None:
    simulator, platform = flowing
    twin, expected = Fleet(5, assets=20), []
    for n in (20, 20, 30):  # the last one holds ten assets twice
        simulator.tick(n)
        readings = twin.readings(n)
        expected += list(zip(readings["asset_id"], as_features(readings), strict=True))
    assert platform.predicted == expected
    assert (simulator.traffic.predictions, simulator.traffic.outcomes, simulator.traffic.errors) == (70, 70, 0)


def test_predictions_go_on_with_old_features_while_a_view_is_suspended(flowing: tuple[FleetSimulator, Platform]) -> None:
    simulator, platform = flowing
    simulator.tick(20)
    fresh = dict(platform.predicted)
    platform.world.suspend(WEAR)
    platform.predicted.clear()
    simulator.tick(20)
    stale = dict(platform.predicted)
    assert all(stale[asset]["tool_wear_min"] == fresh[asset]["tool_wear_min"] for asset in fresh)
    assert all(stale[asset]["torque_nm"] != fresh[asset]["torque_nm"] for asset in list(fresh)[:3])


def test_merging_goes_unnoticed_by_reads_and_runs(world: World) -> None:
    for i in range(6):
        world.land(T0 + i * SECOND, f"asset_{i}", tool_wear_min=float(i))
        world.round(T0 + i * SECOND + 2 * US)
    lake.compact(world.readings, from_files=3)
    ran = world.states()
    assert world.round(T0 + 7 * SECOND) == ran
    lake.compact(world.readings, from_files=3, grace_s=-1)
    world.land(T0 + 8 * SECOND, "asset_0", tool_wear_min=99.0)
    world.round(T0 + 9 * SECOND)
    assert [world.online(f"asset_{i}") for i in range(3)] == [99.0, 1.0, 2.0]
