"""Answering a prediction request: read the features, check them, score, log the prediction, make work orders; and count what fails."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from fastapi import HTTPException
from prometheus_client import CollectorRegistry, Counter, Histogram
from sqlalchemy import Engine
from sqlalchemy.exc import TimeoutError as PoolTimeout

from mlrunbook.base.db import transaction
from mlrunbook.domain.errors import Invalid, NotFound, RunbookError, Transient
from mlrunbook.domain.observed import ServingConfig
from mlrunbook.local.platform import columns, predictions, schemas, work_orders
from mlrunbook.local.platform.artefacts import BadScores, LoadedModel
from mlrunbook.local.serving.failures import INTERNAL, Failures
from mlrunbook.local.serving.feature_watch import Source
from mlrunbook.local.serving.served_version import Serving

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)
LOG_EVERY_S = 60.0  # the same kind of failed request of the same caller


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

    def note(self, model: str, version: str, latency_s: float, *, flagged: int, of: int) -> None:
        self.latency.labels(model).observe(latency_s)
        self.predictions.labels(model, version, "high_risk").inc(flagged)
        self.predictions.labels(model, version, "normal").inc(of - flagged)


class Predictor:
    """Answers with what `serving` serves at that moment."""

    def __init__(self, serving: Serving, engine: Engine, online: Source | None, figures: Figures) -> None:
        self._serving, self._engine, self._online, self._figures = serving, engine, online, figures
        self.failures = Failures(serving.model, engine, figures.errors)
        self._refusals = _Seldom()

    def answer(self, asked: str, assets: Sequence[schemas.Asset], *, caller: str) -> dict[str, Any]:
        """The predictions of the model `asked`. A request that gets none is counted, whatever the cause, and now and then logged."""
        try:
            if asked != self._serving.model:
                unknown = NotFound(f"this server does not serve {asked[:100]!r}: `GET /health` with a token of scope read names its model")
                raise _Failed(predictions.UNKNOWN_MODEL, unknown)
            return self._answer(assets)
        except _Failed as failure:
            self._count(failure.kind, assets, caller, failure.error)
            raise failure.error from failure.error.__cause__
        except Exception as error:
            unstorable = isinstance(error, Invalid)  # a NUL in an asset's id, say
            self._count(predictions.INVALID_REQUEST if unstorable else INTERNAL, assets, caller, error)
            raise

    def _count(self, kind: str, assets: Sequence[schemas.Asset], caller: str, error: Exception) -> None:
        self.failures.note(kind, len(assets))
        self.failures.flush()
        if self._refusals.is_due(kind, caller):
            log.warning("%d assets that %s asked for got no prediction (%s): %s", len(assets), caller, kind, error)

    def _answer(self, assets: Sequence[schemas.Asset]) -> dict[str, Any]:
        started, at = time.perf_counter(), datetime.now(UTC)
        serving = self._serving
        loaded, config = serving.loaded, serving.config()
        if loaded is None or config is None:
            raise _Failed("no_model", Transient(f"no version of {serving.model} is in production: {serving.error or 'promote one'}"))
        version, threshold = loaded.manifest.version, config.threshold
        readings = _readings(assets, self._online)
        nulls = _checked(readings)
        frame, scores = self._scored(loaded, readings)
        latency_s = time.perf_counter() - started
        shadow_version, shadow_scores = self._shadow(frame, version)
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
        logged: dict[str, Any] = {"version": version, "threshold": threshold, "latency_ms": latency_s * 1000}
        ids, ordered = self._keep(rows, config, at=at, shadow_version=shadow_version, **logged)
        self._figures.note(serving.model, version, latency_s, flagged=sum(row.score >= threshold for row in rows), of=len(rows))
        return {
            "model": serving.model,
            "version": version,
            "threshold": threshold,
            "needsApproval": config.human_approval,
            "workOrdersCreated": ordered,
            "predictions": [_as_wire(i, row, threshold) for i, row in zip(ids, rows, strict=True)],
        }

    def _shadow(self, frame: pd.DataFrame, serving: str) -> tuple[str | None, list[float] | list[None]]:
        version, scores = self._serving.shadow.score(frame, serving=serving)
        if version and scores[0] is None:
            self._figures.shadow_errors.labels(self._serving.model, version).inc()
        return version, scores

    def _keep(self, rows: Sequence[predictions.Scored], config: ServingConfig, *, at: datetime, **logged: Any) -> tuple[list[int], int]:
        """Log them and make the work orders; the predictions' ids, and how many orders."""
        model = self._serving.model
        try:
            with transaction(self._engine) as conn:
                ids = predictions.record(conn, rows, model=model, **logged)
                flagged = [(i, row.asset_id, row.score) for i, row in zip(ids, rows, strict=True) if row.score >= config.threshold]
                work_orders.hold(conn, model)
                switches = self._serving.config() or config  # as they are now: creation may have been halted since the request came
                return ids, work_orders.create(conn, flagged, model=model, config=switches, at=at)
        except (Transient, PoolTimeout) as error:
            raise _Failed("storage", error) from error

    def _scored(self, loaded: LoadedModel, readings: Sequence[Mapping[str, Any]]) -> tuple[pd.DataFrame, list[float]]:
        try:
            frame = columns.as_frame(readings)
            return frame, loaded.score(frame).tolist()
        except Exception as error:
            log.exception("scoring failed")
            self._serving.note_scoring_failure(loaded, error)
            said = str(error) if isinstance(error, BadScores) else "the model could not score this; the server's log has the details"
            raise _Failed("scoring", HTTPException(500, said)) from error


def _readings(assets: Sequence[schemas.Asset], online: Source | None) -> list[Mapping[str, Any]]:
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


def _checked(readings: Sequence[Mapping[str, Any]]) -> list[int]:
    """How many features each reading lacks."""
    nulls = []
    for i, reading in enumerate(readings):
        try:
            nulls.append(columns.check(reading))
        except Invalid as error:
            where = f"assets.{i}.{error.field or 'features'}"
            raise _Failed("invalid_features", Invalid(f"assets[{i}]: {error}", field=where)) from error
    return nulls


def _as_wire(prediction_id: int, row: predictions.Scored, threshold: float) -> dict[str, Any]:
    return {
        "predictionId": prediction_id,
        "assetId": row.asset_id,
        "score": row.score,
        "label": row.score >= threshold,
        "riskLevel": predictions.risk_level(row.score),
    }


class _Failed(Exception):
    """No prediction for this request; `kind` is what gets counted, `error` what the caller hears."""

    def __init__(self, kind: str, error: Exception) -> None:
        self.kind, self.error = kind, error


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
