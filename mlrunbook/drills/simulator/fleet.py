"""A fleet of machines that wear and fail, after the published AI4I 2020 process.

S. Matzka, "Explainable Artificial Intelligence for Predictive Maintenance Applications", 2020. Constants below are that
paper's unless a comment says otherwise. One change of shape: the paper lets one machine run for 10,000 rows; here many
assets run side by side, each with its own temperatures and tool, so that a stream can go on for ever and any window of
it looks like any other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from mlrunbook.local.platform.columns import ASSET_TYPE, ASSET_TYPES

if TYPE_CHECKING:
    import pandas as pd

MODES: tuple[str, ...] = ("twf", "hdf", "pwf", "osf", "rnf")  # tool wear, heat dissipation, power, overstrain, random

TYPE_SHARES = (0.6, 0.3, 0.1)
WEAR_PER_USE_MIN = np.array([2.0, 3.0, 5.0])
OVERSTRAIN_MIN_NM = np.array([11_000.0, 12_000.0, 13_000.0])
POWER_LIMITS_W = (3500.0, 9000.0)
TOOL_LIFE_MIN = (200.0, 240.0)
TOOL_FAILS = 0.425  # of tools at the end of their life; the others are replaced in time (51 of 120 in the paper)
DRIVE_POWER_W = 2860.0
# How load slows the drive is not published. A rated torque of 18.2 Nm (1500 rpm at 40 Nm of load) and this exponent give
# the table's mean speed, its correlation with torque and its share of power failures.
RATED_TORQUE_NM = 18.2
LOAD_EXPONENT = 0.35
SPEED_NOISE = 0.04
# The paper's random walks are normalised over the whole table; a stream needs walks that return to their mean instead.
AIR_STEP, PROCESS_STEP = 0.95, 0.90


class Source(Protocol):
    """Where the simulator's readings come from: the fleet below, or the real table (uci.py)."""

    def training(self, n: int) -> pd.DataFrame:
        """Up to n rows of the past, oldest first."""
        ...

    def readings(self, n: int) -> pd.DataFrame:
        """The next n rows: asset_id, the raw features, `failed` (bool, ground truth) and one bool column a failure mode."""
        ...


class Fleet:
    """`assets` machines read in turn; the same seed gives the same stream, however it is cut into windows."""

    def __init__(self, seed: int, *, assets: int = 1000) -> None:
        self._rng = np.random.default_rng(seed)
        self._names = list(ASSET_TYPES)
        self._wear_per_use, self._overstrain = WEAR_PER_USE_MIN, OVERSTRAIN_MIN_NM
        self._least_w, self._most_w = (np.full(len(ASSET_TYPES), limit) for limit in POWER_LIMITS_W)
        self._season: tuple[int, float, float] | None = None  # uses a day, air temperature swing in K, load swing in Nm
        self._uses = 0
        self._types = self._rng.choice(len(ASSET_TYPES), size=assets, p=TYPE_SHARES)
        self._ids = np.array([f"asset_{i + 1}" for i in range(assets)], dtype=object)
        self._air = self._rng.normal(0, 2, assets)
        self._process = self._rng.normal(0, 1, assets)
        self._life = self._rng.uniform(*TOOL_LIFE_MIN, assets)
        self._wear = self._rng.uniform(0, 1, assets) * self._life
        self._left_over: pd.DataFrame | None = None

    def training(self, n: int) -> pd.DataFrame:
        return self.readings(n)

    def readings(self, n: int) -> pd.DataFrame:
        import pandas as pd

        have = 0 if self._left_over is None else len(self._left_over)
        rounds = [self._round() for _ in range(-(-max(n - have, 0) // len(self._ids)))]
        frame = pd.DataFrame({name: np.concatenate([r[name] for r in rounds]) for name in rounds[0]}) if rounds else None
        frame = pd.concat([part for part in (self._left_over, frame) if part is not None], ignore_index=True)
        self._left_over = frame.iloc[n:].reset_index(drop=True) if len(frame) > n else None
        return frame.iloc[:n]

    def introduce_type(self, name: str, *, share: float, wear_per_use_min: float, overstrain_min_nm: float) -> None:
        """From the next reading on, `share` of the assets are of a new type with tools of its own."""
        self._left_over = None
        self._names.append(name)
        self._wear_per_use = np.append(self._wear_per_use, wear_per_use_min)
        self._overstrain = np.append(self._overstrain, overstrain_min_nm)
        self._least_w, self._most_w = (
            np.append(of, limit) for of, limit in zip((self._least_w, self._most_w), POWER_LIMITS_W, strict=True)
        )
        new = self._rng.random(len(self._ids)) < share
        self._types = np.where(new, len(self._names) - 1, self._types)
        self._wear = np.where(new, self._rng.uniform(0, 1, len(new)) * overstrain_min_nm / 60, self._wear)  # in use for a while

    def limit_power(self, least_w: float, most_w: float, *, asset_type: str | None = None) -> None:
        """From the next reading on, drives (of one type) fail outside these limits: the same readings, other outcomes."""
        self._left_over = None
        hit = [asset_type in (None, name) for name in self._names]
        self._least_w, self._most_w = np.where(hit, least_w, self._least_w), np.where(hit, most_w, self._most_w)

    def swing(self, uses_a_day: int, *, air_k: float, load_nm: float) -> None:
        """From the next reading on, days are warm and busy and nights are cool and quiet, by these amplitudes."""
        self._left_over = None
        self._season = (uses_a_day, air_k, load_nm)

    def _round(self) -> dict[str, Any]:
        """One use of every asset."""
        rng, size = self._rng, len(self._ids)
        self._air = AIR_STEP * self._air + np.sqrt(1 - AIR_STEP**2) * rng.normal(0, 2, size)
        self._process = PROCESS_STEP * self._process + np.sqrt(1 - PROCESS_STEP**2) * rng.normal(0, 1, size)
        uses_a_day, air_k, load_nm = self._season or (1, 0.0, 0.0)
        day = np.sin(2 * np.pi * self._uses / uses_a_day)
        self._uses += 1
        air, load = self._air + air_k * day, load_nm * day
        torque = np.maximum(rng.normal(40 + load, 10, size), 3.8)  # 3.8 Nm: the table's least
        rated_rpm = DRIVE_POWER_W / RATED_TORQUE_NM * 60 / (2 * np.pi)
        speed = rated_rpm * (40 / torque) ** LOAD_EXPONENT * (1 + rng.normal(0, SPEED_NOISE, size))
        wear = self._wear + self._wear_per_use[self._types]
        power_w = torque * speed * (2 * np.pi / 60)

        worn_out = wear >= self._life
        modes = {
            "twf": worn_out & (rng.random(size) < TOOL_FAILS),
            "hdf": (10 + self._process < 8.6) & (speed < 1380),
            "pwf": (power_w < self._least_w[self._types]) | (power_w > self._most_w[self._types]),
            "osf": wear * torque > self._overstrain[self._types],
            "rnf": rng.random(size) < 0.001,
        }
        new_tool = worn_out | modes["osf"]  # an overstrained tool is broken: it is changed too
        self._wear = np.where(new_tool, 0.0, wear)
        self._life = np.where(new_tool, rng.uniform(*TOOL_LIFE_MIN, size), self._life)
        return {
            "asset_id": self._ids,
            ASSET_TYPE: np.array(self._names, dtype=object)[self._types],
            "air_temperature_k": (300 + air).round(1),
            "process_temperature_k": (310 + air + self._process).round(1),
            "rotational_speed_rpm": speed.round(),
            "torque_nm": torque.round(1),
            "tool_wear_min": wear,
            "failed": np.logical_or.reduce(list(modes.values())),
            **modes,
        }
