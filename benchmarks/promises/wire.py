"""The model platform of the far side over HTTP: a `FileWorld` in the words of the runbook's API."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from datetime import date, datetime
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from mlrunbook.domain.errors import NotFound, RunbookError, Transient
from mlrunbook.domain.observed import ModelVersion, ServingStatus, ViewSchedule
from mlrunbook.local.platform import schemas
from tests.fakes import FileWorld

Query = Mapping[str, list[str]]
Answer = tuple[int, Any]
PATH = re.compile(r"/api/v1/(?:ml/models/(?P<model>[^/]+)/(?P<verb>.+)|(?P<other>.+))")


def answer(world: FileWorld, method: str, url: str, headers: Mapping[str, str], body: Any) -> Answer:
    parts = urlsplit(url)
    found = PATH.fullmatch(parts.path)
    if not found:
        return 404, {"detail": f"there is no {parts.path}"}
    try:
        if method == "GET":
            return 200, _read(world, found, parse_qs(parts.query))
        return 200, _changed(world, found, body, headers.get("Idempotency-Key") or "")
    except NotFound as error:
        return 404, {"detail": str(error)}
    except Transient as error:
        return 503, {"detail": str(error)}
    except RunbookError as error:
        return 409, {"detail": str(error)}


def operation(method: str, url: str) -> str:
    """What a request asks for, without the names in it."""
    found = PATH.fullmatch(urlsplit(url).path)
    what = (found["verb"] or "/".join(found["other"].split("/")[:2])) if found else "?"
    return f"{method} {what}"


def as_json(value: Any) -> str:
    return json.dumps(value, default=lambda at: at.isoformat() if isinstance(at, datetime | date) else str(at))


def _read(world: FileWorld, path: re.Match[str], query: Query) -> Any:
    def one(name: str) -> str | None:
        return query[name][0] if name in query else None

    def at(name: str) -> datetime | None:
        return datetime.fromisoformat(given) if (given := one(name)) else None

    window = {"since": at("since"), "until": at("until")}
    if path["verb"]:
        return _of_model(world, unquote(path["model"]), path["verb"], query, window)
    what, _, name = path["other"].rpartition("/")
    model = unquote(name)
    if what == "model-performance/metrics":
        return schemas.metrics(world.metrics(model, version=one("version"), **window))
    if what == "model-performance/history":
        days = world.history(model, days=int(one("days") or 1), until=window["until"])
        return {"model": model, "days": [schemas.day(d) for d in days]}
    if path["other"] == "ml/models":
        return {"models": [{"model": m} for m in world.models()]}
    if path["other"] == "model-performance/alerts":
        return {"alerts": list(world.alerts(one("model")))}
    if path["other"] == "ml/features/schedules":
        return {"schedules": [_schedule(s) for s in world.feature_schedules()]}
    if path["other"] == "ml/predictions/logs":
        model = one("model") or ""
        rows = world.prediction_log(model, limit=int(one("limit") or 100), labelled_only=one("labelledOnly") == "true", **window)
        return {"model": model, "predictions": [schemas.prediction(p) for p in rows]}
    raise NotFound(f"there is no {path['other']}")


def _of_model(world: FileWorld, model: str, verb: str, query: Query, window: Mapping[str, datetime | None]) -> Any:
    def changes() -> Any:
        since = window["since"]
        assert since is not None
        return {"model": model, "changes": [schemas.change(c) for c in world.changes(model, since=since)]}

    def replay() -> Any:
        return schemas.replayed(world.replay(model, versions=query["version"], limit=int(query["limit"][0]), **window))

    def orders() -> Any:
        found = world.work_orders(model, state=query["state"][0] if "state" in query else None)
        return {"model": model, "workOrders": [schemas.work_order(w) for w in found]}

    reads: dict[str, Callable[[], Any]] = {
        "status": lambda: _status(world.status(model)),
        "versions": lambda: {"model": model, "versions": [_version(v) for v in world.versions(model)]},
        "changes": changes,
        "replay": replay,
        "work-orders": orders,
    }
    if verb not in reads:
        raise NotFound(f"there is no {verb}")
    return reads[verb]()


def _changed(world: FileWorld, path: re.Match[str], body: Any, key: str) -> Any:
    if path["other"] == "ml/features/schedules/resume":
        found = world.resume_feature_schedules(body["views"], resumed_by=body["changedBy"], idempotency_key=key)
        return {"schedules": [_schedule(s) for s in found]}
    model, verb = unquote(path["model"] or ""), path["verb"]
    if verb == "rollback":
        by = {"reason": body["reason"], "rolled_back_by": body["rolledBackBy"]}
        return _status(world.rollback(model, target_version=body["targetVersion"], idempotency_key=key, **by))
    if verb == "versions":
        return _version(world.register(model, version=body["version"], registered_by=body["registeredBy"], idempotency_key=key))
    if verb == "staging":
        return _status(world.stage(model, version=body["version"], staged_by=body["stagedBy"], idempotency_key=key))
    if verb == "promote":
        by = {"reason": body["reason"], "promoted_by": body["promotedBy"]}
        return _status(world.promote(model, version=body["version"], idempotency_key=key, **by))
    if verb == "work-orders/flag":
        found = world.flag_pending_work_orders(model, reason=body["reason"], idempotency_key=key)
        return {"model": model, "workOrders": [schemas.work_order(w) for w in found]}
    raise NotFound(f"there is no {verb}")


def _status(s: ServingStatus) -> Any:
    unloaded = s.not_loaded or s.unloadable_route
    version = s.serving_version if s.not_loaded else (s.unloadable_route or "").partition(":")[0]
    return {
        "model": s.model,
        "servingVersion": s.serving_version,
        "previousVersion": s.previous_version,
        "stagingVersion": s.staging_version,
        "serverHealthy": s.server_healthy,
        "serverVersion": s.server_version,
        "deployedAt": s.deployed_at,
        "server": {"notLoaded": {"version": version, "error": unloaded}} if unloaded else None,
    }


def _version(v: ModelVersion) -> Any:
    return {
        "version": v.version,
        "registeredAt": v.registered_at,
        "trainedFrom": v.trained_from,
        "trainedTo": v.trained_to,
        "features": list(v.features),
        "threshold": v.threshold,
        "assetTypes": list(v.asset_types) if v.asset_types is not None else None,
    }


def _schedule(s: ViewSchedule) -> Any:
    return {"view": s.view, "suspended": s.suspended, "lastRunAt": s.last_run_at, "error": s.error}
