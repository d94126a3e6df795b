"""Outcomes by block of time, as a platform counts them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from mlrunbook.domain.tally import Tally, total

MOST_BLOCKS = 2100  # of one answer: a week of 5 minutes


@dataclass(frozen=True)
class OutcomeBlocks:
    """What is known of the predictions made from `since` on, in closed blocks of `block_s` each, oldest first; a block without any is in it
    too, and the last one may be shorter, where it holds as much already. All of them are mature: old enough for their outcomes to be no
    sample of the fast ones. `by_asset`: the same outcomes, one tally an asset; empty where the platform does not say."""

    since: datetime
    block_s: float
    blocks: tuple[Tally, ...]
    by_asset: tuple[Tally, ...] = ()

    @property
    def until(self) -> datetime:
        return self.since + timedelta(seconds=self.block_s * len(self.blocks))

    @property
    def tally(self) -> Tally | None:
        """All together; None without a block."""
        return total(self.blocks)


@dataclass(frozen=True)
class OutcomeHistory:
    """`baseline` is pinned: the last period in which the model was proven healthy. `since`: everything after it that speaks for the model
    as it is now, in blocks of the same length. `after_change`: it begins at a change that the evaluation window begins at too."""

    baseline: OutcomeBlocks
    since: OutcomeBlocks
    after_change: bool = False
