"""Logged requests scored again by other versions, and every reason why one cannot."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from mlrunbook.base.db import transaction
from mlrunbook.domain.errors import NotFound
from mlrunbook.domain.observed import Replayed, VersionReplay
from mlrunbook.local.platform import artefacts, columns, registry, replay
from tests.local.platform.kit import COOL, HOT, NOW, log, new_model, reading, release, save_version


@dataclass
class World:
    engine: Engine
    folder: Path
    model: str
    models: replay.Models

    def replay(self, *versions: str, **window: Any) -> Replayed:
        return replay.replay(self.engine, self.models, self.model, versions, **window)

    def one(self, version: str) -> VersionReplay:
        (found,) = self.replay(version).versions
        return found

    def register(self, version: str, **how: Any) -> Path:
        folder = save_version(self.folder, self.model, version, **how)
        with transaction(self.engine) as conn:
            registry.register(conn, self.folder, model=self.model, version=version, by="x", at=NOW)
        return folder


@pytest.fixture
def world(engine: Engine, tmp_path: Path) -> World:
    """v1.5.0 is good and v2.0.0 flags everything; one hot reading that failed, then a cool one that did not."""
    model = new_model()
    release(engine, tmp_path, model, "v1.5.0", "v2.0.0", flags_all=["v2.0.0"])
    log(engine, model, tp=1, at=NOW - timedelta(minutes=9), features_of=reading(HOT))
    log(engine, model, tn=1, unlabelled=1, at=NOW - timedelta(minutes=8), features_of=reading(COOL))
    return World(engine, tmp_path, model, replay.Models(tmp_path))


def test_every_version_scores_the_same_rows_oldest_first(world: World) -> None:
    found = world.replay("v1.5.0", "v2.0.0")
    assert [(r.features["torque_nm"], r.outcome) for r in found.rows] == [(HOT, True), (COOL, False)]
    good, bad = found.versions
    assert (good.scores[0] > 0.5, good.scores[1] > 0.5) == (True, False)
    assert all(score > 0.5 for score in bad.scores)
    assert good.size_bytes == (world.folder / world.model / "v1.5.0" / artefacts.ARTEFACT).stat().st_size
    assert good.latency_ms is not None
    assert good.latency_ms > 0


def test_the_newest_rows_of_the_window_are_taken(world: World) -> None:
    assert [r.outcome for r in world.replay("v1.5.0", limit=1).rows] == [False]
    assert [r.outcome for r in world.replay("v1.5.0", until=NOW - timedelta(minutes=8)).rows] == [True]
    empty = world.replay("v1.5.0", since=NOW)
    assert (empty.rows, empty.versions[0].scores, empty.versions[0].problem) == ((), (), None)


def test_scores_are_those_the_version_gives_alone_also_for_nulls_and_types_it_never_saw(world: World) -> None:
    odd = [reading(None), reading(HOT, type="X"), reading(HOT, type=None, tool_wear_min=None)]
    for one in odd:
        log(world.engine, world.model, tn=1, at=NOW, features_of=one)
    alone = artefacts.load(world.folder / world.model / "v1.5.0").score(columns.as_frame(odd)).tolist()
    assert list(world.one("v1.5.0").scores[2:]) == alone


def test_an_unknown_version_is_a_problem_and_an_unknown_model_is_not_found(world: World) -> None:
    good, unknown = world.replay("v1.5.0", "v9.9.9").versions
    assert (len(good.scores), unknown.scores) == (2, ())
    assert "registered are v1.5.0, v2.0.0" in str(unknown.problem)
    with pytest.raises(NotFound):
        replay.replay(world.engine, world.models, "nobody", ["v1.5.0"])


def test_a_version_changed_after_it_was_loaded_is_noticed(world: World) -> None:
    assert world.one("v1.5.0").problem is None
    (world.folder / world.model / "v1.5.0" / artefacts.ARTEFACT).write_bytes(b"changed")
    found = world.one("v1.5.0")
    assert (found.scores, "changed after it was saved" in str(found.problem)) == ((), True)
    assert world.one("v2.0.0").problem is None


def test_a_version_whose_artefact_is_gone_is_a_problem(world: World) -> None:
    (world.folder / world.model / "v1.5.0").rename(world.folder / "gone")
    assert "there is no model version at" in str(world.one("v1.5.0").problem)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"sklearn_version": "0.24.2"}, "was saved with scikit-learn 0.24.2"),
        ({"features": ["torque_nm", "vibration_mm_s"]}, "wants features this platform does not compute: vibration_mm_s"),
        ({"features": ["torque_nm"]}, "it takes 9 features, and is given 1"),  # not the columns it was fitted on
    ],
)
def test_a_version_of_another_world_is_a_problem(world: World, changes: dict[str, Any], said: str) -> None:
    path = world.folder / world.model / "v1.5.0" / artefacts.MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    found = world.one("v1.5.0")
    assert said in str(found.problem)
    assert (found.scores, found.latency_ms) == ((), None)


def test_only_versions_that_need_a_column_the_log_lacks_are_refused(world: World) -> None:
    without_wear = tuple(name for name in columns.MODEL_COLUMNS if name not in ("tool_wear_min", "strain_min_nm"))
    world.register("v1.4.0", columns=without_wear)
    log(world.engine, world.model, tp=1, features_of={k: v for k, v in reading(HOT).items() if k != "tool_wear_min"})
    old, new = world.replay("v1.4.0", "v1.5.0").versions
    assert (len(old.scores), old.problem) == (3, None)
    assert (new.scores, "needs tool_wear_min" in str(new.problem)) == ((), True)


def test_logged_values_that_are_no_numbers_are_a_problem_not_a_crash(world: World) -> None:
    log(world.engine, world.model, tp=1, features_of=reading(torque_nm="hot"))
    assert "no numbers" in str(world.one("v1.5.0").problem)


def test_every_computed_column_names_what_it_is_computed_from() -> None:
    assert set(replay.COMPUTED_FROM) | set(columns.NUMERIC) == set(columns.MODEL_COLUMNS)
    assert {raw for names in replay.COMPUTED_FROM.values() for raw in names} <= set(columns.RAW)


def test_only_so_many_models_are_kept_loaded(world: World) -> None:
    few = replay.Models(world.folder, most=1)
    with transaction(world.engine) as conn:
        old, new = (registry.get(conn, world.model, v) for v in ("v1.5.0", "v2.0.0"))
    first = few.load(old)
    assert few.load(old) is first
    few.load(new)
    assert few.load(old) is not first
