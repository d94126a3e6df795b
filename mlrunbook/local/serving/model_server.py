"""The model server: `python -m mlrunbook.local.serving.model_server --port 8080`.

It serves what the registry says, or what the route override says, and notices a change within half a second. The threshold is read
at the start only, as with the runbook's config map and `rollout restart`; the switches act at once, because stopping the creation of
work orders must not wait for a restart. Features come from the feature store by asset id, or with the request. The version in staging
scores the same requests for the log alone. While it is isolated it runs on, and answers nobody but those who look at it.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Annotated, Any

import uvicorn
from fastapi import Depends, FastAPI, HTTPException, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest
from sqlalchemy import Connection, Engine

from mlrunbook.adapters.local import serving_config
from mlrunbook.adapters.local.serving_state import DEFAULT_MODEL
from mlrunbook.base import db, json_file, web
from mlrunbook.base.db import transaction
from mlrunbook.base.settings import Settings, settings
from mlrunbook.base.tokens import Identity, Scope
from mlrunbook.domain.errors import Invalid, NotFound, RunbookError, Transient
from mlrunbook.domain.observed import ServingConfig
from mlrunbook.local.platform import columns, predictions, registry, schemas, work_orders
from mlrunbook.local.platform.artefacts import LoadedModel
from mlrunbook.local.serving.feature_watch import NOT_CONFIGURED, FeatureWatch, Seen, Source
from mlrunbook.local.serving.shadow import Shadow

log = logging.getLogger(__name__)
POLL_S = 0.5
LOG_EVERY_S = 60.0  # the same kind of failed request of the same caller
MAX_BODY_BYTES = 8 << 20
FORENSIC_PATHS = ("/health", "/ready", "/metrics")  # what an isolated server still answers: they tell of it, and change nothing
# Predictions make work orders, and alerts are raised from them: not for everybody.
Intake = Annotated[Identity, Depends(web.require(Scope.INTAKE))]


@dataclass(frozen=True)
class NotLoaded:
    """A version that shall serve and cannot be loaded, since when, and why. What served before goes on serving."""

    version: str
    since: datetime
    error: str


class Serving:
    """What this process serves now. `refresh` follows the registry; everything else only looks."""

    def __init__(self, model: str, config: Settings, engine: Engine, *, restart_id: str | None) -> None:
        self.model, self.restart_id = model, restart_id
        self.started_at = datetime.now(UTC)
        self.loaded: LoadedModel | None = None
        self.route: str | None = None
        self.error: str | None = None  # why what is wanted is not served
        self.not_loaded: NotLoaded | None = None
        self.shadow = Shadow(model, config.models_dir)
        self._models_dir, self._config_file, self._state_file = config.models_dir, config.serving_config_file, config.serving_state_file
        self._engine = engine
        self._config: ServingConfig | None = serving_config.read(self._config_file) if self._config_file.exists() else None
        self._seen: tuple[int, int] | None = None
        self._isolated: tuple[tuple[int, int] | None, bool] = (None, False)

    def refresh(self) -> None:
        """Load the wanted version if it is another one. What cannot be loaded leaves the old one serving, and `error` says why."""
        try:
            self.route = json_file.read(self._state_file).get("route_version") if self._state_file.exists() else None
            with transaction(self._engine) as conn:
                try:
                    slots = registry.slots(conn, self.model)
                    wanted, staged = self.route or slots.serving, slots.staging
                except NotFound:  # nothing registered yet
                    wanted = staged = None
                current = self.loaded
                self.shadow.follow(conn, staged)
                if wanted and (current is None or current.manifest.version != wanted):
                    self._load(conn, wanted)
                else:
                    self.not_loaded = None
            self.error = self.not_loaded.error if self.not_loaded else None
        except RunbookError as error:
            if self.error != str(error):
                log.warning("%s", error)
            self.error = str(error)

    def _load(self, conn: Connection, wanted: str) -> None:
        try:
            fresh = registry.load(conn, self._models_dir, self.model, wanted)
            fresh.score(columns.as_frame([dict.fromkeys(columns.RAW)]))  # it must be able to score before it may serve
        except Transient:
            raise
        except Exception as error:  # whatever a model raises, it does not serve
            said = str(error) if isinstance(error, RunbookError) else f"{wanted} cannot score: {error}".splitlines()[0]
            before = self.not_loaded
            if before is None or (before.version, before.error) != (wanted, said):
                same = before is not None and before.version == wanted
                self.not_loaded = NotLoaded(wanted, before.since if before and same else datetime.now(UTC), said)
                log.error("%s %s cannot be loaded, %s: %s", self.model, wanted, self._instead(), said)
            return
        if self._config is None:
            self._config = serving_config.ensure(self._config_file, threshold=fresh.manifest.threshold)
        self.loaded, self.not_loaded = fresh, None

    def _instead(self) -> str:
        return f"{self.loaded.manifest.version} goes on serving" if self.loaded else "nothing serves"

    def config(self) -> ServingConfig | None:
        """As this process runs with it: switches as the file says now, threshold as at the start.

        The revision is the newest one that is in effect completely, so a new threshold shows there only after a restart.
        """
        if self._config is None:
            return None
        try:
            stat = self._config_file.stat()
            seen = (stat.st_ino, stat.st_mtime_ns)
            if seen != self._seen:
                stored = serving_config.read(self._config_file)
                whole = stored.threshold == self._config.threshold
                revision = stored.revision if whole else self._config.revision
                self._config = replace(stored, threshold=self._config.threshold, revision=revision)
                self._seen = seen
        except (OSError, RunbookError) as error:
            log.warning("the config file cannot be read, going on with what was loaded: %s", error)
        return self._config

    def isolated(self) -> bool:
        """As the desired state says now. While it cannot be read, what it said last holds."""
        try:
            stat = self._state_file.stat()
            if self._isolated[0] != (seen := (stat.st_ino, stat.st_mtime_ns)):
                self._isolated = (seen, json_file.read(self._state_file).get("isolated") is True)
        except FileNotFoundError:
            return False
        except (OSError, RunbookError) as error:
            log.warning("the desired state cannot be read, isolated stays %s: %s", self._isolated[1], error)
        return self._isolated[1]

    def health(self) -> dict[str, Any]:
        loaded, config = self.loaded, self.config()
        body: dict[str, Any] = {
            "status": "ok" if loaded else "no_model",
            "model": self.model,
            "version": loaded.manifest.version if loaded else None,
            "startedAt": self.started_at,
            "restartId": self.restart_id,
            "routeVersion": self.route,
            "isolated": self.isolated(),
            "stagingVersion": self.shadow.version,
            "stagingError": self.shadow.error,
            "error": self.error,
            "notLoaded": vars(self.not_loaded) if self.not_loaded else None,
            "configRevision": config.revision if config else None,
            "config": None,
        }
        if config:
            body["config"] = {key: value for key, value in schemas.config(config).items() if key != "revision"}
        return body


class Figures:
    """What Prometheus reads."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.predictions = Counter("model_predictions", "Predictions", ["model", "version", "label"], registry=self.registry)
        self.latency = Histogram("model_inference_seconds", "One request, checking and scoring", ["model"], registry=self.registry)
        self.shadow_errors = Counter(
            "model_shadow_errors", "Requests staging failed to score", ["model", "version"], registry=self.registry
        )
        self.errors = Counter("model_errors", "Assets that got no prediction", ["model", "kind"], registry=self.registry)


def create_app(
    config: Settings, engine: Engine, *, model: str = DEFAULT_MODEL, restart_id: str | None = None, online: Source | None = None
) -> FastAPI:
    """The server for one model. Features are read from `online`, by default the feature store of the settings, if there is one.

    Invalid when the config file is there and wrong.
    """
    serving = Serving(model, config, engine, restart_id=restart_id)
    serving.refresh()
    online = online or _feature_store(config)
    watch = FeatureWatch(online) if online else None
    figures = Figures()
    refusals, stop = _Seldom(), threading.Event()

    def poll() -> None:
        while not stop.wait(POLL_S):
            try:
                serving.refresh()
            except Exception:  # one bad round must not end the watching
                log.exception("could not look for a new version; trying again")

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        threading.Thread(target=poll, name="poll", daemon=True).start()
        if watch:
            watch.start()
        yield
        stop.set()
        if watch:
            watch.stop()

    app = FastAPI(title="model server", lifespan=lifespan, docs_url=None, redoc_url=None)
    web.prepare(app, engine=engine, max_body_bytes=MAX_BODY_BYTES)

    @app.middleware("http")
    async def refuse_while_isolated(request: Request, answer: Callable[[Request], Awaitable[Response]]) -> Response:
        if request.url.path in FORENSIC_PATHS or not serving.isolated():
            return await answer(request)
        return web.problem(503, "Isolated", f"{model} is isolated for a security incident: it answers again when a person has decided so")

    @app.get("/health")
    async def health() -> dict[str, Any]:
        return serving.health() | {"features": (watch.seen() if watch else Seen(NOT_CONFIGURED)).as_wire()}

    @app.get("/ready")
    async def ready() -> dict[str, Any]:
        """200 once a version is loaded: before that nobody should be sent here."""
        if serving.loaded is None:
            raise Transient(f"no version of {model} is loaded" + (f": {serving.error}" if serving.error else ""))
        return {"version": serving.loaded.manifest.version}

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(generate_latest(figures.registry), media_type=CONTENT_TYPE_LATEST)

    @app.post("/api/v1/ml/models/{asked}/predict")
    def predict(asked: str, body: schemas.PredictRequest, who: Intake) -> dict[str, Any]:
        if asked != model:
            raise NotFound(f"this server serves {model}, not {asked!r}")
        try:
            return _predict(serving, figures, engine, body.assets, online)
        except _Failed as failure:
            count_error(failure.kind, len(body.assets))
            said = f"{len(body.assets)} assets that {who.name} asked for got no prediction ({failure.kind}): {failure.error}"
            if refusals.is_due(failure.kind, who.name):
                log.warning("%s", said)
            raise failure.error from failure.error.__cause__

    def count_error(kind: str, count: int) -> None:
        figures.errors.labels(model, kind).inc(count)
        try:
            with transaction(engine) as conn:
                predictions.count_errors(conn, model=model, kind=kind, count=count, at=datetime.now(UTC))
        except RunbookError as error:  # the caller must hear of the first failure, not of this one
            log.warning("an error could not be counted: %s", error)

    return app


def _feature_store(config: Settings) -> Source | None:
    if config.feature_repo is None:
        return None
    from mlrunbook.local.serving.online_features import OnlineFeatures

    return OnlineFeatures(config.feature_repo)


class _Seldom:
    """Lets each key through once in LOG_EVERY_S: a caller that never stops must not fill the log."""

    def __init__(self) -> None:
        self._last: dict[tuple[str, ...], float] = {}

    def is_due(self, *key: str) -> bool:
        now = time.monotonic()
        if now - self._last.get(key, -LOG_EVERY_S) < LOG_EVERY_S:
            return False
        self._last[key] = now
        return True


class _Failed(Exception):
    """No prediction for this request; `kind` is what gets counted, `error` what the caller hears."""

    def __init__(self, kind: str, error: Exception) -> None:
        self.kind, self.error = kind, error


def _readings(assets: list[schemas.Asset], online: Source | None) -> list[Mapping[str, Any]]:
    """Each asset's features: as sent, else as the feature store has them."""
    without = [i for i, asset in enumerate(assets) if asset.features is None]
    if without and online is None:
        where = f"assets.{without[0]}.features"
        what = "send features, or configure a feature store (MLRUNBOOK_FEATURE_REPO) to have them read by asset id"
        raise _Failed("invalid_features", Invalid(f"assets[{without[0]}] has no features: {what}", field=where))
    read: dict[int, Mapping[str, Any]] = {}
    if without and online is not None:
        try:
            read = dict(zip(without, online.read([assets[i].asset_id for i in without]), strict=True))
        except RunbookError as error:
            raise _Failed("features", Transient(f"no features for {len(without)} assets: {error}")) from error
        except Exception as error:
            log.exception("reading features failed")
            raise _Failed("features", Transient("the feature store failed; the server's log has the details")) from error
    return [read[i] if asset.features is None else asset.features for i, asset in enumerate(assets)]


def _predict(serving: Serving, figures: Figures, engine: Engine, assets: list[schemas.Asset], online: Source | None) -> dict[str, Any]:
    started, at = time.perf_counter(), datetime.now(UTC)
    loaded, config = serving.loaded, serving.config()
    if loaded is None or config is None:
        raise _Failed("no_model", Transient(f"no version of {serving.model} is in production: {serving.error or 'promote one'}"))
    readings = _readings(assets, online)
    nulls = []
    for i, reading in enumerate(readings):
        try:
            nulls.append(columns.check(reading))
        except Invalid as error:
            where = f"assets.{i}.{error.field or 'features'}"
            raise _Failed("invalid_features", Invalid(f"assets[{i}]: {error}", field=where)) from error
    try:
        frame = columns.as_frame(readings)
        scores: list[float] = loaded.score(frame).tolist()
    except Exception as error:
        log.exception("scoring failed")
        raise _Failed("scoring", HTTPException(500, "the model could not score this; the server's log has the details")) from error
    latency_s = time.perf_counter() - started
    threshold, version, model = config.threshold, loaded.manifest.version, serving.model
    shadow_version, shadow_scores = serving.shadow.score(frame, serving=version)
    if shadow_version and shadow_scores[0] is None:
        figures.shadow_errors.labels(model, shadow_version).inc()
    rows = [
        predictions.Scored(
            at=at,
            asset_id=asset.asset_id,
            asset_type=asset.asset_type or str(reading[columns.ASSET_TYPE] or "unknown"),
            features={name: reading[name] for name in columns.RAW},
            score=score,
            null_count=null_count,
            shadow_score=shadow_score,
        )
        for asset, reading, score, null_count, shadow_score in zip(assets, readings, scores, nulls, shadow_scores, strict=True)
    ]
    try:
        with transaction(engine) as conn:
            logged: dict[str, Any] = {"version": version, "threshold": threshold, "latency_ms": latency_s * 1000}
            ids = predictions.record(conn, rows, model=model, shadow_version=shadow_version, **logged)
            flagged = [(i, row.asset_id, row.score) for i, row in zip(ids, rows, strict=True) if row.score >= threshold]
            work_orders.hold(conn, model)
            switches = serving.config() or config  # as they are now: creation may have been halted since the request came
            ordered = work_orders.create(conn, flagged, model=model, config=switches, at=at)
    except Transient as error:
        raise _Failed("storage", error) from error
    figures.latency.labels(model).observe(latency_s)
    figures.predictions.labels(model, version, "high_risk").inc(len(flagged))
    figures.predictions.labels(model, version, "normal").inc(len(rows) - len(flagged))
    return {
        "model": model,
        "version": version,
        "threshold": threshold,
        "needsApproval": config.human_approval,
        "workOrdersCreated": ordered,
        "predictions": [
            {
                "predictionId": i,
                "assetId": row.asset_id,
                "score": row.score,
                "label": row.score >= threshold,
                "riskLevel": predictions.risk_level(row.score),
            }
            for i, row in zip(ids, rows, strict=True)
        ],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Serve the model that is in production")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--model", default=DEFAULT_MODEL)
    args = parser.parse_args()
    logging.Formatter.converter = time.gmtime  # the log is read from a moment on, in UTC
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        app = create_app(settings(), db.engine(), model=args.model, restart_id=os.environ.get("MLRUNBOOK_RESTART_ID"))
    except RunbookError as error:
        sys.exit(f"model server: {error}")
    uvicorn.run(app, host=args.host, port=args.port, log_level="warning", timeout_graceful_shutdown=1)


if __name__ == "__main__":
    main()
