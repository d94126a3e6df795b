"""A log of predictions and outcomes as a team keeps one: Parquet, a folder a day, outcomes two weeks late, some of them corrected."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

DELAY_DAYS, CORRECTED_AFTER_DAYS = 14, 3
VERSIONS, SEGMENTS, ASSETS = 5, 6, 1500


@dataclass(frozen=True)
class Log:
    folder: Path
    rows: int
    days: int
    until: date

    @property
    def since(self) -> date:
        return self.until - timedelta(days=self.days)

    @property
    def rows_a_day(self) -> int:
        return self.rows // self.days


def made(log: Log) -> Log:
    """Writes what is not there yet, day by day."""
    import duckdb

    db = duckdb.connect()
    db.execute("SET memory_limit = '1GB'")
    for number in range(log.days):
        day = log.since + timedelta(days=number)
        _written(db, log.folder / "predictions" / f"day={day}", _predictions(log, number, day))
        _written(db, log.folder / "outcomes" / f"day={day}", _outcomes(log, number, day))
    return log


def _written(db: object, folder: Path, query: str) -> None:
    file = folder / "part-0.parquet"
    if file.exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / "part-0.writing"
    db.execute(f"COPY ({query}) TO '{part}' (FORMAT parquet)")  # type: ignore[attr-defined]
    part.rename(file)


def _hashed(salt: int, id_: str = "i") -> str:
    """A number from 0 to 1 that is the same for the same prediction."""
    return f"(hash({id_} * 16 + {salt}) % 1000003 / 1000003.0)"


_FAILS = f"{_hashed(1)} < 0.05"
_SCORE = f"round(CASE WHEN {_FAILS} THEN 0.35 + 0.65 * {_hashed(2)} ELSE 0.62 * {_hashed(2)} END, 4)"


def _predictions(log: Log, number: int, day: date) -> str:
    first, last = number * log.rows_a_day, (number + 1) * log.rows_a_day
    step_us = 86_400_000_000 // log.rows_a_day
    return f"""
        SELECT i AS prediction_id, TIMESTAMP '{day}' + to_microseconds((i - {first}) * {step_us} + CAST({_hashed(3)} * {step_us} AS BIGINT)) AS at,
            {_SCORE} AS score, 'v' || (1 + i * {VERSIONS} // {log.rows}) AS version,
            CAST(i % {ASSETS * SEGMENTS} AS VARCHAR) AS asset_id, 's' || (i % {SEGMENTS}) AS segment,
            round(5 + 40 * {_hashed(4)}, 1) AS latency_ms, round(100 * {_hashed(5)}, 1) AS temperature,
            CASE WHEN {_hashed(6)} > 0.01 THEN round(2000 * {_hashed(7)}) END AS speed, round(80 * {_hashed(8)}, 1) AS torque
        FROM range({first}, {last}) AS r(i)"""  # noqa: E501


def _outcomes(log: Log, number: int, day: date) -> str:
    """What came on `day`: of the predictions of two weeks ago, and corrections of what came three days ago."""

    def of(age_days: int, outcome: str, which: str) -> str:
        first = (number - age_days) * log.rows_a_day
        return f"""SELECT i AS prediction_id, {outcome} AS outcome,
                TIMESTAMP '{day}' + to_microseconds(CAST({_hashed(9)} * 86400000000 AS BIGINT)) AS reported_at
            FROM range({max(first, 0)}, {max(first + log.rows_a_day, 0)}) AS r(i) WHERE {which}"""

    first = of(DELAY_DAYS, f"{_FAILS} AND {_hashed(10)} > 0.1", f"{_hashed(11)} < 0.95")
    corrected = of(DELAY_DAYS + CORRECTED_AFTER_DAYS, _FAILS, f"{_hashed(11)} < 0.95 AND {_FAILS} AND {_hashed(10)} <= 0.1")
    return f"{first} UNION ALL {corrected}"
