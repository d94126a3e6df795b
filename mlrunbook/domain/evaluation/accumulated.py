"""Evidence that adds up: what all outcomes since the baseline was pinned say together, at whatever look.

A look adds a closed block of outcomes to a CUSUM; its limit keeps the promise of the policy over all looks (`run_length`). A fall is real
when the CUSUM is past its limit and the window looked at shows it by itself: the first holds over years of looks, the second in each single
alert. The baseline stays where it is pinned: one that rolls learns the collapse. Looking more often than blocks close brings no outcome and
changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from math import ceil, sqrt
from statistics import NormalDist
from typing import Any, NamedTuple

from mlrunbook.domain.evaluation.block_score import Scores
from mlrunbook.domain.evaluation.long_run_variance import LEAST_BATCHES, LEAST_BLOCKS, long_run_variance
from mlrunbook.domain.evaluation.run_length import Noise, limit, skewed_quantile
from mlrunbook.domain.policy.judging import RunLengthPolicy

_DAY_S = 86_400.0


@dataclass(frozen=True)
class Mix:
    """One kind of outcome in the baseline: its weight, and the variance of its part alone."""

    weight: float
    variance: float


class Known(NamedTuple):
    """`variance` of a sum of scores for each unit of weight, and the `uncertainty` that the baseline adds to its relative fall."""

    variance: float
    uncertainty: float

    def error(self, held: Any) -> Any:
        """Standard error of the relative fall over outcomes of this weight (a number or an array)."""
        import numpy as np

        return np.sqrt(self.variance / held + self.uncertainty**2)


@dataclass(frozen=True)
class PinnedBaseline:
    """The period in which this version was last known healthy, in the scores of its own tally.

    `weight` is of all its `blocks`, which cover `block_s` each and held `outcomes`; `variance` as in `LongRunVariance.per_weight`, known on
    `dof` degrees of freedom from `source`, with its `jump`. `mix`: the same by kind of outcome, where the tally tells kinds apart.
    """

    blocks: int
    block_s: float
    outcomes: int
    weight: float
    variance: float
    dof: int
    source: str
    mix: tuple[Mix, ...] = ()
    jump: float = 0.0

    @property
    def weight_per_block(self) -> float:
        return self.weight / self.blocks

    @property
    def uncertainty(self) -> float:
        """Standard error of the baseline's figure, relative to it."""
        return sqrt(self.variance / self.weight)

    def provable(self, policy: RunLengthPolicy) -> float:
        """The smallest relative fall that this baseline can ever prove: below it, it may itself have been lucky."""
        return student(policy.window_called_share, self.dof) * self.uncertainty

    def known_for(self, since: Scores) -> Known:
        """How well the sum of outcomes in the mix of `since` is known: where failures are rarer, errors on them weigh less, on false alarms
        more."""
        if not self.mix or len(since.parts) != len(self.mix):
            return Known(self.variance, self.uncertainty)
        before = [m.weight / self.weight for m in self.mix]
        weights = [_sum(part.weight) + LEAST_BATCHES * self.weight_per_block * b for part, b in zip(since.parts, before, strict=True)]
        now = [w / sum(weights) for w in weights]
        apart = sum(m.variance * b for m, b in zip(self.mix, before, strict=True))
        if not apart > 0:
            return Known(self.variance, self.uncertainty)
        together = self.variance / apart  # the parts are not quite independent
        spread = sum(m.variance * n for m, n in zip(self.mix, now, strict=True))
        error = sum(m.variance * n**2 / b for m, n, b in zip(self.mix, now, before, strict=True) if b > 0)
        return Known(together * spread, sqrt(together * error / self.weight))


def pin(blocks: Scores, assets: Scores | None, *, outcomes: int, block_s: float) -> PinnedBaseline | None:
    """`blocks` scored against what they hold together (`block_score.Rates.of`), oldest first; `assets` likewise, one an asset.

    None: too few blocks and assets to know how much the figure varies by itself.
    """
    variance = long_run_variance(blocks, assets)
    if variance is None or not variance.per_weight > 0:
        return None
    mix = []
    for k, part in enumerate(blocks.parts):
        own = long_run_variance(part, assets.parts[k] if assets is not None else None)
        mix.append(Mix(_sum(part.weight), own.per_weight if own else 0.0))
    count = len(_array(blocks.weight))
    return PinnedBaseline(
        blocks=count,
        block_s=block_s,
        outcomes=outcomes,
        weight=_sum(blocks.weight),
        variance=variance.per_weight,
        dof=variance.dof,
        source=variance.source,
        mix=tuple(mix),
        jump=variance.jump,
    )


@dataclass(frozen=True)
class Trace:
    """By block since the baseline was pinned, as numpy arrays: the CUSUM's `height` against `limit`, the number of blocks `run` since it
    last left 0, and the relative `fall` over the window that ends with the block, with its standard `error`. `proven`: real there. `over`:
    the blocks of that window."""

    height: Any
    limit: float
    run: Any
    fall: Any
    error: Any
    proven: Any
    over: Any


def trace(baseline: PinnedBaseline, since: Scores, policy: RunLengthPolicy, *, window: int | None = None, least: float = 0.0) -> Trace:
    """`since`: one score a block closed since the baseline was pinned, oldest first. `window`: blocks of the evaluation window, None: all;
    it reaches back to where the CUSUM last left 0 where that is longer. Blocks are meant as large as the baseline's: where far more
    outcomes come, one may be several. A fall of `least` or less is not proven."""
    import numpy as np

    known = baseline.known_for(since)
    fall, weight = _array(since.fall), _array(since.weight)
    sums = np.concatenate([[0.0], np.cumsum((fall - policy.slack * weight) / baseline.weight_per_block)])
    height = (sums - np.minimum.accumulate(sums))[1:]
    at = np.arange(1, len(fall) + 1)
    start = np.maximum.accumulate(np.where(height <= 0, at, 0)) if len(fall) else at
    total_fall, total_weight = (np.concatenate([[0.0], np.cumsum(x)]) for x in (fall, weight))
    begin = np.zeros_like(at)
    if window is not None:
        enough = total_weight[at] - max(window, LEAST_BATCHES) * baseline.weight_per_block
        begin = np.minimum(start, np.maximum(np.searchsorted(total_weight, enough, side="right") - 1, 0))
    held = np.maximum(total_weight[at] - total_weight[begin], 1e-12)
    size = (total_fall[at] - total_fall[begin]) / held
    error = known.error(held)
    most = limit_of(baseline, known, weight, policy)
    skew = baseline.jump * known.variance / held**2 / error**3  # the third moment of a sum, by that of the whole error
    shown = (size > least) & (size >= beyond_chance(policy.window_called_share, baseline.dof, skew) * error)
    return Trace(height, most, at - start, size, error, (height >= most) & shown, at - begin)


class Newest(NamedTuple):
    """The relative `fall` over so many of the newest blocks, with its standard `error`."""

    fall: float
    error: float
    over: int


def worst_of_the_newest(baseline: PinnedBaseline, since: Scores, seen: Trace, policy: RunLengthPolicy) -> tuple[Newest, float] | None:
    """The newest blocks that show most of a fall, and the least it then is. None: nothing has begun.

    The healthy blocks before a collapse soften it. All blocks since the CUSUM last left 0 are where a fall most likely began: one standard
    error less allows for their choice. Any fewer were chosen because they look bad: only the lower end of their interval counts.
    """
    import numpy as np

    run = int(seen.run[-1]) if len(seen.run) else 0
    weight = np.cumsum(_array(since.weight)[len(seen.run) - run :][::-1])
    kept = np.flatnonzero(weight > 0)
    if not len(kept):
        return None
    known, held = baseline.known_for(since), weight[kept]
    fall = np.cumsum(_array(since.fall)[len(seen.run) - run :][::-1])[kept] / held
    error = known.error(held)
    skew = baseline.jump * known.variance / held**2 / error**3
    errors = beyond_chance((1 - policy.confidence) / 2, baseline.dof, skew)
    errors[-1] = 1.0
    least = fall - errors * error
    k = int(np.argmax(least))
    return Newest(float(fall[k]), float(error[k]), int(kept[k]) + 1), float(least[k])


def limit_of(baseline: PinnedBaseline, known: Known, weight: Any, policy: RunLengthPolicy) -> float:
    """The height of the CUSUM that counts; `weight` of each block since the baseline."""
    sd = sqrt(known.variance / baseline.weight_per_block)
    skew = baseline.jump / baseline.weight_per_block / sd
    looks = looks_within(baseline, weight, policy)
    return limit(Noise(sd, baseline.dof, skew), known.uncertainty, looks, target=policy.called_share, slack=policy.slack)


def looks_within(baseline: PinnedBaseline, weight: Any, policy: RunLengthPolicy) -> int:
    """Blocks in the policy's period, in blocks of the baseline's size: a model that gets ten times the outcomes has ten times the chances
    to be called. Never fewer than the calendar's, so that a slow week does not lower the limit."""
    calendar = policy.within_days * _DAY_S / baseline.block_s
    pace = float(weight.sum()) / len(weight) / baseline.weight_per_block if len(weight) >= LEAST_BLOCKS else 1.0
    return ceil(calendar * max(pace, 1.0))


def beyond_chance(tail: float, dof: int, skew: Any) -> Any:
    """How many standard errors chance alone passes with probability `tail`: Student's t, more where few errors make it skewed."""
    return student(tail, dof) * skewed_quantile(tail, skew) / NormalDist().inv_cdf(1 - tail)


@cache
def student(tail: float, dof: int) -> float:
    """The value that Student's t passes with probability `tail`."""
    from scipy.special import stdtrit  # scipy.stats takes 1 s to import

    return float(stdtrit(dof, 1 - tail))


def _sum(values: Any) -> float:
    return float(_array(values).sum())


def _array(values: Any) -> Any:
    import numpy as np

    return np.asarray(values, float)
