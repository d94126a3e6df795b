"""A made-up prediction log to try `mlrunbook backtest` on: the fleet's machines, a model trained on their past, and two faults that nobody
reported, a sensor that changes its unit for a week and a threshold that slips at the end."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

DAYS, ROWS_A_DAY, TRAINING_ROWS = 120, 600, 20_000
ASSETS = 200
UNIT_DAYS, UNIT = (65, 73), 0.1  # Nm to daNm
SLIP_DAY, SLIPPED = 100, 0.005
SEED = 7


def write(file: Path, *, until: datetime | None = None) -> int:
    """Returns how many rows there are, the newest a day before `until`."""
    import numpy as np
    import pandas as pd

    from mlrunbook.drills.simulator.fleet import Fleet
    from mlrunbook.local.platform.columns import ASSET_TYPE, RAW, engineer
    from mlrunbook.local.platform.training import train

    fleet, rng = Fleet(SEED, assets=ASSETS), np.random.default_rng(SEED)
    end = (until or datetime.now(UTC)).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=1)
    begin = end - timedelta(days=DAYS)
    past = fleet.training(TRAINING_ROWS)
    estimator, manifest = train(past, model="sample", version="v1", seed=SEED, trained_from=begin - timedelta(days=90), trained_to=begin)
    frame = fleet.readings(DAYS * ROWS_A_DAY).reset_index(drop=True)
    day = np.arange(len(frame)) // ROWS_A_DAY
    wrong = (day >= UNIT_DAYS[0]) & (day < UNIT_DAYS[1])
    frame["torque_nm"] = np.where(wrong, (frame["torque_nm"] * UNIT).round(2), frame["torque_nm"])
    score = estimator.predict_proba(engineer(frame, manifest.asset_types).to_numpy())[:, 1]
    threshold = np.where(day >= SLIP_DAY, SLIPPED, manifest.threshold)
    at = pd.DatetimeIndex([begin]).repeat(len(frame)) + pd.to_timedelta(np.arange(len(frame)) * (86_400 / ROWS_A_DAY), unit="s")
    delay_h = np.where(frame["failed"], rng.uniform(1, 24, len(frame)).round(2), 24.0)
    rows = pd.DataFrame(
        {
            "prediction_id": np.arange(1, len(frame) + 1),
            "time": at.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "model_version": "v1.5.0",
            "asset_id": frame["asset_id"],
            "asset_type": frame[ASSET_TYPE],
            **{name: frame[name] for name in RAW if name != ASSET_TYPE},
            "score": score.round(4),
            "threshold": threshold,
            "outcome": frame["failed"].astype(int),
            "outcome_time": (at + pd.to_timedelta(delay_h, unit="h")).strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
    )
    rows.to_csv(file, index=False)
    return len(rows)
