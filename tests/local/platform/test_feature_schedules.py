"""The scheduled materialisation: noted, suspended and resumed, and seen near every model."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from mlrunbook.base.db import transaction
from mlrunbook.domain.errors import Invalid, NotFound
from mlrunbook.local.platform import change_log, feature_schedules
from mlrunbook.local.platform.feature_schedules import Schedule
from tests.local.platform.kit import NOW, new_model, release

VIEWS = ["asset_sensors", "asset_wear"]


@pytest.fixture
def models(engine: Engine, tmp_path: Path) -> Iterator[tuple[str, str]]:
    """Two models that read features materialised up to NOW."""
    names = new_model(), new_model()
    for name in names:
        release(engine, tmp_path, name, "v1.5.0")
    with transaction(engine) as conn:
        for view in VIEWS:
            feature_schedules.note_run(conn, view, at=NOW, until=NOW)
    yield names
    with transaction(engine) as conn:
        conn.execute(text("DELETE FROM platform.feature_schedules"))


def resumed(engine: Engine, model: str) -> int:
    with transaction(engine) as conn:
        return change_log.applied_counts(conn, model).get("resume_feature_schedules", 0)


def test_a_failed_run_keeps_how_far_the_last_good_one_came(engine: Engine, models: tuple[str, str]) -> None:
    later = NOW + timedelta(minutes=1)
    with transaction(engine) as conn:
        feature_schedules.note_run(conn, "asset_wear", at=later, until=None, error="the source file is missing")
        assert feature_schedules.states(conn) == [
            Schedule("asset_sensors", False, NOW, NOW),
            Schedule("asset_wear", False, later, NOW, "the source file is missing"),
        ]
        feature_schedules.note_run(conn, "asset_wear", at=later, until=later)
        assert feature_schedules.states(conn)[1] == Schedule("asset_wear", False, later, later)


def test_a_suspended_schedule_stays_so_through_its_runs_until_it_is_resumed(engine: Engine, models: tuple[str, str]) -> None:
    with transaction(engine) as conn:
        feature_schedules.suspend(conn, VIEWS, "data_engineer", NOW)
        feature_schedules.note_run(conn, "asset_wear", at=NOW, until=NOW)
        assert [s.suspended for s in feature_schedules.states(conn)] == [True, True]
        after = feature_schedules.resume(conn, ["asset_wear"], "oncall_engineer", NOW, "k1")
        assert [(s.view, s.suspended) for s in after] == [("asset_sensors", True), ("asset_wear", False)]


def test_suspending_and_resuming_are_changes_near_every_model(engine: Engine, models: tuple[str, str]) -> None:
    with transaction(engine) as conn:
        feature_schedules.suspend(conn, VIEWS, "data_engineer", NOW + timedelta(minutes=1))
        feature_schedules.suspend(conn, VIEWS, "data_engineer", NOW + timedelta(minutes=2))  # was so already: no change
        feature_schedules.resume(conn, ["asset_wear"], "oncall_engineer", NOW + timedelta(minutes=3), "k2")
        for model in models:
            found = [c for c in change_log.list_changes(conn, model, since=NOW) if c.kind == "feature_store"]
            assert [(c.ref, c.author, c.detail["to"]) for c in found] == [
                ("asset_wear", "oncall_engineer", {"suspended": False}),
                ("asset_wear", "data_engineer", {"suspended": True}),
                ("asset_sensors", "data_engineer", {"suspended": True}),
            ]


def test_the_same_key_resumes_once_though_somebody_suspended_it_again(engine: Engine, models: tuple[str, str]) -> None:
    for _ in range(2):
        with transaction(engine) as conn:
            feature_schedules.suspend(conn, VIEWS, "data_engineer", NOW)
            feature_schedules.resume(conn, VIEWS, "oncall_engineer", NOW, "incident_1:1")
    with transaction(engine) as conn:
        assert [s.suspended for s in feature_schedules.states(conn)] == [True, True]
    assert [resumed(engine, model) for model in models] == [1, 1]
    with pytest.raises(Invalid, match="use a new key"), transaction(engine) as conn:
        feature_schedules.resume(conn, ["asset_wear"], "oncall_engineer", NOW, "incident_1:1")


def test_an_unknown_view_is_not_found_and_the_message_names_the_known_ones(engine: Engine, models: tuple[str, str]) -> None:
    with pytest.raises(NotFound, match=r"'vibration'.*asset_sensors, asset_wear"), transaction(engine) as conn:
        feature_schedules.resume(conn, ["asset_wear", "vibration"], "oncall_engineer", NOW, "k9")
    assert resumed(engine, models[0]) == 0
