"""The model platform's API: `python -m mlrunbook.local.platform.api --port 8070`. Paths and bodies are the runbook's.

Reads need a token of scope read, outcomes one of scope outcomes, every other change one of scope operate. `/health` alone is open, and
says no more than that. Who changed something is who the body says, else the token's name.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import cache

import httpx
import uvicorn
from fastapi import FastAPI
from sqlalchemy import Engine, text

from mlrunbook.base import db, http_server, policy_file, web
from mlrunbook.base.db import transaction
from mlrunbook.base.settings import Settings, settings
from mlrunbook.domain.errors import Invalid, RunbookError
from mlrunbook.domain.policy.policy import Policy
from mlrunbook.local.platform import alerts, artefacts, prometheus_metrics
from mlrunbook.local.platform.drift_watch import DriftWatch
from mlrunbook.local.platform.probing_watch import ProbingWatch
from mlrunbook.local.platform.routes import features, performance, registry, serving
from mlrunbook.local.platform.routes.site import Body, ModelServer, Site

DELIVERY_TIMEOUT_S = 5.0
EVALUATE_EVERY_S = 15.0
MAX_BODY_BYTES = 8 << 20


def utc_now() -> datetime:
    return datetime.now(UTC)


def create_app(
    config: Settings,
    engine: Engine,
    *,
    policy: Policy | None = None,
    evaluate_every_s: float | None = EVALUATE_EVERY_S,
    environment: str = "production",
    clock: Callable[[], datetime] = utc_now,
) -> FastAPI:
    """The API with its alert loop; `evaluate_every_s` None leaves the loop out."""
    settles = timedelta(minutes=(policy or Policy()).severity.outcomes.settles_after_min)
    policy, http = policy or Policy(), httpx.Client(timeout=DELIVERY_TIMEOUT_S)
    site = Site(config, engine, ModelServer(http, config.model_server_url.rstrip("/"), config.platform_token), clock, settles)
    drift, probing = DriftWatch(engine, clock=clock, policy=policy), ProbingWatch(engine, clock=clock)
    watched = alerts.Watched(drift, probing, policy)
    loop = _alert_loop(site, watched, http, environment=environment, every_s=evaluate_every_s) if evaluate_every_s else None

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
    web.prepare(app, engine=engine, limits=web.Limits.of(config, body_bytes=MAX_BODY_BYTES))

    @app.get("/health")
    def health() -> Body:
        with transaction(engine) as conn:
            conn.execute(text("SELECT 1"))
        return {"status": "ok"}

    for routes in (registry, serving, features, performance):
        routes.add(app, site)
    figures = prometheus_metrics.PlatformCollector(
        engine,
        clock=clock,
        health=site.server.health,
        stopped_on_purpose=site.stopped_on_purpose,
        watched=watched,
    )
    prometheus_metrics.expose(app, figures)
    return app


def _alert_loop(site: Site, watched: alerts.Watched, http: httpx.Client, *, environment: str, every_s: float) -> alerts.AlertLoop:
    token = site.config.gateway_token.get_secret_value() if site.config.gateway_token else None
    gateway = alerts.Gateway(http, site.config.gateway_url.rstrip("/"), token)
    server = alerts.ServerWatch(site.server.health, site.stopped_on_purpose, site.clock)

    def evaluate() -> None:
        now = site.clock()
        with transaction(site.engine) as conn:
            alerts.evaluate(conn, now=now, server=server, environment=environment, watched=watched)

    def deliver() -> int:
        return alerts.deliver_due(site.engine, gateway, now=site.clock())

    return alerts.AlertLoop(evaluate, deliver, clock=site.clock, every_s=every_s, told=_get_ready)


@cache
def _get_ready() -> None:
    """Somebody hears of trouble now: versions will be compared soon, and what that needs takes seconds to import."""
    threading.Thread(target=artefacts.preload, name="preload", daemon=True).start()


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
        app = create_app(config, db.engine(), policy=team_policy(config), evaluate_every_s=float(every), environment=environment)
    except RunbookError as error:
        sys.exit(f"model platform: {error}")
    uvicorn.run(app, host=args.host, port=args.port, log_level="warning", timeout_graceful_shutdown=2, **http_server.options())


if __name__ == "__main__":
    main()
