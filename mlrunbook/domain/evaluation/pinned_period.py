"""Which period is the baseline, from when on outcomes speak against it, and how long their blocks are.

A baseline that rolls learns the collapse: a model that lost a little each week was proven fallen in none of 23 weeks. So the period is
pinned, and pinned anew only where something else was proven healthy: a new version that has served long enough, or a model that people
have found in order after it was called fallen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from mlrunbook.domain.evaluation.long_run_variance import LEAST_BLOCKS
from mlrunbook.domain.evaluation.outcome_blocks import MOST_BLOCKS, OutcomeBlocks
from mlrunbook.domain.evaluation.outcome_window import Span
from mlrunbook.domain.evaluation.performance import WindowMetrics
from mlrunbook.domain.tally import Confusion

USUAL = timedelta(days=7)
LADDER_S = (60.0, 300.0, 900.0, 3600.0, 21_600.0, 86_400.0, 604_800.0)
ERRORS_A_BLOCK = 5  # fewer, and single errors make the score


@dataclass(frozen=True)
class Course:
    """What bounds the periods of one model, up to the look: its `changes`, oldest first, and when its last incident was over."""

    changes: Sequence[datetime]
    last_incident_ended: datetime | None = None

    @property
    def last_change(self) -> datetime | None:
        return max(self.changes, default=None)


def usual_period(begin: datetime, course: Course, length: timedelta) -> Span | None:
    """The time of this length before `begin`, where the window looked at begins: since the last change, or before it where the model as it
    is now has not served long. None: there is no such time."""
    changes = sorted(at for at in course.changes if at <= begin)
    ended = course.last_incident_ended
    floor = max([begin - length, *changes[-1:], *([ended] if ended and ended <= begin else [])])
    own = Span(floor, begin)
    if not changes or begin - floor >= USUAL:
        return own if floor < begin else None
    change, earlier = changes[-1], changes[-2:-1]
    if ended is not None and ended > (earlier[0] if earlier else change - length):
        return own if floor < begin else None  # the time before the change was no good one
    before = Span(max([change - length, *earlier]), change)
    return max(own, before, key=lambda span: span.until - span.since)


def speaks_from(baseline: Span, course: Course) -> datetime:
    """From here on outcomes speak for the model as it is now."""
    bounds = [baseline.until, course.last_change, course.last_incident_ended]
    return max(at for at in bounds if at is not None)


def block_length(usual: WindowMetrics, baseline: Span, since: timedelta) -> float | None:
    """The shortest that usually holds a few errors, with enough blocks in the baseline to know how much the figure varies, and no more than
    a platform is asked for. None: the baseline is too short, or nobody knows how fast outcomes come."""
    whole = (baseline.until - baseline.since).total_seconds()
    fits = [s for s in LADDER_S if LEAST_BLOCKS <= whole / s <= MOST_BLOCKS]
    fits = [s for s in fits if since.total_seconds() / s <= MOST_BLOCKS] or fits[-1:]
    counted = (usual.outcomes_until or usual.until) - (usual.outcomes_since or usual.since)
    days, tally = counted / timedelta(days=1), usual.tally
    errors = tally.fp + tally.fn if isinstance(tally, Confusion) else tally.cases
    if not fits or days <= 0 or not tally.n:
        return None
    return next((s for s in fits if errors / days * s / 86_400 >= ERRORS_A_BLOCK), fits[-1])


def without_a_beginning(found: OutcomeBlocks) -> OutcomeBlocks:
    """Without the blocks before the first outcome: the model was not there yet."""
    empty = next((k for k, block in enumerate(found.blocks) if block.n), len(found.blocks))
    return replace(found, since=found.since + timedelta(seconds=empty * found.block_s), blocks=found.blocks[empty:])


def with_the_open_block(closed: OutcomeBlocks, open_: OutcomeBlocks, baseline: OutcomeBlocks) -> OutcomeBlocks:
    """A block is closed by time, or by as many outcomes as one of the baseline holds: where far more come than did, an hour is long."""
    held = sum(block.n for block in baseline.blocks)
    newest = [block for block in open_.blocks if block.n * len(baseline.blocks) >= held]
    return replace(closed, blocks=(*closed.blocks, *newest), by_asset=())


def may_be_pinned_anew(pinned: Span, course: Course, until: datetime) -> Span | None:
    """The time since a change that came after the pinned one, once it is long enough to take its place."""
    since = speaks_from(pinned, course)
    return Span(since, until) if since > pinned.until and until - since >= USUAL else None
