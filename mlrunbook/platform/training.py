"""Training one version of the model: gradient boosting on raw and engineered columns, with an honest time split."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from mlrunbook.domain.errors import Invalid
from mlrunbook.domain.performance import Confusion
from mlrunbook.platform.artefacts import Manifest, one_thread
from mlrunbook.platform.features import MODEL_COLUMNS, RAW, engineer

if TYPE_CHECKING:
    import pandas as pd

FIT_SHARE, THRESHOLD_SHARE = 0.7, 0.15  # oldest rows fit, the next choose the threshold, the newest measure
LEAST_FAILURES = 10  # in each part: with fewer neither the threshold nor the metrics mean anything


def train(
    frame: pd.DataFrame, *, model: str, version: str, seed: int, trained_from: datetime, trained_to: datetime
) -> tuple[Any, Manifest]:
    """Fit on `frame` (RAW columns and bool `failed`, oldest row first); return the estimator and its manifest without sha256.

    The threshold is the one with the best F1 on rows later than those fitted, and the metrics come from rows later still. The same
    frame and seed give the same model. Invalid when a column is missing or there are too few failures to learn from.
    """
    import sklearn
    from sklearn.ensemble import HistGradientBoostingClassifier

    for name in (*RAW, "failed"):
        if name not in frame.columns:
            raise Invalid(f"training data lack the column {name!r}", field=name)
    columns, truth = engineer(frame).to_numpy(), frame["failed"].to_numpy(dtype=bool)
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
    )


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
