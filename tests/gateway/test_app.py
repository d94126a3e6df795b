"""The application as a whole: health, the front page, a store that is away, the dispatcher beside it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import create_engine

from mlrunbook.gateway.__main__ import main
from mlrunbook.gateway.app import MAX_BODY_BYTES, create_app
from mlrunbook.gateway.dispatcher import Dispatcher
from mlrunbook.response.world import World
from tests.gateway.conftest import Clock, world_on
from tests.waiting import until


def test_health_says_that_the_store_answers(anonymous: TestClient) -> None:
    said = anonymous.get("/health").json()
    off = {"dispatcher": "off", "heartbeat": "off", "chain": "unsigned"}
    assert said == {"status": "ok", "store": "reachable", "quarantined": said["quarantined"]} | off


@contextmanager
def _without_store(clock: Clock) -> Iterator[TestClient]:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        engine = create_engine(f"postgresql+psycopg://x:y@127.0.0.1:{unused.getsockname()[1]}/none", connect_args={"connect_timeout": 2})
        with TestClient(create_app(world_on(engine, clock)), raise_server_exceptions=False) as client:
            yield client


def test_a_store_that_is_down_is_503_with_retry_after_and_no_trace(clock: Clock) -> None:
    with _without_store(clock) as client:
        client.headers["Authorization"] = "Bearer mlrb_00000000_x"
        report = {"severity": "high", "type": "security", "description": "x"}
        for answer in (
            client.get("/health"),
            client.get("/api/v1/incidents"),
            client.post("/api/v1/model-governance/pump/incidents", json=report),
            client.post("/webhooks/alertmanager", json={"version": "4", "alerts": []}),
        ):
            assert answer.status_code == 503
            assert answer.headers["content-type"] == "application/problem+json"
            assert int(answer.headers["retry-after"]) > 0
            assert "not reachable" in answer.json()["detail"]
            assert "Traceback" not in answer.text


class _Loop(Dispatcher):
    """Says when it runs; fails the first time as nobody foresaw."""

    def __init__(self, world: World) -> None:
        super().__init__(world, every_s=0.01)
        self.turned, self.failed, self.ended = threading.Event(), threading.Event(), threading.Event()

    def _revive(self) -> int:
        if not self.failed.is_set():
            self.failed.set()
            raise RuntimeError("unforeseen")
        self.turned.set()
        return 0

    def run(self) -> None:
        super().run()
        self.ended.set()


def test_the_dispatcher_runs_with_the_gateway_survives_a_surprise_and_stops_with_it(world: World) -> None:
    loop = _Loop(world)
    with TestClient(create_app(world, dispatcher=loop)) as client:
        assert loop.turned.wait(120)
        assert client.get("/health").json()["dispatcher"] == "alive"
    assert loop.ended.wait(120)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_health_is_503_when_the_dispatcher_is_gone(world: World) -> None:
    class Gone(Dispatcher):
        def run(self) -> None:
            raise SystemExit

    app = create_app(world, dispatcher=Gone(world))
    with TestClient(app, raise_server_exceptions=False) as client:
        until(lambda: client.get("/health").status_code == 503)  # its thread is on its way out
        answer = client.get("/health")
    assert "restart the gateway" in answer.json()["detail"]


def _schema(client: TestClient) -> dict[str, Any]:
    return cast(dict[str, Any], client.get("/openapi.json").json())


def test_nothing_is_changed_by_a_get(anonymous: TestClient) -> None:
    for path, operations in _schema(anonymous)["paths"].items():
        assert set(operations) <= {"get", "post"}, path
        if path.rsplit("/", 1)[1] in ("approvals", "acknowledge", "resolve", "close"):
            assert set(operations) == {"post"}, path


def test_the_openapi_page_names_every_path_parameter_and_answer(anonymous: TestClient) -> None:
    schema = _schema(anonymous)
    for path, operations in schema["paths"].items():
        for operation in operations.values():
            named = {p["name"] for p in operation.get("parameters", []) if p["in"] == "path"}
            assert named == {part[1:-1] for part in path.split("/") if part.startswith("{")}, path
            done = next(answer for code, answer in operation["responses"].items() if code.startswith("2"))
            assert next(iter(done["content"].values()))["schema"], path
    assert "/api/v1/model-governance/{modelId}/incidents/{id}/approvals" in schema["paths"]
    assert "planDigest" in schema["components"]["schemas"]["ApprovalIn"]["properties"]


def test_an_oversized_body_is_413(client: TestClient) -> None:
    answer = client.post("/webhooks/alertmanager", content=b"x" * (MAX_BODY_BYTES + 1))
    assert answer.status_code == 413
    assert answer.headers["content-type"] == "application/problem+json"


def test_an_unknown_path_is_a_404_problem(anonymous: TestClient) -> None:
    assert anonymous.get("/nothing").headers["content-type"] == "application/problem+json"


def test_a_taken_port_is_one_line_that_names_it(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["--port", str(port)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert f":{port}" in said
    assert "--port" in said


def test_a_port_that_is_none_is_refused_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--port", "99999"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_the_process_serves_and_ends_on_sigterm(database_url: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    env = os.environ | {"MLRUNBOOK_DATABASE_URL": database_url, "MLRUNBOOK_DATA_DIR": str(tmp_path), "MLRUNBOOK_HOME": str(tmp_path)}
    with subprocess.Popen([sys.executable, "-m", "mlrunbook.gateway", "--port", str(port)], env=env, stderr=subprocess.PIPE) as gateway:
        try:
            with httpx.Client(transport=httpx.HTTPTransport(retries=6), timeout=120) as http:
                health = http.get(f"http://127.0.0.1:{port}/health")
            assert health.json()["dispatcher"] == "alive"
        finally:
            gateway.terminate()
            _, said = gateway.communicate(timeout=120)
    assert gateway.returncode in (0, -signal.SIGTERM)
    assert b"Traceback" not in said
