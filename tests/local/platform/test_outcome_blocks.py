"""Outcomes by block of time and by asset are exactly what was logged."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine

from mlrunbook.base.db import transaction
from mlrunbook.domain.errors import Invalid, NotFound
from mlrunbook.domain.evaluation.outcome_blocks import MOST_BLOCKS, OutcomeBlocks
from mlrunbook.domain.tally import Confusion
from mlrunbook.local.platform import outcome_blocks, predictions
from tests.local.platform.kit import NOW, log, new_model, release

BEGIN = NOW - timedelta(hours=6)


@pytest.fixture
def model(engine: Engine, tmp_path: Path) -> str:
    name = new_model()
    release(engine, tmp_path, name, "v1.5.0")
    return name


def blocks(engine: Engine, model: str, *, hours: float = 6, block_s: float = 3600.0, version: str | None = None) -> OutcomeBlocks:
    with transaction(engine) as conn:
        return outcome_blocks.of_model(conn, model, since=BEGIN, until=BEGIN + timedelta(hours=hours), block_s=block_s, version=version)


def test_blocks_are_in_time_order_with_the_empty_ones_and_without_the_one_that_is_still_open(engine: Engine, model: str) -> None:
    log(engine, model, tp=3, tn=7, at=BEGIN)
    log(engine, model, fn=2, unlabelled=5, at=BEGIN + timedelta(minutes=60))
    log(engine, model, fp=1, at=BEGIN + timedelta(minutes=179, seconds=59))
    log(engine, model, tp=100, at=BEGIN + timedelta(hours=3))  # its block is open
    log(engine, model, tp=100, at=BEGIN - timedelta(seconds=1))
    found = blocks(engine, model, hours=3.5)
    assert (found.since, found.block_s) == (BEGIN, 3600.0)
    assert found.blocks == (Confusion(tp=3, tn=7), Confusion(fn=2), Confusion(fp=1))


def test_only_the_version_asked_for_counts(engine: Engine, model: str) -> None:
    log(engine, model, tp=3, at=BEGIN)
    assert blocks(engine, model, version="v1.5.0").tally == Confusion(tp=3)
    assert blocks(engine, model, version="v9").tally == Confusion()


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 359), st.integers(0, 6), st.booleans(), st.booleans()), max_size=60))
def test_blocks_and_assets_count_the_same_outcomes(engine: Engine, tmp_path: Path, rows: list[tuple[int, int, bool, bool]]) -> None:
    name = new_model()
    release(engine, tmp_path, name, "v1.5.0")
    expected: dict[int, Confusion] = {}
    by_asset: dict[int, Confusion] = {}
    with transaction(engine) as conn:
        for minute, asset, label, failed in rows:
            at, one = BEGIN + timedelta(minutes=minute), Confusion(label and failed, label and not failed, failed and not label)
            one = Confusion(int(one.tp), int(one.fp), int(one.fn), int(not label and not failed))
            score = 0.9 if label else 0.1
            scored = predictions.Scored(at=at, asset_id=f"a{asset}", asset_type="L", features={}, score=score, outcome=failed)
            predictions.record(conn, [scored], model=name, version="v1.5.0", threshold=0.5, latency_ms=1.0)
            expected[minute // 60] = expected.get(minute // 60, Confusion()) + one
            by_asset[asset] = by_asset.get(asset, Confusion()) + one
    found = blocks(engine, name)
    assert found.blocks == tuple(expected.get(hour, Confusion()) for hour in range(6))
    assert sorted(tally.values for tally in found.by_asset) == sorted(tally.values for tally in by_asset.values())


def test_more_blocks_than_an_answer_may_hold_and_a_model_that_is_not_there_are_refused(engine: Engine, model: str) -> None:
    assert len(blocks(engine, model, hours=MOST_BLOCKS / 3600, block_s=1.0).blocks) == MOST_BLOCKS
    with pytest.raises(Invalid, match="ask for longer blocks"):
        blocks(engine, model, hours=(MOST_BLOCKS + 1) / 3600, block_s=1.0)
    with pytest.raises(Invalid, match="must not be after"):
        blocks(engine, model, hours=-2)
    with pytest.raises(NotFound):
        blocks(engine, "nobody")
