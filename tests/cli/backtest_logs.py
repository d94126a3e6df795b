"""Made-up prediction logs for the backtest: a healthy year of days, and what goes wrong in it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd

BEGIN = datetime(2025, 1, 1, tzinfo=UTC)
A_DAY = 200


def healthy(days: int = 120, *, seed: int = 1, a_day: int = A_DAY, threshold: float = 0.5) -> pd.DataFrame:
    """Failures 10 %, recall .8, false alarms 2 %; the score follows two features. Outcomes are known at once."""
    rng, n = np.random.default_rng(seed), days * a_day
    failed = rng.random(n) < 0.10
    seen = np.where(failed, rng.random(n) < 0.8, rng.random(n) < 0.02)
    score = np.where(seen, 0.55 + 0.4 * rng.random(n), 0.4 * rng.random(n))
    at = pd.to_datetime([BEGIN + timedelta(days=i / a_day) for i in range(n)]).floor("s")
    return pd.DataFrame(
        {
            "prediction_id": np.arange(1, n + 1),
            "time": at.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "asset_id": [f"a{i % 50}" for i in range(n)],
            "asset_type": rng.choice(["L", "M"], n),
            "score": score.round(4),
            "threshold": threshold,
            "failed": failed.astype(int),
            "torque": (40 + 30 * score + rng.normal(0, 2, n)).round(3),
            "wear": rng.gamma(2.0, 30.0, n).round(2),
        }
    )


def days(frame: pd.DataFrame, since: int, until: int, a_day: int = A_DAY) -> np.ndarray:
    day = np.arange(len(frame)) // a_day
    return np.asarray((day >= since) & (day < until))


def collapsed(frame: pd.DataFrame, since: int, until: int, *, seed: int = 2) -> pd.DataFrame:
    """The scores no longer say anything: shuffled among themselves."""
    hit = np.flatnonzero(days(frame, since, until))
    out = frame.copy()
    out.loc[hit, "score"] = frame["score"].to_numpy()[np.random.default_rng(seed).permutation(hit)]
    return out


@dataclass(frozen=True)
class Files:
    """Writes logs into a folder of the test."""

    folder: Path

    def csv(self, frame: pd.DataFrame, name: str = "log.csv") -> Path:
        frame.to_csv(self.folder / name, index=False)
        return self.folder / name

    def parquet(self, frame: pd.DataFrame, name: str = "log.parquet") -> Path:
        typed = frame.assign(time=pd.to_datetime(frame["time"])) if "time" in frame else frame
        typed.to_parquet(self.folder / name, index=False)
        return self.folder / name
