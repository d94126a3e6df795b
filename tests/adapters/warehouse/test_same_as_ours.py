"""A warehouse says of a log what our own platform says of it: every figure, of every kind of table."""

from __future__ import annotations

from dataclasses import asdict, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from mlrunbook.base.db import transaction
from mlrunbook.domain.evaluation.performance import ModelMetrics, WindowMetrics
from mlrunbook.local.platform import history, metrics, outcome_blocks, predictions
from tests.adapters.warehouse.logs import MODEL, NOW, Kept, RandomLog, keep_as_csv, keep_as_parquet, keep_in_our_platform, keep_in_postgres
from tests.local.platform.kit import new_model

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
WINDOWS = [(NOW - 3 * DAY, NOW - DAY, "v3"), (NOW - DAY, NOW, None)]
SEEDS = {"parquet": 1, "csv": 2, "postgres": 3}


def comparable(window: WindowMetrics) -> dict[str, Any]:
    """Risk levels are bands of our own scores; errors of the server stand in no team's log."""
    shown = asdict(replace(window, by_risk_level={}, errors={}, refused={}, error_rate=None))
    return {name: pytest.approx(value, abs=1e-5) if isinstance(value, float) else value for name, value in shown.items()}


def assert_same(found: ModelMetrics, expected: ModelMetrics) -> None:
    for name in ("baseline", "current"):
        mine, theirs = asdict(getattr(found, name)), comparable(getattr(expected, name))
        for field, value in theirs.items():
            assert mine[field] == value, (name, field)
    assert found.rewritten_lately == expected.rewritten_lately


def keep(kind: str, folder: Path, url: str, log: RandomLog) -> Kept:
    return keep_in_postgres(url, log) if kind == "postgres" else {"parquet": keep_as_parquet, "csv": keep_as_csv}[kind](folder, log)


@pytest.mark.parametrize("kind", SEEDS)
def test_every_figure_is_the_same(engine: Engine, database_url: str, tmp_path: Path, kind: str) -> None:
    random_log, model = RandomLog.of(SEEDS[kind]), new_model()
    ids = keep_in_our_platform(engine, model, random_log)
    kept = keep(kind, tmp_path, database_url, random_log)
    log = kept.log()
    for since, until, version in WINDOWS:
        with transaction(engine) as conn:
            expected = metrics.compare(conn, model, now=NOW, since=since, until=until, version=version)
        assert_same(log.metrics(MODEL, since=since, until=until, version=version), expected)
    assert expected.baseline.labelled > 100
    assert expected.baseline.rewritten is not None
    assert expected.baseline.rewritten.count > 3

    with transaction(engine) as conn:
        days = history.by_day(conn, model, days=9, until=NOW - HOUR)
        blocks = outcome_blocks.of_model(conn, model, since=NOW - 4 * DAY, until=NOW, block_s=5000.5)
        rows = predictions.recent(conn, model=model, limit=60, since=NOW - 6 * DAY, until=NOW - HOUR, labelled_only=True)
    found_days = log.history(MODEL, days=9, until=NOW - HOUR)
    assert [replace(day, error_rate=0.0, latency_p95_ms=None) for day in found_days] == [replace(day, latency_p95_ms=None) for day in days]
    assert [day.latency_p95_ms for day in found_days] == pytest.approx([day.latency_p95_ms for day in days])
    found = log.outcome_blocks(MODEL, since=NOW - 4 * DAY, until=NOW, block_s=5000.5)
    assert (found.blocks, sorted(map(asdict_key, found.by_asset))) == (blocks.blocks, sorted(map(asdict_key, blocks.by_asset)))
    logged = log.prediction_log(MODEL, limit=60, since=NOW - 6 * DAY, until=NOW - HOUR, labelled_only=True)
    ids_there = {theirs: mine for mine, theirs in ids.items()}
    if kept.part.table != "scores":  # there the key is a text, whose number is its digest
        assert [one.id for one in logged] == [ids_there[one.id] for one in rows]
    assert [replace(one, id=0) for one in logged] == [replace(one, id=0) for one in rows]


def asdict_key(tally: Any) -> tuple[Any, ...]:
    return tuple(asdict(tally).values())
