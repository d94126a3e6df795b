"""MLflow's registry as REST answers it, over one JSON file: it survives a killed process and counts what was really changed.

The same suite (`tests/adapters/mlflow/registry_contract.py`) runs against this and against a real server.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx

from mlrunbook.base import json_file

API = "/api/2.0/mlflow"
URL = "http://mlflow.test"
CREATED = datetime(2026, 3, 1, tzinfo=UTC)
Answer = tuple[int, dict[str, Any]]


class FakeMlflow(httpx.BaseTransport):
    """A transport for `MlflowClient`. `tap` is called around every change: a place to be killed at. `password`: what it lets in."""

    def __init__(self, path: Path, tap: Callable[[str], None] = lambda _: None, *, page: int = 1000, password: str | None = None) -> None:
        self.path, self._tap, self._page, self.password = path, tap, page, password
        self.down = False
        self.asked: list[str] = []
        self._lock = threading.RLock()
        if not path.exists():
            json_file.patch(path, {"models": {}, "applied": {}})

    # -- what the test sets and reads

    @property
    def state(self) -> dict[str, Any]:
        return json_file.read(self.path)

    @property
    def applied(self) -> dict[str, int]:
        """How often each alias was really moved, counted here: `champion:2`."""
        return dict(self.state["applied"])

    def aliases(self, name: str) -> dict[str, str]:
        return dict(self.state["models"][name]["aliases"])

    def create(self, name: str, versions: int = 2, **aliases: str) -> None:
        made = {str(n): _version(name, n) for n in range(1, versions + 1)}
        self._put(name, {"versions": made, "aliases": aliases, "last": versions})

    def add_version(self, name: str) -> str:
        model = self.state["models"][name]
        model["last"] += 1  # a number is never given twice
        model["versions"][str(model["last"])] = _version(name, model["last"])
        self._put(name, model)
        return str(model["last"])

    def tamper(self, name: str, version: str, source: str) -> None:
        """Somebody with a way to MLflow's database does."""
        model = self.state["models"][name]
        model["versions"][version]["source"] = source
        self._put(name, model)

    def tag(self, name: str, version: str, **tags: str) -> None:
        model = self.state["models"][name]
        model["versions"][version]["tags"] = [{"key": key, "value": value} for key, value in tags.items()]
        self._put(name, model)

    def set_alias(self, name: str, alias: str, version: str) -> None:
        """Somebody else does."""
        model = self.state["models"][name]
        model["aliases"][alias] = version
        self._put(name, model)

    def delete_version(self, name: str, version: str) -> None:
        """Its aliases go with it, silently."""
        model = self.state["models"][name]
        del model["versions"][version]
        model["aliases"] = {alias: named for alias, named in model["aliases"].items() if named != version}
        self._put(name, model)

    def _put(self, name: str, model: dict[str, Any]) -> None:
        json_file.patch(self.path, {"models": {**self.state["models"], name: model}})

    # -- the transport

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if self.down:
            raise httpx.ConnectError("connection refused", request=request)
        with self._lock:
            return self._answer(request)

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(f"{request.method} {request.url.path}")
        if "origin" in request.headers:
            return httpx.Response(403, text="Cross-origin request blocked")
        if self.password is not None and request.headers.get("authorization") != self.password:
            return httpx.Response(401, text="You are not authenticated")
        path, params = request.url.path.removeprefix(API), dict(request.url.params)
        body = json.loads(request.content) if request.content else {}
        answers: dict[str, Callable[[], Answer]] = {
            "GET /registered-models/search": lambda: self._paged("registered_models", [_model(n, m) for n, m in self._models()], params),
            "GET /registered-models/get": lambda: self._get(params["name"]),
            "GET /model-versions/search": lambda: self._search_versions(params),
            "GET /model-versions/get": lambda: self._version(params["name"], params["version"]),
            "POST /registered-models/alias": lambda: self._set(body["name"], body["alias"], str(body["version"])),
            "DELETE /registered-models/alias": lambda: self._drop(body["name"], body["alias"]),
            "GET /runs/get": lambda: _run(params["run_id"]),
        }
        if request.url.path == "/version":
            return httpx.Response(200, text="3.17.2")
        if request.url.path == "/model-versions/get-artifact":
            inputs = json.dumps([{"type": "double", "name": "age"}, {"type": "double", "name": "income"}])
            return httpx.Response(200, text=f"signature:\n  inputs: '{inputs}'\n")
        if (found := answers.get(f"{request.method} {path}")) is None:
            return httpx.Response(404, text="<!doctype html><title>404 Not Found</title>", headers={"content-type": "text/html"})
        status, content = found()
        return httpx.Response(status, json=content)

    def _models(self) -> list[tuple[str, dict[str, Any]]]:
        return sorted(self.state["models"].items())

    def _get(self, name: str) -> Answer:
        model = self.state["models"].get(name)
        return (200, {"registered_model": _model(name, model)}) if model else _no_model(name)

    def _search_versions(self, params: dict[str, str]) -> Answer:
        name = params["filter"].removeprefix("name='").removesuffix("'")
        versions = self.state["models"].get(name, {"versions": {}})["versions"].values()
        return self._paged("model_versions", sorted(versions, key=lambda v: -int(v["version"])), params)

    def _version(self, name: str, version: str) -> Answer:
        found = self.state["models"].get(name, {"versions": {}})["versions"].get(version)
        return (200, {"model_version": found}) if found else _no_version(name, version)

    def _paged(self, key: str, found: list[dict[str, Any]], params: dict[str, str]) -> Answer:
        """An empty list is left out; the token is an offset."""
        begin, size = int(params.get("page_token") or 0), min(self._page, int(params.get("max_results") or 100))
        page = found[begin : begin + size]
        more = {"next_page_token": str(begin + size)} if len(found) > begin + size else {}
        return 200, ({key: page} if page else {}) | more

    def _set(self, name: str, alias: str, version: str) -> Answer:
        model = self.state["models"].get(name)
        if model is None:
            return _no_model(name)
        if alias == "latest" or (alias[:1] == "v" and alias[1:].isdecimal()):
            return _no("INVALID_PARAMETER_VALUE", f"Version alias name '{alias}' is reserved.", 400)
        if version not in model["versions"]:
            return _no_version(name, version)
        moved = {**model, "aliases": {**model["aliases"], alias: version}}
        self._apply(f"{alias}:{version}", name, moved, model["aliases"].get(alias) != version)
        return 200, {}

    def _drop(self, name: str, alias: str) -> Answer:
        model = self.state["models"].get(name)
        if model is None:
            return _no_model(name)
        left = {key: version for key, version in model["aliases"].items() if key != alias}
        self._apply(f"{alias}:none", name, {**model, "aliases": left}, alias in model["aliases"])
        return 200, {}

    def _apply(self, what: str, name: str, model: dict[str, Any], is_change: bool) -> None:
        self._tap(f"before {what}")
        counts = self.applied
        if is_change:
            counts[what] = counts.get(what, 0) + 1
        json_file.patch(self.path, {"models": {**self.state["models"], name: model}, "applied": counts})
        self._tap(f"after {what}")


def _no(code: str, message: str, status: int = 404) -> Answer:
    return status, {"error_code": code, "message": message}


def _no_model(name: str) -> Answer:
    return _no("RESOURCE_DOES_NOT_EXIST", f"Registered Model with name={name} not found")


def _no_version(name: str, version: str) -> Answer:
    return _no("RESOURCE_DOES_NOT_EXIST", f"Model Version (name={name}, version={version}) not found")


def _model(name: str, model: dict[str, Any]) -> dict[str, Any]:
    aliases = [{"alias": alias, "version": version} for alias, version in model["aliases"].items()]
    return {"name": name, "creation_timestamp": 1, "last_updated_timestamp": 1} | ({"aliases": aliases} if aliases else {})


def _version(name: str, number: int) -> dict[str, Any]:
    at = int((CREATED + timedelta(days=number)).timestamp() * 1000)
    return {
        "name": name,
        "version": str(number),
        "creation_timestamp": at,
        "last_updated_timestamp": at,
        "source": f"models:/m-{number}",
        "run_id": f"run-{number}",
        "status": "READY",
        "tags": [],
    }


def _run(run_id: str) -> Answer:
    if not run_id.startswith("run-"):
        return _no("RESOURCE_DOES_NOT_EXIST", f"Run with id={run_id} not found")
    params = [{"key": "threshold", "value": "0.4"}]
    return 200, {"run": {"info": {"run_id": run_id, "end_time": 1}, "data": {"params": params}}}
