"""The limit of a CUSUM that keeps its promise on run length, though the baseline itself is only an estimate.

A CUSUM (Page 1954) is the fastest rule of its false-call rate against a fall of known size (Lorden 1971). Its limit is usually taken as
if the baseline were known exactly; a baseline that was a little lucky then calls the same healthy model again and again. Here the limit is
simulated with one error of the baseline and one of its variance for each path (Jones, Champ and Rigdon 2004, for estimated parameters).
"""

from __future__ import annotations

from functools import lru_cache
from math import ceil, exp, log, sqrt
from typing import Any

PATHS, _LEAST_PATHS = 2000, 300
_STEPS = 365  # of a path; looks are joined to them as far as the walk forgets slowly
_MOST_STEPS = 10_000
_GRID = 0.04  # arguments are rounded up by at most 4 %, so that one limit serves many models
_OVERSHOOT = 0.583  # of a normal walk's step: how much lower a limit is when looked at only now and then (Siegmund 1985, ch. X)
_EXACT_DOF = 400


def limit(noise: float, uncertainty: float, dof: int, looks: int, *, target: float, slack: float) -> float:
    """The height that at most `target` of the unchanged models ever reach in `looks` looks.

    One look adds a relative fall less `slack`, with the standard deviation `noise`; the baseline's own standard error, relative, is
    `uncertainty`; `noise` and `uncertainty` rest on `dof` degrees of freedom. Deterministic.

    >>> limit(0.3, 0.03, 60, 730, target=0.4, slack=0.1) < limit(0.3, 0.06, 60, 730, target=0.4, slack=0.1)
    True
    """
    dof_known = max(1, min(_rounded_down(dof), _EXACT_DOF))
    return _simulated(_rounded_up(noise), _rounded_up(uncertainty), dof_known, ceil(_rounded_up(looks)), target, slack)


def _rounded_up(value: float) -> float:
    return exp(ceil(log(value) / _GRID - 1e-9) * _GRID) if value > 0 else 0.0


def _rounded_down(dof: int) -> int:
    return dof if dof < 30 else dof // 10 * 10


@lru_cache(maxsize=2048)
def _simulated(noise: float, uncertainty: float, dof: int, looks: int, target: float, slack: float) -> float:
    import numpy as np

    rng = np.random.default_rng(1)
    steps = _steps(noise, looks, slack)
    joined, paths = looks / steps, max(_LEAST_PATHS, min(PATHS, PATHS * _STEPS // steps))
    spread = np.sqrt(dof / rng.chisquare(dof, paths))[:, None].astype(np.float32)
    bias = uncertainty * spread * _normal_scores(rng, paths)
    walk = rng.standard_normal((paths, steps), dtype=np.float32)
    walk *= noise * sqrt(joined) * spread
    walk += joined * (bias - slack)
    np.cumsum(walk, axis=1, out=walk)
    height = walk - np.minimum(np.minimum.accumulate(walk, axis=1), 0)  # the reflected walk in closed form
    reached = float(np.quantile(height.max(axis=1), 1 - target))
    return max(reached, 0.0) + _OVERSHOOT * noise * (sqrt(joined) - 1)


def _normal_scores(rng: Any, paths: int) -> Any:
    """The quantiles of the normal distribution in random order: its tails are there in every simulation."""
    import numpy as np
    from scipy.special import ndtri

    return rng.permutation(ndtri((np.arange(paths) + 0.5) / paths)).astype(np.float32)[:, None]


def _steps(noise: float, looks: int, slack: float) -> int:
    """As many looks are joined as are a tenth of the walk's memory, (noise / slack)^2 looks."""
    memory = (noise / slack) ** 2
    joined = max(1.0, min(looks / _STEPS, memory / 10))
    return min(ceil(looks / joined), _MOST_STEPS)
