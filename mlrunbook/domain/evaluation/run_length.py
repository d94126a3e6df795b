"""The limit of a CUSUM that keeps its promise on run length, though the baseline itself is only an estimate.

A CUSUM (Page 1954) is the fastest rule of its false-call rate against a fall of known size (Lorden 1971). Its limit is usually taken as
if the baseline were known exactly; a baseline that was a little lucky then calls the same healthy model again and again. Here the limit is
simulated with one error of the baseline and one of its variance for each path (Jones, Champ and Rigdon 2004, for estimated parameters).
"""

from __future__ import annotations

from functools import lru_cache
from math import ceil, exp, floor, log, sqrt
from typing import Any, NamedTuple

PATHS, _LEAST_PATHS = 1500, 300
_STEPS = 365  # of a path; looks are joined to them as far as the walk forgets slowly
_MOST_STEPS = 4000
_GRID = 0.06  # arguments are rounded up by at most 6 %, so that one limit serves many models
_OVERSHOOT = 0.583  # of a normal walk's step: how much lower a limit is when looked at only now and then (Siegmund 1985, ch. X)
_EXACT_DOF = 400
_LEAST_SKEW, _MOST_SKEW = 0.25, 4.0


class Noise(NamedTuple):
    """What an unchanged model adds in one look: `sd`, and `skew`, as few errors come one by one; known on `dof` degrees of freedom."""

    sd: float
    dof: int
    skew: float = 0.0


def limit(noise: Noise, uncertainty: float, looks: int, *, target: float, slack: float) -> float:
    """The height that at most `target` of the unchanged models ever reach in `looks` looks.

    One look adds a relative fall less `slack`; the baseline's own standard error, relative, is `uncertainty`. Deterministic.

    >>> limit(Noise(0.3, 60), 0.03, 730, target=0.4, slack=0.1) < limit(Noise(0.3, 60), 0.06, 730, target=0.4, slack=0.1)
    True
    """
    rounded = Noise(_rounded_up(noise.sd), max(1, min(_rounded_down(noise.dof), _EXACT_DOF)), _rounded_skew(noise.skew))
    return _simulated(rounded, _rounded_up(uncertainty), ceil(_rounded_up(looks)), target, slack)


def _rounded_up(value: float) -> float:
    return exp(ceil(log(value) / _GRID - 1e-9) * _GRID) if value > 0 else 0.0


def _rounded_down(dof: int) -> int:
    return dof if dof < 10 else int(10 * 1.25 ** floor(log(dof / 10, 1.25) + 1e-9))


def _rounded_skew(skew: float) -> float:
    return min(ceil(skew * 2) / 2, _MOST_SKEW) if skew > _LEAST_SKEW else 0.0


@lru_cache(maxsize=2048)
def _simulated(noise: Noise, uncertainty: float, looks: int, target: float, slack: float) -> float:
    import numpy as np

    rng = np.random.default_rng(1)
    steps, dof = _steps(noise.sd, looks, slack), noise.dof
    joined, paths = looks / steps, max(_LEAST_PATHS, min(PATHS, PATHS * _STEPS // steps))
    spread = np.sqrt(dof / rng.chisquare(dof, paths))[:, None].astype(np.float32)
    bias = uncertainty * spread * _normal_scores(rng, paths)
    walk = _shocks(rng, (paths, steps), noise.skew / sqrt(joined))
    walk *= noise.sd * sqrt(joined) * spread
    walk += joined * (bias - slack)
    np.cumsum(walk, axis=1, out=walk)
    height = walk - np.minimum(np.minimum.accumulate(walk, axis=1), 0)  # the reflected walk in closed form
    reached = float(np.quantile(height.max(axis=1), 1 - target))
    return max(reached, 0.0) + _OVERSHOOT * noise.sd * (sqrt(joined) - 1)


def _shocks(rng: Any, shape: tuple[int, int], skew: float) -> Any:
    """Mean 0, variance 1; a shifted gamma where they are skewed (Pearson's type III)."""
    import numpy as np

    if skew < _LEAST_SKEW:
        return rng.standard_normal(shape, dtype=np.float32)
    k = 4 / skew**2
    shocks = rng.standard_gamma(k, shape, dtype=np.float32)
    return (shocks - np.float32(k)) / np.float32(sqrt(k))


def skewed_quantile(tail: float, skew: Any) -> Any:
    """The value that a number with mean 0, variance 1 and this skew (an array) passes with probability `tail` (Pearson's type III)."""
    import numpy as np
    from scipy.special import gammaincinv, ndtri

    k = 4 / np.clip(skew, _LEAST_SKEW, _MOST_SKEW) ** 2
    return np.maximum(-ndtri(tail), np.where(np.asarray(skew) < _LEAST_SKEW, 0.0, (gammaincinv(k, 1 - tail) - k) / np.sqrt(k)))


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
