"""The model server's config and its restart, of the one model that this machine serves, and the work orders made from predictions."""

from __future__ import annotations

import secrets
from typing import Annotated

from fastapi import FastAPI, Query

from mlrunbook.adapters.local import serving_config
from mlrunbook.adapters.local.serving_state import desired_of
from mlrunbook.base import json_file
from mlrunbook.base.db import transaction
from mlrunbook.local.platform import change_log, schemas
from mlrunbook.local.platform import work_orders as workorders
from mlrunbook.local.platform.routes.site import READER, Body, Key, Operator, Site

BASE = "/api/v1/ml/models/{model}"


def add(app: FastAPI, site: Site) -> None:
    _server(app, site)
    _work_orders(app, site)


def _server(app: FastAPI, site: Site) -> None:
    @app.get(f"{BASE}/config", dependencies=[READER])
    def read_config(model: str) -> Body:
        with transaction(site.engine) as conn:
            change_log.find(conn, model)
        desired_of(site.config.serving_state_file, model)
        return schemas.config(serving_config.read(site.config.serving_config_file))

    @app.patch(f"{BASE}/config")
    def change_config(model: str, body: schemas.ConfigRequest, who: Operator, key: Key = None) -> Body:
        """The file is written just before the commit, so that only a crash in that moment leaves a change unrecorded."""
        wanted = body.changes()
        with transaction(site.engine) as conn:
            change_log.lock(conn, model)
            desired_of(site.config.serving_state_file, model)
            stored = serving_config.read(site.config.serving_config_file)
            if change_log.is_repeat(conn, model, "config", key, wanted):
                return schemas.config(stored)
            before = {k: v for k, v in stored.as_dict().items() if k in wanted and v != wanted[k]}
            after = {k: wanted[k] for k in before}
            change_log.record(conn, model, "config", target=wanted, applied=bool(before), at=site.clock(), key=key)
            if before:
                author, detail = body.changed_by or who.name, {"from": before, "to": after}
                change_log.note_change(conn, model, "config", ref=", ".join(sorted(after)), author=author, at=site.clock(), detail=detail)
                json_file.patch(site.config.serving_config_file, after, expected_revision=body.expected_revision)
        return schemas.config(serving_config.read(site.config.serving_config_file))

    @app.post(f"{BASE}/restart", status_code=202)
    def restart(model: str, body: schemas.RestartRequest, who: Operator, key: Key = None) -> Body:
        """Ask for a restart; whoever runs the server sees the new id. The same id again is no second restart."""
        wanted = body.restart_id or key or secrets.token_hex(8)
        with transaction(site.engine) as conn:
            change_log.lock(conn, model)
            desired_of(site.config.serving_state_file, model)
            repeat = change_log.is_repeat(conn, model, "restart", wanted, {"restart_id": wanted})
            if not repeat:
                change_log.record(conn, model, "restart", target={"restart_id": wanted}, applied=True, at=site.clock(), key=wanted)
                author = body.restarted_by or who.name
                change_log.note_change(conn, model, "infrastructure", ref=f"restart {wanted}", author=author, at=site.clock())
                json_file.patch(site.config.serving_state_file, {"restart_id": wanted})
        return {"model": model, "restartId": wanted}


def _work_orders(app: FastAPI, site: Site) -> None:
    @app.get(f"{BASE}/work-orders", dependencies=[READER])
    def work_orders(model: str, state: Annotated[str | None, Query(pattern="^(pending|scheduled|done|cancelled)$")] = None) -> Body:
        with transaction(site.engine) as conn:
            change_log.find(conn, model)
            found = workorders.find(conn, model=model, states=(state,) if state else ())
        return {"model": model, "workOrders": [schemas.work_order(w) for w in found]}

    @app.post(f"{BASE}/work-orders/flag")
    def flag(model: str, body: schemas.FlagRequest, who: Operator) -> Body:
        with transaction(site.engine) as conn:
            reason = body.reason or f"flagged by {body.flagged_by or who.name}"
            found = workorders.flag_open(conn, model=model, reason=reason, at=site.clock())
        return {"model": model, "workOrders": [schemas.work_order(w) for w in found]}
