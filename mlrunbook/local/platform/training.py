"""Training one version of the model: gradient boosting on raw and engineered columns, with an honest time split."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlrunbook.domain.errors import Invalid, NotFound, Refused
from mlrunbook.domain.evaluation.performance import Confusion
from mlrunbook.domain.resolution.retraining import check_name, check_window
from mlrunbook.local.platform import artefacts, training_data
from mlrunbook.local.platform.artefacts import Manifest, one_thread
from mlrunbook.local.platform.columns import MODEL_COLUMNS, RAW, engineer, types_in

if TYPE_CHECKING:
    import pandas as pd
    from sqlalchemy import Engine

FIT_SHARE, THRESHOLD_SHARE = 0.7, 0.15  # oldest rows fit, the next choose the threshold, the newest measure
LEAST_FAILURES = 10  # in each part: with fewer neither the threshold nor the metrics mean anything


def train(
    frame: pd.DataFrame, *, model: str, version: str, seed: int, trained_from: datetime, trained_to: datetime, refit: bool = False
) -> tuple[Any, Manifest]:
    """Fit on `frame` (RAW columns and bool `failed`, oldest row first); return the estimator and its manifest without sha256.

    The threshold is the one with the best F1 on rows later than those fitted, and the metrics come from rows later still. The same
    frame and seed give the same model. With `refit` the estimator is fitted once more, on all rows: what is new in the world is in the
    newest ones. Threshold and metrics stay those of the honest split.

    Invalid when a column is missing or there are too few failures to learn from.
    """
    import sklearn
    from sklearn.ensemble import HistGradientBoostingClassifier

    for name in (*RAW, "failed"):
        if name not in frame.columns:
            raise Invalid(f"training data lack the column {name!r}", field=name)
    asset_types = types_in(frame)
    columns, truth = engineer(frame, asset_types).to_numpy(), frame["failed"].to_numpy(dtype=bool)
    fit_end, threshold_end = int(len(frame) * FIT_SHARE), int(len(frame) * (FIT_SHARE + THRESHOLD_SHARE))
    parts = (slice(0, fit_end), slice(fit_end, threshold_end), slice(threshold_end, None))
    fewest = min(int(truth[part].sum()) for part in parts)
    if fewest < LEAST_FAILURES:
        raise Invalid(f"{len(frame)} training rows leave {fewest} failures in one part of the time split: give more rows", field="failed")

    estimator = HistGradientBoostingClassifier(max_iter=80, early_stopping=False, random_state=seed)
    with one_thread():
        estimator.fit(columns[parts[0]], truth[parts[0]])
        scores = estimator.predict_proba(columns)[:, 1]
    threshold = best_threshold(truth[parts[1]], scores[parts[1]])
    measured = confusion(truth[parts[2]], scores[parts[2]] >= threshold)
    if refit:
        with one_thread():
            estimator.fit(columns, truth)
    return estimator, Manifest(
        model=model,
        version=version,
        sha256="",
        sklearn_version=sklearn.__version__,
        trained_from=trained_from,
        trained_to=trained_to,
        features=MODEL_COLUMNS,
        threshold=threshold,
        metrics={"f1": measured.f1, "precision": measured.precision, "recall": measured.recall},
        rows=len(frame),
        asset_types=asset_types,
        seed=seed,
    )


@dataclass(frozen=True)
class Wanted:
    """A version, to be trained on the labelled predictions of [start, end)."""

    model: str
    version: str
    start: datetime
    end: datetime
    seed: int = 0

    @property
    def span(self) -> str:
        return f"from {self.start:%Y-%m-%d %H:%M} to {self.end:%Y-%m-%d %H:%M} UTC"

    def check(self, now: datetime) -> None:
        check_name(self.model, "--model-name")
        check_name(self.version, "--version")
        check_window(self.start, self.end, now)


@dataclass(frozen=True)
class Sources:
    """Where the labels are, the features (a service of a repository), and the versions that are there."""

    engine: Engine
    repo: Path
    service: str
    models_dir: Path


def train_version(wanted: Wanted, sources: Sources, *, now: datetime, say: Callable[[str], None] = lambda _: None) -> Manifest:
    """Train the version and save it; the same inputs give the same artefact.

    A version is never overwritten: one that is there already, of the same window, seed and rows, is what was asked for; any other is
    Refused. Invalid: a bad name, a window that is empty or not over, too little to learn from.
    """
    wanted.check(now)
    called, folder = f"{wanted.model} {wanted.version}", sources.models_dir / wanted.model / wanted.version
    standing = _standing(folder)
    if standing and (standing.trained_from, standing.trained_to, standing.seed) != (wanted.start, wanted.end, wanted.seed):
        raise Refused(f"{called} exists and was trained on another window or seed; a version never changes: choose another version")
    frame = _labelled(wanted, sources, say)
    fingerprint = training_data.fingerprint(frame)
    if standing:
        if standing.data_sha256 != fingerprint:
            raise Refused(f"{called} exists and the data of its window have changed since; choose another version")
        say(f"{called} is already trained: the same window, seed and data")
        return standing
    window = {"trained_from": wanted.start, "trained_to": wanted.end}
    estimator, manifest = train(frame, model=wanted.model, version=wanted.version, seed=wanted.seed, refit=True, **window)
    measured = ", ".join(f"{name} {value:.2f}" for name, value in manifest.metrics.items() if value is not None)
    say(f"fitted; on the newest rows {measured} at threshold {manifest.threshold:g}")
    saved = artefacts.save(estimator, folder, replace(manifest, data_sha256=fingerprint))
    say(f"saved {called}, sha256 {saved.sha256[:12]}, to {folder}")
    return saved


def _labelled(wanted: Wanted, sources: Sources, say: Callable[[str], None]) -> pd.DataFrame:
    """Outcomes with the features as the store knew them when it was asked."""
    rows = training_data.labelled(sources.engine, wanted.model, wanted.start, wanted.end)
    if rows.empty:
        raise Invalid(
            f"no prediction of {wanted.model} {wanted.span} has a known outcome; choose other dates, or enter outcomes", field="start-date"
        )
    say(f"{len(rows)} predictions {wanted.span} have a known outcome, {int(rows['failed'].sum())} of them failures")
    frame = training_data.as_known_then(
        sources.repo, sources.service, rows, lambda done, total: say(f"features joined for {done} of {total}")
    )
    say(f"{len(frame)} of them have features that the store knew by then; asset types {', '.join(types_in(frame)) or 'none'}")
    return frame


def _standing(folder: Path) -> Manifest | None:
    try:
        return artefacts.load(folder).manifest  # checked: a version that was tampered with is not "already trained"
    except NotFound:
        return None


def best_threshold(truth: Any, scores: Any) -> float:
    """The threshold of greatest F1 on the grid 0.05, 0.06 ... 0.95 (a finer one only fits noise); of several equal ones the middle."""
    import numpy as np

    grid = np.round(np.arange(0.05, 0.951, 0.01), 2)
    f1 = np.array([confusion(truth, scores >= t).f1 or 0.0 for t in grid])
    best = np.flatnonzero(f1 == f1.max())
    return float(grid[best[len(best) // 2]])


def confusion(truth: Any, flagged: Any) -> Confusion:
    """Counts from two bool arrays of equal length."""
    tp = int((truth & flagged).sum())
    fp = int(flagged.sum()) - tp
    fn = int(truth.sum()) - tp
    return Confusion(tp=tp, fp=fp, fn=fn, tn=len(truth) - tp - fp - fn)
