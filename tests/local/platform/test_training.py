"""Training is honest (later rows judge), repeatable and good enough to be worth serving."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sqlalchemy import Engine

from mlrunbook.base.db import transaction
from mlrunbook.domain.errors import Invalid, NotFound, Refused
from mlrunbook.drills.simulator.fleet import Fleet
from mlrunbook.local.features import lake
from mlrunbook.local.platform import artefacts, outcomes, predictions, training_data
from mlrunbook.local.platform.artefacts import LoadedModel
from mlrunbook.local.platform.columns import MODEL_COLUMNS, RAW
from mlrunbook.local.platform.training import Sources, Wanted, best_threshold, confusion, train, train_version
from mlrunbook.local.postgres import EmbeddedPostgres
from tests.local.features.feast_kit import Feast
from tests.local.platform.kit import REPORTER, new_model

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


class Past:
    """A model's labelled predictions, one round of every asset a minute, and the readings they were made from."""

    ASSETS, ROUNDS = 200, 40
    BEGAN = datetime(2026, 3, 1, tzinfo=UTC)

    def __init__(self, engine: Engine, feast: Feast, models: Path) -> None:
        self.engine, self.feast, self.models, self.model = engine, feast, models, new_model()
        rows = Fleet(seed=5, assets=self.ASSETS).readings(self.ASSETS * self.ROUNDS)
        rounds = np.repeat(np.arange(self.ROUNDS), self.ASSETS)
        rows["event_timestamp"] = pd.Timestamp(self.BEGAN) + pd.to_timedelta(rounds, unit="min")
        lake.land(feast.readings, rows.assign(created=rows["event_timestamp"]))
        self.rows = rows
        served = dict.fromkeys(RAW, 1.0)  # what was logged while serving was at fault
        scored = [
            predictions.Scored(row.event_timestamp + timedelta(seconds=5), row.asset_id, row.type, served, 0.1, outcome=bool(row.failed))
            for row in rows.itertuples()
        ]
        with transaction(engine) as conn:
            predictions.record(conn, scored, model=self.model, version="v1.5.0", threshold=0.5, latency_ms=1.0)

    @property
    def ended(self) -> datetime:
        return self.BEGAN + timedelta(minutes=self.ROUNDS)

    def train(
        self,
        version: str = "v2.1.0",
        *,
        repo: Path | None = None,
        service: str = "asset_features",
        now: datetime | None = None,
        say: Callable[[str], None] = lambda _: None,
        **changes: Any,
    ) -> Any:
        wanted = replace(Wanted(self.model, version, self.BEGAN, self.ended), **changes)
        sources = Sources(self.engine, repo or self.feast.repo, service, self.models)
        return train_version(wanted, sources, now=now or self.ended, say=say)


@pytest.fixture(scope="module")
def past(engine: Engine, postgres: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Past]:
    folder = tmp_path_factory.mktemp("past")
    return Past(engine, Feast(postgres, folder), folder / "models")


def test_a_version_learns_from_the_feature_store_and_not_from_what_was_served(past: Past) -> None:
    lines: list[str] = []
    made = past.train(say=lines.append)
    assert made.rows == len(past.rows)
    assert made.asset_types == ("L", "M", "H")
    assert (made.trained_from, made.trained_to) == (past.BEGAN, past.ended)
    assert made.metrics["f1"] > 0.5
    assert artefacts.load(past.models / past.model / "v2.1.0").manifest == made
    assert lines[0].startswith("8000 predictions from 2026-03-01 00:00")


def test_training_again_on_the_same_data_is_success_and_on_others_refused(past: Past) -> None:
    first = past.train("v2.2.0")
    lines: list[str] = []
    assert past.train("v2.2.0", say=lines.append) == first
    assert "already trained" in lines[-1]
    assert past.train("v2.3.0").sha256 == first.sha256
    for changes in ({"end": past.ended - timedelta(minutes=3)}, {"seed": 7}):
        with pytest.raises(Refused, match="choose another version"):
            past.train("v2.2.0", **changes)


def test_outcomes_that_changed_since_need_another_version(past: Past) -> None:
    past.train("v2.4.0")
    with transaction(past.engine) as conn:
        newest = predictions.recent(conn, model=past.model, limit=1)[0]
        outcomes.record(conn, {newest.id: not newest.outcome}, who=REPORTER, at=past.ended)
    try:
        with pytest.raises(Refused, match="have changed since"):
            past.train("v2.4.0")
    finally:
        with transaction(past.engine) as conn:
            outcomes.record(conn, {newest.id: bool(newest.outcome)}, who=REPORTER, at=past.ended)


def joined(past: Past, *rows: tuple[str, datetime]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=["asset_id", "event_timestamp"]).assign(failed=False)
    frame["event_timestamp"] = pd.to_datetime(frame["event_timestamp"], utc=True).astype("datetime64[us, UTC]")
    return training_data.as_known_then(past.feast.repo, "asset_features", frame)


def reading_of(at: datetime, wear: float, *, created: datetime | None = None) -> pd.DataFrame:
    numbers = dict.fromkeys(RAW[1:], 1.0) | {"tool_wear_min": wear}
    return pd.DataFrame([{"asset_id": "lone", "type": "XL", **numbers, "event_timestamp": at, "created": created or at}])


def test_the_join_sees_only_what_was_measured_and_stored_by_then_and_is_not_too_old(past: Past) -> None:
    noon = datetime(2026, 2, 1, 12, tzinfo=UTC)
    hour = timedelta(hours=1)
    for reading in (
        reading_of(noon, 1.0),
        reading_of(noon, 2.0, created=noon + hour),  # corrected an hour later
        reading_of(noon + 3 * hour, 3.0),
        reading_of(noon + 2 * hour, 9.0, created=noon + 9 * hour),  # came late
    ):
        lake.land(past.feast.readings, reading)
    asked = [noon - hour, noon, noon + 1.5 * hour, noon + 2.5 * hour, noon + 3 * hour, noon + 4 * hour, noon + timedelta(days=40)]
    seen = joined(past, *[("lone", at) for at in asked])
    assert list(seen["tool_wear_min"]) == [1.0, 2.0, 2.0, 3.0, 3.0]  # nothing before the first, nothing after the lifetime of 30 days
    assert set(seen["type"]) == {"XL"}


def test_rows_keep_their_order_and_a_reading_that_is_there_twice_counts_once(past: Past) -> None:
    at = datetime(2026, 2, 20, tzinfo=UTC)
    for _ in range(2):  # a merged file beside the one it was merged from
        lake.land(past.feast.readings, reading_of(at, 5.0))
    later = at + timedelta(minutes=1)
    seen = joined(past, ("lone", later), ("lone", at), ("nobody", at), ("lone", later))
    assert list(seen["event_timestamp"]) == [later, at, later]


@pytest.mark.parametrize(
    ("changes", "error", "why"),
    [
        ({"start": Past.BEGAN + timedelta(days=2), "end": Past.BEGAN}, Invalid, "--start-date"),
        ({"now": Past.BEGAN}, Invalid, "in the future"),
        ({"version": "../v1"}, Invalid, "1-64 letters"),
        ({"start": Past.BEGAN - timedelta(days=9), "end": Past.BEGAN}, Invalid, "known outcome"),
        ({"end": Past.BEGAN + timedelta(minutes=2)}, Invalid, "give more rows"),
        ({"repo": Path("/nowhere")}, NotFound, "MLRUNBOOK_FEATURE_REPO"),
        ({"service": "other"}, NotFound, "no feature service"),
    ],
)
def test_what_cannot_be_trained_is_said_and_leaves_nothing(past: Past, changes: dict[str, Any], error: type[Exception], why: str) -> None:
    with pytest.raises(error, match=why):
        past.train(**({"version": "v9"} | changes))
    assert not (past.models / past.model / "v9").exists()


def test_source_files_that_are_gone_are_said(past: Past, tmp_path: Path, postgres: EmbeddedPostgres) -> None:
    with pytest.raises(Refused, match="source files"):
        past.train("v9", repo=Feast(postgres, tmp_path).repo)
