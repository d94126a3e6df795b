"""The scheduled materialisation of the feature views."""

from __future__ import annotations

from fastapi import FastAPI

from mlrunbook.base.db import transaction
from mlrunbook.domain.errors import NotFound
from mlrunbook.local.platform import feature_schedules, schemas
from mlrunbook.local.platform.routes.site import READER, Body, Key, Operator, Site


def add(app: FastAPI, site: Site) -> None:
    base = "/api/v1/ml/features/schedules"

    @app.get(base, dependencies=[READER])
    def schedules() -> Body:
        with transaction(site.engine) as conn:
            found = feature_schedules.states(conn)
        if not found:
            raise NotFound("no feature view has been materialised on a schedule here yet")
        return schemas.schedules(found)

    @app.post(f"{base}/suspend")
    def suspend(body: schemas.SchedulesRequest, who: Operator, key: Key = None) -> Body:
        with transaction(site.engine) as conn:
            return schemas.schedules(feature_schedules.suspend(conn, body.views, body.changed_by or who.name, site.clock(), key))

    @app.post(f"{base}/resume")
    def resume(body: schemas.SchedulesRequest, who: Operator, key: Key = None) -> Body:
        with transaction(site.engine) as conn:
            return schemas.schedules(feature_schedules.resume(conn, body.views, body.changed_by or who.name, site.clock(), key))
