"""A tiny real model and what the platform's tests build their world from."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import sklearn
from fastapi import FastAPI
from pydantic import SecretStr
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sqlalchemy import Engine

from mlrunbook.base import tokens
from mlrunbook.base.db import transaction
from mlrunbook.base.settings import Settings
from mlrunbook.base.tokens import Identity, Scope
from mlrunbook.local.platform import artefacts, predictions, registry
from mlrunbook.local.platform import columns as features
from tests.served import served

NOW = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
HOT, COOL = 80.0, 20.0  # torque that the good model flags, and that it does not
REPORTER = Identity("0000abcd", "maintenance records", None, frozenset({Scope.OUTCOMES}))
_numbers = itertools.count(1)


def new_model() -> str:
    """A model name of its own for each test: they share a database."""
    return f"model_{next(_numbers)}"


def reading(torque: float | None = COOL, **changes: Any) -> dict[str, Any]:
    return {
        "type": "L",
        "air_temperature_k": 300.0,
        "process_temperature_k": 310.0,
        "rotational_speed_rpm": 1500.0,
        "torque_nm": torque,
        "tool_wear_min": 100.0,
    } | changes


@cache
def _estimator(flags_all: bool, names: tuple[str, ...]) -> HistGradientBoostingClassifier:
    torque = np.linspace(0, 100, 400)
    columns = features.engineer(features.as_frame([reading(float(t)) for t in torque]))[list(names)].to_numpy()
    truth = np.arange(400) > 0 if flags_all else torque > 50
    return HistGradientBoostingClassifier(max_iter=20, random_state=0).fit(columns, truth)


def save_version(
    models_dir: Path,
    model: str,
    version: str,
    *,
    flags_all: bool = False,
    threshold: float = 0.5,
    columns: tuple[str, ...] = features.MODEL_COLUMNS,
    estimator: Any = None,
) -> Path:
    """A real artefact: flags readings of high torque, or every one, or is `estimator`."""
    folder = models_dir / model / version
    manifest = artefacts.Manifest(
        model=model,
        version=version,
        sha256="",
        sklearn_version=sklearn.__version__,
        trained_from=NOW - timedelta(days=90),
        trained_to=NOW - timedelta(days=30),
        features=columns,
        threshold=threshold,
        metrics={"f1": 0.8, "precision": 0.82, "recall": 0.78},
        rows=400,
    )
    artefacts.save(estimator or _estimator(flags_all, columns), folder, manifest)
    return folder


def linear() -> Pipeline:
    """What cannot score a reading with a missing value."""
    columns = features.engineer(features.as_frame([reading(float(t)) for t in range(100)])).to_numpy()
    return make_pipeline(StandardScaler(), LogisticRegression()).fit(columns, np.arange(100) > 50)


def settings_for(folder: Path, engine: Engine, **changes: Any) -> Settings:
    url = engine.url.render_as_string(hide_password=False)
    return Settings(data_dir=folder, home=folder, database_url=SecretStr(url), **changes)


def release(engine: Engine, models_dir: Path, model: str, *versions: str, flags_all: Sequence[str] = (), estimator: Any = None) -> None:
    """Save, register and promote the versions in turn; the last one serves."""
    for minutes, version in enumerate(versions):
        save_version(models_dir, model, version, flags_all=version in flags_all, estimator=estimator)
        by, at = "release_pipeline", NOW - timedelta(days=1, minutes=-minutes)
        with transaction(engine) as conn:
            registry.register(conn, models_dir, model=model, version=version, by=by, at=at)
            registry.serve(conn, models_dir, model=model, version=version, change=registry.Change(registry.PROMOTE, by, at))


def bearer(engine: Engine, *scopes: Scope, name: str = "ml_engineer") -> dict[str, str]:
    with transaction(engine) as conn:
        return {"Authorization": f"Bearer {tokens.create(conn, name=name, scopes=scopes)}"}


@contextmanager
def running(app: FastAPI, headers: dict[str, str]) -> Iterator[httpx.Client]:
    """The app under uvicorn on a free port, and a client of it."""
    with served(app) as url, httpx.Client(base_url=url, headers=headers, timeout=60) as client:
        yield client


def log(  # noqa: PLR0913 - a confusion matrix and what else a row has
    engine: Engine,
    model: str,
    *,
    tp: int = 0,
    fp: int = 0,
    fn: int = 0,
    tn: int = 0,
    unlabelled: int = 0,
    at: datetime = NOW - timedelta(minutes=10),
    version: str = "v1.5.0",
    threshold: float = 0.5,
    latency_ms: float = 20.0,
    asset_type: str = "L",
    features_of: dict[str, Any] | None = None,
) -> list[int]:
    """Predictions with these outcomes, all at `at`."""
    kinds = [(0.9, True, tp), (0.9, False, fp), (0.1, True, fn), (0.1, False, tn), (0.1, None, unlabelled)]
    given = features_of or reading()
    nulls = sum(v is None for v in given.values())
    rows = [
        predictions.Scored(
            at=at, asset_id=f"asset_{i}", asset_type=asset_type, features=given, score=score, null_count=nulls, outcome=outcome
        )
        for score, outcome, count in kinds
        for i in range(count)
    ]
    with transaction(engine) as conn:
        return predictions.record(conn, rows, model=model, version=version, threshold=threshold, latency_ms=latency_ms)
