"""The same suite against a real `mlflow server`, started once: what the fake does, MLflow does."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import httpx
import pytest

from mlrunbook.adapters.mlflow.client import API, MlflowClient
from mlrunbook.domain.errors import Refused
from mlrunbook.gateway.webhooks.signatures import Signed, mlflow
from tests.adapters.mlflow.registry_contract import CONNECTION, RegistryContract
from tests.mlflow_server import mlflow_server
from tests.waiting import until

ML_MODEL = "signature:\n  inputs: '{}'\n".format(json.dumps([{"type": "double", "name": "age"}, {"type": "double", "name": "income"}]))
SECRET = "a shared secret"


class Real:
    """What people do to it, over REST."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._http = httpx.Client(base_url=url, timeout=60)

    def client(self, *, page: int = 200) -> MlflowClient:
        return MlflowClient(CONNECTION, self.url, timeout_s=60, page=page)

    def create(self, name: str, versions: int = 2, **aliases: str) -> None:
        self._post("/registered-models/create", name=name)
        for _ in range(versions):
            self.add_version(name)
        for alias, version in aliases.items():
            self.set_alias(name, alias, version)

    def add_version(self, name: str) -> str:
        """Of a run of its own, with a signature and a param."""
        run = self._post("/runs/create", experiment_id="0")["run"]["info"]
        folder = run["artifact_uri"].removeprefix("mlflow-artifacts:/") + "/model"
        self._http.put(f"/api/2.0/mlflow-artifacts/artifacts/{folder}/MLmodel", content=ML_MODEL).raise_for_status()
        self._post("/runs/log-parameter", run_id=run["run_id"], key="threshold", value="0.4")
        made = self._post("/model-versions/create", name=name, source=f"{run['artifact_uri']}/model", run_id=run["run_id"])
        return str(made["model_version"]["version"])

    def tag(self, name: str, version: str, **tags: str) -> None:
        for key, value in tags.items():
            self._post("/model-versions/set-tag", name=name, version=version, key=key, value=value)

    def set_alias(self, name: str, alias: str, version: str) -> None:
        self._post("/registered-models/alias", name=name, alias=alias, version=version)

    def delete_version(self, name: str, version: str) -> None:
        answer = self._http.request("DELETE", f"{API}/model-versions/delete", json={"name": name, "version": version})
        answer.raise_for_status()

    def aliases(self, name: str) -> Mapping[str, str]:
        return self.client().aliases(name)

    def hook(self, url: str) -> None:
        events = [{"entity": "MODEL_VERSION_ALIAS", "action": "CREATED"}]
        self._post("/webhooks", name="mlrunbook", url=url, secret=SECRET, events=events)

    def _post(self, path: str, **body: Any) -> dict[str, Any]:
        answer = self._http.post(API + path, json=body)
        answer.raise_for_status()
        return dict(answer.json())


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Real]:
    with mlflow_server(tmp_path_factory.mktemp("mlflow")) as url:
        yield Real(url)


class TestReal(RegistryContract):
    pass


def test_it_says_its_version_and_another_site_is_not_let_in(server: Real) -> None:
    assert server.client().server_version().startswith("3.")
    transport = httpx.HTTPTransport()

    class ForeignOrigin(httpx.BaseTransport):
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            request.headers["origin"] = "https://elsewhere.example"
            return transport.handle_request(request)

    with pytest.raises(Refused):
        MlflowClient(CONNECTION, server.url, transport=ForeignOrigin()).write("POST", "/registered-models/alias", {})


def test_its_webhooks_carry_the_signature_that_the_gateway_checks(server: Real) -> None:
    came: list[tuple[dict[str, str], bytes]] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            came.append(({key.lower(): value for key, value in self.headers.items()}, body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None: ...

    receiver = HTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=receiver.serve_forever, daemon=True).start()
    server.hook(f"http://127.0.0.1:{receiver.server_port}/webhooks/mlflow")
    server.create("hooked", versions=1)

    def told() -> bool:
        server.set_alias("hooked", "champion", "1")  # a new hook is silent until the server has read the list of hooks anew
        return bool(came)

    until(told, 120)
    headers, body = came[0]
    receiver.shutdown()
    signed = _signed(headers, body)
    assert mlflow(signed) is None
    assert mlflow(_signed(headers, body + b" ")) is not None
    assert json.loads(body)["data"] == {"name": "hooked", "alias": "champion", "version": "1"}


def _signed(headers: Mapping[str, str], body: bytes) -> Signed:
    import datetime as dt

    at = dt.datetime.fromtimestamp(int(headers["x-mlflow-timestamp"]), dt.UTC)
    return Signed(headers=headers, body=body, secrets=(SECRET,), now=at, window_s=300)
