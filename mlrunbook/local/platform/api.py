"""The model platform's API: `python -m mlrunbook.local.platform.api --port 8070`. Paths and bodies are the runbook's.

Reads need no token. Outcomes need one of scope intake, every other change one of scope operate. Who changed something is who the body
says, else the token's name.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import secrets
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Annotated, Any

import httpx
import uvicorn
from fastapi import Depends, FastAPI, Header, Query
from fastapi.responses import JSONResponse
from pydantic import AwareDatetime
from sqlalchemy import Engine, text

from mlrunbook.adapters.local import serving_config
from mlrunbook.adapters.local.serving_state import desired_of
from mlrunbook.base import db, json_file, policy_file, web
from mlrunbook.base.db import transaction
from mlrunbook.base.settings import Settings, settings
from mlrunbook.base.tokens import Identity, Scope
from mlrunbook.domain.errors import Invalid, NotFound, RunbookError
from mlrunbook.domain.policy.alerting import SafetyPolicy
from mlrunbook.domain.policy.judging import FairnessPolicy
from mlrunbook.domain.policy.policy import AlertThresholds, Policy
from mlrunbook.local.platform import (
    alerts,
    artefacts,
    change_log,
    feature_schedules,
    history,
    metrics,
    predictions,
    prometheus_metrics,
    registry,
    replay,
    schemas,
)
from mlrunbook.local.platform import work_orders as workorders
from mlrunbook.local.platform.drift_watch import DriftWatch
from mlrunbook.local.platform.probing_watch import ProbingWatch

HEALTH_TIMEOUT_S = 1.0
STATUS_TIMEOUT_S = 3.0  # for who asks once: a server that is slow is not one that is down
DELIVERY_TIMEOUT_S = 5.0
EVALUATE_EVERY_S = 15.0
MAX_BODY_BYTES = 8 << 20
CHANGES_BACK = timedelta(days=7)

Operator = Annotated[Identity, Depends(web.require(Scope.OPERATE))]
Intake = Annotated[Identity, Depends(web.require(Scope.INTAKE))]
Key = Annotated[str | None, Header(alias="Idempotency-Key", max_length=200)]
When = Annotated[AwareDatetime | None, Query()]
Body = dict[str, Any]


def utc_now() -> datetime:
    return datetime.now(UTC)


def create_app(
    config: Settings,
    engine: Engine,
    *,
    rules: AlertThresholds | None = None,
    safety: SafetyPolicy = SafetyPolicy(),
    fairness: FairnessPolicy = FairnessPolicy(),
    evaluate_every_s: float | None = EVALUATE_EVERY_S,
    environment: str = "production",
    clock: Callable[[], datetime] = utc_now,
) -> FastAPI:
    """The API with its alert loop; `evaluate_every_s` None leaves the loop out."""
    http = httpx.Client(timeout=DELIVERY_TIMEOUT_S)
    server = ModelServer(http, config.model_server_url.rstrip("/"))
    limits = rules or AlertThresholds()
    watched = alerts.Watched(DriftWatch(engine, clock=clock, rules=limits), ProbingWatch(engine, clock=clock), safety, fairness)

    def stopped(model: str) -> bool:
        """Of a model that another machine serves, or nobody, that is not known here: its server counts as wanted."""
        with contextlib.suppress(RunbookError):
            return bool(desired_of(config.serving_state_file, model)["replicas"] == 0)
        return False

    loop: alerts.AlertLoop | None = None
    if evaluate_every_s is not None:
        token = config.gateway_token.get_secret_value() if config.gateway_token else None
        loop = alerts.AlertLoop(
            engine,
            clock=clock,
            health=server.health,
            stopped_on_purpose=stopped,
            send=alerts.Gateway(http, config.gateway_url.rstrip("/"), token),
            watched=watched,
            rules=limits,
            environment=environment,
            every_s=evaluate_every_s,
            told=_get_ready,
        )

    def close() -> None:
        if loop:
            loop.stop()
        http.close()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        if loop:
            loop.start()
        yield
        close()

    app = FastAPI(title="model platform", lifespan=lifespan, docs_url=None, redoc_url=None)
    web.prepare(app, engine=engine, max_body_bytes=MAX_BODY_BYTES)
    _health(app, engine)
    _registry(app, engine, config, server, clock)
    _serving(app, engine, config, clock)
    _features(app, engine, clock)
    _performance(app, engine, clock)
    figures = prometheus_metrics.PlatformCollector(
        engine,
        clock=clock,
        health=server.health,
        stopped_on_purpose=stopped,
        watched=watched,
        rules=limits,
    )
    prometheus_metrics.expose(app, figures)
    return app


@cache
def _get_ready() -> None:
    """Somebody hears of trouble now: versions will be compared soon, and what that needs takes seconds to import."""
    threading.Thread(target=artefacts.preload, name="preload", daemon=True).start()


class ModelServer:
    """What the model server says of itself."""

    def __init__(self, http: httpx.Client, url: str) -> None:
        self._http, self._url = http, url

    def health(self, model: str) -> Body | None:
        """Its health, or None when it does not answer, or does not serve `model`."""
        said = self.says(model, timeout_s=HEALTH_TIMEOUT_S)
        return said if said and said.get("status") == "ok" else None

    def says(self, model: str, *, timeout_s: float) -> Body | None:
        """Its health also while it has nothing to serve."""
        try:
            answer = self._http.get(f"{self._url}/health", timeout=timeout_s)
            body = answer.json() if answer.is_success else None
        except (httpx.HTTPError, ValueError):
            return None
        return body if isinstance(body, dict) and body.get("model") == model else None


def _health(app: FastAPI, engine: Engine) -> None:
    @app.get("/health")
    def health() -> Body:
        with transaction(engine) as conn:
            conn.execute(text("SELECT 1"))
        return {"status": "ok"}


def _registry(app: FastAPI, engine: Engine, config: Settings, server: ModelServer, clock: Callable[[], datetime]) -> None:
    base = "/api/v1/ml/models/{model}"
    models_dir = config.models_dir

    def with_server(slots: registry.Slots) -> Body:
        seen = server.says(slots.model, timeout_s=STATUS_TIMEOUT_S)
        healthy = seen is not None and seen.get("status") == "ok"
        return schemas.slots(slots) | {
            "status": "healthy" if healthy else "unhealthy",
            "serverHealthy": healthy,
            "serverVersion": seen["version"] if seen else None,
            "server": seen,
        }

    @app.get("/api/v1/ml/models")
    def list_models() -> Body:
        with transaction(engine) as conn:
            return {"models": [{"model": name} for name in registry.list_models(conn)]}

    @app.get(f"{base}/status")
    def status(model: str) -> Body:
        with transaction(engine) as conn:
            slots = registry.slots(conn, model)
        return with_server(slots)

    @app.post(f"{base}/rollback")
    def rollback(model: str, body: schemas.RollbackRequest, who: Operator, key: Key = None) -> Body:
        change: Body = {"kind": registry.ROLLBACK, "version": body.target_version, "by": body.rolled_back_by or who.name}
        with transaction(engine) as conn:
            slots = registry.serve(conn, models_dir, model=model, reason=body.reason, at=clock(), key=key, **change)
        return with_server(slots)

    @app.post(f"{base}/promote")
    def promote(model: str, body: schemas.PromoteRequest, who: Operator, key: Key = None) -> Body:
        change: Body = {"kind": registry.PROMOTE, "version": body.version, "by": body.promoted_by or who.name}
        with transaction(engine) as conn:
            slots = registry.serve(conn, models_dir, model=model, reason=body.reason, at=clock(), key=key, **change)
        return with_server(slots)

    @app.get(f"{base}/versions")
    def versions(model: str) -> Body:
        with transaction(engine) as conn:
            slots = registry.slots(conn, model)
            return schemas.slots(slots) | {
                "versions": [schemas.version(v) for v in registry.list_versions(conn, model)],
                "history": [schemas.deployment(d) for d in registry.history(conn, model)],
            }

    @app.post(f"{base}/versions", status_code=201)
    def register(model: str, body: schemas.RegisterRequest, who: Operator, key: Key = None) -> Body:
        expected = f"{model}/{body.version}"
        if body.artefact not in (None, expected):
            raise Invalid(f"the artefact of {model} {body.version} must lie in {expected} below the models folder", field="artefact")
        with transaction(engine) as conn:
            by = body.registered_by or who.name
            return schemas.version(registry.register(conn, models_dir, model=model, version=body.version, by=by, at=clock(), key=key))

    @app.post(f"{base}/staging")
    def stage(model: str, body: schemas.StagingRequest, who: Operator, key: Key = None) -> Body:
        by = body.staged_by or who.name
        with transaction(engine) as conn:
            slots = registry.stage(conn, models_dir, model=model, version=body.version, by=by, at=clock(), key=key)
        return with_server(slots)

    @app.delete(f"{base}/staging")
    def unstage(model: str, who: Operator, key: Key = None) -> Body:
        with transaction(engine) as conn:
            slots = registry.stage(conn, models_dir, model=model, version=None, by=who.name, at=clock(), key=key)
        return with_server(slots)

    loaded = replay.Models(models_dir)

    @app.get(f"{base}/replay")
    def replay_versions(
        model: str,
        version: Annotated[list[schemas.Id], Query(min_length=1, max_length=schemas.MOST_VERSIONS)],
        since: When = None,
        until: When = None,
        limit: Annotated[int, Query(ge=1, le=schemas.MOST_REPLAYED)] = 4000,
    ) -> JSONResponse:
        """Score logged requests whose outcome is known with each version, as if it had served."""
        return JSONResponse(schemas.replayed(replay.replay(engine, loaded, model, version, since=since, until=until, limit=limit)))

    @app.get(f"{base}/changes")
    def changes(model: str, since: When = None) -> Body:
        with transaction(engine) as conn:
            change_log.find(conn, model)
            found = change_log.list_changes(conn, model, since=since or clock() - CHANGES_BACK)
        return {"model": model, "changes": [schemas.change(c) for c in found]}

    @app.get(f"{base}/applied")
    def applied(model: str) -> Body:
        with transaction(engine) as conn:
            change_log.find(conn, model)
            return {"model": model, "applied": change_log.applied_counts(conn, model)}


def _serving(app: FastAPI, engine: Engine, config: Settings, clock: Callable[[], datetime]) -> None:
    """The model server's config and its restart, of the one model that this machine serves, and the work orders made from predictions."""
    base = "/api/v1/ml/models/{model}"

    @app.get(f"{base}/config")
    def read_config(model: str) -> Body:
        with transaction(engine) as conn:
            change_log.find(conn, model)
        desired_of(config.serving_state_file, model)
        return schemas.config(serving_config.read(config.serving_config_file))

    @app.patch(f"{base}/config")
    def change_config(model: str, body: schemas.ConfigRequest, who: Operator, key: Key = None) -> Body:
        """The file is written just before the commit, so that only a crash in that moment leaves a change unrecorded."""
        wanted = body.changes()
        with transaction(engine) as conn:
            change_log.lock(conn, model)
            desired_of(config.serving_state_file, model)
            stored = serving_config.read(config.serving_config_file)
            if change_log.is_repeat(conn, model, "config", key, wanted):
                return schemas.config(stored)
            before = {k: v for k, v in stored.as_dict().items() if k in wanted and v != wanted[k]}
            after = {k: wanted[k] for k in before}
            change_log.record(conn, model, "config", target=wanted, applied=bool(before), at=clock(), key=key)
            if before:
                author, detail = body.changed_by or who.name, {"from": before, "to": after}
                change_log.note_change(conn, model, "config", ref=", ".join(sorted(after)), author=author, at=clock(), detail=detail)
                json_file.patch(config.serving_config_file, after, expected_revision=body.expected_revision)
        return schemas.config(serving_config.read(config.serving_config_file))

    @app.post(f"{base}/restart", status_code=202)
    def restart(model: str, body: schemas.RestartRequest, who: Operator, key: Key = None) -> Body:
        """Ask for a restart; whoever runs the server sees the new id. The same id again is no second restart."""
        wanted = body.restart_id or key or secrets.token_hex(8)
        with transaction(engine) as conn:
            change_log.lock(conn, model)
            desired_of(config.serving_state_file, model)
            repeat = change_log.is_repeat(conn, model, "restart", wanted, {"restart_id": wanted})
            if not repeat:
                change_log.record(conn, model, "restart", target={"restart_id": wanted}, applied=True, at=clock(), key=wanted)
                author = body.restarted_by or who.name
                change_log.note_change(conn, model, "infrastructure", ref=f"restart {wanted}", author=author, at=clock())
                json_file.patch(config.serving_state_file, {"restart_id": wanted})
        return {"model": model, "restartId": wanted}

    @app.get(f"{base}/work-orders")
    def work_orders(model: str, state: Annotated[str | None, Query(pattern="^(pending|scheduled|done|cancelled)$")] = None) -> Body:
        with transaction(engine) as conn:
            change_log.find(conn, model)
            found = workorders.find(conn, model=model, states=(state,) if state else ())
        return {"model": model, "workOrders": [schemas.work_order(w) for w in found]}

    @app.post(f"{base}/work-orders/flag")
    def flag(model: str, body: schemas.FlagRequest, who: Operator) -> Body:
        with transaction(engine) as conn:
            reason = body.reason or f"flagged by {body.flagged_by or who.name}"
            found = workorders.flag_open(conn, model=model, reason=reason, at=clock())
        return {"model": model, "workOrders": [schemas.work_order(w) for w in found]}


def _features(app: FastAPI, engine: Engine, clock: Callable[[], datetime]) -> None:
    """The scheduled materialisation of the feature views."""
    base = "/api/v1/ml/features/schedules"

    @app.get(base)
    def schedules() -> Body:
        with transaction(engine) as conn:
            found = feature_schedules.states(conn)
        if not found:
            raise NotFound("no feature view has been materialised on a schedule here yet")
        return schemas.schedules(found)

    @app.post(f"{base}/suspend")
    def suspend(body: schemas.SchedulesRequest, who: Operator, key: Key = None) -> Body:
        with transaction(engine) as conn:
            return schemas.schedules(feature_schedules.suspend(conn, body.views, body.changed_by or who.name, clock(), key))

    @app.post(f"{base}/resume")
    def resume(body: schemas.SchedulesRequest, who: Operator, key: Key = None) -> Body:
        with transaction(engine) as conn:
            return schemas.schedules(feature_schedules.resume(conn, body.views, body.changed_by or who.name, clock(), key))


def _performance(app: FastAPI, engine: Engine, clock: Callable[[], datetime]) -> None:
    base = "/api/v1/model-performance"

    @app.get(f"{base}/metrics/{{model}}")
    def model_metrics(model: str, since: When = None, until: When = None, version: str | None = None) -> Body:
        with transaction(engine) as conn:
            return schemas.metrics(metrics.compare(conn, model, now=clock(), since=since, until=until, version=version))

    @app.get(f"{base}/history/{{model}}")
    def by_day(model: str, days: Annotated[int, Query(ge=1, le=schemas.MOST_DAYS)] = 28, until: When = None) -> Body:
        """The figures of each day of UTC, oldest first; days on which nothing was asked for are left out."""
        with transaction(engine) as conn:
            found = history.by_day(conn, model, days=days, until=until or clock())
        return {"model": model, "days": [schemas.day(d) for d in found]}

    @app.put(f"{base}/metrics/{{model}}/baseline")
    def pin_baseline(model: str, body: schemas.BaselineRequest, who: Operator) -> Body:
        with transaction(engine) as conn:
            metrics.pin_baseline(conn, model, since=body.since, until=body.until, by=who.name, at=clock())
        return {"model": model, "since": body.since, "until": body.until}

    @app.delete(f"{base}/metrics/{{model}}/baseline")
    def unpin_baseline(model: str, who: Operator) -> Body:
        with transaction(engine) as conn:
            metrics.pin_baseline(conn, model, since=None, until=None, by=who.name, at=clock())
        return {"model": model, "since": None, "until": None}

    @app.get(f"{base}/alerts")
    def active_alerts(model: str | None = None) -> Body:
        with transaction(engine) as conn:
            if model is not None:
                change_log.find(conn, model)
            return {"alerts": alerts.active(conn, model=model)}

    @app.get("/api/v1/ml/predictions/logs")
    def logs(
        limit: Annotated[int, Query(ge=1, le=10_000)] = 100,
        model: str | None = None,
        since: When = None,
        until: When = None,
        labelled_only: Annotated[bool, Query(alias="labelledOnly")] = False,
    ) -> JSONResponse:
        with transaction(engine) as conn:
            if model is not None:
                change_log.find(conn, model)
            found = predictions.recent(conn, model=model, limit=limit, since=since, until=until, labelled_only=labelled_only)
        return JSONResponse({"predictions": [schemas.prediction(p) for p in found]})

    @app.post("/api/v1/ml/predictions/outcomes")
    def outcomes(body: schemas.OutcomesRequest, _: Intake) -> Body:
        """Enter the ground truth. 404 only when no prediction of the request is known."""
        given = {o.prediction_id: o.failed for o in body.outcomes}
        with transaction(engine) as conn:
            unknown = predictions.record_outcomes(conn, given, at=clock())
        if len(unknown) == len(given):
            raise NotFound(f"no prediction has the id {unknown[0]}{' or the others given' if len(unknown) > 1 else ''}")
        return {"recorded": len(given) - len(unknown), "unknown": unknown}


def team_policy(config: Settings) -> Policy:
    """The policy file, or the runbook's rules where there is none. Invalid when the file is wrong."""
    path = config.policy or config.home / "runbook.yaml"
    return policy_file.load(path) if config.policy or path.exists() else Policy()


def main() -> None:
    parser = argparse.ArgumentParser(description="The model platform's API")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8070)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    every = os.environ.get("MLRUNBOOK_PLATFORM_EVALUATE_S", str(EVALUATE_EVERY_S))
    environment = os.environ.get("MLRUNBOOK_ENVIRONMENT", "production")
    try:
        if not every.replace(".", "", 1).isdigit() or float(every) <= 0:
            raise Invalid(f"MLRUNBOOK_PLATFORM_EVALUATE_S must be seconds over 0, not {every!r}")
        config = settings()
        policy = team_policy(config)
        app = create_app(
            config,
            db.engine(),
            rules=policy.alerts,
            safety=policy.safety,
            fairness=policy.fairness,
            evaluate_every_s=float(every),
            environment=environment,
        )
    except RunbookError as error:
        sys.exit(f"model platform: {error}")
    uvicorn.run(app, host=args.host, port=args.port, log_level="warning", timeout_graceful_shutdown=2)


if __name__ == "__main__":
    main()
