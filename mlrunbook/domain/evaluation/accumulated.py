"""Evidence that adds up: what all outcomes since the baseline was pinned say together, at whatever look.

A look adds a closed block of outcomes to a CUSUM; the limit keeps the promise of the policy (`run_length`). The baseline stays where it is
pinned: one that rolls learns the collapse. Looking more often than blocks close brings no outcome and changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from math import ceil, sqrt
from typing import Any

from mlrunbook.domain.evaluation.block_score import Scores
from mlrunbook.domain.evaluation.long_run_variance import LEAST_BATCHES, LEAST_BLOCKS, long_run_variance
from mlrunbook.domain.evaluation.performance import percent
from mlrunbook.domain.evaluation.run_length import limit
from mlrunbook.domain.policy.judging import DropPolicy, RunLengthPolicy

_DAY_S = 86_400.0
MOST_BLOCKS_AHEAD = 10**6


@dataclass(frozen=True)
class PinnedBaseline:
    """The period in which this version was last known healthy, in the scores of its own tally.

    `weight` is of all its `blocks`, which cover `block_s` each and held `outcomes`; `variance` as in `LongRunVariance.per_weight`.
    """

    blocks: int
    block_s: float
    outcomes: int
    weight: float
    variance: float
    dof: int
    source: str

    @property
    def weight_per_block(self) -> float:
        return self.weight / self.blocks

    @property
    def noise(self) -> float:
        """Standard deviation of what one block adds to the walk."""
        return sqrt(self.variance / self.weight_per_block)

    @property
    def uncertainty(self) -> float:
        """Standard error of the baseline's figure, relative to it."""
        return sqrt(self.variance / self.weight)


def pin(blocks: Scores, assets: Scores | None, *, outcomes: int, block_s: float) -> PinnedBaseline | None:
    """`blocks` scored against what they hold together (`block_score.Rates.of`), oldest first; `assets` likewise, one an asset.

    None: too few blocks and assets to know how much the figure varies by itself.
    """
    variance = long_run_variance(blocks, assets)
    weight, count = float(_array(blocks.weight).sum()), len(_array(blocks.weight))
    if variance is None or not variance.per_weight > 0:
        return None
    return PinnedBaseline(count, block_s, outcomes, weight, variance.per_weight, variance.dof, variance.source)


@dataclass(frozen=True)
class Walk:
    """Where the CUSUM stands: `height` against `limit`. `run` is the number of blocks since it last left 0, `called_after` of all blocks
    the one at which this run reached the limit. `fall` is of the run (of the last blocks where it is shorter than eight), `low` to
    `high` its interval; the outcomes a run is picked for exaggerate it a little, which the interval allows for."""

    blocks: int
    height: float
    limit: float
    run: int
    called_after: int | None
    fall: float
    low: float
    high: float


def walk(baseline: PinnedBaseline, since: Scores, policy: RunLengthPolicy) -> Walk:
    """`since`: one score a block closed since the baseline was pinned, oldest first."""
    import numpy as np

    fall, weight = _array(since.fall), _array(since.weight)
    height, most = heights(baseline, since, policy), limit_of(baseline, weight, policy)
    at_zero = np.flatnonzero(height <= 0)
    start = int(at_zero[-1]) + 1 if len(at_zero) else 0
    reached = np.flatnonzero(height[start:] >= most)
    judged = min(len(fall), max(len(fall) - start, LEAST_BATCHES))
    size, low, high = _fall(baseline, fall[len(fall) - judged :].sum(), weight[len(fall) - judged :].sum(), policy)
    return Walk(
        blocks=len(fall),
        height=float(height[-1]) if len(height) else 0.0,
        limit=most,
        run=len(fall) - start,
        called_after=start + int(reached[0]) + 1 if len(reached) else None,
        fall=size,
        low=low,
        high=high,
    )


def heights(baseline: PinnedBaseline, since: Scores, policy: RunLengthPolicy) -> Any:
    """The CUSUM after each block, in blocks of the baseline's size: numpy array."""
    import numpy as np

    path = np.cumsum((_array(since.fall) - policy.slack * _array(since.weight)) / baseline.weight_per_block)
    return path - np.minimum(np.minimum.accumulate(path), 0) if len(path) else path


def limit_of(baseline: PinnedBaseline, weight: Any, policy: RunLengthPolicy) -> float:
    """The height at which a fall is real; `weight` of each block since the baseline."""
    looks = looks_within(baseline, weight, policy)
    return limit(baseline.noise, baseline.uncertainty, baseline.dof, looks, target=policy.called_share, slack=policy.slack)


def looks_within(baseline: PinnedBaseline, weight: Any, policy: RunLengthPolicy) -> int:
    """Blocks in the policy's period, in blocks of the baseline's size: a model that gets ten times the outcomes has ten times the chances
    to be called. Never fewer than the calendar's, so that a slow week does not lower the limit."""
    calendar = policy.within_days * _DAY_S / baseline.block_s
    pace = float(weight.sum()) / len(weight) / baseline.weight_per_block if len(weight) >= LEAST_BLOCKS else 1.0
    return ceil(calendar * max(pace, 1.0))


def _fall(baseline: PinnedBaseline, fall: float, weight: float, policy: RunLengthPolicy) -> tuple[float, float, float]:
    """Relative fall over blocks of this weight, and its interval by Student's t."""
    from scipy.stats import t  # scipy takes 1 s to import: only where a fall is sized

    if not weight > 0:
        return 0.0, -1.0, 1.0
    size = float(fall / weight)
    half = float(t.ppf(0.5 + policy.confidence / 2, baseline.dof)) * sqrt(baseline.variance * (1 / weight + 1 / baseline.weight))
    return size, size - half, min(size + half, 1.0)


class Proof(StrEnum):
    """What the outcomes since the baseline prove."""

    REAL = "real"
    UNPROVEN = "unproven"
    RULED_OUT = "ruled_out"
    INSUFFICIENT = "insufficient"


@dataclass(frozen=True)
class Accumulated:
    """`undecided_for`: outcomes more until a planned fall would be proven, `undecided_until` when they have come at the present pace; both
    None where it is decided, or cannot be."""

    proof: Proof
    sentence: str
    walk: Walk | None = None
    undecided_for: int | None = None
    undecided_until: datetime | None = None


def judge_accumulated(
    baseline: PinnedBaseline | None, since: Scores, now: datetime, policy: RunLengthPolicy, drops: DropPolicy, *, figure: str = "F1"
) -> Accumulated:
    """Whether the figure has fallen since the baseline was pinned, beyond what an unchanged model shows in the policy's period.

    Ruled out: the interval of the fall ends below the medium limit. `since`: as in `walk`; `now`: when the newest block closed.
    """
    planned = percent(policy.planned_fall)
    if baseline is None:
        words = f"at least {LEAST_BLOCKS} blocks of outcomes are needed to know how much {figure} varies by itself"
        return Accumulated(Proof.INSUFFICIENT, f"baseline too short to prove a fall: {words}; keep collecting outcomes")
    if baseline.uncertainty > policy.most_uncertainty:
        more = ceil(baseline.outcomes * (baseline.uncertainty / policy.most_uncertainty) ** 2)
        words = f"its {figure} is known to within {percent(baseline.uncertainty)} (standard error) from {baseline.outcomes:,} outcomes"
        return Accumulated(
            Proof.INSUFFICIENT, f"baseline too short to prove {planned}: {words}; about {more:,} are needed, keep collecting outcomes"
        )
    seen = walk(baseline, since, policy)
    moved = f"{figure} {_moved(seen)} over the last {max(seen.run, min(seen.blocks, LEAST_BATCHES))} blocks"
    if seen.called_after is not None:
        promise = f"{percent(policy.called_share)} of unchanged models come this far in {policy.within_days} days"
        return Accumulated(Proof.REAL, f"{moved}: beyond chance, at most {promise}", seen)
    if seen.blocks and seen.high < drops.f1_medium:
        return Accumulated(Proof.RULED_OUT, f"{moved}: a fall of {percent(drops.f1_medium)} is ruled out", seen)
    ahead = blocks_ahead(seen, policy)
    outcomes = ceil(ahead * baseline.outcomes / baseline.blocks)
    until = now + timedelta(seconds=ahead * baseline.block_s)
    words = f"undecided until about {outcomes:,} more outcomes, {until:%d %b %Y %H:%M} UTC, for a fall of {planned}"
    return Accumulated(Proof.UNPROVEN, f"{moved}: {words}", seen, outcomes, until)


def blocks_ahead(seen: Walk, policy: RunLengthPolicy) -> int:
    """Blocks of the baseline's size until a planned fall that is there lifts the walk to its limit, on average."""
    return min(max(1, ceil((seen.limit - seen.height) / (policy.planned_fall - policy.slack))), MOST_BLOCKS_AHEAD)


def _moved(seen: Walk) -> str:
    interval = f"interval {percent(max(seen.low, 0))} to {percent(max(seen.high, 0))}"
    if seen.high <= 0:
        return f"rose {percent(-seen.fall)}"
    return f"fell {percent(seen.fall)} ({interval})" if seen.fall > 0 else f"did not fall ({interval})"


def _array(values: Any) -> Any:
    import numpy as np

    return np.asarray(values, float)
