"""The team's prediction log: Parquet files by day, written by its pipeline a moment after the predictions, outcomes in a table of their
own, each with the time at which it was reported."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, select

from mlrunbook.local.platform.columns import ASSET_TYPE, NUMERIC, RAW
from mlrunbook.local.platform.tables import outcomes, predictions

if TYPE_CHECKING:
    import pyarrow as pa

PREDICTIONS, OUTCOMES = "predictions", "outcomes"
LATE = 1000  # numbers of rows: one that was committed after a higher one is still found


class PredictionLog:
    """`folder` holds a folder a table. Written once, never changed."""

    def __init__(self, folder: Path, model: str) -> None:
        self._folder, self._model = folder, model
        self._files = itertools.count(1)
        self._written: dict[str, set[int]] = {PREDICTIONS: set(), OUTCOMES: set()}
        self._newest = {PREDICTIONS: 0, OUTCOMES: 0}

    def write_new(self, conn: Connection) -> int:
        """What the model server has logged since, and what was reported; how many rows."""
        made = self._new(PREDICTIONS, conn.execute(self._predictions()).all())
        known_at_once = [row for row in made if row.outcome is not None and row.outcome_at == row.at]  # of the seeded past
        told = self._new(OUTCOMES, conn.execute(self._reports()).all())
        self.write(PREDICTIONS, [(row.at, _prediction(row)) for row in made])
        reports = [(row.at, (str(row.id), row.outcome, row.at)) for row in known_at_once]
        reports += [(row.at, (str(row.prediction_id), row.outcome, row.at)) for row in told]
        self.write(OUTCOMES, reports)
        return len(made) + len(reports)

    def _predictions(self) -> Any:
        p = predictions.c
        return select(predictions).where(p.model == self._model, p.id > self._newest[PREDICTIONS] - LATE).order_by(p.id)

    def _reports(self) -> Any:
        o = outcomes.c
        return select(outcomes).where(o.model == self._model, o.id > self._newest[OUTCOMES] - LATE).order_by(o.id)

    def _new(self, table: str, rows: Sequence[Any]) -> list[Any]:
        known = self._written[table]
        fresh = [row for row in rows if row.id not in known]
        if fresh:
            self._newest[table] = max(self._newest[table], fresh[-1].id)
            known.update(row.id for row in fresh)
        return fresh

    def write(self, table: str, rows: Sequence[tuple[datetime, Any]]) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        by_day = defaultdict(list)
        for at, row in rows:
            by_day[at.astimezone(UTC).date()].append(row)
        schema = _schema(table)
        for day, of_day in by_day.items():
            folder = self._folder / table / f"day={day}"
            folder.mkdir(parents=True, exist_ok=True)
            columns = [pa.array(values, type=one.type) for one, values in zip(schema, zip(*of_day, strict=True), strict=True)]
            stem = f"part-{datetime.now(UTC):%Y%m%dT%H%M%S.%f}-{next(self._files)}"
            fresh = folder / f".{stem}.new"
            pq.write_table(pa.table(columns, schema=schema), fresh)
            fresh.replace(folder / f"{stem}.parquet")


def _schema(table: str) -> pa.Schema:
    import pyarrow as pa

    instant = pa.timestamp("us", tz="UTC")
    if table == OUTCOMES:
        return pa.schema([("prediction_id", pa.string()), ("failed", pa.bool_()), ("reported_at", instant)])
    numbers = [(name, pa.float64()) for name in ("score", "threshold", "latency_ms")]
    readings = [(ASSET_TYPE, pa.string()), *((name, pa.float64()) for name in NUMERIC)]
    named = [("prediction_id", pa.string()), ("at", instant), ("asset_id", pa.string()), ("version", pa.string())]
    return pa.schema([*named, *numbers, *readings])


def _prediction(row: Any) -> tuple[Any, ...]:
    features = (row.features.get(name) for name in RAW)
    return (str(row.id), row.at, row.asset_id, row.version, row.score, row.threshold, row.latency_ms, *features)
