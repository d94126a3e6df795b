"""The figures of a window are exactly what was logged."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine

from mlrunbook.base.db import transaction
from mlrunbook.domain.errors import Invalid, NotFound
from mlrunbook.domain.evaluation.outcomes import GRACE_S
from mlrunbook.domain.evaluation.performance import Confusion, ModelMetrics
from mlrunbook.domain.tally import as_binary
from mlrunbook.local.platform import metrics, outcomes, predictions
from tests.local.platform.kit import NOW, REPORTER, log, new_model, reading, release


@pytest.fixture
def model(engine: Engine, tmp_path: Path) -> str:
    name = new_model()
    release(engine, tmp_path, name, "v1.5.0")
    return name


def compare(engine: Engine, model: str, **changes: object) -> ModelMetrics:
    with transaction(engine) as conn:
        return metrics.compare(conn, model, now=NOW, **changes)  # type: ignore[arg-type]


def test_the_last_hour_is_compared_with_the_seven_days_before_it(engine: Engine, model: str) -> None:
    log(engine, model, tp=80, fp=20, fn=20, tn=880, at=NOW - timedelta(days=2))
    log(engine, model, tp=5, fp=5, fn=5, tn=85, at=NOW - timedelta(minutes=59))
    log(engine, model, tp=1000, at=NOW - timedelta(days=8))  # before the baseline
    log(engine, model, tp=1000, at=NOW)  # the end is not part of the window
    found = compare(engine, model)
    assert found.baseline.confusion == Confusion(tp=80, fp=20, fn=20, tn=880)
    assert found.current.confusion == Confusion(tp=5, fp=5, fn=5, tn=85)
    assert (found.current.predictions, found.current.labelled, found.current.flagged_share) == (100, 100, 0.1)
    assert found.baseline.confusion.f1 == pytest.approx(0.8)


def test_groups_are_counted_by_risk_level_and_by_asset_type(engine: Engine, model: str) -> None:
    log(engine, model, tp=3, fn=2, asset_type="L")
    log(engine, model, fp=1, tn=4, asset_type="H")
    now = compare(engine, model).current
    assert now.by_asset_type == {"L": Confusion(tp=3, fn=2), "H": Confusion(fp=1, tn=4)}
    assert now.by_risk_level == {"high": Confusion(tp=3, fp=1), "low": Confusion(fn=2, tn=4)}


def test_the_slices_of_a_window_are_in_time_order_and_add_up_to_it(engine: Engine, model: str) -> None:
    log(engine, model, tp=3, tn=7, at=NOW - metrics.CURRENT)
    log(engine, model, fn=2, unlabelled=5, at=NOW - timedelta(minutes=20))
    log(engine, model, fp=1, tn=4, at=NOW - timedelta(seconds=1))
    now = compare(engine, model).current
    held = {i: block for i, block in enumerate(now.blocks) if block.n}
    assert len(now.blocks) == metrics.SLICES
    assert held == {0: Confusion(tp=3, tn=7), metrics.SLICES * 2 // 3: Confusion(fn=2), metrics.SLICES - 1: Confusion(fp=1, tn=4)}
    assert sum(block.n for block in now.blocks) == now.labelled


def test_each_asset_type_has_its_slices_of_time_and_its_assets(engine: Engine, model: str) -> None:
    log(engine, model, tp=3, tn=7, at=NOW - metrics.CURRENT, asset_type="L")
    log(engine, model, fn=1, fp=2, unlabelled=5, at=NOW - timedelta(seconds=1), asset_type="L")
    log(engine, model, tn=9, asset_type="H")  # without a failure there is nothing to judge
    now = compare(engine, model).current
    blocks, assets = now.blocks_by_asset_type["L"], now.assets_by_asset_type["L"]
    assert {i: block for i, block in enumerate(blocks) if block.n} == {0: Confusion(tp=3, tn=7), 39: Confusion(fn=1, fp=2)}
    assert len(blocks) == metrics.TYPE_SLICES
    assert sum(map(as_binary, assets), Confusion()) == as_binary(now.by_asset_type["L"])
    assert now.blocks_by_asset_type.keys() == now.assets_by_asset_type.keys() == {"L"}


def test_predictions_without_outcome_count_but_not_as_labelled(engine: Engine, model: str) -> None:
    log(engine, model, tp=2, unlabelled=8)
    now = compare(engine, model).current
    assert (now.predictions, now.labelled, now.flagged_share) == (10, 2, 0.2)


def test_how_long_outcomes_take_is_the_median_age_at_arrival(engine: Engine, model: str) -> None:
    with transaction(engine) as conn:
        for hours, rows in ((1, 2), (3, 2), (9, 1)):
            made_at = NOW - timedelta(hours=10)
            given = [predictions.Scored(at=made_at, asset_id=f"asset_{i}", asset_type="L", features={}, score=0.1) for i in range(rows)]
            ids = predictions.record(conn, given, model=model, version="v1.5.0", threshold=0.5, latency_ms=10)
            outcomes.record(conn, dict.fromkeys(ids, False), who=REPORTER, at=made_at + timedelta(hours=hours))
    assert compare(engine, model).baseline.label_delay_s == 3 * 3600
    assert compare(engine, model).current.label_delay_s is None, "no outcome, no delay"


def test_a_prediction_is_mature_once_nearly_all_outcomes_of_either_kind_have_come(engine: Engine, model: str) -> None:
    """Failures are known within the hour, that none happened only after two days."""
    made_at = NOW - timedelta(days=3)
    with transaction(engine) as conn:
        for failed, hours, rows in ((True, 1, 40), (False, 48, 10)):
            given = [predictions.Scored(at=made_at, asset_id=f"asset_{i}", asset_type="L", features={}, score=0.1) for i in range(rows)]
            ids = predictions.record(conn, given, model=model, version="v1.5.0", threshold=0.5, latency_ms=10)
            outcomes.record(conn, dict.fromkeys(ids, failed), who=REPORTER, at=made_at + timedelta(hours=hours))
    usual = compare(engine, model).baseline
    assert (usual.label_delay_s, usual.mature_age_s) == (3600, 48 * 3600)
    assert compare(engine, model).current.mature_age_s is None


def test_outcomes_are_due_once_predictions_are_older_than_outcomes_usually_take(engine: Engine, model: str) -> None:
    log(engine, model, tn=50, at=NOW - timedelta(days=2))  # their outcomes came at once
    log(engine, model, tn=3, unlabelled=4, at=NOW - timedelta(minutes=10))
    log(engine, model, unlabelled=5, at=NOW - timedelta(seconds=GRACE_S - 1))
    now = compare(engine, model).current
    assert (now.predictions, now.outcomes_due, now.outcomes_missing) == (12, 7, 4)


def test_the_null_rate_is_that_of_the_worst_feature(engine: Engine, model: str) -> None:
    log(engine, model, tn=6)
    log(engine, model, tn=3, features_of=reading(None))
    log(engine, model, tn=1, features_of=reading(None, tool_wear_min=None))
    assert compare(engine, model).current.null_rate == pytest.approx(0.4)


def test_latency_error_rate_and_versions(engine: Engine, model: str) -> None:
    log(engine, model, tn=90, latency_ms=10)
    log(engine, model, tn=10, latency_ms=3000, version="v2.0.0")
    with transaction(engine) as conn:
        for _ in range(2):
            predictions.count_errors(conn, model=model, kind="scoring", count=10, at=NOW - timedelta(minutes=5))
    now = compare(engine, model).current
    assert now.latency_p95_ms == pytest.approx(3000, rel=0.1)
    assert now.error_rate == pytest.approx(20 / 120)
    assert now.errors == {"scoring": 20}
    assert now.versions == ("v1.5.0", "v2.0.0")
    only = compare(engine, model, version="v1.5.0").current
    assert (only.predictions, only.versions, only.latency_p95_ms) == (90, ("v1.5.0",), 10)


def test_a_pinned_baseline_stays(engine: Engine, model: str) -> None:
    log(engine, model, tp=7, at=NOW - timedelta(days=20))
    with transaction(engine) as conn:
        metrics.pin_baseline(conn, model, since=NOW - timedelta(days=21), until=NOW - timedelta(days=19), by="x", at=NOW)
    assert compare(engine, model).baseline.confusion.tp == 7


def test_an_empty_window_has_no_figures_rather_than_zeros(engine: Engine, model: str) -> None:
    now = compare(engine, model).current
    assert (now.predictions, now.flagged_share, now.latency_p95_ms, now.error_rate, now.null_rate) == (0, None, None, None, None)
    assert now.confusion.f1 is None


def test_an_unknown_model_or_a_window_that_ends_before_it_begins_is_refused(engine: Engine, model: str) -> None:
    with pytest.raises(NotFound):
        compare(engine, "nobody")
    with pytest.raises(Invalid) as refused:
        compare(engine, model, since=NOW, until=NOW - timedelta(hours=1))
    assert refused.value.field == "since"
