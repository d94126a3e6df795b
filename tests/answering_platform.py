"""The answers of `tests.fakes.FileWorld` as JSON over the real HTTP adapter, so that a test can spoil any value of any answer."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import httpx

from mlrunbook.adapters.model_platform import HttpPlatform
from mlrunbook.domain.errors import NotFound, RunbookError
from mlrunbook.domain.observed import ModelVersion, ServingStatus
from mlrunbook.local.platform import schemas
from tests.fakes import FileWorld

Path = tuple[str | int, ...]
Spoil = Callable[[str, Any], Any]  # (name of the answer, answer) -> answer


def platform(world: FileWorld, spoil: Spoil = lambda _, answer: answer) -> HttpPlatform:
    """The world behind a platform whose answers `spoil` may change."""

    def answer(request: httpx.Request) -> httpx.Response:
        name = request.url.path.removeprefix("/api/v1/").removeprefix("ml/models/").removeprefix("model-performance/").partition("?")[0]
        name = next((known for known in ANSWERS if known in name), name)
        try:
            body = json.loads(json.dumps(ANSWERS[name](world, request), default=_plain))
        except NotFound as error:
            return httpx.Response(404, json={"detail": str(error)})
        except (KeyError, RunbookError) as error:
            return httpx.Response(503, json={"detail": str(error)})
        return httpx.Response(200, content=json.dumps(spoil(name, body)))

    return HttpPlatform("http://platform", "t", transport=httpx.MockTransport(answer))


def answers(world: FileWorld, model: str) -> dict[str, Any]:
    """Every answer to a read, as the adapter gets it."""
    seen: dict[str, Any] = {}

    def keep(name: str, answer: Any) -> Any:
        seen[name] = copy.deepcopy(answer)
        return answer

    for read in reads(platform(world, keep), model):
        read()
    return seen


def reads(http: HttpPlatform, model: str) -> tuple[Callable[[], object], ...]:
    return (
        lambda: http.status(model),
        lambda: http.metrics(model),
        lambda: http.prediction_log(model, limit=2),
        lambda: http.changes(model, since=datetime(2020, 1, 1, tzinfo=UTC)),
        lambda: http.versions(model),
        lambda: http.replay(model, versions=["v1.5.0"], limit=2),
        lambda: http.work_orders(model),
        lambda: http.feature_schedules(),
        lambda: http.history(model, days=2),
        lambda: http.models(),
    )


def paths(answer: Any, so_far: Path = ()) -> Iterator[Path]:
    """Of every value in it; of a list the first and the last."""
    yield so_far
    inner = answer.items() if isinstance(answer, dict) else []
    if isinstance(answer, list):
        inner = [(i, answer[i]) for i in sorted({0, len(answer) - 1}) if answer]
    for key, value in inner:
        yield from paths(value, (*so_far, key))


def value_at(answer: Any, path: Path) -> Any:
    for key in path:
        answer = answer[key]
    return answer


def spoiled(answer: Any, path: Path, value: Any) -> Any:
    """`answer`, changed in place: another value there; as it is where it has no such place."""
    if not path:
        return value
    try:
        parent = value_at(answer, path[:-1])
        parent[path[-1]]
    except (KeyError, IndexError, TypeError):
        return answer
    parent[path[-1]] = value
    return answer


def _plain(value: Any) -> Any:
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def _span(request: httpx.Request) -> dict[str, Any]:
    given = request.url.params
    return {name: datetime.fromisoformat(given[name]) for name in ("since", "until") if name in given}


def _model(request: httpx.Request) -> str:
    parts = request.url.path.split("/")
    return request.url.params.get("model") or parts[5]


def _status(s: ServingStatus) -> dict[str, Any]:
    return {
        "model": s.model,
        "servingVersion": s.serving_version,
        "previousVersion": s.previous_version,
        "stagingVersion": s.staging_version,
        "serverHealthy": s.server_healthy,
        "serverVersion": s.server_version,
        "deployedAt": s.deployed_at,
        "server": {"features": {"state": "ok"}, "notLoaded": None},
    }


def _version(v: ModelVersion) -> dict[str, Any]:
    words = {"registered_at": "registeredAt", "trained_from": "trainedFrom", "trained_to": "trainedTo", "asset_types": "assetTypes"}
    return {words.get(name, name): value for name, value in asdict(v).items()}


def _metrics(world: FileWorld, request: httpx.Request) -> dict[str, Any]:
    return schemas.metrics(world.metrics(_model(request), version=request.url.params.get("version"), **_span(request)))


def _log(world: FileWorld, request: httpx.Request) -> dict[str, Any]:
    given = request.url.params
    rows = world.prediction_log(
        _model(request), limit=int(given["limit"]), labelled_only=given.get("labelledOnly") == "true", **_span(request)
    )
    return {"predictions": [schemas.prediction(row) for row in rows]}


def _replay(world: FileWorld, request: httpx.Request) -> dict[str, Any]:
    given = request.url.params
    return schemas.replayed(world.replay(_model(request), versions=given.get_list("version"), limit=int(given["limit"]), **_span(request)))


def _rollback(world: FileWorld, request: httpx.Request) -> dict[str, Any]:
    body, key = json.loads(request.content), request.headers["Idempotency-Key"]
    return _status(world.rollback(_model(request), target_version=body["targetVersion"], reason="", rolled_back_by="", idempotency_key=key))


def _flag(world: FileWorld, request: httpx.Request) -> dict[str, Any]:
    orders = world.flag_pending_work_orders(_model(request), reason="", idempotency_key=request.headers["Idempotency-Key"])
    return {"workOrders": [schemas.work_order(order) for order in orders]}


def _work_orders(world: FileWorld, request: httpx.Request) -> dict[str, Any]:
    return {"workOrders": [schemas.work_order(w) for w in world.work_orders(_model(request), state=request.url.params.get("state"))]}


def _schedules(world: FileWorld, _: httpx.Request) -> dict[str, Any]:
    rows = world.feature_schedules()
    return {"schedules": [{"view": s.view, "suspended": s.suspended, "lastRunAt": s.last_run_at, "error": s.error} for s in rows]}


# By a part of the path, the longer one first.
ANSWERS: dict[str, Callable[[FileWorld, httpx.Request], Any]] = {
    "work-orders/flag": _flag,
    "work-orders": _work_orders,
    "rollback": _rollback,
    "status": lambda world, request: _status(world.status(_model(request))),
    "metrics": _metrics,
    "predictions/logs": _log,
    "changes": lambda world, request: {"changes": [schemas.change(c) for c in world.changes(_model(request), **_span(request))]},
    "versions": lambda world, request: {"versions": [_version(v) for v in world.versions(_model(request))]},
    "replay": _replay,
    "schedules": _schedules,
    "history": lambda world, request: {
        "days": [schemas.day(d) for d in world.history(_model(request), days=int(request.url.params["days"]), **_span(request))]
    },
    "ml/models": lambda world, _: {"models": [{"model": name} for name in world.models()]},
}
