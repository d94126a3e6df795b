"""Training is honest (later rows judge), repeatable and good enough to be worth serving."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from mlrunbook.domain.errors import Invalid
from mlrunbook.platform.artefacts import LoadedModel
from mlrunbook.platform.features import MODEL_COLUMNS
from mlrunbook.platform.fleet import Fleet
from mlrunbook.platform.training import best_threshold, confusion, train

TO = datetime(2024, 6, 1, tzinfo=UTC)
WINDOW = {"trained_from": TO - timedelta(days=90), "trained_to": TO}


def test_a_version_reaches_on_live_traffic_what_its_manifest_promises() -> None:
    fleet = Fleet(seed=2)
    estimator, manifest = train(fleet.training(40_000), model="m", version="v1.5.0", seed=0, **WINDOW)
    live = fleet.readings(40_000)
    measured = confusion(live["failed"].to_numpy(), LoadedModel(manifest, estimator).score(live) >= manifest.threshold)
    assert measured.f1 is not None
    assert 0.8 < measured.f1 < 0.95  # random and tool-wear failures cannot be foreseen: more would mean a leak
    assert manifest.metrics["f1"] == pytest.approx(measured.f1, abs=0.05)
    assert manifest.features == MODEL_COLUMNS


def test_what_failed_how_is_no_feature() -> None:
    fleet = Fleet(seed=2)
    frame, live = fleet.training(8000), fleet.readings(2000)
    estimator, manifest = train(frame, model="m", version="v1", seed=0, **WINDOW)
    loaded = LoadedModel(manifest, estimator)
    blind = live.drop(columns=["failed", "twf", "hdf", "pwf", "osf", "rnf", "asset_id"])
    assert np.array_equal(loaded.score(live), loaded.score(blind))


def test_random_failures_are_not_foreseen() -> None:
    fleet = Fleet(seed=2)
    estimator, manifest = train(fleet.training(40_000), model="m", version="v1", seed=0, **WINDOW)
    live = fleet.readings(100_000)
    flagged = LoadedModel(manifest, estimator).score(live) >= manifest.threshold
    only_random = live["rnf"] & ~live[["twf", "hdf", "pwf", "osf"]].any(axis=1)
    assert flagged[only_random.to_numpy()].mean() < 0.15


def test_the_same_rows_and_seed_give_the_same_model() -> None:
    frame, live = Fleet(seed=4).training(8000), Fleet(seed=5).readings(500)
    (one, manifest), (two, other) = (train(frame, model="m", version="v1", seed=9, **WINDOW) for _ in range(2))
    assert manifest == other
    assert np.array_equal(LoadedModel(manifest, one).score(live), LoadedModel(manifest, two).score(live))


def test_the_metrics_come_from_rows_later_than_any_fitted_or_tuned_on() -> None:
    frame = Fleet(seed=4).training(8000)
    newest = frame.index >= 8000 * 0.85
    changed = frame.assign(failed=np.where(newest, ~frame["failed"], frame["failed"]))
    (one, honest), (two, fooled) = (train(f, model="m", version="v1", seed=0, **WINDOW) for f in (frame, changed))
    assert honest.threshold == fooled.threshold
    assert np.array_equal(LoadedModel(honest, one).score(frame), LoadedModel(fooled, two).score(frame))
    assert (fooled.metrics["f1"] or 0) < 0.2 < (honest.metrics["f1"] or 0)


def test_nulls_are_learned_around_not_refused() -> None:
    frame = Fleet(seed=4).training(8000)
    frame.loc[::10, "torque_nm"] = np.nan
    _, manifest = train(frame, model="m", version="v1", seed=0, **WINDOW)
    assert manifest.rows == 8000


def test_training_data_without_a_column_are_refused_by_name() -> None:
    with pytest.raises(Invalid, match="torque_nm"):
        train(Fleet(seed=1).training(100).drop(columns="torque_nm"), model="m", version="v1", seed=0, **WINDOW)


def test_too_few_failures_are_refused() -> None:
    with pytest.raises(Invalid, match="more rows"):
        train(Fleet(seed=1).training(500), model="m", version="v1", seed=0, **WINDOW)


def test_the_best_threshold_lies_amid_equally_good_ones() -> None:
    truth = np.array([False] * 50 + [True] * 5)
    assert best_threshold(truth, np.where(truth, 0.8, 0.2)) == pytest.approx(0.51)
