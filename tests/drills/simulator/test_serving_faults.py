"""What befalls the serving side: real processes are starved and hang, requests are refused as the server refuses them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from mlrunbook.domain.errors import Invalid
from mlrunbook.drills.simulator.faults import FAULTS, fault
from mlrunbook.drills.simulator.fleet import Fleet
from mlrunbook.drills.simulator.serving_faults import CpuLimit, in_words, strict_estimator
from mlrunbook.drills.simulator.simulator import FleetSimulator
from mlrunbook.drills.simulator.traffic import MODEL, Access
from mlrunbook.local.platform import artefacts
from mlrunbook.local.platform.artefacts import LoadedModel
from mlrunbook.local.platform.columns import MODEL_COLUMNS, RAW, as_frame, check
from mlrunbook.local.platform.training import confusion
from tests.local.platform.kit import save_version
from tests.waiting import until


@pytest.fixture
def busy() -> Iterator[psutil.Process]:
    """A process that computes without end."""
    child = subprocess.Popen([sys.executable, "-S", "-c", "while True: pass"])
    yield psutil.Process(child.pid)
    child.kill()
    child.wait()


def is_stopped(process: psutil.Process) -> bool:
    return bool(process.status() == psutil.STATUS_STOPPED)


def simulator(tmp_path: Path, answer: Any, pid: int | None = None) -> FleetSimulator:
    return FleetSimulator(
        Fleet(7),
        access=Access("http://server", "http://platform", "secret"),
        models_dir=tmp_path,
        http=httpx.Client(transport=httpx.MockTransport(answer)),
        server_pid=lambda: pid,
    )


class TestProcess:
    def test_a_limited_process_runs_now_and_then_and_freely_once_the_limit_is_gone(self, busy: psutil.Process) -> None:
        limit = CpuLimit(busy, share=0.2, period_s=0.05)
        until(lambda: is_stopped(busy))
        until(lambda: not is_stopped(busy))
        until(lambda: is_stopped(busy))
        limit.end()
        assert not is_stopped(busy)

    def test_a_new_process_is_rid_of_the_limit(self, busy: psutil.Process) -> None:
        limit = CpuLimit(busy, share=0.2, period_s=0.02)
        busy.kill()
        busy.wait()
        until(lambda: not limit._thread.is_alive())

    def test_what_hangs_stays_stopped_until_somebody_acts(self, busy: psutil.Process, tmp_path: Path) -> None:
        told = simulator(tmp_path, lambda _: httpx.Response(500), busy.pid).inject(fault("server-down"))
        assert "SIGSTOP" in told
        until(lambda: is_stopped(busy))

    def test_the_fleet_lets_go_of_what_it_limited(self, busy: psutil.Process, tmp_path: Path) -> None:
        fleet = simulator(tmp_path, lambda _: httpx.Response(500), busy.pid)
        fleet.inject(fault("slow-server"))
        until(lambda: is_stopped(busy))
        fleet.let_go()
        assert not is_stopped(busy)

    @pytest.mark.parametrize("name", ["slow-server", "server-down"])
    def test_a_server_that_runs_elsewhere_is_not_touched(self, name: str, tmp_path: Path) -> None:
        with pytest.raises(Invalid, match="does not run here"):
            simulator(tmp_path, lambda _: httpx.Response(500)).inject(fault(name))


class TestCaller:
    def test_a_share_of_the_readings_is_sent_as_the_server_refuses_it_until_people_take_the_release_back(self, tmp_path: Path) -> None:
        asked: list[dict[str, Any]] = []

        def answer(request: httpx.Request) -> httpx.Response:
            body = json.loads(request.content)
            asked.extend(body.get("assets", ()))
            made = [{"predictionId": i} for i, _ in enumerate(body.get("assets", ()))]
            return httpx.Response(200, json={"predictions": made})

        fleet = simulator(tmp_path, answer)
        fleet.inject(fault("error-burst"))
        fleet.tick(10)
        refused = [a for a in asked if not sound(a["features"])]
        assert (len(asked), len(refused)) == (10, 2)
        asked.clear()
        fleet.repair(fault("error-burst"))
        fleet.tick(10)
        assert [sound(a["features"]) for a in asked] == [True] * 10

    def test_the_server_names_the_feature_it_cannot_read(self) -> None:
        [asset] = in_words(Fleet(7).readings(1))
        with pytest.raises(Invalid, match=r"'rotational_speed_rpm' must be a finite number or null, not '.* rpm'"):
            check(asset["features"])


def sound(features: dict[str, Any]) -> bool:
    try:
        check(features)
    except Invalid:
        return False
    return True


def test_the_release_that_cannot_be_loaded_is_a_sound_artefact_and_a_useful_model_that_takes_no_missing_value(tmp_path: Path) -> None:
    """Whoever looks at the file, or at its F1, finds nothing."""
    fleet = Fleet(3)
    frame = fleet.training(5_000)
    strict = strict_estimator(frame, frame["failed"].to_numpy(dtype=bool), columns=MODEL_COLUMNS)
    loaded: LoadedModel = artefacts.load(save_version(tmp_path, MODEL, "v2.0.0", estimator=strict))
    live = fleet.readings(5_000)
    assert (confusion(live["failed"].to_numpy(), loaded.score(live) >= 0.2).f1 or 0.0) > 0.2
    with pytest.raises(ValueError, match="NaN"):
        loaded.score(as_frame([dict.fromkeys(RAW)]))


def test_only_what_a_new_process_mends_has_a_restart_as_its_answer() -> None:
    assert {name for name, one in FAULTS.items() if one.truth.path == "restart"} == {"slow-server", "server-down"}
