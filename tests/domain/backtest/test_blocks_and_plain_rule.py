"""How a log is cut into looks, and what the plain thresholds make of them."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mlrunbook.domain.backtest.blocks import LADDER_S, MOST_BLOCKS, BlockLog, VersionBlocks, block_length
from mlrunbook.domain.backtest.plain import drops_of, episodes
from mlrunbook.domain.backtest.suggestions import BINS, PARTS, Scores, better_threshold
from mlrunbook.domain.evaluation.block_score import Stacked

DAY = 86_400.0


def log_of(tp: list[float], block_s: float = DAY) -> BlockLog:
    caught = np.array(tp, float)
    counts = Stacked(caught, np.full_like(caught, 5.0), 100 - caught, np.full_like(caught, 900.0))
    return BlockLog(datetime(2025, 1, 1, tzinfo=UTC), block_s, 0.0, (VersionBlocks("v1", 0, counts),), {})


@given(span=st.floats(60, 20 * 365 * DAY), failures=st.integers(1, 10**7))
def test_a_log_has_a_bounded_number_of_looks(span: float, failures: int) -> None:
    length = block_length(span, failures)
    assert length in LADDER_S
    assert span / length <= MOST_BLOCKS or length == LADDER_S[-1]


def test_a_long_log_is_looked_at_by_whole_days() -> None:
    assert block_length(400 * DAY, 10**6) == DAY


def test_a_plain_alarm_is_a_fall_against_the_week_before_and_neighbours_are_one_episode() -> None:
    drops = drops_of(log_of([80] * 20 + [40, 40, 80, 40] + [80] * 20))
    (found,) = episodes(drops, 0.10)
    assert (found.first, found.last, found.looks) == (20, 23, 3)
    assert 0.35 < found.worst < 0.5
    assert np.isnan(drops[:7]).all()


def _scores(rng: np.random.Generator, threshold: float, failing_score: float) -> Scores:
    held, flagged = np.zeros((PARTS, BINS, 2)), np.zeros((PARTS, 4))
    for part in range(PARTS):
        failed = rng.random(2000) < 0.1
        score = np.clip(np.where(failed, failing_score, 0.2) + rng.normal(0, 0.1, 2000), 0, 0.999)
        np.add.at(held[part], ((score * BINS).astype(int), failed.astype(int)), 1)
        said = score >= threshold
        flagged[part] = [(said & failed).sum(), (said & ~failed).sum(), (~said & failed).sum(), (~said & ~failed).sum()]
    return Scores(held, flagged)


def test_a_threshold_is_suggested_only_where_it_is_surely_better() -> None:
    rng = np.random.default_rng(3)
    chosen, said = better_threshold(_scores(rng, threshold=0.75, failing_score=0.6))
    assert chosen is not None
    assert 0.35 < chosen < 0.55
    assert "better" in said
    assert better_threshold(_scores(rng, threshold=chosen, failing_score=0.6))[0] is None


def test_of_scores_that_say_nothing_no_threshold_is_suggested() -> None:
    assert better_threshold(_scores(np.random.default_rng(4), threshold=0.4, failing_score=0.2))[0] is None
