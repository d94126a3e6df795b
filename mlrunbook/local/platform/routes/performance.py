"""How a model does: figures, alerts, the prediction log, and the outcomes that come in."""

from __future__ import annotations

from typing import Annotated

from fastapi import FastAPI, Path, Query
from fastapi.responses import JSONResponse

from mlrunbook.base.db import transaction
from mlrunbook.base.web import Moment
from mlrunbook.domain.errors import NotFound
from mlrunbook.local.platform import alerts, change_log, history, metrics, outcome_blocks, outcomes, predictions, schemas
from mlrunbook.local.platform.routes.site import READER, Body, Operator, OutcomeSender, Reader, Site, When

BASE = "/api/v1/model-performance"
At = Annotated[Moment, Query()]
BlockLength = Annotated[float, Query(alias="blockS", ge=1, le=604_800)]


def add(app: FastAPI, site: Site) -> None:
    _figures(app, site)
    _alerts(app, site)
    _predictions(app, site)


def _figures(app: FastAPI, site: Site) -> None:
    @app.get(f"{BASE}/metrics/{{model}}", dependencies=[READER])
    def model_metrics(model: str, since: When = None, until: When = None, version: str | None = None) -> Body:
        with transaction(site.engine) as conn:
            return schemas.metrics(metrics.compare(conn, model, now=site.clock(), since=since, until=until, version=version))

    @app.get(f"{BASE}/history/{{model}}", dependencies=[READER])
    def by_day(model: str, days: Annotated[int, Query(ge=1, le=schemas.MOST_DAYS)] = 28, until: When = None) -> Body:
        """The figures of each day of UTC, oldest first; days on which nothing was asked for are left out."""
        with transaction(site.engine) as conn:
            found = history.by_day(conn, model, days=days, until=until or site.clock())
        return {"model": model, "days": [schemas.day(d) for d in found]}

    @app.get(f"{BASE}/outcome-blocks/{{model}}", dependencies=[READER])
    def blocks(model: str, since: At, until: At, block_s: BlockLength, version: str | None = None) -> JSONResponse:
        """Known outcomes of the predictions made in each whole block of `blockS` seconds, oldest first, and of each asset."""
        with transaction(site.engine) as conn:
            found = outcome_blocks.of_model(conn, model, since=since, until=until, block_s=block_s, version=version)
        return JSONResponse(schemas.outcome_blocks(model, found))

    @app.put(f"{BASE}/metrics/{{model}}/baseline")
    def pin_baseline(model: str, body: schemas.BaselineRequest, who: Operator) -> Body:
        with transaction(site.engine) as conn:
            metrics.pin_baseline(conn, model, since=body.since, until=body.until, by=who.name, at=site.clock())
        return {"model": model, "since": body.since, "until": body.until}

    @app.delete(f"{BASE}/metrics/{{model}}/baseline")
    def unpin_baseline(model: str, who: Operator) -> Body:
        with transaction(site.engine) as conn:
            metrics.pin_baseline(conn, model, since=None, until=None, by=who.name, at=site.clock())
        return {"model": model, "since": None, "until": None}


def _alerts(app: FastAPI, site: Site) -> None:
    @app.get(f"{BASE}/alerts", dependencies=[READER])
    def active_alerts(model: str | None = None) -> Body:
        with transaction(site.engine) as conn:
            if model is not None:
                change_log.find(conn, model)
            return {"alerts": alerts.active(conn, model=model)}


def _predictions(app: FastAPI, site: Site) -> None:
    @app.get("/api/v1/ml/predictions/logs", dependencies=[READER])
    def logs(
        limit: Annotated[int, Query(ge=1, le=10_000)] = 100,
        model: str | None = None,
        since: When = None,
        until: When = None,
        labelled_only: Annotated[bool, Query(alias="labelledOnly")] = False,
    ) -> JSONResponse:
        with transaction(site.engine) as conn:
            if model is not None:
                change_log.find(conn, model)
            found = predictions.recent(conn, model=model, limit=limit, since=since, until=until, labelled_only=labelled_only)
        return JSONResponse({"predictions": [schemas.prediction(p) for p in found]})

    @app.post("/api/v1/ml/predictions/outcomes")
    def report(body: schemas.OutcomesRequest, who: OutcomeSender) -> Body:
        """Enter the ground truth. What was reported before is kept as a version. 404 only when no prediction of the request is known."""
        given = {o.prediction_id: o.failed for o in body.outcomes}
        with transaction(site.engine) as conn:
            for model in predictions.models_of(conn, given) if who.limits.models else ():
                who.confine_to(model)
            unknown = outcomes.record(conn, given, who=who, at=site.clock(), settles=site.settles)
        if len(unknown) == len(given):
            raise NotFound(f"no prediction has the id {unknown[0]}{' or the others given' if len(unknown) > 1 else ''}")
        return {"recorded": len(given) - len(unknown), "unknown": unknown}

    @app.get("/api/v1/ml/predictions/{prediction_id}/outcomes")
    def versions(prediction_id: Annotated[int, Path(ge=1, lt=2**63)], who: Reader) -> Body:
        """Every version of the outcome, oldest first: who reported or corrected it, and when."""
        with transaction(site.engine) as conn:
            model, found = outcomes.versions(conn, prediction_id)
        who.confine_to(model)
        return {"predictionId": prediction_id, "model": model, "versions": [schemas.outcome_version(v) for v in found]}
