"""Models and their versions: what is in production and in staging, and what became of it."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from fastapi import FastAPI, Query
from fastapi.responses import JSONResponse

from mlrunbook.base.db import transaction
from mlrunbook.domain.errors import Invalid
from mlrunbook.local.platform import change_log, registry, replay, schemas
from mlrunbook.local.platform.routes.site import READER, Body, Key, Operator, Site, When

CHANGES_BACK = timedelta(days=7)
BASE = "/api/v1/ml/models/{model}"


def add(app: FastAPI, site: Site) -> None:
    _production(app, site)
    _staging(app, site)
    _versions(app, site)
    _changes(app, site)


def _production(app: FastAPI, site: Site) -> None:
    @app.get("/api/v1/ml/models", dependencies=[READER])
    def list_models() -> Body:
        with transaction(site.engine) as conn:
            return {"models": [{"model": name} for name in registry.list_models(conn)]}

    @app.get(f"{BASE}/status", dependencies=[READER])
    def status(model: str) -> Body:
        with transaction(site.engine) as conn:
            slots = registry.slots(conn, model)
        return site.with_server(slots)

    @app.post(f"{BASE}/rollback")
    def rollback(model: str, body: schemas.RollbackRequest, who: Operator, key: Key = None) -> Body:
        change = registry.Change(registry.ROLLBACK, body.rolled_back_by or who.name, site.clock(), body.reason, key)
        with transaction(site.engine) as conn:
            slots = registry.serve(conn, site.models_dir, model=model, version=body.target_version, change=change)
        return site.with_server(slots)

    @app.post(f"{BASE}/promote")
    def promote(model: str, body: schemas.PromoteRequest, who: Operator, key: Key = None) -> Body:
        change = registry.Change(registry.PROMOTE, body.promoted_by or who.name, site.clock(), body.reason, key)
        with transaction(site.engine) as conn:
            slots = registry.serve(conn, site.models_dir, model=model, version=body.version, change=change)
        return site.with_server(slots)


def _staging(app: FastAPI, site: Site) -> None:
    @app.post(f"{BASE}/staging")
    def stage(model: str, body: schemas.StagingRequest, who: Operator, key: Key = None) -> Body:
        by = body.staged_by or who.name
        with transaction(site.engine) as conn:
            slots = registry.stage(conn, site.models_dir, model=model, version=body.version, by=by, at=site.clock(), key=key)
        return site.with_server(slots)

    @app.delete(f"{BASE}/staging")
    def unstage(model: str, who: Operator, key: Key = None) -> Body:
        with transaction(site.engine) as conn:
            slots = registry.stage(conn, site.models_dir, model=model, version=None, by=who.name, at=site.clock(), key=key)
        return site.with_server(slots)


def _versions(app: FastAPI, site: Site) -> None:
    loaded = replay.Models(site.models_dir)

    @app.get(f"{BASE}/versions", dependencies=[READER])
    def versions(model: str) -> Body:
        with transaction(site.engine) as conn:
            slots = registry.slots(conn, model)
            return schemas.slots(slots) | {
                "versions": [schemas.version(v) for v in registry.list_versions(conn, model)],
                "history": [schemas.deployment(d) for d in registry.history(conn, model)],
            }

    @app.post(f"{BASE}/versions", status_code=201)
    def register(model: str, body: schemas.RegisterRequest, who: Operator, key: Key = None) -> Body:
        expected = f"{model}/{body.version}"
        if body.artefact not in (None, expected):
            raise Invalid(f"the artefact of {model} {body.version} must lie in {expected} below the models folder", field="artefact")
        by = body.registered_by or who.name
        with transaction(site.engine) as conn:
            made = registry.register(conn, site.models_dir, model=model, version=body.version, by=by, at=site.clock(), key=key)
        return schemas.version(made)

    @app.get(f"{BASE}/replay", dependencies=[READER])
    def replay_versions(
        model: str,
        version: Annotated[list[schemas.Id], Query(min_length=1, max_length=schemas.MOST_VERSIONS)],
        since: When = None,
        until: When = None,
        limit: Annotated[int, Query(ge=1, le=schemas.MOST_REPLAYED)] = 4000,
    ) -> JSONResponse:
        """Score logged requests whose outcome is known with each version, as if it had served."""
        return JSONResponse(schemas.replayed(replay.replay(site.engine, loaded, model, version, since=since, until=until, limit=limit)))


def _changes(app: FastAPI, site: Site) -> None:
    @app.get(f"{BASE}/changes", dependencies=[READER])
    def changes(model: str, since: When = None) -> Body:
        with transaction(site.engine) as conn:
            change_log.find(conn, model)
            found = change_log.list_changes(conn, model, since=since or site.clock() - CHANGES_BACK)
        return {"model": model, "changes": [schemas.change(c) for c in found]}

    @app.get(f"{BASE}/applied", dependencies=[READER])
    def applied(model: str) -> Body:
        with transaction(site.engine) as conn:
            change_log.find(conn, model)
            return {"model": model, "applied": change_log.applied_counts(conn, model)}
