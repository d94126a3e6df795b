"""A caller who probes the model: looks for the decision boundary of one asset, and sends readings that no machine can have.

All they have is a token for predictions; what they learn is in the answers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from mlrunbook.drills.simulator.traffic import as_features

if TYPE_CHECKING:
    import pandas as pd

Ask = Callable[[list[dict[str, Any]]], list[dict[str, Any]]]  # assets -> predictions in their order, empty without an answer

WIDE_NM = (5.0, 85.0)  # the torques tried first
STEPS = 20
CLOSE_NM = 0.3  # so close around the boundary the rest is asked


class Burst:
    """`near` and `impossible` requests each time `send` is called, after the first two have found the boundary."""

    def __init__(self, near: int, impossible: int, seed: int = 0) -> None:
        self._near, self._impossible = near, impossible
        self._rng = np.random.default_rng(seed)
        self._asset: str | None = None
        self._reading: dict[str, Any] = {}
        self._boundary_nm: float | None = None

    def send(self, ask: Ask, readings: pd.DataFrame) -> None:
        if self._asset is None:
            self._asset, self._reading = str(readings["asset_id"].iloc[0]), as_features(readings.head(1))[0]
        if self._boundary_nm is None:
            self._boundary_nm = self._search(ask, *WIDE_NM)
        if self._boundary_nm is None:  # no answer, or no boundary there: another asset next time
            self._asset = None
            return
        around = self._boundary_nm + self._rng.uniform(-CLOSE_NM, CLOSE_NM, self._near)
        assets = [self._with(torque_nm=round(float(nm), 4)) for nm in around]
        for _ in range(self._impossible):
            torque, speed, air = self._rng.uniform((-500, 10_000, 0), (-50, 90_000, 100))
            assets.append(self._with(torque_nm=float(torque), rotational_speed_rpm=float(speed), air_temperature_k=float(air)))
        ask(assets)

    def _search(self, ask: Ask, low: float, high: float) -> float | None:
        """The torque at which the label changes, to a few hundredths: a grid, and a finer one where it changed."""
        for _ in range(2):
            grid = np.linspace(low, high, STEPS)
            labels = [bool(p["label"]) for p in ask([self._with(torque_nm=float(nm)) for nm in grid])]
            flips = [i for i in range(1, len(labels)) if labels[i] is not labels[i - 1]]
            if not flips:
                return None
            low, high = float(grid[flips[0] - 1]), float(grid[flips[0]])
        return (low + high) / 2

    def _with(self, **changes: float) -> dict[str, Any]:
        return {"assetId": self._asset, "features": self._reading | changes}
