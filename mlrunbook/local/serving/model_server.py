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
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Annotated, Any

import uvicorn
from fastapi import Depends, FastAPI, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from sqlalchemy import Engine

from mlrunbook.adapters.local.serving_state import DEFAULT_MODEL
from mlrunbook.base import db, http_server, web
from mlrunbook.base.settings import Settings, settings
from mlrunbook.base.tokens import Identity, Scope
from mlrunbook.domain.errors import RunbookError, Transient
from mlrunbook.local.platform import schemas
from mlrunbook.local.serving.failures import COUNTED, ISOLATED, PREDICT, CountFailures, Failures
from mlrunbook.local.serving.feature_watch import NOT_CONFIGURED, FeatureWatch, Seen, Source
from mlrunbook.local.serving.predicting import Figures, Predictor
from mlrunbook.local.serving.served_version import Serving

log = logging.getLogger(__name__)
POLL_S = 0.5
FAILING = "failing"
MAX_BODY_BYTES = 8 << 20
FORENSIC_PATHS = ("/health", "/ready", "/metrics")  # what an isolated server still answers: they tell of it, and change nothing
# Predictions make work orders, and alerts are raised from them: not for everybody.
Caller = Annotated[Identity, Depends(web.require(Scope.PREDICT))]


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
    predictor = Predictor(serving, engine, online, figures)
    app = FastAPI(title="model server", lifespan=_watching(serving, watch, predictor.failures), docs_url=None, redoc_url=None)
    web.prepare(app, engine=engine, limits=web.Limits.of(config, body_bytes=MAX_BODY_BYTES, times=10))

    @app.middleware("http")
    async def refuse_while_isolated(request: Request, answer: Callable[[Request], Awaitable[Response]]) -> Response:
        if request.url.path in FORENSIC_PATHS or not serving.isolated():
            return await answer(request)
        if request.url.path.endswith(PREDICT):
            predictor.failures.note(ISOLATED, stored=False)  # on purpose: no error of the service
        return web.problem(503, "Isolated", f"{model} is isolated for a security incident: it answers again when a person has decided so")

    figures.registry.register(app.state.edge.refused)
    _looks(app, serving, watch, figures)
    app.add_middleware(CountFailures, failures=predictor.failures)

    @app.post("/api/v1/ml/models/{asked}/predict")
    def predict(asked: str, body: schemas.PredictRequest, who: Caller, request: Request) -> dict[str, Any]:
        try:
            return predictor.answer(asked, body.assets, caller=who.name)
        except Exception:
            setattr(request.state, COUNTED, True)
            raise

    return app


def _watching(serving: Serving, watch: FeatureWatch | None, failures: Failures) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    """While the server runs, the registry is followed, the feature store watched, and what failed written down."""
    stop = threading.Event()

    def poll() -> None:
        while not stop.wait(POLL_S):
            try:
                serving.refresh()
                failures.flush()
            except Exception:  # one bad round must not end the watching
                log.exception("could not look for a new version; trying again")

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        threading.Thread(target=poll, name="poll", daemon=True).start()
        if watch:
            watch.start()
        yield
        stop.set()
        failures.flush()
        if watch:
            watch.stop()

    return lifespan


def _looks(app: FastAPI, serving: Serving, watch: FeatureWatch | None, figures: Figures) -> None:
    """FORENSIC_PATHS."""
    reader = web.require(Scope.READ, model_in_body=True)

    @app.get("/health")
    async def health(request: Request) -> dict[str, Any]:
        """Whether it serves: for anybody. What it serves, and how: with a token of scope read."""
        whole = serving.health()
        if "authorization" not in request.headers:
            return {"status": "ok" if whole["status"] == "ok" else FAILING}
        (await reader(request)).confine_to(serving.model)
        return whole | {"features": (watch.seen() if watch else Seen(NOT_CONFIGURED)).as_wire()}

    @app.get("/ready")
    async def ready() -> dict[str, Any]:
        """200 once a version is loaded, and while it can score: otherwise nobody should be sent here."""
        if serving.loaded is None or serving.disabled:
            raise Transient("it has no version that can score: `GET /health` with a token of scope read says why")
        return {"status": "ok"}

    @app.get("/metrics", dependencies=[Depends(web.require(Scope.READ))])
    async def metrics() -> Response:
        return Response(generate_latest(figures.registry), media_type=CONTENT_TYPE_LATEST)


def _feature_store(config: Settings) -> Source | None:
    if config.feature_repo is None:
        return None
    from mlrunbook.local.serving.online_features import OnlineFeatures

    return OnlineFeatures(config.feature_repo)


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
    uvicorn.run(app, host=args.host, port=args.port, log_level="warning", timeout_graceful_shutdown=1, **http_server.options())


if __name__ == "__main__":
    main()
