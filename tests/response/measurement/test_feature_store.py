"""What an incident reads of the feature store, and what a person may ask of it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from mlrunbook.base.settings import settings
from mlrunbook.domain.actions import Path
from mlrunbook.domain.errors import Invalid
from mlrunbook.domain.investigation.feature_store import FeatureVerdict
from mlrunbook.domain.investigation.findings import State
from mlrunbook.domain.observed import FeatureFault
from mlrunbook.domain.resolution.request import Request
from mlrunbook.response.lifecycle import runs
from mlrunbook.response.measurement import feature_store
from mlrunbook.response.run import Run
from mlrunbook.response.world import World
from tests.fake_features import START
from tests.fakes import MODEL, Clock, FileWorld
from tests.response.people import report


def opened(world: World) -> Run:
    run = runs.take(world, report(world), "run-1")
    assert run is not None
    return run


def stale(file_world: FileWorld) -> None:
    file_world.set(features=START | {"stale": ["asset_sensors"], "suspended": ["asset_sensors"]})


@pytest.fixture(autouse=True)
def no_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("MLRUNBOOK_FEATURE_SERVER_URL", raising=False)
    settings.cache_clear()
    yield
    settings.cache_clear()


def inspected(run: Run) -> FeatureVerdict | None:
    feature_store.check(run)
    return feature_store.recorded_verdict(run)


class TestInspect:
    def test_the_store_is_read_once_and_the_verdict_stands_for_the_incident(self, world: World, file_world: FileWorld) -> None:
        stale(file_world)
        run = opened(world)
        assert feature_store.recorded_verdict(run) is None
        verdict = inspected(run)
        assert verdict is not None
        assert (verdict.views, verdict.resume, verdict.mendable) == (("asset_sensors",), ("asset_sensors",), True)
        file_world.set(features=START)
        assert inspected(run) == feature_store.recorded_verdict(run) == verdict
        found = {f.key: f.state for f in feature_store.check(run)}
        assert found["data_quality.data_freshness"] is State.SUSPECT
        assert found["infrastructure.feature_store_availability"] is State.OK

    def test_an_outage_is_found_whatever_the_platform_knows_of_schedules(self, world: World, file_world: FileWorld) -> None:
        file_world.set(features=START | {"out": "locked by a transaction"})
        run = opened(world)
        verdict = inspected(run)
        assert verdict is not None
        assert (verdict.outage, [p.fault for p in verdict.problems]) == (True, [FeatureFault.ONLINE_LOCKED])

    def test_without_a_feature_store_nothing_is_known_and_nothing_recorded(self, world: World) -> None:
        run = opened(replace(world, features=None))
        assert inspected(run) is None
        assert {f.state for f in feature_store.check(run)} == {State.UNKNOWN}


class FeatureServer(ThreadingHTTPServer):
    """Feast's feature server as it behaves with a locked database: /health stays 200."""

    def __init__(self, read_status: int) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.read_status, self.asked = read_status, dict[str, Any]()


class _Answers(BaseHTTPRequestHandler):
    server: FeatureServer

    def do_GET(self) -> None:
        self._say(200 if self.path == "/health" else 404)

    def do_POST(self) -> None:
        self.server.asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self._say(self.server.read_status)

    def _say(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: object) -> None:
        pass


class TestQuickCheck:
    @pytest.mark.parametrize(("status", "state"), [(200, State.OK), (500, State.SUSPECT)])
    def test_health_alone_is_not_believed(self, world: World, monkeypatch: pytest.MonkeyPatch, status: int, state: State) -> None:
        server = FeatureServer(status)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("MLRUNBOOK_FEATURE_SERVER_URL", f"http://127.0.0.1:{server.server_port}")
        try:
            found = {f.key: f for f in feature_store.quick_check(opened(world))}
        finally:
            server.shutdown()
            server.server_close()
        assert found["data_quality.feature_store_connectivity"].state is state
        assert found["infrastructure.feature_store_availability"].state is state
        assert server.asked["feature_service"] == "asset_features"
        assert list(server.asked["entities"]) == ["asset_id"]

    def test_a_server_that_is_gone_is_suspect_for_both(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MLRUNBOOK_FEATURE_SERVER_URL", "http://127.0.0.1:9")
        assert {f.state for f in feature_store.quick_check(opened(world))} == {State.SUSPECT}


class TestAsked:
    def ask(self, world: World, *views: str, end: datetime | None = None, look_back_h: int = 0) -> Request:
        return feature_store.asked(world, MODEL, views, end, look_back_h, reason="rows are old", by="an engineer")

    def test_no_view_means_all_and_no_end_means_now(self, world: World) -> None:
        request = self.ask(world)
        assert request.views == ("asset_sensors", "asset_wear")
        assert (request.path, request.since, request.until) == (Path.MATERIALIZE, None, None)

    def test_a_look_back_and_a_past_end_are_taken_over_and_a_time_without_a_zone_is_utc(self, world: World, clock: Clock) -> None:
        end = clock() - timedelta(hours=1)
        request = self.ask(world, "asset_wear", end=end.replace(tzinfo=None), look_back_h=6)
        assert request.until == end
        assert request.since == clock() - timedelta(hours=6)

    def test_what_cannot_be_is_refused_and_the_parameter_named(self, world: World, clock: Clock) -> None:
        for field, match, request in (
            ("featureViews", "does not read asset_engines; its feature views: asset_sensors, asset_wear", {"views": ("asset_engines",)}),
            ("endDate", "is in the future", {"end": clock() + timedelta(hours=1)}),
            ("lookBackHours", "0 to 168", {"look_back_h": 169}),
            ("lookBackHours", "before the look-back begins", {"end": clock() - timedelta(hours=9), "look_back_h": 2}),
        ):
            with pytest.raises(Invalid, match=match) as refused:
                self.ask(world, *request.pop("views", ()), **request)
            assert refused.value.field == field
        with pytest.raises(Invalid, match="MLRUNBOOK_FEATURE_REPO"):
            self.ask(replace(world, features=None))
